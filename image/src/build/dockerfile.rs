//! The images that a Dockerfile names by `ipfs://`, replaced by other names.
//!
//! Imports nothing of this crate. Pure: text in, text out; every byte but those names stays. Looked at are `FROM`, the
//! defaults of `ARG` before the first `FROM`, `COPY --from` and `RUN --mount=...,from=`. Comments, here-documents and
//! everything else are left alone.

/// How a name begins that is replaced.
pub const SCHEME: &str = "ipfs://";

/// The instruction that a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    From,
    /// Before the first `FROM`.
    GlobalArgument,
    /// `COPY` and `ADD`.
    Copy,
    Run,
    Other,
}

/// The names in a Dockerfile that begin with `ipfs://`, once each, in order.
pub fn names(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    rewrite(text, &mut |name| {
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
        name.to_owned()
    });
    found
}

/// The same Dockerfile with each name that begins with `ipfs://` replaced.
pub fn rewrite(text: &str, replace: &mut dyn FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut reader =
        Reader { escape: escape(text), instruction: None, has_from: false, in_flags: true, documents: Vec::new() };
    for line in text.split_inclusive('\n') {
        out.push_str(&reader.line(line, replace));
    }
    out
}

/// Replaces the name in a `NAME=VALUE` pair of a build argument, if there is one.
pub fn rewrite_argument(pair: &str, replace: &mut dyn FnMut(&str) -> String) -> String {
    match pair.split_once('=') {
        Some((name, value)) if value.starts_with(SCHEME) => format!("{name}={}", replace(value)),
        _ => pair.to_owned(),
    }
}

/// The character that joins lines: a directive at the very top may set it.
fn escape(text: &str) -> char {
    for line in text.lines() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else { break };
        if name.trim().eq_ignore_ascii_case("escape") {
            return if value.trim() == "`" { '`' } else { '\\' };
        }
    }
    '\\'
}

struct Reader {
    escape: char,
    /// The instruction that goes on in this line.
    instruction: Option<Instruction>,
    has_from: bool,
    /// Whether only flags of the instruction were seen so far.
    in_flags: bool,
    /// Here-documents that are to come, or are being read: their ends, and whether those may be indented.
    documents: Vec<(String, bool)>,
}

impl Reader {
    fn line(&mut self, line: &str, replace: &mut dyn FnMut(&str) -> String) -> String {
        if self.instruction.is_none()
            && let Some((end, may_be_indented)) = self.documents.first()
        {
            let text = line.trim_end_matches(['\n', '\r']);
            let text = if *may_be_indented { text.trim_start_matches('\t') } else { text };
            if text == end {
                self.documents.remove(0);
            }
            return line.to_owned();
        }
        let trimmed = line.trim();
        if trimmed.starts_with('#') || (trimmed.is_empty() && self.instruction.is_some()) {
            return line.to_owned();
        }
        let begins = self.instruction.is_none();
        let instruction = match self.instruction {
            Some(instruction) => instruction,
            None => self.begin(trimmed),
        };
        let mut is_first = begins;
        let out = map_words(line, &mut |word| {
            if std::mem::take(&mut is_first) {
                return word.to_owned();
            }
            self.word(instruction, word, replace)
        });
        self.instruction = trimmed.ends_with(self.escape).then_some(instruction);
        out
    }

    fn begin(&mut self, line: &str) -> Instruction {
        self.in_flags = true;
        let name = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match name.as_str() {
            "FROM" => {
                self.has_from = true;
                Instruction::From
            }
            "ARG" if !self.has_from => Instruction::GlobalArgument,
            "COPY" | "ADD" => Instruction::Copy,
            "RUN" => Instruction::Run,
            _ => Instruction::Other,
        }
    }

    fn word(&mut self, instruction: Instruction, word: &str, replace: &mut dyn FnMut(&str) -> String) -> String {
        let is_flag = word.starts_with("--");
        let in_flags = self.in_flags;
        self.in_flags = in_flags && (is_flag || word == self.escape.to_string());
        match instruction {
            Instruction::From if in_flags && word.starts_with(SCHEME) => return replace(word),
            Instruction::GlobalArgument => {
                if let Some((name, value)) = word.split_once('=') {
                    let bare = value.trim_matches(['"', '\'']);
                    if bare.starts_with(SCHEME) {
                        return format!("{name}={}", value.replace(bare, &replace(bare)));
                    }
                }
            }
            Instruction::Copy if in_flags => {
                if let Some(name) = word.strip_prefix("--from=").filter(|name| name.starts_with(SCHEME)) {
                    return format!("--from={}", replace(name));
                }
            }
            Instruction::Run if in_flags && word.starts_with("--mount=") => {
                let field = |field: &str| match field.strip_prefix("from=").filter(|name| name.starts_with(SCHEME)) {
                    Some(name) => format!("from={}", replace(name)),
                    None => field.to_owned(),
                };
                return word.split(',').map(field).collect::<Vec<_>>().join(",");
            }
            _ => {}
        }
        if matches!(instruction, Instruction::Copy | Instruction::Run)
            && let Some(document) = here_document(word)
        {
            self.documents.push(document);
        }
        word.to_owned()
    }
}

/// The end of a here-document that a word announces: `<<END`, `<<-"END"`.
fn here_document(word: &str) -> Option<(String, bool)> {
    let rest = &word[word.find("<<")? + 2..];
    let (rest, may_be_indented) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let end: String = rest
        .trim_matches(['"', '\''])
        .chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect();
    (!end.is_empty() && !rest.starts_with('<')).then_some((end, may_be_indented))
}

/// Replaces every word and leaves the space between them.
fn map_words(line: &str, replace: &mut dyn FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let space = rest.find(|letter: char| !letter.is_whitespace()).unwrap_or(rest.len());
        out.push_str(&rest[..space]);
        rest = &rest[space..];
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        if word > 0 {
            out.push_str(&replace(&rest[..word]));
        }
        rest = &rest[word..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        rewrite(text, &mut |name| format!("HERE/{}", &name[SCHEME.len()..]))
    }

    #[test]
    fn images_are_renamed_wherever_they_are_named() {
        for (text, expected) in [
            ("FROM ipfs://a\n", "FROM HERE/a\n"),
            ("from --platform=linux/arm64  ipfs://a  AS b", "from --platform=linux/arm64  HERE/a  AS b"),
            (
                "FROM --platform=$X \\\n  # why\n  ipfs://a as b\r\n",
                "FROM --platform=$X \\\n  # why\n  HERE/a as b\r\n",
            ),
            ("ARG BASE=ipfs://a\nARG B=\"ipfs://b\"\nFROM $BASE\n", "ARG BASE=HERE/a\nARG B=\"HERE/b\"\nFROM $BASE\n"),
            ("COPY --chown=1 --from=ipfs://a /x /y\n", "COPY --chown=1 --from=HERE/a /x /y\n"),
            (
                "RUN --mount=type=bind,from=ipfs://a,target=/x cat ipfs://a\n",
                "RUN --mount=type=bind,from=HERE/a,target=/x cat ipfs://a\n",
            ),
            ("# escape=`\nFROM `\nipfs://a\n", "# escape=`\nFROM `\nHERE/a\n"),
        ] {
            assert_eq!(rewritten(text), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "FROM alpine AS ipfs://a\n",
            "# FROM ipfs://a\n",
            "FROM x\nARG A=ipfs://a\nLABEL l=ipfs://a\nCOPY ipfs://a /x\nRUN echo --from=ipfs://a\n",
            "FROM x\nRUN <<END\nFROM ipfs://a\nEND\n",
            "FROM x\nCOPY <<-'END' /x\nFROM ipfs://a\n\tEND\n",
            "FROM x\nRUN a \\\n\nFROM ipfs://a\n",
            "",
            "FROM",
        ] {
            assert_eq!(rewritten(text), text);
        }
        assert_eq!(
            rewritten("FROM x\nRUN <<A <<B\nA\nFROM ipfs://a\nB\nFROM ipfs://b"),
            "FROM x\nRUN <<A <<B\nA\nFROM ipfs://a\nB\nFROM HERE/b"
        );
    }

    #[test]
    fn names_are_told_once_each() {
        assert_eq!(names("FROM ipfs://a\nFROM ipfs://b\nCOPY --from=ipfs://a x y\n"), ["ipfs://a", "ipfs://b"]);
        let mut replace = |name: &str| name.to_ascii_uppercase();
        assert_eq!(rewrite_argument("A=ipfs://a", &mut replace), "A=IPFS://A");
        assert_eq!(rewrite_argument("A=x", &mut replace), "A=x");
        assert_eq!(rewrite_argument("A", &mut replace), "A");
    }
}
