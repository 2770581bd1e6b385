//! How long a core's turns take: by the clock, and in CPU time of its thread.
//!
//! By the clock a turn also takes what other threads and the hypervisor had of the CPU meanwhile; what the core itself made others wait is CPU
//! time. That clock is a system call, so it is read at most once a millisecond, and at the end of turns that lasted as long: the CPU time of a
//! turn is told to within a millisecond, never too short.

use std::time::Duration;

use reactor::{Reactor, Tick};

use crate::limits::STALL_MS;

/// Turns shorter than this are not looked at closely.
const WORTH_A_LOOK: Duration = Duration::from_millis(1);

/// Counts of one core.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub(crate) turns: u64,
    /// Turns that took more than [`STALL_MS`] by the clock.
    pub(crate) stalls: u64,
    /// Time in turns, waiting and system calls of the reactor apart.
    pub(crate) busy: Duration,
    /// CPU time of the longest turn.
    pub(crate) longest: Duration,
    /// CPU time of the thread, and when it was read.
    cpu: Duration,
    cpu_at: Tick,
}

impl Steps {
    /// A turn begins.
    pub(crate) fn begin(&mut self, now: Tick, reactor: &Reactor) {
        if now.since(self.cpu_at) >= WORTH_A_LOOK {
            (self.cpu, self.cpu_at) = (reactor.cpu_time(), now);
        }
    }

    /// It ends, and took so long.
    pub(crate) fn end(&mut self, took: Duration, reactor: &Reactor) {
        self.turns += 1;
        self.busy += took;
        self.stalls += u64::from(took > Duration::from_millis(STALL_MS));
        if took >= WORTH_A_LOOK {
            let cpu = reactor.cpu_time().saturating_sub(self.cpu);
            self.longest = self.longest.max(cpu.min(took));
        }
    }
}

#[cfg(test)]
mod tests {
    use reactor::Sim;

    use super::*;

    /// The CPU time of a thread of the simulation is that of its clock.
    #[test]
    fn the_longest_turn_is_kept_and_the_rest_is_summed_up() {
        let sim = Sim::new(1);
        let reactor = Reactor::sim(&sim);
        let mut steps = Steps::default();
        for ms in [0, 3, 25, 7] {
            let begun = reactor.now();
            steps.begin(begun, &reactor);
            sim.advance(Duration::from_millis(ms));
            steps.end(reactor.now().since(begun), &reactor);
        }
        assert_eq!((steps.turns, steps.stalls), (4, 1));
        assert_eq!(steps.busy, Duration::from_millis(35));
        assert_eq!(steps.longest, Duration::from_millis(25));
    }
}
