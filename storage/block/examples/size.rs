//! Bytes and nanoseconds per sample, bytes of index per series: `cargo run --release -p block --example size [series] [samples]`.
//!
//! Three sets of data: `steady`, the very series and values that `myelin-bench` pushes; `jitter`, the same at times that wander by milliseconds
//! and with missed scrapes; `node`, made to resemble a node_exporter that is scraped each second. For each: the fast effort of a cut and the
//! best of a merge.

#![expect(
    clippy::disallowed_methods,
    reason = "an example that measures reads the clock"
)]

use std::time::Instant;

use block::{Block, Builder, Effort, FileKind, Info, Memory, Options, Run};
use model::{Labels, TenantId};

#[allow(dead_code, reason = "the load tool uses more of it")]
#[path = "../../../bench/src/series.rs"]
mod series;

struct Data {
    name: &'static str,
    /// Sorted by labels.
    series: Vec<(Labels, Vec<i64>, Vec<f64>)>,
}

const START: i64 = 1_700_000_000_000;

fn steady(count: u64, samples: usize, jitter: bool) -> Data {
    let mut all = Vec::new();
    for index in 0..count {
        let pairs = series::labels(index, 0);
        let labels = Labels::from_pairs(pairs).expect("distinct names");
        let mut values = series::Values::new(index, 0);
        let target = index / series::SERIES_PER_TARGET;
        let (mut times, mut column) = (Vec::new(), Vec::new());
        for i in 0..samples {
            let value = values.next();
            let chance = series::scatter(target << 20 | i as u64);
            if jitter && chance.is_multiple_of(500) {
                continue;
            }
            let late = if jitter {
                (chance >> 20) % 4 + target * 37 % 15_000
            } else {
                0
            };
            times.push(START + i as i64 * 15_000 + late as i64);
            column.push(value);
        }
        all.push((labels, times, column));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Data {
        name: if jitter { "jitter" } else { "steady" },
        series: all,
    }
}

/// How the series of a node_exporter move, roughly: most stand still, many count, some are bytes in whole pages, few are full floats.
fn node(hosts: u64, samples: usize) -> Data {
    let mut all = Vec::new();
    for host in 0..hosts {
        for n in 0..1000u64 {
            let mut state = series::scatter(host << 32 | n);
            let mut level = (state % 1_000_000_000) as f64;
            let mut sum = level;
            let (mut times, mut values) = (Vec::new(), Vec::new());
            for i in 0..samples {
                state = series::scatter(state);
                let chance = state >> 16;
                let value = match n % 20 {
                    0..=8 => (n % 7) as f64,
                    // CPU seconds per mode and the like: hundredths.
                    9..=11 => {
                        level += (chance % 5) as f64;
                        level.round() / 100.0
                    }
                    // Bytes of a device or an interface.
                    12 | 13 => {
                        level += if chance.is_multiple_of(4) {
                            (chance >> 8 & 0xfffff) as f64
                        } else {
                            66.0
                        };
                        level
                    }
                    // Counts of packets, interrupts, context switches.
                    14 | 15 => {
                        level += (chance % 200) as f64;
                        level
                    }
                    // Memory, whole pages.
                    16 => {
                        level += (chance % 65) as f64 - 32.0;
                        level * 4096.0
                    }
                    // Moves now and then.
                    17 => {
                        if chance.is_multiple_of(60) {
                            level += 1.0;
                        }
                        level
                    }
                    // Load averages.
                    18 => ((chance % 30) as f64 + 100.0) / 100.0,
                    // Sums of seconds with all their digits.
                    _ => {
                        sum += (chance as f64 / 1e16).sqrt();
                        sum
                    }
                };
                times.push(START + i as i64 * 1000 + (chance >> 30) as i64 % 2);
                values.push(value);
            }
            let labels = Labels::from_pairs([
                ("__name__", format!("node_metric_{:03}_total", n / 8)),
                ("device", format!("eth{}", n % 8)),
                ("instance", format!("10.0.0.{host}:9100")),
                ("job", "node".to_owned()),
            ]);
            all.push((labels.expect("distinct names"), times, values));
        }
    }
    // All series of a host are scraped at once.
    let shared: Vec<Vec<i64>> = (0..hosts)
        .map(|host| all[host as usize * 1000].1.clone())
        .collect();
    for (i, one) in all.iter_mut().enumerate() {
        one.1.clone_from(&shared[i / 1000]);
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Data {
        name: "node",
        series: all,
    }
}

fn measure(data: &Data, effort: Effort) {
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
    let samples: usize = data.series.iter().map(|s| s.1.len()).sum();
    let tenant = TenantId::fake();
    let began = Instant::now();
    let mut builder = Builder::new(info, options).expect("options are right");
    builder.tenant(&tenant).expect("the only one");
    for (labels, times, values) in &data.series {
        builder.series(labels).expect("sorted");
        builder.samples(times, values).expect("ascending");
    }
    let encoded = began.elapsed();
    let built = builder.finish();
    let indexed = began.elapsed() - encoded;
    let mut source = Memory::new("example", builder.take());
    let block = Block::open(&mut source).expect("just written");
    let index = block.index(&mut source, &tenant).expect("just written");
    let index = index.expect("the tenant is there");
    let all: Vec<u32> = (0..index.series_count()).collect();
    let began = Instant::now();
    let (mut count, mut sum) = (0usize, 0.0);
    index
        .read(&mut source, &all, (i64::MIN, i64::MAX), &mut |_, run| {
            if let Run::Floats { times, values } = run {
                count += times.len();
                sum += values[values.len() - 1];
            }
        })
        .expect("just written");
    let decoded = began.elapsed();
    assert_eq!(count, samples);
    let part = &built.meta.parts[0];
    let series = data.series.len() as f64;
    let per = |bytes: u64, of: f64| bytes as f64 / of;
    println!(
        "{:7} {effort:?}: {} series, {samples} samples, {} bytes: {:.3} bytes per sample, {:.1} bytes of index per series (symbols {:.1}, series {:.1}, postings {:.1}); \
         encode {:.0} ns, index {:.0} ns per series, decode {:.1} ns (checked {sum:.0})",
        data.name,
        data.series.len(),
        built.bytes,
        per(part.chunk_bytes(), samples as f64),
        per(part.index_bytes(), series),
        per(index.symbol_bytes(), series),
        per(index.series_bytes(), series),
        per(index.postings_bytes(), series),
        encoded.as_nanos() as f64 / samples as f64,
        indexed.as_nanos() as f64 / series,
        decoded.as_nanos() as f64 / samples as f64,
    );
    for (coding, spent) in &built.codings {
        println!(
            "        {:9} {:8} runs {:10} samples {:.3} bytes each",
            coding.name(),
            spent.runs,
            spent.samples,
            per(spent.bytes, spent.samples as f64)
        );
    }
}

/// What single codecs would take, run by run, times apart except for XOR chunks, which hold them.
fn single(data: &Data) {
    let (mut xor, mut pco, mut raw) = (0, 0, 0);
    let mut samples = 0;
    for (_, times, values) in &data.series {
        samples += values.len();
        let mut appender = chunk::XorAppender::new();
        for (&time, &value) in times.iter().zip(values) {
            appender.append(time, value);
        }
        xor += appender.seal().len();
        let config = pco::ChunkConfig::default();
        pco += pco::standalone::simple_compress(values, &config)
            .expect("any floats")
            .len();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|v| v.to_bits().to_le_bytes())
            .collect();
        raw += zstd::bulk::compress(&bytes, 3).expect("any bytes").len();
    }
    let per = |bytes: usize| bytes as f64 / samples as f64;
    println!(
        "{:7} alone: xor {:.3}, pco {:.3}, zstd of raw {:.3} bytes per sample",
        data.name,
        per(xor),
        per(pco),
        per(raw)
    );
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let count: u64 = args.next().unwrap_or(20_000);
    let samples: u64 = args.next().unwrap_or(60);
    for data in [
        steady(count, samples as usize, false),
        steady(count, samples as usize, true),
        steady(count / 8, samples as usize * 8, false),
        node(count.div_ceil(20_000), 3600),
    ] {
        single(&data);
        for effort in [Effort::Fast, Effort::Best] {
            measure(&data, effort);
        }
    }
}
