//! The threads that do what costs CPU: a few *drivers*, one per query at work, and a pool that takes pieces of their evaluations.
//!
//! A driver runs a job from beginning to end, so a slow query cannot stand in line before a quick one; the scheduler of the system
//! shares the CPUs among them. Pieces of one evaluation are handed to the pool one at a time, in order of arrival over all queries
//! (`spawn_fifo`), and the driver works on them too. All of these threads have a lower priority than cores and gateway threads.
//!
//! rayon-core is used for its scope alone: it lends borrowed closures to threads that live on, without `unsafe` of ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::{Sender, unbounded};
use promql::Executor;
use rayon_core::{ScopeFifo, ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::options::{NICENESS, Options, STACK_BYTES};

type Job = Box<dyn FnOnce() + Send>;

/// Handle on the threads; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Unbounded itself: the engine admits only so many queries, and each has at most one job here.
    jobs: Sender<Job>,
    pool: Pool,
}

/// A way to the drivers that does not wait for an answer.
#[derive(Debug, Clone)]
pub(crate) struct Jobs(Sender<Job>);

impl Jobs {
    /// Has a driver do something short, whenever one is free; not at all once the workers have ended.
    pub(crate) fn post(&self, job: impl FnOnce() + Send + 'static) {
        // Drivers end with the process.
        let _ = self.0.send(Box::new(job));
    }
}

/// The executor that evaluations get.
#[derive(Debug, Clone)]
pub(crate) struct Pool(std::sync::Arc<ThreadPool>);

/// A job panicked; the message has been printed by the panic hook.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

impl Workers {
    /// Starts the threads. Panics when the system refuses to make one: there is no node without them.
    pub(crate) fn start(options: &Options) -> Workers {
        let width = options.workers.max(1);
        let pool = ThreadPoolBuilder::new()
            .num_threads(width)
            .stack_size(STACK_BYTES)
            .thread_name(|n| format!("query-pool-{n}"))
            .start_handler(|_| be_nice())
            .build()
            .expect("threads for queries");
        let (jobs, queue) = unbounded::<Job>();
        for n in 0..options.concurrent_max.clamp(1, (4 * width).max(8)) {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("query-{n}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    be_nice();
                    queue.iter().for_each(|job| job());
                })
                .expect("threads for queries");
        }
        Workers {
            jobs,
            pool: Pool(std::sync::Arc::new(pool)),
        }
    }

    /// What evaluations run their pieces on.
    pub(crate) fn executor(&self) -> Pool {
        self.pool.clone()
    }

    /// For jobs that nobody waits for.
    pub(crate) fn jobs(&self) -> Jobs {
        Jobs(self.jobs.clone())
    }

    /// Runs `job` on a driver. Dropping the future does not stop the job.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (sender, receiver) = oneshot::channel();
        let job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(job)).map_err(|_| Panicked);
            // Nobody waits any more: the result is not wanted.
            let _ = sender.send(result);
        });
        self.jobs
            .send(job)
            .expect("drivers live as long as the workers");
        receiver.await.unwrap_or(Err(Panicked))
    }
}

/// Lowers the priority of the calling thread (on Linux, niceness belongs to the thread). Where that is refused, queries
/// compete on equal terms, which costs latency of writes only.
fn be_nice() {
    let _ = rustix::process::nice(NICENESS);
}

impl Executor for Pool {
    fn width(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        let helpers = self.width().min(count).saturating_sub(1);
        if helpers == 0 {
            return (0..count).for_each(piece);
        }
        let next = AtomicUsize::new(0);
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&n| n < count);
        self.0.in_place_scope_fifo(|scope| {
            for _ in 0..helpers {
                scope.spawn_fifo(|scope| help(scope, &take, piece));
            }
            while let Some(n) = take() {
                piece(n);
            }
        });
    }
}

/// One piece, then back to the end of the line.
fn help<'scope>(
    scope: &ScopeFifo<'scope>,
    take: &'scope (dyn Fn() -> Option<usize> + Sync),
    piece: &'scope (dyn Fn(usize) + Sync),
) {
    if let Some(n) = take() {
        piece(n);
        scope.spawn_fifo(move |scope| help(scope, take, piece));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn workers() -> Workers {
        Workers::start(&Options::new(3))
    }

    #[test]
    fn every_piece_runs_once_and_all_are_done_on_return() {
        let pool = workers().executor();
        for count in [0, 1, 2, 3, 100] {
            let seen = Mutex::new(Vec::new());
            pool.run(count, &|n| seen.lock().unwrap().push(n));
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_panic_of_a_piece_is_a_panic_of_its_job_and_the_threads_live_on() {
        let workers = workers();
        let pool = workers.executor();
        let failed = workers
            .run(move || pool.run(9, &|n| assert!(n != 4, "piece")))
            .await;
        assert_eq!(failed, Err(Panicked));
        for _ in 0..30 {
            let pool = workers.executor();
            let done = AtomicUsize::new(0);
            let sum = workers.run(move || {
                pool.run(5, &|n| {
                    done.fetch_add(n, Ordering::Relaxed);
                });
                done.into_inner()
            });
            assert_eq!(sum.await, Ok(10));
        }
    }

    #[tokio::test]
    async fn workers_are_nicer_than_their_starter() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let workers = workers();
        let nice = workers
            .run(|| rustix::process::getpriority_process(None).unwrap())
            .await;
        assert!(nice.unwrap() > before || before >= 19);
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
