//! The loop: completions by token, timers, deadlines, and events that wait for `run`.

use std::time::Duration;

use super::*;
use crate::{IoMode, OpenMode, Options, Tick, World, for_each_world};

#[test]
fn many_operations_in_flight_each_bring_their_own_token_and_buffer() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        // More than the ring has entries.
        for token in 0..500u64 {
            let buf = filled(&mut reactor, token as u8, 512);
            let write = Op::Write {
                file,
                offset: token * 512,
                buf,
                len: 512,
                dsync: false,
            };
            reactor.submit(write, token);
        }
        assert_eq!(reactor.in_flight(), 500);
        let mut seen = [false; 500];
        for (token, result) in completions(&mut reactor, 500) {
            let (buf, len) = result.expect("write").buffer();
            assert_eq!(buf[..len], [token as u8; 512]);
            assert!(!std::mem::replace(&mut seen[token as usize], true), "twice");
        }
        assert_eq!(reactor.in_flight(), 0);
        let stats = reactor.stats();
        assert_eq!(stats.submissions, stats.completions);
        assert_eq!(stats.submissions, 501);
        let content = read(&mut reactor, file, 0, 256_000);
        assert!(
            content
                .chunks(512)
                .zip(0..)
                .all(|(part, n)| part == [n as u8; 512])
        );
    });
}

#[test]
fn a_ring_of_one_entry_and_a_single_helper_are_enough() {
    for_each_world(|place| {
        let io = match place.world() {
            World::Uring => IoMode::Uring,
            World::Threads => IoMode::Threads,
            World::Sim => return,
        };
        let mut reactor = place.reactor_with(&Options {
            io,
            entries: 1,
            helpers: 1,
        });
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        for token in 0..50 {
            reactor.submit(
                Op::Sync {
                    file,
                    data_only: true,
                },
                token,
            );
        }
        assert!(
            completions(&mut reactor, 50)
                .into_iter()
                .all(|(_, result)| result.is_ok())
        );
    });
}

#[test]
fn options_beyond_their_bounds_are_refused_by_name() {
    for (options, name) in [
        (
            Options {
                entries: 0,
                ..Options::default()
            },
            "entries",
        ),
        (
            Options {
                entries: 4097,
                ..Options::default()
            },
            "entries",
        ),
        (
            Options {
                helpers: 0,
                ..Options::default()
            },
            "helpers",
        ),
        (
            Options {
                helpers: 17,
                ..Options::default()
            },
            "helpers",
        ),
    ] {
        let error = Reactor::open(&options).err().expect("refused").to_string();
        assert!(error.contains(name), "{error}");
    }
    for text in ["auto", "uring", "threads"] {
        assert_eq!(text.parse::<IoMode>().expect("a mode").to_string(), text);
    }
    assert!("sim".parse::<IoMode>().is_err());
}

#[test]
fn timers_fire_in_order_and_not_early_and_a_cancelled_one_does_not() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let start = reactor.now();
        let at = |ms| start.after(Duration::from_millis(ms));
        reactor.set_timer(at(9), 9);
        reactor.set_timer(at(3), 3);
        reactor.set_timer(at(6), 6);
        reactor.set_timer(at(1), 12);
        reactor.set_timer(at(12), 12);
        assert!(reactor.cancel_timer(6));
        assert!(!reactor.cancel_timer(6));
        let mut fired = Vec::new();
        let mut events = Vec::new();
        while fired.len() < 3 {
            reactor.wait(None, &mut events);
            for event in events.drain(..) {
                let Event::Timer(token) = event else {
                    panic!("unexpected {event:?}")
                };
                assert!(reactor.now() >= at(token), "early");
                fired.push(token);
            }
        }
        assert_eq!(fired, [3, 9, 12]);
        // So that the ring is used in this test as well.
        reactor
            .run(Op::SyncDir {
                path: place.dir().to_owned(),
            })
            .expect("sync");
    });
}

#[test]
fn a_wait_ends_at_its_deadline_and_a_poll_at_once() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let mut events = Vec::new();
        let before = reactor.now();
        reactor.poll(&mut events);
        reactor.wait(Some(before), &mut events);
        let until = before.after(Duration::from_millis(20));
        reactor.wait(Some(until), &mut events);
        assert!(events.is_empty());
        let late = reactor.now().since(until);
        assert!(reactor.now() >= until, "returned early");
        assert!(late < Duration::from_secs(10), "{late:?} late");
        reactor
            .run(Op::SyncDir {
                path: place.dir().to_owned(),
            })
            .expect("sync");
    });
}

#[test]
fn polling_alone_brings_completions() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        let buf = filled(&mut reactor, 1, 4096);
        reactor.submit(
            Op::Write {
                file,
                offset: 0,
                buf,
                len: 4096,
                dsync: true,
            },
            5,
        );
        reactor.flush();
        let mut events = Vec::new();
        while events.is_empty() {
            if let Some(sim) = place.sim() {
                sim.step();
            }
            reactor.poll(&mut events);
        }
        assert!(matches!(
            events[..],
            [Event::Completion {
                token: 5,
                result: Ok(_)
            }]
        ));
    });
}

#[test]
fn what_arrives_during_run_waits_for_the_next_wait() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        reactor.set_timer(reactor.now(), 8);
        reactor.doorbell().ring();
        reactor.submit(
            Op::Sync {
                file,
                data_only: true,
            },
            1,
        );
        reactor.submit(
            Op::Stat {
                path: place.dir().to_owned(),
            },
            2,
        );
        for _ in 0..20 {
            reactor
                .run(Op::Sync {
                    file,
                    data_only: true,
                })
                .expect("sync");
        }
        let mut events = Vec::new();
        while events.len() < 4 {
            reactor.wait(None, &mut events);
        }
        let mut seen: Vec<String> = events
            .iter()
            .map(|event| match event {
                Event::Completion {
                    token,
                    result: Ok(_),
                } => format!("completion {token}"),
                Event::Timer(token) => format!("timer {token}"),
                Event::Doorbell => "doorbell".to_owned(),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        seen.sort();
        assert_eq!(
            seen,
            ["completion 1", "completion 2", "doorbell", "timer 8"]
        );
    });
}

#[test]
fn the_wall_clock_is_in_this_century_and_the_monotonic_one_does_not_go_back() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        assert!(reactor.wall_ms() > 1_600_000_000_000);
        let mut last = Tick::ZERO;
        for _ in 0..100 {
            let now = reactor.now();
            assert!(now >= last);
            last = now;
        }
        reactor
            .run(Op::SyncDir {
                path: place.dir().to_owned(),
            })
            .expect("sync");
    });
}
