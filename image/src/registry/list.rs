//! Lists: tags and repositories, a page at a time.
//!
//! Imports the answers beside it. Pure.

use hyper::header;

use super::{
    answer::{Answer, set, text},
    error::{Code, Refusal},
    route::value,
};

/// Entries of a page when no number is asked for, and the most that are sent.
const MAX_ENTRIES: usize = 10_000;

/// The tags of a repository.
pub(super) fn tags(name: &str, tags: Vec<String>, query: &[(String, String)]) -> Result<Answer, Refusal> {
    let (tags, next) = page(tags, query)?;
    let answer = text("application/json", serde_json::json!({ "name": name, "tags": tags }).to_string());
    Ok(linked(answer, next.map(|rest| format!("/v2/{name}/tags/list?{rest}"))))
}

/// The repositories.
pub(super) fn catalog(names: Vec<String>, query: &[(String, String)]) -> Result<Answer, Refusal> {
    let (names, next) = page(names, query)?;
    let answer = text("application/json", serde_json::json!({ "repositories": names }).to_string());
    Ok(linked(answer, next.map(|rest| format!("/v2/_catalog?{rest}"))))
}

/// The entries after `last`, at most `n`, and how to ask for more.
fn page(mut entries: Vec<String>, query: &[(String, String)]) -> Result<(Vec<String>, Option<String>), Refusal> {
    if let Some(last) = value(query, "last") {
        entries.retain(|entry| entry.as_str() > last);
    }
    let count = match value(query, "n") {
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| Refusal::new(Code::PaginationInvalid, format!("`{}` is not a number", text.escape_debug())))?,
        None => MAX_ENTRIES,
    };
    let count = count.min(MAX_ENTRIES);
    let is_more = entries.len() > count;
    entries.truncate(count);
    let next = entries.last().filter(|_| is_more).map(|last| format!("n={count}&last={last}"));
    Ok((entries, next))
}

fn linked(mut answer: Answer, next: Option<String>) -> Answer {
    if let Some(next) = next {
        set(&mut answer, header::LINK, format!("<{next}>; rel=\"next\""));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another() {
        let all = || ["a", "b", "c"].map(str::to_owned).to_vec();
        let asked = |pairs: &[(&str, &str)]| {
            let query: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            page(all(), &query)
        };
        assert_eq!(asked(&[]).expect("a page"), (all(), None));
        assert_eq!(asked(&[("n", "2")]).expect("a page"), (all()[..2].to_vec(), Some("n=2&last=b".into())));
        assert_eq!(asked(&[("n", "2"), ("last", "b")]).expect("a page"), (vec!["c".into()], None));
        assert_eq!(asked(&[("n", "0")]).expect("a page"), (Vec::new(), None));
        assert_eq!(asked(&[("last", "x")]).expect("a page"), (Vec::new(), None));
        assert!(asked(&[("n", "-1")]).is_err());
    }
}
