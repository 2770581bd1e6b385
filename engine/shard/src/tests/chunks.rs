//! Closed chunks in their files: checkpoints that name them, restarts, other numbers of cores, damage.

use ::model::{CoreId, Labels, TenantId};
use reactor::Sim;

use super::client::{Client, Found, Ledger};
use super::node::{TestNode, options};
use crate::message::{ReadError, Select};
use crate::{Error, Message, Options};

const SERIES: usize = 30;

/// Chunks of ten samples in files of 4 KiB.
fn small(cores: usize) -> Options {
    Options {
        chunk_samples_max: 10,
        chunk_file_bytes: 4096,
        ..options(cores)
    }
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "up"), ("i", &i.to_string())]).unwrap()
}

/// Sends samples of all series at these times, and waits.
fn push(node: &mut TestNode, ledger: &mut Ledger, times: std::ops::Range<i64>) {
    let client = Client::new(node.mailboxes.clone());
    for time in times {
        let body = (0..SERIES)
            .map(|i| (labels(i), time * 1000, (time * 31 + i as i64) as f64 * 0.1))
            .collect();
        let mut sent: Vec<_> = client
            .push(&TenantId::fake(), &body, ledger)
            .into_iter()
            .collect();
        let done = node.turn_until(10_000, || {
            sent.retain(|sent| client.settle(sent, ledger).is_none());
            sent.is_empty()
        });
        assert!(done, "a push is answered");
    }
}

fn read(node: &mut TestNode) -> Result<Found, ReadError> {
    let client = Client::new(node.mailboxes.clone());
    let mut asked = client.select(&TenantId::fake(), &[], (i64::MIN, i64::MAX));
    let mut found = None;
    node.turn_until(10_000, || {
        found = found.take().or_else(|| asked.settle());
        found.is_some()
    });
    found.expect("a read is answered")
}

/// All sent so far, once more, after a crash.
fn restart(sim: &Sim, node: TestNode, cores: usize, ledger: &Ledger) -> TestNode {
    drop(node);
    sim.crash();
    let mut node = TestNode::start(sim, &small(cores)).unwrap();
    let found = read(&mut node).unwrap();
    ledger.check_acknowledged(&TenantId::fake(), &found);
    ledger.check_sent(&TenantId::fake(), &found);
    node
}

fn files(node: &TestNode) -> usize {
    node.cores
        .iter()
        .map(|core| core.memtable.chunks.file_count())
        .sum()
}

#[test]
fn a_checkpoint_names_closed_chunks_and_its_length_does_not_grow_with_them() {
    let sim = Sim::new(1);
    let mut node = TestNode::start(&sim, &small(1)).unwrap();
    let mut ledger = Ledger::default();
    let mut bytes = Vec::new();
    for round in 0..2 {
        push(&mut node, &mut ledger, round * 500..round * 500 + 500);
        let before = node.cores[0].checkpoints.bytes;
        node.checkpoint().unwrap();
        bytes.push(node.cores[0].checkpoints.bytes - before);
    }
    let totals = node.cores[0].memtable.totals;
    let grown = bytes[1] - bytes[0];
    let chunks = totals.sealed_chunks / 2;
    assert!(
        grown < chunks * 24,
        "{grown} bytes more for {chunks} chunks of {} bytes",
        totals.sealed_bytes / totals.sealed_chunks
    );
    let mut node = restart(&sim, node, 1, &ledger);
    assert_eq!(
        node.cores[0].memtable.totals.sealed_chunks,
        totals.sealed_chunks
    );
    assert_eq!(node.cores[0].memtable.totals.samples, totals.samples);
    // And on, from a checkpoint that names files of two lives.
    push(&mut node, &mut ledger, 1000..1100);
    node.checkpoint().unwrap();
    restart(&sim, node, 1, &ledger);
}

#[test]
fn another_number_of_cores_copies_the_chunks_of_all_former_cores() {
    let sim = Sim::new(2);
    let mut node = TestNode::start(&sim, &small(1)).unwrap();
    let mut ledger = Ledger::default();
    for (round, cores) in [3, 2, 1, 1].into_iter().enumerate() {
        let from = round as i64 * 200;
        push(&mut node, &mut ledger, from..from + 150);
        node.checkpoint().unwrap();
        push(&mut node, &mut ledger, from + 150..from + 200);
        node = restart(&sim, node, cores, &ledger);
        let copied = node.cores.iter().map(|core| &core.memtable);
        assert!(copied.clone().all(|m| m.chunks.foreign_keys().is_empty()));
    }
}

#[test]
fn a_damaged_chunk_fails_the_queries_that_need_it_and_names_its_place() {
    let sim = Sim::new(3);
    let mut node = TestNode::start(&sim, &small(1)).unwrap();
    let mut ledger = Ledger::default();
    push(&mut node, &mut ledger, 0..300);
    node.checkpoint().unwrap();
    drop(node);
    sim.crash();
    let path = "data/wal/g0000000001/core-000/chunks-0000000002";
    sim.flip(path, 1000, 4);
    let mut node = TestNode::start(&sim, &small(1)).unwrap();
    let error = read(&mut node).unwrap_err();
    let ReadError::Chunk(text) = &error else {
        panic!("{error}")
    };
    assert!(text.contains(path) && text.contains(" at "), "{text}");
    // Another number of cores has to copy it, and does not without being told to drop it.
    drop(node);
    sim.crash();
    let refused = TestNode::start(&sim, &small(2))
        .err()
        .expect("a damaged chunk");
    assert!(refused.to_string().contains(path), "{refused}");
    sim.crash();
    let salvage = Options {
        salvage: true,
        ..small(2)
    };
    let mut node = TestNode::start(&sim, &salvage).unwrap();
    assert!(
        node.notes.iter().any(|note| note.contains(path)),
        "{:?}",
        node.notes
    );
    let found = read(&mut node).unwrap();
    assert_eq!(ledger.missing(&TenantId::fake(), &found), 10, "one chunk");
}

#[test]
fn a_missing_chunk_file_refuses_the_start_unless_salvage_drops_it() {
    let sim = Sim::new(4);
    let mut node = TestNode::start(&sim, &small(1)).unwrap();
    let mut ledger = Ledger::default();
    push(&mut node, &mut ledger, 0..300);
    node.checkpoint().unwrap();
    node.checkpoint().unwrap();
    drop(node);
    sim.kill();
    let path = "data/wal/g0000000001/core-000/chunks-0000000001";
    let removal = reactor::Op::Remove { path: path.into() };
    reactor::Reactor::sim(&sim).run(removal).unwrap();
    let refused = TestNode::start(&sim, &small(1))
        .err()
        .expect("a file is missing");
    assert!(
        matches!(&refused, Error::Log(e) if e.is_corruption()),
        "{refused}"
    );
    assert!(refused.to_string().contains(path), "{refused}");
    sim.kill();
    let salvage = Options {
        salvage: true,
        ..small(1)
    };
    let mut node = TestNode::start(&sim, &salvage).unwrap();
    let found = read(&mut node).unwrap();
    let missing = ledger.missing(&TenantId::fake(), &found);
    assert!(missing > 0 && missing < 300 * SERIES / 2, "{missing}");
    drop(node);
    sim.kill();
    TestNode::start(&sim, &small(1)).unwrap();
}

#[test]
fn files_go_with_the_retention_and_the_last_two_checkpoints() {
    let sim = Sim::new(5);
    let one_hour = Options {
        retention: std::time::Duration::from_secs(3600),
        ..small(1)
    };
    let mut node = TestNode::start(&sim, &one_hour).unwrap();
    let client = Client::new(node.mailboxes.clone());
    let limits = ::model::TenantLimits {
        retention: std::time::Duration::from_secs(3600),
        ..::model::TenantLimits::unlimited()
    };
    let mut client = client;
    client.limits = std::sync::Arc::new(limits);
    let mut ledger = Ledger::default();
    let mut now = 1_700_000_000_000;
    let mut most = 0;
    for round in 0..600 {
        now += 60_000;
        sim.advance(std::time::Duration::from_secs(60));
        let body = (0..SERIES)
            .map(|i| (labels(i), now, round as f64 * 1.1))
            .collect();
        let mut sent: Vec<_> = client
            .push(&TenantId::fake(), &body, &mut ledger)
            .into_iter()
            .collect();
        node.turn_until(10_000, || {
            sent.retain(|sent| client.settle(sent, &mut ledger).is_none());
            sent.is_empty()
        });
        if round % 20 == 0 {
            node.checkpoint().unwrap();
            node.turn_until(50, || false);
        }
        most = most.max(files(&node));
    }
    let left = files(&node);
    let written = node.cores[0].memtable.chunks.stats.written_bytes / 4096;
    assert!(
        left < 12 && most < 20 && written > 25,
        "{left} of {most} files left, {written} written"
    );
}

/// What a read was given stays readable, although the core has removed the file meanwhile.
#[test]
fn a_read_holds_the_files_that_it_needs() {
    let sim = Sim::new(6);
    let mut node = TestNode::start(&sim, &small(1)).unwrap();
    let mut ledger = Ledger::default();
    push(&mut node, &mut ledger, 0..200);
    node.checkpoint().unwrap();
    let (reply, result) = std::sync::mpsc::channel();
    let select = Select {
        tenant: TenantId::fake(),
        matchers: std::sync::Arc::from([]),
        min_time: i64::MIN,
        max_time: i64::MAX,
        with_chunks: true,
        with_exemplars: false,
        with_moved: false,
        with_starts: false,
        projection: ::model::Projection::All,
        newest: false,
        windows: None,
        series_max: 0,
        bytes_max: 0,
        chunks_max: 0,
        data_bytes_max: 0,
        hold: std::sync::Arc::new(|_| true),
        canceled: Default::default(),
        reply: Box::new(move |r| reply.send(r).unwrap()),
    };
    node.mailboxes.send(CoreId(0), Message::Select(select));
    let mut found = None;
    node.turn_until(1000, || {
        found = found.take().or_else(|| result.try_recv().ok());
        found.is_some()
    });
    let mut list = found.unwrap().unwrap();
    let path = "data/wal/g0000000001/core-000/chunks-0000000001";
    node.cores[0]
        .reactor
        .run(reactor::Op::Remove { path: path.into() })
        .unwrap();
    crate::load_chunks(&mut list, &|| false).unwrap();
    let samples: usize = list
        .iter()
        .flat_map(|series| &series.chunks)
        .map(|chunk| usize::from(chunk::count(&chunk.bytes.read().unwrap()).unwrap()))
        .sum();
    assert_eq!(samples, 200 * SERIES);
    assert_eq!(
        crate::load_chunks(&mut list, &|| true),
        Ok(()),
        "nothing is left to do"
    );
}
