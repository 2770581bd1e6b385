//! Deletions, one claim at a time; what holds under anything is in `model` and `simulation`.

use std::path::Path;

use super::*;
use crate::limits::{CUT_MS, PARK_AFTER_S};
use crate::memtable::Sealed;
use crate::tests::client::{Asked, Client, Found};
use crate::tests::cuts::{self, Cutting};

fn answer(one: &mut One, mut asked: Asked) -> Found {
    let mut found = None;
    let answered = one.node.turn_until(1000, || {
        found = found.take().or_else(|| asked.settle());
        found.is_some()
    });
    assert!(answered, "a read is answered");
    found.expect("answered").expect("a sound node")
}

fn all(one: &mut One, tenant: &TenantId) -> Found {
    let client = Client::new(one.node.mailboxes.clone());
    let asked = client.select(tenant, &[], (i64::MIN, i64::MAX));
    answer(one, asked)
}

fn delete(one: &mut One, tenant: &TenantId, i: &str, times: (i64, i64)) {
    let client = Client::new(one.node.mailboxes.clone());
    let reply = client.delete(tenant, &[&[Matcher::equal("i", i)]], times);
    let mut result = None;
    let answered = one.node.turn_until(1000, || {
        result = result.take().or_else(|| reply.try_recv().ok());
        result.is_some()
    });
    assert!(answered, "a deletion is answered");
    result.expect("answered").expect("a sound node");
}

/// Story: until a collection swept them, up to a minute later, what had been deleted was counted, values of a tenant that had been wiped included.
#[test]
fn cardinality_counts_nothing_that_was_deleted() {
    let (mut one, tenant) = (One::new(), TenantId::fake());
    let all: Vec<Labels> = (0..600)
        .map(|i| {
            labels(&[
                ("__name__", "up"),
                ("i", ["a", "b", "c"][i % 3]),
                ("n", &i.to_string()),
            ])
        })
        .collect();
    one.push(|r| fresh("fake", &all, 7, unlimited(), r));
    delete(&mut one, &tenant, "b", (i64::MIN, i64::MAX));
    let ask = |one: &mut One| {
        let (reply, result) = channel();
        let query = CardinalityQuery {
            tenant: tenant.clone(),
            names: Vec::new(),
            hold: Arc::new(|_| true),
            canceled: Arc::default(),
            reply: Box::new(move |r| reply.send(r).unwrap()),
        };
        one.node
            .mailboxes
            .send(CoreId(0), Message::Cardinality(query));
        let told = one.wait(&result).unwrap();
        let counts = |name: &NameCardinality| {
            let counts = name.values.iter().map(|(_, count)| *count);
            let mut counts: Vec<u32> = counts.collect();
            counts.sort_unstable();
            (name.name.clone(), counts)
        };
        let mut names: Vec<_> = told.names.iter().map(counts).collect();
        names.sort_unstable();
        (told.series, names)
    };
    let (series, names) = ask(&mut one);
    let expected = |name: &str, counts: Vec<u32>| (name.to_owned(), counts);
    let left = [
        expected("__name__", vec![400]),
        expected("i", vec![200, 200]),
        expected("n", vec![1; 400]),
    ];
    assert_eq!((series, &names[..]), (400, &left[..]));
    // The same while lists are swept, and behind it.
    one.sim.advance(Duration::from_secs(61));
    for _ in 0..40 {
        one.node.turn_until(1, || false);
        assert_eq!(ask(&mut one), (400, names.clone()));
    }
}

/// A series that had left memory before it was deleted is in no record of the deletion, and the checkpoint still names its chunk.
#[test]
fn what_a_core_had_let_go_of_does_not_come_back_from_an_older_checkpoint() {
    let (hour, tenant) = (3_600_000, TenantId::new("a").unwrap());
    for deleted in [false, true] {
        let mut one = One::new();
        let now = one.node.cores[0].reactor.wall_ms();
        let limits = TenantLimits {
            retention: Duration::from_secs(2 * 3600),
            ..TenantLimits::unlimited()
        };
        for (i, time) in [("old", now - 3 * hour), ("new", now)] {
            let series = [labels(&[("__name__", "up"), ("i", i)])];
            let limits = limits.clone();
            one.push(|r| fresh("a", &series, time, limits, r));
        }
        one.node.checkpoint().unwrap();
        // Its tenant does not rest: nothing is cut, and no other checkpoint is made.
        for (passed, time) in [(3000, now + 3_000_000), (700, now + 3_700_000)] {
            one.sim.advance(Duration::from_secs(passed));
            one.node.turn_until(40, || false);
            let series = [labels(&[("__name__", "up"), ("i", "new")])];
            let limits = limits.clone();
            one.push(|r| fresh("a", &series, time, limits, r));
        }
        one.node.turn_until(40, || false);
        assert_eq!(all(&mut one, &tenant).len(), 1, "one has expired");
        if deleted {
            delete(&mut one, &tenant, "old", (i64::MIN, i64::MAX));
        }
        let One { sim, node } = one;
        drop(node);
        sim.crash();
        let options = crate::Options {
            retention: Duration::from_secs(48 * 3600),
            ..options(1)
        };
        let node = TestNode::start(&sim, &options).unwrap();
        let mut one = One { sim, node };
        let left = all(&mut one, &tenant).len();
        // Until its tenant pushes again it is kept as long as the node says.
        assert_eq!(left, if deleted { 1 } else { 2 }, "deleted: {deleted}");
    }
}

/// More wait than may: who comes then is told at once, and nothing of it is done.
#[test]
fn only_so_many_deletions_wait() {
    let mut one = One::new();
    let tenant = TenantId::new("a").unwrap();
    let client = Client::new(one.node.mailboxes.clone());
    let range = (i64::MIN, i64::MAX);
    let replies: Vec<_> = (0..crate::limits::DELETES_WAITING_MAX + 3)
        .map(|_| client.delete(&tenant, &[&[Matcher::equal("i", "x")]], range))
        .collect();
    let mut results = Vec::new();
    let answered = one.node.turn_until(10_000, || {
        results.extend(replies.iter().filter_map(|reply| reply.try_recv().ok()));
        results.len() == replies.len()
    });
    assert!(answered);
    let busy = |r: &&Result<u128, DeleteError>| matches!(r, Err(DeleteError::Unavailable(_)));
    let refused = results.iter().filter(busy).count();
    assert!((1..=3).contains(&refused), "{refused} were refused");
    let deletions = one.node.mailboxes.blocks().deletions();
    assert_eq!(deletions.live_count(), 1, "equal ones are one");
}

/// A core that has failed deletes nothing: who asks is told, and the others go on.
#[test]
fn a_deletion_that_a_core_cannot_do_says_so() {
    let mut one = One::new();
    let tenant = TenantId::new("a").unwrap();
    one.node.cores[0].poison("tried".to_owned());
    let client = Client::new(one.node.mailboxes.clone());
    let reply = client.delete(&tenant, &[&[]], (i64::MIN, i64::MAX));
    let mut result = None;
    let answered = one.node.turn_until(1000, || {
        result = result.take().or_else(|| reply.try_recv().ok());
        result.is_some()
    });
    assert!(answered, "a deletion is answered");
    let error = result.expect("answered").unwrap_err().to_string();
    assert!(
        error.contains("tried") && error.contains("ask again"),
        "{error}"
    );
    // There is no block that it applies to, but memory may hold what it means.
    let core = &mut one.node.cores[0];
    let deletions = core.mailboxes.blocks().deletions();
    let mut retire = || deletions.retire(&mut core.reactor, &tenant, &|_, _| false, &|_| true);
    assert_eq!(retire().unwrap(), 0);
    deletions.set_unfinished(0);
    assert_eq!(retire().unwrap(), 1);
}

/// Story: a deletion that met a collection in the middle of its sweep let a series die there, which ended the process.
#[test]
fn a_deletion_waits_for_the_sweep_of_a_collection() {
    let mut one = One::new();
    let tenant = TenantId::new("a").unwrap();
    let now = one.node.cores[0].reactor.wall_ms();
    // More in one list than a slice of a sweep looks at.
    let count = 70_000;
    for some in (0..count).collect::<Vec<_>>().chunks(1000) {
        let series: Vec<Labels> = (some.iter())
            .map(|i| labels(&[("__name__", "up"), ("i", &i.to_string())]))
            .collect();
        one.push(|r| fresh("a", &series, now, unlimited(), r));
    }
    let client = Client::new(one.node.mailboxes.clone());
    let up = [Matcher::equal("__name__", "up")];
    let some = [Matcher::new(::model::MatchOp::Regex, "i", "[0-9]*[02468]").unwrap()];
    let mut swept = 0;
    for matchers in [&some[..], &up[..]] {
        let reply = client.delete(&tenant, &[matchers], (i64::MIN, i64::MAX));
        let mut result = None;
        for _ in 0..20_000 {
            result = result.or_else(|| reply.try_recv().ok());
            if result.is_some() {
                break;
            }
            // A collection is due in every other turn.
            one.sim.advance(Duration::from_secs(61));
            one.node.turn_until(2, || false);
            swept += usize::from(one.node.cores[0].is_sweeping());
        }
        result.expect("answered").expect("a sound node");
    }
    assert!(swept > 0, "no sweep was met");
    assert!(all(&mut one, &tenant).is_empty());
}

/// Story: a checkpoint that had begun before a deletion named what was written behind it; replay deleted that and took its records for known.
#[test]
fn what_is_written_behind_a_deletion_stays_while_a_checkpoint_is_under_way() {
    let tenant = TenantId::new("a").unwrap();
    let mut one = One::new();
    let now = one.node.cores[0].reactor.wall_ms();
    // Many slices of a checkpoint's walk before the row that is deleted from.
    for some in (0..100_000).collect::<Vec<_>>().chunks(1000) {
        let series: Vec<Labels> = (some.iter())
            .map(|i| labels(&[("__name__", "other"), ("i", &i.to_string())]))
            .collect();
        one.push(|r| fresh("b", &series, now, unlimited(), r));
    }
    let series = [labels(&[("__name__", "up"), ("i", "x")])];
    for time in [now - 2000, now] {
        one.push(|r| fresh("a", &series, time, unlimited(), r));
    }
    let (sender, checkpoint) = channel();
    let reply = Box::new(move |result| sender.send(result).unwrap_or_default());
    let message = Message::Checkpoint(reply);
    one.node.mailboxes.send(CoreId(0), message);
    one.node.turn_until(1, || false);
    delete(&mut one, &tenant, "x", (now - 1000, now + 1000));
    for time in [now, now + 5000] {
        one.push(|r| fresh("a", &series, time, unlimited(), r));
    }
    one.wait(&checkpoint).unwrap();
    let mut one = one.restart();
    let found = all(&mut one, &tenant);
    let times: Vec<i64> = found[&series[0]].keys().copied().collect();
    assert_eq!(times, [now - 2000, now, now + 5000]);
}

/// Story: the keeper met the end of a cut only when the cores had stopped. The deletion that had waited for it began, was refused by every core, and ended with the
/// last order; the refusals came behind that, found no deletion, and ended the process by a panic.
#[test]
fn deletions_that_wait_for_a_cut_are_answered_when_the_node_stops_and_the_keeper_ends() {
    let mut one = One::new();
    let (tenant, now) = (TenantId::new("a").unwrap(), 1_700_000_000_000);
    let series = [labels(&[("__name__", "up"), ("i", "x")])];
    one.push(|r| fresh("a", &series, now, unlimited(), r));
    let client = Client::new(one.node.mailboxes.clone());
    let flush = Message::Flush(crate::Flush::all(Box::new(drop)));
    one.node.mailboxes.send(CoreId(0), flush);
    // It asks for its turn, and has it.
    one.node.turn(0);
    one.node.turn_keeper();
    let deletes: Vec<_> = (0..3)
        .map(|_| client.delete(&tenant, &[&[]], (i64::MIN, i64::MAX)))
        .collect();
    one.node.turn(0);
    for _ in 0..deletes.len() {
        one.node.turn_keeper();
    }
    let waits = |reply: &Receiver<_>| reply.try_recv().is_err();
    assert!(deletes.iter().all(waits), "the cut has the turn");
    let blocks = one.node.mailboxes.blocks().clone();
    one.node.stop();
    for reply in deletes {
        let refused = reply.try_recv().expect("answered").unwrap_err();
        assert!(refused.to_string().contains("stop"), "{refused}");
    }
    let made = blocks.deletions().of(&tenant);
    assert!(made.is_none(), "nor do blocks have it");
}

/// Story: memory let go of the value that had replaced one of a block before the block did of its own. A process that ended in between showed the old value, for good.
#[test]
fn a_power_cut_after_every_operation_of_a_deletion_brings_no_replaced_value_back() {
    let tenant = TenantId::fake();
    let mut between = 0;
    for stop in 0.. {
        let mut run = Cutting::new(stop, 1);
        assert!(run.start());
        let from = cuts::boundary(run.node()) - 4 * CUT_MS;
        run.history(&tenant, from, 190);
        run.sim
            .advance(Duration::from_secs(u64::from(PARK_AFTER_S) + 60));
        run.cut();
        let again = (cuts::labels(3), from + 10 * 60_000, 77.0);
        run.forget();
        // The key is dead.
        run.push(&tenant, &vec![again.clone()]);
        run.push(&tenant, &vec![again.clone()]);
        let value = |run: &mut Cutting| {
            let found = run.read(&tenant);
            let of_series = found.get(&again.0);
            of_series.and_then(|times| times.get(&again.1).copied())
        };
        assert_eq!(value(&mut run), Some(again.2.to_bits()));

        let client = Client::new(run.node().mailboxes.clone());
        let reply = client.delete(&tenant, &[&[]], (i64::MIN, i64::MAX));
        drop(client);
        run.sim.stop_after(stop);
        let sim = run.sim.clone();
        let mut answer = None;
        run.node().turn_until(2000, || {
            answer = answer.take().or_else(|| reply.try_recv().ok());
            answer.is_some() || sim.is_off()
        });
        let is_whole = !sim.is_off();
        run.end();
        assert!(run.start(), "a sound machine starts");
        if let Some(value) = value(&mut run) {
            assert_eq!(value, again.2.to_bits(), "stopped after {stop}");
            let deletions = run.node().mailboxes.blocks().deletions();
            between += deletions.live_count();
        }
        if is_whole {
            answer.expect("answered").expect("a sound node");
            assert_eq!(value(&mut run), None);
            break;
        }
    }
    assert!(between > 0, "blocks have it and memory has not");
}

/// A node that has cut: of the last of four series, which ended early, memory has no more than the chunk that it keeps in mind.
fn cut_and_kept_in_mind(tenant: &TenantId) -> (Cutting, i64) {
    let mut run = Cutting::new(1, 1);
    assert!(run.start());
    let from = cuts::boundary(run.node()) - 4 * CUT_MS;
    run.history(tenant, from, 290);
    run.cut();
    let colds = &run.node().cores[0].memtable.colds;
    let in_mind = (0..4).filter(|&series| {
        let sealed = &colds[series].sealed;
        sealed.len() == 1 && sealed[0].is_in_block()
    });
    assert_eq!(in_mind.count(), 1);
    // the ledger knows no two values of a sample.
    run.forget();
    (run, from)
}

fn samples_of(run: &mut Cutting, tenant: &TenantId, series: usize) -> Vec<(i64, f64)> {
    let found = run.read(tenant);
    let times = found.get(&cuts::labels(series));
    let times = times.into_iter().flatten();
    times.map(|(&t, &bits)| (t, f64::from_bits(bits))).collect()
}

/// Story: the deletions of blocks could not be kept, so memory kept what it had. The last chunk of a series that has been cut was shown from memory though its block's
/// copy was hidden, a repetition of it was acknowledged as known, and with the chunk both went.
#[test]
fn a_sample_that_is_sent_again_after_a_deletion_that_failed_stays() {
    let tenant = TenantId::fake();
    let (mut run, _) = cut_and_kept_in_mind(&tenant);
    let before = samples_of(&mut run, &tenant, 3);
    let &last = before.last().expect("four samples");

    run.sim.fail_when(|op| {
        let is_kept = op
            .path
            .starts_with(crate::cut::deletions_directory(Path::new("data")));
        (is_kept && op.kind == reactor::OpKind::Write).then_some(reactor::Fault::EIO)
    });
    let client = Client::new(run.node().mailboxes.clone());
    let reply = client.delete(
        &tenant,
        &[&[Matcher::equal("pod", "p3")]],
        (i64::MIN, i64::MAX),
    );
    drop(client);
    let mut result = None;
    run.node().turn_until(1000, || {
        result = result.take().or_else(|| reply.try_recv().ok());
        result.is_some()
    });
    let failed = result.expect("answered").expect_err("the disk is broken");
    assert!(failed.to_string().contains("ask again"), "{failed}");
    run.sim.clear_faults();
    assert_eq!(samples_of(&mut run, &tenant, 3), []);

    // Once for the series, which the client does not know any more.
    let again = vec![(cuts::labels(3), last.0, last.1)];
    run.push(&tenant, &again);
    run.push(&tenant, &again);
    assert_eq!(samples_of(&mut run, &tenant, 3), [last]);
    for _ in 0..4 {
        run.sim
            .advance(Duration::from_secs(u64::from(PARK_AFTER_S) + 60));
        run.cut();
        assert_eq!(samples_of(&mut run, &tenant, 3), [last]);
    }
    run.end();
    assert!(run.start());
    assert!(samples_of(&mut run, &tenant, 3).contains(&last));
}

/// Story: more samples were looked up in a turn than may be, so that a later value of one was taken for a new one. A cut moved it into a block, and the chunk that memory keeps
/// in mind, which has the earlier value, was taken for what was logged last.
#[test]
fn what_is_kept_in_mind_of_a_series_does_not_hide_a_later_value_in_a_block() {
    let tenant = TenantId::fake();
    let (mut run, from) = cut_and_kept_in_mind(&tenant);
    let before = samples_of(&mut run, &tenant, 3);
    assert_eq!(before.len(), 4);
    // All of this is there, in closed chunks.
    let known = (cuts::labels(0), from + 200 * 60_000, 200.0);
    let mut body = vec![known; 400];
    let later = (before[3].0, 77.0);
    body.push((cuts::labels(3), later.0, later.1));
    run.push(&tenant, &body);
    run.push(&tenant, &body);
    let mut expected = before.clone();
    expected[3] = later;
    assert_eq!(samples_of(&mut run, &tenant, 3), expected);
    // Others bring the next cut about; by the clock the series has just been written.
    let made = run.node().cores[0].cuts.made;
    run.push(&tenant, &vec![(cuts::labels(0), from + 3 * CUT_MS, 1.0)]);
    run.push(&tenant, &vec![(cuts::labels(0), from + 3 * CUT_MS, 1.0)]);
    run.cut();
    assert!(run.node().cores[0].cuts.made > made);
    let colds = &run.node().cores[0].memtable.colds;
    let in_mind = |series| colds[series].sealed.iter().any(Sealed::is_in_block);
    assert!((0..4).any(in_mind), "or nothing is hidden");
    assert_eq!(samples_of(&mut run, &tenant, 3), expected);
}
