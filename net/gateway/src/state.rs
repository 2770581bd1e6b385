//! What the gateway's threads share, and what each has for itself.
//!
//! The server listens before the log is replayed, so that probes and clients get an answer; the parts that serve come later, once, by
//! [`Gateway::serve`]. The state of the node is a value of [`Phase`] and what the cores publish.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use model::TenantLimits;
use prometheus::Registry;
use query::Engine;
use shard::SeriesCounts;
use tokio::sync::Semaphore;

use crate::also::with_other_names;
use crate::auth::Authenticator;
use crate::dial::{Denied, NodeSecret};
use crate::frontend::SlowerThan;
use crate::frontend::flights::Flights;
use crate::grpc::GrpcOptions;
use crate::handle::CorsOrigin;
use crate::metadata::MetadataStore;
use crate::metrics::Metrics;
use crate::mode::{Mode, Switch};
use crate::overrides::Overrides;
use crate::peers::Peers;
use crate::pull::Frontend;
use crate::push::{Cores, PushService};
use crate::tenant::{Federation, Tenancy};
use crate::tls::Tls;
use crate::told::Told;

/// Options of the HTTP server and its routes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether requests name their tenant.
    pub tenancy: Tenancy,
    /// Who asks, where that is found out here.
    pub auth: Option<Arc<Authenticator>>,
    /// TLS of the HTTP listener.
    pub http_tls: Option<Arc<Tls>>,
    /// Of the gRPC listener.
    pub grpc_tls: Option<Arc<Tls>>,
    /// Bounds of the gRPC server.
    pub grpc: GrpcOptions,
    /// Which pages may read answers of the query API.
    pub cors_origin: CorsOrigin,
    /// What other nodes must show there.
    pub node_secret: Option<Arc<NodeSecret>>,
    /// Whether a query may read the data of several.
    pub federation: Federation,
    /// Before all paths, as `/myelin`, or empty.
    pub path_prefix: String,
    /// Before `/push` and the second copy of the query API, as `/api/prom`.
    pub legacy_prefix: String,
    /// Before the query API, as `/prometheus`.
    pub prometheus_prefix: String,
    /// Whether answers of the query API are compressed for those who accept it.
    pub gzip: bool,
    /// Threads that serve connections.
    pub threads: usize,
    /// Connections at once, over all threads.
    pub connections_max: usize,
    /// Largest posted form.
    pub form_bytes_max: u64,
    /// For the headers of a request, and for its body; zero is unlimited.
    pub read_timeout: Duration,
    /// Without progress of an answer; zero is unlimited.
    pub write_timeout: Duration,
    /// Between two requests; zero is unlimited.
    pub idle_timeout: Duration,
    /// Run first by every thread that serves connections.
    pub thread_begins: fn(),
    /// The wall clock, milliseconds.
    pub now_ms: fn() -> i64,
    /// What the page `/config` shows.
    pub config_pages: ConfigPages,
    /// The limits of a tenant by name, for pages and metrics.
    pub limit_values: LimitValues,
    /// Which requests of the query API are told in the log as slow.
    pub slow_queries: SlowerThan,
    /// Whether what every query costs is told in the log.
    pub query_stats: bool,
    /// A profile of the heap, or why there is none; blocks.
    pub heap_profile: fn() -> Result<Vec<u8>, String>,
    /// Begins a profile of the CPU, or says why there is none; blocks.
    pub cpu_profile: fn() -> Result<CpuProfile, String>,
    /// Of the binary, for `/api/v1/status/buildinfo`.
    pub version: &'static str,
    /// What this node does.
    pub roles: Roles,
}

/// A profile of the CPU that is being taken: ends it and has it, in the format of pprof; blocks. Who drops it ends it.
pub type CpuProfile = Box<dyn FnOnce() -> Result<Vec<u8>, String> + Send>;

/// Which parts of Myelin a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Takes pushes of clients.
    pub distributor: bool,
    /// Holds series.
    pub ingester: bool,
    /// Answers queries.
    pub querier: bool,
    /// Keeps queries for queriers.
    pub frontend: bool,
}

impl Roles {
    /// All in one process; queries are evaluated where they arrive, without a frontend.
    pub const ALL: Roles = Roles {
        distributor: true,
        ingester: true,
        querier: true,
        frontend: false,
    };
}

/// The page `/config`, or `/runtime_config`: YAML.
#[derive(Debug, Clone, Default)]
pub struct ConfigPages {
    /// What is in force.
    pub current: String,
    /// What of it is not the default.
    pub diff: String,
    /// What holds where nothing is configured.
    pub defaults: String,
}

/// Names the limits of a tenant.
pub type LimitValues = fn(&TenantLimits) -> Vec<(&'static str, LimitValue)>;

/// The value of a limit.
#[derive(Debug, Clone, PartialEq)]
pub enum LimitValue {
    /// A number as it is.
    Number(f64),
    /// A switch.
    Flag(bool),
    /// Seconds, and as they are written.
    Duration(f64, String),
    /// Names.
    List(Vec<String>),
    /// Anything else.
    Text(String),
}

/// Where the node is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The log is being replayed; so many percent of it are done.
    Replaying(u8),
    /// Everything serves.
    Serving,
    /// On its way out.
    Stopping,
}

/// What serves once the log is replayed.
pub struct Services {
    /// The read path.
    pub engine: Arc<Engine>,
    /// The write path; each thread makes itself a sibling of it.
    pub push: Arc<PushService>,
    /// Limits per tenant.
    pub overrides: Arc<Overrides>,
    /// What senders say about their metrics.
    pub metadata: Arc<MetadataStore>,
    /// What was being queried when the node last ended without a stop: lines of the journal.
    pub at_last_crash: Vec<String>,
    /// How many series tenants have in memory.
    pub series: SeriesCounts,
    /// Has blocks compacted now instead of at the next interval.
    pub compact: Box<dyn Fn() + Send + Sync>,
    /// Why the cores cannot take traffic now, if so.
    pub health: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What this node holds, for others who ask; `None` where the series are elsewhere.
    pub held: Option<Held>,
    /// Who holds the series where this node does not.
    pub peers: Option<Peers>,
    /// Where queries wait for queriers, if they are not evaluated here.
    pub frontend: Option<Arc<Frontend>>,
}

/// The cores of this node.
pub struct Held {
    /// Where to write.
    pub cores: Arc<dyn Cores>,
}

/// Shared by all threads of the gateway.
pub struct Gateway {
    pub(crate) options: Options,
    pub(crate) metrics: Metrics,
    pub(crate) flights: Flights,
    services: OnceLock<Services>,
    /// 0 to 100: replaying; 101: serving; 102: stopping.
    phase: AtomicU8,
    /// Whether writes are taken.
    pub(crate) mode: Switch,
    pub(crate) told: Told,
    /// Of CPU profiles there is one at a time.
    pub(crate) profiles: Arc<Semaphore>,
    pub(crate) denied: Denied,
    registries: Mutex<Vec<Registry>>,
    /// The page `/runtime_config`; `None` without a file.
    runtime_pages: Mutex<Option<ConfigPages>>,
}

const SERVING: u8 = 101;
const STOPPING: u8 = 102;

impl Gateway {
    /// `registry` takes the gateway's own metrics, and is shown by `/metrics`.
    pub fn new(options: Options, registry: &Registry) -> Gateway {
        Gateway {
            metrics: Metrics::new(registry),
            flights: Flights::new(registry),
            options,
            services: OnceLock::new(),
            phase: AtomicU8::new(0),
            mode: Switch::default(),
            told: Told::new(registry),
            profiles: Arc::new(Semaphore::new(1)),
            denied: Denied::register(registry),
            registries: Mutex::new(vec![registry.clone()]),
            runtime_pages: Mutex::default(),
        }
    }

    /// From now on this is what `/runtime_config` shows.
    pub fn show_runtime_config(&self, pages: ConfigPages) {
        let shown = self.runtime_pages.lock();
        *shown.unwrap_or_else(PoisonError::into_inner) = Some(pages);
    }

    /// What `/runtime_config` shows.
    pub(crate) fn runtime_config(&self) -> Option<ConfigPages> {
        let shown = self.runtime_pages.lock();
        shown.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows another registry under `/metrics`.
    pub fn show(&self, registry: Registry) {
        self.registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(registry);
    }

    /// Everything that `/metrics` shows.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        let registries = self
            .registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        with_other_names(registries.iter().flat_map(Registry::gather).collect())
    }

    /// From now on requests are served. Panics when called twice.
    pub fn serve(&self, services: Services) {
        let first = self.services.set(services).is_ok();
        assert!(first, "the parts of a node are made once");
        self.set_phase(Phase::Serving);
    }

    /// Tells where the node is. Nothing leads back from [`Phase::Stopping`].
    pub fn set_phase(&self, phase: Phase) {
        let number = match phase {
            Phase::Replaying(percent) => percent.min(100),
            Phase::Serving => SERVING,
            Phase::Stopping => STOPPING,
        };
        self.phase.fetch_max(number, Ordering::Relaxed);
    }

    /// Where the node is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            STOPPING.. => Phase::Stopping,
            SERVING => Phase::Serving,
            percent => Phase::Replaying(percent),
        }
    }

    /// Whether an operator lets the node take writes.
    pub fn takes_writes(&self) -> bool {
        self.mode.now() == Mode::Active
    }

    /// Drops metadata that nobody repeats.
    pub fn purge_metadata(&self, now_ms: i64) {
        if let Some(services) = self.services.get() {
            services.metadata.purge(now_ms);
        }
    }

    /// What serves, or why nothing does yet.
    pub(crate) fn services(&self) -> Result<&Services, String> {
        self.services.get().ok_or_else(|| match self.phase() {
            Phase::Replaying(percent) => format!("replaying the write-ahead log: {percent} %"),
            _ => "shutting down".to_owned(),
        })
    }
}

/// One thread of the gateway: the shared part, and a write path of its own.
pub(crate) struct Thread {
    pub(crate) gateway: Arc<Gateway>,
    push: OnceCell<Rc<PushService>>,
}

impl Thread {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Thread {
        Thread {
            gateway,
            push: OnceCell::new(),
        }
    }

    /// The write path of this thread, made when it is first needed.
    pub(crate) fn push(&self, services: &Services) -> Rc<PushService> {
        self.push
            .get_or_init(|| Rc::new(services.push.sibling()))
            .clone()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Options of a small server with short patience.
    pub(crate) fn options() -> Options {
        Options {
            tenancy: Tenancy::Header,
            auth: None,
            http_tls: None,
            grpc_tls: None,
            grpc: GrpcOptions::default(),
            cors_origin: CorsOrigin::new(".*").unwrap(),
            node_secret: None,
            federation: Federation::default(),
            path_prefix: String::new(),
            legacy_prefix: "/api/prom".to_owned(),
            prometheus_prefix: "/prometheus".to_owned(),
            gzip: true,
            threads: 2,
            connections_max: 100,
            form_bytes_max: 1000,
            read_timeout: Duration::from_millis(300),
            write_timeout: Duration::from_millis(300),
            idle_timeout: Duration::from_secs(60),
            thread_begins: || (),
            now_ms: || 0,
            config_pages: ConfigPages {
                current: "target: all\n".to_owned(),
                ..ConfigPages::default()
            },
            limit_values: |limits| {
                let value = limits.max_series_per_user as f64;
                vec![("max_series_per_user", LimitValue::Number(value))]
            },
            slow_queries: SlowerThan::Off,
            query_stats: false,
            heap_profile: || Err("none here".to_owned()),
            cpu_profile: || Err("none here".to_owned()),
            version: "0",
            roles: Roles::ALL,
        }
    }

    #[test]
    fn a_phase_never_goes_back() {
        let gateway = Gateway::new(options(), &Registry::new());
        for (set, seen) in [
            (Phase::Replaying(30), Phase::Replaying(30)),
            (Phase::Replaying(20), Phase::Replaying(30)),
            (Phase::Serving, Phase::Serving),
            (Phase::Replaying(50), Phase::Serving),
            (Phase::Stopping, Phase::Stopping),
            (Phase::Serving, Phase::Stopping),
        ] {
            gateway.set_phase(set);
            assert_eq!(gateway.phase(), seen);
        }
    }
}
