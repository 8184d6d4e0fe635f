//! Small programs that embed the crates; each lies in `src/bin`.
