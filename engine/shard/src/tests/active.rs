//! Which series count as active.

use super::*;

impl One {
    /// Lets so many minutes pass, or up to two more, and the round that is due then. A core that has nothing to do sleeps until its next timer.
    fn minutes(&mut self, minutes: i64) {
        let wall = |one: &One| one.node.cores[0].reactor.wall_ms();
        let until = wall(self) + minutes * 60_000;
        while wall(self) < until {
            self.node.turn_until(1, || false);
        }
        self.node.turn_until(4, || false);
        assert!(wall(self) < until + 2 * 60_000);
    }

    /// Series of the only tenant, and how many of them are active; the core says the same as what all cores share.
    fn active(&mut self) -> (u64, u64) {
        let [stats] = <[TenantStats; 1]>::try_from(self.stats()).unwrap();
        let tenants = &self.node.cores[0].memtable.tenants;
        let quota = &tenants.iter().flatten().next().unwrap().quota;
        assert_eq!(
            (stats.series, stats.active),
            (quota.series().get(), quota.active())
        );
        (stats.series, stats.active)
    }
}

#[test]
fn a_series_is_active_for_ten_minutes_after_a_sample_and_not_because_a_start_found_it() {
    let mut one = One::new();
    let series = |i: &str| labels(&[("__name__", "up"), ("i", i)]);
    let push = |one: &mut One, i: &str| {
        let now = one.node.cores[0].reactor.wall_ms();
        let outcome = one.push(|r| fresh("t", &[series(i)], now, unlimited(), r));
        assert_eq!(outcome.stored, 1);
    };
    push(&mut one, "a");
    push(&mut one, "b");
    assert_eq!(one.active(), (2, 2), "new ones at once");
    one.minutes(4);
    push(&mut one, "a");
    assert_eq!(one.active(), (2, 2));
    one.minutes(7);
    assert_eq!(one.active(), (2, 1), "b has been silent");
    let mut one = one.restart();
    one.minutes(1);
    assert_eq!(one.active(), (2, 0));
    push(&mut one, "b");
    one.minutes(2);
    assert_eq!(one.active(), (2, 1));
    one.minutes(11);
    assert_eq!(one.active(), (2, 0));
}
