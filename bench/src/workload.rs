//! Workloads as bodies, built before the clock runs.
//!
//! Series are cut into *blocks* of as many as a body has samples; a body is one block at one scrape. A block always travels
//! on the same connection, so that the samples of a series arrive in order however many connections there are. Requests are
//! kept whole (head and body in one piece): sending one is a single write.

use std::thread;

use crate::progress::Progress;
use crate::series::{SeriesLabels, Values, labels, scrape_offset_ms};
use crate::target::Target;

/// What is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The same series at every scrape.
    Steady,
    /// The same, with a default of a million series and six scrapes: what creating series costs.
    Cardinality,
    /// A tenth of the series is replaced by new ones at every scrape.
    Churn,
}

/// The size of a workload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) series: u64,
    pub(crate) scrapes: u64,
    pub(crate) samples_per_body: u64,
    pub(crate) interval_ms: i64,
    /// Of the first scrape; the targets follow within an interval.
    pub(crate) start_ms: i64,
}

impl Shape {
    pub(crate) fn samples(&self) -> u64 {
        self.series * self.scrapes
    }

    /// All samples are at or after `start_ms` and before this.
    pub(crate) fn end_ms(&self) -> i64 {
        self.start_ms + self.scrapes as i64 * self.interval_ms
    }

    fn blocks(&self) -> u64 {
        self.series.div_ceil(self.samples_per_body)
    }

    /// Different series over the whole run.
    pub(crate) fn series_distinct(&self) -> u64 {
        (0..self.series)
            .map(|index| 1 + self.generation(index, self.scrapes - 1))
            .sum()
    }

    /// How often series `index` has been replaced by the time of `scrape`.
    fn generation(&self, index: u64, scrape: u64) -> u64 {
        match self.kind {
            Kind::Steady | Kind::Cardinality => 0,
            // One series in ten at each scrape but the first, each in turn.
            Kind::Churn => (scrape + 10 - (index % 10 + 1)) / 10,
        }
    }
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) samples: u32,
}

/// All requests, by connection, in the order in which they go out.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) connections: Vec<Vec<Request>>,
    /// Snappy bytes of all bodies, without HTTP heads.
    pub(crate) body_bytes: u64,
}

impl Load {
    pub(crate) fn requests(&self) -> usize {
        self.connections.iter().map(Vec::len).sum()
    }
}

/// Builds the load with as many threads as there are CPUs to run on.
pub(crate) fn build(
    shape: &Shape,
    connections: usize,
    target: &Target,
    progress: &mut Progress,
) -> Load {
    assert!(connections > 0 && shape.series > 0 && shape.scrapes > 0 && shape.samples_per_body > 0);
    let blocks = shape.blocks();
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    let (done, finished) = std::sync::mpsc::channel();
    let mut by_block: Vec<Vec<Request>> = (0..blocks).map(|_| Vec::new()).collect();
    let mut body_bytes = 0;
    thread::scope(|scope| {
        for thread in 0..threads {
            let done = done.clone();
            scope.spawn(move || {
                for block in (thread..blocks).step_by(threads as usize) {
                    let built = build_block(shape, block, target);
                    // The receiver outlives this scope.
                    let _ = done.send((block, built));
                }
            });
        }
        drop(done);
        for (count, (block, (requests, bytes))) in finished.iter().enumerate() {
            by_block[block as usize] = requests;
            body_bytes += bytes;
            progress.tick(|| format!("building bodies: {}/{blocks} blocks", count + 1));
        }
    });
    let mut queues: Vec<Vec<Request>> = (0..connections).map(|_| Vec::new()).collect();
    let mut by_block: Vec<_> = by_block.into_iter().map(Vec::into_iter).collect();
    for _ in 0..shape.scrapes {
        for (block, requests) in by_block.iter_mut().enumerate() {
            queues[block % connections].extend(requests.next());
        }
    }
    let load = Load {
        connections: queues,
        body_bytes,
    };
    progress.finish(&format!(
        "built {} bodies, {:.1} MB",
        load.requests(),
        body_bytes as f64 / 1e6
    ));
    load
}

/// Appends one series with one sample to a remote write request.
pub(crate) fn put_sample<V: AsRef<str>>(
    request: &mut Vec<u8>,
    labels: &[(&str, V)],
    time_ms: i64,
    value: f64,
) {
    let labels = labels.iter().map(|(name, value)| (*name, value.as_ref()));
    wire::remote_write::encode::put_series(request, labels, &[(time_ms, value)]);
}

/// The requests of one block, one a scrape, and the length of their bodies together.
fn build_block(shape: &Shape, block: u64, target: &Target) -> (Vec<Request>, u64) {
    struct Row {
        index: u64,
        generation: u64,
        labels: SeriesLabels,
        values: Values,
    }
    let row = |index, generation| Row {
        index,
        generation,
        labels: labels(index, generation),
        values: Values::new(index, generation),
    };
    let first = block * shape.samples_per_body;
    let end = (first + shape.samples_per_body).min(shape.series);
    let mut rows: Vec<Row> = (first..end).map(|index| row(index, 0)).collect();
    let mut request = Vec::new();
    let mut requests = Vec::new();
    let mut bytes = 0;
    for scrape in 0..shape.scrapes {
        request.clear();
        let time = shape.start_ms + scrape as i64 * shape.interval_ms;
        for slot in &mut rows {
            let generation = shape.generation(slot.index, scrape);
            if generation != slot.generation {
                *slot = row(slot.index, generation);
            }
            let time = time + scrape_offset_ms(slot.index, shape.interval_ms);
            put_sample(&mut request, &slot.labels, time, slot.values.next());
        }
        let body = wire::snappy::pack(&request);
        bytes += body.len() as u64;
        let samples = rows.len() as u32;
        requests.push(Request {
            bytes: target.push_request(&body),
            samples,
        });
    }
    (requests, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TargetOptions;

    fn shape(kind: Kind) -> Shape {
        Shape {
            kind,
            series: 1050,
            scrapes: 4,
            samples_per_body: 100,
            interval_ms: 15_000,
            start_ms: 1_000_000,
        }
    }

    #[test]
    fn a_load_has_every_sample_once_and_a_block_keeps_its_connection() {
        let options = TargetOptions {
            url: "http://a/api/v1/push".into(),
            query_url: None,
            tenant: None,
        };
        let target = options.resolve().unwrap();
        let shape = shape(Kind::Steady);
        let load = build(&shape, 3, &target, &mut Progress::new(true));
        assert_eq!(load.requests(), 11 * 4);
        let samples: u32 = load.connections.iter().flatten().map(|r| r.samples).sum();
        assert_eq!(u64::from(samples), shape.samples());
        // The eleventh block is the short one: index 10, hence connection 1, at every scrape.
        let short: Vec<usize> = load
            .connections
            .iter()
            .map(|q| q.iter().filter(|r| r.samples == 50).count())
            .collect();
        assert_eq!(short, [0, 4, 0]);
    }

    #[test]
    fn churn_replaces_a_tenth_at_each_scrape() {
        let churn = Shape {
            series: 1000,
            scrapes: 25,
            ..shape(Kind::Churn)
        };
        for scrape in 1..25 {
            let replaced = (0..1000)
                .filter(|i| churn.generation(*i, scrape) != churn.generation(*i, scrape - 1))
                .count();
            assert_eq!(replaced, 100, "scrape {scrape}");
        }
        assert_eq!(churn.series_distinct(), 1000 + 24 * 100);
        assert!((0..1000).all(|i| churn.generation(i, 0) == 0));
    }
}
