//! Deletions: what is asked for, and how far they are.
//!
//! A deletion is the cores' and the keeper's (`shard::Delete`); here its selectors are parsed, and it is waited for. When it is answered nothing that was stored before is found any more.
//! Who stops waiting does not know whether it was made; asking again is safe.
//!
//! Where the series are on other nodes all of these delete, side by side; the request is done when all have. Which of them have not, and why, is in the error.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block::Catalog;
use model::{Matcher, TenantId};
use shard::{Delete, DeleteError, Message, Snapshot};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::error::Error;
use crate::labels::parse_selector;

/// How long a deletion may wait for a cut that is under way, and for its own work: a request has to end some time.
const WAIT: Duration = Duration::from_secs(120);

/// A deletion of a tenant, as its requests are listed.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// Names it.
    pub id: u128,
    /// As selectors of the query language.
    pub selectors: Vec<String>,
    /// Milliseconds, inclusive.
    pub start: i64,
    /// Milliseconds, inclusive.
    pub end: i64,
    /// When it was made.
    pub created_ms: i64,
    /// When nothing was left on disks that it applies to; `None`: something is.
    pub over_ms: Option<i64>,
    /// Blocks of this node, and of the bucket, that it has not been applied to. Nobody sees what it means in them.
    pub blocks_pending: u64,
    /// Nodes that do not have it in their list, where there are several: it was not made there, or is over and forgotten.
    pub missing_on: Vec<String>,
}

/// What a deletion means.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// A series that passes all matchers of one of them. A single selector without matchers: all series.
    pub selectors: Vec<Arc<[Matcher]>>,
    /// Milliseconds, both inclusive.
    pub times: (i64, i64),
    /// The tenant is deleted, not some of its series.
    pub whole_tenant: bool,
}

/// Says that nobody waits any more, however the waiting ends: what has not begun by then does not. Who was told nothing may have gone on to write.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Engine {
    /// Deletes what a tenant has of the series that any of these selectors means, from `start` to `end`, milliseconds, both included.
    ///
    /// Errors: no selector, or one that is malformed or means everything; too many; the state of the node.
    pub async fn delete_series(
        &self,
        tenant: &TenantId,
        selectors: Vec<String>,
        (start, end): (i64, i64),
    ) -> Result<u128, Error> {
        if selectors.is_empty() {
            let reason = "no match[] parameter provided".to_owned();
            let name = "match[]";
            return Err(Error::Parameter { name, reason });
        }
        let bytes: usize = selectors.iter().map(String::len).sum();
        if bytes > block::SELECTOR_BYTES_MAX || selectors.len() > block::SELECTORS_MAX {
            let reason = format!(
                "a deletion has at most {} selectors of {} bytes in all",
                block::SELECTORS_MAX,
                block::SELECTOR_BYTES_MAX
            );
            let name = "match[]";
            return Err(Error::Parameter { name, reason });
        }
        let parse = move || -> Result<Vec<Arc<[Matcher]>>, Error> {
            let parsed = selectors.iter().map(|text| parse_selector(text));
            parsed.map(|list| list.map(Arc::from)).collect()
        };
        let selectors = self.run(parse).await??;
        let deleted = Deleted {
            selectors,
            times: (start, end),
            whole_tenant: false,
        };
        self.delete(tenant, deleted).await
    }

    /// Deletes all that a tenant has.
    pub async fn delete_tenant(&self, tenant: &TenantId) -> Result<u128, Error> {
        let deleted = Deleted {
            selectors: vec![Arc::from([])],
            times: (i64::MIN, i64::MAX),
            whole_tenant: true,
        };
        self.delete(tenant, deleted).await
    }

    /// The blocks of this node. Errors: the series are on other nodes.
    fn held(&self) -> Result<Arc<Catalog>, Error> {
        let reason = "this node holds no series: ask each of its ingesters";
        let elsewhere = || Error::Delete(DeleteError::Invalid(reason.to_owned()));
        self.holders().blocks().cloned().ok_or_else(elsewhere)
    }

    /// Deletes what has been parsed already. Tells the id of the request, of several that of the first.
    ///
    /// Errors: too many live; the state of the node, or of those that did not delete.
    pub async fn delete(&self, tenant: &TenantId, deleted: Deleted) -> Result<u128, Error> {
        let user = [self.metrics.user(tenant)];
        self.metrics.deletes.with_label_values(&user).inc();
        let result = self.ask_to_delete(tenant, deleted).await;
        if result.is_err() {
            self.metrics.deletes_failed.with_label_values(&user).inc();
        }
        result.map_err(Error::Delete)
    }

    async fn ask_to_delete(
        &self,
        tenant: &TenantId,
        deleted: Deleted,
    ) -> Result<u128, DeleteError> {
        let unavailable = |reason: &str| DeleteError::Unavailable(reason.to_owned());
        let canceled = Arc::new(AtomicBool::new(false));
        let _waiting = Waiting(canceled.clone());
        let selectors: Arc<[Arc<[Matcher]>]> = deleted.selectors.into();
        // Cores of this node do it together, whichever is asked.
        let asked = match self.holders().blocks() {
            Some(_) => 1,
            None => self.holders().count(),
        };
        let mut waiting = Vec::with_capacity(usize::from(asked));
        for holder in 0..asked {
            let (sender, receiver) = oneshot::channel();
            let delete = Delete {
                tenant: tenant.clone(),
                selectors: selectors.clone(),
                min_time: deleted.times.0,
                max_time: deleted.times.1,
                whole_tenant: deleted.whole_tenant,
                canceled: canceled.clone(),
                reply: Box::new(move |result| drop(sender.send(result))),
            };
            self.holders().send(holder, Message::Delete(delete));
            waiting.push(receiver);
        }
        let all = async {
            let mut results = Vec::with_capacity(waiting.len());
            for receiver in waiting {
                let gone = |_| Err(unavailable("the node goes down; ask again"));
                results.push(receiver.await.unwrap_or_else(gone));
            }
            results
        };
        let Ok(results) = timeout(WAIT, all).await else {
            let seconds = WAIT.as_secs();
            return Err(unavailable(&format!(
                "not done within {seconds} s; ask again"
            )));
        };
        together(results)
    }

    /// Makes a snapshot of this node, with all that was stored before; without what is in memory alone where `skip_head` says so. Gives its name.
    ///
    /// Errors: the state of the node or of its disk; nothing of it is left then.
    pub async fn snapshot(&self, skip_head: bool) -> Result<String, Error> {
        self.held()?;
        let (sender, receiver) = oneshot::channel();
        let canceled = Arc::new(AtomicBool::new(false));
        let _waiting = Waiting(canceled.clone());
        let snapshot = Snapshot {
            skip_head,
            canceled: canceled.clone(),
            reply: Box::new(move |result| drop(sender.send(result))),
        };
        self.holders().send(0, Message::Snapshot(snapshot));
        match timeout(WAIT, receiver).await {
            Ok(Ok(result)) => result.map_err(Error::Snapshot),
            Ok(Err(_)) => Err(Error::Snapshot("the node goes down".to_owned())),
            Err(_) => {
                let reason = format!("not done within {} s", WAIT.as_secs());
                Err(Error::Snapshot(reason))
            }
        }
    }

    /// The deletions of a tenant that live, and the last ones that are over, oldest first.
    ///
    /// Errors: the bucket, where there is one, does not tell what it has.
    pub async fn deletions(&self, tenant: &TenantId) -> Result<Vec<Deletion>, Error> {
        let catalog = self.held()?;
        let longterm = self.options.longterm.clone();
        let tenant = tenant.clone();
        let list = move || -> Result<Vec<Deletion>, Error> {
            let Some(of) = catalog.deletions().of(&tenant) else {
                return Ok(Vec::new());
            };
            let blocks = blocks_of(&catalog, longterm.as_ref(), &tenant)?;
            let one = |deletion: &Arc<block::Deletion>| {
                let pending =
                    |(id, order, times): &&Block| of.applies(deletion, (*id, *order), *times);
                let blocks_pending = match deletion.over_ms {
                    Some(_) => 0,
                    None => blocks.iter().filter(pending).count() as u64,
                };
                Deletion {
                    id: deletion.id,
                    selectors: deletion.selectors.iter().map(|m| shown(m)).collect(),
                    start: deletion.min_time,
                    end: deletion.max_time,
                    created_ms: deletion.created_ms,
                    over_ms: deletion.over_ms,
                    blocks_pending,
                    missing_on: Vec::new(),
                }
            };
            Ok(of.all().iter().map(one).collect())
        };
        self.run(list).await?
    }

    /// Whether nothing that was stored before a tenant was deleted is left in blocks; also true of one that was not deleted and has none.
    pub async fn is_tenant_deleted(&self, tenant: &TenantId) -> Result<bool, Error> {
        let catalog = self.held()?;
        let longterm = self.options.longterm.clone();
        let tenant = tenant.clone();
        let look = move || -> Result<bool, Error> {
            let of = catalog.deletions().of(&tenant).unwrap_or_default();
            let last = of.all().iter().filter(|one| one.whole_tenant);
            let order = last.map(|one| one.order).max().unwrap_or(u64::MAX);
            let blocks = blocks_of(&catalog, longterm.as_ref(), &tenant)?;
            Ok(blocks.iter().all(|block| block.1 > order))
        };
        self.run(look).await?
    }
}

/// What one says, or all of several: done when all are, and else what each that is not says.
fn together(results: Vec<Result<u128, DeleteError>>) -> Result<u128, DeleteError> {
    let count = results.len();
    let mut first = None;
    let mut failed = Vec::new();
    for result in results {
        match result {
            Ok(id) => first = first.or(Some(id)),
            Err(error) => failed.push(error),
        }
    }
    if count <= 1
        && let Some(error) = failed.pop()
    {
        return Err(error);
    }
    let is_of_caller = |error: &DeleteError| !matches!(error, DeleteError::Unavailable(_));
    let reasons: Vec<String> = failed.iter().map(ToString::to_string).collect();
    let done = count - failed.len();
    match first {
        Some(id) if failed.is_empty() => Ok(id),
        None if failed.is_empty() => {
            let reason = "this node holds no series, and knows nobody who does".to_owned();
            Err(DeleteError::Invalid(reason))
        }
        // What would be refused again is not to be repeated as it is.
        _ if failed.iter().any(is_of_caller) => Err(DeleteError::Invalid(format!(
            "deleted on {done} of {count} ingesters: {}",
            reasons.join("; ")
        ))),
        _ => Err(DeleteError::Unavailable(format!(
            "deleted on {done} of {count} ingesters, ask again: {}",
            reasons.join("; ")
        ))),
    }
}

/// Id, place in the order of logging, and times of a tenant's part of a block.
type Block = longterm::Place;

/// All blocks that have something of a tenant, here and in the bucket.
fn blocks_of(
    catalog: &Catalog,
    longterm: Option<&longterm::Longterm>,
    tenant: &TenantId,
) -> Result<Vec<Block>, Error> {
    let list = catalog.list();
    let here = list.iter().filter_map(|block| {
        let (info, part) = (&block.meta().info, block.part(tenant)?);
        Some((info.id, info.order, (part.min_time, part.max_time)))
    });
    let mut blocks: Vec<Block> = here.collect();
    if let Some(longterm) = longterm {
        let known: HashSet<u128> = blocks.iter().map(|block| block.0).collect();
        let there = longterm.entries(tenant);
        let there = there.map_err(|error| shard::ReadError::Bucket(error.to_string()))?;
        blocks.extend(there.into_iter().filter(|block| !known.contains(&block.0)));
    }
    Ok(blocks)
}

/// Matchers as a selector.
fn shown(matchers: &[Matcher]) -> String {
    let texts: Vec<String> = matchers.iter().map(Matcher::to_string).collect();
    format!("{{{}}}", texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_have_deleted_when_all_have_and_otherwise_those_that_have_not_are_named() {
        let down = || Err(DeleteError::Unavailable("ingester b: is down".to_owned()));
        let full = || Err(DeleteError::Invalid("ingester c: too many".to_owned()));
        assert_eq!(together(vec![Ok(7), Ok(8)]), Ok(7));
        assert_eq!(
            together(vec![Err(DeleteError::TooMany(3))]),
            Err(DeleteError::TooMany(3))
        );
        let error = together(vec![Ok(7), down(), Ok(8)]).unwrap_err();
        assert!(matches!(error, DeleteError::Unavailable(_)));
        let text = "deleted on 2 of 3 ingesters, ask again: ingester b: is down";
        assert_eq!(error.to_string(), text);
        let error = together(vec![down(), full()]).unwrap_err();
        assert!(matches!(error, DeleteError::Invalid(_)));
        let text = "deleted on 0 of 2 ingesters: ingester b: is down; ingester c: too many";
        assert_eq!(error.to_string(), text);
        assert!(together(Vec::new()).is_err());
    }
}
