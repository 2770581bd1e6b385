//! Cores in several directories, with the real binary: where files are, `kill -9`, what is refused, a snapshot with its parts, a directory that is lost.

use std::path::{Path, PathBuf};

use model::{Labels, TenantId, identity};
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
    refused_with(data, &flags(dirs))
}

fn refused_with(data: &Path, flags: &[String]) -> String {
    let program = tests::binary("myelin").unwrap();
    let output = std::process::Command::new(program)
        .arg(format!("-data.dir={}", data.display()))
        .arg(format!("-server.http-listen-port={}", tests::free_port()))
        .arg(format!("-server.grpc-listen-port={}", tests::free_port()))
        .args(flags)
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

/// Samples of each of the forty series, by its number.
fn samples_of_each(server: &Server) -> Vec<usize> {
    let api = server.api(None);
    let found = api.query("count_over_time(up[5m])", unix_now() as f64 + 5.0);
    let mut counts = vec![0; 40];
    for one in found.as_array().expect("a vector") {
        let pod = one["metric"]["pod"].as_str().expect("a pod");
        let pod: usize = pod[1..].parse().expect("its number");
        let count = one["value"][1].as_str().expect("a number");
        counts[pod] = count.parse().expect("a number");
    }
    counts
}

/// A disk dies: what its cores had in no block is gone, and nothing else.
#[test]
fn a_lost_directory_takes_what_its_cores_had_in_no_block_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| place.path().join(name));
    for dir in [&one, &two] {
        std::fs::create_dir(dir).unwrap();
    }
    let options = ServerOptions {
        args: flags(&[&one, &two]),
        ..ServerOptions::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let data = server.data().to_owned();
    let lost = format!("-data.core-dir-lost={}", two.display());
    let with = |dirs: &[&Path], more: &str| [flags(dirs), vec![more.to_owned()]].concat();
    let restart = |server: &mut Server, args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        server.restart_with(&args);
    };
    write(&server, 0);
    let flushed = server.admin().get("/ingester/flush", &[("wait", "true")]);
    assert!(flushed.status < 300, "{}", flushed.text());
    write(&server, 1);
    assert_eq!(samples_of_each(&server), [2; 40]);
    server.kill();
    // It is there, so it is not lost.
    let told = refused_with(&data, &with(&[&one], &lost));
    assert!(
        told.contains(two.to_str().unwrap()) && told.contains("it is there"),
        "{told}"
    );
    // And then it is not.
    let aside = place.path().join("aside");
    std::fs::rename(&two, &aside).unwrap();
    for dirs in [&[&one, &two][..], &[&one]] {
        let dirs: Vec<&Path> = dirs.iter().map(|dir| dir.as_path()).collect();
        let told = refused(&data, &dirs);
        for word in [two.to_str().unwrap(), "core 1, 3", "data.core_dirs_lost"] {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
    for (args, word) in [
        (with(&[&one, &two], &lost), "data.core_dirs_lost"),
        (
            with(&[&one], &format!("-data.core-dir-lost={}", one.display())),
            "data.core_dirs_lost",
        ),
        (
            with(&[&one], &format!("-data.core-dir-lost={}", data.display())),
            "data.dir",
        ),
        (
            with(&[&one], &format!("-data.core-dir-lost={}", aside.display())),
            "the manifest calls no directory",
        ),
    ] {
        let told = refused_with(&data, &args);
        assert!(told.contains(word), "{word}: {told}");
    }
    restart(&mut server, &with(&[&one], &lost));
    let expected = |of_lost: usize, of_others: usize| -> Vec<usize> {
        let count = |pod: usize| {
            let pod = format!("p{pod}");
            let labels = Labels::from_pairs([("__name__", "up"), ("pod", &pod)]).unwrap();
            let hash = identity::placement(&TenantId::fake(), &labels, &mut Vec::new());
            match identity::core_of(hash, CORES as u16).0 % 2 {
                0 => of_others,
                _ => of_lost,
            }
        };
        (0..40).map(count).collect()
    };
    let (left, others) = (expected(1, 2), expected(0, 1));
    assert!(others.contains(&0) && others.contains(&1), "{others:?}");
    assert_eq!(samples_of_each(&server), left);
    assert_eq!(cores_in(&one), [0, 1, 2, 3]);
    let log = server.child().log();
    let note = format!("{} is LOST", two.display());
    assert!(log.contains(&note) && log.contains("core 1, 3"), "{log}");
    let metrics = server.admin().get("/metrics", &[]).text();
    let corruptions = metrics
        .lines()
        .filter(|line| line.starts_with("cortex_ingester_wal_corruptions_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert_eq!(corruptions.sum::<f64>(), 2.0, "one for each log");
    // New samples of all series; then with the option once more, and without it.
    write(&server, 2);
    assert_eq!(samples_of_each(&server), expected(2, 3));
    server.kill();
    restart(&mut server, &with(&[&one], &lost));
    assert_eq!(samples_of_each(&server), expected(2, 3));
    let log = server.child().log();
    assert!(log.contains("need not be named as lost"), "{log}");
    server.kill();
    restart(&mut server, &flags(&[&one]));
    assert_eq!(samples_of_each(&server), expected(2, 3));
    write(&server, 3);
    server.kill();
    // The disk is found again: nothing of it is taken.
    std::fs::rename(&aside, &two).unwrap();
    let told = refused(&data, &[&one, &two]);
    let word = "its manifest does not know of";
    assert!(
        told.contains(two.to_str().unwrap()) && told.contains(word),
        "{told}"
    );
    restart(&mut server, &flags(&[&one]));
    assert_eq!(samples_of_each(&server), expected(3, 4));
    server.stop();
}
