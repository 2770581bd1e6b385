//! `-memory.limit`: more series than fit end in 503s and a live server, before and after a kill.

use tests::{Server, ServerOptions, rss_bytes, unix_now};

use super::series::{body, push};

const LIMIT: u64 = 160 << 20;

/// Samples at `time` of the series `from..from + count`, ten bytes of pod name each.
fn some(from: usize, count: usize, time: i64) -> Vec<u8> {
    let pods: Vec<String> = (from..from + count)
        .map(|i| format!("pod-{i:08}"))
        .collect();
    let labels: Vec<_> = pods
        .iter()
        .map(|pod| [("__name__", "flood"), ("job", "j"), ("pod", pod.as_str())])
        .collect();
    let series: Vec<_> = labels.iter().map(|l| (&l[..], time, 1.0)).collect();
    body(&series)
}

/// Pushes new series until the server refuses; returns the next number.
fn flood(server: &mut Server, mut next: usize, time: i64) -> usize {
    for _ in 0..2000 {
        let answer = push(server, None, &some(next, 5000, time));
        next += 5000;
        match answer.status {
            200 => {}
            503 => {
                assert!(answer.header("retry-after").is_some());
                assert!(answer.text().contains("memory limit"), "{}", answer.text());
                return next;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    panic!(
        "{next} series were taken with {} bytes",
        rss_bytes(server.child().pid())
    );
}

#[test]
fn more_series_than_fit_end_in_503s_and_a_live_server_also_after_a_kill() {
    let args = ["-memory.limit=160MiB", "-cores=1"];
    let options = ServerOptions {
        args: args.map(str::to_owned).into(),
        ..ServerOptions::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let now = unix_now() * 1000;
    let mut time = now - 120_000;
    let mut next = 0;
    for life in 0..2 {
        time += 10_000;
        next = flood(&mut server, next, time);
        assert!(next > 100_000, "refused after {next} series");
        // Known series go on, alone and beside new ones.
        time += 10_000;
        let answer = push(&server, None, &some(0, 1000, time));
        assert_eq!(answer.status, 200, "{}", answer.text());
        time += 10_000;
        let mut mixed = some(0, 10, time);
        mixed.extend(some(next, 10, time));
        assert_eq!(push(&server, None, &mixed).status, 503);
        let mut fresh_tenant = 0;
        for _ in 0..20 {
            fresh_tenant +=
                u32::from(push(&server, Some("fake"), &some(next, 10, time)).status == 503);
        }
        assert_eq!(fresh_tenant, 20, "a refusal is no accident");
        let api = server.api(None);
        let at = time as f64 / 1000.0;
        let known = "count_over_time(flood{pod=\"pod-00000003\"}[5m])";
        let samples = 3 + 2 * life;
        assert_eq!(api.query(known, at)[0]["value"][1], samples.to_string());
        let unknown = format!("flood{{pod=\"pod-{next:08}\"}}");
        assert_eq!(api.query(&unknown, at).as_array().map(Vec::len), Some(0));
        let large = api.get("/api/v1/query", &[("query", "sum(flood)")]);
        assert_eq!(large.status, 503, "{}", large.text());
        let rss = rss_bytes(server.child().pid());
        assert!(rss < LIMIT, "life {life}: {rss} bytes of {LIMIT}");
        let metrics = server.admin().get("/metrics", &[]).text();
        assert!(metrics.contains("myelin_memory_tight 1"), "life {life}");
        if life == 0 {
            server.kill();
            server.restart();
        }
    }
}
