//! Waking a core from other threads, without losing a wake and without paying for one that is not
//! needed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::{OpenMode, World, for_each_world};

#[test]
fn a_ring_before_the_wait_ends_it_and_many_rings_are_one_event() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let doorbell = reactor.doorbell();
        for _ in 0..5 {
            doorbell.clone().ring();
        }
        let mut events = Vec::new();
        reactor.wait(None, &mut events);
        assert!(matches!(events[..], [Event::Doorbell]));
        events.clear();
        reactor.poll(&mut events);
        assert!(events.is_empty());
        assert_eq!(doorbell.wakes(), 0, "nobody slept");
        reactor
            .run(Op::SyncDir {
                path: place.dir().to_owned(),
            })
            .expect("sync");
    });
}

#[test]
fn a_ring_wakes_a_core_that_sleeps() {
    for_each_world(|place| {
        if place.world() == World::Sim {
            return;
        }
        let mut reactor = place.reactor();
        reactor
            .run(Op::SyncDir {
                path: place.dir().to_owned(),
            })
            .expect("sync");
        let doorbell = reactor.doorbell();
        let before = doorbell.wakes();
        let ringer = std::thread::spawn({
            let doorbell = doorbell.clone();
            move || {
                std::thread::sleep(Duration::from_millis(50));
                doorbell.ring();
            }
        });
        let mut events = Vec::new();
        let until = reactor.now().after(Duration::from_secs(30));
        reactor.wait(Some(until), &mut events);
        assert!(matches!(events[..], [Event::Doorbell]), "{events:?}");
        assert!(reactor.now() < until);
        ringer.join().expect("the ringer");
        assert_eq!(doorbell.wakes() - before, 1);
    });
}

/// Two ringers play ping-pong with a core that sleeps whenever it can, with random pauses around
/// the moment of falling asleep, while writes complete in between. A lost wake leaves a message
/// unanswered, which the deadline of the wait turns into a failure.
#[test]
fn no_wake_is_lost_between_two_ringers_and_a_core_that_keeps_falling_asleep() {
    const ROUNDS: u64 = 4000;
    for_each_world(|place| {
        if place.world() == World::Sim {
            return;
        }
        let mut reactor = place.reactor();
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        let mailbox = Arc::new(Mutex::new(Vec::new()));
        let ringers: Vec<_> = (0..2u64)
            .map(|ringer| {
                let (mailbox, doorbell) = (Arc::clone(&mailbox), reactor.doorbell());
                let (reply, answers) = channel::<u64>();
                std::thread::spawn(move || {
                    for round in 0..ROUNDS {
                        let pause = (round * 7919 + ringer * 104_729) % 1500;
                        for _ in 0..pause {
                            std::hint::spin_loop();
                        }
                        mailbox.lock().expect("lock").push((round, reply.clone()));
                        doorbell.ring();
                        match answers.recv_timeout(Duration::from_secs(30)) {
                            Ok(answer) => assert_eq!(answer, round),
                            Err(_) => panic!("round {round}: the wake was lost"),
                        }
                    }
                })
            })
            .collect();
        let mut answered = 0;
        let mut events = Vec::new();
        let mut buf = Some(filled(&mut reactor, 1, 512));
        while answered < 2 * ROUNDS {
            if answered % 3 == 0
                && let Some(buf) = buf.take()
            {
                reactor.submit(
                    Op::Write {
                        file,
                        offset: 0,
                        buf,
                        len: 512,
                        dsync: false,
                    },
                    1,
                );
            }
            let until = reactor.now().after(Duration::from_secs(20));
            reactor.wait(Some(until), &mut events);
            assert!(
                !events.is_empty(),
                "a wake was lost after {answered} answers"
            );
            for event in events.drain(..) {
                match event {
                    Event::Completion { result, .. } => {
                        buf = Some(result.expect("write").buffer().0);
                    }
                    Event::Doorbell => {
                        for (round, reply) in std::mem::take(&mut *mailbox.lock().expect("lock")) {
                            reply.send(round).expect("the ringer waits");
                            answered += 1;
                        }
                    }
                    Event::Timer(_) => panic!("no timer was set"),
                }
            }
        }
        for ringer in ringers {
            ringer.join().expect("a ringer");
        }
        let wakes = reactor.doorbell().wakes();
        assert!(wakes > 0, "the core never slept: the test showed nothing");
        assert!(wakes <= 2 * ROUNDS + reactor.stats().sleeps);
    });
}

#[test]
fn a_core_that_is_awake_costs_its_ringers_no_system_call() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let doorbell = reactor.doorbell();
        let rung = Arc::new(AtomicU64::new(0));
        let ringer = std::thread::spawn({
            let (doorbell, rung) = (doorbell.clone(), Arc::clone(&rung));
            move || {
                for _ in 0..100_000 {
                    doorbell.ring();
                    rung.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut events = Vec::new();
        while rung.load(Ordering::Relaxed) < 100_000 {
            reactor.poll(&mut events);
            events.clear();
        }
        ringer.join().expect("the ringer");
        assert_eq!(doorbell.wakes(), 0);
        reactor
            .run(Op::SyncDir {
                path: place.dir().to_owned(),
            })
            .expect("sync");
    });
}
