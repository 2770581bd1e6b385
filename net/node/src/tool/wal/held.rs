//! What records add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use ::wal::{LoggedSample, Record};
use model::{HistogramSample, TenantId};

/// Bits of the number of samples of a stored chunk that are marks (`docs/formats/wal.md`).
const MARKS: u16 = 0xc000;

/// See the module. Memory: the tenants that are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Records by kind.
    kinds: BTreeMap<&'static str, u64>,
    tenants: BTreeSet<TenantId>,
    samples: u64,
    /// Times of the first and the last of them.
    times: Option<(i64, i64)>,
}

impl Held {
    pub(super) fn add(&mut self, record: &Record<'_>) {
        let kind = match record {
            Record::Series(series) => {
                self.tenant(series.tenant);
                "series"
            }
            Record::Samples(rows) => {
                self.rows(rows);
                "samples"
            }
            Record::LateSamples(rows) => {
                self.rows(rows);
                "late samples"
            }
            Record::Chunk(chunk) => {
                let count = chunk::count(chunk.sealed).unwrap_or(0);
                self.span(u64::from(count), chunk.first.0, chunk.last.0);
                "chunk"
            }
            Record::StoredChunk(chunk) => {
                self.span(u64::from(chunk.count & !MARKS), chunk.first.0, chunk.last.0);
                "stored chunk"
            }
            Record::Histogram {
                time, histogram, ..
            } => {
                self.span(1, time.0, time.0);
                match &**histogram {
                    HistogramSample::Int(_) => "histogram",
                    HistogramSample::Float(_) => "float histogram",
                }
            }
            Record::LateHistogram { time, .. } => {
                self.span(1, time.0, time.0);
                "late histogram"
            }
            Record::Exemplar { .. } => "exemplar",
            Record::Metadata { tenant, .. } => {
                self.tenant(tenant);
                "metadata"
            }
            Record::StartTimestamp { .. } => "start timestamp",
            Record::Tombstone(tombstone) => {
                self.tenant(tombstone.tenant);
                "tombstone"
            }
            Record::Purge { .. } => "purge",
            Record::PurgeEnd { .. } => "end of a deletion",
        };
        *self.kinds.entry(kind).or_default() += 1;
    }

    fn tenant(&mut self, tenant: &TenantId) {
        if !self.tenants.contains(tenant) {
            self.tenants.insert(tenant.clone());
        }
    }

    fn rows(&mut self, rows: &[LoggedSample]) {
        for row in rows {
            self.span(1, row.time, row.time);
        }
    }

    fn span(&mut self, samples: u64, first: i64, last: i64) {
        self.samples += samples;
        let (from, to) = self.times.unwrap_or((first, last));
        self.times = Some((from.min(first), to.max(last)));
    }

    /// Adds what another file holds.
    pub(super) fn merge(&mut self, other: &Held) {
        for (&kind, count) in &other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.tenants.extend(other.tenants.iter().cloned());
        if let Some((first, last)) = other.times {
            self.span(other.samples, first, last);
        }
    }

    /// How many there are.
    pub(super) fn records(&self) -> u64 {
        self.kinds.values().sum()
    }

    pub(super) fn print(&self, out: &mut dyn Write, indent: &str) -> io::Result<()> {
        write!(out, "{indent}{} samples", self.samples)?;
        if let Some((first, last)) = self.times {
            write!(out, " from {first} to {last} ms")?;
        }
        let series = self.kinds.get("series").unwrap_or(&0);
        writeln!(
            out,
            ", {series} series, {} tenants named",
            self.tenants.len()
        )?;
        let kinds: Vec<String> = self
            .kinds
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        writeln!(out, "{indent}records: {}", kinds.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use ::wal::{ChunkRecord, StoredChunkRecord};
    use model::{SeriesRef, TimeMs};

    use super::*;

    #[test]
    fn samples_are_counted_wherever_they_are_and_marks_are_no_samples() {
        let mut held = Held::default();
        let row = |time| LoggedSample {
            series: SeriesRef(1),
            time,
            value: 1.0,
        };
        held.add(&Record::Samples(&[row(50), row(40)]));
        held.add(&Record::LateSamples(&[row(7)]));
        let mut chunk = chunk::XorAppender::new();
        (0..5).for_each(|time| chunk.append(60 + time, 1.0));
        held.add(&Record::Chunk(ChunkRecord {
            series: SeriesRef(1),
            first: TimeMs(60),
            last: TimeMs(64),
            sealed: &chunk.seal(),
        }));
        held.add(&Record::StoredChunk(StoredChunkRecord {
            series: SeriesRef(1),
            first: TimeMs(20),
            last: TimeMs(30),
            count: 4096 | 0x8000 | 0x4000,
            file: 1,
            offset: 64,
            len: 10,
        }));
        let tenant = TenantId::new("a").unwrap();
        held.add(&Record::Metadata {
            tenant: &tenant,
            metric: "up",
            metadata: Cow::Owned(Default::default()),
        });
        let mut twice = held.clone();
        twice.merge(&held);
        assert_eq!(twice.records(), 10);
        let mut out = Vec::new();
        held.print(&mut out, "").unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "4104 samples from 7 to 64 ms, 0 series, 1 tenants named\n\
             records: chunk 1, late samples 1, metadata 1, samples 1, stored chunk 1\n"
        );
    }
}
