//! Snapshots under load: what was acknowledged before one is asked for is in it; a `kill -9` while it is made leaves a whole one or none that starts.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rand::Rng;
use serde_json::Value;
use tests::{Server, ServerOptions, chance, soak, wait_until};

use crate::one;

const PATH: &str = "/prometheus/api/v1/admin/tsdb/snapshot";

/// Names in the directory of snapshots, those that are not finished too.
fn names(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("snapshots"));
    let names = entries.into_iter().flatten();
    let names = names.map(|entry| entry.expect("it can be read").file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// All that was acknowledged is there, once, with its value.
fn check(server: &Server, start: i64, acknowledged: i64, what: &str) {
    let end = start + acknowledged + 100_000;
    let query = format!("s[{}s]", acknowledged + 100_100);
    let found = server.api(None).query(&query, end as f64);
    let list = found.as_array().expect("a matrix");
    let values = list.first().map_or(&[][..], |one| {
        one["values"].as_array().expect("samples").as_slice()
    });
    for (n, pair) in values.iter().enumerate() {
        let (time, value) = (pair[0].as_f64().unwrap() as i64, pair[1].as_str().unwrap());
        assert_eq!((time - start, value), (n as i64, &*n.to_string()), "{what}");
    }
    assert!(
        values.len() as i64 >= acknowledged,
        "{what}: {} of {acknowledged}",
        values.len()
    );
}

/// A node on a snapshot has what was acknowledged before it.
fn check_snapshot(path: PathBuf, start: i64, acknowledged: i64, what: &str) {
    let options = ServerOptions {
        data: Some(path),
        args: vec!["-cores=2".to_owned()],
        ..Default::default()
    };
    let mut restored = Server::start(options).expect("the binary is there");
    check(&restored, start, acknowledged, what);
    assert_eq!(one::push(&restored, "after", start, 1.0).0, 200, "{what}");
    restored.stop();
}

#[test]
fn a_snapshot_under_load_has_what_was_acknowledged_and_kill_9_leaves_no_half() {
    let options = ServerOptions {
        args: vec!["-cores=2".to_owned()],
        ..Default::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    for (method, query, status) in [("GET", "", 405), ("POST", "skip_head=perhaps", 400)] {
        let path = format!("{PATH}?{query}");
        let answer = match method {
            "GET" => server.admin().get(&path, &[]),
            _ => server.admin().post(&path, &[], b"").unwrap(),
        };
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let start = tests::unix_now() - 90_000;
    // Samples with the numbers before this are acknowledged, and nothing behind it is sent but for that one.
    let next = AtomicI64::new(0);
    let (mut finished, mut killed) = (0, 0);
    for round in 0..if soak() { 20 } else { 6 } {
        let over = AtomicBool::new(false);
        let data = server.data().to_owned();
        let mut pause = chance();
        let acknowledged = std::thread::scope(|scope| {
            let (over, next, asked) = (&over, &next, &server);
            let url = asked.url();
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let n = next.load(Ordering::Relaxed);
                    if one::try_push(&url, "s", start + n, n as f64)
                        .is_none_or(|status| status != 200)
                    {
                        return;
                    }
                    next.store(n + 1, Ordering::Relaxed);
                }
            });
            std::thread::sleep(Duration::from_millis(pause.random_range(50..500)));
            if round % 3 == 1 {
                let flushed = asked.admin().get("/ingester/flush", &[("wait", "true")]);
                assert!(flushed.status < 300, "{}", flushed.text());
            }
            let acknowledged = next.load(Ordering::Relaxed);
            let made = scope.spawn(move || asked.admin().post(PATH, &[], b""));
            if round % 2 == 1 {
                std::thread::sleep(Duration::from_millis(pause.random_range(0..120)));
                asked.signal_kill();
            }
            if let Ok(answer) = made.join().unwrap() {
                assert_eq!(answer.status, 200, "{}", answer.text());
                let json: Value = answer.json();
                assert_eq!(json["status"], "success");
                let name = json["data"]["name"].as_str().expect("a name").to_owned();
                assert!(names(&data).contains(&name), "{name}");
                finished += 1;
            } else {
                killed += 1;
            }
            over.store(true, Ordering::Relaxed);
            acknowledged
        });
        for name in names(&data) {
            let path = data.join("snapshots").join(&name);
            let what = format!("round {round}, {name}");
            if !name.ends_with(".tmp") {
                check_snapshot(path.clone(), start, acknowledged, &what);
                std::fs::remove_dir_all(path).unwrap();
            }
        }
        if round % 2 == 1 {
            server.kill();
            server.restart();
            assert_eq!(
                names(&data),
                [""; 0],
                "round {round}: what was not finished goes"
            );
        }
        check(
            &server,
            start,
            next.load(Ordering::Relaxed),
            "the node itself",
        );
        // What was sent and not answered may be there: the next one is the same.
        wait_until("a push to be taken", Duration::from_secs(10), || {
            let n = next.load(Ordering::Relaxed);
            one::push(&server, "s", start + n, n as f64).0 == 200
        });
        next.fetch_add(1, Ordering::Relaxed);
    }
    println!("{finished} snapshots, {killed} requests that a kill met");
    assert!(finished > 2);
}
