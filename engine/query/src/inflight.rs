//! Queries in flight: who asks what since when, for people who want to see or stop them, and for the file that names the query
//! of death after a crash.
//!
//! An entry exists from the moment a request wants its turn to its end, so those that wait can be killed too; that of a remote read to the
//! end of its stream. The file is a
//! [`Journal`] that the node hands in; it is written by the worker that is about to begin, never by a gateway thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::TenantId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::memory::Account;
use crate::workers::Jobs;

/// Where queries at work are written down.
pub trait Journal: Send + Sync + fmt::Debug {
    /// Writes an entry (as much of it as fits) and returns its slot; `None` where there is no room or no file.
    fn enter(&self, entry: &str) -> Option<usize>;
    /// Empties a slot.
    fn leave(&self, slot: usize);
}

/// A query in flight, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its number, unique in this process.
    pub id: u64,
    /// Whose.
    pub tenant: TenantId,
    /// `query`, `query_range`, `series` and so on.
    pub operation: &'static str,
    /// The text.
    pub text: String,
    /// Wall clock at its beginning, milliseconds.
    pub since_ms: i64,
    /// How long ago that is.
    pub elapsed: Duration,
    /// It has its turn.
    pub at_work: bool,
    /// Bytes held.
    pub memory_bytes: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    entries: Mutex<BTreeMap<u64, Arc<Entry>>>,
    next: AtomicU64,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Entry {
    id: u64,
    tenant: TenantId,
    operation: &'static str,
    text: Arc<str>,
    since_ms: i64,
    begun: Instant,
    at_work: AtomicBool,
    killed: Notify,
    was_killed: AtomicBool,
    pub(crate) account: Arc<Account>,
}

/// Keeps an entry in the list.
#[derive(Debug)]
pub(crate) struct Listed {
    inflight: Arc<Inflight>,
    pub(crate) entry: Arc<Entry>,
}

impl Inflight {
    pub(crate) fn enter(
        self: &Arc<Inflight>,
        tenant: &TenantId,
        operation: &'static str,
        text: &str,
        since_ms: i64,
        account: Arc<Account>,
    ) -> Listed {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = Arc::new(Entry {
            id,
            tenant: tenant.clone(),
            operation,
            text: Arc::from(text),
            since_ms,
            begun: Instant::now(),
            at_work: AtomicBool::new(false),
            killed: Notify::new(),
            was_killed: AtomicBool::new(false),
            account,
        });
        self.entries().insert(id, entry.clone());
        Listed {
            inflight: self.clone(),
            entry,
        }
    }

    /// Those of one tenant or of all, oldest first.
    pub(crate) fn list(&self, tenant: Option<&TenantId>) -> Vec<Running> {
        let entries = self.entries();
        let of = |entry: &&Arc<Entry>| tenant.is_none_or(|tenant| *tenant == entry.tenant);
        entries.values().filter(of).map(|e| e.show()).collect()
    }

    /// Ends one. False where there is none of that number (of that tenant).
    pub(crate) fn kill(&self, tenant: Option<&TenantId>, id: u64) -> bool {
        let entries = self.entries();
        let found = entries.get(&id);
        let found = found.filter(|entry| tenant.is_none_or(|tenant| *tenant == entry.tenant));
        if let Some(entry) = found {
            entry.was_killed.store(true, Ordering::Relaxed);
            entry.killed.notify_one();
        }
        found.is_some()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// It has its turn.
    pub(crate) fn begin(&self) {
        self.at_work.store(true, Ordering::Relaxed);
    }

    /// Resolves when somebody kills it.
    pub(crate) async fn killed(&self) {
        self.killed.notified().await;
    }

    /// Whether somebody has killed it, for work that nobody awaits.
    pub(crate) fn was_killed(&self) -> bool {
        self.was_killed.load(Ordering::Relaxed)
    }

    fn show(&self) -> Running {
        Running {
            id: self.id,
            tenant: self.tenant.clone(),
            operation: self.operation,
            text: self.text.to_string(),
            since_ms: self.since_ms,
            elapsed: self.begun.elapsed(),
            at_work: self.at_work.load(Ordering::Relaxed),
            memory_bytes: self.account.held(),
        }
    }

    /// The line of the journal: JSON, so that it can be read by people and tools; the query last, since a long one is cut off.
    fn line(&self) -> String {
        let mut line = format!(
            "{{\"timestamp_sec\":{},\"tenant\":{:?},\"operation\":{:?},\"query\":",
            self.since_ms.div_euclid(1000),
            self.tenant.as_str(),
            self.operation
        );
        put_json_string(&mut line, &self.text);
        line.push('}');
        line
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.inflight.entries().remove(&self.entry.id);
    }
}

/// An entry in the journal; emptied, on a worker, when dropped.
#[derive(Debug)]
pub(crate) struct Written {
    journal: Arc<dyn Journal>,
    workers: Jobs,
    slot: usize,
}

impl Written {
    /// Writes it down. Blocks for a write to the page cache: only on a worker.
    pub(crate) fn down(journal: Arc<dyn Journal>, workers: Jobs, entry: &Entry) -> Option<Written> {
        let slot = journal.enter(&entry.line())?;
        Some(Written {
            journal,
            workers,
            slot,
        })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let (journal, slot) = (self.journal.clone(), self.slot);
        self.workers.post(move || journal.leave(slot));
    }
}

fn put_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}
