//! Series and tenants are deleted, while samples come, over restarts and kill -9, on the disk and in a bucket, and nothing comes back.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::{Response, Server, ServerOptions, encode_form, unix_now, wait_until};

use super::queries::metric;
use super::series::{One, body, push};

const SCRAPE: i64 = 60_000;
const SCRAPES: i64 = 360;
const PATH: &str = "/api/v1/admin/tsdb/delete_series";

fn scrape(server: &Server, tenant: &str, time: i64, value: f64) {
    let labels = ["a", "b", "c"].map(|i| [("__name__", "m"), ("i", i)]);
    let series: Vec<One<'_>> = labels.iter().map(|l| (&l[..], time, value)).collect();
    let response = push(server, Some(tenant), &body(&series));
    assert!(response.status < 300, "{}", response.text());
}

fn beginning() -> i64 {
    (unix_now() * 1000 - (SCRAPES + 1) * SCRAPE) / SCRAPE * SCRAPE
}

fn delete(server: &Server, tenant: &str, params: &[(&str, &str)]) -> Response {
    server.api(Some(tenant)).form(PATH, params)
}

/// How many samples each series has in all the time.
fn counts(server: &Server, tenant: &str, start: i64) -> Vec<(String, String)> {
    let end = (start / 1000 + SCRAPES * 60 + 60).to_string();
    let query = format!("count_over_time(m[{}s])", SCRAPES * 60 + 600);
    let params = [("query", query.as_str()), ("time", &end)];
    let data = server.api(Some(tenant)).data("/api/v1/query", &params);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let result = data["result"].as_array().expect("a vector");
    let mut counts: Vec<_> = result
        .iter()
        .map(|one| (text(&one["metric"]["i"]), text(&one["value"][1])))
        .collect();
    counts.sort();
    counts
}

fn expected(of: &[(&str, i64)]) -> Vec<(String, String)> {
    let one = |&(i, n): &(&str, i64)| (i.to_owned(), n.to_string());
    of.iter().map(one).collect()
}

fn values_of_i(server: &Server, tenant: &str) -> Value {
    server.api(Some(tenant)).data("/api/v1/label/i/values", &[])
}

fn flush(server: &Server) {
    let response = server.admin().get("/ingester/flush", &[("wait", "true")]);
    assert!(response.status < 300, "{}", response.text());
}

fn args(folder: &Path) -> Vec<String> {
    [
        "-blocks-storage.backend=filesystem",
        &format!(
            "-blocks-storage.filesystem.dir={}",
            folder.join("bucket").display()
        ),
        "-blocks-storage.tsdb.ship-interval=200ms",
        "-blocks-storage.tsdb.ship-unmerged-after=0s",
        "-blocks-storage.tsdb.retention-period=1s",
        "-compactor.cleanup-interval=200ms",
        "-compactor.compaction-interval=1s",
        "-cores=2",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn blocks_in(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let entries = entries.map(|entry| entry.expect("it can be read").path());
    entries
        .map(|path| match path.is_dir() {
            true => blocks_in(&path),
            false => usize::from(path.extension().is_some_and(|end| end == "block")),
        })
        .sum()
}

#[test]
fn what_is_deleted_stays_away_and_what_is_written_behind_it_stays() {
    let folder = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        args: args(folder.path()),
        config: "auth_enabled: true".into(),
        ..Default::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let start = beginning();
    let seconds = |scrape: i64| (start / 1000 + scrape * 60).to_string();
    for n in 0..SCRAPES {
        scrape(&server, "one", start + n * SCRAPE, n as f64);
        scrape(&server, "two", start + n * SCRAPE, n as f64);
        // While samples come, of heads alone at first.
        if n == 100 {
            let params = [("match[]", "m{i=\"b\"}"), ("end", &seconds(49))];
            assert_eq!(delete(&server, "one", &params).status, 204);
        }
        if n == 200 {
            flush(&server);
        }
    }
    let all = expected(&[("a", SCRAPES), ("b", SCRAPES), ("c", SCRAPES)]);
    assert_eq!(counts(&server, "two", start), all);
    let left = expected(&[("a", SCRAPES), ("b", SCRAPES - 50), ("c", SCRAPES)]);
    assert_eq!(counts(&server, "one", start), left);
    server.kill();
    server.restart();
    assert_eq!(counts(&server, "one", start), left, "after kill -9");

    // What blocks hold, and the bucket alone.
    flush(&server);
    wait_until("blocks to leave the disk", Duration::from_secs(90), || {
        blocks_in(&server.data().join("blocks")) == 0
    });
    assert_eq!(counts(&server, "one", start), left, "from the bucket");
    let params = [
        ("match[]", "m{i=\"c\"}"),
        ("match[]", "m{i=\"none\"}"),
        ("start", &seconds(100)),
        ("end", &seconds(199)),
    ];
    assert_eq!(delete(&server, "one", &params).status, 204);
    let params = [("match[]", "m{i=\"a\"}")];
    assert_eq!(delete(&server, "one", &params).status, 204);
    let left = expected(&[("b", SCRAPES - 50), ("c", SCRAPES - 100)]);
    assert_eq!(counts(&server, "one", start), left);
    assert_eq!(values_of_i(&server, "one"), serde_json::json!(["b", "c"]));
    server.kill();
    server.restart();
    assert_eq!(counts(&server, "one", start), left, "after kill -9");
    assert_eq!(counts(&server, "two", start), all, "another tenant");

    // All of it is new again, at a time that was deleted.
    let labels = [("__name__", "m"), ("i", "a")];
    let again = [(&labels[..], start + 7 * SCRAPE, 1.0)];
    assert!(push(&server, Some("one"), &body(&again)).status < 300);
    let left = expected(&[("a", 1), ("b", SCRAPES - 50), ("c", SCRAPES - 100)]);
    assert_eq!(counts(&server, "one", start), left);

    // In the end it is physical.
    let list = || server.api(Some("one")).get(PATH, &[]).json();
    assert_eq!(list().as_array().unwrap().len(), 3, "{}", list());
    wait_until("deletions to be physical", Duration::from_secs(120), || {
        let list = list();
        let list = list.as_array().unwrap();
        list.iter().all(|one| one["status"] == "processed")
    });
    assert_eq!(metric(&server, "myelin_deletions_pending"), 0.0);
    flush(&server);
    server.stop();
    server.restart();
    assert_eq!(counts(&server, "one", start), left, "without tombstones");
    assert_eq!(counts(&server, "two", start), all);

    // A tenant goes whole, and comes as a new one.
    let status = |server: &Server| {
        let api = tests::Api::new(&server.url(), Some("one"));
        api.get("/purger/delete_tenant_status", &[]).json()["blocks_deleted"].clone()
    };
    assert_eq!(status(&server), false);
    let admin = tests::Api::new(&server.url(), Some("one"));
    let deleted = admin.post("/purger/delete_tenant", &[], b"").unwrap();
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert_eq!(counts(&server, "one", start), []);
    assert_eq!(values_of_i(&server, "one"), serde_json::json!([]));
    server.kill();
    server.restart();
    assert_eq!(counts(&server, "one", start), [], "after kill -9");
    scrape(&server, "one", start + 5 * SCRAPE, 5.0);
    let new = expected(&[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(counts(&server, "one", start), new);
    wait_until("its blocks to go", Duration::from_secs(120), || {
        status(&server) == true
    });
    let bucket = folder.path().join("bucket/tenants/one");
    wait_until("its objects to go", Duration::from_secs(60), || {
        blocks_in(&bucket) == 0
    });
    server.kill();
    server.restart();
    assert_eq!(counts(&server, "one", start), new);
    assert_eq!(counts(&server, "two", start), all, "another tenant");
}

#[test]
fn a_request_that_cannot_be_says_what_is_wrong() {
    let Some(server) = Server::plain() else {
        return;
    };
    let api = server.api(None);
    let long = format!("m{{i=\"{}\"}}", "x".repeat(5000));
    for (params, told) in [
        (&[][..], "no match[] parameter provided"),
        (&[("match[]", "m{")][..], "match[]"),
        (&[("match[]", "{i=\"\"}")][..], "non-empty"),
        (&[("match[]", "m"), ("end", "99999999999")][..], "future"),
        (
            &[("match[]", "m"), ("start", "9"), ("end", "8")][..],
            "start time",
        ),
        (&[("match[]", "m"), ("start", "x")][..], "cannot parse"),
        (&[("match[]", long.as_str())][..], "4096 bytes"),
    ] {
        let answer = api.form(PATH, params);
        assert_eq!(answer.status, 400, "{}", answer.text());
        let json = answer.json();
        assert_eq!(json["errorType"], "bad_data", "{json}");
        assert!(json["error"].as_str().unwrap().contains(told), "{json}");
    }
    assert_eq!(api.get(PATH, &[]).json(), serde_json::json!([]));
    let cancel = "/api/v1/admin/tsdb/cancel_delete_request";
    for (params, told) in [
        (&[][..], "request_id is missing"),
        (&[("request_id", "7")][..], "could not find"),
    ] {
        let answer = api.form(cancel, params);
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    assert_eq!(api.form(PATH, &[("match[]", "m")]).status, 204);
    let id = api.get(PATH, &[]).json()[0]["request_id"].clone();
    let answer = api.form(cancel, &[("request_id", id.as_str().unwrap())]);
    assert!(
        answer.text().contains("not cancellable"),
        "{}",
        answer.text()
    );
    assert_eq!(
        api.form("/api/v1/admin/tsdb/clean_tombstones", &[]).status,
        204
    );
    let form = encode_form(&[("match[]", "m")]);
    let url = format!("{}/prometheus{PATH}?{form}", server.url());
    let put = ureq::put(url).send_empty();
    assert_eq!(put.unwrap().status(), 204, "PUT, and parameters in the URL");
}
