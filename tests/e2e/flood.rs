//! Fifty tenants, of which one writes and asks twenty times what it may: it is answered 429, and no request of the others is refused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::{Response, Server, ServerOptions, unix_now};

use crate::series::{body, push};

/// Samples a second of a tenant, and at once.
const RATE: u64 = 1000;
const BURST: u64 = 2000;
const QUIET: u64 = 49;
const THREADS: u64 = 7;
/// Some 12,000 samples of a subquery: long enough that the next ones find it at work.
const QUERY: &str = "quantile_over_time(0.5, vector(time())[20m:100ms])";

fn write(server: &Server, tenant: &str, series: u64, time: i64) -> Response {
    let names: Vec<String> = (0..series).map(|n| n.to_string()).collect();
    let labels: Vec<_> = names
        .iter()
        .map(|n| [("__name__", "flood"), ("n", n.as_str())])
        .collect();
    let all: Vec<_> = labels.iter().map(|l| (&l[..], time, 1.0)).collect();
    push(server, Some(tenant), &body(&all))
}

fn ask(server: &Server, tenant: &str, query: &str, time: f64) -> Response {
    let time = time.to_string();
    server
        .api(Some(tenant))
        .get("/api/v1/query", &[("query", query), ("time", &time)])
}

fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() * 99 / 100]
}

/// What the one that floods was answered.
#[derive(Default)]
struct Flood {
    samples: AtomicU64,
    writes_refused: AtomicU64,
    queries: AtomicU64,
    queries_refused: AtomicU64,
    unavailable: AtomicU64,
}

#[test]
fn one_tenant_at_twenty_times_its_limits_is_refused_and_forty_nine_others_are_not() {
    let Some(server) = Server::start(ServerOptions {
        config: format!(
            "auth_enabled: true\nlimits:\n  ingestion_rate: {RATE}\n  ingestion_burst_size: {BURST}\n  \
             max_concurrent_queries: 1\n  max_outstanding_requests_per_tenant: 1\n"
        ),
        ..ServerOptions::default()
    }) else {
        return;
    };
    let long = Duration::from_secs(if tests::soak() { 60 } else { 4 });
    let begun = Instant::now();
    let (now, over, flood) = (unix_now() * 1000, AtomicBool::new(false), Flood::default());
    let is_over = || over.load(Ordering::Relaxed);
    let note = |refused: &AtomicU64, answer: &Response| match answer.status {
        200 => {}
        429 => {
            refused.fetch_add(1, Ordering::Relaxed);
        }
        // The state of the node may also be why; of the one that floods, never of the others.
        503 => {
            flood.unavailable.fetch_add(1, Ordering::Relaxed);
        }
        other => panic!("the flood was answered {other}: {}", answer.text()),
    };
    let (writes, queries) = std::thread::scope(|scope| {
        for connection in 0..4 {
            let (server, flood) = (&server, &flood);
            scope.spawn(move || {
                for n in 0.. {
                    if is_over() {
                        return;
                    }
                    let answer = write(server, "flood", 500, now + connection * 10_000 + n);
                    flood.samples.fetch_add(500, Ordering::Relaxed);
                    note(&flood.writes_refused, &answer);
                }
            });
        }
        // Two of them may be there at once: one at work and one that waits.
        for connection in 0..40 {
            let (server, flood) = (&server, &flood);
            scope.spawn(move || {
                for n in 0.. {
                    if is_over() {
                        return;
                    }
                    let time = now as f64 / 1000.0 + f64::from(connection) + f64::from(n) / 1000.0;
                    let answer = ask(server, "flood", QUERY, time);
                    flood.queries.fetch_add(1, Ordering::Relaxed);
                    note(&flood.queries_refused, &answer);
                }
            });
        }
        let others: Vec<_> = (0..THREADS)
            .map(|thread| {
                let server = &server;
                scope.spawn(move || {
                    let (mut writes, mut queries, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
                    for round in 0.. {
                        for n in 0..QUIET / THREADS {
                            let tenant = format!("quiet-{thread}-{n}");
                            let begin = Instant::now();
                            // Far below its rate, however fast this goes round.
                            let answer = write(server, &tenant, 2, now + round);
                            writes.push(begin.elapsed());
                            let begin = Instant::now();
                            let found =
                                ask(server, &tenant, "count(flood)", now as f64 / 1000.0 + 60.0);
                            queries.push(begin.elapsed());
                            for answer in [answer, found] {
                                if answer.status != 200 {
                                    wrong.push((tenant.clone(), answer.status, answer.text()));
                                }
                            }
                        }
                        if is_over() {
                            return (writes, queries, wrong);
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    unreachable!("rounds do not run out")
                })
            })
            .collect();
        // Until it has lasted, and the flood is what it is to be: by count, since the machine may be slow.
        let allowed = || BURST + RATE * begun.elapsed().as_secs();
        let is_flood = || {
            flood.samples.load(Ordering::Relaxed) > 20 * allowed()
                && flood.queries_refused.load(Ordering::Relaxed) > 20
        };
        let patience = Instant::now() + long + Duration::from_secs(60);
        while (begun.elapsed() < long || !is_flood()) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        let (mut writes, mut queries) = (Vec::new(), Vec::new());
        for other in others {
            let (w, q, wrong) = other.join().unwrap();
            assert!(
                wrong.is_empty(),
                "{} of others failed: {:?}",
                wrong.len(),
                &wrong[0]
            );
            writes.extend(w);
            queries.extend(q);
        }
        (writes, queries)
    });
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (samples, refused) = (of(&flood.samples), of(&flood.writes_refused));
    eprintln!(
        "flood: {samples} samples, {refused} writes refused; {} queries, {} refused; {} answered 503; others: {} writes, p99 {:?}; {} queries, p99 {:?}",
        of(&flood.queries),
        of(&flood.queries_refused),
        of(&flood.unavailable),
        writes.len(),
        p99(writes.clone()),
        queries.len(),
        p99(queries.clone()),
    );
    let allowed = BURST + RATE * begun.elapsed().as_secs().max(1);
    assert!(samples > 10 * allowed, "{samples} samples are no flood");
    assert!(refused > 0 && of(&flood.queries_refused) > 20);
    // What it may it still can; what the state of the node refused is not told apart here.
    if of(&flood.unavailable) == 0 {
        let stored = samples - 500 * refused;
        assert!(stored >= BURST, "{stored} samples of the flood were taken");
    }
}
