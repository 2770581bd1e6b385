//! Which path is what. One table, matched on the encoded path, so that `%2F` inside a label name is no separator.

use http::Method;

use crate::state::Options;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// Remote write.
    Push,
    /// OTLP metrics.
    Otlp,
    /// The query API.
    Api(Endpoint),
    /// Whether the node takes traffic.
    Ready,
    /// Whether the process runs.
    Healthy,
    /// Prometheus' text format.
    Metrics,
    /// The effective configuration.
    Config,
    /// What the file of overrides came to.
    RuntimeConfig,
    /// The limits of the tenant, all or those that it has for itself.
    UserLimits,
    UserOverrides,
    /// Series and rates of the tenant.
    UserStats,
    /// The same of all tenants.
    AllUserStats,
    /// Who is elected.
    HaTracker,
    /// The parts and their states.
    Services,
    /// Queries in flight, of all tenants.
    AllQueries,
    /// Ends one of them.
    KillAny(u64),
    /// Copies what is in memory into blocks.
    Flush,
    /// Makes a copy of the node's data, of all tenants, from which a node starts.
    Snapshot,
    /// The same, and no more writes.
    Shutdown,
    /// All that the tenant has goes; and whether it has.
    DeleteTenant,
    DeleteTenantStatus,
    /// Whether writes are taken; as JSON.
    Mode {
        json: bool,
    },
    /// Profiles.
    Profile(Profile),
    /// Links.
    Index,
    /// Nothing.
    Unknown,
}

/// What can be profiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Index,
    Heap,
    Cpu,
    CommandLine,
}

/// An endpoint below `/api/v1` of the query API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Query,
    QueryRange,
    QueryExemplars,
    Labels,
    /// The name as it stands in the path.
    LabelValues(String),
    Series,
    Metadata,
    FormatQuery,
    ParseQuery,
    BuildInfo,
    /// What the head holds: the most numerous metrics, labels and pairs.
    StatusTsdb,
    /// Remote read.
    Read,
    /// Rule groups, of which there are none without a ruler.
    Rules,
    /// Firing alerts, likewise.
    Alerts,
    /// What a query would do, and did.
    Explain,
    CardinalityNames,
    CardinalityValues,
    ActiveSeries,
    /// The tenant's queries in flight.
    Queries,
    /// Ends one of them.
    Kill(u64),
    /// Deletes, and lists what was deleted.
    DeleteSeries,
    CancelDelete,
    /// What was deleted leaves the disk now.
    CleanTombstones,
    Unknown,
}

/// A route and the name that metrics know it by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Matched {
    pub(crate) route: Route,
    pub(crate) name: &'static str,
}

/// Finds the route of a path. Several slashes are one, as they are for Prometheus and Cortex, which redirect: a base URL that ends with one
/// is a common mistake, and a redirected `POST` loses its form.
pub(crate) fn route(options: &Options, path: &str) -> Matched {
    let single;
    let path = if path.contains("//") {
        single = with_single_slashes(path);
        single.as_str()
    } else {
        path
    };
    let unknown = Matched {
        route: Route::Unknown,
        name: "other",
    };
    let Some(path) = path.strip_prefix(options.path_prefix.as_str()) else {
        return unknown;
    };
    let fixed = match path {
        "/" | "" => Some((Route::Index, "root")),
        "/ready" | "/-/ready" => Some((Route::Ready, "ready")),
        "/-/healthy" => Some((Route::Healthy, "healthy")),
        "/metrics" => Some((Route::Metrics, "metrics")),
        "/config" => Some((Route::Config, "config")),
        "/runtime_config" => Some((Route::RuntimeConfig, "runtime_config")),
        "/api/v1/user_limits" => Some((Route::UserLimits, "api_v1_user_limits")),
        "/api/v1/user-overrides" => Some((Route::UserOverrides, "api_v1_user_overrides")),
        "/api/v1/user_stats" => Some((Route::UserStats, "api_v1_user_stats")),
        "/distributor/all_user_stats" | "/ingester/all_user_stats" | "/all_user_stats" => {
            Some((Route::AllUserStats, "all_user_stats"))
        }
        "/distributor/ha_tracker" | "/ha_tracker" | "/ha-tracker" => {
            Some((Route::HaTracker, "ha_tracker"))
        }
        "/services" => Some((Route::Services, "services")),
        "/querier/queries" => Some((Route::AllQueries, "querier_queries")),
        "/api/v1/push" => Some((Route::Push, "api_v1_push")),
        "/api/v1/otlp/v1/metrics" => Some((Route::Otlp, "api_v1_otlp_v1_metrics")),
        "/otlp/v1/metrics" => Some((Route::Otlp, "otlp_v1_metrics")),
        "/flush" | "/ingester/flush" => Some((Route::Flush, "ingester_flush")),
        "/purger/delete_tenant" => Some((Route::DeleteTenant, "purger_delete_tenant")),
        "/purger/delete_tenant_status" => {
            Some((Route::DeleteTenantStatus, "purger_delete_tenant_status"))
        }
        "/shutdown" | "/ingester/shutdown" => Some((Route::Shutdown, "ingester_shutdown")),
        "/ingester/mode" => Some((Route::Mode { json: false }, "ingester_mode")),
        "/api/v1/admin/mode" => Some((Route::Mode { json: true }, "api_v1_admin_mode")),
        "/debug/pprof" | "/debug/pprof/" => Some((Route::Profile(Profile::Index), "debug_pprof")),
        "/debug/pprof/heap" | "/debug/pprof/allocs" => {
            Some((Route::Profile(Profile::Heap), "debug_pprof"))
        }
        "/debug/pprof/profile" => Some((Route::Profile(Profile::Cpu), "debug_pprof")),
        "/debug/pprof/cmdline" => Some((Route::Profile(Profile::CommandLine), "debug_pprof")),
        _ => None,
    };
    if let Some((route, name)) = fixed {
        return Matched { route, name };
    }
    let below = |prefix: &str| path.strip_prefix(prefix);
    if let Some(id) = below("/querier/queries/").and_then(query_id) {
        return Matched {
            route: Route::KillAny(id),
            name: "querier_queries_id",
        };
    }
    if let Some(rest) = below(&options.legacy_prefix) {
        if rest == "/push" {
            return Matched {
                route: Route::Push,
                name: "api_prom_push",
            };
        }
        if rest == "/user_stats" {
            return Matched {
                route: Route::UserStats,
                name: "api_prom_user_stats",
            };
        }
        if let Some(rest) = rest.strip_prefix("/api/v1/") {
            return api(rest, true);
        }
    }
    match below(&options.prometheus_prefix).and_then(|rest| rest.strip_prefix("/api/v1/")) {
        Some(rest) => api(rest, false),
        None => unknown,
    }
}

fn with_single_slashes(path: &str) -> String {
    let mut single = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !single.ends_with('/') {
            single.push(c);
        }
    }
    single
}

fn api(path: &str, legacy: bool) -> Matched {
    // Both names in full: a label value is a static text, and the set of them is closed.
    macro_rules! named {
        ($endpoint:expr, $name:literal) => {
            (
                $endpoint,
                [
                    concat!("prometheus_api_v1_", $name),
                    concat!("api_prom_api_v1_", $name),
                ],
            )
        };
    }
    if path == "admin/tsdb/snapshot" {
        let names = [
            "prometheus_api_v1_admin_tsdb_snapshot",
            "api_prom_api_v1_admin_tsdb_snapshot",
        ];
        return Matched {
            route: Route::Snapshot,
            name: names[usize::from(legacy)],
        };
    }
    let (endpoint, names) = match path {
        "query" => named!(Endpoint::Query, "query"),
        "query_range" => named!(Endpoint::QueryRange, "query_range"),
        "labels" => named!(Endpoint::Labels, "labels"),
        "series" => named!(Endpoint::Series, "series"),
        "metadata" => named!(Endpoint::Metadata, "metadata"),
        "format_query" => named!(Endpoint::FormatQuery, "format_query"),
        "status/buildinfo" => named!(Endpoint::BuildInfo, "status_buildinfo"),
        "status/tsdb" => named!(Endpoint::StatusTsdb, "status_tsdb"),
        "query_exemplars" => named!(Endpoint::QueryExemplars, "query_exemplars"),
        "read" => named!(Endpoint::Read, "read"),
        "rules" => named!(Endpoint::Rules, "rules"),
        "alerts" => named!(Endpoint::Alerts, "alerts"),
        "parse_query" => named!(Endpoint::ParseQuery, "parse_query"),
        "explain" => named!(Endpoint::Explain, "explain"),
        "cardinality/label_names" => {
            named!(Endpoint::CardinalityNames, "cardinality_label_names")
        }
        "cardinality/label_values" => {
            named!(Endpoint::CardinalityValues, "cardinality_label_values")
        }
        "cardinality/active_series" => {
            named!(Endpoint::ActiveSeries, "cardinality_active_series")
        }
        "queries" => named!(Endpoint::Queries, "queries"),
        "admin/tsdb/delete_series" => {
            named!(Endpoint::DeleteSeries, "admin_tsdb_delete_series")
        }
        "admin/tsdb/cancel_delete_request" => {
            named!(Endpoint::CancelDelete, "admin_tsdb_cancel_delete_request")
        }
        "admin/tsdb/clean_tombstones" => {
            named!(Endpoint::CleanTombstones, "admin_tsdb_clean_tombstones")
        }
        path => match path
            .strip_prefix("label/")
            .and_then(|rest| rest.strip_suffix("/values"))
        {
            None if path.strip_prefix("queries/").and_then(query_id).is_some() => {
                let id = path.strip_prefix("queries/").and_then(query_id);
                named!(Endpoint::Kill(id.unwrap_or_default()), "queries_id")
            }
            Some(name) if !name.contains('/') => {
                named!(Endpoint::LabelValues(name.to_owned()), "label_name_values")
            }
            _ => named!(Endpoint::Unknown, "other"),
        },
    };
    Matched {
        route: Route::Api(endpoint),
        name: names[usize::from(legacy)],
    }
}

/// `7` or `7/kill`.
fn query_id(rest: &str) -> Option<u64> {
    rest.strip_suffix("/kill").unwrap_or(rest).parse().ok()
}

impl Endpoint {
    /// Whether it may be asked of several tenants.
    pub(crate) fn reads_several(&self) -> bool {
        !matches!(
            self,
            Endpoint::StatusTsdb
                | Endpoint::Rules
                | Endpoint::Alerts
                | Endpoint::CardinalityNames
                | Endpoint::CardinalityValues
                | Endpoint::ActiveSeries
                | Endpoint::Explain
                | Endpoint::DeleteSeries
                | Endpoint::CancelDelete
                | Endpoint::CleanTombstones
        )
    }
}

impl Route {
    /// Whether it is about the data of the tenant that asks; else about the node.
    pub(crate) fn is_of_tenant(&self) -> bool {
        matches!(
            self,
            Route::Push
                | Route::Otlp
                | Route::Api(_)
                | Route::UserLimits
                | Route::UserOverrides
                | Route::UserStats
                | Route::DeleteTenant
                | Route::DeleteTenantStatus
        )
    }

    /// The methods that it takes, for `Allow`.
    pub(crate) fn methods(&self) -> &'static [Method] {
        const GET: &[Method] = &[Method::GET, Method::HEAD];
        const GET_POST: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
        match self {
            Route::DeleteTenant => &[Method::POST],
            Route::Snapshot => &[Method::PUT, Method::POST],
            Route::Api(Endpoint::DeleteSeries) => {
                &[Method::GET, Method::HEAD, Method::PUT, Method::POST]
            }
            Route::Api(Endpoint::CancelDelete | Endpoint::CleanTombstones) => {
                &[Method::PUT, Method::POST]
            }
            Route::Api(Endpoint::Series) => {
                &[Method::GET, Method::HEAD, Method::POST, Method::DELETE]
            }
            Route::Push | Route::Otlp => &[Method::POST],
            Route::Flush | Route::Shutdown | Route::Mode { .. } => &[Method::GET, Method::POST],
            Route::KillAny(_) | Route::Api(Endpoint::Kill(_)) => &[Method::DELETE, Method::POST],
            Route::Api(
                Endpoint::Query
                | Endpoint::QueryRange
                | Endpoint::QueryExemplars
                | Endpoint::Labels
                | Endpoint::FormatQuery
                | Endpoint::ParseQuery
                | Endpoint::Read
                | Endpoint::Explain
                | Endpoint::CardinalityNames
                | Endpoint::CardinalityValues
                | Endpoint::ActiveSeries,
            ) => GET_POST,
            Route::Api(Endpoint::Unknown) | Route::Unknown => &[],
            _ => GET,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests;

    fn options(path_prefix: &str) -> Options {
        Options {
            path_prefix: path_prefix.to_owned(),
            ..tests::options()
        }
    }

    #[test]
    fn both_prefixes_lead_to_the_same_endpoints_under_different_names() {
        for (path, endpoint, name) in [
            (
                "/prometheus/api/v1/query",
                Endpoint::Query,
                "prometheus_api_v1_query",
            ),
            (
                "/api/prom/api/v1/query",
                Endpoint::Query,
                "api_prom_api_v1_query",
            ),
            (
                "/prometheus/api/v1/label/job/values",
                Endpoint::LabelValues("job".into()),
                "prometheus_api_v1_label_name_values",
            ),
            (
                "/prometheus/api/v1/label/a%2Fb%20c/values",
                Endpoint::LabelValues("a%2Fb%20c".into()),
                "prometheus_api_v1_label_name_values",
            ),
            (
                "/prometheus/api/v1/nope",
                Endpoint::Unknown,
                "prometheus_api_v1_other",
            ),
            (
                "/api/prom/api/v1/label/a/b/values",
                Endpoint::Unknown,
                "api_prom_api_v1_other",
            ),
        ] {
            assert_eq!(
                route(&options(""), path),
                Matched {
                    route: Route::Api(endpoint),
                    name
                },
                "{path}"
            );
        }
    }

    #[test]
    fn a_query_is_ended_by_its_number_and_nothing_else() {
        let at = |path| route(&options(""), path).route;
        assert_eq!(at("/querier/queries/7"), Route::KillAny(7));
        assert_eq!(at("/querier/queries/7/kill"), Route::KillAny(7));
        assert_eq!(at("/querier/queries/x"), Route::Unknown);
        for (path, endpoint) in [
            ("/prometheus/api/v1/queries/12", Endpoint::Kill(12)),
            ("/prometheus/api/v1/queries/12/kill", Endpoint::Kill(12)),
            ("/prometheus/api/v1/queries/", Endpoint::Unknown),
            ("/prometheus/api/v1/queries/-1", Endpoint::Unknown),
        ] {
            assert_eq!(at(path), Route::Api(endpoint), "{path}");
        }
    }

    #[test]
    fn what_deletes_is_not_done_by_looking_at_it() {
        let at = |path: &str| route(&options(""), path).route;
        for prefix in ["/prometheus", "/api/prom"] {
            let path = |name: &str| format!("{prefix}/api/v1/admin/tsdb/{name}");
            let series = at(&path("delete_series"));
            assert_eq!(series, Route::Api(Endpoint::DeleteSeries));
            for method in [Method::GET, Method::PUT, Method::POST] {
                assert!(series.methods().contains(&method), "{method}");
            }
            for name in ["cancel_delete_request", "clean_tombstones"] {
                let methods = at(&path(name)).methods();
                assert_eq!(methods, [Method::PUT, Method::POST], "{name}");
            }
        }
        let snapshot = at("/prometheus/api/v1/admin/tsdb/snapshot");
        assert_eq!(snapshot, Route::Snapshot);
        assert_eq!(snapshot.methods(), [Method::PUT, Method::POST]);
        assert!(!snapshot.is_of_tenant());
        assert_eq!(at("/purger/delete_tenant").methods(), [Method::POST]);
        let status = at("/purger/delete_tenant_status");
        assert_eq!(status, Route::DeleteTenantStatus);
        assert!(!status.methods().contains(&Method::POST));
        assert!(!Endpoint::DeleteSeries.reads_several());
    }

    #[test]
    fn a_flush_and_a_shutdown_are_no_matter_of_looking_at_them() {
        for (path, route) in [
            ("/flush", Route::Flush),
            ("/ingester/flush", Route::Flush),
            ("/shutdown", Route::Shutdown),
            ("/ingester/shutdown", Route::Shutdown),
            ("/ingester/mode", Route::Mode { json: false }),
            ("/api/v1/admin/mode", Route::Mode { json: true }),
        ] {
            assert_eq!(super::route(&options(""), path).route, route, "{path}");
            assert_eq!(route.methods(), [Method::GET, Method::POST], "no HEAD");
        }
    }

    #[test]
    fn pushes_have_two_paths_and_everything_can_have_a_prefix() {
        let at = |prefix, path| route(&options(prefix), path).route;
        assert_eq!(at("", "/api/v1/push"), Route::Push);
        assert_eq!(at("", "/api/prom/push"), Route::Push);
        assert_eq!(at("", "/api/v1/otlp/v1/metrics"), Route::Otlp);
        assert_eq!(at("", "/otlp/v1/metrics"), Route::Otlp);
        assert_eq!(at("/m", "/m/api/v1/push"), Route::Push);
        assert_eq!(at("/m", "/api/v1/push"), Route::Unknown);
        assert_eq!(at("", "/"), Route::Index);
        assert_eq!(at("/m", "/m"), Route::Index);
        assert_eq!(at("", "/api/v1/query"), Route::Unknown);
        assert_eq!(at("/m", "/m//api/v1///push"), Route::Push);
        assert_eq!(
            at("", "/prometheus//api/v1/query"),
            Route::Api(Endpoint::Query)
        );
    }
}
