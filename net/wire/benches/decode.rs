//! What it costs to read a write request, per sample: `cargo bench -p wire`; `cargo test -p wire` runs it on tiny input.
//!
//! 100,000 series in bodies of 2000, ten labels and some 215 bytes of label text each, one sample a series. All bodies are gone through
//! in turn, so that caches hold what they would in a server. Each body is timed by itself, and its fastest round counts.
//!
//! | stage | what |
//! | --- | --- |
//! | pack | what the sender pays |
//! | unpack | snappy into a buffer that is used again |
//! | walk | label bytes, times and values of each series, in place |
//! | walk, labels | the same, and every label's name and value |
//! | symbols | version 2 only: where the symbols of the request lie |

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use wire::remote_write::encode::{self, RequestV2};
use wire::remote_write::{v1, v2};
use wire::snappy;

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

/// Bodies of both versions.
fn bodies(count: usize, per_body: usize) -> [Vec<Vec<u8>>; 2] {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for begin in (0..count).step_by(per_body) {
        let (mut plain, mut request) = (Vec::new(), RequestV2::default());
        for i in begin..(begin + per_body).min(count) {
            let labels = labels(i);
            let pairs = labels.iter().map(|(name, value)| (*name, value.as_str()));
            let sample = [(1_700_000_000_000 + i as i64 % 97, i as f64 * 1.37)];
            encode::put_series(&mut plain, pairs.clone(), &sample);
            request.put_series(pairs, &sample, None);
        }
        first.push(plain);
        second.push(request.finish());
    }
    [first, second]
}

/// Nanoseconds a sample: the fastest of all rounds of each body, together.
fn fastest(rounds: usize, bodies: usize, samples: usize, mut work: impl FnMut(usize)) -> f64 {
    let mut best = vec![f64::INFINITY; bodies];
    for _ in 0..rounds {
        for (body, best) in best.iter_mut().enumerate() {
            let start = Instant::now();
            work(body);
            *best = best.min(start.elapsed().as_nanos() as f64);
        }
    }
    best.iter().sum::<f64>() / samples as f64
}

/// Samples of a version 1 body; label bytes, or every label, go to the optimiser's blind eye.
fn walk_first(body: &[u8], each_label: bool) -> usize {
    let (mut walk, mut samples) = (v1::Walk::new(body), 0);
    while let Some(record) = walk.next_record().expect("a body just built") {
        let v1::Record::Series(raw) = record else {
            continue;
        };
        black_box(raw.label_bytes());
        if each_label {
            for label in v1::labels(raw.label_bytes()) {
                black_box(label).expect("a body just built");
            }
        }
        let mut parts = raw.parts();
        while let Some(part) = parts.next_part().expect("a body just built") {
            samples += usize::from(matches!(black_box(part), v1::Part::Sample { .. }));
        }
    }
    samples
}

/// The same of version 2.
fn walk_second(body: &[u8], symbols: &v2::Symbols, each_label: bool) -> usize {
    let (mut walk, mut samples) = (v2::Walk::new(body), 0);
    while let Some(raw) = walk.next_series().expect("a body just built") {
        black_box(raw.reference_bytes());
        if each_label {
            for label in v2::labels(raw.reference_bytes(), body, symbols) {
                black_box(label).expect("a body just built");
            }
        }
        let mut parts = raw.parts();
        while let Some(part) = parts.next_part().expect("a body just built") {
            samples += usize::from(matches!(black_box(part), v2::Part::Sample { .. }));
        }
    }
    samples
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // Test runners ask what there is, and which of it is left out.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("decode_on_tiny_input: test");
        }
        return;
    }
    let tiny = !arguments.iter().any(|argument| argument == "--bench");
    let (rounds, count, per_body) = if tiny {
        (2, 300, 100)
    } else {
        (15, 100_000, 2000)
    };
    for (version, plain) in (1..).zip(bodies(count, per_body)) {
        let packed: Vec<Vec<u8>> = plain.iter().map(|body| snappy::pack(body)).collect();
        let bytes =
            |bodies: &[Vec<u8>]| bodies.iter().map(Vec::len).sum::<usize>() as f64 / count as f64;
        println!(
            "version {version}: {:.0} bytes a sample, {:.1} packed",
            bytes(&plain),
            bytes(&packed)
        );
        let show = |stage: &str, ns: f64| println!("  {stage:<16} {ns:>7.1} ns a sample");
        let time = |work: &mut dyn FnMut(usize)| fastest(rounds, plain.len(), count, work);
        show(
            "pack",
            time(&mut |i| drop(black_box(snappy::pack(&plain[i])))),
        );
        let mut buffer = snappy::Buffer::default();
        show(
            "unpack",
            time(&mut |i| {
                snappy::unpack(&packed[i], 1 << 30, &mut buffer).expect("just packed");
                assert_eq!(buffer.as_slice().len(), plain[i].len());
            }),
        );
        let mut symbols = v2::Symbols::default();
        if version == 2 {
            show(
                "symbols",
                time(&mut |i| symbols.read(&plain[i]).expect("a body just built")),
            );
        }
        for (stage, each_label) in [("walk", false), ("walk, labels", true)] {
            let ns = time(&mut |i| {
                let samples = if version == 1 {
                    walk_first(&plain[i], each_label)
                } else {
                    symbols.read(&plain[i]).expect("a body just built");
                    walk_second(&plain[i], &symbols, each_label)
                };
                assert_eq!(samples, per_body.min(count - i * per_body));
            });
            show(stage, ns);
        }
    }
}
