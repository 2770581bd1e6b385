//! That io_uring is really used, is cheap when idle, and is replaced by threads where it is
//! blocked.

use std::time::Duration;

use super::*;
use crate::{Error, IoMode, OpenMode, Options, World, for_each_world};

fn with(io: IoMode) -> Options {
    Options {
        io,
        ..Options::default()
    }
}

#[test]
fn on_the_ring_every_write_goes_through_it_and_a_turn_costs_one_enter() {
    for_each_world(|place| {
        if place.world() != World::Uring {
            return;
        }
        let mut reactor = place.reactor();
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        let before = reactor.stats();
        for round in 0..100 {
            for part in 0..3 {
                let buf = filled(&mut reactor, part, 512);
                let offset = u64::from(part) * 512;
                reactor.submit(
                    Op::Write {
                        file,
                        offset,
                        buf,
                        len: 512,
                        dsync: false,
                    },
                    round,
                );
            }
            for (_, result) in completions(&mut reactor, 3) {
                let (buf, _) = result.expect("write").buffer();
                reactor.recycle(buf);
            }
        }
        let after = reactor.stats();
        assert_eq!(after.ring_completions - before.ring_completions, 300);
        assert_eq!(after.inline, before.inline);
        // Three enters a round where the completions come one by one; one where they come together.
        let enters = after.enters - before.enters;
        assert!(
            (100..=300).contains(&enters),
            "{enters} enters for 100 turns"
        );
    });
}

#[test]
fn an_idle_core_blocks_in_the_kernel() {
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
        let before = (reactor.stats(), thread_cpu());
        let until = reactor.now().after(Duration::from_millis(200));
        let mut events = Vec::new();
        reactor.wait(Some(until), &mut events);
        let after = (reactor.stats(), thread_cpu());
        assert!(events.is_empty());
        let turns = after.0.sleeps - before.0.sleeps;
        assert!(turns <= 3, "{turns} sleeps");
        let cpu = after.1 - before.1;
        assert!(
            cpu < Duration::from_millis(20),
            "{cpu:?} of CPU in an idle 200 ms"
        );
    });
}

fn thread_cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

#[test]
fn the_mode_auto_says_why_it_fell_back_and_uring_refuses_where_it_is_blocked() {
    // In its own thread, which is its own seccomp world. Blocked at the set-up, as Docker does, or
    // only at each use.
    for (call, reason) in [
        (libc::SYS_io_uring_setup, "io_uring_setup"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
    ] {
        let contained = std::thread::spawn(move || {
            block(call);
            let error = Reactor::open(&with(IoMode::Uring)).err().expect("blocked");
            assert!(
                matches!(&error, Error::Uring { reason: told } if told.contains(reason)),
                "{error}"
            );
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut reactor = Reactor::open(&with(IoMode::Auto)).expect("threads do");
            assert_eq!(reactor.world(), World::Threads);
            let told = reactor.fallback_reason().expect("it fell back").to_owned();
            assert!(
                told.contains(reason) && told.contains("Operation not permitted"),
                "{told}"
            );
            let path = dir.path().join("a");
            reactor.replace_whole(&path, b"works").expect("replace");
            assert_eq!(reactor.read_whole(&path, 10).expect("read"), b"works");
        });
        contained.join().expect("in the container");
    }
    let reactor = Reactor::open(&with(IoMode::Threads)).expect("threads");
    assert_eq!(
        (reactor.world(), reactor.fallback_reason()),
        (World::Threads, None)
    );
}

/// Makes one system call fail with EPERM, for this thread.
fn block(call: libc::c_long) {
    let statement = |code: u32, jump: (u8, u8), value: u32| libc::sock_filter {
        code: code as u16,
        jt: jump.0,
        jf: jump.1,
        k: value,
    };
    let call = u32::try_from(call).expect("a small number");
    let mut filter = [
        // The number of the call is the first field of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (0, 1), call),
        statement(
            libc::BPF_RET | libc::BPF_K,
            (0, 0),
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, (0, 0), libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: neither call touches memory of ours beyond `program` and the filter it points to,
    // which live until after the call. The filter ends in a return on each path and binds this
    // thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program),
            0
        );
    }
}
