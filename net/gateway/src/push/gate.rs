//! Which pushes are let in when there are more than the node can do: a bound on *time* in the queue, and a fair share of it for everybody.
//!
//! What is in work, unpacked bytes from the moment a body is there until its answer, takes as long to finish as the node needs for that
//! many bytes. So the rate at which bytes were finished lately, times the time that a push may wait, is how many may be in work:
//!
//! - *Usually* [`BURST`]: senders come in waves, and whoever waits a moment is served. Half a second of queue is not refused.
//! - *Overloaded* once a window of [`WINDOW`] has gone by in which never less than [`STANDING`] was in work: that queue is no wave, it
//!   stands, and everybody waits for nothing. Then the bound is [`TIGHT`], until a window goes by in which nobody had to be refused.
//!
//! A refused push is told at once to come back (503 with `Retry-After`), before its body is unpacked, so that refusing stays cheap and what is
//! accepted keeps its latency.
//!
//! *Shares.* A tenant may have in work as much as twice what is still free ([`fits`]): one that floods alone gets two thirds of the bound,
//! two get two fifths each, and there is always room left for one that has nothing in work yet. So nobody is pushed out by another's flood,
//! no tenant is known by name here, and nothing is set aside for tenants that do not come. The same rule divides the queues of the cores
//! and the bytes of bodies in memory. (Known from switches as dynamic thresholds: Choudhury and Hahne, 1998.)
//!
//! The rate is only lowered by windows in which there was always something in work: an idle node is not a slow one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::Instant;

use crate::distributor::tenants::Tenant;

/// The rate is measured, and the state looked at, over this time.
const WINDOW: Duration = Duration::from_millis(100);

/// In work while there is no overload, at most.
const BURST: Duration = Duration::from_millis(500);

/// In work during overload, at most.
const TIGHT: Duration = Duration::from_millis(150);

/// A queue that never got shorter than this stands.
const STANDING: Duration = Duration::from_millis(100);

/// Bytes a second to begin with: a core unpacks and stores about that many. Half a second later it is measured.
const RATE_FIRST: f64 = 1e9;

/// As many bytes may always be in work: a dozen bodies of usual size. On a disk that takes seconds they wait for it.
const BYTES_MIN: u64 = 8 << 20;

const _: () = assert!(STANDING.as_millis() < TIGHT.as_millis());
const _: () = assert!(TIGHT.as_millis() < BURST.as_millis());

/// Whether a tenant that holds so many bytes may have `bytes` more of the `free` ones.
pub(super) fn fits(held: u64, bytes: u64, free: u64) -> bool {
    bytes <= free && held.saturating_add(bytes) <= free.saturating_mul(2)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Bytes in work.
    total: u64,
    /// Bytes a second, as measured.
    rate: f64,
    overloaded: bool,
    /// Of this window: when it began, bytes finished, the least that was in work, whether anybody was refused.
    begun: Instant,
    done: u64,
    least: u64,
    refused: bool,
    gauges: Gauges,
}

/// What the gate shows of itself.
#[derive(Debug, Clone)]
pub(crate) struct Gauges {
    /// 1 during overload.
    pub(crate) overloaded: IntGauge,
    /// Bytes a second.
    pub(crate) rate: IntGauge,
}

/// A push in work.
#[derive(Debug)]
pub(super) struct Pass<'g> {
    gate: &'g Gate,
    tenant: Arc<Tenant>,
    bytes: u64,
}

impl Gate {
    pub(super) fn new(gauges: Gauges) -> Gate {
        Gate(Mutex::new(State {
            total: 0,
            rate: RATE_FIRST,
            overloaded: false,
            begun: Instant::now(),
            done: 0,
            least: 0,
            refused: false,
            gauges,
        }))
    }

    /// Lets a push of so many bytes in, if there is room for it and this is not more than its tenant's share.
    pub(super) fn enter(&self, tenant: &Arc<Tenant>, bytes: u64) -> Option<Pass<'_>> {
        let state = &mut *self.lock();
        state.roll(Instant::now());
        let held = tenant.work_bytes.load(Ordering::Relaxed);
        // A body larger than all that may be in work is taken alone.
        if state.total > 0 && !fits(held, bytes, state.free()) {
            state.refused = true;
            return None;
        }
        state.total += bytes;
        tenant.work_bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Pass {
            gate: self,
            tenant: tenant.clone(),
            bytes,
        })
    }

    /// Whether nothing of this tenant would be let in now, however small. Asked before a body is read.
    pub(super) fn is_closed(&self, tenant: &Tenant) -> bool {
        let state = &mut *self.lock();
        state.roll(Instant::now());
        let held = tenant.work_bytes.load(Ordering::Relaxed);
        let closed = state.total > 0 && !fits(held, 1, state.free());
        state.refused |= closed;
        closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn free(&self) -> u64 {
        let time = if self.overloaded { TIGHT } else { BURST };
        let bound = (self.rate * time.as_secs_f64()) as u64;
        bound.max(BYTES_MIN).saturating_sub(self.total)
    }

    /// Begins another window if this one is over.
    fn roll(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.begun);
        if elapsed < WINDOW {
            return;
        }
        let measured = self.done as f64 / elapsed.as_secs_f64();
        self.rate = match self.least {
            0 => self.rate.max(measured),
            _ => (self.rate + measured) / 2.0,
        };
        let standing = (self.rate * STANDING.as_secs_f64()) as u64;
        self.overloaded = match self.overloaded {
            true => self.refused,
            false => self.least > standing.max(BYTES_MIN / 2),
        };
        self.begun = now;
        self.done = 0;
        self.least = self.total;
        self.refused = false;
        self.gauges.overloaded.set(self.overloaded.into());
        self.gauges.rate.set(self.rate as i64);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.tenant
            .work_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
        let state = &mut *self.gate.lock();
        state.total -= self.bytes;
        state.done += self.bytes;
        state.least = state.least.min(state.total);
        state.roll(Instant::now());
    }
}

#[cfg(test)]
mod tests;
