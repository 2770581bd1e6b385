//! Pushes of OTLP metrics: what `/api/v1/otlp/v1/metrics` does.
//!
//! A request is unpacked, made protobuf where it is JSON, translated into a write request ([`wire::otlp`]), and from there on it is one. The
//! answers are those of OTLP, in the encoding of the request:
//!
//! | answer | when |
//! | --- | --- |
//! | 200 | all points are stored, or belong to a replica that is not elected |
//! | 200 with a partial success | some points are refused: how many, and why the first |
//! | 400 | undecodable, too large, another media type, or every point is refused |
//! | 415 | another encoding than gzip and zstd |
//! | others | as for remote write, as a `google.rpc.Status` |
//!
//! A point is refused when any series that was made of it is; `target_info` counts for nothing. Of what cores refuse for its time they tell the
//! first and how many: where that is not all of their share, the points are taken for those that follow the first.
//!
//! Bytes held at once: the body packed and unpacked, then unpacked and as protobuf, then that and the translation; each is on the
//! account of bodies in work.

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use model::TenantId;
use wire::otlp::{self, Encoding, Outcome, Translated};
use wire::remote_write::Protocol;
use wire::snappy;

use super::body::Body;
use super::inflight::Inflight;
use super::unpack::{Packing, unpack};
use super::{PushError, PushService, Sent, Written, body, media};

/// Label of the points that cannot be translated, in the metric of discarded samples. Source: Mimir.
const UNTRANSLATABLE: &str = "otlp_parse_error";

/// Bodies of that many bytes are decoded beside the thread that serves their connection: some milliseconds of work.
const BESIDE_BYTES_MIN: usize = 256 << 10;

/// What a byte of a packed body is taken for: as much as texts that repeat unpack to.
const UNPACKED: usize = 8;

impl PushService {
    /// Answers a push of OTLP metrics. The tenant has been found by whoever routes; the body is read here.
    pub async fn handle_otlp<B>(
        &self,
        tenant: &TenantId,
        headers: &HeaderMap,
        body: B,
    ) -> Response<Full<Bytes>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: fmt::Display,
    {
        let _one = self.begin();
        let bounded = self.check_instance();
        let (encoding, packing) = match media::otlp(headers) {
            Ok(media) => media,
            Err(error) => return self.refuse_otlp(media::otlp_encoding(headers), &error),
        };
        self.shared.metrics.pushes_otlp.inc();
        let received = match bounded {
            Ok(()) => {
                self.receive_otlp(tenant, (encoding, packing), headers, body)
                    .await
            }
            Err(limit) => {
                body::discard(body, &self.shared.options).await;
                Err(PushError::Instance(limit))
            }
        };
        match received {
            Ok(outcome) => answer(StatusCode::OK, encoding, otlp::success(encoding, &outcome)),
            Err(error) => self.refuse_otlp(encoding, &error),
        }
    }

    fn refuse_otlp(&self, encoding: Encoding, error: &PushError) -> Response<Full<Bytes>> {
        if let PushError::NotElected { .. } = error {
            // 202 is no answer of OTLP; the sender has to miss nothing.
            let body = otlp::success(encoding, &Outcome::default());
            return answer(StatusCode::OK, encoding, body);
        }
        let plain = self.refuse(error);
        let mut response = error_answer(encoding, plain.status(), &error.to_string());
        if let Some(wait) = plain.headers().get(RETRY_AFTER) {
            response.headers_mut().insert(RETRY_AFTER, wait.clone());
        }
        response
    }

    async fn receive_otlp<B>(
        &self,
        tenant: &TenantId,
        (encoding, packing): (Encoding, Packing),
        headers: &HeaderMap,
        body: B,
    ) -> Result<Outcome, PushError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: fmt::Display,
    {
        let options = &self.shared.options;
        let max = options.otlp_bytes_max();
        let (tenant, settings) = self.tenant(tenant);
        if self.shared.gate.is_closed(&tenant) {
            // As in remote write: so that the sender reads its answer.
            body::discard(body, options).await;
            return Err(PushError::Overload);
        }
        let mut inflight = Inflight::new(&self.shared, tenant.clone());
        let mut received = Vec::new();
        body::read(body, headers, options, max, &mut inflight, &mut received).await?;
        let _one = self.work()?;
        if packing != Packing::None {
            let packed = std::mem::take(&mut received);
            let is_small = packed.len().saturating_mul(UNPACKED) < BESIDE_BYTES_MIN;
            let bound = BESIDE_BYTES_MIN.min(max);
            let here = is_small.then(|| unpack(packing, &packed, bound, |came| inflight.add(came)));
            match here {
                // What turns out to be large is begun anew elsewhere.
                None | Some(Err(PushError::Unpack(snappy::Error::TooLarge { .. }))) => {
                    let unpacked = self.beside(BESIDE_BYTES_MIN, move || {
                        let unpacked = unpack(packing, &packed, max, |came| inflight.add(came))?;
                        inflight.sub(packed.len() as u64);
                        Ok::<_, PushError>((unpacked, inflight))
                    });
                    (received, inflight) = unpacked.await?;
                }
                Some(here) => {
                    received = here?;
                    inflight.sub(packed.len() as u64);
                }
            }
        }
        let pass = self.shared.gate.enter(&tenant, received.len() as u64);
        let _pass = pass.ok_or(PushError::Overload)?;
        let wanted = otlp::Options {
            promote_resource_attributes: settings.limits.promote_resource_attributes.clone(),
            bytes_max: options.recv_bytes_max,
            ..options.otlp.clone()
        };
        let translated = self.beside(received.len(), move || {
            if encoding == Encoding::Json {
                received = protobuf(&received, max, &mut inflight)?;
            }
            let translated = translate(&received, &wanted, &mut inflight)?;
            inflight.sub(received.len() as u64);
            Ok::<_, PushError>((translated, inflight))
        });
        let (translated, _inflight) = translated.await?;
        let Translated {
            request,
            metadata,
            points,
            taken,
            refused,
            refusal,
        } = translated;
        if refused > 0 {
            let labels = [UNTRANSLATABLE, tenant.id.as_str()];
            let discarded = &self.shared.metrics.discarded_samples;
            discarded.with_label_values(&labels).inc_by(refused);
        }
        if refused == points {
            return match refusal {
                Some(text) => Err(PushError::Invalid(text)),
                // There were none.
                None => Ok(Outcome::default()),
            };
        }
        let mut written = Written {
            refused_at: Some(Vec::new()),
            ..Written::default()
        };
        let sent = Sent {
            protocol: Protocol::V2,
            body: Body::Plain(&request),
            metadata: &metadata,
        };
        let stored = self
            .distribute(&tenant, &settings, sent, &mut written)
            .await;
        let (rejected, error) = match stored {
            Ok(()) => (0, None),
            Err(PushError::Invalid(text)) => {
                let rejected = points_at(&taken, written.refused_at.unwrap_or_default());
                if refused + rejected == points {
                    return Err(PushError::Invalid(refusal.unwrap_or(text)));
                }
                (rejected, Some(text))
            }
            Err(error) => return Err(error),
        };
        Ok(Outcome {
            rejected: refused + rejected,
            message: refusal.or(error).unwrap_or_default(),
        })
    }

    /// Decodes, on this thread where there is little of it. What is large would hold up all connections of the thread, so it has another one; as many of
    /// these work at once as there are CPUs. What was begun ends also when the client has gone, and gives back what it holds then.
    async fn beside<T: Send + 'static>(
        &self,
        size: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if size < BESIDE_BYTES_MIN {
            return work();
        }
        let place = self.shared.decoders.clone().acquire_owned().await;
        let place = place.expect("it is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        match done.await {
            Ok(done) => done,
            // As if it had been here.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// How many points have one of these records.
fn points_at(taken: &[(u32, u32)], mut records: Vec<u32>) -> u64 {
    let of = |record: u32| {
        let point = taken.partition_point(|(_, end)| *end <= record);
        let is_within = |(begin, _): &(u32, u32)| *begin <= record;
        taken
            .get(point)
            .filter(|span| is_within(span))
            .map(|_| point)
    };
    records.sort_unstable();
    let mut points: Vec<usize> = records.into_iter().filter_map(of).collect();
    points.dedup();
    points.len() as u64
}

/// Translates a request. Bytes of what comes out are on the account when this returns.
fn translate(
    request: &[u8],
    options: &otlp::Options,
    inflight: &mut Inflight,
) -> Result<Translated, PushError> {
    let reserved = request.len().min(options.bytes_max) as u64;
    inflight.add(reserved)?;
    let translated = otlp::translate(request, options)?;
    let bytes = translated.request.len() + translated.metadata.len();
    let bytes = (bytes + size_of_val(&translated.taken[..])) as u64;
    match bytes.checked_sub(reserved) {
        Some(more) => inflight.add(more)?,
        None => inflight.sub(reserved - bytes),
    }
    Ok(translated)
}

/// A JSON request as protobuf. The text is off the account when this returns, and what came of it on it.
fn protobuf(text: &[u8], max: usize, inflight: &mut Inflight) -> Result<Vec<u8>, PushError> {
    let reserved = text.len().saturating_mul(4).min(max) as u64;
    inflight.add(reserved)?;
    let mut request = Vec::new();
    otlp::to_protobuf(text, max, &mut request)?;
    inflight.sub(text.len() as u64 + reserved);
    inflight.add(request.len() as u64)?;
    Ok(request)
}

fn answer(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(encoding.content_type());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A `google.rpc.Status`.
fn error_answer(encoding: Encoding, status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let body = otlp::error(encoding, status.as_u16(), text);
    answer(status, encoding, body)
}

/// The answer to a request that was refused before [`PushService::handle_otlp`] saw it.
pub(crate) fn refused_before(
    request: &HeaderMap,
    status: StatusCode,
    text: &str,
) -> Response<Full<Bytes>> {
    error_answer(media::otlp_encoding(request), status, text)
}
