//! The same core on the real disk: by io_uring and by helper threads, and whole nodes with threads.

use std::sync::Arc;
use std::time::Duration;

use ::model::{Labels, Matcher, TenantId};
use reactor::{IoMode, Reactor, World};

use super::client::{Body, Client, Ledger};
use super::node::{TestNode, options};
use crate::{Cores, Error, Options};

fn body(round: i64) -> Body {
    (0..50)
        .map(|i| {
            let labels = Labels::from_pairs([("__name__", "up"), ("instance", &format!("i-{i}"))]);
            // Some series are of histograms, some change from one kind to the other.
            let value = (round * i) as f64;
            let value = match i % 10 == 9 || (i % 10 == 8 && round % 3 == 0) {
                true => -1.0 - value,
                false => value,
            };
            (labels.unwrap(), round * 15_000, value)
        })
        .collect()
}

/// Pushes rounds, reads, restarts without and with a stop, with another number of cores: on a disk of this machine.
fn drive_by_hand(io: IoMode, world: World) {
    let dir = tempfile::tempdir().unwrap();
    let mut open = || {
        Reactor::open(&reactor::Options {
            io,
            ..Default::default()
        })
        .unwrap()
    };
    assert_eq!(open().world(), world, "asked for {io}, and it must be that");
    let fake = TenantId::fake();
    let mut ledger = Ledger::default();
    for (restart, cores) in [2, 2, 1, 3].into_iter().enumerate() {
        let options = Options {
            data_dir: dir.path().join("data"),
            ..options(cores)
        };
        let mut node = TestNode::start_in(&options, &mut open).unwrap();
        assert_eq!(node.samples_replayed, restart as u64 * 500);
        let client = Client::new(node.mailboxes.clone());
        for round in 0..10 {
            let body = body(restart as i64 * 10 + round);
            for sent in client.push(&fake, &body, &mut ledger) {
                let mut outcome = None;
                let answered = node.turn_until(10_000, || {
                    outcome = outcome.take().or_else(|| client.settle(&sent, &mut ledger));
                    outcome.is_some()
                });
                assert!(answered);
            }
        }
        let mut asked = client.select(&fake, &[Matcher::equal("__name__", "up")], (0, i64::MAX));
        let mut found = None;
        node.turn_until(10_000, || {
            found = found.take().or_else(|| asked.settle());
            found.is_some()
        });
        ledger.check_acknowledged(&fake, &found.unwrap().unwrap());
        if restart % 2 == 1 {
            node.stop();
        }
    }
    assert_eq!(ledger.samples.len(), 50);
}

#[test]
fn a_node_keeps_what_it_acknowledged_by_io_uring() {
    drive_by_hand(IoMode::Uring, World::Uring);
}

#[test]
fn a_node_keeps_what_it_acknowledged_by_helper_threads() {
    drive_by_hand(IoMode::Threads, World::Threads);
}

/// Waits for threads, not for time: a reply comes or the test harness' own deadline ends it.
fn push_all(client: &Client, tenant: &TenantId, body: &Body, ledger: &mut Ledger) {
    for sent in client.push(tenant, body, ledger) {
        while client.settle(&sent, ledger).is_none() {
            std::thread::yield_now();
        }
    }
}

fn read_all(client: &Client, tenant: &TenantId) -> super::client::Found {
    let mut asked = client.select(tenant, &[], (i64::MIN, i64::MAX));
    loop {
        if let Some(found) = asked.settle() {
            return found.unwrap();
        }
        std::thread::yield_now();
    }
}

#[test]
fn threads_serve_stop_and_start_again_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let cpus = crate::topology::cores(None, None).unwrap();
    let fake = TenantId::fake();
    let mut ledger = Ledger::default();
    for cores in [1, 3, 2] {
        let options = Options {
            data_dir: dir.path().to_owned(),
            cores: (0..cores).map(|core| cpus[core % cpus.len()]).collect(),
            poison_linger: Duration::from_secs(1),
            ..options(cores)
        };
        let progress = Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::new()));
        let told = progress.clone();
        let node = Cores::start(options.clone(), move |at| {
            assert!(at.bytes_done <= at.bytes_total);
            told.lock()
                .unwrap()
                .insert(at.core, (at.bytes_done, at.bytes_total));
        })
        .unwrap();
        let progress = progress.lock().unwrap();
        assert_eq!(
            progress.len(),
            if ledger.samples.is_empty() { 0 } else { cores }
        );
        // Files are longer than what they hold; it ends with all of that, also where a core has read the logs of others.
        let is_all = |&(done, total): &(u64, u64)| done == total && total > 0;
        assert!(progress.values().all(is_all), "{progress:?}");
        assert!(node.health().ready && node.health().poisoned.is_none());
        let locked = Cores::start(options, |_| {}).err();
        assert!(
            matches!(locked, Some(Error::Log(wal::Error::Locked { .. }))),
            "{locked:?}"
        );
        let client = Client::new(node.mailboxes().clone());
        ledger.check_acknowledged(&fake, &read_all(&client, &fake));
        let from = ledger.acknowledged as i64;
        for round in 0..20 {
            push_all(&client, &fake, &body(from + round), &mut ledger);
        }
        ledger.check_acknowledged(&fake, &read_all(&client, &fake));
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&node.registry().gather())
            .unwrap();
        assert!(
            text.contains("cortex_ingester_memory_series 50\n"),
            "{text}"
        );
        assert!(
            text.contains("myelin_commit_duration_seconds_count{core=\"0\"}"),
            "{text}"
        );
        node.stop();
        let late = client.push(&fake, &body(0), &mut ledger);
        assert!(late.is_empty(), "a stopped node takes nothing");
    }
}
