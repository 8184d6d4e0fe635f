//! Why a verb was not done, as plain data: what, why, and what may help.
//!
//! Imports nothing of this crate. Text in here may come from other people: whoever shows it on a terminal escapes it.

use std::{error::Error, fmt};

use serde::{Deserialize, Serialize};

/// Most causes that are told; the rest is noise to a user.
const MAX_CAUSES: usize = 16;

/// Why a verb was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose matter it is.
    pub kind: FailureKind,
    /// What was not done.
    pub message: String,
    /// Why, from the outside in.
    pub causes: Vec<String>,
    /// What may help.
    pub hint: Option<String>,
}

/// Whose matter a failure is, and so whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureKind {
    /// What was asked for makes no sense.
    Usage,
    /// The user ended it.
    Interrupted,
    /// No such image here.
    NotFound,
    /// No peer gave it in time; trying again can help.
    Unavailable,
    /// The network cannot be used as asked.
    Network,
    /// The content is not what it claims to be.
    Content,
    /// The place an image comes from or goes to.
    Place,
    /// No space is left.
    Full,
    /// The repository cannot be used.
    Repository,
    /// The process that holds the repository cannot be worked with.
    Holder,
    /// Anything else.
    Other,
}

impl Failure {
    /// A failure without causes.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A failure that says what `error` and its sources say.
    pub fn from_error(kind: FailureKind, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(kind, error.to_string());
        let mut next = error.source();
        while let Some(cause) = next.filter(|_| failure.causes.len() < MAX_CAUSES) {
            let text = cause.to_string();
            // Transparent errors repeat what they wrap.
            if failure.causes.last().unwrap_or(&failure.message) != &text {
                failure.causes.push(text);
            }
            next = cause.source();
        }
        failure
    }

    /// The same failure, said to have prevented something larger.
    pub fn while_doing(mut self, message: impl Into<String>) -> Self {
        self.causes.insert(0, std::mem::replace(&mut self.message, message.into()));
        self
    }

    /// The same failure with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The user ended it.
    pub fn interrupted() -> Self {
        Self::new(FailureKind::Interrupted, "interrupted")
    }

    /// What the process exits with: 1 failed, 2 asked for nonsense, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::Usage => 2,
            FailureKind::Interrupted => 130,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(formatter, ": {cause}"))
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Middle(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner;

    #[test]
    fn causes_are_told_once_and_in_order() {
        let failure = Failure::from_error(FailureKind::Other, &Outer(Middle(Inner))).while_doing("outermost");
        assert_eq!(failure.message, "outermost");
        assert_eq!(failure.causes, ["outer", "inner"]);
        assert_eq!(failure.to_string(), "outermost: outer: inner");
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        for (kind, code) in [(FailureKind::Usage, 2), (FailureKind::Interrupted, 130), (FailureKind::Full, 1)] {
            assert_eq!(Failure::new(kind, "").exit_code(), code);
        }
    }
}
