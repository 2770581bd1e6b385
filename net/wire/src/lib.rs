//! Bytes from and to the network: snappy, remote write, the JSON of the query API.
//!
//! Steps 2 of the way of a sample and 9 of the way of a query. Pure functions over byte slices: no I/O, no async, no clock. Nothing
//! here trusts a length: each is checked against the bytes there are, and against [`limits`], before anything is allocated.
//!
//! - [`snappy`]: the envelope of a write, unpacked into a buffer that is used again;
//! - [`remote_write`]: a zero-copy walk over a write request, decoders for what is rare in it, and an encoder;
//! - [`otlp`]: OTLP metrics, translated into a write request;
//! - [`remote_read`]: its request, and its two kinds of answers;
//! - [`json`]: numbers, strings and whole answers of the query API, written directly, without an intermediate tree.

#![forbid(unsafe_code)]

pub mod json;
pub mod limits;
pub mod otlp;
mod proto;
pub mod remote_read;
pub mod remote_write;
pub mod snappy;

pub use proto::Malformed;
