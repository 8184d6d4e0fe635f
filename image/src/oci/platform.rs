//! What an image runs on: the value in descriptors, and the words users write for it.
//!
//! Imports the JSON reader beside it. Normalisation is containerd's, since it decides which entries of an index a push
//! takes along. Which platform this host has is known when the crate is compiled; nothing is read at run time.

use std::{fmt, str::FromStr};

use super::json::{Fields, JsonError, ObjectWriter, Reader, field};

/// A platform, as it stands in a descriptor or a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Instruction set, in Go's words.
    pub architecture: String,
    /// Operating system, in Go's words.
    pub os: String,
    /// Version of the operating system; empty outside Windows.
    pub os_version: String,
    /// Features the operating system must have.
    pub os_features: Vec<String>,
    /// Which generation of the instruction set.
    pub variant: String,
}

impl Platform {
    /// What this program was built for.
    pub fn host() -> Self {
        let variant = match std::env::consts::ARCH {
            "aarch64" => "v8",
            "arm" if cfg!(target_feature = "v7") => "v7",
            "arm" => "v6",
            _ => "",
        };
        Self {
            architecture: go_architecture(std::env::consts::ARCH).to_owned(),
            os: go_os().to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        }
    }

    /// The same platform in canonical words: `x86_64` becomes `amd64`, `arm64/v8` loses its variant.
    pub fn normalized(&self) -> Self {
        let (architecture, variant) = normalize_architecture(&self.architecture, &self.variant);
        Self { architecture, os: normalize_os(&self.os), variant, ..self.clone() }
    }

    /// Appends the bytes Go would write.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        ObjectWriter::open(out)
            .string("architecture", &self.architecture)
            .string("os", &self.os)
            .string_unless_empty("os.version", &self.os_version)
            .strings_unless_empty("os.features", &self.os_features)
            .string_unless_empty("variant", &self.variant)
            .close();
    }
}

impl Fields for Platform {
    fn fill(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        match field(key, &["architecture", "os", "os.version", "os.features", "variant"]) {
            Some("architecture") => reader.string(&mut self.architecture),
            Some("os") => reader.string(&mut self.os),
            Some("os.version") => reader.string(&mut self.os_version),
            Some("os.features") => reader.strings(&mut self.os_features),
            Some("variant") => reader.string(&mut self.variant),
            _ => reader.skip(),
        }
    }
}

/// `OS[(VERSION)]/ARCHITECTURE[/VARIANT]`, escaped for a terminal, since images bring their own.
impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let os = if self.os.is_empty() { "unknown" } else { &self.os };
        write!(formatter, "{}", os.escape_debug())?;
        if !self.os_version.is_empty() {
            write!(formatter, "({})", self.os_version.escape_debug())?;
        }
        for part in [&self.architecture, &self.variant].into_iter().filter(|part| !part.is_empty()) {
            write!(formatter, "/{}", part.escape_debug())?;
        }
        Ok(())
    }
}

/// Reads what users write: an operating system, an architecture, or `OS[(VERSION)]/ARCHITECTURE[/VARIANT]`.
impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let refused = || PlatformError { text: text.chars().take(80).collect() };
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let (os, version) = split_version(parts[0]).ok_or_else(refused)?;
        if !parts[1..].iter().all(|part| is_word(part, true)) {
            return Err(refused());
        }
        let (os, os_version) = (normalize_os(os), version.to_owned());
        match parts[..] {
            [_] if is_known_os(&os) => Ok(Self { os, os_version, ..Self::host().normalized() }),
            [only] => {
                let (architecture, variant) = normalize_architecture(only, "");
                if !is_known_architecture(&architecture) {
                    return Err(refused());
                }
                Ok(Self { architecture, variant, os: go_os().to_owned(), ..Self::default() })
            }
            [_, architecture] => {
                let (architecture, variant) = normalize_architecture(architecture, "");
                Ok(Self { architecture, os, os_version, variant, ..Self::default() })
            }
            [_, architecture, variant] => {
                let (architecture, variant) = normalize_architecture(architecture, variant);
                Ok(Self { architecture, os, os_version, variant, ..Self::default() })
            }
            _ => Err(refused()),
        }
    }
}

/// Text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a platform, expected `OS/ARCHITECTURE[/VARIANT]` such as `linux/arm64`", text.escape_debug())]
pub struct PlatformError {
    /// The text, shortened.
    pub text: String,
}

/// Splits `windows(10.0.17763)`.
fn split_version(text: &str) -> Option<(&str, &str)> {
    let (os, version) = match text.split_once('(') {
        Some((os, rest)) => (os, rest.strip_suffix(')')?),
        None => (text, ""),
    };
    (is_word(os, false) && (version.is_empty() || is_word(version, true))).then_some((os, version))
}

fn is_word(text: &str, dots: bool) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || dots && byte == b'.')
}

fn normalize_os(os: &str) -> String {
    match os.to_lowercase().as_str() {
        "" => go_os().to_owned(),
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

fn normalize_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_lowercase(), variant.to_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

/// What Go calls the operating system this was built for.
fn go_os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// What Go calls an architecture that Rust calls `rust`.
fn go_architecture(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        "mips64" if cfg!(target_endian = "little") => "mips64le",
        "mips" if cfg!(target_endian = "little") => "mipsle",
        other => other,
    }
}

fn is_known_os(os: &str) -> bool {
    const KNOWN: &[&str] = &[
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "nacl",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "windows",
        "zos",
    ];
    KNOWN.contains(&os)
}

fn is_known_architecture(architecture: &str) -> bool {
    const KNOWN: &[&str] = &[
        "386",
        "amd64",
        "amd64p32",
        "arm",
        "armbe",
        "arm64",
        "arm64be",
        "ppc64",
        "ppc64le",
        "loong64",
        "mips",
        "mipsle",
        "mips64",
        "mips64le",
        "mips64p32",
        "mips64p32le",
        "ppc",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    ];
    KNOWN.contains(&architecture)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Platform>().expect(text).to_string()
    }

    #[test]
    fn users_words_are_understood() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("LINUX/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9.0", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("linux/new-one", "linux/new-one"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(shown("arm64"), format!("{}/arm64", go_os()));
        assert_eq!(shown("linux"), Platform { os: "linux".into(), ..Platform::host().normalized() }.to_string());
    }

    #[test]
    fn other_words_are_refused() {
        for text in [
            "",
            "/",
            "linux/",
            "/amd64",
            "linux/amd64/v1/x",
            "nonsense",
            "linux/*",
            "li nux/amd64",
            "linux(1/amd64",
            "a.b/amd64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn d12_a_platform_cannot_speak_to_the_terminal() {
        let platform = Platform { os: "\u{1b}[2J".into(), architecture: "a\u{7}".into(), ..Platform::default() };
        assert_eq!(platform.to_string(), "\\u{1b}[2J/a\\u{7}");
        assert!(!"x\u{1b}/y".parse::<Platform>().expect_err("refused").to_string().contains('\u{1b}'));
    }
}
