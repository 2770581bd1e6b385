//! The query API of Prometheus, below `/prometheus/api/v1` and `/api/prom/api/v1`.
//!
//! Steps 1 and 9 of the way of a query: parameters in, JSON out; everything between is [`query::Engine`]. Label requests without
//! times look at everything that is in memory, which is everything there is.

mod form;
mod label_name;
mod stats;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use model::{QueryValue, TenantId};
use query::{Caller, Lookup, Query, Times};
use wire::json::{
    Answer, Notes, put_exemplars, put_label_sets, put_metadata_map, put_string, put_strings,
    put_success,
};

use crate::params::Form;
use crate::reply::{self, ApiError, Body};
use crate::router::Endpoint;
use crate::state::{Gateway, Services};

/// What Prometheus says when a limit left something out.
const TRUNCATED: &str = "results truncated due to limit";

/// Answers a request of a tenant.
pub(crate) async fn answer(
    gateway: &Gateway,
    tenant: TenantId,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    if let Endpoint::NotBuilt(what) = endpoint {
        return Err(ApiError::not_found(format!("not built yet: {what}")));
    }
    let gzip = gateway.options.gzip && reply::accepts_gzip(request.headers());
    let form = form::read(&gateway.options, request).await?;
    let services = gateway.services().map_err(ApiError::unavailable)?;
    let caller = Caller {
        limits: services.overrides.limits(&tenant),
        tenant,
        now_ms: (gateway.options.now_ms)(),
    };
    let api = Api {
        services,
        caller,
        form,
        gzip,
        version: gateway.options.version,
    };
    match endpoint {
        Endpoint::Query => api.query(api.form.instant(api.caller.now_ms)?).await,
        Endpoint::QueryRange => api.query(api.form.range()?).await,
        Endpoint::QueryExemplars => api.exemplars().await,
        Endpoint::Labels => api.labels(None).await,
        Endpoint::LabelValues(name) => api.labels(Some(label_name::unescape(&name)?)).await,
        Endpoint::Series => api.series().await,
        Endpoint::Metadata => api.metadata(),
        Endpoint::FormatQuery => api.format().await,
        Endpoint::BuildInfo => Ok(api.build_info()),
        Endpoint::NotBuilt(_) | Endpoint::Unknown => unreachable!("answered before"),
    }
}

/// One request with everything that it needs.
struct Api<'a> {
    services: &'a Services,
    caller: Caller,
    form: Form,
    gzip: bool,
    version: &'static str,
}

impl Api<'_> {
    async fn query(&self, times: Times) -> Result<Response<Body>, ApiError> {
        let form = &self.form;
        let limit = form.limit("limit")?;
        let query = Query {
            text: form.first("query").unwrap_or_default().to_owned(),
            times,
            timeout: form.timeout()?,
            lookback: form.lookback()?,
        };
        let mut answer = self.services.engine.query(&self.caller, query).await?;
        let stats = form.first("stats").filter(|asked| !asked.is_empty());
        let stats = stats.map(|_| stats::json(&answer));
        if truncate(&mut answer.value, limit) {
            answer.warnings.push(TRUNCATED.to_owned());
        }
        let notes = Notes {
            warnings: answer.warnings,
            infos: answer.infos,
        };
        Ok(reply::json(
            self.gzip,
            Answer::new(answer.value, stats, notes),
        ))
    }

    async fn exemplars(&self) -> Result<Response<Body>, ApiError> {
        let text = self.form.first("query").unwrap_or_default().to_owned();
        let range = self.times()?;
        let engine = &self.services.engine;
        let series = engine.exemplars(&self.caller, text, range).await?;
        let lists = series.iter().map(|s| (&s.labels, &s.exemplars[..]));
        Ok(self.success(false, |out| put_exemplars(out, lists)))
    }

    async fn labels(&self, name: Option<String>) -> Result<Response<Body>, ApiError> {
        let lookup = self.lookup()?;
        let engine = &self.services.engine;
        let texts = match name {
            Some(name) => engine.label_values(&self.caller, &name, lookup).await?,
            None => engine.label_names(&self.caller, lookup).await?,
        };
        Ok(self.success(texts.truncated, |out| put_strings(out, &texts.texts)))
    }

    async fn series(&self) -> Result<Response<Body>, ApiError> {
        let (sets, truncated) = self
            .services
            .engine
            .series(&self.caller, self.lookup()?)
            .await?;
        Ok(self.success(truncated, |out| put_label_sets(out, &sets)))
    }

    fn metadata(&self) -> Result<Response<Body>, ApiError> {
        let limit = self.form.limit("limit")?;
        let per_metric = self.form.limit("limit_per_metric")?;
        let metric = self.form.first("metric").filter(|name| !name.is_empty());
        let store = &self.services.metadata;
        let metrics = store.list(&self.caller.tenant, metric, limit, per_metric);
        let metrics = metrics
            .iter()
            .map(|(name, descriptions)| (name, descriptions));
        Ok(self.success(false, |out| put_metadata_map(out, metrics)))
    }

    async fn format(&self) -> Result<Response<Body>, ApiError> {
        let text = self.form.first("query").unwrap_or_default().to_owned();
        let formatted = self.services.engine.format(&self.caller, text).await?;
        Ok(self.success(false, |out| put_string(out, &formatted)))
    }

    fn build_info(&self) -> Response<Body> {
        let facts = [
            ("application", "Myelin"),
            ("version", self.version),
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
        if end < start {
            let reason = "invalid parameter \"end\": end timestamp must not be before start time";
            return Err(ApiError::bad_data(reason));
        }
        Ok((start, end))
    }

    /// The parameters that label and series requests share.
    fn lookup(&self) -> Result<Lookup, ApiError> {
        let (start, end) = self.times()?;
        Ok(Lookup {
            selectors: self.form.all("match[]"),
            start,
            end,
            limit: self.form.limit("limit")?,
        })
    }

    fn success(&self, truncated: bool, put_data: impl FnOnce(&mut Vec<u8>)) -> Response<Body> {
        let warnings = if truncated {
            vec![TRUNCATED.to_owned()]
        } else {
            Vec::new()
        };
        let mut out = Vec::with_capacity(256);
        put_success(
            &mut out,
            &Notes {
                warnings,
                infos: Vec::new(),
            },
            put_data,
        );
        reply::json(self.gzip, std::iter::once(Bytes::from(out)))
    }
}

/// Cuts a vector or matrix to `limit` series; 0 is unlimited. True when something was left out.
fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    let cut = |len: usize| limit > 0 && len > limit;
    match value {
        QueryValue::Vector(samples) if cut(samples.len()) => samples.truncate(limit),
        QueryValue::Matrix(series) if cut(series.len()) => series.truncate(limit),
        _ => return false,
    }
    true
}
