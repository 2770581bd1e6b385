//! Query results, label sets, metadata.

use model::{
    Exemplar, HistogramPoint, InstantSample, Labels, Metadata, QueryValue, RangeSeries, SeriesValue,
};

use super::histogram::put_histogram;
use super::number::{put_float, put_scalar, put_time};
use super::text::{put_string, put_utf8};

/// Appends `{"__name__":"up","job":"a"}`.
pub fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    let pairs = labels.iter_bytes();
    put_list(out, [b'{', b'}'], pairs, |out, (name, value)| {
        put_utf8(out, name);
        out.push(b':');
        put_utf8(out, value);
    });
}

/// Appends a list of label sets: the data of `/series`.
pub fn put_label_sets<'a>(out: &mut Vec<u8>, sets: impl IntoIterator<Item = &'a Labels>) {
    put_list(out, [b'[', b']'], sets, put_labels);
}

/// Appends series with their exemplars: the data of `/query_exemplars`.
pub fn put_exemplars<'a>(
    out: &mut Vec<u8>,
    series: impl IntoIterator<Item = (&'a Labels, &'a [Exemplar])>,
) {
    put_list(out, [b'[', b']'], series, |out, (labels, exemplars)| {
        out.extend_from_slice(b"{\"seriesLabels\":");
        put_labels(out, labels);
        out.extend_from_slice(b",\"exemplars\":");
        put_list(out, [b'[', b']'], exemplars, |out, exemplar: &Exemplar| {
            out.extend_from_slice(b"{\"labels\":");
            put_labels(out, &exemplar.labels);
            out.extend_from_slice(b",\"value\":\"");
            put_float(out, exemplar.value);
            out.extend_from_slice(b"\",\"timestamp\":");
            put_time(out, exemplar.time.0);
            out.push(b'}');
        });
        out.push(b'}');
    });
}

/// Appends a list of strings: the data of `/labels` and `/label/<name>/values`.
pub fn put_strings<S: AsRef<str>>(out: &mut Vec<u8>, texts: impl IntoIterator<Item = S>) {
    put_list(out, [b'[', b']'], texts, |out, text| {
        put_string(out, text.as_ref())
    });
}

/// Appends `{"type":"counter","help":"..","unit":".."}`.
pub fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(metadata.kind.name().as_bytes());
    out.extend_from_slice(b"\",\"help\":");
    put_string(out, &metadata.help);
    out.extend_from_slice(b",\"unit\":");
    put_string(out, &metadata.unit);
    out.push(b'}');
}

/// Appends `{"<metric>":[<metadata>, ..], ..}`: the data of `/metadata`.
pub fn put_metadata_map<'a, N, M>(out: &mut Vec<u8>, metrics: impl IntoIterator<Item = (N, M)>)
where
    N: AsRef<str>,
    M: IntoIterator<Item = &'a Metadata>,
{
    put_list(out, [b'{', b'}'], metrics, |out, (metric, descriptions)| {
        put_string(out, metric.as_ref());
        out.push(b':');
        put_list(out, [b'[', b']'], descriptions, put_metadata);
    });
}

/// Appends `"resultType":"..","result":..` without braces, so that statistics can follow. For large results see [`super::Answer`].
pub fn put_query_value(out: &mut Vec<u8>, value: &QueryValue) {
    put_result_head(out, value);
    match value {
        QueryValue::Scalar { t, v } => {
            out.push(b'[');
            put_time(out, *t);
            out.extend_from_slice(b",\"");
            put_scalar(out, *v);
            out.extend_from_slice(b"\"]");
        }
        QueryValue::String { t, s } => {
            out.push(b'[');
            put_time(out, *t);
            out.push(b',');
            put_string(out, s);
            out.push(b']');
        }
        QueryValue::Vector(samples) => put_list(out, [b'[', b']'], samples, put_instant_sample),
        QueryValue::Matrix(series) => {
            let mut heads = PointHeads::default();
            put_list(out, [b'[', b']'], series, |out, series| {
                put_range_series(out, series, &mut heads);
            });
        }
    }
}

/// `"resultType":"..","result":`
pub(super) fn put_result_head(out: &mut Vec<u8>, value: &QueryValue) {
    let name = match value {
        QueryValue::Scalar { .. } => "scalar",
        QueryValue::String { .. } => "string",
        QueryValue::Vector(_) => "vector",
        QueryValue::Matrix(_) => "matrix",
    };
    out.extend_from_slice(b"\"resultType\":\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\",\"result\":");
}

/// `{"metric":{..},"value":[t,"v"]}`, or `"histogram":[t,{..}]`.
pub(super) fn put_instant_sample(out: &mut Vec<u8>, sample: &InstantSample) {
    out.extend_from_slice(b"{\"metric\":");
    put_labels(out, &sample.labels);
    match &sample.value {
        SeriesValue::Float(value) => {
            out.extend_from_slice(b",\"value\":");
            put_point(out, sample.t, *value);
        }
        SeriesValue::Histogram(histogram) => {
            out.extend_from_slice(b",\"histogram\":[");
            put_time(out, sample.t);
            out.push(b',');
            put_histogram(out, histogram);
            out.push(b']');
        }
    }
    out.push(b'}');
}

/// `{"metric":{..},"values":[..],"histograms":[..]}`; each list only where it has points.
pub(super) fn put_range_series(out: &mut Vec<u8>, series: &RangeSeries, heads: &mut PointHeads) {
    out.extend_from_slice(b"{\"metric\":");
    put_labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.extend_from_slice(b",\"values\":");
        out.reserve(POINT_BYTES * series.floats.len());
        let points = series.floats.iter().enumerate();
        put_list(out, [b'[', b']'], points, |out, (at, point)| {
            heads.put(out, at, point.t);
            put_float(out, point.v);
            out.extend_from_slice(b"\"]");
        });
    }
    if !series.histograms.is_empty() {
        out.extend_from_slice(b",\"histograms\":");
        put_list(
            out,
            [b'[', b']'],
            &series.histograms,
            |out, HistogramPoint { t, h }| {
                out.push(b'[');
                put_time(out, *t);
                out.push(b',');
                put_histogram(out, h);
                out.push(b']');
            },
        );
    }
    out.push(b'}');
}

/// About the bytes of a point: `[1700000000,"1234.5678"],`.
const POINT_BYTES: usize = 32;

/// Points before which [`PointHeads`] remembers what to write; as many as a range query may have.
const HEADS_MAX: usize = 11_000;

/// What stands before the value of a point: `[t,"`. The series of a matrix mostly have the same times, so the text written for one series is
/// kept for the next, by number of the point.
#[derive(Debug, Default)]
pub(super) struct PointHeads(Vec<Head>);

#[derive(Debug, Clone, Copy)]
struct Head {
    time_ms: i64,
    /// Of 24 bytes whatever its length: a copy of a fixed size is two instructions.
    text: [u8; 24],
    length: u8,
}

impl PointHeads {
    #[inline]
    fn put(&mut self, out: &mut Vec<u8>, at: usize, time_ms: i64) {
        match self.0.get(at) {
            Some(head) if head.time_ms == time_ms => {
                let end = out.len() + usize::from(head.length);
                out.extend_from_slice(&head.text);
                out.truncate(end);
            }
            _ => self.put_new(out, at, time_ms),
        }
    }

    #[cold]
    fn put_new(&mut self, out: &mut Vec<u8>, at: usize, time_ms: i64) {
        let start = out.len();
        out.push(b'[');
        put_time(out, time_ms);
        out.extend_from_slice(b",\"");
        let written = &out[start..];
        let mut head = Head {
            time_ms,
            text: [0; 24],
            length: written.len() as u8,
        };
        // A time of more digits than any clock shows is not worth remembering.
        let Some(text) = head.text.get_mut(..written.len()) else {
            return;
        };
        text.copy_from_slice(written);
        if at < self.0.len() {
            self.0[at] = head;
        } else if at == self.0.len() && at < HEADS_MAX {
            self.0.push(head);
        }
    }
}

/// `[t,"v"]`
fn put_point(out: &mut Vec<u8>, time_ms: i64, value: f64) {
    out.push(b'[');
    put_time(out, time_ms);
    out.extend_from_slice(b",\"");
    put_float(out, value);
    out.extend_from_slice(b"\"]");
}

pub(super) fn put_list<T>(
    out: &mut Vec<u8>,
    [open, close]: [u8; 2],
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(open);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(close);
}
