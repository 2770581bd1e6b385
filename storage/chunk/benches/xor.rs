//! What appending, sealing and decoding cost, per sample: `cargo bench -p chunk`.
//!
//! Appending is measured twice: on one hot series, and one sample each on 100,000 series in turn, as scrapes come, where a cache
//! miss on the state of the series is part of the price. `cargo test --benches -p chunk` runs all of it on tiny input.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use chunk::XorAppender;

const SAMPLES: usize = 120;

struct Shape {
    name: &'static str,
    value: fn(u64, u64) -> f64,
    jitter: i64,
}

/// A number that looks like chance, of a series and a scrape.
fn noise(series: u64, scrape: u64) -> u64 {
    let mixed = (series << 20 ^ scrape)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "constant",
        value: |series, _| series as f64,
        jitter: 0,
    },
    Shape {
        name: "counter",
        value: |s, i| (i * 700 + noise(s, i) % 700) as f64,
        jitter: 0,
    },
    Shape {
        name: "counter, jitter",
        value: |s, i| (i * 700 + noise(s, i) % 700) as f64,
        jitter: 5,
    },
    Shape {
        name: "small integers",
        value: |s, i| (noise(s, i) % 16) as f64,
        jitter: 0,
    },
    Shape {
        name: "any float",
        value: |s, i| noise(s, i) as f64 / 4294967296.0,
        jitter: 0,
    },
];

fn time(series: u64, scrape: u64, jitter: i64) -> i64 {
    let late = if jitter == 0 {
        0
    } else {
        (noise(scrape, series) % jitter as u64) as i64
    };
    1_700_000_000_000 + 15_000 * scrape as i64 + late
}

/// Nanoseconds of the fastest of `rounds`, per one of `items`.
fn fastest(rounds: usize, items: usize, mut work: impl FnMut()) -> f64 {
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_nanos() as f64 / items as f64
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // Test runners ask what there is, and which of it is left out.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("xor_on_tiny_input: test");
        }
        return;
    }
    let tiny = !arguments.iter().any(|argument| argument == "--bench");
    let (rounds, series) = if tiny { (2, 50) } else { (20, 100_000) };
    println!("ns a sample     append hot  append 100k series     seal   decode  bytes a sample");
    for shape in SHAPES {
        let samples: Vec<(i64, f64)> = (0..SAMPLES as u64)
            .map(|i| (time(7, i, shape.jitter), (shape.value)(7, i)))
            .collect();
        let repeat = if tiny { 2 } else { 2000 };
        let mut appender = XorAppender::new();
        let hot = fastest(rounds, repeat * SAMPLES, || {
            for _ in 0..repeat {
                appender.clear();
                for (time, value) in &samples {
                    appender.append(*time, *value);
                }
                black_box(&appender);
            }
        });
        let seal = fastest(rounds, repeat * SAMPLES, || {
            for _ in 0..repeat {
                black_box(appender.seal());
            }
        });
        let sealed = appender.seal();
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let decode = fastest(rounds, repeat * SAMPLES, || {
            for _ in 0..repeat {
                times.clear();
                values.clear();
                chunk::decode(black_box(&sealed), &mut times, &mut values).expect("just sealed");
                black_box(&values);
            }
        });
        assert_eq!(values.len(), SAMPLES);

        let mut appenders = vec![XorAppender::new(); series];
        // The values are made before the clock runs.
        let mut column = vec![(0i64, 0f64); series];
        let mut wide = 0.0;
        let scrapes = if tiny { 3 } else { SAMPLES as u64 };
        for scrape in 0..scrapes {
            for (s, slot) in column.iter_mut().enumerate() {
                let s = s as u64;
                *slot = (time(s, scrape, shape.jitter), (shape.value)(s, scrape));
            }
            let start = Instant::now();
            for (appender, (time, value)) in appenders.iter_mut().zip(&column) {
                appender.append(*time, *value);
            }
            wide += start.elapsed().as_nanos() as f64;
        }
        println!(
            "{:<15} {:>10.1} {:>19.1} {:>8.2} {:>8.2} {:>15.2}",
            shape.name,
            hot,
            wide / (series as f64 * scrapes as f64),
            seal,
            decode,
            sealed.len() as f64 / SAMPLES as f64,
        );
    }
}
