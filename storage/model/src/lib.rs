//! What everybody talks about: labels, matchers, samples, tenants, time, the identity of a series, limits, and
//! the values that queries return.
//!
//! The bottom of the tree: every crate may use it, it uses nothing of ours. Values only, no I/O, no clock.
//! Invariants: [`Labels`] are always canonical (sorted by name, no empty value, no name twice), so that equal label sets
//! are equal bytes; a [`TenantId`] has passed the rules for tenant names; [`identity`] is a documented format
//! (`docs/formats/identity.md`) and never changes.

// Not `forbid`: `prefetch` has one instruction.
#![deny(unsafe_code)]

mod class;
mod exemplar;
mod histogram;
pub mod identity;
mod ids;
mod labels;
mod limits;
mod matcher;
mod metadata;
mod prefetch;
mod projection;
mod query_rules;
mod quote;
pub mod re2;
mod relabel;
mod sample;
pub mod sorted;
mod tenant;
mod value;
pub mod varint;
mod windows;

pub use class::Class;
pub use exemplar::Exemplar;
pub use histogram::{
    CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Histogram, HistogramError,
    HistogramSample, Span,
};
pub use ids::{CoreId, Generation, Lsn, SeriesId, SeriesKey, SeriesRef, TimeMs};
pub use labels::{Labels, LabelsBuilder, LabelsError, METRIC_NAME, put_label};
pub use limits::{Ack, NameScheme, RateStrategy, SeriesLimitStatus, TenantLimits};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use metadata::{Metadata, MetricType};
pub use prefetch::prefetch;
pub use projection::Projection;
pub use query_rules::{
    Asked, Pattern, Priority, QueryAttribute, QueryPriority, QueryRejection, Within,
};
pub use quote::{put_quoted, quoted};
pub use relabel::{RelabelAction, RelabelConfig};
pub use sample::{STALE_NAN_BITS, Sample, is_stale, same_value, stale_nan};
pub use tenant::{TENANT_LEN_MAX, TenantError, TenantId};
pub use value::{FloatPoint, HistogramPoint, InstantSample, QueryValue, RangeSeries, SeriesValue};
pub use windows::{TimeRange, Windows};
