//! Drives a pre-built load at a server, as fast as it takes it or at a rate, and waits until it is quiet again.
//!
//! Every connection is a thread that sends its own queue of ready bodies. At a rate, a request has a time at which it is due,
//! whatever became of those before, and its latency counts from then: a server that stalls is charged for the requests that had to
//! wait. With as many connections as can be in flight this is an open loop.
//! Nothing is retried: an error is counted.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Connection, Response};
use crate::latency::Latencies;
use crate::process::Process;
use crate::progress::Progress;
use crate::target::Target;
use crate::workload::{Load, Request};

/// A server that never becomes quiet is measured until here.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(600);
/// Below this share of a CPU a server is quiet.
const QUIET_CPU_SHARE: f64 = 0.05;

/// How a load is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// For connecting, or waiting for an answer.
    pub(crate) timeout: Duration,
    /// Samples a second over all connections; `None`: as fast as the server takes them.
    pub(crate) rate: Option<f64>,
}

/// An answer, for plots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    /// Since the first request was sent.
    pub(crate) at: Duration,
    pub(crate) latency: Duration,
    /// From when it was sent, which may be later than it was due.
    pub(crate) served: Duration,
    pub(crate) samples: u32,
}

/// What was answered.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of acknowledgements.
    pub(crate) latencies: Latencies,
    /// The same from when they were sent.
    pub(crate) served: Latencies,
    /// Acknowledgements, by connection in the order in which they came.
    pub(crate) events: Vec<Event>,
    /// Requests by status; those without an answer by the kind of the error.
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) first_error: Option<String>,
    /// Samples of requests that were answered by 2xx, and of all others.
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
}

impl Tally {
    fn merge(&mut self, other: Tally) {
        self.latencies.merge(other.latencies);
        self.served.merge(other.served);
        self.events.extend(other.events);
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error);
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
    }

    fn record(&mut self, event: Event, answer: io::Result<Response>) {
        let samples = u64::from(event.samples);
        let outcome = match answer {
            Ok(response) => {
                if (200..300).contains(&response.status) {
                    self.latencies.record(event.latency);
                    self.served.record(event.served);
                    self.acknowledged += samples;
                    self.events.push(event);
                } else {
                    self.refused += samples;
                    self.first_error.get_or_insert_with(|| {
                        format!("{}: {}", response.status, response.excerpt())
                    });
                }
                response.status.to_string()
            }
            Err(error) => {
                self.refused += samples;
                self.first_error.get_or_insert_with(|| error.to_string());
                format!("{:?}", error.kind())
            }
        };
        *self.outcomes.entry(outcome).or_default() += 1;
    }
}

/// Outcomes in a line.
pub(crate) fn outcomes_text(outcomes: &BTreeMap<String, u64>) -> String {
    let each = |(outcome, count): (&String, &u64)| format!("{outcome}: {count}");
    outcomes.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// What all connections share.
struct Run<'a> {
    target: &'a Target,
    load: &'a Load,
    address: SocketAddr,
    pace: Pace,
    start: Instant,
    samples_sent: AtomicU64,
    samples_done: AtomicU64,
    connections_running: AtomicU64,
}

/// Sends everything; shows progress meanwhile. Errors: the target's host does not resolve.
pub(crate) fn push(
    target: &Target,
    load: &Load,
    pace: Pace,
    progress: &mut Progress,
) -> anyhow::Result<Tally> {
    let run = Run {
        target,
        load,
        address: target.push.address()?,
        pace,
        start: Instant::now(),
        samples_sent: AtomicU64::new(0),
        samples_done: AtomicU64::new(0),
        connections_running: AtomicU64::new(load.connections.len() as u64),
    };
    let total = load.samples;
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let connections: Vec<_> = load
            .connections
            .iter()
            .map(|queue| scope.spawn(|| run.connection(queue)))
            .collect();
        while run.connections_running.load(Relaxed) > 0 {
            thread::sleep(Duration::from_millis(50));
            progress.tick(|| {
                let done = run.samples_done.load(Relaxed);
                let seconds = run.start.elapsed().as_secs_f64();
                format!(
                    "{:>3} %  {done} of {total} samples answered, {:.0} a second",
                    done * 100 / total,
                    done as f64 / seconds
                )
            });
        }
        for connection in connections {
            match connection.join() {
                Ok(seen) => {
                    let last = seen.seconds.max(tally.seconds);
                    tally.merge(seen);
                    tally.seconds = last;
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    progress.finish(&format!("{total} samples answered"));
    Ok(tally)
}

impl Run<'_> {
    fn connection(&self, queue: &[Request]) -> Tally {
        let mut tally = Tally::default();
        let mut connection = Connection::new(self.address, self.pace.timeout);
        let mut bytes = Vec::new();
        for request in queue {
            self.target
                .put_push_request(&mut bytes, self.load.protocol, request);
            let begin = match self.pace.rate {
                Some(rate) => {
                    let ahead = self
                        .samples_sent
                        .fetch_add(u64::from(request.samples), Relaxed);
                    let due = self.start + Duration::from_secs_f64(ahead as f64 / rate);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    due
                }
                None => Instant::now(),
            };
            let sent = Instant::now();
            let answer = connection.exchange(&bytes);
            let event = Event {
                at: self.start.elapsed(),
                latency: begin.elapsed(),
                served: sent.elapsed(),
                samples: request.samples,
            };
            tally.record(event, answer);
            self.samples_done
                .fetch_add(u64::from(request.samples), Relaxed);
        }
        tally.seconds = self.start.elapsed().as_secs_f64();
        self.connections_running.fetch_sub(1, Relaxed);
        tally
    }
}

/// Waits until the server was below 5 % of a CPU for `quiet` in a row; gives the seconds that passed before that.
pub(crate) fn wait_quiet(
    server: &Process,
    quiet: Duration,
    progress: &mut Progress,
) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut quiet_since = start;
    let mut cpu = server.usage()?.cpu_seconds;
    while quiet_since.elapsed() < quiet && start.elapsed() < QUIET_WAIT_MAX {
        let second = Instant::now();
        thread::sleep(Duration::from_secs(1));
        let now = server.usage()?.cpu_seconds;
        let share = (now - cpu) / second.elapsed().as_secs_f64();
        if share >= QUIET_CPU_SHARE {
            quiet_since = Instant::now();
        }
        cpu = now;
        progress.tick(|| {
            format!(
                "waiting for the server to be quiet: {:.0} % of a CPU",
                share * 100.0
            )
        });
    }
    let busy = quiet_since.duration_since(start).as_secs_f64();
    progress.finish(&format!("the server was busy for {busy:.0} s more"));
    Ok(busy)
}
