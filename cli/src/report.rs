//! What is said when something went wrong, and what the process exits with.
//!
//! Imports the text beside it. Prints through [`output`](crate::output).

use std::process::ExitCode;

use shipfs_image::control::{Doctor, Failure, FailureKind, Verdict, Verified};

use crate::text::escaped;

/// What a verb ends with.
pub(crate) type Outcome = Result<(), Failure>;

/// The exit code of the whole command: 0 done, 1 failed, 2 wrong usage, 130 interrupted; or what a container, or a failure
/// to run one, says.
pub(crate) fn exit_code(outcome: &Outcome, own: Option<u8>) -> ExitCode {
    match (outcome, own) {
        (Err(failure), _) if failure.kind == FailureKind::Interrupted => ExitCode::from(failure.exit_code()),
        (_, Some(code)) => ExitCode::from(code),
        (Ok(()), None) => ExitCode::SUCCESS,
        (Err(failure), None) => ExitCode::from(failure.exit_code()),
    }
}

/// The lines that tell a failure: what, why, and what may help.
pub(crate) fn lines(failure: &Failure, colour: bool) -> Vec<String> {
    if failure.kind == FailureKind::Interrupted {
        return vec!["interrupted".to_owned()];
    }
    let (red, green, off) = if colour { ("\x1b[1;31m", "\x1b[1;32m", "\x1b[0m") } else { ("", "", "") };
    let mut lines = vec![format!("{red}error:{off} {}", escaped(&failure.message))];
    lines.extend(failure.causes.iter().map(|cause| format!("  because: {}", escaped(cause))));
    lines.extend(failure.hint.iter().map(|hint| format!("{green}hint:{off} {}", escaped(hint))));
    lines
}

/// What a check of the repository ends with.
pub(crate) fn verified(verified: &Verified) -> Outcome {
    let damaged = if verified.repaired { 0 } else { verified.damaged.len() };
    let (message, hint) = match (damaged, verified.broken.len()) {
        (0, 0) => return Ok(()),
        (0, broken) => (
            format!("{broken} images or pins are not whole"),
            "`shipfs pull` fetches what they lack, `shipfs rmi` lets go of them",
        ),
        (damaged, _) => (
            format!("{damaged} parts of the repository are damaged"),
            "`shipfs verify --repair` moves them away, then `shipfs pull` fetches them anew",
        ),
    };
    Err(Failure::new(FailureKind::Content, message).hint(hint))
}

/// What an examination ends with.
pub(crate) fn examined(doctor: &Doctor) -> Outcome {
    if !doctor.has_failed() {
        return Ok(());
    }
    Err(unwell(doctor.checks.iter().filter(|check| check.verdict == Verdict::Fail).count()))
}

/// So many checks failed.
pub(crate) fn unwell(failed: usize) -> Failure {
    let checks = if failed == 1 { "check" } else { "checks" };
    Failure::new(FailureKind::Other, format!("{failed} {checks} failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_may_help() {
        let failure = Failure {
            kind: FailureKind::Full,
            message: "could not write `\x1b[2J`".into(),
            causes: vec!["no space".into(), "really".into()],
            hint: Some("run `shipfs gc`".into()),
        };
        let plain = lines(&failure, false);
        assert_eq!(
            plain,
            [
                r"error: could not write `\u{1b}[2J`",
                "  because: no space",
                "  because: really",
                "hint: run `shipfs gc`"
            ]
        );
        let coloured = lines(&failure, true);
        assert!(coloured[0].starts_with("\x1b[1;31merror:\x1b[0m could"));
        assert_eq!(lines(&Failure::interrupted(), true), ["interrupted"]);
    }
}
