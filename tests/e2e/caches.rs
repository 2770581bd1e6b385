//! Caches in a real memcached: shared by processes, and killed, stopped, flushed and started anew while queries run: no answer is another.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use tests::{
    Child, Cluster, Server, ServerOptions, chance, component, encode_form, free_port, unix_now,
    wait_until,
};

use super::bucket;
use super::queries::metric;
use super::series::{One, body, push};
use super::srv::{effective_user, resolver};

const PATIENCE: Duration = Duration::from_secs(60);

/// A memcached, with what it takes to start it again.
pub(super) struct Memcached {
    pub(super) child: Child,
    program: PathBuf,
    log: PathBuf,
    pub(super) port: u16,
}

impl Memcached {
    pub(super) fn start(folder: &Path) -> Option<Memcached> {
        let program = component("memcached")?;
        let (log, port) = (folder.join("memcached.log"), free_port());
        let child = Memcached::spawn(&program, &log, port);
        let memcached = Memcached {
            child,
            program,
            log,
            port,
        };
        memcached.wait();
        Some(memcached)
    }

    fn spawn(program: &Path, log: &Path, port: u16) -> Child {
        let port = port.to_string();
        let args = [
            "-u",
            "nobody",
            "-l",
            "127.0.0.1",
            "-U",
            "0",
            "-m",
            "64",
            "-p",
            &port,
        ];
        Child::start(Command::new(program).args(args), log)
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn wait(&self) {
        wait_until("memcached", PATIENCE, || self.connect().is_ok());
    }

    fn restart(&mut self) {
        self.child.kill();
        self.child = Memcached::spawn(&self.program, &self.log, self.port);
        self.wait();
    }

    fn flush(&self) {
        let mut stream = self.connect().expect("it answers");
        stream.write_all(b"flush_all\r\nquit\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "OK\r\n");
    }

    /// A number that it tells of itself.
    fn stat(&self, name: &str) -> u64 {
        let mut stream = self.connect().expect("it answers");
        stream.write_all(b"stats\r\nquit\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        let prefix = format!("STAT {name} ");
        let line = said.lines().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|n| n.parse().ok()).expect(name)
    }

    fn results(&self) -> String {
        let more = "compression: snappy";
        format!(
            "query_range:\n  results_cache:\n    {more}\n    cache:\n      memcached_client:\n        addresses: dns+127.0.0.1:{}\n        timeout: 500ms\n        circuit_breaker_timeout: 2s\n",
            self.port
        )
    }
}

/// The matrix of a range query, with or without what is kept.
fn ask(server: &Server, query: &str, (start, end, step): (i64, i64, i64), uncached: bool) -> Value {
    let second = |ms: i64| (ms as f64 / 1000.0).to_string();
    let params = [
        ("query", query),
        ("start", &second(start)),
        ("end", &second(end)),
        ("step", &second(step)),
    ];
    let path = format!("/api/v1/query_range?{}", encode_form(&params));
    let headers: &[(&str, &str)] = match uncached {
        true => &[("Cache-Control", "no-store")],
        false => &[],
    };
    let response = server.api(None).get_with(&path, headers);
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    response.json()["data"]["result"].clone()
}

/// One sample of `m` of a series.
fn sample(server: &Server, series: usize, time: i64, value: f64) {
    let series = series.to_string();
    let labels = [("__name__", "m"), ("i", series.as_str())];
    let one: One<'_> = (&labels, time, value);
    let pushed = push(server, None, &body(&[one]));
    assert_eq!(pushed.status, 200, "{}", pushed.text());
}

const STEP: i64 = 10_000;

#[test]
fn what_one_querier_has_evaluated_another_finds_in_memcached() {
    let folder = tempfile::tempdir().unwrap();
    let Some(memcached) = Memcached::start(folder.path()) else {
        return;
    };
    let Some(cluster) = Cluster::start(&memcached.results(), 2, 2) else {
        return;
    };
    let [first, second] = &cluster.queriers[..] else {
        panic!("two were started");
    };
    let now = unix_now() * 1000 / STEP * STEP;
    let start = now - 3_600_000;
    for i in 0..60 {
        for series in 0..10 {
            sample(
                &cluster.distributor,
                series,
                start + i * 60_000,
                (i * 7 % 13) as f64,
            );
        }
    }
    let range = (start, now - 600_000, STEP);
    let asked = |server: &Server| ask(server, "sum by (i) (max_over_time(m[2m]))", range, false);
    let evaluated =
        |server: &Server| metric(server, "myelin_query_steps_total{from=\"evaluated\"}");
    let answer = asked(first);
    assert_eq!(answer.as_array().map(Vec::len), Some(10));
    let steps = evaluated(first);
    assert_eq!(steps, 301.0);
    // Kept here, although the series are elsewhere.
    assert_eq!(asked(first), answer);
    assert_eq!(evaluated(first), steps);
    wait_until("it to be written", PATIENCE, || {
        memcached.stat("curr_items") > 0
    });
    assert_eq!(asked(second), answer);
    assert_eq!(evaluated(second), 0.0, "all of it was there");
    assert!(
        metric(
            second,
            "cortex_cache_hits_total{name=\"frontend.memcached\"}"
        ) > 0.0
    );
    assert_eq!(
        metric(
            second,
            "cortex_memcache_client_servers{name=\"frontend.memcached\"}"
        ),
        1.0
    );
    // Late samples at one of the ingesters are known to both.
    sample(&cluster.distributor, 99, now - 1_800_000, 1e6);
    for server in [second, first] {
        let fresh = ask(server, "sum by (i) (max_over_time(m[2m]))", range, true);
        assert_eq!(asked(server), fresh);
        assert_ne!(fresh, answer);
    }
    assert!(evaluated(second) < steps, "what is before it is still true");
}

/// While somebody writes, also late, and somebody else does to memcached what happens to it.
#[test]
fn no_answer_depends_on_what_becomes_of_memcached() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut memcached) = Memcached::start(folder.path()) else {
        return;
    };
    let Some(cluster) = Cluster::start(&memcached.results(), 2, 2) else {
        return;
    };
    let now = unix_now() * 1000 / STEP * STEP;
    let start = now - 7_200_000;
    for i in 0..120 {
        for series in 0..5 {
            sample(
                &cluster.distributor,
                series,
                start + i * 60_000,
                (i * 7 % 13) as f64,
            );
        }
    }
    let queries = ["m", "sum(rate(m[5m]))", "max by (i) (m)"];
    let ended = AtomicBool::new(false);
    let distributor = &cluster.distributor;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = chance();
            // New series, so that each may begin at any time.
            for series in 100.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let time = start + rng.random_range(3_000_000..7_000_000);
                sample(distributor, series, time, rng.random_range(0..100).into());
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        let mut rng = chance();
        let mut compared = 0;
        for round in 0..60 {
            match round % 12 {
                2 => memcached.flush(),
                4 => memcached.child.signal(19),
                6 => memcached.child.signal(18),
                8 => memcached.child.kill(),
                10 => memcached.restart(),
                _ => {}
            }
            let query = queries.choose(&mut rng).unwrap();
            let from = start + rng.random_range(0..400) * STEP;
            let range = (from, from + rng.random_range(10..300) * STEP, STEP);
            // Nothing may have been written between the two: then they are asked again.
            for _ in 0..20 {
                let querier = cluster.queriers.choose(&mut rng).unwrap();
                let before = ask(querier, query, range, true);
                let kept = ask(querier, query, range, false);
                let after = ask(querier, query, range, true);
                if before == after {
                    assert_eq!(kept, after, "round {round}: {query} {range:?}");
                    compared += 1;
                    break;
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
        assert!(compared > 40, "{compared}");
    });
    let sum = |name: &str| {
        let of_each = cluster.queriers.iter().map(|querier| metric(querier, name));
        of_each.sum::<f64>()
    };
    let failures = sum("thanos_memcached_operation_failures_total");
    assert!(failures > 0.0, "nobody has noticed");
    // It is there again, and used: what one evaluates the other finds.
    let hits = || sum("cortex_cache_hits_total{name=\"frontend.memcached\"}");
    let (before, mut asked) = (hits(), 0);
    wait_until("memcached to be used again", PATIENCE, || {
        asked += 1;
        let (query, range) = (format!("m + {asked}"), (start, start + 3_000_000, STEP));
        let [first, second] = [0, 1].map(|at| ask(&cluster.queriers[at], &query, range, false));
        assert_eq!(first, second);
        hits() > before
    });
    println!("{failures} failures; used again after {asked} queries");
    assert_eq!(sum("myelin_cache_unsound_values_total"), 0.0);
}

/// An address of the loopback network that no resolver of a system uses, nor the other tests.
const RESOLVER: &str = "127.7.53.54";

/// The records of a real dnsmasq change while the node runs: it leaves one server and goes to the others.
#[test]
fn servers_are_followed_by_their_records() {
    let (Some(dnsmasq), Some(unshare)) = (component("dnsmasq"), component("unshare")) else {
        return;
    };
    if effective_user() != 0 {
        tests::missing("root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let started = [(); 3].map(|()| Memcached::start(folder.path()));
    let [Some(first), Some(second), Some(third)] = started else {
        return;
    };
    const NAME: &str = "_memcached._tcp.cache.myelin.test";
    let ports = [&first, &second, &third].map(|memcached| memcached.port.to_string());
    let resolv = folder.path().join("resolv.conf");
    std::fs::write(
        &resolv,
        format!("nameserver {RESOLVER}\noptions timeout:1 attempts:1\n"),
    )
    .unwrap();
    let mut names = resolver(&dnsmasq, folder.path(), RESOLVER, &[(NAME, &ports[0])]);
    let mount = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"",
        resolv.display()
    );
    let wrapper = [&*unshare.to_string_lossy(), "--mount", "sh", "-c", &mount];
    let args = [
        "-frontend.memcached.hostname=cache.myelin.test",
        "-frontend.memcached.timeout=1s",
        "-frontend.memcached.update-interval=200ms",
    ];
    let Some(mut server) = Server::spawn(ServerOptions {
        args: args.map(str::to_owned).to_vec(),
        wrapper: wrapper.map(str::to_owned).to_vec(),
        ..ServerOptions::default()
    }) else {
        return;
    };
    server.wait_ready();
    let now = unix_now() * 1000 / STEP * STEP;
    for i in 0..60 {
        sample(&server, 0, now - (60 - i) * 60_000, 1.0);
    }
    // Each another query, and so another key.
    let mut asked = 0;
    let mut write_until = |what: &str, is_so: &dyn Fn() -> bool| {
        wait_until(what, PATIENCE, || {
            asked += 1;
            let range = (now - 3_000_000, now - 600_000, STEP);
            ask(&server, &format!("m + {asked}"), range, false);
            is_so()
        });
    };
    let items = |memcached: &Memcached| memcached.stat("curr_items");
    write_until("the first to be found", &|| items(&first) > 0);
    assert_eq!(
        (items(&second), items(&third)),
        (0, 0),
        "nobody has told of them"
    );
    names.kill();
    let services = [(NAME, &*ports[1]), (NAME, &*ports[2])];
    let _names = resolver(&dnsmasq, folder.path(), RESOLVER, &services);
    write_until("the others to be found", &|| {
        items(&second) > 0 && items(&third) > 0
    });
    let servers = "cortex_memcache_client_servers{name=\"frontend.memcached\"}";
    wait_until("the first to be left", PATIENCE, || {
        metric(&server, servers) == 2.0
    });
}

/// What a query of two hours costs the bucket: nothing known; with what the process has kept; in a new process, with what memcached has kept.
#[test]
fn blocks_of_the_bucket_are_read_from_memcached_and_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(mut memcached), Some(store)) = (
        Memcached::start(folder.path()),
        bucket::Store::start(folder.path(), free_port()),
    ) else {
        return;
    };
    let mut args = bucket::args(store.port);
    args.push("-blocks-storage.bucket-store.index-header-max-size=0".to_owned());
    args.push("-querier.cache-results=false".to_owned());
    for cache in ["index-cache", "chunks-cache"] {
        let prefix = format!("-blocks-storage.bucket-store.{cache}");
        args.push(format!("{prefix}.backend=inmemory,memcached"));
        args.push(format!(
            "{prefix}.memcached.addresses=127.0.0.1:{}",
            memcached.port
        ));
        args.push(format!("{prefix}.memcached.timeout=1s"));
    }
    let options = ServerOptions {
        args,
        ..ServerOptions::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let start = bucket::beginning();
    for i in 0..bucket::SCRAPES {
        bucket::scrape(&server, start + i * bucket::SCRAPE);
    }
    let before = bucket::answers(&server, start);
    bucket::flush(&server);
    bucket::wait_for_the_disk_to_be_free(&server);
    let requests = |server: &Server| {
        let time = (start / 1000 + 7200).to_string();
        let query = "sum(sum_over_time(requests_total[2h]))";
        let params = [("query", query), ("time", &time), ("stats", "true")];
        let data = server.api(None).data("/api/v1/query", &params);
        let requests = data["stats"]["bucket"]["requests"].as_u64();
        (data["result"].clone(), requests.unwrap_or(0))
    };
    let (answer, cold) = requests(&server);
    let (again, warm) = requests(&server);
    assert_eq!(again, answer);
    assert_eq!(bucket::answers(&server, start), before, "through caches");
    let written = || metric(&server, "cortex_cache_background_queue_length");
    wait_until("it to be written", PATIENCE, || written() == 0.0);
    let items = memcached.stat("curr_items");
    server.stop();
    server.restart();
    let (again, shared) = requests(&server);
    assert_eq!(again, answer);
    println!(
        "requests to the bucket: {cold} cold, {warm} warm in process, {shared} warm from memcached ({items} items)"
    );
    assert!(cold > 0 && items > 0);
    assert_eq!((warm, shared), (0, 0));
    assert_eq!(bucket::answers(&server, start), before, "from memcached");
    // A new process, and nobody there to ask; then one who takes and never answers.
    for what in ["killed", "stopped"] {
        match what {
            "killed" => memcached.child.kill(),
            _ => {
                memcached.restart();
                memcached.child.signal(19);
            }
        }
        server.stop();
        server.restart();
        let (again, alone) = requests(&server);
        assert_eq!(again, answer, "memcached {what}");
        assert_eq!(alone, cold, "memcached {what}");
        assert_eq!(bucket::answers(&server, start), before, "memcached {what}");
    }
}
