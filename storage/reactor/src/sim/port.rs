//! One reactor's end of the simulated machine: its open files and locks, and its way to the clock.

use std::cell::RefCell;
use std::rc::Rc;

use super::Sim;
use super::disk::Inode;
use super::machine::{Flight, Machine};
use crate::op::{Event, Op, OpenMode};
use crate::table::{Table, Value};
use crate::time::Tick;

pub(crate) struct Port {
    machine: Rc<RefCell<Machine>>,
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
        let machine = Rc::clone(&sim.machine);
        let (id, boot) = machine.borrow_mut().attach();
        Port {
            machine,
            table: Table::new(),
            id,
            boot,
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.machine.borrow().now
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        self.machine.borrow().wall_ms()
    }

    /// Whether this reactor will never hear of anything again.
    pub(crate) fn is_off(&self) -> bool {
        let machine = self.machine.borrow();
        machine.off || machine.boot != self.boot
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.machine.borrow().in_flight(Some(self.id))
    }

    pub(crate) fn submit(&mut self, token: u64, op: Op) {
        if self.is_off() {
            return;
        }
        let begun = self.table.begin(&op);
        let mut machine = self.machine.borrow_mut();
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
            let mut machine = self.machine.borrow_mut();
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
        let mut machine = self.machine.borrow_mut();
        machine.now = machine.now.max(until.unwrap_or(Tick::ZERO));
    }

    /// Moves the clock to this reactor's next completion, or to `deadline` if that is earlier.
    /// False if there is neither.
    pub(crate) fn advance(&mut self, deadline: Option<Tick>) -> bool {
        let mut machine = self.machine.borrow_mut();
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

impl Drop for Port {
    /// The operations in flight take effect, as in the real worlds; locks end.
    fn drop(&mut self) {
        let mut machine = self.machine.borrow_mut();
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
