//! `--change`: one instruction of a Dockerfile, done to an image's configuration.
//!
//! Imports nothing but the cleaning of paths. Pure. The words mean what they mean to `docker commit`: quotes, backslashes and
//! `$NAME` in all but commands, and a JSON list or a shell's line for commands.

use serde_json::{Map, Value, json};

use crate::run::settings::cleaned;

/// Most ports of one range.
const MAX_PORTS: usize = 65_536;
/// What runs a command that is written as a line.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Carries `text` out on the `config` of an image's configuration.
///
/// # Errors
/// [`ChangeError`] says what about it cannot be understood.
pub fn change(config: &mut Map<String, Value>, text: &str) -> Result<(), ChangeError> {
    let text = text.trim();
    let (instruction, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let refused = |problem| ChangeError { text: text.chars().take(200).collect(), problem };
    if rest.is_empty() && !matches!(instruction.to_ascii_uppercase().as_str(), "CMD" | "ENTRYPOINT") {
        return Err(refused("nothing follows"));
    }
    if text.contains('\0') {
        return Err(refused("there is a zero byte in it"));
    }
    let environment = texts(config.get("Env"));
    let words = |text: &str| words(text, &environment).map_err(refused);
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => drop(config.insert("Cmd".to_owned(), command(rest))),
        "ENTRYPOINT" => drop(config.insert("Entrypoint".to_owned(), command(rest))),
        "ENV" => {
            let mut all = environment.clone();
            for (name, value) in pairs(rest, &words)? {
                let own = format!("{name}={value}");
                match all.iter_mut().find(|pair| pair.split('=').next() == Some(&name)) {
                    Some(pair) => *pair = own,
                    None => all.push(own),
                }
            }
            config.insert("Env".to_owned(), json!(all));
        }
        "LABEL" => {
            for (name, value) in pairs(rest, &words)? {
                object(config, "Labels").insert(name, json!(value));
            }
        }
        "EXPOSE" => {
            for word in words(rest)? {
                for port in ports(&word).ok_or_else(|| refused("a port is PORT[-PORT][/tcp|udp|sctp]"))? {
                    object(config, "ExposedPorts").insert(port, json!({}));
                }
            }
        }
        "VOLUME" => {
            let listed = serde_json::from_str::<Vec<String>>(rest);
            for path in listed.map_or_else(|_| words(rest), Ok)? {
                object(config, "Volumes").insert(path, json!({}));
            }
        }
        "USER" => drop(config.insert("User".to_owned(), json!(words(rest)?.join(" ")))),
        "STOPSIGNAL" => drop(config.insert("StopSignal".to_owned(), json!(words(rest)?.join(" ")))),
        "WORKDIR" => {
            let wanted = words(rest)?.join(" ");
            let current = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let path = if wanted.starts_with('/') { wanted } else { format!("{current}/{wanted}") };
            config.insert("WorkingDir".to_owned(), json!(cleaned(&path)));
        }
        _ => {
            return Err(refused(
                "it begins with none of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR",
            ));
        }
    }
    Ok(())
}

/// Whether `text` says the entry point or the command of an image.
pub(super) fn is_about(text: &str, instruction: &str) -> bool {
    text.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(instruction))
}

/// A list of words, or a line for a shell.
fn command(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    let listed: Result<Vec<String>, _> = serde_json::from_str(text);
    listed.map_or_else(|_| json!([SHELL[0], SHELL[1], text]), |words| json!(words))
}

/// The strings of a list.
pub(super) fn texts(list: Option<&Value>) -> Vec<String> {
    let all = list.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn object<'c>(config: &'c mut Map<String, Value>, name: &str) -> &'c mut Map<String, Value> {
    let slot = config.entry(name).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("it was made one just now")
}

/// `NAME=VALUE ...`, or one `NAME VALUE`.
fn pairs(
    text: &str,
    words: &dyn Fn(&str) -> Result<Vec<String>, ChangeError>,
) -> Result<Vec<(String, String)>, ChangeError> {
    let refused = |problem| ChangeError { text: text.chars().take(200).collect(), problem };
    let first = text.split_whitespace().next().unwrap_or_default();
    let pairs = if first.contains('=') {
        let split = |word: String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        words(text)?.into_iter().map(split).collect::<Option<Vec<_>>>().ok_or_else(|| refused("a pair has no `=`"))?
    } else {
        let value = text[first.len()..].trim();
        if value.is_empty() {
            return Err(refused("a name has no value"));
        }
        vec![(first.to_owned(), words(value)?.join(" "))]
    };
    if pairs.iter().any(|(name, _)| name.is_empty()) { Err(refused("a name is empty")) } else { Ok(pairs) }
}

/// What one word of EXPOSE means.
fn ports(word: &str) -> Option<Vec<String>> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let ports = first..=last;
    if ports.is_empty() || ports.len() > MAX_PORTS {
        return None;
    }
    Some(ports.map(|port| format!("{port}/{protocol}")).collect())
}

/// The words of a line, their quotes taken off and their variables filled in.
fn words(text: &str, environment: &[String]) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut ahead = text.chars().peekable();
    while let Some(letter) = ahead.next() {
        if letter.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match letter {
            '\'' => loop {
                match ahead.next().ok_or("a quote is not closed")? {
                    '\'' => break,
                    other => word.push(other),
                }
            },
            '"' => loop {
                match ahead.next().ok_or("a quote is not closed")? {
                    '"' => break,
                    '\\' if ahead.peek().is_some_and(|next| matches!(next, '"' | '\\' | '$')) => {
                        word.extend(ahead.next())
                    }
                    '$' => word.push_str(&variable(&mut ahead, environment)?),
                    other => word.push(other),
                }
            },
            '\\' => word.push(ahead.next().ok_or("a backslash stands at its end")?),
            '$' => word.push_str(&variable(&mut ahead, environment)?),
            other => word.push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// What a variable stands for, whose `$` was read.
fn variable(
    ahead: &mut std::iter::Peekable<std::str::Chars<'_>>,
    environment: &[String],
) -> Result<String, &'static str> {
    let is_braced = ahead.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(letter) = ahead.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_') {
        name.push(letter);
    }
    if is_braced && (name.is_empty() || ahead.next() != Some('}')) {
        return Err("of variables, only `$NAME` and `${NAME}` are known");
    }
    if name.is_empty() {
        return Ok("$".to_owned());
    }
    let value = environment.iter().find_map(|pair| pair.strip_prefix(&name)?.strip_prefix('='));
    Ok(value.unwrap_or_default().to_owned())
}

/// An instruction that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot be done to an image: {problem}", text.escape_debug())]
pub struct ChangeError {
    /// The instruction.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(texts: &[&str]) -> Value {
        let mut config = json!({"Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv"}).as_object().expect("one").clone();
        for text in texts {
            change(&mut config, text).expect(text);
        }
        Value::Object(config)
    }

    #[test]
    fn instructions_mean_what_they_mean_to_docker() {
        for (text, name, expected) in [
            (r#"CMD ["a", "b c"]"#, "Cmd", json!(["a", "b c"])),
            ("cmd echo $HOME", "Cmd", json!(["/bin/sh", "-c", "echo $HOME"])),
            ("ENTRYPOINT [\"/e\"]", "Entrypoint", json!(["/e"])),
            ("ENTRYPOINT", "Entrypoint", Value::Null),
            ("ENV B=2 C=\"3 4\" D='$A'", "Env", json!(["PATH=/bin", "A=1", "B=2", "C=3 4", "D=$A"])),
            ("ENV PATH=$PATH:/x", "Env", json!(["PATH=/bin:/x", "A=1"])),
            ("ENV PATH ${PATH}:/y z", "Env", json!(["PATH=/bin:/y z", "A=1"])),
            (r"ENV B=a\ b", "Env", json!(["PATH=/bin", "A=1", "B=a b"])),
            ("LABEL one=1 two.three=\"a \\\"b\\\"\"", "Labels", json!({"one": "1", "two.three": "a \"b\""})),
            (
                "EXPOSE 80 53/udp 8000-8002",
                "ExposedPorts",
                json!({"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}),
            ),
            ("VOLUME /a /b", "Volumes", json!({"/a": {}, "/b": {}})),
            (r#"VOLUME ["/a b"]"#, "Volumes", json!({"/a b": {}})),
            ("USER web:log", "User", json!("web:log")),
            ("WORKDIR /x/../y", "WorkingDir", json!("/y")),
            ("WORKDIR z", "WorkingDir", json!("/srv/z")),
            ("STOPSIGNAL SIGINT", "StopSignal", json!("SIGINT")),
        ] {
            assert_eq!(changed(&[text])[name], expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for text in [
            "",
            "FROM x",
            "RUN true",
            "ENV",
            "ENV A",
            "ENV =1",
            "ENV A='1",
            "ENV A=${B:-c}",
            "ENV A=1 B",
            "LABEL",
            "EXPOSE 80/icmp",
            "EXPOSE 70000",
            "EXPOSE 9-8",
            "EXPOSE x",
            "USER",
            "WORKDIR ",
            "ENV A=\\",
            "ENV A=\0",
        ] {
            let mut config = Map::new();
            let error = change(&mut config, text).expect_err(text);
            assert!(config.is_empty(), "{text}: {error}");
        }
    }
}
