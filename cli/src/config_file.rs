//! The repository's `config.toml`: what it says, line by line, and what is wrong with it.
//!
//! ```text
//! network = "private"                       # lan, private or offline
//! listen  = ["/ip4/0.0.0.0/tcp/4001"]
//! peers   = ["/ip4/192.0.2.7/tcp/4001"]
//! mdns    = false
//! timeout = "1m"
//! ```
//! Pure but for reading the file. Every setting is optional; one that is unknown is refused, with what was meant.

use std::{fs::File, io::Read as _, path::Path, time::Duration};

use clap::ValueEnum as _;
use shipfs_image::control::{Failure, FailureKind, NetworkChoice, check_address};
use toml::de::{DeTable, DeValue};

use crate::args::{self, Network};

/// Name of the file in the repository.
pub(crate) const CONFIG_FILE: &str = "config.toml";
/// Longest file that is read, in bytes: a thousand peers.
const MAX_BYTES: u64 = 128 << 10;
/// The settings there are.
const SETTINGS: [&str; 5] = ["network", "listen", "peers", "mdns", "timeout"];

/// A value and the line it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said<T> {
    pub(crate) value: T,
    pub(crate) line: usize,
}

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile {
    pub(crate) network: Option<Said<NetworkChoice>>,
    pub(crate) listen: Option<Said<Vec<String>>>,
    pub(crate) peers: Option<Said<Vec<String>>>,
    pub(crate) mdns: Option<Said<bool>>,
    pub(crate) timeout: Option<Said<Duration>>,
}

impl ConfigFile {
    /// Reads the file of a repository; one that is not there says nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::from_error(FailureKind::Repository, &error)
                .while_doing(format!("cannot read `{}`", path.display()))
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            // Where the repository is no directory, whoever opens it says so.
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_BYTES {
            let message = format!("`{}` is longer than {MAX_BYTES} bytes", path.display());
            return Err(Failure::new(FailureKind::Usage, message));
        }
        Self::parse(&text).map_err(|Wrong { line, what, hint }| {
            let message = format!("`{}`, line {line}: {what}", path.display());
            Failure { hint, ..Failure::new(FailureKind::Usage, message) }
        })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let line = |place: usize| text[..text.floor_char_boundary(place)].matches('\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| {
            let line = line(error.span().map_or(0, |span| span.start));
            Wrong { line, what: error.message().to_owned(), hint: None }
        })?;
        let mut said = Self::default();
        // In the file's order, so that the first mistake is told.
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let line = line(key.span().start);
            let wrong = |what: String| Wrong { line, what: format!("`{}`: {what}", key.get_ref()), hint: None };
            let value = value.get_ref();
            match key.get_ref().as_ref() {
                "network" => said.network = Some(Said { value: network(value).map_err(wrong)?, line }),
                "listen" => said.listen = Some(Said { value: addresses(value).map_err(wrong)?, line }),
                "peers" => said.peers = Some(Said { value: addresses(value).map_err(wrong)?, line }),
                "mdns" => {
                    let value =
                        value.as_bool().ok_or_else(|| wrong(format!("expected true or false, {}", got(value))))?;
                    said.mdns = Some(Said { value, line });
                }
                "timeout" => said.timeout = Some(Said { value: timeout(value).map_err(wrong)?, line }),
                unknown => {
                    let meant = nearest(unknown).map(|meant| format!("did you mean `{meant}`?"));
                    let hint = meant.or_else(|| Some(format!("there are: {}", SETTINGS.join(", "))));
                    return Err(Wrong { line, what: format!("there is no setting `{unknown}`"), hint });
                }
            }
        }
        Ok(said)
    }
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    line: usize,
    what: String,
    hint: Option<String>,
}

fn got(value: &DeValue<'_>) -> String {
    format!("found a value of type {}", value.type_str())
}

/// Reads the name of a network.
pub(crate) fn network_named(text: &str) -> Result<NetworkChoice, String> {
    let named = Network::from_str(text, false).ok().and_then(Network::of_node);
    named.ok_or_else(|| format!("expected lan, private or offline, found `{text}`"))
}

fn network(value: &DeValue<'_>) -> Result<NetworkChoice, String> {
    network_named(value.as_str().ok_or_else(|| format!("expected lan, private or offline, {}", got(value)))?)
}

fn addresses(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or_else(|| format!("expected a list of multiaddresses, {}", got(value)))?;
    let texts = list.iter().map(|value| {
        let value = value.get_ref();
        let text = value.as_str().ok_or_else(|| format!("expected a multiaddress in quotes, {}", got(value)))?;
        check_address(text).map(|()| text.to_owned()).map_err(|error| format!("`{text}`: {error}"))
    });
    texts.collect()
}

fn timeout(value: &DeValue<'_>) -> Result<Duration, String> {
    let seconds = value.as_integer().filter(|number| number.radix() == 10).map(|number| number.as_str());
    let text = value.as_str().or(seconds);
    args::duration(text.ok_or_else(|| format!("expected a number and a unit in quotes, {}", got(value)))?)
}

/// The setting that was meant, if one is near.
fn nearest(unknown: &str) -> Option<&'static str> {
    let near = SETTINGS.map(|setting| (distance(unknown, setting), setting));
    near.into_iter()
        .min()
        .filter(|(distance, setting)| *distance <= setting.len().max(3) / 3)
        .map(|(_, setting)| setting)
}

/// How many letters have to be added, left out, replaced or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().take(32).collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, wanted) in other.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(letter != wanted);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == other[j - 1] && one[i - 1] == *wanted {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_says_and_where() {
        let text = "# ours\nnetwork = \"private\"\nlisten = [\n  \"/ip4/0.0.0.0/tcp/4001\",\n]\npeers = []\nmdns = true\n\
                    timeout = \"1.5m\"\n";
        let said = ConfigFile::parse(text).expect("parses");
        assert!(matches!(said.network, Some(Said { value: NetworkChoice::Private, line: 2 })));
        assert_eq!(said.listen, Some(Said { value: vec!["/ip4/0.0.0.0/tcp/4001".into()], line: 3 }));
        assert_eq!(said.peers, Some(Said { value: Vec::new(), line: 6 }));
        assert_eq!(said.mdns, Some(Said { value: true, line: 7 }));
        assert_eq!(said.timeout, Some(Said { value: Duration::from_secs(90), line: 8 }));
        assert_eq!(
            ConfigFile::parse("timeout = 5").expect("parses").timeout.map(|said| said.value),
            Some(Duration::from_secs(5))
        );
        assert!(ConfigFile::parse("").expect("parses").network.is_none());
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_what_was_meant() {
        let wrong = |text: &str| ConfigFile::parse(text).expect_err(text);
        for (text, line, what, hint) in [
            ("mdns = true\nnetwrok = \"lan\"", 2, "there is no setting `netwrok`", Some("did you mean `network`?")),
            ("peer = []", 1, "there is no setting `peer`", Some("did you mean `peers`?")),
            ("[limits]\nx = 1", 1, "there is no setting `limits`", None),
            ("\nnetwork = \"public\"", 2, "`network`: expected lan, private or offline, found `public`", None),
            ("network = 3", 1, "`network`: expected lan, private or offline, found a value of type integer", None),
            ("mdns = \"yes\"", 1, "`mdns`: expected true or false, found a value of type string", None),
            ("peers = \"/ip4/1.2.3.4/tcp/1\"", 1, "`peers`: expected a list of multiaddresses", None),
            ("peers = [\"1.2.3.4:5\"]", 1, "`peers`: `1.2.3.4:5`: ", None),
            ("timeout = \"5 parsecs\"", 1, "`timeout`: expected a unit", None),
            ("mdns = true\nmdns = false", 2, "duplicate key", None),
            ("mdns = true\nlisten = [", 2, "", None),
        ] {
            let told = wrong(text);
            assert_eq!(told.line, line, "{text}: {told:?}");
            assert!(told.what.contains(what), "{text}: {told:?}");
            if hint.is_some() {
                assert_eq!(told.hint.as_deref(), hint, "{text}");
            }
        }
        assert!(wrong("[limits]").hint.is_some_and(|hint| hint.starts_with("there are: network, listen")));
    }
}
