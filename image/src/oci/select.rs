//! Which entries of an index a push or a pull takes.
//!
//! Imports its sibling [`platform`](super::platform). Matching is containerd's: strict for pushes, so that an image has
//! one CID; best match for the pull of one image. Entries without a platform are never dropped.

use super::{Descriptor, Platform, PlatformError};

/// What a user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Platforms {
    /// Nothing: this host's platform.
    #[default]
    Host,
    /// Everything, attestations included.
    All,
    /// These, in order of preference.
    Only(Vec<Platform>),
}

impl Platforms {
    /// Reads the values of `--platform`, each of which may be a comma list; none at all means this host's.
    ///
    /// # Errors
    /// [`PlatformError`] names the first that is no platform.
    pub fn parse<S: AsRef<str>>(values: &[S]) -> Result<Self, PlatformError> {
        let mut list: Vec<Platform> = Vec::new();
        for text in values.iter().flat_map(|value| value.as_ref().split(',')).map(str::trim) {
            let platform = text.parse()?;
            if !list.contains(&platform) {
                list.push(platform);
            }
        }
        Ok(if list.is_empty() { Self::Host } else { Self::Only(list) })
    }

    /// The entries that a push takes: those of exactly these platforms.
    pub fn for_push(&self) -> Selector {
        match self {
            Self::Host => Selector::exactly(&[Platform::host()], false),
            Self::All => Selector { wanted: None, single: false },
            Self::Only(list) => Selector::exactly(list, false),
        }
    }

    /// The entries that a pull takes: the one best for this host, the one asked for, or all that were asked for.
    pub fn for_pull(&self) -> Selector {
        match self {
            Self::Host => Selector { wanted: Some(compatible(&Platform::host().normalized())), single: true },
            Self::All => Selector { wanted: None, single: false },
            Self::Only(list) => Selector::exactly(list, list.len() == 1),
        }
    }
}

/// Decides about the entries of an index.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Normalised, most wanted first; absent when everything is.
    wanted: Option<Vec<Platform>>,
    /// Whether one entry is enough.
    single: bool,
}

impl Selector {
    fn exactly(list: &[Platform], single: bool) -> Self {
        Self { wanted: Some(list.iter().map(Platform::normalized).collect()), single }
    }

    /// Whether this takes everything.
    pub fn is_all(&self) -> bool {
        self.wanted.is_none()
    }

    /// Whether an entry is wanted at all.
    pub fn matches(&self, platform: Option<&Platform>) -> bool {
        let (Some(platform), Some(wanted)) = (platform, &self.wanted) else { return true };
        wanted.iter().any(|wanted| is_match(wanted, platform))
    }

    /// Which entries of an index are taken, by position, in the index's order.
    pub fn select(&self, entries: &[Descriptor]) -> Vec<usize> {
        let mut taken: Vec<usize> =
            (0..entries.len()).filter(|at| self.matches(entries[*at].platform.as_ref())).collect();
        if self.single {
            // A stable sort, so that of two equals the earlier is taken; entries without a platform come last.
            taken.sort_by_key(|at| self.rank(entries[*at].platform.as_ref()));
            taken.truncate(1);
        }
        taken
    }

    fn rank(&self, platform: Option<&Platform>) -> usize {
        let (Some(platform), Some(wanted)) = (platform, &self.wanted) else { return usize::MAX };
        wanted.iter().position(|wanted| is_match(wanted, platform)).unwrap_or(usize::MAX)
    }
}

/// What is said about a selection that took nothing.
impl std::fmt::Display for Selector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.wanted {
            None => formatter.write_str("any platform"),
            Some(list) => formatter.write_str(&list.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Whether an image for `offered` is one for `wanted`, which is normalised. Features do not count.
fn is_match(wanted: &Platform, offered: &Platform) -> bool {
    let normalized = offered.normalized();
    wanted.os == normalized.os
        && wanted.architecture == normalized.architecture
        && wanted.variant == normalized.variant
        && (wanted.os != "windows" || is_windows_match(&wanted.os_version, &offered.os_version))
}

/// Every platform whose images run on `host`, best first.
fn compatible(host: &Platform) -> Vec<Platform> {
    let like = |architecture: &str, variant: String| Platform {
        architecture: architecture.to_owned(),
        variant,
        ..host.clone()
    };
    let generations = |architecture: &str, from: u32, down_to: u32| {
        (down_to..=from).rev().map(|version| like(architecture, format!("v{version}"))).collect::<Vec<_>>()
    };
    let generation =
        host.variant.strip_prefix('v').and_then(|text| text.parse::<u32>().ok()).filter(|text| *text < 100);
    let list = match (host.architecture.as_str(), generation) {
        ("amd64", generation) => {
            let mut list = vec![host.clone()];
            list.extend(generations("amd64", generation.map_or(0, |own| own.saturating_sub(1)), 1));
            list.push(like("386", String::new()));
            list
        }
        ("arm", Some(own)) if own > 5 => generations("arm", own, 5),
        ("arm64", _) => arm64(&host.variant, &like),
        _ => vec![host.clone()],
    };
    list.iter().map(Platform::normalized).collect()
}

/// 64-bit ARM runs its own earlier generations, which for 9.x are those of 8.(x+5), and 32-bit ARM.
fn arm64(variant: &str, like: &impl Fn(&str, String) -> Platform) -> Vec<Platform> {
    let text = if variant.is_empty() { "v8" } else { variant };
    let (major, minor) = text.trim_start_matches('v').split_once('.').unwrap_or((text.trim_start_matches('v'), "0"));
    let steps: Vec<(u32, u32)> = match (major, minor.parse::<u32>()) {
        ("8", Ok(minor)) if minor <= 9 => vec![(8, minor)],
        ("9", Ok(minor)) if minor <= 7 => vec![(9, minor), (8, (minor + 5).min(9))],
        _ => return Vec::new(),
    };
    let own = steps.into_iter().flat_map(|(major, minor)| {
        (0..=minor).rev().map(move |minor| if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") })
    });
    let mut list: Vec<_> = own.map(|variant| like("arm64", variant)).collect();
    list.extend((5..=8).rev().map(|version| like("arm", format!("v{version}"))));
    list
}

/// First build of Windows whose later releases still run its images.
const WINDOWS_2022: u16 = 20348;
/// The long-term release after it.
const WINDOWS_2025: u16 = 26100;

/// Windows images run on the same build, from 2022 on also on later ones up to the next long-term release.
fn is_windows_match(wanted: &str, offered: &str) -> bool {
    let Some(host) = windows_version(wanted) else { return true };
    if offered.is_empty() {
        return true;
    }
    let Some(image) = windows_version(offered) else { return false };
    let oldest = if host.2 > WINDOWS_2025 { WINDOWS_2025 } else { WINDOWS_2022 };
    let builds = if host.2 < WINDOWS_2022 { host.2..=host.2 } else { oldest..=host.2 };
    (host.0, host.1) == (image.0, image.1) && builds.contains(&image.2)
}

fn windows_version(text: &str) -> Option<(u8, u8, u16)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: Option<&str>) -> Descriptor {
        // Taken as they are: an index holds what its writer wrote.
        let platform = platform.map(|text| {
            let (os, rest) = text.split_once('/').expect("a slash");
            let (architecture, variant) = rest.split_once('/').unwrap_or((rest, ""));
            Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.into(),
                ..Platform::default()
            }
        });
        Descriptor { platform, ..Descriptor::new("", super::super::Digest::of(b""), 0) }
    }

    fn selected(selector: &Selector, entries: &[Option<&str>]) -> Vec<usize> {
        selector.select(&entries.iter().map(|text| entry(*text)).collect::<Vec<_>>())
    }

    fn pull_on(host: &str) -> Selector {
        Selector { wanted: Some(compatible(&host.parse::<Platform>().expect("platform").normalized())), single: true }
    }

    const MIXED: &[Option<&str>] = &[
        Some("linux/amd64"),
        Some("linux/arm/v7"),
        Some("linux/arm64/v8"),
        None,
        Some("unknown/unknown"),
        Some("linux/386"),
        Some("linux/x86_64"),
    ];

    #[test]
    fn a_push_takes_exactly_what_was_asked_for() {
        let only = |values: &[&str]| Platforms::parse(values).expect("parses").for_push();
        assert_eq!(selected(&only(&["linux/amd64"]), MIXED), [0, 3, 6], "entries without a platform stay");
        assert_eq!(selected(&only(&["arm64,linux/arm/v7"]), MIXED), [1, 2, 3]);
        assert_eq!(selected(&only(&["linux/arm64", "linux/386"]), MIXED), [2, 3, 5], "the order is the index's");
        assert_eq!(selected(&Platforms::All.for_push(), MIXED).len(), MIXED.len());
        assert_eq!(selected(&only(&["unknown/unknown"]), MIXED), [3, 4]);
    }

    #[test]
    fn a_pull_takes_the_best_match() {
        assert_eq!(selected(&pull_on("linux/amd64"), MIXED), [0]);
        assert_eq!(selected(&pull_on("linux/amd64"), &MIXED[1..]), [5], "x86_64 before 386");
        assert_eq!(selected(&pull_on("linux/amd64"), &[Some("linux/386"), Some("linux/arm64")]), [0]);
        assert_eq!(selected(&pull_on("linux/arm64"), &[Some("linux/arm/v6"), Some("linux/arm/v7"), None]), [1]);
        assert_eq!(selected(&pull_on("linux/arm64/v9"), &[Some("linux/arm64"), Some("linux/arm64/v8.5")]), [1]);
        assert_eq!(selected(&pull_on("linux/arm/v6"), &[Some("linux/arm/v7"), Some("linux/arm/v5")]), [1]);
        assert_eq!(selected(&pull_on("linux/riscv64"), MIXED), [3], "better than nothing");
        assert_eq!(selected(&pull_on("linux/riscv64"), &MIXED[..3]), [0; 0]);
        assert_eq!(selected(&pull_on("linux/amd64/v3"), &[Some("linux/amd64"), Some("linux/amd64/v2")]), [1]);
    }

    #[test]
    fn a_pull_of_several_takes_each() {
        let selector = Platforms::parse(&["linux/amd64", "linux/386"]).expect("parses").for_pull();
        assert_eq!(selected(&selector, MIXED), [0, 3, 5, 6]);
        assert_eq!(selected(&Platforms::All.for_pull(), MIXED).len(), MIXED.len());
    }

    #[test]
    fn windows_images_match_by_build() {
        for (host, image, matches) in [
            ("10.0.17763.1", "10.0.17763.9", true),
            ("10.0.17763", "10.0.17764", false),
            ("10.0.20348", "10.0.17763", false),
            ("10.0.26100", "10.0.20348", true),
            ("10.0.26101", "10.0.20348", false),
            ("10.0.26101", "10.0.26100", true),
            ("", "10.0.1", true),
            ("10.0.17763", "", true),
        ] {
            assert_eq!(is_windows_match(host, image), matches, "{host} {image}");
        }
    }
}
