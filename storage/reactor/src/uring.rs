//! The io_uring world.
//!
//! Submitting an operation only fills an entry of the submission queue; one `io_uring_enter` per
//! turn hands over what has queued up and waits for completions in the same call. An idle core
//! blocks there; nothing polls. The doorbell is a read of its eventfd that lies in the ring while
//! the core sleeps.
//!
//! The ring is set up for one issuing thread with deferred task work, where the kernel knows that
//! (6.1): completions are processed when this thread enters, so they never interrupt the core while
//! it computes; the kernel tells by a flag in shared memory that there is something to fetch, so a
//! busy core pays no call to find out.
//!
//! Invariants:
//! - What the kernel got a pointer to (buffer, path, the doorbell's count) lies on the heap, owned
//!   by `flights` or `bell_count`, until its completion was reaped. Dropping the world waits for
//!   that; while a panic unwinds it leaves that memory to the kernel.
//! - One completion per entry, so the completion queue cannot overflow: see `limits.rs`.
//! - Few operations have no entry of their own (list, stat, lock), or are rare (link, opening the directory of a
//!   directory sync; truncate before Linux 6.9): they run inline. None of them is on the way of a
//!   sample.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use crate::bell::Bell;
use crate::blocking;
use crate::buffer::Buffer;
use crate::limits::{OPERATIONS_MAX, RING_COMPLETIONS, RING_WORKERS_MAX, TOGETHER};
use crate::op::{Op, OpResult};
use crate::reactor::Stats;
use crate::table::{Table, Value};

/// `user_data` of the doorbell's read; operations use their index in `flights`.
const BELL: u64 = u64::MAX;
/// `user_data` of the cancellation of that read.
const CANCEL: u64 = u64::MAX - 1;
/// `user_data` of the trial at opening.
const TRIAL: u64 = u64::MAX - 2;

pub(crate) struct Uring {
    ring: IoUring,
    table: Table<Arc<OwnedFd>>,
    /// Operations in flight, by `user_data`.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    in_flight: usize,
    /// Ended, not yet fetched by the reactor.
    ended: VecDeque<(u64, OpResult)>,
    bell: Arc<Bell>,
    /// Where the kernel puts the eventfd's count; content unused.
    bell_count: Buffer,
    /// Whether the read of the eventfd lies in the ring.
    bell_armed: bool,
    has_ftruncate: bool,
    /// Only what the ring counts.
    stats: Stats,
}

/// An operation the kernel is working on, with everything it has pointers to.
struct Flight {
    token: u64,
    op: Op,
    path: Arc<Path>,
    /// Keeps the descriptor open; for a directory sync, of the directory.
    handle: Option<Arc<OwnedFd>>,
    direct: bool,
    /// Bytes moved so far by a read or write that came back short.
    done: usize,
    /// One path, or two of a rename.
    paths: [Option<CString>; 2],
}

impl Uring {
    /// Sets up a ring and tries it. The error says what was tried and what the kernel answered.
    pub(crate) fn open(entries: u32, bell: Arc<Bell>) -> Result<Uring, String> {
        let ring = build(entries)?;
        let has_ftruncate = check_operations(&ring)?;
        if !ring.params().is_feature_ext_arg() {
            return Err("the kernel is too old: no timeout for io_uring_enter (needs 5.11)".into());
        }
        if !ring.params().is_feature_nodrop() {
            return Err("the kernel is too old: it may drop completions (needs 5.5)".into());
        }
        // Only a bound: older kernels do not know the call.
        let _ = ring
            .submitter()
            .register_iowq_max_workers(&mut [RING_WORKERS_MAX; 2]);
        let mut uring = Uring {
            ring,
            table: Table::new(),
            flights: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            ended: VecDeque::new(),
            bell,
            bell_count: Buffer::new(8),
            bell_armed: false,
            has_ftruncate,
            stats: Stats::default(),
        };
        uring.trial()?;
        Ok(uring)
    }

    /// One empty operation through the ring: a seccomp profile may allow the set-up and refuse the
    /// rest.
    fn trial(&mut self) -> Result<(), String> {
        self.push(opcode::Nop::new().build().user_data(TRIAL));
        self.ring
            .submit_and_wait(1)
            .map_err(|error| format!("io_uring_enter: {error}"))?;
        self.stats.enters += 1;
        let answer = self.ring.completion().next();
        match answer {
            Some(entry) if entry.user_data() == TRIAL && entry.result() == 0 => Ok(()),
            Some(entry) => Err(format!("a trial operation answered {}", entry.result())),
            None => Err("a trial operation brought no completion".to_owned()),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats
    }

    /// The descriptor of an open file, shared.
    pub(crate) fn descriptor(&mut self, file: crate::File) -> Arc<OwnedFd> {
        self.table.handle(file)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight + self.ended.len()
    }

    pub(crate) fn submit(&mut self, token: u64, mut op: Op) {
        let begun = self.table.begin(&op);
        let (path, mut handle, direct) = (begun.path, begun.handle, begun.direct);
        let inline = match &op {
            Op::List { .. } | Op::Stat { .. } | Op::Lock { .. } | Op::Link { .. } => true,
            Op::Truncate { .. } => !self.has_ftruncate,
            _ => false,
        };
        if inline {
            self.stats.inline += 1;
            let found = blocking::execute(&mut op, blocking::borrowed(&handle), direct);
            return self.end(token, op, path, found);
        }
        if let Op::SyncDir { path: dir } = &op {
            match blocking::open_dir(dir) {
                Ok(dir) => handle = Some(Arc::new(dir)),
                Err(error) => return self.end(token, op, path, Err(error)),
            }
        }
        let paths = match c_paths(&op) {
            Ok(paths) => paths,
            Err(error) => return self.end(token, op, path, Err(error)),
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        assert!(index < OPERATIONS_MAX);
        assert!(self.flights[index].is_none());
        self.flights[index] = Some(Flight {
            token,
            op,
            path,
            handle,
            direct,
            done: 0,
            paths,
        });
        self.in_flight += 1;
        self.queue(index);
    }

    /// The next operation that ended.
    pub(crate) fn pop(&mut self) -> Option<(u64, OpResult)> {
        self.ended.pop_front()
    }

    /// Submits what is queued and waits up to `timeout` (None: for ever) for a completion or the
    /// bell, and before that a moment for as many as were begun `together`; with a zero timeout only looks. Returns the bell's bits.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>, together: usize) -> u32 {
        self.reap();
        let look = timeout == Some(Duration::ZERO) || !self.ended.is_empty();
        if !look && self.bell.try_sleep() {
            if !self.bell_armed {
                self.arm_bell();
            }
            let together = together.min(self.in_flight);
            let is_long = timeout.is_none_or(|timeout| timeout > TOGETHER);
            let mut is_over = false;
            if together > 1 && is_long {
                self.enter(together, Some(TOGETHER));
                is_over = !self.ring.completion().is_empty();
            }
            if !is_over {
                self.enter(1, timeout);
            }
        } else {
            self.flush();
        }
        let bits = self.bell.take();
        self.reap();
        bits
    }

    /// Submits what is queued, and lets the kernel post what it has finished. No call if there is
    /// neither.
    pub(crate) fn flush(&mut self) {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if !idle {
            self.enter(0, Some(Duration::ZERO));
        }
    }

    /// One `io_uring_enter`.
    fn enter(&mut self, wanted: usize, timeout: Option<Duration>) {
        self.stats.enters += 1;
        let submitter = self.ring.submitter();
        let entered = match timeout {
            Some(timeout) if wanted > 0 => {
                let timeout = Timespec::from(timeout);
                submitter.submit_with_args(wanted, &SubmitArgs::new().timespec(&timeout))
            }
            _ => submitter.submit_and_wait(wanted),
        };
        match entered {
            Ok(_) => (),
            // A signal, or the timeout: the caller's loop looks again. EBUSY and EAGAIN: the kernel
            // wants completions reaped or memory back first; what is queued stays queued.
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => (),
                _ => panic!("io_uring_enter: {error}"),
            },
        }
    }

    /// Takes completions out of the ring.
    fn reap(&mut self) {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                return;
            };
            match entry.user_data() {
                BELL => self.bell_armed = false,
                CANCEL => (),
                index => {
                    self.stats.ring_completions += 1;
                    let index = usize::try_from(index).expect("an index");
                    self.complete(index, entry.result());
                }
            }
        }
    }

    /// The kernel is done with an entry: the operation has ended, or a part of it has.
    fn complete(&mut self, index: usize, result: i32) {
        let flight = self.flights[index]
            .as_mut()
            .expect("a completion has its operation");
        // A close is over whatever it answers; its descriptor must not be named again.
        let is_close = matches!(flight.op, Op::Close { .. });
        if matches!(result.wrapping_neg(), libc::EINTR | libc::EAGAIN) && !is_close {
            return self.queue(index);
        }
        if let (Ok(count), Op::Read { len, .. } | Op::Write { len, .. }) =
            (usize::try_from(result), &flight.op)
        {
            flight.done += count;
            let goes_on = match flight.op {
                Op::Read { .. } => blocking::read_goes_on(count, flight.direct),
                _ => count > 0,
            };
            if flight.done < *len && goes_on {
                return self.queue(index);
            }
        }
        let flight = self.flights[index].take().expect("looked at above");
        self.free.push(index);
        self.in_flight -= 1;
        let found = found(&flight, result);
        self.end(flight.token, flight.op, flight.path, found);
    }

    fn end(&mut self, token: u64, op: Op, path: Arc<Path>, found: io::Result<Value<OwnedFd>>) {
        let found = found.map(|value| match value {
            Value::Handle(fd) => Value::Handle(Arc::new(fd)),
            Value::Unit => Value::Unit,
            Value::Count(count) => Value::Count(count),
            Value::Entries(entries) => Value::Entries(entries),
            Value::Stat(stat) => Value::Stat(stat),
        });
        self.ended
            .push_back((token, self.table.end(op, path, found)));
    }

    /// Queues the entry of an operation, or of what is left of it.
    fn queue(&mut self, index: usize) {
        let flight = self.flights[index]
            .as_mut()
            .expect("queued operations are in flight");
        let entry = flight.entry().user_data(index as u64);
        self.push(entry);
    }

    fn arm_bell(&mut self) {
        let fd = Fd(self.bell.eventfd().as_raw_fd());
        let entry = opcode::Read::new(fd, self.bell_count.as_raw(), 8)
            .build()
            .user_data(BELL);
        self.push(entry);
        self.bell_armed = true;
    }

    /// Puts an entry into the submission queue, handing over a full one first.
    fn push(&mut self, entry: squeue::Entry) {
        self.stats.ring_entries += 1;
        loop {
            // SAFETY: what the entry points to stays valid until its completion is reaped: buffers,
            // paths and descriptors are owned by its `Flight`, which `complete` takes out of
            // `flights` only then; the doorbell's count and eventfd are owned by `self`, and `drop`
            // waits for the completions of both kinds before they are freed. The trial entry points
            // to nothing.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.enter(0, None);
        }
    }
}

impl Flight {
    /// The entry for what is left to do.
    fn entry(&mut self) -> squeue::Entry {
        let at = Fd(libc::AT_FDCWD);
        let fd = || {
            Fd(self
                .handle
                .as_ref()
                .expect("the operation has a descriptor")
                .as_raw_fd())
        };
        let c_path = |index: usize| {
            self.paths[index]
                .as_ref()
                .expect("the operation has a path")
                .as_ptr()
        };
        match &mut self.op {
            Op::Open { mode, .. } => opcode::OpenAt::new(at, c_path(0))
                .flags(blocking::open_flags(*mode))
                .mode(blocking::FILE_MODE)
                .build(),
            Op::Close { .. } => {
                let handle = self.handle.take().expect("a close has a descriptor");
                match Arc::into_inner(handle) {
                    Some(fd) => opcode::Close::new(Fd(fd.into_raw_fd())).build(),
                    // A [`crate::Reader`] has it too; the last of them closes the descriptor.
                    None => opcode::Nop::new().build(),
                }
            }
            Op::Read {
                offset, buf, len, ..
            } => {
                let (start, rest) = (self.done, *len - self.done);
                let target = buf[start..].as_mut_ptr();
                opcode::Read::new(fd(), target, rest as u32)
                    .offset(*offset + start as u64)
                    .build()
            }
            Op::Write {
                offset,
                buf,
                len,
                dsync,
                ..
            } => {
                let (start, rest) = (self.done, *len - self.done);
                let flags = if *dsync { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(fd(), buf[start..].as_ptr(), rest as u32)
                    .offset(*offset + start as u64)
                    .rw_flags(flags)
                    .build()
            }
            Op::Sync { data_only, .. } => {
                let flags = if *data_only {
                    FsyncFlags::DATASYNC
                } else {
                    FsyncFlags::empty()
                };
                opcode::Fsync::new(fd()).flags(flags).build()
            }
            Op::SyncDir { .. } => opcode::Fsync::new(fd()).build(),
            Op::Allocate { offset, len, .. } => {
                opcode::Fallocate::new(fd(), *len).offset(*offset).build()
            }
            Op::Truncate { len, .. } => opcode::Ftruncate::new(fd(), *len).build(),
            Op::Rename { .. } => opcode::RenameAt::new(at, c_path(0), at, c_path(1)).build(),
            Op::Remove { .. } => opcode::UnlinkAt::new(at, c_path(0)).build(),
            Op::RemoveDir { .. } => opcode::UnlinkAt::new(at, c_path(0))
                .flags(libc::AT_REMOVEDIR)
                .build(),
            Op::CreateDir { .. } => opcode::MkDirAt::new(at, c_path(0))
                .mode(blocking::DIR_MODE)
                .build(),
            Op::List { .. } | Op::Stat { .. } | Op::Lock { .. } | Op::Link { .. } => {
                unreachable!("these run inline")
            }
        }
    }
}

/// The kernel's answer to the last entry of an operation.
fn found(flight: &Flight, result: i32) -> io::Result<Value<OwnedFd>> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(result.wrapping_neg()));
    }
    Ok(match &flight.op {
        Op::Open { .. } => {
            // SAFETY: a successful openat answers with a new descriptor, which nobody else owns;
            // this completion is reaped once.
            Value::Handle(unsafe { OwnedFd::from_raw_fd(result) })
        }
        Op::Read { .. } => Value::Count(flight.done),
        Op::Write { len, .. } if flight.done < *len => {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Op::Write { .. } => Value::Count(flight.done),
        _ => Value::Unit,
    })
}

fn c_paths(op: &Op) -> io::Result<[Option<CString>; 2]> {
    let c_string = |path: &Path| Ok::<_, io::Error>(CString::new(path.as_os_str().as_bytes())?);
    Ok(match op {
        Op::Rename { from, to } => [Some(c_string(from)?), Some(c_string(to)?)],
        other => [other.path().map(c_string).transpose()?, None],
    })
}

/// Sets up the ring, with the flags of newer kernels where they are known.
fn build(entries: u32) -> Result<IoUring, String> {
    let mut modern = IoUring::builder();
    modern
        .setup_cqsize(RING_COMPLETIONS.max(entries * 2))
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    let mut plain = IoUring::builder();
    plain.setup_cqsize(RING_COMPLETIONS.max(entries * 2));
    match modern.build(entries) {
        Ok(ring) => Ok(ring),
        // EINVAL: a flag is not known here.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => plain
            .build(entries)
            .map_err(|error| format!("io_uring_setup: {error}")),
        Err(error) => Err(format!("io_uring_setup: {error}")),
    }
}

/// Checks that the kernel has what we need; says whether it also has ftruncate.
fn check_operations(ring: &IoUring) -> Result<bool, String> {
    let mut probe = io_uring::Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| format!("io_uring_register (probe): {error}"))?;
    let needed = [
        ("openat", opcode::OpenAt::CODE),
        ("close", opcode::Close::CODE),
        ("read", opcode::Read::CODE),
        ("write", opcode::Write::CODE),
        ("fsync", opcode::Fsync::CODE),
        ("fallocate", opcode::Fallocate::CODE),
        ("renameat", opcode::RenameAt::CODE),
        ("unlinkat", opcode::UnlinkAt::CODE),
        ("mkdirat", opcode::MkDirAt::CODE),
        ("async cancel", opcode::AsyncCancel::CODE),
    ];
    match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
        Some((name, _)) => Err(format!("the kernel's io_uring has no {name} (needs 5.15)")),
        None => Ok(probe.is_supported(opcode::Ftruncate::CODE)),
    }
}

impl Drop for Uring {
    /// Waits until the kernel uses none of our memory any more.
    ///
    /// Not while a panic unwinds: what panicked may have counted an operation that never got into the ring, for which no completion comes, and a
    /// core that waits here never gets to end its process. What the kernel may still write to is left to it instead.
    fn drop(&mut self) {
        if std::thread::panicking() {
            mem::forget(mem::take(&mut self.flights));
            mem::forget(mem::replace(&mut self.bell_count, Buffer::new(8)));
            return;
        }
        if self.bell_armed {
            self.push(opcode::AsyncCancel::new(BELL).build().user_data(CANCEL));
        }
        while self.in_flight > 0 || self.bell_armed {
            self.enter(1, None);
            self.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// Closing a file that a reader held panicked after the operation was counted and before it was queued. The ring then waited for its
    /// completion while the panic unwound: the node neither started nor ended.
    #[test]
    fn a_panic_with_an_operation_that_was_never_queued_unwinds() {
        let bell = Arc::new(Bell::with_eventfd().unwrap());
        let uring = match Uring::open(8, bell) {
            Ok(uring) => uring,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let (done, ended) = channel();
        thread::spawn(move || {
            let unwound = catch_unwind(AssertUnwindSafe(move || {
                let mut world = uring;
                world.in_flight += 1;
                panic!("{} counted, none queued", world.in_flight);
            }));
            done.send(unwound.is_err()).unwrap();
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}
