//! The threads that do what costs CPU: a few *drivers*, one per query at work, and a pool that takes pieces of their evaluations.
//!
//! A driver runs a job from beginning to end, so a slow query cannot stand in line before a quick one; the scheduler of the system
//! shares the CPUs among them. Pieces of one evaluation are handed to the pool one at a time, in order of arrival over all queries
//! (`spawn_fifo`), and the driver works on them too. All of these threads have a lower priority than cores and gateway threads.
//!
//! Shards of a query are as long as a whole small one, so they do not go to the pool, where pieces of others would stand behind them. Their
//! driver does them itself, one after another, and as long as one of the *helpers* is free it has that do shards too. There are so many
//! helpers that with the driver of one query they are as many as the pool is wide, for all queries together. Nobody ever waits for one. A
//! helper leaves after a shard when another query has none.
//!
//! rayon-core is used for its scope alone: it lends borrowed closures to threads that live on, without `unsafe` of ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, scope};

use crossbeam::channel::{Sender, unbounded};
use promql::{Executor, Shard};
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
pub(crate) struct Pool {
    threads: Arc<ThreadPool>,
    helpers: Arc<Helpers>,
}

/// Threads that may be begun to help with shards.
#[derive(Debug)]
struct Helpers {
    free: AtomicUsize,
    /// Queries with shards left and no helper.
    alone: AtomicUsize,
}

/// A helper at work, which is free again when this goes.
struct Hired<'h>(&'h Helpers);

/// A query that has nobody to help it, while this lives.
struct Alone<'h>(&'h Helpers);

impl Helpers {
    fn hire(&self) -> Option<Hired<'_>> {
        let take = |free: usize| free.checked_sub(1);
        let order = Ordering::Relaxed;
        let taken = self.free.fetch_update(order, order, take);
        taken.is_ok().then(|| Hired(self))
    }

    fn alone(&self) -> Alone<'_> {
        self.alone.fetch_add(1, Ordering::Relaxed);
        Alone(self)
    }

    fn are_wanted(&self) -> bool {
        self.alone.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Hired<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.alone.fetch_sub(1, Ordering::Relaxed);
    }
}

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
            pool: Pool {
                threads: Arc::new(pool),
                helpers: Arc::new(Helpers {
                    free: AtomicUsize::new(width - 1),
                    alone: AtomicUsize::new(0),
                }),
            },
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

impl Pool {
    /// As [`Executor::run`], with so many threads of the pool at most.
    fn run_with(&self, threads: usize, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&n| n < count);
        if threads == 0 {
            return (0..count).for_each(piece);
        }
        self.threads.in_place_scope_fifo(|scope| {
            for _ in 0..threads {
                scope.spawn_fifo(|scope| help(scope, &take, piece));
            }
            while let Some(n) = take() {
                piece(n);
            }
        });
    }
}

impl Executor for Pool {
    fn width(&self) -> usize {
        self.threads.current_num_threads()
    }

    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        let helpers = self.width().min(count).saturating_sub(1);
        self.run_with(helpers, count, piece);
    }

    fn run_shards(&self, count: usize, shard: &Shard<'_>) {
        let next = AtomicUsize::new(0);
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&n| n < count);
        let left = || count.saturating_sub(next.load(Ordering::Relaxed));
        // Those that are being done are somebody's too: a helper that has begun its shard at once does not stand for the next one.
        let done = AtomicUsize::new(0);
        let unfinished = || count.saturating_sub(done.load(Ordering::Relaxed));
        let lane = Lane {
            pool: self,
            at_work: AtomicUsize::new(1),
        };
        let lane = &lane;
        // They are as nice as the driver that begins them.
        let help = |hired: Hired<'_>| {
            while let Some(n) = take() {
                shard(n, lane);
                done.fetch_add(1, Ordering::Relaxed);
                if hired.0.are_wanted() {
                    break;
                }
            }
            lane.at_work.fetch_sub(1, Ordering::Relaxed);
        };
        let help = &help;
        scope(|scope| {
            let mut alone = None;
            while let Some(n) = take() {
                let at_work = || lane.at_work.load(Ordering::Relaxed);
                while unfinished() > at_work()
                    && let Some(hired) = self.helpers.hire()
                {
                    lane.at_work.fetch_add(1, Ordering::Relaxed);
                    let helper = Builder::new().name("query-shard".to_owned());
                    let helper = helper.stack_size(STACK_BYTES);
                    if helper.spawn_scoped(scope, move || help(hired)).is_err() {
                        // The system has no thread for it: so it goes without.
                        lane.at_work.fetch_sub(1, Ordering::Relaxed);
                        break;
                    }
                }
                alone = match at_work() {
                    1 if left() > 0 => alone.or_else(|| Some(self.helpers.alone())),
                    _ => None,
                };
                shard(n, lane);
                done.fetch_add(1, Ordering::Relaxed);
            }
            drop(alone);
        });
    }
}

/// The executor of shards: their pieces go to threads of the pool that are not taken by shards as it were.
struct Lane<'p> {
    pool: &'p Pool,
    /// Threads that do shards of the query.
    at_work: AtomicUsize,
}

impl Executor for Lane<'_> {
    fn width(&self) -> usize {
        self.pool.width()
    }

    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        let rest = self
            .width()
            .saturating_sub(self.at_work.load(Ordering::Relaxed));
        self.pool
            .run_with(rest.min(count.saturating_sub(1)), count, piece);
    }

    fn run_shards(&self, count: usize, shard: &Shard<'_>) {
        (0..count).for_each(|n| shard(n, self));
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
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::thread::ThreadId;

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

    /// The threads that did each shard.
    fn threads_of(pool: &Pool, count: usize, shard: impl Fn() + Sync) -> Vec<ThreadId> {
        let seen = Mutex::new(Vec::new());
        pool.run_shards(count, &|n, executor| {
            shard();
            let pieces = AtomicUsize::new(0);
            executor.run(5, &|_| {
                pieces.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(pieces.into_inner(), 5);
            let thread = std::thread::current().id();
            seen.lock().unwrap().push((n, thread));
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_by_key(|(n, _)| *n);
        assert!(seen.iter().map(|(n, _)| *n).eq(0..count), "each once");
        seen.into_iter().map(|(_, thread)| thread).collect()
    }

    /// Story: a helper that took its shard before the driver had looked for the next one was counted as free for it, so one helper did where two could; here all waited for it.
    #[test]
    fn shards_take_helpers_that_are_free_and_wait_for_none() {
        let pool = workers().executor();
        let mine = std::thread::current().id();
        let free = || pool.helpers.free.load(Ordering::Relaxed);
        assert_eq!(free(), 2, "with the driver as many as the pool is wide");
        // All three meet, so they are at work side by side.
        let meet = std::sync::Barrier::new(3);
        let threads = threads_of(&pool, 3, || {
            meet.wait();
        });
        assert!(threads.contains(&mine));
        assert_eq!(threads.iter().collect::<HashSet<_>>().len(), 3);
        assert_eq!(free(), 2);
        let taken = [pool.helpers.hire(), pool.helpers.hire()];
        assert!(taken.iter().all(Option::is_some) && pool.helpers.hire().is_none());
        assert_eq!(threads_of(&pool, 9, || ()), [mine; 9]);
        drop(taken);
        assert_eq!(free(), 2);
        for count in [0, 1, 2, 100] {
            threads_of(&pool, count, || ());
        }
        assert_eq!((free(), pool.helpers.are_wanted()), (2, false));
    }

    #[test]
    fn a_helper_leaves_after_a_shard_when_another_query_has_none() {
        let pool = workers().executor();
        let mine = std::thread::current().id();
        let alone = pool.helpers.alone();
        let by_helpers = AtomicUsize::new(0);
        let threads = threads_of(&pool, 500, || {
            if std::thread::current().id() != mine {
                by_helpers.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // Helpers have all the time to go on, also where one has been faster than the driver with its first.
            while by_helpers.load(Ordering::Relaxed) < 2 {
                std::thread::yield_now();
            }
        });
        let helped = threads.iter().filter(|thread| **thread != mine);
        let mut helped: Vec<ThreadId> = helped.copied().collect();
        let all = helped.len();
        helped.sort_by_key(|thread| format!("{thread:?}"));
        helped.dedup();
        assert!(
            all >= 2 && helped.len() == all,
            "{all} shards by {} helpers",
            helped.len()
        );
        drop(alone);
    }

    #[test]
    fn a_panic_of_a_shard_is_one_of_the_query_and_frees_its_helpers() {
        let pool = workers().executor();
        for shard in 0..8 {
            let run = || pool.run_shards(8, &|n, _| assert!(n != shard, "shard"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            assert_eq!(pool.helpers.free.load(Ordering::Relaxed), 2);
            assert!(!pool.helpers.are_wanted());
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

    /// Niceness is added to that of the thread that begins another: helpers had less of a CPU than everybody, and their driver waited for them.
    #[tokio::test]
    async fn helpers_are_as_nice_as_their_driver() {
        let workers = workers();
        let pool = workers.executor();
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let seen = workers.run(move || {
            let seen = Mutex::new(vec![nice()]);
            // All three meet, so two of them are helpers.
            let meet = std::sync::Barrier::new(3);
            pool.run_shards(3, &|_, _| {
                meet.wait();
                seen.lock().unwrap().push(nice());
            });
            seen.into_inner().unwrap()
        });
        let seen = seen.await.unwrap();
        assert!(seen.iter().all(|nice| *nice == seen[0]), "{seen:?}");
    }
}
