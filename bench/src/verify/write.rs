//! The writing phase.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};

use super::journal::{Journal, Writer};
use super::pattern::Pattern;
use super::{CommonOptions, LoadOptions};
use crate::http::Connection;
use crate::progress::Progress;
use crate::series::scatter;
use crate::target::Target;

/// Wait before sending again to a server that is away or overloaded.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Counters {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// Bodies that were neither acknowledged nor refused.
    unanswered: AtomicU64,
    connections: AtomicU64,
    server_gone: AtomicBool,
}

struct Phase<'a> {
    pattern: Pattern,
    target: &'a Target,
    journal: &'a Writer,
    load: &'a LoadOptions,
    timeout: Duration,
    address: std::net::SocketAddr,
    deadline: Instant,
    counters: &'a Counters,
}

pub(super) fn run(common: &CommonOptions, load: &LoadOptions) -> anyhow::Result<()> {
    let target = common.target.resolve()?;
    let (pattern, last_times, journal) = open(common, load)?;
    let counters = Counters::default();
    counters
        .connections
        .store(u64::from(pattern.connections), Relaxed);
    let phase = Phase {
        pattern,
        target: &target,
        journal: &journal,
        load,
        timeout: common.timeout(),
        address: target.push.address()?,
        deadline: Instant::now() + Duration::from_secs(load.seconds),
        counters: &counters,
    };
    let mut progress = Progress::new(common.quiet);
    let summary = || {
        format!(
            "run {}: {} bodies of {} samples acknowledged, {} refused, {} unanswered",
            pattern.run_label(),
            counters.acknowledged.load(Relaxed),
            pattern.series,
            counters.refused.load(Relaxed),
            counters.unanswered.load(Relaxed)
        )
    };
    let mut failures = Vec::new();
    thread::scope(|scope| {
        let phase = &phase;
        let connections: Vec<_> = last_times
            .iter()
            .zip(0u16..)
            .map(|(last, connection)| scope.spawn(move || phase.connection(connection, *last)))
            .collect();
        while counters.connections.load(Relaxed) > 0 {
            thread::sleep(Duration::from_millis(20));
            progress.tick(summary);
        }
        for connection in connections {
            match connection.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    progress.finish(&summary());
    if counters.server_gone.load(Relaxed) && !common.quiet {
        eprintln!("the server went away");
    }
    for failure in &failures {
        eprintln!("{failure:#}");
    }
    ensure!(failures.is_empty(), "{} connections failed", failures.len());
    if counters.acknowledged.load(Relaxed) == 0 {
        bail!("nothing was acknowledged");
    }
    Ok(())
}

/// The pattern, the last time of each connection, and the journal: a new one or the one that exists.
fn open(common: &CommonOptions, load: &LoadOptions) -> anyhow::Result<(Pattern, Vec<i64>, Writer)> {
    if common.state.exists() {
        let journal = Journal::read(&common.state)?;
        let last = |bodies: &std::collections::BTreeMap<i64, _>| {
            bodies.last_key_value().map_or(i64::MIN, |(time, _)| *time)
        };
        let last_times = journal.bodies.iter().map(last).collect();
        return Ok((journal.pattern, last_times, Writer::append(&common.state)?));
    }
    let pattern = Pattern {
        run: scatter(now_ms()? as u64 ^ u64::from(std::process::id()) << 44),
        connections: load.connections,
        series: load.series,
    };
    let writer = Writer::create(&common.state, &pattern)?;
    Ok((
        pattern,
        vec![i64::MIN; usize::from(load.connections)],
        writer,
    ))
}

fn now_ms() -> anyhow::Result<i64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(now.as_millis() as i64)
}

impl Phase<'_> {
    /// Sends body after body until the time is up or, without `--retry`, the server is gone.
    ///
    /// Errors are failures of the test itself, or a refused retry; a server that goes away is neither.
    fn connection(&self, connection: u16, last: i64) -> anyhow::Result<()> {
        let result = self.bodies(connection, last);
        self.counters.connections.fetch_sub(1, Relaxed);
        result.with_context(|| format!("connection {connection}"))
    }

    fn bodies(&self, connection: u16, mut last: i64) -> anyhow::Result<()> {
        let labels = self.pattern.labels(connection);
        let mut stream = Connection::new(self.address, self.timeout);
        let mut body = Vec::new();
        while Instant::now() < self.deadline {
            let time = now_ms()?.max(last.saturating_add(1));
            last = time;
            self.pattern.put_body(&mut body, &labels, connection, time);
            let request = self.target.push_request(&wire::snappy::pack(&body));
            if !self.body(&mut stream, connection, time, &request)? {
                self.counters.server_gone.store(true, Relaxed);
                return Ok(());
            }
            thread::sleep(Duration::from_millis(self.load.pause_ms));
        }
        Ok(())
    }

    /// Sends one body, with `--retry` until it is acknowledged; false when the server is gone.
    fn body(
        &self,
        stream: &mut Connection,
        connection: u16,
        time: i64,
        request: &[u8],
    ) -> anyhow::Result<bool> {
        self.journal.sent(connection, time)?;
        let mut again = false;
        loop {
            match stream.exchange(request) {
                Ok(response) if (200..300).contains(&response.status) => {
                    self.journal.acknowledged(connection, time)?;
                    self.counters.acknowledged.fetch_add(1, Relaxed);
                    return Ok(true);
                }
                Ok(response) => {
                    self.journal.refused(connection, time, response.status)?;
                    self.counters.refused.fetch_add(1, Relaxed);
                    let later = response.status >= 500 || response.status == 429;
                    if again && !later {
                        bail!(
                            "body of time {time}, sent again, was refused: {} {}",
                            response.status,
                            response.excerpt()
                        );
                    }
                    if !(later && self.load.retry) {
                        return Ok(true);
                    }
                }
                Err(_) if !self.load.retry => {
                    self.counters.unanswered.fetch_add(1, Relaxed);
                    return Ok(false);
                }
                Err(_) => {}
            }
            if Instant::now() >= self.deadline {
                self.counters.unanswered.fetch_add(1, Relaxed);
                return Ok(true);
            }
            again = true;
            thread::sleep(RETRY_PAUSE);
        }
    }
}
