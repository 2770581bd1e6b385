//! A checksum by which answers of different servers can be compared.
//!
//! Two answers are the same when they have the same series with the same values at the same times. Order of series and of labels,
//! empty labels, and the way a number is written say nothing and do not count. Neither does the last of a number's digits: servers
//! add in different orders. Values are therefore cut into cells of a relative width of 2^-30 (about 1e-9) before they are hashed.
//! Two values that differ by a rounding error may still lie on both sides of the edge of a cell, one in some million times. So three
//! sums are taken over three sets of cells, each shifted by about a third of a cell: answers [agree](Checksum::agrees) when one of
//! the three sums does. Two runs of the same computation agree in all three. No edge is at a number with few digits.
//!
//! Annotations (`warnings`, `infos`) and statistics are not part of an answer.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bits of a float that do not count: 52 of the mantissa less 30.
const CELL_BITS: u32 = 22;
/// By how much the cells of each sum are shifted, of 2^22. Odd, and none a simple fraction.
const SHIFTS: [u64; 3] = [893_127, 2_291_233, 3_689_345];

/// Three sums over one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checksum([u32; 3]);

impl Checksum {
    /// Whether the answers are the same but for rounding errors.
    pub(crate) fn agrees(self, other: Checksum) -> bool {
        self.0.iter().zip(other.0).any(|(a, b)| *a == b)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.0;
        write!(f, "{a:08x}-{b:08x}-{c:08x}")
    }
}

impl FromStr for Checksum {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Checksum> {
        let mut sums = [0; 3];
        let mut parts = text.split('-');
        for sum in &mut sums {
            let part = parts.next().context("a checksum has three parts")?;
            *sum = u32::from_str_radix(part, 16)
                .with_context(|| format!("{text:?} is not a checksum"))?;
        }
        Ok(Checksum(sums))
    }
}

impl serde::Serialize for Checksum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) checksum: Checksum,
    /// Series, label values or label sets.
    pub(crate) rows: u64,
    /// Samples of them.
    pub(crate) points: u64,
}

/// Reads a successful answer of the query API. Errors: it is none, with its beginning.
pub(crate) fn summarise(body: &[u8]) -> anyhow::Result<Summary> {
    let excerpt = || -> String { String::from_utf8_lossy(body).chars().take(200).collect() };
    let answer: Value =
        serde_json::from_slice(body).with_context(|| format!("not JSON: {}", excerpt()))?;
    if answer.get("status").and_then(Value::as_str) != Some("success") {
        bail!("not a success: {}", excerpt());
    }
    let data = answer
        .get("data")
        .with_context(|| format!("without data: {}", excerpt()))?;
    let (kind, rows) = match data.get("resultType").and_then(Value::as_str) {
        Some(kind) => (kind, data.get("result")),
        None => ("list", Some(data)),
    };
    let rows = rows.with_context(|| format!("without a result: {}", excerpt()))?;
    let list = match kind {
        // One point that has no labels.
        "scalar" | "string" => std::slice::from_ref(rows),
        _ => rows
            .as_array()
            .map(Vec::as_slice)
            .with_context(|| format!("its result is no list: {}", excerpt()))?,
    };
    let mut points = 0;
    let mut hashes: Vec<[u64; 3]> = Vec::with_capacity(list.len());
    for row in list {
        hashes.push(SHIFTS.map(|shift| {
            let mut sink = Sink::new(shift);
            points += match kind {
                "matrix" | "vector" => sink.series(row),
                "scalar" => sink.point(row),
                _ => sink.labels_or_text(row),
            };
            sink.finish()
        }));
    }
    let sums = std::array::from_fn(|i| {
        let mut column: Vec<u64> = hashes.iter().map(|hash| hash[i]).collect();
        column.sort_unstable();
        let bytes: Vec<u8> = column.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        (xxh3_64_with_seed(&bytes, list.len() as u64) >> 32) as u32
    });
    Ok(Summary {
        checksum: Checksum(sums),
        rows: list.len() as u64,
        // Each was counted once for every shift.
        points: points / SHIFTS.len() as u64,
    })
}

/// The cell of a value.
fn cell(value: f64, shift: u64) -> u64 {
    if value.is_nan() {
        u64::MAX
    } else if value == 0.0 {
        0
    } else if value.is_infinite() {
        u64::MAX - 1 - u64::from(value < 0.0)
    } else {
        // The bits of a float are ordered as its size is, so that a cell may reach over a power of two.
        let cell = (value.abs().to_bits() + shift) >> CELL_BITS;
        cell << 1 | u64::from(value < 0.0)
    }
}

/// Bytes that say what a row is.
struct Sink {
    shift: u64,
    bytes: Vec<u8>,
}

impl Sink {
    fn new(shift: u64) -> Sink {
        Sink {
            shift,
            bytes: Vec::new(),
        }
    }

    fn finish(self) -> u64 {
        xxh3_64_with_seed(&self.bytes, 0)
    }

    fn word(&mut self, word: u64) {
        self.bytes.extend_from_slice(&word.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, value: f64) {
        self.word(cell(value, self.shift));
    }

    fn labels(&mut self, labels: &Value) {
        let mut pairs: Vec<(&str, &str)> = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or("")))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        pairs.sort_unstable();
        self.word(pairs.len() as u64);
        for (name, value) in pairs {
            self.text(name);
            self.text(value);
        }
    }

    /// A series of a vector or matrix; gives the number of its points.
    fn series(&mut self, row: &Value) -> u64 {
        self.labels(row.get("metric").unwrap_or(&Value::Null));
        let mut points = 0;
        for name in ["value", "histogram"] {
            if let Some(point) = row.get(name) {
                points += self.point(point);
            }
        }
        for name in ["values", "histograms"] {
            for point in row
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                points += self.point(point);
            }
        }
        points
    }

    /// `[seconds, "value"]` or `[seconds, {histogram}]`.
    fn point(&mut self, point: &Value) -> u64 {
        let time = point.get(0).and_then(Value::as_f64).unwrap_or(f64::NAN);
        self.word((time * 1000.0).round() as i64 as u64);
        self.numbers(point.get(1).unwrap_or(&Value::Null));
        1
    }

    /// Everything in a value that is a number, with the names it stands under.
    fn numbers(&mut self, value: &Value) {
        match value {
            Value::String(text) => match parse(text) {
                Some(number) => self.number(number),
                None => self.text(text),
            },
            Value::Number(number) => self.number(number.as_f64().unwrap_or(f64::NAN)),
            Value::Array(list) => list.iter().for_each(|value| self.numbers(value)),
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_unstable_by_key(|(name, _)| name.as_str());
                for (name, value) in fields {
                    self.text(name);
                    self.numbers(value);
                }
            }
            Value::Bool(_) | Value::Null => {}
        }
    }

    /// A row of an answer about labels or series.
    fn labels_or_text(&mut self, row: &Value) -> u64 {
        match row {
            Value::String(text) => self.text(text),
            Value::Object(_) => self.labels(row),
            // The string result: `[seconds, "text"]`.
            _ => return self.point(row),
        }
        0
    }
}

/// A number as JSON of the API writes it: in any notation, with infinities of several spellings.
fn parse(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(result: &str) -> Checksum {
        let body = format!(r#"{{"status":"success","data":{result}}}"#);
        summarise(body.as_bytes()).unwrap().checksum
    }

    const MATRIX: &str = r#"{"resultType":"matrix","result":[
        {"metric":{"a":"1","b":"2"},"values":[[10,"0.1"],[25,"100000"]]},
        {"metric":{"a":"2"},"values":[[10,"NaN"],[25,"+Inf"]]}]}"#;

    #[test]
    fn order_of_series_and_labels_and_the_spelling_of_numbers_do_not_count() {
        let same = r#"{"result":[
            {"values":[[10.000,"NaN"],[25,"+Inf"]],"metric":{"a":"2","c":""}},
            {"metric":{"b":"2","a":"1"},"values":[[10.0,"1e-1"],[25.0000,"1e+05"]]}],
            "resultType":"matrix"}"#;
        assert_eq!(of(MATRIX), of(same));
    }

    #[test]
    fn another_value_time_label_or_number_of_series_is_another_answer() {
        for (from, to) in [
            ("0.1", "0.1000001"),
            ("0.1", "-0.1"),
            ("[10,", "[10.001,"),
            (r#""b":"2""#, r#""b":"3""#),
            (r#""b":"2""#, r#""c":"2""#),
            ("+Inf", "-Inf"),
            ("NaN", "0"),
            (r#",[25,"100000"]"#, ""),
        ] {
            let other = MATRIX.replacen(from, to, 1);
            assert_ne!(other, MATRIX);
            assert!(!of(MATRIX).agrees(of(&other)), "{from} to {to}");
        }
        let twice = MATRIX.replacen(
            r#""result":["#,
            r#""result":[{"metric":{},"values":[]},"#,
            1,
        );
        assert!(!of(MATRIX).agrees(of(&twice)));
    }

    #[test]
    fn rounding_errors_do_not_count_and_larger_differences_do() {
        let answer = |value: f64| {
            of(&format!(
                r#"{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}"#
            ))
        };
        let mut value = 1.0e-12f64;
        let mut edges = 0;
        for i in 0..20_000u64 {
            value *= 1.003_7;
            for value in [value, i as f64, i as f64 / 1000.0, 2f64.powi(i as i32 % 60)] {
                let near = f64::from_bits(value.to_bits() + 2);
                assert!(answer(value).agrees(answer(near)), "{value} and {near}");
                edges += u32::from(answer(value) != answer(near));
                let far = value * (1.0 + 4e-9);
                assert!(
                    value == 0.0 || !answer(value).agrees(answer(far)),
                    "{value}"
                );
            }
        }
        assert!(edges < 10, "{edges} values on the edge of a cell");
    }

    #[test]
    fn one_sum_of_three_is_enough_and_the_text_can_be_read_again() {
        let (a, b) = (Checksum([1, 2, 3]), Checksum([9, 2, 8]));
        assert!(a.agrees(b) && !a.agrees(Checksum([2, 3, 1])));
        assert_eq!(a.to_string().parse::<Checksum>().unwrap(), a);
        assert!("12-x-3".parse::<Checksum>().is_err());
    }

    #[test]
    fn lists_scalars_and_histograms_are_summarised() {
        let body = |data: &str| format!(r#"{{"status":"success","data":{data}}}"#);
        let rows = |data: &str| {
            let summary = summarise(body(data).as_bytes()).unwrap();
            (summary.rows, summary.points)
        };
        assert_eq!(rows(r#"["a","b"]"#), (2, 0));
        assert_eq!(rows(r#"[{"a":"1"},{"a":"2"}]"#), (2, 0));
        assert_eq!(rows(r#"{"resultType":"scalar","result":[1,"2"]}"#), (1, 1));
        assert_eq!(rows(MATRIX), (2, 4));
        assert!(!of(r#"["a","b"]"#).agrees(of(r#"["a","c"]"#)));
        assert_eq!(of(r#"["a","b"]"#), of(r#"["b","a"]"#));
        let histogram = |sum: &str| {
            of(&format!(
                r#"{{"resultType":"vector","result":[{{"metric":{{}},"histogram":
                [1,{{"count":"3","sum":"{sum}","buckets":[[0,"0.5","1","3"]]}}]}}]}}"#
            ))
        };
        assert_eq!(histogram("2.50"), histogram("2.5"));
        assert!(!histogram("2.5").agrees(histogram("2.6")));
    }

    #[test]
    fn what_is_no_answer_is_told_with_its_beginning() {
        for body in ["", "oops", r#"{"status":"error","error":"too many"}"#, "{}"] {
            let error = summarise(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(body), "{error}");
        }
    }
}
