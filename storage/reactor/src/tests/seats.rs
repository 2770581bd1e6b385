//! Several reactors on the loop of one thread: each hears of its own, whoever waits.

use std::time::Duration;

use super::*;
use crate::{OpenMode, Tick, World, for_each_world};

fn submit_write(reactor: &mut Reactor, file: File, byte: u8, token: u64) {
    let buf = filled(reactor, byte, 512);
    let (offset, len, dsync) = (0, 512, true);
    let write = Op::Write {
        file,
        offset,
        buf,
        len,
        dsync,
    };
    reactor.submit(write, token);
}

#[test]
fn the_same_tokens_of_two_seats_are_told_apart() {
    for_each_world(|place| {
        let mut first = place.reactor();
        let mut second = first.seat();
        let files = [(&mut first, "a"), (&mut second, "b")]
            .map(|(reactor, name)| open(reactor, &place.dir().join(name), OpenMode::create_new()));
        submit_write(&mut first, files[0], 1, 7);
        submit_write(&mut second, files[1], 2, 7);
        first.set_timer(first.now().after(Duration::from_micros(100)), 3);
        second.set_timer(second.now().after(Duration::from_micros(200)), 3);
        let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
        while of_first.len() < 2 || of_second.len() < 2 {
            // Whoever turns the loop, the other finds what is its own.
            first.wait_for_any(None, 1);
            first.take(&mut of_first);
            second.take(&mut of_second);
        }
        for (events, byte) in [(of_first, 1), (of_second, 2)] {
            assert_eq!(events.len(), 2, "{events:?}");
            let (mut timers, mut bytes) = (Vec::new(), Vec::new());
            for event in events {
                match event {
                    Event::Timer(token) => timers.push(token),
                    Event::Completion { token, result } => {
                        assert_eq!(token, 7);
                        bytes.push(result.expect("write").buffer().0[0]);
                    }
                    Event::Doorbell => panic!("nobody rang"),
                }
            }
            assert_eq!((timers, bytes), (vec![3], vec![byte]));
        }
        assert!(!second.cancel_timer(3), "it is out");
        first.set_timer(first.now().after(Duration::from_secs(60)), 3);
        assert!(!second.cancel_timer(3), "that of the other");
        assert!(first.cancel_timer(3));
    });
}

#[test]
fn what_happens_to_one_while_the_other_waits_for_its_own_is_kept() {
    for_each_world(|place| {
        let mut first = place.reactor();
        let mut second = first.seat();
        let file = open(&mut second, &place.dir().join("a"), OpenMode::create_new());
        submit_write(&mut second, file, 9, 1);
        let dir = place.dir().to_owned();
        while !second.has_events() {
            first.run(Op::SyncDir { path: dir.clone() }).expect("sync");
        }
        assert!(!first.has_events());
        let mut events = Vec::new();
        second.wait(None, &mut events);
        assert!(matches!(events[..], [Event::Completion { token: 1, .. }]));
    });
}

#[test]
fn a_seat_that_is_left_with_something_in_flight_disturbs_nobody() {
    for_each_world(|place| {
        let mut first = place.reactor();
        let mut second = first.seat();
        let file = open(&mut second, &place.dir().join("a"), OpenMode::create_new());
        submit_write(&mut second, file, 9, 1);
        second.set_timer(Tick::ZERO, 1);
        drop(second);
        let mut third = first.seat();
        while first.in_flight() > 0 {
            first.wait_for_any(None, 1);
        }
        assert!(!first.has_events() && !third.has_events());
        let content = read(&mut third, file, 0, 512);
        assert_eq!(content, [9; 512]);
    });
}

#[test]
fn one_doorbell_wakes_whoever_waits_for_all() {
    for_each_world(|place| {
        let mut first = place.reactor();
        let second = first.seat();
        if place.world() != World::Sim {
            let doorbell = second.doorbell();
            let ringer = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                doorbell.ring();
            });
            let until = first.now().after(Duration::from_secs(30));
            first.wait_for_any(Some(until), 1);
            assert!(first.now() < until);
            ringer.join().expect("the ringer");
        } else {
            second.doorbell().ring();
            first.wait_for_any(None, 1);
        }
        let mut events = Vec::new();
        first.take(&mut events);
        assert!(matches!(events[..], [Event::Doorbell]), "{events:?}");
        assert!(!second.has_events());
        let dir = place.dir().to_owned();
        first.run(Op::SyncDir { path: dir }).expect("sync");
    });
}
