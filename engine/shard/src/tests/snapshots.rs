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
fn restore(run: &Cutting, path: PathBuf, cores: usize) -> Result<TestNode, crate::Error> {
    let options = Options {
        data_dir: path,
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
    let tenants = ["a", "b"].map(|name| TenantId::new(name).unwrap());
    let mut run = Cutting::new(seed, cores);
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
    for cores in [1, 3] {
        let (mut run, tenants) = filled(7, cores);
        let before: Vec<Found> = tenants.iter().map(|tenant| run.read(tenant)).collect();
        assert!(before[0].len() < before[1].len() || before[0] != before[1]);
        let name = take(&mut run, false).expect("power").expect("a snapshot");
        let blocks = take(&mut run, true).expect("power").expect("a snapshot");
        let content = files(&run, &at(&name));
        assert!(
            content
                .iter()
                .all(|(path, _)| !path.ends_with("unfinished"))
        );
        let without_head = files(&run, &at(&blocks));
        assert!(without_head.len() > 1 && without_head.len() < content.len());

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
        assert!(files(&run, &at(&name)) == content, "it has changed");

        // A node starts on it, with other cores too, and what it does there changes nothing of the first.
        let after: Vec<Found> = tenants.iter().map(|tenant| run.read(tenant)).collect();
        for count in [cores, 2] {
            let mut node = restore(&run, at(&name), count).expect("it starts");
            for (tenant, before) in tenants.iter().zip(&before) {
                assert_eq!(&read(&mut node, tenant), before, "{count} cores");
            }
            node.stop();
        }
        let mut node = restore(&run, at(&blocks), cores).expect("it starts");
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
    let (mut whole, mut half) = (0, 0);
    for stop in 0.. {
        let (mut run, tenants) = filled(stop, 2);
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
                let logs = at(&name).join("wal/g0000000001");
                let begun = !entries(&run, &logs.join("core-000")).is_empty();
                // Of one that lacks nothing but its name it may.
                if let Ok(mut node) = restore(&run, at(&name), 2)
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
            let mut node = restore(&run, at(&name), 2).expect("it starts");
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
