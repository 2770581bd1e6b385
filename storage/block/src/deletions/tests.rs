//! Deletions over power cuts, their bounds, and damage.

use std::path::Path;

use reactor::Sim;

use super::*;

fn deletion(order: u64, name: &str, times: (i64, i64)) -> Deletion {
    Deletion {
        id: u128::from(order) << 64 | 7,
        order,
        whole_tenant: false,
        selectors: vec![
            vec![Matcher::equal("__name__", name)],
            vec![Matcher::new(MatchOp::NotRegex, "job", "a|b.*").unwrap()],
        ],
        min_time: times.0,
        max_time: times.1,
        created_ms: 99,
        over_ms: None,
    }
}

fn dir() -> &'static Path {
    Path::new("deletions")
}

fn open(sim: &Sim) -> (Deletions, u64) {
    let deletions = Deletions::default();
    let order = deletions.open(&mut Reactor::sim(sim), dir()).unwrap();
    (deletions, order)
}

fn orders(deletions: &Deletions, tenant: &TenantId) -> Vec<(u64, bool)> {
    let of = deletions.of(tenant).unwrap_or_default();
    let all = of.all().iter();
    all.map(|one| (one.order, one.over_ms.is_some())).collect()
}

#[test]
fn a_deletion_lives_until_no_block_is_left_that_it_applies_to_over_power_cuts() {
    let sim = Sim::new(1);
    let tenant = TenantId::new("a").unwrap();
    let (deletions, order) = open(&sim);
    assert_eq!(order, 0);
    let reactor = &mut Reactor::sim(&sim);
    deletions
        .add(reactor, &tenant, deletion(5, "up", (10, 20)))
        .unwrap();
    sim.crash();

    let (deletions, order) = open(&sim);
    assert_eq!(order, 5);
    assert_eq!(
        deletions.tombstones(&tenant).len(),
        2,
        "one for each selector"
    );
    assert!(deletions.tombstones(&TenantId::fake()).is_empty());
    let of = deletions.of(&tenant).unwrap();
    let one = of.all()[0].clone();
    let applies = |of: &OfTenant, block, times| of.applies(&one, block, times);
    assert!(applies(&of, (1, 4), (20, 30)));
    assert!(!applies(&of, (1, 5), (20, 30)), "logged behind it");
    assert!(!applies(&of, (1, 4), (21, 30)), "of other times");

    let reactor = &mut Reactor::sim(&sim);
    deletions.note_applied(reactor, &tenant, 1, 5).unwrap();
    sim.crash();
    let (deletions, _) = open(&sim);
    let of = deletions.of(&tenant).unwrap();
    assert!(!of.applies(&one, (1, 4), (20, 30)), "it has been applied");
    assert!(of.applies(&one, (2, 4), (20, 30)), "not to another");

    let reactor = &mut Reactor::sim(&sim);
    let retire = |pending: bool, reactor: &mut Reactor| {
        deletions.retire(reactor, &tenant, &|_, _| pending, &|_| true)
    };
    assert_eq!(retire(true, reactor).unwrap(), 0);
    assert_eq!(retire(false, reactor).unwrap(), 1);
    assert!(deletions.tombstones(&tenant).is_empty());
    sim.crash();
    let (deletions, order) = open(&sim);
    assert_eq!(orders(&deletions, &tenant), [(5, true)]);
    assert_eq!(order, 5, "no place is given out twice");
}

#[test]
fn one_takes_the_place_of_what_it_includes_and_there_are_only_so_many() {
    let sim = Sim::new(1);
    let tenant = TenantId::new("a").unwrap();
    let (deletions, _) = open(&sim);
    let reactor = &mut Reactor::sim(&sim);
    for (order, name, times) in [
        (1, "up", (10, 20)),
        (2, "down", (10, 20)),
        (3, "up", (10, 19)),
        (4, "up", (0, 20)),
    ] {
        deletions
            .add(reactor, &tenant, deletion(order, name, times))
            .unwrap();
    }
    assert_eq!(orders(&deletions, &tenant), [(2, false), (4, false)]);
    for order in 10..10 + DELETIONS_MAX as u64 - 2 {
        let more = deletion(order, &format!("m{order}"), (0, 1));
        assert_eq!(deletions.check(&tenant, &more), Ok(()));
        deletions.add(reactor, &tenant, more).unwrap();
    }
    let other = deletion(900, "other", (0, 1));
    assert_eq!(deletions.check(&tenant, &other), Err(Refused::TooMany));
    let wider = deletion(900, "up", (0, 30));
    assert_eq!(
        deletions.check(&tenant, &wider),
        Ok(()),
        "no more than before"
    );
    let all = Deletion {
        selectors: vec![Vec::new()],
        ..deletion(901, "", (i64::MIN, i64::MAX))
    };
    deletions.add(reactor, &tenant, all).unwrap();
    assert_eq!(orders(&deletions, &tenant), [(901, false)]);

    let mut long = deletion(902, &"x".repeat(SELECTOR_BYTES_MAX), (0, 1));
    assert!(matches!(
        deletions.check(&tenant, &long),
        Err(Refused::Bytes(_))
    ));
    long.selectors = Vec::new();
    assert_eq!(deletions.check(&tenant, &long), Err(Refused::Selectors(0)));
}

/// What a deletion says must not be lost: a file that is not as it was written is an error that names it.
#[test]
fn every_bit_flip_is_found() {
    let mut of = OfTenant {
        deletions: vec![Arc::new(deletion(5, "up", (i64::MIN, i64::MAX)))],
        ..OfTenant::default()
    };
    of.applied.insert(3, 4);
    let tenant = TenantId::new("a").unwrap();
    let bytes = encode(&tenant, &of);
    let (found, read) = decode(&bytes, "x").unwrap();
    assert_eq!((found, read.applied), (tenant, of.applied));
    assert!(read.deletions[0].includes(&of.deletions[0]));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged, "x").is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len], "x").is_err(), "{len} bytes");
    }
}
