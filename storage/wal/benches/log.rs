//! What a sample costs in the log: nanoseconds to encode and to replay, and bytes, for typical bodies. No disk: a simulated one, outside of the clock.
//!
//! The fastest scrape and the fastest of three replays count, so that a busy machine changes little.
//!
//! `cargo bench -p wal --bench log [-- SERIES SCRAPES]`; `cargo test -p wal` runs it on tiny input.

#![expect(clippy::disallowed_methods, reason = "a measurement needs a clock")]

use std::path::Path;
use std::time::{Duration, Instant};

use model::SeriesRef;
use reactor::{Reactor, Sim};
use wal::{Log, Options, Record, ReplayOptions};

/// Value of a series at a scrape.
type Shape = fn(u32, u32) -> f64;

const SHAPES: [(&str, Shape); 5] = [
    ("constant", |series, _| f64::from(series % 7)),
    ("counter, small steps", |series, scrape| {
        1e6 * f64::from(series % 9) + f64::from(scrape * 17)
    }),
    ("counter, large steps", |series, scrape| {
        f64::from(scrape) * 123_456.0 + f64::from(series)
    }),
    ("gauge, two decimals", |series, scrape| {
        f64::from((series * 31 + scrape * 977) % 10_000) / 100.0
    }),
    ("gauge, random", |series, scrape| {
        let bits =
            u64::from(series).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(scrape) << 32);
        f64::from_bits(bits.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 12 | 0x3ff0_0000_0000_0000)
    }),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // Test runners ask what there is, and which of it is left out.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("log_on_tiny_input: test");
        }
        return Ok(());
    }
    let full = arguments.iter().any(|argument| argument == "--bench");
    let numbers = arguments.iter().filter_map(|text| text.parse::<u32>().ok());
    let numbers: Vec<u32> = numbers.filter(|_| full).collect();
    let default = if full { (20_000, 40) } else { (700, 3) };
    let series = numbers.first().copied().unwrap_or(default.0);
    let scrapes = numbers.get(1).copied().unwrap_or(default.1);
    println!("{series} series x {scrapes} scrapes, 500 series a target");
    println!(
        "{:<22} {:>9} {:>9} {:>7}",
        "values", "encode ns", "replay ns", "bytes"
    );
    for (name, shape) in SHAPES {
        let (encode, replay, bytes) = measure(series, scrapes, shape)?;
        let count = f64::from(series) * f64::from(scrapes);
        let encode = encode.as_nanos() as f64 / f64::from(series);
        let replay = replay.as_nanos() as f64 / count;
        println!(
            "{name:<22} {encode:>9.1} {replay:>9.1} {:>7.2}",
            bytes as f64 / count
        );
    }
    Ok(())
}

fn measure(
    series: u32,
    scrapes: u32,
    shape: Shape,
) -> Result<(Duration, Duration, u64), wal::Error> {
    let sim = Sim::new(1);
    let dir = Path::new("core-000");
    let mut reactor = Reactor::sim(&sim);
    let mut ignore = |_: &Record<'_>, _: wal::Place| Ok(());
    let options = ReplayOptions::default();
    let replayed = wal::replay(&mut reactor, dir, &options, &mut ignore, &mut |_, _| Ok(()))?;
    let segment_bytes_first = wal::SEGMENT_BYTES;
    let mut log = Log::open(
        &mut reactor,
        dir,
        Options {
            segment_bytes_first,
            ..Options::default()
        },
        &replayed,
    )?;

    // As a core holds them: last value and the segment it was logged in.
    let mut rows = vec![(0.0f64, u32::MAX); series as usize];
    let mut encode = Duration::MAX;
    for scrape in 0..scrapes {
        let values: Vec<f64> = (0..series).map(|series| shape(series, scrape)).collect();
        let mut this_scrape = Duration::ZERO;
        for target in 0..series.div_ceil(500) {
            let time =
                1_700_000_000_000 + i64::from(scrape) * 15_000 + i64::from(target % 97) * 131;
            let from = (target * 500) as usize;
            let to = (from + 500).min(series as usize);
            let start = Instant::now();
            for at in from..to {
                let segment = log.reserve_sample();
                let row = &mut rows[at];
                let base = (row.1 == segment).then_some(row.0);
                log.sample(SeriesRef(at as u32), time, values[at], base);
                *row = (values[at], segment);
            }
            this_scrape += start.elapsed();
        }
        encode = encode.min(this_scrape);
        log.submit(&mut reactor, true);
        let mut events = Vec::new();
        while log.durable() < log.tail() {
            reactor.wait(None, &mut events);
            for event in events.drain(..) {
                log.on_event(&mut reactor, event)?;
            }
        }
    }
    let mut replay = Duration::MAX;
    for _ in 0..3 {
        let mut found = 0;
        let mut count = |record: &Record<'_>, _| {
            if let Record::Samples(samples) = record {
                found += samples.len();
            }
            Ok(())
        };
        let start = Instant::now();
        wal::replay(&mut reactor, dir, &options, &mut count, &mut |_, _| Ok(()))?;
        replay = replay.min(start.elapsed());
        assert_eq!(found, rows.len() * scrapes as usize);
    }
    Ok((encode, replay, log.stats().record_bytes))
}
