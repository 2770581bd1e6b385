//! The server over real sockets, before the log is replayed: what is refused, who is waited for and for how long, how it stops.

use std::io::{Read, Write};
use std::net::TcpStream as Client;

use prometheus::Registry;

use super::*;
use crate::state::tests::options;
use crate::state::{Options, Phase as NodePhase};

fn start(options: Options) -> (Server, Arc<Gateway>) {
    let gateway = Arc::new(Gateway::new(options, &Registry::new()));
    let server = Server::start(gateway.clone(), "127.0.0.1:0".parse().unwrap()).unwrap();
    (server, gateway)
}

fn connect(server: &Server) -> Client {
    let client = Client::connect(server.address()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client
}

/// Sends a request that closes the connection, and returns the whole answer.
fn ask(server: &Server, head: &str, body: &str) -> String {
    let mut client = connect(server);
    let length = body.len();
    write!(
        client,
        "{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

fn get(server: &Server, path: &str) -> String {
    ask(
        server,
        &format!("GET {path} HTTP/1.1\r\nX-Scope-OrgID: a"),
        "",
    )
}

#[test]
fn while_the_log_is_replayed_probes_and_clients_are_told_so() {
    let (server, gateway) = start(options());
    gateway.set_phase(NodePhase::Replaying(42));
    assert!(get(&server, "/-/healthy").starts_with("HTTP/1.1 200"));
    let ready = get(&server, "/ready");
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("42 %"),
        "{ready}"
    );
    let query = get(&server, "/prometheus/api/v1/query?query=1");
    assert!(
        query.starts_with("HTTP/1.1 503") && query.contains("retry-after: 2"),
        "{query}"
    );
    assert!(query.contains("\"errorType\":\"unavailable\""), "{query}");
    let push = ask(
        &server,
        "POST /api/v1/push HTTP/1.1\r\nX-Scope-OrgID: a",
        "x",
    );
    assert!(
        push.starts_with("HTTP/1.1 503") && push.contains("retry-after: 2"),
        "{push}"
    );
    server.stop(Duration::from_secs(1));
}

#[test]
fn tenants_methods_and_paths_are_checked_before_anything_else() {
    let (server, _) = start(options());
    let without = ask(&server, "GET /prometheus/api/v1/labels HTTP/1.1", "");
    assert!(
        without.starts_with("HTTP/1.1 401") && without.ends_with("no org id"),
        "{without}"
    );
    let bad = ask(
        &server,
        "GET /prometheus/api/v1/labels HTTP/1.1\r\nX-Scope-OrgID: a/b",
        "",
    );
    assert!(
        bad.starts_with("HTTP/1.1 400") && bad.contains("\"errorType\":\"bad_data\""),
        "{bad}"
    );
    // Exemplars of long queries are asked for with a form, as everything else of the query API; it took GET alone.
    let exemplars = "POST /prometheus/api/v1/query_exemplars HTTP/1.1\r\nX-Scope-OrgID: a\r\nContent-Type: application/x-www-form-urlencoded";
    let exemplars = ask(&server, exemplars, "query=up&start=1&end=2");
    assert!(
        exemplars.starts_with("HTTP/1.1 503") && exemplars.contains("unavailable"),
        "not before the log is replayed: {exemplars}"
    );
    let put = ask(
        &server,
        "PUT /prometheus/api/v1/query HTTP/1.1\r\nX-Scope-OrgID: a",
        "",
    );
    assert!(
        put.starts_with("HTTP/1.1 405") && put.contains("allow: GET, HEAD, POST"),
        "{put}"
    );
    assert!(put.contains("\"status\":\"error\""), "{put}");
    let nope = get(&server, "/prometheus/api/v1/nope");
    assert!(
        nope.starts_with("HTTP/1.1 404") && nope.contains("not_found"),
        "{nope}"
    );
    assert!(get(&server, "/nope").starts_with("HTTP/1.1 404"));
    let options = "OPTIONS /prometheus/api/v1/queries/7 HTTP/1.1";
    let options = ask(&server, options, "");
    assert!(
        options.starts_with("HTTP/1.1 204") && options.contains("allow: DELETE, POST"),
        "{options}"
    );
    // A page asks from its browser: both the question beforehand and the answer have to allow it.
    for method in ["OPTIONS", "GET"] {
        let line = format!("{method} /prometheus/api/v1/labels HTTP/1.1\r\nX-Scope-OrgID: a");
        let plain = ask(&server, &line, "");
        assert!(!plain.contains("access-control"), "{plain}");
        let shared = ask(&server, &format!("{line}\r\nOrigin: http://x"), "");
        let allowed = "access-control-allow-origin: *";
        assert!(
            shared.contains(allowed) && shared.contains("vary: Origin"),
            "{shared}"
        );
    }
    let long = format!("query={}", "x".repeat(2000));
    let form = "POST /prometheus/api/v1/query HTTP/1.1\r\nX-Scope-OrgID: a\r\nContent-Type: application/x-www-form-urlencoded";
    assert!(ask(&server, form, &long).starts_with("HTTP/1.1 413"));
    server.stop(Duration::from_secs(1));
}

#[test]
fn pages_of_other_origins_than_the_configured_ones_may_not_read_answers() {
    let (server, _gateway) = start(Options {
        cors_origin: crate::CorsOrigin::new(r"https?://(a|b)\.com").unwrap(),
        ..options()
    });
    for method in ["OPTIONS", "GET"] {
        let line = format!("{method} /prometheus/api/v1/labels HTTP/1.1\r\nX-Scope-OrgID: a");
        for (origin, fits) in [
            ("https://b.com", true),
            ("http://a.com", true),
            ("http://c.com", false),
            ("http://a.com.evil.com", false),
            ("xhttp://a.com", false),
        ] {
            let answer = ask(&server, &format!("{line}\r\nOrigin: {origin}"), "");
            let allowed = format!("access-control-allow-origin: {origin}\r\n");
            assert_eq!(answer.contains(&allowed), fits, "{origin}: {answer}");
            assert_eq!(answer.contains("allow-origin"), fits, "{origin}: {answer}");
            assert!(answer.contains("access-control-allow-methods: GET, POST, OPTIONS"));
            assert!(answer.contains("vary: Origin"), "{answer}");
        }
    }
    assert!(crate::CorsOrigin::new("(").is_err());
    server.stop(Duration::from_secs(1));
}

/// Story: a sender of version 2 that finds none of these headers takes its receiver for one of version 1 that has stored everything.
#[test]
fn a_push_of_version_2_that_is_refused_at_the_door_is_told_that_nothing_is_written() {
    let (server, _) = start(options());
    let push = "POST /api/v1/push HTTP/1.1\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf";
    for (tenant, status) in [("a|b", 400), ("a/b", 400), ("a", 503)] {
        let line = format!("{push}\r\nX-Scope-OrgID: {tenant}");
        let second = line.replace("protobuf", "protobuf;proto=io.prometheus.write.v2.Request");
        let (first, second) = (ask(&server, &line, "x"), ask(&server, &second, "x"));
        let status = format!("HTTP/1.1 {status}");
        assert!(first.starts_with(&status), "{first}");
        assert!(second.starts_with(&status), "{second}");
        assert!(!first.contains("x-prometheus-remote-write"), "{first}");
        for what in ["samples", "histograms", "exemplars"] {
            let header = format!("x-prometheus-remote-write-{what}-written: 0\r\n");
            assert!(second.contains(&header), "{second}");
        }
    }
    server.stop(Duration::from_secs(1));
}

#[test]
fn clients_that_send_little_or_nothing_are_hung_up_on_and_others_are_served() {
    let (server, _) = start(options());
    let begin = Instant::now();
    let silent = connect(&server);
    let mut slow: Vec<Client> = (0..40).map(|_| connect(&server)).collect();
    let mut open = vec![true; slow.len()];
    while begin.elapsed() < Duration::from_millis(600) {
        for (client, open) in slow.iter_mut().zip(&mut open) {
            *open = *open && client.write_all(b"G").is_ok();
        }
        assert!(get(&server, "/-/healthy").starts_with("HTTP/1.1 200"));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    slow.push(silent);
    for client in &mut slow {
        // The end of the stream, or a reset where bytes were left unread.
        let end = client.read(&mut [0; 16]);
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
    server.stop(Duration::from_secs(1));
}

#[test]
fn a_connection_may_rest_between_requests_for_longer_than_a_request_may_take() {
    let (server, _) = start(options());
    let mut client = connect(&server);
    for _ in 0..2 {
        write!(client, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 17];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK\r\n");
        let mut rest = [0; 512];
        assert!(client.read(&mut rest).unwrap() > 0);
        std::thread::park_timeout(Duration::from_millis(500));
    }
    server.stop(Duration::from_secs(1));
}

/// Story: a client sent its next request into the connection on which a form that was too long had been refused, and had no answer.
#[test]
fn whoever_is_answered_before_all_was_read_is_told_that_the_connection_ends() {
    let (server, _) = start(options());
    let answered = |length: usize| {
        let mut client = connect(&server);
        let body = format!("query={}", "x".repeat(length));
        write!(
            client,
            "POST /prometheus/api/v1/query HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: a\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{}",
            body.len(),
            &body[..body.len().min(1500)]
        )
        .unwrap();
        let mut answer = vec![0; 4096];
        let length = client.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let refused = answered(100_000);
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    assert!(refused.contains("connection: close"), "{refused}");
    let read = answered(10);
    assert!(read.starts_with("HTTP/1.1 503"), "{read}");
    assert!(!read.contains("connection: close"), "{read}");
    server.stop(Duration::from_secs(1));
}

#[test]
fn a_body_that_does_not_come_is_answered_in_time() {
    let (server, gateway) = start(options());
    gateway.set_phase(NodePhase::Replaying(1));
    let mut client = connect(&server);
    write!(
        client,
        "POST /prometheus/api/v1/query HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: a\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nquery="
    )
    .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("in time"),
        "{answer}"
    );
    server.stop(Duration::from_secs(1));
}

#[test]
fn above_the_maximum_a_connection_waits_until_another_closes() {
    let (server, _) = start(Options {
        connections_max: 1,
        ..options()
    });
    let mut first = connect(&server);
    write!(first, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(first.read(&mut [0; 512]).unwrap() > 0);
    let mut second = connect(&server);
    write!(second, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    second
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(
        second.read(&mut [0; 512]).is_err(),
        "served beyond the maximum"
    );
    drop(first);
    second
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert!(second.read(&mut [0; 512]).unwrap() > 0);
    server.stop(Duration::from_secs(1));
}

/// Story: a connection that had sent nothing yet (browsers and balancers keep some ready), or half a head, was waited for until the
/// grace was over, and so every stop took all of it.
#[test]
fn a_stop_does_not_wait_for_connections_that_never_asked() {
    let (server, _) = start(Options {
        read_timeout: Duration::ZERO,
        ..options()
    });
    let _fresh = connect(&server);
    let mut half = connect(&server);
    half.write_all(b"GET / HT").unwrap();
    assert!(get(&server, "/-/healthy").starts_with("HTTP/1.1 200"));
    std::thread::park_timeout(Duration::from_millis(100));
    let begin = Instant::now();
    server.stop(Duration::from_secs(30));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_stop_ends_idle_connections_at_once_and_stuck_ones_after_the_grace() {
    let (server, _) = start(Options {
        read_timeout: Duration::ZERO,
        ..options()
    });
    let idle = connect(&server);
    let begin = Instant::now();
    let mut stuck = connect(&server);
    stuck.write_all(b"GET / HT").unwrap();
    std::thread::park_timeout(Duration::from_millis(100));
    server.stop(Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(3));
    drop(idle);
}

/// A server over two real cores.
struct OverCores {
    server: Server,
    cores: shard::Cores,
    /// Set: the node says that a log has failed.
    failed: Arc<std::sync::atomic::AtomicBool>,
    _dir: tempfile::TempDir,
}

impl OverCores {
    fn start() -> OverCores {
        let dir = tempfile::tempdir().unwrap();
        let cpus = shard::topology::cores(Some(2), None).expect("a CPU to pin to");
        let cores = shard::Cores::start(shard::Options::new(dir.path(), cpus), |_| {}).unwrap();
        let (server, gateway) = start(options());
        let registry = Registry::new();
        let overrides = Arc::new(crate::overrides::Overrides::new(
            model::TenantLimits::unlimited(),
        ));
        let metadata = Arc::new(crate::metadata::MetadataStore::default());
        let push = crate::push::PushService::new(
            crate::push::PushOptions::default(),
            Arc::new(cores.mailboxes().clone()),
            overrides.clone(),
            metadata.clone(),
            &registry,
            Arc::new(|| 1_700_000_000_000),
        );
        let failed = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = failed.clone();
        gateway.serve(crate::state::Services {
            held: Some(crate::state::Held {
                cores: Arc::new(cores.mailboxes().clone()),
            }),
            peers: None,
            frontend: None,
            at_last_crash: Vec::new(),
            engine: Arc::new(query::Engine::start(
                query::Options::new(1),
                cores.mailboxes().clone(),
                &registry,
            )),
            push: Arc::new(push.unwrap()),
            overrides,
            metadata,
            series: cores.series_counts(),
            compact: Box::new(|| {}),
            health: Box::new(
                move || match seen.load(std::sync::atomic::Ordering::Relaxed) {
                    true => Err("the write-ahead log of core 1 failed: EIO".to_owned()),
                    false => Ok(()),
                },
            ),
        });
        OverCores {
            server,
            cores,
            failed,
            _dir: dir,
        }
    }

    /// Pushes a sample each of 20 series, enough for both cores.
    fn send(&self, time: i64) -> String {
        let mut body = Vec::new();
        for job in 0..20 {
            let job = job.to_string();
            let labels = [("__name__", "up"), ("job", job.as_str())];
            wire::remote_write::encode::put_series(&mut body, labels.into_iter(), &[(time, 1.0)]);
        }
        let body = wire::snappy::pack(&body);
        let mut client = connect(&self.server);
        write!(
            client,
            "POST /api/v1/push HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        client.write_all(&body).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Expects that this many of the series have a sample.
    fn expect_series(&self, count: usize) {
        let query = get(
            &self.server,
            "/prometheus/api/v1/query?query=count(count_over_time(up%5B1h%5D)==1)&time=1700000010",
        );
        assert!(query.starts_with("HTTP/1.1 200"), "{query}");
        assert!(
            query.contains(&format!("\"{count}\"")),
            "what is durable is served: {query}"
        );
    }

    fn stop(self) {
        self.server.stop(Duration::from_secs(1));
        self.cores.stop();
    }
}

/// Regression test: the log of one core failed, and pushes for the others went on being taken. Their sender then believed that the node was
/// well, while every body that touched the failed core was refused for good.
#[test]
fn when_the_log_of_one_core_has_failed_pushes_for_healthy_cores_are_refused_too() {
    let node = OverCores::start();
    assert!(node.send(1_700_000_000_000).starts_with("HTTP/1.1 200"));
    node.failed
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let refused = node.send(1_700_000_001_000);
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after:"),
        "{refused}"
    );
    assert!(refused.ends_with("the write-ahead log of core 1 failed: EIO"));
    node.expect_series(20);
    node.stop();
}

#[test]
fn a_flush_writes_blocks_and_a_shutdown_refuses_writes_and_goes_on_answering() {
    let node = OverCores::start();
    assert!(node.send(1_700_000_000_000).starts_with("HTTP/1.1 200"));
    let get = |path| get(&node.server, path);
    let wrong = get("/flush?wait=perhaps");
    assert!(
        wrong.starts_with("HTTP/1.1 400") && wrong.contains("wait is \"perhaps\""),
        "{wrong}"
    );
    let blocks = || node.cores.mailboxes().blocks().summary();
    assert_eq!(blocks().blocks, 0);
    let wrong = get("/ingester/flush?tenant=a%2Fb");
    assert!(
        wrong.starts_with("HTTP/1.1 400") && wrong.contains("tenant: "),
        "{wrong}"
    );
    let other = get("/ingester/flush?wait=true&tenant=b&tenant=c");
    assert!(other.starts_with("HTTP/1.1 204"), "{other}");
    assert_eq!(blocks().blocks, 0, "it has nothing of them");
    let flushed = get("/ingester/flush?wait=true&tenant=b&tenant=a");
    assert!(flushed.starts_with("HTTP/1.1 204"), "{flushed}");
    assert_eq!(blocks().samples, 20);
    node.expect_series(20);
    assert!(get("/flush").starts_with("HTTP/1.1 204"));
    let ready = get("/ready");
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.ends_with("\r\n\r\nready"),
        "{ready}"
    );
    let down = get("/ingester/shutdown");
    assert!(down.starts_with("HTTP/1.1 204"), "{down}");
    let refused = node.send(1_700_000_001_000);
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("told to shut down"),
        "{refused}"
    );
    let ready = get("/ready");
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("told to shut down"),
        "{ready}"
    );
    node.expect_series(20);
    node.stop();
}
