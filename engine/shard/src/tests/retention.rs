//! How long samples are kept of tenants that do not push, after a start and while the node runs.

use super::*;

/// The node hands its `ingester.retention` to the cores, so that tenants that do not push after a start lose what is old as well, and no more.
#[test]
fn what_a_start_finds_is_kept_as_long_as_the_options_say_until_its_tenant_pushes() {
    let (hour, tenants) = (3_600_000, ["silent", "back"]);
    for (kept_hours, left) in [(2, [1, 2]), (48, [2, 2])] {
        let mut one = One::new();
        let now = one.node.cores[0].reactor.wall_ms();
        let series = |i: &str| labels(&[("__name__", "up"), ("i", i)]);
        let push = |one: &mut One, tenant: &str, i: &str, time| {
            assert_eq!(
                one.push(|r| fresh(tenant, &[series(i)], time, unlimited(), r))
                    .stored,
                1
            );
        };
        for tenant in tenants {
            push(&mut one, tenant, "old", now - 3 * hour);
            push(&mut one, tenant, "new", now);
        }
        let One { sim, node } = one;
        drop(node);
        sim.crash();
        let retention = Duration::from_secs(kept_hours * 3600);
        let options = crate::Options {
            retention,
            ..options(1)
        };
        let node = TestNode::start(&sim, &options).unwrap();
        let mut one = One { sim, node };
        // A push brings its own limits: a day.
        push(&mut one, "back", "new", now + 1);
        one.sim.advance(Duration::from_secs(3700));
        one.node.turn_until(40, || false);
        assert_eq!(
            found(&mut one, tenants),
            left,
            "retention of {kept_hours} h"
        );
    }
}

/// Series of two tenants, in memory or, where they are kept and not written any more, in blocks.
fn found(one: &mut One, tenants: [&str; 2]) -> [u64; 2] {
    let stats = one.stats();
    let list = one.node.mailboxes.blocks().list();
    tenants.map(|name| {
        let tenant = TenantId::new(name).unwrap();
        let in_memory = stats.iter().find(|stats| stats.tenant == tenant);
        let parts = list.iter().filter_map(|block| block.part(&tenant));
        let in_blocks: u64 = parts.map(|part| u64::from(part.series)).sum();
        in_memory.map_or(0, |stats| stats.series) + in_blocks
    })
}

/// Story: after a restart a tenant lost nothing and kept nothing by its own retention until it pushed again; until then that of the node held.
#[test]
fn tenants_keep_their_own_retention_over_a_restart_and_take_a_new_one_without_a_push() {
    let hour = 3_600_000;
    let mut one = One::new();
    let now = one.node.cores[0].reactor.wall_ms();
    for tenant in ["long", "short"] {
        for (i, age) in [("old", 12), ("new", 0)] {
            let series = [labels(&[("__name__", "up"), ("i", i)])];
            one.push(|r| fresh(tenant, &series, now - age * hour, unlimited(), r));
        }
    }
    let One { sim, node } = one;
    drop(node);
    sim.crash();
    let kept = |tenant: &str| {
        let table = [(TenantId::new(tenant).unwrap(), 10 * hour)];
        Arc::new(crate::Retentions::from(table))
    };
    let options = crate::Options {
        retention: Duration::from_secs(48 * 3600),
        retentions: kept("short"),
        ..options(1)
    };
    let node = TestNode::start(&sim, &options).unwrap();
    let mut one = One { sim, node };
    let left = |one: &mut One| {
        // A series lingers for an hour after it was last written.
        one.sim.advance(Duration::from_secs(3700));
        one.node.turn_until(40, || false);
        found(one, ["long", "short"])
    };
    assert_eq!(left(&mut one), [2, 1]);
    let message = Message::Retentions(kept("long"));
    one.node.mailboxes.send(CoreId(0), message);
    assert_eq!(left(&mut one), [1, 1]);
}

/// Story: after an hour of churn all of its series had left, and as many new ones took as much memory again: the numbers of the dead, and with them their rows, came
/// back only when the log had grown by 256 MiB, twice.
#[test]
fn rows_of_many_that_have_left_are_used_again_soon() {
    let mut one = One::new();
    let now = one.node.cores[0].reactor.wall_ms();
    let hour = 3_600_000;
    let count = crate::limits::RETIRED_CHECKPOINT + 1000;
    let create = |one: &mut One, name: &str, time: i64| {
        for some in (0..count).collect::<Vec<_>>().chunks(5000) {
            let series = |i: &usize| labels(&[("__name__", name), ("i", &i.to_string())]);
            let all: Vec<Labels> = some.iter().map(series).collect();
            assert_eq!(
                one.push(|r| fresh("fake", &all, time, unlimited(), r))
                    .stored,
                all.len() as u32
            );
        }
    };
    let write = |one: &mut One, time: i64| {
        let up = [labels(&[("__name__", "up")])];
        assert_eq!(
            one.push(|r| fresh("fake", &up, time, unlimited(), r))
                .stored,
            1
        );
        one.sim.advance(Duration::from_secs(61));
        one.node.turn_until(2000, || false);
    };
    create(&mut one, "first", now);
    let begun = |one: &One| one.node.cores[0].checkpoints.begun;
    one.sim.advance(Duration::from_secs(26 * 3600));
    let before = begun(&one);
    for minute in 0..5 {
        write(&mut one, now + 26 * hour + minute * 60_000);
    }
    assert_eq!(one.stats()[0].series, 1, "all others have left");
    assert!(
        (2..=3).contains(&(begun(&one) - before)),
        "{}",
        begun(&one) - before
    );
    let published = |one: &One| {
        let published = &one.node.cores[0].published;
        let value = |counter: &std::sync::atomic::AtomicU64| {
            counter.load(std::sync::atomic::Ordering::Relaxed)
        };
        [&published.checkpoints_begun, &published.checkpoint_bytes].map(value)
    };
    let [shown, bytes] = published(&one);
    assert_eq!(shown, begun(&one));
    assert!(bytes > 0, "what they wrote is told");
    create(&mut one, "second", now + 27 * hour);
    let rows = one.node.cores[0].memtable.rows.count() as usize;
    assert!(rows < count + 100, "{rows} rows for {count} series");
    // Nothing waits any more, and nothing more is written.
    let settled = begun(&one);
    for minute in 0..3 {
        write(&mut one, now + 27 * hour + minute * 60_000);
    }
    assert_eq!(begun(&one), settled);
}

/// Story: after a start the exemplars of the log were all there, however few their tenant may have, until it sent another one.
#[test]
fn exemplars_of_a_log_are_bounded_before_their_tenant_pushes_and_when_the_bound_changes() {
    let mut one = One::new();
    let now = one.node.cores[0].reactor.wall_ms();
    let tenants = ["usual", "own"];
    for tenant in tenants {
        let series = [labels(&[("__name__", "up")])];
        let keys = one
            .push(|r| fresh(tenant, &series, now, unlimited(), r))
            .keys;
        let outcome = one.push(|r| {
            let mut push = empty(tenant, unlimited(), r);
            push.others.known = (0..6)
                .map(|i| OtherSample {
                    series: keys[0].unwrap(),
                    before: 0,
                    time: now + i,
                    value: OtherValue::Exemplar(Box::new(crate::tests::client::exemplar_of(
                        now + i,
                        1.0,
                    ))),
                })
                .collect();
            push
        });
        assert_eq!(outcome.exemplars, 6);
    }
    let max = |own: u32| {
        Arc::new(crate::ExemplarsMax {
            usual: 4,
            own: [(TenantId::new("own").unwrap(), own)].into(),
        })
    };
    let kept = |one: &One| {
        let memtable = &one.node.cores[0].memtable;
        tenants.map(|tenant| {
            let slot = memtable.find_tenant(&TenantId::new(tenant).unwrap());
            memtable.tenant(slot.unwrap()).exemplars.count()
        })
    };
    assert_eq!(kept(&one), [6, 6]);
    let One { sim, node } = one;
    drop(node);
    sim.crash();
    let options = crate::Options {
        exemplars_max: max(2),
        ..options(1)
    };
    let node = TestNode::start(&sim, &options).unwrap();
    let mut one = One { sim, node };
    assert_eq!(kept(&one), [4, 2]);
    let message = Message::ExemplarsMax(max(0));
    one.node.mailboxes.send(CoreId(0), message);
    one.node.turn_until(4, || false);
    assert_eq!(kept(&one), [4, 0]);
}

/// Story: with a retention that keeps all, a series of which an exemplar was kept never left, and its tenant neither: exemplars have no age.
#[test]
fn exemplars_hold_a_series_for_a_day_where_nothing_else_would_let_it_go() {
    let mut one = One::new();
    let now = one.node.cores[0].reactor.wall_ms();
    let limits = || TenantLimits {
        max_exemplars: 3,
        retention: Duration::ZERO,
        ..unlimited()
    };
    let series = [labels(&[("__name__", "up")])];
    let keys = one.push(|r| fresh("fake", &series, now, limits(), r)).keys;
    let outcome = one.push(|r| {
        let mut push = empty("fake", limits(), r);
        push.others.known.push(OtherSample {
            series: keys[0].unwrap(),
            before: 0,
            time: now,
            value: OtherValue::Exemplar(Box::new(crate::tests::client::exemplar_of(now, 1.0))),
        });
        push
    });
    assert_eq!(outcome.exemplars, 1);
    let mut wait = |seconds: u64| {
        one.sim.advance(Duration::from_secs(seconds));
        for _ in 0..5 {
            one.sim.advance(Duration::from_secs(61));
            one.node.turn_until(60, || false);
        }
        one.stats().first().map_or(0, |stats| stats.series)
    };
    assert_eq!(wait(2 * 3600), 1, "in blocks, and its exemplar is here");
    assert_eq!(wait(10 * 3600), 1);
    assert_eq!(wait(20 * 3600), 0);
}
