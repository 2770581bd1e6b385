//! What must be true: every item appended, up to where it was acknowledged, and what a replay may give back.
//!
//! A sample's value is its number, unique over all lives, so that each item replayed can be told from any other. *Memory* is what a core would hold: the rows
//! of each series in the order in which they were appended.

use std::collections::{BTreeMap, HashSet};

use wal::{Place, Record, Replayed};

/// Something appended to the log, and the position after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Item {
    pub(crate) end: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    Series(u32),
    /// Series and number; the time follows from the number.
    Sample(u32, u64),
}

/// How far a life got before it ended, for the judgement on the next replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Promised {
    pub(crate) durable: u64,
    /// What must survive a kill, but not a power cut.
    pub(crate) written: u64,
    pub(crate) power_cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) lives: u64,
    pub(crate) power_cuts: u64,
    pub(crate) poisoned: u64,
    pub(crate) no_space: u64,
    pub(crate) tears: u64,
    pub(crate) checkpoints: u64,
    pub(crate) from_checkpoint: u64,
    pub(crate) recycled: u64,
    pub(crate) relaxed: u64,
    pub(crate) lost_relaxed: u64,
    pub(crate) samples: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.lives += other.lives;
        self.power_cuts += other.power_cuts;
        self.poisoned += other.poisoned;
        self.no_space += other.no_space;
        self.tears += other.tears;
        self.checkpoints += other.checkpoints;
        self.from_checkpoint += other.from_checkpoint;
        self.recycled += other.recycled;
        self.relaxed += other.relaxed;
        self.lost_relaxed += other.lost_relaxed;
        self.samples += other.samples;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Rows of each series.
    pub(crate) memory: BTreeMap<u32, Vec<u64>>,
    /// What the log holds, as far as it has not been torn off.
    pub(crate) items: Vec<Item>,
    pub(crate) promised: Promised,
    /// Position and memory at the begin of each checkpoint, by its segment number: row counts per series.
    pub(crate) checkpoints: BTreeMap<u32, (u64, BTreeMap<u32, usize>)>,
    pub(crate) next_sample: u64,
    pub(crate) counts: Counts,
    /// For the caller: whether the plan came to its end.
    pub(crate) stopped: bool,
}

/// What a replay handed out.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    checkpoint: BTreeMap<u32, Vec<u64>>,
    items: Vec<What>,
}

pub(crate) fn time_of(sample: u64) -> i64 {
    // Runs of equal times, sometimes back.
    1_700_000_000_000 + (sample / 7) as i64 * 15_000 - (sample % 3) as i64
}

/// Labels of a series: any will do, but they must be packed and its own.
pub(crate) fn labels_of(series: u32) -> model::Labels {
    let text = series.to_string();
    model::Labels::from_pairs([("__name__", "m"), ("series", &text)]).expect("two names")
}

impl Seen {
    pub(crate) fn take(&mut self, record: &Record<'_>, place: Place) -> Result<(), String> {
        match (record, place) {
            (Record::Series(series), place) => {
                let number = series.series.0;
                assert_eq!(series.labels, labels_of(number).packed());
                assert_eq!(series.generation.0, number + 1);
                match place {
                    Place::Checkpoint(_) => {
                        assert!(self.checkpoint.insert(number, Vec::new()).is_none());
                    }
                    Place::Segment(_) => self.items.push(What::Series(number)),
                }
            }
            (Record::Chunk(chunk), Place::Checkpoint(_)) => {
                let rows = self
                    .checkpoint
                    .get_mut(&chunk.series.0)
                    .expect("its series came before");
                rows.extend(
                    chunk
                        .sealed
                        .chunks(8)
                        .map(|b| u64::from_le_bytes(b.try_into().unwrap())),
                );
            }
            (Record::Samples(samples), Place::Segment(_)) => {
                for sample in *samples {
                    let number = sample.value as u64;
                    assert_eq!(sample.time, time_of(number));
                    self.items.push(What::Sample(sample.series.0, number));
                }
            }
            (record, place) => panic!("{record:?} at {place:?}"),
        }
        Ok(())
    }
}

impl Model {
    /// Judges a replay, and takes what it gave as the state to go on with.
    pub(crate) fn judge(&mut self, seen: Seen, replayed: &Replayed) {
        assert!(replayed.salvaged.is_empty());
        assert!(
            replayed.damaged_checkpoints.is_empty(),
            "{:?}",
            replayed.damaged_checkpoints
        );
        self.counts.tears += replayed.tear_count;
        self.counts.from_checkpoint += u64::from(replayed.checkpoint.is_some());

        // The segments give a run of the items that begins where the checkpoint ends.
        let (boundary, required) = match replayed.checkpoint {
            Some(sequence) => self
                .checkpoints
                .get(&sequence)
                .expect("it was begun")
                .clone(),
            None => (0, BTreeMap::new()),
        };
        let first = self
            .items
            .iter()
            .position(|item| item.end > boundary)
            .unwrap_or(self.items.len());
        let expected = &self.items[first..];
        assert!(
            seen.items.len() <= expected.len(),
            "{} items replayed, {} were appended after {boundary}",
            seen.items.len(),
            expected.len()
        );
        for (at, (seen, expected)) in seen.items.iter().zip(expected).enumerate() {
            assert_eq!(*seen, expected.what, "item {at} after {boundary}");
        }
        let kept = first + seen.items.len();
        let end = self.items[..kept]
            .last()
            .map_or(0, |item| item.end)
            .max(boundary);

        // Nothing that was promised is missing.
        let Promised {
            durable,
            written,
            power_cut,
        } = self.promised;
        let promised = if power_cut { durable } else { written };
        assert!(
            end >= promised,
            "the log ends at {end}, but up to {promised} was acknowledged"
        );
        if power_cut && end < written {
            self.counts.lost_relaxed += 1;
        }
        assert!(replayed.next_lsn >= end);

        // The checkpoint holds, of each series, the rows of then, and perhaps some of those that came while it was written.
        for (series, &rows) in &required {
            let found = seen.checkpoint.get(series).map_or(0, Vec::len);
            assert!(
                found >= rows,
                "series {series}: {found} rows in the checkpoint, {rows} are due"
            );
        }
        let mut memory = seen.checkpoint;
        let known: HashSet<u64> = memory.values().flatten().copied().collect();
        for item in &seen.items {
            match *item {
                What::Series(series) => {
                    memory.entry(series).or_default();
                }
                What::Sample(series, number) => {
                    let rows = memory
                        .get_mut(&series)
                        .expect("a series is logged before its samples");
                    if !known.contains(&number) {
                        rows.push(number);
                    }
                }
            }
        }
        for (series, rows) in &memory {
            let appended = self.memory.get(series).expect("it was appended once");
            assert!(
                appended.starts_with(rows),
                "series {series} has {rows:?}, appended was {appended:?}"
            );
        }
        self.items.truncate(kept);
        self.memory = memory;
        self.promised = Promised {
            durable,
            written: end,
            power_cut: false,
        };
    }
}
