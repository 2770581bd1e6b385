//! The PromQL parser: text from anybody. What is accepted must print as text that is accepted and prints the same.

use bolero::check;

use super::INPUTS;

/// Pieces of the language, and some that are none.
const PIECES: [&str; 96] = [
    "up",
    "http_requests_total",
    "rate",
    "sum",
    "by",
    "without",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "[5m]",
    "[5m:1m]",
    "[1h:]",
    "{job=\"a\"}",
    "{__name__=~\"a.*\"}",
    "{\"quoted name\"}",
    "job",
    "=",
    "!=",
    "=~",
    "!~",
    "\"a\"",
    "'b'",
    "`c`",
    ",",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "==",
    ">",
    "<",
    ">=",
    "<=",
    "bool",
    "and",
    "or",
    "unless",
    "atan2",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "@",
    "start()",
    "end()",
    "5m",
    "-5m",
    "1h30m",
    "1",
    "0x1f",
    "1e3",
    "1_000",
    "Inf",
    "NaN",
    ".5",
    "topk",
    "quantile",
    "count_values",
    "histogram_quantile",
    "label_replace",
    "absent",
    "time()",
    "vector(1)",
    "scalar",
    "avg_over_time",
    "holt_winters",
    "sort_desc",
    "clamp",
    "day_of_week()",
    "limitk",
    "rate(up[5m])",
    "sum by (job)",
    "irate",
    "predict_linear",
    "\n",
    "# comment\n",
    "\u{e9}",
    "\0",
    "\\",
    "\"\\x",
    "\"\\u12",
    "'\\''",
    ":",
    "a:b",
    "$__interval",
    "anchored",
    "smoothed",
    "fill(0)",
    "step()",
    "1e999",
];

fn parse(text: &str) {
    let Ok(expr) = promql::parse(text) else {
        return;
    };
    let printed = expr.to_string();
    match promql::parse(&printed) {
        // Infinity prints as `+Inf`, as in Prometheus; before `^` that reads as a sign in front of the power.
        Ok(again) if printed.contains("+Inf") => drop(again.to_string()),
        Ok(again) => assert_eq!(again.to_string(), printed, "{text:?}"),
        Err(error) => panic!("{text:?} prints as {printed:?}, which is refused: {error}"),
    }
}

#[test]
fn promql_of_any_text() {
    check!()
        .with_iterations(INPUTS)
        .with_max_len(500)
        .for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            parse(&text);
            let _ = promql::parse_selector(&text);
        });
}

#[test]
fn promql_of_pieces_of_the_language() {
    check!()
        .with_iterations(INPUTS * 3)
        .with_max_len(24)
        .for_each(|bytes: &[u8]| {
            let mut text = String::new();
            for byte in bytes {
                // Pieces stand apart or not, by the top bit.
                text.push_str(PIECES[usize::from(*byte & 127) % PIECES.len()]);
                if byte & 128 == 0 {
                    text.push(' ');
                }
            }
            parse(&text);
            let _ = promql::parse_selector(&text);
        });
}
