//! Blocks in S3, spoken by a real process (moto): they go there, leave the disk, and no answer changes; also when the store is out or the node is
//! killed in the middle.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tests::{Child, Server, ServerOptions, component, free_port, unix_now, wait_until};

use super::queries::metric;
use super::series::{One, body, push};

/// Milliseconds from scrape to scrape.
pub(super) const SCRAPE: i64 = 60_000;
/// Scrapes of six hours: the older ones are cut, and leave the head.
pub(super) const SCRAPES: i64 = 360;
const SERIES: usize = 20;
const HOUR: i64 = 3_600_000;

/// An S3 server with one bucket, in memory.
pub(crate) struct Store {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Store {
    pub(crate) fn start(folder: &Path, port: u16) -> Option<Store> {
        let program = component("moto_server")?;
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let child = Child::start(&mut command, &folder.join("moto.log"));
        let store = Store { child, port };
        wait_until("the store to answer", Duration::from_secs(60), || {
            store.is_up()
        });
        Some(store)
    }

    /// Makes the bucket; says whether it could.
    fn is_up(&self) -> bool {
        let auth = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let made = ureq::put(format!("http://127.0.0.1:{}/blocks", self.port))
            .header("Authorization", auth)
            .send_empty();
        made.is_ok()
    }
}

pub(crate) fn args(port: u16) -> Vec<String> {
    [
        "-blocks-storage.backend=s3",
        &format!("-blocks-storage.s3.endpoint=127.0.0.1:{port}"),
        "-blocks-storage.s3.insecure",
        "-blocks-storage.s3.bucket-name=blocks",
        "-blocks-storage.s3.access-key-id=test",
        "-blocks-storage.s3.secret-access-key=test",
        "-blocks-storage.s3.http.request-timeout=2s",
        "-blocks-storage.s3.max-retries=2",
        "-blocks-storage.tsdb.ship-interval=200ms",
        "-blocks-storage.tsdb.ship-unmerged-after=0s",
        "-blocks-storage.tsdb.retention-period=1s",
        "-cores=2",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn start(port: u16) -> Option<Server> {
    Server::start(ServerOptions {
        args: args(port),
        ..Default::default()
    })
}

/// A push of one scrape of all series.
pub(super) fn scrape(server: &Server, time: i64) {
    let texts: Vec<(String, String)> = (0..SERIES)
        .map(|series| (format!("i{series}"), format!("j{}", series % 3)))
        .collect();
    let labels: Vec<[(&str, &str); 3]> = texts
        .iter()
        .map(|(instance, job)| {
            [
                ("__name__", "requests_total"),
                ("instance", instance),
                ("job", job),
            ]
        })
        .collect();
    let series: Vec<One<'_>> = labels
        .iter()
        .enumerate()
        .map(|(at, labels)| {
            let value = (time / SCRAPE % 1000 * (at as i64 + 1)) as f64;
            (&labels[..], time, value)
        })
        .collect();
    let response = push(server, None, &body(&series));
    assert!(response.status < 300, "{}", response.text());
}

/// The start of the six hours, a multiple of a scrape.
pub(super) fn beginning() -> i64 {
    let now = unix_now() as i64 * 1000;
    (now - (SCRAPES + 1) * SCRAPE) / SCRAPE * SCRAPE
}

pub(crate) fn flush(server: &Server) {
    let response = server.admin().get("/ingester/flush", &[("wait", "true")]);
    assert!(response.status < 300, "{}", response.text());
}

/// What is asked, over the oldest two hours.
pub(super) fn answers(server: &Server, start: i64) -> Vec<Value> {
    let api = server.api(None);
    let (from, to) = (start / 1000, start / 1000 + 7200);
    let range = |query: &str| {
        let params = [
            ("query", query),
            ("start", &from.to_string()),
            ("end", &to.to_string()),
            ("step", "60"),
        ];
        api.data("/api/v1/query_range", &params)["result"].clone()
    };
    let bounds = [("start", from.to_string()), ("end", to.to_string())];
    let bounds: Vec<(&str, &str)> = bounds.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let with_match = [&[("match[]", "requests_total")][..], &bounds].concat();
    vec![
        range("requests_total"),
        range("sum by (job) (rate(requests_total[5m]))"),
        range("count(requests_total{instance=~\"i1.*\"})"),
        range("count_over_time(requests_total[2h])"),
        api.data("/api/v1/series", &with_match),
        api.data("/api/v1/labels", &bounds),
        api.data("/api/v1/label/instance/values", &bounds),
    ]
}

fn blocks_on_disk(server: &Server) -> usize {
    let dir = std::fs::read_dir(server.data().join("blocks")).expect("there is a directory");
    dir.filter(|entry| {
        let name = entry.as_ref().expect("it can be read").file_name();
        name.to_string_lossy().ends_with(".block")
    })
    .count()
}

pub(super) fn wait_for_the_disk_to_be_free(server: &Server) {
    wait_until("blocks to leave the disk", Duration::from_secs(60), || {
        blocks_on_disk(server) == 0
    });
}

#[test]
fn what_left_the_disk_is_answered_from_s3_as_it_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let Some(store) = Store::start(folder.path(), free_port()) else {
        return;
    };
    let Some(mut server) = start(store.port) else {
        return;
    };
    let start = beginning();
    for i in 0..SCRAPES {
        scrape(&server, start + i * SCRAPE);
    }
    let before = answers(&server, start);
    assert_eq!(before[0].as_array().unwrap().len(), SERIES);
    flush(&server);
    wait_for_the_disk_to_be_free(&server);
    assert_eq!(answers(&server, start), before, "from the bucket");
    // How much that was.
    let params = [
        ("query", "sum(requests_total)"),
        ("time", &(start / 1000 + 3600).to_string()),
        ("stats", "true"),
    ];
    let stats = server.api(None).data("/api/v1/query", &params)["stats"].clone();
    let requests = stats["bucket"]["requests"].as_u64().unwrap_or(0);
    println!("requests of a query: {stats}");
    assert!((1..=8).contains(&requests), "{stats}");
    // A new life, whose memory is empty; and one after kill -9, without headers on the disk.
    server.stop();
    server.restart();
    assert_eq!(answers(&server, start), before, "after a stop");
    server.kill();
    std::fs::remove_dir_all(server.data().join("bucket")).unwrap();
    server.restart();
    assert_eq!(answers(&server, start), before, "after kill -9");
    // Without the store an answer that needs it is an error; one that does not is an answer, as of what came behind the flush.
    let behind = start + (SCRAPES + 6) * SCRAPE;
    scrape(&server, behind);
    let mut store = store;
    store.child.kill();
    let failed = server.api(None).get("/api/v1/query", &params[..2]);
    assert_eq!(failed.status, 503, "{}", failed.text());
    assert!(
        failed.text().contains("tenants/") || failed.text().contains("shared/"),
        "{}",
        failed.text()
    );
    let now = (behind / 1000).to_string();
    let recent = [("query", "count(requests_total)"), ("time", now.as_str())];
    let result = server.api(None).data("/api/v1/query", &recent);
    assert_eq!(
        result["result"][0]["value"][1],
        SERIES.to_string(),
        "{result}"
    );
}

/// Values that nothing compresses make a block of more than the sixteen megabytes that are put whole.
#[test]
fn a_block_that_is_sent_in_parts_comes_back_whole() {
    const WIDE: i64 = 100;
    const LONG: i64 = 24_000;
    let folder = tempfile::tempdir().unwrap();
    let Some(store) = Store::start(folder.path(), free_port()) else {
        return;
    };
    let mut args = args(store.port);
    args.retain(|arg| !arg.starts_with("-cores") && !arg.contains("request-timeout"));
    let more = [
        "-cores=1",
        "-blocks-storage.s3.http.request-timeout=60s",
        "-distributor.ingestion-rate-limit=0",
    ];
    args.extend(more.map(str::to_owned));
    let Some(server) = Server::start(ServerOptions {
        args,
        ..Default::default()
    }) else {
        return;
    };
    let start = (unix_now() as i64 * 1000 - 4 * HOUR) / (2 * HOUR) * 2 * HOUR;
    let mut chance = SmallRng::seed_from_u64(1);
    let names: Vec<String> = (0..WIDE).map(|series| series.to_string()).collect();
    let labels: Vec<[(&str, &str); 2]> = names
        .iter()
        .map(|name| [("__name__", "noise"), ("series", name.as_str())])
        .collect();
    let mut first = Vec::new();
    for from in (0..LONG).step_by(240) {
        let mut sent: Vec<One<'_>> = Vec::new();
        for at in from..from + 240 {
            for labels in &labels {
                // Any float that is a number.
                let value = f64::from_bits(chance.random::<u64>() & !(1 << 62));
                sent.push((&labels[..], start + at * 250, value));
            }
            first.push(sent[sent.len() - WIDE as usize].2);
        }
        let response = push(&server, None, &body(&sent));
        assert!(response.status < 300, "{}", response.text());
    }
    flush(&server);
    wait_for_the_disk_to_be_free(&server);
    let written = metric(&server, "myelin_bucket_written_bytes_total");
    assert!(
        written > f64::from(16 << 20),
        "{written} bytes are no parts"
    );
    let end = ((start + LONG * 250) / 1000).to_string();
    let ask = |query: &str| {
        let params = [("query", query), ("time", end.as_str())];
        server.api(None).data("/api/v1/query", &params)["result"].clone()
    };
    let count = ask("sum(count_over_time(noise[2h]))");
    assert_eq!(count[0]["value"][1], (WIDE * LONG).to_string());
    let found = ask("noise{series=\"0\"}[2h]");
    let found = found[0]["values"].as_array().expect("samples").iter();
    let found = found.map(|sample| sample[1].as_str().expect("a value").parse::<f64>());
    let found: Vec<f64> = found.map(|value| value.expect("a number")).collect();
    assert!(found == first, "the values are those that were sent");
}

#[test]
fn an_outage_of_the_store_and_kill_9_in_the_middle_lose_nothing_and_show_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    // Nobody is there yet.
    let Some(mut server) = start(port) else {
        return;
    };
    let start = beginning();
    let rounds = if tests::soak() { 20 } else { 5 };
    let each = SCRAPES / rounds;
    let mut next = 0;
    let mut push_some = |server: &Server| {
        for i in next..next + each {
            scrape(server, start + i * SCRAPE);
        }
        next += each;
    };
    push_some(&server);
    flush(&server);
    wait_until("the failure to be counted", Duration::from_secs(60), || {
        metric(&server, "myelin_uploader_failures_total") > 0.0
    });
    assert!(blocks_on_disk(&server) > 0, "they stay");
    let Some(store) = Store::start(folder.path(), port) else {
        return;
    };
    for round in 1..rounds {
        push_some(&server);
        flush(&server);
        if round % 2 == 0 {
            store.child.signal(libc::SIGSTOP);
        }
        let pause = rand::Rng::random_range(&mut tests::chance(), 0..1500);
        std::thread::sleep(Duration::from_millis(pause));
        server.kill();
        store.child.signal(libc::SIGCONT);
        server.restart();
    }
    flush(&server);
    wait_for_the_disk_to_be_free(&server);
    let end = (start / 1000 + rounds * each * 60).to_string();
    let window = format!(
        "count_over_time(requests_total[{}s])",
        rounds * each * 60 + 60
    );
    let counts = server
        .api(None)
        .data("/api/v1/query", &[("query", &window), ("time", &end)]);
    let counts = counts["result"].as_array().unwrap().clone();
    assert_eq!(counts.len(), SERIES);
    for count in counts {
        assert_eq!(count["value"][1], (rounds * each).to_string(), "{count}");
    }
}

/// Story: of a tenant without a retention, of which all is kept, the bucket kept nothing.
#[test]
fn a_tenant_of_which_all_is_kept_keeps_it_in_the_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtime.yaml");
    let text = "overrides: {fake: {compactor_blocks_retention_period: 0}}";
    std::fs::write(&file, text).unwrap();
    let bucket = folder.path().join("blocks");
    let options = ServerOptions {
        args: vec![
            format!("-runtime-config.file={}", file.display()),
            "-blocks-storage.backend=filesystem".to_owned(),
            format!("-blocks-storage.filesystem.dir={}", bucket.display()),
            "-blocks-storage.tsdb.ship-interval=200ms".to_owned(),
            "-blocks-storage.tsdb.ship-unmerged-after=0s".to_owned(),
            "-blocks-storage.tsdb.retention-period=1s".to_owned(),
            "-compactor.cleanup-interval=200ms".to_owned(),
            "-cores=2".to_owned(),
        ],
        ..Default::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let start = beginning();
    for i in 0..SCRAPES {
        scrape(&server, start + i * SCRAPE);
    }
    let before = answers(&server, start);
    flush(&server);
    wait_for_the_disk_to_be_free(&server);
    let passes = || metric(&server, "myelin_uploader_passes_total");
    let enough = passes() + 5.0;
    wait_until("some cleanups", Duration::from_secs(60), || {
        passes() >= enough
    });
    assert_eq!(answers(&server, start), before);
}
