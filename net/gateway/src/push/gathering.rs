//! One push on several cores: a place for the reply of each, and one wake when the last has come.
//!
//! A core replies on its own thread. Channels of one reply each would be an allocation a core, and would wake the gateway's thread again and
//! again while others are still to come; here the core that finishes last wakes it. An [`Answer`] that is dropped unused counts too: its
//! core is gone. It also carries the bytes that the tenant holds in the core's queue: they are given back when the core is done with them,
//! whether or not the client still waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use model::CoreId;
use shard::PushOutcome;

use crate::distributor::tenants::Tenant;

/// The replies to one push.
#[derive(Debug)]
pub(super) struct Gathering {
    places: Box<[OnceLock<PushOutcome>]>,
    missing: AtomicUsize,
    waker: AtomicWaker,
}

/// The right to reply once.
#[derive(Debug)]
pub(super) struct Answer {
    gathering: Arc<Gathering>,
    index: usize,
    queued: Queued,
}

/// Bytes of a tenant in the queue of a core.
#[derive(Debug)]
pub(super) struct Queued {
    tenant: Arc<Tenant>,
    core: CoreId,
    bytes: u64,
}

impl Queued {
    pub(super) fn new(tenant: &Arc<Tenant>, core: CoreId, bytes: u32) -> Queued {
        let bytes = u64::from(bytes);
        tenant.queued[usize::from(core.0)].fetch_add(bytes, Ordering::Relaxed);
        Queued {
            tenant: tenant.clone(),
            core,
            bytes,
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.tenant.queued[usize::from(self.core.0)].fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Gathering {
    /// Places for so many replies, each of which is to come from an [`Answer`] with that index.
    pub(super) fn new(count: usize) -> Arc<Gathering> {
        Arc::new(Gathering {
            places: (0..count).map(|_| OnceLock::new()).collect(),
            missing: AtomicUsize::new(count),
            waker: AtomicWaker::new(),
        })
    }

    /// The reply of that index; `None` if its core is gone. Only after [`Gathering::all`].
    pub(super) fn reply(&self, index: usize) -> Option<&PushOutcome> {
        self.places[index].get()
    }

    /// Waits until every answer has been given or dropped.
    pub(super) fn all(&self) -> impl Future<Output = ()> {
        All(self)
    }
}

impl Answer {
    pub(super) fn new(gathering: &Arc<Gathering>, index: usize, queued: Queued) -> Answer {
        Answer {
            gathering: gathering.clone(),
            index,
            queued,
        }
    }

    /// Gives it.
    pub(super) fn give(self, outcome: PushOutcome) {
        let first = self.gathering.places[self.index].set(outcome).is_ok();
        assert!(first, "a core replies once");
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let missing = self.gathering.missing.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(missing > 0 && self.queued.bytes > 0);
        if missing == 1 {
            self.gathering.waker.wake();
        }
    }
}

struct All<'g>(&'g Gathering);

impl Future for All<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        match self.0.missing.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}
