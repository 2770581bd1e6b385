//! Cores in several directories, with the real binary: where files are, `kill -9`, what is refused, a snapshot with its parts.

use std::path::{Path, PathBuf};

use tests::{Server, ServerOptions, unix_now};

use crate::series::push_forty;

const CORES: usize = 4;

fn flags(dirs: &[&Path]) -> Vec<String> {
    let list: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    vec![
        format!("-cores={CORES}"),
        format!("-data.core-dirs={}", list.join(",")),
    ]
}

/// Names of files and directories below one, relative to it.
fn below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(
                below(&path)
                    .into_iter()
                    .map(|rest| format!("{name}/{rest}")),
            );
        }
        found.push(name);
    }
    found
}

/// Cores of which a segment of the log is in a directory.
fn cores_in(dir: &Path) -> Vec<usize> {
    let files = below(dir);
    let has_log = |core: &usize| {
        let core = format!("/core-{core:03}/segment-");
        files.iter().any(|file| file.contains(&core))
    };
    (0..CORES).filter(has_log).collect()
}

/// Forty series, of all cores; times are of one minute.
fn write(server: &Server, round: i64) {
    push_forty(
        server,
        unix_now() * 1000 - 30_000 + round * 100,
        round as f64,
    );
}

fn check(server: &Server, samples: i64) {
    let api = server.api(None);
    let query = "sum(count_over_time(up[5m]))";
    let found = api.query(query, unix_now() as f64 + 5.0);
    assert_eq!(found[0]["value"][1], (40 * samples).to_string(), "{found}");
}

/// A start that is refused, and what it says.
fn refused(data: &Path, dirs: &[&Path]) -> String {
    let program = tests::binary("myelin").unwrap();
    let output = std::process::Command::new(program)
        .arg(format!("-data.dir={}", data.display()))
        .arg(format!("-server.http-listen-port={}", tests::free_port()))
        .arg(format!("-server.grpc-listen-port={}", tests::free_port()))
        .args(flags(dirs))
        .output()
        .unwrap();
    assert!(!output.status.success(), "it started");
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn cores_are_spread_over_directories_and_nothing_is_lost_or_taken_for_another() {
    let place = tempfile::tempdir().unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|name| place.path().join(name));
    for dir in [&one, &two, &three] {
        std::fs::create_dir(dir).unwrap();
    }
    let options = ServerOptions {
        args: flags(&[&one, &two]),
        ..ServerOptions::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    write(&server, 0);
    let data = server.data().to_owned();
    let is_spread = |what: &str| {
        assert_eq!(cores_in(&one), [0, 2], "{what}");
        assert_eq!(cores_in(&two), [1, 3], "{what}");
        assert!(cores_in(&data).is_empty(), "{what}");
    };
    is_spread("at first");
    server.kill();
    server.restart();
    check(&server, 1);
    write(&server, 1);
    // In another order.
    server.kill();
    let args = flags(&[&two, &one]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    server.restart_with(&args);
    check(&server, 2);
    is_spread("in another order");
    let metrics = server.admin().get("/metrics", &[]).text();
    for (core, dir) in [(0, &one), (1, &two)] {
        let dir = dir.display();
        for line in [
            format!("myelin_core_dir_info{{core=\"{core}\",dir=\"{dir}\"}} 1"),
            format!("myelin_core_dir_free_bytes{{dir=\"{dir}\"}} "),
            format!("myelin_core_dir_nearly_full{{dir=\"{dir}\"}} "),
        ] {
            assert!(metrics.contains(&line), "{line}");
        }
    }
    // Another node wants one of them while this one runs.
    let stranger = place.path().join("stranger");
    let told = refused(&stranger, &[&two]);
    assert!(
        told.contains(two.to_str().unwrap()) && told.contains("another node"),
        "{told}"
    );
    let snapshot = snapshot(&server);
    write(&server, 2);
    server.kill();

    // Left out; not mounted, with and without the mount point.
    let told = refused(&data, &[&one]);
    assert!(
        told.contains(two.to_str().unwrap()) && told.contains("core 1, 3"),
        "{told}"
    );
    let aside = place.path().join("aside");
    std::fs::rename(&two, &aside).unwrap();
    let told = refused(&data, &[&one, &two]);
    assert!(
        told.contains(two.to_str().unwrap()) && told.contains("does not exist"),
        "{told}"
    );
    std::fs::create_dir(&two).unwrap();
    let told = refused(&data, &[&one, &two]);
    assert!(
        told.contains(two.to_str().unwrap()) && told.contains("mounted"),
        "{told}"
    );
    assert!(below(&two).is_empty(), "{:?}", below(&two));
    std::fs::remove_dir(&two).unwrap();
    std::fs::rename(&aside, &two).unwrap();

    // A third one; then one is left and taken away.
    let args = flags(&[&one, &two, &three]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    server.restart_with(&args);
    check(&server, 3);
    assert_eq!(cores_in(&three), [2]);
    server.kill();
    let leaving = format!("-data.core-dirs-leaving={}", one.display());
    let args = [flags(&[&two, &three]), vec![leaving]].concat();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    server.restart_with(&args);
    check(&server, 3);
    assert!(cores_in(&one).is_empty());
    server.kill();
    std::fs::rename(&one, place.path().join("taken away")).unwrap();
    let args = flags(&[&three, &two]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    server.restart_with(&args);
    check(&server, 3);
    server.stop();
    restore(&data, &snapshot, &[&place.path().join("taken away"), &two]);
}

fn snapshot(server: &Server) -> String {
    let path = "/prometheus/api/v1/admin/tsdb/snapshot";
    let answer = server.admin().post(path, &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    json["data"]["name"].as_str().expect("a name").to_owned()
}

/// The snapshot, made when there were two rounds, is found in its parts.
fn restore(data: &Path, name: &str, dirs: &[&Path]) {
    let at = |dir: &Path| -> PathBuf { dir.join("snapshots").join(name) };
    let told = refused(&at(data), &[]);
    assert!(told.contains("it holds core"), "{told}");
    let parts: Vec<PathBuf> = dirs.iter().map(|dir| at(dir)).collect();
    let parts: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
    let mut restored = Server::start(ServerOptions {
        data: Some(at(data)),
        args: flags(&parts),
        ..ServerOptions::default()
    })
    .expect("the binary is there");
    check(&restored, 2);
    write(&restored, 2);
    check(&restored, 3);
    restored.stop();
}
