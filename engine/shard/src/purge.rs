//! Deletions on a core: what matches loses a range of times, series by series, in slices between commits (`docs/decisions/0014-deletions.md`).
//!
//! 1. The selectors go into the log: the deletion begins.
//! 2. Each selector is resolved like one of a read. Each candidate, when its turn comes, is taken out of memory (`memtable::purge`) and named in the log. So for
//!    every series the deletion has *one place in the order of the log*: what was logged before is gone, what comes behind stays, whatever its time.
//! 3. An end goes into the log; when it is durable the core answers.
//!
//! Reads that have yet to visit a series do so before it changes. A deletion that ends early (a chunk that cannot be read, the log has failed) has deleted a part;
//! the answer says so, and asking again goes on.
//!
//! No core cuts meanwhile: the keeper holds the turn (`cut::write`). One deletion at a time is under way on a node, so the queue here is short.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Ack, Lsn, Matcher, SeriesRef, TenantId, TimeMs};
use wal::{Error, Record, TombstoneRecord};

use crate::core::Core;
use crate::index::resolve::{Candidates, Resolution};
use crate::limits::{PURGE_SLICE_READS, READ_SLICE_SERIES, SCAN_SLICE_VALUES};
use crate::message::ReadError;
use crate::release::Reply;

/// Deletes on one core.
pub(crate) struct Purge {
    pub(crate) tenant: TenantId,
    /// A series that passes all matchers of one of them is meant.
    pub(crate) selectors: Arc<[Arc<[Matcher]>]>,
    /// Inclusive.
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    /// Called once: when all is durable, or why it is not done.
    pub(crate) reply: Box<dyn FnOnce(Result<u64, String>) + Send>,
}

/// The deletions of one core.
#[derive(Default)]
pub(crate) struct Purges {
    active: Option<Active>,
    waiting: VecDeque<Purge>,
    /// Series from which something was deleted.
    pub(crate) series: u64,
    /// Where the log ended after the last of them.
    pub(crate) tail: Lsn,
}

struct Active {
    purge: Purge,
    /// Whether its beginning is in the log.
    begun: bool,
    /// The selector at work.
    selector: usize,
    stage: Stage,
    /// Numbers of series that die from here on are not given out while it goes on.
    read: u64,
    changed: u64,
}

enum Stage {
    Begin,
    Resolve(Resolution),
    Visit { candidates: Candidates, next: usize },
}

/// Room in the log for a series that is named.
const PURGE_BYTES: usize = wal::SAMPLE_ROOM + 32;

impl Purges {
    pub(crate) fn push(&mut self, purge: Purge) {
        self.waiting.push_back(purge);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_none() && self.waiting.is_empty()
    }

    /// Ends all that is here.
    pub(crate) fn abort(&mut self, reason: &str) {
        let active = self.active.take().map(|active| active.purge);
        for purge in active.into_iter().chain(self.waiting.drain(..)) {
            (purge.reply)(Err(reason.to_owned()));
        }
    }

    /// Reads that begin behind this one hold no number that may be given out; `next` where no deletion is under way.
    pub(crate) fn oldest_read(&self, next: u64) -> u64 {
        self.active.as_ref().map_or(next, |active| active.read)
    }
}

impl Active {
    fn log_bytes(&self) -> usize {
        let matchers = self.purge.selectors.iter().flat_map(|list| list.iter());
        let texts = matchers.map(|m| m.name().len() + m.value().len() + 16);
        match self.begun {
            true => (READ_SLICE_SERIES + 1) * PURGE_BYTES,
            false => texts.sum::<usize>() + (self.purge.selectors.len() + 1) * 512,
        }
    }
}

impl Core {
    /// Whether a slice would get further without any event.
    pub(crate) fn purge_has_work(&self) -> bool {
        let bytes = match &self.purges.active {
            Some(active) => active.log_bytes(),
            None if self.purges.waiting.is_empty() => return false,
            None => 0,
        };
        let full = matches!(self.log.admit(bytes), Err(Error::QueueFull { .. }));
        let walks = self.checkpoints.is_walking();
        !full && !self.memtable.chunks.is_behind() && !self.is_sweeping() && !walks
    }

    /// Does a slice of the deletion under way.
    pub(crate) fn slice_purge(&mut self) {
        // It goes on when the collection is over, or the walk of a checkpoint: replay could not tell what that names from what was there before.
        if self.is_sweeping() || self.checkpoints.is_walking() {
            return;
        }
        if self.purges.active.is_none() {
            let Some(purge) = self.purges.waiting.pop_front() else {
                return;
            };
            self.purges.active = Some(Active {
                purge,
                begun: false,
                selector: 0,
                stage: Stage::Begin,
                read: self.reads.take_number(),
                changed: 0,
            });
        }
        let mut active = self.purges.active.take().expect("begun above");
        if self.memtable.chunks.is_behind() {
            if let Some(reason) = self.memtable.chunks.no_space() {
                let reason = format!("no space for chunks: {reason}");
                return (active.purge.reply)(Err(reason));
            }
            self.purges.active = Some(active);
            return;
        }
        match self.log.admit(active.log_bytes()) {
            Ok(()) => {}
            Err(Error::QueueFull { .. }) => {
                self.purges.active = Some(active);
                return;
            }
            Err(error) => return (active.purge.reply)(Err(error.to_string())),
        }
        match self.purge_some(&mut active) {
            Ok(false) => self.purges.active = Some(active),
            Ok(true) => self.finish_purge(active),
            Err(reason) => {
                self.note_purged(&active);
                (active.purge.reply)(Err(reason));
            }
        }
    }

    /// True when it is complete.
    fn purge_some(&mut self, active: &mut Active) -> Result<bool, String> {
        if !active.begun {
            for matchers in &*active.purge.selectors {
                let matchers = matchers.iter();
                let record = Record::Tombstone(TombstoneRecord {
                    tenant: &active.purge.tenant,
                    first: TimeMs(active.purge.min_time),
                    last: TimeMs(active.purge.max_time),
                    matchers: matchers.map(|m| (m.op(), m.name(), m.value())).collect(),
                });
                let logged = self.log.append(&record);
                logged.map_err(|error| error.to_string())?;
            }
            active.begun = true;
        }
        let Some(slot) = self.memtable.find_tenant(&active.purge.tenant) else {
            return Ok(true);
        };
        let Some(matchers) = active.purge.selectors.get(active.selector) else {
            return Ok(true);
        };
        let memtable = &mut self.memtable;
        let tenant = memtable.tenants[slot as usize].as_mut();
        let index = &mut tenant.expect("found above").index;
        match std::mem::replace(&mut active.stage, Stage::Begin) {
            Stage::Begin => {
                let resolution = Resolution::new(index, &memtable.secret, matchers.clone());
                active.stage = Stage::Resolve(resolution);
            }
            Stage::Resolve(mut resolution) => {
                active.stage = match resolution.step(index, SCAN_SLICE_VALUES) {
                    false => Stage::Resolve(resolution),
                    true => Stage::Visit {
                        candidates: resolution.finish(index, &memtable.secret),
                        next: 0,
                    },
                };
            }
            Stage::Visit {
                mut candidates,
                mut next,
            } => {
                let end = candidates.series.len().min(next + READ_SLICE_SERIES);
                let mut reads = 0;
                while next < end && reads < PURGE_SLICE_READS {
                    let series = candidates.series[next];
                    reads += self.purge_series(active, &mut candidates, slot, series)?;
                    next += 1;
                }
                match next == candidates.series.len() {
                    true => active.selector += 1,
                    false => active.stage = Stage::Visit { candidates, next },
                }
            }
        }
        Ok(false)
    }

    /// Deletes from one candidate; tells how many chunks had to be read.
    fn purge_series(
        &mut self,
        active: &mut Active,
        candidates: &mut Candidates,
        slot: u32,
        series: u32,
    ) -> Result<usize, String> {
        let memtable = &mut self.memtable;
        if !memtable.is_live(series) || memtable.rows[series].tenant != slot {
            return Ok(0);
        }
        let index = &memtable.tenant(slot).index;
        if !candidates.passes(index, &memtable.colds[series].pairs) {
            return Ok(0);
        }
        if self.reads.watch(slot) {
            self.reads.before_late(memtable, series);
        }
        let (first, last) = (active.purge.min_time, active.purge.max_time);
        let purged = memtable.purge(series, first, last)?;
        // Also where nothing was in the range: replay has to know that this series was looked at.
        let logged = self.log.append(&Record::Purge {
            series: SeriesRef(series),
            first: TimeMs(first),
            last: TimeMs(last),
        });
        logged.expect("it is a few bytes");
        active.changed += u64::from(purged.changed);
        // Reads wait for what they see.
        self.purges.tail = self.log.tail();
        memtable.tenant_mut(slot).tail = self.log.tail();
        Ok(purged.reads)
    }

    fn finish_purge(&mut self, active: Active) {
        let selectors = active.purge.selectors.len() as u64;
        let logged = self.log.append(&Record::PurgeEnd { selectors });
        logged.expect("it is a few bytes");
        self.note_purged(&active);
        let (reply, changed) = (active.purge.reply, active.changed);
        let deliver = Box::new(move |released: Result<(), ReadError>| {
            reply(released.map(|()| changed).map_err(|e| e.to_string()));
        });
        let tail = self.log.tail();
        self.release.wait(Ack::Durable, tail, Reply::Read(deliver));
        self.submit(true);
    }

    /// Whoever keeps results is told.
    fn note_purged(&mut self, active: &Active) {
        self.purges.series += active.changed;
        let changes = self.mailboxes.changes();
        changes.note(&active.purge.tenant, active.purge.min_time);
    }
}
