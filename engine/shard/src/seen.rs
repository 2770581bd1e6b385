//! What a read may see of series that were written after its snapshot: everything up to the sample that was the newest one then.
//!
//! Noting it costs a commit a few memory accesses a sample and read, where copying the series for the read cost 400 ns; nothing moves when the table
//! grows. Keys are numbers that lie close together: of series, where most are candidates, or places among the candidates. 33 bytes each.

/// Rows of a page.
const PAGE_ROWS: usize = 512;

/// The newest sample that a read may see of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Newest {
    pub(crate) time: i64,
    /// Its value, where that is at hand and a float.
    pub(crate) value: Option<f64>,
}

/// By key of a series: its newest sample when it was first written after the snapshot.
#[derive(Debug, Default)]
pub(crate) struct SeenTable(Vec<Option<Box<Page>>>);

#[derive(Debug)]
struct Page {
    noted: [u64; PAGE_ROWS / 64],
    floats: [u64; PAGE_ROWS / 64],
    at: [(i64, f64); PAGE_ROWS],
}

impl SeenTable {
    /// Notes what `newest` says, unless something is noted for it already. Returns the bytes that this took.
    #[inline]
    pub(crate) fn note(&mut self, key: u32, newest: impl FnOnce() -> Newest) -> u64 {
        let (page, row) = place(key);
        let (word, bit) = (row / 64, 1 << (row % 64));
        if let Some(Some(page)) = self.0.get_mut(page) {
            if page.noted[word] & bit == 0 {
                page.set(row, newest());
            }
            return 0;
        }
        self.open(page).set(row, newest());
        size_of::<Page>() as u64
    }

    #[cold]
    fn open(&mut self, page: usize) -> &mut Page {
        if self.0.len() <= page {
            // A pointer for 512 keys: small enough to move.
            self.0.resize_with(page + 1, || None);
        }
        self.0[page].insert(Box::new(Page {
            noted: [0; PAGE_ROWS / 64],
            floats: [0; PAGE_ROWS / 64],
            at: [(0, 0.0); PAGE_ROWS],
        }))
    }

    /// `None`: the series is as it was.
    pub(crate) fn of(&self, key: u32) -> Option<Newest> {
        let (page, row) = place(key);
        let page = self.0.get(page)?.as_ref()?;
        let (word, bit) = (row / 64, 1 << (row % 64));
        let (time, value) = page.at[row];
        (page.noted[word] & bit != 0).then_some(Newest {
            time,
            value: (page.floats[word] & bit != 0).then_some(value),
        })
    }
}

impl Page {
    #[inline]
    fn set(&mut self, row: usize, newest: Newest) {
        let (word, bit) = (row / 64, 1 << (row % 64));
        self.noted[word] |= bit;
        if newest.value.is_some() {
            self.floats[word] |= bit;
        }
        self.at[row] = (newest.time, newest.value.unwrap_or_default());
    }
}

fn place(key: u32) -> (usize, usize) {
    (key as usize / PAGE_ROWS, key as usize % PAGE_ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_note_of_a_series_stays_and_others_have_none() {
        let mut table = SeenTable::default();
        let of = |time, value| Newest { time, value };
        assert!(table.note(1000, || of(5, Some(f64::NAN))) > 0);
        assert_eq!(table.note(1001, || of(i64::MIN, None)), 0);
        assert_eq!(table.note(1000, || unreachable!("noted before")), 0);
        assert!(table.note(3, || of(7, Some(1.5))) > 0);
        assert_eq!(table.of(3), Some(of(7, Some(1.5))));
        assert_eq!(table.of(1001), Some(of(i64::MIN, None)));
        let nan = table.of(1000).unwrap();
        assert!(nan.time == 5 && nan.value.unwrap().is_nan());
        for other in [0, 2, 4, 999, 1002, 1_000_000] {
            assert_eq!(table.of(other), None);
        }
    }
}
