//! What a known sample costs on a gateway thread, stage by stage: `cargo bench -p gateway`.
//!
//! 100,000 series in bodies of 2000, ten labels and some 215 bytes of label text each, one sample a series: what Prometheus sends.
//! All bodies are gone through in turn, so caches hold what they would in a running server. The stages are cumulative;
//! "push" is the whole way from the packed body to the message for the cores (which here answer at once) and the learned answer, and
//! "new series" the same where all have to be sent with their labels, "version 2" the same in remote write 2.0, and
//! "shuffled" is the same with the series of all bodies in random order. `cargo test --benches -p gateway` runs it on tiny input.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use gateway::alias::{AliasHash, AliasTable, Cursor, Secret, Target};
use gateway::metadata::MetadataStore;
use gateway::overrides::Overrides;
use gateway::push::{Cores, PushOptions, PushService, Sleepers, Spread};
use http::HeaderMap;
use http_body_util::Full;
use model::{CoreId, Generation, SeriesKey, SeriesRef, TenantId, TenantLimits};
use shard::{Push, PushOutcome, Refusal};
use wire::remote_write::encode::{self, RequestV2};
use wire::remote_write::v1::{Part, Record, Walk};
use wire::snappy;

/// Cores that have stored everything as soon as it is sent.
struct Instantly {
    series: AtomicU32,
}

impl Cores for Instantly {
    fn spread(&self) -> Spread {
        Spread::here(1)
    }

    fn wake(&self, _: CoreId) {}

    fn queue(&self, _: CoreId) -> (u64, u64) {
        (0, u64::MAX)
    }

    fn push(&self, parts: Vec<(CoreId, u32, Push)>) -> Result<Sleepers, Refusal> {
        for (_, _, push) in parts {
            let key = |_| {
                let series = SeriesRef(self.series.fetch_add(1, Ordering::Relaxed));
                Some(SeriesKey {
                    series,
                    generation: Generation(1),
                })
            };
            let outcome = PushOutcome {
                stored: (push.known.times.len() + push.fresh.times.len()) as u32,
                keys: push.fresh.series.iter().map(key).collect(),
                ..PushOutcome::default()
            };
            black_box(&push.known);
            (push.reply)(outcome);
        }
        Ok(Sleepers::new())
    }
}

fn labels(i: usize) -> Vec<(&'static str, String)> {
    vec![
        (
            "__name__",
            format!("container_network_receive_{}_total", i % 500),
        ),
        ("cluster", "eu-west-1-production".into()),
        ("container", format!("app-{}", i % 40)),
        ("endpoint", "https-metrics".into()),
        (
            "instance",
            format!("10.{}.{}.{}:10250", i / 4000, i / 250 % 16, i % 250),
        ),
        ("job", "kubelet".into()),
        ("namespace", format!("team-{}-production", i % 97)),
        (
            "node",
            format!("ip-10-{}-{}.eu-west-1.internal", i / 4000, i / 250 % 16),
        ),
        ("pod", format!("app-{}-6c7f9d8b5-{:05x}", i % 40, i)),
        ("service", "kubelet".into()),
    ]
}

fn bodies(order: &[usize], per_body: usize) -> Vec<Vec<u8>> {
    let put = |out: &mut Vec<u8>, i: usize| {
        let labels = labels(i);
        let pairs = labels.iter().map(|(name, value)| (*name, value.as_str()));
        encode::put_series(out, pairs, &[(1_700_000_000_000, i as f64 * 1.37)]);
    };
    let body = |chunk: &[usize]| {
        let mut out = Vec::new();
        chunk.iter().for_each(|&i| put(&mut out, i));
        out
    };
    order.chunks(per_body).map(body).collect()
}

fn bodies_v2(count: usize, per_body: usize) -> Vec<Vec<u8>> {
    let body = |begin: usize| {
        let mut request = RequestV2::default();
        for i in begin..(begin + per_body).min(count) {
            let labels = labels(i);
            let pairs = labels.iter().map(|(name, value)| (*name, value.as_str()));
            request.put_series(pairs, &[(1_700_000_000_000, i as f64 * 1.37)], None);
        }
        snappy::pack(&request.finish())
    };
    (0..count).step_by(per_body).map(body).collect()
}

/// Nanoseconds an item: each of `parts` is timed by itself, the fastest of all rounds counts, so that other work on the machine spoils
/// single parts of single rounds only.
fn fastest(rounds: usize, parts: usize, items: usize, mut work: impl FnMut(usize, usize)) -> f64 {
    let mut best = vec![f64::INFINITY; parts];
    for round in 0..rounds {
        for (part, best) in best.iter_mut().enumerate() {
            let start = Instant::now();
            work(round, part);
            *best = best.min(start.elapsed().as_nanos() as f64);
        }
    }
    best.iter().sum::<f64>() / items as f64
}

/// An order that looks like chance.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&i| {
        let mixed = (i as u64 ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8
    });
    order
}

fn walk_samples(body: &[u8], mut series: impl FnMut(&[u8])) -> f64 {
    let mut walk = Walk::new(body);
    let mut sum = 0.0;
    while let Some(record) = walk.next_record().expect("a body just built") {
        let Record::Series(raw) = record else {
            continue;
        };
        series(raw.label_bytes());
        let mut parts = raw.parts();
        while let Some(part) = parts.next_part().expect("a body just built") {
            if let Part::Sample { time, value } = part {
                sum += value + time as f64;
            }
        }
    }
    sum
}

const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // Test runners ask what there is, and which of it is left out.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("push_on_tiny_input: test");
        }
        return;
    }
    let tiny = !arguments.iter().any(|argument| argument == "--bench");
    let (rounds, count, per_body) = if tiny {
        (2, 300, 100)
    } else {
        (15, 100_000, 2000)
    };
    let in_order: Vec<usize> = (0..count).collect();
    let plain = bodies(&in_order, per_body);
    let packed: Vec<Vec<u8>> = plain.iter().map(|body| snappy::pack(body)).collect();
    let bytes = |bodies: &[Vec<u8>]| bodies.iter().map(Vec::len).sum::<usize>() as f64;
    println!(
        "{count} series, {:.0} bytes a sample, {:.1} packed",
        bytes(&plain) / count as f64,
        bytes(&packed) / count as f64
    );
    let show = |stage: &str, ns: f64| println!("{stage:<28} {ns:>7.1} ns a sample");

    let parts = plain.len();
    let time = |work: &mut dyn FnMut(usize, usize)| fastest(rounds, parts, count, work);
    let mut buffer = snappy::Buffer::default();
    show(
        "unpack",
        time(&mut |_, i| {
            snappy::unpack(&packed[i], 1 << 30, &mut buffer).expect("just packed");
            black_box(buffer.as_slice());
        }),
    );
    show(
        "walk",
        time(&mut |_, i| {
            black_box(walk_samples(&plain[i], |_| {}));
        }),
    );
    let secret = Secret::from_seed(1);
    show(
        "walk, hash",
        time(&mut |_, i| {
            black_box(walk_samples(&plain[i], |labels| {
                black_box(secret.hash(labels));
            }));
        }),
    );
    lookups(&plain, &secret, rounds, per_body, &show);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let push = |service: &PushService, body: &[u8], media: &str| {
        runtime.block_on(push(service, body, media));
    };
    let mut services: Vec<PushService> = (0..rounds).map(|_| service()).collect();
    show(
        "push, new series",
        time(&mut |round, i| push(&services[round], &packed[i], V1)),
    );
    services.truncate(1);
    let again = &services[0];
    show("push", time(&mut |_, i| push(again, &packed[i], V1)));
    let orders = [1, 2].map(|seed| {
        let bodies = bodies(&shuffled(count, seed), per_body);
        bodies
            .iter()
            .map(|body| snappy::pack(body))
            .collect::<Vec<_>>()
    });
    let mut each = |round: usize, i: usize| push(again, &orders[round % 2][i], V1);
    show("push, shuffled each time", time(&mut each));
    println!(
        "{:<28} {:>7.1} bytes",
        "packed when shuffled",
        bytes(&orders[0]) / count as f64
    );
    let packed = bodies_v2(count, per_body);
    let service = service();
    show(
        "push, version 2",
        time(&mut |_, i| push(&service, &packed[i], V2)),
    );
    println!(
        "{:<28} {:>7.1} bytes",
        "packed in version 2",
        bytes(&packed) / count as f64
    );
}

fn lookups(
    plain: &[Vec<u8>],
    secret: &Secret,
    rounds: usize,
    per_body: usize,
    show: &impl Fn(&str, f64),
) {
    let mut hashes: Vec<AliasHash> = Vec::new();
    for body in plain {
        walk_samples(body, |labels| hashes.push(secret.hash(labels)));
    }
    let count = hashes.len();
    let mut table = AliasTable::new(1 << 20);
    for (i, hash) in hashes.iter().enumerate() {
        let key = SeriesKey {
            series: SeriesRef(i as u32),
            generation: Generation(1),
        };
        table.learn(
            *hash,
            Target {
                core: CoreId(0),
                key,
                source: 0,
            },
        );
    }
    let mut targets = vec![None; 32];
    let mut resolve = |hashes: &[AliasHash]| {
        let mut cursor = Cursor::default();
        for block in hashes.chunks(32) {
            table.resolve(&mut cursor, block, &mut targets[..block.len()]);
            black_box(&targets);
        }
    };
    let part = |i: usize| i * per_body..((i + 1) * per_body).min(count);
    let predicted = fastest(rounds, plain.len(), count, |_, i| resolve(&hashes[part(i)]));
    show("lookup alone, predicted", predicted);
    let orders = [11, 13].map(|seed| shuffled(count, seed));
    let orders = orders.map(|order| order.into_iter().map(|i| hashes[i]).collect::<Vec<_>>());
    let by_chance = fastest(rounds, plain.len(), count, |round, i| {
        resolve(&orders[round % 2][part(i)])
    });
    show("lookup alone, shuffled", by_chance);
    println!(
        "{:<28} {:>7.1} bytes",
        "an alias",
        table.bytes() as f64 / count as f64
    );
}

fn service() -> PushService {
    PushService::new(
        PushOptions::default(),
        Arc::new(Instantly {
            series: AtomicU32::new(0),
        }),
        Arc::new(Overrides::new(TenantLimits::unlimited())),
        Arc::new(MetadataStore::default()),
        &prometheus::Registry::new(),
        Arc::new(|| 1_700_000_000_000),
    )
    .expect("default options work")
}

async fn push(service: &PushService, body: &[u8], media: &str) {
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::CONTENT_TYPE,
        media.parse().expect("a media type"),
    );
    let body = Full::new(Bytes::copy_from_slice(body));
    let answer = service.handle(&TenantId::fake(), &headers, body).await;
    assert!(answer.status().is_success(), "{}", answer.status());
}
