//! Words of Cortex and Go: quoting, label sets, times, numbers.
//!
//! Clients and operators search for these texts, so they are reproduced to the letter. Only made for the first error of a push.

use model::{NameScheme, quoted};

/// `%.200q`: at most 200 characters are shown.
const SHOWN_CHARS_MAX: usize = 200;

/// As Go's `%.200q`: cut to 200 characters, then quoted.
pub(crate) fn quote_short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => quoted(&text[..end]),
        None => quoted(text),
    }
}

/// `name{a="b", c="d"}` in the order given. Source: Cortex `validation.formatLabelSet`.
pub(crate) fn metric<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut name = None;
    let mut rest = Vec::new();
    for (label, value) in pairs {
        if label == model::METRIC_NAME && name.is_none() && !value.is_empty() {
            name = Some(value);
        } else {
            rest.push(format!("{label}={}", quoted(value)));
        }
    }
    match (name, rest.is_empty()) {
        (Some(name), true) => name.to_owned(),
        (None, true) => "{}".to_owned(),
        (name, false) => format!("{}{{{}}}", name.unwrap_or_default(), rest.join(", ")),
    }
}

/// `{__name__="up", job="a"}`. Source: Prometheus `labels.Labels.String`.
pub(crate) fn label_set<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| match NameScheme::Legacy.takes_label(name) {
            true => format!("{name}={}", quoted(value)),
            false => format!("{}={}", quoted(name), quoted(value)),
        });
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

/// Milliseconds as Go's `time.RFC3339Nano` in UTC: `2026-11-23T02:00:00.25Z`. Any `i64` has a text.
pub(crate) fn rfc3339(time_ms: i64) -> String {
    let (seconds, millis) = (time_ms.div_euclid(1000), time_ms.rem_euclid(1000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = match millis {
        0 => String::new(),
        millis => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Year, month, day of a day counted from 1970-01-01 in the Gregorian calendar. Source: Hinnant, `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// As Go's `%v` of a float64: shortest, with an exponent of at least two digits below 1e-4 and from 1e6 on.
pub(crate) fn general(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_infinite() {
        return if value > 0.0 {
            "+Inf".to_owned()
        } else {
            "-Inf".to_owned()
        };
    }
    if magnitude == 0.0 || (1e-4..1e6).contains(&magnitude) || value.is_nan() {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').expect("scientific notation has an e");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        assert_eq!(
            quoted("a\"b\\c\n\u{1}\u{7f}ü\u{85}"),
            r#""a\"b\\c\n\x01\x7fü\u0085""#
        );
        assert_eq!(quote_short(&"ü".repeat(300)).chars().count(), 202);
    }

    #[test]
    fn label_sets_look_like_metrics() {
        let up = [("__name__", "up"), ("job", "a\"b")];
        assert_eq!(metric(up), r#"up{job="a\"b"}"#);
        assert_eq!(metric([("__name__", "up")]), "up");
        assert_eq!(metric([("job", "a")]), r#"{job="a"}"#);
        assert_eq!(metric([]), "{}");
        assert_eq!(label_set(up), r#"{__name__="up", job="a\"b"}"#);
    }

    #[test]
    fn times_are_told_for_every_sample() {
        for (ms, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_582_934_400_250, "2020-02-29T00:00:00.25Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), want);
        }
        assert!(rfc3339(i64::MAX).starts_with("292278994-08-17T"));
        assert!(rfc3339(i64::MIN).ends_with('Z'));
    }

    #[test]
    fn rates_are_told_as_go_tells_them() {
        for (value, want) in [
            (25_000.0, "25000"),
            (0.5, "0.5"),
            (f64::INFINITY, "+Inf"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1.5e-7, "1.5e-07"),
        ] {
            assert_eq!(general(value), want);
        }
    }
}
