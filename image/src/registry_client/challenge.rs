//! What a registry says that it wants when it answers 401.
//!
//! Imports nothing of this crate. Pure: reads `WWW-Authenticate`, whose text is a stranger's.

use std::collections::BTreeMap;

/// Longest header that is looked at, in bytes.
const MAX_HEADER_BYTES: usize = 8 << 10;

/// A way to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token, to be had at `realm`.
    Bearer {
        /// Address of whoever gives tokens out.
        realm: String,
        /// What the registry is called there.
        service: Option<String>,
    },
    /// A name and a password.
    Basic,
}

impl Challenge {
    /// The best of the ways in `headers`: a token rather than a password.
    pub(super) fn best<'h>(headers: impl Iterator<Item = &'h str>) -> Option<Self> {
        let all: Vec<Self> = headers.filter(|text| text.len() <= MAX_HEADER_BYTES).flat_map(parse).collect();
        let bearer = all.iter().find(|challenge| matches!(challenge, Self::Bearer { .. }));
        bearer.or_else(|| all.first()).cloned()
    }
}

/// The challenges of one header, which may hold several.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', ',']).unwrap_or(rest.len());
        let scheme = rest[..end].to_ascii_lowercase();
        let (mut parameters, after) = parameters(rest[end..].trim_start_matches([' ', ',']));
        match scheme.as_str() {
            "bearer" => found.extend(
                parameters
                    .remove("realm")
                    .map(|realm| Challenge::Bearer { realm, service: parameters.remove("service") }),
            ),
            "basic" => found.push(Challenge::Basic),
            _ => {}
        }
        rest = after;
    }
    found
}

/// Reads `key=value` and `key="value"` up to the next scheme.
fn parameters(mut text: &str) -> (BTreeMap<String, String>, &str) {
    let mut found = BTreeMap::new();
    loop {
        let Some((key, rest)) = text.split_once('=') else {
            return (found, if found_scheme(text) { text } else { "" });
        };
        if key.trim().contains([' ', ',']) {
            // Another scheme begins before the next parameter.
            return (found, text);
        }
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let mut end = rest.len();
        if let Some(quoted) = rest.strip_prefix('"') {
            letters = quoted.char_indices();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '"' => {
                        end = at + 2;
                        break;
                    }
                    '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
                    letter => value.push(letter),
                }
            }
        } else {
            for (at, letter) in letters {
                if matches!(letter, ',' | ' ') {
                    end = at;
                    break;
                }
                value.push(letter);
            }
        }
        found.insert(key.trim().to_ascii_lowercase(), value);
        text = rest.get(end..).unwrap_or("").trim_start_matches([' ', ',']);
        if text.is_empty() {
            return (found, "");
        }
    }
}

fn found_scheme(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        let best = |text: &str| Challenge::best([text].into_iter());
        let whole =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        assert_eq!(best(whole), bearer("https://auth.example/token", Some("registry.example")));
        assert_eq!(best(r#"Basic realm="Registry Realm""#), Some(Challenge::Basic));
        assert_eq!(best("Basic"), Some(Challenge::Basic));
        assert_eq!(best(r#"Basic realm="x, y", Bearer realm="https://a/t""#), bearer("https://a/t", None));
        assert_eq!(best(r#"bearer service=x, realm="https://a/\"t""#), bearer("https://a/\"t", Some("x")));
        assert_eq!(best(r#"Negotiate, Basic realm="x""#), Some(Challenge::Basic));
        for text in ["", "Bearer", "Bearer service=\"x\"", "Digest realm=\"x\"", "=", "\"", "Bearer realm"] {
            assert_eq!(best(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_ends_and_never_panics(text in "\\PC{0,80}|[a-zB=\", \\\\]{0,60}") {
            Challenge::best([text.as_str()].into_iter());
        }
    }
}
