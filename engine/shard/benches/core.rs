//! What one core costs per item: whole cores on this machine's disk, driven through the mailbox as a gateway does.
//!
//! `cargo bench -p shard [-- DIR] [-- SERIES SCRAPES]`; `cargo test -p shard` runs it on tiny input. The log is in DIR, by default the
//! directory for temporary files, and is removed at the end.
//!
//! | phase | what |
//! | --- | --- |
//! | mailbox | pushes of nothing, one after the other: a message there, a reply back |
//! | create | every series with its ten labels: index, postings, table, log, memtable |
//! | scrape | known series in the order of creation, in bodies of 2,000 samples |
//! | shuffled | known series in an order that has nothing to do with memory |
//! | select .. | index look-ups without chunks: a label's value, two of them, a regex with a literal prefix, one without, all |
//! | chunks | all series with their chunks |
//!
//! "Busy" is the time between a core's waits, by its own clock: admission, log encoding, memtable and replies, without system calls.
//! A graceful stop and a start from the checkpoint follow.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use model::{CoreId, Labels, MatchOp, Matcher, SeriesKey, TenantId, TenantLimits, identity};
use shard::{
    Cores, FreshSamples, FreshSeries, KnownSamples, Mailboxes, Message, Options, Push, PushOutcome,
    Select,
};

const BODY: usize = 2000;
/// Pushes on their way at the same time.
const WINDOW: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // Test runners ask what there is, and which of it is left out.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("core_on_tiny_input: test");
        }
        return;
    }
    let full = arguments.iter().any(|argument| argument == "--bench");
    let (mut dir, mut numbers) = (std::env::temp_dir(), Vec::new());
    for argument in arguments.iter().filter(|a| full && !a.starts_with("--")) {
        match argument.parse::<usize>() {
            Ok(number) => numbers.push(number),
            Err(_) => dir = argument.into(),
        }
    }
    let default = if full { (100_000, 60) } else { (3000, 3) };
    let series = numbers.first().copied().unwrap_or(default.0);
    let scrapes = numbers.get(1).copied().unwrap_or(default.1);
    let dir = dir.join(format!("shard-bench-{}", std::process::id()));
    let cpus = shard::topology::cores(Some(1), None).expect("a CPU");
    let options = Options::new(&dir, cpus);
    let cores = start(&options);
    let boxes = cores.mailboxes().clone();
    let trips = if full { 20_000 } else { 20 };
    timed(&cores, "mailbox", trips, || {
        (0..trips).for_each(|_| empty(&boxes))
    });
    let keys = timed(&cores, "create", series, || create(&boxes, series));
    timed(&cores, "scrape", series * scrapes, || {
        (0..scrapes).for_each(|scrape| push(&boxes, &keys, 1 + scrape as i64, scrape))
    });
    let shuffled = shuffle(&keys);
    let more = scrapes.div_ceil(4);
    timed(&cores, "shuffled", series * more, || {
        (0..more).for_each(|s| push(&boxes, &shuffled, 1000 + s as i64, scrapes + s))
    });
    for (name, matchers) in selections() {
        let found = timed(&cores, name, 1, || select(&boxes, &matchers, false).0);
        assert!(found > 0 && found <= series, "{name}: {found} series");
        println!("{:>10}  {found} series", "");
    }
    let (found, chunks) = timed(&cores, "chunks", series, || select(&boxes, &[], true));
    assert_eq!(found, series);
    let text = prometheus::TextEncoder::new().encode_to_string(&cores.registry().gather());
    for line in text.expect("metrics are text").lines() {
        let wanted = [
            "wal_logged",
            "myelin_commits",
            "record_bytes",
            "stalls",
            "memory_bytes",
        ];
        if !line.starts_with('#') && wanted.iter().any(|name| line.contains(name)) {
            println!("  {line}");
        }
    }
    println!("{chunks} chunk bytes selected");
    assert!(chunks > 0);
    cores.stop();
    let cores = start(&options);
    println!("{:?}", cores.started());
    let text = prometheus::TextEncoder::new().encode_to_string(&cores.registry().gather());
    let text = text.expect("metrics are text");
    println!(
        "  {}",
        text.lines()
            .find(|line| line.starts_with("cortex_ingester_wal_replay"))
            .unwrap_or("")
    );
    cores.stop();
    std::fs::remove_dir_all(&dir).expect("the data was there");
}

fn start(options: &Options) -> Cores {
    let cores = Cores::start(options.clone(), |_| {}).expect("the cores start");
    println!(
        "io {}, not direct: {:?}",
        cores.started().io,
        cores.started().not_direct
    );
    cores
}

/// Runs a phase and prints wall time and the core's busy time, per item.
fn timed<T>(cores: &Cores, name: &str, items: usize, phase: impl FnOnce() -> T) -> T {
    let clock = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let (begun, before) = (clock(), busy(cores));
    let result = phase();
    let (took, busy) = (clock() - begun, busy(cores) - before);
    println!(
        "{name:>18}: {items:>9} items, {:8.3} s wall, core busy {:7.1} ns each",
        took.as_secs_f64(),
        busy.as_nanos() as f64 / items as f64,
    );
    result
}

/// Time the core has spent in its turns, by its own clock.
fn busy(cores: &Cores) -> Duration {
    let families = cores.registry().gather();
    let family = families
        .iter()
        .find(|f| f.name() == "myelin_core_busy_microseconds_total");
    let micros = family.map_or(0.0, |f| f.get_metric()[0].get_counter().get_value());
    Duration::from_micros(micros as u64)
}

fn labels_of(i: usize) -> Labels {
    let pod = i / 80;
    Labels::from_pairs([
        (
            "__name__",
            format!("container_metric_name_{:02}_total", i % 80),
        ),
        ("cluster", "production-eu-west-1".to_owned()),
        ("namespace", format!("team-{:02}", pod % 40)),
        ("job", "kubernetes-pods".to_owned()),
        (
            "instance",
            format!("10.{}.{}.{}:8080", pod / 65536, pod / 256 % 256, pod % 256),
        ),
        (
            "pod",
            format!("deployment-{:03}-7d9f8b6c5d-{pod:05x}", pod % 100),
        ),
        (
            "node",
            format!("ip-10-0-{}-{}.internal", pod / 30 % 256, pod / 7680),
        ),
        ("container", "main".to_owned()),
        ("endpoint", "metrics".to_owned()),
        ("service", format!("service-{:03}", pod % 100)),
    ])
    .expect("a label set")
}

/// A third counters, a third gauges, a third constants.
fn value(i: usize, scrape: usize) -> f64 {
    match i % 3 {
        0 => (scrape * (7 + i % 50)) as f64,
        1 => ((i * 31 + scrape * 17) % 1000) as f64 / 10.0,
        _ => 1.0,
    }
}

fn send(boxes: &Mailboxes, known: KnownSamples, fresh: FreshSamples) -> Receiver<PushOutcome> {
    let (reply, outcome) = channel();
    let bytes = known.keys.len() * 24 + fresh.labels.len() + fresh.times.len() * 40;
    let mut permits = boxes
        .reserve(&[(CoreId(0), bytes as u32)])
        .expect("the window is small");
    permits.send(
        CoreId(0),
        Push {
            tenant: TenantId::fake(),
            limits: Arc::new(TenantLimits::unlimited()),
            known,
            fresh,
            others: Default::default(),
            credits: 0,
            reply: Box::new(move |outcome| reply.send(outcome).unwrap_or_default()),
        },
    );
    outcome
}

fn create(boxes: &Mailboxes, series: usize) -> Vec<SeriesKey> {
    let mut keys = Vec::with_capacity(series);
    for from in (0..series).step_by(BODY) {
        let mut fresh = FreshSamples::default();
        for i in from..series.min(from + BODY) {
            let labels = labels_of(i);
            fresh.labels.extend_from_slice(labels.packed());
            fresh.times.push(0);
            fresh.values.push(value(i, 0));
            fresh.series.push(FreshSeries {
                id: identity::series_id(&TenantId::fake(), labels.packed(), &mut Vec::new()),
                labels_end: fresh.labels.len() as u32,
                samples_end: fresh.times.len() as u32,
            });
        }
        let outcome = send(boxes, KnownSamples::default(), fresh)
            .recv()
            .expect("a reply");
        keys.extend(outcome.keys.into_iter().flatten());
    }
    assert_eq!(keys.len(), series);
    keys
}

fn push(boxes: &Mailboxes, keys: &[SeriesKey], time: i64, scrape: usize) {
    let mut window = std::collections::VecDeque::new();
    let settle = |outcome: Receiver<PushOutcome>| {
        let outcome = outcome.recv().expect("a reply");
        assert!(outcome.refused.is_none() && outcome.dead.is_empty());
        assert_eq!(outcome.rejected.len(), 0);
    };
    for keys in keys.chunks(BODY) {
        let known = KnownSamples {
            keys: keys.to_vec(),
            times: vec![time * 15_000; keys.len()],
            values: keys
                .iter()
                .map(|key| value(key.series.0 as usize, scrape))
                .collect(),
        };
        window.push_back(send(boxes, known, FreshSamples::default()));
        if window.len() == WINDOW {
            settle(window.pop_front().expect("there are some"));
        }
    }
    window.into_iter().for_each(settle);
}

/// The same keys in an order that has nothing to do with memory: a full cycle of a linear congruence.
fn shuffle(keys: &[SeriesKey]) -> Vec<SeriesKey> {
    let step = (0..)
        .map(|i| keys.len() * 5 / 8 + i)
        .find(|&step| gcd(step, keys.len()) == 1);
    let step = step.expect("one of them has no common divisor");
    (0..keys.len())
        .map(|i| keys[i * step % keys.len()])
        .collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn empty(boxes: &Mailboxes) {
    let outcome = send(boxes, KnownSamples::default(), FreshSamples::default());
    assert!(outcome.recv().expect("a reply").refused.is_none());
}

/// What is looked up in the index, by name.
fn selections() -> [(&'static str, Vec<Matcher>); 5] {
    let regex = |name, value| Matcher::new(MatchOp::Regex, name, value).expect("a regex");
    [
        (
            "select metric",
            vec![Matcher::equal("__name__", "container_metric_name_07_total")],
        ),
        (
            "select two",
            vec![
                Matcher::equal("__name__", "container_metric_name_07_total"),
                Matcher::equal("namespace", "team-00"),
            ],
        ),
        ("select prefix", vec![regex("pod", "deployment-00.+")]),
        ("select regex", vec![regex("pod", ".*-0000[0-9a-f]")]),
        ("select all", vec![]),
    ]
}

/// Series and chunk bytes that were found.
fn select(boxes: &Mailboxes, matchers: &[Matcher], with_chunks: bool) -> (usize, usize) {
    let (reply, result) = channel();
    boxes.send(
        CoreId(0),
        Message::Select(Select {
            tenant: TenantId::fake(),
            matchers: Arc::from(matchers),
            min_time: i64::MIN,
            max_time: i64::MAX,
            with_chunks,
            projection: model::Projection::All,
            newest: false,
            windows: None,
            with_exemplars: false,
            with_moved: false,
            with_starts: false,
            series_max: 0,
            bytes_max: 0,
            chunks_max: 0,
            data_bytes_max: 0,
            hold: std::sync::Arc::new(|_| true),
            canceled: Arc::default(),
            reply: Box::new(move |r| reply.send(r).unwrap_or_default()),
        }),
    );
    let found = result.recv().expect("a reply").expect("a result");
    let bytes = found
        .iter()
        .flat_map(|series| &series.chunks)
        .map(|chunk| chunk.bytes.len())
        .sum();
    (found.len(), bytes)
}
