//! What tenants may do, and what they do: pages of one tenant, and of all for operators.

use std::collections::HashMap;
use std::fmt::Write;

use http::{HeaderMap, Response, StatusCode, header};
use model::TenantId;
use wire::json::{put_float, put_string};

use crate::api::object::{Object, put_list};
use crate::peers::Peers;
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
    let mut stats = match &services.peers {
        None => Stats {
            series: services.series.of(tenant),
            active: services.series.active_of(tenant),
            blocks: (services.engine.loaded_blocks(Some(tenant)).into_values()).sum(),
            nodes: 1,
            ..Stats::default()
        },
        Some(peers) => match elsewhere(services, peers, Some(tenant)).await {
            Ok(stats) => Stats {
                nodes: peers.node_count(),
                ..stats.get(tenant).copied().unwrap_or_default()
            },
            Err(error) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, error),
        },
    };
    stats.rate = services.push.rate_of(tenant);
    json(|out| put_stats(out, None, stats))
}

/// What a tenant or all have, where it is on other nodes. Each series is on one of them, so the sums are what there is.
async fn elsewhere(
    services: &Services,
    peers: &Peers,
    tenant: Option<&TenantId>,
) -> Result<HashMap<TenantId, Stats>, String> {
    let stats = services.engine.stats(tenant).await;
    let mut all: HashMap<TenantId, Stats> = HashMap::new();
    for stats in stats.map_err(|error| format!("{error}\n"))? {
        let of = all.entry(stats.tenant).or_default();
        of.series += stats.series;
        of.active += stats.active;
        of.blocks += stats.blocks;
        of.nodes = peers.node_count();
    }
    Ok(all)
}

/// The same of all tenants, those with most series first; JSON for those who ask for it.
pub(crate) async fn all_user_stats(gateway: &Gateway, headers: &HeaderMap) -> Response<Body> {
    let services = match gateway.services() {
        Ok(services) => services,
        Err(reason) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    };
    let (nodes, mut all) = match &services.peers {
        None => (1, here(services)),
        Some(peers) => match elsewhere(services, peers, None).await {
            Ok(all) => (peers.node_count(), all),
            Err(error) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, error),
        },
    };
    for (tenant, rate) in services.push.rates() {
        let of = all.entry(tenant).or_default();
        (of.rate, of.nodes) = (rate, nodes);
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

/// What all tenants have on this node.
fn here(services: &Services) -> HashMap<TenantId, Stats> {
    let mut all: HashMap<TenantId, Stats> = HashMap::new();
    for (tenant, series, active) in services.series.all() {
        let of = all.entry(tenant).or_default();
        (of.series, of.active, of.nodes) = (series, active, 1);
    }
    for (tenant, blocks) in services.engine.loaded_blocks(None) {
        let of = all.entry(tenant).or_default();
        (of.blocks, of.nodes) = (blocks, 1);
    }
    all
}

#[derive(Debug, Clone, Copy, Default)]
struct Stats {
    series: u64,
    /// Those of the last ten minutes.
    active: u64,
    /// On disks of nodes.
    blocks: u64,
    rate: f64,
    /// That were asked.
    nodes: u64,
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
        .number("RuleIngestionRate", 0)
        .number("activeSeries", stats.active)
        .number("loadedBlocks", stats.blocks)
        .number("queriedIngesters", stats.nodes);
    object.close();
}

fn html(all: &[(TenantId, Stats)]) -> Response<Body> {
    let mut page = "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>Tenants</title></head><body>\
                    <h1>Tenants</h1><table border=\"1\"><tr><th>User</th><th>Loaded Blocks</th><th># Series</th><th># Active Series</th>\
                    <th>Total Ingest Rate</th><th>API Ingest Rate</th><th>Rule Ingest Rate</th><th># Queried Ingesters</th></tr>"
        .to_owned();
    for (tenant, stats) in all {
        let rate = stats.rate;
        // A tenant's name has no character that HTML knows.
        let _ = write!(
            page,
            "<tr><td>{tenant}</td><td>{}</td><td>{}</td><td>{}</td><td>{rate:.2}</td><td>{rate:.2}</td><td>0.00</td><td>{}</td></tr>",
            stats.blocks, stats.series, stats.active, stats.nodes
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
