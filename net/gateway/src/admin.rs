//! Pages for operators and probes. None needs a tenant; none may be open to tenants.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use model::TenantId;
use prometheus::{Encoder, TextEncoder};
use tokio::time::Instant;

use crate::connection::Received;
use crate::mode::Mode;
use crate::params::Form;
use crate::reply::{self, Body};
use crate::router::Profile;
use crate::state::{ConfigPages, Gateway, Phase};

mod ha;
mod tenants;

pub(crate) use ha::ha_tracker;
pub(crate) use tenants::{all_user_stats, user_limits, user_overrides, user_stats};

/// 200 `ready`, or 503 and why not.
pub(crate) fn ready(gateway: &Gateway) -> Response<Body> {
    match why_not_ready(gateway) {
        None => reply::text(StatusCode::OK, "ready"),
        Some(reason) => reply::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

fn why_not_ready(gateway: &Gateway) -> Option<String> {
    if gateway.phase() == Phase::Stopping {
        return Some("shutting down".to_owned());
    }
    let mode = gateway.mode.now();
    if let Some(reason) = mode.refusal().filter(|_| mode.is_leaving()) {
        return Some(reason.to_owned());
    }
    gateway
        .services()
        .and_then(|services| (services.health)())
        .err()
}

/// Copies all that is in memory into blocks, of the tenants that `tenant=` names, if any. 204 at once, or, with `wait=true`, when it is done; 500 and why it was not.
pub(crate) async fn flush(gateway: &Arc<Gateway>, request: Request<Received>) -> Response<Body> {
    let form = match crate::api::form::read(&gateway.options, request).await {
        Ok(form) => form,
        Err(error) => return reply::text(error.status, error.message + "\n"),
    };
    let named = form.all("tenant");
    let tenants = named.iter().map(|name| TenantId::new(name));
    let tenants: Vec<TenantId> = match tenants.collect::<Result<_, _>>() {
        Ok(tenants) => tenants,
        Err(error) => return reply::text(StatusCode::BAD_REQUEST, format!("tenant: {error}\n")),
    };
    match form.first("wait") {
        Some("true") => return flushed(gateway, &tenants).await,
        None | Some("false") => {}
        Some(other) => {
            let reason = format!("wait is {other:?}, must be true or false\n");
            return reply::text(StatusCode::BAD_REQUEST, reason);
        }
    }
    let asked = match gateway.services() {
        Ok(services) => services.engine.flush(&tenants),
        Err(reason) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    };
    // The cores have it; nobody waits for the answer.
    drop(asked);
    reply::text(StatusCode::NO_CONTENT, "")
}

/// Refuses writes from now on and copies all that is in memory into blocks: 204 when that is done. The node goes on answering queries.
pub(crate) async fn shutdown(gateway: &Arc<Gateway>) -> Response<Body> {
    gateway.mode.set(Mode::Shutdown).expect("it is the last");
    let begun = Instant::now();
    let flushed = flushed(gateway, &[]).await;
    let is_done = flushed.status().is_success();
    gateway.metrics.shutdown(is_done, begun.elapsed());
    flushed
}

/// Tells the mode, and changes it where the parameter `mode` names one. `DRAIN` is answered when pushes in flight have ended and memory is in blocks.
pub(crate) async fn mode(
    gateway: &Arc<Gateway>,
    request: Request<Received>,
    json: bool,
) -> Response<Body> {
    let form = match crate::api::form::read(&gateway.options, request).await {
        Ok(form) => form,
        Err(error) => return reply::text(error.status, error.message + "\n"),
    };
    if let Some(name) = form.first("mode") {
        let set = Mode::named(name).map_err(|reason| (StatusCode::BAD_REQUEST, reason));
        let set = set.and_then(|mode| {
            let refused = |reason| (StatusCode::CONFLICT, reason);
            gateway.mode.set(mode).map(|()| mode).map_err(refused)
        });
        match set {
            Err((status, reason)) => return reply::text(status, reason + "\n"),
            Ok(mode) => {
                tracing::info!(mode = mode.name(), "mode set by an operator");
                if mode == Mode::Drain {
                    pushes_end(gateway).await;
                    let flushed = flushed(gateway, &[]).await;
                    if !flushed.status().is_success() {
                        return flushed;
                    }
                }
            }
        }
    }
    let name = gateway.mode.now().name();
    match json {
        true => {
            let body = format!("{{\"mode\":\"{name}\"}}");
            reply::typed(StatusCode::OK, "application/json", body)
        }
        false => reply::text(StatusCode::OK, format!("{name}\n")),
    }
}

/// Waits for the pushes that had begun; not for one whose client never ends it.
async fn pushes_end(gateway: &Gateway) {
    const LOOK: Duration = Duration::from_millis(20);
    let end = Instant::now() + gateway.options.read_timeout.max(LOOK);
    while let Ok(services) = gateway.services()
        && services.push.inflight() > 0
        && Instant::now() < end
    {
        tokio::time::sleep(LOOK).await;
    }
}

/// Seconds of a CPU profile: where the request names none, as in Go, and at most.
const PROFILE_SECONDS: u64 = 30;
const PROFILE_SECONDS_MAX: u64 = 120;

/// Profiles of the process.
pub(crate) async fn profile(gateway: &Gateway, profile: Profile, query: &str) -> Response<Body> {
    match profile {
        Profile::Index => {
            let page = "heap: what is allocated, for jeprof and pprof; needs MALLOC_CONF=prof:true at the start\n\
                        profile: where CPU time goes, for `go tool pprof`; seconds=N (30, at most 120)\ncmdline: the command line\n";
            reply::text(StatusCode::OK, page)
        }
        Profile::Cpu => cpu_profile(gateway, query).await,
        Profile::CommandLine => reply::text(StatusCode::OK, shown(std::env::args()).join("\0")),
        Profile::Heap => {
            let profile = tokio::task::spawn_blocking(gateway.options.heap_profile).await;
            match profile {
                Ok(Ok(profile)) => {
                    reply::typed(StatusCode::OK, "application/octet-stream", profile)
                }
                Ok(Err(reason)) => reply::text(StatusCode::NOT_IMPLEMENTED, reason + "\n"),
                Err(error) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
    }
}

/// Samples for as long as is asked for. It ends when the client goes.
async fn cpu_profile(gateway: &Gateway, query: &str) -> Response<Body> {
    let form = match Form::parse(query, &[]) {
        Ok(form) => form,
        Err(error) => return reply::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let seconds = match form.first("seconds").unwrap_or_default() {
        "" => Some(PROFILE_SECONDS),
        text => text.parse().ok(),
    };
    let seconds = seconds.filter(|seconds| (1..=PROFILE_SECONDS_MAX).contains(seconds));
    let Some(seconds) = seconds else {
        let reason = format!("seconds must be a whole number from 1 to {PROFILE_SECONDS_MAX}\n");
        return reply::text(StatusCode::BAD_REQUEST, reason);
    };
    let Ok(_one) = gateway.profiles.try_acquire() else {
        let reason = "a CPU profile is being taken: there is one at a time\n";
        return reply::text(StatusCode::CONFLICT, reason);
    };
    let failed = |reason: &dyn std::fmt::Display| {
        reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n"))
    };
    let profile = match tokio::task::spawn_blocking(gateway.options.cpu_profile).await {
        Ok(Ok(profile)) => profile,
        Ok(Err(reason)) => return failed(&reason),
        Err(error) => return failed(&error),
    };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    match tokio::task::spawn_blocking(profile).await {
        Ok(Ok(profile)) => reply::typed(StatusCode::OK, "application/octet-stream", profile),
        Ok(Err(reason)) => failed(&reason),
        Err(error) => failed(&error),
    }
}

/// Arguments without what may be a secret, also where it stands behind its flag.
fn shown(args: impl Iterator<Item = String>) -> Vec<String> {
    let is_secret = |name: &str| {
        let words = ["secret", "password", "token", "key"];
        name.starts_with('-') && words.iter().any(|word| name.contains(word))
    };
    let mut hide = false;
    args.map(|arg| {
        let hidden = std::mem::replace(&mut hide, is_secret(&arg) && !arg.contains('='));
        match arg.split_once('=') {
            _ if hidden => "********".to_owned(),
            Some((name, _)) if is_secret(name) => format!("{name}=********"),
            _ => arg,
        }
    })
    .collect()
}

/// Copies what these tenants, or all where none is named, have in memory into blocks; answers when that is done.
async fn flushed(gateway: &Arc<Gateway>, tenants: &[TenantId]) -> Response<Body> {
    let flush = match gateway.services() {
        Ok(services) => services.engine.flush(tenants),
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
    let held = match gateway.services() {
        Ok(services) if (services.health)().is_err() => "Failed",
        _ => serving,
    };
    let roles = gateway.options.roles;
    let mut text = "server => Running\n".to_owned();
    let writes = match gateway.mode.now() {
        Mode::Active => serving,
        _ => "Stopping",
    };
    for (part, is_here, state) in [
        ("runtime-config", true, "Running"),
        ("cores", roles.ingester, held),
        ("distributor", roles.distributor, writes),
        // In one process it stands before the querier.
        ("query-frontend", roles.frontend || roles.querier, serving),
        ("querier", roles.querier, serving),
        ("compactor", roles.ingester, serving),
    ] {
        if is_here {
            let _ = writeln!(text, "{part} => {state}");
        }
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
         <code>{prefix}{}</code>.</p>",
        options.version, options.prometheus_prefix,
    );
    for (group, links) in [
        (
            "Look",
            &[
                ("/ready", "whether it takes traffic"),
                ("/services", "its parts and their states"),
                ("/metrics", "its own metrics"),
                ("/config", "the configuration in force"),
                ("/runtime_config", "limits of tenants that have their own"),
                ("/distributor/all_user_stats", "series and rates of tenants"),
                ("/distributor/ha_tracker", "elected replicas of HA pairs"),
                ("/querier/queries", "queries in flight, of all tenants"),
                ("/ingester/mode", "whether it takes writes"),
                ("/debug/pprof/", "profiles"),
            ][..],
        ),
        (
            "Dangerous",
            &[
                ("/ingester/flush", "copies what is in memory into blocks"),
                (
                    "/ingester/mode?mode=READONLY",
                    "refuses writes until <code>mode=ACTIVE</code>",
                ),
                (
                    "/ingester/mode?mode=DRAIN",
                    "is not ready any more, refuses writes, copies what is in memory into blocks",
                ),
                ("/ingester/shutdown", "the same, for good"),
            ][..],
        ),
    ] {
        let _ = write!(page, "<h2>{group}</h2><ul>");
        for (path, what) in links {
            let _ = write!(
                page,
                "<li><a href=\"{prefix}{path}\">{path}</a>: {what}</li>"
            );
        }
        page.push_str("</ul>");
    }
    page.push_str("</body></html>\n");
    reply::typed(StatusCode::OK, "text/html; charset=utf-8", page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: a secret in an argument of its own was shown.
    #[test]
    fn arguments_are_shown_without_secrets() {
        let args = [
            "m",
            "-s3.secret-access-key",
            "geheim",
            "--x.token=geheim",
            "-a=b",
        ];
        let shown = shown(args.iter().map(|arg| (*arg).to_owned())).join(" ");
        assert!(
            !shown.contains("geheim") && shown.ends_with("-a=b"),
            "{shown}"
        );
    }
}
