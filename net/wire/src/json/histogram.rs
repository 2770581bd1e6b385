//! Native histograms in answers: `{"count":"..","sum":"..","buckets":[[<bounds>,"<lower>","<upper>","<count>"],..]}`.
//!
//! Buckets that are empty are left out. The first number says which bounds belong to the bucket: 0 only the upper, 1 only the
//! lower, 2 neither, 3 both. Order: negative buckets from the lowest, zero bucket, positive buckets.

use model::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Span};

use super::number::put_float;
use super::value::put_list;

const UPPER_ONLY: u8 = 0;
const LOWER_ONLY: u8 = 1;
const BOTH: u8 = 3;

struct Bucket {
    bounds: u8,
    lower: f64,
    upper: f64,
    count: f64,
}

pub(super) fn put_histogram(out: &mut Vec<u8>, histogram: &FloatHistogram) {
    out.extend_from_slice(b"{\"count\":\"");
    put_float(out, histogram.count);
    out.extend_from_slice(b"\",\"sum\":\"");
    put_float(out, histogram.sum);
    out.push(b'"');
    let buckets = buckets(histogram);
    if !buckets.is_empty() {
        out.extend_from_slice(b",\"buckets\":");
        put_list(out, [b'[', b']'], &buckets, put_bucket);
    }
    out.push(b'}');
}

fn put_bucket(out: &mut Vec<u8>, bucket: &Bucket) {
    out.extend_from_slice(&[b'[', b'0' + bucket.bounds]);
    for number in [bucket.lower, bucket.upper, bucket.count] {
        out.extend_from_slice(b",\"");
        put_float(out, number);
        out.push(b'"');
    }
    out.push(b']');
}

fn buckets(h: &FloatHistogram) -> Vec<Bucket> {
    let mut all = Vec::with_capacity(h.negative_counts.len() + h.positive_counts.len() + 1);
    each(&h.negative_spans, &h.negative_counts, |index, count| {
        let (near, far) = (bound(index - 1, h), bound(index, h));
        all.push(Bucket {
            bounds: LOWER_ONLY,
            lower: -far,
            upper: -outside_zero(near, h),
            count,
        });
    });
    all.reverse();
    // As in Prometheus, which also leaves out one with fewer than none, and one that is no number.
    if h.zero_count > 0.0 {
        let (lower, upper) = (-h.zero_threshold, h.zero_threshold);
        all.push(Bucket {
            bounds: BOTH,
            lower,
            upper,
            count: h.zero_count,
        });
    }
    each(&h.positive_spans, &h.positive_counts, |index, count| {
        let (lower, upper) = (bound(index - 1, h), bound(index, h));
        let bounds = match lower == f64::NEG_INFINITY {
            true => BOTH,
            false => UPPER_ONLY,
        };
        all.push(Bucket {
            bounds,
            lower: outside_zero(lower, h),
            upper,
            count,
        });
    });
    all
}

/// The bound of a bucket next to zero, where that lies within the zero bucket: there the bucket is cut.
fn outside_zero(bound: f64, h: &FloatHistogram) -> f64 {
    match bound > 0.0 && bound < h.zero_threshold {
        true => h.zero_threshold,
        false => bound,
    }
}

/// Calls `visit` with index and count of every bucket that is not empty.
fn each(spans: &[Span], counts: &[f64], mut visit: impl FnMut(i64, f64)) {
    let mut counts = counts.iter();
    let mut index = 0i64;
    for span in spans {
        index += i64::from(span.offset);
        for &count in counts.by_ref().take(span.length as usize) {
            if count != 0.0 {
                visit(index, count);
            }
            index += 1;
        }
    }
}

/// The upper bound of a positive bucket, which is the lower one of the next.
fn bound(index: i64, h: &FloatHistogram) -> f64 {
    if h.schema == CUSTOM_BUCKETS_SCHEMA {
        return match usize::try_from(index) {
            Err(_) => f64::NEG_INFINITY,
            Ok(index) => h.custom_values.get(index).copied().unwrap_or(f64::INFINITY),
        };
    }
    exponential_bound(index, h.schema)
}

/// `2 ^ (index * 2 ^ -schema)`, where the bound that would be 2^1024 is the largest finite float, as in Prometheus.
fn exponential_bound(index: i64, schema: i32) -> f64 {
    let exponent = index as f64 * 2f64.powi(-schema);
    if exponent == 1024.0 {
        f64::MAX
    } else {
        exponent.exp2()
    }
}
