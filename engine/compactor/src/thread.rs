//! The thread on which blocks are compacted, with its own reactor, nicer than everything else of the node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use reactor::{IoMode, Reactor};

use crate::run::Compactor;

/// Nicer than the keeper that writes cuts: a cut holds back checkpoints, a merge holds back nothing.
const NICENESS: i32 = 15;

/// How often a stop looks whether the thread has ended, and how many times: ten seconds, longer than it takes to drop what is being written.
const STOP_POLL: Duration = Duration::from_millis(10);
const STOP_POLLS: u32 = 1000;

/// A running compactor.
#[derive(Debug)]
pub struct Compaction {
    stop: Arc<AtomicBool>,
    wake: Sender<()>,
    thread: JoinHandle<()>,
}

impl Compaction {
    /// Starts a thread that looks for work every `interval`. Errors: no thread.
    pub fn start(
        mut compactor: Compactor,
        interval: Duration,
        io: IoMode,
    ) -> std::io::Result<Compaction> {
        let stop = Arc::new(AtomicBool::new(false));
        let (wake, woken) = channel::<()>();
        let stopped = stop.clone();
        let body = move || {
            // Where this is refused, merges compete on equal terms, which costs latency only.
            let _ = rustix::process::nice(NICENESS);
            while let Some(why) = wait(&woken, interval) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                attempt(&mut compactor, io, why, &stopped);
            }
        };
        let builder = std::thread::Builder::new().name("myelin-compactor".to_owned());
        let thread = builder.spawn(body)?;
        Ok(Compaction { stop, wake, thread })
    }

    /// Has a run begin now, which takes what was deleted out of all blocks ([`Compactor::clean`]).
    pub fn waker(&self) -> impl Fn() + Send + Sync + use<> {
        let wake = self.wake.clone();
        // It ends with the thread.
        move || wake.send(()).unwrap_or_default()
    }

    /// Ends what is being written, which is removed, and the thread.
    pub fn stop(self) {
        let Compaction { stop, wake, thread } = self;
        stop.store(true, Ordering::Relaxed);
        // Others may hold its like.
        let _ = wake.send(());
        // An answer of the bucket, which it may wait for, may take minutes; whatever ends it, the next life goes on.
        let mut polls = STOP_POLLS;
        while !thread.is_finished() && polls > 0 {
            std::thread::park_timeout(STOP_POLL);
            polls -= 1;
        }
        if thread.is_finished() {
            // A panic of a run has been met.
            let _ = thread.join();
        }
    }
}

/// Why there is a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Its time has come.
    Due,
    Asked,
}

/// Waits for the next run; `None` when nobody is left for whom there could be one.
fn wait(woken: &Receiver<()>, interval: Duration) -> Option<Why> {
    let asked = woken.recv_timeout(interval);
    // However often it was asked for, one run does.
    while woken.try_recv().is_ok() {}
    match asked {
        Ok(()) => Some(Why::Asked),
        Err(RecvTimeoutError::Timeout) => Some(Why::Due),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// One run, on a reactor of its own: a run that has panicked may have left another in any state.
fn attempt(compactor: &mut Compactor, io: IoMode, why: Why, stop: &AtomicBool) {
    let options = reactor::Options {
        io,
        ..Default::default()
    };
    let run = || -> Result<(), String> {
        let mut reactor = Reactor::open(&options).map_err(|error| error.to_string())?;
        let done = match why {
            Why::Due => compactor.run(&mut reactor, stop),
            Why::Asked => compactor.clean(&mut reactor, stop),
        };
        let done = done.map_err(|error| error.to_string())?;
        if done.files > 0 {
            let (files, removed, samples) = (done.files, done.removed, done.merged.samples);
            tracing::info!(files, removed, samples, "blocks were compacted");
        }
        Ok(())
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error, "blocks could not be compacted"),
        Err(_) => {
            compactor.note_panic();
            tracing::error!("compaction has panicked; it is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A merge takes minutes, in which impatient operators ask again and again.
    #[test]
    fn one_run_does_for_all_who_asked_before_it() {
        let (wake, woken) = channel();
        (0..100).for_each(|_| wake.send(()).unwrap());
        let long = Duration::from_secs(3600);
        assert_eq!(wait(&woken, long), Some(Why::Asked), "at once");
        assert!(woken.try_recv().is_err(), "none is owed to them");
        assert_eq!(wait(&woken, Duration::ZERO), Some(Why::Due), "its time");
        wake.send(()).unwrap();
        assert_eq!(wait(&woken, long), Some(Why::Asked), "who asks later");
        drop(wake);
        assert_eq!(wait(&woken, long), None, "nobody is left");
    }
}
