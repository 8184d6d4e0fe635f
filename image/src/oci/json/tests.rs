//! What Go makes of text and numbers.

use std::collections::BTreeMap;

use super::{write::write_string, *};

#[derive(Debug, Default, PartialEq)]
struct Sample {
    name: String,
    size: i64,
    tags: Vec<String>,
    notes: BTreeMap<String, String>,
    data: Vec<u8>,
    inner: Option<Box<Sample>>,
    list: Option<Vec<Sample>>,
}

impl Fields for Sample {
    fn fill(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        match field(key, &["name", "size", "tags", "notes", "data", "inner", "list"]) {
            Some("name") => reader.string(&mut self.name),
            Some("size") => reader.integer(&mut self.size),
            Some("tags") => reader.strings(&mut self.tags),
            Some("notes") => reader.map(&mut self.notes),
            Some("data") => reader.base64(&mut self.data),
            Some("inner") => {
                let mut inner = self.inner.take().map(|inner| *inner);
                reader.optional(&mut inner)?;
                self.inner = inner.map(Box::new);
                Ok(())
            }
            Some("list") => reader.structs(&mut self.list),
            _ => reader.skip(),
        }
    }
}

fn parse(text: &str) -> Result<Sample, JsonError> {
    Reader::document(text.as_bytes())
}

fn problem(text: &str) -> JsonProblem {
    parse(text).expect_err(text).problem
}

fn name_of(bytes: &[u8]) -> String {
    Reader::document::<Sample>(bytes).expect("parses").name
}

#[test]
fn keys_match_as_go_matches_them() {
    for key in ["name", "Name", "NAME", "nAmE", "\\u006eame"] {
        assert_eq!(parse(&format!(r#"{{"{key}":"x"}}"#)).expect("parses").name, "x", "{key}");
    }
    assert_eq!(parse("{\"\u{17f}ize\":3}").expect("parses").size, 3, "long s folds to s");
    assert_eq!(parse(r#"{"nàme":"x"}"#).expect("parses").name, "");
}

/// All of this was checked against Go 1.26's `json.Unmarshal`.
#[test]
fn repeated_keys_fill_what_is_there() {
    assert_eq!(parse(r#"{"name":"a","NAME":"b"}"#).expect("parses").name, "b");
    assert_eq!(parse(r#"{"name":"a","name":null}"#).expect("parses").name, "a");
    let merged = parse(r#"{"inner":{"name":"a","size":1},"inner":{"size":2}}"#).expect("parses");
    assert_eq!(merged.inner.map(|inner| (inner.name, inner.size)), Some(("a".into(), 2)));
    let merged = parse(r#"{"list":[{"name":"a"},{"name":"b"}],"list":[{"size":7}]}"#).expect("parses");
    assert_eq!(merged.list.expect("list")[..], [Sample { name: "a".into(), size: 7, ..Sample::default() }]);
    let merged = parse(r#"{"notes":{"a":"1","b":"2"},"notes":{"b":null}}"#).expect("parses");
    assert_eq!(merged.notes, BTreeMap::from([("a".into(), "1".into()), ("b".into(), String::new())]));
}

#[test]
fn null_leaves_scalars_and_empties_the_rest() {
    let text = r#"{"name":null,"size":null,"tags":null,"notes":null,"data":null,"inner":null,"list":null}"#;
    assert_eq!(parse(text).expect("parses"), Sample::default());
    assert_eq!(parse("null").expect("parses"), Sample::default());
    assert_eq!(parse(r#"{"tags":["a",null]}"#).expect("parses").tags, ["a", ""]);
    assert_eq!(parse(r#"{"list":[]}"#).expect("parses").list.map(|list| list.len()), Some(0));
}

#[test]
fn strings_are_resolved_as_go_resolves_them() {
    assert_eq!(name_of(br#"{"name":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}"#), "\"\\/\u{8}\u{c}\n\r\té😀");
    assert_eq!(name_of(br#"{"name":"\ud800x\udc00\ud800\u0041"}"#), "\u{fffd}x\u{fffd}\u{fffd}A");
    assert_eq!(
        name_of(b"{\"name\":\"a\xff\xe2\x82b\xed\xa0\x80\"}"),
        "a\u{fffd}\u{fffd}\u{fffd}b\u{fffd}\u{fffd}\u{fffd}"
    );
}

#[test]
fn b1_malformed_documents_are_refused() {
    for text in [
        "",
        " ",
        "{",
        "{]",
        "{\"name\"}",
        "{\"name\":}",
        "{\"name\":\"",
        "{\"name\":\"\\x\"}",
        "{\"name\":\"\\u12g4\"}",
        "{\"x\":\"\u{1}\"}",
        "{\"x\":01}",
        "{\"x\":1.}",
        "{\"x\":.5}",
        "{\"x\":1e}",
        "{\"x\":+1}",
        "{\"x\":tru}",
        "{\"x\":nul}",
        "{\"x\":1,}",
        "{\"x\":[1,]}",
        "{,}",
        "{\"x\":NaN}",
        "\u{feff}{}",
        "{'x':1}",
        "{x:1}",
        "{\"x\":[1 2]}",
        "{\"x\":1 \"y\":2}",
    ] {
        assert_eq!(problem(text), JsonProblem::Syntax, "{text:?}");
    }
    for text in [
        "[]",
        "1",
        "\"x\"",
        "true",
        "{\"name\":1}",
        "{\"size\":\"1\"}",
        "{\"size\":1.0}",
        "{\"size\":1e3}",
        "{\"size\":9223372036854775808}",
        "{\"tags\":\"x\"}",
        "{\"tags\":[1]}",
        "{\"notes\":[]}",
        "{\"notes\":{\"a\":1}}",
        "{\"list\":{}}",
        "{\"list\":[1]}",
        "{\"data\":\"A\"}",
        "{\"data\":\"AA=A\"}",
        "{\"data\":\"A===\"}",
        "{\"data\":\"AAAA=\"}",
        "{\"data\":\"A_AA\"}",
    ] {
        assert!(matches!(problem(text), JsonProblem::Type(_)), "{text:?}");
    }
    assert_eq!(problem("{} {}"), JsonProblem::Trailing);
    assert!(Reader::first::<Sample>(b" {\"name\":\"x\"} trailing").is_ok_and(|sample| sample.name == "x"));
}

#[test]
fn b5_nesting_is_bounded() {
    let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(MAX_NESTING - 1)).is_ok());
    assert_eq!(problem(&nested(MAX_NESTING)), JsonProblem::Nesting);
    assert_eq!(problem(&"{\"x\":".repeat(1 << 20)), JsonProblem::Nesting);
    let deep = format!("{}{}", "{\"inner\":".repeat(200), "{}".to_owned() + &"}".repeat(200));
    assert_eq!(problem(&deep), JsonProblem::Nesting);
}

#[test]
fn integers_are_exact() {
    assert_eq!(parse("{\"size\":-0}").expect("parses").size, 0);
    assert_eq!(parse("{\"size\":9223372036854775807}").expect("parses").size, i64::MAX);
    assert_eq!(parse("{\"size\":-9223372036854775808}").expect("parses").size, i64::MIN);
}

#[test]
fn base64_is_read_leniently_and_written_strictly() {
    let data = |text: &str| parse(&format!(r#"{{"data":"{text}"}}"#)).map(|sample| sample.data);
    assert_eq!(data("e30=").expect("parses"), b"{}");
    assert_eq!(data("e3\\r\\n1=").expect("parses"), b"{}", "left-over bits and line ends are ignored");
    assert_eq!(data("").expect("parses"), b"");
    for bytes in [&b""[..], b"a", b"ab", b"abc", b"\xff\xfe\xfd\xfc"] {
        assert_eq!(base64::decode(&base64::encode(bytes)).as_deref(), Some(bytes));
    }
}

#[test]
fn strings_are_written_as_go_writes_them() {
    let mut out = Vec::new();
    write_string(&mut out, "<a href=\"x\">&amp;\\\u{2028}\u{2029}\u{0}\u{8}\u{c}\n\r\t\u{1f}\u{7f}é😀\u{fffd}/");
    let expected = "\"\\u003ca href=\\\"x\\\"\\u003e\\u0026amp;\\\\\\u2028\\u2029\\u0000\\b\\f\\n\\r\\t\\u001f\u{7f}é😀\u{fffd}/\"";
    assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
}

proptest::proptest! {
    /// Whatever is written is read back; and no bytes make the reader panic.
    #[test]
    fn round_trip_and_no_panic(text in ".*", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        ObjectWriter::open(&mut out).string("name", &text).base64_unless_empty("data", &bytes).close();
        let read = Reader::document::<Sample>(&out).expect("parses");
        proptest::prop_assert_eq!((read.name, read.data), (text, bytes.clone()));
        let _ = Reader::document::<Sample>(&bytes);
        let _ = Reader::first::<Sample>(&[&b"{\"x\":"[..], &bytes].concat());
    }
}
