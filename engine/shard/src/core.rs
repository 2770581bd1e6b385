//! A core: one struct that owns a share of the series whole. Its loop is *select an event, apply it*.
//!
//! A turn ([`Core::turn`]): look at the reactor (block only if there is nothing to do) and at the mailbox, apply what came, commit
//! what has queued up, do one slice of one read, checkpoint or collection, publish the numbers. Nothing here waits and nothing is
//! locked; tests drive a core by calling `turn` on a simulated machine. Cores that share a thread are turned by their `crew`.
//!
//! States: serving; *poisoned* after a failed write, for good: writes are refused, reads of durable data answered until the
//! linger is over; *stopping*: the mailbox is closed, what was taken is finished, a last checkpoint makes the next start
//! quick; *stopped*.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{Ack, CoreId};
use reactor::{Event, OpResult, Reactor, Tick};
use wal::Log;

use crate::Memory;
use crate::checkpoint::Checkpoints;
use crate::chunkfile::Broken;
use crate::cut::Cuts;
use crate::health::Published;
use crate::limits::{CHUNK_LOOKUPS_MAX, GC_INTERVAL_S, GC_SLICE_ROWS};
use crate::mailbox::Mailboxes;
use crate::memtable::Memtable;
use crate::memtable::gc::{Collection, seconds};
use crate::message::{Message, Push, ReadError, Refusal, StatsQuery, TenantStats};
use crate::metrics::Observers;
use crate::purge::Purges;
use crate::read::{Ask, Hidden, Reads};
use crate::release::{Release, Reply};
use crate::steps::Steps;

/// Tokens of the reactor below this belong to the log.
const TOKEN_GC: u64 = 1000;
const TOKEN_LINGER: u64 = 1001;
/// Of the chunk files: their operation in flight, and their timer for space.
pub(crate) const TOKEN_CHUNKS: u64 = 1002;

/// See the module.
pub(crate) struct Core {
    pub(crate) id: CoreId,
    pub(crate) reactor: Reactor,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) memtable: Memtable,
    pub(crate) log: Log,
    /// Taken from the mailbox, not yet in a commit.
    pub(crate) pushes: VecDeque<Push>,
    pub(crate) release: Release,
    pub(crate) reads: Reads,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) cuts: Cuts,
    pub(crate) purges: Purges,
    collection: Option<Collection>,
    collection_due: bool,
    poison: Option<Refusal>,
    /// Samples in memory that never became durable; empty unless poisoned.
    hidden: Hidden,
    /// The core is poisoned, and what it holds lacks what was deleted without becoming durable: nothing is read any more.
    unreadable: bool,
    poison_linger: Duration,
    stop: Option<Box<dyn FnOnce() + Send>>,
    stopped: bool,
    events: Vec<Event>,
    /// Clocks of this turn.
    pub(crate) wall_ms: i64,
    now: Tick,
    pub(crate) counts: Counts,
    steps: Steps,
    pub(crate) memory: Memory,
    pub(crate) published: Arc<Published>,
    observers: Observers,
    submitted_at: Option<Tick>,
}

/// What is counted here and not elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) rejected: u64,
    /// Samples of series that were not made for want of memory.
    pub(crate) no_memory: u64,
    pub(crate) repeated: u64,
    /// Samples stored that were older than the newest of their series.
    pub(crate) late: u64,
    pushes: u64,
}

/// What a core is made of.
pub(crate) struct Parts {
    pub(crate) id: CoreId,
    pub(crate) reactor: Reactor,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) memtable: Memtable,
    pub(crate) log: Log,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) cuts: Cuts,
    pub(crate) published: Arc<Published>,
    pub(crate) observers: Observers,
    pub(crate) poison_linger: Duration,
    pub(crate) memory: Memory,
}

impl Core {
    /// A core that is ready to serve.
    pub(crate) fn new(parts: Parts) -> Core {
        let Parts {
            id,
            mut reactor,
            mailboxes,
            mut memtable,
            log,
            checkpoints,
            cuts,
            ..
        } = parts;
        let bell = reactor.doorbell();
        let post = mailboxes.of(id).post();
        post.set_bell(Box::new(move || bell.ring()));
        let wall_ms = reactor.wall_ms();
        if memtable.totals.series > 0 {
            memtable.written_from_s = seconds(wall_ms).saturating_add(1);
        }
        reactor.set_timer(
            reactor.now().after(Duration::from_secs(GC_INTERVAL_S)),
            TOKEN_GC,
        );
        let mut core = Core {
            id,
            reactor,
            mailboxes,
            memtable,
            log,
            pushes: VecDeque::new(),
            release: Release::default(),
            reads: Reads::default(),
            checkpoints,
            cuts,
            purges: Purges::default(),
            collection: None,
            collection_due: false,
            poison: None,
            hidden: Hidden::new(),
            unreadable: false,
            poison_linger: parts.poison_linger,
            stop: None,
            stopped: false,
            events: Vec::new(),
            wall_ms,
            now: Tick::ZERO,
            counts: Counts::default(),
            steps: Steps::default(),
            memory: parts.memory,
            published: parts.published,
            observers: parts.observers,
            submitted_at: None,
        };
        core.publish();
        core
    }

    /// From now on the health says that this core serves.
    pub(crate) fn mark_serving(&self) {
        self.published.serving.store(true, Ordering::Relaxed);
    }

    /// Turns the loop until the core has stopped.
    pub(crate) fn run(&mut self) {
        while self.turn() {}
        self.mark_stopped();
    }

    /// It has stopped.
    pub(crate) fn mark_stopped(&self) {
        self.published.serving.store(false, Ordering::Relaxed);
    }

    /// One turn. False: the core has stopped.
    pub(crate) fn turn(&mut self) -> bool {
        self.turn_until(None)
    }

    /// One turn that does not sleep beyond `until`.
    pub(crate) fn turn_until(&mut self, until: Option<Tick>) -> bool {
        match self.has_work() {
            true => self.reactor.poll(&mut self.events),
            false => {
                if self.log.is_writing() && until.is_none() {
                    self.mailboxes.of(self.id).post().doze();
                }
                self.reactor.wait(until, &mut self.events);
            }
        }
        self.mailboxes.of(self.id).post().wake();
        let begun = self.reactor.now();
        self.look(begun, self.reactor.wall_ms());
        self.work(begun);
        !self.stopped
    }

    /// The first half of a turn, at this time of both clocks: hears what has happened, takes what was sent.
    pub(crate) fn look(&mut self, now: Tick, wall_ms: i64) {
        (self.now, self.wall_ms) = (now, wall_ms);
        let mut events = std::mem::take(&mut self.events);
        self.reactor.take(&mut events);
        for event in events.drain(..) {
            self.apply(event);
        }
        self.events = events;
        while let Some(message) = self.mailboxes.of(self.id).take() {
            self.accept(message);
        }
    }

    /// The second half: does it. `begun` is when that turn began, the time when it ended is returned.
    pub(crate) fn work(&mut self, begun: Tick) -> Tick {
        self.steps.begin(begun, &self.reactor);
        self.memtable.chunks.allow_lookups(CHUNK_LOOKUPS_MAX);
        self.commit();
        self.slice();
        self.finish_stop();
        let now = self.reactor.now();
        self.steps.end(now.since(begun), &self.reactor);
        self.publish();
        now
    }

    /// Whether a turn would find something to do: events, messages, or work of its own.
    pub(crate) fn is_due(&self) -> bool {
        self.reactor.has_events() || !self.mailboxes.of(self.id).is_empty() || self.has_work()
    }

    /// Whether it has stopped: everything is answered, it is not to be turned any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a turn would find something to do without any event.
    pub(crate) fn has_work(&self) -> bool {
        let pushes = self
            .pushes
            .front()
            .is_some_and(|push| self.admit(push).is_some());
        let collection = self.collection.is_some() || self.collection_due;
        let background = collection
            || (self.checkpoints).has_work(&self.memtable, self.cuts.holds_checkpoints())
            || self.cut_has_work()
            || self.purge_has_work()
            || self.memtable.chunks.has_work();
        pushes || !self.reads.is_idle() || (background && self.poison.is_none())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Doorbell => {} // The mailbox is looked at in every turn.
            Event::Timer(TOKEN_GC) => {
                self.collection_due = true;
                self.tick_cuts();
                let at = self.reactor.now().after(Duration::from_secs(GC_INTERVAL_S));
                self.reactor.set_timer(at, TOKEN_GC);
            }
            Event::Timer(TOKEN_LINGER) => {
                self.published.linger_over.store(true, Ordering::Relaxed);
            }
            Event::Timer(TOKEN_CHUNKS) => self.memtable.chunks.retry(),
            Event::Completion {
                token: TOKEN_CHUNKS,
                result,
            } => self.chunks_event(result),
            event if self.log.owns(&event) => {
                let before = self.log.written();
                if let Err(error) = self.log.on_event(&mut self.reactor, event) {
                    self.poison(error.to_string());
                }
                if self.log.written() > before {
                    self.note_commit();
                }
            }
            event => self.checkpoint_event(event),
        }
    }

    fn accept(&mut self, message: Message) {
        if self.unreadable && message.is_read() {
            let refusal = self.poison.clone().expect("it is poisoned");
            self.mailboxes.of(self.id).read_done();
            return message.refuse(refusal);
        }
        match message {
            Message::Push(push) => {
                self.counts.pushes += 1;
                self.pushes.push_back(push);
            }
            Message::Select(select)
                if (select.with_exemplars || select.with_starts) && self.poison.is_some() =>
            {
                // Which of them became durable is not known.
                let refusal = self.poison.clone().expect("looked at above");
                self.mailboxes.of(self.id).read_done();
                (select.reply)(Err(ReadError::Refused(refusal)));
            }
            Message::Select(select) => self.reads.push(Ask::Select(select), self.now),
            Message::Labels(query) => self.reads.push(Ask::Labels(query), self.now),
            Message::Stats(query) => self.answer_stats(query),
            Message::Cardinality(query) => self.reads.push(Ask::Cardinality(query), self.now),
            Message::Estimate(query) => self.reads.push(Ask::Estimate(query), self.now),
            Message::Checkpoint(reply) => match &self.poison {
                Some(refusal) => reply(Err(refusal.to_string())),
                None => self.checkpoints.request(reply),
            },
            Message::Flush(flush) => match &self.poison {
                Some(refusal) => (flush.reply)(Err(refusal.to_string())),
                None => self.request_flush(flush),
            },
            Message::Purge(purge) => match &self.poison {
                Some(refusal) => (purge.0.reply)(Err(refusal.to_string())),
                None => self.purges.push(purge.0),
            },
            Message::Delete(delete) => self.cuts.order_delete(delete),
            Message::Snapshot(snapshot) => self.cuts.order_snapshot(snapshot),
            Message::Retentions(retentions) => self.memtable.set_retentions(retentions),
            Message::ExemplarsMax(max) => {
                let cores = self.mailboxes.count();
                self.memtable.bound_exemplars(&max, cores);
            }
            Message::Blocks(news) => self.cut_event(news.0),
            Message::Stop(reply) => {
                self.mailboxes.of(self.id).close();
                self.give_up_cut("the node stops");
                self.purges.abort("the node stops");
                if self.poison.is_none() {
                    self.checkpoints.request(Box::new(|_| {}));
                }
                match self.stop.is_none() {
                    true => self.stop = Some(reply),
                    false => reply(),
                }
            }
        }
    }

    /// Sees to it that what was appended gets to the disk.
    pub(crate) fn submit(&mut self, durable: bool) {
        if self.poison.is_some() {
            return;
        }
        self.log.submit(&mut self.reactor, durable);
        if self.submitted_at.is_none() && self.log.written() < self.log.tail() {
            self.submitted_at = Some(self.reactor.now());
        }
    }

    fn note_commit(&mut self) {
        if let Some(at) = self.submitted_at.take() {
            let took = self.reactor.now().since(at);
            self.observers.commit_seconds.observe(took.as_secs_f64());
        }
    }

    /// A slice of whatever else there is to do: one read's, the checkpoint's, the collection's.
    fn slice(&mut self) {
        if let Some(answer) = self.reads.slice(&mut self.memtable, &self.hidden) {
            self.mailboxes.of(self.id).read_done();
            let took = self.reactor.now().since(answer.begun);
            self.observers.read_seconds.observe(took.as_secs_f64());
            let reached = match answer.ack {
                Ack::Durable => self.log.durable(),
                Ack::Written => self.log.written(),
            };
            // Of a poisoned core: what never became durable was hidden from it.
            if answer.tail <= reached || self.poison.is_some() {
                (answer.deliver)(Ok(()));
            } else {
                self.release
                    .wait(answer.ack, self.log.tail(), Reply::Read(answer.deliver));
                self.submit(answer.ack == Ack::Durable);
            }
        }
        if self.poison.is_none() {
            self.slice_checkpoint();
            self.slice_cut();
            self.slice_purge();
            self.slice_collection();
            if let Some(op) = self.memtable.chunks.next_op(&mut self.reactor) {
                self.reactor.submit(op, TOKEN_CHUNKS);
            }
        }
    }

    /// An operation on the chunk files has ended.
    fn chunks_event(&mut self, result: OpResult) {
        match self.memtable.chunks.complete(&mut self.reactor, result) {
            Ok(()) => {}
            Err(Broken::NoSpace) => {
                let again = self
                    .reactor
                    .now()
                    .after(Duration::from_millis(wal::SPACE_RETRY_MS));
                self.reactor.set_timer(again, TOKEN_CHUNKS);
            }
            Err(Broken::Failed(reason)) => self.poison(reason),
        }
    }

    pub(crate) fn release_now(&mut self) {
        self.release.release(
            self.log.durable(),
            self.log.written(),
            self.id,
            &self.mailboxes,
        );
    }

    fn slice_collection(&mut self) {
        if self.collection_due && self.collection.is_none() {
            self.collection_due = false;
            self.collection = Some(self.memtable.begin_collection(self.wall_ms));
            let segment = self.checkpoints.oldest_segment();
            let oldest = self.purges.oldest_read(self.reads.oldest());
            let oldest = oldest.min(self.reads.oldest());
            self.memtable.reuse_numbers_before(segment, oldest);
            if self.memtable.numbers_wait() {
                self.checkpoints.want(&self.log);
            }
            let now = self.log.reserve_sample();
            self.memtable.chunks.sweep(now, segment);
        }
        if let Some(round) = &mut self.collection {
            let (segment, read) = (self.log.reserve_sample(), self.reads.next());
            if self.memtable.collect(round, segment, read, GC_SLICE_ROWS) {
                self.collection = None;
            }
        }
    }

    /// Whether no series may die at the moment.
    pub(crate) fn is_sweeping(&self) -> bool {
        self.collection
            .as_ref()
            .is_some_and(Collection::is_sweeping)
    }

    /// Why the core takes no writes any more, if so.
    pub(crate) fn is_poisoned_by(&self) -> Option<&Refusal> {
        self.poison.as_ref()
    }

    /// The log, or a chunk file, has failed. Nothing that waits for it will ever be durable: it is refused, and hidden from reads from now on.
    pub(crate) fn poison(&mut self, reason: String) {
        if self.poison.is_some() {
            return;
        }
        let refusal = Refusal::Poisoned {
            core: self.id.0,
            reason: reason.clone(),
        };
        // What the log reached before it failed is acknowledged.
        self.release_now();
        self.unreadable = self.purges.tail > self.log.durable();
        let lost = self.release.fail(&refusal, self.id, &self.mailboxes);
        self.hidden = lost.from;
        for (series, time) in lost.late {
            self.memtable.take_back_late(series, time);
        }
        for deliver in self.reads.abort(&ReadError::Refused(refusal.clone())) {
            self.mailboxes.of(self.id).read_done();
            deliver(Err(ReadError::Refused(refusal.clone())));
        }
        self.checkpoints.abort(&refusal.to_string());
        self.give_up_cut(&refusal.to_string());
        self.purges.abort(&refusal.to_string());
        self.poison = Some(refusal);
        let _ = self.published.poison.set(reason);
        self.reactor
            .set_timer(self.reactor.now().after(self.poison_linger), TOKEN_LINGER);
    }

    /// When everything that was taken is answered and the last checkpoint is made, the core has stopped.
    fn finish_stop(&mut self) {
        let idle = self.pushes.is_empty()
            && self.reads.is_idle()
            && self.purges.is_idle()
            && self.release.is_empty()
            && (self.poison.is_some()
                || self.checkpoints.is_idle()
                // It would wait for ever; the log has everything.
                || self.memtable.chunks.no_space().is_some());
        if idle && let Some(reply) = self.stop.take() {
            self.stopped = true;
            reply();
        }
    }

    /// Counts show what was pushed, so they wait for the log as every read does.
    fn answer_stats(&mut self, query: StatsQuery) {
        let wanted = |tenant: &&crate::memtable::Tenant| {
            query
                .tenant
                .as_ref()
                .is_none_or(|wanted| *wanted == tenant.id)
        };
        let tenants = self.memtable.tenants.iter().flatten().filter(wanted);
        let (mut stats, mut durable) = (Vec::new(), true);
        for tenant in tenants {
            durable &= match tenant.ack {
                Ack::Durable => tenant.tail <= self.log.durable(),
                Ack::Written => tenant.tail <= self.log.written(),
            };
            stats.push(TenantStats {
                tenant: tenant.id.clone(),
                series: tenant.series,
                active: tenant.active(),
                blocks: 0,
                samples: tenant.samples,
                min_time: tenant.oldest,
                max_time: tenant.newest,
            });
        }
        let reply = query.reply;
        if durable || self.poison.is_some() {
            return reply(Ok(stats));
        }
        let deliver = Box::new(move |released: Result<(), ReadError>| {
            reply(released.map(|()| stats));
        });
        let tail = self.log.tail();
        self.release.wait(Ack::Durable, tail, Reply::Read(deliver));
        self.submit(true);
    }

    fn publish(&mut self) {
        let (published, totals, counts) = (&*self.published, &self.memtable.totals, &self.counts);
        let (log, chunks, steps) = (self.log.stats(), &self.memtable.chunks, &self.steps);
        for (counter, value) in [
            (&published.series, totals.series),
            (&published.series_created, totals.created),
            (&published.series_removed, totals.removed),
            (&published.parked, totals.parked),
            (
                &published.oldest_unflushed_s,
                self.memtable.oldest_unflushed_s,
            ),
            (&published.chunks, totals.sealed_chunks),
            (&published.chunk_bytes, totals.sealed_bytes),
            (&published.chunk_files, chunks.file_count() as u64),
            (&published.chunk_file_bytes, chunks.stats.written_bytes),
            (
                &published.chunk_pending_bytes,
                chunks.pending_bytes() as u64,
            ),
            (&published.chunk_lookups, chunks.stats.looked_up),
            (&published.cuts, self.cuts.made),
            (&published.cuts_failed, self.cuts.failed),
            (&published.cut_chunks, self.cuts.moved_chunks),
            (&published.samples, totals.samples),
            (&published.tenants, self.memtable.tenant_count() as u64),
            (&published.samples_rejected, counts.rejected),
            (&published.samples_repeated, counts.repeated),
            (&published.samples_late, counts.late),
            (&published.samples_no_memory, counts.no_memory),
            (&published.pushes, counts.pushes),
            (&published.reads, self.reads.answered),
            (&published.turns, steps.turns),
            (&published.stalls, steps.stalls),
            (&published.busy_us, steps.busy.as_micros() as u64),
            (&published.longest_step_us, steps.longest.as_micros() as u64),
            (&published.commits, log.commits),
            (&published.log_record_bytes, log.record_bytes),
            (&published.log_bytes, log.commit_bytes),
            (&published.segments, self.log.segment_count() as u64),
            (&published.checkpoints_begun, self.checkpoints.begun),
            (&published.checkpoints_failed, self.checkpoints.failed),
            (&published.checkpoint_bytes, self.checkpoints.bytes),
            (&published.memory_bytes, self.memtable.accounts.sum() as u64),
            (&published.poisoned, u64::from(self.poison.is_some())),
        ] {
            Published::set(counter, value);
        }
        let no_space = matches!(self.log.health(), wal::Health::NoSpace(_))
            || self.memtable.chunks.no_space().is_some();
        published.no_space.store(no_space, Ordering::Relaxed);
    }
}
