//! The query API of Prometheus, below `/prometheus/api/v1` and `/api/prom/api/v1`.
//!
//! Steps 1 and 9 of the way of a query: parameters in, JSON out; everything between is [`query::Engine`]. Label and series requests without
//! `start` look at the last day, as in Cortex, since all of time may be years in a bucket.

mod cardinality;
mod deletions;
mod explain;
pub(crate) mod form;
mod label_name;
pub(crate) mod object;
mod remote_read;
mod running;
mod snapshot;
mod stats;

pub(crate) use deletions::{delete_tenant, delete_tenant_status};
pub(crate) use running::{all_queries, kill_any};
pub(crate) use snapshot::snapshot;
pub(crate) use stats::json as stats_json;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use model::{Metadata, NameScheme, QueryValue, TenantId, TenantLimits};
use query::{Account, Caller, Client, Lookup, Query, Times};
use tokio::time::Instant;
use wire::json::{
    ListAnswer, Notes, put_exemplars, put_labels, put_metadata_map, put_string, put_success,
};

use crate::connection::Received;
use crate::frontend::flights::Shape;
use crate::frontend::report;
use crate::handle::Waited;
use crate::overrides::Overrides;
use crate::params::Form;
use crate::reply::{self, ApiError, Body};
use crate::router::Endpoint;
use crate::state::{Gateway, Services};

/// How far back label and series requests look that do not say it.
const LOOKUP_MS: i64 = 86_400_000;

/// What Prometheus says when a limit left something out.
pub(crate) const TRUNCATED: &str = "results truncated due to limit";

/// Answers a request of a tenant.
pub(crate) async fn answer(
    gateway: &Gateway,
    tenant: TenantId,
    endpoint: Endpoint,
    request: Request<Received>,
) -> Result<Response<Body>, ApiError> {
    let gzip = gateway.options.gzip && reply::accepts_gzip(request.headers());
    let client = Arc::new(client_of(request.headers()));
    let caller = |services: &Services| Caller {
        limits: limits_of(&services.overrides, &tenant),
        tenant: tenant.clone(),
        now_ms: (gateway.options.now_ms)(),
        client: client.clone(),
    };
    if endpoint == Endpoint::Read {
        let services = gateway.services().map_err(ApiError::unavailable)?;
        let caller = caller(services);
        return remote_read::answer(&gateway.options, services, &caller, request).await;
    }
    let uncached = says_no_store(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begun = Instant::now();
    let form = form::read(&gateway.options, request).await?;
    let services = gateway.services().map_err(ApiError::unavailable)?;
    let caller = caller(services);
    let api = Api {
        gateway,
        services,
        caller,
        form,
        gzip,
        uncached,
        request: (method, path),
        begun,
    };
    let answer = api.answer(endpoint).await;
    let slow = (gateway.options.slow_queries).is_slow(begun.elapsed());
    if slow {
        let status = match &answer {
            Ok(response) => response.status(),
            Err(error) => error.status,
        };
        api.report().slow(begun.elapsed(), status.as_u16());
        services.engine.count_slow(&tenant);
    }
    answer
}

fn client_of(headers: &http::HeaderMap) -> Client {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    Client {
        user_agent: text("user-agent"),
        dashboard_uid: text("x-dashboard-uid"),
        panel_id: text("x-panel-id"),
    }
}

impl Api<'_> {
    async fn answer(&self, endpoint: Endpoint) -> Result<Response<Body>, ApiError> {
        let api = self;
        match endpoint {
            Endpoint::Query => api.query(api.form.instant(api.caller.now_ms)?).await,
            Endpoint::QueryRange => api.query(api.form.range()?).await,
            Endpoint::QueryExemplars => api.exemplars().await,
            Endpoint::Labels => api.labels(None).await,
            Endpoint::LabelValues(part) => {
                let scheme = scheme_of(&api.services.overrides, &api.caller.tenant);
                let name = label_name::read(&part, scheme)?;
                api.labels(Some(name)).await
            }
            // Cortex and Prometheus have the route, and this answer.
            Endpoint::Series if api.request.0 == Method::DELETE => Err(ApiError {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                kind: "internal",
                message: "not implemented".to_owned(),
            }),
            Endpoint::Series => api.series().await,
            Endpoint::Metadata => api.metadata().await,
            Endpoint::FormatQuery => api.format().await,
            Endpoint::ParseQuery => api.parse().await,
            Endpoint::BuildInfo => Ok(api.build_info()),
            Endpoint::StatusTsdb => api.status_tsdb().await,
            Endpoint::Rules => match api.form.first("type").unwrap_or_default() {
                "" | "alert" | "record" => {
                    Ok(api.success(false, |out| out.extend(br#"{"groups":[]}"#)))
                }
                other => Err(ApiError::bad_data(format!(
                    "invalid parameter \"type\": not supported value {other:?}"
                ))),
            },
            Endpoint::Alerts => Ok(api.success(false, |out| out.extend(br#"{"alerts":[]}"#))),
            Endpoint::Explain => api.explain().await,
            Endpoint::CardinalityNames => api.cardinality_names().await,
            Endpoint::CardinalityValues => api.cardinality_values().await,
            Endpoint::ActiveSeries => api.active_series().await,
            Endpoint::Queries => Ok(api.queries()),
            Endpoint::Kill(id) => api.kill(id),
            Endpoint::DeleteSeries => api.delete_series().await,
            Endpoint::CancelDelete => api.cancel_delete().await,
            Endpoint::CleanTombstones => api.clean_tombstones().await,
            Endpoint::Read | Endpoint::Unknown => {
                unreachable!("answered before")
            }
        }
    }

    fn report(&self) -> report::Request<'_> {
        report::Request {
            tenant: &self.caller.tenant,
            method: self.request.0.as_str(),
            path: &self.request.1,
            user_agent: &self.caller.client.user_agent,
            form: &self.form,
        }
    }
}

/// The limits of a tenant, or of several: of each limit the one that allows least.
pub(crate) fn limits_of(overrides: &Overrides, tenant: &TenantId) -> Arc<TenantLimits> {
    let mut all = tenant.members().map(|member| overrides.limits(&member));
    let first = all.next().expect("a name has a member");
    all.fold(first, |least, limits| {
        Arc::new(least.most_restrictive(&limits))
    })
}

/// The names that may be asked for: of several tenants those that one of them may have.
fn scheme_of(overrides: &Overrides, tenant: &TenantId) -> NameScheme {
    let mut all = tenant.members().map(|m| overrides.limits(&m).name_scheme);
    match all.all(|scheme| scheme == NameScheme::Legacy) {
        true => NameScheme::Legacy,
        false => NameScheme::Utf8,
    }
}

/// What `Server-Timing` says: as in Cortex, and only where statistics of queries are wanted. Browsers show it beside the request.
fn server_timing(is_told: bool, wall: Duration) -> Option<HeaderValue> {
    let text = || format!("querier_wall_time;dur={:.3}", wall.as_secs_f64() * 1000.0);
    is_told.then(|| HeaderValue::try_from(text()).expect("digits and letters"))
}

/// Metadata of a tenant, or of several, put together by metric.
async fn metadata_of(
    services: &Services,
    tenant: &TenantId,
    metric: Option<&str>,
    [limit, per_metric]: [usize; 2],
) -> Result<Vec<(String, Vec<Metadata>)>, ApiError> {
    let list = async |tenant: &TenantId| match &services.peers {
        None => Ok(services.metadata.list(tenant, metric, limit, per_metric)),
        Some(peers) => {
            let list = peers.metadata(tenant, metric, limit, per_metric).await;
            list.map_err(query::Error::from)
        }
    };
    if !tenant.is_joined() {
        return Ok(list(tenant).await?);
    }
    let most = |limit: usize| if limit == 0 { usize::MAX } else { limit };
    let mut all: BTreeMap<String, Vec<Metadata>> = BTreeMap::new();
    for member in tenant.members() {
        for (name, records) in list(&member).await? {
            let known = all.entry(name).or_default();
            let fresh = records.into_iter().filter(|r| !known.contains(r));
            let fresh: Vec<Metadata> = fresh.collect();
            known.extend(fresh);
            known.truncate(most(per_metric));
        }
    }
    Ok(all.into_iter().take(most(limit)).collect())
}

/// One request with everything that it needs.
struct Api<'a> {
    gateway: &'a Gateway,
    services: &'a Services,
    caller: Caller,
    form: Form,
    gzip: bool,
    /// `Cache-Control: no-store`: nothing kept is to be used.
    uncached: bool,
    /// Method and path.
    request: (Method, String),
    begun: Instant,
}

impl Api<'_> {
    async fn query(&self, times: Times) -> Result<Response<Body>, ApiError> {
        let form = &self.form;
        let limit = form.limit("limit")?;
        let query = Query {
            text: form.first("query").unwrap_or_default().to_owned(),
            times,
            timeout: form.timeout()?,
            waited: Duration::ZERO,
            lookback: form.lookback()?,
            per_step: form.first("stats") == Some("all"),
            uncached: self.uncached
                || form.first("nocache") == Some("1")
                || form.first("stats").is_some_and(|asked| !asked.is_empty()),
        };
        let shape = Shape {
            limit,
            stats: form.first("stats").is_some_and(|asked| !asked.is_empty()),
        };
        let flights = &self.gateway.flights;
        let outcome = flights.query(&self.services.engine, &self.caller, query, shape);
        let stopping = || ApiError::unavailable("shutting down");
        let outcome = outcome.await.ok_or_else(stopping)?;
        let landed = match &*outcome {
            Ok(landed) => landed,
            Err(error) => return Err(error.clone().into()),
        };
        let is_told = self.gateway.options.query_stats;
        if is_told {
            self.report().stats(self.begun.elapsed(), landed);
        }
        let wall: Duration = landed.durations.iter().sum();
        let pieces = held(landed.pieces(), landed.account.clone());
        let mut response = reply::json(self.gzip, pieces);
        if let Some(timing) = server_timing(is_told, wall) {
            response.headers_mut().insert("server-timing", timing);
        }
        response
            .extensions_mut()
            .insert(Waited(landed.durations[0]));
        Ok(response)
    }

    async fn exemplars(&self) -> Result<Response<Body>, ApiError> {
        let text = self.form.first("query").unwrap_or_default().to_owned();
        let range = self.times()?;
        if range.1 < range.0 {
            let reason = "invalid parameter \"end\": end timestamp must not be before start time";
            return Err(ApiError::bad_data(reason));
        }
        let engine = &self.services.engine;
        let series = engine.exemplars(&self.caller, text, range).await?;
        let lists = series.iter().map(|s| (&s.labels, &s.exemplars[..]));
        Ok(self.success(false, |out| put_exemplars(out, lists)))
    }

    async fn labels(&self, name: Option<String>) -> Result<Response<Body>, ApiError> {
        // An end before the start is no error here, as in Prometheus; there is nothing between.
        let lookup = self.lookup()?;
        let engine = &self.services.engine;
        let texts = match name {
            Some(name) => engine.label_values(&self.caller, &name, lookup).await?,
            None => engine.label_names(&self.caller, lookup).await?,
        };
        let put = |out: &mut Vec<u8>, text: &String| put_string(out, text);
        let pieces = ListAnswer::new(texts.texts, put, notes(texts.truncated));
        Ok(reply::json(self.gzip, held(pieces, texts.account)))
    }

    async fn series(&self) -> Result<Response<Body>, ApiError> {
        let engine = &self.services.engine;
        let found = engine.series(&self.caller, self.lookup()?).await?;
        let pieces = ListAnswer::new(found.sets, put_labels, notes(found.truncated));
        Ok(reply::json(self.gzip, held(pieces, found.account)))
    }

    async fn metadata(&self) -> Result<Response<Body>, ApiError> {
        // Unlike elsewhere, no metrics at all where the limit is 0, and no limit where it is negative: as Prometheus.
        let limit = self.metadata_limit("limit")?;
        let per_metric = self.metadata_limit("limit_per_metric")?;
        let metric = self.form.first("metric").filter(|name| !name.is_empty());
        let metrics = match limit {
            Some(0) => Vec::new(),
            limit => {
                let limits = [limit, per_metric].map(|limit| limit.unwrap_or(0));
                metadata_of(self.services, &self.caller.tenant, metric, limits).await?
            }
        };
        let metrics = metrics
            .iter()
            .map(|(name, descriptions)| (name, descriptions));
        Ok(self.success(false, |out| put_metadata_map(out, metrics)))
    }

    fn metadata_limit(&self, name: &'static str) -> Result<Option<usize>, ApiError> {
        match self.form.first(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => match text.parse::<i64>() {
                Ok(limit) => Ok(usize::try_from(limit).ok()),
                Err(_) => Err(ApiError::bad_data(format!("{name} must be a number"))),
            },
        }
    }

    async fn parse(&self) -> Result<Response<Body>, ApiError> {
        let text = self.form.first("query").unwrap_or_default().to_owned();
        let tree = self.services.engine.parse(&self.caller, text).await?;
        Ok(self.success(false, |out| out.extend_from_slice(tree.as_bytes())))
    }

    async fn format(&self) -> Result<Response<Body>, ApiError> {
        let text = self.form.first("query").unwrap_or_default().to_owned();
        let formatted = self.services.engine.format(&self.caller, text).await?;
        Ok(self.success(false, |out| put_string(out, &formatted)))
    }

    fn build_info(&self) -> Response<Body> {
        let facts = [
            ("application", "Myelin"),
            ("version", self.gateway.options.version),
            ("revision", ""),
            ("branch", ""),
            ("buildUser", ""),
            ("buildDate", ""),
            ("goVersion", ""),
        ];
        self.success(false, |out| {
            for (at, (name, value)) in facts.iter().enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                put_string(out, name);
                out.push(b':');
                put_string(out, value);
            }
            out.push(b'}');
        })
    }

    /// `start` and `end`; all of time where they are not given.
    fn times(&self) -> Result<(i64, i64), ApiError> {
        let start = self.form.time("start")?.unwrap_or(i64::MIN);
        let end = self.form.time("end")?.unwrap_or(i64::MAX);
        Ok((start, end))
    }

    /// The parameters that label and series requests share.
    fn lookup(&self) -> Result<Lookup, ApiError> {
        let (mut start, end) = self.times()?;
        if self.form.first("start").is_none_or(str::is_empty) {
            start = end.min(self.caller.now_ms).saturating_sub(LOOKUP_MS);
        }
        Ok(Lookup {
            selectors: self.form.all("match[]"),
            start,
            end,
            limit: self.form.limit("limit")?,
        })
    }

    fn success(&self, truncated: bool, put_data: impl FnOnce(&mut Vec<u8>)) -> Response<Body> {
        let notes = notes(truncated);
        let out = success_bytes(notes.warnings, put_data);
        reply::json(self.gzip, std::iter::once(Bytes::from(out)))
    }
}

fn says_no_store(headers: &http::HeaderMap) -> bool {
    let values = headers.get_all(http::header::CACHE_CONTROL).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case("no-store"))
}

/// A whole successful answer.
fn success_bytes(warnings: Vec<String>, put_data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let notes = Notes {
        warnings,
        infos: Vec::new(),
    };
    put_success(&mut out, &notes, put_data);
    out
}

fn notes(truncated: bool) -> Notes {
    let warnings = truncated.then(|| TRUNCATED.to_owned());
    Notes {
        warnings: warnings.into_iter().collect(),
        infos: Vec::new(),
    }
}

/// Pieces of an answer that keep the memory of the whole accounted for until the last of them is taken, or the client has gone.
fn held(
    pieces: impl Iterator<Item = Bytes> + 'static,
    account: Arc<Account>,
) -> impl Iterator<Item = Bytes> + 'static {
    pieces.inspect(move |_| _ = &account)
}

/// Cuts a vector or matrix to `limit` series; 0 is unlimited. True when something was left out.
pub(crate) fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    let cut = |len: usize| limit > 0 && len > limit;
    match value {
        QueryValue::Vector(samples) if cut(samples.len()) => samples.truncate(limit),
        QueryValue::Matrix(series) if cut(series.len()) => series.truncate(limit),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: the time was told to everybody, also where statistics are off.
    #[test]
    fn the_wall_time_is_told_where_statistics_are_wanted() {
        let wall = Duration::from_micros(1500);
        assert_eq!(server_timing(false, wall), None);
        let told = server_timing(true, wall).unwrap();
        assert_eq!(told, "querier_wall_time;dur=1.500");
    }
}
