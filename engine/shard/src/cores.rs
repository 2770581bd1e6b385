//! The threads: start, stop, health, metrics.
//!
//! Start: the calling thread takes the lock on the data directory and reads the manifest; every core then recovers its share on
//! its own pinned thread, in parallel (those of a [`Crew`] one after another on theirs); when all have, the manifest is switched where the number of
//! cores has changed, and all begin to serve. [`Cores::start`] returns then. Until a core serves, its mailbox takes messages, but nobody has the handle yet.
//!
//! A panic on a core aborts the process: its state may be half changed, and replay is the recovery.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use model::CoreId;
use prometheus::Registry;
use reactor::Reactor;

use crate::core::{Core, Parts};
use crate::crew::{Crew, crews};
use crate::cut::write::Order;
use crate::cut::{self, Cuts};
use crate::health::{Health, Published};
use crate::mailbox::Mailboxes;
use crate::message::Message;
use crate::metrics::{CoreCollector, Observers};
use crate::options::Options;
use crate::quota::{Quotas, SeriesCounts};
use crate::recovery::{self, Node, Plan};
use crate::{Error, topology};

/// How far the replay at start is; given to the progress callback now and then, from any core's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Which core.
    pub core: CoreId,
    /// Bytes of log read so far.
    pub bytes_done: u64,
    /// Bytes of log that there are.
    pub bytes_total: u64,
    /// Samples found so far.
    pub samples: u64,
}

/// What the cores found at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Started {
    /// "uring", "threads" or "sim", and why it is not what was wished for.
    pub io: String,
    /// See `io`.
    pub io_fallback: Option<String>,
    /// Why the log is not written with O_DIRECT, where it is not.
    pub not_direct: Option<String>,
    /// Series and samples in memory after replay.
    pub series: u64,
    /// See `series`.
    pub samples: u64,
    /// What was odd in the log: tears, damaged checkpoints, what salvage has dropped. For the operator.
    pub notes: Vec<String>,
    /// The directory that each core has its log in.
    pub directories: Vec<PathBuf>,
}

/// The running cores of this node. Dropping it without [`Cores::stop`] leaves them running until the process ends.
pub struct Cores {
    mailboxes: Mailboxes,
    published: Vec<Arc<Published>>,
    registry: Registry,
    threads: Vec<JoinHandle<()>>,
    quotas: Arc<Quotas>,
    started: Started,
    keeper: Keeper,
}

/// How a core is seen from outside.
type Seen = (Arc<Published>, Observers);

/// What a thread says once it has recovered.
type Report = Result<Found, Error>;

/// What cores found at start, and in the logs that they read.
type Found = (Started, Vec<cut::Replayed>);

impl Cores {
    /// Starts the cores and returns when all of them serve.
    ///
    /// Errors: bad options, a lock held by another process, a log that cannot be read or is corrupt, threads that cannot be started
    /// or pinned. Nothing runs any more then.
    pub fn start(
        options: Options,
        progress: impl Fn(ReplayProgress) + Send + Sync + 'static,
    ) -> Result<Cores, Error> {
        options.validate()?;
        let count = options.cores.len() as u16;
        let (keeper, plan) = Keeper::start(&options)?;
        let registry = Registry::new();
        let crews = crews(&options.cores, plan.homes());
        let mailboxes = Mailboxes::of_crews(
            &crews,
            options.queue_bytes_per_core,
            options.reads_max_per_core,
        );
        let directory = |home: &recovery::Home| home.tree.parent().map(Path::to_owned);
        let directories = plan.homes().iter().filter_map(directory).collect();
        let published: Vec<Arc<Published>> = (0..count).map(|_| Arc::default()).collect();
        let collector = CoreCollector::new(published.clone(), mailboxes.clone());
        registry
            .register(Box::new(collector))
            .expect("registered once");
        let observers = Observers::register(&registry, count);
        let quotas: Arc<Quotas> = Arc::default();
        let start = Arc::new(Start {
            options,
            plan,
            quotas: quotas.clone(),
            mailboxes: mailboxes.clone(),
            progress: Box::new(progress),
            orders: keeper.orders.clone(),
        });
        let mut cores = Cores {
            mailboxes,
            published,
            registry,
            threads: Vec::new(),
            quotas,
            started: Started {
                directories,
                ..Started::default()
            },
            keeper,
        };
        let mut seen: Vec<Option<Seen>> = cores
            .published
            .iter()
            .cloned()
            .zip(observers)
            .map(Some)
            .collect();
        let mut reports: Vec<(Receiver<Report>, Sender<()>)> = Vec::new();
        for crew in crews {
            let (report, reported) = channel();
            let (go, wait) = channel();
            let (start, core) = (start.clone(), crew[0].0);
            let crew: Vec<(CoreId, Seen)> = crew
                .into_iter()
                .map(|id| {
                    (
                        id,
                        seen[usize::from(id.0)]
                            .take()
                            .expect("a core is in one crew"),
                    )
                })
                .collect();
            let thread = std::thread::Builder::new()
                .name(format!("myelin-core-{core}"))
                .spawn(move || {
                    let body = || start.run(crew, &report, &wait);
                    if catch_unwind(AssertUnwindSafe(body)).is_err() {
                        // The panic's own message is out already.
                        let _ = writeln!(
                            std::io::stderr(),
                            "myelin: core {core} (or one on its thread) panicked; the process ends, replay recovers"
                        );
                        std::process::abort();
                    }
                })
                .map_err(|source| Error::Thread { core, source })?;
            cores.threads.push(thread);
            reports.push((reported, go));
        }
        // On an error the senders of `go` are dropped: threads that wait for it end.
        let mut logs = Vec::new();
        for (report, _) in &reports {
            let (started, found) = report
                .recv()
                .expect("a core reports, or the process aborts")?;
            cores.started.take_in(started);
            logs.extend(found);
        }
        let notes = cores.keeper.conclude(logs, &cores.mailboxes)?;
        cores.started.notes.extend(notes);
        for (_, go) in &reports {
            go.send(()).expect("a core that has reported waits");
        }
        for (report, _) in &reports {
            report
                .recv()
                .expect("a core serves, or the process aborts")?;
        }
        Ok(cores)
    }

    /// How many cores there are.
    pub fn count(&self) -> u16 {
        self.mailboxes.count()
    }

    /// The way to the cores.
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// How they are.
    pub fn health(&self) -> Health {
        Health::of(&self.published)
    }

    /// A handle that tells the health without the cores; cheap to clone.
    pub fn watch(&self) -> Watch {
        Watch(self.published.clone().into())
    }

    /// A handle that tells how many series tenants have.
    pub fn series_counts(&self) -> SeriesCounts {
        SeriesCounts(self.quotas.clone())
    }

    /// The metrics of the cores.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What was found at start.
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Stops gracefully: mailboxes close, what was taken is finished, a checkpoint is written, threads end.
    ///
    /// Cost: as long as writing all of memory takes; the caller's deadline is the process' end, which loses nothing.
    pub fn stop(mut self) {
        let (done, all) = channel();
        for core in 0..self.count() {
            let done = done.clone();
            let reply = Box::new(move || done.send(()).unwrap_or_default());
            self.mailboxes.send(CoreId(core), Message::Stop(reply));
        }
        drop(done);
        while all.recv().is_ok() {}
        for thread in self.threads.drain(..) {
            // A panic would have aborted the process.
            let _ = thread.join();
        }
        self.keeper.release();
    }
}

/// The thread that holds the lock on the data directory, since a reactor and its files belong to one thread. It also reads the
/// manifest at start and switches it, and writes the blocks of all cores, one after another (`cut`).
struct Keeper {
    thread: JoinHandle<()>,
    orders: Sender<Order>,
}

/// How much nicer the keeper is than cores and gateway threads: it encodes blocks, for which there are hours of time.
const NICENESS: i32 = 10;

impl Keeper {
    /// Takes the lock and tells what the cores have to do. Errors: as of [`Node::open`].
    fn start(options: &Options) -> Result<(Keeper, Plan), Error> {
        let (orders, queue) = channel::<Order>();
        let (send_plan, plan) = channel();
        let options = options.clone();
        let body = move || {
            let opened = Reactor::open(&reactor::Options {
                io: options.io,
                ..Default::default()
            });
            let node = opened
                .map_err(Error::Reactor)
                .and_then(|reactor| Node::open(reactor, &options));
            let mut node = match node {
                Ok(node) => node,
                Err(error) => return send_plan.send(Err(error)).unwrap_or_default(),
            };
            send_plan.send(Ok(node.plan())).unwrap_or_default();
            // Where this is refused, blocks compete on equal terms, which costs latency only.
            let _ = rustix::process::nice(NICENESS);
            // Until the handle and all cores are gone.
            queue.iter().for_each(|order| node.serve(order));
        };
        let builder = std::thread::Builder::new().name("myelin-keeper".to_owned());
        let thread = builder
            .spawn(body)
            .map_err(|source| Error::Thread { core: 0, source })?;
        let plan = plan.recv().expect("the keeper answers or has panicked")?;
        Ok((Keeper { thread, orders }, plan))
    }

    /// Makes what the cores found and wrote the truth. Returns notes for the operator.
    fn conclude(
        &self,
        logs: Vec<cut::Replayed>,
        mailboxes: &Mailboxes,
    ) -> Result<Vec<String>, Error> {
        let (sender, concluded) = channel();
        let order = Order::Conclude {
            logs,
            mailboxes: mailboxes.clone(),
            reply: Box::new(move |result| sender.send(result).unwrap_or_default()),
        };
        let sent = self.orders.send(order);
        assert!(sent.is_ok(), "the keeper serves until this is dropped");
        concluded
            .recv()
            .expect("the keeper answers or has panicked")
    }

    /// Lets the lock go; the cores have stopped.
    fn release(self) {
        let Keeper { thread, orders } = self;
        // It comes behind all that the cores have sent; without a receiver the keeper has ended.
        let _ = orders.send(Order::Stop);
        drop(orders);
        // A panic would have been met by `conclude`.
        let _ = thread.join();
    }
}

/// Tells the health of the cores; see [`Cores::watch`].
#[derive(Clone)]
pub struct Watch(Arc<[Arc<Published>]>);

impl Watch {
    /// How the cores are now.
    pub fn health(&self) -> Health {
        Health::of(&self.0)
    }

    /// Samples stored since start.
    pub fn samples(&self) -> u64 {
        self.0
            .iter()
            .map(|p| p.samples.load(Ordering::Relaxed))
            .sum()
    }

    /// Series in memory.
    pub fn series(&self) -> u64 {
        self.0
            .iter()
            .map(|p| p.series.load(Ordering::Relaxed))
            .sum()
    }
}

/// What every core's thread needs.
struct Start {
    options: Options,
    plan: Plan,
    quotas: Arc<Quotas>,
    mailboxes: Mailboxes,
    progress: Box<dyn Fn(ReplayProgress) + Send + Sync>,
    orders: Sender<Order>,
}

/// A core that has recovered and waits for the others.
struct Prepared {
    id: CoreId,
    reactor: Reactor,
    recovered: recovery::Recovered,
    seen: Seen,
}

impl Start {
    /// The life of a thread: of one core, or of a crew.
    fn run(&self, crew: Vec<(CoreId, Seen)>, report: &Sender<Report>, go: &Receiver<()>) {
        let (reactor, prepared, found) = match self.prepare_all(crew) {
            Ok(prepared) => prepared,
            Err(error) => return report.send(Err(error)).unwrap_or_default(),
        };
        if report.send(Ok(found)).is_err() || go.recv().is_err() {
            return; // Another core could not start.
        }
        let cores = prepared.into_iter().map(|prepared| self.core(prepared));
        let mut cores: Vec<Core> = cores.collect();
        let serves = (Started::default(), Vec::new());
        report.send(Ok(serves)).unwrap_or_default();
        match &mut cores[..] {
            [alone] => alone.run(),
            _ => Crew::new(reactor, &mut cores).run(cores),
        }
    }

    fn core(&self, prepared: Prepared) -> Core {
        let Prepared {
            id,
            reactor,
            recovered,
            seen: (published, observers),
        } = prepared;
        let core = Core::new(Parts {
            id,
            reactor,
            mailboxes: self.mailboxes.clone(),
            memtable: recovered.memtable,
            log: recovered.log,
            checkpoints: recovered.checkpoints,
            cuts: Cuts::new(self.orders.clone(), recovered.generation),
            published,
            observers,
            poison_linger: self.options.poison_linger,
            memory: self.options.memory.clone(),
        });
        core.mark_serving();
        core
    }

    /// Pins the thread, opens its loop and recovers its cores.
    fn prepare_all(
        &self,
        crew: Vec<(CoreId, Seen)>,
    ) -> Result<(Reactor, Vec<Prepared>, Found), Error> {
        topology::pin(self.options.cores[usize::from(crew[0].0.0)])?;
        let options = reactor::Options {
            io: self.options.io,
            ..Default::default()
        };
        let reactor = Reactor::open(&options).map_err(Error::Reactor)?;
        let (mut all, mut logs) = (Started::default(), Vec::new());
        let mut cores = Vec::new();
        for (id, seen) in crew {
            let mut reactor = reactor.seat();
            let (recovered, started) = self.prepare(id, &mut reactor, &seen.0)?;
            all.take_in(started);
            logs.extend(recovered.logs.iter().cloned());
            cores.push(Prepared {
                id,
                reactor,
                recovered,
                seen,
            });
        }
        Ok((reactor, cores, (all, logs)))
    }

    fn prepare(
        &self,
        id: CoreId,
        reactor: &mut Reactor,
        published: &Published,
    ) -> Result<(recovery::Recovered, Started), Error> {
        let begun = reactor.now();
        let recovered = recovery::recover(
            reactor,
            &self.options,
            &self.plan,
            id,
            &self.quotas,
            &mut |progress| (self.progress)(progress),
        )?;
        let took = reactor.now().since(begun).as_millis() as u64;
        set(&published.replay_ms, took);
        set(&published.corruptions, recovered.corruptions);
        let started = Started {
            io: reactor.world().name().to_owned(),
            io_fallback: reactor.fallback_reason().map(str::to_owned),
            not_direct: recovered.not_direct.clone(),
            series: recovered.memtable.totals.series,
            samples: recovered.memtable.totals.samples,
            notes: recovered.notes.clone(),
            directories: Vec::new(),
        };
        Ok((recovered, started))
    }
}

impl Started {
    fn take_in(&mut self, core: Started) {
        let Started {
            io,
            io_fallback,
            not_direct,
            series,
            samples,
            notes,
            directories: _,
        } = core;
        self.io = io;
        self.io_fallback = self.io_fallback.take().or(io_fallback);
        self.not_direct = self.not_direct.take().or(not_direct);
        self.series += series;
        self.samples += samples;
        self.notes.extend(notes);
    }
}

fn set(counter: &AtomicU64, value: u64) {
    counter.store(value, Ordering::Relaxed);
}
