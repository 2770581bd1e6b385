//! One tenant floods, another writes a little: nobody is pushed out, and nobody is refused without being told to come back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tests::{Api, Server, ServerOptions, rss_bytes, unix_now};

use crate::series::{body, snappy};

const CONNECTIONS: u64 = 32;
const WRITES_OF_B: i64 = 40;

const HEADERS: [(&str, &str); 2] = [
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
];

fn scrape(connection: u64, series: u64, time: i64) -> Vec<u8> {
    let names: Vec<_> = (0..series).map(|i| i.to_string()).collect();
    let connection = connection.to_string();
    let labels: Vec<_> = names
        .iter()
        .map(|i| {
            [
                ("__name__", "flood"),
                ("connection", connection.as_str()),
                ("i", i.as_str()),
                (
                    "pad",
                    "some label text as long as that of a usual series has it, more or less",
                ),
            ]
        })
        .collect();
    let all: Vec<_> = labels.iter().map(|l| (&l[..], time, 1.0)).collect();
    snappy(&body(&all))
}

#[test]
fn a_flood_of_one_tenant_is_shed_and_every_write_of_another_is_stored() {
    let options = ServerOptions {
        config: "auth_enabled: true\n".into(),
        // So little that the flood meets the bound on any machine.
        args: vec![
            "-distributor.max-recv-msg-size=1MiB".into(),
            "-distributor.max-inflight-bytes=2MiB".into(),
            "-distributor.ingestion-rate-limit=1e12".into(),
            "-distributor.ingestion-burst-size=1000000000".into(),
        ],
        ..Default::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let before = rss_bytes(server.child().pid());
    let now = unix_now() * 1000;
    let over = AtomicBool::new(false);
    let [accepted, refused, waited_max] = [(); 3].map(|()| AtomicU64::new(0));
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (server, over, accepted, refused) = (&server, &over, &accepted, &refused);
            scope.spawn(move || {
                let api = Api::new(&server.url(), Some("flood"));
                let mut time = now - 3_600_000;
                while !over.load(Ordering::Relaxed) {
                    time += 1;
                    let body = scrape(connection, 1500, time);
                    // It does not wait as it is told to: that is what makes it a flood.
                    let answer = api.post("/api/v1/push", &HEADERS, &body).unwrap();
                    match answer.status {
                        200 => accepted.fetch_add(1, Ordering::Relaxed),
                        503 => {
                            assert!(answer.header("retry-after").is_some());
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                        other => panic!("{other}: {}", answer.text()),
                    };
                }
            });
        }
        let api = Api::new(&server.url(), Some("quiet"));
        while refused.load(Ordering::Relaxed) < 10 {
            std::thread::yield_now();
        }
        for i in 0..WRITES_OF_B {
            let before = accepted.load(Ordering::Relaxed);
            let body = scrape(0, 100, now - 1_000_000 + i);
            let answer = api.post("/api/v1/push", &HEADERS, &body).unwrap();
            let waited = accepted.load(Ordering::Relaxed) - before;
            waited_max.fetch_max(waited, Ordering::Relaxed);
            if answer.status != 200 {
                over.store(true, Ordering::Relaxed);
                panic!("write {i}: {} {}", answer.status, answer.text());
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let [accepted, refused, waited_max] =
        [accepted, refused, waited_max].map(AtomicU64::into_inner);
    eprintln!(
        "flood: {accepted} accepted, {refused} refused; at most {waited_max} of them went before a write of the other"
    );
    assert!(accepted > 0 && refused > 0);
    // In work at once are two thirds of 2 MiB, a handful of bodies; a write waits for these, not for all that were sent.
    assert!(waited_max < 4 * CONNECTIONS, "{waited_max}");
    let stored = server
        .api(Some("quiet"))
        .query("sum(count_over_time(flood[1h]))", now as f64 / 1000.0);
    assert_eq!(stored[0]["value"][1], (WRITES_OF_B * 100).to_string());
    let grown = rss_bytes(server.child().pid()).saturating_sub(before);
    assert!(grown < 400 << 20, "grew by {} MiB", grown >> 20);
    let metrics = server.admin().get("/metrics", &[]).text();
    let held = "myelin_distributor_inflight_bytes 0";
    assert!(metrics.lines().any(|line| line == held));
}
