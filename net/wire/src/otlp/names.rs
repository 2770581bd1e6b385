//! Names as Prometheus' `otlptranslator` makes them, strategy `UnderscoreEscapingWithSuffixes`.
//!
//! A metric: its runs of letters, digits and colons, joined by `_`; then the unit in words unless the name has that word already, `per` the
//! other unit, `total` for counters, `ratio` for gauges of unit `1`. A label: every other character is `_`, and a begin that Prometheus does not
//! take, or that looks reserved, gets `key` before it.

use std::borrow::Cow;

/// What a metric is, as far as its name is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    /// A sum that only goes up.
    Counter,
    Other,
}

/// Units of the Unified Code for Units of Measure, in words.
const UNITS: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// The same behind a slash.
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// The name of a metric.
///
/// Errors: nothing is left of it but underscores; the words are for the sender.
pub(super) fn metric(name: &str, unit: &str, kind: Kind, suffixes: bool) -> Result<String, String> {
    let named = match suffixes {
        true => with_suffixes(name, unit, kind),
        false => {
            let other = |c: char| !is_word(c) && c != '_';
            join(name.split(other).filter(|part| !part.is_empty()))
        }
    };
    match named.as_str() {
        "" => Err(format!(
            "normalization for metric {:?} resulted in empty name",
            super::short(name)
        )),
        _ if named != name && named.bytes().all(|b| b == b'_') => Err(format!(
            "normalization for metric {:?} resulted in invalid name {:?}",
            super::short(name),
            super::short(&named)
        )),
        _ => Ok(named),
    }
}

fn with_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens: Vec<&str> = name
        .split(|c| !is_word(c))
        .filter(|token| !token.is_empty())
        .collect();
    let (main, per) = units(unit);
    let (mut main, mut per) = (main.as_str(), per.trim_end_matches('_'));
    if tokens.contains(&main) {
        main = "";
    }
    // Nothing is left of a unit that was `per_` and no word.
    if per == "per" || tokens.contains(&per) {
        per = "";
    }
    if !per.is_empty() {
        main = main.strip_suffix('_').unwrap_or(main);
    }
    tokens.extend([main, per].iter().filter(|suffix| !suffix.is_empty()));
    let last = match kind {
        Kind::Counter => Some("total"),
        Kind::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(last) = last {
        tokens.retain(|token| *token != last);
        tokens.push(last);
    }
    join(tokens.into_iter())
}

/// Joined by underscores; one more stands before a digit.
fn join<'t>(tokens: impl Iterator<Item = &'t str>) -> String {
    let mut name = String::new();
    for token in tokens {
        if !name.is_empty() || token.starts_with(|c: char| c.is_ascii_digit()) {
            name.push('_');
        }
        name.push_str(token);
    }
    name
}

/// Colons too: those of a metric's name.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// A unit in words, and what it is counted per with `per_` before it; either may be empty.
fn units(unit: &str) -> (String, String) {
    let (main, per) = match unit.split_once('/') {
        Some((main, per)) => (main.trim(), per.trim()),
        None => (unit.trim(), ""),
    };
    let in_words = |unit: &str, words: &[(&'static str, &'static str)]| {
        if unit.contains(['{', '}']) {
            return String::new();
        }
        let known = words.iter().find(|(short, _)| *short == unit);
        known.map_or_else(|| clean(unit), |(_, word)| (*word).to_owned())
    };
    let per = match in_words(per, &PER_UNITS) {
        per if per.is_empty() => per,
        per => clean(&format!("per_{per}")),
    };
    (in_words(main, &UNITS), per)
}

/// Anything but letters, digits and colons becomes an underscore, several one, and none at the begin.
fn clean(unit: &str) -> String {
    let mut clean = String::with_capacity(unit.len());
    for c in unit.chars() {
        match is_word(c) {
            true => clean.push(c),
            false if clean.is_empty() || clean.ends_with('_') => {}
            false => clean.push('_'),
        }
    }
    clean
}

/// The unit that metadata tells.
pub(super) fn unit(unit: &str) -> String {
    let (main, per) = units(unit);
    let whole = match (main.as_str(), per.as_str()) {
        ("", only) | (only, "") => only.to_owned(),
        (main, per) => format!("{main}_{per}"),
    };
    whole.trim_matches('_').to_owned()
}

/// The name of a label; `None` where nothing is left but underscores.
pub(super) fn label(key: &str) -> Option<Cow<'_, str>> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = match key.chars().all(good) {
        true => Cow::Borrowed(key),
        false => Cow::Owned(key.chars().map(|c| if good(c) { c } else { '_' }).collect()),
    };
    let name = match name.as_bytes() {
        [] => return None,
        [b'0'..=b'9', ..] => Cow::Owned(format!("key_{name}")),
        [b'_', b'_', ..] => name,
        [b'_', ..] => Cow::Owned(format!("key{name}")),
        _ => name,
    };
    (name == key || name.bytes().any(|b| b != b'_')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Prometheus' own tests of its translator, and units that it maps.
    #[test]
    fn metrics_are_named_as_prometheus_names_them() {
        use Kind::*;
        for (name, unit, kind, wanted) in [
            ("requests", "", Counter, "requests_total"),
            ("cpu_usage", "1", Gauge, "cpu_usage_ratio"),
            ("items", "1", Counter, "items_total"),
            ("response_time", "ms", Gauge, "response_time_milliseconds"),
            ("memory_usage", "By", Gauge, "memory_usage_bytes"),
            ("requests", "1/s", Gauge, "requests_per_second"),
            ("throughput", "By/s", Gauge, "throughput_bytes_per_second"),
            (
                "custom_metric",
                "custom_unit",
                Gauge,
                "custom_metric_custom_unit",
            ),
            ("custom_metric", "{custom}", Gauge, "custom_metric"),
            ("custom_metric", "By/{custom}", Gauge, "custom_metric_bytes"),
            ("requests_total", "", Counter, "requests_total"),
            ("total.requests", "", Counter, "requests_total"),
            ("cpu_usage_ratio", "1", Gauge, "cpu_usage_ratio"),
            ("response_time_seconds", "s", Gauge, "response_time_seconds"),
            ("cpu_seconds_total", "s", Counter, "cpu_seconds_total"),
            ("123_requests", "", Counter, "_123_requests_total"),
            (
                "metric__with__multiple__underscores",
                "unit__multiple__underscores",
                Gauge,
                "metric_with_multiple_underscores_unit_multiple_underscores",
            ),
            (
                "custom_metric",
                "unit@with#special/chars",
                Gauge,
                "custom_metric_unit_with_special_per_chars",
            ),
            ("request_duration", "s", Other, "request_duration_seconds"),
            (
                "http.server.request.duration",
                "s",
                Other,
                "http_server_request_duration_seconds",
            ),
            (
                "system.io",
                "foo/bar",
                Counter,
                "system_io_foo_per_bar_total",
            ),
            ("system.io", "%/m", Gauge, "system_io_percent_per_minute"),
            ("a:b", "", Other, "a:b"),
            ("größe", "", Other, "gr_e"),
            ("x", "/", Other, "x"),
            ("x", "s/@", Other, "x_seconds"),
        ] {
            assert_eq!(
                metric(name, unit, kind, true).as_deref(),
                Ok(wanted),
                "{name} {unit}"
            );
        }
        for nothing in ["", "@#$%", "___"] {
            assert!(metric(nothing, "", Gauge, true).is_err(), "{nothing}");
        }
        assert_eq!(metric("@", "s", Gauge, true).as_deref(), Ok("seconds"));
    }

    #[test]
    fn without_suffixes_only_characters_are_replaced() {
        for (name, wanted) in [
            ("simple_metric", "simple_metric"),
            ("metric@with#special$chars", "metric_with_special_chars"),
            ("123metric", "_123metric"),
            ("a__b", "a__b"),
        ] {
            assert_eq!(
                metric(name, "s", Kind::Counter, false).as_deref(),
                Ok(wanted)
            );
        }
        assert!(metric("@#$%", "", Kind::Gauge, false).is_err());
    }

    #[test]
    fn units_are_told_in_words() {
        for (short, wanted) in [
            ("ms", "milliseconds"),
            ("1/s", "per_second"),
            ("By/s", "bytes_per_second"),
            ("{custom}", ""),
            ("By/{x}", "bytes"),
            ("1", ""),
            ("unit@with#special/chars", "unit_with_special_per_chars"),
        ] {
            assert_eq!(unit(short), wanted, "{short}");
        }
    }

    #[test]
    fn labels_are_named_as_prometheus_names_them() {
        for (key, wanted) in [
            ("http.method", Some("http_method")),
            ("123invalid", Some("key_123invalid")),
            ("_private", Some("key_private")),
            ("__reserved__", Some("__reserved__")),
            ("a..b", Some("a__b")),
            ("ü", Some("key_")),
            ("_", Some("key_")),
            ("@x", Some("key_x")),
            ("", None),
            ("@@", None),
        ] {
            assert_eq!(label(key).as_deref(), wanted, "{key}");
        }
    }
}
