//! Names that stand for something that is not there any more (image-spec, layer.md).
//!
//! Imports the errors.

use super::failure::NameProblem;

/// How the name of what hides something begins.
pub(super) const PREFIX: &[u8] = b".wh.";
/// What hides everything that lower layers have in its directory.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names with which AUFS kept its own books, in layers of old; they stand for nothing.
const AUFS: &[u8] = b".wh..wh.";

/// What the last component of a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'n> {
    /// Itself.
    Plain,
    /// Nothing: it is skipped.
    Nothing,
    /// The directory it lies in hides what lower layers have in theirs.
    Opaque,
    /// This entry of lower layers is gone.
    Removed(&'n [u8]),
}

/// Reads the last component of a path.
///
/// # Errors
/// When it is a whiteout of something that cannot be an entry.
pub fn classify(base: &[u8]) -> Result<Name<'_>, NameProblem> {
    match base.strip_prefix(PREFIX) {
        None => Ok(Name::Plain),
        Some(_) if base == OPAQUE => Ok(Name::Opaque),
        Some(_) if base.starts_with(AUFS) => Ok(Name::Nothing),
        Some(b"" | b"." | b"..") => Err(NameProblem::Whiteout),
        Some(name) => Ok(Name::Removed(name)),
    }
}

/// Whether a directory may not be called this.
pub fn reserved(component: &[u8]) -> bool {
    component.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a7_names_of_whiteouts() {
        for (base, expected) in [
            (&b"file"[..], Ok(Name::Plain)),
            (b".wh", Ok(Name::Plain)),
            (b"x.wh.y", Ok(Name::Plain)),
            (b".WH.x", Ok(Name::Plain)),
            (b".wh.file", Ok(Name::Removed(b"file"))),
            (b".wh..hidden", Ok(Name::Removed(b".hidden"))),
            (b".wh....", Ok(Name::Removed(b"..."))),
            (b".wh..wh..opq", Ok(Name::Opaque)),
            (b".wh..wh..opqx", Ok(Name::Nothing)),
            (b".wh..wh.plnk", Ok(Name::Nothing)),
            (b".wh..wh.", Ok(Name::Nothing)),
            (b".wh.", Err(NameProblem::Whiteout)),
            (b".wh..", Err(NameProblem::Whiteout)),
            (b".wh...", Err(NameProblem::Whiteout)),
        ] {
            assert_eq!(classify(base), expected, "{}", base.escape_ascii());
        }
    }
}
