//! Checks whether this node can do its work, and says what to do where it cannot.
//!
//! Imports the node. Each check looks at one thing and gives one [`Check`]; none changes anything but the self-test, which
//! puts one small file into the repository and makes temporary nodes beside it. Offline, no socket is opened: what needs
//! one is skipped, and says so. Nothing is served to others for a check: where nobody serves yet, the self-test listens on
//! loopback alone.

mod network;
mod place;
mod selftest;

use serde::{Deserialize, Serialize};
use shipfs_node::{
    config::{Network, NetworkConfig},
    node::Node,
};

use super::{Failure, Options, Role};
use crate::event::EventSink;

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// Each check, in order.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, in one word.
    pub name: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, or is not needed now, and could be better.
    Warn,
    /// It does not work.
    Fail,
    /// It was not looked at.
    Skipped,
}

impl Doctor {
    /// Whether any check failed.
    pub fn has_failed(&self) -> bool {
        self.checks.iter().any(|check| check.verdict == Verdict::Fail)
    }

    /// What is found when the repository cannot even be opened.
    pub fn without_repository(failure: &Failure) -> Self {
        Self { checks: vec![Check::failed("repository", failure)] }
    }
}

impl Check {
    fn new(name: &str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict, found: found.into(), advice: None }
    }

    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, found)
    }

    fn warn(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(name, Verdict::Warn, found) }
    }

    fn fail(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(name, Verdict::Fail, found) }
    }

    fn skipped(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Skipped, found)
    }

    fn failed(name: &str, failure: &Failure) -> Self {
        Self { advice: failure.hint.clone(), ..Self::new(name, Verdict::Fail, failure.to_string()) }
    }
}

/// Checks everything. `network` is what a verb of this user would use, or why there is none.
pub(super) async fn examine(
    node: &Node,
    network: Result<NetworkConfig, Failure>,
    options: &Options,
    role: Role,
    events: &dyn EventSink,
) -> Doctor {
    let mut checks = place::checks(node, role).await;
    checks.extend(place::keys(node, network.as_ref().ok(), options));
    match network {
        Err(failure) => checks.push(Check::failed("network", &failure)),
        Ok(config) if config.network == Network::Offline => {
            let why = "offline: no socket is opened";
            let skipped = ["network", "interfaces", "ports", "mdns", "peers", "fetch"];
            checks.extend(skipped.map(|name| Check::skipped(name, why)));
        }
        Ok(config) => {
            checks.extend(network::checks(node, &config, options).await);
            checks.extend(selftest::checks(node, &config, events).await);
        }
    }
    Doctor { checks }
}
