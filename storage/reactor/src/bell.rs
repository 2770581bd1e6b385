//! The doorbell: how another thread wakes a core, without a system call while the core is awake.
//!
//! A wake through an eventfd costs the ringer a `write` and the core a completion, 3-5 us together,
//! so it is spent only on a core that sleeps. All is decided by one atomic word of three bits:
//! `RUNG` (somebody rang), `DONE` (a helper thread finished an operation), `SLEEPING` (the core is
//! blocking in the kernel, or about to).
//!
//! - ring: `before = fetch_or(RUNG)`; write the eventfd only if `before` is exactly `SLEEPING`.
//! - sleep: `compare_exchange(0, SLEEPING)`; if it fails, do not sleep. After the wake: `swap(0)`.
//! - look, while awake: `swap(0)`.
//!
//! No wakeup is lost. A ringer first publishes its message (a mailbox push), then rings; all
//! operations on the word are read-modify-writes, so they lie in one modification order and each
//! reads the one directly before it. Take a ring R.
//! 1. If the core's next operation after R in that order is a `swap`, it reads RUNG: the core sees
//!    the ring, and as the swap (acquire) reads from R (release) or from a later read-modify-write
//!    of R's release sequence, it also sees the message.
//! 2. If it is the `compare_exchange`, it reads a word that is not 0, fails, and the core does not
//!    sleep but swaps: case 1.
//! 3. If the core's last operation before R was a successful `compare_exchange`, the core sleeps.
//!    The first ringer since then read exactly SLEEPING and writes the eventfd; the ring has a read
//!    of it pending (or poll watches it), and that is level-triggered, so it does not matter
//!    whether the write comes before or after the core is really blocked. Waking, the core swaps:
//!    case 1.
//!
//! A plain load instead of the ringer's `fetch_or` ("already rung, nothing to do") would break case
//! 1: the load may be older than the core's swap, and the message younger than its look at the
//! mailbox. The core, awake, may skip the swap after a load of 0: what it misses stays set and
//! makes the next `compare_exchange` fail. A late eventfd write (the core was woken by something
//! else meanwhile) makes one later sleep end early, which its loop takes as nothing.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Somebody rang the doorbell.
pub(crate) const RUNG: u32 = 1;
/// A helper thread has put a completion into the channel.
pub(crate) const DONE: u32 = 2;
/// The core blocks in the kernel, or is about to.
const SLEEPING: u32 = 4;

/// Wakes one core from any thread. Cheap to clone; outlives its reactor harmlessly.
#[derive(Debug, Clone)]
pub struct Doorbell {
    bell: Arc<Bell>,
}

impl Doorbell {
    pub(crate) fn new(bell: Arc<Bell>) -> Doorbell {
        Doorbell { bell }
    }

    /// Makes the reactor's `wait` return an [`Event::Doorbell`](crate::Event::Doorbell), now or the
    /// next time it is called; many rings may become one event. What the ringer did before is
    /// visible to the core when it handles the event.
    ///
    /// Cost: one atomic operation, and one `write` to an eventfd if the core sleeps.
    pub fn ring(&self) {
        self.bell.signal(RUNG);
    }

    /// How often the core was woken with a system call, by a ring or by a helper thread; for
    /// metrics.
    pub fn wakes(&self) -> u64 {
        self.bell.wakes.load(Ordering::Relaxed)
    }
}

/// The shared word and the eventfd behind it.
#[derive(Debug)]
pub(crate) struct Bell {
    state: AtomicU32,
    wakes: AtomicU64,
    /// None in the simulation, whose reactors never sleep.
    eventfd: Option<OwnedFd>,
}

impl Bell {
    pub(crate) fn with_eventfd() -> std::io::Result<Bell> {
        use rustix::event::{EventfdFlags, eventfd};
        // Not NONBLOCK: the ring would answer the read of an empty one with EAGAIN instead of
        // waiting.
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Bell {
            eventfd: Some(eventfd),
            ..Bell::silent()
        })
    }

    pub(crate) fn silent() -> Bell {
        Bell {
            state: AtomicU32::new(0),
            wakes: AtomicU64::new(0),
            eventfd: None,
        }
    }

    pub(crate) fn eventfd(&self) -> &OwnedFd {
        self.eventfd.as_ref().expect("real worlds have an eventfd")
    }

    /// Sets `bit` and wakes the core if it sleeps and nobody has woken it yet.
    pub(crate) fn signal(&self, bit: u32) {
        debug_assert!(bit == RUNG || bit == DONE);
        let before = self.state.fetch_or(bit, Ordering::AcqRel);
        if before != SLEEPING {
            return;
        }
        let eventfd = self
            .eventfd
            .as_ref()
            .expect("only cores of real worlds sleep");
        self.wakes.fetch_add(1, Ordering::Relaxed);
        // It blocks only at a count near 2^64. Host endianness is what eventfd(2) asks for.
        let one: [u8; 8] = if cfg!(target_endian = "big") {
            1u64.to_be_bytes()
        } else {
            1u64.to_le_bytes()
        };
        loop {
            match rustix::io::write(eventfd, &one) {
                Ok(_) => return,
                Err(rustix::io::Errno::INTR) => (),
                Err(error) => panic!("write to the doorbell's eventfd: {error}"),
            }
        }
    }

    /// Announces sleep. False if somebody signalled before: then do not block, [`Bell::take`].
    pub(crate) fn try_sleep(&self) -> bool {
        debug_assert!(self.eventfd.is_some());
        self.state
            .compare_exchange(0, SLEEPING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Takes what was signalled since the last time: `RUNG`, `DONE`, both or 0. Ends sleep.
    pub(crate) fn take(&self) -> u32 {
        if self.state.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.state.swap(0, Ordering::AcqRel) & !SLEEPING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_ring_of_a_sleeping_core_pays_a_system_call() {
        let bell = Arc::new(Bell::with_eventfd().expect("eventfd"));
        let doorbell = Doorbell::new(Arc::clone(&bell));
        doorbell.ring();
        doorbell.ring();
        assert_eq!(doorbell.wakes(), 0, "awake");
        assert!(!bell.try_sleep(), "rung before");
        assert_eq!(bell.take(), RUNG);
        assert!(bell.try_sleep());
        doorbell.ring();
        bell.signal(DONE);
        doorbell.ring();
        assert_eq!(doorbell.wakes(), 1);
        assert_eq!(bell.take(), RUNG | DONE);
        assert_eq!(bell.take(), 0);
    }
}
