//! What another node asks of this one: the series that it holds, for a query that is evaluated there.
//!
//! As the cores would answer a query here, joined with blocks and bucket, and with all bytes in memory. The query has had its turn where it is
//! evaluated, so the bounds on queries of its tenant are not asked again; those on the work of this node are.

use std::sync::Arc;

use model::{
    Matcher, Projection, QueryPriority, QueryRejection, TenantId, TenantLimits, TimeRange, Windows,
};
use shard::{Cardinality, ChunkBytes, Estimate, History, ReadError, SelectedSeries};

use crate::blocks::Look;
use crate::engine::{Caller, Engine, Turn};
use crate::error::Error;
use crate::fanout::{self, Allowance, Reach, Wanted};
use crate::judge::Asking;
use crate::labels::Texts;
use crate::memory::Account;

/// Which series, over which times, and what of them.
#[derive(Debug, Clone)]
pub struct Selection {
    /// All must match.
    pub matchers: Arc<[Matcher]>,
    /// Milliseconds, inclusive.
    pub min_time: i64,
    /// Milliseconds, inclusive.
    pub max_time: i64,
    /// Chunks too.
    pub with_chunks: bool,
    /// Instead of chunks exemplars, of series that have some.
    pub with_exemplars: bool,
    /// See [`shard::Select`].
    pub newest: bool,
    /// See [`shard::Select`].
    pub windows: Option<Windows>,
    /// Which labels.
    pub projection: Projection,
    /// Bounds of the query on series, chunks, their bytes, and bytes of labels and chunks; 0: none.
    pub bounds: [u64; 4],
}

/// The series of a [`Selection`].
#[derive(Debug)]
pub struct Selected {
    /// Each once; all chunks in memory.
    pub series: Vec<SelectedSeries>,
    /// Their memory; to be kept until they have been sent.
    pub account: Arc<Account>,
}

impl Selection {
    fn wanted(&self) -> Wanted {
        match (self.with_chunks, self.with_exemplars) {
            (_, true) => Wanted::Exemplars,
            (true, false) => Wanted::Chunks,
            (false, false) => Wanted::Labels,
        }
    }

    fn allowance(&self) -> Allowance {
        let [series_max, chunks_max, bytes_max, data_bytes_max] = self.bounds;
        Allowance {
            series_max,
            chunks_max,
            bytes_max,
            data_bytes_max,
        }
    }

    fn reach(&self) -> Reach {
        Reach {
            matchers: self.matchers.clone(),
            min_time: self.min_time,
            max_time: self.max_time,
            projection: self.projection.clone(),
            newest: self.newest,
            windows: self.windows,
        }
    }
}

/// The caller, without what bounds the queries of a tenant.
fn admitted(caller: &Caller) -> Caller {
    let limits = TenantLimits {
        max_concurrent_queries: 0,
        max_outstanding_requests_per_tenant: 0,
        query_rejection: QueryRejection::default(),
        query_priority: QueryPriority::default(),
        ..TenantLimits::clone(&caller.limits)
    };
    Caller {
        limits: Arc::new(limits),
        ..caller.clone()
    }
}

/// How the request is told to operators.
fn shown(matchers: &[Matcher]) -> String {
    let texts: Vec<String> = matchers.iter().map(Matcher::to_string).collect();
    format!("{{{}}}", texts.join(","))
}

impl Engine {
    /// What of the past changed here, for somebody who will keep results of a tenant up to `until`; to be asked before anything is read. `None`: this node holds nothing.
    pub fn history(&self, tenant: &TenantId, until: i64) -> Option<History> {
        let changes = self.holders().changes()?;
        Some(changes.history(tenant, until))
    }

    /// Series that this node holds.
    pub async fn select_here(
        &self,
        caller: &Caller,
        selection: Selection,
    ) -> Result<Selected, Error> {
        let caller = &admitted(caller);
        let text = shown(&selection.matchers);
        self.bounded(
            Asking::plain("peer_select", &text),
            caller,
            async |turn: &Turn| {
                let (reach, allowance) = (selection.reach(), selection.allowance());
                let series = match selection.wanted() {
                    Wanted::Chunks => {
                        let allowance = self.for_now(allowance);
                        let times = reach.times();
                        let catch = self
                            .gather_within(caller, vec![reach], vec![0], allowance, turn)
                            .await
                            .map_err(|error| self.for_want_of_memory(error, allowance))?;
                        let fetched = self.join(caller, catch, turn).await?;
                        self.run(move || in_memory(fetched.into_list(), &times))
                            .await??
                    }
                    wanted => {
                        let here =
                            fanout::select(self.holders(), caller, &reach, wanted, allowance, turn);
                        let mut lists = here.all(turn).await?;
                        if wanted == Wanted::Labels {
                            let select = move |look: &Look<'_>| look.select(false, allowance);
                            lists.extend(self.in_blocks(caller, &reach, turn, select).await?);
                        }
                        self.run(move || each_once(lists)).await?
                    }
                };
                let account = turn.account.clone();
                Ok(Selected { series, account })
            },
        )
        .await
    }

    /// Names of labels (`name` is `None`) or values of one, of the series that this node holds.
    pub async fn labels_here(
        &self,
        caller: &Caller,
        name: Option<String>,
        selection: Selection,
    ) -> Result<Texts, Error> {
        let caller = &admitted(caller);
        let text = shown(&selection.matchers);
        self.bounded(
            Asking::plain("peer_labels", &text),
            caller,
            async |turn: &Turn| {
                let reach = selection.reach();
                let here = fanout::labels(self.holders(), caller, name.as_deref(), &reach, turn);
                let mut texts: Vec<String> = here.all(turn).await?.into_iter().flatten().collect();
                let labels = move |look: &Look<'_>| look.labels(name.as_deref());
                texts.extend(self.in_blocks(caller, &reach, turn, labels).await?);
                let sort = move || {
                    texts.sort_unstable();
                    texts.dedup();
                    texts
                };
                Ok(Texts {
                    texts: self.run(sort).await?,
                    truncated: false,
                    account: turn.account.clone(),
                })
            },
        )
        .await
    }

    /// What labels the cores of this node have, one answer each.
    pub async fn cardinality_here(
        &self,
        caller: &Caller,
        names: &[String],
    ) -> Result<(Vec<Cardinality>, Arc<Account>), Error> {
        let caller = &admitted(caller);
        self.bounded(
            Asking::plain("peer_cardinality", ""),
            caller,
            async |turn: &Turn| {
                let answers = fanout::cardinality(self.holders(), caller, names, turn);
                Ok((answers.all(turn).await?, turn.account.clone()))
            },
        )
        .await
    }

    /// How many series matchers would select here.
    pub async fn estimate_here(
        &self,
        caller: &Caller,
        matchers: Arc<[Matcher]>,
    ) -> Result<Estimate, Error> {
        let caller = &admitted(caller);
        let text = shown(&matchers);
        self.bounded(
            Asking::plain("peer_estimate", &text),
            caller,
            async |turn: &Turn| {
                let cores = fanout::estimate(self.holders(), caller, &matchers);
                let cores = cores.all(turn).await?;
                Ok(cores
                    .iter()
                    .fold(Estimate::default(), |sum, core| Estimate {
                        candidates: sum.candidates + core.candidates,
                        scanned_values: sum.scanned_values + core.scanned_values,
                        series: sum.series + core.series,
                    }))
            },
        )
        .await
    }
}

/// Takes what is asked for of the runs of blocks out of their pages.
fn in_memory(
    mut series: Vec<SelectedSeries>,
    times: &TimeRange,
) -> Result<Vec<SelectedSeries>, ReadError> {
    for chunk in series.iter_mut().flat_map(|one| &mut one.chunks) {
        if let Some(run) = chunk.bytes.packed() {
            let order = run.order();
            let bytes = Arc::from(&*chunk.bytes.read_of(times)?);
            chunk.bytes = ChunkBytes::told(bytes, order, false);
        }
    }
    Ok(series)
}

fn each_once(lists: Vec<Vec<SelectedSeries>>) -> Vec<SelectedSeries> {
    let mut all: Vec<SelectedSeries> = lists.into_iter().flatten().collect();
    all.sort_by_key(|series| series.id);
    all.dedup_by_key(|series| series.id);
    all
}
