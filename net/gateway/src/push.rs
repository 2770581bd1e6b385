//! Pushes over HTTP: what `/api/v1/push` and `/api/prom/push` do, and the node's own metrics. Those of OTLP: [`otlp`].
//!
//! Step 1 of the way of a sample, and its last. [`PushService::handle`] shows the whole order: media type, bounded body, unpack,
//! [`crate::distributor`], rate, cores, answer. There is one service per gateway thread ([`PushService::sibling`]): each has its own
//! aliases and buffers, behind a mutex that nobody else ever waits for and that is never held across an await.
//!
//! | answer | when |
//! | --- | --- |
//! | 200, 204 (version 2) | everything is stored and, unless the tenant relaxed it, synced |
//! | 202 | it is all of an HA replica that is not elected, and was dropped |
//! | 400 | undecodable, too large, or something in it was refused: the rest is stored, the first error is told |
//! | 415 | another media type or encoding |
//! | 429 | the rate of the tenant; nothing is stored; `Retry-After`. Where the tenant wants it so, also a limit of its series: the rest is stored, and a repeat finds it there |
//! | 500 | the store of HA elections has no answer; senders repeat it |
//! | 503 | the body did not come in time (senders drop what gets another 4xx than 429, and a slow network is not their fault); the state of the node: queues, bytes in work, disk, memory for new series (the known ones of the body are stored); `Retry-After`, senders repeat it |
//!
//! Answers to version 2 tell in headers how much was stored (`X-Prometheus-Remote-Write-Samples-Written` and so on), errors included.
//!
//! Who is served when there are more pushes than the node can do: [`gate`].
//!
//! Bounds: a body, what it unpacks to, and its labels and metadata written out have at most `recv_bytes_max` bytes each; all
//! bodies in work, packed or unpacked, whichever is more, `inflight_bytes_max`, those of one tenant `inflight_bytes_per_tenant_max` and
//! twice what is still free. Bytes are counted as they come, so a sender that only promises a large body holds nothing.

mod body;
mod error;
pub(crate) mod gate;
mod gathering;
mod inflight;
mod media;
pub(crate) mod otlp;
mod unpack;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use model::{CoreId, Labels, Metadata, SeriesLimitStatus, TenantId};
use prometheus::{IntGauge, Registry};
use shard::{Memory, Push, Refusal, RejectReason, Wake};
use smallvec::SmallVec;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wire::remote_write::{Protocol, encode};
use wire::snappy;

use crate::alias::{ALIASES_MAX, AliasTable, Counts, Secret};
use crate::distributor::Distributor;
use crate::distributor::assemble::{self, Assembly, Ha, Origins, Rules, Scratch, Share};
use crate::distributor::metrics::Metrics;
use crate::distributor::outcome::Verdict;
use crate::distributor::rate::SmoothRate;
use crate::distributor::tenants::{Settings, Tenant, Tenants};
use crate::distributor::texts;
use crate::distributor::validate::{Reason, TimeBounds};
use crate::ha::sources::Pair;
use crate::ha::{Fate, Tracker};
use crate::metadata::MetadataStore;
use crate::overrides::Overrides;

pub use crate::distributor::spread::Spread;
pub use ::wire::otlp::Options as OtlpOptions;
use body::Body;
pub use error::{InstanceLimit, PushError};
use gate::{Gate, fits};
use gathering::{Answer, Gathering, Queued};
use inflight::Inflight;

/// Milliseconds since the epoch, by the clock of whoever runs the gateway.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Cores that have something to do and may sleep.
pub type Sleepers = SmallVec<[CoreId; 16]>;

/// What the gateway needs of the cores to write; `shard::Mailboxes`, or something simpler in tests.
pub trait Cores: Send + Sync {
    /// How many there are, and where.
    fn spread(&self) -> Spread;

    /// Takes credits of all the cores, then sends to all; or sends nothing. The numbers are bytes kept in memory.
    ///
    /// Returns those that have to be woken, by [`Cores::wake`] and soon: bodies that come until then go with it.
    fn push(&self, parts: Vec<(CoreId, u32, Push)>) -> Result<Sleepers, Refusal>;

    /// Wakes a core.
    fn wake(&self, core: CoreId);

    /// Bytes in the queue of a core, and how many there may be.
    fn queue(&self, core: CoreId) -> (u64, u64);

    /// Hands on what senders say about metrics, where others have to know it; a loss does not matter, since it is said again.
    fn tell(&self, _tenant: &TenantId, _records: &[(String, Metadata)]) {}
}

impl Cores for shard::Mailboxes {
    fn spread(&self) -> Spread {
        Spread::here(self.count())
    }

    fn push(&self, parts: Vec<(CoreId, u32, Push)>) -> Result<Sleepers, Refusal> {
        let wanted: SmallVec<[_; 16]> = parts
            .iter()
            .map(|(core, bytes, _)| (*core, *bytes))
            .collect();
        let mut permits = self.reserve(&wanted)?;
        let (mut now, mut sleepers) = (Sleepers::new(), Sleepers::new());
        for (core, _, push) in parts {
            let list = match permits.put(core, push) {
                Wake::No => continue,
                Wake::Soon => &mut sleepers,
                Wake::Now => &mut now,
            };
            let leader = self.leader(core);
            if !list.contains(&leader) {
                list.push(leader);
            }
        }
        // Not before all is there: cores that share a thread would begin with the first of it.
        for core in now {
            self.ring(core);
            sleepers.retain(|sleeper| *sleeper != core);
        }
        Ok(sleepers)
    }

    fn wake(&self, core: CoreId) {
        self.ring(core);
    }

    fn queue(&self, core: CoreId) -> (u64, u64) {
        self.queue_bytes(core)
    }
}

/// How pushes are taken.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// Largest body, packed and unpacked alike.
    pub recv_bytes_max: usize,
    /// Largest body of OTLP, packed and unpacked alike, but never more than half of what may be in work; what it is translated into has
    /// `recv_bytes_max`.
    pub otlp_recv_bytes_max: usize,
    /// Whether remote write 2.0 is taken.
    pub remote_write_v2: bool,
    /// How OTLP is translated; attributes that are promoted are those of the tenant.
    pub otlp: wire::otlp::Options,
    /// Bytes of all bodies in work, packed or unpacked, whichever is more.
    pub inflight_bytes_max: u64,
    /// The same for one tenant, who in any case may hold only twice what is still free; 0: only that.
    pub inflight_bytes_per_tenant_max: u64,
    /// Within this time a body must be there; zero is no bound.
    pub body_timeout: Duration,
    /// Aliases one gateway thread keeps, of 43 to 54 bytes each; at most [`ALIASES_MAX`].
    pub aliases_max: u32,
    /// Keys the alias hash.
    pub secret: Secret,
    /// While it is tight no aliases are learned.
    pub memory: Memory,
    /// Pushes in work on this node, of those whose bodies are there; 0: no bound.
    pub inflight_pushes_max: u64,
    /// Samples a second taken by this node, smoothed; 0: no bound.
    pub samples_per_second_max: f64,
    /// Tells replicas of HA pairs apart, for tenants that want it.
    pub ha: Option<Arc<Tracker>>,
}

impl Default for PushOptions {
    fn default() -> PushOptions {
        PushOptions {
            recv_bytes_max: wire::limits::RECV_BYTES_MAX,
            otlp_recv_bytes_max: wire::limits::RECV_BYTES_MAX,
            remote_write_v2: true,
            otlp: wire::otlp::Options::default(),
            inflight_bytes_max: 512 << 20,
            inflight_bytes_per_tenant_max: 0,
            body_timeout: Duration::from_secs(30),
            aliases_max: ALIASES_MAX,
            secret: Secret::random(),
            memory: Memory::default(),
            inflight_pushes_max: 0,
            samples_per_second_max: 0.0,
            ha: None,
        }
    }
}

impl PushOptions {
    /// The largest body of OTLP that can be held: it is there twice, as it came and in its next form.
    fn otlp_bytes_max(&self) -> usize {
        let of_tenant = match self.inflight_bytes_per_tenant_max {
            0 => u64::MAX,
            bytes => bytes,
        };
        let held = self.inflight_bytes_max.min(of_tenant) / 2;
        usize::try_from(held).map_or(self.otlp_recv_bytes_max, |held| {
            held.min(self.otlp_recv_bytes_max)
        })
    }

    /// Refuses what cannot work.
    pub fn validate(&self) -> Result<(), String> {
        if self.recv_bytes_max == 0 || self.recv_bytes_max > u32::MAX as usize {
            return Err(format!("recv_bytes_max must be 1 to {}", u32::MAX));
        }
        if self.otlp_recv_bytes_max == 0 || self.otlp_recv_bytes_max > u32::MAX as usize {
            return Err(format!("otlp_recv_bytes_max must be 1 to {}", u32::MAX));
        }
        if self.inflight_bytes_max < 2 * self.recv_bytes_max as u64 {
            return Err("inflight_bytes_max must hold a largest body packed and unpacked".into());
        }
        let of_tenant = self.inflight_bytes_per_tenant_max;
        if of_tenant != 0 && of_tenant < 2 * self.recv_bytes_max as u64 {
            // Else a body that can never fit is answered 503, and its sender repeats it for ever.
            return Err(
                "inflight_bytes_per_tenant_max must hold a largest body packed and unpacked".into(),
            );
        }
        if self.aliases_max == 0 || self.aliases_max > ALIASES_MAX {
            return Err(format!("aliases_max must be 1 to {ALIASES_MAX}"));
        }
        Ok(())
    }
}

/// Seconds between two looks at the rates of tenants. Source: Cortex `-ingester.rate-update-period`.
const TENANT_TICKS: u64 = 15;

/// Takes pushes, for one gateway thread.
pub struct PushService {
    shared: Arc<Shared>,
    distributor: Mutex<Distributor>,
    /// Number of this thread, for metrics.
    thread: String,
    /// Gauges of this thread: aliases, refused ones among them, bytes.
    gauges: [IntGauge; 3],
    /// Alias counts already added to the metrics.
    counted: Mutex<Counts>,
    /// Cores that were sent something and are to be woken when this thread has no more bodies at hand.
    sleepers: Mutex<Sleepers>,
}

struct Shared {
    options: PushOptions,
    cores: Arc<dyn Cores>,
    spread: Spread,
    tenants: Tenants,
    metadata: Arc<MetadataStore>,
    metrics: Metrics,
    wall: WallClock,
    started: Instant,
    inflight_bytes: AtomicU64,
    /// Pushes that have begun, those included whose bodies have not come yet.
    begun: AtomicU64,
    gate: Gate,
    /// Places for large bodies of OTLP that are decoded beside the gateway's threads.
    decoders: Arc<Semaphore>,
    threads: AtomicU64,
    /// Samples of all tenants that were within their rates, and how fast they come.
    accepted: AtomicU64,
    rate: SmoothRate,
    ticks: AtomicU64,
}

impl PushService {
    /// The service of the first gateway thread; the others are its siblings.
    ///
    /// Errors: options that cannot work, a registry that has these metrics already.
    pub fn new(
        options: PushOptions,
        cores: Arc<dyn Cores>,
        overrides: Arc<Overrides>,
        metadata: Arc<MetadataStore>,
        registry: &Registry,
        wall: WallClock,
    ) -> Result<PushService, String> {
        options.validate()?;
        let metrics = Metrics::register(registry).map_err(|error| error.to_string())?;
        metrics.show_limits(&options);
        let secret = options.secret.clone();
        let gauges = metrics.gate.clone();
        let spread = cores.spread();
        let tenants = Tenants::new(overrides, metrics.clone(), secret, spread.count());
        Ok(PushService::with(Arc::new(Shared {
            options,
            cores,
            spread,
            tenants,
            metadata,
            metrics,
            wall,
            started: Instant::now(),
            inflight_bytes: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            gate: Gate::new(gauges),
            decoders: Arc::new(Semaphore::new(
                std::thread::available_parallelism().map_or(1, usize::from),
            )),
            threads: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            rate: SmoothRate::default(),
            ticks: AtomicU64::new(0),
        })))
    }

    /// A service for another gateway thread: same tenants and bounds, its own aliases.
    pub fn sibling(&self) -> PushService {
        PushService::with(self.shared.clone())
    }

    fn with(shared: Arc<Shared>) -> PushService {
        let thread = shared.threads.fetch_add(1, Ordering::Relaxed).to_string();
        PushService {
            distributor: Mutex::new(Distributor::new(shared.options.aliases_max)),
            gauges: shared.metrics.of_thread(&thread),
            counted: Mutex::default(),
            sleepers: Mutex::default(),
            shared,
            thread,
        }
    }

    /// To be called once a second: follows how fast samples come.
    pub fn tick(&self) {
        let shared = &self.shared;
        shared
            .rate
            .tick(shared.accepted.load(Ordering::Relaxed), 1.0);
        shared.metrics.ingestion_rate.set(shared.rate.get());
        let tick = shared.ticks.fetch_add(1, Ordering::Relaxed);
        if tick.is_multiple_of(TENANT_TICKS) {
            shared.tenants.tick(TENANT_TICKS as f64);
        }
    }

    /// What tells replicas apart, if anything does.
    pub(crate) fn ha(&self) -> Option<&Tracker> {
        self.shared.options.ha.as_deref()
    }

    /// Gives up elections of clusters that have been silent for long.
    pub async fn clean_elections(&self, now_ms: i64) {
        if let Some(tracker) = self.ha()
            && let Err(error) = tracker.clean(now_ms).await
        {
            tracing::warn!(
                error,
                "elections cannot be cleaned up; the next time will do"
            );
        }
    }

    /// Pushes that have begun and have no answer yet.
    pub fn inflight(&self) -> u64 {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Counts a push until what is returned goes.
    fn begin(&self) -> OnDrop<impl FnMut() + '_> {
        let begun = &self.shared.begun;
        begun.fetch_add(1, Ordering::Relaxed);
        OnDrop(move || {
            begun.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// Counts a push whose body is there as in work, until what is returned goes: as Cortex, so that senders who promise bodies take no place from
    /// others. Those bodies are bounded by their bytes, and by the number of connections.
    fn work(&self) -> Result<OnDrop<impl FnMut() + '_>, PushError> {
        let (max, gauge) = (
            self.shared.options.inflight_pushes_max,
            &self.shared.metrics.inflight_pushes,
        );
        gauge.inc();
        let one = OnDrop(move || gauge.dec());
        match max > 0 && gauge.get().unsigned_abs() > max {
            true => Err(PushError::Instance(InstanceLimit::InflightPushes)),
            false => Ok(one),
        }
    }

    /// Series of a tenant that has just deleted are tried again, though its limits refused them a moment ago.
    pub(crate) fn retry_refused(&self, tenant: &TenantId) {
        self.shared.tenants.retry_refused(tenant);
    }

    /// Samples a second of a tenant, lately.
    pub fn rate_of(&self, tenant: &TenantId) -> f64 {
        self.shared.tenants.rate_of(tenant)
    }

    /// Samples a second of all tenants that have pushed lately.
    pub fn rates(&self) -> Vec<(TenantId, f64)> {
        self.shared.tenants.rates()
    }

    /// Answers a push. The tenant has been found by whoever routes; the body is read here.
    pub async fn handle<B>(
        &self,
        tenant: &TenantId,
        headers: &HeaderMap,
        body: B,
    ) -> Response<Full<Bytes>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: fmt::Display,
    {
        let _one = self.begin();
        let bounded = self.check_instance();
        let protocol = media::protocol(headers).and_then(|protocol| match protocol {
            Protocol::V2 if !self.shared.options.remote_write_v2 => {
                let text = "remote write 2.0 is not taken (distributor.remote_writev2_enabled)";
                Err(PushError::MediaType(text.to_owned()))
            }
            protocol => Ok(protocol),
        });
        let protocol = match protocol {
            Ok(protocol) => protocol,
            Err(error) => {
                let mut response = self.refuse(&error);
                tell_nothing_written(headers, response.headers_mut());
                return response;
            }
        };
        self.shared.metrics.pushes_by(protocol).inc();
        let mut written = Written::default();
        let received = match bounded {
            Ok(()) => {
                self.receive(tenant, protocol, headers, body, &mut written)
                    .await
            }
            Err(limit) => {
                body::discard(body, &self.shared.options).await;
                Err(PushError::Instance(limit))
            }
        };
        let mut response = match received {
            Ok(()) => Response::new(Full::default()),
            Err(error) => self.refuse(&error),
        };
        if protocol == Protocol::V2 {
            if response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::NO_CONTENT;
            }
            written.tell(response.headers_mut());
        }
        response
    }

    /// Whether the process takes samples now, as fast as they come.
    fn check_instance(&self) -> Result<(), InstanceLimit> {
        let max = self.shared.options.samples_per_second_max;
        if max > 0.0 && self.shared.rate.get() >= max {
            return Err(InstanceLimit::Rate);
        }
        Ok(())
    }

    /// Stores series of the node itself, one sample each, and what they are.
    pub async fn push_internal(
        &self,
        tenant: &TenantId,
        series: &[(Labels, i64, f64)],
        metadata: &[(String, Metadata)],
    ) -> Result<(), PushError> {
        let mut request = Vec::with_capacity(series.len() * 200);
        for (labels, time, value) in series {
            encode::put_series(&mut request, labels.iter(), &[(*time, *value)]);
        }
        for (metric, metadata) in metadata {
            encode::put_metadata(&mut request, metric, metadata);
        }
        let (tenant, settings) = self.tenant(tenant);
        let sent = Sent {
            protocol: Protocol::V1,
            body: Body::Plain(&request),
            metadata: &[],
        };
        self.distribute(&tenant, &settings, sent, &mut Written::default())
            .await
    }

    async fn receive<B>(
        &self,
        tenant: &TenantId,
        protocol: Protocol,
        headers: &HeaderMap,
        body: B,
        written: &mut Written,
    ) -> Result<(), PushError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: fmt::Display,
    {
        let options = &self.shared.options;
        let (tenant, settings) = self.tenant(tenant);
        if self.shared.gate.is_closed(&tenant) {
            // Taken off the connection, so that the sender reads its answer and can use the connection again.
            body::discard(body, options).await;
            return Err(PushError::Overload);
        }
        let mut inflight = Inflight::new(&self.shared, tenant.clone());
        let mut packed = self.lock().packed();
        let max = options.recv_bytes_max;
        body::read(body, headers, options, max, &mut inflight, &mut packed).await?;
        let _one = self.work()?;
        let len = snappy::unpacked_len(&packed, options.recv_bytes_max)?;
        let pass = self.shared.gate.enter(&tenant, len as u64);
        let _pass = pass.ok_or(PushError::Overload)?;
        inflight.add(len as u64)?;
        // It is unpacked for a moment only. What counts from here on is the larger of the two: bodies may unpack to less than they are.
        inflight.sub(packed.len().min(len) as u64);
        let sent = Sent {
            protocol,
            body: Body::Snappy(&packed),
            metadata: &[],
        };
        let result = self.distribute(&tenant, &settings, sent, written).await;
        self.lock().recycle_packed(packed);
        result
    }

    fn tenant(&self, id: &TenantId) -> (Arc<Tenant>, Arc<Settings>) {
        self.shared.tenants.of(id, self.minute())
    }

    /// Minutes since the service began.
    fn minute(&self) -> u64 {
        self.shared.started.elapsed().as_secs() / 60
    }

    /// From the body to the answer. `written` tells how much is stored, or was already, also beside an error.
    async fn distribute(
        &self,
        tenant: &Arc<Tenant>,
        settings: &Settings,
        sent: Sent<'_>,
        written: &mut Written,
    ) -> Result<(), PushError> {
        let Sent { protocol, body, .. } = sent;
        let now_ms = (self.shared.wall)();
        let tracker = self.shared.options.ha.as_deref();
        let tracker = tracker.filter(|_| settings.limits.accept_ha_samples);
        let mut rules = Rules {
            tenant: &tenant.id,
            limits: &settings.limits,
            protocol,
            secret: settings.secret(protocol),
            times: TimeBounds::new(&settings.limits, now_ms),
            spread: &self.shared.spread,
            text_bytes_max: self.shared.options.recv_bytes_max,
            refuser: tenant.refusals.refuser(),
            relabel: &settings.relabel,
            ha: tracker.map(|tracker| Ha {
                tracker,
                sources: &tenant.sources,
                now_ms,
                decided: &[],
            }),
            notes_refused: written.refused_at.is_some(),
        };
        let mut assembly = self.assemble(sent, &rules)?;
        let decided;
        if let (false, Some(ha)) = (assembly.undecided.is_empty(), &mut rules.ha) {
            decided = self
                .elect(tenant, settings, ha, &assembly.undecided)
                .await?;
            ha.decided = &decided;
            assembly = self.assemble(sent, &rules)?;
            assert!(
                assembly.undecided.is_empty(),
                "the same body has the same replicas"
            );
        }
        let body_len = assembly.body_len;
        let limited = self.take_histogram_rate(tenant, settings, &mut assembly);
        self.count(tenant, settings, &assembly);
        self.pass_over(&assembly, written)?;
        self.count_metadata(tenant, &assembly);
        self.take_rate(tenant, settings, &assembly)?;
        for accepted in [&tenant.accepted, &self.shared.accepted] {
            accepted.fetch_add(assembly.samples, Ordering::Relaxed);
        }
        self.keep_metadata(tenant, settings, now_ms, &mut assembly);
        let mut verdict = Verdict {
            refused_at: assembly.refused_at,
            ..Verdict::default()
        };
        self.round(tenant, settings, body_len, assembly.shares, &mut verdict)
            .await?;
        let dead = verdict.take_dead();
        if !dead.is_empty() {
            self.shared.metrics.dead_keys.inc_by(verdict.dead_samples);
            let mut again = self.split(body, |body, aliases, scratch| {
                Ok(assemble::assemble_again(
                    body, &dead, &rules, aliases, scratch,
                )?)
            })?;
            if limited.is_err() {
                again.leave_out_histograms();
            }
            assembly.error = earlier(assembly.error, again.error);
            if let (Some(records), Some(more)) = (&mut verdict.refused_at, again.refused_at) {
                records.extend(more);
            }
            self.round(tenant, settings, body_len, again.shares, &mut verdict)
                .await?;
            assert!(
                verdict.dead.is_empty(),
                "a series sent with labels has no key to be dead"
            );
        }
        let beyond = verdict.refused_series || assembly.over_limit != [0; 2];
        let as_429 = settings.limits.series_limit_status == SeriesLimitStatus::TooManyRequests;
        let minute = self.minute();
        tenant
            .refusals
            .note(verdict.refused_series, verdict.taken_series, minute);
        written.samples += verdict.stored + verdict.repeated - verdict.histograms_repeated;
        written.histograms += verdict.histograms + verdict.histograms_repeated;
        written.exemplars += verdict.exemplars;
        written.refused_at = verdict.refused_at.take();
        self.count_rejected(tenant, &verdict);
        if verdict.no_memory > 0 {
            // The rest is stored; a repeat finds it there. What is wrong with the body is told when there is memory.
            return Err(Refusal::NoMemory.into());
        }
        limited?;
        let error = earlier(verdict.error, assembly.error).map(|(_, text)| text);
        match error.or(assembly.metadata_error) {
            None => Ok(()),
            Some(text) if beyond && as_429 => Err(PushError::SeriesLimit(text)),
            Some(text) => Err(PushError::Invalid(text)),
        }
    }

    /// Asks the store of elections for replicas of which nothing is known here.
    async fn elect(
        &self,
        tenant: &Tenant,
        settings: &Settings,
        ha: &Ha<'_>,
        undecided: &[Pair],
    ) -> Result<Vec<(Pair, Fate)>, PushError> {
        let mut decided = Vec::with_capacity(undecided.len());
        for pair in undecided {
            let names = [&*pair[0], &*pair[1]];
            let asked = ha
                .tracker
                .elect(&tenant.id, &settings.limits, names, ha.now_ms);
            decided.push((pair.clone(), asked.await.map_err(PushError::Election)?));
        }
        Ok(decided)
    }

    /// What is of replicas that are not elected counts as written: their sender has to miss nothing.
    ///
    /// Errors: there is nothing else in the body, not even what was refused or dropped for another reason.
    fn pass_over(&self, assembly: &Assembly, written: &mut Written) -> Result<(), PushError> {
        let passive = &assembly.passive;
        written.samples = passive.samples;
        written.histograms = passive.histograms;
        written.exemplars = passive.exemplars;
        let nothing_else = assembly.samples_in == passive.samples + passive.histograms
            && assembly.exemplars == 0
            && assembly.error.is_none();
        match &passive.first {
            Some((replica, elected)) if nothing_else => Err(PushError::NotElected {
                replica: replica.to_string(),
                elected: elected.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn assemble(&self, sent: Sent<'_>, rules: &Rules<'_>) -> Result<Assembly, PushError> {
        self.split(sent.body, |body, aliases, scratch| {
            aliases.advance(self.minute() as u16);
            aliases.sweep();
            let mut assembly = assemble::assemble(body, rules, aliases, scratch)?;
            if !sent.metadata.is_empty() {
                assembly = assemble::describe(sent.metadata, rules, aliases, scratch, assembly)?;
            }
            self.report_aliases(aliases);
            Ok(assembly)
        })
    }

    /// Does something with an unpacked body, and with what this thread knows.
    fn split<T>(
        &self,
        body: Body<'_>,
        work: impl FnOnce(&[u8], &mut AliasTable, &mut Scratch) -> Result<T, PushError>,
    ) -> Result<T, PushError> {
        let distributor = &mut *self.lock();
        let Distributor {
            aliases,
            scratch,
            unpacked,
            ..
        } = distributor;
        let max = self.shared.options.recv_bytes_max;
        let result = match body.open(max, unpacked) {
            Ok(body) => work(body, aliases, scratch),
            Err(error) => Err(error.into()),
        };
        distributor.shrink();
        result
    }

    fn report_aliases(&self, aliases: &AliasTable) {
        let metrics = &self.shared.metrics;
        let now = aliases.counts();
        let mut before = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, n) in metrics.alias_lookups_by.iter().zip([
            now.predicted - before.predicted,
            now.found - before.found,
            now.missed - before.missed,
        ]) {
            if n > 0 {
                counter.inc_by(n);
            }
        }
        if now.evicted > before.evicted {
            metrics.aliases_evicted.inc_by(now.evicted - before.evicted);
        }
        *before = now;
        let [held, refused, bytes] = &self.gauges;
        held.set(i64::from(aliases.count()));
        refused.set(i64::from(aliases.refused_count()));
        bytes.set(aliases.bytes() as i64);
    }

    fn count(&self, tenant: &Tenant, settings: &Settings, assembly: &Assembly) {
        let counters = &tenant.counters;
        counters.samples_in.inc_by(assembly.samples_in);
        counters.received_samples.inc_by(assembly.samples);
        counters.metadata_in.inc_by(assembly.metadata_in);
        let newest = assembly.newest as f64 / 1000.0;
        if assembly.newest != i64::MIN && newest > counters.latest_seen.get() {
            counters.latest_seen.set(newest);
        }
        let user = tenant.id.as_str();
        let metrics = &self.shared.metrics;
        counters.exemplars_in.inc_by(assembly.exemplars_in);
        counters.received_exemplars.inc_by(assembly.exemplars);
        for (reason, refused) in &assembly.exemplars_refused {
            metrics
                .discarded_exemplars
                .with_label_values(&[reason, user])
                .inc_by(*refused);
        }
        for reason in Reason::ALL {
            let refused = assembly.refused[reason as usize];
            if refused > 0 {
                metrics
                    .discarded_samples
                    .with_label_values(&[reason.name(), user])
                    .inc_by(refused);
            }
        }
        if settings.limits.accept_ha_samples
            && let Some(tracker) = &self.shared.options.ha
        {
            let mut passive = 0;
            for (cluster, samples) in &assembly.passive.by_cluster {
                tracker.count_deduped(&tenant.id, cluster, *samples);
                passive += samples;
            }
            let replicas = assembly.replica_samples + passive;
            let others = assembly.samples_in.saturating_sub(replicas);
            metrics.count_non_ha(user, counters, others);
        }
        metrics.observe_shapes(&assembly.shapes);
        if assembly.refused_again > 0 {
            metrics.refused_again.inc_by(assembly.refused_again);
        }
        for (reason, refused) in [
            RejectReason::PerUserSeriesLimit,
            RejectReason::PerMetricSeriesLimit,
        ]
        .into_iter()
        .zip(assembly.over_limit)
        {
            if refused > 0 {
                let labels = [reason.name(), user];
                metrics
                    .discarded_samples
                    .with_label_values(&labels)
                    .inc_by(refused);
            }
        }
    }

    /// Of a body that is not passed over: nobody looks at the metadata of one that is.
    fn count_metadata(&self, tenant: &Tenant, assembly: &Assembly) {
        let received = assembly.metadata.len() as u64;
        tenant.counters.received_metadata.inc_by(received);
        for (reason, refused) in &assembly.metadata_refused {
            let labels = [*reason, tenant.id.as_str()];
            let discarded = &self.shared.metrics.discarded_metadata;
            discarded.with_label_values(&labels).inc_by(*refused);
        }
    }

    fn count_rejected(&self, tenant: &Tenant, verdict: &Verdict) {
        for (reason, count) in &verdict.exemplars_dropped {
            let labels = [*reason, tenant.id.as_str()];
            let discarded = &self.shared.metrics.discarded_exemplars;
            discarded.with_label_values(&labels).inc_by(*count);
        }
        for (reason, count) in &verdict.rejected {
            let labels = [reason.name(), tenant.id.as_str()];
            self.shared
                .metrics
                .discarded_samples
                .with_label_values(&labels)
                .inc_by(*count);
        }
    }

    /// All native histograms of the push, or none: the floats are stored either way, and the error is that of the whole push, as in Cortex.
    fn take_histogram_rate(
        &self,
        tenant: &Tenant,
        settings: &Settings,
        assembly: &mut Assembly,
    ) -> Result<(), PushError> {
        let histograms = assembly.histograms;
        let rate = settings.limits.native_histogram_ingestion_rate;
        let burst = settings.limits.native_histogram_ingestion_burst_size;
        if histograms == 0 || rate.is_infinite() {
            return Ok(());
        }
        let bucket = &tenant.histogram_bucket;
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bucket.take(histograms, rate, burst, Instant::now());
        taken.map_err(|wait| {
            assembly.leave_out_histograms();
            let text = format!(
                "native histogram ingestion rate limit ({}) exceeded while adding {histograms} native histogram samples",
                texts::general(rate)
            );
            PushError::RateLimited { text, wait }
        })
    }

    /// All or nothing, as in Cortex.
    fn take_rate(
        &self,
        tenant: &Tenant,
        settings: &Settings,
        assembly: &Assembly,
    ) -> Result<(), PushError> {
        let (samples, metadata) = (assembly.samples, assembly.metadata.len() as u64);
        let exemplars = assembly.exemplars;
        let rate = settings.limits.ingestion_rate;
        let burst = settings.limits.ingestion_burst_size;
        if samples + metadata + exemplars == 0 {
            return Ok(());
        }
        let mut bucket = tenant.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bucket.take(samples + metadata + exemplars, rate, burst, Instant::now());
        taken.map_err(|wait| {
            let labels = [Reason::RateLimited.name(), tenant.id.as_str()];
            let metrics = &self.shared.metrics;
            metrics.discarded_samples.with_label_values(&labels).inc_by(samples);
            metrics.discarded_metadata.with_label_values(&labels).inc_by(metadata);
            metrics.discarded_exemplars.with_label_values(&labels).inc_by(exemplars);
            let text = format!(
                "ingestion rate limit ({}) exceeded while adding {samples} samples and {metadata} metadata",
                texts::general(rate)
            );
            PushError::RateLimited { text, wait }
        })
    }

    fn keep_metadata(
        &self,
        tenant: &Tenant,
        settings: &Settings,
        now_ms: i64,
        assembly: &mut Assembly,
    ) {
        if assembly.metadata.is_empty() {
            return;
        }
        let records = std::mem::take(&mut assembly.metadata);
        self.shared.cores.tell(&tenant.id, &records);
        let store = &self.shared.metadata;
        let dropped = store.record(&tenant.id, &settings.limits, now_ms, records);
        for (reason, count) in [
            ("per_user_metadata_limit", dropped.per_user),
            ("per_metric_metadata_limit", dropped.per_metric),
        ] {
            if count > 0 {
                let labels = [reason, tenant.id.as_str()];
                let discarded = &self.shared.metrics.discarded_metadata;
                discarded.with_label_values(&labels).inc_by(count);
            }
        }
    }

    /// Sends the shares, waits for all replies, learns from them.
    ///
    /// Errors: the first refusal. Other cores may have stored their share then; a repeat finds it there.
    async fn round(
        &self,
        tenant: &Arc<Tenant>,
        settings: &Settings,
        body_len: usize,
        shares: Vec<Share>,
        verdict: &mut Verdict,
    ) -> Result<(), PushError> {
        let shares = shares.into_iter().enumerate();
        let shares: SmallVec<[(CoreId, Share); 16]> = shares
            .filter(|(_, share)| !share.is_empty())
            .map(|(core, share)| {
                let core = u16::try_from(core).expect("cores are counted in 16 bits");
                (CoreId(core), share)
            })
            .collect();
        let touched = shares.len();
        for (core, share) in &shares {
            self.check_share(tenant, *core, (share.bytes() + body_len / touched) as u64)?;
        }
        let gathering = Gathering::new(touched);
        let mut parts = Vec::with_capacity(touched);
        let mut waiting: SmallVec<[(CoreId, Origins); 16]> = SmallVec::new();
        for (index, (core, share)) in shares.into_iter().enumerate() {
            let bytes = share.bytes() + body_len / touched;
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let queued = Queued::new(tenant, core, bytes);
            let answer = Answer::new(&gathering, index, queued);
            let push = Push {
                tenant: tenant.id.clone(),
                limits: settings.limits.clone(),
                known: share.known,
                fresh: share.fresh,
                others: share.others,
                credits: 0,
                reply: Box::new(move |outcome| answer.give(outcome)),
            };
            parts.push((core, bytes, push));
            waiting.push((core, share.origins));
        }
        let sleepers = self.shared.cores.push(parts)?;
        self.wake_soon(sleepers).await;
        gathering.all().await;
        let mut refused = None;
        let tight = self.shared.options.memory.is_tight();
        let distributor = &mut *self.lock();
        for (index, (core, origins)) in waiting.iter().enumerate() {
            match gathering.reply(index) {
                None => refused = Some(PushError::CoreGone(*core)),
                Some(outcome) => match &outcome.refused {
                    Some(refusal) => {
                        refused.get_or_insert_with(|| PushError::Refused(refusal.clone()));
                    }
                    None => {
                        verdict.add(
                            (&tenant.id, &settings.limits),
                            *core,
                            origins,
                            outcome,
                            (!tight).then_some(&mut distributor.aliases),
                            tenant.refusals.refuser(),
                        );
                        if outcome.starts_ignored == 0 && !tight {
                            for &(key, start) in &origins.starts {
                                distributor.scratch.started.learn(*core, key, start);
                            }
                        }
                    }
                },
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Whether the queue of a core has room for that much more of this tenant; the core itself counts all tenants together.
    fn check_share(&self, tenant: &Tenant, core: CoreId, bytes: u64) -> Result<(), Refusal> {
        let held = tenant.queued[usize::from(core.0)].load(Ordering::Relaxed);
        if held == 0 {
            return Ok(());
        }
        let (queued, max) = self.shared.cores.queue(core);
        match fits(held, bytes, max.saturating_sub(queued)) {
            true => Ok(()),
            false => Err(Refusal::QueueFull(core.0)),
        }
    }

    /// Wakes cores once the other bodies that are at hand on this thread have gone their way, so that one wake serves all of them.
    async fn wake_soon(&self, sleepers: Sleepers) {
        if sleepers.is_empty() {
            return;
        }
        {
            let mut all = self.sleepers();
            sleepers
                .into_iter()
                .for_each(|core| match all.contains(&core) {
                    true => {}
                    false => all.push(core),
                });
        }
        // Also when the client leaves meanwhile.
        let _wake = OnDrop(|| {
            let sleepers = std::mem::take(&mut *self.sleepers());
            for core in sleepers {
                self.shared.cores.wake(core);
            }
        });
        tokio::task::yield_now().await;
    }

    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, error: &PushError) -> Response<Full<Bytes>> {
        if let Some(reason) = error.overload() {
            self.shared
                .metrics
                .overloads
                .with_label_values(&[reason])
                .inc();
        }
        let mut response = Response::builder()
            .status(error.status())
            .header(http::header::CONTENT_TYPE, "text/plain; charset=utf-8");
        if let Some(wait) = error.retry_after() {
            response = response.header(http::header::RETRY_AFTER, wait);
        }
        response
            .body(Full::from(error.to_string()))
            .unwrap_or_else(|_| {
                let mut plain = Response::new(Full::default());
                *plain.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                plain
            })
    }

    fn lock(&self) -> MutexGuard<'_, Distributor> {
        self.distributor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PushService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushService")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// Of two errors that of the earlier record.
fn earlier(one: Option<(u32, String)>, other: Option<(u32, String)>) -> Option<(u32, String)> {
    match (one, other) {
        (Some(one), Some(other)) if other.0 < one.0 => Some(other),
        (one, other) => one.or(other),
    }
}

/// A write request.
#[derive(Debug, Clone, Copy)]
struct Sent<'a> {
    protocol: Protocol,
    body: Body<'a>,
    /// Metadata records of version 1 that come beside it.
    metadata: &'a [u8],
}

/// What an answer to version 2 tells, and where samples were refused for good.
#[derive(Debug, Default)]
struct Written {
    samples: u64,
    histograms: u64,
    exemplars: u64,
    /// Offsets of records, for those who ask by an empty list.
    refused_at: Option<Vec<u32>>,
}

impl Written {
    fn tell(&self, headers: &mut HeaderMap) {
        let counts = [self.samples, self.histograms, self.exemplars];
        for (header, count) in media::WRITTEN_HEADERS.into_iter().zip(counts) {
            headers.insert(header, count.into());
        }
    }
}

/// For the answer to a push of which nothing was read, also where it is packed in an unknown way.
pub(crate) fn tell_nothing_written(request: &HeaderMap, answer: &mut HeaderMap) {
    if let Ok(Protocol::V2) = media::message(request) {
        Written::default().tell(answer);
    }
}

/// Runs when it goes out of scope, also when the client has left and the push is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests;
