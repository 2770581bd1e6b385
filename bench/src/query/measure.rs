//! Asks one query many times, on one connection or several, and says how long it took and what it cost the server.
//!
//! Every connection asks once before the clock runs (this answer is the one that is compared), then all of them ask their share,
//! one request after the other. The time of a query ends with the last byte of its answer; reading the JSON is not part of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::checksum::{Checksum, summarise};
use super::set::{Kind, Query, Times};
use crate::http::Connection;
use crate::latency::{Latencies, Percentiles};
use crate::process::Process;
use crate::target::Target;

/// How often a query is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// By each connection.
    pub(crate) repeat: u32,
    /// No further repetition begins after so long; at least one is done.
    pub(crate) time_max: Duration,
    /// For connecting, or waiting for an answer.
    pub(crate) timeout: Duration,
}

/// What was seen of one query at one concurrency.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) query: String,
    pub(crate) concurrency: usize,
    pub(crate) asked: u64,
    /// Answers that are not 200 and a success, by what they are. A query with any of them has no figure.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) latency: Option<Percentiles>,
    pub(crate) queries_per_second: f64,
    /// CPU time of the server for one query; `None` without its process.
    pub(crate) cpu_ms: Option<f64>,
    pub(crate) rows: u64,
    pub(crate) points: u64,
    pub(crate) answer_bytes: u64,
    /// Of the first answer.
    pub(crate) checksum: Option<Checksum>,
    /// Whether all connections were answered the same. (Only first answers are looked at.)
    pub(crate) steady: bool,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    first: Vec<u8>,
    latencies: Latencies,
    asked: u64,
    errors: BTreeMap<String, u64>,
}

impl Seen {
    /// Asks once; gives the body of a success.
    fn ask(&mut self, connection: &mut Connection, request: &[u8]) -> Option<Vec<u8>> {
        let error = match connection.exchange(request) {
            Ok(response) if response.status == 200 => return Some(response.body),
            Ok(response) => format!("{}: {}", response.status, response.excerpt()),
            Err(error) => error.to_string(),
        };
        *self.errors.entry(error).or_default() += 1;
        None
    }
}

/// Asks `query` on `concurrency` connections.
pub(crate) fn measure(
    query: &Query,
    target: &Target,
    address: SocketAddr,
    times: &Times,
    concurrency: usize,
    effort: &Effort,
    server: Option<&Process>,
) -> anyhow::Result<Outcome> {
    let request = query.request(target, times);
    let mut connections: Vec<(Connection, Seen)> = (0..concurrency)
        .map(|_| {
            let mut connection = Connection::new(address, effort.timeout);
            let mut seen = Seen::default();
            seen.first = seen.ask(&mut connection, &request).unwrap_or_default();
            (connection, seen)
        })
        .collect();
    let before = server.map(Process::cpu_time).transpose()?;
    let start = Instant::now();
    thread::scope(|scope| {
        for (connection, seen) in &mut connections {
            let request = &request;
            scope.spawn(move || {
                // What failed once is not asked again and again: its errors may be timeouts.
                while seen.errors.is_empty()
                    && seen.asked < u64::from(effort.repeat)
                    && (seen.asked == 0 || start.elapsed() < effort.time_max)
                {
                    let begin = Instant::now();
                    let answer = seen.ask(connection, request);
                    seen.asked += 1;
                    if answer.is_some() {
                        seen.latencies.record(begin.elapsed());
                    }
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let after = server.map(Process::cpu_time).transpose()?;
    let mut outcome = Outcome {
        name: query.name.clone(),
        kind: query.kind,
        query: query.text.clone(),
        concurrency,
        asked: 0,
        errors: BTreeMap::new(),
        latency: None,
        queries_per_second: 0.0,
        cpu_ms: None,
        rows: 0,
        points: 0,
        answer_bytes: 0,
        checksum: None,
        steady: true,
    };
    let mut latencies = Latencies::default();
    for (_, seen) in connections {
        outcome.asked += seen.asked;
        for (error, count) in seen.errors {
            *outcome.errors.entry(error).or_default() += count;
        }
        latencies.merge(seen.latencies);
        if seen.first.is_empty() {
            continue;
        }
        match summarise(&seen.first) {
            Ok(summary) => {
                outcome.rows = summary.rows;
                outcome.points = summary.points;
                outcome.answer_bytes = seen.first.len() as u64;
                let first = *outcome.checksum.get_or_insert(summary.checksum);
                outcome.steady &= first.agrees(summary.checksum);
            }
            Err(error) => *outcome.errors.entry(format!("{error:#}")).or_default() += 1,
        }
    }
    if outcome.errors.is_empty() {
        outcome.latency = latencies.percentiles();
        outcome.queries_per_second = outcome.asked as f64 / seconds;
        outcome.cpu_ms = before
            .zip(after)
            .map(|(before, after)| after.since(&before) * 1000.0 / outcome.asked as f64);
    }
    Ok(outcome)
}

/// Geometric mean of the medians in milliseconds; `None` without any, or if one of the queries has none.
pub(crate) fn geometric_mean_ms<'o>(outcomes: impl Iterator<Item = &'o Outcome>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u32);
    for outcome in outcomes {
        sum += outcome.latency?.p50_ms.max(0.001).ln();
        count += 1;
    }
    (count > 0).then(|| (sum / f64::from(count)).exp())
}
