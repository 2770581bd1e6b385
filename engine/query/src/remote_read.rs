//! Raw samples for those who evaluate themselves: remote read.
//!
//! Fetching is that of any query, with its bounds. What was fetched is handed out series by series through a [`Cursor`], which
//! whoever answers drives on a worker ([`Engine::on_worker`]) as fast as its client takes the bytes; until then only chunks are held, not
//! samples.

use std::sync::Arc;

use chunk::PROMETHEUS_CHUNK_SAMPLES;
use model::{HistogramSample, Labels, MatchOp, Matcher, Projection};
use promql::Source;

use crate::engine::{Caller, Engine, Turn};
use crate::error::Error;
use crate::fanout::Reach;
use crate::inflight::Listed;
use crate::judge::Asking;
use crate::memory::Account;
use crate::merge::{Fetched, Rows};

/// One selector over one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSelector {
    /// First time, milliseconds, inclusive.
    pub start: i64,
    /// Last time.
    pub end: i64,
    /// All must match: operator, name, value.
    pub matchers: Vec<(MatchOp, String, String)>,
}

/// What was fetched, and how much of it has been handed out.
pub struct Cursor {
    source: Fetched,
    ranges: Vec<(i64, i64)>,
    /// Query and series that come next.
    at: (usize, usize),
    times: Vec<i64>,
    values: Vec<f64>,
    histograms: Vec<(u32, HistogramSample)>,
    samples: u64,
    samples_max: u64,
    account: Arc<Account>,
    /// In the list of requests in flight, where somebody may end it.
    listed: Arc<Listed>,
}

/// Samples of one series for one query; never empty.
#[derive(Debug)]
pub struct ReadSeries<'a> {
    /// Index of the query.
    pub query: usize,
    /// Its labels.
    pub labels: &'a Labels,
    /// Milliseconds, ascending.
    pub times: &'a [i64],
    /// Floats, staleness markers included; where a histogram stands, unused.
    pub values: &'a [f64],
    /// Native histograms by index into `times`, as they were written.
    pub histograms: &'a [(u32, HistogramSample)],
}

/// How the samples of a [`PrometheusChunk`] are encoded. The numbers are those of remote read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrometheusEncoding {
    /// Floats.
    Xor = 1,
    /// Native histograms with integer counts.
    Histogram = 2,
    /// Native histograms with float counts.
    FloatHistogram = 3,
}

/// A chunk as Prometheus encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusChunk {
    /// Of its bytes.
    pub encoding: PrometheusEncoding,
    /// First sample's time, milliseconds.
    pub min_time: i64,
    /// Last sample's time.
    pub max_time: i64,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Engine {
    /// Fetches the series of all selectors.
    ///
    /// Errors: as any query; a matcher that is none; a selector that could match the series without labels is fine here.
    pub async fn read(
        &self,
        caller: &Caller,
        selectors: Vec<ReadSelector>,
    ) -> Result<Cursor, Error> {
        let text = shown(&selectors);
        self.bounded(Asking::plain("read", &text), caller, async |turn: &Turn| {
            let ranges: Vec<(i64, i64)> = selectors.iter().map(|s| (s.start, s.end)).collect();
            let floor = self.floor(caller);
            let limit = caller.limits.max_query_length;
            for (start, end) in &ranges {
                // As long as a range query over the same times is.
                crate::engine::check_length(start.saturating_add(1), *end, limit)?;
            }
            let parse = move || selectors.iter().map(|one| reach(one, floor)).collect();
            let reaches: Result<Vec<Reach>, Error> = self.begin(turn, parse).await?;
            let of_selector = (0..ranges.len()).collect();
            let catch = self.gather(caller, reaches?, of_selector, turn).await?;
            Ok(Cursor {
                source: self.join(caller, catch, turn).await?,
                ranges,
                at: (0, 0),
                times: Vec::new(),
                values: Vec::new(),
                histograms: Vec::new(),
                samples: 0,
                samples_max: self.samples_max(caller),
                account: turn.account.clone(),
                listed: turn.listed.clone(),
            })
        })
        .await
    }

    /// Runs something short on a worker: a piece of an answer that is being streamed.
    pub async fn on_worker<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.run(job).await
    }
}

impl Cursor {
    /// The next series that has samples; `None` when all have been handed out.
    ///
    /// Errors: chunks that cannot be read, more samples than one query may have, somebody has ended it.
    pub fn advance(&mut self) -> Result<Option<ReadSeries<'_>>, Error> {
        if self.listed.entry.was_killed() {
            return Err(Error::Killed);
        }
        loop {
            let (query, at) = self.at;
            let Some(&(start, end)) = self.ranges.get(query) else {
                return Ok(None);
            };
            if at == self.source.count(query) {
                self.at = (query + 1, 0);
                continue;
            }
            self.at.1 += 1;
            self.times.clear();
            self.values.clear();
            self.histograms.clear();
            let mut rows = Rows {
                times: &mut self.times,
                values: &mut self.values,
                histograms: &mut self.histograms,
            };
            self.source
                .decode_rows((query, at), (start, end), &mut rows)
                .map_err(promql::Error::from)?;
            if self.times.is_empty() {
                continue;
            }
            self.samples += self.times.len() as u64;
            if self.samples > self.samples_max {
                let error = promql::Error::TooManySamples {
                    samples_max: self.samples_max,
                    needed: self.samples,
                };
                return Err(error.into());
            }
            let labels = self.source.labels(query, at);
            return Ok(Some(ReadSeries {
                query,
                labels,
                times: &self.times,
                values: &self.values,
                histograms: &self.histograms,
            }));
        }
    }

    /// Takes memory for what is made of the samples. Errors: there is none.
    pub fn hold(&self, bytes: u64) -> Result<(), Error> {
        match self.account.take(bytes) {
            true => Ok(()),
            false => Err(self.account.refusal()),
        }
    }

    /// Nothing more will be handed out; only `bytes` stay, for as long as the account is kept.
    pub fn finish(self, bytes: u64) -> Arc<Account> {
        self.account.shrink(bytes);
        self.account
    }

    /// How many queries there are.
    pub fn queries(&self) -> usize {
        self.ranges.len()
    }
}

impl ReadSeries<'_> {
    /// The samples as chunks of Prometheus, ascending in time: where floats and histograms alternate, each run is a chunk of its own.
    pub fn chunks(&self) -> Vec<PrometheusChunk> {
        let mut chunks = Vec::new();
        let mut from = 0;
        let mut rest = self.histograms;
        while from < self.times.len() {
            let next = rest
                .first()
                .map_or(self.times.len(), |(at, _)| *at as usize);
            self.float_chunks(from..next, &mut chunks);
            let run = (next..).zip(rest);
            let run = run.take_while(|(at, (index, _))| *at == *index as usize);
            let (run, behind) = rest.split_at(run.count());
            if !run.is_empty() {
                let times = &self.times[next..next + run.len()];
                let histograms: Vec<HistogramSample> =
                    run.iter().map(|(_, histogram)| histogram.clone()).collect();
                let encoded = chunk::encode_prometheus_histograms(times, &histograms);
                chunks.extend(encoded.into_iter().map(|chunk| PrometheusChunk {
                    encoding: match chunk.floats {
                        true => PrometheusEncoding::FloatHistogram,
                        false => PrometheusEncoding::Histogram,
                    },
                    min_time: chunk.times.0,
                    max_time: chunk.times.1,
                    data: chunk.bytes,
                }));
            }
            (from, rest) = (next + run.len(), behind);
        }
        chunks
    }

    fn float_chunks(&self, part: std::ops::Range<usize>, chunks: &mut Vec<PrometheusChunk>) {
        let times = self.times[part.clone()].chunks(PROMETHEUS_CHUNK_SAMPLES);
        let values = self.values[part].chunks(PROMETHEUS_CHUNK_SAMPLES);
        chunks.extend(times.zip(values).map(|(times, values)| PrometheusChunk {
            encoding: PrometheusEncoding::Xor,
            min_time: times[0],
            max_time: times[times.len() - 1],
            data: chunk::encode_prometheus_xor(times, values),
        }));
    }
}

fn reach(selector: &ReadSelector, floor: i64) -> Result<Reach, Error> {
    let matcher = |(op, name, value): &(MatchOp, String, String)| {
        Matcher::new(*op, name, value).map_err(|error| Error::Parameter {
            name: "matchers",
            reason: format!("{name}{}{value:?}: {error}", op.symbol()),
        })
    };
    let matchers: Result<Vec<Matcher>, Error> = selector.matchers.iter().map(matcher).collect();
    Ok(Reach {
        matchers: Arc::from(matchers?),
        min_time: selector.start.max(floor),
        max_time: selector.end,
        projection: Projection::All,
        newest: false,
        windows: None,
    })
}

/// The selectors as they could be written, for lists and logs.
fn shown(selectors: &[ReadSelector]) -> String {
    let one = |selector: &ReadSelector| {
        let matchers = selector.matchers.iter().map(|(op, name, value)| {
            format!("{name}{}{}", op.symbol(), promql::expr::quoted(value))
        });
        format!("{{{}}}", matchers.collect::<Vec<_>>().join(","))
    };
    selectors.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use model::{FloatHistogram, Histogram};

    use super::*;

    #[test]
    fn chunks_ascend_where_floats_and_both_kinds_of_histograms_alternate() {
        let int = |count: u64| {
            HistogramSample::Int(Histogram {
                count,
                zero_count: count,
                ..Histogram::default()
            })
        };
        let float = HistogramSample::Float(FloatHistogram::default());
        let histograms = [(1, int(1)), (2, int(2)), (3, float), (130, int(3))];
        let times: Vec<i64> = (0..132).collect();
        let series = ReadSeries {
            query: 0,
            labels: &Labels::default(),
            times: &times,
            values: &vec![1.0; 132],
            histograms: &histograms,
        };
        let chunks = series.chunks();
        use PrometheusEncoding::{FloatHistogram as Floats, Histogram as Ints, Xor};
        let found: Vec<_> = (chunks.iter())
            .map(|chunk| (chunk.encoding, chunk.min_time, chunk.max_time))
            .collect();
        let expected = [
            (Xor, 0, 0),
            (Ints, 1, 2),
            (Floats, 3, 3),
            (Xor, 4, 123),
            (Xor, 124, 129),
            (Ints, 130, 130),
            (Xor, 131, 131),
        ];
        assert_eq!(found, expected);
        let (mut at, mut read) = (Vec::new(), Vec::new());
        chunk::decode_prometheus_histograms(&chunks[1].data, false, &mut at, &mut read).unwrap();
        let count = |sample: &HistogramSample| match sample {
            HistogramSample::Int(histogram) => histogram.count,
            HistogramSample::Float(_) => unreachable!("they were integers"),
        };
        let counts: Vec<u64> = read.iter().map(count).collect();
        assert_eq!((at, counts), (vec![1, 2], vec![1, 2]));
    }
}
