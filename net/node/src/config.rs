//! The effective configuration of a node: what flags, file and defaults came to.
//!
//! Precedence: flags over file over defaults. Raw text is parsed once, by the table in [`keys`], which is the one place that
//! knows a key's YAML name, flag, help and example; this file knows the typed fields and their defaults, [`sources`] reads flags
//! and file, [`reference`] writes `docs/config.md`, the help and the page `/config` from the same table.
//!
//! Two sets of defaults: without tenants nobody is limited by rate or number of series, with `auth_enabled: true` the numbers of
//! Cortex apply. So `auth_enabled` is resolved first, from flags and file, before any other key is looked at.

mod caches;
mod credentials;
mod expand;
mod keys;
mod nearest;
mod overrides;
mod query_rules;
mod reference;
mod setting;
mod sources;

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use gateway::{Roles, SlowerThan};
use model::TenantLimits;

pub(crate) use caches::{BucketCache, ResultsCache};
pub(crate) use credentials::read as read_credentials;
pub(crate) use overrides::{
    Overridden, limit_values, page as overrides_page, read as read_overrides,
};
pub(crate) use reference::{diff, help, modules, yaml};
pub(crate) use setting::{
    Backend, ByteSize, ClientAuthType, Io, LogFormat, LogLevel, Lookup, Rate, Secret, Sse,
};
pub(crate) use sources::{Request, read};

/// Everything an operator can set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// The parts that run, separated by commas.
    pub(crate) target: String,
    /// Whether `X-Scope-OrgID` names the tenant.
    pub(crate) auth_enabled: bool,
    /// Who asks, where the node finds it out itself.
    pub(crate) auth: Auth,
    /// What stands before `/push` and the legacy query API.
    pub(crate) http_prefix: String,
    /// HTTP and gRPC listeners.
    pub(crate) server: Server,
    /// The query API's answers.
    pub(crate) api: Api,
    /// Bounds of the write path.
    pub(crate) distributor: Distributor,
    /// Bounds of the read path.
    pub(crate) querier: Querier,
    /// The nodes that hold series, where this one does not.
    pub(crate) ingester_client: IngesterClient,
    /// Where a querier pulls queries.
    pub(crate) frontend_worker: FrontendWorker,
    /// What requests of the query API go through.
    pub(crate) frontend: Frontend,
    /// Queries over several tenants.
    pub(crate) tenant_federation: TenantFederation,
    /// Where limits of single tenants come from.
    pub(crate) runtime_config: RuntimeConfig,
    /// How range queries are split and kept.
    pub(crate) query_range: QueryRange,
    /// In force for every tenant.
    pub(crate) limits: TenantLimits,
    /// How blocks become fewer and larger.
    pub(crate) compactor: Compactor,
    /// Long-term storage.
    pub(crate) blocks: BlocksStorage,
    /// The node's own metrics.
    pub(crate) self_scrape: SelfScrape,
    /// Where the log lives.
    pub(crate) data_dir: PathBuf,
    /// Where logs of cores are instead; see `keys/directories.rs`.
    pub(crate) core_dirs: Vec<String>,
    pub(crate) core_dirs_leaving: Vec<String>,
    pub(crate) core_dirs_lost: Vec<String>,
    /// Memory that the process may take; 0 is four fifths of what there is.
    pub(crate) memory_limit: ByteSize,
    /// How many pinned cores; 0 takes all CPUs of the affinity mask, capped by the cgroup quota.
    pub(crate) cores: usize,
    /// Which CPUs, as `0-3,8`; empty takes the affinity mask.
    pub(crate) core_set: String,
    /// How a core reaches its files.
    pub(crate) io: Io,
    /// Whether a corrupt segment's rest is dropped at start.
    pub(crate) wal_salvage: bool,
    /// How long a node whose log failed still answers reads.
    pub(crate) poison_linger: Duration,
}

/// See [`Config::server`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Server {
    pub(crate) http_listen_address: String,
    pub(crate) http_listen_port: u16,
    pub(crate) http_listen_conn_limit: usize,
    pub(crate) grpc_listen_address: String,
    pub(crate) grpc_listen_port: u16,
    pub(crate) http_server_read_timeout: Duration,
    pub(crate) http_server_write_timeout: Duration,
    pub(crate) http_server_idle_timeout: Duration,
    pub(crate) graceful_shutdown_timeout: Duration,
    pub(crate) http_path_prefix: String,
    pub(crate) gateway_threads: usize,
    pub(crate) log_level: LogLevel,
    pub(crate) log_format: LogFormat,
    pub(crate) http_tls: TlsConfig,
    pub(crate) grpc_tls: TlsConfig,
    /// What nodes show each other. Empty: nothing.
    pub(crate) grpc_secret_file: String,
    pub(crate) grpc: Grpc,
}

/// Bounds of the gRPC server; zero is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grpc {
    pub(crate) max_recv_msg_size: ByteSize,
    pub(crate) max_send_msg_size: ByteSize,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) max_connection_age: Duration,
}

impl Grpc {
    pub(crate) fn options(&self) -> gateway::GrpcOptions {
        gateway::GrpcOptions {
            recv_bytes_max: self.max_recv_msg_size.0 as usize,
            send_bytes_max: self.max_send_msg_size.0 as usize,
            streams_max: self.max_concurrent_streams,
            keepalive_time: self.keepalive_time,
            keepalive_timeout: self.keepalive_timeout,
            connection_age_max: self.max_connection_age,
        }
    }
}

/// TLS towards other nodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ClientTlsConfig {
    pub(crate) enabled: bool,
    pub(crate) cert_file: String,
    pub(crate) key_file: String,
    pub(crate) ca_file: String,
    /// Empty: the name that is called.
    pub(crate) server_name: String,
    pub(crate) insecure_skip_verify: bool,
}

impl ClientTlsConfig {
    fn validate(&self, section: &str) -> Result<(), String> {
        let (certificate, key) = (!self.cert_file.is_empty(), !self.key_file.is_empty());
        let authorities = !self.ca_file.is_empty();
        let off = ClientTlsConfig {
            enabled: false,
            ..ClientTlsConfig::default()
        };
        match () {
            // A certificate that nobody is shown, and nobody notices.
            () if !self.enabled && *self != off => Err(format!(
                "{section}.tls_enabled: must be true for the other settings of {section}.tls_*"
            )),
            () if certificate != key => Err(format!(
                "{section}.tls_cert_path: goes with {section}.tls_key_path"
            )),
            () if self.enabled && authorities == self.insecure_skip_verify => Err(format!(
                "{section}.tls_ca_path: must name the authorities of servers, or {section}.tls_insecure_skip_verify be true"
            )),
            () => Ok(()),
        }
    }
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TlsConfig {
    /// Empty: no TLS.
    pub(crate) cert_file: String,
    pub(crate) key_file: String,
    pub(crate) client_auth_type: ClientAuthType,
    pub(crate) client_ca_file: String,
}

impl TlsConfig {
    fn validate(&self, section: &str) -> Result<(), String> {
        let asked = self.client_auth_type != ClientAuthType::default();
        let (certificate, key) = (!self.cert_file.is_empty(), !self.key_file.is_empty());
        let authorities = !self.client_ca_file.is_empty();
        match () {
            () if certificate != key => {
                Err(format!("{section}.cert_file: goes with {section}.key_file"))
            }
            () if asked != authorities => Err(format!(
                "{section}.client_auth_type: goes with {section}.client_ca_file"
            )),
            () if asked && !certificate => Err(format!(
                "{section}.client_auth_type: needs {section}.cert_file"
            )),
            () => Ok(()),
        }
    }
}

/// See [`Config::auth`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Auth {
    /// Empty: something in front of the node authenticates.
    pub(crate) credentials_file: String,
    pub(crate) reload_period: Duration,
    pub(crate) open_metrics: bool,
}

/// See [`Config::api`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Api {
    pub(crate) prometheus_http_prefix: String,
    pub(crate) response_compression_enabled: bool,
    /// A regular expression.
    pub(crate) cors_origin: String,
}

/// See [`Config::distributor`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distributor {
    pub(crate) max_recv_msg_size: ByteSize,
    pub(crate) otlp_max_recv_msg_size: ByteSize,
    pub(crate) remote_writev2_enabled: bool,
    pub(crate) otlp: Otlp,
    pub(crate) max_inflight_bytes: ByteSize,
    pub(crate) max_inflight_bytes_per_tenant: ByteSize,
    /// True: nothing else is built.
    pub(crate) shard_by_all_labels: bool,
    pub(crate) ha_tracker: HaTracker,
    pub(crate) max_ingestion_rate: Rate,
    pub(crate) max_inflight_push_requests: u64,
}

/// See [`Distributor::otlp`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Otlp {
    pub(crate) add_metric_suffixes: bool,
    pub(crate) disable_target_info: bool,
    pub(crate) convert_all_attributes: bool,
    pub(crate) allow_delta_temporality: bool,
    pub(crate) promote_scope_metadata: bool,
    pub(crate) convert_histograms_to_nhcb: bool,
}

/// See [`Config::querier`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Querier {
    pub(crate) max_concurrent: usize,
    pub(crate) max_waiting: usize,
    pub(crate) timeout: Duration,
    pub(crate) max_samples: u64,
    pub(crate) default_evaluation_interval: Duration,
    pub(crate) lookback_delta: Duration,
    pub(crate) workers: usize,
    pub(crate) max_memory: ByteSize,
    pub(crate) active_query_tracker_dir: String,
}

/// See [`Config::ingester_client`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IngesterClient {
    pub(crate) addresses: Vec<String>,
    pub(crate) remote_timeout: Duration,
    pub(crate) tls: ClientTlsConfig,
}

/// See [`Config::frontend_worker`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FrontendWorker {
    /// Empty: it pulls none.
    pub(crate) frontend_address: String,
    pub(crate) dns_lookup_duration: Duration,
    pub(crate) parallelism: usize,
    pub(crate) match_max_concurrent: bool,
    pub(crate) id: String,
    pub(crate) tls: ClientTlsConfig,
}

/// See [`Distributor::ha_tracker`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HaTracker {
    pub(crate) enable: bool,
    pub(crate) update_timeout: Duration,
    pub(crate) update_timeout_jitter_max: Duration,
    /// Only `inmemory` is built.
    pub(crate) store: String,
}

/// See [`Config::frontend`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frontend {
    /// Largest form of a query.
    pub(crate) max_body_size: ByteSize,
    pub(crate) log_queries_longer_than: SlowerThan,
    pub(crate) query_stats_enabled: bool,
}

/// See [`Config::tenant_federation`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TenantFederation {
    pub(crate) enabled: bool,
    pub(crate) max_tenant: usize,
}

/// See [`Config::runtime_config`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RuntimeConfig {
    /// Empty: none.
    pub(crate) file: String,
    pub(crate) period: Duration,
}

/// See [`Config::compactor`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Compactor {
    pub(crate) block_ranges: Vec<Duration>,
    pub(crate) compaction_interval: Duration,
}

/// See [`Config::query_range`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueryRange {
    pub(crate) split_queries_by_interval: Duration,
    pub(crate) align_queries_with_step: bool,
    pub(crate) cache_results: bool,
    pub(crate) results_cache_max_size_bytes: ByteSize,
    /// Behind it, for other processes too.
    pub(crate) results_cache: ResultsCache,
    pub(crate) max_retries: u32,
}

/// See [`Config::blocks`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BlocksStorage {
    pub(crate) backend: Backend,
    pub(crate) filesystem_dir: String,
    pub(crate) s3: S3Bucket,
    pub(crate) gcs: GcsBucket,
    /// How long an uploaded block stays on the disk.
    pub(crate) local_retention: Duration,
    pub(crate) ship_interval: Duration,
    pub(crate) ship_unmerged_after: Duration,
    pub(crate) sync_interval: Duration,
    /// Bytes of indexes of blocks on the disk.
    pub(crate) header_bytes: ByteSize,
    pub(crate) index_cache: BucketCache,
    pub(crate) chunks_cache: BucketCache,
    pub(crate) deletion_delay: Duration,
    pub(crate) cleanup_interval: Duration,
    /// Queries of younger data do not look into the bucket.
    pub(crate) query_store_after: Duration,
}

/// See [`BlocksStorage::s3`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct S3Bucket {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) bucket_name: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    pub(crate) insecure: bool,
    pub(crate) bucket_lookup_type: Lookup,
    pub(crate) sse_type: Sse,
    pub(crate) sse_kms_key_id: String,
    pub(crate) sse_kms_encryption_context: String,
    pub(crate) request_timeout: Duration,
    pub(crate) max_retries: u32,
}

/// See [`BlocksStorage::gcs`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GcsBucket {
    pub(crate) bucket_name: String,
    /// JSON, or where it is.
    pub(crate) service_account: Secret,
    pub(crate) endpoint: String,
    pub(crate) request_timeout: Duration,
    pub(crate) max_retries: u32,
}

/// See [`Config::self_scrape`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SelfScrape {
    pub(crate) interval: Duration,
    pub(crate) tenant: String,
}

/// More connections, or queries of them, than one address can have ports for many times over.
const CONNECTIONS_MAX: u64 = 1 << 20;

/// More threads of one kind than any machine has CPUs.
const THREADS_MAX: u64 = 1 << 12;

impl Config {
    /// The defaults, which depend on whether there are tenants.
    pub(crate) fn defaults(auth_enabled: bool) -> Config {
        Config {
            target: "all".to_owned(),
            auth_enabled,
            auth: Auth {
                credentials_file: String::new(),
                reload_period: Duration::from_secs(10),
                open_metrics: false,
            },
            http_prefix: "/api/prom".to_owned(),
            server: Server {
                http_listen_address: "127.0.0.1".to_owned(),
                http_listen_port: 9009,
                http_listen_conn_limit: 8192,
                grpc_listen_address: "127.0.0.1".to_owned(),
                grpc_listen_port: 9095,
                http_server_read_timeout: Duration::from_secs(30),
                http_server_write_timeout: Duration::from_secs(30),
                http_server_idle_timeout: Duration::from_secs(120),
                graceful_shutdown_timeout: Duration::from_secs(5),
                http_path_prefix: String::new(),
                gateway_threads: 0,
                log_level: LogLevel::Info,
                log_format: LogFormat::Logfmt,
                http_tls: TlsConfig::default(),
                grpc_tls: TlsConfig::default(),
                grpc_secret_file: String::new(),
                grpc: Grpc {
                    max_recv_msg_size: ByteSize(100 << 20),
                    max_send_msg_size: ByteSize(100 << 20),
                    max_concurrent_streams: 1000,
                    keepalive_time: Duration::from_secs(10),
                    keepalive_timeout: Duration::from_secs(10),
                    max_connection_age: Duration::ZERO,
                },
            },
            api: Api {
                prometheus_http_prefix: "/prometheus".to_owned(),
                response_compression_enabled: true,
                cors_origin: ".*".to_owned(),
            },
            distributor: Distributor {
                max_recv_msg_size: ByteSize(100 << 20),
                otlp_max_recv_msg_size: ByteSize(100 << 20),
                remote_writev2_enabled: true,
                otlp: Otlp {
                    add_metric_suffixes: true,
                    disable_target_info: false,
                    convert_all_attributes: false,
                    allow_delta_temporality: false,
                    promote_scope_metadata: false,
                    convert_histograms_to_nhcb: false,
                },
                max_inflight_bytes: ByteSize(512 << 20),
                max_inflight_bytes_per_tenant: ByteSize(256 << 20),
                shard_by_all_labels: true,
                ha_tracker: HaTracker {
                    enable: false,
                    update_timeout: Duration::from_secs(15),
                    update_timeout_jitter_max: Duration::from_secs(5),
                    store: "inmemory".to_owned(),
                },
                max_ingestion_rate: Rate(f64::INFINITY),
                max_inflight_push_requests: 0,
            },
            querier: Querier {
                max_concurrent: 20,
                max_waiting: 100,
                timeout: Duration::from_secs(120),
                max_samples: 50_000_000,
                default_evaluation_interval: Duration::from_secs(60),
                lookback_delta: Duration::from_secs(300),
                workers: 0,
                max_memory: ByteSize(0),
                active_query_tracker_dir: String::new(),
            },
            frontend: Frontend {
                max_body_size: ByteSize(10 << 20),
                log_queries_longer_than: SlowerThan::Off,
                query_stats_enabled: false,
            },
            tenant_federation: TenantFederation {
                enabled: false,
                max_tenant: 0,
            },
            runtime_config: RuntimeConfig {
                file: String::new(),
                period: Duration::from_secs(10),
            },
            query_range: QueryRange {
                split_queries_by_interval: Duration::from_secs(86_400),
                align_queries_with_step: false,
                cache_results: true,
                results_cache_max_size_bytes: ByteSize(128 << 20),
                results_cache: ResultsCache::default(),
                max_retries: 5,
            },
            ingester_client: IngesterClient {
                addresses: Vec::new(),
                remote_timeout: Duration::from_secs(30),
                tls: ClientTlsConfig::default(),
            },
            frontend_worker: FrontendWorker {
                frontend_address: String::new(),
                dns_lookup_duration: Duration::from_secs(10),
                parallelism: 10,
                match_max_concurrent: true,
                id: String::new(),
                tls: ClientTlsConfig::default(),
            },
            limits: TenantLimits {
                // All is kept, as with Cortex: what a long-term store throws away it is told.
                retention: Duration::ZERO,
                ..if auth_enabled {
                    TenantLimits::cortex()
                } else {
                    TenantLimits::unlimited()
                }
            },
            compactor: Compactor {
                block_ranges: [2, 12, 24]
                    .map(|hours| Duration::from_secs(hours * 3600))
                    .to_vec(),
                compaction_interval: Duration::from_secs(300),
            },
            blocks: BlocksStorage {
                backend: Backend::None,
                filesystem_dir: String::new(),
                s3: S3Bucket {
                    endpoint: String::new(),
                    region: String::new(),
                    bucket_name: String::new(),
                    access_key_id: String::new(),
                    secret_access_key: Secret(String::new()),
                    insecure: false,
                    bucket_lookup_type: Lookup::Auto,
                    sse_type: Sse::None,
                    sse_kms_key_id: String::new(),
                    sse_kms_encryption_context: String::new(),
                    request_timeout: Duration::from_secs(30),
                    max_retries: 5,
                },
                gcs: GcsBucket {
                    bucket_name: String::new(),
                    service_account: Secret(String::new()),
                    endpoint: String::new(),
                    request_timeout: Duration::from_secs(30),
                    max_retries: 5,
                },
                local_retention: Duration::from_secs(7 * 86_400),
                ship_interval: Duration::from_secs(60),
                ship_unmerged_after: Duration::from_secs(3600),
                sync_interval: Duration::from_secs(900),
                header_bytes: ByteSize(10 << 30),
                index_cache: BucketCache::of(64_000, 256 << 20, Duration::from_secs(7 * 86_400)),
                chunks_cache: BucketCache::of(16_000, 256 << 20, Duration::from_secs(86_400)),
                deletion_delay: Duration::from_secs(12 * 3600),
                cleanup_interval: Duration::from_secs(900),
                query_store_after: Duration::ZERO,
            },
            self_scrape: SelfScrape {
                interval: Duration::from_secs(15),
                tenant: "fake".to_owned(),
            },
            data_dir: PathBuf::from("./data"),
            core_dirs: Vec::new(),
            core_dirs_leaving: Vec::new(),
            core_dirs_lost: Vec::new(),
            memory_limit: ByteSize(0),
            cores: 0,
            core_set: String::new(),
            io: Io::Auto,
            wal_salvage: false,
            poison_linger: Duration::from_secs(60),
        }
    }

    /// Checks what no single key can: relations between them, and names that must be well formed.
    ///
    /// Errors: a sentence that names the key.
    pub(crate) fn validate(&self) -> Result<(), String> {
        self.validate_target()?;
        for (key, prefix) in [
            ("http_prefix", &self.http_prefix),
            (
                "api.prometheus_http_prefix",
                &self.api.prometheus_http_prefix,
            ),
            ("server.http_path_prefix", &self.server.http_path_prefix),
        ] {
            let well_formed =
                prefix.is_empty() || prefix.starts_with('/') && !prefix.ends_with('/');
            if !well_formed {
                return Err(format!(
                    "{key}: {prefix:?} must begin with / and not end with it"
                ));
            }
        }
        if self.http_prefix == self.api.prometheus_http_prefix {
            return Err("http_prefix: must differ from api.prometheus_http_prefix".to_owned());
        }
        if self.distributor.ha_tracker.store != "inmemory" {
            return Err(format!(
                "distributor.ha_tracker.kvstore.store: {:?} is not built yet, only \"inmemory\" is",
                self.distributor.ha_tracker.store
            ));
        }
        self.validate_limits()
            .map_err(|(key, reason)| format!("limits.{key}: {reason}"))?;
        model::TenantId::new(&self.self_scrape.tenant)
            .map_err(|e| format!("self_scrape.tenant: {e}"))?;
        compactor::Options {
            ranges: self.compactor.block_ranges.clone(),
            ..compactor::Options::new(PathBuf::new())
        }
        .validate()
        .map_err(|e| format!("compactor.block_ranges: {e}"))?;
        self.blocks.validate(&self.data_dir)?;
        self.validate_directories()?;
        self.query_range.results_cache.validate()?;
        let caches = [
            ("index_cache", &self.blocks.index_cache),
            ("chunks_cache", &self.blocks.chunks_cache),
        ];
        for (name, cache) in caches {
            cache.validate(&format!("blocks_storage.bucket_store.{name}"))?;
        }
        self.server.http_tls.validate("server.http_tls_config")?;
        self.server.grpc_tls.validate("server.grpc_tls_config")?;
        gateway::CorsOrigin::new(&self.api.cors_origin)
            .map_err(|e| format!("api.cors_origin: {e}"))?;
        let section = "ingester_client.grpc_client_config";
        self.ingester_client.tls.validate(section)?;
        let section = "frontend_worker.grpc_client_config";
        self.frontend_worker.tls.validate(section)?;
        let positive = [
            ("querier.max_concurrent", self.querier.max_concurrent as u64),
            (
                "server.http_listen_conn_limit",
                self.server.http_listen_conn_limit as u64,
            ),
            (
                "server.grpc_server_max_recv_msg_size",
                self.server.grpc.max_recv_msg_size.0,
            ),
            (
                "server.grpc_server_max_send_msg_size",
                self.server.grpc.max_send_msg_size.0,
            ),
            (
                "server.grpc_server_keepalive_timeout",
                self.server.grpc.keepalive_timeout.as_millis() as u64,
            ),
            (
                "distributor.max_recv_msg_size",
                self.distributor.max_recv_msg_size.0,
            ),
            (
                "distributor.otlp_max_recv_msg_size",
                self.distributor.otlp_max_recv_msg_size.0,
            ),
            (
                "distributor.max_inflight_bytes",
                self.distributor.max_inflight_bytes.0,
            ),
            ("querier.max_samples", self.querier.max_samples),
            ("querier.timeout", self.querier.timeout.as_millis() as u64),
            (
                "compactor.compaction_interval",
                self.compactor.compaction_interval.as_millis() as u64,
            ),
            (
                "auth.reload_period",
                self.auth.reload_period.as_millis() as u64,
            ),
            (
                "runtime_config.period",
                self.runtime_config.period.as_millis() as u64,
            ),
            (
                "querier.lookback_delta",
                self.querier.lookback_delta.as_millis() as u64,
            ),
            (
                "querier.default_evaluation_interval",
                self.querier.default_evaluation_interval.as_millis() as u64,
            ),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key}: must be above zero"));
        }
        // Permits and threads are counted in less than 64 bits, and offsets into a body in 32.
        let bounded = [
            (
                "server.http_listen_conn_limit",
                self.server.http_listen_conn_limit as u64,
                CONNECTIONS_MAX,
            ),
            (
                "server.gateway_threads",
                self.server.gateway_threads as u64,
                THREADS_MAX,
            ),
            // The length of a message has 32 bits.
            (
                "server.grpc_server_max_recv_msg_size",
                self.server.grpc.max_recv_msg_size.0,
                u32::MAX.into(),
            ),
            (
                "server.grpc_server_max_send_msg_size",
                self.server.grpc.max_send_msg_size.0,
                u32::MAX.into(),
            ),
            ("querier.workers", self.querier.workers as u64, THREADS_MAX),
            (
                "querier.max_concurrent",
                self.querier.max_concurrent as u64,
                CONNECTIONS_MAX,
            ),
            (
                "distributor.max_recv_msg_size",
                self.distributor.max_recv_msg_size.0,
                u64::from(u32::MAX),
            ),
            (
                "distributor.otlp_max_recv_msg_size",
                self.distributor.otlp_max_recv_msg_size.0,
                u64::from(u32::MAX),
            ),
        ];
        if let Some((key, _, max)) = bounded.iter().find(|(_, value, max)| value > max) {
            return Err(format!("{key}: must not be above {max}"));
        }
        if !self.distributor.shard_by_all_labels {
            return Err(
                "distributor.shard_by_all_labels: must be true, series are always placed by all of their labels"
                    .to_owned(),
            );
        }
        if 2 * self.distributor.max_recv_msg_size.0 > self.distributor.max_inflight_bytes.0 {
            return Err("distributor.max_inflight_bytes: must hold a body of \
                        distributor.max_recv_msg_size twice, packed and unpacked"
                .to_owned());
        }
        let of_tenant = self.distributor.max_inflight_bytes_per_tenant.0;
        if of_tenant != 0 && 2 * self.distributor.max_recv_msg_size.0 > of_tenant {
            return Err(
                "distributor.max_inflight_bytes_per_tenant: must hold a body of \
                        distributor.max_recv_msg_size twice, packed and unpacked"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// The words of `target`, and whether the part is in `all`.
pub(super) const MODULES: [(&str, bool); 5] = [
    ("all", false),
    ("distributor", true),
    ("ingester", true),
    ("querier", true),
    ("query-frontend", false),
];

impl Config {
    /// Which parts of Myelin this node is.
    ///
    /// Errors: a word that is none.
    pub(crate) fn roles(&self) -> Result<Roles, String> {
        let mut roles = Roles {
            distributor: false,
            ingester: false,
            querier: false,
            frontend: false,
        };
        for word in self.target.split(',').map(str::trim) {
            match word {
                "all" => {
                    roles.distributor = true;
                    roles.ingester = true;
                    roles.querier = true;
                }
                "distributor" => roles.distributor = true,
                "ingester" => roles.ingester = true,
                "querier" => roles.querier = true,
                "query-frontend" => roles.frontend = true,
                other => {
                    let known = MODULES.map(|(name, _)| name).join(", ");
                    return Err(format!("{other:?} is none of {known}"));
                }
            }
        }
        Ok(roles)
    }

    fn validate_target(&self) -> Result<(), String> {
        let roles = self.roles().map_err(|e| format!("target: {e}"))?;
        if roles.frontend && roles.querier {
            return Err(
                "target: a query-frontend keeps queries for queriers in other processes; where \
                 queries are evaluated in the same one it has nothing to do"
                    .to_owned(),
            );
        }
        let has_addresses = !self.ingester_client.addresses.is_empty();
        if roles.ingester && has_addresses {
            return Err(
                "ingester_client.addresses: an ingester writes to and reads from its own cores"
                    .to_owned(),
            );
        }
        let asks = roles.distributor || roles.querier;
        if !roles.ingester && asks && !has_addresses {
            return Err(
                "ingester_client.addresses: must name the ingesters (host:port of their gRPC \
                 servers), since this node is none"
                    .to_owned(),
            );
        }
        let addresses = &self.ingester_client.addresses;
        for (at, address) in addresses.iter().enumerate() {
            if addresses[..at].contains(address) {
                let reason = format!("{address:?} stands there twice");
                return Err(format!("ingester_client.addresses: {reason}"));
            }
        }
        let pulls = !self.frontend_worker.frontend_address.is_empty();
        if pulls && !roles.querier {
            return Err(
                "frontend_worker.frontend_address: only a querier pulls queries".to_owned(),
            );
        }
        if self.frontend_worker.dns_lookup_duration.is_zero() {
            return Err("frontend_worker.dns_lookup_duration: must be above zero".to_owned());
        }
        if self.frontend_worker.parallelism == 0 {
            return Err("frontend_worker.parallelism: must be above zero".to_owned());
        }
        if self.ingester_client.remote_timeout.is_zero() {
            return Err("ingester_client.remote_timeout: must be above zero".to_owned());
        }
        Ok(())
    }
}

impl Config {
    /// Directories of cores lie apart from each other, from the data directory and from the bucket's.
    fn validate_directories(&self) -> Result<(), String> {
        let bucket = match self.blocks.backend {
            Backend::Filesystem => Some(&self.blocks.filesystem_dir),
            _ => None,
        };
        let others = bucket.map(|dir| ("blocks_storage.filesystem.dir", dir.clone()));
        let data = ("data.dir", self.data_dir.display().to_string());
        let mut known: Vec<(&str, String)> = others.into_iter().chain([data]).collect();
        let stay = self.core_dirs.iter().map(|dir| ("data.core_dirs", dir));
        let leave = self.core_dirs_leaving.iter();
        let leave = leave.map(|dir| ("data.core_dirs_leaving", dir));
        let lost = self.core_dirs_lost.iter();
        let lost = lost.map(|dir| ("data.core_dirs_lost", dir));
        for (key, dir) in stay.chain(leave).chain(lost) {
            let path = plain(Path::new(dir));
            for (other_key, other) in &known {
                let other_path = plain(Path::new(other));
                if path.starts_with(&other_path) || other_path.starts_with(&path) {
                    return Err(format!(
                        "{key}: {dir} is, or lies within, or contains {other} of {other_key}"
                    ));
                }
            }
            known.push((key, dir.clone()));
        }
        Ok(())
    }
}

impl BlocksStorage {
    fn validate(&self, data_dir: &Path) -> Result<(), String> {
        let s3 = &self.s3;
        match self.backend {
            Backend::None => {}
            Backend::Filesystem if self.filesystem_dir.is_empty() => {
                return Err("blocks_storage.filesystem.dir: must name the directory".to_owned());
            }
            Backend::Filesystem => {
                let (dir, data) = (plain(Path::new(&self.filesystem_dir)), plain(data_dir));
                if dir.starts_with(&data) || data.starts_with(&dir) {
                    return Err(
                        "blocks_storage.filesystem.dir: must not lie within data.dir, nor data.dir within it"
                            .to_owned(),
                    );
                }
            }
            Backend::S3 if s3.bucket_name.is_empty() => {
                return Err("blocks_storage.s3.bucket_name: must name the bucket".to_owned());
            }
            Backend::Gcs if self.gcs.bucket_name.is_empty() => {
                return Err("blocks_storage.gcs.bucket_name: must name the bucket".to_owned());
            }
            Backend::S3 | Backend::Gcs => {}
        }
        let endpoint = &self.gcs.endpoint;
        if !endpoint.is_empty() && !endpoint.contains("://") {
            return Err(format!(
                "blocks_storage.gcs.endpoint: {endpoint:?} is no URL"
            ));
        }
        if s3.access_key_id.is_empty() != s3.secret_access_key.0.is_empty() {
            return Err(
                "blocks_storage.s3.access_key_id: goes with secret_access_key; without both, the usual chain of credentials is asked"
                    .to_owned(),
            );
        }
        let is_kms = s3.sse_type == Sse::Kms;
        for (key, value) in [
            ("kms_key_id", &s3.sse_kms_key_id),
            ("kms_encryption_context", &s3.sse_kms_encryption_context),
        ] {
            if !is_kms && !value.is_empty() {
                return Err(format!(
                    "blocks_storage.s3.sse.{key}: goes with the type SSE-KMS"
                ));
            }
        }
        let context = &s3.sse_kms_encryption_context;
        let texts = serde_json::from_str::<std::collections::BTreeMap<String, String>>;
        if !context.is_empty() && texts(context).is_err() {
            return Err(
                "blocks_storage.s3.sse.kms_encryption_context: must be a JSON object of texts"
                    .to_owned(),
            );
        }
        if !self.local_retention.is_zero() && self.query_store_after > self.local_retention {
            return Err(
                "querier.query_store_after: must not be above blocks_storage.tsdb.retention_period, or queries would miss what has left the disk"
                    .to_owned(),
            );
        }
        let positive = [
            ("blocks_storage.tsdb.ship_interval", self.ship_interval),
            ("blocks_storage.s3.http.request_timeout", s3.request_timeout),
            (
                "blocks_storage.gcs.http.request_timeout",
                self.gcs.request_timeout,
            ),
            ("compactor.cleanup_interval", self.cleanup_interval),
        ];
        match positive.iter().find(|(_, value)| value.is_zero()) {
            Some((key, _)) => Err(format!("{key}: must be above zero")),
            None => Ok(()),
        }
    }
}

/// A path without links, `.` and `..`; what is not there yet is taken by its name.
fn plain(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
        if let Ok(resolved) = plain.canonicalize() {
            plain = resolved;
        }
    }
    plain
}

impl Config {
    /// Checks the limits against the rest, also those of one tenant. Errors: the limit, and what is wrong.
    pub(crate) fn validate_limits(&self) -> Result<(), (&'static str, String)> {
        let tracker = &self.distributor.ha_tracker;
        let limits = &self.limits;
        if limits.accept_ha_samples && !tracker.enable {
            // Cortex takes every replica then, and their samples collide.
            let reason = "needs distributor.ha_tracker.enable_ha_tracker";
            return Err(("accept_ha_samples", reason.to_owned()));
        }
        if limits.accept_ha_samples {
            let (cluster, replica) = (&limits.ha_cluster_label, &limits.ha_replica_label);
            for (key, label) in [("ha_cluster_label", cluster), ("ha_replica_label", replica)] {
                if label.is_empty() {
                    let reason = "must not be empty while accept_ha_samples is on";
                    return Err((key, reason.to_owned()));
                }
                if label == model::METRIC_NAME {
                    // Each metric would be a cluster, or would lose its name.
                    let reason = "must not be __name__, the name of the metric";
                    return Err((key, reason.to_owned()));
                }
            }
            if cluster == replica {
                let reason = format!("must not be the label of the cluster, {cluster}");
                return Err(("ha_replica_label", reason));
            }
        }
        let jitter = tracker.update_timeout_jitter_max;
        let least = tracker.update_timeout + jitter + Duration::from_secs(1);
        let failover = limits.ha_tracker_failover_timeout;
        if tracker.enable && failover < least {
            let reason = format!(
                "must not be less than update timeout, jitter and a second: {}",
                setting::Setting::show(&least)
            );
            return Err(("ha_tracker_failover_timeout", reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
