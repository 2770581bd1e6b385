//! `myelin tool wal inspect|verify` on the logs of a real server: while it writes, after `kill -9`, and damaged in every way that a disk knows.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use tests::{Server, ServerOptions, unix_now};

use crate::series::push_forty;

fn tool(words: &[&str]) -> (i32, String) {
    let program = tests::binary("myelin").unwrap();
    let mut command = Command::new(program);
    command.args(["tool", "wal"]).args(words);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (status.code().expect("it ends by itself"), text.concat())
}

/// Forty series, of all cores.
fn write(server: &Server, round: i64) {
    push_forty(
        server,
        unix_now() * 1000 - 60_000 + round * 10,
        round as f64,
    );
}

/// Files of a core's log whose names begin so, ascending.
fn files(dir: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(name)
        })
        .collect();
    found.sort();
    found
}

/// Where frames of a segment begin.
fn frames(segment: &Path) -> Vec<usize> {
    let bytes = std::fs::read(segment).unwrap();
    let number: u32 = segment
        .to_str()
        .unwrap()
        .rsplit_once('-')
        .unwrap()
        .1
        .parse()
        .unwrap();
    let is_frame = |at: &usize| {
        bytes[at + 8..at + 12] == *b"MYFR" && bytes[at + 16..at + 20] == number.to_le_bytes()
    };
    (4096..bytes.len()).step_by(4096).filter(is_frame).collect()
}

#[test]
fn logs_of_a_server_are_read_beside_it_and_after_its_end_and_damage_is_named() {
    let place = tempfile::tempdir().unwrap();
    let disk = place.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let args = [
        "-cores=2".to_owned(),
        format!("-data.core-dirs={}", disk.display()),
    ];
    let options = ServerOptions {
        args: args.to_vec(),
        ..ServerOptions::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    for wrong in [&["verify"][..], &["inspect", "-all"], &["dump", "."]] {
        assert_eq!(tool(wrong).0, 2, "{wrong:?}");
    }
    let data = server.data().to_str().unwrap().to_owned();
    let stop = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        let writer = scope.spawn(move || {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                write(server, rounds);
                rounds += 1;
            }
            rounds
        });
        for _ in 0..8 {
            let (code, text) = tool(&["verify", &data]);
            assert_eq!(code, 0, "while the server writes: {text}");
            assert_eq!(tool(&["inspect", &data]).0, 0);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    server.kill();
    // Another epoch, so that the log has a segment before its last.
    server.restart();
    write(&server, rounds);
    let rounds = rounds + 1;
    server.kill();

    let (code, text) = tool(&["verify", &data]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches(": sound: ").count(), 2, "{text}");
    let (code, text) = tool(&["inspect", &data]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains(&format!("cores also in {}", disk.display())),
        "{text}"
    );
    // What a start would replay is what was acknowledged.
    let mut replayed = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("a start replays ") {
            let held = lines.next().unwrap().trim_start();
            replayed += held.split_once(' ').unwrap().0.parse::<i64>().unwrap();
        }
    }
    assert_eq!(replayed, 40 * rounds, "{text}");

    let core = |core| disk.join(format!("wal/g0000000002/core-{core:03}"));
    let segment = files(&core(0), "segment-")[0].clone();
    let checkpoint = files(&core(0), "checkpoint-")[0].clone();
    let places = frames(&segment);
    assert!(places.len() > 10, "{places:?}");
    let damaged = |path: &Path, change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let whole = std::fs::read(path).unwrap();
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(path, &bytes).unwrap();
        for command in ["verify", "inspect"] {
            let (code, text) = tool(&[command, &data]);
            assert_eq!(code, 1, "{expected}: {text}");
            let named = format!("{} {expected}", path.display());
            assert!(text.contains(&named), "{named}: {text}");
        }
        assert_eq!(std::fs::read(path).unwrap(), bytes, "nothing is repaired");
        std::fs::write(path, &whole).unwrap();
    };
    let middle = places[places.len() / 2];
    let flip = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 4;
    damaged(
        &segment,
        &flip(middle + 70),
        &format!("is corrupt at offset {middle}"),
    );
    damaged(&segment, &flip(100), "is corrupt at offset 0");
    damaged(&checkpoint, &flip(4096 + 66), "is corrupt at offset 4096");
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(middle);
    damaged(&segment, &cut, &format!("is corrupt at offset {middle}"));
    let other = std::fs::read(&files(&core(1), "segment-")[0]).unwrap();
    let foreign = |bytes: &mut Vec<u8>| *bytes = other.clone();
    damaged(&segment, &foreign, "belongs to core 1, not to core 0");
    // A file that is no log's is told, and no damage; nor is a last commit that is unfinished.
    std::fs::write(core(1).join("notes.txt"), "mine").unwrap();
    let (code, text) = tool(&["inspect", &data]);
    assert!(code == 0 && text.contains("notes.txt"), "{text}");
    let last = files(&core(0), "segment-");
    let last = last.iter().rfind(|path| !frames(path).is_empty()).unwrap();
    let (whole, end) = (std::fs::read(last).unwrap(), *frames(last).last().unwrap());
    let mut torn = whole.clone();
    torn[end + 80] ^= 1;
    std::fs::write(last, &torn).unwrap();
    let (code, text) = tool(&["verify", &data]);
    assert!(
        code == 0 && text.contains("torn at its end, as is normal"),
        "{text}"
    );
    assert!(
        text.contains(&format!("{} at offset {end}", last.display())),
        "{text}"
    );
    std::fs::write(last, &whole).unwrap();

    // Nothing was changed by all that: it starts, and has all.
    server.restart();
    let found = server
        .api(None)
        .query("sum(count_over_time(up[5m]))", unix_now() as f64 + 5.0);
    assert_eq!(found[0]["value"][1], (40 * rounds).to_string(), "{found}");
}
