//! The reactor: one struct over three worlds, with the clock, the timers and the doorbell.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::bell::{Bell, Doorbell, RUNG};
use crate::buffer::{Buffer, Pool};
use crate::error::{Error, Failure};
use crate::limits::{HELPERS, HELPERS_MAX, OPERATIONS_MAX, RING_ENTRIES, RING_ENTRIES_MAX};
use crate::op::{Event, File, Op, OpResult};
use crate::reader::{Reader, Source};
use crate::sim::{Port, Sim};
use crate::slice::TimeSlice;
use crate::threads::Threads;
use crate::time::{self, Tick, Timers};
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
/// Dropping it waits for the operations in flight, as the kernel may be using their buffers.
///
/// ```compile_fail
/// fn moves_between_threads<T: Send>() {}
/// moves_between_threads::<reactor::Reactor>();
/// ```
pub struct Reactor {
    disk: Disk,
    bell: Arc<Bell>,
    timers: Timers,
    pool: Pool,
    /// Events that arrived during [`Reactor::run`], for the next `wait`.
    stash: Vec<Event>,
    fallback: Option<String>,
    slice: Option<Duration>,
    submissions: u64,
    completions: u64,
    sleeps: u64,
    /// Where a test wants to find, afterwards, how much went through the ring.
    ledger: Option<Arc<AtomicU64>>,
    _one_thread: PhantomData<*mut ()>,
}

enum Disk {
    Uring(Box<Uring>),
    Threads(Box<Threads>),
    Sim(Box<Port>),
}

/// The token of the operation of [`Reactor::run`].
const RUN_TOKEN: u64 = u64::MAX;

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
        Reactor {
            disk,
            bell,
            timers: Timers::default(),
            pool: Pool::default(),
            stash: Vec::new(),
            fallback,
            slice: None,
            submissions: 0,
            completions: 0,
            sleeps: 0,
            ledger: None,
            _one_thread: PhantomData,
        }
    }

    /// The world really used.
    pub fn world(&self) -> World {
        match self.disk {
            Disk::Uring(_) => World::Uring,
            Disk::Threads(_) => World::Threads,
            Disk::Sim(_) => World::Sim,
        }
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

    /// A handle with which other threads wake this reactor.
    pub fn doorbell(&self) -> Doorbell {
        Doorbell::new(Arc::clone(&self.bell))
    }

    /// The monotonic clock of this world.
    pub fn now(&self) -> Tick {
        match &self.disk {
            Disk::Sim(port) => port.now(),
            _ => time::monotonic(),
        }
    }

    /// The wall clock of this world, milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        match &self.disk {
            Disk::Sim(port) => port.wall_ms(),
            _ => time::wall_ms(),
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        let ring = match &self.disk {
            Disk::Uring(uring) => uring.stats(),
            _ => Stats::default(),
        };
        Stats {
            submissions: self.submissions,
            completions: self.completions,
            sleeps: self.sleeps,
            ..ring
        }
    }

    /// A buffer of at least `bytes` from the pool. **Not cleared**: a reused one holds what its
    /// last user left, so a writer must fill all it writes, padding too.
    pub fn buffer(&mut self, bytes: usize) -> Buffer {
        self.pool.take(bytes)
    }

    /// Gives a buffer back to the pool.
    pub fn recycle(&mut self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    /// Reads `file` from any thread, also after it was closed here or removed; see [`Reader`].
    pub fn reader(&mut self, file: File) -> Reader {
        Reader(match &mut self.disk {
            Disk::Uring(uring) => Source::Fd(uring.descriptor(file)),
            Disk::Threads(threads) => Source::Fd(threads.descriptor(file)),
            Disk::Sim(port) => Source::Sim(port.reader(file)),
        })
    }

    /// Operations submitted whose completion has not been delivered.
    pub fn in_flight(&self) -> usize {
        match &self.disk {
            Disk::Uring(uring) => uring.in_flight(),
            Disk::Threads(threads) => threads.in_flight(),
            Disk::Sim(port) => port.in_flight(),
        }
    }

    /// Queues an operation; it reaches the kernel at the next [`Reactor::wait`], `poll` or `flush`
    /// (the `Threads` world begins at once). Its completion carries `token`, any value but
    /// `u64::MAX`. Operations in flight together are unordered.
    ///
    /// Panics if the contract of [`Op`] is broken or [`OPERATIONS_MAX`] are in flight.
    pub fn submit(&mut self, op: Op, token: u64) {
        assert_ne!(token, RUN_TOKEN, "the token is reserved");
        self.enqueue(op, token);
    }

    fn enqueue(&mut self, op: Op, token: u64) {
        assert!(
            self.in_flight() < OPERATIONS_MAX,
            "too many operations in flight"
        );
        self.submissions += 1;
        match &mut self.disk {
            Disk::Uring(uring) => uring.submit(token, op),
            Disk::Threads(threads) => threads.submit(token, op),
            Disk::Sim(port) => port.submit(token, op),
        }
    }

    /// Hands queued operations to the kernel without looking for completions.
    pub fn flush(&mut self) {
        if let Disk::Uring(uring) = &mut self.disk {
            uring.flush();
        }
    }

    /// Sets the timer `token` (its own number space), moving it if it is set already.
    pub fn set_timer(&mut self, at: Tick, token: u64) {
        self.timers.set(at, token);
    }

    /// Cancels a timer; false if it is not set or its event is already out.
    pub fn cancel_timer(&mut self, token: u64) -> bool {
        self.timers.cancel(token)
    }

    /// Blocks until there is an event or `until` has passed, and appends what happened to `events`.
    /// Everything queued is submitted in the same system call. `None` waits for ever.
    ///
    /// In the simulation nothing blocks: the machine's clock moves to this reactor's next event, or
    /// to `until` if that is earlier; without either, and on a machine without power, it returns
    /// empty-handed.
    pub fn wait(&mut self, until: Option<Tick>, events: &mut Vec<Event>) {
        let before = events.len();
        events.append(&mut self.stash);
        let until = if events.len() > before {
            Some(Tick::ZERO)
        } else {
            until
        };
        self.turn(until, events);
    }

    /// Appends what has happened, without blocking. The simulation's clock stands still.
    pub fn poll(&mut self, events: &mut Vec<Event>) {
        self.wait(Some(Tick::ZERO), events);
    }

    /// Submits one operation and waits for it; other events wait for the next `wait`. For start-up,
    /// tools and tests: a serving core does not block on one operation.
    ///
    /// On a simulated machine without power it fails with an error that says so.
    pub fn run(&mut self, op: Op) -> OpResult {
        let (kind, offset) = (op.kind(), op.offset());
        let path = Arc::from(op.path().unwrap_or(Path::new("")));
        self.enqueue(op, RUN_TOKEN);
        let mut events = Vec::new();
        loop {
            self.turn(None, &mut events);
            let mut found = None;
            for event in events.drain(..) {
                match event {
                    Event::Completion {
                        token: RUN_TOKEN,
                        result,
                    } => found = Some(result),
                    other => self.stash.push(other),
                }
            }
            if let Some(result) = found {
                return result;
            }
            if let Disk::Sim(port) = &self.disk
                && port.is_off()
            {
                let source = std::io::Error::other("the simulated machine has no power");
                return Err(Failure {
                    op: kind,
                    path,
                    offset,
                    source,
                    buf: None,
                });
            }
        }
    }

    /// Adds what goes through the ring to `ledger` when the reactor is dropped.
    pub(crate) fn keep_ledger(&mut self, ledger: Arc<AtomicU64>) {
        self.ledger = Some(ledger);
    }

    /// One or more turns of the world until there is an event or `until` has passed.
    fn turn(&mut self, until: Option<Tick>, events: &mut Vec<Event>) {
        let before = events.len();
        loop {
            if let Disk::Sim(port) = &mut self.disk
                && port.is_off()
            {
                port.pass(until);
                return;
            }
            let now = self.now();
            while let Some(token) = self.timers.pop_due(now) {
                events.push(Event::Timer(token));
            }
            let passed = until.is_some_and(|until| until <= now);
            let deadline = match (until, self.timers.next()) {
                (Some(until), Some(timer)) => Some(until.min(timer)),
                (until, timer) => until.or(timer),
            };
            let timeout = if passed || events.len() > before {
                Some(Duration::ZERO)
            } else {
                deadline.map(|deadline| deadline.since(now))
            };
            if timeout != Some(Duration::ZERO) {
                self.sleeps += 1;
            }
            let idle = self.turn_once(timeout, deadline, events);
            if events.len() > before || passed || idle {
                return;
            }
        }
    }

    /// Lets the world act once; true if it can do nothing more on its own (the simulation only).
    fn turn_once(
        &mut self,
        timeout: Option<Duration>,
        deadline: Option<Tick>,
        events: &mut Vec<Event>,
    ) -> bool {
        let before = events.len();
        let mut idle = false;
        let bits = match &mut self.disk {
            Disk::Uring(uring) => {
                let bits = uring.turn(timeout);
                while let Some((token, result)) = uring.pop() {
                    events.push(Event::Completion { token, result });
                }
                bits
            }
            Disk::Threads(threads) => {
                let bits = threads.turn(timeout);
                while let Some((token, result)) = threads.pop() {
                    events.push(Event::Completion { token, result });
                }
                bits
            }
            Disk::Sim(port) => {
                let bits = self.bell.take();
                port.deliver(events);
                if bits == 0 && events.len() == before && timeout != Some(Duration::ZERO) {
                    idle = !port.advance(deadline);
                }
                bits
            }
        };
        self.completions += (events.len() - before) as u64;
        if bits & RUNG != 0 {
            events.push(Event::Doorbell);
        }
        idle
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        if let Some(ledger) = &self.ledger {
            ledger.fetch_add(self.stats().ring_completions, Ordering::Relaxed);
        }
    }
}
