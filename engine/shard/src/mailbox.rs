//! The way into a core: one queue each, bounded by bytes.
//!
//! A push first takes credits of **all** cores it will be sent to ([`Mailboxes::reserve`]); when one of them has none left
//! nothing has been sent and nothing stored. The credits travel in [`Push::credits`] and come back when the core has replied,
//! so they bound what waits *and* what is in a commit. Reads are bounded by number. A closed mailbox (the core has stopped)
//! answers by itself: every reply is called exactly once, whatever happens.
//!
//! Every message rings the bell of its core; a bell costs a system call only when the core sleeps (`reactor::Doorbell`). Pushes need
//! less. A core that *dozes*, asleep until the write of its log ends, is not woken for a push unless a good deal of work waits already
//! ([`DOZE_SAMPLES`]): what came meanwhile goes into the next commit either way, all of it at once. And a gateway thread that has further bodies
//! at hand may wake the core after the last of them ([`Permits::put`], [`Mailboxes::ring`]).

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use block::Catalog;
use crossbeam::queue::SegQueue;
use model::CoreId;
use smallvec::SmallVec;

use crate::message::{Message, Push, PushOutcome, ReadError, Refusal};

/// A core that dozes is woken early for so many samples: half a millisecond of work that is better done while the disk writes.
const DOZE_SAMPLES: u32 = 4096;

/// A core that sleeps is woken at once for so many samples; for fewer when the sender has nothing else at hand.
const WAKE_SAMPLES: u32 = 1000;

/// Wakes a core from its wait; called from any thread.
pub(crate) type Bell = Box<dyn Fn() + Send + Sync>;

/// Handles on the mailboxes of all cores; cheap to clone, held by every gateway thread.
///
/// With them comes what the cores have written and let go: whoever reads asks the cores first and then looks into the blocks, so that a sample that
/// moves meanwhile is seen twice rather than not at all.
#[derive(Clone)]
pub struct Mailboxes {
    cores: Arc<[Mailbox]>,
    blocks: Arc<Catalog>,
}

pub(crate) struct Mailbox {
    core: CoreId,
    queue: SegQueue<Message>,
    bytes: AtomicU64,
    bytes_max: u64,
    reads: AtomicU32,
    reads_max: u32,
    closed: AtomicBool,
    /// The core sleeps until the write in flight ends, which it will.
    dozing: AtomicBool,
    /// Samples that came since the core looked; a hint.
    samples: AtomicU32,
    bell: OnceLock<Bell>,
}

/// Credits of one push on one or several cores; what is not sent goes back when this is dropped.
#[must_use]
pub struct Permits {
    mailboxes: Mailboxes,
    held: SmallVec<[(CoreId, u32); 8]>,
}

impl Mailboxes {
    /// Mailboxes of `count` cores with these bounds each; [`crate::Cores::start`] makes them, tests do too.
    pub fn new(count: u16, bytes_max: u64, reads_max: u32) -> Mailboxes {
        assert!(count > 0, "a node has at least one core");
        let mailbox = |core| Mailbox {
            core: CoreId(core),
            queue: SegQueue::new(),
            bytes: AtomicU64::new(0),
            bytes_max,
            reads: AtomicU32::new(0),
            reads_max,
            closed: AtomicBool::new(false),
            dozing: AtomicBool::new(false),
            samples: AtomicU32::new(0),
            bell: OnceLock::new(),
        };
        Mailboxes {
            cores: (0..count).map(mailbox).collect(),
            blocks: Arc::default(),
        }
    }

    /// The blocks of this node.
    pub fn blocks(&self) -> &Arc<Catalog> {
        &self.blocks
    }

    /// How many cores there are.
    pub fn count(&self) -> u16 {
        self.cores.len() as u16
    }

    /// Takes credits on all of these cores, or on none. `wanted` is bytes per core, no core twice.
    ///
    /// Bytes are whatever the body keeps in memory for the sender's part, at least the columns. A push larger than the whole
    /// bound still passes when the queue is empty, else it could never be stored.
    /// Errors: [`Refusal::QueueFull`] naming the first full core, [`Refusal::Stopping`].
    pub fn reserve(&self, wanted: &[(CoreId, u32)]) -> Result<Permits, Refusal> {
        let mut permits = Permits {
            mailboxes: self.clone(),
            held: SmallVec::new(),
        };
        for &(core, bytes) in wanted {
            debug_assert!(
                permits.held.iter().all(|held| held.0 != core),
                "core {core} twice"
            );
            self.of(core).take_credits(bytes)?;
            permits.held.push((core, bytes));
        }
        Ok(permits)
    }

    /// Sends anything but a push. A read beyond the bound is answered at once with [`Refusal::QueueFull`].
    pub fn send(&self, core: CoreId, message: Message) {
        let mailbox = self.of(core);
        if message.is_read() && mailbox.reads.fetch_add(1, Ordering::Relaxed) >= mailbox.reads_max {
            mailbox.read_done();
            return message.refuse(Refusal::QueueFull(core.0));
        }
        mailbox.put(message);
    }

    /// Wakes a core for what was [put](Permits::put) into its mailbox.
    pub fn ring(&self, core: CoreId) {
        self.of(core).ring();
    }

    /// Bytes of the pushes that wait for or are in a commit of a core, and how many there may be.
    pub fn queue_bytes(&self, core: CoreId) -> (u64, u64) {
        let mailbox = self.of(core);
        (mailbox.bytes_queued(), mailbox.bytes_max)
    }

    pub(crate) fn of(&self, core: CoreId) -> &Mailbox {
        &self.cores[usize::from(core.0)]
    }
}

impl fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailboxes")
            .field("count", &self.count())
            .finish()
    }
}

impl Permits {
    /// Sends the part of the push that belongs to `core`, with the credits taken for it.
    ///
    /// Panics when no credits of that core are held (any more).
    pub fn send(&mut self, core: CoreId, push: Push) {
        if self.put(core, push) {
            self.mailboxes.ring(core);
        }
    }

    /// As [`Permits::send`], but a core that sleeps is not woken yet: where this returns true, the caller does it, by [`Mailboxes::ring`] and soon.
    #[must_use]
    pub fn put(&mut self, core: CoreId, mut push: Push) -> bool {
        let at = self.held.iter().position(|held| held.0 == core);
        let at = at.expect("credits were reserved for every core that is sent to, once");
        push.credits = self.held.swap_remove(at).1;
        self.mailboxes.of(core).put_push(push)
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        for &(core, bytes) in &self.held {
            self.mailboxes.of(core).return_credits(bytes);
        }
    }
}

impl Mailbox {
    fn take_credits(&self, bytes: u32) -> Result<(), Refusal> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Refusal::Stopping);
        }
        let bytes = u64::from(bytes);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before != 0 && before + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refusal::QueueFull(self.core.0));
        }
        Ok(())
    }

    /// Gives credits back; by the core with each reply.
    pub(crate) fn return_credits(&self, bytes: u32) {
        let before = self.bytes.fetch_sub(u64::from(bytes), Ordering::Relaxed);
        debug_assert!(
            before >= u64::from(bytes),
            "more credits returned than taken"
        );
    }

    /// A read has been answered.
    pub(crate) fn read_done(&self) {
        let before = self.reads.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more reads answered than sent");
    }

    /// Bytes of the pushes that wait or are in a commit.
    pub(crate) fn bytes_queued(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn put(&self, message: Message) {
        if self.enqueue(message) {
            self.ring();
        }
    }

    /// Whether the core has to be woken.
    fn put_push(&self, push: Push) -> bool {
        let samples = (push.known.times.len() + push.fresh.times.len()) as u32;
        if !self.enqueue(Message::Push(push)) {
            return false;
        }
        let before = self.samples.fetch_add(samples, Ordering::Relaxed);
        let reaches = |bound| before < bound && before.saturating_add(samples) >= bound;
        let dozing = self.dozing.load(Ordering::Relaxed);
        if reaches(if dozing { DOZE_SAMPLES } else { WAKE_SAMPLES }) {
            self.ring();
            return false;
        }
        !dozing && before < WAKE_SAMPLES
    }

    /// False: the mailbox is closed, and the message answered.
    fn enqueue(&self, message: Message) -> bool {
        self.queue.push(message);
        fence(Ordering::SeqCst);
        // A core that closed between our look and our push has emptied its queue already: whoever sees both empties it again.
        let closed = self.closed.load(Ordering::Relaxed);
        if closed {
            self.refuse_all();
        }
        !closed
    }

    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }

    /// The core is about to sleep until the write in flight ends.
    ///
    /// No push is forgotten: one that was enqueued before this was seen has rung the bell, or its sender is going to; one that was enqueued after
    /// it waits for the write, after which comes [`Mailbox::wake`]. Between a sender's push and its look, and between this core's
    /// `wake` and its look into the queue, stands a full fence: at least one of them sees what the other did.
    pub(crate) fn doze(&self) {
        self.dozing.store(true, Ordering::Relaxed);
    }

    /// The core is awake, and looks into its mailbox next.
    pub(crate) fn wake(&self) {
        if self.dozing.load(Ordering::Relaxed) {
            self.dozing.store(false, Ordering::Relaxed);
        }
        self.samples.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The next message, if any. Only the owner core calls this.
    pub(crate) fn take(&self) -> Option<Message> {
        self.queue.pop()
    }

    /// Installs what wakes the core; once, before its first sleep.
    pub(crate) fn set_bell(&self, bell: Bell) {
        let first = self.bell.set(bell).is_ok();
        assert!(first, "a core sets its bell once");
    }

    /// From now on everything is answered with [`Refusal::Stopping`], what waits included.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.refuse_all();
    }

    fn refuse_all(&self) {
        while let Some(message) = self.queue.pop() {
            match &message {
                Message::Push(push) => self.return_credits(push.credits),
                message if message.is_read() => self.read_done(),
                _ => {}
            }
            message.refuse(Refusal::Stopping);
        }
    }
}

impl Message {
    /// Whether it counts as a read in the mailbox.
    pub(crate) fn is_read(&self) -> bool {
        matches!(
            self,
            Message::Select(_)
                | Message::Labels(_)
                | Message::Cardinality(_)
                | Message::Estimate(_)
        )
    }

    /// Answers without having done anything.
    pub(crate) fn refuse(self, refusal: Refusal) {
        match self {
            Message::Push(push) => {
                (push.reply)(PushOutcome {
                    refused: Some(refusal),
                    ..PushOutcome::default()
                });
            }
            Message::Select(select) => (select.reply)(Err(ReadError::Refused(refusal))),
            Message::Labels(query) => (query.reply)(Err(ReadError::Refused(refusal))),
            Message::Stats(query) => (query.reply)(Err(ReadError::Refused(refusal))),
            Message::Cardinality(query) => (query.reply)(Err(ReadError::Refused(refusal))),
            Message::Estimate(query) => (query.reply)(Err(ReadError::Refused(refusal))),
            Message::Checkpoint(reply) | Message::Flush(reply) => reply(Err(refusal.to_string())),
            // The core has stopped: it wants nothing more of the keeper, and keeps nothing more.
            Message::Blocks(_) | Message::Retentions(_) => {}
            Message::Stop(reply) => reply(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use model::{TenantId, TenantLimits};

    use super::*;

    fn push(reply: impl FnOnce(PushOutcome) + Send + 'static) -> Push {
        Push {
            tenant: TenantId::fake(),
            limits: Arc::new(TenantLimits::unlimited()),
            known: Default::default(),
            fresh: Default::default(),
            others: Default::default(),
            credits: 0,
            reply: Box::new(reply),
        }
    }

    #[test]
    fn credits_are_taken_on_all_cores_or_on_none() {
        let boxes = Mailboxes::new(2, 100, 10);
        let held = boxes.reserve(&[(CoreId(1), 80)]).unwrap();
        let refused = boxes.reserve(&[(CoreId(0), 50), (CoreId(1), 50)]);
        assert_eq!(refused.err(), Some(Refusal::QueueFull(1)));
        assert_eq!(boxes.of(CoreId(0)).bytes_queued(), 0);
        drop(held);
        assert_eq!(boxes.of(CoreId(1)).bytes_queued(), 0);
    }

    #[test]
    fn credits_travel_with_the_push_and_the_rest_goes_back() {
        let boxes = Mailboxes::new(2, 100, 10);
        let mut permits = boxes.reserve(&[(CoreId(0), 30), (CoreId(1), 40)]).unwrap();
        permits.send(CoreId(1), push(|_| {}));
        drop(permits);
        assert_eq!(boxes.of(CoreId(0)).bytes_queued(), 0);
        assert_eq!(boxes.of(CoreId(1)).bytes_queued(), 40);
        let Some(Message::Push(push)) = boxes.of(CoreId(1)).take() else {
            panic!("a push")
        };
        assert_eq!(push.credits, 40);
    }

    #[test]
    fn a_push_above_the_bound_passes_when_nothing_else_waits() {
        let boxes = Mailboxes::new(1, 100, 10);
        let permits = boxes.reserve(&[(CoreId(0), 1000)]).unwrap();
        assert!(boxes.reserve(&[(CoreId(0), 1)]).is_err());
        drop(permits);
    }

    #[test]
    fn a_closed_mailbox_answers_what_waits_and_what_comes_later() {
        let answered = Arc::new(AtomicUsize::new(0));
        let boxes = Mailboxes::new(1, 100, 10);
        let count = || {
            let answered = answered.clone();
            push(move |outcome| {
                assert_eq!(outcome.refused, Some(Refusal::Stopping));
                answered.fetch_add(1, Ordering::Relaxed);
            })
        };
        let mut early = boxes.reserve(&[(CoreId(0), 10)]).unwrap();
        let mut late = boxes.reserve(&[(CoreId(0), 10)]).unwrap();
        early.send(CoreId(0), count());
        boxes.of(CoreId(0)).close();
        late.send(CoreId(0), count());
        assert_eq!(answered.load(Ordering::Relaxed), 2);
        assert_eq!(
            boxes.reserve(&[(CoreId(0), 1)]).err(),
            Some(Refusal::Stopping)
        );
        assert_eq!(boxes.of(CoreId(0)).bytes_queued(), 0);
    }

    #[test]
    fn reads_beyond_the_bound_are_answered_at_once() {
        let boxes = Mailboxes::new(1, 100, 1);
        let query = |reply: Box<dyn FnOnce(Result<Vec<String>, ReadError>) + Send>| {
            Message::Labels(crate::LabelQuery {
                tenant: TenantId::fake(),
                name: None,
                matchers: Arc::from([]),
                min_time: 0,
                max_time: 0,
                hold: Arc::new(|_| true),
                canceled: Arc::default(),
                reply,
            })
        };
        boxes.send(CoreId(0), query(Box::new(|_| panic!("still waits"))));
        let (sender, receiver) = std::sync::mpsc::channel();
        boxes.send(CoreId(0), query(Box::new(move |r| sender.send(r).unwrap())));
        let refused = ReadError::Refused(Refusal::QueueFull(0));
        assert_eq!(receiver.recv().unwrap(), Err(refused));
        std::mem::forget(boxes);
    }

    #[test]
    fn every_message_rings_and_what_came_before_the_bell_waits() {
        let rings = Arc::new(AtomicUsize::new(0));
        let boxes = Mailboxes::new(1, 100, 10);
        let mailbox = boxes.of(CoreId(0));
        mailbox.put(Message::Push(push(|_| {})));
        let heard = rings.clone();
        mailbox.set_bell(Box::new(move || {
            heard.fetch_add(1, Ordering::Relaxed);
        }));
        mailbox.put(Message::Push(push(|_| {})));
        assert_eq!(rings.load(Ordering::Relaxed), 1);
        assert!(mailbox.take().is_some() && mailbox.take().is_some());
    }

    fn with_samples(count: usize) -> Push {
        let mut push = push(|_| {});
        push.known.times = vec![0; count];
        push
    }

    fn rung(rings: &AtomicUsize) -> usize {
        rings.swap(0, Ordering::Relaxed)
    }

    /// The bell of a core counts; a push of so many samples tells whether its sender has to ring.
    fn belled() -> (Mailboxes, Arc<AtomicUsize>, impl Fn(usize) -> bool) {
        let boxes = Mailboxes::new(1, 1 << 30, 10);
        let rings = Arc::new(AtomicUsize::new(0));
        let heard = rings.clone();
        boxes.of(CoreId(0)).set_bell(Box::new(move || {
            heard.fetch_add(1, Ordering::Relaxed);
        }));
        let put = {
            let boxes = boxes.clone();
            move |samples| {
                let mut permits = boxes.reserve(&[(CoreId(0), 1)]).unwrap();
                permits.put(CoreId(0), with_samples(samples))
            }
        };
        (boxes, rings, put)
    }

    #[test]
    fn small_pushes_may_share_a_ring_and_large_ones_ring_at_once() {
        let (boxes, rings, put) = belled();
        assert!(put(100) && put(100), "the sender rings when it has no more");
        assert_eq!(rung(&rings), 0);
        boxes.ring(CoreId(0));
        assert_eq!(rung(&rings), 1);
        assert!(!put(5000), "enough for a core to begin with");
        assert_eq!(rung(&rings), 1);
        assert!(!put(100), "it has been rung for");
        assert_eq!(rung(&rings), 0);
        boxes.of(CoreId(0)).wake();
        assert!(put(100), "that was before it looked");
    }

    #[test]
    fn a_core_that_dozes_is_only_woken_for_much_or_for_something_else() {
        let (boxes, rings, put) = belled();
        let mailbox = boxes.of(CoreId(0));
        mailbox.doze();
        for _ in 0..4 {
            assert!(!put(1000));
        }
        assert_eq!(rung(&rings), 0, "the write in flight will wake it");
        assert!(!put(1000));
        assert_eq!(rung(&rings), 1, "that is worth a wake");
        assert!(!put(1000));
        assert_eq!(rung(&rings), 0, "once");
        mailbox.put(Message::Checkpoint(Box::new(|_| {})));
        assert_eq!(rung(&rings), 1);
        mailbox.wake();
        assert!(put(1), "awake or asleep, but not dozing");
    }
}
