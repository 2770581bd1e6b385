//! A node from start to end: the only place where the parts are put together.
//!
//! 1. The servers listen, so that probes and clients get an answer at once; until the log is replayed it is 503 with
//!    `Retry-After`, and `/ready` tells how far the replay is.
//! 2. The cores start, on their own threads, and replay; or, where this node holds no series (`-target`), those that do are asked who they are.
//! 3. Read path and write path are made over their mailboxes, or over the other nodes, and the gateway serves.
//! 4. The compactor starts, on a thread of its own; on a querier of a cluster the worker that pulls queries from frontends.
//! 5. From then on this thread waits for signals, watches the health of the cores, and writes the node's own metrics.
//!
//! A signal stops in the opposite order: no new connections, requests in flight finish within the grace, then the cores finish what
//! they have taken. A second signal ends the process at once, which loses nothing acknowledged. A log that failed ends the
//! process with an error once the cores have answered reads for long enough.

use std::cell::Cell;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use compactor::{Compaction, Compactor};
use gateway::alias::Secret;
use gateway::ha::kv::InMemory;
use gateway::ha::{HaOptions, Tracker};
use gateway::metadata::MetadataStore;
use gateway::overrides::Overrides;
use gateway::peers::{Nobody, PeerMetrics, PeerOptions, Peers};
use gateway::pull::worker::{Worker, WorkerOptions};
use gateway::pull::{Frontend, FrontendOptions};
use gateway::push::{OtlpOptions, PushOptions, PushService};
use gateway::tenant::{Federation, Tenancy};
use gateway::{
    ConfigPages, Dial, Gateway, GrpcServer, Held, LimitMetrics, Phase, Roles, Server, Services,
    TenantMetrics,
};
use longterm::Longterm;
use model::TenantId;
use prometheus::Registry;
use query::{Engine, SharedResults};
use reactor::{IoMode, SlotFile};
use shard::{Cores, Memory, ReplayProgress};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::caches::Caches;
use crate::compaction::TenantPolicy;
use crate::config::{Config, Io, limit_values};
use crate::disk::Disk;
use crate::notify::Notify;
use crate::process::{Process, give_memory_back, raise_open_files};
use crate::runtime_config::RuntimeConfig;
use crate::security::Security;
use crate::self_scrape::SelfScrape;
use crate::series::Series;
use crate::storage::Storage;
use crate::{VERSION, banner, memory};

/// How often the health of the cores is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How often the disk is looked at.
const LOOK_AT_DISK: Duration = Duration::from_secs(10);

/// How often metadata that nobody repeats is dropped, and indexes of blocks that nobody asks for. The catalog counts it as minutes.
const PURGE: Duration = Duration::from_secs(60);

/// How often elections that nobody writes any more are looked for.
const CLEAN: Duration = Duration::from_secs(30 * 60);

/// For a connection to an ingester.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The part of the memory that queries may hold where nothing is configured: the rest is for what they read.
const QUERY_MEMORY_PART: u64 = 4;

/// Where the system does not tell how much memory there is.
const MEMORY_ASSUMED: u64 = 4 << 30;

/// Exit code of a process that a second signal ended, as shells have it for SIGINT.
const ENDED_AT_ONCE: i32 = 130;

/// Runs the node until it is stopped.
///
/// Errors: it cannot start (address in use, data directory locked or corrupt, CPUs outside of the mask), or its log failed.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, live(config));
    // Threads of a replay that was interrupted end with the process.
    runtime.shutdown_background();
    result
}

async fn live(config: &Config) -> anyhow::Result<()> {
    // Inherited by every thread that is started from here on. A durable write ends in a kernel worker on the CPU of its core;
    // it comes to run at once only if whatever computes there, query threads included, has the longer slice.
    reactor::TimeSlice::Work.ask();
    if let Err(reason) = give_memory_back() {
        tracing::warn!(%reason, "free memory is given back late");
    }
    let mut signals = Signals::listen()?;
    let registry = Registry::new();
    let started = now_ms() as f64 / 1000.0;
    registry
        .register(Box::new(Process::new(started)))
        .context("metrics of the process")?;
    registry
        .register(Box::new(crate::logging::counter().clone()))
        .context("counter of log lines")?;
    registry
        .register(Box::new(crate::logging::lost().clone()))
        .context("counter of lost log lines")?;
    let (security, secured) = Security::start(config, &registry)?;
    let options = gateway::Options {
        auth: secured.auth,
        http_tls: secured.http,
        grpc_tls: secured.grpc,
        node_secret: secured.secret,
        ..gateway_options(config)?
    };
    let gateway = Arc::new(Gateway::new(options, &registry));
    let servers = Servers::start(config, &gateway)?;
    if let Some(open) = open_grpc(config, servers.grpc.address()) {
        tracing::warn!("{open}");
    }
    let banner = banner::text(config, servers.http.address(), servers.grpc.address());
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stdout(), "{banner}");
    let notify = Arc::new(Notify::from_environment());
    notify.tell("STATUS=replaying the log");
    let memory = memory::watch(config.memory_limit.0, &registry)?;
    let runtime = RuntimeConfig::start(config, &registry)?;
    let series = tokio::select! {
        series = find_series(config, &memory, &runtime, secured.ingesters, &registry, (&gateway, &notify)) => series?,
        () = signals.next() => {
            tracing::info!("stopped before it served");
            gateway.set_phase(Phase::Stopping);
            return Ok(());
        }
    };
    let overrides = Arc::new(Overrides::new(config.limits.clone()));
    runtime.apply(&gateway, &overrides, series.mailboxes());
    let caches = Caches::start(config, &registry)?;
    let bucket = (overrides.clone(), caches.bucket);
    let storage = start_storage(config, &registry, series.cores(), bucket)?;
    let longterm = storage.as_ref().map(|storage| storage.longterm.clone());
    let policy = TenantPolicy {
        overrides: overrides.clone(),
        dir: config.data_dir.clone(),
        longterm: longterm.clone(),
    };
    let made = (&series, &overrides, (longterm, caches.results));
    let compaction = start_compaction(config, &registry, series.cores(), policy)?;
    let compact: Box<dyn Fn() + Send + Sync> = match &compaction {
        Some(compaction) => Box::new(compaction.waker()),
        None => Box::new(|| ()),
    };
    let push = assemble(config, &memory, &gateway, &registry, made, compact)?;
    let worker = start_worker(config, &servers, secured.frontends)?;
    let background = (compaction, storage, worker);
    tracing::info!(http = %servers.http.address(), target = config.target, "serving");
    notify.tell(&format!(
        "READY=1\nSTATUS=serving on {}",
        servers.http.address()
    ));
    let disk = match series.cores() {
        Some(cores) => {
            let homes = &cores.started().directories;
            Some((Disk::watch(&config.data_dir, homes, &registry)?, cores))
        }
        None => None,
    };
    let watch = watch(disk, &notify);
    let runtime = (runtime, overrides, security);
    let attend = attend(
        config,
        &gateway,
        &servers,
        &series,
        &push,
        runtime,
        &mut signals,
    );
    let failed = tokio::select! {
        failed = attend => failed,
        never = watch => match never {},
    };
    notify.tell("STOPPING=1");
    gateway.set_phase(Phase::Stopping);
    match failed {
        // What is in memory cannot be synced any more: the log has the truth.
        Some(reason) => bail!("the write-ahead log failed: {reason}"),
        None => stop(config, servers, series, background, signals).await,
    }
}

/// Makes both paths over the cores, or over the nodes that have them, and lets the gateway serve.
fn assemble(
    config: &Config,
    memory: &Memory,
    gateway: &Gateway,
    registry: &Registry,
    (series, overrides, (longterm, shared_results)): (
        &Series,
        &Arc<Overrides>,
        (Option<Longterm>, Option<SharedResults>),
    ),
    compact: Box<dyn Fn() + Send + Sync>,
) -> anyhow::Result<Arc<PushService>> {
    registry.register(Box::new(LimitMetrics::new(overrides.clone(), limit_values)))?;
    let metadata = Arc::new(MetadataStore::default());
    let tenants = TenantMetrics::new(series.counts(), metadata.clone());
    registry.register(Box::new(tenants))?;
    let roles = config.roles().map_err(|e| anyhow!("target: {e}"))?;
    let options = PushOptions {
        ha: ha_tracker(config, registry)?,
        ..push_options(config, memory)?
    };
    let store = metadata.clone();
    let push = PushService::new(
        options,
        series.writes(),
        Arc::clone(overrides),
        store,
        registry,
        Arc::new(now_ms),
    );
    let push = Arc::new(push.map_err(|e| anyhow!("write path: {e}"))?);
    let (journal, at_last_crash) = match roles.querier || roles.ingester {
        true => active_queries(config),
        false => (None, Vec::new()),
    };
    let unfinished = prometheus::IntGauge::new(
        "myelin_query_unfinished_at_start",
        "Queries that were at work when the node last ended without a stop.",
    )?;
    unfinished.set(i64::try_from(at_last_crash.len())?);
    registry.register(Box::new(unfinished))?;
    let options = query::Options {
        journal,
        longterm,
        shared_results,
        ..query_options(config, memory)
    };
    // Of a frontend the queue is what its metrics are about, not an engine that evaluates nothing.
    let unseen = Registry::new();
    let shown = if roles.frontend { &unseen } else { registry };
    let engine = match series {
        Series::Here(cores) => Engine::start(options, cores.mailboxes().clone(), shown),
        Series::Elsewhere(peers) => Engine::start(options, peers.clone(), shown),
        Series::Nowhere => Engine::start(options, Nobody, shown),
    };
    let frontend = match roles.frontend {
        true => Some(Arc::new(Frontend::new(frontend_options(config), registry)?)),
        false => None,
    };
    if let Some(cores) = series.cores() {
        gateway.show(cores.registry().clone());
    }
    gateway.serve(Services {
        engine: Arc::new(engine),
        at_last_crash,
        push: push.clone(),
        overrides: overrides.clone(),
        metadata,
        series: series.counts(),
        compact,
        health: series.health(frontend.clone()),
        held: series.cores().map(|_| Held {
            cores: series.writes(),
        }),
        peers: match series {
            Series::Elsewhere(peers) => Some(peers.clone()),
            Series::Here(_) | Series::Nowhere => None,
        },
        frontend,
    });
    Ok(push)
}

/// Queries are pulled from frontends, where that is configured.
fn start_worker(config: &Config, servers: &Servers, dial: Dial) -> anyhow::Result<Option<Worker>> {
    let worker = &config.frontend_worker;
    if worker.frontend_address.is_empty() {
        return Ok(None);
    }
    let parallelism = match worker.match_max_concurrent {
        true => config.querier.max_concurrent,
        false => worker.parallelism,
    };
    let options = WorkerOptions {
        frontend: worker.frontend_address.clone(),
        parallelism,
        is_shared: worker.match_max_concurrent,
        lookup_period: worker.dns_lookup_duration,
        name: match worker.id.as_str() {
            "" => servers.http.address().to_string(),
            id => id.to_owned(),
        },
        dial,
    };
    let worker = Worker::start(options, servers.http.calls());
    Ok(Some(worker.map_err(|e| {
        anyhow!("frontend_worker.frontend_address: {e}")
    })?))
}

fn frontend_options(config: &Config) -> FrontendOptions {
    FrontendOptions {
        body_bytes_max: usize::try_from(config.frontend.max_body_size.0).unwrap_or(usize::MAX),
        waiting_max: config.querier.max_waiting,
        retries_max: config.query_range.max_retries,
        // A querier gives up itself; its answer needs time to arrive.
        timeout: config.querier.timeout + Duration::from_secs(5),
    }
}

/// Merges the blocks of the cores from now on.
fn start_compaction(
    config: &Config,
    registry: &Registry,
    cores: Option<&Cores>,
    policy: TenantPolicy,
) -> anyhow::Result<Option<Compaction>> {
    let Some(cores) = cores else {
        return Ok(None);
    };
    let options = compactor::Options {
        ranges: config.compactor.block_ranges.clone(),
        interval: config.compactor.compaction_interval,
        io: io(config),
        ..compactor::Options::new(shard::blocks_directory(&config.data_dir))
    };
    let catalog = cores.mailboxes().blocks().clone();
    let compactor = Compactor::new(options, catalog, Box::new(policy), registry)
        .map_err(|e| anyhow!("compactor: {e}"))?;
    let interval = config.compactor.compaction_interval;
    let compaction = Compaction::start(compactor, interval, io(config));
    Ok(Some(compaction.context("the thread of the compactor")?))
}

/// Uploads begin, where there is a bucket.
fn start_storage(
    config: &Config,
    registry: &Registry,
    cores: Option<&Cores>,
    (overrides, caches): (Arc<Overrides>, longterm::Caches),
) -> anyhow::Result<Option<Storage>> {
    let Some(cores) = cores else {
        return Ok(None);
    };
    let catalog = cores.mailboxes().blocks().clone();
    let retention = move |tenant: &TenantId| overrides.limits(tenant).retention_ms();
    Storage::start(config, io(config), catalog, retention, caches, registry)
}

/// The file of queries at work, and what a process that crashed left in it. A node without the file serves all the same.
fn active_queries(config: &Config) -> (Option<Arc<dyn query::Journal>>, Vec<String>) {
    let querier = &config.querier;
    let dir = match querier.active_query_tracker_dir.as_str() {
        "" => config.data_dir.as_path(),
        dir => std::path::Path::new(dir),
    };
    let path = dir.join("queries.active");
    let slots = querier.max_concurrent.min(reactor::SLOTS_MAX);
    match SlotFile::open(&path, slots) {
        Ok((file, left)) => {
            for query in &left {
                tracing::warn!(query, "was at work when the node ended without a stop");
            }
            (Some(Arc::new(ActiveQueries(file))), left)
        }
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "queries at work are not written down");
            (None, Vec::new())
        }
    }
}

/// [`SlotFile`] as the read path wants it.
#[derive(Debug)]
struct ActiveQueries(SlotFile);

impl query::Journal for ActiveQueries {
    fn enter(&self, entry: &str) -> Option<usize> {
        self.0.enter(entry)
    }

    fn leave(&self, slot: usize) {
        self.0.leave(slot);
    }
}

/// The life of a serving node; ends with a signal (`None`) or a log that has failed long enough ago (why).
async fn attend(
    config: &Config,
    gateway: &Arc<Gateway>,
    servers: &Servers,
    series: &Series,
    push: &PushService,
    (mut runtime, overrides, mut security): (RuntimeConfig, Arc<Overrides>, Security),
    signals: &mut Signals,
) -> Option<String> {
    let own = SelfScrape::new(config, gateway.clone(), servers.http.address());
    let mut look = interval(LOOK);
    let mut purge = interval(PURGE);
    let mut second = interval(Duration::from_secs(1));
    let mut clean = interval(CLEAN);
    let mut reload = interval(config.runtime_config.period);
    let mut secure = interval(config.auth.reload_period);
    for timer in [
        &mut look,
        &mut purge,
        &mut second,
        &mut clean,
        &mut reload,
        &mut secure,
    ] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let scrape = own.run(push);
    let mut scrape = std::pin::pin!(scrape);
    let mut told = false;
    loop {
        tokio::select! {
            () = signals.next() => return None,
            _ = purge.tick() => {
                gateway.purge_metadata(now_ms());
                if let Some(cores) = series.cores() {
                    cores.mailboxes().blocks().let_go_unused();
                }
            }
            _ = second.tick() => push.tick(),
            _ = clean.tick() => push.clean_elections(now_ms()).await,
            _ = reload.tick() => {
                if runtime.look() {
                    runtime.apply(gateway, &overrides, series.mailboxes());
                }
            }
            _ = secure.tick() => security.look(),
            never = scrape.as_mut() => match never {},
            _ = look.tick() => {
                let Some(health) = series.cores().map(Cores::health) else { continue };
                let Some(refusal) = health.poisoned else { continue };
                if health.linger_over {
                    return Some(refusal.to_string());
                }
                if !told {
                    let linger = config.poison_linger.as_secs();
                    tracing::error!(%refusal, linger, "writes are refused, reads of durable data go on");
                    told = true;
                }
            }
        }
    }
}

/// Looks at the disk of the cores, and tells the service manager that we are alive.
async fn watch(mut disk: Option<(Disk, &Cores)>, notify: &Notify) -> Infallible {
    let mut look = interval(LOOK_AT_DISK);
    // Without a watchdog it is not heard.
    let mut alive = interval(notify.watchdog.unwrap_or(LOOK_AT_DISK));
    for timer in [&mut look, &mut alive] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            _ = look.tick() => if let Some((disk, cores)) = &mut disk {
                disk.look(&cores.registry().gather());
            },
            _ = alive.tick() => notify.tell("WATCHDOG=1"),
        }
    }
}

async fn stop(
    config: &Config,
    servers: Servers,
    series: Series,
    (compaction, storage, worker): (Option<Compaction>, Option<Storage>, Option<Worker>),
    mut signals: Signals,
) -> anyhow::Result<()> {
    tracing::info!("stopping; a second signal ends the process at once");
    let grace = config.server.graceful_shutdown_timeout;
    let (done, stopped) = oneshot::channel();
    let stop = move || {
        // First: what it has pulled is answered by the server's threads.
        if let Some(worker) = worker {
            worker.stop(grace);
        }
        servers.stop(grace);
        if let Some(compaction) = compaction {
            compaction.stop();
        }
        if let Some(storage) = storage {
            storage.stop();
        }
        if let Series::Here(cores) = series {
            cores.stop();
        }
        // Without a receiver the process is ending already.
        let _ = done.send(());
    };
    std::thread::Builder::new()
        .name("stop".to_owned())
        .spawn(stop)?;
    tokio::select! {
        stopped = stopped => stopped.context("the stop panicked")?,
        () = signals.next() => {
            tracing::warn!("ended by a second signal");
            std::process::exit(ENDED_AT_ONCE);
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Starts the cores, or waits for the nodes that have them.
async fn find_series(
    config: &Config,
    memory: &Memory,
    runtime: &RuntimeConfig,
    dial: Dial,
    registry: &Registry,
    (gateway, notify): (&Arc<Gateway>, &Arc<Notify>),
) -> anyhow::Result<Series> {
    let roles = config.roles().map_err(|e| anyhow!("target: {e}"))?;
    if roles.ingester {
        let cores = start_cores(config, memory, runtime, gateway, notify).await?;
        return Ok(Series::Here(Box::new(cores)));
    }
    if !roles.distributor && !roles.querier {
        return Ok(Series::Nowhere);
    }
    let client = &config.ingester_client;
    let options = PeerOptions {
        addresses: client.addresses.clone(),
        queue_bytes_max: config.distributor.max_inflight_bytes.0,
        push_timeout: client.remote_timeout,
        connect_timeout: CONNECT_TIMEOUT,
        dial,
        metrics: PeerMetrics::register(registry, client.addresses.len())?,
    };
    let told = Cell::new(None);
    let waits_for = |whom: &str| {
        notify.tell(&format!("STATUS=waiting for {whom}"));
        if told.replace(Some(whom.to_owned())).as_deref() != Some(whom) {
            tracing::warn!("waiting for ingester {whom}");
        }
    };
    let peers = Peers::connect(options, waits_for).await;
    Ok(Series::Elsewhere(
        peers.map_err(|e| anyhow!("ingester_client.addresses: {e}"))?,
    ))
}

/// Replays and starts the cores, on a thread of its own.
async fn start_cores(
    config: &Config,
    memory: &Memory,
    runtime: &RuntimeConfig,
    gateway: &Arc<Gateway>,
    notify: &Arc<Notify>,
) -> anyhow::Result<Cores> {
    let options = shard::Options {
        retentions: runtime.retentions(),
        exemplars_max: runtime.exemplars_max(),
        ..shard_options(config, memory)?
    };
    let shown = Arc::new(Replay::of(options.cores.len()));
    let (gateway, notify) = (gateway.clone(), notify.clone());
    let progress = move |progress| {
        if let Some(percent) = shown.percent(progress) {
            gateway.set_phase(Phase::Replaying(percent));
            tracing::info!(percent, samples = progress.samples, "replaying");
            notify.tell(&format!("STATUS=replaying the log, {percent} %"));
        }
    };
    let (sender, receiver) = oneshot::channel();
    let start = move || {
        // Without a receiver the node is on its way out.
        let _ = sender.send(Cores::start(options, progress));
    };
    std::thread::Builder::new()
        .name("start".to_owned())
        .spawn(start)?;
    let cores = receiver.await.context("the start panicked")??;
    let started = cores.started();
    if let Some(reason) = &started.io_fallback {
        tracing::warn!(io = started.io, reason, "io_uring is not used");
    }
    if let Some(reason) = &started.not_direct {
        tracing::warn!(reason, "the log is not written with O_DIRECT");
    }
    for note in &started.notes {
        tracing::warn!(note, "found in the log");
    }
    let (series, samples, count) = (started.series, started.samples, cores.count());
    tracing::info!(
        cores = count,
        io = started.io,
        series,
        samples,
        "cores serve"
    );
    Ok(cores)
}

/// How far the replay is over all cores. Those of which nothing is known yet, since cores of a crew replay one after another, are taken to be like the others.
#[derive(Debug)]
struct Replay {
    cores: usize,
    state: Mutex<Replayed>,
}

#[derive(Debug, Default)]
struct Replayed {
    /// Per core, bytes done and bytes in all; `None`: it has not begun.
    cores: Vec<Option<(u64, u64)>>,
    /// The last percentage told.
    told: Option<u8>,
}

impl Replay {
    fn of(cores: usize) -> Replay {
        Replay {
            cores,
            state: Mutex::default(),
        }
    }

    /// The percentage, when it has reached another tenth.
    fn percent(&self, progress: ReplayProgress) -> Option<u8> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Replayed { cores, told } = &mut *state;
        let core = usize::from(progress.core.0);
        if cores.len() <= core {
            cores.resize(core + 1, None);
        }
        cores[core] = Some((progress.bytes_done, progress.bytes_total));
        let known: Vec<(u64, u64)> = cores.iter().copied().flatten().collect();
        let sum = |part: fn(&(u64, u64)) -> u64| u128::from(known.iter().map(part).sum::<u64>());
        let (done, total) = (sum(|c| c.0), sum(|c| c.1));
        let all = total * self.cores.max(known.len()) as u128 / known.len() as u128;
        let percent = (done * 100).checked_div(all).unwrap_or(100).min(100) as u8;
        let due = told
            .is_none_or(|last| percent >= last.saturating_add(10) || percent == 100 && last < 100);
        due.then(|| *told.insert(percent))
    }
}

struct Servers {
    http: Server,
    grpc: GrpcServer,
}

impl Servers {
    fn start(config: &Config, gateway: &Arc<Gateway>) -> anyhow::Result<Servers> {
        let server = &config.server;
        let http = address(&server.http_listen_address, server.http_listen_port)?;
        let grpc = address(&server.grpc_listen_address, server.grpc_listen_port)?;
        Ok(Servers {
            http: Server::start(gateway.clone(), http)
                .with_context(|| format!("cannot listen on {http} (-server.http-listen-port)"))?,
            grpc: GrpcServer::start(gateway.clone(), grpc)
                .with_context(|| format!("cannot listen on {grpc} (-server.grpc-listen-port)"))?,
        })
    }

    fn stop(self, grace: Duration) {
        self.http.stop(grace);
        self.grpc.stop();
    }
}

/// What is to be said of a gRPC port that serves whoever reaches it.
fn open_grpc(config: &Config, address: SocketAddr) -> Option<String> {
    use gateway::tls::ClientAuth;
    let server = &config.server;
    // A whole node serves the health service alone.
    let roles = config.roles().ok()?;
    let is_asked = roles != Roles::ALL && (roles.ingester || roles.frontend);
    if !is_asked || address.ip().is_loopback() {
        return None;
    }
    let has_secret = !server.grpc_secret_file.is_empty();
    let is_clear = server.grpc_tls.cert_file.is_empty();
    let wants_certificates = server.grpc_tls.client_auth_type.0 == ClientAuth::Required;
    let what = match (has_secret, wants_certificates) {
        (false, false) => {
            "whoever reaches the gRPC port reads and writes the data of every tenant: set \
             server.grpc_tls_config with RequireAndVerifyClientCert, or server.grpc_secret_file"
        }
        (true, _) if is_clear => {
            "data and the secret of the nodes travel readable to and from the gRPC port: set \
             server.grpc_tls_config"
        }
        _ => return None,
    };
    Some(format!("{address}: {what}"))
}

/// An address from its two settings; a name is resolved once.
fn address(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    use std::net::ToSocketAddrs;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let mut found = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("address {host:?}"))?;
    found
        .next()
        .with_context(|| format!("address {host:?} has no addresses"))
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Signals> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals {
            terminate,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The wall clock, milliseconds; before 1970 it is 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn gateway_options(config: &Config) -> anyhow::Result<gateway::Options> {
    let server = &config.server;
    let threads = match server.gateway_threads {
        // Where several cores share a CPU (`-cores` above the number of CPUs) more threads would only split what they can send together.
        0 => {
            let mut cpus = cpus(config)?;
            cpus.sort_unstable();
            cpus.dedup();
            cpus.len()
        }
        count => count,
    };
    Ok(gateway::Options {
        tenancy: if config.auth_enabled {
            Tenancy::Header
        } else {
            Tenancy::Off
        },
        auth: None,
        http_tls: None,
        grpc_tls: None,
        grpc: server.grpc.options(),
        cors_origin: gateway::CorsOrigin::new(&config.api.cors_origin)
            .map_err(|e| anyhow!("api.cors_origin: {e}"))?,
        node_secret: None,
        federation: Federation {
            enabled: config.tenant_federation.enabled,
            tenants_max: config.tenant_federation.max_tenant,
        },
        path_prefix: server.http_path_prefix.clone(),
        legacy_prefix: config.http_prefix.clone(),
        prometheus_prefix: config.api.prometheus_http_prefix.clone(),
        gzip: config.api.response_compression_enabled,
        threads,
        connections_max: connections_max(server.http_listen_conn_limit, raise_open_files()),
        form_bytes_max: config.frontend.max_body_size.0,
        read_timeout: server.http_server_read_timeout,
        write_timeout: server.http_server_write_timeout,
        idle_timeout: server.http_server_idle_timeout,
        thread_begins: || {
            reactor::TimeSlice::Gateway.ask();
        },
        now_ms,
        config_pages: ConfigPages {
            current: crate::config::yaml(config),
            diff: crate::config::diff(config),
            defaults: crate::config::yaml(&Config::defaults(config.auth_enabled)),
        },
        limit_values,
        slow_queries: config.frontend.log_queries_longer_than,
        query_stats: config.frontend.query_stats_enabled,
        heap_profile: crate::process::heap_profile,
        cpu_profile: crate::cpu_profile::begin,
        version: VERSION,
        roles: config.roles().map_err(|e| anyhow!("target: {e}"))?,
    })
}

/// Connections that may be open at once: what is configured, but the log and everything else need descriptors too.
fn connections_max(configured: usize, open_files: u64) -> usize {
    configured
        .min(usize::try_from(open_files / 4 * 3).unwrap_or(usize::MAX))
        .max(1)
}

fn push_options(config: &Config, memory: &Memory) -> anyhow::Result<PushOptions> {
    let (distributor, otlp) = (&config.distributor, &config.distributor.otlp);
    Ok(PushOptions {
        recv_bytes_max: usize::try_from(distributor.max_recv_msg_size.0)?,
        otlp_recv_bytes_max: usize::try_from(distributor.otlp_max_recv_msg_size.0)?,
        remote_write_v2: distributor.remote_writev2_enabled,
        otlp: OtlpOptions {
            add_metric_suffixes: otlp.add_metric_suffixes,
            disable_target_info: otlp.disable_target_info,
            allow_delta_temporality: otlp.allow_delta_temporality,
            convert_all_attributes: otlp.convert_all_attributes,
            convert_histograms_to_nhcb: otlp.convert_histograms_to_nhcb,
            promote_scope_metadata: otlp.promote_scope_metadata,
            ..OtlpOptions::default()
        },
        inflight_bytes_max: distributor.max_inflight_bytes.0,
        inflight_bytes_per_tenant_max: distributor.max_inflight_bytes_per_tenant.0,
        body_timeout: config.server.http_server_read_timeout,
        secret: Secret::random(),
        memory: memory.clone(),
        inflight_pushes_max: distributor.max_inflight_push_requests,
        samples_per_second_max: match distributor.max_ingestion_rate.0 {
            rate if rate.is_finite() => rate,
            _ => 0.0,
        },
        ..PushOptions::default()
    })
}

/// What tells replicas of HA pairs apart, if configured.
fn ha_tracker(config: &Config, registry: &Registry) -> anyhow::Result<Option<Arc<Tracker>>> {
    let ha = &config.distributor.ha_tracker;
    if !ha.enable {
        return Ok(None);
    }
    let jitter = i64::try_from(ha.update_timeout_jitter_max.as_millis())?;
    let chance = i64::try_from(RandomState::new().hash_one(0) >> 1)?;
    let options = HaOptions {
        update_timeout: ha.update_timeout,
        jitter_ms: match jitter {
            0 => 0,
            max => chance % (2 * max) - max,
        },
    };
    let kv = Arc::new(InMemory::default());
    Ok(Some(Arc::new(Tracker::new(options, kv, registry)?)))
}

fn query_options(config: &Config, memory: &Memory) -> query::Options {
    let querier = &config.querier;
    let workers = match querier.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    query::Options {
        workers,
        concurrent_max: querier.max_concurrent,
        waiting_max: querier.max_waiting,
        timeout: querier.timeout,
        samples_max: querier.max_samples,
        lookback: querier.lookback_delta,
        subquery_step: querier.default_evaluation_interval,
        split_interval: config.query_range.split_queries_by_interval,
        align: config.query_range.align_queries_with_step,
        results_bytes_max: match config.query_range.cache_results {
            true => config.query_range.results_cache_max_size_bytes.0,
            false => 0,
        },
        memory: memory.clone(),
        memory_bytes_max: match querier.max_memory.0 {
            0 => shard::topology::memory_bytes().unwrap_or(MEMORY_ASSUMED) / QUERY_MEMORY_PART,
            bytes => bytes,
        },
        shared_results: None,
        journal: None,
        longterm: None,
        store_after: config.blocks.query_store_after,
        ..query::Options::new(workers)
    }
}

/// The CPUs of the cores.
fn cpus(config: &Config) -> anyhow::Result<Vec<usize>> {
    let count = (config.cores > 0).then_some(config.cores);
    let set = Some(config.core_set.as_str()).filter(|set| !set.is_empty());
    Ok(shard::topology::cores(count, set)?)
}

fn io(config: &Config) -> IoMode {
    match config.io {
        Io::Auto => IoMode::Auto,
        Io::Uring => IoMode::Uring,
        Io::Threads => IoMode::Threads,
    }
}

fn paths(list: &[String]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

fn shard_options(config: &Config, memory: &Memory) -> anyhow::Result<shard::Options> {
    Ok(shard::Options {
        io: io(config),
        retention: Duration::from_millis(config.limits.retention_ms() as u64),
        memory: memory.clone(),
        salvage: config.wal_salvage,
        poison_linger: config.poison_linger,
        core_dirs: paths(&config.core_dirs),
        core_dirs_leaving: paths(&config.core_dirs_leaving),
        core_dirs_lost: paths(&config.core_dirs_lost),
        ..shard::Options::new(config.data_dir.clone(), cpus(config)?)
    })
}

#[cfg(test)]
mod tests {
    use model::CoreId;

    use super::*;

    #[test]
    fn the_replay_is_told_in_tenths_over_all_cores() {
        let told = |replay: &Replay, core, bytes_done| {
            replay.percent(ReplayProgress {
                core: CoreId(core),
                bytes_done,
                bytes_total: 100,
                samples: 0,
            })
        };
        let replay = Replay::of(2);
        let at = |core, bytes_done| told(&replay, core, bytes_done);
        assert_eq!(at(0, 0), Some(0));
        assert_eq!(at(1, 10), None);
        assert_eq!(at(1, 40), Some(20));
        assert_eq!(at(1, 41), None);
        assert_eq!(at(0, 100), Some(70));
        assert_eq!(at(1, 100), Some(100));
        assert_eq!(at(1, 100), None);
        // Story: where one core follows another the end of the first was told as that of all.
        let replay = Replay::of(4);
        let at = |core, bytes_done| told(&replay, core, bytes_done);
        assert_eq!(at(0, 100), Some(25));
        assert_eq!(at(1, 0), None);
        assert_eq!(at(1, 100), Some(50));
    }

    #[test]
    fn connections_leave_descriptors_for_the_log() {
        assert_eq!(connections_max(8192, 1024), 768);
        assert_eq!(connections_max(100, u64::MAX), 100);
    }

    #[test]
    fn an_open_port_of_a_part_of_a_cluster_is_told() {
        use crate::config::ClientAuthType;
        use gateway::tls::ClientAuth;
        let mut config = Config::defaults(true);
        let everywhere = "0.0.0.0:9095".parse().unwrap();
        assert_eq!(open_grpc(&config, everywhere), None);
        config.target = "ingester".to_owned();
        assert_eq!(open_grpc(&config, "127.0.0.1:9095".parse().unwrap()), None);
        let told = |config: &Config| open_grpc(config, everywhere).unwrap_or_default();
        assert!(told(&config).contains("every tenant"));
        config.server.grpc_secret_file = "secret".to_owned();
        assert!(told(&config).contains("readable"));
        config.server.grpc_tls.cert_file = "cert".to_owned();
        assert_eq!(told(&config), "");
        config.server.grpc_secret_file.clear();
        assert!(told(&config).contains("every tenant"));
        config.server.grpc_tls.client_auth_type = ClientAuthType(ClientAuth::Required);
        assert_eq!(told(&config), "");
        config.target = "querier".to_owned();
        config.server.grpc_tls = Default::default();
        assert_eq!(told(&config), "", "it serves nobody");
    }

    #[test]
    fn addresses_may_be_names_and_nonsense_is_told() {
        assert_eq!(address("localhost", 1).unwrap().port(), 1);
        assert!(address("", 1).unwrap().ip().is_unspecified());
        assert!(address("no such host!", 1).is_err());
    }
}
