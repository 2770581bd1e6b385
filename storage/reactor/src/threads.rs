//! The world without io_uring: a few helper threads run plain system calls.
//!
//! For containers whose seccomp profile blocks io_uring, and machines with an old kernel. An
//! operation goes to the helpers through one queue, its completion comes back through a channel,
//! followed by a signal on the doorbell's word. Costs two thread switches per operation that the
//! ring does not have.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bell::{Bell, DONE};
use crate::blocking;
use crate::op::{Op, OpResult};
use crate::table::{Table, Value};

pub(crate) struct Threads {
    table: Table<Arc<OwnedFd>>,
    queue: Arc<Queue>,
    completions: Receiver<Job>,
    helpers: Vec<JoinHandle<()>>,
    bell: Arc<Bell>,
    in_flight: usize,
}

/// One operation on its way to a helper and back.
struct Job {
    token: u64,
    op: Op,
    path: Arc<Path>,
    handle: Option<Arc<OwnedFd>>,
    direct: bool,
    found: Option<io::Result<Value<OwnedFd>>>,
}

/// The way to the helpers. Bounded by `OPERATIONS_MAX`, which `Reactor::submit` asserts.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    fn push(&self, job: Job) {
        let mut state = self.state.lock().expect("no helper panics with the lock");
        state.jobs.push_back(job);
        drop(state);
        self.filled.notify_one();
    }

    /// The next job; None when the queue is closed and empty.
    fn pop(&self) -> Option<Job> {
        let mut state = self.state.lock().expect("no helper panics with the lock");
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self
                .filled
                .wait(state)
                .expect("no helper panics with the lock");
        }
    }

    fn close(&self) {
        self.state
            .lock()
            .expect("no helper panics with the lock")
            .closed = true;
        self.filled.notify_all();
    }
}

impl Threads {
    pub(crate) fn open(helpers: usize, bell: Arc<Bell>) -> io::Result<Threads> {
        let queue = Arc::new(Queue::default());
        let (sender, completions) = channel();
        let mut threads = Threads {
            table: Table::new(),
            queue,
            completions,
            helpers: Vec::with_capacity(helpers),
            bell,
            in_flight: 0,
        };
        for index in 0..helpers {
            let queue = Arc::clone(&threads.queue);
            let sender = sender.clone();
            let bell = Arc::clone(&threads.bell);
            let helper = std::thread::Builder::new()
                .name(format!("io-{index}"))
                .spawn(move || help(&queue, &sender, &bell))?;
            threads.helpers.push(helper);
        }
        Ok(threads)
    }

    pub(crate) fn submit(&mut self, token: u64, op: Op) {
        let begun = self.table.begin(&op);
        self.in_flight += 1;
        self.queue.push(Job {
            token,
            op,
            path: begun.path,
            handle: begun.handle,
            direct: begun.direct,
            found: None,
        });
    }

    /// The descriptor of an open file, shared.
    pub(crate) fn descriptor(&mut self, file: crate::File) -> Arc<OwnedFd> {
        self.table.handle(file)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Blocks until something happens or `timeout` passed (None: for ever); returns the bell's
    /// bits. With a zero timeout only looks.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> u32 {
        if timeout == Some(Duration::ZERO) || !self.bell.try_sleep() {
            return self.bell.take();
        }
        let eventfd = self.bell.eventfd();
        let mut watched = [rustix::event::PollFd::new(
            eventfd,
            rustix::event::PollFlags::IN,
        )];
        let timeout = timeout.map(|timeout| rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut watched, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => (),
            Ok(_) => {
                let mut count = [0; 8];
                match rustix::io::read(eventfd, &mut count) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => (),
                    Err(error) => panic!("read of the doorbell's eventfd: {error}"),
                }
            }
            Err(error) => panic!("poll of the doorbell's eventfd: {error}"),
        }
        self.bell.take()
    }

    /// The next completion that has arrived.
    pub(crate) fn pop(&mut self) -> Option<(u64, OpResult)> {
        if self.in_flight == 0 {
            return None;
        }
        let job = self.completions.try_recv().ok()?;
        self.in_flight -= 1;
        let found = job
            .found
            .expect("a helper fills it in")
            .map(|value| match value {
                Value::Handle(fd) => Value::Handle(Arc::new(fd)),
                Value::Unit => Value::Unit,
                Value::Count(count) => Value::Count(count),
                Value::Entries(entries) => Value::Entries(entries),
                Value::Stat(stat) => Value::Stat(stat),
            });
        Some((job.token, self.table.end(job.op, job.path, found)))
    }
}

/// A helper's life.
fn help(queue: &Queue, completions: &Sender<Job>, bell: &Bell) {
    while let Some(mut job) = queue.pop() {
        let found = blocking::execute(&mut job.op, blocking::borrowed(&job.handle), job.direct);
        job.found = Some(found);
        // For a close this is the last owner: the descriptor is closed here, off the core.
        job.handle = None;
        // A send fails only when the reactor is gone, and with it whoever wants the result.
        if completions.send(job).is_ok() {
            bell.signal(DONE);
        }
    }
}

impl Drop for Threads {
    /// Lets the helpers finish what was submitted, as the ring's world does.
    fn drop(&mut self) {
        self.queue.close();
        for helper in self.helpers.drain(..) {
            // A panic of a helper was printed by its hook; panicking again here would abort.
            let _ = helper.join();
        }
    }
}
