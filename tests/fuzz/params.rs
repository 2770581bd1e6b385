//! Parameters of the query API: text from anybody. What is accepted must be within the bounds of time and must not overflow later.

use bolero::check;
use gateway::params::{Form, POINTS_MAX, parse_duration, parse_time};
use query::Times;

use super::INPUTS;

/// Parameters that mean something, and one that does not.
const NAMES: [&str; 9] = [
    "query",
    "time",
    "start",
    "end",
    "step",
    "timeout",
    "limit",
    "lookback_delta",
    "x",
];

/// Values at the edges, and pieces of them.
const VALUES: [&str; 32] = [
    "",
    "0",
    "-1",
    "1",
    "1.5",
    "1e3",
    "1e308",
    "-1e308",
    "NaN",
    "Inf",
    "-Inf",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775.807",
    "9223372036854775.808",
    "1700000000",
    "1700000000.123",
    "2023-11-14T22:13:20Z",
    "2023-11-14T22:13:20.5+01:00",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "2023-02-30T00:00:00Z",
    "15s",
    "1h30m",
    "292y",
    "300000y",
    "-5m",
    "1ms",
    "5m5m",
    "1d 1h",
    "%zz",
    "\u{e9}",
];

/// Asks for everything a handler could ask for.
fn read(form: &Form) {
    for name in NAMES {
        let _ = form.first(name);
        assert_eq!(form.all(name).first().map(String::as_str), form.first(name));
    }
    let _ = form.timeout();
    let _ = form.lookback();
    let _ = form.limit("limit");
    if let Ok(Times::Instant(time)) = form.instant(0) {
        assert!(
            form.first("time")
                .is_none_or(|text| text.is_empty() || parse_time(text) == Ok(time))
        );
    }
    if let Ok(Times::Range { start, end, step }) = form.range() {
        assert!(start <= end && step > 0);
        assert!(end.saturating_sub(start) / step <= POINTS_MAX);
    }
}

#[test]
fn params_of_any_form() {
    check!()
        .with_type::<(Vec<u8>, Vec<u8>)>()
        .with_iterations(INPUTS)
        .with_max_len(1000)
        .for_each(|(url, body)| {
            if let Ok(form) = Form::parse(&String::from_utf8_lossy(url), body) {
                read(&form);
            }
        });
}

#[test]
fn params_of_known_names() {
    check!()
        .with_iterations(INPUTS)
        .with_max_len(24)
        .for_each(|bytes: &[u8]| {
            let mut text = String::new();
            for pair in bytes.chunks(2) {
                let name = NAMES[usize::from(pair[0]) % NAMES.len()];
                let value = VALUES[usize::from(pair[pair.len() - 1]) % VALUES.len()];
                text.push_str(&format!("{name}={value}&"));
            }
            if let Ok(form) = Form::parse(&text, b"") {
                read(&form);
            }
            if let Ok(form) = Form::parse("", text.as_bytes()) {
                read(&form);
            }
        });
}

#[test]
fn params_of_any_text_as_time() {
    check!()
        .with_type::<(Vec<u8>, u8)>()
        .with_iterations(INPUTS)
        .with_max_len(100)
        .for_each(|(bytes, edge)| {
            let mut text = String::from_utf8_lossy(bytes).into_owned();
            let _ = parse_time(&text);
            let _ = parse_duration(&text);
            text.insert_str(0, VALUES[usize::from(*edge) % VALUES.len()]);
            let _ = parse_time(&text);
            let _ = parse_duration(&text);
        });
}
