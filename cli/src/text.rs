//! Text for people: foreign words made harmless, sizes and times made short.
//!
//! Pure. Names, tags, annotations and what peers call themselves come from others: none of it reaches a terminal but
//! through [`escaped`] or [`escaped_json`].

use std::{fmt::Write as _, time::Duration};

/// Whether a terminal could take a character for an order, or show other characters in another place because of it.
fn is_dangerous(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

/// The text on one line, with everything a terminal could obey written out.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_dangerous(letter) {
            out.extend(letter.escape_debug());
        } else {
            out.push(letter);
        }
    }
    out
}

/// JSON text with everything in its strings that a terminal could obey written out.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        // A line break can only stand between values: inside of strings it is escaped already.
        if is_dangerous(letter) && letter != '\n' {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(letter);
        }
    }
    out
}

/// A number of bytes: `512 B`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024.0 is one of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time: `0.4 s`, `12 s`, `3 min 7 s`.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 99.5 {
        format!("{seconds:.0} s")
    } else {
        let whole = duration.as_secs();
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// What is done in a second: `1.5 MiB/s`.
pub(crate) fn rate(bytes: u64, duration: Duration) -> String {
    let seconds = duration.as_secs_f64().max(0.001);
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// A digest or CID, short enough for a line: `sha256:0123456789ab`.
pub(crate) fn short(digest: &str) -> String {
    let (algorithm, hex) = digest.split_once(':').map_or(("", digest), |(algorithm, hex)| (algorithm, hex));
    let cut: String = escaped(&hex.chars().take(if algorithm.is_empty() { 16 } else { 12 }).collect::<String>());
    if algorithm.is_empty() { cut } else { format!("{}:{cut}", escaped(algorithm)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d12_what_a_terminal_would_obey_is_written_out() {
        assert_eq!(escaped("plain ünïcödé 漢字"), "plain ünïcödé 漢字");
        assert_eq!(escaped("\x1b[2J\r\nred\x07"), r"\u{1b}[2J\r\nred\u{7}");
        assert_eq!(escaped("\u{9b}31m \u{7f} \u{202e}evil"), r"\u{9b}31m \u{7f} \u{202e}evil");
        let json = serde_json::to_string(&"\x1b \u{9b} \u{202e} \u{e000}").expect("serialises");
        let shown = escaped_json(&json);
        assert_eq!(shown, "\"\\u001b \\u009b \\u202e \u{e000}\"");
        assert_eq!(serde_json::from_str::<String>(&shown).expect("parses"), "\x1b \u{9b} \u{202e} \u{e000}");
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (milliseconds, text) in [(0, "0.0 s"), (440, "0.4 s"), (12_000, "12 s"), (187_000, "3 min 7 s")] {
            assert_eq!(time(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(rate(2 << 20, Duration::from_secs(2)), "1.0 MiB/s");
        assert_eq!(short("sha256:0123456789abcdef"), "sha256:0123456789ab");
        assert_eq!(short("bafkreiam6s2ylngzhei67q7v4t55xnb"), "bafkreiam6s2ylng");
    }
}
