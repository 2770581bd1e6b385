//! Which series carry a label: for every pair of name and value an ascending list of series.
//!
//! Series are numbered in the order of their labels, so lists are mostly runs (a metric), runs at gaps (a target within each metric), or
//! strides (a bucket). A list is kept as gaps or as runs, whichever is smaller; both are columns of `ints`.

use model::varint;

use crate::error::Malformed;
use crate::ints::{self, Effort, take_byte, take_count, take_slice};
use crate::limits::{INDEX_PAGE_BYTES, SERIES_MAX};
use crate::series::{Rows, put_column, take_numbers};
use crate::values::take_u32;

const GAPS: u8 = 0;
const RUNS: u8 = 1;

/// Lists of one page at most.
pub(crate) const LISTS_PER_PAGE: usize = 4096;

/// Appends a list, which is not empty and ascends.
pub(crate) fn encode_list(list: &[u32], out: &mut Vec<u8>) {
    let gaps: Vec<i64> = list.windows(2).map(|p| i64::from(p[1] - p[0])).collect();
    let mut run_gaps = Vec::new();
    let mut run_lens = Vec::new();
    let mut end = list[0];
    for run in list.chunk_by(|a, b| b - a == 1) {
        run_gaps.push(i64::from(run[0] - end));
        run_lens.push(run.len() as i64);
        end = run[run.len() - 1] + 1;
    }
    let as_gaps = ints::estimate(&gaps);
    let as_runs = ints::estimate(&run_gaps) + ints::estimate(&run_lens) + 2;
    if as_gaps <= as_runs {
        out.push(GAPS);
        varint::put_u64(out, u64::from(list[0]));
        ints::encode(&gaps, Effort::Fast, out);
    } else {
        out.push(RUNS);
        varint::put_u64(out, u64::from(list[0]));
        varint::put_u64(out, run_lens.len() as u64);
        ints::encode(&run_gaps, Effort::Fast, out);
        ints::encode(&run_lens, Effort::Fast, out);
    }
}

/// Reads a list of `count` series below `series`.
pub(crate) fn decode_list(bytes: &[u8], count: usize, series: u32) -> Result<Vec<u32>, Malformed> {
    let mut rest = bytes;
    let rest = &mut rest;
    let mut list = Vec::with_capacity(count);
    let beyond =
        |n: i64| Malformed::new("series of a list", format!("ascending below {series}"), n);
    let kind = take_byte(rest, "kind of a list")?;
    let mut next = i64::from(take_u32(rest, "first series of a list")?);
    match kind {
        GAPS => {
            let mut gaps = vec![0; count.saturating_sub(1)];
            ints::decode(rest, &mut gaps)?;
            for gap in [0].into_iter().chain(gaps) {
                // A gap beyond all series ends here; a sum of small ones cannot overflow.
                if !list.is_empty() && !(1..=i64::from(series)).contains(&gap) {
                    return Err(beyond(gap));
                }
                next += gap;
                if next >= i64::from(series) {
                    return Err(beyond(next));
                }
                list.push(next as u32);
            }
        }
        RUNS => {
            let runs = take_count(rest, count, "runs of a list")?;
            let mut gaps = vec![0; runs];
            ints::decode(rest, &mut gaps)?;
            let mut lens = vec![0; runs];
            ints::decode(rest, &mut lens)?;
            for (i, (gap, len)) in gaps.into_iter().zip(lens).enumerate() {
                let gap_min = i64::from(i > 0);
                let fits = (gap_min..=i64::from(series)).contains(&gap)
                    && (1..=i64::from(series)).contains(&len);
                if !fits || next + gap + len > i64::from(series) {
                    return Err(beyond(next));
                }
                next += gap;
                if list.len() as i64 + len > count as i64 {
                    return Err(Malformed::new("series of a list", count, "more"));
                }
                list.extend(next as u32..(next + len) as u32);
                next += len;
            }
        }
        other => return Err(Malformed::new("kind of a list", "0 or 1", other)),
    }
    if list.len() != count {
        return Err(Malformed::new("series of a list", count, list.len()));
    }
    if !rest.is_empty() {
        return Err(Malformed::new("bytes behind a list", 0, rest.len()));
    }
    Ok(list)
}

/// A page in the making.
#[derive(Debug, Default)]
pub(crate) struct PageWriter {
    names: Vec<i64>,
    values: Vec<i64>,
    counts: Vec<i64>,
    lens: Vec<i64>,
    bodies: Vec<u8>,
}

impl PageWriter {
    pub(crate) fn add(&mut self, name: u32, value: u32, list: &[u32]) {
        let start = self.bodies.len();
        encode_list(list, &mut self.bodies);
        self.names.push(i64::from(name));
        self.values.push(i64::from(value));
        self.counts.push(list.len() as i64);
        self.lens.push((self.bodies.len() - start) as i64);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bodies.len() >= INDEX_PAGE_BYTES || self.names.len() >= LISTS_PER_PAGE
    }

    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// Name and value of the first list.
    pub(crate) fn first(&self) -> (u32, u32) {
        (self.names[0] as u32, self.values[0] as u32)
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        varint::put_u64(out, self.names.len() as u64);
        for column in [
            &mut self.names,
            &mut self.values,
            &mut self.counts,
            &mut self.lens,
        ] {
            put_column(column, out);
            column.clear();
        }
        out.append(&mut self.bodies);
    }
}

/// A page that has been read: its lists by name and value, not decoded.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) names: Vec<u32>,
    pub(crate) values: Vec<u32>,
    counts: Vec<u32>,
    ends: Vec<usize>,
    bodies: Vec<u8>,
}

impl Page {
    /// Reads a payload of `count` lists, symbols below `symbols`, sorted by name and value.
    pub(crate) fn decode(payload: &[u8], count: usize, symbols: u32) -> Result<Page, Malformed> {
        let mut rest = payload;
        let rest = &mut rest;
        let told = take_count(rest, LISTS_PER_PAGE, "lists of a page")?;
        if told != count || count == 0 {
            return Err(Malformed::new("lists of a page", count, told));
        }
        let top = symbols.saturating_sub(1);
        let names = take_numbers(rest, count, top, "name of a list")?;
        let values = take_numbers(rest, count, top, "value of a list")?;
        let counts = take_numbers(rest, count, SERIES_MAX, "series of a list")?;
        let lens = take_numbers(rest, count, u32::MAX >> 1, "bytes of a list")?;
        let keys = names.iter().zip(&values);
        if !keys.clone().is_sorted_by(|a, b| a < b) {
            return Err(Malformed::new("labels of lists", "ascending", "others"));
        }
        let mut ends = Vec::with_capacity(count);
        let mut end = 0usize;
        for len in lens {
            end += len as usize;
            ends.push(end);
        }
        if end != rest.len() {
            return Err(Malformed::new("bytes of lists", end, rest.len()));
        }
        let bodies = take_slice(rest, end, "bytes of lists")?.to_vec();
        Ok(Page {
            names,
            values,
            counts,
            ends,
            bodies,
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// Number of the first list at or behind a label.
    pub(crate) fn seek(&self, name: u32, value: u32) -> usize {
        let (mut low, mut high) = (0, self.names.len());
        while low < high {
            let middle = low.midpoint(high);
            if (self.names[middle], self.values[middle]) < (name, value) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(crate) fn list(&self, at: usize, series: u32) -> Result<Vec<u32>, Malformed> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let count = self.counts[at];
        if count == 0 || count > series {
            let expected = format!("1 to {series}");
            return Err(Malformed::new("series of a list", expected, count));
        }
        decode_list(&self.bodies[start..self.ends[at]], count as usize, series)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bodies.len() + self.names.len() * 20
    }
}

/// Calls `each` with name, value and series of every label of `rows`, sorted.
///
/// Memory: 8 bytes for every label of every series.
pub(crate) fn for_each_label(rows: &Rows, symbols: usize, mut each: impl FnMut(u32, u32, &[u32])) {
    let mut starts = vec![0usize; symbols + 1];
    for row in 0..rows.count() {
        for &(name, _) in rows.get(row) {
            starts[name as usize + 1] += 1;
        }
    }
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut next = starts.clone();
    let mut carried = vec![(0u32, 0u32); rows.pair_count()];
    for row in 0..rows.count() {
        for &(name, value) in rows.get(row) {
            let slot = &mut next[name as usize];
            carried[*slot] = (value, row as u32);
            *slot += 1;
        }
    }
    let mut list = Vec::new();
    for name in 0..symbols {
        let of_name = &mut carried[starts[name]..starts[name + 1]];
        of_name.sort_unstable();
        for label in of_name.chunk_by(|a, b| a.0 == b.0) {
            list.clear();
            list.extend(label.iter().map(|&(_, series)| series));
            each(name as u32, label[0].0, &list);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(list: &[u32]) -> usize {
        let mut bytes = Vec::new();
        encode_list(list, &mut bytes);
        assert_eq!(decode_list(&bytes, list.len(), 1 << 20).unwrap(), list);
        assert!(decode_list(&bytes, list.len(), list[list.len() - 1]).is_err());
        bytes.len()
    }

    #[test]
    fn runs_and_strides_are_a_few_bytes() {
        assert!(round_trip(&(5..100_000).collect::<Vec<_>>()) < 8);
        assert!(round_trip(&(0..10_000).map(|i| i * 12).collect::<Vec<_>>()) < 8);
        let target: Vec<u32> = (0..100u32)
            .flat_map(|m| (0..12).map(move |s| m * 6000 + s))
            .collect();
        assert!(round_trip(&target) < 40);
    }

    proptest! {
        #[test]
        fn any_list_comes_back(list in prop::collection::btree_set(0u32..1 << 20, 1..300)) {
            round_trip(&list.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_list(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0usize..400) {
            if let Ok(list) = decode_list(&bytes, count, 10_000) {
                prop_assert!(list.is_sorted_by(|a, b| a < b));
                prop_assert!(list.iter().all(|&s| s < 10_000));
            }
        }
    }
}
