//! The answers of the cores, joined: what evaluation reads from.
//!
//! Step 7 of the way of a query. A series lives on one core, so joining is nearly always concatenation and a sort; where the
//! same series comes twice all the same (blocks and replicas will do that), its chunks are put together and overlaps are
//! decoded into one ascending column, in which the first sample of a time wins.

use std::sync::{Mutex, MutexGuard, PoisonError};

use model::Labels;
use promql::{Columns, Executor, Source, SourceError};
use shard::{ChunkSlice, ReadError, SelectedSeries, load_chunks};

/// The series of all selectors of a plan; identical selectors share one list.
#[derive(Default)]
pub(crate) struct Fetched {
    /// Each series once. By labels where all labels were asked for.
    lists: Vec<Vec<SelectedSeries>>,
    /// For each selector of the plan, its list.
    of_selector: Vec<usize>,
    /// Older samples are hidden.
    floor: i64,
}

/// What the cores answered to one question.
pub(crate) struct Answers {
    /// One for each core.
    pub(crate) series: Vec<Vec<SelectedSeries>>,
    /// Whether all labels were asked for, so that no two series have the same.
    pub(crate) all_labels: bool,
}

/// Fewer series than this are sorted before another thread has woken up.
const PARALLEL_SERIES_MIN: usize = 4096;

impl Fetched {
    /// `lists` as they came. `floor` hides what is older (`i64::MIN`: nothing).
    ///
    /// What lies in chunk files is fetched here, the answers of the cores side by side; `canceled` is asked between two reads.
    /// Errors: a chunk that cannot be read or is damaged; canceled.
    /// Cost: the reads, and a sort by labels, where all labels were asked for. The answers of the cores are sorted side by side; the sort of all then
    /// only merges sorted runs.
    pub(crate) fn new(
        lists: Vec<Answers>,
        of_selector: Vec<usize>,
        floor: i64,
        executor: &dyn Executor,
        canceled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Fetched, ReadError> {
        let mut lists = lists;
        load(&mut lists, executor, canceled)?;
        let join = |answers: Answers| match answers.all_labels {
            true => by_labels(answers.series, executor),
            false => by_identity(answers.series),
        };
        Ok(Fetched {
            lists: lists.into_iter().map(join).collect(),
            of_selector,
            floor,
        })
    }

    fn list(&self, selector: usize) -> &[SelectedSeries] {
        &self.lists[self.of_selector[selector]]
    }
}

fn held(answer: &Mutex<Vec<SelectedSeries>>) -> MutexGuard<'_, Vec<SelectedSeries>> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stable, and linear where the list consists of sorted runs.
fn sort(list: &mut [SelectedSeries]) {
    list.sort_by(|a, b| a.labels.cmp(&b.labels));
}

/// Fetches the chunks of all answers that lie in files, the answers side by side.
fn load(
    lists: &mut [Answers],
    executor: &dyn Executor,
    canceled: &(dyn Fn() -> bool + Sync),
) -> Result<(), ReadError> {
    let answers = lists.iter_mut().flat_map(|answers| &mut answers.series);
    let answers: Vec<_> = answers.map(Mutex::new).collect();
    let failed = Mutex::new(None);
    executor.run(answers.len(), &|n| {
        let mut answer = answers[n].lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = load_chunks(&mut answer, canceled) {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// One list, sorted by labels.
fn by_labels(
    mut answers: Vec<Vec<SelectedSeries>>,
    executor: &dyn Executor,
) -> Vec<SelectedSeries> {
    if answers.len() > 1 && answers.iter().map(Vec::len).sum::<usize>() >= PARALLEL_SERIES_MIN {
        let locked: Vec<_> = answers.into_iter().map(Mutex::new).collect();
        executor.run(locked.len(), &|n| sort(&mut held(&locked[n])));
        let unlock = |answer: Mutex<_>| answer.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers = locked.into_iter().map(unlock).collect();
    }
    let mut list = one_list(answers);
    sort(&mut list);
    join(&mut list, |a, b| a.labels == b.labels);
    list
}

/// One list, in the order of the cores and of their series; sorted by identity if a series came twice.
fn by_identity(answers: Vec<Vec<SelectedSeries>>) -> Vec<SelectedSeries> {
    if answers.len() <= 1 {
        return one_list(answers); // A core gives a series once.
    }
    let mut list = one_list(answers);
    let mut ids: Vec<u64> = list.iter().map(|series| series.id.0 as u64).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        list.sort_by_key(|series| series.id);
        join(&mut list, |a, b| a.id == b.id);
    }
    list
}

fn one_list(answers: Vec<Vec<SelectedSeries>>) -> Vec<SelectedSeries> {
    let mut answers = answers.into_iter();
    let mut list = answers.next().unwrap_or_default();
    answers.for_each(|mut more| list.append(&mut more));
    list
}

/// Puts the chunks of neighbours that are the same series together, ascending by first time.
fn join(list: &mut Vec<SelectedSeries>, same: impl Fn(&SelectedSeries, &SelectedSeries) -> bool) {
    list.dedup_by(|later, first| {
        let joins = same(later, first);
        if joins {
            first.chunks.append(&mut later.chunks);
            first.chunks.sort_by_key(|chunk| chunk.min_time);
        }
        joins
    });
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
        out.clear();
        let series = &self.list(selector)[series];
        let min = min.max(self.floor);
        let wanted = |c: &&ChunkSlice| c.max_time >= min && c.min_time <= max;
        for chunk in series.chunks.iter().filter(wanted) {
            let failed = |reason: String| SourceError {
                series: series.id,
                reason,
            };
            let sealed = chunk.bytes.read().map_err(|e| failed(e.to_string()))?;
            chunk::decode_range(&sealed, min, max, &mut out.times, &mut out.values)
                .map_err(|e| failed(e.to_string()))?;
        }
        if overlaps(&series.chunks) {
            straighten(out);
        }
        debug_assert!(
            out.times.is_sorted_by(|a, b| a < b),
            "a column ascends, no time twice"
        );
        Ok(())
    }
}

/// Whether a chunk begins before the one before it has ended.
fn overlaps(chunks: &[ChunkSlice]) -> bool {
    chunks
        .windows(2)
        .any(|pair| pair[1].min_time <= pair[0].max_time)
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
    use model::SeriesId;
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
        let answers = Answers {
            series: answers,
            all_labels: true,
        };
        Fetched::new(vec![answers], vec![0, 0], floor, &Inline, &|| false).unwrap()
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

    /// `sum by (job)`: other labels than those of the groups are not even fetched.
    #[test]
    fn series_that_are_alike_in_the_wanted_labels_stay_two_and_one_from_two_places_is_one() {
        let of = |id: u128, samples: &[(i64, f64)]| SelectedSeries {
            id: SeriesId(id),
            ..series("a", &[samples])
        };
        let answers = Answers {
            series: vec![
                vec![of(1, &[(1, 1.0)]), of(2, &[(1, 2.0)])],
                vec![of(3, &[(1, 3.0)]), of(2, &[(2, 2.5)])],
            ],
            all_labels: false,
        };
        let fetched = Fetched::new(vec![answers], vec![0], i64::MIN, &Inline, &|| false).unwrap();
        let mut columns: Vec<_> = (0..fetched.count(0))
            .map(|at| decoded(&fetched, at, 0, 9))
            .collect();
        columns.sort_by(|a, b| a[0].1.total_cmp(&b[0].1));
        assert_eq!(
            columns,
            [vec![(1, 1.0)], vec![(1, 2.0), (2, 2.5)], vec![(1, 3.0)]]
        );
    }

    #[test]
    fn damaged_bytes_are_an_error_that_names_the_series() {
        let mut damaged = series("a", &[&[(1, 1.0)]]);
        let mut bytes = damaged.chunks[0].bytes.read().unwrap().into_owned();
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
