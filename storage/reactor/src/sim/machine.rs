//! The machine: clock, operations in flight, faults, power; and what each operation does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::content::Change;
use super::disk::{Disk, Errno, Inode, tear};
use super::port::{Found, SimFile};
use super::{Fault, OpView, SimOptions};
use crate::op::{Entry, Op, OpKind, OpenMode, Stat};
use crate::table::Value;
use crate::time::Tick;

type Rule = Box<dyn FnMut(&OpView<'_>) -> Option<Fault> + Send>;

pub(super) struct Machine {
    pub(super) options: SimOptions,
    rng: SmallRng,
    pub(super) now: Tick,
    /// Wall clock minus monotonic clock, milliseconds.
    wall_offset_ms: i64,
    pub(super) disk: Disk,
    /// By due time, then by submission.
    flights: BTreeMap<(Tick, u64), Flight>,
    submitted: u64,
    pub(super) completed: u64,
    /// The power goes instead of the completion after this one.
    pub(super) stop_at: Option<u64>,
    pub(super) off: bool,
    /// By number of the completion.
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) rules: Vec<Rule>,
    pub(super) locks: BTreeSet<Inode>,
    ports: u64,
    /// Counts crashes and kills; ports of earlier boots are dead.
    pub(super) boot: u64,
}

/// An operation in flight.
pub(super) struct Flight {
    pub(super) port: u64,
    pub(super) token: u64,
    pub(super) op: Op,
    pub(super) path: Arc<Path>,
    pub(super) file: Option<SimFile>,
    /// The disk's count of changes when it was submitted: what a sync covers.
    pub(super) sequence: u64,
}

impl Machine {
    pub(super) fn new(options: SimOptions) -> Machine {
        assert!(options.latency.start() <= options.latency.end());
        Machine {
            rng: SmallRng::seed_from_u64(options.seed),
            // Not zero, so that a forgotten clock shows.
            now: Tick::from_nanos(1_000_000_000),
            wall_offset_ms: options.wall_ms - 1000,
            disk: Disk::new(options.capacity),
            flights: BTreeMap::new(),
            submitted: 0,
            completed: 0,
            stop_at: None,
            off: false,
            faults: BTreeMap::new(),
            rules: Vec::new(),
            locks: BTreeSet::new(),
            ports: 0,
            boot: 0,
            options,
        }
    }

    pub(super) fn wall_ms(&self) -> i64 {
        (self.now.as_nanos() / 1_000_000) as i64 + self.wall_offset_ms
    }

    pub(super) fn set_wall_ms(&mut self, wall_ms: i64) {
        self.wall_offset_ms += wall_ms - self.wall_ms();
    }

    /// A new reactor: its number and boot.
    pub(super) fn attach(&mut self) -> (u64, u64) {
        self.ports += 1;
        (self.ports, self.boot)
    }

    /// A reactor goes in good order: its operations take effect.
    pub(super) fn detach(&mut self, port: u64) {
        let keys: Vec<_> = self.keys_of(port).collect();
        for key in keys {
            let mut flight = self.flights.remove(&key).expect("listed just now");
            // Nobody is left to be told.
            let _ = self.perform(&mut flight);
        }
    }

    pub(super) fn submit(&mut self, flight: Flight) {
        let (low, high) = (self.options.latency.start(), self.options.latency.end());
        let nanos = |duration: &Duration| duration.as_nanos() as u64;
        let latency = self.rng.random_range(nanos(low)..=nanos(high));
        self.submitted += 1;
        let key = (
            self.now.after(Duration::from_nanos(latency)),
            self.submitted,
        );
        self.flights.insert(key, flight);
    }

    pub(super) fn in_flight(&self, port: Option<u64>) -> usize {
        match port {
            None => self.flights.len(),
            Some(port) => self.keys_of(port).count(),
        }
    }

    pub(super) fn next_due(&self, port: Option<u64>) -> Option<Tick> {
        if self.off {
            return None;
        }
        match port {
            None => self.flights.keys().next().map(|key| key.0),
            Some(port) => self.keys_of(port).next().map(|key| key.0),
        }
    }

    fn keys_of(&self, port: u64) -> impl Iterator<Item = (Tick, u64)> + '_ {
        self.flights
            .iter()
            .filter(move |(_, flight)| flight.port == port)
            .map(|(&key, _)| key)
    }

    /// Takes out the next operation of `port` that is due, or the power where it is time.
    pub(super) fn take_due(&mut self, port: u64) -> Option<Flight> {
        let key = self.keys_of(port).next().filter(|key| key.0 <= self.now)?;
        if self.stop_at == Some(self.completed) {
            self.off = true;
            return None;
        }
        self.flights.remove(&key)
    }

    /// Completes an operation: with its effect, or with a planned fault.
    pub(super) fn complete(&mut self, flight: &mut Flight) -> Found {
        self.completed += 1;
        match self.planned_fault(flight) {
            None => self.perform(flight),
            Some(fault) => self.fail(flight, fault),
        }
    }

    fn planned_fault(&mut self, flight: &Flight) -> Option<Fault> {
        if let Some(fault) = self.faults.remove(&self.completed) {
            return Some(fault);
        }
        let view = OpView {
            number: self.completed,
            kind: flight.op.kind(),
            path: &flight.path,
            offset: flight.op.offset(),
            len: flight.op.len(),
            dsync: flight.is_dsync(),
        };
        self.rules.iter_mut().find_map(|rule| rule(&view))
    }

    /// The whole effect of an operation.
    fn perform(&mut self, flight: &mut Flight) -> Found {
        if let Some(change) = flight.change()? {
            let count = flight.op.len() as usize;
            let value = match flight.op {
                Op::Write { .. } => Value::Count(count),
                _ => Value::Unit,
            };
            let durable = flight.is_dsync();
            self.disk.change(flight.inode(), change, durable)?;
            return Ok(value);
        }
        let (file, sequence) = (flight.file, flight.sequence);
        match &mut flight.op {
            Op::Write { .. } | Op::Truncate { .. } | Op::Allocate { .. } => {
                unreachable!("changes are handled above")
            }
            Op::Open { path, mode } => self.open(path, *mode).map(Value::Handle),
            Op::Lock { path } => self.lock(path).map(Value::Handle),
            Op::Close { .. } => {
                let file = file.expect("a close has a file");
                if file.locked {
                    self.locks.remove(&file.inode);
                }
                Ok(Value::Unit)
            }
            Op::Read {
                offset, buf, len, ..
            } => {
                let file = file.expect("a read has a file");
                if !file.mode.read {
                    return Err(libc::EBADF);
                }
                Ok(Value::Count(self.disk.read(
                    file.inode,
                    *offset,
                    &mut buf[..*len],
                )))
            }
            Op::Sync { .. } => {
                self.disk
                    .sync(file.expect("a sync has a file").inode, sequence);
                Ok(Value::Unit)
            }
            Op::SyncDir { path } => unit(self.disk.sync_dir(path, sequence)),
            Op::Rename { from, to } => unit(self.disk.rename(from, to)),
            Op::Link { from, to } => unit(self.disk.link(from, to)),
            Op::Remove { path } => unit(self.disk.remove(path, false)),
            Op::RemoveDir { path } => unit(self.disk.remove(path, true)),
            Op::CreateDir { path } => unit(self.disk.create_dir(path).map(drop)),
            Op::List { path } => {
                let listed = self.disk.list(path)?;
                let entry = |(name, len, is_dir)| Entry { name, len, is_dir };
                Ok(Value::Entries(listed.into_iter().map(entry).collect()))
            }
            Op::Stat { path } => {
                let inode = self.disk.lookup(path)?;
                let (len, is_dir) = (self.disk.len(inode), self.disk.is_dir(inode));
                Ok(Value::Stat(Stat { len, is_dir }))
            }
        }
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> Result<SimFile, Errno> {
        // The same assertions as in the real worlds.
        crate::blocking::open_flags(mode);
        if mode.direct && !self.options.direct {
            return Err(libc::EINVAL);
        }
        let inode = match self.disk.lookup(path) {
            Ok(_) if mode.create_new => return Err(libc::EEXIST),
            Ok(inode) if self.disk.is_dir(inode) => return Err(libc::EISDIR),
            Ok(inode) => inode,
            Err(libc::ENOENT) if mode.create || mode.create_new => self.disk.create_file(path)?,
            Err(errno) => return Err(errno),
        };
        Ok(SimFile {
            inode,
            mode,
            locked: false,
        })
    }

    fn lock(&mut self, path: &Path) -> Result<SimFile, Errno> {
        let file = self.open(path, OpenMode::create())?;
        if !self.locks.insert(file.inode) {
            return Err(libc::EWOULDBLOCK);
        }
        Ok(SimFile {
            locked: true,
            ..file
        })
    }

    /// Fails an operation, with what it may have done nevertheless.
    fn fail(&mut self, flight: &mut Flight, fault: Fault) -> Found {
        match fault {
            Fault::Misdirect { by } => {
                if let Op::Write { offset, .. } = &mut flight.op {
                    *offset = offset.saturating_add_signed(by);
                }
                self.perform(flight)
            }
            Fault::Short { bytes } => {
                if let Some(Change::Write { offset, data }) = flight.change()? {
                    let data = Arc::from(&data[..bytes.min(data.len())]);
                    let change = Change::Write { offset, data };
                    self.disk.change(flight.inode(), change, false)?;
                }
                Err(libc::ENOSPC)
            }
            Fault::Errno(errno) => {
                self.half_perform(flight, errno);
                Err(errno)
            }
        }
    }

    /// What a failed operation leaves behind.
    fn half_perform(&mut self, flight: &mut Flight, errno: Errno) {
        match flight.op.kind() {
            OpKind::Write => {
                let Ok(Some(change)) = flight.change() else {
                    return;
                };
                let parts = match self.rng.random_range(0..3) {
                    0 => Vec::new(),
                    1 => vec![change],
                    _ => tear(&change, &mut self.rng),
                };
                for part in parts {
                    // Without space for it the part is simply not written.
                    let _ = self.disk.change(flight.inode(), part, false);
                }
            }
            OpKind::Sync => {
                let inode = flight.inode();
                self.disk.lose(inode, flight.sequence, &mut self.rng);
            }
            OpKind::SyncDir => {
                self.disk
                    .lose_names(&flight.path, flight.sequence, &mut self.rng);
            }
            // A close that fails has closed.
            OpKind::Close => {
                let _ = self.perform(flight);
            }
            OpKind::Truncate
            | OpKind::Allocate
            | OpKind::Rename
            | OpKind::Link
            | OpKind::Remove
            | OpKind::RemoveDir
            | OpKind::CreateDir => {
                if errno != libc::ENOSPC && self.rng.random_bool(0.5) {
                    let _ = self.perform(flight);
                }
            }
            OpKind::Open => {
                if errno != libc::ENOSPC && self.rng.random_bool(0.5) {
                    let _ = self.perform(flight);
                }
            }
            OpKind::Lock | OpKind::Read | OpKind::List | OpKind::Stat => (),
        }
    }

    /// Cuts the power and boots.
    pub(super) fn crash(&mut self) {
        for (_, mut flight) in std::mem::take(&mut self.flights) {
            if self.rng.random_bool(0.5) {
                flight.make_volatile();
                let _ = self.perform(&mut flight);
            }
        }
        self.disk.crash(&mut self.rng);
        self.reboot();
    }

    /// Ends the process; the kernel finishes, or has not begun, or has done part of what was in
    /// flight.
    pub(super) fn kill(&mut self) {
        for (_, mut flight) in std::mem::take(&mut self.flights) {
            match self.rng.random_range(0..3) {
                0 => (),
                1 => {
                    let _ = self.perform(&mut flight);
                }
                _ => {
                    if let Ok(Some(change)) = flight.change() {
                        for part in tear(&change, &mut self.rng) {
                            let _ = self.disk.change(flight.inode(), part, false);
                        }
                    }
                }
            }
        }
        self.reboot();
    }

    fn reboot(&mut self) {
        self.boot += 1;
        self.off = false;
        self.stop_at = None;
        self.faults.clear();
        self.rules.clear();
        self.locks.clear();
        assert!(self.flights.is_empty());
    }
}

impl Flight {
    fn is_dsync(&self) -> bool {
        match self.op {
            Op::Write { dsync, .. } => dsync || self.file.is_some_and(|file| file.mode.dsync),
            _ => false,
        }
    }

    /// Of a write cut off in flight nobody knows how far it got: nothing of it is surely durable.
    fn make_volatile(&mut self) {
        if let Op::Write { dsync, .. } = &mut self.op {
            *dsync = false;
        }
        if let Some(file) = &mut self.file {
            file.mode.dsync = false;
        }
    }

    fn inode(&self) -> Inode {
        self.file.expect("an operation on a file").inode
    }

    /// The change of a file this operation makes, if it is one of those.
    fn change(&self) -> Result<Option<Change>, Errno> {
        let change = match &self.op {
            Op::Write {
                offset, buf, len, ..
            } => Change::Write {
                offset: *offset,
                data: Arc::from(&buf[..*len]),
            },
            Op::Truncate { len, .. } => Change::SetLen { len: *len },
            Op::Allocate { offset, len, .. } => Change::Allocate {
                offset: *offset,
                len: *len,
            },
            _ => return Ok(None),
        };
        if !self.file.is_some_and(|file| file.mode.write) {
            return Err(libc::EBADF);
        }
        Ok(Some(change))
    }
}

fn unit(result: Result<(), Errno>) -> Found {
    result.map(|()| Value::Unit)
}
