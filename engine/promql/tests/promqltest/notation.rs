//! The notation of series in scripts: `metric{a="b"} 1 2+3x4 _ stale {{schema:0 count:1}}x2`.
//!
//! A value may repeat (`1x3` is four ones), count up or down (`1+2x3` is 1 3 5 7), be missing (`_`) or be the staleness marker. Native
//! histograms stand in double braces. Expected results are written in the same way.

use std::collections::BTreeMap;

use model::{CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Labels, LabelsBuilder, Span};

/// What a script says that cannot be understood.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// One value of a series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Point {
    /// A float, the staleness marker included.
    Float(f64),
    /// A native histogram.
    Histogram(Buckets),
}

/// A native histogram with its buckets by index, which makes adding simple.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Buckets {
    pub(crate) schema: i32,
    pub(crate) sum: f64,
    pub(crate) count: f64,
    pub(crate) zero_count: f64,
    pub(crate) zero_threshold: f64,
    pub(crate) positive: BTreeMap<i32, f64>,
    pub(crate) negative: BTreeMap<i32, f64>,
    pub(crate) custom_values: Vec<f64>,
    pub(crate) counter_reset: CounterReset,
}

/// A series line: labels, then values; `None` for a missing one.
pub(crate) fn series(line: &str) -> Result<(Labels, Vec<Option<Point>>)> {
    let (labels, rest) = metric(line)?;
    Ok((labels, values(rest)?))
}

/// Reads a metric's name and labels off the front.
pub(crate) fn metric(line: &str) -> Result<(Labels, &str)> {
    let mut labels = LabelsBuilder::default();
    let mut rest = line.trim_start();
    let name_len = identifier(rest, true);
    if name_len > 0 {
        labels.push(model::METRIC_NAME, &rest[..name_len]);
        rest = &rest[name_len..];
    }
    let inner = rest.trim_start();
    if inner.starts_with('{') && !inner.starts_with("{{") {
        rest = label_list(&inner[1..], &mut labels)?;
    } else if name_len == 0 {
        return Err(format!("no series in {line:?}"));
    }
    let labels = labels.finish().map_err(|e| format!("{e} in {line:?}"))?;
    Ok((labels, rest))
}

fn label_list<'a>(text: &'a str, labels: &mut LabelsBuilder) -> Result<&'a str> {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        if let Some(after) = rest.strip_prefix(',') {
            rest = after;
            continue;
        }
        let name = if rest.starts_with(['"', '\'', '`']) {
            let (name, after) = quoted(rest)?;
            rest = after;
            name
        } else {
            let len = identifier(rest, false);
            if len == 0 {
                return Err(format!("expected a label's name at {rest:?}"));
            }
            let name = rest[..len].to_owned();
            rest = &rest[len..];
            name
        };
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('=') {
            let (value, after) = quoted(after.trim_start())?;
            labels.push(&name, &value);
            rest = after;
        } else {
            labels.push(model::METRIC_NAME, &name);
        }
    }
}

/// Length of the identifier at the front.
fn identifier(text: &str, colons: bool) -> usize {
    text.bytes()
        .enumerate()
        .position(|(i, b)| {
            !(b.is_ascii_alphabetic()
                || b == b'_'
                || (colons && b == b':')
                || (i > 0 && b.is_ascii_digit()))
        })
        .unwrap_or(text.len())
}

/// Reads a quoted text off the front; what is not UTF-8 becomes the replacement character.
pub(crate) fn quoted(text: &str) -> Result<(String, &str)> {
    let bytes = text.as_bytes();
    let quote = *bytes.first().ok_or("expected a quoted text")?;
    let mut out = Vec::new();
    let mut i = 1;
    loop {
        let byte = *bytes
            .get(i)
            .ok_or_else(|| format!("quote is not closed in {text:?}"))?;
        i += 1;
        if byte == quote {
            return Ok((String::from_utf8_lossy(&out).into_owned(), &text[i..]));
        }
        if byte != b'\\' || quote == b'`' {
            out.push(byte);
            continue;
        }
        let escape = *bytes.get(i).ok_or("text ends in an escape")?;
        i += 1;
        let digits = |from: usize, count: usize, radix: u32| {
            text.get(from..from + count)
                .and_then(|digits| u32::from_str_radix(digits, radix).ok())
                .ok_or_else(|| format!("bad escape in {text:?}"))
        };
        match escape {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'\\' | b'\'' | b'"' => out.push(escape),
            b'x' => {
                out.push(digits(i, 2, 16)? as u8);
                i += 2;
            }
            b'u' | b'U' => {
                let count = if escape == b'u' { 4 } else { 8 };
                let code = digits(i, count, 16)?;
                let char = char::from_u32(code).ok_or("escape is no character")?;
                out.extend(char.to_string().into_bytes());
                i += count;
            }
            b'0'..=b'7' => {
                out.push(digits(i - 1, 3, 8)? as u8);
                i += 2;
            }
            _ => return Err(format!("unknown escape in {text:?}")),
        }
    }
}

/// Expands a list of values.
pub(crate) fn values(text: &str) -> Result<Vec<Option<Point>>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        rest = item(rest, &mut out)?;
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
            return Err(format!("unexpected {rest:?} in values"));
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

fn item<'a>(text: &'a str, out: &mut Vec<Option<Point>>) -> Result<&'a str> {
    if text.starts_with("{{") {
        return histogram_item(text, out);
    }
    if let Some(rest) = text.strip_prefix('_') {
        let (times, rest) = repetition(rest)?;
        out.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
        return Ok(rest);
    }
    let (value, rest) = if let Some(rest) = text.strip_prefix("stale") {
        (model::stale_nan(), rest)
    } else {
        take_number(text)?
    };
    if rest.starts_with(['+', '-']) {
        let (step, rest) = take_number(rest)?;
        let (times, rest) = repetition(rest)?;
        let times = times.ok_or_else(|| format!("expected x and a number at {rest:?}"))?;
        let mut value = value;
        for _ in 0..=times {
            out.push(Some(Point::Float(value)));
            value += step;
        }
        return Ok(rest);
    }
    let (times, rest) = repetition(rest)?;
    let count = times.map_or(1, |times| times + 1);
    out.extend(std::iter::repeat_n(Some(Point::Float(value)), count));
    Ok(rest)
}

/// `x5` at the front.
fn repetition(text: &str) -> Result<(Option<usize>, &str)> {
    let Some(rest) = text.strip_prefix('x') else {
        return Ok((None, text));
    };
    let len = rest
        .bytes()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(rest.len());
    let times = rest[..len]
        .parse()
        .map_err(|_| format!("expected a number at {rest:?}"))?;
    Ok((Some(times), &rest[len..]))
}

/// The longest number at the front, sign included.
fn take_number(text: &str) -> Result<(f64, &str)> {
    let bytes = text.as_bytes();
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    let word = text.get(sign..sign + 3).unwrap_or_default();
    let end = if word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan") {
        sign + 3
    } else {
        let mut end = sign + digits(sign);
        if bytes.get(end) == Some(&b'.') {
            end += 1 + digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let signed = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + signed);
            if exponent > 0 {
                end += 1 + signed + exponent;
            }
        }
        end
    };
    let value = text[..end]
        .parse()
        .map_err(|_| format!("expected a number at {text:?}"))?;
    Ok((value, &text[end..]))
}

/// A lone number as an expected scalar: also hexadecimal, also with underscores.
pub(crate) fn number(text: &str) -> Option<f64> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(&text)),
    };
    if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().map(|n| sign * n as f64);
    }
    digits.parse().ok().map(|n: f64| sign * n)
}

fn histogram_item<'a>(text: &'a str, out: &mut Vec<Option<Point>>) -> Result<&'a str> {
    let (first, rest) = histogram(text)?;
    if let Some(sign @ ('+' | '-')) = rest.chars().next() {
        let (step, rest) = histogram(&rest[1..])?;
        let (times, rest) = repetition(rest)?;
        let times = times.ok_or_else(|| format!("expected x and a number at {rest:?}"))?;
        let mut value = first;
        for _ in 0..=times {
            out.push(Some(Point::Histogram(value.clone())));
            value = value.plus(&step, if sign == '+' { 1.0 } else { -1.0 });
        }
        return Ok(rest);
    }
    let (times, rest) = repetition(rest)?;
    let count = times.map_or(1, |times| times + 1);
    out.extend(std::iter::repeat_n(Some(Point::Histogram(first)), count));
    Ok(rest)
}

fn histogram(text: &str) -> Result<(Buckets, &str)> {
    let body = text
        .strip_prefix("{{")
        .ok_or_else(|| format!("expected a histogram at {text:?}"))?;
    let (body, rest) = body
        .split_once("}}")
        .ok_or_else(|| format!("histogram is not closed in {text:?}"))?;
    let mut buckets = Buckets::default();
    let (mut positive, mut negative) = ((0, Vec::new()), (0, Vec::new()));
    let mut body = body.trim();
    while !body.is_empty() {
        let (key, after) = body
            .split_once(':')
            .ok_or_else(|| format!("expected a colon in {body:?}"))?;
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('[') {
            Some(list) => list
                .split_once(']')
                .ok_or_else(|| format!("list is not closed in {after:?}"))?,
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        body = after.trim_start();
        let one = || number(value).ok_or_else(|| format!("{value:?} is no number"));
        let list = || {
            value
                .split_whitespace()
                .map(|v| number(v).ok_or_else(|| format!("{v:?} is no number")))
                .collect::<Result<Vec<f64>>>()
        };
        match key.trim() {
            "schema" => buckets.schema = one()? as i32,
            "sum" => buckets.sum = one()?,
            "count" => buckets.count = one()?,
            "z_bucket" => buckets.zero_count = one()?,
            "z_bucket_w" => buckets.zero_threshold = one()?,
            "custom_values" => buckets.custom_values = list()?,
            "buckets" => positive.1 = list()?,
            "offset" => positive.0 = one()? as i32,
            "n_buckets" => negative.1 = list()?,
            "n_offset" => negative.0 = one()? as i32,
            "counter_reset_hint" => {
                buckets.counter_reset = match value {
                    "unknown" => CounterReset::Unknown,
                    "reset" => CounterReset::Yes,
                    "not_reset" => CounterReset::No,
                    "gauge" => CounterReset::Gauge,
                    _ => return Err(format!("unknown hint {value:?}")),
                }
            }
            key => return Err(format!("unknown part {key:?} of a histogram")),
        }
    }
    buckets.positive = (positive.0..).zip(positive.1).collect();
    buckets.negative = (negative.0..).zip(negative.1).collect();
    Ok((buckets, rest))
}

impl Buckets {
    /// This one plus `sign` times the other, at the lower resolution of both.
    fn plus(&self, other: &Buckets, sign: f64) -> Buckets {
        let schema = self.schema.min(other.schema);
        let (mut sum, other) = (self.reduced(schema), other.reduced(schema));
        sum.sum += sign * other.sum;
        sum.count += sign * other.count;
        sum.zero_count += sign * other.zero_count;
        sum.zero_threshold = sum.zero_threshold.max(other.zero_threshold);
        for (mine, theirs) in [
            (&mut sum.positive, other.positive),
            (&mut sum.negative, other.negative),
        ] {
            for (index, count) in theirs {
                *mine.entry(index).or_default() += sign * count;
            }
        }
        sum
    }

    fn reduced(&self, schema: i32) -> Buckets {
        if self.schema == schema || schema == CUSTOM_BUCKETS_SCHEMA {
            return self.clone();
        }
        let by = self.schema - schema;
        let reduce = |buckets: &BTreeMap<i32, f64>| {
            let mut out = BTreeMap::new();
            for (index, count) in buckets {
                *out.entry(((index - 1) >> by) + 1).or_default() += count;
            }
            out
        };
        Buckets {
            schema,
            positive: reduce(&self.positive),
            negative: reduce(&self.negative),
            ..self.clone()
        }
    }

    /// As the engine is given it.
    pub(crate) fn to_histogram(&self) -> FloatHistogram {
        let (positive_spans, positive_counts) = spans(&self.positive);
        let (negative_spans, negative_counts) = spans(&self.negative);
        FloatHistogram {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans,
            positive_counts,
            negative_spans,
            negative_counts,
            custom_values: self.custom_values.clone(),
        }
    }

    /// As the engine has computed it.
    pub(crate) fn of_histogram(histogram: &FloatHistogram) -> Buckets {
        Buckets {
            schema: histogram.schema,
            sum: histogram.sum,
            count: histogram.count,
            zero_count: histogram.zero_count,
            zero_threshold: histogram.zero_threshold,
            positive: by_index(&histogram.positive_spans, &histogram.positive_counts),
            negative: by_index(&histogram.negative_spans, &histogram.negative_counts),
            custom_values: histogram.custom_values.clone(),
            counter_reset: histogram.counter_reset,
        }
    }

    fn bound(&self, index: i32) -> f64 {
        if self.schema != CUSTOM_BUCKETS_SCHEMA {
            return (f64::from(index) * (-f64::from(self.schema)).exp2()).exp2();
        }
        match usize::try_from(index) {
            Err(_) => f64::NEG_INFINITY,
            Ok(index) => self
                .custom_values
                .get(index)
                .copied()
                .unwrap_or(f64::INFINITY),
        }
    }

    /// The buckets with observations: lower bound, upper bound, count; ascending.
    pub(crate) fn filled(&self) -> Vec<(f64, f64, f64)> {
        let zero = self.zero_threshold;
        let mut out = Vec::new();
        for (index, count) in self
            .negative
            .iter()
            .rev()
            .filter(|(_, count)| **count != 0.0)
        {
            let high = -self.bound(index - 1);
            out.push((
                -self.bound(*index),
                if high > -zero { -zero } else { high },
                *count,
            ));
        }
        if self.zero_count != 0.0 {
            out.push((-zero, zero, self.zero_count));
        }
        for (index, count) in self.positive.iter().filter(|(_, count)| **count != 0.0) {
            let low = self.bound(index - 1);
            let cut = self.schema != CUSTOM_BUCKETS_SCHEMA && low < zero;
            out.push((if cut { zero } else { low }, self.bound(*index), *count));
        }
        out
    }
}

fn spans(buckets: &BTreeMap<i32, f64>) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0;
    for index in buckets.keys() {
        match spans.last_mut() {
            Some(span) if *index == next => span.length += 1,
            _ => spans.push(Span {
                offset: index - next,
                length: 1,
            }),
        }
        next = index + 1;
    }
    (spans, buckets.values().copied().collect())
}

fn by_index(spans: &[Span], counts: &[f64]) -> BTreeMap<i32, f64> {
    let mut index = 0;
    let mut indexes = Vec::with_capacity(counts.len());
    for span in spans {
        index += span.offset;
        for _ in 0..span.length {
            indexes.push(index);
            index += 1;
        }
    }
    assert_eq!(indexes.len(), counts.len(), "spans describe the buckets");
    indexes.into_iter().zip(counts.iter().copied()).collect()
}

#[test]
fn values_repeat_count_and_stay_out() {
    let shown = |text: &str| -> Vec<String> {
        values(text)
            .unwrap()
            .iter()
            .map(|v| match v {
                None => "_".to_owned(),
                Some(Point::Float(v)) if model::is_stale(*v) => "stale".to_owned(),
                Some(Point::Float(v)) => v.to_string(),
                Some(Point::Histogram(h)) => format!("{}/{}", h.count, h.sum),
            })
            .collect()
    };
    assert_eq!(
        shown("1x2 2+3x2 _ _x2 stale"),
        "1 1 1 2 5 8 _ _ _ stale".split(' ').collect::<Vec<_>>()
    );
    assert_eq!(
        shown("-1-1x1 .5 1e-3 -Inf"),
        ["-1", "-2", "0.5", "0.001", "-inf"]
    );
    assert_eq!(
        shown("{{count:1 sum:2}}+{{sum:1 count:3}}x1 {{}}x1"),
        ["1/2", "4/3", "0/0", "0/0"]
    );
    assert!(values("1+2").is_err());
    assert!(values("1 x").is_err());
}

#[test]
fn labels_may_be_quoted_and_the_name_among_them() {
    let (labels, rest) = metric(r#"{"a.b", "c d"='e\x41', f=`\`} 1"#).unwrap();
    assert_eq!(labels.metric_name(), Some("a.b"));
    assert_eq!(labels.get("c d"), Some("eA"));
    assert_eq!(labels.get("f"), Some("\\"));
    assert_eq!(rest, " 1");
    assert_eq!(metric("up{} 0").unwrap().0.metric_name(), Some("up"));
    assert!(metric("1 2").is_err());
}

#[test]
fn histograms_keep_their_buckets_through_spans() {
    let (buckets, _) =
        histogram("{{schema:1 offset:-1 buckets:[1 0 2] n_buckets:[4] z_bucket:3 z_bucket_w:0.5}}")
            .unwrap();
    assert_eq!(Buckets::of_histogram(&buckets.to_histogram()), buckets);
    assert_eq!(
        buckets.filled(),
        [
            (-1.0, -0.5f64.sqrt(), 4.0),
            (-0.5, 0.5, 3.0),
            (0.5, 0.5f64.sqrt(), 1.0),
            (1.0, 2f64.sqrt(), 2.0)
        ]
    );
}
