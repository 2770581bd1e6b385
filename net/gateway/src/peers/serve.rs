//! The side that is asked: a node with cores answers distributors and queriers.
//!
//! Writes go to the mailboxes as they come; reads are queries of this node's engine, on the thread of the gRPC server (their
//! futures are bound to it, so calls hand them over by [`Local`]). When the caller goes away, the read ends.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use model::{Class, CoreId, TenantId};
use query::{Account, Caller, Deleted, Engine, Selection};
use rpc::ingester::ingester_server::Ingester;
use rpc::ingester::{self as proto, PushReply, PushRequest};
use shard::{Push, PushOutcome, SelectedSeries};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use super::convert::{self, Seal};
use crate::push::Spread;
use crate::state::{Gateway, Held, Roles, Services};

/// Series of one message, at most, and bytes from which on another one begins. Source: Cortex.
const BATCH_SERIES: usize = 128;
const BATCH_BYTES: usize = 1 << 20;

/// Texts of one message.
const BATCH_TEXTS: usize = 4096;

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Runs futures on the thread of the server.
#[derive(Debug, Clone)]
pub(crate) struct Local(mpsc::UnboundedSender<Job>);

impl Local {
    /// The handle, and what that thread has to run.
    pub(crate) fn new() -> (Local, impl Future<Output = ()>) {
        let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
        let run = async move {
            while let Some(job) = jobs.recv().await {
                tokio::task::spawn_local(job());
            }
        };
        (Local(sender), run)
    }

    /// The result of `work`, which ends when nobody waits for it.
    async fn run<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let (mut sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            Box::pin(async move {
                let done = tokio::select! {
                    done = work() => done,
                    () = sender.closed() => return,
                };
                // Nobody may wait any more.
                let _ = sender.send(done);
            })
        });
        let stopping = || Status::unavailable("shutting down");
        self.0.send(job).map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct IngesterService {
    gateway: Arc<Gateway>,
    incarnation: u64,
    local: Local,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl IngesterService {
    pub(crate) fn new(gateway: Arc<Gateway>, incarnation: u64, local: Local) -> IngesterService {
        IngesterService {
            gateway,
            incarnation,
            local,
        }
    }

    fn services(&self) -> Result<&Services, Status> {
        self.gateway.services().map_err(Status::unavailable)
    }

    fn cores(&self) -> Result<(&Services, &Held), Status> {
        // Nobody needs to ask a whole node, and whoever asks here names any tenant.
        if self.gateway.options.roles == Roles::ALL {
            return Err(Status::unimplemented(
                "a whole node is asked by HTTP (-target)",
            ));
        }
        let services = self.services()?;
        let held = services.held.as_ref();
        let held = held.ok_or_else(|| Status::unimplemented("this node holds no series"))?;
        Ok((services, held))
    }

    fn reader(&self, tenant: &str) -> Result<(Arc<Engine>, Caller), Status> {
        let (services, _) = self.cores()?;
        let engine = services.engine.clone();
        let tenant = tenant_of(tenant)?;
        let limits = services.overrides.limits(&tenant);
        let now_ms = (self.gateway.options.now_ms)();
        let caller = Caller {
            tenant,
            limits,
            now_ms,
            client: Arc::default(),
        };
        Ok((engine, caller))
    }
}

fn tenant_of(id: &str) -> Result<TenantId, Status> {
    TenantId::new(id).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn wrong(why: String) -> Status {
    Status::invalid_argument(why)
}

fn failed(error: query::Error) -> Status {
    let text = error.to_string();
    match error.class() {
        Class::Limit | Class::Rate => Status::resource_exhausted(text),
        Class::Client | Class::Execution => Status::invalid_argument(text),
        Class::Timeout => Status::deadline_exceeded(text),
        Class::Canceled => Status::cancelled(text),
        Class::Internal => Status::internal(text),
        Class::Overload => Status::unavailable(text),
    }
}

fn selection(request: &proto::SelectRequest) -> Result<Selection, Status> {
    Ok(Selection {
        matchers: convert::matchers_of(&request.matchers).map_err(wrong)?,
        min_time: request.min_time,
        max_time: request.max_time,
        with_chunks: request.with_chunks,
        with_exemplars: request.with_exemplars,
        newest: request.newest,
        windows: convert::windows_of(request.windows),
        projection: convert::projection_of(request.project, &request.labels),
        bounds: [
            request.series_max,
            request.chunks_max,
            request.bytes_max,
            request.data_bytes_max,
        ],
    })
}

/// Series in messages of bounded size, made when the one before has been taken; `account` is kept until the last.
fn batches(series: Vec<SelectedSeries>, account: Arc<Account>) -> Replies<proto::SelectReply> {
    let rest = series.into_iter().peekable();
    let replies = stream::unfold((rest, account), |(mut rest, account)| async move {
        rest.peek()?;
        let mut reply = proto::SelectReply::default();
        let mut bytes = 0;
        while reply.series.len() < BATCH_SERIES
            && bytes < BATCH_BYTES
            && let Some(series) = rest.next()
        {
            match convert::series_to(&series) {
                Ok(series) => {
                    bytes += series.labels.len();
                    bytes += series.chunks.iter().map(|c| c.bytes.len()).sum::<usize>();
                    reply.series.push(series);
                }
                Err(why) => return Some((Err(Status::data_loss(why)), (rest, account))),
            }
        }
        Some((Ok(reply), (rest, account)))
    });
    Box::pin(replies)
}

#[tonic::async_trait]
impl Ingester for IngesterService {
    type SelectStream = Replies<proto::SelectReply>;
    type LabelsStream = Replies<proto::LabelsReply>;
    type CardinalityStream = Replies<proto::CardinalityReply>;

    async fn hello(
        &self,
        _request: Request<proto::HelloRequest>,
    ) -> Result<Response<proto::HelloReply>, Status> {
        let (_, held) = self.cores()?;
        Ok(Response::new(proto::HelloReply {
            incarnation: self.incarnation,
            cores: u32::from(held.cores.spread().count()),
        }))
    }

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushReply>, Status> {
        let request = request.into_inner();
        let tenant = tenant_of(&request.tenant)?;
        let (services, held) = self.cores()?;
        (services.health)().map_err(Status::unavailable)?;
        if let Some(reason) = self.gateway.mode.now().refusal() {
            return Err(Status::unavailable(reason));
        }
        let limits = services.overrides.limits(&tenant);
        if !request.metadata.is_empty() {
            let now_ms = (self.gateway.options.now_ms)();
            let records = request.metadata.into_iter().map(convert::metadata_of);
            services.metadata.record(&tenant, &limits, now_ms, records);
        }
        let spread = held.cores.spread();
        let seal = Seal::of(self.incarnation);
        let mut parts: Vec<(CoreId, u32, Push)> = Vec::with_capacity(request.parts.len());
        let mut waiting = Vec::with_capacity(request.parts.len());
        for part in request.parts {
            let core = core_of(&spread, part.core, &parts)?;
            let credits = part.credits;
            let place = |hash| spread.place(hash).0;
            let samples = convert::part_of(&tenant, part, seal, place).map_err(wrong)?;
            let (sender, receiver) = oneshot::channel();
            waiting.push(receiver);
            let push = Push {
                tenant: tenant.clone(),
                limits: limits.clone(),
                known: samples.known,
                fresh: samples.fresh,
                others: samples.others,
                credits: 0,
                // The caller may have gone; what is stored stays.
                reply: Box::new(move |outcome| drop(sender.send(outcome))),
            };
            parts.push((core, credits, push));
        }
        let sleepers = held.cores.push(parts);
        let sleepers = sleepers.map_err(|refusal| Status::unavailable(refusal.to_string()))?;
        for core in sleepers {
            held.cores.wake(core);
        }
        let mut outcomes = Vec::with_capacity(waiting.len());
        for receiver in waiting {
            let outcome: PushOutcome = receiver
                .await
                .map_err(|_| Status::unavailable("a core is gone"))?;
            outcomes.push(convert::outcome_to(outcome, seal));
        }
        Ok(Response::new(PushReply {
            incarnation: self.incarnation,
            parts: outcomes,
        }))
    }

    async fn select(
        &self,
        request: Request<proto::SelectRequest>,
    ) -> Result<Response<Self::SelectStream>, Status> {
        let request = request.into_inner();
        let (engine, caller) = self.reader(&request.tenant)?;
        let selection = selection(&request)?;
        let read = async move || {
            let read = engine.select_here(&caller, selection).await;
            read.map_err(failed)
        };
        let selected = self.local.run(read).await?;
        Ok(Response::new(batches(selected.series, selected.account)))
    }

    async fn labels(
        &self,
        request: Request<proto::LabelsRequest>,
    ) -> Result<Response<Self::LabelsStream>, Status> {
        let request = request.into_inner();
        let (engine, caller) = self.reader(&request.tenant)?;
        let selection = selection(&proto::SelectRequest {
            matchers: request.matchers,
            min_time: request.min_time,
            max_time: request.max_time,
            ..proto::SelectRequest::default()
        })?;
        let name = request.name;
        let read = async move || {
            let read = engine.labels_here(&caller, name, selection).await;
            read.map_err(failed)
        };
        let found = self.local.run(read).await?;
        let rest = found.texts.into_iter();
        let replies = stream::unfold((rest, found.account), |(mut rest, account)| async move {
            let texts: Vec<String> = rest.by_ref().take(BATCH_TEXTS).collect();
            (!texts.is_empty()).then(|| (Ok(proto::LabelsReply { texts }), (rest, account)))
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn cardinality(
        &self,
        request: Request<proto::CardinalityRequest>,
    ) -> Result<Response<Self::CardinalityStream>, Status> {
        let request = request.into_inner();
        let (engine, caller) = self.reader(&request.tenant)?;
        let read = async move || {
            let read = engine.cardinality_here(&caller, &request.names).await;
            read.map_err(failed)
        };
        let (answers, account) = self.local.run(read).await?;
        let mut replies = Vec::new();
        for answer in answers {
            replies.push(proto::CardinalityReply {
                series: answer.series,
                chunks: answer.chunks,
                min_time: answer.min_time,
                max_time: answer.max_time,
                names: Vec::new(),
            });
            replies.extend(answer.names.iter().flat_map(values_of));
        }
        let replies = stream::unfold(
            (replies.into_iter(), account),
            |(mut rest, account)| async move {
                let reply = rest.next()?;
                Some((Ok(reply), (rest, account)))
            },
        );
        Ok(Response::new(Box::pin(replies)))
    }

    async fn estimate(
        &self,
        request: Request<proto::EstimateRequest>,
    ) -> Result<Response<proto::EstimateReply>, Status> {
        let request = request.into_inner();
        let (engine, caller) = self.reader(&request.tenant)?;
        let matchers = convert::matchers_of(&request.matchers).map_err(wrong)?;
        let read = async move || {
            let read = engine.estimate_here(&caller, matchers).await;
            read.map_err(failed)
        };
        let estimate = self.local.run(read).await?;
        Ok(Response::new(proto::EstimateReply {
            candidates: estimate.candidates,
            scanned_values: estimate.scanned_values,
            series: estimate.series,
        }))
    }

    async fn stats(
        &self,
        request: Request<proto::StatsRequest>,
    ) -> Result<Response<proto::StatsReply>, Status> {
        let request = request.into_inner();
        let (services, _) = self.cores()?;
        let engine = services.engine.clone();
        let tenant = match request.tenant.as_str() {
            "" => None,
            id => Some(tenant_of(id)?),
        };
        let read = async move || engine.stats(tenant.as_ref()).await.map_err(failed);
        let tenants = self.local.run(read).await?;
        let tenant = |stats: shard::TenantStats| proto::TenantStats {
            tenant: stats.tenant.as_str().to_owned(),
            series: stats.series,
            active: stats.active,
            blocks: stats.blocks,
            samples: stats.samples,
            min_time: stats.min_time,
            max_time: stats.max_time,
        };
        Ok(Response::new(proto::StatsReply {
            tenants: tenants.into_iter().map(tenant).collect(),
        }))
    }

    async fn changes(
        &self,
        request: Request<proto::ChangesRequest>,
    ) -> Result<Response<proto::ChangesReply>, Status> {
        let request = request.into_inner();
        let tenant = tenant_of(&request.tenant)?;
        let (services, _) = self.cores()?;
        let history = services.engine.history(&tenant, request.until);
        let history = history.ok_or_else(|| Status::unimplemented("this node holds no series"))?;
        Ok(Response::new(convert::history_to(&history)))
    }

    async fn metadata(
        &self,
        request: Request<proto::MetadataRequest>,
    ) -> Result<Response<proto::MetadataReply>, Status> {
        let request = request.into_inner();
        let tenant = tenant_of(&request.tenant)?;
        let (services, _) = self.cores()?;
        let metadata = &services.metadata;
        let most = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let (limit, of_metric) = (most(request.limit), most(request.limit_per_metric));
        let list = metadata.list(&tenant, request.metric.as_deref(), limit, of_metric);
        let records = list.iter().flat_map(|(metric, records)| {
            let record = move |record| convert::metadata_to(metric, record);
            records.iter().map(record)
        });
        Ok(Response::new(proto::MetadataReply {
            records: records.collect(),
        }))
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteReply>, Status> {
        let request = request.into_inner();
        let tenant = tenant_of(&request.tenant)?;
        let (services, _) = self.cores()?;
        let (engine, metadata) = (services.engine.clone(), services.metadata.clone());
        let selectors = request.selectors.iter();
        let selectors = selectors.map(|one| convert::matchers_of(&one.matchers));
        let deleted = Deleted {
            selectors: selectors.collect::<Result<_, _>>().map_err(wrong)?,
            times: (request.min_time, request.max_time),
            whole_tenant: request.whole_tenant,
        };
        let whole_tenant = deleted.whole_tenant;
        let is_all = deleted.selectors.iter().any(|matchers| matchers.is_empty());
        if deleted.selectors.is_empty() || is_all != whole_tenant {
            return Err(wrong("all series, and only some, of a tenant".to_owned()));
        }
        let delete = async move || {
            let id = engine.delete(&tenant, deleted).await.map_err(failed)?;
            if whole_tenant {
                metadata.forget(&tenant);
            }
            Ok(id)
        };
        let id = self.local.run(delete).await?;
        Ok(Response::new(proto::DeleteReply {
            id_high: (id >> 64) as u64,
            id_low: id as u64,
        }))
    }

    async fn deletions(
        &self,
        request: Request<proto::DeletionsRequest>,
    ) -> Result<Response<proto::DeletionsReply>, Status> {
        let tenant = tenant_of(&request.into_inner().tenant)?;
        let (services, _) = self.cores()?;
        let engine = services.engine.clone();
        let read = async move || {
            let list = engine.deletions(&tenant).await.map_err(failed)?;
            let is_deleted = engine.is_tenant_deleted(&tenant).await.map_err(failed)?;
            Ok((list, is_deleted))
        };
        let (list, tenant_is_deleted) = self.local.run(read).await?;
        let one = |deletion: query::Deletion| proto::Deletion {
            id_high: (deletion.id >> 64) as u64,
            id_low: deletion.id as u64,
            selectors: deletion.selectors,
            min_time: deletion.start,
            max_time: deletion.end,
            created: deletion.created_ms,
            over: deletion.over_ms,
            blocks_pending: deletion.blocks_pending,
        };
        Ok(Response::new(proto::DeletionsReply {
            deletions: list.into_iter().map(one).collect(),
            tenant_is_deleted,
        }))
    }

    async fn compact(
        &self,
        _request: Request<proto::CompactRequest>,
    ) -> Result<Response<proto::CompactReply>, Status> {
        let (services, _) = self.cores()?;
        (services.compact)();
        Ok(Response::new(proto::CompactReply {}))
    }
}

/// Errors: a core that is not there, or that has a part already.
fn core_of(spread: &Spread, core: u32, parts: &[(CoreId, u32, Push)]) -> Result<CoreId, Status> {
    let found = u16::try_from(core).ok().map(CoreId);
    let found = found.filter(|core| core.0 < spread.count());
    let found = found.ok_or_else(|| {
        let count = spread.count();
        wrong(format!("a part for core {core}, and there are {count}"))
    })?;
    match parts.iter().any(|(core, _, _)| *core == found) {
        true => Err(wrong(format!("two parts for core {core}"))),
        false => Ok(found),
    }
}

/// The values of a name, in messages of bounded size.
fn values_of(name: &shard::NameCardinality) -> Vec<proto::CardinalityReply> {
    let mut begin = 0;
    let mut values = name.values.iter().map(|&(end, count)| {
        let value = name.text[begin..end].to_owned();
        begin = end;
        (value, count)
    });
    let mut replies = Vec::new();
    loop {
        let (values, counts): (Vec<String>, Vec<u32>) = values.by_ref().take(BATCH_TEXTS).unzip();
        if values.is_empty() {
            return replies;
        }
        replies.push(proto::CardinalityReply {
            // Of the whole, which has been told.
            min_time: i64::MAX,
            max_time: i64::MIN,
            names: vec![proto::NameCardinality {
                name: name.name.clone(),
                values,
                counts,
            }],
            ..proto::CardinalityReply::default()
        });
    }
}
