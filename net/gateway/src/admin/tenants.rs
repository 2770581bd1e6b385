//! What tenants may do, and what they do: pages of one tenant, and of all for operators.

use std::collections::HashMap;
use std::fmt::Write;

use http::{HeaderMap, Response, StatusCode, header};
use model::TenantId;
use wire::json::{put_float, put_string};

use crate::api::object::{Object, put_list};
use crate::reply::{self, Body};
use crate::state::{Gateway, LimitValue, Options, Services};

/// The limits that Cortex' `/api/v1/user-overrides` shows.
const OVERRIDES: [&str; 4] = [
    "max_global_series_per_user",
    "max_global_series_per_metric",
    "ingestion_rate",
    "ingestion_burst_size",
];

/// All limits in force for a tenant, by the names of the configuration.
pub(crate) fn user_limits(
    options: &Options,
    services: &Services,
    tenant: &TenantId,
) -> Response<Body> {
    let limits = services.overrides.limits(tenant);
    json(|out| put_limits(out, (options.limit_values)(&limits)))
}

/// Those of them that Cortex lets tenants see, of a tenant that has its own; 400 of others, as there.
pub(crate) fn user_overrides(
    options: &Options,
    services: &Services,
    tenant: &TenantId,
) -> Response<Body> {
    let Some(limits) = services.overrides.own(tenant) else {
        return reply::text(StatusCode::BAD_REQUEST, "tenant not found\n");
    };
    let mut values = (options.limit_values)(&limits);
    values.retain(|(name, _)| OVERRIDES.contains(name));
    json(|out| put_limits(out, values))
}

fn put_limits(out: &mut Vec<u8>, values: Vec<(&'static str, LimitValue)>) {
    let mut object = Object::open(out);
    for (name, value) in values {
        object.field(name, |out| match value {
            LimitValue::Number(number) => put_float(out, number),
            LimitValue::Flag(flag) => out.extend_from_slice(flag.to_string().as_bytes()),
            LimitValue::Duration(_, text) | LimitValue::Text(text) => put_string(out, &text),
            LimitValue::List(names) => put_list(out, &names, |out, name| put_string(out, name)),
        });
    }
    object.close();
}

/// Series and rates of a tenant. There is no ruler yet, so nothing comes from one.
pub(crate) async fn user_stats(services: &Services, tenant: &TenantId) -> Response<Body> {
    let series = match &services.peers {
        None => services.series.of(tenant),
        Some(_) => match series_elsewhere(services, Some(tenant)).await {
            Ok(series) => series.get(tenant).copied().unwrap_or_default(),
            Err(error) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, error),
        },
    };
    let stats = Stats {
        series,
        rate: services.push.rate_of(tenant),
    };
    json(|out| put_stats(out, None, stats))
}

/// Series of a tenant or of all, where they are on other nodes.
async fn series_elsewhere(
    services: &Services,
    tenant: Option<&TenantId>,
) -> Result<HashMap<TenantId, u64>, String> {
    let stats = services.engine.stats(tenant).await;
    let mut series: HashMap<TenantId, u64> = HashMap::new();
    for stats in stats.map_err(|error| format!("{error}\n"))? {
        *series.entry(stats.tenant).or_default() += stats.series;
    }
    Ok(series)
}

/// The same of all tenants, those with most series first; JSON for those who ask for it.
pub(crate) async fn all_user_stats(gateway: &Gateway, headers: &HeaderMap) -> Response<Body> {
    let services = match gateway.services() {
        Ok(services) => services,
        Err(reason) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    };
    let mut all: HashMap<TenantId, Stats> = HashMap::new();
    let series = match &services.peers {
        None => services.series.all().into_iter().collect(),
        Some(_) => match series_elsewhere(services, None).await {
            Ok(series) => series,
            Err(error) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, error),
        },
    };
    for (tenant, series) in series {
        all.entry(tenant).or_default().series = series;
    }
    for (tenant, rate) in services.push.rates() {
        all.entry(tenant).or_default().rate = rate;
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|(a, of_a), (b, of_b)| of_b.series.cmp(&of_a.series).then(a.cmp(b)));
    match wants_json(headers) {
        true => json(|out| {
            put_list(out, all, |out, (tenant, stats)| {
                put_stats(out, Some(&tenant), stats);
            });
        }),
        false => html(&all),
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Stats {
    series: u64,
    rate: f64,
}

fn put_stats(out: &mut Vec<u8>, tenant: Option<&TenantId>, stats: Stats) {
    let mut object = Object::open(out);
    if let Some(tenant) = tenant {
        object.text("userID", tenant.as_str());
    }
    object
        .field("ingestionRate", |out| put_float(out, stats.rate))
        .number("numSeries", stats.series)
        .field("APIIngestionRate", |out| put_float(out, stats.rate))
        .number("RuleIngestionRate", 0);
    object.close();
}

fn html(all: &[(TenantId, Stats)]) -> Response<Body> {
    let mut page = "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>Tenants</title></head><body>\
                    <h1>Tenants</h1><table border=\"1\"><tr><th>User</th><th># Series</th><th>Ingest Rate</th></tr>"
        .to_owned();
    for (tenant, stats) in all {
        // A tenant's name has no character that HTML knows.
        let _ = write!(
            page,
            "<tr><td>{tenant}</td><td>{}</td><td>{:.2}</td></tr>",
            stats.series, stats.rate
        );
    }
    page.push_str("</table></body></html>\n");
    reply::typed(StatusCode::OK, "text/html; charset=utf-8", page)
}

/// Whether a page for operators is asked for as JSON.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter();
    accept
        .flat_map(|value| value.to_str())
        .any(|value| value.contains("application/json"))
}

fn json(put: impl FnOnce(&mut Vec<u8>)) -> Response<Body> {
    let mut out = Vec::with_capacity(256);
    put(&mut out);
    reply::typed(StatusCode::OK, "application/json", out)
}
