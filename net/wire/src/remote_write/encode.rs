//! Writes write requests: for the load tool, for tests, for the node's own metrics. The free functions write version 1
//! (`prometheus.WriteRequest`); [`RequestV2`] collects symbols and writes version 2.
//!
//! Free functions that append to a buffer; sizes are computed first, so that nothing is written twice. The bytes are those that
//! Prometheus sends: labels in the order given, every sample with value and timestamp, fields ascending.

use std::collections::HashMap;

use model::{HistogramSample, Metadata, Span, varint};

use crate::proto::{BYTES, FIXED64, VARINT, bytes_tag};

/// Appends a series: labels in the order given, then samples of (milliseconds, value).
pub fn put_series<'l>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'l str, &'l str)> + Clone,
    samples: &[(i64, f64)],
) {
    put_series_with(out, labels, samples, &[]);
}

/// Appends a series that also has native histograms, each with its time in milliseconds.
pub fn put_series_with<'l>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'l str, &'l str)> + Clone,
    samples: &[(i64, f64)],
    histograms: &[(i64, HistogramSample)],
) {
    let histograms: Vec<Vec<u8>> = histograms
        .iter()
        .map(|(time, histogram)| histogram_message(*time, histogram))
        .collect();
    let len = labels
        .clone()
        .map(|(name, value)| field_len(label_len(name, value)))
        .sum::<usize>()
        + samples
            .iter()
            .map(|sample| field_len(sample_len(*sample)))
            .sum::<usize>()
        + histograms
            .iter()
            .map(|message| field_len(message.len()))
            .sum::<usize>();
    put_head(out, 1, len);
    let end = out.len() + len;
    for (name, value) in labels {
        put_head(out, 1, label_len(name, value));
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 2, value.as_bytes());
    }
    for &(time, value) in samples {
        put_head(out, 2, sample_len((time, value)));
        put_double(out, 1, value);
        put_varint(out, 2, time as u64);
    }
    for message in &histograms {
        put_bytes(out, 4, message);
    }
    assert_eq!(out.len(), end, "the size was computed before the bytes");
}

/// Appends the description of a metric family.
pub fn put_metadata(out: &mut Vec<u8>, metric: &str, metadata: &Metadata) {
    let mut message = Vec::with_capacity(metric.len() + metadata.help.len() + 16);
    put_varint(&mut message, 1, metadata.kind as u64);
    put_bytes(&mut message, 2, metric.as_bytes());
    put_bytes(&mut message, 4, metadata.help.as_bytes());
    put_bytes(&mut message, 5, metadata.unit.as_bytes());
    put_bytes(out, 3, &message);
}

/// A version 2 request in the making: symbols and series grow apart, since symbols stand first.
#[derive(Debug)]
pub struct RequestV2 {
    symbols: HashMap<String, u64>,
    symbol_fields: Vec<u8>,
    series_fields: Vec<u8>,
}

impl Default for RequestV2 {
    fn default() -> RequestV2 {
        let mut request = RequestV2 {
            symbols: HashMap::new(),
            symbol_fields: Vec::new(),
            series_fields: Vec::new(),
        };
        request.symbol("");
        request
    }
}

impl RequestV2 {
    /// Adds a series: labels in the order given, samples of (milliseconds, value), and what it is.
    pub fn put_series<'l>(
        &mut self,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        samples: &[(i64, f64)],
        metadata: Option<&Metadata>,
    ) {
        let mut references = Vec::new();
        for text in labels.flat_map(|(name, value)| [name, value]) {
            varint::put_u64(&mut references, self.symbol(text));
        }
        let mut series = Vec::new();
        put_bytes(&mut series, 1, &references);
        for &(time, value) in samples {
            put_head(&mut series, 2, sample_len((time, value)));
            put_double(&mut series, 1, value);
            put_varint(&mut series, 2, time as u64);
        }
        if let Some(metadata) = metadata {
            let mut message = Vec::new();
            put_varint(&mut message, 1, metadata.kind as u64);
            put_varint(&mut message, 3, self.symbol(&metadata.help));
            put_varint(&mut message, 4, self.symbol(&metadata.unit));
            put_bytes(&mut series, 5, &message);
        }
        put_bytes(&mut self.series_fields, 5, &series);
    }

    /// The request.
    pub fn finish(mut self) -> Vec<u8> {
        self.symbol_fields.append(&mut self.series_fields);
        self.symbol_fields
    }

    fn symbol(&mut self, text: &str) -> u64 {
        if let Some(&reference) = self.symbols.get(text) {
            return reference;
        }
        let reference = self.symbols.len() as u64;
        put_bytes(&mut self.symbol_fields, 4, text.as_bytes());
        self.symbols.insert(text.to_owned(), reference);
        reference
    }
}

/// A native histogram at a time (milliseconds): the message that a series has for it.
pub fn histogram_message(time: i64, histogram: &HistogramSample) -> Vec<u8> {
    let mut out = Vec::new();
    match histogram {
        HistogramSample::Int(h) => {
            put_varint(&mut out, 1, h.count);
            put_double(&mut out, 3, h.sum);
            put_varint(&mut out, 4, varint::zigzag(i64::from(h.schema)));
            put_double(&mut out, 5, h.zero_threshold);
            put_varint(&mut out, 6, h.zero_count);
            put_spans(&mut out, 8, &h.negative_spans);
            put_deltas(&mut out, 9, &h.negative_deltas);
            put_spans(&mut out, 11, &h.positive_spans);
            put_deltas(&mut out, 12, &h.positive_deltas);
            put_varint(&mut out, 14, h.counter_reset as u64);
            put_varint(&mut out, 15, time as u64);
            put_doubles(&mut out, 16, &h.custom_values);
        }
        HistogramSample::Float(h) => {
            put_double(&mut out, 2, h.count);
            put_double(&mut out, 3, h.sum);
            put_varint(&mut out, 4, varint::zigzag(i64::from(h.schema)));
            put_double(&mut out, 5, h.zero_threshold);
            put_double(&mut out, 7, h.zero_count);
            put_spans(&mut out, 8, &h.negative_spans);
            put_doubles(&mut out, 10, &h.negative_counts);
            put_spans(&mut out, 11, &h.positive_spans);
            put_doubles(&mut out, 13, &h.positive_counts);
            put_varint(&mut out, 14, h.counter_reset as u64);
            put_varint(&mut out, 15, time as u64);
            put_doubles(&mut out, 16, &h.custom_values);
        }
    }
    out
}

fn put_spans(out: &mut Vec<u8>, field: u32, spans: &[Span]) {
    for span in spans {
        let mut message = Vec::with_capacity(12);
        put_varint(&mut message, 1, varint::zigzag(i64::from(span.offset)));
        put_varint(&mut message, 2, u64::from(span.length));
        put_bytes(out, field, &message);
    }
}

fn put_deltas(out: &mut Vec<u8>, field: u32, deltas: &[i64]) {
    if !deltas.is_empty() {
        let mut packed = Vec::with_capacity(deltas.len() * 2);
        deltas
            .iter()
            .for_each(|delta| varint::put_i64(&mut packed, *delta));
        put_bytes(out, field, &packed);
    }
}

fn put_doubles(out: &mut Vec<u8>, field: u32, values: &[f64]) {
    if !values.is_empty() {
        put_head(out, field, values.len() * 8);
        values
            .iter()
            .for_each(|value| out.extend_from_slice(&value.to_bits().to_le_bytes()));
    }
}

fn label_len(name: &str, value: &str) -> usize {
    field_len(name.len()) + field_len(value.len())
}

fn sample_len((time, _): (i64, f64)) -> usize {
    9 + 1 + varint_len(time as u64)
}

/// Tag, length and content of a field with a number below 16.
fn field_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_head(out: &mut Vec<u8>, field: u32, len: usize) {
    put_tag(out, field, BYTES);
    varint::put_u64(out, len as u64);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    put_head(out, field, content.len());
    out.extend_from_slice(content);
}

pub(crate) fn put_varint(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, VARINT);
    varint::put_u64(out, value);
}

pub(crate) fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    put_tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u8) {
    match u8::try_from(field) {
        Ok(small) if small < 16 => out.push(bytes_tag(small) - BYTES + wire_type),
        _ => varint::put_u64(out, u64::from(field << 3 | u32::from(wire_type))),
    }
}
