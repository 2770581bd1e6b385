//! Series and tenants are deleted, while samples come, over restarts and kill -9, on the disk and in a bucket, and nothing comes back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::{Cluster, Response, Server, ServerOptions, encode_form, unix_now, wait_until};

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

/// The files of blocks in a folder and those in it.
fn block_files(dir: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return BTreeSet::new();
    };
    let entries = entries.map(|entry| entry.expect("it can be read").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => block_files(&path),
            false => BTreeSet::from([path]),
        })
        .filter(|path| path.extension().is_some_and(|end| end == "block"))
        .collect()
}

fn blocks_in(dir: &Path) -> usize {
    block_files(dir).len()
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
    let bucket = folder.path().join("bucket/tenants/one");
    let old = block_files(&bucket);
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
    // Those that were there: what is written since then is so old that it may be cut, and in the bucket, any moment.
    wait_until("its objects to go", Duration::from_secs(60), || {
        block_files(&bucket).is_disjoint(&old)
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

/// The list of deletions at a node, as (selectors, status).
fn listed(server: &Server) -> Vec<(String, String)> {
    let data = server.api(None).get(PATH, &[]);
    assert_eq!(data.status, 200, "{}", data.text());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = data.json();
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|one| {
            assert!(one.get("missing_on").is_none(), "{one}");
            (text(&one["selectors"][0]), text(&one["status"]))
        })
        .collect()
}

#[test]
fn in_a_cluster_all_ingesters_delete_or_the_one_that_does_not_is_named() {
    let args = ["-compactor.compaction-interval=1h".to_owned()];
    let Some(mut cluster) = Cluster::start_with("", 2, 1, &args) else {
        return;
    };
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let start = beginning();
    let write = |server: &Server, n: i64| {
        let labels = NAMES.map(|i| [("__name__", "m"), ("i", i)]);
        let series: Vec<One<'_>> = labels
            .iter()
            .map(|l| (&l[..], start + n * SCRAPE, n as f64))
            .collect();
        let answer = push(server, None, &body(&series));
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    for n in 0..10 {
        write(&cluster.distributor, n);
    }
    for ingester in &cluster.ingesters {
        let stats = ingester.admin().get("/api/v1/user_stats", &[]).json();
        assert!(stats["numSeries"].as_u64() >= Some(2), "{stats}");
    }
    let counts = |cluster: &Cluster| {
        let end = (start / 1000 + SCRAPES * 60 + 60).to_string();
        let query = format!("count_over_time(m[{}s])", SCRAPES * 60 + 600);
        let params = [("query", query.as_str()), ("time", &end)];
        let data = cluster.frontend.api(None).data("/api/v1/query", &params);
        let result = data["result"].as_array().expect("a vector");
        let one = |one: &Value| {
            let count = one["value"][1].as_str().unwrap().parse::<i64>().unwrap();
            (one["metric"]["i"].as_str().unwrap().to_owned(), count)
        };
        result
            .iter()
            .map(one)
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut left: std::collections::BTreeMap<String, i64> =
        NAMES.iter().map(|i| ((*i).to_owned(), 10)).collect();
    assert_eq!(counts(&cluster), left);

    // At the distributor, and at the frontend, which has a querier do it.
    let delete = |server: &Server, params: &[(&str, &str)]| server.api(None).form(PATH, params);
    let wide = [("match[]", "m{i=~\"[a-f]\"}")];
    assert_eq!(delete(&cluster.distributor, &wide).status, 204);
    left.retain(|i, _| i.as_str() > "f");
    assert_eq!(counts(&cluster), left);
    let end = (start / 1000 + 4 * 60).to_string();
    let part = [("match[]", "m{i=\"g\"}"), ("end", end.as_str())];
    assert_eq!(delete(&cluster.frontend, &part).status, 204);
    left.insert("g".to_owned(), 5);
    assert_eq!(counts(&cluster), left);
    let values = cluster
        .frontend
        .api(None)
        .data("/api/v1/label/i/values", &[]);
    assert_eq!(values, serde_json::json!(["g", "h", "i", "j", "k", "l"]));
    let bad = delete(&cluster.distributor, &[("match[]", "{")]);
    assert_eq!(bad.status, 400, "{}", bad.text());

    // One is down: the other deletes, and a repeat deletes the rest.
    cluster.ingesters[1].kill();
    let rest = [("match[]", "m{i=~\"[h-k]\"}"), ("end", end.as_str())];
    let name = cluster.ingesters[1].grpc_address();
    let answer = delete(&cluster.distributor, &rest);
    assert_eq!(answer.status, 503, "{}", answer.text());
    let text = answer.text();
    assert!(text.contains("deleted on 1 of 2"), "{text}");
    assert!(text.contains(&format!("ingester {name}")), "{text}");
    let list = cluster.distributor.api(None).get(PATH, &[]);
    assert_eq!(list.status, 503, "{}", list.text());
    assert!(list.text().contains(&name), "{}", list.text());
    cluster.ingesters[1].restart();
    let list = || cluster.distributor.api(None).get(PATH, &[]);
    wait_until(
        "the ingester to be asked again",
        Duration::from_secs(30),
        || list().status == 200,
    );
    let json = list().json();
    assert_eq!(json[2]["missing_on"], serde_json::json!([name]), "{json}");
    assert_eq!(delete(&cluster.distributor, &rest).status, 204);
    for i in ["h", "i", "j", "k"] {
        left.insert(i.to_owned(), 5);
    }
    assert_eq!(counts(&cluster), left);

    // What is written behind a deletion stays, also at times that were deleted.
    write(&cluster.distributor, 11);
    for i in NAMES {
        *left.entry(i.to_owned()).or_default() += 1;
    }
    assert_eq!(counts(&cluster), left);

    // From blocks: hidden at once, gone when they have been rewritten.
    cluster.ingesters.iter().for_each(flush);
    let late = [("match[]", "m{i=~\"[j-l]\"}")];
    assert_eq!(delete(&cluster.queriers[0], &late).status, 204);
    left.retain(|i, _| i.as_str() < "j");
    assert_eq!(counts(&cluster), left);
    let last = (
        "{__name__=\"m\",i=~\"[j-l]\"}".to_owned(),
        "received".to_owned(),
    );
    let parts = [
        &cluster.frontend,
        &cluster.distributor,
        &cluster.queriers[0],
    ];
    for part in parts {
        assert_eq!(listed(part).last(), Some(&last));
    }
    // All compactors are told to look, though their time has not come.
    let runs = |cluster: &Cluster| {
        let of = |ingester| metric(ingester, "cortex_compactor_runs_started_total");
        cluster.ingesters.iter().map(of).collect::<Vec<_>>()
    };
    let before = runs(&cluster);
    let path = "/api/v1/admin/tsdb/clean_tombstones";
    let answer = cluster.frontend.api(None).form(path, &[]);
    assert_eq!(answer.status, 204, "{}", answer.text());
    wait_until("compactors to look", Duration::from_secs(60), || {
        runs(&cluster)
            .iter()
            .zip(&before)
            .all(|(now, before)| now > before)
    });
    assert_eq!(counts(&cluster), left);

    // All of it.
    let path = "/purger/delete_tenant";
    let answer = cluster.distributor.admin().post(path, &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(counts(&cluster).len(), 0);
    // The status is of all ingesters: false as long as one has a block of it.
    let path = "/purger/delete_tenant_status";
    let status = |server: &Server| server.admin().get(path, &[]).json()["blocks_deleted"].clone();
    let all = || cluster.ingesters.iter().all(|one| status(one) == true);
    let (before, of_all, after) = (all(), status(&cluster.queriers[0]), all());
    assert!(
        of_all == before || of_all == after,
        "{before} {of_all} {after}"
    );
    write(&cluster.distributor, 12);
    assert_eq!(counts(&cluster).len(), NAMES.len());
}

/// Story: who deleted to get below a limit was refused with it for minutes, series by series, as the refusals of a moment ago were remembered.
#[test]
fn series_that_a_limit_refused_are_taken_when_others_have_been_deleted() {
    let Some(server) = Server::start(ServerOptions {
        config: "auth_enabled: true\nlimits: {max_series_per_user: 2}\n".to_owned(),
        ..ServerOptions::default()
    }) else {
        return;
    };
    let now = unix_now() * 1000;
    let one = |i: &str, time| {
        let labels = [("__name__", "m"), ("i", i)];
        push(&server, Some("t"), &body(&[(&labels, time, 1.0)])).status
    };
    let wipe = || tests::Api::new(&server.url(), Some("t")).form("/purger/delete_tenant", &[]);
    let delete = || delete(&server, "t", &[("match[]", "m")]);
    let (first, second): (&dyn Fn() -> Response, &dyn Fn() -> Response) = (&delete, &wipe);
    for (round, away) in (0..).zip([first, second]) {
        let time = now + round * 1000;
        assert_eq!(one("a", time), 200);
        assert_eq!(one("b", time), 200);
        for _ in 0..8 {
            assert_eq!(one("c", time), 400);
        }
        let answer = away();
        assert!(answer.status < 300, "{}", answer.text());
        assert_eq!(one("c", time + 1), 200, "round {round}");
        let answer = delete();
        assert!(answer.status < 300, "{}", answer.text());
    }
}
