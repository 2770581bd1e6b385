//! Workloads as bodies, built before the clock runs, the same for every server that is compared.
//!
//! Series are cut into *lanes*. A lane always travels on the same connection, so that the samples of a series arrive in order however
//! many connections there are. Usually a lane is as many series as a body has samples, and every scrape of it is one body. Where the
//! order is shuffled, a lane is all the series of a connection, as those of a shard of Prometheus' remote write are: any target's, in
//! another order at every scrape, cut into bodies anew.
//!
//! A body has no HTTP head yet (`target` writes it), since that depends on the server.

use std::thread;

use wire::remote_write::encode::{RequestV2, put_series};

use crate::progress::Progress;
use crate::series::{SeriesLabels, Values, labels, scatter, scrape_offset_ms};

/// What is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The same series at every scrape: 100,000 series, 60 scrapes.
    Steady,
    /// What creating series costs: a million series, six scrapes.
    Cardinality,
    /// A tenth of the series is replaced by new ones at every scrape: 100,000 series, 60 scrapes.
    Churn,
    /// Eight hours of sample time, so that cuts, flush and compaction are inside: 20,000 series, 1,920 scrapes.
    Long,
    /// Steady, but the order of the series changes at every scrape and bodies mix targets.
    Shuffled,
    /// Steady, with 500 samples a body.
    Small,
    /// Steady, of a thousand tenants, each body of one of them.
    Wide,
    /// Steady, by remote write 2.0.
    V2,
    /// Steady at a fixed rate, 50,000 samples a second: look at the latency only. 15 scrapes.
    Slow,
}

impl Kind {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Steady => "steady",
            Kind::Cardinality => "cardinality",
            Kind::Churn => "churn",
            Kind::Long => "long",
            Kind::Shuffled => "shuffled",
            Kind::Small => "small",
            Kind::Wide => "wide",
            Kind::V2 => "v2",
            Kind::Slow => "slow",
        }
    }

    /// Samples a second, where the workload is about a rate.
    pub(crate) fn rate(self) -> Option<f64> {
        (self == Kind::Slow).then_some(50_000.0)
    }
}

/// Which message a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// Options by which a workload is sized, the same for all commands.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct ShapeOptions {
    /// Series at every scrape. Default: as the workload has it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) series: Option<u64>,
    /// Samples of each series. Default: as the workload has it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) scrapes: Option<u64>,
    /// Samples (and series) of one request. Default: 2000; 500 for small.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) samples_per_body: Option<u64>,
    /// Keep-alive connections, each a thread.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) connections: u16,
    /// Tenants, each with its share of the series. Default: one, which `--tenant` names; 1000 for wide.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) tenants: Option<u32>,
    /// Milliseconds of sample time between two scrapes.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    pub(crate) interval_ms: i64,
    /// Sample time of the first scrape in milliseconds since 1970. Default: so that the last one is over now.
    /// The targets of a scrape are spread over the interval, as Prometheus does it.
    #[arg(long)]
    pub(crate) start_ms: Option<i64>,
    /// Samples a second over all connections. Default: as fast as the server takes them; 50000 for slow.
    /// Requests are due at their time whatever became of those before: with many connections an open loop.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
}

impl ShapeOptions {
    /// The workload at a moment. Errors: times that no clock has.
    pub(crate) fn shape(&self, kind: Kind, now_ms: i64) -> anyhow::Result<Shape> {
        use anyhow::{Context, ensure};
        let (series, scrapes) = match kind {
            Kind::Steady | Kind::Churn | Kind::Shuffled | Kind::Small | Kind::Wide | Kind::V2 => {
                (100_000, 60)
            }
            Kind::Cardinality => (1_000_000, 6),
            Kind::Long => (20_000, 8 * 3600 / 15),
            Kind::Slow => (100_000, 15),
        };
        let scrapes = self.scrapes.unwrap_or(scrapes);
        let span = i64::try_from(scrapes)
            .ok()
            .and_then(|steps| steps.checked_mul(self.interval_ms))
            .context("scrapes times interval is more than time has")?;
        let start_ms = self.start_ms.unwrap_or(now_ms.saturating_sub(span));
        start_ms
            .checked_add(span)
            .context("the last scrape is after the end of time")?;
        let series = self.series.unwrap_or(series);
        let tenants = self
            .tenants
            .unwrap_or(if kind == Kind::Wide { 1000 } else { 1 });
        ensure!(
            u64::from(tenants) <= series,
            "{tenants} tenants cannot share {series} series"
        );
        Ok(Shape {
            kind,
            series,
            scrapes,
            samples_per_body: self.samples_per_body.unwrap_or(if kind == Kind::Small {
                500
            } else {
                2000
            }),
            connections: usize::from(self.connections),
            tenants,
            interval_ms: self.interval_ms,
            start_ms,
        })
    }

    /// Samples a second, if there is a rate.
    pub(crate) fn rate(&self, kind: Kind) -> anyhow::Result<Option<f64>> {
        let rate = self.rate.or(kind.rate());
        anyhow::ensure!(
            rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
            "--rate must be a positive number of samples a second"
        );
        Ok(rate)
    }
}

/// The size of a workload.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) series: u64,
    pub(crate) scrapes: u64,
    pub(crate) samples_per_body: u64,
    pub(crate) connections: usize,
    pub(crate) tenants: u32,
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

    pub(crate) fn protocol(&self) -> Protocol {
        match self.kind {
            Kind::V2 => Protocol::V2,
            _ => Protocol::V1,
        }
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
            // One series in ten at each scrape but the first, each in turn.
            Kind::Churn => (scrape + 10 - (index % 10 + 1)) / 10,
            _ => 0,
        }
    }

    /// The lanes: their tenants and their series.
    fn lanes(&self) -> Vec<(u32, Vec<u64>)> {
        let per_body = self.samples_per_body as usize;
        let mut lanes = Vec::new();
        for tenant in 0..self.tenants {
            let share = |tenant: u32| self.series * u64::from(tenant) / u64::from(self.tenants);
            let series: Vec<u64> = (share(tenant)..share(tenant + 1)).collect();
            if self.kind == Kind::Shuffled {
                let mut shards = vec![Vec::new(); self.connections];
                for index in series {
                    shards[(scatter(index) % self.connections as u64) as usize].push(index);
                }
                // An empty one keeps its place, so that a lane's number is its connection's.
                lanes.extend(shards.into_iter().map(|series| (tenant, series)));
            } else {
                lanes.extend(series.chunks(per_body).map(|s| (tenant, s.to_vec())));
            }
        }
        lanes
    }
}

/// A body that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    /// Compressed.
    pub(crate) body: Vec<u8>,
    pub(crate) samples: u32,
    /// The number of its tenant; `None` where there is one only.
    pub(crate) tenant: Option<u32>,
}

/// All requests, by connection, in the order in which they go out.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) connections: Vec<Vec<Request>>,
    pub(crate) protocol: Protocol,
    pub(crate) samples: u64,
    /// Bytes of all bodies, without HTTP heads.
    pub(crate) body_bytes: u64,
}

impl Load {
    pub(crate) fn requests(&self) -> usize {
        self.connections.iter().map(Vec::len).sum()
    }
}

/// Builds the load with as many threads as there are CPUs to run on.
pub(crate) fn build(shape: &Shape, progress: &mut Progress) -> Load {
    assert!(shape.connections > 0 && shape.series > 0 && shape.scrapes > 0);
    assert!(shape.samples_per_body > 0 && shape.tenants > 0);
    let lanes = shape.lanes();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (done, finished) = std::sync::mpsc::channel();
    let mut by_lane: Vec<Vec<Vec<Request>>> = (0..lanes.len()).map(|_| Vec::new()).collect();
    thread::scope(|scope| {
        for thread in 0..threads {
            let (done, lanes) = (done.clone(), &lanes);
            scope.spawn(move || {
                for (number, (tenant, series)) in
                    lanes.iter().enumerate().skip(thread).step_by(threads)
                {
                    let built = build_lane(shape, *tenant, series);
                    // The receiver outlives this scope.
                    let _ = done.send((number, built));
                }
            });
        }
        drop(done);
        for (count, (lane, scrapes)) in finished.iter().enumerate() {
            by_lane[lane] = scrapes;
            progress.tick(|| format!("building bodies: {}/{} lanes", count + 1, lanes.len()));
        }
    });
    let mut queues: Vec<Vec<Request>> = (0..shape.connections).map(|_| Vec::new()).collect();
    let mut by_lane: Vec<_> = by_lane.into_iter().map(Vec::into_iter).collect();
    for _ in 0..shape.scrapes {
        for (lane, scrapes) in by_lane.iter_mut().enumerate() {
            queues[lane % shape.connections].extend(scrapes.next().into_iter().flatten());
        }
    }
    let bytes = |request: &Request| request.body.len() as u64;
    let load = Load {
        body_bytes: queues.iter().flatten().map(bytes).sum(),
        samples: shape.samples(),
        protocol: shape.protocol(),
        connections: queues,
    };
    progress.finish(&format!(
        "built {} bodies, {:.1} MB",
        load.requests(),
        load.body_bytes as f64 / 1e6
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
    put_series(request, labels, &[(time_ms, value)]);
}

/// A series of a lane on its way through time.
struct Row {
    index: u64,
    generation: u64,
    labels: SeriesLabels,
    values: Values,
}

impl Row {
    fn new(index: u64, generation: u64) -> Row {
        Row {
            index,
            generation,
            labels: labels(index, generation),
            values: Values::new(index, generation),
        }
    }
}

/// The requests of one lane by scrape.
fn build_lane(shape: &Shape, tenant: u32, series: &[u64]) -> Vec<Vec<Request>> {
    let mut rows: Vec<Row> = series.iter().map(|index| Row::new(*index, 0)).collect();
    let mut plain = Vec::new();
    let mut scrapes = Vec::new();
    for scrape in 0..shape.scrapes {
        if shape.kind == Kind::Shuffled {
            rows.sort_unstable_by_key(|row| scatter(row.index ^ (scrape + 1) << 40));
        }
        let time = shape.start_ms + scrape as i64 * shape.interval_ms;
        let mut requests = Vec::new();
        for part in rows.chunks_mut(shape.samples_per_body as usize) {
            plain.clear();
            let mut second = RequestV2::default();
            for row in &mut *part {
                let generation = shape.generation(row.index, scrape);
                if generation != row.generation {
                    *row = Row::new(row.index, generation);
                }
                let time = time + scrape_offset_ms(row.index, shape.interval_ms);
                let value = row.values.next();
                match shape.protocol() {
                    Protocol::V1 => put_sample(&mut plain, &row.labels, time, value),
                    Protocol::V2 => {
                        let labels = row.labels.iter().map(|(name, v)| (*name, v.as_str()));
                        second.put_series(labels, &[(time, value)], None);
                    }
                }
            }
            let body = match shape.protocol() {
                Protocol::V1 => wire::snappy::pack(&plain),
                Protocol::V2 => wire::snappy::pack(&second.finish()),
            };
            requests.push(Request {
                body,
                samples: part.len() as u32,
                tenant: (shape.tenants > 1).then_some(tenant),
            });
        }
        scrapes.push(requests);
    }
    scrapes
}

#[cfg(test)]
mod tests;
