//! Nanoseconds a sample of reading runs out of a block: `cargo run --release -p block --example decode [best|fast] [days] [rounds]`; all of it, and where a
//! reader looks at some minutes of each day.
//!
//! Series of a sample a minute, whole numbers with steps that nobody can foretell, as `tests/e2e/year.rs` has them.

#![expect(
    clippy::disallowed_methods,
    reason = "an example that measures reads the clock"
)]

use std::time::{Duration, Instant};

use block::{Block, Builder, Effort, FileKind, Info, Memory, Options, Run};
use model::{Labels, TenantId, TimeRange, Windows};

const START: i64 = 1_700_000_000_000;
const SERIES: u64 = 50;

fn value(series: u64, at: u64) -> f64 {
    let mut mixed = at * 4096 + series;
    for _ in 0..2 {
        mixed = (mixed ^ mixed >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    (at % 1000 * 64) as f64 + (mixed >> 58) as f64
}

fn file(days: u64, effort: Effort) -> Vec<u8> {
    let info = Info {
        id: 1,
        kind: FileKind::Block,
        level: 1,
        order: 1,
        created_ms: START,
        origin: "example".to_owned(),
        core: 0,
        sources: Vec::new(),
    };
    let options = Options {
        effort,
        ..Options::default()
    };
    let mut builder = Builder::new(info, options).expect("options are right");
    builder.tenant(&TenantId::fake()).expect("the only one");
    let samples = days * 1440;
    let times: Vec<i64> = (0..samples as i64).map(|i| START + i * 60_000).collect();
    for series in 0..SERIES {
        let name = format!("i{series:04}");
        let labels = Labels::from_pairs([("__name__", "m"), ("instance", &name)]).expect("two");
        builder.series(&labels).expect("sorted");
        let values: Vec<f64> = (0..samples).map(|at| value(series, at)).collect();
        builder.samples(&times, &values).expect("ascending");
    }
    let built = builder.finish();
    for (coding, spent) in &built.codings {
        let bytes = spent.bytes as f64 / spent.samples as f64;
        println!(
            "{}: {} runs, {bytes:.3} bytes a sample",
            coding.name(),
            spent.runs
        );
    }
    builder.take()
}

fn main() {
    let mut args = std::env::args().skip(1);
    let effort = match args.next().as_deref() {
        Some("fast") => Effort::Fast,
        _ => Effort::Best,
    };
    let mut numbers = args.filter_map(|a| a.parse().ok());
    let days: u64 = numbers.next().unwrap_or(120);
    let rounds: u64 = numbers.next().unwrap_or(20);
    let mut source = Memory::new("example", file(days, effort));
    let block = Block::open(&mut source).expect("just written");
    let index = block
        .index(&mut source, &TenantId::fake())
        .expect("just written");
    let index = index.expect("the tenant is there");
    let all: Vec<u32> = (0..index.series_count()).collect();
    let day = 86_400_000;
    let range = |width| TimeRange {
        windows: Windows::new(START, day, width),
        ..TimeRange::ALL
    };
    for (name, range) in [
        ("all", TimeRange::ALL),
        ("an hour a day", range(day / 24)),
        ("five minutes a day", range(300_000)),
    ] {
        // The least of each: the rest is what else the machine does.
        let (mut finding, mut decoding) = (Duration::MAX, Duration::MAX);
        let (mut found, mut count, mut sum) = (0, 0, 0.0);
        for _ in 0..rounds {
            let began = Instant::now();
            let mut runs = Vec::new();
            index
                .runs(&mut source, 1, &all, &range, &mut |_| true, &mut |found| {
                    runs.push(found.run);
                })
                .expect("just written");
            finding = finding.min(began.elapsed());
            (found, count, sum) = (runs.len(), 0, 0.0);
            let began = Instant::now();
            for run in &runs {
                run.decode(&range, &mut |run| {
                    if let Run::Floats { times, values } = run {
                        count += times.len();
                        sum += values[values.len() - 1];
                    }
                })
                .expect("just written");
            }
            decoding = decoding.min(began.elapsed());
        }
        let stored = (SERIES * days * 1440) as f64;
        let per = |time: Duration| time.as_nanos() as f64 / stored;
        println!(
            "{name}: {found} runs, {count} samples; a stored sample {:.2} ns to find and {:.2} ns to decode (checked {sum})",
            per(finding),
            per(decoding)
        );
    }
}
