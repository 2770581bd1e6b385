//! Where cores are woken: the bell, and what senders have to know to ring it as seldom as possible.
//!
//! Every core that has its thread for itself has a post of its own; the cores of a crew (`crate::crew`) have one together, for they sleep
//! and wake together.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

/// Cores that doze are woken early for so many samples: half a millisecond of work that is better done while the disk writes.
const DOZE_SAMPLES: u32 = 4096;

/// Cores that sleep are woken at once for so many samples; for fewer when the sender has nothing else at hand.
const WAKE_SAMPLES: u32 = 1000;

/// Wakes a thread of cores from its wait; called from any thread.
pub(crate) type Bell = Box<dyn Fn() + Send + Sync>;

/// Whether a push asks for a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// No: the core is awake, somebody else rings, or the end of a write wakes it anyway.
    No,
    /// When the sender has no more pushes at hand.
    Soon,
    /// When the rest of this push is in the mailboxes.
    Now,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Post {
    /// The thread sleeps until a write in flight ends, or the next round of commits may begin (`crate::crew`): it will wake.
    dozing: AtomicBool,
    /// Samples that came since the thread looked; a hint.
    samples: AtomicU32,
    bell: OnceLock<Bell>,
}

impl Post {
    /// So many samples were put into a mailbox.
    pub(crate) fn note(&self, samples: u32) -> Wake {
        let before = self.samples.fetch_add(samples, Ordering::Relaxed);
        let reaches = |bound| before < bound && before.saturating_add(samples) >= bound;
        let dozing = self.dozing.load(Ordering::Relaxed);
        if reaches(if dozing { DOZE_SAMPLES } else { WAKE_SAMPLES }) {
            return Wake::Now;
        }
        match !dozing && before < WAKE_SAMPLES {
            true => Wake::Soon,
            false => Wake::No,
        }
    }

    pub(crate) fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }

    /// The thread is about to sleep until a write in flight ends or a round of commits is due.
    ///
    /// No push is forgotten: one that was enqueued before this was seen has rung the bell, or its sender is going to; one that was enqueued after
    /// it waits for the write, after which comes [`Post::wake`]. Between a sender's push and its look, and between the core's
    /// `wake` and its look into the queue, stands a full fence: at least one of them sees what the other did.
    pub(crate) fn doze(&self) {
        self.dozing.store(true, Ordering::Relaxed);
    }

    /// The thread is awake, and looks into its mailboxes next.
    pub(crate) fn wake(&self) {
        if self.dozing.load(Ordering::Relaxed) {
            self.dozing.store(false, Ordering::Relaxed);
        }
        self.samples.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Installs what wakes the thread, before its first sleep. Cores of a crew have the same bell: that of the first stays.
    pub(crate) fn set_bell(&self, bell: Bell) {
        let _ = self.bell.set(bell);
    }
}
