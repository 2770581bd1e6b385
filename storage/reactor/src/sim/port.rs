//! One reactor's end of the simulated machine: its open files and locks, and its way to the clock.

use std::sync::{Arc, Mutex};

use super::disk::Inode;
use super::machine::{Flight, Machine};
use super::{Sim, lock};
use crate::op::{Event, File, Op, OpenMode};
use crate::table::{Table, Value};
use crate::time::Tick;

pub(crate) struct Port {
    machine: Arc<Mutex<Machine>>,
    table: Table<SimFile>,
    /// Number of this port on the machine.
    id: u64,
    /// The boot it belongs to; after a crash or kill it is dead.
    boot: u64,
}

/// An open file.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimFile {
    pub(super) inode: Inode,
    pub(super) mode: OpenMode,
    pub(super) locked: bool,
}

impl Port {
    pub(crate) fn new(sim: &Sim) -> Port {
        let machine = Arc::clone(&sim.machine);
        let (id, boot) = lock(&machine).attach();
        Port {
            machine,
            table: Table::new(),
            id,
            boot,
        }
    }

    pub(crate) fn now(&self) -> Tick {
        lock(&self.machine).now
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        lock(&self.machine).wall_ms()
    }

    /// Whether this reactor will never hear of anything again.
    pub(crate) fn is_off(&self) -> bool {
        let machine = lock(&self.machine);
        machine.off || machine.boot != self.boot
    }

    /// See [`crate::Reader`].
    pub(crate) fn reader(&mut self, file: File) -> SimReader {
        SimReader {
            machine: Arc::clone(&self.machine),
            inode: self.table.handle(file).inode,
            boot: self.boot,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        lock(&self.machine).in_flight(Some(self.id))
    }

    pub(crate) fn submit(&mut self, token: u64, op: Op) {
        if self.is_off() {
            return;
        }
        let begun = self.table.begin(&op);
        let mut machine = lock(&self.machine);
        let sequence = machine.disk.sequence();
        let flight = Flight {
            port: self.id,
            token,
            op,
            path: begun.path,
            file: begun.handle,
            sequence,
        };
        machine.submit(flight);
    }

    /// Lets what is due take effect and appends its completions.
    pub(crate) fn deliver(&mut self, events: &mut Vec<Event>) {
        while !self.is_off() {
            let mut machine = lock(&self.machine);
            let Some(mut flight) = machine.take_due(self.id) else {
                return;
            };
            let found = machine.complete(&mut flight);
            drop(machine);
            let found = found.map_err(std::io::Error::from_raw_os_error);
            let result = self.table.end(flight.op, flight.path, found);
            events.push(Event::Completion {
                token: flight.token,
                result,
            });
        }
    }

    /// Lets time pass without power, so that a loop with a deadline ends.
    pub(crate) fn pass(&mut self, until: Option<Tick>) {
        let mut machine = lock(&self.machine);
        machine.now = machine.now.max(until.unwrap_or(Tick::ZERO));
    }

    /// Moves the clock to this reactor's next completion, or to `deadline` if that is earlier.
    /// False if there is neither.
    pub(crate) fn advance(&mut self, deadline: Option<Tick>) -> bool {
        let mut machine = lock(&self.machine);
        let alive = !machine.off && machine.boot == self.boot;
        let due = if alive {
            machine.next_due(Some(self.id))
        } else {
            None
        };
        let next = match (due, deadline) {
            (Some(due), Some(deadline)) => due.min(deadline),
            (due, deadline) => match due.or(deadline) {
                Some(next) => next,
                None => return false,
            },
        };
        machine.now = machine.now.max(next);
        true
    }
}

/// An open file of the simulation, read past the loop: what is live.
#[derive(Clone)]
pub(crate) struct SimReader {
    machine: Arc<Mutex<Machine>>,
    inode: Inode,
    boot: u64,
}

impl SimReader {
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
        let machine = lock(&self.machine);
        if machine.off || machine.boot != self.boot {
            return Err(std::io::Error::other("the simulated machine has no power"));
        }
        Ok(machine.disk.read(self.inode, offset, into))
    }
}

impl Drop for Port {
    /// The operations in flight take effect, as in the real worlds; locks end.
    fn drop(&mut self) {
        let mut machine = lock(&self.machine);
        if machine.off || machine.boot != self.boot {
            return;
        }
        machine.detach(self.id);
        for file in self.table.drain() {
            if file.locked {
                machine.locks.remove(&file.inode);
            }
        }
    }
}

/// What the machine found.
pub(super) type Found = Result<Value<SimFile>, super::disk::Errno>;
