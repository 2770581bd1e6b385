//! A node of several cores on a simulated machine, driven by hand: no threads, the same recovery as in `Cores::start`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use ::model::CoreId;
use reactor::{Reactor, Sim, Tick, World};

use crate::core::{Core, Parts};
use crate::crew::{Crew, crews};
use crate::cut::Cuts;
use crate::cut::write::Order;
use crate::health::Published;
use crate::message::Message;
use crate::metrics::Observers;
use crate::recovery::{self, Node};
use crate::{Error, Mailboxes, Options};

/// See the module. Dropping it is what a kill or a power cut leaves of the process.
pub(crate) struct TestNode {
    pub(crate) cores: Vec<Core>,
    /// What turns them, where they share a CPU.
    crew: Option<Crew>,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) published: Vec<Arc<Published>>,
    pub(crate) samples_replayed: u64,
    pub(crate) corruptions: u64,
    pub(crate) notes: Vec<String>,
    keeper: Node,
    /// What the cores have ordered of it.
    orders: Receiver<Order>,
}

/// Small segments and checkpoints, so that short runs roll and recycle.
pub(crate) fn options(cores: usize) -> Options {
    Options {
        segment_bytes: 1 << 20,
        checkpoint_log_bytes: 1 << 20,
        poison_linger: Duration::from_secs(10),
        ..Options::new("data", (0..cores).collect())
    }
}

/// CPUs of so many cores: one each, or one for all, so that they are a crew.
pub(crate) fn cpus(cores: usize, shared: bool) -> Vec<usize> {
    match shared {
        true => vec![0; cores],
        false => (0..cores).collect(),
    }
}

impl TestNode {
    /// Recovers and serves; errors are those of the machine (power off, faults) and of a bad log.
    pub(crate) fn start(sim: &Sim, options: &Options) -> Result<TestNode, Error> {
        let sim = sim.clone();
        TestNode::start_in(options, &mut || Reactor::sim(&sim))
    }

    /// The same in any world.
    pub(crate) fn start_in(
        options: &Options,
        open: &mut dyn FnMut() -> Reactor,
    ) -> Result<TestNode, Error> {
        options.validate()?;
        let count = options.cores.len() as u16;
        let mut keeper = Node::open(open(), options)?;
        let plan = keeper.plan();
        let crews = crews(&options.cores, plan.homes());
        assert!(
            crews.len() == 1 || crews.len() == usize::from(count),
            "all share a CPU, or none"
        );
        let shared = (crews.len() == 1 && count > 1).then(&mut *open);
        let mailboxes = Mailboxes::of_crews(
            &crews,
            options.queue_bytes_per_core,
            options.reads_max_per_core,
        );
        let quotas = Arc::default();
        let (mut recovered, mut logs) = (Vec::new(), Vec::new());
        let (ordering, orders) = channel();
        for core in 0..count {
            let mut reactor = match &shared {
                Some(shared) => shared.seat(),
                None => open(),
            };
            let id = CoreId(core);
            let state = recovery::recover(&mut reactor, options, &plan, id, &quotas, &mut |_| {})?;
            logs.extend(state.logs.clone());
            recovered.push((reactor, state));
        }
        let notes = keeper.conclude(&mailboxes, &logs)?;
        let observers = Observers::register(&prometheus::Registry::new(), count);
        let mut node = TestNode {
            cores: Vec::new(),
            crew: None,
            mailboxes: mailboxes.clone(),
            published: (0..count).map(|_| Arc::default()).collect(),
            samples_replayed: 0,
            corruptions: 0,
            notes,
            keeper,
            orders,
        };
        for (core, ((reactor, state), observers)) in
            recovered.into_iter().zip(observers).enumerate()
        {
            node.samples_replayed += state.memtable.totals.samples;
            node.corruptions += state.corruptions;
            node.notes.extend(state.notes);
            node.cores.push(Core::new(Parts {
                id: CoreId(core as u16),
                reactor,
                mailboxes: mailboxes.clone(),
                memtable: state.memtable,
                log: state.log,
                checkpoints: state.checkpoints,
                cuts: Cuts::new(ordering.clone(), state.generation),
                published: node.published[core].clone(),
                observers,
                poison_linger: options.poison_linger,
                memory: options.memory.clone(),
            }));
        }
        node.crew = shared.map(|reactor| Crew::new(reactor, &mut node.cores));
        Ok(node)
    }

    /// Does the next thing that a core has ordered of the keeper, if there is one.
    pub(crate) fn turn_keeper(&mut self) {
        if let Ok(order) = self.orders.try_recv() {
            self.keeper.serve(order);
        }
    }

    /// Turns a core, or the crew that it belongs to.
    pub(crate) fn turn(&mut self, core: usize) {
        match &mut self.crew {
            Some(crew) => drop(crew.turn(&mut self.cores, None)),
            None => drop(self.cores[core].turn()),
        }
    }

    /// Turns the crew, which there is, without sleeping beyond `until`.
    pub(crate) fn turn_crew(&mut self, until: Option<Tick>) {
        let crew = self.crew.as_mut().expect("the cores share a CPU");
        crew.turn(&mut self.cores, until);
    }

    /// Turns the cores in turn until `done`, at most so many rounds. False: it did not happen.
    pub(crate) fn turn_until(&mut self, rounds: usize, mut done: impl FnMut() -> bool) -> bool {
        for _ in 0..rounds {
            if done() {
                return true;
            }
            self.turn_keeper();
            // In the real worlds one core must not sleep while another has work.
            let soon = |core: &Core| {
                let soon = core.reactor.now().after(Duration::from_micros(100));
                (core.reactor.world() != World::Sim).then_some(soon)
            };
            match &mut self.crew {
                Some(crew) => {
                    let until = soon(&self.cores[0]);
                    crew.turn(&mut self.cores, until);
                }
                None => {
                    for core in &mut self.cores {
                        core.turn_until(soon(core));
                    }
                }
            }
        }
        done()
    }

    /// Takes a checkpoint on every core and waits for it.
    pub(crate) fn checkpoint(&mut self) -> Result<(), String> {
        let results = self.ask_checkpoints(|| false);
        assert_eq!(results.len(), self.cores.len(), "a checkpoint is answered");
        results.into_iter().collect()
    }

    /// The same on a machine that may lose its power meanwhile.
    pub(crate) fn checkpoint_or_off(&mut self, sim: &Sim) {
        self.ask_checkpoints(|| sim.is_off());
    }

    fn ask_checkpoints(&mut self, give_up: impl Fn() -> bool) -> Vec<Result<(), String>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        for core in 0..self.mailboxes.count() {
            let sender = sender.clone();
            let reply = Box::new(move |result| sender.send(result).unwrap_or_default());
            self.mailboxes
                .send(CoreId(core), Message::Checkpoint(reply));
        }
        let mut results = Vec::new();
        let count = self.cores.len();
        self.turn_until(10_000, || {
            results.extend(receiver.try_iter());
            results.len() == count || give_up()
        });
        results
    }

    /// Stops gracefully.
    pub(crate) fn stop(mut self) {
        let (sender, receiver) = std::sync::mpsc::channel();
        for core in 0..self.mailboxes.count() {
            let sender = sender.clone();
            let reply = Box::new(move || sender.send(()).unwrap());
            self.mailboxes.send(CoreId(core), Message::Stop(reply));
        }
        let mut running: Vec<Core> = self.cores.drain(..).collect();
        for _ in 0..100_000 {
            match &mut self.crew {
                Some(crew) => {
                    crew.turn(&mut running, None);
                    running.retain(|core| !core.is_stopped());
                }
                None => running.retain_mut(Core::turn),
            }
            if running.is_empty() {
                break;
            }
        }
        assert!(running.is_empty(), "every core stops");
        drop(running);
        // As `Cores::stop` ends the keeper: what it has not come to yet, and then the last order. What it orders of itself meanwhile comes behind.
        let left: Vec<Order> = self.orders.try_iter().collect();
        for order in left.into_iter().chain([Order::Stop]) {
            self.keeper.serve(order);
        }
        while let Ok(order) = self.orders.try_recv() {
            self.keeper.serve(order);
        }
        let ended = self.orders.try_recv().err() == Some(TryRecvError::Disconnected);
        assert!(
            ended,
            "somebody can still order: the keeper would never end"
        );
        assert_eq!(
            receiver.try_iter().count(),
            usize::from(self.mailboxes.count())
        );
    }
}
