//! Envelopes, and whole answers in pieces.

use std::sync::Arc;

use bytes::Bytes;
use model::QueryValue;

use super::text::put_string;
use super::value::{
    PointHeads, put_instant_sample, put_list, put_query_value, put_range_series, put_result_head,
};
use crate::limits::JSON_PIECE_BYTES;

/// What an answer says beside its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The result may be wrong or incomplete.
    pub warnings: Vec<String>,
    /// The query may not mean what its author thinks.
    pub infos: Vec<String>,
}

/// Appends a whole successful answer; `put_data` writes the value of `data`.
pub fn put_success(out: &mut Vec<u8>, notes: &Notes, put_data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"status\":\"success\",\"data\":");
    put_data(out);
    put_notes(out, notes);
    out.push(b'}');
}

/// Appends a whole error answer. `kind` is one of `bad_data`, `execution`, `timeout`, `canceled`, `unavailable`, `internal`, `not_found`.
pub fn put_error(out: &mut Vec<u8>, kind: &str, message: &str) {
    out.extend_from_slice(b"{\"status\":\"error\",\"errorType\":");
    put_string(out, kind);
    out.extend_from_slice(b",\"error\":");
    put_string(out, message);
    out.push(b'}');
}

fn put_notes(out: &mut Vec<u8>, notes: &Notes) {
    for (name, texts) in [
        (&b",\"warnings\":"[..], &notes.warnings),
        (b",\"infos\":", &notes.infos),
    ] {
        if !texts.is_empty() {
            out.extend_from_slice(name);
            put_list(out, [b'[', b']'], texts, |out, text: &String| {
                put_string(out, text)
            });
        }
    }
}

/// The answer to a query as an iterator of pieces of about [`JSON_PIECE_BYTES`]; a piece holds whole elements, so a single
/// series of a matrix bounds it from below. The pieces together are one JSON document.
#[derive(Debug)]
pub struct Answer {
    value: Arc<QueryValue>,
    /// Elements of a vector or matrix written so far.
    written: usize,
    stats: Option<String>,
    notes: Notes,
    stage: Stage,
    heads: PointHeads,
}

#[derive(Debug, PartialEq)]
enum Stage {
    Head,
    Elements,
    Done,
}

impl Answer {
    /// `stats` is the JSON of the statistics, where they were asked for.
    pub fn new(value: impl Into<Arc<QueryValue>>, stats: Option<String>, notes: Notes) -> Answer {
        Answer {
            value: value.into(),
            written: 0,
            stats,
            notes,
            stage: Stage::Head,
            heads: PointHeads::default(),
        }
    }

    fn element_count(&self) -> usize {
        match &*self.value {
            QueryValue::Vector(samples) => samples.len(),
            QueryValue::Matrix(series) => series.len(),
            QueryValue::Scalar { .. } | QueryValue::String { .. } => 0,
        }
    }

    fn put_head(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"status\":\"success\",\"data\":{");
        match &*self.value {
            QueryValue::Vector(_) | QueryValue::Matrix(_) => {
                put_result_head(out, &self.value);
                out.push(b'[');
            }
            whole => put_query_value(out, whole),
        }
    }

    fn put_element(&mut self, out: &mut Vec<u8>) {
        if self.written > 0 {
            out.push(b',');
        }
        match &*self.value {
            QueryValue::Vector(samples) => put_instant_sample(out, &samples[self.written]),
            QueryValue::Matrix(series) => {
                put_range_series(out, &series[self.written], &mut self.heads);
            }
            QueryValue::Scalar { .. } | QueryValue::String { .. } => {
                unreachable!("a scalar or string has no elements")
            }
        }
        self.written += 1;
    }

    fn put_tail(&mut self, out: &mut Vec<u8>) {
        if matches!(*self.value, QueryValue::Vector(_) | QueryValue::Matrix(_)) {
            out.push(b']');
        }
        if let Some(stats) = &self.stats {
            out.extend_from_slice(b",\"stats\":");
            out.extend_from_slice(stats.as_bytes());
        }
        out.push(b'}');
        put_notes(out, &self.notes);
        out.push(b'}');
    }
}

impl Iterator for Answer {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.stage == Stage::Done {
            return None;
        }
        let count = self.element_count();
        // Most elements take more than this; a piece that is full is seldom moved more than once.
        let room = (count - self.written).saturating_mul(256);
        let mut out = Vec::with_capacity(room.clamp(1 << 10, JSON_PIECE_BYTES * 5 / 4));
        if self.stage == Stage::Head {
            self.put_head(&mut out);
            self.stage = Stage::Elements;
        }
        while self.written < count && out.len() < JSON_PIECE_BYTES {
            self.put_element(&mut out);
        }
        if self.written == count {
            self.put_tail(&mut out);
            self.stage = Stage::Done;
        }
        Some(Bytes::from(out))
    }
}

/// A list as the data of an answer, in pieces as [`Answer`]: label values, label sets.
#[derive(Debug)]
pub struct ListAnswer<T> {
    items: Vec<T>,
    put: fn(&mut Vec<u8>, &T),
    written: usize,
    notes: Notes,
    stage: Stage,
}

impl<T> ListAnswer<T> {
    /// `put` writes one item.
    pub fn new(items: Vec<T>, put: fn(&mut Vec<u8>, &T), notes: Notes) -> ListAnswer<T> {
        ListAnswer {
            items,
            put,
            written: 0,
            notes,
            stage: Stage::Head,
        }
    }
}

impl<T> Iterator for ListAnswer<T> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.stage == Stage::Done {
            return None;
        }
        let mut out = Vec::with_capacity(1 << 10);
        if self.stage == Stage::Head {
            out.extend_from_slice(b"{\"status\":\"success\",\"data\":[");
            self.stage = Stage::Elements;
        }
        while self.written < self.items.len() && out.len() < JSON_PIECE_BYTES {
            if self.written > 0 {
                out.push(b',');
            }
            (self.put)(&mut out, &self.items[self.written]);
            self.written += 1;
        }
        if self.written == self.items.len() {
            out.push(b']');
            put_notes(&mut out, &self.notes);
            out.push(b'}');
            self.stage = Stage::Done;
        }
        Some(Bytes::from(out))
    }
}
