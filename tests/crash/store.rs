//! A node and the S3 process that takes its blocks (moto, `store.py`), both killed, the store stopped and slowed as well, at random moments of ingest, flush,
//! upload, compaction and deletion, again and again on the same data.
//!
//! After each round: every acknowledged sample is found once, with its value, what was deleted is not, and no tenant has another's. What nobody
//! answered for is sent again, as Prometheus does, and deletions are asked for again. At the end, in peace: every block of the bucket is named by an index
//! and every block that is named is there, nothing waits to be deleted, no upload is unfinished, and the disk has let go of what the bucket has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::Value;
use tests::{
    Api, Child, Server, ServerOptions, chance, component, free_port, root, soak, unix_now,
    wait_until,
};
use wire::remote_write::encode;

/// Milliseconds between two samples of a series.
const STEP: i64 = 60_000;
const SERIES: usize = 5;
/// Who is written to in every round.
const TENANTS: [&str; 2] = ["one", "two"];
/// Who is deleted whole, in turn.
const GUEST: &str = "guest";
/// Samples of a series in a round, at most: two hours and a half.
const ROUND: i64 = 150;

/// An S3 server that goes on from where it was killed.
struct Store {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Store {
    fn start(folder: &Path) -> Option<Store> {
        component("moto_server")?;
        let (folder, port) = (folder.to_owned(), free_port());
        let child = Store::spawn(&folder, port);
        let store = Store {
            child,
            folder,
            port,
        };
        store.wait();
        let made = ureq::put(store.url("")).header("Authorization", AUTH);
        made.send_empty().expect("the bucket is made");
        Some(store)
    }

    fn spawn(folder: &Path, port: u16) -> Child {
        let mut command = Command::new("python3");
        let program = root().join("tests/crash/store.py");
        command.arg(program).arg(port.to_string()).arg(folder);
        Child::start(&mut command, &folder.join("store.log"))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/blocks{path}", self.port)
    }

    fn try_get(&self, path: &str) -> Result<String, ureq::Error> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        let request = agent.get(self.url(path)).header("Authorization", AUTH);
        request.call()?.body_mut().read_to_string()
    }

    fn wait(&self) {
        wait_until("the store to answer", Duration::from_secs(60), || {
            self.try_get("?list-type=2").is_ok()
        });
    }

    fn slow(&self, most: Option<u64>) {
        let file = self.folder.join("slow");
        match most {
            None => drop(std::fs::remove_file(file)),
            Some(most) => std::fs::write(file, most.to_string()).expect("it can be written"),
        }
    }

    fn restart(&mut self) {
        self.child.kill();
        self.child = Store::spawn(&self.folder, self.port);
    }

    /// One disturbance of at most some seconds, or none.
    fn disturb(&mut self) -> &'static str {
        let mut chance = chance();
        let pause = Duration::from_millis(chance.random_range(0..1500));
        match chance.random_range(0..4) {
            0 => "undisturbed",
            1 => {
                self.child.kill();
                std::thread::sleep(pause);
                self.restart();
                "killed"
            }
            2 => {
                self.child.signal(libc::SIGSTOP);
                std::thread::sleep(pause * 2);
                self.child.signal(libc::SIGCONT);
                "stopped"
            }
            _ => {
                // Beyond the patience of the client, now and then.
                self.slow(Some(chance.random_range(20..2500)));
                std::thread::sleep(pause);
                "slow"
            }
        }
    }

    /// As it should be, after the restart it may need for that.
    fn calm(&self) {
        self.slow(None);
        self.wait();
    }

    fn keys(&self) -> Vec<String> {
        let list = self.try_get("?list-type=2").expect("it can be listed");
        assert!(list.contains("<IsTruncated>false"), "{list}");
        let parts = list.split("<Key>").skip(1);
        let key = |part: &str| part.split("</Key>").next().unwrap_or_default().to_owned();
        parts.map(key).collect()
    }

    /// What is wrong with the bucket of a node that has nothing to do any more.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let keys = self.keys();
        let (mut named, mut blocks) = (BTreeSet::new(), BTreeSet::new());
        for key in &keys {
            if key.ends_with("/index.json") {
                let text = self.try_get(&format!("/{key}")).expect("it can be read");
                let index: Value = serde_json::from_str(&text).expect("it is JSON");
                let list = |field: &str| index[field].as_array().expect("a list").clone();
                for deletion in list("deletions") {
                    faults.push(format!("{key} has still to delete {deletion}"));
                }
                let key = |entry: &Value| entry["key"].as_str().expect("a text").to_owned();
                named.extend(list("blocks").iter().map(key));
            } else if key.ends_with(".block") {
                blocks.insert(key.clone());
            }
        }
        for orphan in blocks.difference(&named) {
            faults.push(format!("no index names {orphan}"));
        }
        for lost in named.difference(&blocks) {
            faults.push(format!("an index names {lost}, which is gone"));
        }
        let uploads = self.try_get("?uploads").expect("they can be listed");
        if uploads.contains("<Upload>") {
            faults.push(format!("unfinished: {uploads}"));
        }
        faults
    }
}

const AUTH: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

fn args(port: u16) -> Vec<String> {
    [
        "-blocks-storage.backend=s3",
        &format!("-blocks-storage.s3.endpoint=127.0.0.1:{port}"),
        "-blocks-storage.s3.insecure",
        "-blocks-storage.s3.bucket-name=blocks",
        "-blocks-storage.s3.access-key-id=test",
        "-blocks-storage.s3.secret-access-key=test",
        "-blocks-storage.s3.http.request-timeout=2s",
        "-blocks-storage.s3.max-retries=2",
        "-blocks-storage.tsdb.ship-interval=100ms",
        "-blocks-storage.tsdb.ship-unmerged-after=500ms",
        "-blocks-storage.tsdb.retention-period=1s",
        "-compactor.compaction-interval=300ms",
        "-compactor.cleanup-interval=300ms",
        "-compactor.deletion-delay=2s",
        "-ingester.retention=1000h",
        "-cores=2",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What has to be found.
struct Model {
    /// Time of the sample with the number 0.
    start: i64,
    /// The number behind the last one that was sent.
    next: i64,
    /// Whether the sample was acknowledged, by tenant, series and number. What is not in here must not be found.
    samples: BTreeMap<(&'static str, usize, i64), bool>,
    /// Asked for without an answer.
    deletions: Vec<Deletion>,
}

#[derive(Debug, Clone, Copy)]
struct Deletion {
    tenant: &'static str,
    series: usize,
    from: i64,
    to: i64,
}

fn value(tenant: &str, series: usize, n: i64) -> f64 {
    (n * 10 + series as i64) as f64 + if tenant == "one" { 0.0 } else { 0.5 }
}

/// Sends the samples of one moment. True: they are acknowledged. False: who knows.
fn push(server: &str, tenant: &'static str, model: &Model, n: i64) -> bool {
    let mut body = Vec::new();
    for series in 0..SERIES {
        let i = series.to_string();
        let labels = [("__name__", "m"), ("i", i.as_str())];
        let sample = (model.start + n * STEP, value(tenant, series, n));
        encode::put_series(&mut body, labels.into_iter(), &[sample]);
    }
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let api = Api::new(server, Some(tenant));
    match api.post("/api/v1/push", &headers, &wire::snappy::pack(&body)) {
        Ok(answer) => {
            // Sent again behind a cut that took it: refused as too old, since it is there.
            let known = answer.status == 400 && model.samples.contains_key(&(tenant, 0, n));
            let fine = answer.status < 300 || answer.status == 503 || known;
            assert!(fine, "{}: {}", answer.status, answer.text());
            answer.status < 300
        }
        Err(_) => false,
    }
}

fn note(model: &mut Model, tenant: &'static str, n: i64, acknowledged: bool) {
    for series in 0..SERIES {
        let known = model.samples.entry((tenant, series, n)).or_default();
        *known |= acknowledged;
    }
}

fn delete(server: &str, model: &Mutex<Model>, deletion: Deletion) -> bool {
    let start = model.lock().unwrap().start / 1000;
    let time = |n: i64| (start + n * STEP / 1000).to_string();
    let selector = format!("m{{i=\"{}\"}}", deletion.series);
    let params = [
        ("match[]", selector.as_str()),
        ("start", &time(deletion.from)),
        ("end", &time(deletion.to)),
    ];
    let api = Api::new(&format!("{server}/prometheus"), Some(deletion.tenant));
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = tests::encode_form(&params);
    let path = "/api/v1/admin/tsdb/delete_series";
    match api.post(path, &headers, body.as_bytes()) {
        Ok(answer) if answer.status == 204 => true,
        Ok(answer) => {
            assert_eq!(answer.status, 503, "{}", answer.text());
            false
        }
        Err(_) => false,
    }
}

/// Until the end of the round: samples, moment by moment.
fn write(server: &str, model: &Mutex<Model>, over: &AtomicBool) {
    let last = model.lock().unwrap().next + ROUND;
    while !over.load(Ordering::Relaxed) {
        let mut model = model.lock().unwrap();
        let n = model.next;
        if n == last {
            return;
        }
        model.next += 1;
        for tenant in TENANTS.iter().chain([&GUEST]) {
            let acknowledged = push(server, tenant, &model, n);
            note(&mut model, tenant, n, acknowledged);
            if !acknowledged {
                return;
            }
        }
        drop(model);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Until the end of the round: flushes, and deletions of what is there.
fn trouble(server: &str, model: &Mutex<Model>, over: &AtomicBool) {
    let mut chance = chance();
    let api = Api::new(server, None);
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(chance.random_range(50..500)));
        if chance.random() {
            let _ = api.try_get("/ingester/flush", &[("wait", "true")]);
            continue;
        }
        let next = model.lock().unwrap().next;
        if next < 10 {
            continue;
        }
        let from = chance.random_range(0..next - 5);
        let deletion = Deletion {
            tenant: TENANTS[chance.random_range(0..2)],
            series: chance.random_range(0..SERIES),
            from,
            to: (from + chance.random_range(0..100)).min(next - 2),
        };
        model.lock().unwrap().deletions.push(deletion);
        if delete(server, model, deletion) {
            settle(&mut model.lock().unwrap());
        }
    }
}

/// The last deletion is done.
fn settle(model: &mut Model) {
    let done = model.deletions.pop().expect("it was asked for");
    for n in done.from..=done.to {
        model.samples.remove(&(done.tenant, done.series, n));
    }
}

/// What was under way when the node died is asked for again.
fn repeat(server: &str, model: &Mutex<Model>) {
    let last = || model.lock().unwrap().deletions.last().copied();
    while let Some(deletion) = last() {
        wait_until("a deletion to be taken", Duration::from_secs(60), || {
            delete(server, model, deletion)
        });
        settle(&mut model.lock().unwrap());
    }
    let mut model = model.lock().unwrap();
    let unsure = model.samples.iter().filter(|(_, known)| !**known);
    let unsure: BTreeSet<_> = unsure.map(|(&(tenant, _, n), _)| (tenant, n)).collect();
    let newest = model.next - 1;
    for (tenant, n) in unsure {
        // A deletion that came behind must not be undone by what is sent again.
        if n == newest {
            let acknowledged = push(server, tenant, &model, n);
            note(&mut model, tenant, n, acknowledged);
        }
    }
}

/// Compares all that is found with all that has to be. Returns how many samples those are.
fn check(server: &Server, model: &Model, what: &str) -> usize {
    let end = (model.start + model.next * STEP) / 1000;
    let window = model.next * STEP / 1000 + 60;
    let mut found = BTreeMap::new();
    for tenant in TENANTS.iter().chain([&GUEST]) {
        let query = format!("{{__name__=~\".+\"}}[{window}s]");
        let result = server.api(Some(tenant)).query(&query, end as f64);
        for one in result.as_array().expect("a matrix") {
            let series: usize = one["metric"]["i"].as_str().unwrap().parse().unwrap();
            for pair in one["values"].as_array().expect("samples") {
                let time = (pair[0].as_f64().expect("a time") * 1000.0).round() as i64;
                let n = (time - model.start) / STEP;
                let text = pair[1].as_str().expect("a value");
                assert_eq!(
                    text.parse(),
                    Ok(value(tenant, series, n)),
                    "{what}: of another"
                );
                let twice = found.insert((*tenant, series, n), ());
                assert!(
                    twice.is_none(),
                    "{what}: {tenant} {series} {n} is there twice"
                );
            }
        }
    }
    let lost = model.samples.iter().filter(|(_, known)| **known);
    let lost: Vec<_> = lost.filter(|(at, _)| !found.contains_key(at)).collect();
    assert!(lost.is_empty(), "{what}: lost: {}", shown(&lost));
    let back: Vec<_> = found.keys().collect();
    let back: Vec<_> = back
        .iter()
        .filter(|at| !model.samples.contains_key(**at))
        .collect();
    assert!(back.is_empty(), "{what}: came back: {}", shown(&back));
    found.len()
}

fn shown<T: std::fmt::Debug>(list: &[T]) -> String {
    let ends = [list.first(), list.last()];
    format!("{} from {:?} to {:?}", list.len(), ends[0], ends[1])
}

/// Names and sizes of all files below a directory.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("it can be read").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((
                path.clone(),
                std::fs::metadata(&path).map_or(0, |m| m.len()),
            )),
        }
    }
    found
}

/// Of every core two checkpoints, the segments between the older one and now, and those kept for reuse; nothing half made.
fn check_disk(server: &Server) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let left = files(&server.data().join("wal"));
    for (path, _) in &left {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!name.ends_with(".tmp"), "half made: {}", path.display());
        let kind = name.split('-').next().unwrap().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    println!("files of the log: {kinds:?}");
    let most = |kind: &str| kinds.get(kind).copied().unwrap_or(0);
    assert!(most("checkpoint") <= 4 && most("segment") <= 8, "{left:?}");
    let chunks = left
        .iter()
        .filter(|(path, _)| path.to_string_lossy().contains("chunks-"));
    let bytes: u64 = chunks.map(|(_, bytes)| bytes).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes of closed chunks are left");
}

fn flush(server: &Server) {
    let response = server.admin().get("/ingester/flush", &[("wait", "true")]);
    assert!(response.status < 300, "{}", response.text());
}

#[test]
fn node_and_store_are_killed_in_the_middle_of_everything() {
    let rounds = if soak() { 20 } else { 4 };
    let folder = tempfile::tempdir().unwrap();
    let Some(mut store) = Store::start(folder.path()) else {
        return;
    };
    let options = ServerOptions {
        args: args(store.port),
        config: "auth_enabled: true".into(),
        ..Default::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let start = (unix_now() * 1000 - (rounds + 1) * ROUND * STEP) / STEP * STEP;
    let model = Mutex::new(Model {
        start,
        next: 0,
        samples: BTreeMap::new(),
        deletions: Vec::new(),
    });
    let mut chance = chance();
    let begun = Instant::now();
    for round in 0..rounds {
        let (url, over) = (server.url(), AtomicBool::new(false));
        let disturbed = std::thread::scope(|scope| {
            scope.spawn(|| write(&url, &model, &over));
            scope.spawn(|| trouble(&url, &model, &over));
            let store = &mut store;
            let disturbed = scope.spawn(move || store.disturb());
            std::thread::sleep(Duration::from_millis(chance.random_range(300..4000)));
            server.kill();
            over.store(true, Ordering::Relaxed);
            disturbed.join().expect("it does not panic")
        });
        // Whether the store answers or not.
        server.restart();
        // A deletion has to know what the bucket has seen.
        store.calm();
        repeat(&url, &model);
        if round % 4 == 3 {
            let headers = [("X-Scope-OrgID", GUEST)];
            wait_until("a tenant to be deleted", Duration::from_secs(60), || {
                let api = Api::new(&url, None);
                let answer = api.post("/purger/delete_tenant", &headers, b"");
                answer.is_ok_and(|answer| answer.status < 300)
            });
            let mut model = model.lock().unwrap();
            model.samples.retain(|(tenant, _, _), _| *tenant != GUEST);
        }
        let model = model.lock().unwrap();
        let what = format!("round {round}, the store {disturbed}");
        let found = check(&server, &model, &what);
        let blocks = files(&server.data().join("blocks")).len();
        let keys = store.keys().len();
        println!(
            "{what}: {found} samples, {blocks} files of blocks, {keys} objects, {:?}",
            begun.elapsed()
        );
    }
    let model = model.into_inner().unwrap();
    // What nothing names is looked for at a start, and when it is as old as the deletion delay.
    server.stop();
    server.restart();
    flush(&server);
    let blocks = server.data().join("blocks");
    let what = "blocks to leave the disk, and the bucket to be in order";
    let mut state = (Vec::new(), Vec::new());
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        state = (files(&blocks), store.faults());
        if state.0.is_empty() && state.1.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(
        state.0.is_empty() && state.1.is_empty(),
        "waited for {what}: {state:#?}"
    );
    let found = check(&server, &model, "at the end");
    println!(
        "at the end: {found} samples, {} objects",
        store.keys().len()
    );
    check_disk(&server);
    server.kill();
    server.restart();
    check(&server, &model, "after the last kill -9");
}
