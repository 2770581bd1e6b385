//! The query frontend: queries wait here until a querier has time for them.
//!
//! A frontend evaluates nothing. It takes requests of the query API, keeps those of every tenant in a line of its own, and queriers pull: each
//! opens streams to every frontend ([`worker`]), and a stream that has no query takes the next one, of another tenant each time. So a tenant
//! with many queries delays its own, and a querier gets what it can do.
//!
//! - The line of a tenant has `max_outstanding_requests_per_tenant` places; beyond that it is answered 429. All lines have `querier.max_waiting`; beyond that 503.
//! - A query whose querier has gone goes to another one (to the same only if there is no other), at most [`FrontendOptions::retries_max`] times.
//! - When the client has gone its stream ends, and with that the work on the querier. The same when the time of the query is over, waiting included.
//! - Without a querier nothing is answered, and the frontend is not ready.

pub(crate) mod queue;
pub(crate) mod serve;
mod targets;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use model::TenantId;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use rpc::frontend as proto;
use tokio::time::Instant;

use crate::api::form::is_form;
use crate::connection::{BodyError, Received, TimedBody};
use crate::params::Form;
use crate::reply::{ApiError, Body};
use crate::router::Endpoint;
use crate::state::Options;
use crate::tenant::TENANT_HEADER;
use queue::{Bounds, Full, Lost, Queue};

/// Bounds of a frontend.
#[derive(Debug, Clone)]
pub struct FrontendOptions {
    /// Largest body of a request.
    pub body_bytes_max: usize,
    /// Queries of all tenants that may wait.
    pub waiting_max: usize,
    /// How often a query is given to another querier.
    pub retries_max: u32,
    /// From the request to its answer.
    pub timeout: Duration,
}

/// Queries on their way to queriers.
#[derive(Debug)]
pub struct Frontend {
    options: FrontendOptions,
    queue: Arc<Queue>,
    metrics: Metrics,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) queue_length: IntGaugeVec,
    pub(crate) waited: Histogram,
    pub(crate) queriers: IntGauge,
    retries: Histogram,
    discarded: prometheus::IntCounterVec,
    lost: IntCounter,
}

impl Metrics {
    fn register(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            queue_length: IntGaugeVec::new(
                Opts::new(
                    "cortex_query_frontend_queue_length",
                    "Queries that wait for a querier.",
                ),
                &["user"],
            )?,
            waited: Histogram::with_opts(HistogramOpts::new(
                "cortex_query_frontend_queue_duration_seconds",
                "How long queries waited for a querier.",
            ))?,
            queriers: IntGauge::new(
                "cortex_query_frontend_connected_clients",
                "Streams of queriers.",
            )?,
            retries: Histogram::with_opts(
                HistogramOpts::new(
                    "cortex_query_frontend_retries",
                    "How often a query was given to another querier.",
                )
                .buckets(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
            )?,
            discarded: prometheus::IntCounterVec::new(
                Opts::new(
                    "cortex_query_frontend_discarded_requests_total",
                    "Queries refused because too many of the tenant wait.",
                ),
                &["user"],
            )?,
            lost: IntCounter::new(
                "myelin_query_frontend_lost_queriers_total",
                "Queriers that went away with a query.",
            )?,
        };
        registry.register(Box::new(metrics.queue_length.clone()))?;
        registry.register(Box::new(metrics.waited.clone()))?;
        registry.register(Box::new(metrics.queriers.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.discarded.clone()))?;
        registry.register(Box::new(metrics.lost.clone()))?;
        Ok(metrics)
    }
}

/// Headers of one connection, which are not handed on.
const OF_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::HOST,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
];

impl Frontend {
    /// Errors: a registry that has these metrics already.
    pub fn new(options: FrontendOptions, registry: &Registry) -> prometheus::Result<Frontend> {
        Ok(Frontend {
            options,
            queue: Arc::default(),
            metrics: Metrics::register(registry)?,
        })
    }

    /// Whether anybody would take a query.
    pub fn health(&self) -> Result<(), String> {
        match self.metrics.queriers.get() {
            0 => Err("no querier is connected".to_owned()),
            _ => Ok(()),
        }
    }

    /// Has a querier answer a request of a tenant, of which at most so many (0: any number) may wait.
    pub(crate) async fn answer(
        &self,
        options: &Options,
        tenant: &TenantId,
        outstanding_max: usize,
        endpoint: &Endpoint,
        request: Request<Received>,
    ) -> Result<Response<Body>, ApiError> {
        let posts_form = request.method() == Method::POST && is_form(request.headers());
        let request = self.message(options, tenant, request).await?;
        let asked = match endpoint {
            Endpoint::Query | Endpoint::QueryRange | Endpoint::Explain => {
                timeout_of(&request, posts_form)
            }
            _ => None,
        };
        let response = self
            .within(asked, tenant, outstanding_max, &request)
            .await?;
        Ok(answer_of(response))
    }

    /// The answer, if it comes in the time that the query may take: that which was asked for, if it is less.
    async fn within(
        &self,
        asked: Option<Duration>,
        tenant: &TenantId,
        outstanding_max: usize,
        request: &proto::HttpRequest,
    ) -> Result<proto::HttpResponse, ApiError> {
        let timeout = asked.map_or(self.options.timeout, |asked| {
            asked.min(self.options.timeout)
        });
        let answered = self.ask(tenant, outstanding_max, request);
        let answered = tokio::time::timeout_at(Instant::now() + timeout, answered).await;
        answered.map_err(|_| ApiError {
            status: StatusCode::GATEWAY_TIMEOUT,
            kind: "timeout",
            message: format!("no querier has answered within {} s", timeout.as_secs_f64()),
        })?
    }

    async fn ask(
        &self,
        tenant: &TenantId,
        outstanding_max: usize,
        request: &proto::HttpRequest,
    ) -> Result<proto::HttpResponse, ApiError> {
        let _shown = Shown(self, tenant);
        let mut lost_by = Vec::new();
        for retry in 0..=self.options.retries_max {
            // One that had its turn is not refused for those that came meanwhile.
            let outstanding_max = if retry == 0 { outstanding_max } else { 0 };
            let bounds = Bounds {
                of_tenant: outstanding_max,
                of_all: self.options.waiting_max,
            };
            let enqueued = self.queue.put(tenant, bounds, request.clone(), &lost_by);
            let ticket = enqueued.map_err(|full| {
                let discarded = &self.metrics.discarded;
                discarded.with_label_values(&[tenant.as_str()]).inc();
                refusal(&full, outstanding_max)
            })?;
            self.show_length(tenant);
            match ticket.answer().await {
                Ok(response) => {
                    self.metrics.retries.observe(f64::from(retry));
                    return Ok(response);
                }
                Err(Lost(querier)) => {
                    self.metrics.lost.inc();
                    lost_by.extend(querier);
                }
            }
        }
        self.metrics
            .retries
            .observe(f64::from(self.options.retries_max));
        Err(ApiError::unavailable(format!(
            "{} queriers went away with the query",
            self.options.retries_max + 1
        )))
    }

    /// Shows how many queries of a tenant wait; one without any leaves the page.
    pub(crate) fn show_length(&self, tenant: &TenantId) {
        let (length, user) = (&self.metrics.queue_length, [tenant.as_str()]);
        match self.queue.waiting(tenant) {
            // It may not be there.
            0 => drop(length.remove_label_values(&user)),
            waiting => length.with_label_values(&user).set(waiting),
        }
    }

    /// A request as it is handed on, with all of its body.
    async fn message(
        &self,
        options: &Options,
        tenant: &TenantId,
        request: Request<Received>,
    ) -> Result<proto::HttpRequest, ApiError> {
        let (head, body) = request.into_parts();
        let max = self.options.body_bytes_max;
        let body = Limited::new(TimedBody::new(body, options.read_timeout), max);
        let body = body.collect().await;
        let body = body.map_err(|error| match error.downcast::<BodyError>() {
            Ok(error) => ApiError::bad_data(error.to_string()),
            Err(_) => ApiError {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                kind: "bad_data",
                message: format!("the body is larger than {max} bytes"),
            },
        })?;
        let mut headers = headers_to(&head.headers);
        // Who asks has been found out here; credentials go no further.
        let mine = [TENANT_HEADER, header::AUTHORIZATION.as_str()];
        headers.retain(|header| !mine.contains(&header.key.as_str()));
        headers.push(proto::Header {
            key: TENANT_HEADER.to_owned(),
            value: tenant.as_str().to_owned().into(),
        });
        Ok(proto::HttpRequest {
            method: head.method.as_str().to_owned(),
            url: head
                .uri
                .path_and_query()
                .map(|path| path.as_str().to_owned())
                .unwrap_or_default(),
            headers,
            body: body.to_bytes(),
        })
    }
}

/// The parameter `timeout` of a query. What it cannot be is for a querier to tell.
fn timeout_of(request: &proto::HttpRequest, posts_form: bool) -> Option<Duration> {
    let query = request.url.split_once('?').map_or("", |(_, query)| query);
    let body: &[u8] = if posts_form { &request.body } else { &[] };
    Form::parse(query, body).ok()?.timeout().ok()?
}

/// Shows the length of a line again when somebody goes, with an answer or without.
struct Shown<'a>(&'a Frontend, &'a TenantId);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.show_length(self.1);
    }
}

fn refusal(full: &Full, outstanding_max: usize) -> ApiError {
    match full {
        Full::OfTenant(waiting) => ApiError {
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: "too_many_requests",
            message: format!(
                "too many outstanding requests: {waiting} of this tenant wait for a querier \
                 (limit: {outstanding_max}; max_outstanding_requests_per_tenant)"
            ),
        },
        Full::OfAll(waiting) => ApiError::unavailable(format!(
            "too many outstanding requests: {waiting} wait for a querier (querier.max_waiting)"
        )),
    }
}

pub(crate) fn headers_to(headers: &HeaderMap) -> Vec<proto::Header> {
    let mine = headers
        .iter()
        .filter(|(name, _)| !OF_CONNECTION.contains(name));
    mine.map(|(name, value)| proto::Header {
        key: name.as_str().to_owned(),
        value: bytes::Bytes::copy_from_slice(value.as_bytes()),
    })
    .collect()
}

/// Those that are headers.
pub(crate) fn headers_of(headers: Vec<proto::Header>) -> HeaderMap {
    let mut all = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::try_from(header.key.as_str());
        let value = HeaderValue::from_maybe_shared(header.value);
        if let (Ok(name), Ok(value)) = (name, value)
            && !OF_CONNECTION.contains(&name)
        {
            all.append(name, value);
        }
    }
    all
}

fn answer_of(response: proto::HttpResponse) -> Response<Body> {
    let code = u16::try_from(response.code).unwrap_or_default();
    let mut answer = Response::new(Body::whole(response.body));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *answer.headers_mut() = headers_of(response.headers);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: only `querier.timeout` was looked at, so a query of a second waited for two minutes where no querier had time.
    #[tokio::test(start_paused = true)]
    async fn a_query_waits_no_longer_than_it_may_take() {
        let options = FrontendOptions {
            body_bytes_max: 1000,
            waiting_max: 10,
            retries_max: 1,
            timeout: Duration::from_secs(120),
        };
        let frontend = Frontend::new(options, &Registry::new()).unwrap();
        let tenant = TenantId::fake();
        let form = |url: &str, body: &'static str| proto::HttpRequest {
            url: url.to_owned(),
            body: body.into(),
            ..proto::HttpRequest::default()
        };
        for (request, seconds) in [
            (form("/q?query=1&timeout=1s", ""), 1),
            (form("/q", "query=1&timeout=2"), 2),
            (form("/q?timeout=5s", "timeout=3s"), 3),
            (form("/q?timeout=1h", ""), 120),
            (form("/q?timeout=no", ""), 120),
            (form("/q", ""), 120),
        ] {
            let begun = Instant::now();
            let asked = timeout_of(&request, true);
            let answered = frontend.within(asked, &tenant, 10, &request);
            let error = answered.await.unwrap_err();
            assert_eq!((error.status.as_u16(), error.kind), (504, "timeout"));
            assert_eq!(begun.elapsed().as_secs(), seconds, "{request:?}");
            assert_eq!(frontend.queue.waiting(&tenant), 0);
        }
        let read = form("/read", "timeout=1s");
        assert_eq!(timeout_of(&read, false), None, "a body that is no form");
    }
}
