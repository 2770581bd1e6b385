//! The log on a simulated machine: seeded lives that end by power cut, kill, or failing disk, judged by a model that knows what was appended and acknowledged.
//!
//! `MYELIN_SIM_SECONDS` is the time budget of the random part (default 3), `MYELIN_SEED` runs one seed alone. A failure prints its seed and the
//! command that repeats it.

#[path = "sim/life.rs"]
mod life;
#[path = "sim/model.rs"]
mod model;

use std::time::{Duration, Instant};

use life::{Life, Plan, Shape};
use model::Model;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reactor::{Fault, OpKind, Sim, SimOptions};

/// Seeds that are run whatever they cost: in these, everything that is asserted to have happened does.
const SEEDS_MIN: u64 = 300;

/// Lives of one machine, one after another; each but the last ends badly.
fn run_seed(seed: u64) -> Model {
    let mut rng = SmallRng::seed_from_u64(seed);
    let capacity = if rng.random_bool(0.2) {
        rng.random_range(400_000..800_000)
    } else {
        u64::MAX
    };
    let direct = rng.random_bool(0.8);
    let sim = Sim::with(SimOptions {
        seed,
        capacity,
        direct,
        ..SimOptions::default()
    });
    let shape = Shape::random(&mut rng, direct);
    let mut model = Model::default();
    for _ in 0..rng.random_range(2..7) {
        let steps = rng.random_range(5..120);
        let plan = random_plan(&mut rng);
        Life::live(&sim, &mut model, &shape, &mut rng, steps, plan);
    }
    sim.set_capacity(u64::MAX);
    Life::live(&sim, &mut model, &shape, &mut rng, 20, Plan::Quiet);
    model
}

fn random_plan(rng: &mut SmallRng) -> Plan {
    let fault = if rng.random_bool(0.5) {
        Fault::EIO
    } else {
        Fault::ENOSPC
    };
    match rng.random_range(0..8) {
        0 => Plan::Quiet,
        1 => Plan::Kill,
        2 => Plan::FailNth {
            nth: rng.random_range(1..150),
            fault,
            then_power_cut: rng.random(),
        },
        3 => Plan::FailKind {
            kind: [
                OpKind::Write,
                OpKind::Sync,
                OpKind::Allocate,
                OpKind::Rename,
                OpKind::SyncDir,
            ][rng.random_range(0..5)],
            percent: rng.random_range(1..30),
            fault,
        },
        _ => Plan::StopAfter(rng.random_range(1..100)),
    }
}

/// Runs a life; a failure tells its seed and the command that repeats it.
fn named(seed: u64, test: &str, run: impl FnOnce() -> Model) -> Model {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    outcome.unwrap_or_else(|panic| {
        let command = format!("cargo test -p wal --test sim {test} -- --nocapture");
        eprintln!("seed {seed} failed; repeat with: MYELIN_SEED={seed} {command}");
        std::panic::resume_unwind(panic)
    })
}

/// The seed asked for, if one is.
fn seed_asked() -> Option<u64> {
    let text = std::env::var("MYELIN_SEED").ok()?;
    Some(text.parse().expect("MYELIN_SEED is a number"))
}

#[test]
fn seeded_lives_keep_what_was_acknowledged_and_replay_a_prefix() {
    if let Some(seed) = seed_asked() {
        let model = named(seed, "seeded", || run_seed(seed));
        println!("seed {seed}: {:?}", model.counts);
        return;
    }
    let seconds =
        std::env::var("MYELIN_SIM_SECONDS").map_or(3.0, |text| text.parse().expect("seconds"));
    #[expect(
        clippy::disallowed_methods,
        reason = "a time budget for the test itself"
    )]
    let start = Instant::now();
    let mut seeds = 0;
    let mut counts = model::Counts::default();
    while seeds < SEEDS_MIN || start.elapsed() < Duration::from_secs_f64(seconds) {
        let model = named(seeds, "seeded", || run_seed(seeds));
        counts.add(&model.counts);
        seeds += 1;
    }
    tell(&format!("wal sim: {seeds} seeds, {counts:?}"));
    // What the seeds are for must really have happened in them.
    for (what, count) in [
        ("power cuts", counts.power_cuts),
        ("tears", counts.tears),
        ("poisoned logs", counts.poisoned),
        ("checkpoints", counts.checkpoints),
        ("replays from a checkpoint", counts.from_checkpoint),
        ("recycled segments", counts.recycled),
        ("relaxed commits", counts.relaxed),
        ("relaxed samples lost by a power cut", counts.lost_relaxed),
    ] {
        assert!(count > 0, "{seeds} seeds without {what}");
    }
}

/// One life is cut after each of its operations, the start-up before and the replay after it included.
#[test]
fn a_power_cut_after_every_single_operation_loses_nothing_acknowledged() {
    let mut cuts = 0;
    for seed in seed_asked().map_or(0..4, |seed| seed..seed + 1) {
        for stop in 1.. {
            let mut rng = SmallRng::seed_from_u64(seed);
            let sim = Sim::new(seed);
            let shape = Shape::random(&mut rng, true);
            let mut model = Model::default();
            let stopped = named(seed, "a_power_cut", || {
                Life::live(
                    &sim,
                    &mut model,
                    &shape,
                    &mut rng,
                    400,
                    Plan::StopAfter(stop),
                );
                let stopped = model.counts.power_cuts > 0;
                // The next start is cut as well, early.
                Life::live(
                    &sim,
                    &mut model,
                    &shape,
                    &mut rng,
                    5,
                    Plan::StopAfter(stop % 23),
                );
                Life::live(&sim, &mut model, &shape, &mut rng, 5, Plan::Quiet);
                model.stopped = stopped;
                model
            })
            .stopped;
            if !stopped {
                break;
            }
            cuts += 1;
        }
    }
    tell(&format!("wal sim: cut after each of {cuts} operations"));
    assert!(
        cuts > 250 || seed_asked().is_some(),
        "only {cuts} operations to stop after"
    );
}

/// Each operation of a life fails once with EIO and once with ENOSPC.
#[test]
fn a_failure_of_every_single_operation_loses_nothing_acknowledged() {
    let mut failures = 0;
    for seed in seed_asked().map_or(0..3, |seed| seed..seed + 1) {
        let fault = if seed % 2 == 0 {
            Fault::EIO
        } else {
            Fault::ENOSPC
        };
        for nth in 1.. {
            let mut rng = SmallRng::seed_from_u64(seed);
            let sim = Sim::new(seed);
            let shape = Shape::random(&mut rng, true);
            let model = named(seed, "a_failure", || {
                let mut model = Model::default();
                let then_power_cut = nth % 2 == 0;
                let plan = Plan::FailNth {
                    nth,
                    fault,
                    then_power_cut,
                };
                let ops = Life::live(&sim, &mut model, &shape, &mut rng, 400, plan);
                Life::live(&sim, &mut model, &shape, &mut rng, 5, Plan::Quiet);
                model.stopped = ops < nth;
                model
            });
            if model.stopped {
                break;
            }
            failures += 1;
        }
    }
    tell(&format!("wal sim: failed each of {failures} operations"));
    assert!(
        failures > 150 || seed_asked().is_some(),
        "only {failures} operations to fail"
    );
}

/// Past the capture of the test runner: how much was tried is to be seen in every log.
fn tell(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
