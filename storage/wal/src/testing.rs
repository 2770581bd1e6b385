//! What the tests of this crate share: a small log, one sample per commit, and what a replay makes of it.

use std::path::{Path, PathBuf};

use model::{Generation, Labels, SeriesId, SeriesRef, TenantId};
use reactor::{Event, Reactor, Sim};

use crate::checkpoint::CheckpointState;
use crate::error::Error;
use crate::log::Log;
use crate::options::Options;
use crate::record::{ChunkRecord, Record, SeriesRecord};
use crate::replay::{Place, ReplayOptions, Replayed, replay};

pub(crate) const DIR: &str = "/wal/core-000";

/// Groups of two blocks, segments of six, so that things happen soon.
pub(crate) fn options() -> Options {
    Options {
        segment_bytes: 6 * 4096,
        segment_bytes_first: 6 * 4096,
        group_bytes: 2 * 4096,
        direct: true,
        token_base: 0,
    }
}

pub(crate) fn segment(sequence: u32) -> PathBuf {
    crate::names::segment(Path::new(DIR), sequence)
}

pub(crate) fn checkpoint(sequence: u32) -> PathBuf {
    crate::names::checkpoint(Path::new(DIR), sequence)
}

/// The values replayed, and the report.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) values: Vec<u32>,
    pub(crate) replayed: Replayed,
}

pub(crate) fn read(reactor: &mut Reactor, dir: &Path, salvage: bool) -> Result<Outcome, Error> {
    let mut values = Vec::new();
    let options = ReplayOptions { core: 0, salvage };
    let mut sink = |record: &Record<'_>, _: Place| {
        match record {
            Record::Samples(samples) => values.extend(samples.iter().map(|s| s.value as u32)),
            Record::Chunk(chunk) => values.extend(chunk.sealed.iter().map(|&byte| u32::from(byte))),
            Record::Series(_) => {}
            other => panic!("{other:?}"),
        }
        Ok(())
    };
    let replayed = replay(reactor, dir, &options, &mut sink, &mut |_, _| Ok(()))?;
    Ok(Outcome { values, replayed })
}

/// A log and its reactor, in any world.
pub(crate) struct Bench {
    pub(crate) reactor: Reactor,
    pub(crate) log: Log,
    pub(crate) replayed: Outcome,
}

impl Bench {
    pub(crate) fn sim(sim: &Sim) -> Bench {
        Bench::open(Reactor::sim(sim), Path::new(DIR), options()).expect("a good disk")
    }

    pub(crate) fn open(mut reactor: Reactor, dir: &Path, options: Options) -> Result<Bench, Error> {
        let replayed = read(&mut reactor, dir, false)?;
        let log = Log::open(&mut reactor, dir, options, &replayed.replayed)?;
        Ok(Bench {
            reactor,
            log,
            replayed,
        })
    }

    /// Appends a sample of series 0 without submitting it.
    pub(crate) fn append(&mut self, value: u32) {
        self.log.reserve_sample();
        self.log
            .sample(SeriesRef(0), i64::from(value), f64::from(value), None);
    }

    /// Appends a sample and waits until it is durable.
    pub(crate) fn commit(&mut self, value: u32) {
        self.append(value);
        self.log.submit(&mut self.reactor, true);
        self.until(|log| log.durable() == log.tail());
    }

    /// Appends a sample and waits until it is written.
    pub(crate) fn commit_relaxed(&mut self, value: u32) {
        self.append(value);
        self.log.submit(&mut self.reactor, false);
        self.until(|log| log.written() == log.tail());
    }

    /// Turns the loop until the log is as wanted.
    pub(crate) fn until(&mut self, done: impl Fn(&Log) -> bool) {
        while !done(&self.log) {
            self.turn().expect("a good disk");
        }
    }

    /// Lets everything in flight end, the preparation of the next segment included.
    pub(crate) fn settle(&mut self) {
        while self.reactor.in_flight() > 0 {
            self.turn().expect("a good disk");
        }
    }

    /// The same, after whatever comes next, be it a timer.
    pub(crate) fn settle_after_a_timer(&mut self) {
        self.turn().expect("a good disk");
        self.settle();
    }

    /// Waits for events and gives them to the log.
    pub(crate) fn turn(&mut self) -> Result<(), Error> {
        let mut events = Vec::new();
        self.reactor.wait(None, &mut events);
        assert!(!events.is_empty(), "nothing is in flight and no timer set");
        for event in events
            .into_iter()
            .filter(|event| !matches!(event, Event::Doorbell))
        {
            self.log.on_event(&mut self.reactor, event)?;
        }
        Ok(())
    }

    /// Writes a checkpoint whose one chunk has these values.
    pub(crate) fn checkpoint(&mut self, values: &[u8]) -> Result<CheckpointState, Error> {
        let mut checkpoint = self.log.begin_checkpoint(&mut self.reactor);
        let labels = Labels::from_pairs([("__name__", "up")]).unwrap();
        let (series, tenant) = (SeriesRef(0), TenantId::fake());
        let record = SeriesRecord {
            series,
            generation: Generation(0),
            id: SeriesId(0),
            tenant: &tenant,
            labels: labels.packed(),
        };
        checkpoint.append(&mut self.reactor, &Record::Series(record))?;
        let (first, last) = (model::TimeMs(0), model::TimeMs(9));
        let chunk = ChunkRecord {
            series,
            first,
            last,
            sealed: values,
        };
        checkpoint.append(&mut self.reactor, &Record::Chunk(chunk))?;
        checkpoint.finish(&mut self.reactor)?;
        loop {
            let mut events = Vec::new();
            self.reactor.wait(None, &mut events);
            for event in events {
                if self.log.owns(&event) {
                    self.log.on_event(&mut self.reactor, event)?;
                } else if checkpoint.owns(&event) {
                    let state = checkpoint.on_event(&mut self.reactor, &mut self.log, event)?;
                    if state != CheckpointState::Writing {
                        return Ok(state);
                    }
                }
            }
        }
    }
}
