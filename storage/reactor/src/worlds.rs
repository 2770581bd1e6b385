//! One test, three worlds: how the tests of this crate and of those above it run everywhere.
//!
//! The rule it keeps: a run that was to show something about io_uring and did not use it has shown
//! nothing, so it fails. Where io_uring is blocked (Docker's default seccomp profile does) the
//! tests can be told so with `MYELIN_TEST_WITHOUT_URING=1`; each skip is then printed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::reactor::{IoMode, Options, Reactor, World};
use crate::sim::Sim;

/// Where a test runs: a world and an empty directory in it.
pub struct Place {
    world: World,
    dir: PathBuf,
    sim: Option<Sim>,
    ring_completions: Arc<AtomicU64>,
}

impl Place {
    /// The world of its reactors.
    pub fn world(&self) -> World {
        self.world
    }

    /// An empty directory, removed afterwards. Of the simulation, on its disk.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The machine, if it is a simulated one.
    pub fn sim(&self) -> Option<&Sim> {
        self.sim.as_ref()
    }

    /// A new reactor of this world (another core, or the same after a restart).
    pub fn reactor(&self) -> Reactor {
        let io = match self.world {
            World::Uring => IoMode::Uring,
            World::Threads => IoMode::Threads,
            World::Sim => {
                return Reactor::sim(self.sim.as_ref().expect("the simulation has a machine"));
            }
        };
        self.reactor_with(&Options {
            io,
            ..Options::default()
        })
    }

    /// The same with options, whose `io` must be this world (real worlds only).
    pub fn reactor_with(&self, options: &Options) -> Reactor {
        let mut reactor = Reactor::open(options).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(reactor.world(), self.world);
        reactor.keep_ledger(Arc::clone(&self.ring_completions));
        reactor
    }
}

/// Runs `test` in each world, and fails if the ring was not really used in its turn. The test must
/// drop its reactors before it returns.
pub fn for_each_world(mut test: impl FnMut(&Place)) {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    for world in [World::Sim, World::Threads, World::Uring] {
        if world == World::Uring && std::env::var_os("MYELIN_TEST_WITHOUT_URING").is_some() {
            eprintln!("skipped on io_uring: MYELIN_TEST_WITHOUT_URING is set");
            continue;
        }
        // Shown by the test harness when the test fails.
        println!("world: {}", world.name());
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("myelin-test-{}-{number}", std::process::id());
        let ring_completions = Arc::new(AtomicU64::new(0));
        if world == World::Sim {
            let sim = Sim::new(1);
            let dir = Path::new("/").join(name);
            Reactor::sim(&sim)
                .create_dirs(&dir)
                .expect("an empty disk takes a directory");
            test(&Place {
                world,
                dir,
                sim: Some(sim),
                ring_completions,
            });
            continue;
        }
        let scratch = Scratch(std::env::temp_dir().join(name));
        std::fs::create_dir(&scratch.0).expect("the directory for temporary files is writable");
        let place = Place {
            world,
            dir: scratch.0.clone(),
            sim: None,
            ring_completions,
        };
        test(&place);
        if world == World::Uring {
            let used = place.ring_completions.load(Ordering::Relaxed);
            assert!(used > 0, "io_uring was asked for and not used");
        }
    }
}

/// A directory removed at the end, whether the test passed or not.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's cleaning of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
