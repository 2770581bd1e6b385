//! The answers of the cores, joined: what evaluation reads from.
//!
//! Step 7 of the way of a query. A series lives on one core, so joining is nearly always concatenation and a sort; where the
//! same series comes twice all the same (blocks and replicas will do that), its chunks are put together and overlaps are
//! decoded into one ascending column, in which the first sample of a time wins.

use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{Labels, SeriesId};
use promql::{Columns, Executor, Source, SourceError};
use shard::{ChunkSlice, SelectedSeries};

/// The series of all selectors of a plan; identical selectors share one list.
#[derive(Default)]
pub(crate) struct Fetched {
    lists: Vec<Vec<FetchedSeries>>,
    /// For each selector of the plan, its list.
    of_selector: Vec<usize>,
}

/// Fewer series than this are sorted before another thread has woken up.
const PARALLEL_SERIES_MIN: usize = 4096;

impl Fetched {
    /// `lists` as they came: for each the answers of the cores. `floor` hides what is older (`i64::MIN`: nothing).
    ///
    /// Cost: a sort by labels. The answers of the cores are sorted side by side; the sort of all then only merges sorted runs.
    pub(crate) fn new(
        lists: Vec<Vec<Vec<SelectedSeries>>>,
        of_selector: Vec<usize>,
        floor: i64,
        executor: &dyn Executor,
    ) -> Fetched {
        let lists: Vec<Vec<Mutex<Vec<SelectedSeries>>>> = lists
            .into_iter()
            .map(|answers| answers.into_iter().map(Mutex::new).collect())
            .collect();
        let answers: Vec<_> = lists.iter().flatten().collect();
        if answers
            .iter()
            .map(|answer| held(answer).len())
            .sum::<usize>()
            >= PARALLEL_SERIES_MIN
        {
            executor.run(answers.len(), &|n| sort(&mut held(answers[n])));
        }
        let whole = |answers: Vec<Mutex<Vec<SelectedSeries>>>| {
            answers
                .into_iter()
                .flat_map(|answer| answer.into_inner().unwrap_or_else(PoisonError::into_inner))
                .collect()
        };
        let lists = lists
            .into_iter()
            .map(|answers| join(whole(answers), floor))
            .collect();
        Fetched { lists, of_selector }
    }
}

fn held(answer: &Mutex<Vec<SelectedSeries>>) -> MutexGuard<'_, Vec<SelectedSeries>> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stable, and linear where the list consists of sorted runs.
fn sort(list: &mut [SelectedSeries]) {
    list.sort_by(|a, b| a.labels.cmp(&b.labels));
}

impl Fetched {
    fn list(&self, selector: usize) -> &[FetchedSeries] {
        &self.lists[self.of_selector[selector]]
    }
}

impl Source for Fetched {
    fn count(&self, selector: usize) -> usize {
        self.list(selector).len()
    }

    fn labels(&self, selector: usize, series: usize) -> &Labels {
        &self.list(selector)[series].labels
    }

    fn decode(
        &self,
        selector: usize,
        series: usize,
        min: i64,
        max: i64,
        out: &mut Columns,
    ) -> Result<(), SourceError> {
        self.list(selector)[series].decode(min, max, out)
    }
}

/// One series and its chunks.
struct FetchedSeries {
    id: SeriesId,
    labels: Labels,
    /// Ascending by first time.
    chunks: Vec<ChunkSlice>,
    /// Whether a chunk begins before the one before it has ended.
    overlaps: bool,
    floor: i64,
}

fn join(mut list: Vec<SelectedSeries>, floor: i64) -> Vec<FetchedSeries> {
    sort(&mut list);
    let mut joined: Vec<FetchedSeries> = Vec::with_capacity(list.len());
    for series in list {
        match joined.last_mut() {
            Some(last) if last.labels == series.labels => {
                last.chunks.extend(series.chunks);
                last.chunks.sort_by_key(|chunk| chunk.min_time);
                last.overlaps = overlaps(&last.chunks);
            }
            _ => {
                let SelectedSeries { id, labels, chunks } = series;
                let overlaps = overlaps(&chunks);
                joined.push(FetchedSeries {
                    id,
                    labels,
                    chunks,
                    overlaps,
                    floor,
                });
            }
        }
    }
    joined
}

fn overlaps(chunks: &[ChunkSlice]) -> bool {
    chunks
        .windows(2)
        .any(|pair| pair[1].min_time <= pair[0].max_time)
}

impl FetchedSeries {
    fn decode(&self, min: i64, max: i64, out: &mut Columns) -> Result<(), SourceError> {
        out.clear();
        let min = min.max(self.floor);
        let wanted = self
            .chunks
            .iter()
            .filter(|c| c.max_time >= min && c.min_time <= max);
        for chunk in wanted {
            chunk::decode_range(&chunk.bytes, min, max, &mut out.times, &mut out.values).map_err(
                |e| SourceError {
                    series: self.id,
                    reason: e.to_string(),
                },
            )?;
        }
        if self.overlaps {
            straighten(out);
        }
        debug_assert!(
            out.times.is_sorted_by(|a, b| a < b),
            "a column ascends, no time twice"
        );
        Ok(())
    }
}

/// Sorts the columns by time and keeps the first sample of each.
fn straighten(columns: &mut Columns) {
    let mut samples: Vec<(i64, f64)> = columns
        .times
        .drain(..)
        .zip(columns.values.drain(..))
        .collect();
    samples.sort_by_key(|sample| sample.0);
    samples.dedup_by_key(|sample| sample.0);
    (columns.times, columns.values) = samples.into_iter().unzip();
}

#[cfg(test)]
mod tests {
    use promql::Inline;

    use super::*;

    fn series(name: &str, chunks: &[&[(i64, f64)]]) -> SelectedSeries {
        let chunk = |samples: &&[(i64, f64)]| {
            let mut appender = chunk::XorAppender::new();
            samples.iter().for_each(|&(t, v)| appender.append(t, v));
            ChunkSlice {
                min_time: samples[0].0,
                max_time: samples[samples.len() - 1].0,
                bytes: appender.seal().into(),
            }
        };
        SelectedSeries {
            id: SeriesId(1),
            labels: Labels::from_pairs([("__name__", name)]).unwrap(),
            chunks: chunks.iter().map(chunk).collect(),
        }
    }

    /// One list, asked for by two selectors.
    fn fetched(answers: Vec<Vec<SelectedSeries>>, floor: i64) -> Fetched {
        Fetched::new(vec![answers], vec![0, 0], floor, &Inline)
    }

    fn decoded(fetched: &Fetched, at: usize, min: i64, max: i64) -> Vec<(i64, f64)> {
        let mut columns = Columns::default();
        fetched.decode(0, at, min, max, &mut columns).unwrap();
        columns.times.into_iter().zip(columns.values).collect()
    }

    #[test]
    fn series_are_sorted_by_labels_and_selectors_share_lists() {
        let answers = vec![vec![
            series("b", &[&[(1, 1.0)]]),
            series("a", &[&[(1, 2.0)]]),
        ]];
        let fetched = fetched(answers, i64::MIN);
        let names: Vec<_> = (0..fetched.count(1))
            .map(|at| fetched.labels(1, at).to_string())
            .collect();
        assert_eq!(names, ["{__name__=\"a\"}", "{__name__=\"b\"}"]);
    }

    #[test]
    fn only_the_range_is_decoded_and_nothing_below_the_floor() {
        let answers = || {
            vec![vec![series(
                "a",
                &[&[(1, 1.0), (2, 2.0)], &[(3, 3.0), (4, 4.0)]],
            )]]
        };
        let all = fetched(answers(), i64::MIN);
        assert_eq!(decoded(&all, 0, 2, 3), [(2, 2.0), (3, 3.0)]);
        let late = fetched(answers(), 4);
        assert_eq!(decoded(&late, 0, i64::MIN, i64::MAX), [(4, 4.0)]);
    }

    #[test]
    fn the_same_series_from_two_places_is_one_column() {
        let answers = vec![
            vec![series("a", &[&[(1, 1.0), (5, 5.0)]])],
            vec![series("a", &[&[(3, 3.0), (5, 5.0), (6, 6.0)]])],
        ];
        let fetched = fetched(answers, i64::MIN);
        assert_eq!(fetched.count(0), 1);
        assert_eq!(
            decoded(&fetched, 0, 0, 9),
            [(1, 1.0), (3, 3.0), (5, 5.0), (6, 6.0)]
        );
    }

    #[test]
    fn damaged_bytes_are_an_error_that_names_the_series() {
        let mut damaged = series("a", &[&[(1, 1.0)]]);
        let mut bytes = damaged.chunks[0].bytes.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        damaged.chunks[0].bytes = bytes.into();
        let fetched = fetched(vec![vec![damaged]], i64::MIN);
        let error = fetched
            .decode(0, 0, 0, 9, &mut Columns::default())
            .unwrap_err();
        assert_eq!(error.series, SeriesId(1));
    }

    #[test]
    fn many_series_of_several_cores_are_one_sorted_list() {
        let of = |core: usize| {
            let name = move |n: usize| format!("m{:05}", (n * 7919 + core * 31) % 10_000);
            (0..PARALLEL_SERIES_MIN)
                .map(|n| series(&name(n), &[&[(1, 1.0)]]))
                .collect::<Vec<_>>()
        };
        let fetched = fetched(vec![of(0), of(1)], i64::MIN);
        let list: Vec<&Labels> = (0..fetched.count(0))
            .map(|at| fetched.labels(0, at))
            .collect();
        assert!(list.is_sorted_by(|a, b| a < b) && list.len() > PARALLEL_SERIES_MIN);
    }
}
