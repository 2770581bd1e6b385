//! From a request to its answer: route, method, and who does the work.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use model::{MatchOp, Matcher, TenantId};
use tokio::time::Instant;
use tracing::Instrument;

use crate::auth::{CertificateName, Denied};
use crate::connection::Received;
use crate::metrics::Metrics;
use crate::push::{otlp, tell_nothing_written};
use crate::reply::{self, ApiError, Body};
use crate::router::{Endpoint, Route, route};
use crate::state::{Gateway, Roles, Services, Thread};
use crate::tenant::NoTenant;
use crate::told::trace_id;
use crate::{admin, api};

/// Answers one request, counts it, and has what is logged of it name its trace.
pub(crate) async fn request(
    thread: &Rc<Thread>,
    request: Request<Received>,
) -> (Response<Body>, Sized) {
    // Of the level that is always logged; a request without a trace costs none.
    let span =
        trace_id(request.headers()).map(|trace_id| tracing::error_span!("request", %trace_id));
    match span {
        Some(span) => counted(thread, request).instrument(span).await,
        None => counted(thread, request).await,
    }
}

async fn counted(thread: &Rc<Thread>, mut request: Request<Received>) -> (Response<Body>, Sized) {
    let gateway = &thread.gateway;
    let matched = route(&gateway.options, request.uri().path());
    let mut counted = Counted {
        metrics: &gateway.metrics,
        method: match *request.method() {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::HEAD => "HEAD",
            _ => "other",
        },
        route: matched.name,
        begin: Instant::now(),
        status: CLIENT_GONE,
        waited: Duration::ZERO,
        querying: false,
    };
    let querying = matches!(matched.route, Route::Api(_));
    let origin = request.headers().get(header::ORIGIN);
    let shared = origin.filter(|_| querying);
    let shared = shared.map(|origin| gateway.options.cors_origin.allowed(origin));
    // A client may promise anything.
    let bytes = header_number(request.headers(), &header::CONTENT_LENGTH).min(u32::MAX.into());
    gateway
        .metrics
        .request_bytes(counted.method, counted.route, bytes);
    let refused = refusal(&matched.route, request.method(), request.uri().path());
    let refused = refused.or_else(|| elsewhere(gateway.options.roles, &matched.route));
    let refused = match refused {
        Some(response) => Some(response),
        None => match admit(gateway, &matched.route, &mut request).await {
            Ok(()) => None,
            Err(denied) => Some(denial(&matched.route, request.headers(), &denied)),
        },
    };
    // Not before it is known who asks, for that may say whose data.
    let tenant = (querying || matches!(matched.route, Route::Push | Route::Otlp))
        .then(|| gateway.options.tenancy.told_of(request.headers()));
    let mut response = match refused {
        Some(response) => response,
        None => dispatch(thread, matched.route, request).await,
    };
    if let Some(allowed) = shared {
        share(response.headers_mut(), allowed);
    }
    counted.status = response.status().as_u16();
    if let Some(Waited(waited)) = response.extensions_mut().remove::<Waited>() {
        counted.waited = waited;
    }
    counted.querying = querying;
    if let Some(tenant) = tenant.filter(|_| counted.status >= 400) {
        tell(gateway, &tenant, &counted, &response);
    }
    let of = Sized {
        method: counted.method,
        route: counted.route,
    };
    (response, of)
}

/// How long a query waited for its turn; goes with its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited(pub(crate) Duration);

/// Whose answer it is, to count its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sized {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
}

fn header_number(headers: &HeaderMap, name: &header::HeaderName) -> u64 {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A line about a request that was refused or failed, while there is room for it.
fn tell(gateway: &Gateway, tenant: &str, counted: &Counted<'_>, response: &Response<Body>) {
    let Some(left_out) = gateway.told.room(Instant::now()) else {
        return;
    };
    let (route, status) = (counted.route, counted.status);
    let error = response.body().beginning();
    match status {
        500.. => tracing::warn!(tenant, route, status, error, left_out, "request failed"),
        _ => tracing::info!(tenant, route, status, error, left_out, "request refused"),
    }
}

/// On a request whose credentials another part of the cluster has checked; no client can set it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted;

/// Finds out who asks, where that is done here.
async fn admit(
    gateway: &Gateway,
    route: &Route,
    request: &mut Request<Received>,
) -> Result<(), Denied> {
    let Some(auth) = &gateway.options.auth else {
        return Ok(());
    };
    if request.extensions().get::<Admitted>().is_some() {
        return Ok(());
    }
    let certificate = request.extensions().get::<CertificateName>().cloned();
    let tenancy = gateway.options.tenancy;
    let headers = request.headers_mut();
    auth.admit(route, tenancy, headers, certificate.as_ref())
        .await
}

/// The answer to whoever may not.
fn denial(route: &Route, headers: &HeaderMap, denied: &Denied) -> Response<Body> {
    let mut response = match route {
        Route::Otlp => {
            let plain = otlp::refused_before(headers, denied.status(), &denied.to_string());
            plain.map(|body| Body::whole(body.into_inner().unwrap_or_default()))
        }
        _ => reply::text(denied.status(), denied.to_string()),
    };
    if *route == Route::Push {
        tell_nothing_written(headers, response.headers_mut());
    }
    denied.tell(response.headers_mut());
    response
}

/// The status of a request whose client did not wait for the answer; nginx' number.
const CLIENT_GONE: u16 = 499;

/// Counts a request when it is over, also when it is dropped because the client has gone.
struct Counted<'a> {
    metrics: &'a Metrics,
    method: &'static str,
    route: &'static str,
    begin: Instant,
    status: u16,
    waited: Duration,
    /// It was answered by the query API.
    querying: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let elapsed = self.begin.elapsed();
        self.metrics
            .request(self.method, self.route, self.status, elapsed);
        if self.querying {
            let elapsed = elapsed.saturating_sub(self.waited);
            self.metrics
                .query_request(self.method, self.route, self.status, elapsed);
        }
    }
}

/// Pages of which origins may read answers of the query API: a Grafana that asks from the browser needs it.
#[derive(Debug, Clone)]
pub struct CorsOrigin {
    /// Of whatever origin.
    any: bool,
    fits: Arc<Matcher>,
}

impl CorsOrigin {
    /// A regular expression that has to match the whole of the origin. Errors: it is none.
    pub fn new(regex: &str) -> Result<CorsOrigin, String> {
        let fits = Matcher::new(MatchOp::Regex, "origin", regex).map_err(|e| e.to_string())?;
        Ok(CorsOrigin {
            any: regex == ".*",
            fits: Arc::new(fits),
        })
    }

    /// Which origin an answer names; `None` where the page may not read it.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let fits = |text: &str| self.fits.matches(text);
        origin.to_str().is_ok_and(fits).then(|| origin.clone())
    }
}

/// Says which pages may read an answer of the query API, as Prometheus and Cortex do. The header of the tenant is not among those that such a
/// page may send.
fn share(headers: &mut HeaderMap, allowed: Option<HeaderValue>) {
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Accept, Authorization, Content-Type, Origin",
        ),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// Where Cortex has something that is not here.
const NOT_BUILT: [(&str, &str); 21] = [
    ("/ring", "ring"),
    ("/ruler_ring", "ring"),
    ("/parquet-converter/ring", "ring"),
    ("/ingester/renewTokens", "ring"),
    ("/ingester/ring", "ring"),
    ("/distributor/ring", "ring"),
    ("/compactor/ring", "ring"),
    ("/store-gateway/ring", "ring"),
    ("/memberlist", "ring"),
    ("/ruler", "ruler"),
    ("/api/v1/rules", "ruler"),
    ("/api/v1/alerts", "Alertmanager"),
    ("/api/prom/rules", "ruler"),
    ("/multitenant_alertmanager", "Alertmanager"),
    ("/alertmanager", "Alertmanager"),
    ("/api/prom/configs", "store of configurations"),
    ("/private", "store of configurations"),
    ("/api/v1/chunks", "download of chunks"),
    ("/ingester/push", "push past the distributor"),
    ("/push", "push past the distributor"),
    ("/debug/fgprof", "fgprof"),
];

fn not_found(path: &str) -> String {
    let is_below = |route: &str| {
        let rest = path.strip_prefix(route);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match NOT_BUILT.iter().find(|(route, _)| is_below(route)) {
        Some((_, what)) => format!("not found: Myelin has no {what} yet\n"),
        None => "not found\n".to_owned(),
    }
}

/// 404 for paths that are not there, 405 for methods that the path does not take.
fn refusal(route: &Route, method: &Method, path: &str) -> Option<Response<Body>> {
    let methods = route.methods();
    if methods.contains(method) {
        return None;
    }
    if *method == Method::OPTIONS && !methods.is_empty() {
        let mut response = reply::text(StatusCode::NO_CONTENT, "");
        response
            .headers_mut()
            .insert(header::ALLOW, allowed(methods));
        return Some(response);
    }
    let in_api = matches!(route, Route::Api(_));
    if methods.is_empty() {
        return Some(match in_api {
            true => ApiError::not_found("no such endpoint").response(),
            false => reply::text(StatusCode::NOT_FOUND, not_found(path)),
        });
    }
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let message = format!("method {method} is not allowed here");
    let mut response = match in_api {
        true => ApiError {
            status,
            kind: "bad_data",
            message,
        }
        .response(),
        false => reply::text(status, message + "\n"),
    };
    response
        .headers_mut()
        .insert(header::ALLOW, allowed(methods));
    Some(response)
}

/// 404 for what another part of a cluster does.
fn elsewhere(roles: Roles, route: &Route) -> Option<Response<Body>> {
    let (here, whose) = match route {
        Route::Push | Route::Otlp | Route::HaTracker => (roles.distributor, "a distributor"),
        // All that know ingesters ask them; a frontend knows none.
        Route::DeleteTenant
        | Route::DeleteTenantStatus
        | Route::UserStats
        | Route::AllUserStats => (
            roles.ingester || roles.distributor || roles.querier,
            "a distributor, querier or ingester",
        ),
        Route::Api(Endpoint::DeleteSeries | Endpoint::CancelDelete | Endpoint::CleanTombstones) => {
            (true, "")
        }
        Route::Api(_) => (roles.querier || roles.frontend, "a querier or frontend"),
        Route::AllQueries | Route::KillAny(_) => {
            (roles.querier || roles.ingester, "a querier or ingester")
        }
        Route::Flush | Route::Shutdown | Route::Snapshot => (roles.ingester, "an ingester"),
        _ => (true, ""),
    };
    let text = || format!("this node is not {whose} (-target)\n");
    match route {
        _ if here => None,
        Route::Api(_) => Some(ApiError::not_found(text().trim_end()).response()),
        _ => Some(reply::text(StatusCode::NOT_FOUND, text())),
    }
}

/// `Allow`.
fn allowed(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    HeaderValue::try_from(names.join(", ")).expect("names of methods")
}

async fn dispatch(thread: &Rc<Thread>, route: Route, request: Request<Received>) -> Response<Body> {
    let gateway = &thread.gateway;
    match route {
        Route::Push => push(thread, request).await,
        Route::Otlp => push_otlp(thread, request).await,
        Route::Api(endpoint) => in_api(gateway, endpoint, request).await,
        Route::Ready => admin::ready(gateway),
        Route::Healthy => reply::text(StatusCode::OK, "healthy\n"),
        Route::Metrics => admin::metrics(gateway, request.headers()),
        Route::Config => admin::config(gateway, request.uri().query().unwrap_or("")),
        Route::RuntimeConfig => admin::runtime_config(gateway, request.uri().query().unwrap_or("")),
        Route::UserLimits | Route::UserOverrides | Route::UserStats => {
            of_tenant(gateway, &route, request.headers()).await
        }
        Route::HaTracker => admin::ha_tracker(gateway, request.headers()),
        Route::AllUserStats => admin::all_user_stats(gateway, request.headers()).await,
        Route::Services => admin::services(gateway),
        Route::AllQueries => api::all_queries(gateway),
        Route::KillAny(id) => api::kill_any(gateway, id),
        Route::Snapshot => api::snapshot(gateway, request).await,
        Route::Flush => admin::flush(gateway, request).await,
        Route::Shutdown => admin::shutdown(gateway).await,
        Route::DeleteTenant | Route::DeleteTenantStatus => {
            tenant_deletion(gateway, &route, request.headers()).await
        }
        Route::Mode { json } => admin::mode(gateway, request, json).await,
        Route::Profile(profile) => {
            let query = request.uri().query().unwrap_or("").to_owned();
            admin::profile(gateway, profile, &query).await
        }
        Route::Index => admin::index(gateway),
        Route::Unknown => unreachable!("answered 404 before"),
    }
}

/// Remote write: tenant, then the write path of this thread.
async fn push(thread: &Rc<Thread>, request: Request<Received>) -> Response<Body> {
    let (tenant, services) = match may_push(&thread.gateway, request.headers()) {
        Ok(may) => may,
        Err(refusal) => {
            let mut answer = match refusal {
                NoPush::Tenant(error) => reply::text(error.status(), error.to_string()),
                NoPush::State(reason) => not_yet(reason),
            };
            tell_nothing_written(request.headers(), answer.headers_mut());
            return answer;
        }
    };
    let push = thread.push(services);
    let (head, body) = request.into_parts();
    let response = push.handle(&tenant, &head.headers, body).await;
    response.map(|body| Body::whole(body.into_inner().unwrap_or_default()))
}

/// OTLP metrics: the same, but that all answers are its own.
async fn push_otlp(thread: &Rc<Thread>, request: Request<Received>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let response = match may_push(&thread.gateway, &head.headers) {
        Ok((tenant, services)) => {
            let push = thread.push(services);
            push.handle_otlp(&tenant, &head.headers, body).await
        }
        Err(NoPush::Tenant(error)) => {
            otlp::refused_before(&head.headers, error.status(), &error.to_string())
        }
        Err(NoPush::State(reason)) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let mut response = otlp::refused_before(&head.headers, status, &reason);
            let seconds = HeaderValue::from_static(reply::RETRY_AFTER_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
            response
        }
    };
    response.map(|body| Body::whole(body.into_inner().unwrap_or_default()))
}

/// Why nothing is taken.
enum NoPush {
    /// Nobody may send it.
    Tenant(NoTenant),
    /// Nobody may send anything now.
    State(String),
}

/// Who pushes, and to what.
///
/// Errors: the tenant or the state of the node does not allow it.
fn may_push<'a>(
    gateway: &'a Gateway,
    headers: &HeaderMap,
) -> Result<(TenantId, &'a Services), NoPush> {
    let tenant = gateway.options.tenancy.tenant_of(headers);
    let tenant = tenant.map_err(NoPush::Tenant)?;
    let services = gateway.services().map_err(NoPush::State)?;
    // When the log of one core has failed the whole node refuses writes, also those that only healthy cores would get.
    (services.health)().map_err(NoPush::State)?;
    match gateway.mode.now().refusal() {
        Some(reason) => Err(NoPush::State(reason.to_owned())),
        None => Ok((tenant, services)),
    }
}

/// A tenant is deleted whole, or asks whether it is.
async fn tenant_deletion(gateway: &Gateway, route: &Route, headers: &HeaderMap) -> Response<Body> {
    let tenant = match gateway.options.tenancy.tenant_of(headers) {
        Ok(tenant) => tenant,
        Err(error) => return reply::text(error.status(), error.to_string()),
    };
    let services = match gateway.services() {
        Ok(services) => services,
        Err(reason) => return not_yet(reason),
    };
    let answer = match route {
        Route::DeleteTenant => api::delete_tenant(services, &tenant).await,
        _ => api::delete_tenant_status(services, &tenant).await,
    };
    answer.unwrap_or_else(|error| error.response())
}

/// Pages that tell a tenant of itself.
async fn of_tenant(gateway: &Gateway, route: &Route, headers: &HeaderMap) -> Response<Body> {
    let tenant = match gateway.options.tenancy.tenant_of(headers) {
        Ok(tenant) => tenant,
        Err(error) => return reply::text(error.status(), error.to_string()),
    };
    match (gateway.services(), route) {
        (Err(reason), _) => not_yet(reason),
        (Ok(services), Route::UserStats) => admin::user_stats(services, &tenant).await,
        (Ok(services), Route::UserOverrides) => {
            admin::user_overrides(&gateway.options, services, &tenant)
        }
        (Ok(services), _) => admin::user_limits(&gateway.options, services, &tenant),
    }
}

/// Plain text 503 for senders of samples, who come back later.
fn not_yet(reason: String) -> Response<Body> {
    let mut response = reply::text(StatusCode::SERVICE_UNAVAILABLE, reason);
    let seconds = HeaderValue::from_static(reply::RETRY_AFTER_SECONDS);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

async fn in_api(
    gateway: &Gateway,
    endpoint: Endpoint,
    request: Request<Received>,
) -> Response<Body> {
    let options = &gateway.options;
    let tenant = match endpoint.reads_several() {
        true => options
            .tenancy
            .tenants_of(request.headers(), options.federation),
        false => options.tenancy.tenant_of(request.headers()),
    };
    let tenant = match tenant {
        Ok(tenant) => tenant,
        // As Cortex: a missing tenant is told in plain text by the layer in front of the API.
        Err(error) if error.status() == StatusCode::UNAUTHORIZED => {
            return reply::text(error.status(), error.to_string());
        }
        Err(error) => return ApiError::bad_data(error.to_string()).response(),
    };
    let answered = match gateway.services() {
        Ok(Services {
            frontend: Some(frontend),
            overrides,
            ..
        }) => {
            let limits = api::limits_of(overrides, &tenant);
            let waiting_max = limits.max_outstanding_requests_per_tenant;
            frontend
                .answer(options, &tenant, waiting_max, &endpoint, request)
                .await
        }
        _ => api::answer(gateway, tenant, endpoint, request).await,
    };
    match answered {
        Ok(response) => response,
        Err(error) => error.response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Roles = Roles {
        distributor: false,
        ingester: false,
        querier: false,
        frontend: false,
    };

    /// Story: a query-frontend, which knows no ingesters, told everybody zeros with 200; an ingester took pushes past all distributors.
    #[test]
    fn who_cannot_answer_tells_who_can() {
        let frontend = Roles {
            frontend: true,
            ..NONE
        };
        for route in [Route::UserStats, Route::AllUserStats] {
            let refused = elsewhere(frontend, &route).expect("it knows no ingesters");
            assert_eq!(refused.status(), StatusCode::NOT_FOUND);
            let text = refused.body().beginning();
            assert!(
                text.contains("not a distributor, querier or ingester"),
                "{text}"
            );
            for (distributor, querier, ingester) in [
                (true, false, false),
                (false, true, false),
                (false, false, true),
            ] {
                let roles = Roles {
                    distributor,
                    querier,
                    ingester,
                    frontend: true,
                };
                assert!(elsewhere(roles, &route).is_none());
            }
        }
        let ingester = Roles {
            ingester: true,
            ..NONE
        };
        for route in [Route::Push, Route::Otlp] {
            let refused = elsewhere(ingester, &route).expect("it is written to by gRPC");
            assert_eq!(refused.status(), StatusCode::NOT_FOUND);
            assert!(elsewhere(Roles::ALL, &route).is_none());
        }
    }

    #[test]
    fn routes_of_cortex_that_are_not_here_say_so() {
        for path in [
            "/api/prom/rules",
            "/api/prom/rules/a/b",
            "/alertmanager",
            "/alertmanager/api/v2/alerts",
            "/ruler_ring",
            "/api/prom/configs/rules",
            "/private/api/prom/configs/rules",
            "/api/v1/chunks",
            "/push",
            "/ingester/push",
            "/ingester/renewTokens",
            "/parquet-converter/ring",
            "/debug/fgprof",
            "/ring",
        ] {
            let text = not_found(path);
            assert!(
                text.starts_with("not found: Myelin has no "),
                "{path}: {text}"
            );
        }
        for path in ["/pushes", "/nope", "/api/v1/chunk"] {
            assert_eq!(not_found(path), "not found\n", "{path}");
        }
    }
}
