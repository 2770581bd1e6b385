//! One life of a process: replay, judge, open, then append, submit, checkpoint and wait as chance wants, until the plan ends it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Generation, SeriesId, SeriesRef, TenantId, TimeMs};
use rand::Rng;
use rand::rngs::SmallRng;
use reactor::{Event, Fault, OpKind, OpView, Reactor, Sim};
use wal::{
    Checkpoint, CheckpointState, ChunkRecord, Error, Health, Log, Options, Record, ReplayOptions,
    SeriesRecord,
};

use crate::model::{Item, Model, Seen, What, labels_of, time_of};

const DIR: &str = "/data/wal/g0000000001/core-003";
const CORE: u16 = 3;

/// How a life ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plan {
    /// Everything is synced, then the process ends.
    Quiet,
    /// kill -9.
    Kill,
    /// The power is cut in place of this completion.
    StopAfter(u64),
    /// One operation fails; then kill or power cut.
    FailNth {
        nth: u64,
        fault: Fault,
        then_power_cut: bool,
    },
    /// Now and then an operation of this kind fails.
    FailKind {
        kind: OpKind,
        percent: u32,
        fault: Fault,
    },
}

/// What is the same in all lives of a machine.
#[derive(Debug)]
pub(crate) struct Shape {
    options: Options,
    tenants: Vec<TenantId>,
    relaxed: bool,
    series_max: u32,
}

impl Shape {
    pub(crate) fn random(rng: &mut SmallRng, direct: bool) -> Shape {
        let group_bytes = 4096 * rng.random_range(2..5);
        let segment_bytes_first = group_bytes as u64 + 4096 * rng.random_range(1..6);
        let segment_bytes = segment_bytes_first + 4096 * rng.random_range(0..20);
        let token_base = 100;
        Shape {
            options: Options {
                segment_bytes,
                segment_bytes_first,
                group_bytes,
                direct,
                token_base,
            },
            tenants: ["fake", "a", "b"]
                .map(|name| TenantId::new(name).unwrap())
                .to_vec(),
            relaxed: rng.random(),
            series_max: rng.random_range(1..60),
        }
    }
}

/// A life while it lasts.
pub(crate) struct Life<'a> {
    sim: &'a Sim,
    model: &'a mut Model,
    shape: &'a Shape,
    reactor: Reactor,
    log: Log,
    checkpoint: Option<Slices>,
    /// Segment and value of the last sample of each series.
    bases: std::collections::HashMap<u32, (u32, f64)>,
    poisoned: bool,
}

/// A checkpoint being written, and the series still to come.
struct Slices {
    writer: Checkpoint,
    next: Option<u32>,
    finishing: bool,
}

impl<'a> Life<'a> {
    /// Lives one life and returns the number of operations in it.
    pub(crate) fn live(
        sim: &'a Sim,
        model: &'a mut Model,
        shape: &'a Shape,
        rng: &mut SmallRng,
        steps: u32,
        plan: Plan,
    ) -> u64 {
        let ops = sim.ops();
        model.counts.lives += 1;
        let (faulty, dir_lost) = apply(sim, plan, rng);
        let opened = Life::open(sim, model, shape);
        let mut poisoned = false;
        match opened {
            Err(error) => {
                assert!(faulty || sim.is_off(), "the log does not open: {error}");
                assert!(!error.is_corruption(), "{error}");
            }
            Ok(mut life) => {
                for _ in 0..steps {
                    life.step(rng);
                    if life.poisoned || sim.is_off() {
                        break;
                    }
                }
                if matches!(plan, Plan::Quiet) {
                    life.drain();
                    assert!(!life.poisoned);
                }
                poisoned = life.poisoned;
                life.end();
            }
        }
        sim.clear_faults();
        let ops = sim.ops() - ops;
        model.counts.power_cuts += u64::from(sim.is_off());
        // When the names of a directory cannot be written, a file system shuts down: names that no later sync makes durable are not met by a
        // process that was merely started again.
        let power_cut = sim.is_off()
            || dir_lost.load(Ordering::Relaxed)
            || matches!(
                plan,
                Plan::StopAfter(_)
                    | Plan::FailNth {
                        then_power_cut: true,
                        ..
                    }
            );
        end_of_life(model, power_cut, poisoned);
        if power_cut {
            sim.crash();
        } else {
            sim.kill();
        }
        ops
    }

    fn open(sim: &'a Sim, model: &'a mut Model, shape: &'a Shape) -> Result<Life<'a>, Error> {
        let mut reactor = Reactor::sim(sim);
        let mut seen = Seen::default();
        let mut done = 0;
        let replayed = wal::replay(
            &mut reactor,
            Path::new(DIR),
            &ReplayOptions {
                core: CORE,
                salvage: false,
            },
            &mut |record, place| seen.take(record, place),
            &mut |_, progress| {
                assert!(done <= progress.bytes_done && progress.bytes_done <= progress.bytes_total);
                done = progress.bytes_done;
                Ok(())
            },
        )?;
        model.judge(seen, &replayed);
        let log = Log::open(
            &mut reactor,
            Path::new(DIR),
            shape.options.clone(),
            &replayed,
        )?;
        let bases = Default::default();
        Ok(Life {
            sim,
            model,
            shape,
            reactor,
            log,
            checkpoint: None,
            bases,
            poisoned: false,
        })
    }

    fn step(&mut self, rng: &mut SmallRng) {
        match rng.random_range(0..10) {
            0..=2 => self.batch(rng),
            3..=5 => {
                let durable = !self.shape.relaxed || rng.random_bool(0.4);
                self.log.submit(&mut self.reactor, durable);
            }
            6 | 7 => self.turn(rng.random_bool(0.5)),
            8 => self.advance_checkpoint(rng),
            _ => {
                if rng.random_bool(0.2) {
                    self.sim
                        .advance(std::time::Duration::from_millis(rng.random_range(1..1500)));
                }
                self.turn(false);
            }
        }
    }

    fn batch(&mut self, rng: &mut SmallRng) {
        let most = if rng.random_bool(0.03) { 3000 } else { 500 };
        let samples = rng.random_range(1..=most);
        match self.log.admit(samples * 16) {
            Ok(()) => {}
            Err(Error::NoSpace { .. }) => {
                self.model.counts.no_space += 1;
                assert!(matches!(self.log.health(), Health::NoSpace(_)));
                return self.turn(true);
            }
            Err(Error::QueueFull { .. }) => return self.turn(true),
            Err(error) => panic!("{error}"),
        }
        for _ in 0..samples {
            self.sample(rng);
        }
    }

    fn sample(&mut self, rng: &mut SmallRng) {
        let series = rng.random_range(0..self.shape.series_max);
        if !self.model.memory.contains_key(&series) {
            let labels = labels_of(series);
            let record = SeriesRecord {
                series: SeriesRef(series),
                generation: Generation(series + 1),
                id: SeriesId(u128::from(series)),
                tenant: &self.shape.tenants[series as usize % 3],
                labels: labels.packed(),
            };
            self.log.append(&Record::Series(record)).expect("small");
            self.model.memory.insert(series, Vec::new());
            self.note(What::Series(series));
        }
        let number = self.model.next_sample;
        self.model.next_sample += 1;
        self.model.counts.samples += 1;
        let (time, value) = (time_of(number), number as f64);
        let segment = self.log.reserve_sample();
        let base = self
            .bases
            .get(&series)
            .filter(|&&(at, _)| at == segment)
            .map(|&(_, v)| v);
        // Sometimes the caller does not know it.
        let base = base.filter(|_| rng.random_bool(0.9));
        self.log.sample(SeriesRef(series), time, value, base);
        self.bases.insert(series, (segment, value));
        self.model
            .memory
            .get_mut(&series)
            .expect("made above")
            .push(number);
        self.note(What::Sample(series, number));
    }

    fn note(&mut self, what: What) {
        let end = self.log.tail().0;
        assert!(self.model.items.last().is_none_or(|last| last.end < end));
        self.model.items.push(Item { end, what });
    }

    /// Lets the machine act and hears what happened.
    fn turn(&mut self, wait: bool) {
        let mut events = Vec::new();
        if wait && self.reactor.in_flight() > 0 {
            self.reactor.wait(None, &mut events);
        } else {
            self.sim.advance(std::time::Duration::from_micros(50));
            self.reactor.poll(&mut events);
        }
        for event in events {
            self.event(event);
        }
    }

    fn event(&mut self, event: Event) {
        if self.log.owns(&event) {
            let before = (self.log.written(), self.log.durable());
            match self.log.on_event(&mut self.reactor, event) {
                Ok(progress) => {
                    assert!(progress.written >= before.0 && progress.durable >= before.1);
                    assert!(progress.durable <= progress.written);
                    assert!(progress.written <= self.log.tail());
                }
                Err(Error::Poisoned { .. }) => {
                    self.poisoned = true;
                    assert!(matches!(self.log.health(), Health::Poisoned(_)));
                    assert!(matches!(self.log.admit(1), Err(Error::Poisoned { .. })));
                }
                Err(error) => panic!("{error}"),
            }
            self.model.promised.written = self.log.written().0;
            self.model.promised.durable = self.log.durable().0;
            return;
        }
        let slices = self
            .checkpoint
            .as_mut()
            .expect("all other events are the checkpoint's");
        assert!(slices.writer.owns(&event));
        match slices
            .writer
            .on_event(&mut self.reactor, &mut self.log, event)
        {
            Ok(CheckpointState::Writing) => {}
            Ok(CheckpointState::Done { .. }) => {
                self.model.counts.checkpoints += 1;
                self.checkpoint = None;
            }
            // Abandoned; the log goes on, unless it was the directory that could not be synced.
            Err(_) => {
                self.checkpoint = None;
                self.poisoned |= matches!(self.log.health(), Health::Poisoned(_));
            }
        }
    }

    fn advance_checkpoint(&mut self, rng: &mut SmallRng) {
        let Some(mut slices) = self.checkpoint.take() else {
            if rng.random_bool(0.5) {
                let boundary = self.log.tail().0;
                let writer = self.log.begin_checkpoint(&mut self.reactor);
                let rows = self
                    .model
                    .memory
                    .iter()
                    .map(|(&s, rows)| (s, rows.len()))
                    .collect();
                self.model
                    .checkpoints
                    .insert(writer.sequence(), (boundary, rows));
                self.checkpoint = Some(Slices {
                    writer,
                    next: Some(0),
                    finishing: false,
                });
            }
            return;
        };
        while let Some(series) = slices.next {
            if !slices.writer.is_ready() || rng.random_bool(0.1) {
                break;
            }
            self.checkpoint_series(&mut slices.writer, series);
            slices.next = self
                .model
                .memory
                .range(series + 1..)
                .next()
                .map(|(&next, _)| next);
        }
        if slices.next.is_none() && !slices.finishing && rng.random_bool(0.8) {
            slices.finishing = true;
            slices.writer.finish(&mut self.reactor).expect("small");
        }
        self.checkpoint = Some(slices);
    }

    fn checkpoint_series(&mut self, writer: &mut Checkpoint, series: u32) {
        let Some(rows) = self.model.memory.get(&series) else {
            return;
        };
        let labels = labels_of(series);
        let record = Record::Series(SeriesRecord {
            series: SeriesRef(series),
            generation: Generation(series + 1),
            id: SeriesId(u128::from(series)),
            tenant: &self.shape.tenants[series as usize % 3],
            labels: labels.packed(),
        });
        writer.append(&mut self.reactor, &record).expect("small");
        for rows in rows.chunks(100) {
            let sealed: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
            let (first, last) = (TimeMs(0), TimeMs(1));
            let chunk = ChunkRecord {
                series: SeriesRef(series),
                first,
                last,
                sealed: &sealed,
            };
            writer
                .append(&mut self.reactor, &Record::Chunk(chunk))
                .expect("small");
        }
    }

    /// Syncs all there is; the disk must be good, if perhaps full.
    fn drain(&mut self) {
        self.log.submit(&mut self.reactor, true);
        for _ in 0..10_000 {
            if self.log.durable() == self.log.tail() {
                return;
            }
            if matches!(self.log.health(), Health::NoSpace(_)) {
                return self.turn(true);
            }
            let mut events = Vec::new();
            self.reactor.wait(None, &mut events);
            events.into_iter().for_each(|event| self.event(event));
        }
        panic!(
            "{:?} is never durable: {:?}",
            self.log.tail(),
            self.log.health()
        );
    }

    fn end(self) {
        let stats = self.log.stats();
        self.model.counts.recycled += stats.segments_recycled;
        self.model.counts.relaxed += stats.commits_relaxed;
    }
}

/// Plans the faults; whether there are any, and a flag that is set when a directory's sync has failed.
fn apply(sim: &Sim, plan: Plan, rng: &mut SmallRng) -> (bool, Arc<AtomicBool>) {
    let dir_lost = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dir_lost);
    let fail = move |op: &OpView<'_>, fault: Fault| {
        flag.fetch_or(op.kind == OpKind::SyncDir, Ordering::Relaxed);
        Some(fault)
    };
    match plan {
        Plan::Quiet | Plan::Kill => return (false, dir_lost),
        Plan::StopAfter(completions) => sim.stop_after(completions),
        Plan::FailNth { nth, fault, .. } => {
            let number = sim.ops() + nth;
            sim.fail_when(move |op| {
                if op.number == number {
                    fail(op, fault)
                } else {
                    None
                }
            });
        }
        Plan::FailKind {
            kind,
            percent,
            fault,
        } => {
            let mut dice: SmallRng = rand::SeedableRng::seed_from_u64(rng.random());
            sim.fail_when(move |op| {
                let hit = op.kind == kind && dice.random_ratio(percent, 100);
                if hit { fail(op, fault) } else { None }
            });
        }
    }
    (true, dir_lost)
}

/// What the end of a life makes of what it promised.
fn end_of_life(model: &mut Model, power_cut: bool, poisoned: bool) {
    model.counts.poisoned += u64::from(poisoned);
    // A life that did not come to replay leaves the judgement on the one before to the next.
    let unjudged = model.promised.power_cut;
    if poisoned || unjudged {
        // A failed sync may have thrown away what was only written.
        model.promised.written = model.promised.durable;
    }
    model.promised.power_cut = power_cut || unjudged;
}
