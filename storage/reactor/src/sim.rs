//! The simulated machine: disk, clock and chance from one seed, shared by the reactors of its
//! cores.
//!
//! [`Sim`] is the test's hand on it; `machine.rs` is the machine, `disk.rs` its file system,
//! `port.rs` the end of one reactor. Everything runs on one thread and is repeatable: the same seed
//! and the same calls give the same bytes, orders and times.
//!
//! How operations behave:
//! 1. Submitted, an operation is in flight for a random time (`latency`). Those in flight together
//!    complete in any order. It takes effect at the moment its completion is delivered, not before.
//! 2. What it wrote is *live* then, and *durable* only by a dsync write or a sync (`disk.rs`).
//! 3. [`Sim::crash`] cuts the power: each operation in flight may have had its effect or not, each
//!    write not durable is dropped, kept or torn at sectors, each on its own and so in any order.
//!    Reactors from before the cut never hear of anything again. [`Sim::kill`] is kill -9: the same
//!    for operations in flight, but what is live stays.
//! 4. Any operation can be made to fail ([`Sim::fail_nth`], [`Sim::fail_when`]). A failed write
//!    leaves some, all or none of its sectors changed; a failed sync forgets some of what it should
//!    have written, for good.
//! 5. [`Sim::stop_after`] takes the power away in place of the completion after the n-th, so that
//!    what was submitted meanwhile is in flight at the cut. A test stops after every single I/O by
//!    counting [`Sim::ops`] in a run without a stop and repeating it for each smaller number.
//!
//! Beyond tearing and (on demand) misdirecting writes and flipping bits, the disk does not lie.

mod content;
mod disk;
mod machine;
mod port;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::op::OpKind;
use crate::time::Tick;
use machine::Machine;
pub(crate) use port::{Port, SimReader};

/// A handle on a simulated machine; clones share it.
#[derive(Clone)]
pub struct Sim {
    machine: Arc<Mutex<Machine>>,
}

/// What kind of machine.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// From which all chance comes.
    pub seed: u64,
    /// How long an operation is in flight.
    pub latency: RangeInclusive<Duration>,
    /// Disk space in bytes; beyond it writes and allocations get ENOSPC.
    pub capacity: u64,
    /// Whether the disk takes O_DIRECT; if not, such opens get EINVAL.
    pub direct: bool,
    /// The wall clock at the start, milliseconds since 1970.
    pub wall_ms: i64,
}

impl Default for SimOptions {
    fn default() -> SimOptions {
        SimOptions {
            seed: 0,
            latency: Duration::from_micros(20)..=Duration::from_micros(500),
            capacity: u64::MAX,
            direct: true,
            wall_ms: 1_700_000_000_000,
        }
    }
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// With this errno. What it wrote is undefined, except that ENOSPC changes no names.
    Errno(i32),
    /// A write stops after so many bytes and then finds the disk full; other operations get ENOSPC.
    Short {
        /// Bytes written.
        bytes: usize,
    },
    /// A write lands elsewhere and reports success; other operations are not touched.
    Misdirect {
        /// Added to its offset (a sum below zero lands at zero).
        by: i64,
    },
}

impl Fault {
    /// The disk cannot.
    pub const EIO: Fault = Fault::Errno(libc::EIO);
    /// The disk is full.
    pub const ENOSPC: Fault = Fault::Errno(libc::ENOSPC);
}

/// An operation about to complete, as a fault predicate sees it.
#[derive(Debug, Clone, Copy)]
pub struct OpView<'a> {
    /// Its number among all completions of the machine, from 1.
    pub number: u64,
    /// What it is.
    pub kind: OpKind,
    /// The file (of a rename the old name).
    pub path: &'a Path,
    /// Byte offset, where it has one.
    pub offset: Option<u64>,
    /// Bytes of a read, write or allocation.
    pub len: u64,
    /// Whether it is a write that is durable when it completes.
    pub dsync: bool,
}

impl Sim {
    /// A machine with default options and this seed.
    pub fn new(seed: u64) -> Sim {
        Sim::with(SimOptions {
            seed,
            ..SimOptions::default()
        })
    }

    /// A machine.
    pub fn with(options: SimOptions) -> Sim {
        Sim {
            machine: Arc::new(Mutex::new(Machine::new(options))),
        }
    }

    /// A test that panics holding the machine has failed already.
    fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }

    /// The machine's monotonic clock.
    pub fn now(&self) -> Tick {
        self.machine().now
    }

    /// Lets time pass; what becomes due meanwhile is found by the next turns of the reactors.
    pub fn advance(&self, by: Duration) {
        let mut machine = self.machine();
        machine.now = machine.now.after(by);
    }

    /// When the next operation in flight of any reactor is due. (Timers are known to their
    /// reactors.)
    pub fn next_due(&self) -> Option<Tick> {
        self.machine().next_due(None)
    }

    /// Moves the clock to [`Sim::next_due`], so that some reactor's `poll` brings a completion;
    /// false if nothing is in flight. For tests that turn several reactors by `poll`.
    pub fn step(&self) -> bool {
        let mut machine = self.machine();
        let Some(due) = machine.next_due(None) else {
            return false;
        };
        machine.now = machine.now.max(due);
        true
    }

    /// Sets the wall clock, which may go backwards.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.machine().set_wall_ms(wall_ms);
    }

    /// Operations completed (or failed) since the machine was made, over all crashes.
    pub fn ops(&self) -> u64 {
        self.machine().completed
    }

    /// Operations in flight on all reactors.
    pub fn in_flight(&self) -> usize {
        self.machine().in_flight(None)
    }

    /// Cuts the power in place of the completion after the next `completions` ones.
    pub fn stop_after(&self, completions: u64) {
        let mut machine = self.machine();
        machine.stop_at = Some(machine.completed + completions);
    }

    /// Whether the power is off, by [`Sim::stop_after`].
    pub fn is_off(&self) -> bool {
        self.machine().off
    }

    /// Makes the `nth` completion from now (1 is the next) fail.
    pub fn fail_nth(&self, nth: u64, fault: Fault) {
        assert!(nth > 0);
        let mut machine = self.machine();
        let number = machine.completed + nth;
        machine.faults.insert(number, fault);
    }

    /// Asks `rule` at each completion whether it shall fail. Rules add up; the first that says so
    /// wins.
    pub fn fail_when(&self, rule: impl FnMut(&OpView<'_>) -> Option<Fault> + Send + 'static) {
        self.machine().rules.push(Box::new(rule));
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        let mut machine = self.machine();
        machine.faults.clear();
        machine.rules.clear();
    }

    /// Sets the disk space, as if somebody else used or freed some.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine().disk.capacity = bytes;
    }

    /// Disk space taken, bytes.
    pub fn used(&self) -> u64 {
        self.machine().disk.used()
    }

    /// Cuts the power and boots again: the disk keeps what is durable and of the rest what chance
    /// wants. All reactors made before are dead; planned stops and faults are forgotten.
    pub fn crash(&self) {
        self.machine().crash();
    }

    /// Ends the process as kill -9 does: all reactors made before are dead, but what is live stays,
    /// and is as durable as it was.
    pub fn kill(&self) {
        self.machine().kill();
    }

    /// The live content of a file, None if there is none.
    pub fn live(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let machine = self.machine();
        let inode = machine.disk.lookup(path.as_ref()).ok()?;
        (!machine.disk.is_dir(inode)).then(|| machine.disk.live(inode))
    }

    /// What is surely durable of the content of a live file, its name apart.
    pub fn synced(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let machine = self.machine();
        let inode = machine.disk.lookup(path.as_ref()).ok()?;
        (!machine.disk.is_dir(inode)).then(|| machine.disk.synced(inode))
    }

    /// Flips the bits of `mask` in one byte, live and durable, as a decaying medium would. Panics
    /// if there is no such file.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let mut machine = self.machine();
        let inode = machine.disk.lookup(path.as_ref()).expect("the file exists");
        machine.disk.flip(inode, offset, mask);
    }
}

/// Everything runs on one thread; the lock is there for [`crate::Reader`], which may be sent away.
fn lock(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
    machine
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let machine = self.machine();
        write!(
            f,
            "Sim(seed {}, {} completions)",
            machine.options.seed, machine.completed
        )
    }
}

#[cfg(test)]
mod tests;
