//! Time as a core sees it: monotonic ticks, and a heap of timers.
//!
//! The clock belongs to the world: the kernel's in the real ones, the machine's in the simulation,
//! where it moves only when a reactor waits or the test advances it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Nanoseconds of a monotonic clock with an arbitrary origin; comparable within one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u64);

impl Tick {
    /// Before everything: as a deadline, "do not wait".
    pub const ZERO: Tick = Tick(0);

    /// A tick from nanoseconds.
    pub fn from_nanos(nanos: u64) -> Tick {
        Tick(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// This much later; stops at the end of time.
    pub fn after(self, duration: Duration) -> Tick {
        Tick(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// Time since `earlier`, zero if that is later.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The kernel's monotonic clock.
pub(crate) fn monotonic() -> Tick {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock is not negative");
    let nanos = u64::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    Tick(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The kernel's wall clock, milliseconds since 1970.
pub(crate) fn wall_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1000)
        .saturating_add(now.tv_nsec / 1_000_000)
}

/// CPU time of the calling thread. A system call, unlike the other clocks.
pub(crate) fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = u32::try_from(now.tv_nsec).expect("nanoseconds are not negative");
    Duration::new(now.tv_sec.unsigned_abs(), nanos)
}

/// Pending timers, one per token, in order of time and then of setting.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeMap<(Tick, u64), u64>,
    by_token: HashMap<u64, (Tick, u64)>,
    sequence: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Tick, token: u64) {
        self.cancel(token);
        self.sequence += 1;
        let key = (at, self.sequence);
        self.by_time.insert(key, token);
        self.by_token.insert(token, key);
        debug_assert_eq!(self.by_time.len(), self.by_token.len());
    }

    pub(crate) fn cancel(&mut self, token: u64) -> bool {
        let Some(key) = self.by_token.remove(&token) else {
            return false;
        };
        let removed = self.by_time.remove(&key);
        assert_eq!(removed, Some(token));
        true
    }

    pub(crate) fn next(&self) -> Option<Tick> {
        self.by_time.keys().next().map(|&(at, _)| at)
    }

    /// Takes out the earliest timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Tick) -> Option<u64> {
        let (&key, &token) = self.by_time.iter().next()?;
        if key.0 > now {
            return None;
        }
        self.by_time.remove(&key);
        self.by_token.remove(&token);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_of_time_then_of_setting_and_a_second_set_moves_one() {
        let mut timers = Timers::default();
        timers.set(Tick(30), 3);
        timers.set(Tick(10), 1);
        timers.set(Tick(10), 2);
        timers.set(Tick(5), 9);
        timers.set(Tick(40), 9);
        assert_eq!(timers.next(), Some(Tick(10)));
        assert_eq!(timers.pop_due(Tick(9)), None);
        assert_eq!(timers.pop_due(Tick(10)), Some(1));
        assert_eq!(timers.pop_due(Tick(10)), Some(2));
        assert!(timers.cancel(3));
        assert!(!timers.cancel(3));
        assert_eq!(timers.pop_due(Tick(100)), Some(9));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn ticks_saturate() {
        assert_eq!(Tick(5).since(Tick(9)), Duration::ZERO);
        assert_eq!(
            Tick(u64::MAX - 1).after(Duration::from_secs(1)),
            Tick(u64::MAX)
        );
        assert_eq!(Tick(5).after(Duration::from_nanos(4)), Tick(9));
    }
}
