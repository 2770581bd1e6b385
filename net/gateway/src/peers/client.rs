//! The side that asks: a distributor's writes, a querier's reads.
//!
//! Calls come from any thread; they are carried out on a thread of its own with a runtime, where the connections live.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::{Class, CoreId, Metadata, TenantId};
use query::{Catalog, History, Holders, Told};
use rpc::ingester::ingester_client::IngesterClient;
use rpc::ingester::{self as proto, MetadataRequest, PushRequest, StatsRequest};
use shard::{
    Cardinality, Changes, DeleteError, Estimate, Flush, Message, NameCardinality, Push, ReadError,
    Refusal, Select, SelectedSeries, TenantStats,
};
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tonic::{Code, Status};

use super::convert::{self, Sent, Wrong};
use super::metrics::{Appended, PeerMetrics, Timed};
use crate::dial::{self, Calls, Dial};
use crate::push::{Cores, Sleepers, Spread};

/// How nodes are reached.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// `host:port` of each.
    pub addresses: Vec<String>,
    /// Bytes of pushes on the way to one node.
    pub queue_bytes_max: u64,
    /// For an answer to a push.
    pub push_timeout: Duration,
    /// For a connection.
    pub connect_timeout: Duration,
    /// How connections are made.
    pub dial: Dial,
    /// Where calls are counted.
    pub metrics: PeerMetrics,
}

/// How often somebody who has gone is looked for while another node works for him.
const LOOK: Duration = Duration::from_millis(50);

/// For the answer to a small question.
const SMALL: Duration = Duration::from_secs(10);

/// For what changed: without it a query is evaluated whole.
const HISTORY: Duration = Duration::from_secs(2);

/// Between two attempts to reach a node at start.
const AGAIN: Duration = Duration::from_millis(500);

/// Handles on all nodes; cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    nodes: Vec<Arc<Node>>,
    spread: Spread,
    runtime: Handle,
    options: PeerOptions,
}

pub(super) struct Node {
    pub(super) address: String,
    pub(super) client: IngesterClient<Timed<Calls>>,
    /// Of whom it was last heard.
    incarnation: AtomicU64,
    cores: u16,
    metrics: PeerMetrics,
    /// It came back with another number of cores.
    is_changed: AtomicBool,
    /// Somebody asks whether it still has.
    looking: AtomicBool,
    /// On the way to it.
    bytes: AtomicU64,
}

impl Peers {
    /// Waits until every node has said how many cores it has, and says whom it waits for.
    ///
    /// Errors: an address that is none, nodes with too many cores together, no thread.
    pub async fn connect(options: PeerOptions, waits_for: impl Fn(&str)) -> Result<Peers, String> {
        let runtime = spawn_runtime().map_err(|error| error.to_string())?;
        let mut nodes = Vec::with_capacity(options.addresses.len());
        for address in &options.addresses {
            // What drives a connection is spawned where the channel is made.
            let channel = {
                let _peers = runtime.enter();
                let host = host_of(address);
                options.dial.lazily(address, host, options.connect_timeout)
            };
            let channel = channel.map_err(|error| format!("of an ingester: {error}"))?;
            let channel = Timed::new(channel, &options.metrics);
            options.metrics.begin(address);
            let mut client = IngesterClient::new(channel.clone())
                .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
            let hello = loop {
                let mut asked = client.clone();
                // On the runtime on which its connection is to live.
                let hello = runtime.spawn(async move { asked.hello(proto::HelloRequest {}).await });
                match hello.await {
                    Ok(Ok(hello)) => break hello.into_inner(),
                    Ok(Err(status)) => waits_for(&format!("{address}: {}", told(&status))),
                    Err(error) => return Err(error.to_string()),
                }
                tokio::time::sleep(AGAIN).await;
                client = IngesterClient::new(channel.clone())
                    .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
            };
            nodes.push(Arc::new(Node {
                address: address.clone(),
                client,
                incarnation: AtomicU64::new(hello.incarnation),
                cores: u16::try_from(hello.cores).unwrap_or(0),
                metrics: options.metrics.clone(),
                is_changed: AtomicBool::new(false),
                looking: AtomicBool::new(false),
                bytes: AtomicU64::new(0),
            }));
        }
        let cores: Vec<u16> = nodes.iter().map(|node| node.cores).collect();
        let spread = Spread::over(&cores)
            .ok_or_else(|| format!("ingesters with {cores:?} cores: none, or too many"))?;
        Ok(Peers {
            shared: Arc::new(Shared {
                nodes,
                spread,
                runtime,
                options,
            }),
        })
    }

    /// Records of a tenant from all nodes, each once, ascending by metric; zero is no limit.
    pub async fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        limit: usize,
        limit_per_metric: usize,
    ) -> Result<Vec<(String, Vec<Metadata>)>, ReadError> {
        let mut all: std::collections::BTreeMap<String, Vec<Metadata>> = Default::default();
        for node in &self.shared.nodes {
            let request = MetadataRequest {
                tenant: tenant.as_str().to_owned(),
                metric: metric.map(str::to_owned),
                limit: limit as u64,
                limit_per_metric: limit_per_metric as u64,
            };
            let mut client = node.client.clone();
            let asked = self
                .shared
                .runtime
                .spawn(async move { in_time(client.metadata(request)).await });
            let reply = asked
                .await
                .map_err(|error| elsewhere(Class::Internal, &node.address, &error.to_string()))?
                .map_err(|status| read_error(&node.address, &status))?;
            for record in reply.into_inner().records {
                let (metric, metadata) = convert::metadata_of(record);
                let of_metric = all.entry(metric).or_default();
                let fits = limit_per_metric == 0 || of_metric.len() < limit_per_metric;
                if fits && !of_metric.contains(&metadata) {
                    of_metric.push(metadata);
                }
            }
        }
        let most = if limit == 0 { usize::MAX } else { limit };
        Ok(all.into_iter().take(most).collect())
    }

    /// How many nodes there are.
    pub(crate) fn node_count(&self) -> u64 {
        self.shared.nodes.len() as u64
    }

    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.shared.nodes
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Whether every node, as far as it was heard of, has the cores that it had.
    pub fn health(&self) -> Result<(), String> {
        let changed = |node: &&Arc<Node>| node.is_changed.load(Ordering::Relaxed);
        match self.shared.nodes.iter().find(changed) {
            Some(node) => {
                self.shared.look_again(node);
                Err(node.changed())
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.shared.nodes.iter().map(|node| &node.address);
        f.debug_list().entries(addresses).finish()
    }
}

fn spawn_runtime() -> std::io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    // Until the process ends: whoever has a handle may use it.
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new()
        .name("peers".to_owned())
        .spawn(run)?;
    Ok(handle)
}

/// A small question, which has no deadline of a query.
pub(super) async fn in_time<T>(
    asked: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded("no answer in time");
    tokio::time::timeout(SMALL, asked).await.map_err(late)?
}

fn elsewhere(class: Class, address: &str, reason: &str) -> ReadError {
    ReadError::Elsewhere {
        class,
        reason: format!("ingester {address}: {reason}"),
    }
}

/// Of `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A status as people read it: of a connection that cannot be made the cause, too.
pub(super) fn told(status: &Status) -> String {
    dial::with_causes(
        status.message().to_owned(),
        std::error::Error::source(status),
    )
}

pub(super) fn read_error(address: &str, status: &Status) -> ReadError {
    let class = match status.code() {
        // Of the query: it says so itself.
        Code::ResourceExhausted => {
            return ReadError::Elsewhere {
                class: Class::Limit,
                reason: status.message().to_owned(),
            };
        }
        Code::InvalidArgument => Class::Client,
        Code::DeadlineExceeded => Class::Timeout,
        Code::Cancelled => Class::Canceled,
        Code::Internal | Code::DataLoss => Class::Internal,
        _ => Class::Overload,
    };
    elsewhere(class, address, &told(status))
}

impl Shared {
    /// Nothing is sent to one whose cores are others, so that nobody would hear of it when they are the same again: it is asked, by one at a time.
    fn look_again(&self, node: &Arc<Node>) {
        if node.looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let node = node.clone();
        self.runtime.spawn(async move {
            // What does not answer is asked again by the next push.
            let _ = tokio::time::timeout(SMALL, node.look()).await;
            node.looking.store(false, Ordering::Relaxed);
        });
    }
}

impl Node {
    fn changed(&self) -> String {
        format!(
            "{} has another number of cores than the {} that it had when this process began: give it as many again, or start this one anew",
            self.address, self.cores
        )
    }

    /// Looks whether another process that has answered has as many cores.
    async fn meet(&self, incarnation: u64) {
        if self.incarnation.load(Ordering::Relaxed) != incarnation {
            self.look().await;
        }
    }

    /// Asks who is there now.
    async fn look(&self) {
        let mut client = self.client.clone();
        let Ok(hello) = client.hello(proto::HelloRequest {}).await else {
            return; // The next push meets it again.
        };
        let proto::HelloReply { incarnation, cores } = hello.into_inner();
        let is_changed = cores != u32::from(self.cores);
        self.is_changed.store(is_changed, Ordering::Relaxed);
        if self.incarnation.swap(incarnation, Ordering::Relaxed) == incarnation {
            return; // Met already, and told.
        }
        match is_changed {
            true => tracing::error!(cores, "{}", self.changed()),
            false => tracing::info!(ingester = self.address, "was started anew"),
        }
    }

    async fn push(&self, tenant: &TenantId, timeout: Duration, parts: Vec<(u16, u32, Push)>) {
        let mut waiting = Vec::with_capacity(parts.len());
        let mut messages = Vec::with_capacity(parts.len());
        for (core, credits, mut push) in parts {
            let sent = Sent::of(&push);
            let reply = std::mem::replace(&mut push.reply, Box::new(|_| ()));
            waiting.push((sent, reply));
            messages.push(convert::part_to(core, credits, push));
        }
        let request = PushRequest {
            tenant: tenant.as_str().to_owned(),
            parts: messages,
            metadata: Vec::new(),
        };
        let mut client = self.client.clone();
        let answered = match tokio::time::timeout(timeout, client.push(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => {
                // What is wrong may be our idea of its cores.
                if status.code() == Code::InvalidArgument {
                    self.look().await;
                }
                Err(told(&status))
            }
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs_f64())),
        };
        let answered = match answered {
            Ok(reply) if reply.parts.len() == waiting.len() => {
                self.meet(reply.incarnation).await;
                Ok(reply.parts)
            }
            Ok(_) => Err("an answer to something else".to_owned()),
            Err(reason) => Err(reason),
        };
        let (metrics, failed) = (&self.metrics, answered.is_err());
        metrics.appended(&self.address, Appended::Samples, failed);
        match answered {
            Ok(outcomes) => {
                for ((sent, reply), outcome) in waiting.into_iter().zip(outcomes) {
                    let outcome = convert::outcome_of(&self.address, sent, outcome);
                    reply(outcome.unwrap_or_else(|why| convert::refused(&self.address, &why)));
                }
            }
            Err(reason) => {
                for (_, reply) in waiting {
                    reply(convert::refused(&self.address, &reason));
                }
            }
        }
    }
}

/// Bytes on the way to a node; given back when this goes.
struct OnTheWay(Arc<Node>, u64);

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Cores for Peers {
    fn spread(&self) -> Spread {
        self.shared.spread.clone()
    }

    fn push(&self, parts: Vec<(CoreId, u32, Push)>) -> Result<Sleepers, Refusal> {
        type Parts = Vec<(u16, u32, Push)>;
        let Some((_, _, first)) = parts.first() else {
            return Ok(Sleepers::new());
        };
        let tenant = first.tenant.clone();
        let mut by_node: SmallVec<[(u16, u64, Parts); 8]> = SmallVec::new();
        for (core, bytes, push) in parts {
            let (node, at_home) = self.shared.spread.node_of(core);
            match by_node.iter_mut().find(|(known, _, _)| *known == node) {
                Some((_, sum, parts)) => {
                    *sum += u64::from(bytes);
                    parts.push((at_home, bytes, push));
                }
                None => by_node.push((node, u64::from(bytes), vec![(at_home, bytes, push)])),
            }
        }
        let mut taken: SmallVec<[OnTheWay; 8]> = SmallVec::new();
        for (node, bytes, _) in &by_node {
            let node = &self.shared.nodes[usize::from(*node)];
            if node.is_changed.load(Ordering::Relaxed) {
                self.shared.look_again(node);
                return Err(Refusal::Elsewhere(format!("ingester {}", node.changed())));
            }
            let before = node.bytes.fetch_add(*bytes, Ordering::Relaxed);
            taken.push(OnTheWay(node.clone(), *bytes));
            if before != 0 && before + bytes > self.shared.options.queue_bytes_max {
                let address = &node.address;
                return Err(Refusal::Elsewhere(format!(
                    "ingester {address}: too much is on the way to it"
                )));
            }
        }
        let timeout = self.shared.options.push_timeout;
        for ((_, _, parts), on_the_way) in by_node.into_iter().zip(taken) {
            let tenant = tenant.clone();
            self.shared.runtime.spawn(async move {
                on_the_way.0.push(&tenant, timeout, parts).await;
            });
        }
        Ok(Sleepers::new())
    }

    fn wake(&self, _core: CoreId) {}

    fn queue(&self, core: CoreId) -> (u64, u64) {
        let (node, _) = self.shared.spread.node_of(core);
        let bytes = &self.shared.nodes[usize::from(node)].bytes;
        (
            bytes.load(Ordering::Relaxed),
            self.shared.options.queue_bytes_max,
        )
    }

    fn tell(&self, tenant: &TenantId, records: &[(String, Metadata)]) {
        let to = |(metric, metadata): &(String, Metadata)| convert::metadata_to(metric, metadata);
        // Every node keeps its own limits; one is enough, and it is always the same.
        let hash = xxhash_rust::xxh3::xxh3_64(tenant.as_str().as_bytes());
        let node = model::identity::core_of(hash, self.shared.spread.nodes());
        let node = self.shared.nodes[usize::from(node.0)].clone();
        let text = |(metric, metadata): &(String, Metadata)| {
            (metric.len() + metadata.help.len() + metadata.unit.len() + 128) as u64
        };
        let bytes: u64 = records.iter().map(text).sum();
        let before = node.bytes.fetch_add(bytes, Ordering::Relaxed);
        let on_the_way = OnTheWay(node, bytes);
        if before + bytes > self.shared.options.queue_bytes_max {
            return; // It is said again.
        }
        let timeout = self.shared.options.push_timeout;
        let request = PushRequest {
            tenant: tenant.as_str().to_owned(),
            parts: Vec::new(),
            metadata: records.iter().map(to).collect(),
        };
        self.shared.runtime.spawn(async move {
            let node = &on_the_way.0;
            let mut client = node.client.clone();
            let answered = tokio::time::timeout(timeout, client.push(request)).await;
            let failed = !matches!(answered, Ok(Ok(_)));
            let metrics = &node.metrics;
            metrics.appended(&node.address, Appended::Metadata, failed);
            let status = match answered {
                Ok(Ok(_)) => return,
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer"),
            };
            tracing::debug!(ingester = node.address, %status, "metadata was not handed on");
        });
    }
}

impl Holders for Peers {
    fn count(&self) -> u16 {
        self.shared.spread.nodes()
    }

    fn send(&self, holder: u16, message: Message) {
        let node = self.shared.nodes[usize::from(holder)].clone();
        self.shared.runtime.spawn(async move {
            match message {
                Message::Select(mut select) => {
                    let reply = std::mem::replace(&mut select.reply, Box::new(|_| ()));
                    let canceled = select.canceled.clone();
                    let answer = until(node.select(select), &canceled).await;
                    // Who went away has not made it fail.
                    let failed = matches!(&answer, Err(error) if *error != ReadError::Canceled);
                    node.metrics.queried(&node.address, failed);
                    reply(answer);
                }
                Message::Labels(mut query) => {
                    let reply = std::mem::replace(&mut query.reply, Box::new(|_| ()));
                    let canceled = query.canceled.clone();
                    reply(until(node.labels(query), &canceled).await);
                }
                Message::Cardinality(mut query) => {
                    let reply = std::mem::replace(&mut query.reply, Box::new(|_| ()));
                    let canceled = query.canceled.clone();
                    reply(until(node.cardinality(query), &canceled).await);
                }
                Message::Estimate(query) => {
                    let answer = node.estimate(&query.tenant, &query.matchers).await;
                    (query.reply)(answer);
                }
                Message::Stats(query) => {
                    let answer = node.stats(query.tenant.as_ref()).await;
                    (query.reply)(answer);
                }
                Message::Flush(Flush { reply, .. }) | Message::Checkpoint(reply) => {
                    reply(Err("it is asked of the ingesters themselves".to_owned()));
                }
                Message::Push(push) => (push.reply)(convert::refused(&node.address, "no read")),
                Message::Delete(mut delete) => {
                    let reply = std::mem::replace(&mut delete.reply, Box::new(|_| ()));
                    let canceled = delete.canceled.clone();
                    let gone = || DeleteError::Unavailable("nobody waits for it".to_owned());
                    reply(until_or(node.delete(delete), &canceled, gone).await);
                }
                Message::Snapshot(snapshot) => {
                    let reason = "it is asked of the ingesters themselves".to_owned();
                    (snapshot.reply)(Err(reason));
                }
                Message::Stop(reply) => reply(),
                Message::Retentions(_)
                | Message::ExemplarsMax(_)
                | Message::Blocks(_)
                | Message::Purge(_) => {}
            }
        });
    }

    fn blocks(&self) -> Option<&Arc<Catalog>> {
        None
    }

    fn changes(&self) -> Option<&Arc<Changes>> {
        None
    }

    fn histories<'a>(&'a self, tenant: &'a TenantId, until: i64) -> Told<'a> {
        let ask = |node: &Arc<Node>| {
            let (node, tenant) = (node.clone(), tenant.clone());
            let asked = async move { node.history(&tenant, until).await };
            self.shared.runtime.spawn(asked)
        };
        // All at once, before one is waited for.
        let asked: Vec<_> = self.shared.nodes.iter().map(ask).collect();
        Box::pin(async move {
            let mut histories = Vec::with_capacity(asked.len());
            for asked in asked {
                histories.push(asked.await.ok()??);
            }
            Some(histories)
        })
    }
}

/// The answer, or that nobody waits for it any more.
async fn until<T>(
    work: impl Future<Output = Result<T, ReadError>>,
    canceled: &AtomicBool,
) -> Result<T, ReadError> {
    until_or(work, canceled, || ReadError::Canceled).await
}

async fn until_or<T, E>(
    work: impl Future<Output = Result<T, E>>,
    canceled: &AtomicBool,
    error: impl FnOnce() -> E,
) -> Result<T, E> {
    let gone = async {
        while !canceled.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        answer = work => answer,
        () = gone => Err(error()),
    }
}

impl Node {
    fn failed(&self, status: &Status) -> ReadError {
        read_error(&self.address, status)
    }

    fn wrong(&self, why: Wrong) -> ReadError {
        elsewhere(Class::Internal, &self.address, &why)
    }

    async fn select(&self, select: Select) -> Result<Vec<SelectedSeries>, ReadError> {
        let (project, labels) = convert::projection_to(&select.projection);
        let request = proto::SelectRequest {
            tenant: select.tenant.as_str().to_owned(),
            matchers: convert::matchers_to(&select.matchers),
            min_time: select.min_time,
            max_time: select.max_time,
            with_chunks: select.with_chunks,
            with_exemplars: select.with_exemplars,
            newest: select.newest,
            project,
            labels,
            series_max: select.series_max,
            chunks_max: select.chunks_max,
            bytes_max: select.bytes_max,
            data_bytes_max: select.data_bytes_max,
            windows: select.windows.map(convert::windows_to),
        };
        let mut client = self.client.clone();
        let replies = client.select(request).await;
        let mut replies = replies.map_err(|status| self.failed(&status))?.into_inner();
        let mut all = Vec::new();
        while let Some(reply) = replies
            .message()
            .await
            .map_err(|status| self.failed(&status))?
        {
            let mut bytes = 0;
            for series in &reply.series {
                let series = convert::series_of(series).map_err(|why| self.wrong(why))?;
                let chunks = series.chunks.iter();
                bytes += SERIES_BYTES + series.labels.packed().len() as u64;
                bytes += chunks
                    .map(|chunk| CHUNK_BYTES + chunk.bytes.len() as u64)
                    .sum::<u64>();
                all.push(series);
            }
            if !(select.hold)(bytes) {
                return Err(ReadError::NoMemory);
            }
        }
        Ok(all)
    }

    async fn labels(&self, query: shard::LabelQuery) -> Result<Vec<String>, ReadError> {
        let request = proto::LabelsRequest {
            tenant: query.tenant.as_str().to_owned(),
            matchers: convert::matchers_to(&query.matchers),
            min_time: query.min_time,
            max_time: query.max_time,
            name: query.name.clone(),
        };
        let mut client = self.client.clone();
        let replies = client.labels(request).await;
        let mut replies = replies.map_err(|status| self.failed(&status))?.into_inner();
        let mut all = Vec::new();
        while let Some(mut reply) = replies
            .message()
            .await
            .map_err(|status| self.failed(&status))?
        {
            let bytes = reply
                .texts
                .iter()
                .map(|text| (text.len() + size_of::<String>()) as u64);
            if !(query.hold)(bytes.sum()) {
                return Err(ReadError::NoMemory);
            }
            all.append(&mut reply.texts);
        }
        Ok(all)
    }

    async fn cardinality(&self, query: shard::CardinalityQuery) -> Result<Cardinality, ReadError> {
        let request = proto::CardinalityRequest {
            tenant: query.tenant.as_str().to_owned(),
            names: query.names.clone(),
        };
        let mut client = self.client.clone();
        let replies = client.cardinality(request).await;
        let mut replies = replies.map_err(|status| self.failed(&status))?.into_inner();
        let mut all = Cardinality {
            series: 0,
            chunks: 0,
            min_time: i64::MAX,
            max_time: i64::MIN,
            names: Vec::new(),
        };
        while let Some(reply) = replies
            .message()
            .await
            .map_err(|status| self.failed(&status))?
        {
            all.series += reply.series;
            all.chunks += reply.chunks;
            all.min_time = all.min_time.min(reply.min_time);
            all.max_time = all.max_time.max(reply.max_time);
            for name in reply.names {
                let text = name.values.concat();
                let mut end = 0;
                let values = name.values.iter().zip(name.counts).map(|(value, count)| {
                    end += value.len();
                    (end, count)
                });
                let values: Vec<_> = values.collect();
                if !(query.hold)((text.len() + values.len() * 16) as u64) {
                    return Err(ReadError::NoMemory);
                }
                all.names.push(NameCardinality {
                    name: name.name,
                    text,
                    values,
                });
            }
        }
        Ok(all)
    }

    async fn estimate(
        &self,
        tenant: &TenantId,
        matchers: &[model::Matcher],
    ) -> Result<Estimate, ReadError> {
        let request = proto::EstimateRequest {
            tenant: tenant.as_str().to_owned(),
            matchers: convert::matchers_to(matchers),
        };
        let mut client = self.client.clone();
        let reply = in_time(client.estimate(request)).await;
        let reply = reply.map_err(|status| self.failed(&status))?.into_inner();
        Ok(Estimate {
            candidates: reply.candidates,
            scanned_values: reply.scanned_values,
            series: reply.series,
        })
    }

    /// `None`: it cannot tell. Whether it is there at all the query itself finds out.
    async fn history(&self, tenant: &TenantId, until: i64) -> Option<History> {
        let request = proto::ChangesRequest {
            tenant: tenant.as_str().to_owned(),
            until,
        };
        let mut client = self.client.clone();
        let asked = tokio::time::timeout(HISTORY, client.changes(request)).await;
        let told = match asked {
            Ok(Ok(reply)) => convert::history_of(reply.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let shown = |reason: &String| tracing::debug!(ingester = self.address, reason, "changes");
        told.inspect_err(shown).ok()
    }

    async fn stats(&self, tenant: Option<&TenantId>) -> Result<Vec<TenantStats>, ReadError> {
        let request = StatsRequest {
            tenant: tenant
                .map(|tenant| tenant.as_str().to_owned())
                .unwrap_or_default(),
        };
        let mut client = self.client.clone();
        let reply = in_time(client.stats(request)).await;
        let reply = reply.map_err(|status| self.failed(&status))?.into_inner();
        let stats = |stats: proto::TenantStats| {
            Ok(TenantStats {
                tenant: TenantId::new(&stats.tenant)
                    .map_err(|error| self.wrong(error.to_string()))?,
                series: stats.series,
                active: stats.active,
                blocks: stats.blocks,
                samples: stats.samples,
                min_time: stats.min_time,
                max_time: stats.max_time,
            })
        };
        reply.tenants.into_iter().map(stats).collect()
    }
}

/// Bytes of a series in a result beside its labels and chunks, and of a chunk beside its bytes.
const SERIES_BYTES: u64 = 128;
const CHUNK_BYTES: u64 = 64;
