//! The process ends at any operation on the bucket, or the bucket fails by chance: nothing is missing, and in the end nothing is twice or left over.

use block::FileKind;
use objstore::Faults;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{HOUR_MS, Life, Place};

/// What happens to the node, step by step; a pass follows each.
fn step(place: &mut Place, life: &mut Life, number: usize) {
    match number {
        0 => {
            place.write(life, FileKind::Cut, &[("one", 0..40), ("two", 0..10)]);
        }
        1 => {
            place.write(life, FileKind::Cut, &[("one", 40..60), ("two", 10..12)]);
            place.write(life, FileKind::Block, &[("one", 60..90)]);
        }
        2 => place.merge(life),
        3 => place.wait(13 * HOUR_MS),
        4 => {
            place.write(life, FileKind::Block, &[("two", 12..30)]);
        }
        5 => place.wait(241 * HOUR_MS),
        _ => place.wait(25 * HOUR_MS),
    }
}

const STEPS: usize = 9;

#[test]
fn a_crash_at_any_operation_loses_nothing_shows_nothing_twice_and_leaves_nothing() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    let mut operations = 0;
    for number in 0..STEPS {
        step(&mut place, &mut life, number);
        let before = place.store.operations();
        life.pass().unwrap();
        operations += place.store.operations() - before;
        place.check(&life, "without a crash");
    }
    place.check_settled(&life, "without a crash");
    assert!(
        life.catalog.list().is_empty(),
        "all of it has left the disk"
    );
    assert!(operations > 60, "{operations}");
    for stop in 1..=operations {
        let what = format!("stopped at operation {stop}");
        let mut place = Place::new(stop);
        let mut life = place.begin();
        let mut left = Some(stop);
        for number in 0..STEPS {
            step(&mut place, &mut life, number);
            let before = place.store.operations();
            left.iter().for_each(|&left| place.store.stop_after(left));
            let result = life.pass();
            place.store.revive();
            match result {
                Ok(_) => {
                    let done = place.store.operations() - before;
                    left = left.map(|left| left - done);
                }
                Err(error) => {
                    assert!(left.take().is_some(), "{what}: {error}");
                    place.disk.kill();
                    life = place.begin();
                    place.check(&life, &what);
                    life.pass()
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                }
            }
            place.check(&life, &what);
        }
        // What was left by the crash is young at first.
        for _ in 0..3 {
            place.wait(25 * HOUR_MS);
            life.pass().unwrap();
        }
        place.check_settled(&life, &what);
    }
}

/// Chance decides what happens and what fails.
fn at_random(seed: u64) {
    let what = format!("seed {seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut place = Place::new(seed);
    place.store.keep_conditions(!seed.is_multiple_of(4));
    let mut life = place.begin();
    let mut next = 0;
    for _ in 0..40 {
        let faults = match chance.random_range(0..3) {
            0 => Faults::default(),
            _ => Faults {
                before: 0.08,
                after: 0.08,
            },
        };
        match chance.random_range(0..10) {
            0..3 => {
                let (one, two) = (chance.random_range(1..9), chance.random_range(1..9));
                let of = [("one", next..next + one), ("two", next..next + two)];
                match chance.random_range(0..3) {
                    0 => place.write(&mut life, FileKind::Block, &of[..1]),
                    1 => place.write(&mut life, FileKind::Block, &of[1..]),
                    _ => place.write(&mut life, FileKind::Cut, &of),
                };
                next += 9;
            }
            3 => place.merge(&mut life),
            4 => place.wait(chance.random_range(1..30) * HOUR_MS),
            5 => place.wait(chance.random_range(100..300) * HOUR_MS),
            6 => {
                place.store.stop_after(chance.random_range(1..20));
                let _ = life.pass();
                place.store.revive();
                place.disk.kill();
                life = place.begin();
            }
            _ => {
                place.store.set_faults(faults);
                let _ = life.pass();
                place.store.set_faults(Faults::default());
            }
        }
        place.check(&life, &what);
    }
    for _ in 0..4 {
        place.wait(25 * HOUR_MS);
        // The lease of a life that has ended runs out, is taken, and holds.
        let _ = life.pass();
        life.pass()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    place.check_settled(&life, &what);
}

#[test]
fn whatever_fails_by_chance_nothing_is_missing_and_in_the_end_nothing_is_twice() {
    let seeds = match std::env::var_os("MYELIN_SOAK") {
        Some(_) => 10_000,
        None => 150,
    };
    match std::env::var("MYELIN_SEED") {
        Ok(seed) => at_random(seed.parse().expect("a number")),
        Err(_) => (0..seeds).for_each(at_random),
    }
}
