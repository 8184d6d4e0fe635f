//! What an image says about running it: the `config` of its configuration, read strictly.
//!
//! Imports the settings beside it. Everything in it came from a stranger. Labels are read by nobody, so they never change
//! what happens on the host.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::settings::Settings;

/// Most words of a command and variables of an environment together: far more than programs need, far less than hurts.
const MAX_WORDS: usize = 4096;
/// Search path where an image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image says about running it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageProcess {
    /// Whom to run as.
    pub user: String,
    /// `NAME=VALUE` pairs.
    pub environment: Vec<String>,
    /// What every command is run with.
    pub entrypoint: Vec<String>,
    /// The command, unless the user gives one.
    pub command: Vec<String>,
    /// Where to run it.
    pub working_directory: String,
    /// The signal that asks it to end.
    pub stop_signal: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Fields {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

/// Why an image cannot be run as it says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageProcessError {
    /// It is not JSON of the right types.
    #[error("the image's configuration cannot be read")]
    Json(#[source] serde_json::Error),
    /// A word holds a zero byte, or there are too many.
    #[error("the image's configuration has a `{0}` that no process can have")]
    Field(&'static str),
    /// Nobody says what to run.
    #[error("neither the image nor the command line says what to run")]
    NoCommand,
}

impl ImageProcess {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ImageProcessError`] when it is not JSON of the right types, or holds what no process can have.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageProcessError> {
        // An object each: a list would do as well for a struct.
        let mut document: Map<String, Value> = serde_json::from_slice(bytes).map_err(ImageProcessError::Json)?;
        let config: Option<Map<String, Value>> = document
            .remove("config")
            .map(serde_json::from_value)
            .transpose()
            .map_err(ImageProcessError::Json)?
            .flatten();
        let fields = Value::Object(config.unwrap_or_default());
        let fields: Fields = serde_json::from_value(fields).map_err(ImageProcessError::Json)?;
        let read = Self {
            user: fields.user.unwrap_or_default(),
            environment: fields.env.unwrap_or_default(),
            entrypoint: fields.entrypoint.unwrap_or_default(),
            command: fields.cmd.unwrap_or_default(),
            working_directory: fields.working_dir.unwrap_or_default(),
            stop_signal: fields.stop_signal.filter(|signal| !signal.is_empty()),
        };
        let check = |name, words: &[String]| {
            let is_fine = words.len() <= MAX_WORDS && words.iter().all(|word| !word.contains('\0'));
            if is_fine { Ok(()) } else { Err(ImageProcessError::Field(name)) }
        };
        check("User", std::slice::from_ref(&read.user))?;
        check("Env", &read.environment)?;
        check("Entrypoint", &read.entrypoint)?;
        check("Cmd", &read.command)?;
        check("WorkingDir", std::slice::from_ref(&read.working_directory))?;
        if read.environment.iter().any(|pair| pair.find('=').is_none_or(|at| at == 0)) {
            return Err(ImageProcessError::Field("Env"));
        }
        Ok(read)
    }

    /// The words to run, the user's before the image's.
    ///
    /// # Errors
    /// [`ImageProcessError::NoCommand`] when there are none.
    pub fn words(&self, settings: &Settings) -> Result<Vec<String>, ImageProcessError> {
        let entrypoint = settings.entrypoint.as_ref().unwrap_or(&self.entrypoint);
        let command = match (&settings.command, &settings.entrypoint) {
            (own, _) if !own.is_empty() => own.as_slice(),
            // The image's command was meant for the image's entry point.
            (_, Some(_)) => &[],
            (_, None) => &self.command,
        };
        let words: Vec<_> = entrypoint.iter().chain(command).cloned().collect();
        if words.is_empty() { Err(ImageProcessError::NoCommand) } else { Ok(words) }
    }

    /// The environment to run in, the user's before the image's.
    pub fn environment(&self, settings: &Settings, hostname: &str, home: &str) -> Vec<String> {
        let mut pairs = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}"), format!("HOME={home}")];
        if settings.terminal {
            pairs.push("TERM=xterm".to_owned());
        }
        for pair in self.environment.iter().chain(&settings.environment) {
            let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
            match pairs.iter_mut().find(|known| name(known) == name(pair)) {
                Some(known) => known.clone_from(pair),
                None => pairs.push(pair.clone()),
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> ImageProcess {
        let text = br#"{"config": {"User": "a", "Env": ["PATH=/x", "A=1"], "Entrypoint": ["/e"], "Cmd": ["c"],
            "WorkingDir": "/w", "Labels": {"nerdctl/mounts": "[]"}, "StopSignal": "SIGINT"}}"#;
        ImageProcess::parse(text).expect("a configuration")
    }

    #[test]
    fn the_users_words_win_over_the_images() {
        let words = |settings: Settings| process().words(&settings).expect("words");
        let some = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(words(Settings::default()), ["/e", "c"]);
        assert_eq!(words(Settings { command: some(&["d"]), ..Settings::default() }), ["/e", "d"]);
        assert_eq!(words(Settings { entrypoint: Some(some(&["/f"])), ..Settings::default() }), ["/f"]);
        let both = Settings { entrypoint: Some(some(&[])), command: some(&["d", "e"]), ..Settings::default() };
        assert_eq!(words(both), ["d", "e"]);
        let none = Settings { entrypoint: Some(Vec::new()), ..Settings::default() };
        assert!(matches!(process().words(&none), Err(ImageProcessError::NoCommand)));
    }

    #[test]
    fn the_environment_has_what_programs_expect() {
        let settings = Settings { environment: vec!["A=2".into(), "B=".into()], ..Settings::default() };
        let environment = process().environment(&settings, "h", "/root");
        assert_eq!(environment, ["PATH=/x", "HOSTNAME=h", "HOME=/root", "A=2", "B="]);
    }

    #[test]
    fn a14_a_configuration_of_wrong_types_is_refused() {
        for wrong in [
            r#"{"config": {"User": 5}}"#,
            r#"{"config": {"Env": "A=1"}}"#,
            r#"{"config": {"Env": ["A"]}}"#,
            r#"{"config": {"Env": ["=A"]}}"#,
            r#"{"config": {"Cmd": ["a\u0000b"]}}"#,
            r#"{"config": {"WorkingDir": ["/"]}}"#,
            r#"{"config": []}"#,
            "",
        ] {
            assert!(ImageProcess::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        for fine in ["{}", r#"{"config": null}"#, r#"{"config": {"Cmd": null, "Env": null}}"#] {
            assert_eq!(ImageProcess::parse(fine.as_bytes()).expect(fine), ImageProcess::default());
        }
    }
}
