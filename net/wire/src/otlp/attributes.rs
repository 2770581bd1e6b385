//! Attributes become labels.
//!
//! Those of a point are sorted by key, so that keys which come to the same name are joined (`a;b`) in an order that does not depend on the
//! sender. Around them stand what the resource and the scope give ([`Layers`]), in Prometheus' order of precedence: attributes that are promoted
//! from the resource where the point has none of that name; scope, `job` and `instance` in place of what the point has. Labels without a
//! value are none.

use std::collections::{HashMap, HashSet};

use super::names;
use super::output::{EMPTY, Label, Output, Symbol};
use super::read::{children, fields, hold_attribute};
use crate::json;
use crate::proto::Malformed;

/// An array in an array in an array: deeper values are refused.
const DEPTH_MAX: usize = 32;

/// Bytes of a list or map that is shown as JSON.
const JSON_BYTES_MAX: usize = 1 << 20;

/// What the name of a label takes when it is remembered by the key it comes from.
const KEY_BYTES: usize = 64;

/// Why a point has no labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The request is broken, or too large.
    Malformed(Malformed),
    /// The words for the sender.
    Refused(String),
}

impl From<Malformed> for Unusable {
    fn from(error: Malformed) -> Unusable {
        Unusable::Malformed(error)
    }
}

/// Keys and names met in this request.
#[derive(Debug, Default)]
pub(super) struct Keys<'a> {
    names: HashMap<&'a [u8], Option<Symbol>>,
    scratch: Vec<u8>,
}

impl<'a> Keys<'a> {
    /// The label that a key becomes.
    pub(super) fn name(&mut self, key: &'a [u8], out: &mut Output) -> Result<Symbol, Unusable> {
        let name = match self.names.get(key) {
            Some(name) => *name,
            None => {
                out.count(KEY_BYTES)?;
                let name = match names::label(&String::from_utf8_lossy(key)) {
                    Some(name) => Some(out.symbol(name.as_bytes())?),
                    None => None,
                };
                self.names.insert(key, name);
                name
            }
        };
        name.ok_or_else(|| {
            let key = String::from_utf8_lossy(key);
            Unusable::Refused(format!(
                "attribute {:?} cannot be the name of a label",
                super::short(&key)
            ))
        })
    }

    /// The text of a value, as a symbol.
    pub(super) fn value(&mut self, value: &[u8], out: &mut Output) -> Result<Symbol, Malformed> {
        self.scratch.clear();
        put_text(value, &mut self.scratch)?;
        out.symbol(&self.scratch)
    }

    /// The labels of attributes, sorted by name, each name once.
    pub(super) fn labels(
        &mut self,
        attributes: &mut [(&'a [u8], &'a [u8])],
        out: &mut Output,
    ) -> Result<Vec<Label>, Unusable> {
        attributes.sort_by_key(|(key, _)| *key);
        let mut labels = Vec::with_capacity(attributes.len());
        for &(key, value) in attributes.iter() {
            labels.push((self.name(key, out)?, self.value(value, out)?));
        }
        labels.sort_by(|a, b| out.order(a.0, b.0));
        self.join(&mut labels, out)?;
        Ok(labels)
    }

    /// Joins the values of neighbours with the same name.
    fn join(&mut self, labels: &mut Vec<Label>, out: &mut Output) -> Result<(), Malformed> {
        if !labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Ok(());
        }
        let mut joined: Vec<Label> = Vec::with_capacity(labels.len());
        for same in labels.chunk_by(|a, b| a.0 == b.0) {
            joined.push((
                same[0].0,
                self.joined(same.iter().map(|label| label.1), out)?,
            ));
        }
        *labels = joined;
        Ok(())
    }

    /// One value of several.
    fn joined(
        &mut self,
        values: impl ExactSizeIterator<Item = Symbol> + Clone,
        out: &mut Output,
    ) -> Result<Symbol, Malformed> {
        if values.len() == 1 {
            return Ok(values.last().expect("one"));
        }
        let text = &mut self.scratch;
        text.clear();
        for value in values {
            if !text.is_empty() {
                text.push(b';');
            }
            text.extend_from_slice(out.text(value));
        }
        out.count(text.len())?;
        out.symbol(text)
    }
}

/// Keys and values, as they lie in the body.
pub(super) type Attributes<'a> = Vec<(&'a [u8], &'a [u8])>;

/// What a point has besides its own attributes.
#[derive(Debug, Default)]
pub(super) struct Layers<'a> {
    /// Of the resource, where all of its attributes are labels; joined with those of the point that have the same name.
    pub(super) converted: Vec<Label>,
    /// The keys of these: they take the place of the point's.
    pub(super) converted_keys: HashSet<&'a [u8]>,
    /// Where the point has none of that name.
    pub(super) promoted: Vec<Label>,
    /// Whatever the point has: scope, job, instance. The last of a name holds.
    pub(super) fixed: Vec<Label>,
    /// All of them, sorted by name and rank once for all points: names may be long.
    sorted: Vec<(Label, Rank)>,
}

/// Who holds where several have a label of one name; the labels of the point stand with, and before, those that are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Promoted,
    Point,
    Fixed,
}

impl<'a> Layers<'a> {
    /// Makes ready for points, when all labels are there.
    pub(super) fn sort(&mut self, out: &Output) {
        let of = |labels: &[Label], rank| {
            let ranked = labels.iter().map(move |label| (*label, rank));
            ranked.collect::<Vec<_>>()
        };
        self.sorted = of(&self.promoted, Rank::Promoted);
        self.sorted.extend(of(&self.converted, Rank::Point));
        self.sorted.extend(of(&self.fixed, Rank::Fixed));
        self.sorted
            .sort_by(|(a, rank), (b, other)| out.order(a.0, b.0).then(rank.cmp(other)));
    }

    /// The labels of a point without the name of the metric, sorted by name.
    ///
    /// Cost: a search among the layers for each attribute of the point, and a copy of them; their names are not compared with each other.
    pub(super) fn around(
        &self,
        attributes: &mut Attributes<'a>,
        keys: &mut Keys<'a>,
        out: &mut Output,
    ) -> Result<Vec<Label>, Unusable> {
        let layered = self.converted.len() + self.promoted.len() + self.fixed.len();
        assert_eq!(self.sorted.len(), layered, "sorted when all are there");
        // Also those that leave nothing behind: a request has few of them, or few points.
        out.count(layered)?;
        if !self.converted_keys.is_empty() {
            attributes.retain(|(key, _)| !self.converted_keys.contains(key));
        }
        let own = keys.labels(attributes, out)?;
        let mut ranked: Vec<(Label, Rank)> = Vec::with_capacity(layered + own.len());
        let mut rest = &self.sorted[..];
        for label in own {
            let before = rest.partition_point(|(other, rank)| {
                let order = out.order(other.0, label.0).then(rank.cmp(&Rank::Point));
                order.is_lt()
            });
            let (first, last) = rest.split_at(before);
            ranked.extend_from_slice(first);
            ranked.push((label, Rank::Point));
            rest = last;
        }
        ranked.extend_from_slice(rest);
        let mut labels: Vec<Label> = Vec::with_capacity(ranked.len());
        for same in ranked.chunk_by(|(a, _), (b, _)| a.0 == b.0) {
            let from = same.partition_point(|(_, rank)| *rank < Rank::Point);
            let until = same.partition_point(|(_, rank)| *rank <= Rank::Point);
            let (before, of_point, behind) = (&same[..from], &same[from..until], &same[until..]);
            let mut value = before.last().map(|(label, _)| label.1);
            if !of_point.is_empty() {
                let joined = keys.joined(of_point.iter().map(|(label, _)| label.1), out)?;
                // An attribute without a value is as good as none.
                value = Some(joined).filter(|joined| *joined != EMPTY).or(value);
            }
            let value = behind.last().map(|(label, _)| label.1).or(value);
            if let Some(value) = value.filter(|value| *value != EMPTY) {
                labels.push((same[0].0.0, value));
            }
        }
        Ok(labels)
    }
}

/// The attributes of a message, in the field of that number.
pub(super) fn attributes(message: &[u8], number: u32) -> Result<Attributes<'_>, Malformed> {
    let mut all = Attributes::new();
    children(message, number, |child| hold_attribute(&mut all, child))?;
    Ok(all)
}

/// The value of a key.
pub(super) fn find<'a>(attributes: &[(&'a [u8], &'a [u8])], key: &str) -> Option<&'a [u8]> {
    let found = attributes.iter().find(|(name, _)| *name == key.as_bytes());
    found.map(|(_, value)| *value)
}

/// Writes a value as OpenTelemetry's collector shows it: texts as they are, numbers in decimal, bytes in base64, lists and maps as JSON.
fn put_text(value: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut text = None;
    fields(value, |field| {
        match field.number {
            1 => text = Some(field.bytes()?),
            2..=7 => text = None,
            _ => {}
        }
        Ok::<_, Malformed>(())
    })?;
    match text {
        Some(text) => out.extend_from_slice(text),
        // Escaped it may be six times as long, and no label is.
        None if value.len() > JSON_BYTES_MAX => {
            let max = JSON_BYTES_MAX;
            return Err(Malformed::TooMuchText { max });
        }
        None => put_json(value, out, 0, false)?,
    }
    Ok(())
}

/// Writes a value as JSON. `quoted`: also a text and bytes, which stand for themselves at the top.
fn put_json(value: &[u8], out: &mut Vec<u8>, depth: usize, quoted: bool) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed::Groups);
    }
    let begin = out.len();
    fields(value, |field| {
        // The last one holds.
        out.truncate(begin);
        match field.number {
            1 => put_string(out, field.bytes()?),
            2 => out.extend_from_slice(match field.varint()? {
                0 => b"false",
                _ => b"true",
            }),
            3 => out.extend_from_slice((field.varint()? as i64).to_string().as_bytes()),
            4 => put_number(out, field.double()?),
            5 => {
                out.push(b'[');
                children(field.bytes()?, 1, |item| {
                    separate(out);
                    put_json(item, out, depth + 1, true)
                })?;
                out.push(b']');
            }
            6 => {
                let mut entries = attributes(field.bytes()?, 1)?;
                entries.sort_by_key(|(key, _)| *key);
                out.push(b'{');
                for (key, value) in entries {
                    separate(out);
                    put_string(out, key);
                    out.push(b':');
                    put_json(value, out, depth + 1, true)?;
                }
                out.push(b'}');
            }
            7 => {
                let quote: &[u8] = if quoted { b"\"" } else { b"" };
                out.extend_from_slice(quote);
                put_base64(out, field.bytes()?);
                out.extend_from_slice(quote);
            }
            _ => {}
        }
        Ok::<_, Malformed>(())
    })?;
    if out.len() == begin && quoted {
        out.extend_from_slice(b"null");
    }
    Ok(())
}

fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'[' | b'{')) {
        out.push(b',');
    }
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    json::put_string(out, &String::from_utf8_lossy(text));
}

/// As Go's `encoding/json` writes it; what JSON has no number for is written in words.
fn put_number(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    let text = match value {
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        _ if size != 0.0 && !(1e-6..1e21).contains(&size) => {
            let text = format!("{value:e}");
            match text.split_once('e') {
                Some((digits, exponent)) if !exponent.starts_with('-') => {
                    format!("{digits}e+{exponent}")
                }
                _ => text,
            }
        }
        _ => value.to_string(),
    };
    out.extend_from_slice(text.as_bytes());
}

/// Standard alphabet, padded.
pub(super) fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            out.push(match at <= chunk.len() {
                true => ALPHABET[(word >> shift) as usize & 63],
                false => b'=',
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote_write::encode::{put_bytes, put_double, put_varint};

    fn text(value: &[u8]) -> String {
        let mut out = Vec::new();
        put_text(value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn any(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        out
    }

    fn string(content: &str) -> Vec<u8> {
        any(|out| put_bytes(out, 1, content.as_bytes()))
    }

    #[test]
    fn values_are_shown_as_the_collector_shows_them() {
        assert_eq!(text(&string("a\"b")), "a\"b");
        assert_eq!(text(&any(|out| put_varint(out, 2, 1))), "true");
        assert_eq!(text(&any(|out| put_varint(out, 3, -5i64 as u64))), "-5");
        for (value, wanted) in [
            (1.0, "1"),
            (0.25, "0.25"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-7"),
            (0.0, "0"),
            (-2e300, "-2e+300"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(text(&any(|out| put_double(out, 4, value))), wanted);
        }
        assert_eq!(text(&any(|out| put_bytes(out, 7, b"ab\xffc"))), "YWL/Yw==");
        let list = any(|out| {
            put_bytes(out, 1, &string("x"));
            put_bytes(out, 1, &any(|out| put_varint(out, 3, 7)));
            put_bytes(out, 1, &[]);
        });
        let entry = |key: &str, value: &[u8]| {
            any(|out| {
                put_bytes(out, 1, key.as_bytes());
                put_bytes(out, 2, value);
            })
        };
        let list = any(|out| put_bytes(out, 5, &list));
        assert_eq!(text(&list), r#"["x",7,null]"#);
        let map = any(|out| {
            put_bytes(out, 1, &entry("z", &list));
            put_bytes(out, 1, &entry("b", &any(|out| put_bytes(out, 7, b"a"))));
        });
        let map = any(|out| put_bytes(out, 6, &map));
        assert_eq!(text(&map), r#"{"b":"YQ==","z":["x",7,null]}"#);
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn values_in_values_have_a_bound() {
        let nested = |depth: usize| {
            (0..depth).fold(string("x"), |inner, _| {
                let list = any(|out| put_bytes(out, 1, &inner));
                any(|out| put_bytes(out, 5, &list))
            })
        };
        assert!(put_text(&nested(30), &mut Vec::new()).is_ok());
        assert!(put_text(&nested(100_000 / 40), &mut Vec::new()).is_err());
    }

    #[test]
    fn keys_that_come_to_the_same_name_are_joined_in_the_order_of_the_keys() {
        let (one, two, empty) = (string("1"), string("2"), string(""));
        let mut out = Output::new(1 << 20);
        let mut keys = Keys::default();
        let mut shown = |attributes: &mut [(&'static [u8], &[u8])]| {
            // The values live as long as the test.
            let mut attributes: Vec<(&[u8], &[u8])> = attributes.to_vec();
            let mut keys = Keys::default();
            let labels = keys.labels(&mut attributes, &mut out).unwrap();
            let text = |symbol| String::from_utf8(out.text(symbol).to_vec()).unwrap();
            let labels = labels.iter().map(|label| (text(label.0), text(label.1)));
            labels.collect::<Vec<_>>()
        };
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            shown(&mut [(b"a_b", &two), (b"z", &one), (b"a.b", &one)]),
            [label("a_b", "1;2"), label("z", "1")]
        );
        assert_eq!(
            shown(&mut [(b"a_b", &two), (b"a.b", &one), (b"a-b", &empty)]),
            [label("a_b", "1;2")]
        );
        assert!(
            keys.labels(&mut [(b"", &one)], &mut Output::new(1000))
                .is_err()
        );
    }

    /// Layers with hundreds of long names cost each point what its own attributes cost.
    #[test]
    fn names_of_layers_are_compared_once_and_not_for_each_point() {
        let mut out = Output::new(1 << 24);
        let mut keys = Keys::default();
        let mut layer = |kind: &str| -> Vec<Label> {
            let label = |n: u32| {
                let name = format!("{}{kind}{n:03}", "x".repeat(500));
                let value = out.symbol(kind.as_bytes()).unwrap();
                (out.symbol(name.as_bytes()).unwrap(), value)
            };
            (0..128).rev().map(label).collect()
        };
        let mut layers = Layers {
            converted: layer("converted"),
            promoted: layer("promoted"),
            fixed: layer("fixed"),
            ..Layers::default()
        };
        layers.sort(&out);
        let before = out.compared.get();
        let value = string("own");
        for n in 0..100u32 {
            let names = [format!("a{n}"), format!("z{n}")];
            // As the body does.
            let names = names.map(|name| &*Box::leak(name.into_bytes().into_boxed_slice()));
            let mut own: Attributes<'_> = names.iter().map(|name| (*name, &value[..])).collect();
            let labels = layers.around(&mut own, &mut keys, &mut out).unwrap();
            assert_eq!(labels.len(), 3 * 128 + 2);
            assert!(labels.is_sorted_by(|a, b| out.text(a.0) < out.text(b.0)));
        }
        let compared = out.compared.get() - before;
        // Two of its own, each looked for among 384: nine or ten comparisons, and one between them.
        assert!(compared <= 100 * (2 * 10 + 1), "{compared} comparisons");
    }

    #[test]
    fn of_several_labels_of_a_name_the_highest_rank_holds() {
        let mut out = Output::new(1 << 20);
        let mut keys = Keys::default();
        let mut label = |name: &str, value: &str| {
            let name = out.symbol(name.as_bytes()).unwrap();
            (name, out.symbol(value.as_bytes()).unwrap())
        };
        let mut layers = Layers {
            converted: vec![label("b", "c1"), label("d", ""), label("e", "c2")],
            promoted: vec![
                label("a", "p1"),
                label("a", "p2"),
                label("b", "p3"),
                label("c", "p4"),
                label("d", "p5"),
                label("g", ""),
            ],
            fixed: vec![
                label("e", "f1"),
                label("f", "f2"),
                label("f", ""),
                label("h", "f3"),
            ],
            ..Layers::default()
        };
        layers.sort(&out);
        let (own, empty) = (string("own"), string(""));
        let mut attributes: Attributes<'_> = vec![
            (b"b", &own),
            (b"c", &empty),
            (b"f", &own),
            (b"i", &own),
            (b"j", &empty),
        ];
        let labels = layers.around(&mut attributes, &mut keys, &mut out).unwrap();
        let text = |symbol| String::from_utf8(out.text(symbol).to_vec()).unwrap();
        let shown: Vec<_> = labels
            .iter()
            .map(|label| format!("{}={}", text(label.0), text(label.1)))
            .collect();
        // The point's before what is converted; nothing is as good as none, but for what holds whatever a point has.
        let wanted = ["a=p2", "b=own;c1", "c=p4", "d=p5", "e=f1", "h=f3", "i=own"];
        assert_eq!(shown, wanted);
    }
}
