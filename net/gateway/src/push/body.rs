//! Reading a body, bounded in bytes and time.

use std::fmt;
use std::pin::pin;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use wire::snappy;

use super::inflight::Inflight;
use super::{PushError, PushOptions};

/// Appends the body to `out`, which is empty.
///
/// A declared length above the bound is refused before anything is read; otherwise bytes are counted as they come. Memory is taken for
/// what has come, not for what is promised.
pub(super) async fn read<B>(
    body: B,
    headers: &HeaderMap,
    options: &PushOptions,
    inflight: &mut Inflight<'_>,
    out: &mut Vec<u8>,
) -> Result<(), PushError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: fmt::Display,
{
    let max = options.recv_bytes_max;
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
    inflight: &mut Inflight<'_>,
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
        inflight.add(bytes.len() as u64)?;
        out.extend_from_slice(&bytes);
    }
    Ok(())
}
