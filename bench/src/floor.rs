//! `floor`: what a known sample costs at least, stage by stage, on one core: the practical ceiling of a server that does nothing else.
//!
//! The bodies of the workload `steady` go, one after the other, through the very code of the server, but without the server: no sockets,
//! no mailboxes, no limits, nothing shared. All series are gone through in turn, so that caches hold what they would in a server.
//! Each stage is timed over each body; a stage's figure is the median over all bodies, so that other work on the machine spoils few.
//!
//! | stage | what |
//! | --- | --- |
//! | unpack | snappy, into a buffer that is used again |
//! | walk | the protobuf in place: where labels begin and end, times, values |
//! | hash | keyed xxh3-128 of the label bytes; the next series in order is what was expected |
//! | append | XOR into the open chunk of the series |
//! | encode | the log's record of the sample, delta-coded against the series' last value |
//! | commit | CPU time of this thread for the write and its completion; the disk's own time is not CPU, and shown apart |
//!
//! This is the one module of the tool that looks into the server; the others see what users see.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chunk::XorAppender;
use model::SeriesRef;
use reactor::Reactor;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use wal::{Log, Record, ReplayOptions};
use wire::remote_write::v1::{Part, Record as Field, Walk};
use wire::snappy;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::machine::{machine, parse_cpus, pin};
use crate::progress::Progress;
use crate::workload::{self, Kind, ShapeOptions};

/// Of a chunk; the next sample begins another one.
const CHUNK_SAMPLES: u16 = 120;
/// Largest body that is unpacked.
const BODY_BYTES_MAX: usize = 64 << 20;

/// `myelin-bench floor`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    shape: ShapeOptions,
    /// Bodies that one commit of the log takes, as a busy core's do.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    bodies_per_commit: u16,
    /// The CPU to run on. Default: any.
    #[arg(long)]
    cpu: Option<String>,
    /// Where the log is made; should be on a real disk. Default: TMPDIR.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Report as JSON on stdout.
    #[arg(long)]
    json: bool,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Floor {
    command: String,
    machine: String,
    series: u64,
    scrapes: u64,
    body_bytes_per_sample: f64,
    log_bytes_per_sample: f64,
    stages: Vec<Stage>,
    /// Of all stages.
    ns_per_sample: f64,
    samples_per_cpu_second: f64,
    /// From the write's submission to its completion, the median commit; with the time that this thread slept.
    commit_us: f64,
    io: String,
}

#[derive(Debug, Serialize)]
struct Stage {
    name: &'static str,
    ns_per_sample: f64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let floor = measure(options)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&floor)?);
    } else {
        print!("{}", floor.text());
    }
    Ok(())
}

fn measure(options: &Options) -> anyhow::Result<Floor> {
    // Sample time is nobody's business here: any start does.
    let mut shape = options.shape.shape(Kind::Steady, 1_700_000_000_000)?;
    // One queue, so that the order of the series is the same at every scrape.
    shape.connections = 1;
    ensure!(shape.tenants == 1, "the floor has one tenant");
    let load = workload::build(&shape, &mut Progress::new(options.quiet));
    if let Some(cpu) = &options.cpu {
        pin(&parse_cpus(cpu)?)?;
    }
    let base = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = Folder(base.join(format!("myelin-floor-{}", std::process::id())));
    let mut stages = Stages::new(&folder.0, shape.series as usize)?;
    let [bodies] = &load.connections[..] else {
        unreachable!("there is one connection");
    };
    let per_scrape = bodies.len() / shape.scrapes as usize;
    let mut progress = Progress::new(options.quiet);
    for (number, body) in bodies.iter().enumerate() {
        stages.body(&body.body, number % per_scrape == 0)?;
        if (number + 1) % usize::from(options.bodies_per_commit) == 0 {
            stages.commit()?;
        }
        progress.tick(|| format!("{number} of {} bodies", bodies.len()));
    }
    stages.commit()?;
    progress.finish(&format!("{} bodies", bodies.len()));
    ensure!(
        stages.samples == shape.samples(),
        "{} samples went through, {} were built",
        stages.samples,
        shape.samples()
    );
    let named = [
        ("unpack", median(&stages.unpack)),
        ("walk", median(&stages.walk)),
        ("hash", median(&stages.hash)),
        ("append", median(&stages.append)),
        ("encode", median(&stages.encode)),
        ("commit", median(&stages.commit)),
    ];
    let sum: f64 = named.iter().map(|(_, ns)| ns).sum();
    Ok(Floor {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: machine(),
        series: shape.series,
        scrapes: shape.scrapes,
        body_bytes_per_sample: load.body_bytes as f64 / shape.samples() as f64,
        log_bytes_per_sample: stages.log.stats().record_bytes as f64 / shape.samples() as f64,
        stages: named
            .map(|(name, ns_per_sample)| Stage {
                name,
                ns_per_sample,
            })
            .into(),
        ns_per_sample: sum,
        samples_per_cpu_second: 1e9 / sum,
        commit_us: median(&stages.commit_wall) / 1000.0,
        io: stages.io,
    })
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A series of the memtable, as far as the floor needs it.
struct Row {
    appender: XorAppender,
    /// Its last value in the log, and the segment that has it.
    last: f64,
    segment: u32,
}

/// State of all stages, and what they took in nanoseconds a sample, body by body.
struct Stages {
    secret: [u8; 192],
    buffer: snappy::Buffer,
    /// What the last walk found: label bytes as spans of the body, times, values.
    labels: Vec<(usize, usize)>,
    times: Vec<i64>,
    values: Vec<f64>,
    /// Hashes in the order of the first scrape; a body's series are expected to follow one another.
    known: Vec<u128>,
    next: usize,
    /// The series' numbers of this body.
    refs: Vec<u32>,
    rows: Vec<Row>,
    sealed: Vec<u8>,
    reactor: Reactor,
    log: Log,
    io: String,
    samples: u64,
    samples_uncommitted: u64,
    unpack: Vec<f64>,
    walk: Vec<f64>,
    hash: Vec<f64>,
    append: Vec<f64>,
    encode: Vec<f64>,
    commit: Vec<f64>,
    /// Nanoseconds a commit.
    commit_wall: Vec<f64>,
}

impl Stages {
    fn new(folder: &Path, series: usize) -> anyhow::Result<Stages> {
        let mut reactor =
            Reactor::open(&reactor::Options::default()).context("opening the ring")?;
        let dir = wal::core_dir(folder, 1, 0);
        wal::create_dirs(&mut reactor, &dir).context("making the log's directory")?;
        let probe = reactor.probe(&dir);
        let replay = ReplayOptions::default();
        let mut nothing = |_: &Record<'_>, _: wal::Place| Ok(());
        let replayed = wal::replay(
            &mut reactor,
            &dir,
            &replay,
            &mut nothing,
            &mut |_, _| Ok(()),
        )
        .context("reading the empty log")?;
        let log_options = wal::Options {
            direct: probe.direct,
            ..wal::Options::default()
        };
        let log =
            Log::open(&mut reactor, &dir, log_options, &replayed).context("opening the log")?;
        let direct = if probe.direct { "direct" } else { "buffered" };
        let mut secret = [0; 192];
        for (at, byte) in secret.iter_mut().enumerate() {
            *byte = (crate::series::scatter(at as u64) >> 56) as u8;
        }
        Ok(Stages {
            secret,
            buffer: snappy::Buffer::default(),
            labels: Vec::new(),
            times: Vec::new(),
            values: Vec::new(),
            known: Vec::with_capacity(series),
            next: 0,
            refs: Vec::new(),
            rows: Vec::with_capacity(series),
            sealed: Vec::new(),
            io: format!("{}, {direct}", reactor.world().name()),
            reactor,
            log,
            samples: 0,
            samples_uncommitted: 0,
            unpack: Vec::new(),
            walk: Vec::new(),
            hash: Vec::new(),
            append: Vec::new(),
            encode: Vec::new(),
            commit: Vec::new(),
            commit_wall: Vec::new(),
        })
    }

    /// All of a body but its commit.
    fn body(&mut self, packed: &[u8], first_of_scrape: bool) -> anyhow::Result<()> {
        if first_of_scrape {
            self.next = 0;
        }
        let begin = Instant::now();
        snappy::unpack(packed, BODY_BYTES_MAX, &mut self.buffer).context("unpacking")?;
        let unpacked = Instant::now();
        self.walk_body()?;
        let walked = Instant::now();
        self.find_series()?;
        let found = Instant::now();
        self.append_samples();
        let appended = Instant::now();
        self.encode_samples();
        let encoded = Instant::now();
        let samples = self.times.len();
        let ns = |from: Instant, to: Instant| (to - from).as_nanos() as f64 / samples as f64;
        self.unpack.push(ns(begin, unpacked));
        self.walk.push(ns(unpacked, walked));
        self.hash.push(ns(walked, found));
        self.append.push(ns(found, appended));
        self.encode.push(ns(appended, encoded));
        self.samples += samples as u64;
        self.samples_uncommitted += samples as u64;
        Ok(())
    }

    fn walk_body(&mut self) -> anyhow::Result<()> {
        self.labels.clear();
        self.times.clear();
        self.values.clear();
        let body = self.buffer.as_slice();
        let base = body.as_ptr().addr();
        let mut walk = Walk::new(body);
        while let Some(field) = walk.next_record().context("walking")? {
            let Field::Series(raw) = field else { continue };
            let labels = raw.label_bytes();
            let begin = labels.as_ptr().addr() - base;
            self.labels.push((begin, begin + labels.len()));
            let mut parts = raw.parts();
            while let Some(part) = parts.next_part().context("walking a series")? {
                if let Part::Sample { time, value } = part {
                    self.times.push(time);
                    self.values.push(value);
                }
            }
        }
        ensure!(self.labels.len() == self.times.len(), "a sample a series");
        Ok(())
    }

    fn find_series(&mut self) -> anyhow::Result<()> {
        self.refs.clear();
        let body = self.buffer.as_slice();
        for &(begin, end) in &self.labels {
            let hash = xxh3_128_with_secret(&body[begin..end], &self.secret);
            match self.known.get(self.next) {
                Some(known) if *known == hash => {}
                Some(_) => bail!("a series came out of order"),
                None => {
                    self.known.push(hash);
                    self.rows.push(Row {
                        appender: XorAppender::new(),
                        last: 0.0,
                        segment: u32::MAX,
                    });
                }
            }
            self.refs.push(self.next as u32);
            self.next += 1;
        }
        Ok(())
    }

    fn append_samples(&mut self) {
        let columns = self.times.iter().zip(&self.values);
        for (series, (time, value)) in self.refs.iter().zip(columns) {
            let appender = &mut self.rows[*series as usize].appender;
            if appender.count() >= CHUNK_SAMPLES {
                self.sealed.clear();
                appender.seal_into(&mut self.sealed);
                black_box(&self.sealed);
                appender.clear();
            }
            appender.append(*time, *value);
        }
    }

    fn encode_samples(&mut self) {
        let columns = self.times.iter().zip(&self.values);
        for (series, (time, value)) in self.refs.iter().zip(columns) {
            let segment = self.log.reserve_sample();
            let row = &mut self.rows[*series as usize];
            let base = (row.segment == segment).then_some(row.last);
            self.log.sample(SeriesRef(*series), *time, *value, base);
            row.last = *value;
            row.segment = segment;
        }
    }

    /// Writes what was encoded since the last commit, and waits until it is durable.
    fn commit(&mut self) -> anyhow::Result<()> {
        if self.samples_uncommitted == 0 {
            return Ok(());
        }
        let (begin, cpu) = (Instant::now(), thread_cpu());
        self.log.submit(&mut self.reactor, true);
        let mut events = Vec::new();
        while self.log.durable() < self.log.tail() {
            self.wait(&mut events)?;
        }
        let samples = self.samples_uncommitted as f64;
        self.commit
            .push((thread_cpu() - cpu).as_nanos() as f64 / samples);
        self.commit_wall.push(begin.elapsed().as_nanos() as f64);
        self.samples_uncommitted = 0;
        // The next segment's file is made meanwhile; a server's core goes on with other things.
        while self
            .log
            .admit(BODY_BYTES_MAX.min(wal::GROUP_BYTES))
            .is_err()
        {
            self.wait(&mut events)?;
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<reactor::Event>) -> anyhow::Result<()> {
        self.reactor.wait(None, events);
        for event in events.drain(..) {
            if self.log.owns(&event) {
                self.log
                    .on_event(&mut self.reactor, event)
                    .context("writing the log")?;
            }
        }
        Ok(())
    }
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Floor {
    fn text(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "command   {}\nmachine   {}",
            self.command, self.machine
        );
        let _ = writeln!(
            out,
            "load      {} series x {} scrapes, {:.1} bytes a sample; {:.2} bytes a sample in the log ({})",
            self.series,
            self.scrapes,
            self.body_bytes_per_sample,
            self.log_bytes_per_sample,
            self.io
        );
        for stage in &self.stages {
            let _ = writeln!(
                out,
                "{:<10}{:>7.1} ns a sample",
                stage.name, stage.ns_per_sample
            );
        }
        let _ = writeln!(
            out,
            "{:<10}{:>7.1} ns a sample: {:.2} M samples a CPU-second\na commit took {:.0} us until it was durable",
            "sum",
            self.ns_per_sample,
            self.samples_per_cpu_second / 1e6,
            self.commit_us
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn every_stage_sees_every_sample_and_the_sum_is_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let arguments = [
            "floor",
            "--series",
            "900",
            "--scrapes",
            "130",
            "--samples-per-body",
            "200",
            "--quiet",
            "--connections",
            "3",
            "--folder",
            path,
        ];
        let floor = measure(&Line::try_parse_from(arguments).unwrap().options).unwrap();
        let sum: f64 = floor.stages.iter().map(|stage| stage.ns_per_sample).sum();
        assert!((floor.ns_per_sample - sum).abs() < 1e-9);
        assert!(
            floor.stages.iter().all(|stage| stage.ns_per_sample > 0.0),
            "{floor:?}"
        );
        assert!(
            (1.0..30.0).contains(&floor.log_bytes_per_sample),
            "{floor:?}"
        );
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it cleans up");
    }
}
