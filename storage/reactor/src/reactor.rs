//! The reactor: one struct over three worlds, with the clock, the timers and the doorbell.
//!
//! What it does, it does through the loop of its thread ([`crate::hub`]), on which it has a seat. A thread of one core
//! has one seat; cores that share a thread have one each ([`Reactor::seat`]) and hear of their own operations and timers only.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::bell::{Bell, Doorbell};
use crate::buffer::Buffer;
use crate::error::{Error, Failure};
use crate::hub::{Disk, Hub, Seat};
use crate::limits::{HELPERS, HELPERS_MAX, RING_ENTRIES, RING_ENTRIES_MAX};
use crate::op::{Event, File, Op, OpResult};
use crate::reader::Reader;
use crate::sim::{Port, Sim};
use crate::slice::TimeSlice;
use crate::threads::Threads;
use crate::time::Tick;
use crate::uring::Uring;

/// Which world a reactor really lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum World {
    /// io_uring.
    Uring,
    /// System calls on helper threads.
    Threads,
    /// A simulated machine.
    Sim,
}

impl World {
    /// As in the log, the metric and `-io`.
    pub fn name(self) -> &'static str {
        match self {
            World::Uring => "uring",
            World::Threads => "threads",
            World::Sim => "sim",
        }
    }
}

/// The wish of the operator (`-io`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IoMode {
    /// io_uring where it works, else helper threads, with [`Reactor::fallback_reason`].
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// Helper threads.
    Threads,
}

impl std::str::FromStr for IoMode {
    type Err = String;

    fn from_str(text: &str) -> Result<IoMode, String> {
        match text {
            "auto" => Ok(IoMode::Auto),
            "uring" => Ok(IoMode::Uring),
            "threads" => Ok(IoMode::Threads),
            other => Err(format!("`{other}` is none of auto, uring, threads")),
        }
    }
}

impl std::fmt::Display for IoMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            IoMode::Auto => "auto",
            IoMode::Uring => "uring",
            IoMode::Threads => "threads",
        })
    }
}

/// How to open a reactor of the real worlds.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which world.
    pub io: IoMode,
    /// Submission queue entries of the ring, 1 to 4096 (rounded up to a power of two by the
    /// kernel).
    pub entries: u32,
    /// Helper threads of the `Threads` world, 1 to 16.
    pub helpers: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            io: IoMode::Auto,
            entries: RING_ENTRIES,
            helpers: HELPERS,
        }
    }
}

impl Options {
    /// Checks the bounds.
    pub fn validate(&self) -> Result<(), Error> {
        if !(1..=RING_ENTRIES_MAX).contains(&self.entries) {
            let value = self.entries as usize;
            return Err(Error::Option {
                name: "entries",
                value,
                bounds: "1 to 4096",
            });
        }
        if !(1..=HELPERS_MAX).contains(&self.helpers) {
            return Err(Error::Option {
                name: "helpers",
                value: self.helpers,
                bounds: "1 to 16",
            });
        }
        Ok(())
    }
}

/// What a reactor has done so far, for metrics and for the test that the ring was really used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Operations submitted.
    pub submissions: u64,
    /// Operations whose result was delivered.
    pub completions: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Entries put into the ring: operations, their continuations after a short transfer, and
    /// reads of the doorbell.
    pub ring_entries: u64,
    /// Completions of operations that came out of the ring: what the kernel really did there.
    pub ring_completions: u64,
    /// Operations run inline because the ring has none for them.
    pub inline: u64,
    /// Times the loop blocked.
    pub sleeps: u64,
}

/// One core's I/O, clock, timers and doorbell. Belongs to one thread: it is neither `Send` nor
/// `Sync`; open it on the thread that will turn it.
///
/// Dropping it (the last one, where several share a loop) waits for the operations in flight, as
/// the kernel may be using their buffers.
///
/// ```compile_fail
/// fn moves_between_threads<T: Send>() {}
/// moves_between_threads::<reactor::Reactor>();
/// ```
pub struct Reactor {
    hub: Rc<RefCell<Hub>>,
    seat: Seat,
    world: World,
    fallback: Option<String>,
    slice: Option<Duration>,
}

/// Tokens are less than this; the bits above say whose they are.
pub const TOKENS_MAX: u64 = (1 << 48) - 1;

/// The token of the operation of [`Reactor::run`].
const RUN_TOKEN: u64 = TOKENS_MAX;

impl Reactor {
    /// Opens a reactor of a real world for the calling thread, and asks the scheduler for the
    /// time slice of a core ([`TimeSlice::Core`]), so that the kernel workers which complete its durable
    /// writes get in between.
    ///
    /// Errors: [`Error::Uring`] if io_uring was demanded and is refused, [`Error::Resource`] if
    /// even an eventfd or a thread cannot be had.
    pub fn open(options: &Options) -> Result<Reactor, Error> {
        options.validate()?;
        let bell = Bell::with_eventfd().map_err(|source| Error::Resource {
            what: "the doorbell's eventfd",
            source,
        })?;
        let bell = Arc::new(bell);
        let threads = |bell: &Arc<Bell>| -> Result<Disk, Error> {
            let threads = Threads::open(options.helpers, Arc::clone(bell)).map_err(|source| {
                Error::Resource {
                    what: "the helper threads",
                    source,
                }
            })?;
            Ok(Disk::Threads(Box::new(threads)))
        };
        let uring = |bell: &Arc<Bell>| Uring::open(options.entries, Arc::clone(bell));
        let (disk, fallback) = match options.io {
            IoMode::Threads => (threads(&bell)?, None),
            IoMode::Uring => match uring(&bell) {
                Ok(uring) => (Disk::Uring(Box::new(uring)), None),
                Err(reason) => return Err(Error::Uring { reason }),
            },
            IoMode::Auto => match uring(&bell) {
                Ok(uring) => (Disk::Uring(Box::new(uring)), None),
                Err(reason) => (threads(&bell)?, Some(reason)),
            },
        };
        let mut reactor = Reactor::new(disk, bell, fallback);
        // After the helpers were spawned, as they would inherit it.
        reactor.slice = TimeSlice::Core.ask();
        Ok(reactor)
    }

    /// A reactor (one core) of a simulated machine.
    pub fn sim(sim: &Sim) -> Reactor {
        let bell = Arc::new(Bell::silent());
        Reactor::new(Disk::Sim(Box::new(Port::new(sim))), bell, None)
    }

    fn new(disk: Disk, bell: Arc<Bell>, fallback: Option<String>) -> Reactor {
        let world = disk.world();
        let mut hub = Hub::new(disk, bell);
        let seat = hub.take_seat();
        Reactor {
            hub: Rc::new(RefCell::new(hub)),
            seat,
            world,
            fallback,
            slice: None,
        }
    }

    /// Another reactor on the loop of this one, for another core of the same thread: its own
    /// tokens, operations and timers, the same ring and the same doorbell.
    ///
    /// Whoever waits turns the loop for all of them; what happened to another is kept until that
    /// one looks.
    pub fn seat(&self) -> Reactor {
        Reactor {
            hub: Rc::clone(&self.hub),
            seat: self.hub.borrow_mut().take_seat(),
            world: self.world,
            fallback: self.fallback.clone(),
            slice: self.slice,
        }
    }

    /// The world really used.
    pub fn world(&self) -> World {
        self.world
    }

    /// Why `IoMode::Auto` did not get io_uring, if so. To be logged loudly.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The time slice this thread got from the scheduler, where the kernel tells (Linux 6.12); for
    /// the log.
    pub fn scheduler_slice(&self) -> Option<Duration> {
        self.slice
    }

    /// A handle with which other threads wake this reactor, and those that share its loop.
    pub fn doorbell(&self) -> Doorbell {
        Doorbell::new(Arc::clone(self.hub.borrow().bell()))
    }

    /// The monotonic clock of this world.
    pub fn now(&self) -> Tick {
        self.hub.borrow().now()
    }

    /// The wall clock of this world, milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        self.hub.borrow().wall_ms()
    }

    /// CPU time that this thread has used; of a simulated machine, the time of its clock. A system call.
    pub fn cpu_time(&self) -> Duration {
        self.hub.borrow().cpu_time()
    }

    /// Counters of the loop since the start.
    pub fn stats(&self) -> Stats {
        self.hub.borrow().stats()
    }

    /// A buffer of at least `bytes` from the pool. **Not cleared**: a reused one holds what its
    /// last user left, so a writer must fill all it writes, padding too.
    pub fn buffer(&mut self, bytes: usize) -> Buffer {
        self.hub.borrow_mut().pool.take(bytes)
    }

    /// Gives a buffer back to the pool.
    pub fn recycle(&mut self, buffer: Buffer) {
        self.hub.borrow_mut().pool.give(buffer);
    }

    /// Reads `file` from any thread, also after it was closed here or removed; see [`Reader`].
    pub fn reader(&mut self, file: File) -> Reader {
        self.hub.borrow_mut().reader(file)
    }

    /// Operations of the loop submitted whose completion has not been delivered.
    pub fn in_flight(&self) -> usize {
        self.hub.borrow().in_flight()
    }

    /// Queues an operation; it reaches the kernel at the next [`Reactor::wait`], `poll` or `flush`
    /// (the `Threads` world begins at once). Its completion carries `token`, less than
    /// [`TOKENS_MAX`]. Operations in flight together are unordered.
    ///
    /// Panics if the contract of [`Op`] is broken or [`OPERATIONS_MAX`](crate::OPERATIONS_MAX) are in flight.
    pub fn submit(&mut self, op: Op, token: u64) {
        assert!(token < RUN_TOKEN, "the token is reserved");
        self.hub.borrow_mut().submit(self.seat, op, token);
    }

    /// Hands queued operations to the kernel without looking for completions.
    pub fn flush(&mut self) {
        self.hub.borrow_mut().flush();
    }

    /// Sets the timer `token` (its own number space), moving it if it is set already.
    pub fn set_timer(&mut self, at: Tick, token: u64) {
        assert!(token < TOKENS_MAX, "too large a token");
        self.hub.borrow_mut().set_timer(self.seat, at, token);
    }

    /// Cancels a timer; false if it is not set or its event is already out.
    pub fn cancel_timer(&mut self, token: u64) -> bool {
        self.hub.borrow_mut().cancel_timer(self.seat, token)
    }

    /// Blocks until there is an event or `until` has passed, and appends what happened to `events`.
    /// Everything queued is submitted in the same system call. `None` waits for ever.
    ///
    /// In the simulation nothing blocks: the machine's clock moves to this reactor's next event, or
    /// to `until` if that is earlier; without either, and on a machine without power, it returns
    /// empty-handed.
    pub fn wait(&mut self, until: Option<Tick>, events: &mut Vec<Event>) {
        let mut hub = self.hub.borrow_mut();
        hub.turn(self.seat, until);
        hub.take(self.seat, events);
    }

    /// Appends what has happened, without blocking. The simulation's clock stands still.
    pub fn poll(&mut self, events: &mut Vec<Event>) {
        self.wait(Some(Tick::ZERO), events);
    }

    /// As [`Reactor::wait`], until something has happened to any of those that share the loop:
    /// each finds it by [`Reactor::take`]. The doorbell is told to this one.
    ///
    /// Of operations that were begun together, so many are waited for [`crate::TOGETHER`] before the first of them ends the wait: a
    /// thread that wakes for each of them does little each time. A hint, which the ring alone follows.
    pub fn wait_for_any(&mut self, until: Option<Tick>, together: usize) {
        let mut hub = self.hub.borrow_mut();
        hub.turn_for_any(self.seat, until, together);
    }

    /// Whether [`Reactor::take`] would find something.
    pub fn has_events(&self) -> bool {
        self.hub.borrow().has_events(self.seat)
    }

    /// Appends what has happened, as far as the loop knows: it is not turned.
    pub fn take(&mut self, events: &mut Vec<Event>) {
        self.hub.borrow_mut().take(self.seat, events);
    }

    /// Submits one operation and waits for it; other events wait for the next `wait`. For start-up,
    /// tools and tests: a serving core does not block on one operation.
    ///
    /// On a simulated machine without power it fails with an error that says so.
    pub fn run(&mut self, op: Op) -> OpResult {
        let (kind, offset) = (op.kind(), op.offset());
        let path = Arc::from(op.path().unwrap_or(Path::new("")));
        let mut hub = self.hub.borrow_mut();
        hub.submit(self.seat, op, RUN_TOKEN);
        let (mut events, mut others) = (Vec::new(), Vec::new());
        hub.take(self.seat, &mut others);
        let result = loop {
            hub.turn(self.seat, None);
            hub.take(self.seat, &mut events);
            let mut found = None;
            for event in events.drain(..) {
                match event {
                    Event::Completion {
                        token: RUN_TOKEN,
                        result,
                    } => found = Some(result),
                    other => others.push(other),
                }
            }
            if let Some(result) = found {
                break result;
            }
            if hub.is_off() {
                let source = std::io::Error::other("the simulated machine has no power");
                break Err(Failure {
                    op: kind,
                    path,
                    offset,
                    source,
                    buf: None,
                });
            }
        };
        hub.put_back(self.seat, others);
        result
    }

    /// Adds what goes through the ring to `ledger` when the loop ends.
    pub(crate) fn keep_ledger(&mut self, ledger: Arc<AtomicU64>) {
        self.hub.borrow_mut().ledger = Some(ledger);
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // While a panic unwinds the loop may be in use; then nobody takes a seat any more either.
        if let Ok(mut hub) = self.hub.try_borrow_mut() {
            hub.leave_seat(self.seat);
        }
    }
}
