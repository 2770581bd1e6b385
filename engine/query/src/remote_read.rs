//! Raw samples for those who evaluate themselves: remote read.
//!
//! Fetching is that of any query, with its bounds. What was fetched is handed out series by series through a [`Cursor`], which
//! whoever answers drives on a worker ([`Engine::on_worker`]) as fast as its client takes the bytes; until then only chunks are held, not
//! samples.

use std::sync::Arc;

use model::{FloatHistogram, Labels, MatchOp, Matcher, Projection};
use promql::{Columns, Source};

use crate::engine::{Caller, Engine, Turn};
use crate::error::Error;
use crate::fanout::Reach;
use crate::inflight::Listed;
use crate::judge::Asking;
use crate::memory::Account;
use crate::merge::Fetched;

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
    columns: Columns,
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
    /// Native histograms by index into `times`.
    pub histograms: &'a [(u32, FloatHistogram)],
}

/// A chunk as Prometheus encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XorChunk {
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
                crate::engine::check_length(*start, *end, limit)?;
            }
            let parse = move || selectors.iter().map(|one| reach(one, floor)).collect();
            let reaches: Result<Vec<Reach>, Error> = self.begin(turn, parse).await?;
            let of_selector = (0..ranges.len()).collect();
            let catch = self.gather(caller, reaches?, of_selector, turn).await?;
            Ok(Cursor {
                source: self.join(caller, catch, turn).await?,
                ranges,
                at: (0, 0),
                columns: Columns::default(),
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
            self.source
                .decode(query, at, start, end, &mut self.columns)
                .map_err(promql::Error::from)?;
            if self.columns.times.is_empty() {
                continue;
            }
            self.samples += self.columns.times.len() as u64;
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
                times: &self.columns.times,
                values: &self.columns.values,
                histograms: &self.columns.histograms,
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

    /// Whether native histograms are among the samples: [`ReadSeries::chunks`] would leave them out.
    pub fn holds_histograms(&self) -> bool {
        self.source.holds_histograms()
    }

    /// How many queries there are.
    pub fn queries(&self) -> usize {
        self.ranges.len()
    }
}

impl ReadSeries<'_> {
    /// The floats as chunks of Prometheus. Histograms are left out: see [`Cursor::holds_histograms`].
    pub fn chunks(&self) -> Vec<XorChunk> {
        let mut floats = (Vec::new(), Vec::new());
        let (times, values) = match self.histograms.is_empty() {
            true => (self.times, self.values),
            false => {
                let is = |at: usize| {
                    let found = |(index, _): &(u32, FloatHistogram)| *index as usize;
                    self.histograms.binary_search_by_key(&at, found).is_ok()
                };
                for at in (0..self.times.len()).filter(|at| !is(*at)) {
                    floats.0.push(self.times[at]);
                    floats.1.push(self.values[at]);
                }
                (&floats.0[..], &floats.1[..])
            }
        };
        let size = chunk::PROMETHEUS_CHUNK_SAMPLES;
        times
            .chunks(size)
            .zip(values.chunks(size))
            .map(|(times, values)| XorChunk {
                min_time: times[0],
                max_time: times[times.len() - 1],
                data: chunk::encode_prometheus_xor(times, values),
            })
            .collect()
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
