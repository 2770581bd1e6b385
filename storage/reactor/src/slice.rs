//! Time slices by what a thread is for, so that whoever has little to do gets in between.
//!
//! On a disk with a volatile cache and without FUA a durable direct write ends in a kernel worker
//! (`iomap_dio_complete_work` flushes the cache), bound to the CPU that submitted it: the core's.
//! While the core computes, that worker waits for the end of the core's time slice, which is looked
//! at once per scheduler tick: a commit that takes 0.1 ms on an idle core was measured at 4 to 8 ms
//! on a busy one.
//!
//! Linux 6.12 lets a thread ask for another slice. Under EEVDF the runnable thread with the
//! earliest deadline runs, and a longer slice is a later deadline: the thread gets its fair share
//! as before, but those that ask for less preempt it when they wake. So the order of the slices is
//! the order of who waits for whom: kernel workers (the default, 0.7 to 2.8 ms with the number of
//! CPUs), gateway threads, cores, query workers. With a core that asks for more than they do the
//! same commit takes 0.2 ms (`docs/decisions/0001`); with gateway threads that wait for no core,
//! and cores that wait for no query, writes keep their latency beside queries on the same CPU
//! (`docs/performance.md`). Needs no privilege. Where the kernel does not know it, nothing changes.

use std::time::Duration;

/// What a thread is for, as far as the scheduler is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSlice {
    /// Answers others in fractions of a millisecond: 1 ms.
    Gateway,
    /// Owns a core: 3 ms, above the default of kernel workers.
    Core,
    /// Computes for long on the CPU of a core, and would hold up its commits: 20 ms. Nothing more was gained beyond (tried: 100 ms, the
    /// kernel's maximum).
    Work,
}

impl TimeSlice {
    /// What it asks for.
    pub fn length(self) -> Duration {
        Duration::from_millis(match self {
            TimeSlice::Gateway => 1,
            TimeSlice::Core => 3,
            TimeSlice::Work => 20,
        })
    }

    /// Asks for this slice for the calling thread, if it is an ordinary one (SCHED_OTHER or
    /// SCHED_BATCH); threads that it starts inherit it. Returns what the thread has now, or None
    /// where the kernel does not tell (before Linux 6.12).
    pub fn ask(self) -> Option<Duration> {
        let mut attributes = get()?;
        let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH]
            .into_iter()
            .any(|policy| attributes.sched_policy == policy.cast_unsigned());
        if ordinary {
            attributes.sched_runtime = self.length().as_nanos() as u64;
            // A refusal (an old kernel, a seccomp profile) leaves the slice as it is, which `get`
            // tells.
            set(&attributes);
        }
        let slice = get()?.sched_runtime;
        (slice > 0).then_some(Duration::from_nanos(slice))
    }
}

fn get() -> Option<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>();
    // SAFETY: a sched_attr is plain numbers, for which zeros are a value. The kernel writes at most
    // `size` bytes to it, and only during the call; thread 0 is the calling one.
    unsafe {
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        let told = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0);
        (told == 0).then_some(attributes)
    }
}

fn set(attributes: &libc::sched_attr) {
    // SAFETY: the kernel reads the struct, whose `size` field `get` filled in, during the call
    // only; thread 0 is the calling one. It changes how the thread is scheduled, no memory.
    unsafe {
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_changes_for_this_thread_only() {
        let before = get().expect("the kernel tells").sched_runtime;
        if before == 0 {
            println!("skipped: this kernel has no slices (before Linux 6.12)");
            return;
        }
        std::thread::spawn(|| {
            for slice in [TimeSlice::Work, TimeSlice::Core, TimeSlice::Gateway] {
                assert_eq!(slice.ask(), Some(slice.length()));
                assert_eq!(slice.ask(), Some(slice.length()), "again changes nothing");
            }
        })
        .join()
        .expect("the thread");
        assert_eq!(get().expect("the kernel tells").sched_runtime, before);
    }
}
