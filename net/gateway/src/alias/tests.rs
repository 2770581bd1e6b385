//! The table against a `HashMap`, its bounds, and its predictions.

use std::collections::HashMap;

use model::{Generation, SeriesRef};
use proptest::prelude::*;

use super::*;

fn target(series: u32) -> Target {
    let key = SeriesKey {
        series: SeriesRef(series),
        generation: Generation(1),
    };
    Target {
        core: CoreId((series % 3) as u16),
        key,
        source: 0,
    }
}

fn hash(n: u64) -> AliasHash {
    Secret::from_seed(1).hash(&n.to_le_bytes())
}

fn resolve(table: &mut AliasTable, hashes: &[AliasHash]) -> Vec<Option<Target>> {
    let mut targets = vec![None; hashes.len()];
    table.resolve(&mut Cursor::default(), hashes, &mut targets);
    targets
}

fn filled(count: u32) -> (AliasTable, Vec<AliasHash>) {
    let mut table = AliasTable::new(1 << 20);
    let hashes: Vec<_> = (0..u64::from(count)).map(hash).collect();
    for (i, &hash) in hashes.iter().enumerate() {
        table.learn(hash, target(i as u32));
    }
    (table, hashes)
}

#[test]
fn series_in_the_order_of_last_time_are_predicted() {
    let (mut table, hashes) = filled(10_000);
    let all: Vec<_> = (0..10_000).map(|i| Some(target(i))).collect();
    assert_eq!(resolve(&mut table, &hashes), all);
    let first = table.counts();
    assert_eq!((first.predicted, first.found, first.missed), (9_999, 1, 0));
}

#[test]
fn a_changed_order_is_found_at_once_and_predicted_the_next_time() {
    let (mut table, mut hashes) = filled(5_000);
    hashes.reverse();
    let all: Vec<_> = (0..5_000).rev().map(|i| Some(target(i))).collect();
    assert_eq!(resolve(&mut table, &hashes), all);
    assert!(table.counts().predicted < 1000, "{:?}", table.counts());
    let before = table.counts();
    assert_eq!(resolve(&mut table, &hashes), all);
    assert_eq!(table.counts().predicted - before.predicted, 4_999);
}

/// As a body whose cursor is lost: every series is asked for before any is looked up.
fn resolve_asked(table: &mut AliasTable, hashes: &[AliasHash]) -> (Vec<Option<Target>>, bool) {
    let mut cursor = table.cursor();
    let mut targets = vec![None; hashes.len()];
    let mut candidates: Vec<u32> = hashes.iter().map(|hash| table.candidate(*hash)).collect();
    table.resolve_asked(&mut cursor, hashes, &mut candidates, &mut targets);
    (targets, cursor.is_lost())
}

#[test]
fn a_table_that_lost_the_order_finds_it_again() {
    let (mut table, mut hashes) = filled(5_000);
    hashes.sort_by_key(|hash| hash.0);
    resolve(&mut table, &hashes);
    assert!(table.cursor().is_lost());
    let unknown = hash(1 << 40);
    hashes.insert(700, unknown);
    // Known by now, so the second body is followed again, whoever looked up the first.
    for lost in [true, false] {
        hashes.rotate_left(if lost { 1_000 } else { 0 });
        if lost {
            hashes.reverse();
        }
        let (targets, still) = resolve_asked(&mut table, &hashes);
        assert_eq!(still, lost);
        for (target, hash) in targets.iter().zip(&hashes) {
            assert_eq!(*target, resolve(&mut table, &[*hash])[0]);
            assert_eq!(target.is_none(), *hash == unknown);
        }
        resolve(&mut table, &hashes);
    }
    assert!(!table.cursor().is_lost());
}

#[test]
fn a_new_series_in_the_middle_does_not_stop_the_predictions() {
    let (mut table, mut hashes) = filled(1_000);
    for at in (50..1_000).step_by(100) {
        hashes[at] = hash(1_000_000 + at as u64);
    }
    let targets = resolve(&mut table, &hashes);
    assert_eq!(targets.iter().filter(|target| target.is_none()).count(), 10);
    assert!(
        table.counts().predicted >= 1_000 - 2 * 10 - 1,
        "{:?}",
        table.counts()
    );
}

#[test]
fn a_fifth_encoding_of_a_series_pushes_out_the_one_unused_longest() {
    let mut table = AliasTable::new(1000);
    for n in 0..4 {
        table.advance(n as u16);
        table.learn(hash(n), target(7));
    }
    table.advance(9);
    resolve(&mut table, &[hash(0)]);
    table.learn(hash(4), target(7));
    assert_eq!(table.count(), 4);
    let known: Vec<_> = (0..5)
        .map(|n| resolve(&mut table, &[hash(n)])[0].is_some())
        .collect();
    assert_eq!(known, [true, false, true, true, true]);
}

#[test]
fn a_full_table_stays_at_its_bound_and_right() {
    let mut table = AliasTable::new(1000);
    for n in 0..100_000u64 {
        table.learn(hash(n), target(n as u32));
        assert!(table.count() <= 1000);
    }
    assert_eq!(table.counts().evicted, 99_000);
    let hashes: Vec<_> = (0..100_000).map(hash).collect();
    let targets = resolve(&mut table, &hashes);
    let known = targets.iter().enumerate().filter(|(_, t)| t.is_some());
    assert_eq!(known.clone().count(), 1000);
    assert!(known.clone().all(|(n, t)| *t == Some(target(n as u32))));
}

#[test]
fn idle_aliases_leave_and_used_ones_stay() {
    let (mut table, hashes) = filled(1_000);
    table.advance(IDLE_STAMPS - 1);
    resolve(&mut table, &hashes[..100]);
    table.advance(IDLE_STAMPS);
    (0..20).for_each(|_| table.sweep());
    assert_eq!(table.count(), 100);
    let targets = resolve(&mut table, &hashes);
    assert_eq!(
        targets.iter().filter(|target| target.is_some()).count(),
        100
    );
}

#[test]
fn churn_reuses_the_memory_of_what_left() {
    let mut table = AliasTable::new(1 << 20);
    let mut n = 0u64;
    let mut bytes = 0;
    for round in 0..40u16 {
        table.advance(round * IDLE_STAMPS);
        for _ in 0..10_000 {
            table.learn(hash(n), target(n as u32));
            n += 1;
            table.sweep();
        }
        bytes = if round == 3 { table.bytes() } else { bytes };
    }
    let after = table.bytes();
    assert!(
        after < bytes + bytes / 10,
        "{bytes} after four generations, {after} after forty"
    );
}

#[test]
fn a_dead_alias_is_forgotten_and_a_moved_one_repointed() {
    let (mut table, hashes) = filled(3);
    table.forget(hashes[1]);
    table.learn(hashes[2], target(77));
    assert_eq!(
        resolve(&mut table, &hashes),
        [Some(target(0)), None, Some(target(77))]
    );
    assert_eq!(table.count(), 2);
}

#[test]
fn tenants_protocols_and_epochs_have_nothing_in_common() {
    let process = Secret::from_seed(5);
    let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
    let hashes = [
        process.of_tenant(&a, Protocol::V1, 0),
        process.of_tenant(&b, Protocol::V1, 0),
        process.of_tenant(&a, Protocol::V2, 0),
        process.of_tenant(&a, Protocol::V1, 1),
        Secret::from_seed(6).of_tenant(&a, Protocol::V1, 0),
        Secret::random().of_tenant(&a, Protocol::V1, 0),
    ]
    .map(|secret| secret.hash(b"the same label bytes").0);
    for (i, one) in hashes.iter().enumerate() {
        assert!(hashes[..i].iter().all(|other| other != one));
    }
    assert_ne!(Secret::random().hash(b"x"), Secret::random().hash(b"x"));
}

#[test]
fn an_alias_costs_what_the_module_says() {
    for count in [380_000, 400_000] {
        let (table, _) = filled(count);
        let each = table.bytes() as f64 / f64::from(count);
        assert!((42.0..54.0).contains(&each), "{each:.1} bytes an alias");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Learn(u64, u32),
    Forget(u64),
    Resolve(Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..200, 0u32..400).prop_map(|(n, series)| Step::Learn(n, series)),
        1 => (0u64..200).prop_map(Step::Forget),
        3 => prop::collection::vec(0u64..220, 0..60).prop_map(Step::Resolve),
    ]
}

proptest! {
    /// No series here has more than four aliases at once unless by chance; the model then forgets what the table may forget.
    #[test]
    fn the_table_answers_like_a_map(steps in prop::collection::vec(step(), 1..200)) {
        let mut table = AliasTable::new(1 << 16);
        let mut map: HashMap<u64, u32> = HashMap::new();
        for step in steps {
            match step {
                Step::Learn(n, series) => {
                    let others = map.iter().filter(|(k, v)| **v == series && **k != n).count();
                    if others < ALIASES_PER_SERIES_MAX {
                        table.learn(hash(n), target(series));
                        map.insert(n, series);
                    }
                }
                Step::Forget(n) => {
                    table.forget(hash(n));
                    map.remove(&n);
                }
                Step::Resolve(asked) => {
                    let hashes: Vec<_> = asked.iter().map(|&n| hash(n)).collect();
                    let want: Vec<_> = asked.iter().map(|n| map.get(n).map(|s| target(*s))).collect();
                    prop_assert_eq!(resolve(&mut table, &hashes), want);
                }
            }
            prop_assert_eq!(table.count() as usize, map.len());
        }
    }
}

fn refuser(epoch: u32, share: u8) -> Refuser {
    Refuser { epoch, share }
}

#[test]
fn refused_series_are_bounded_expire_and_never_meet_those_that_are_stored() {
    let mut table = AliasTable::new(800);
    for n in 0..500 {
        table.learn_refused(hash(n), 7, refuser(3, 0), 0);
    }
    assert_eq!((table.count(), table.refused_count()), (67, 67));
    let found = resolve(&mut table, &[hash(0)])[0]
        .unwrap()
        .refused()
        .unwrap();
    assert_eq!((found.reason, found.refuser), (7, refuser(3, 0)));
    assert!(table.holds(found, refuser(3, 0)) && !table.holds(found, refuser(4, 0)));
    table.learn(hash(0), target(0));
    assert_eq!(resolve(&mut table, &[hash(0)]), [Some(target(0))]);
    assert_eq!((table.count(), table.refused_count()), (67, 66));
    table.learn_refused(hash(0), 7, refuser(3, 0), 0);
    assert_eq!((table.count(), table.refused_count()), (67, 67));
    let held = |table: &AliasTable| {
        (0..67)
            .filter(|&n| {
                let at = table.find(hash(n));
                let refused = table.entries.at(at).target().refused();
                table.holds(refused.unwrap(), refuser(3, 0))
            })
            .count()
    };
    assert_eq!(held(&table), 67);
    table.advance(REFUSED_STAMPS_MIN);
    let some = held(&table);
    assert!(
        (25..64).contains(&some),
        "{some} of 67 hold: they are spread"
    );
    table.advance(REFUSED_STAMPS_MIN + REFUSED_STAMPS_SPREAD);
    assert_eq!(held(&table), 0);
    for _ in 0..100 {
        table.sweep();
    }
    assert_eq!((table.count(), table.refused_count()), (0, 0));
}

/// One tenant's garbage filled the room for refused series, and all others paid for a parse per series and scrape.
#[test]
fn a_tenant_that_sends_garbage_leaves_others_room_to_be_remembered() {
    let mut table = AliasTable::new(8000);
    let of = |table: &AliasTable, share: u8| table.refused_of[usize::from(share)];
    let garbage = |table: &mut AliasTable, share: u8, from: u64| {
        for n in from..from + 5000 {
            table.learn_refused(hash(n), 1, refuser(0, share), 0);
        }
    };
    garbage(&mut table, 0, 0);
    assert_eq!(of(&table, 0), 667, "two thirds of a thousand");
    garbage(&mut table, 1, 10_000);
    assert_eq!(of(&table, 1), 222, "two thirds of what was left");
    for n in 0..20 {
        table.learn_refused(hash(20_000 + n), 1, refuser(0, 2), 0);
    }
    assert_eq!(of(&table, 2), 20);
    // Its entries go as those of all go; what it gets anew is less, the other's is more.
    table.advance(REFUSED_STAMPS_MIN + REFUSED_STAMPS_SPREAD);
    for _ in 0..1000 {
        table.sweep();
    }
    assert_eq!((table.refused_count(), of(&table, 0)), (0, 0));
    for n in 0..2000 {
        table.learn_refused(hash(2 * n), 1, refuser(0, 0), 0);
        table.learn_refused(hash(2 * n + 1), 1, refuser(0, 1), 0);
    }
    assert_eq!((of(&table, 0), of(&table, 1)), (400, 400));
}

/// The table as [`a_table_is_a_map`] has it, with aliases that say whose series they are: the number comes back in all its 16 bits, whatever is
/// predicted meanwhile, and aliases of one series from several replicas are bounded together.
#[test]
fn an_alias_keeps_its_source_and_the_order_of_bodies_does_not_touch_it() {
    let mut table = AliasTable::new(1 << 20);
    let hashes: Vec<_> = (0..1000).map(hash).collect();
    let of = |n: usize| Target {
        source: (n * 65_521 % 65_536) as u16,
        ..target(n as u32)
    };
    for (n, &hash) in hashes.iter().enumerate() {
        table.learn(hash, of(n));
    }
    let mut order: Vec<usize> = (0..1000).collect();
    for _ in 0..3 {
        let asked: Vec<_> = order.iter().map(|&n| hashes[n]).collect();
        let wanted: Vec<_> = order.iter().map(|&n| Some(of(n))).collect();
        assert_eq!(resolve(&mut table, &asked), wanted);
        order.rotate_left(311);
        order[..500].reverse();
    }
    for n in 0..10 {
        let replica = Target {
            source: n,
            ..target(5)
        };
        table.learn(hash(5000 + u64::from(n)), replica);
    }
    let all: Vec<_> = (5000..5010).map(hash).collect();
    let held = resolve(&mut table, &all).into_iter().flatten().count();
    assert!(
        held <= ALIASES_PER_SERIES_MAX,
        "{held} aliases of one series"
    );
}

#[test]
fn a_passive_replica_is_remembered_forgotten_when_it_is_idle_and_replaced_when_it_is_elected() {
    let mut table = AliasTable::new(1 << 20);
    let [a, b] = [1, 2].map(hash);
    table.learn_passive(a, 7);
    table.learn_passive(b, 8);
    let found = resolve(&mut table, &[a, b]);
    let sources = found.iter().map(|t| t.map(|t| (t.is_series(), t.source)));
    assert_eq!(
        sources.collect::<Vec<_>>(),
        [Some((false, 7)), Some((false, 8))]
    );
    let elected = Target {
        source: 7,
        ..target(1)
    };
    table.learn(a, elected);
    assert_eq!(resolve(&mut table, &[a]), [Some(elected)]);
    table.advance(IDLE_STAMPS - 1);
    assert!(resolve(&mut table, &[a])[0].is_some());
    table.advance(IDLE_STAMPS);
    table.sweep();
    assert_eq!(resolve(&mut table, &[a, b]), [Some(elected), None]);
}
