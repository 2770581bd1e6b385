//! Remote read: a protobuf body in, one message of samples or a stream of chunks out.
//!
//! Chunks are encoded on a worker, a frame's worth at a time, when the connection has room for it: a slow client costs the chunks
//! that were fetched for it, which its query accounts for, and one frame.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use query::{Caller, Cursor, Engine, ReadSelector};
use wire::remote_read::{
    FRAME_BYTES, REQUEST_BYTES_MAX, ReadChunk, ReadRequest, STREAM_CONTENT_TYPE, put_frame,
    put_result,
};
use wire::remote_write::encode::put_series_with;
use wire::snappy;

use crate::connection::{BodyError, Received, TimedBody};
use crate::reply::{ApiError, Body};
use crate::state::{Options, Services};

/// Answers a remote read.
pub(super) async fn answer(
    options: &Options,
    services: &Services,
    caller: &Caller,
    request: Request<Received>,
) -> Result<Response<Body>, ApiError> {
    let read = body(options, request).await?;
    let selectors = read.queries.into_iter().map(|query| ReadSelector {
        start: query.start,
        end: query.end,
        matchers: query.matchers,
    });
    let engine = services.engine.clone();
    let cursor = engine.read(caller, selectors.collect()).await?;
    match read.streamed {
        true => Ok(streamed(engine, cursor)),
        false => sampled(&engine, cursor).await,
    }
}

async fn body(options: &Options, request: Request<Received>) -> Result<ReadRequest, ApiError> {
    let body = TimedBody::new(request.into_body(), options.read_timeout);
    let collected = Limited::new(body, REQUEST_BYTES_MAX).collect().await;
    let packed = collected.map_err(|error| match error.downcast::<BodyError>() {
        Ok(error) => ApiError::bad_data(error.to_string()),
        Err(_) => ApiError {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            kind: "bad_data",
            message: format!("the request is larger than {REQUEST_BYTES_MAX} bytes"),
        },
    })?;
    let bad = |reason: String| ApiError::bad_data(format!("remote read: {reason}"));
    let mut unpacked = snappy::Buffer::default();
    let packed = packed.to_bytes();
    snappy::unpack(&packed, REQUEST_BYTES_MAX, &mut unpacked).map_err(|e| bad(e.to_string()))?;
    ReadRequest::decode(unpacked.as_slice()).map_err(|e| bad(e.to_string()))
}

/// All samples in one message: the whole of it has to be there before the first byte leaves.
async fn sampled(engine: &Arc<Engine>, mut cursor: Cursor) -> Result<Response<Body>, ApiError> {
    let encode = move || -> Result<_, query::Error> {
        let mut results: Vec<Vec<u8>> = vec![Vec::new(); cursor.queries()];
        let mut samples = Vec::new();
        while let Some(series) = cursor.advance()? {
            samples.clear();
            let mut histograms = Vec::new();
            let mut next = series.histograms.iter().peekable();
            for (at, (&time, &value)) in series.times.iter().zip(series.values).enumerate() {
                match next.next_if(|(index, _)| *index as usize == at) {
                    Some((_, histogram)) => histograms.push((time, histogram.clone())),
                    None => samples.push((time, value)),
                }
            }
            let into = &mut results[series.query];
            let before = into.len();
            put_series_with(into, series.labels.iter(), &samples, &histograms);
            // Twice: it is copied once more, packed.
            let bytes = 2 * (into.len() - before) as u64;
            cursor.hold(bytes)?;
        }
        let mut message = Vec::with_capacity(results.iter().map(Vec::len).sum::<usize>() + 64);
        for result in &results {
            put_result(&mut message, result);
        }
        let packed = snappy::pack(&message);
        let account = cursor.finish(packed.len() as u64);
        Ok((packed, account))
    };
    let (packed, account) = engine.on_worker(encode).await??;
    let piece = std::iter::once(Bytes::from(packed));
    let mut response = Response::new(Body::pieces(super::held(piece, account)));
    let headers = response.headers_mut();
    let (media, coding) = ("application/x-protobuf", "snappy");
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    Ok(response)
}

/// Chunks, frame by frame.
fn streamed(engine: Arc<Engine>, cursor: Cursor) -> Response<Body> {
    let pieces = futures_util::stream::unfold(Some((engine, cursor)), |state| async move {
        let (engine, mut cursor) = state?;
        let encode = move || {
            let piece = frames(&mut cursor);
            (piece, cursor)
        };
        let broken = |error: query::Error| {
            tracing::debug!(%error, "a remote read was cut");
            io::Error::other(error)
        };
        match engine.on_worker(encode).await {
            Ok((Ok(piece), _)) if piece.is_empty() => None,
            Ok((Ok(piece), cursor)) => Some((Ok(Bytes::from(piece)), Some((engine, cursor)))),
            Ok((Err(error), _)) | Err(error) => Some((Err(broken(error)), None)),
        }
    });
    let mut response = Response::new(Body::stream(pieces));
    let media = HeaderValue::from_static(STREAM_CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// Frames of the next series, about [`FRAME_BYTES`] in all; empty when there are no more.
fn frames(cursor: &mut Cursor) -> Result<Vec<u8>, query::Error> {
    let mut out = Vec::new();
    while out.len() < FRAME_BYTES
        && let Some(series) = cursor.advance()?
    {
        let chunks = series.chunks().into_iter().map(|chunk| ReadChunk {
            encoding: chunk.encoding as u8,
            min_time: chunk.min_time,
            max_time: chunk.max_time,
            data: chunk.data,
        });
        let chunks: Vec<ReadChunk> = chunks.collect();
        // A long series is cut, so that no client has to take a message larger than it expects.
        let mut rest = &chunks[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |chunk: &&ReadChunk| {
                bytes += chunk.data.len() + 32;
                bytes <= FRAME_BYTES / 2
            };
            let count = rest.iter().take_while(fits).count().max(1);
            put_frame(&mut out, series.query, series.labels, &rest[..count]);
            rest = &rest[count..];
        }
    }
    Ok(out)
}
