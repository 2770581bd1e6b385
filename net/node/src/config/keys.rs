//! The table of keys: for each its name in the file, its flag, a value other than the default (for the tests and the reference), and
//! its help. Everything else that knows keys is made from it: flags, file, `-help`, `/config`, `docs/config.md` and the tests that
//! every key can be set by flag and by file and changes nothing but its own field. Keys of OTLP are in [`otlp`], of credentials
//! and TLS in [`security`], of the gRPC server in [`grpc`], of caches in [`caches`], of tenants in [`limits`] and [`query_limits`]; what is known and not there in [`not_built`].

use std::sync::OnceLock;

use super::Config;
use super::setting::Setting;

pub(super) use not_built::NOT_BUILT;

/// Another name of a key, as Cortex has it.
pub(super) struct Alias {
    /// Path in the file.
    pub(super) yaml: &'static str,
    /// The flag without dashes; empty where it is the key's own.
    pub(super) flag: &'static str,
    /// The key's path.
    pub(super) key: &'static str,
}

/// Other names of keys. Of those below `limits` the ones of limits are taken from a tenant's entry too.
pub(super) const ALIASES: &[Alias] = &[
    Alias {
        yaml: "limits.compactor_blocks_retention_period",
        flag: "compactor.blocks-retention-period",
        key: "ingester.retention",
    },
    Alias {
        yaml: "distributor.ha_tracker.ha_tracker_failover_timeout",
        flag: "",
        key: "limits.ha_tracker_failover_timeout",
    },
    Alias {
        yaml: "distributor.remote_timeout",
        flag: "distributor.remote-timeout",
        key: "ingester_client.remote_timeout",
    },
    Alias {
        yaml: "querier.lookback_delta",
        flag: "promql.lookback-delta",
        key: "querier.lookback_delta",
    },
    Alias {
        yaml: "frontend.compress_responses",
        flag: "querier.compress-http-responses",
        key: "api.response_compression_enabled",
    },
    Alias {
        yaml: "frontend.max_outstanding_per_tenant",
        flag: "frontend.max-outstanding-requests-per-tenant",
        key: "limits.max_outstanding_requests_per_tenant",
    },
    Alias {
        yaml: "limits.name_validation_scheme",
        flag: "validation.name-validation-scheme",
        key: "name_validation_scheme",
    },
    Alias {
        yaml: "limits.per_tenant_override_config",
        flag: "limits.per-user-override-config",
        key: "runtime_config.file",
    },
    Alias {
        yaml: "limits.per_tenant_override_period",
        flag: "limits.per-user-override-period",
        key: "runtime_config.period",
    },
];

/// The key that a flag sets, by the key's own name or another.
pub(super) fn of_flag(name: &str) -> Option<(usize, &'static Key)> {
    let mut aliases = ALIASES.iter().filter(|alias| !alias.flag.is_empty());
    let alias = aliases.find(|alias| alias.flag == name);
    let mut all = keys().iter().enumerate();
    match alias {
        Some(alias) => all.find(|(_, key)| key.yaml == alias.key),
        None => all.find(|(_, key)| key.flag == name),
    }
}

/// One key.
pub(super) struct Key {
    /// Path in the file, sections joined by dots.
    pub(super) yaml: &'static str,
    /// The flag without dashes.
    pub(super) flag: &'static str,
    /// The word for its type.
    pub(super) kind: &'static str,
    /// A value that is not the default.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests set every key to it"))]
    pub(super) example: &'static str,
    /// One or two sentences.
    pub(super) help: &'static str,
    /// Reads the value into its field.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// Shows the value of its field.
    pub(super) get: fn(&Config) -> String,
}

impl Key {
    /// Whether the flag may stand without a value, meaning true.
    pub(super) fn is_switch(&self) -> bool {
        self.kind == bool::KIND
    }

    /// Whether its value in a file is more than a word or a list of words.
    pub(super) fn is_structured(&self) -> bool {
        [
            Vec::<model::RelabelConfig>::KIND,
            Vec::<model::QueryAttribute>::KIND,
            Vec::<model::Priority>::KIND,
        ]
        .contains(&self.kind)
    }

    /// Whether repeating the flag adds to a list.
    pub(super) fn is_list(&self) -> bool {
        self.kind == Vec::<String>::KIND
    }
}

/// The word of a field's type.
fn kind_of<T: Setting>(_: fn(&Config) -> &T) -> &'static str {
    T::KIND
}

macro_rules! key {
    ($yaml:literal, $flag:literal, $($field:ident).+, $example:literal, $help:literal) => {
        Key {
            yaml: $yaml,
            flag: $flag,
            kind: kind_of(|c: &Config| &c.$($field).+),
            example: $example,
            help: $help,
            set: |c, text| {
                c.$($field).+ = Setting::parse(text)?;
                Ok(())
            },
            get: |c| Setting::show(&c.$($field).+),
        }
    };
}

mod caches;
mod directories;
mod gcs;
mod grpc;
mod limits;
mod not_built;
mod otlp;
mod query_limits;
mod security;

/// All keys, in the order of the reference page.
pub(super) fn keys() -> &'static [Key] {
    static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
    KEYS.get_or_init(|| {
        [
            process(),
            directories::keys(),
            server(),
            grpc::keys(),
            security::keys(),
            otlp::keys(),
            paths(),
            caches::results(),
            blocks_storage(),
            gcs::keys(),
            caches::bucket(),
            limits::keys(),
            query_limits::keys(),
        ]
        .into_iter()
        .flatten()
        .collect()
    })
}

fn process() -> Vec<Key> {
    vec![
        key!(
            "target",
            "target",
            target,
            "ingester",
            "Which parts run, separated by commas. `all` is a whole node: `distributor,ingester,querier` in one process. `ingester` holds series and is \
             written to and read from by gRPC; `distributor` takes pushes; `querier` answers queries; `query-frontend` keeps queries until a querier pulls them."
        ),
        key!(
            "ingester_client.addresses",
            "ingester.client.addresses",
            ingester_client.addresses,
            "ingester-1:9095",
            "The gRPC servers of the ingesters, `host:port`, for distributors and queriers that are none: all the same list in the same order. Where a \
             series lies follows from it, so it cannot be changed without losing sight of what was written before."
        ),
        key!(
            "ingester_client.remote_timeout",
            "ingester.client.remote-timeout",
            ingester_client.remote_timeout,
            "5s",
            "How long a distributor waits for an ingester to store its part of a push; then the sender is told to repeat it."
        ),
        key!(
            "frontend_worker.frontend_address",
            "querier.frontend-address",
            frontend_worker.frontend_address,
            "frontend.service.local",
            "Where a querier pulls queries: `host:port` of the gRPC server of a query-frontend (all addresses of that host), or a name whose SRV records tell \
             them. Empty: it only answers requests of its own."
        ),
        key!(
            "frontend_worker.dns_lookup_duration",
            "querier.dns-lookup-period",
            frontend_worker.dns_lookup_duration,
            "1s",
            "How often that name is looked up."
        ),
        key!(
            "frontend_worker.match_max_concurrent",
            "querier.worker-match-max-concurrent",
            frontend_worker.match_max_concurrent,
            "false",
            "Whether a querier pulls as many queries at once, over all frontends, as it evaluates (`querier.max_concurrent`), at least one from each."
        ),
        key!(
            "frontend_worker.parallelism",
            "querier.worker-parallelism",
            frontend_worker.parallelism,
            "4",
            "How many queries a querier pulls at once from each frontend, where `match_max_concurrent` is off."
        ),
        key!(
            "frontend_worker.id",
            "querier.id",
            frontend_worker.id,
            "querier-1",
            "Names the querier to frontends. Empty: its address."
        ),
        key!(
            "auth_enabled",
            "auth.enabled",
            auth_enabled,
            "true",
            "Whether the header `X-Scope-OrgID` names the tenant and must be there. Off: everything belongs to the tenant `fake`, \
             and rates and numbers of series are not limited unless `limits` says so."
        ),
        key!(
            "name_validation_scheme",
            "name-validation-scheme",
            limits.name_scheme,
            "legacy",
            "Which names metrics and labels may have: `utf8`, any text; `legacy`, letters, digits and `_` (metrics also `:`), not a digit first. Others are refused. \
             Of a tenant's own it is `limits.name_validation_scheme`, as in Mimir (`-validation.name-validation-scheme`)."
        ),
        key!(
            "tenant_federation.enabled",
            "tenant-federation.enabled",
            tenant_federation.enabled,
            "true",
            "Whether a query may read the data of several tenants, `X-Scope-OrgID: a|b`: series get the label `__tenant_id__`, matchers on it choose tenants."
        ),
        key!(
            "tenant_federation.max_tenant",
            "tenant-federation.max-tenant",
            tenant_federation.max_tenant,
            "5",
            "Tenants that one query may read. 0: unlimited."
        ),
        key!(
            "runtime_config.file",
            "runtime-config.file",
            runtime_config.file,
            "/etc/myelin/runtime.yaml",
            "File of limits of single tenants, `overrides: {tenant: {limit: value}}`, read again while the node runs. Limits that it does not \
             say are those of `limits`. A file that is wrong keeps a node from starting; later it changes nothing, and is told in the log and by \
             `cortex_runtime_config_last_reload_successful`. Replace it by a rename: half of a file may be a right one. Empty: none."
        ),
        key!(
            "runtime_config.period",
            "runtime-config.reload-period",
            runtime_config.period,
            "30s",
            "How often that file is looked at."
        ),
        key!(
            "http_prefix",
            "http.prefix",
            http_prefix,
            "/cortex",
            "What stands before `/push` and before a second copy of the query API."
        ),
        key!(
            "api.prometheus_http_prefix",
            "http.prometheus-http-prefix",
            api.prometheus_http_prefix,
            "/prom",
            "What stands before the query API, `/api/v1/query` and so on."
        ),
        key!(
            "api.response_compression_enabled",
            "api.response-compression-enabled",
            api.response_compression_enabled,
            "false",
            "Whether answers of the query API are compressed for clients that accept gzip."
        ),
        key!(
            "data.dir",
            "data.dir",
            data_dir,
            "/var/lib/myelin",
            "Directory of the write-ahead log, chunk files and blocks. Locked against a second process."
        ),
        key!(
            "memory.limit",
            "memory.limit",
            memory_limit,
            "2GiB",
            "Resident memory that the process may take. Above 90 % of it new series are refused (503 with `Retry-After`; known series go on), exemplars dropped, and queries over more \
             than 10,000 series. 0: 80 % of the cgroup's limit or of the machine's memory, whichever is less."
        ),
        key!(
            "cores",
            "cores",
            cores,
            "2",
            "Number of pinned cores. 0: one for each CPU of the inherited affinity mask, capped by the cgroup quota."
        ),
        key!(
            "core_set",
            "core-set",
            core_set,
            "0-1,3",
            "The CPUs to pin to, as `0-3,8`; must lie inside the inherited affinity mask. Empty: the mask."
        ),
        key!(
            "io",
            "io",
            io,
            "threads",
            "How cores reach their files: `uring`, `threads` (where a seccomp profile blocks io_uring) or `auto`, which tries."
        ),
        key!(
            "wal.salvage",
            "wal.salvage",
            wal_salvage,
            "true",
            "Start in spite of a corrupt segment: the rest of that segment is dropped, told and counted. An old copy of a directory of cores is taken as it is. Without it the node refuses to start, \
             naming file and offset."
        ),
        key!(
            "poison.linger",
            "poison.linger",
            poison_linger,
            "5s",
            "After a failed write or sync of the log: how long the node still answers reads of durable data before it exits with an error."
        ),
        key!(
            "self_scrape.interval",
            "self-scrape.interval",
            self_scrape.interval,
            "1m",
            "How often the node writes its own metrics (`job=\"myelin\"`) to itself. 0: never."
        ),
        key!(
            "self_scrape.tenant",
            "self-scrape.tenant",
            self_scrape.tenant,
            "ops",
            "The tenant that the node's own metrics belong to."
        ),
    ]
}

fn server() -> Vec<Key> {
    vec![
        key!(
            "server.http_listen_address",
            "server.http-listen-address",
            server.http_listen_address,
            "0.0.0.0",
            "Address of the HTTP server. Nothing authenticates: open it only behind something that does."
        ),
        key!(
            "server.http_listen_port",
            "server.http-listen-port",
            server.http_listen_port,
            "8080",
            "Port of the HTTP server. 0: a free one, told at start."
        ),
        key!(
            "server.http_listen_conn_limit",
            "server.http-conn-limit",
            server.http_listen_conn_limit,
            "100",
            "HTTP connections at once; above it new ones wait in the listen queue."
        ),
        key!(
            "server.grpc_listen_address",
            "server.grpc-listen-address",
            server.grpc_listen_address,
            "0.0.0.0",
            "Address of the gRPC server."
        ),
        key!(
            "server.grpc_listen_port",
            "server.grpc-listen-port",
            server.grpc_listen_port,
            "9999",
            "Port of the gRPC server, which serves the standard health service. 0: a free one, told at start."
        ),
        key!(
            "server.http_server_read_timeout",
            "server.http-read-timeout",
            server.http_server_read_timeout,
            "10s",
            "Within this time a client must have sent its headers, and then its body. 0: no limit."
        ),
        key!(
            "server.http_server_write_timeout",
            "server.http-write-timeout",
            server.http_server_write_timeout,
            "10s",
            "A client that takes nothing of its answer for this long is hung up on. 0: no limit."
        ),
        key!(
            "server.http_server_idle_timeout",
            "server.http-idle-timeout",
            server.http_server_idle_timeout,
            "1m",
            "How long a connection may rest between requests. 0: no limit."
        ),
        key!(
            "server.graceful_shutdown_timeout",
            "server.graceful-shutdown-timeout",
            server.graceful_shutdown_timeout,
            "2s",
            "How long a stop waits for requests in flight. A second signal ends the process at once."
        ),
        key!(
            "server.http_path_prefix",
            "server.path-prefix",
            server.http_path_prefix,
            "/myelin",
            "What stands before all paths."
        ),
        key!(
            "server.gateway_threads",
            "server.gateway-threads",
            server.gateway_threads,
            "3",
            "Threads that decode, validate and answer requests. 0: one for each CPU that has a core."
        ),
        key!(
            "server.log_level",
            "log.level",
            server.log_level,
            "debug",
            "What is logged to standard error: debug, info, warn or error."
        ),
        key!(
            "server.log_format",
            "log.format",
            server.log_format,
            "json",
            "How a line of the log is written: `logfmt`, pairs of `key=value`, or `json`, an object."
        ),
    ]
}

fn paths() -> Vec<Key> {
    vec![
        key!(
            "distributor.max_recv_msg_size",
            "distributor.max-recv-msg-size",
            distributor.max_recv_msg_size,
            "10MiB",
            "Largest push body, compressed and decompressed alike. Larger ones are answered 400."
        ),
        key!(
            "distributor.max_inflight_bytes",
            "distributor.max-inflight-bytes",
            distributor.max_inflight_bytes,
            "1GiB",
            "Bytes of push bodies in work at once, packed or unpacked, whichever is more. Above it pushes are answered 503 with Retry-After."
        ),
        key!(
            "distributor.max_inflight_bytes_per_tenant",
            "distributor.max-inflight-bytes-per-tenant",
            distributor.max_inflight_bytes_per_tenant,
            "384MiB",
            "The same for one tenant, who in any case may have only twice what is still free: one that floods leaves room for the others. 0: only that."
        ),
        key!(
            "distributor.shard_by_all_labels",
            "distributor.shard-by-all-labels",
            distributor.shard_by_all_labels,
            "false",
            "For files of Cortex, where it is to be true: series are always placed by all of their labels."
        ),
        key!(
            "distributor.ha_tracker.enable_ha_tracker",
            "distributor.ha-tracker.enable",
            distributor.ha_tracker.enable,
            "true",
            "Tells replicas of HA pairs apart: of several Prometheus of one cluster that write the same series only the elected one's samples are taken. \
             Holds for tenants with `accept_ha_samples`."
        ),
        key!(
            "distributor.ha_tracker.ha_tracker_update_timeout",
            "distributor.ha-tracker.update-timeout",
            distributor.ha_tracker.update_timeout,
            "10s",
            "Age from which on it is written down again that the elected replica was heard of."
        ),
        key!(
            "distributor.ha_tracker.ha_tracker_update_timeout_jitter_max",
            "distributor.ha-tracker.update-timeout-jitter-max",
            distributor.ha_tracker.update_timeout_jitter_max,
            "3s",
            "By up to so much, chosen once by chance, this process lengthens or shortens that age."
        ),
        key!(
            "distributor.ha_tracker.kvstore.store",
            "distributor.ha-tracker.store",
            distributor.ha_tracker.store,
            "etcd",
            "Where elections are kept. Only `inmemory`, for a node by itself, is built; after a restart the first replica that comes is elected."
        ),
        key!(
            "distributor.instance_limits.max_ingestion_rate",
            "distributor.instance-limits.max-ingestion-rate",
            distributor.max_ingestion_rate,
            "1000000",
            "Samples a second that this node takes of all tenants, smoothed; above it pushes are answered 503 with Retry-After. 0: unlimited."
        ),
        key!(
            "distributor.instance_limits.max_inflight_push_requests",
            "distributor.instance-limits.max-inflight-push-requests",
            distributor.max_inflight_push_requests,
            "250",
            "Pushes at work at once on this node; further ones are answered 503 with Retry-After. 0: unlimited."
        ),
        key!(
            "querier.max_concurrent",
            "querier.max-concurrent",
            querier.max_concurrent,
            "4",
            "Queries evaluated at once."
        ),
        key!(
            "querier.max_waiting",
            "querier.max-waiting",
            querier.max_waiting,
            "7",
            "Queries that may wait for their turn; further ones are answered 503 with Retry-After."
        ),
        key!(
            "querier.timeout",
            "querier.timeout",
            querier.timeout,
            "30s",
            "Longest time a query may take; the parameter `timeout` can only shorten it."
        ),
        key!(
            "querier.max_samples",
            "querier.max-samples",
            querier.max_samples,
            "1000000",
            "Samples one query may hold in memory."
        ),
        key!(
            "querier.default_evaluation_interval",
            "querier.default-evaluation-interval",
            querier.default_evaluation_interval,
            "15s",
            "Step of a subquery that names none."
        ),
        key!(
            "querier.lookback_delta",
            "querier.lookback-delta",
            querier.lookback_delta,
            "1m",
            "How long a sample counts as current without a newer one."
        ),
        key!(
            "querier.workers",
            "querier.workers",
            querier.workers,
            "3",
            "Threads of low priority that evaluate queries. 0: as many as CPUs."
        ),
        key!(
            "querier.max_memory",
            "querier.max-memory",
            querier.max_memory,
            "2GiB",
            "Bytes that all queries together may hold, from the first chunk read to the last byte of an answer sent; a query beyond it is \
             answered 503. 0: a quarter of the memory of the machine or the cgroup."
        ),
        key!(
            "querier.active_query_tracker_dir",
            "querier.active-query-tracker-dir",
            querier.active_query_tracker_dir,
            "/var/lib/myelin/queries",
            "Directory of the file `queries.active`, which names the queries at work: after a crash the next start tells them. Empty: `data.dir`."
        ),
        key!(
            "frontend.max_body_size",
            "frontend.max-body-size",
            frontend.max_body_size,
            "1MiB",
            "Largest form of a query. Larger ones are answered 413."
        ),
        key!(
            "frontend.log_queries_longer_than",
            "frontend.log-queries-longer-than",
            frontend.log_queries_longer_than,
            "10s",
            "Requests of the query API that take longer are told in the log, with their parameters. 0: none; negative: all."
        ),
        key!(
            "frontend.query_stats_enabled",
            "frontend.query-stats-enabled",
            frontend.query_stats_enabled,
            "true",
            "Whether what every query costs is told in the log: times, series, chunks, bytes, samples."
        ),
        key!(
            "query_range.split_queries_by_interval",
            "querier.split-queries-by-interval",
            query_range.split_queries_by_interval,
            "12h",
            "Range queries are evaluated in pieces that end before multiples of it, or of a multiple that holds 256 steps, so that they hold less at a time. 0: in one piece."
        ),
        key!(
            "query_range.align_queries_with_step",
            "querier.align-querier-with-step",
            query_range.align_queries_with_step,
            "true",
            "Whether start and end of range queries are moved down to multiples of their step."
        ),
        key!(
            "query_range.cache_results",
            "querier.cache-results",
            query_range.cache_results,
            "false",
            "Whether results of range queries are kept in memory, so that the same query evaluates only what is new. Samples that come late make \
             void what they touch. A request with `Cache-Control: no-store` or `stats` goes past it."
        ),
        key!(
            "query_range.max_retries",
            "querier.max-retries-per-request",
            query_range.max_retries,
            "2",
            "How often a query-frontend gives a query to another querier when one went away with it."
        ),
        key!(
            "ingester.retention",
            "ingester.retention",
            limits.retention,
            "6h",
            "How much sample time of each tenant is kept, in memory and in blocks, counted back from its newest sample; also of tenants that a start finds on disk and that push no more. 0: all; without a bucket the disk must have room for that. Cortex' name is taken too, and is that of a tenant's own: `limits.compactor_blocks_retention_period`."
        ),
        key!(
            "compactor.block_ranges",
            "compactor.block-ranges",
            compactor.block_ranges,
            "2h,1d",
            "Windows of time whose blocks become one, ascending, each a multiple of the one before."
        ),
        key!(
            "compactor.compaction_interval",
            "compactor.compaction-interval",
            compactor.compaction_interval,
            "1h",
            "How often the compactor looks for work. Blocks younger than that are left alone, so that those of all cores are merged together."
        ),
    ]
}

fn blocks_storage() -> Vec<Key> {
    vec![
        key!(
            "blocks_storage.backend",
            "blocks-storage.backend",
            blocks.backend,
            "filesystem",
            "Where blocks outlive the disk: `s3`, `gcs`, or `filesystem`, a directory. Empty: nowhere, they go with `ingester.retention` from the disk. With a bucket that is the retention there too."
        ),
        key!(
            "blocks_storage.filesystem.dir",
            "blocks-storage.filesystem.dir",
            blocks.filesystem_dir,
            "/mnt/blocks",
            "Directory of the backend `filesystem`. One node has it at a time."
        ),
        key!(
            "blocks_storage.s3.endpoint",
            "blocks-storage.s3.endpoint",
            blocks.s3.endpoint,
            "minio:9000",
            "Where the store is, `host:port` or a URL. Empty: Amazon's, by region."
        ),
        key!(
            "blocks_storage.s3.region",
            "blocks-storage.s3.region",
            blocks.s3.region,
            "eu-central-1",
            "Empty: as the environment says, else `us-east-1`, which other stores do not mind."
        ),
        key!(
            "blocks_storage.s3.bucket_name",
            "blocks-storage.s3.bucket-name",
            blocks.s3.bucket_name,
            "metrics",
            "The bucket, which must exist."
        ),
        key!(
            "blocks_storage.s3.access_key_id",
            "blocks-storage.s3.access-key-id",
            blocks.s3.access_key_id,
            "AKID",
            "Empty: the usual chain of credentials, environment, profile, web identity, container, instance."
        ),
        key!(
            "blocks_storage.s3.secret_access_key",
            "blocks-storage.s3.secret-access-key",
            blocks.s3.secret_access_key,
            "secret",
            "Goes with the key's id; shown nowhere. Better given by the environment than by a flag, which others on the machine can see."
        ),
        key!(
            "blocks_storage.s3.insecure",
            "blocks-storage.s3.insecure",
            blocks.s3.insecure,
            "true",
            "Plain HTTP, where the endpoint does not say."
        ),
        key!(
            "blocks_storage.s3.bucket_lookup_type",
            "blocks-storage.s3.bucket-lookup-type",
            blocks.s3.bucket_lookup_type,
            "path",
            "Whether requests name the bucket in the path or in the host. `auto`: in the path where an endpoint is given."
        ),
        key!(
            "blocks_storage.s3.sse.type",
            "blocks-storage.s3.sse.type",
            blocks.s3.sse_type,
            "SSE-S3",
            "Encryption by the store: `SSE-S3`, `SSE-KMS`, or empty, as the bucket is set."
        ),
        key!(
            "blocks_storage.s3.sse.kms_key_id",
            "blocks-storage.s3.sse.kms-key-id",
            blocks.s3.sse_kms_key_id,
            "key-1",
            "The key of `SSE-KMS`. Empty: the account's own."
        ),
        key!(
            "blocks_storage.s3.sse.kms_encryption_context",
            "blocks-storage.s3.sse.kms-encryption-context",
            blocks.s3.sse_kms_encryption_context,
            "{\"team\":\"a\"}",
            "What `SSE-KMS` binds to the key: a JSON object of texts."
        ),
        key!(
            "blocks_storage.s3.http.request_timeout",
            "blocks-storage.s3.http.request-timeout",
            blocks.s3.request_timeout,
            "10s",
            "Time for one try of one request, its body included."
        ),
        key!(
            "blocks_storage.s3.max_retries",
            "blocks-storage.s3.max-retries",
            blocks.s3.max_retries,
            "3",
            "Tries of a request, with growing pauses between them."
        ),
        key!(
            "blocks_storage.tsdb.retention_period",
            "blocks-storage.tsdb.retention-period",
            blocks.local_retention,
            "24h",
            "How long blocks that are in the bucket stay on the disk too, by their newest sample and by their making. 0: until `ingester.retention` takes them. Without a backend it means nothing."
        ),
        key!(
            "blocks_storage.tsdb.ship_interval",
            "blocks-storage.tsdb.ship-interval",
            blocks.ship_interval,
            "10s",
            "How often it is looked for blocks to upload."
        ),
        key!(
            "blocks_storage.tsdb.ship_unmerged_after",
            "blocks-storage.tsdb.ship-unmerged-after",
            blocks.ship_unmerged_after,
            "5m",
            "Blocks are uploaded when they have been merged; one that has not been is when it is as old as this."
        ),
        key!(
            "blocks_storage.bucket_store.sync_interval",
            "blocks-storage.bucket-store.sync-interval",
            blocks.sync_interval,
            "5m",
            "How long the list of a tenant's blocks in the bucket is taken for true without asking again."
        ),
        key!(
            "blocks_storage.bucket_store.index_header_max_size",
            "blocks-storage.bucket-store.index-header-max-size",
            blocks.header_bytes,
            "1GiB",
            "Disk, below `data.dir`, for indexes of blocks of the bucket. 0: they are read from the bucket each time."
        ),
        key!(
            "compactor.deletion_delay",
            "compactor.deletion-delay",
            blocks.deletion_delay,
            "1h",
            "How long a block that has been merged or has expired stays in the bucket, for readers that began before."
        ),
        key!(
            "compactor.cleanup_interval",
            "compactor.cleanup-interval",
            blocks.cleanup_interval,
            "5m",
            "How often it is looked for what is to be deleted from the bucket."
        ),
        key!(
            "querier.query_store_after",
            "querier.query-store-after",
            blocks.query_store_after,
            "12h",
            "Queries that begin later than this ago do not look into the bucket. 0: all do. Not above `blocks_storage.tsdb.retention_period`."
        ),
    ]
}
