//! Snapshots: what is in one, that it never changes, and that there is none of which a half is missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use ::model::{CoreId, TenantId};
use reactor::{Op, Reactor};

use super::client::{Client, Found};
use super::cuts::{Cutting, boundary, labels};
use super::node::TestNode;
use crate::limits::{CUT_MS, SNAPSHOTS_WAITING_MAX};
use crate::{Message, Options, Snapshot};

fn ask(run: &mut Cutting, skip_head: bool) -> Receiver<Result<String, String>> {
    let (sender, reply) = channel();
    let snapshot = Snapshot {
        skip_head,
        canceled: Arc::default(),
        reply: Box::new(move |result| sender.send(result).unwrap_or_default()),
    };
    let mailboxes = run.node().mailboxes.clone();
    mailboxes.send(CoreId(0), Message::Snapshot(snapshot));
    reply
}

/// A turn of every core. The clock goes on by minutes where nothing happens, in each of which every core has an order for the keeper.
fn turn(run: &mut Cutting) {
    run.node().turn_until(1, || false);
    for _ in 0..4 {
        run.node().turn_keeper();
    }
}

/// `None`: the machine has no power.
fn take(run: &mut Cutting, skip_head: bool) -> Option<Result<String, String>> {
    let reply = ask(run, skip_head);
    let (sim, mut result) = (run.sim.clone(), None);
    for _ in 0..2000 {
        result = result.take().or_else(|| reply.try_recv().ok());
        if result.is_some() || sim.is_off() {
            break;
        }
        turn(run);
    }
    assert!(result.is_some() || sim.is_off(), "a snapshot is answered");
    result.filter(|_| !sim.is_off())
}

fn at(name: &str) -> PathBuf {
    Path::new("data/snapshots").join(name)
}

fn entries(run: &Cutting, path: &Path) -> Vec<(String, bool)> {
    let path = path.to_owned();
    let listed = Reactor::sim(&run.sim).run(Op::List { path });
    let entries = listed.map(|done| done.entries()).unwrap_or_default();
    let one = |entry: reactor::Entry| (entry.name.into_string().unwrap(), entry.is_dir);
    entries.into_iter().map(one).collect()
}

/// The parts of a snapshot in the directories of cores.
fn parts(run: &Cutting, name: &str) -> Vec<PathBuf> {
    let part = |dir: &PathBuf| dir.join("snapshots").join(name);
    run.options.core_dirs.iter().map(part).collect()
}

/// All files of a snapshot.
fn content(run: &Cutting, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut content = files(run, &at(name));
    for part in parts(run, name) {
        content.extend(files(run, &part));
    }
    content
}

/// All files below a directory, with what is in them.
fn files(run: &Cutting, path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for (name, is_dir) in entries(run, path) {
        let path = path.join(name);
        match is_dir {
            true => found.extend(files(run, &path)),
            false => found.push((path.clone(), run.sim.live(&path).expect("it is there"))),
        }
    }
    found
}

/// A node on a snapshot, with another number of cores perhaps, or why it does not start.
fn restore(run: &Cutting, name: &str, cores: usize) -> Result<TestNode, crate::Error> {
    let parts = parts(run, name).into_iter();
    let options = Options {
        data_dir: at(name),
        // One without heads has no parts.
        core_dirs: parts
            .filter(|part| !entries(run, part).is_empty())
            .collect(),
        cores: (0..cores).collect(),
        ..run.options.clone()
    };
    TestNode::start(&run.sim, &options)
}

fn read(node: &mut TestNode, tenant: &TenantId) -> Found {
    let client = Client::new(node.mailboxes.clone());
    let mut asked = client.select(tenant, &[], (i64::MIN, i64::MAX));
    let mut found = None;
    let answered = node.turn_until(1000, || {
        found = found.take().or_else(|| asked.settle());
        found.is_some()
    });
    assert!(answered, "a read is answered");
    found.expect("answered").expect("a sound node")
}

fn delete(run: &mut Cutting, tenant: &TenantId, times: (i64, i64)) {
    let client = Client::new(run.node().mailboxes.clone());
    let reply = client.delete(tenant, &[&[]], times);
    let mut result = None;
    for _ in 0..2000 {
        result = result.or_else(|| reply.try_recv().ok());
        if result.is_some() {
            break;
        }
        turn(run);
    }
    result.expect("answered").expect("a sound node");
}

/// Two tenants: in blocks, in closed chunks, in memory; with a deletion that blocks still need.
fn filled(seed: u64, cores: usize) -> (Cutting, [TenantId; 2]) {
    filled_on(seed, cores, 0)
}

/// The same with cores in so many directories.
fn filled_on(seed: u64, cores: usize, dirs: usize) -> (Cutting, [TenantId; 2]) {
    let tenants = ["a", "b"].map(|name| TenantId::new(name).unwrap());
    let mut run = Cutting::new(seed, cores);
    for dir in 0..dirs {
        let dir = PathBuf::from(format!("disk{dir}"));
        Reactor::sim(&run.sim).create_dirs(&dir).unwrap();
        run.options.core_dirs.push(dir);
    }
    assert!(run.start());
    let from = boundary(run.node()) - 3 * CUT_MS;
    for tenant in &tenants {
        run.history(tenant, from, 310);
    }
    run.cut();
    let times = (from + 20 * 60_000, from + 60 * 60_000);
    delete(&mut run, &tenants[0], times);
    for tenant in &tenants {
        run.history(tenant, from + 310 * 60_000, 30);
    }
    (run, tenants)
}

#[test]
fn a_snapshot_has_all_that_was_acknowledged_before_it_and_never_changes() {
    for (cores, dirs) in [(1, 0), (3, 0), (3, 2)] {
        let (mut run, tenants) = filled_on(7, cores, dirs);
        let before: Vec<Found> = tenants.iter().map(|tenant| run.read(tenant)).collect();
        assert!(before[0].len() < before[1].len() || before[0] != before[1]);
        let name = take(&mut run, false).expect("power").expect("a snapshot");
        let blocks = take(&mut run, true).expect("power").expect("a snapshot");
        let whole = content(&run, &name);
        assert!(whole.iter().all(|(path, _)| !path.ends_with("unfinished")));
        let without_head = content(&run, &blocks);
        assert!(without_head.len() > 1 && without_head.len() < whole.len());
        for part in parts(&run, &name) {
            assert!(files(&run, &part).len() > 2, "{}", part.display());
        }

        // What is done behind it: more samples, chunks, cuts, checkpoints, another deletion.
        let from = boundary(run.node()) - 3 * CUT_MS;
        for round in 0..3 {
            for tenant in &tenants {
                run.history(tenant, from + (340 + 120 * round) * 60_000, 120);
            }
            run.cut();
            run.node().checkpoint().unwrap();
        }
        delete(&mut run, &tenants[1], (i64::MIN, i64::MAX));
        for _ in 0..3 {
            run.node().checkpoint().unwrap();
            run.cut();
        }
        assert!(run.read(&tenants[1]).is_empty());
        assert!(content(&run, &name) == whole, "it has changed");

        // A node starts on it, with other cores too, and what it does there changes nothing of the first.
        let after: Vec<Found> = tenants.iter().map(|tenant| run.read(tenant)).collect();
        for count in [cores, 2] {
            let mut node = restore(&run, &name, count).expect("it starts");
            for (tenant, before) in tenants.iter().zip(&before) {
                assert_eq!(&read(&mut node, tenant), before, "{count} cores");
            }
            node.stop();
        }
        let mut node = restore(&run, &blocks, cores).expect("it starts");
        let cut = read(&mut node, &tenants[1]);
        let in_blocks = |found: &Found| found.values().map(|of| of.len()).sum::<usize>();
        assert!(in_blocks(&cut) > 50 && in_blocks(&cut) < in_blocks(&before[1]));
        node.stop();
        for (tenant, after) in tenants.iter().zip(&after) {
            assert_eq!(&run.read(tenant), after, "the first node");
        }
    }
}

/// The power goes, or the process ends, behind every operation: a snapshot that has its name is whole, and on one that has not nobody starts.
#[test]
fn a_power_cut_after_every_operation_leaves_a_whole_snapshot_or_none() {
    cut_power_everywhere(0, 0, 1);
}

/// The same with a part in each of two directories: under its name a snapshot has all of its parts.
#[test]
fn so_does_a_power_cut_where_cores_are_in_directories() {
    cut_power_everywhere(2, 0, 2);
    cut_power_everywhere(2, 1, 2);
}

/// In force: the cores of a first start move into directories.
fn generation(dirs: usize) -> u32 {
    if dirs == 0 { 1 } else { 2 }
}

fn cut_power_everywhere(dirs: usize, from: u64, step: usize) {
    let (mut whole, mut half) = (0, 0);
    for stop in (from..).step_by(step) {
        let (mut run, tenants) = filled_on(stop, 2, dirs);
        let before: Vec<Found> = tenants.iter().map(|tenant| run.read(tenant)).collect();
        run.sim.stop_after(stop);
        let taken = take(&mut run, stop % 5 == 4);
        run.end();
        let found = entries(&run, Path::new("data/snapshots"));
        if let Some(Ok(name)) = &taken {
            let is_there = found.iter().any(|(found, _)| found == name);
            assert!(is_there, "stopped after {stop}: {name} was told");
        }
        for (name, _) in found {
            let what = format!("stopped after {stop}: {name}");
            if name.ends_with(".tmp") {
                let wal = at(&name).join("wal");
                let log = wal.join(format!("g{:010}/core-000", generation(dirs)));
                let begun = !entries(&run, &log).is_empty()
                    || entries(&run, &wal)
                        .iter()
                        .any(|(file, _)| file == "manifest");
                // Of one that lacks nothing but its name it may.
                if let Ok(mut node) = restore(&run, &name, 2)
                    && begun
                {
                    for (tenant, before) in tenants.iter().zip(&before) {
                        assert_eq!(&read(&mut node, tenant), before, "{what}: a half starts");
                    }
                    continue;
                }
                half += u64::from(begun);
                continue;
            }
            whole += 1;
            let mut node = restore(&run, &name, 2).expect("it starts");
            if stop % 5 != 4 {
                for (tenant, before) in tenants.iter().zip(&before) {
                    assert_eq!(&read(&mut node, tenant), before, "{what}");
                }
            }
        }
        assert!(run.start(), "the node itself starts");
        for (tenant, before) in tenants.iter().zip(&before) {
            assert_eq!(&run.read(tenant), before, "stopped after {stop}");
        }
        let left = entries(&run, Path::new("data/snapshots"));
        let unfinished = left.iter().find(|(name, _)| name.ends_with(".tmp"));
        assert_eq!(unfinished, None, "stopped after {stop}");
        // Nothing is left of parts either.
        let named: Vec<String> = left.into_iter().map(|(name, _)| name).collect();
        for dir in &run.options.core_dirs {
            for (part, _) in entries(&run, &dir.join("snapshots")) {
                assert!(named.contains(&part), "stopped after {stop}: {part}");
            }
        }
        if taken.is_some() && stop % 5 != 4 {
            break;
        }
    }
    assert!(whole > 1 && half > 20, "{whole} whole, {half} half");
}

/// More wait than may: who comes then is told so; and who waits when the node stops is told too.
#[test]
fn only_so_many_snapshots_wait_and_all_are_answered_when_the_node_stops() {
    let (mut run, tenants) = filled(3, 1);
    run.push(&tenants[0], &vec![(labels(0), 1, 1.0)]);
    let replies: Vec<_> = (0..SNAPSHOTS_WAITING_MAX + 2)
        .map(|_| ask(&mut run, false))
        .collect();
    run.node().turn(0);
    for _ in 0..replies.len() {
        run.node().turn_keeper();
    }
    let answered = |reply: &Receiver<Result<String, String>>| reply.try_recv().ok();
    let refused: Vec<_> = replies.iter().filter_map(answered).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    run.into_node().stop();
    let rest: Vec<_> = replies.iter().filter_map(answered).collect();
    assert_eq!(rest.len(), SNAPSHOTS_WAITING_MAX, "{rest:?}");
}

#[test]
fn none_is_made_for_whoever_gave_up_while_cores_wrote_checkpoints() {
    let (mut run, _) = filled(3, 1);
    let (sender, reply) = channel();
    let canceled = Arc::new(AtomicBool::new(false));
    let snapshot = Snapshot {
        skip_head: false,
        canceled: canceled.clone(),
        reply: Box::new(move |result| sender.send(result).unwrap_or_default()),
    };
    let mailboxes = run.node().mailboxes.clone();
    mailboxes.send(CoreId(0), Message::Snapshot(snapshot));
    run.node().turn(0);
    for _ in 0..4 {
        run.node().turn_keeper();
    }
    assert!(
        reply.try_recv().is_err(),
        "the checkpoint is not written yet"
    );
    canceled.store(true, Ordering::Relaxed);
    let mut result = None;
    for _ in 0..2000 {
        turn(&mut run);
        result = result.or_else(|| reply.try_recv().ok());
        if result.is_some() {
            break;
        }
    }
    assert!(result.expect("answered").is_err());
    assert!(entries(&run, Path::new("data/snapshots")).is_empty());
}

/// A snapshot is another node: neither does it take the directories of the first for its parts, nor the first those; and without its parts it is no empty node.
#[test]
fn parts_and_directories_of_the_node_are_not_taken_for_each_other() {
    let (mut run, tenants) = filled_on(9, 2, 2);
    let before = run.read(&tenants[0]);
    let name = take(&mut run, false).expect("power").expect("a snapshot");
    run.end();
    let (own, parts) = (run.options.core_dirs.clone(), parts(&run, &name));
    let start = |run: &Cutting, data_dir: PathBuf, core_dirs: &[PathBuf]| {
        let options = Options {
            data_dir,
            core_dirs: core_dirs.to_vec(),
            ..run.options.clone()
        };
        TestNode::start(&run.sim, &options).map_err(|error| error.to_string())
    };
    for (data, dirs, word) in [
        (at(&name), &own, "another node"),
        (at(&name), &Vec::new(), "it holds core 0"),
        ("data".into(), &parts, "another node"),
    ] {
        let error = start(&run, data, dirs).err().expect("it does not fit");
        assert!(error.contains(word), "{word}: {error}");
    }
    // Wherever its parts are, in whatever order.
    let moved = PathBuf::from("moved");
    let (from, to) = (parts[0].clone(), moved.clone());
    Reactor::sim(&run.sim).run(Op::Rename { from, to }).unwrap();
    let mut node = start(&run, at(&name), &[parts[1].clone(), moved]).unwrap();
    assert_eq!(read(&mut node, &tenants[0]), before);
    node.stop();
    assert!(run.start());
    assert_eq!(run.read(&tenants[0]), before);
}

/// A directory of that name, of whom it may be, stood for all snapshots of the core directories, and took them with it.
#[test]
fn an_ending_without_a_name_is_no_snapshot_that_was_begun() {
    let named = |file: &str| crate::snapshot::unfinished_name(&file.into());
    assert_eq!(named(".tmp"), None);
    assert_eq!(named("a.tmp").as_deref(), Some("a"));
    assert_eq!(named("a"), None);
}
