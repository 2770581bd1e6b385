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
