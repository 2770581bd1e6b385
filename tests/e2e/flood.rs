//! Fifty tenants, of which one writes and asks twenty times what it may: it is answered 429, and no request of the others is refused.
//!
//! Under `make soak` the others are measured before the flood and during it, and the flood keeps to its twenty times: then it is told by how much it makes
//! the 99th percentile of the others grow. Clients and server share the machine: those that flood give way to everybody, so that what they take of the CPU is not held
//! against the server. What they still take (a system call is not interrupted, caches are shared) makes it an upper bound.

use std::process::Command;
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
    match all.is_empty() {
        true => Duration::ZERO,
        false => all[all.len() * 99 / 100],
    }
}

/// Times of the others' writes and queries.
#[derive(Default)]
struct Times {
    writes: Vec<Duration>,
    queries: Vec<Duration>,
}

impl Times {
    fn append(&mut self, mut other: Times) {
        self.writes.append(&mut other.writes);
        self.queries.append(&mut other.queries);
    }

    fn shown(&self) -> String {
        format!(
            "{} writes, p99 {:?}; {} queries, p99 {:?}",
            self.writes.len(),
            p99(self.writes.clone()),
            self.queries.len(),
            p99(self.queries.clone())
        )
    }
}

/// How long the others are alone first, how long the flood lasts, and how long they and it wait between two requests.
struct Form {
    calm: Duration,
    flood: Duration,
    /// From one write and one query of each of the others to the next.
    pause: Duration,
    /// Of one of four connections that write 500 samples each time, and of one of forty that ask.
    pace: [Duration; 2],
}

impl Form {
    fn now() -> Form {
        match tests::soak() {
            // 20,000 samples a second, and four hundred queries where two may be there at once.
            true => Form {
                calm: Duration::from_secs(75),
                flood: Duration::from_secs(150),
                // So that the machine has time for them, and a little for the flood: where it had none before, everything new takes of theirs.
                pause: Duration::from_millis(250),
                pace: [Duration::from_millis(100); 2],
            },
            false => Form {
                calm: Duration::ZERO,
                flood: Duration::from_secs(4),
                pause: Duration::from_millis(20),
                pace: [Duration::ZERO; 2],
            },
        }
    }
}

/// The calling thread gets what nobody else wants, as if it were on another machine. Being nice is not enough: query workers are nice too.
fn give_way() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let chrt = Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread])
        .output();
    match chrt {
        Ok(done) if done.status.success() => {}
        failed => eprintln!("flood: the clients that flood take CPU of the others: {failed:?}"),
    }
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
    let form = Form::now();
    let (now, over, flood) = (unix_now() * 1000, AtomicBool::new(false), Flood::default());
    let is_over = || over.load(Ordering::Relaxed);
    let flooded = AtomicBool::new(form.calm.is_zero());
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
    let (calm, during, begun) = std::thread::scope(|scope| {
        let others: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (server, flooded, pause) = (&server, &flooded, form.pause);
                scope.spawn(move || {
                    // Not all at the same moment.
                    std::thread::sleep(pause * thread as u32 / THREADS as u32);
                    let (mut calm, mut during) = (Times::default(), Times::default());
                    let mut wrong = Vec::new();
                    for round in 0.. {
                        for n in 0..QUIET / THREADS {
                            let tenant = format!("quiet-{thread}-{n}");
                            let times = match flooded.load(Ordering::Relaxed) {
                                false => &mut calm,
                                true => &mut during,
                            };
                            let begin = Instant::now();
                            // Far below its rate, however fast this goes round.
                            let answer = write(server, &tenant, 2, now + round);
                            times.writes.push(begin.elapsed());
                            let begin = Instant::now();
                            let found =
                                ask(server, &tenant, "count(flood)", now as f64 / 1000.0 + 60.0);
                            times.queries.push(begin.elapsed());
                            for answer in [answer, found] {
                                if answer.status != 200 {
                                    wrong.push((tenant.clone(), answer.status, answer.text()));
                                }
                            }
                        }
                        if is_over() {
                            return (calm, during, wrong);
                        }
                        std::thread::sleep(pause);
                    }
                    unreachable!("rounds do not run out")
                })
            })
            .collect();
        std::thread::sleep(form.calm);
        flooded.store(true, Ordering::Relaxed);
        let (begun, [write_pace, query_pace]) = (Instant::now(), form.pace);
        for connection in 0..4 {
            let (server, flood) = (&server, &flood);
            scope.spawn(move || {
                give_way();
                for n in 0.. {
                    if is_over() {
                        return;
                    }
                    let answer = write(server, "flood", 500, now + connection * 10_000 + n);
                    flood.samples.fetch_add(500, Ordering::Relaxed);
                    note(&flood.writes_refused, &answer);
                    std::thread::sleep(write_pace);
                }
            });
        }
        // Two of them may be there at once: one at work and one that waits.
        for connection in 0..40 {
            let (server, flood) = (&server, &flood);
            scope.spawn(move || {
                give_way();
                for n in 0.. {
                    if is_over() {
                        return;
                    }
                    let time = now as f64 / 1000.0 + f64::from(connection) + f64::from(n) / 1000.0;
                    let answer = ask(server, "flood", QUERY, time);
                    flood.queries.fetch_add(1, Ordering::Relaxed);
                    note(&flood.queries_refused, &answer);
                    std::thread::sleep(query_pace);
                }
            });
        }
        // Until it has lasted, and the flood is what it is to be: by count, since the machine may be slow.
        let allowed = || BURST + RATE * begun.elapsed().as_secs();
        let is_flood = || {
            let is_paced = !form.calm.is_zero();
            let enough = is_paced || flood.samples.load(Ordering::Relaxed) > 20 * allowed();
            enough && flood.queries_refused.load(Ordering::Relaxed) > 20
        };
        let patience = Instant::now() + form.flood + Duration::from_secs(60);
        while (begun.elapsed() < form.flood || !is_flood()) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        let (mut calm, mut during) = (Times::default(), Times::default());
        for other in others {
            let (c, d, wrong) = other.join().unwrap();
            assert!(
                wrong.is_empty(),
                "{} of others failed: {:?}",
                wrong.len(),
                &wrong[0]
            );
            calm.append(c);
            during.append(d);
        }
        (calm, during, begun)
    });
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (samples, refused) = (of(&flood.samples), of(&flood.writes_refused));
    eprintln!(
        "flood: {samples} samples, {refused} writes refused; {} queries, {} refused; {} answered 503; others before: {}; during: {}",
        of(&flood.queries),
        of(&flood.queries_refused),
        of(&flood.unavailable),
        calm.shown(),
        during.shown(),
    );
    if !form.calm.is_zero() {
        let growth = |before: &[Duration], during: &[Duration]| {
            p99(during.to_vec()).as_secs_f64() / p99(before.to_vec()).as_secs_f64() - 1.0
        };
        eprintln!(
            "p99 of the others grew by {:.0} % for writes and {:.0} % for queries",
            100.0 * growth(&calm.writes, &during.writes),
            100.0 * growth(&calm.queries, &during.queries),
        );
    }
    let allowed = BURST + RATE * begun.elapsed().as_secs().max(1);
    assert!(samples > 10 * allowed, "{samples} samples are no flood");
    assert!(refused > 0 && of(&flood.queries_refused) > 20);
    // What it may it still can; what the state of the node refused is not told apart here.
    if of(&flood.unavailable) == 0 {
        let stored = samples - 500 * refused;
        assert!(stored >= BURST, "{stored} samples of the flood were taken");
    }
}
