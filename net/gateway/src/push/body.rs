//! Reading a body, bounded in bytes and time, and what it is kept as.

use std::fmt;
use std::pin::{Pin, pin};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use wire::snappy;

use super::inflight::Inflight;
use super::{PushError, PushOptions};

/// The bytes of a write request.
///
/// One that came packed is kept so while the cores are at work, which is nearly all the time that a push takes: unpacked it is four to ten
/// times as large, and as one body after another is unpacked into the same memory, that stays in the caches. It is unpacked again where a
/// key turns out to be dead, or where a store had to be asked which replica is elected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    Plain(&'a [u8]),
    Snappy(&'a [u8]),
}

impl<'a> Body<'a> {
    /// The request, unpacked into `buffer` if it is not yet.
    ///
    /// Errors: more than `max` bytes, or not snappy.
    pub(super) fn open<'b>(
        self,
        max: usize,
        buffer: &'b mut snappy::Buffer,
    ) -> Result<&'b [u8], snappy::Error>
    where
        'a: 'b,
    {
        match self {
            Body::Plain(bytes) => Ok(bytes),
            Body::Snappy(packed) => {
                snappy::unpack(packed, max, buffer)?;
                Ok(buffer.as_slice())
            }
        }
    }
}

/// Appends the body, of at most `max` bytes, to `out`, which is empty.
///
/// A declared length above the bound is refused before anything is read; otherwise bytes are counted as they come. Memory is taken for
/// what has come, not for what is promised.
pub(super) async fn read<B>(
    body: B,
    headers: &HeaderMap,
    options: &PushOptions,
    max: usize,
    inflight: &mut Inflight,
    out: &mut Vec<u8>,
) -> Result<(), PushError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: fmt::Display,
{
    if let Some(size) = declared_len(headers).filter(|&size| size > max as u64) {
        return Err(snappy::Error::TooLarge { size, max }.into());
    }
    let reading = read_all(body, max, inflight, out);
    if options.body_timeout.is_zero() {
        return reading.await;
    }
    match tokio::time::timeout(options.body_timeout, reading).await {
        Ok(result) => result,
        Err(_) => Err(PushError::Slow(options.body_timeout)),
    }
}

/// Takes what is left of a body, at most so many bytes, off its connection: the server would hang up on a sender that is not read to the end, who
/// would then pay for a new connection, and may never see the answer that told it to wait.
async fn drain<B>(mut body: Pin<&mut B>, mut left: usize)
where
    B: http_body::Body<Data = Bytes>,
{
    while let Some(Ok(frame)) = body.as_mut().frame().await {
        let len = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(len) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// Takes a body off its connection and keeps nothing of it, within the bounds of one that is read.
pub(super) async fn discard<B>(body: B, options: &PushOptions)
where
    B: http_body::Body<Data = Bytes>,
{
    let body = pin!(body);
    let all = drain(
        body,
        options.recv_bytes_max.max(options.otlp_recv_bytes_max),
    );
    if options.body_timeout.is_zero() {
        return all.await;
    }
    // Too late is as good as gone: it is refused either way.
    let _ = tokio::time::timeout(options.body_timeout, all).await;
}

fn declared_len(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(http::header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

async fn read_all<B>(
    body: B,
    max: usize,
    inflight: &mut Inflight,
    out: &mut Vec<u8>,
) -> Result<(), PushError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: fmt::Display,
{
    let mut body = pin!(body);
    while let Some(frame) = body.as_mut().frame().await {
        let frame = frame.map_err(|error| PushError::Body(error.to_string()))?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        let size = out.len() as u64 + bytes.len() as u64;
        if size > max as u64 {
            return Err(snappy::Error::TooLarge { size, max }.into());
        }
        if let Err(error) = inflight.add(bytes.len() as u64) {
            drain(body, max - size as usize).await;
            return Err(error);
        }
        out.extend_from_slice(&bytes);
    }
    Ok(())
}
