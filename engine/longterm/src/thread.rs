//! The thread on which blocks go to the bucket, with its own reactor, nicer than everything else of the node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use reactor::{IoMode, Reactor};

use crate::uploader::Uploader;

/// As nice as merges: an upload holds back nothing.
const NICENESS: i32 = 15;

/// Running uploads.
#[derive(Debug)]
pub struct Uploads {
    stop: Arc<AtomicBool>,
    wake: Sender<()>,
    /// Not waited for: a request may take minutes, and whatever ends it, the next life goes on.
    _thread: JoinHandle<()>,
}

impl Uploads {
    /// Starts a thread that makes a pass at once and then every `interval`. Errors: no thread.
    pub fn start(
        mut uploader: Uploader,
        interval: Duration,
        io: IoMode,
    ) -> std::io::Result<Uploads> {
        let stop = Arc::new(AtomicBool::new(false));
        let (wake, woken) = channel::<()>();
        let stopped = stop.clone();
        let body = move || {
            // Where this is refused, uploads compete on equal terms, which costs latency only.
            let _ = rustix::process::nice(NICENESS);
            let mut told: Option<String> = None;
            loop {
                attempt(&mut uploader, io, &stopped, &mut told);
                if woken.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        };
        let builder = std::thread::Builder::new().name("myelin-uploader".to_owned());
        let thread = builder.spawn(body)?;
        Ok(Uploads {
            stop,
            wake,
            _thread: thread,
        })
    }

    /// Has a pass begin now instead of at the next interval.
    pub fn wake(&self) {
        // It ends with this.
        let _ = self.wake.send(());
    }

    /// Begins nothing more; a request that is under way is left to itself.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One pass, on a reactor of its own: a pass that has panicked may have left another in any state.
fn attempt(uploader: &mut Uploader, io: IoMode, stop: &AtomicBool, told: &mut Option<String>) {
    let options = reactor::Options {
        io,
        ..Default::default()
    };
    let pass = || -> Result<(), String> {
        let mut reactor = Reactor::open(&options).map_err(|error| error.to_string())?;
        let pass = uploader.run(&mut reactor, stop);
        let pass = pass.map_err(|error| error.to_string())?;
        if pass.uploaded + pass.removed + pass.deleted > 0 {
            let (uploaded, removed, deleted) = (pass.uploaded, pass.removed, pass.deleted);
            tracing::info!(uploaded, removed, deleted, "blocks went to the bucket");
        }
        Ok(())
    };
    let result = catch_unwind(AssertUnwindSafe(pass));
    match result {
        Ok(Ok(())) => {
            if told.take().is_some() {
                tracing::info!("the bucket answers again");
            }
        }
        // An outage is told once, not every minute.
        Ok(Err(error)) => {
            if told.as_ref() != Some(&error) {
                tracing::warn!(
                    error,
                    "blocks stay on the disk, the bucket does not take them"
                );
            }
            *told = Some(error);
        }
        Err(_) => tracing::error!("an upload has panicked; it is tried again"),
    }
}
