//! Pages for operators and probes. None needs a tenant; none may be open to tenants.

use std::fmt::Write;
use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use prometheus::{Encoder, TextEncoder};

use crate::params::Form;
use crate::reply::{self, Body};
use crate::state::{ConfigPages, Gateway, Phase};

mod ha;
mod tenants;

pub(crate) use ha::ha_tracker;
pub(crate) use tenants::{all_user_stats, user_limits, user_overrides, user_stats};

/// 200 `ready`, or 503 and why not.
pub(crate) fn ready(gateway: &Gateway) -> Response<Body> {
    match why_not_ready(gateway) {
        None => reply::text(StatusCode::OK, "ready\n"),
        Some(reason) => reply::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

fn why_not_ready(gateway: &Gateway) -> Option<String> {
    if gateway.phase() == Phase::Stopping {
        return Some("shutting down".to_owned());
    }
    if gateway.is_drained() {
        return Some(DRAINED.to_owned());
    }
    gateway
        .services()
        .and_then(|services| (services.health)())
        .err()
}

/// Why a node that was told to shut down takes no writes.
pub(crate) const DRAINED: &str = "told to shut down: writes are refused";

/// Copies all that is in memory into blocks. 204 at once, or, with `wait=true`, when it is done; 500 and why it was not. `tenant=` is taken and
/// no restriction: a flush is of all tenants.
pub(crate) async fn flush(gateway: &Arc<Gateway>, query: &str) -> Response<Body> {
    let form = match Form::parse(query, &[]) {
        Ok(form) => form,
        Err(error) => return reply::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    match form.first("wait") {
        Some("true") => return flushed(gateway).await,
        None | Some("false") => {}
        Some(other) => {
            let reason = format!("wait is {other:?}, must be true or false\n");
            return reply::text(StatusCode::BAD_REQUEST, reason);
        }
    }
    let asked = match gateway.services() {
        Ok(services) => services.engine.flush(),
        Err(reason) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    };
    // The cores have it; nobody waits for the answer.
    drop(asked);
    reply::text(StatusCode::NO_CONTENT, "")
}

/// Refuses writes from now on and copies all that is in memory into blocks: 204 when that is done. The node goes on answering queries.
pub(crate) async fn shutdown(gateway: &Arc<Gateway>) -> Response<Body> {
    gateway.drain();
    flushed(gateway).await
}

async fn flushed(gateway: &Arc<Gateway>) -> Response<Body> {
    let flush = match gateway.services() {
        Ok(services) => services.engine.flush(),
        Err(reason) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    };
    match flush.await {
        Ok(()) => reply::text(StatusCode::NO_CONTENT, ""),
        Err(reason) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, reason + "\n"),
    }
}

/// Which of the pages a query asks for: `mode=diff`, `mode=defaults`, or what is in force.
fn page_of(pages: ConfigPages, query: &str) -> Response<Body> {
    let form = match Form::parse(query, &[]) {
        Ok(form) => form,
        Err(error) => return reply::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let page = match form.first("mode").unwrap_or_default() {
        "" => pages.current,
        "diff" => pages.diff,
        "defaults" => pages.defaults,
        other => {
            let reason = format!("mode is {other:?}, must be diff or defaults\n");
            return reply::text(StatusCode::BAD_REQUEST, reason);
        }
    };
    reply::text(StatusCode::OK, page)
}

/// What flags, file and defaults came to.
pub(crate) fn config(gateway: &Gateway, query: &str) -> Response<Body> {
    page_of(gateway.options.config_pages.clone(), query)
}

/// What the file of overrides came to, with everything that it does not say, or only what differs.
pub(crate) fn runtime_config(gateway: &Gateway, query: &str) -> Response<Body> {
    match gateway.runtime_config() {
        Some(pages) => page_of(pages, query),
        None => reply::text(StatusCode::OK, "runtime config file doesn't exist\n"),
    }
}

/// All registries in Prometheus' text format, compressed for those who accept it.
pub(crate) fn metrics(gateway: &Gateway, headers: &HeaderMap) -> Response<Body> {
    let mut text = Vec::with_capacity(64 << 10);
    if let Err(error) = TextEncoder::new().encode(&gateway.gather(), &mut text) {
        return reply::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    }
    let pieces = std::iter::once(bytes::Bytes::from(text));
    reply::streamed(
        prometheus::TEXT_FORMAT,
        reply::accepts_gzip(headers),
        pieces,
    )
}

/// The parts of the node and their states.
pub(crate) fn services(gateway: &Gateway) -> Response<Body> {
    let serving = match gateway.phase() {
        Phase::Replaying(_) => "Starting",
        Phase::Serving => "Running",
        Phase::Stopping => "Stopping",
    };
    let cores = match gateway.services() {
        Ok(services) if (services.health)().is_err() => "Failed",
        _ => serving,
    };
    let mut text = "server => Running\n".to_owned();
    for (part, state) in [
        ("cores", cores),
        ("distributor", serving),
        ("querier", serving),
    ] {
        let _ = writeln!(text, "{part} => {state}");
    }
    reply::text(StatusCode::OK, text)
}

/// Links to the other pages.
pub(crate) fn index(gateway: &Gateway) -> Response<Body> {
    let options = &gateway.options;
    let prefix = &options.path_prefix;
    let mut page = format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>Myelin</title></head><body>\
         <h1>Myelin {}</h1><p>Prometheus writes to <code>{prefix}/api/v1/push</code> and is asked at \
         <code>{prefix}{}</code>.</p><ul>",
        options.version, options.prometheus_prefix,
    );
    for (path, what) in [
        ("/ready", "whether it takes traffic"),
        ("/metrics", "its own metrics"),
        ("/config", "the configuration in force"),
        ("/runtime_config", "limits of tenants that have their own"),
        ("/distributor/all_user_stats", "series and rates of tenants"),
        ("/distributor/ha_tracker", "elected replicas of HA pairs"),
        ("/services", "its parts and their states"),
        ("/querier/queries", "queries in flight, of all tenants"),
        ("/ingester/flush", "copies what is in memory into blocks"),
    ] {
        let _ = write!(
            page,
            "<li><a href=\"{prefix}{path}\">{path}</a>: {what}</li>"
        );
    }
    page.push_str("</ul></body></html>\n");
    reply::typed(StatusCode::OK, "text/html; charset=utf-8", page)
}
