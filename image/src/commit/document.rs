//! The configuration of a new image: that of the container's, with a layer more and what the container was told.
//!
//! Imports [`change`](super::change), [`oci`](crate::oci) and what a container is run with. Pure. What is not understood stays.

use serde_json::{Map, Value, json};

use super::{
    CommitError,
    change::{change, is_about, texts},
};
use crate::{
    oci::{Digest, ImageConfig},
    run::{image_config::ImageProcess, settings::Settings},
};

/// What of a container's own is no part of an image, in configurations that old Dockers wrote.
const OF_A_CONTAINER: [&str; 4] = ["container", "container_config", "id", "parent"];

/// What the new configuration is made of.
#[derive(Debug)]
pub(super) struct Parts<'p> {
    /// The old one.
    pub(super) old: &'p str,
    /// What the container was told.
    pub(super) settings: &'p Settings,
    /// The layer that is new, if anything changed.
    pub(super) diff_id: Option<&'p Digest>,
    /// When, in RFC 3339.
    pub(super) created: &'p str,
    pub(super) author: Option<&'p str>,
    pub(super) message: Option<&'p str>,
    pub(super) changes: &'p [String],
}

impl Parts<'_> {
    /// The bytes of the new configuration.
    ///
    /// # Errors
    /// [`CommitError::Change`], or [`CommitError::Config`] when the old one is not of the form that it should be.
    pub(super) fn document(&self) -> Result<Vec<u8>, CommitError> {
        let wrong = CommitError::Config;
        let before = ImageConfig::parse(self.old.as_bytes())?;
        let process = ImageProcess::parse(self.old.as_bytes()).map_err(|error| CommitError::Run(error.into()))?;
        let mut document: Map<String, Value> = serde_json::from_str(self.old).map_err(|_| wrong("configuration"))?;
        OF_A_CONTAINER.iter().for_each(|name| drop(document.remove(*name)));
        let mut config = match document.remove("config") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(config)) => config,
            Some(_) => return Err(wrong("config")),
        };
        let words = self.told(&process, &mut config);
        for text in self.changes {
            change(&mut config, text)?;
        }
        let changes = |instruction| self.changes.iter().any(|text| is_about(text, instruction));
        if changes("ENTRYPOINT") && !changes("CMD") {
            // The old command was meant for the old entry point.
            config.remove("Cmd");
        }
        document.insert("config".to_owned(), Value::Object(config));
        document.insert("created".to_owned(), json!(self.created));
        if let Some(author) = self.author {
            document.insert("author".to_owned(), json!(author));
        }
        self.history(&mut document, &words)?;
        if let Some(diff_id) = self.diff_id {
            let rootfs = document.get_mut("rootfs").and_then(Value::as_object_mut).ok_or(wrong("rootfs"))?;
            let diff_ids = rootfs.get_mut("diff_ids").and_then(Value::as_array_mut).ok_or(wrong("diff_ids"))?;
            diff_ids.push(json!(diff_id.to_string()));
        }
        let bytes = serde_json::to_vec(&document).map_err(|_| wrong("configuration"))?;
        // As others read it: one with a field in two spellings would not be what was meant.
        let expected: Vec<_> = before.diff_ids.into_iter().chain(self.diff_id.map(Digest::to_string)).collect();
        if ImageConfig::parse(&bytes)?.diff_ids != expected {
            return Err(wrong("rootfs"));
        }
        ImageProcess::parse(&bytes).map_err(|error| CommitError::Run(error.into()))?;
        Ok(bytes)
    }

    /// What the container was told becomes what the image says; gives the words that it ran.
    fn told(&self, process: &ImageProcess, config: &mut Map<String, Value>) -> Vec<String> {
        let settings = self.settings;
        let words = process.words(settings).unwrap_or_default();
        if settings.entrypoint.is_some() || !settings.command.is_empty() {
            let entrypoint = settings.entrypoint.as_ref().unwrap_or(&process.entrypoint);
            let command = words.get(entrypoint.len()..).unwrap_or_default();
            let mut set = |name: &str, words: &[String]| match words {
                [] => drop(config.remove(name)),
                words => drop(config.insert(name.to_owned(), json!(words))),
            };
            set("Entrypoint", entrypoint);
            set("Cmd", command);
        }
        let mut environment = texts(config.get("Env"));
        for pair in &settings.environment {
            let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
            match environment.iter_mut().find(|known| name(known) == name(pair)) {
                Some(known) => known.clone_from(pair),
                None => environment.push(pair.clone()),
            }
        }
        if !environment.is_empty() {
            config.insert("Env".to_owned(), json!(environment));
        }
        for (name, value) in [("User", &settings.user), ("WorkingDir", &settings.working_directory)] {
            if let Some(value) = value {
                config.insert(name.to_owned(), json!(value));
            }
        }
        words
    }

    fn history(&self, document: &mut Map<String, Value>, words: &[String]) -> Result<(), CommitError> {
        let mut entry = json!({"created": self.created, "created_by": words.join(" ")});
        if let Some(author) = self.author {
            entry["author"] = json!(author);
        }
        if let Some(message) = self.message {
            entry["comment"] = json!(message);
        }
        if self.diff_id.is_none() {
            entry["empty_layer"] = json!(true);
        }
        let history = document.entry("history").or_insert_with(|| json!([]));
        if history.is_null() {
            *history = json!([]);
        }
        history.as_array_mut().ok_or(CommitError::Config("history"))?.push(entry);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"architecture": "arm64", "os": "linux", "variant": "v8", "container_config": {}, "x": [1],
        "config": {"Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "Entrypoint": ["/e"], "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": []}, "history": [{"created_by": "somebody"}]}"#;

    fn made(settings: &Settings, diff_id: Option<&Digest>, changes: &[&str]) -> Result<Value, CommitError> {
        let changes: Vec<_> = changes.iter().map(|text| (*text).to_owned()).collect();
        let (author, message) = (Some("me"), Some("why"));
        let parts =
            Parts { old: OLD, settings, diff_id, created: "2024-01-01T00:00:00Z", author, message, changes: &changes };
        Ok(serde_json::from_slice(&parts.document()?).expect("JSON"))
    }

    #[test]
    fn what_is_not_changed_stays() {
        let diff_id = Digest::of(b"layer");
        let document = made(&Settings::default(), Some(&diff_id), &[]).expect("made");
        assert_eq!(document["rootfs"]["diff_ids"], json!([diff_id.to_string()]));
        assert_eq!((&document["x"], &document["variant"]), (&json!([1]), &json!("v8")));
        assert_eq!(document["config"], serde_json::from_str::<Value>(OLD).expect("JSON")["config"]);
        assert!(document.get("container_config").is_none());
        let entry = json!({
            "created": "2024-01-01T00:00:00Z", "created_by": "/e sh", "author": "me", "comment": "why",
        });
        assert_eq!(document["history"], json!([{"created_by": "somebody"}, entry]));
    }

    #[test]
    fn a_container_that_changed_nothing_adds_no_layer() {
        let document = made(&Settings::default(), None, &[]).expect("made");
        assert_eq!(document["rootfs"]["diff_ids"], json!([]));
        assert_eq!(document["history"][1]["empty_layer"], json!(true));
    }

    #[test]
    fn what_a_container_was_told_is_what_its_image_says() {
        let settings = Settings {
            command: vec!["cat".into(), "/x".into()],
            environment: vec!["A=2".into(), "B=".into()],
            user: Some("web".into()),
            working_directory: Some("/srv".into()),
            ..Settings::default()
        };
        let config = made(&settings, None, &[]).expect("made")["config"].clone();
        assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/e"]), &json!(["cat", "/x"])));
        assert_eq!(config["Env"], json!(["PATH=/bin", "A=2", "B="]));
        assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("web"), &json!("/srv")));
        let other = Settings { entrypoint: Some(vec!["/f".into()]), ..Settings::default() };
        let config = made(&other, None, &[]).expect("made")["config"].clone();
        assert_eq!((&config["Entrypoint"], config.get("Cmd")), (&json!(["/f"]), None));
    }

    #[test]
    fn a_new_entry_point_wants_a_new_command() {
        let config = |changes| made(&Settings::default(), None, changes).expect("made")["config"].clone();
        assert_eq!(config(&["ENTRYPOINT [\"/n\"]"]).get("Cmd"), None);
        assert_eq!(config(&["CMD [\"c\"]", "ENTRYPOINT [\"/n\"]"])["Cmd"], json!(["c"]));
        assert!(matches!(made(&Settings::default(), None, &["RUN x"]), Err(CommitError::Change(_))));
    }
}
