//! A longer time slice for the core's thread, so that the kernel's own workers get in between.
//!
//! On a disk with a volatile cache and without FUA a durable direct write ends in a kernel worker
//! (`iomap_dio_complete_work` flushes the cache), bound to the CPU that submitted it: the core's.
//! While the core computes, that worker waits for the end of the core's time slice, which is looked
//! at once per scheduler tick: a commit that takes 0.1 ms on an idle core was measured at 4 to 8 ms
//! on a busy one.
//!
//! Linux 6.12 lets a thread ask for another slice. Under EEVDF the runnable thread with the
//! earliest deadline runs, and a longer slice is a later deadline: the thread gets its fair share
//! as before, but those that ask for less, as kernel workers do, preempt it when they wake. With 20
//! ms the same commit takes 0.2 ms (`docs/decisions/0001`). Needs no privilege. Where the kernel
//! does not know it, nothing changes.

use std::time::Duration;

/// Long against the default of 0.7 to 3 ms; beyond 20 ms nothing more was gained (tried: 100 ms,
/// the kernel's maximum).
const SLICE: Duration = Duration::from_millis(20);

/// Asks for a time slice of 20 ms for the calling thread, if it is an ordinary one (SCHED_OTHER or
/// SCHED_BATCH) with a shorter one. Returns what the thread has now, or None where the kernel does
/// not tell (before Linux 6.12).
///
/// [`crate::Reactor::open`] does it for its own thread. It is public for threads that compute on
/// the CPU of a core: they hold up the core's commits just as well.
pub fn lengthen_time_slice() -> Option<Duration> {
    let mut attributes = get()?;
    let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH]
        .into_iter()
        .any(|policy| attributes.sched_policy == policy.cast_unsigned());
    if ordinary && attributes.sched_runtime < SLICE.as_nanos() as u64 {
        attributes.sched_runtime = SLICE.as_nanos() as u64;
        // A refusal (an old kernel, a seccomp profile) leaves the slice as it is, which `get`
        // tells.
        set(&attributes);
    }
    let slice = get()?.sched_runtime;
    (slice > 0).then_some(Duration::from_nanos(slice))
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
    fn the_slice_is_lengthened_for_this_thread_only() {
        let before = get().expect("the kernel tells").sched_runtime;
        if before == 0 {
            println!("skipped: this kernel has no slices (before Linux 6.12)");
            return;
        }
        std::thread::spawn(|| {
            assert_eq!(lengthen_time_slice(), Some(SLICE));
            assert_eq!(
                lengthen_time_slice(),
                Some(SLICE),
                "once more changes nothing"
            );
        })
        .join()
        .expect("the thread");
        assert_eq!(get().expect("the kernel tells").sched_runtime, before);
    }
}
