//! What a server's memory and CPU time did during a run, looked at twenty times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::drive::Event;
use crate::process::Process;

const EVERY: Duration = Duration::from_millis(50);
/// Points of a plot.
const BINS: usize = 60;
/// A shorter bin would show the kernel's ticks instead of the server's CPU.
const BIN_SECONDS_MIN: f64 = 0.1;

/// One look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
}

/// A thread that looks.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Look>>,
}

impl Watch {
    /// Looks from now on; 0 is now.
    pub(crate) fn start(server: Process) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let start = Instant::now();
            let mut looks = Vec::new();
            while !stopped.load(Relaxed) {
                // A server that ends is noticed elsewhere.
                if let Ok(usage) = server.usage() {
                    looks.push(Look {
                        seconds: start.elapsed().as_secs_f64(),
                        cpu_seconds: usage.cpu_seconds,
                        rss_bytes: usage.rss_bytes,
                    });
                }
                thread::sleep(EVERY);
            }
            looks
        });
        Watch { stop, thread }
    }

    pub(crate) fn finish(self) -> Vec<Look> {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// A run in equal pieces of time, for plots. `None`: nothing happened in the piece, or nobody looked.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Timeline {
    pub(crate) bin_seconds: f64,
    /// When the last acknowledgement came.
    pub(crate) load_seconds: f64,
    pub(crate) samples_per_second: Vec<Option<f64>>,
    /// Of the acknowledgements that came in the piece.
    pub(crate) p99_ms: Vec<Option<f64>>,
    pub(crate) rss_mb: Vec<Option<f64>>,
    /// Share of one CPU.
    pub(crate) cpu: Vec<Option<f64>>,
}

impl Timeline {
    /// Cuts `end_seconds` into pieces.
    pub(crate) fn new(events: &[Event], looks: &[Look], end_seconds: f64) -> Timeline {
        let load_seconds = events
            .iter()
            .map(|e| e.at.as_secs_f64())
            .fold(0.0, f64::max);
        let bin_seconds = (end_seconds.max(load_seconds) / BINS as f64).max(BIN_SECONDS_MIN);
        let bins = (end_seconds.max(load_seconds) / bin_seconds)
            .ceil()
            .max(1.0) as usize;
        let bin = |seconds: f64| ((seconds / bin_seconds) as usize).min(bins - 1);
        let mut samples = vec![0u64; bins];
        let mut latencies: Vec<Vec<f64>> = vec![Vec::new(); bins];
        for event in events {
            let bin = bin(event.at.as_secs_f64());
            samples[bin] += u64::from(event.samples);
            latencies[bin].push(event.latency.as_secs_f64() * 1000.0);
        }
        let during_load = |index: usize| index as f64 * bin_seconds < load_seconds;
        let samples_per_second = samples.iter().enumerate().map(|(index, samples)| {
            // The last piece of the load is not a whole one.
            let seconds = bin_seconds.min(load_seconds - index as f64 * bin_seconds);
            during_load(index).then(|| *samples as f64 / seconds.max(0.01))
        });
        let p99_ms = latencies.iter_mut().map(|latencies| {
            latencies.sort_unstable_by(f64::total_cmp);
            let rank = (latencies.len() as f64 * 0.99).ceil() as usize;
            latencies.get(rank.saturating_sub(1)).copied()
        });
        let rss_mb = (0..bins).map(|index| {
            let of = |look: &&Look| bin(look.seconds) == index;
            let most = looks.iter().filter(of).map(|look| look.rss_bytes).max();
            most.map(|bytes| bytes as f64 / 1e6)
        });
        let cpu = (0..bins).map(|index| {
            let from = cpu_at(looks, index as f64 * bin_seconds)?;
            let to = cpu_at(looks, (index + 1) as f64 * bin_seconds)?;
            Some(((to - from) / bin_seconds).max(0.0))
        });
        Timeline {
            samples_per_second: samples_per_second.collect(),
            p99_ms: p99_ms.collect(),
            rss_mb: rss_mb.collect(),
            cpu: cpu.collect(),
            bin_seconds,
            load_seconds,
        }
    }
}

/// CPU time spent at a moment, between two looks in proportion.
fn cpu_at(looks: &[Look], seconds: f64) -> Option<f64> {
    let after = looks.partition_point(|look| look.seconds < seconds);
    let (before, after) = match (after.checked_sub(1), looks.get(after)) {
        (Some(before), Some(after)) => (&looks[before], after),
        (None, Some(first)) => return Some(first.cpu_seconds),
        (Some(last), None) => return Some(looks[last].cpu_seconds),
        (None, None) => return None,
    };
    let share = (seconds - before.seconds) / (after.seconds - before.seconds);
    Some(before.cpu_seconds + share * (after.cpu_seconds - before.cpu_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_cut_into_pieces_that_add_up() {
        let events: Vec<Event> = (0..100)
            .map(|i| Event {
                at: Duration::from_millis(i * 30),
                latency: Duration::from_millis(1 + i),
                served: Duration::from_millis(1),
                samples: 10,
            })
            .collect();
        let looks: Vec<Look> = (0..120)
            .map(|i| Look {
                seconds: f64::from(i) * 0.05,
                cpu_seconds: 1.0 + f64::from(i) * 0.025,
                rss_bytes: 1_000_000 * (i as u64 + 1),
            })
            .collect();
        let timeline = Timeline::new(&events, &looks, 6.0);
        assert_eq!(timeline.p99_ms.len(), 60);
        assert!((timeline.load_seconds - 2.97).abs() < 1e-9);
        assert_eq!(timeline.p99_ms[0], Some(4.0));
        // Nothing is acknowledged after the load, and that is no zero.
        assert_eq!(
            (timeline.samples_per_second[40], timeline.p99_ms[40]),
            (None, None)
        );
        let samples: f64 = timeline.samples_per_second[..29].iter().flatten().sum();
        assert!((samples * 0.1 - 970.0).abs() <= 10.0, "{samples}");
        assert!(
            timeline
                .cpu
                .iter()
                .flatten()
                .take(59)
                .all(|cpu| (cpu - 0.5).abs() < 0.01)
        );
        assert!(timeline.rss_mb.iter().flatten().is_sorted());
    }

    #[test]
    fn a_run_that_nobody_saw_has_no_points() {
        let timeline = Timeline::new(&[], &[], 0.0);
        assert_eq!(timeline.cpu, [None]);
        assert_eq!(timeline.samples_per_second, [None]);
    }
}
