//! What a request is answered: `ExportMetricsServiceResponse { 1 partial_success { 1 rejected_data_points, 2 error_message } }`, or
//! `google.rpc.Status { 1 code, 2 message }`, in the encoding of the request.

use crate::json::{put_string, put_u64};
use crate::remote_write::encode::{put_bytes, put_varint};

/// How a request and its answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Encoding {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        }
    }
}

/// What became of a request that is answered 200.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Points that are not stored and never will be.
    pub rejected: u64,
    /// Why the first of them is not; empty: nothing to say.
    pub message: String,
}

/// An answer of 200.
pub fn success(encoding: Encoding, outcome: &Outcome) -> Vec<u8> {
    let says_nothing = *outcome == Outcome::default();
    let mut out = Vec::new();
    match encoding {
        Encoding::Json if says_nothing => out.extend_from_slice(b"{}"),
        Encoding::Json => {
            // 64 bit numbers are texts in the JSON of protobuf.
            out.extend_from_slice(b"{\"partialSuccess\":{\"rejectedDataPoints\":\"");
            put_u64(&mut out, outcome.rejected);
            out.extend_from_slice(b"\",\"errorMessage\":");
            put_string(&mut out, &outcome.message);
            out.extend_from_slice(b"}}");
        }
        Encoding::Protobuf if says_nothing => {}
        Encoding::Protobuf => {
            let mut partial = Vec::new();
            put_varint(&mut partial, 1, outcome.rejected);
            put_bytes(&mut partial, 2, outcome.message.as_bytes());
            put_bytes(&mut out, 1, &partial);
        }
    }
    out
}

/// The body of any other answer; the status is that of HTTP.
pub fn error(encoding: Encoding, status: u16, message: &str) -> Vec<u8> {
    // Numbers of `google.rpc.Code`.
    let code = match status {
        401 => 16,
        403 => 7,
        408 => 4,
        429 => 8,
        503 => 14,
        500.. => 13,
        _ => 3,
    };
    let mut out = Vec::new();
    match encoding {
        Encoding::Json => {
            out.extend_from_slice(b"{\"code\":");
            put_u64(&mut out, code);
            out.extend_from_slice(b",\"message\":");
            put_string(&mut out, message);
            out.push(b'}');
        }
        Encoding::Protobuf => {
            put_varint(&mut out, 1, code);
            put_bytes(&mut out, 2, message.as_bytes());
        }
    }
    out
}
