//! Cores that share a CPU: one thread, one loop, one doorbell, and commits that begin together.
//!
//! `-cores` above the number of CPUs is for a disk that will move to a larger machine, or for tests. A thread for each of those cores costs a switch, a
//! system call and a commit of their own for every body of a sender, since a body touches several of them. A crew turns them as one
//! ([`Crew::turn`]): it sleeps until something has happened to any of them, and does only those that have something to do.
//!
//! Writes of the logs begin together, in one system call, when none of the former is under way: what comes for any of the cores meanwhile is one commit
//! for each. So there are as many rounds of commits as a single core would make, and each frame, padded to a block, holds as much as it can. What
//! a core promises is its own matter as before: nothing here is shared but the time.
//!
//! Rounds are *paced*: a body of a sender is a few hundred samples for each core it touches, which fill a small part of a block. So a round begins not before
//! [`PACE`] after the last one, unless what waits would fill a block of every core. After a rest the first begins at once.
//!
//! A core that has its CPU for itself has no crew. Cores that share a CPU and have their logs in different directories are in different crews, so that a slow disk delays none of another.

use std::path::Path;
use std::time::Duration;

use model::CoreId;
use reactor::{Event, Reactor, Tick};

use crate::core::Core;
use crate::recovery::Home;

/// Cores of a crew at most, so that what they may have in flight (less than 16 operations each) fits into one loop; more on the same CPU are
/// several crews.
pub(crate) const CREW_MAX: usize = 64;

/// From the beginning of a round of commits to that of the next, unless much waits.
pub(crate) const PACE: Duration = Duration::from_millis(2);

/// What a block of a log holds.
const BLOCK_BYTES: usize = 4096;

const _: () = assert!(CREW_MAX * 16 <= reactor::OPERATIONS_MAX);

/// The cores that share a thread each, of cores with these CPUs and logs in these trees: rounds of commits, and the helper threads of a loop, wait for the disk of one.
pub(crate) fn crews(cpus: &[usize], homes: &[Home]) -> Vec<Vec<CoreId>> {
    assert_eq!(cpus.len(), homes.len());
    let mut crews: Vec<((usize, &Path), Vec<CoreId>)> = Vec::new();
    for (core, (&cpu, home)) in (0..).map(CoreId).zip(cpus.iter().zip(homes)) {
        let place = (cpu, home.tree.as_path());
        let open = |crew: &&mut (_, Vec<CoreId>)| crew.0 == place && crew.1.len() < CREW_MAX;
        match crews.iter_mut().find(open) {
            Some((_, crew)) => crew.push(core),
            None => crews.push((place, vec![core])),
        }
    }
    crews.into_iter().map(|(_, crew)| crew).collect()
}

/// See the module. The cores belong to whoever turns it.
pub(crate) struct Crew {
    /// A seat at the loop of the cores.
    reactor: Reactor,
    /// Rings of the doorbell, which say nothing that a look does not.
    events: Vec<Event>,
    /// Which of the cores are turned this time.
    due: Vec<bool>,
    /// When the next round of commits may begin though little waits.
    next_round: Tick,
    /// Something waits for that.
    paced: bool,
}

impl Crew {
    /// A crew of these cores, all of which have seats at the loop of `reactor`.
    pub(crate) fn new(reactor: Reactor, cores: &mut [Core]) -> Crew {
        for core in cores {
            core.log.hold();
        }
        Crew {
            reactor,
            events: Vec::new(),
            due: Vec::new(),
            next_round: Tick::ZERO,
            paced: false,
        }
    }

    /// Turns the cores until all have stopped.
    pub(crate) fn run(&mut self, mut cores: Vec<Core>) {
        while self.turn(&mut cores, None) {
            cores.retain(|core| {
                if core.is_stopped() {
                    core.mark_stopped();
                }
                !core.is_stopped()
            });
        }
        cores.iter().for_each(Core::mark_stopped);
    }

    /// One turn of all cores, without sleeping beyond `until`. False: all have stopped.
    pub(crate) fn turn(&mut self, cores: &mut [Core], until: Option<Tick>) -> bool {
        let Some(first) = cores.first() else {
            return false;
        };
        let (mailboxes, leader) = (first.mailboxes.clone(), first.id);
        let post = mailboxes.of(leader).post();
        let busy = |core: &Core| core.has_work() || core.reactor.has_events();
        match cores.iter().any(busy) {
            true => self.reactor.wait_for_any(Some(Tick::ZERO), 1),
            false => {
                let writing = cores.iter().filter(|core| core.log.is_writing()).count();
                let will_wake = self.paced || writing > 0;
                if until.is_none() && will_wake {
                    post.doze();
                }
                let until = match self.paced {
                    true => Some(until.map_or(self.next_round, |until| until.min(self.next_round))),
                    false => until,
                };
                self.reactor.wait_for_any(until, writing);
            }
        }
        post.wake();
        self.reactor.take(&mut self.events);
        self.events.clear();
        let (mut now, wall_ms) = (self.reactor.now(), self.reactor.wall_ms());
        self.due.clear();
        self.due.extend(cores.iter().map(Core::is_due));
        for (core, _) in due(cores, &self.due) {
            core.look(now, wall_ms);
        }
        for (core, _) in due(cores, &self.due) {
            now = core.work(now);
        }
        self.paced = false;
        if !cores.iter().any(|core| core.log.is_writing()) {
            self.begin_round(cores, now);
        }
        cores.iter().any(|core| !core.is_stopped())
    }

    /// Begins the writes of the logs, or says that they wait.
    fn begin_round(&mut self, cores: &mut [Core], now: Tick) {
        let queued: usize = cores.iter().map(|core| core.log.queued_bytes()).sum();
        if queued == 0 && cores.iter().all(|core| !core.log.wants_sync()) {
            return;
        }
        if now < self.next_round && queued < BLOCK_BYTES * cores.len() {
            self.paced = true;
            return;
        }
        self.next_round = now.after(PACE);
        for core in cores {
            core.log.go(&mut core.reactor);
        }
    }
}

fn due<'c>(cores: &'c mut [Core], due: &'c [bool]) -> impl Iterator<Item = (&'c mut Core, bool)> {
    let all = cores.iter_mut().zip(due.iter().copied());
    all.filter(|(core, due)| *due && !core.is_stopped())
}
