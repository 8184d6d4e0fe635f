//! Moments as RFC 3339 writes them, in UTC.
//!
//! Imports nothing of this crate, and reads no clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment to the second, as containerd reads it.
pub fn seconds(since_epoch: Duration) -> String {
    self::since_epoch(since_epoch.as_secs().cast_signed())
}

/// The same of a moment that may lie before 1970.
pub fn since_epoch(seconds: i64) -> String {
    format!("{}Z", date_and_time(seconds))
}

/// A moment to the nanosecond; one before 1970 is taken for the beginning of that year.
pub fn nanoseconds(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}Z", date_and_time(since_epoch.as_secs().cast_signed()), since_epoch.subsec_nanos())
}

fn date_and_time(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's way from days to dates, in years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_containerd_reads_them() {
        for (since_epoch, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(seconds(Duration::from_secs(since_epoch)), text);
        }
        for (seconds, text) in [
            (-1, "1969-12-31T23:59:59Z"),
            (-62_167_219_200, "0000-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(since_epoch(seconds), text);
        }
    }

    #[test]
    fn moments_are_written_as_everybody_does() {
        let at = |seconds: u64| nanoseconds(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56.000000000Z");
        assert_eq!(at(1_704_067_199), "2023-12-31T23:59:59.000000000Z");
    }
}
