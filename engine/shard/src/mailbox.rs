//! The way into a core: one queue each, bounded by bytes.
//!
//! A push first takes credits of **all** cores it will be sent to ([`Mailboxes::reserve`]); when one of them has none left
//! nothing has been sent and nothing stored. The credits travel in [`Push::credits`] and come back when the core has replied,
//! so they bound what waits *and* what is in a commit. Reads are bounded by number. A closed mailbox (the core has stopped)
//! answers by itself: every reply is called exactly once, whatever happens.
//!
//! Every message rings the bell of its core; a bell costs a system call only when the core sleeps (`reactor::Doorbell`). Pushes need
//! less. A core that *dozes*, asleep until the write of its log ends or its crew's next round, is not woken for a push unless a good deal of work waits already:
//! what came meanwhile goes into the next commit either way, all of it at once. And a gateway thread that has further bodies
//! at hand may wake the core after the last of them ([`Permits::put`], [`Mailboxes::ring`]). Cores that share a thread are woken together ([`post`]).

mod post;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use block::Catalog;
use crossbeam::queue::SegQueue;
use model::CoreId;
use smallvec::SmallVec;

use crate::changes::Changes;
use crate::message::{DeleteError, Message, Push, PushOutcome, ReadError, Refusal};

pub(crate) use post::Post;
pub use post::Wake;

/// Handles on the mailboxes of all cores; cheap to clone, held by every gateway thread.
///
/// With them comes what the cores have written and let go: whoever reads asks the cores first and then looks into the blocks, so that a sample that
/// moves meanwhile is seen twice rather than not at all.
#[derive(Clone)]
pub struct Mailboxes {
    cores: Arc<[Mailbox]>,
    blocks: Arc<Catalog>,
    changes: Arc<Changes>,
}

pub(crate) struct Mailbox {
    core: CoreId,
    queue: SegQueue<Message>,
    bytes: AtomicU64,
    bytes_max: u64,
    reads: AtomicU32,
    reads_max: u32,
    closed: AtomicBool,
    /// The first core of those that share its thread: its name for whoever rings.
    leader: CoreId,
    post: Arc<Post>,
}

/// Credits of one push on one or several cores; what is not sent goes back when this is dropped.
#[must_use]
pub struct Permits {
    mailboxes: Mailboxes,
    held: SmallVec<[(CoreId, u32); 8]>,
}

impl Mailboxes {
    /// Mailboxes of `count` cores with these bounds each, every core on a thread of its own; tests make them.
    pub fn new(count: u16, bytes_max: u64, reads_max: u32) -> Mailboxes {
        let crews: Vec<Vec<CoreId>> = (0..count).map(|core| vec![CoreId(core)]).collect();
        Mailboxes::of_crews(&crews, bytes_max, reads_max)
    }

    /// The same of cores that share threads: each of `crews` is the cores of one thread, every core is in one of them. [`crate::Cores::start`] makes them.
    pub(crate) fn of_crews(crews: &[Vec<CoreId>], bytes_max: u64, reads_max: u32) -> Mailboxes {
        let mut cores = Vec::new();
        for crew in crews {
            let post = Arc::<Post>::default();
            cores.extend(crew.iter().map(|&core| Mailbox {
                core,
                queue: SegQueue::new(),
                bytes: AtomicU64::new(0),
                bytes_max,
                reads: AtomicU32::new(0),
                reads_max,
                closed: AtomicBool::new(false),
                leader: crew[0],
                post: post.clone(),
            }));
        }
        cores.sort_by_key(|mailbox| mailbox.core);
        assert!(!cores.is_empty(), "a node has at least one core");
        assert!(
            (0..).zip(&cores).all(|(n, mailbox)| mailbox.core.0 == n),
            "every core is in one crew"
        );
        Mailboxes {
            cores: cores.into(),
            blocks: Arc::default(),
            changes: Arc::default(),
        }
    }

    /// The blocks of this node.
    pub fn blocks(&self) -> &Arc<Catalog> {
        &self.blocks
    }

    /// What of the past changed; for those who keep results.
    pub fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// How many cores there are.
    pub fn count(&self) -> u16 {
        self.cores.len() as u16
    }

    /// Whether a core has stopped, as all do when the node ends.
    pub(crate) fn is_stopping(&self) -> bool {
        let mut cores = self.cores.iter();
        cores.any(|core| core.closed.load(Ordering::Relaxed))
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

    /// Wakes a core for what was [put](Permits::put) into its mailbox, and those that share its thread.
    pub fn ring(&self, core: CoreId) {
        self.of(core).post.ring();
    }

    /// One core for all that share its thread: ringing for that one is enough.
    pub fn leader(&self, core: CoreId) -> CoreId {
        self.of(core).leader
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
        if self.put(core, push) != Wake::No {
            self.mailboxes.ring(core);
        }
    }

    /// As [`Permits::send`], but a core that sleeps is not woken: the caller does it, by [`Mailboxes::ring`], when it is told to.
    #[must_use]
    pub fn put(&mut self, core: CoreId, mut push: Push) -> Wake {
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
            self.post.ring();
        }
    }

    /// Whether the core has to be woken.
    fn put_push(&self, push: Push) -> Wake {
        let samples = (push.known.times.len() + push.fresh.times.len()) as u32;
        match self.enqueue(Message::Push(push)) {
            true => self.post.note(samples),
            false => Wake::No,
        }
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

    /// The next message, if any. Only the owner core calls this.
    pub(crate) fn take(&self) -> Option<Message> {
        self.queue.pop()
    }

    /// Whether nothing waits in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Where its core is woken.
    pub(crate) fn post(&self) -> &Post {
        &self.post
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
            Message::Checkpoint(reply) => reply(Err(refusal.to_string())),
            Message::Flush(flush) => (flush.reply)(Err(refusal.to_string())),
            Message::Purge(purge) => (purge.0.reply)(Err(refusal.to_string())),
            Message::Delete(delete) => {
                let error = DeleteError::Unavailable(refusal.to_string());
                (delete.reply)(Err(error));
            }
            Message::Snapshot(snapshot) => (snapshot.reply)(Err(refusal.to_string())),
            // The core has stopped: it wants nothing more of the keeper, and keeps nothing more.
            Message::Blocks(_) | Message::Retentions(_) | Message::ExemplarsMax(_) => {}
            Message::Stop(reply) => reply(),
        }
    }
}

#[cfg(test)]
mod tests;
