//! Answers: bodies that stream, JSON with or without gzip, plain text, and errors in the envelope of the API.
//!
//! A body is pulled by the connection, piece by piece, as the client takes it: a slow client costs the memory of its result,
//! not a thread. Answers below [`GZIP_BYTES_MIN`] are not worth compressing.

use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::Stream;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use model::Class;

use crate::params::{FormError, ParamError};

/// Smaller answers are sent as they are.
const GZIP_BYTES_MIN: usize = 1024;

/// Bytes of an error that a line of the log has.
const TOLD_BYTES: usize = 300;

/// What `Retry-After` says: the states it goes with (queue, replay, memory) pass within seconds.
pub(crate) const RETRY_AFTER_SECONDS: &str = "2";

/// The body of an answer.
pub(crate) struct Body(Kind);

enum Kind {
    Whole(Option<Bytes>),
    Pieces(Box<dyn Iterator<Item = Bytes>>),
    Gzip {
        pieces: Box<dyn Iterator<Item = Bytes>>,
        encoder: Option<GzEncoder<Vec<u8>>>,
    },
    /// Pieces that are still to be made, elsewhere. An error hangs up: what has been sent cannot be taken back.
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>>>>),
}

impl Body {
    /// All of it at once.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        Body(Kind::Whole(Some(bytes).filter(|b| !b.is_empty())))
    }

    /// Pieces that are made when the connection has room for them.
    pub(crate) fn pieces(pieces: impl Iterator<Item = Bytes> + 'static) -> Body {
        Body(Kind::Pieces(Box::new(pieces)))
    }

    /// Pieces that are made while they are sent, one at a time.
    pub(crate) fn stream(pieces: impl Stream<Item = io::Result<Bytes>> + 'static) -> Body {
        Body(Kind::Stream(Box::pin(pieces)))
    }

    /// The beginning of an error's text, for the log.
    pub(crate) fn beginning(&self) -> String {
        match &self.0 {
            Kind::Whole(Some(bytes)) => {
                let some = &bytes[..bytes.len().min(TOLD_BYTES)];
                String::from_utf8_lossy(some).trim_end().to_owned()
            }
            _ => String::new(),
        }
    }

    /// The next bytes to send, of a body that is there already.
    fn next(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Kind::Whole(bytes) => bytes.take(),
            Kind::Pieces(pieces) => pieces.find(|piece| !piece.is_empty()),
            Kind::Stream(_) => unreachable!("polled"),
            Kind::Gzip { pieces, encoder } => loop {
                let gzip = encoder.as_mut()?;
                // Writing into a vector does not fail.
                match pieces.next() {
                    Some(piece) => gzip.write_all(&piece).expect("a vector grows"),
                    None => {
                        let rest = encoder.take()?.finish().expect("a vector grows");
                        return Some(rest.into());
                    }
                }
                if gzip.get_ref().len() >= GZIP_BYTES_MIN {
                    return Some(std::mem::take(gzip.get_mut()).into());
                }
            },
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Kind::Stream(pieces) => pieces
                .as_mut()
                .poll_next(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
            _ => Poll::Ready(self.next().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => {
                http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            _ => http_body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Kind::Whole(None))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Whole(_) => "Body::Whole",
            Kind::Pieces(_) => "Body::Pieces",
            Kind::Gzip { .. } => "Body::Gzip",
            Kind::Stream(_) => "Body::Stream",
        })
    }
}

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| {
        value.to_str().unwrap_or_default().split(',').any(|part| {
            let mut words = part.split(';').map(str::trim);
            let coding = words.next().unwrap_or_default();
            let refused =
                words.any(|w| matches!(w.strip_prefix("q=").map(str::parse), Some(Ok(0.0_f32))));
            (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
        })
    };
    headers
        .get_all(http::header::ACCEPT_ENCODING)
        .iter()
        .any(named)
}

/// JSON in pieces, compressed when `gzip` and worth it.
pub(crate) fn json(gzip: bool, pieces: impl Iterator<Item = Bytes> + 'static) -> Response<Body> {
    streamed("application/json", gzip, pieces)
}

/// Text of any type in pieces, compressed when `gzip` and worth it.
pub(crate) fn streamed(
    content_type: &'static str,
    gzip: bool,
    pieces: impl Iterator<Item = Bytes> + 'static,
) -> Response<Body> {
    let mut pieces = pieces.peekable();
    let first = pieces.next().unwrap_or_default();
    let whole = pieces.peek().is_none();
    let gzip = gzip && !(whole && first.len() < GZIP_BYTES_MIN);
    let body = match (gzip, whole) {
        (false, true) => Body::whole(first),
        (false, false) => Body(Kind::Pieces(Box::new(std::iter::once(first).chain(pieces)))),
        (true, _) => Body(Kind::Gzip {
            pieces: Box::new(std::iter::once(first).chain(pieces)),
            encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
        }),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text.into())
}

/// Text of another type.
pub(crate) fn typed(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error of the query API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// `errorType`.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn bad_data(message: impl Into<String>) -> ApiError {
        ApiError {
            status: StatusCode::BAD_REQUEST,
            kind: "bad_data",
            message: message.into(),
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError {
            status: StatusCode::NOT_FOUND,
            kind: "not_found",
            message: message.into(),
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> ApiError {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        ApiError {
            status,
            kind: "unavailable",
            message: message.into(),
        }
    }

    /// The error in its envelope, with `Retry-After` where waiting helps.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut out = Vec::with_capacity(self.message.len() + 64);
        wire::json::put_error(&mut out, self.kind, &self.message);
        let mut response = typed(self.status, "application/json", out);
        if self.kind == "unavailable" || self.status == StatusCode::TOO_MANY_REQUESTS {
            let seconds = HeaderValue::from_static(RETRY_AFTER_SECONDS);
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// The status of a class, `spec` of the API: 499 is nginx' "client closed request".
impl From<query::Error> for ApiError {
    fn from(error: query::Error) -> ApiError {
        let (status, kind) = match error.class() {
            Class::Client => (400, "bad_data"),
            Class::Limit | Class::Execution => (422, "execution"),
            Class::Rate => (429, "too_many_requests"),
            Class::Overload => (503, "unavailable"),
            Class::Timeout => (503, "timeout"),
            Class::Canceled => (499, "canceled"),
            Class::Internal => (500, "internal"),
        };
        let status = StatusCode::from_u16(status).expect("a status of three digits");
        ApiError {
            status,
            kind,
            message: error.to_string(),
        }
    }
}

impl From<ParamError> for ApiError {
    fn from(error: ParamError) -> ApiError {
        ApiError::bad_data(error.to_string())
    }
}

impl From<FormError> for ApiError {
    fn from(error: FormError) -> ApiError {
        ApiError::bad_data(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn drain(mut body: Body) -> Vec<u8> {
        std::iter::from_fn(|| body.next()).flatten().collect()
    }

    fn accepting(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("accept-encoding", HeaderValue::from_str(value).unwrap());
        accepts_gzip(&headers)
    }

    #[test]
    fn gzip_is_used_only_when_accepted() {
        assert!(accepting("gzip") && accepting("deflate, gzip;q=0.5") && accepting("*"));
        assert!(!accepting("identity") && !accepting("gzip;q=0, br") && !accepting(""));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_compressed_stream_unpacks_to_the_same_bytes() {
        let pieces: Vec<Bytes> = (0..50)
            .map(|n| Bytes::from(format!("piece {n} ").repeat(300)))
            .collect();
        let wanted: Vec<u8> = pieces.iter().flatten().copied().collect();
        let plain = json(false, pieces.clone().into_iter());
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(drain(plain.into_body()), wanted);
        let packed = json(true, pieces.into_iter());
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
        let bytes = drain(packed.into_body());
        assert!(bytes.len() < wanted.len() / 4);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, wanted);
    }

    #[test]
    fn small_answers_are_sent_plain_and_with_their_length() {
        let response = json(true, std::iter::once(Bytes::from_static(b"{}")));
        assert!(!response.headers().contains_key(CONTENT_ENCODING));
        let hint = http_body::Body::size_hint(response.body());
        assert_eq!(hint.exact(), Some(2));
    }

    #[test]
    fn overload_asks_to_come_back_and_other_errors_do_not() {
        let busy = ApiError::from(query::Error::Busy { waiting: 9 }).response();
        assert_eq!(busy.status(), 503);
        assert_eq!(busy.headers()[RETRY_AFTER], RETRY_AFTER_SECONDS);
        let (waiting, limit) = (3, 3);
        let many = query::Error::TooManyOutstanding { waiting, limit };
        let many = ApiError::from(many).response();
        assert_eq!(
            (
                many.status().as_u16(),
                many.headers()[RETRY_AFTER].as_bytes()
            ),
            (429, b"2".as_slice())
        );
        let bad = ApiError::bad_data("x \"y\"").response();
        assert!(!bad.headers().contains_key(RETRY_AFTER));
        let text = String::from_utf8(drain(bad.into_body())).unwrap();
        assert_eq!(
            text,
            r#"{"status":"error","errorType":"bad_data","error":"x \"y\""}"#
        );
    }
}
