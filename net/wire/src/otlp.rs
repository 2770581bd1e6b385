//! OTLP metrics: an `ExportMetricsServiceRequest`, translated into a remote write request.
//!
//! What the gateway does with a push is written down once, for remote write; so points become series of a version 2 body
//! (which has start timestamps and exemplars), and what the metrics are becomes metadata records of version 1 (which name the metric family,
//! as a histogram has no series of its own name). The rules are those of Prometheus' translator, strategy `UnderscoreEscapingWithSuffixes`:
//!
//! - [`names`]: names of metrics and labels, units;
//! - [`attributes`]: attributes to labels, collisions joined by `;`, values as text;
//! - [`buckets`]: exponential buckets to those of native histograms;
//! - [`points`]: each kind of point to its series, and `target_info`;
//! - [`json`]: a JSON body is first written as the protobuf that it stands for, so that both are read by the same code;
//! - [`answer`]: what is answered, in both encodings.
//!
//! Nothing is read twice into memory: messages are walked where they lie. Fields may come in any order, so a message is passed over
//! for what it says of its children before these are visited; a pass skips children whole. What comes out is bounded by
//! [`Options::bytes_max`], and so is the work: every label of every series is written, or its text counted.

mod answer;
mod attributes;
mod buckets;
mod json;
mod names;
mod output;
mod points;
mod read;

pub use answer::{Encoding, Outcome, error, success};
pub use json::to_protobuf;

use crate::Malformed;

/// What a tenant or the operator wants of the translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Units and `_total` at the end of names.
    pub add_metric_suffixes: bool,
    /// No series `target_info`.
    pub disable_target_info: bool,
    /// Points that tell a difference are stored as they are; else they are refused.
    pub allow_delta_temporality: bool,
    /// Every attribute of a resource is a label of its series.
    pub convert_all_attributes: bool,
    /// Histograms with bounds become native ones with custom buckets.
    pub convert_histograms_to_nhcb: bool,
    /// Name, version, schema URL and attributes of the scope are labels.
    pub promote_scope_metadata: bool,
    /// Attributes of a resource that are labels of its series.
    pub promote_resource_attributes: Vec<String>,
    /// Bytes that what comes out may take, its symbols' bookkeeping included.
    pub bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            add_metric_suffixes: true,
            disable_target_info: false,
            allow_delta_temporality: false,
            convert_all_attributes: false,
            convert_histograms_to_nhcb: false,
            promote_scope_metadata: false,
            promote_resource_attributes: Vec::new(),
            bytes_max: crate::limits::RECV_BYTES_MAX,
        }
    }
}

/// What a request came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Translated {
    /// A version 2 write request.
    pub request: Vec<u8>,
    /// Metadata records, as a version 1 write request.
    pub metadata: Vec<u8>,
    /// Points in the request.
    pub points: u64,
    /// Of each point that is translated, where in `request` the records of its series begin and end, ascending.
    pub taken: Vec<(u32, u32)>,
    /// Points that cannot be translated.
    pub refused: u64,
    /// Why the first of them cannot.
    pub refusal: Option<String>,
}

/// Why bytes are no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not the protobuf of one.
    #[error("cannot decode the OTLP request: {0}")]
    Malformed(#[from] Malformed),
    /// Not the JSON of one.
    #[error("cannot decode the OTLP request: {0}")]
    Json(String),
    /// As JSON it was small enough.
    #[error("the OTLP request takes more than {max} bytes as protobuf")]
    TooLarge {
        /// Bytes allowed.
        max: usize,
    },
}

/// Translates a request in protobuf.
///
/// Errors: bytes that are no request, or that would become more than the bound; then nothing of it may be used. A point that cannot be
/// translated is counted and takes nothing else with it. Cost: a walk, a hash of each attribute's value, a sort of each point's labels.
pub fn translate(body: &[u8], options: &Options) -> Result<Translated, Error> {
    Ok(points::translate(body, options)?)
}

/// The begin of a text, for an error.
fn short(text: &str) -> &str {
    let end = text.char_indices().nth(200);
    &text[..end.map_or(text.len(), |(end, _)| end)]
}

#[cfg(test)]
mod tests;
