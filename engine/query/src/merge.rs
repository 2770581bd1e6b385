//! The answers of the cores, joined: what evaluation reads from.
//!
//! Step 7 of the way of a query. A series lives on one core, so joining is nearly always concatenation and a sort; where the
//! same series comes twice all the same (from a core and from blocks), its chunks are put together. Chunks that overlap, as late samples and others do,
//! are decoded group by group into one ascending column, in which the sample that was logged later wins.

use std::cmp::Reverse;
use std::sync::{Mutex, MutexGuard, PoisonError};

use block::Run;
use model::{CounterReset, FloatHistogram, HistogramSample, Labels, TimeRange, Windows};
use promql::{Columns, Executor, Source, SourceError};
use shard::{ChunkBytes, ChunkSlice, ReadError, SelectedSeries, load_chunks};

/// The series of all selectors of a plan; identical selectors share one list.
#[derive(Default)]
pub(crate) struct Fetched {
    /// Each series once. By labels where all labels were asked for.
    lists: Vec<Vec<SelectedSeries>>,
    /// Of each list, of which times samples were asked for.
    windows: Vec<Option<Windows>>,
    /// For each selector of the plan, its list.
    of_selector: Vec<usize>,
    /// Older samples are hidden.
    floor: i64,
}

/// What the cores answered to one question, and what blocks add.
pub(crate) struct Answers {
    /// One for each core, and for each block that has some.
    pub(crate) series: Vec<Vec<SelectedSeries>>,
    /// Whether all labels were asked for, so that no two series have the same.
    pub(crate) all_labels: bool,
    /// Of what is outside of them some may be missing.
    pub(crate) windows: Option<Windows>,
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
            windows: lists.iter().map(|answers| answers.windows).collect(),
            lists: lists.into_iter().map(join).collect(),
            of_selector,
            floor,
        })
    }

    /// As [`Source::decode`], behind what is there, with native histograms of either kind.
    pub(crate) fn decode_rows<H: Native>(
        &self,
        (selector, series): (usize, usize),
        (min, max): (i64, i64),
        out: &mut Rows<'_, H>,
    ) -> Result<(), SourceError> {
        let windows = self.windows[self.of_selector[selector]];
        let series = &self.list(selector)[series];
        let min = min.max(self.floor);
        let range = TimeRange { min, max, windows };
        // By time alone, so that of the samples of a moment all are here, or none.
        let wanted = |c: &&ChunkSlice| range.overlaps(c.min_time, c.max_time);
        let decode = |chunk: &ChunkSlice, out: &mut Rows<'_, H>| {
            let max = max.min(chunk.max_time);
            let range = TimeRange { max, ..range };
            decode_chunk(&chunk.bytes, &range, out).map_err(|reason| SourceError {
                series: series.id,
                reason,
            })
        };
        let mut rest = &series.chunks[..];
        while !rest.is_empty() {
            let (group, behind) = rest.split_at(group_end(rest));
            rest = behind;
            if let [chunk] = group {
                if wanted(&chunk) {
                    decode(chunk, out)?;
                }
                continue;
            }
            let mut group: Vec<&ChunkSlice> = group.iter().filter(wanted).collect();
            // What was logged later comes first, and so it wins.
            group.sort_by_key(|chunk| Reverse(chunk.bytes.order()));
            let from = out.times.len();
            let mut starts = Vec::with_capacity(group.len());
            for chunk in group {
                starts.push(out.times.len());
                decode(chunk, out)?;
            }
            straighten(out, from, &starts);
        }
        debug_assert!(
            out.times.is_sorted_by(|a, b| a < b),
            "a column ascends, no time twice"
        );
        Ok(())
    }

    /// The series of the first list, where there is one.
    pub(crate) fn into_list(self) -> Vec<SelectedSeries> {
        self.lists.into_iter().next().unwrap_or_default()
    }

    fn list(&self, selector: usize) -> &[SelectedSeries] {
        &self.lists[self.of_selector[selector]]
    }
}

/// Where samples are decoded to, as in [`Columns`].
pub(crate) struct Rows<'a, H> {
    pub(crate) times: &'a mut Vec<i64>,
    pub(crate) values: &'a mut Vec<f64>,
    pub(crate) histograms: &'a mut Vec<(u32, H)>,
}

/// Native histograms as evaluation works on them, with counts that are floats, or as they were written.
pub(crate) trait Native: Sized {
    /// Appends those of a sealed chunk.
    fn decode(
        sealed: &[u8],
        range: (i64, i64),
        times: &mut Vec<i64>,
        histograms: &mut Vec<Self>,
    ) -> Result<(), chunk::Error>;

    /// The sample before it is not the one that something was said of about a reset.
    fn forget_counter_reset(&mut self);
}

impl Native for FloatHistogram {
    fn decode(
        sealed: &[u8],
        (min, max): (i64, i64),
        times: &mut Vec<i64>,
        histograms: &mut Vec<FloatHistogram>,
    ) -> Result<(), chunk::Error> {
        chunk::decode_float_histograms(sealed, min, max, times, histograms)
    }

    fn forget_counter_reset(&mut self) {
        if self.counter_reset != CounterReset::Gauge {
            self.counter_reset = CounterReset::Unknown;
        }
    }
}

impl Native for HistogramSample {
    fn decode(
        sealed: &[u8],
        (min, max): (i64, i64),
        times: &mut Vec<i64>,
        histograms: &mut Vec<HistogramSample>,
    ) -> Result<(), chunk::Error> {
        chunk::decode_histograms(sealed, min, max, times, histograms)
    }

    fn forget_counter_reset(&mut self) {
        HistogramSample::forget_counter_reset(self);
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
        let mut rows = Rows {
            times: &mut out.times,
            values: &mut out.values,
            histograms: &mut out.histograms,
        };
        self.decode_rows((selector, series), (min, max), &mut rows)
    }
}

/// Appends what a chunk has in a range. Errors: why it cannot be read.
fn decode_chunk<H: Native>(
    bytes: &ChunkBytes,
    range: &TimeRange,
    out: &mut Rows<'_, H>,
) -> Result<(), String> {
    let (min, max) = (range.min, range.max);
    let Some(run) = bytes.packed() else {
        let sealed = bytes.read().map_err(|e| e.to_string())?;
        return decode_sealed(&sealed, (min, max), out);
    };
    let mut inner = Ok(());
    let decoded = run.decode(range, &mut |run| match run {
        Run::Floats { times, values } => {
            out.times.extend_from_slice(times);
            out.values.extend_from_slice(values);
        }
        Run::Sealed(sealed) => inner = decode_sealed(sealed.bytes, (min, max), out),
    });
    decoded.map_err(|e| e.to_string())?;
    inner
}

fn decode_sealed<H: Native>(
    sealed: &[u8],
    (min, max): (i64, i64),
    out: &mut Rows<'_, H>,
) -> Result<(), String> {
    let decoded = match chunk::holds_histograms(sealed) {
        false => chunk::decode_range(sealed, min, max, out.times, out.values),
        true => decode_histograms(sealed, min, max, out),
    };
    decoded.map_err(|e| e.to_string())
}

/// How many chunks, from the first one on, have to be decoded together: each overlaps one before it, or comes right behind late samples.
///
/// What a histogram says of a reset depends on this, and when chunks move into a block they are grouped alike (`shard`, `cut::join`).
fn group_end(chunks: &[ChunkSlice]) -> usize {
    let mut end = i64::MIN;
    let mut behind_late = true;
    let joins = |chunk: &&ChunkSlice| {
        let joins = behind_late || chunk.min_time <= end;
        (end, behind_late) = (end.max(chunk.max_time), chunk.bytes.is_late());
        joins
    };
    chunks.iter().take_while(joins).count()
}

/// Appends the histograms of a chunk, and an unused float for each. Rare enough to allocate for.
#[cold]
fn decode_histograms<H: Native>(
    bytes: &[u8],
    min: i64,
    max: i64,
    out: &mut Rows<'_, H>,
) -> Result<(), chunk::Error> {
    let mut histograms = Vec::new();
    let from = out.times.len() as u32;
    H::decode(bytes, (min, max), out.times, &mut histograms)?;
    out.values.resize(out.times.len(), 0.0);
    out.histograms.extend((from..).zip(histograms));
    Ok(())
}

/// Sorts what the columns have from index `from` on by time and keeps the first sample of each. `starts`: where its chunks begin.
fn straighten<H: Native>(columns: &mut Rows<'_, H>, from: usize, starts: &[usize]) {
    let mut order: Vec<usize> = (from..columns.times.len()).collect();
    order.sort_by_key(|&index| columns.times[index]);
    order.dedup_by_key(|index| columns.times[*index]);
    let times: Vec<i64> = order.iter().map(|&i| columns.times[i]).collect();
    let values: Vec<f64> = order.iter().map(|&i| columns.values[i]).collect();
    columns.times.truncate(from);
    columns.times.extend(times);
    columns.values.truncate(from);
    columns.values.extend(values);
    let held = columns
        .histograms
        .partition_point(|(index, _)| (*index as usize) < from);
    if held == columns.histograms.len() {
        return;
    }
    let histograms = columns.histograms.split_off(held).into_iter();
    let mut histograms: Vec<_> = histograms.map(|(index, one)| (index, Some(one))).collect();
    histograms.sort_by_key(|(index, _)| *index);
    for (place, &old) in order.iter().enumerate() {
        let Ok(at) = histograms.binary_search_by_key(&(old as u32), |(index, _)| *index) else {
            continue;
        };
        let histogram = &mut histograms[at].1;
        let mut histogram = histogram.take().expect("no index is in order twice");
        // What was said of a reset was said of the sample before it in its chunk. The first of all has the one before the group, as ever.
        let as_logged =
            place == 0 || (order[place - 1] + 1 == old && starts.binary_search(&old).is_err());
        if !as_logged {
            histogram.forget_counter_reset();
        }
        columns.histograms.push(((from + place) as u32, histogram));
    }
}

#[cfg(test)]
mod tests {
    use model::{Histogram, SeriesId};
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
            exemplars: Vec::new(),
            starts: Vec::new(),
        }
    }

    fn histogram_chunk(samples: &[(i64, u64)]) -> ChunkSlice {
        let histogram = |count| {
            HistogramSample::Int(Histogram {
                counter_reset: CounterReset::No,
                count,
                ..Histogram::default()
            })
        };
        let mut appender = chunk::HistogramAppender::for_kind_of(&histogram(0));
        samples
            .iter()
            .for_each(|&(t, n)| appender.append(t, &histogram(n)));
        ChunkSlice {
            min_time: samples[0].0,
            max_time: samples[samples.len() - 1].0,
            bytes: appender.seal().into(),
        }
    }

    #[test]
    fn floats_and_histograms_of_a_series_share_its_columns_and_overlaps_keep_each_time_once() {
        let mut one = series("a", &[&[(1, 1.0), (2, 2.0)], &[(6, 6.0)]]);
        one.chunks.insert(1, histogram_chunk(&[(3, 3), (4, 4)]));
        let mut other = series("a", &[&[(5, 5.0)]]);
        other.chunks.push(histogram_chunk(&[(4, 40), (7, 7)]));
        let histograms = |fetched: &Fetched, min, max| {
            let mut out = Columns::default();
            fetched.decode(0, 0, min, max, &mut out).unwrap();
            assert_eq!(out.times.len(), out.values.len());
            let counts: Vec<_> = (out.histograms.iter())
                .map(|(index, h)| (out.times[*index as usize], h.count, h.counter_reset))
                .collect();
            (out.times, counts)
        };
        let alone = fetched(vec![vec![one.clone()]], i64::MIN);
        let expected = (
            vec![2, 3, 4],
            vec![(3, 3.0, CounterReset::No), (4, 4.0, CounterReset::No)],
        );
        assert_eq!(histograms(&alone, 2, 4), expected);
        let both = fetched(vec![vec![one], vec![other]], i64::MIN);
        // Of 3 and 7 nothing else stands before them than when they came.
        let (no, unknown) = (CounterReset::No, CounterReset::Unknown);
        let expected = (
            vec![1, 2, 3, 4, 5, 6, 7],
            vec![(3, 3.0, no), (4, 4.0, no), (7, 7.0, unknown)],
        );
        assert_eq!(histograms(&both, 0, 9), expected);
        // As they were written they are of integers.
        let (mut times, mut values, mut written) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows = Rows {
            times: &mut times,
            values: &mut values,
            histograms: &mut written,
        };
        both.decode_rows((0, 0), (0, 9), &mut rows).unwrap();
        let count = |sample: &HistogramSample| match sample {
            HistogramSample::Int(histogram) => histogram.count as f64,
            HistogramSample::Float(_) => f64::NAN,
        };
        let written = (written.iter())
            .map(|(at, h)| (times[*at as usize], count(h), h.counter_reset()))
            .collect();
        assert_eq!((times.clone(), written), expected);
    }

    /// Chunks that overlap are decoded together, and those behind late samples; the others as if they were alone. So what is said of resets
    /// does not depend on what lies elsewhere.
    #[test]
    fn chunks_are_put_together_group_by_group() {
        let chunk = |times: &[i64]| {
            let samples: Vec<_> = times.iter().map(|&time| (time, time as u64)).collect();
            histogram_chunk(&samples)
        };
        let mut one = series("a", &[]);
        one.chunks = vec![
            chunk(&[1, 2]),
            chunk(&[10, 20, 30]),
            chunk(&[15, 40]),
            chunk(&[50, 60]),
        ];
        let groups = |chunks: &[ChunkSlice]| {
            let mut sizes = Vec::new();
            let mut rest = chunks;
            while !rest.is_empty() {
                sizes.push(group_end(rest));
                rest = &rest[group_end(rest)..];
            }
            sizes
        };
        assert_eq!(groups(&one.chunks), [1, 2, 1]);
        let fetched = fetched(vec![vec![one]], i64::MIN);
        let mut out = Columns::default();
        fetched.decode(0, 0, 0, 100, &mut out).unwrap();
        assert_eq!(out.times, [1, 2, 10, 15, 20, 30, 40, 50, 60]);
        let doubted: Vec<i64> = (out.histograms.iter())
            .filter(|(_, h)| h.counter_reset == CounterReset::Unknown)
            .map(|(index, _)| out.times[*index as usize])
            .collect();
        assert_eq!(doubted, [15, 20, 40], "another one has got before them");
        assert!(out.histograms.iter().map(|(index, _)| *index).eq(0..9));
    }

    /// One list, asked for by two selectors.
    fn fetched(answers: Vec<Vec<SelectedSeries>>, floor: i64) -> Fetched {
        let answers = Answers {
            series: answers,
            all_labels: true,
            windows: None,
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
            windows: None,
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
