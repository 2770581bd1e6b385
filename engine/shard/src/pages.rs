//! A table that grows without a pause: rows lie in pages, and a page that is there never moves. The series tables and the head index are made of it.

/// Rows of a page.
const PAGE_ROWS: usize = 1024;

/// A table that grows without moving its rows.
#[derive(Debug)]
pub(crate) struct Pages<T>(Vec<Vec<T>>);

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages(Vec::new())
    }
}

impl<T> Pages<T> {
    /// Rows so far.
    pub(crate) fn count(&self) -> u32 {
        self.0
            .last()
            .map_or(0, |last| (self.0.len() - 1) * PAGE_ROWS + last.len()) as u32
    }

    /// Adds a row and returns its number.
    pub(crate) fn push(&mut self, row: T) -> u32 {
        if self.0.last().is_none_or(|last| last.len() == PAGE_ROWS) {
            // The first page grows from nothing, for small cores; later ones are made whole.
            let whole = if self.0.is_empty() { 0 } else { PAGE_ROWS };
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.push(Vec::with_capacity(whole));
        }
        let number = self.count();
        self.0.last_mut().expect("pushed above").push(row);
        number
    }

    /// Rows from `number` on that lie together: empty only when there are none.
    pub(crate) fn run(&self, number: u32) -> &[T] {
        let page = self.0.get(number as usize / PAGE_ROWS);
        let rest = page.and_then(|page| page.get(number as usize % PAGE_ROWS..));
        rest.unwrap_or_default()
    }

    /// All rows, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    /// Removes a row that is there; the last one takes its number.
    pub(crate) fn swap_remove(&mut self, number: u32) {
        let last = self.0.last_mut().and_then(Vec::pop);
        let last = last.expect("the last page has a row");
        if self.0.last().is_some_and(Vec::is_empty) {
            self.0.pop();
        }
        if number < self.count() {
            self[number] = last;
        } else {
            assert_eq!(number, self.count(), "what is removed is there");
        }
    }

    /// The row, if there is one of that number.
    #[inline(always)]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.0
            .get(number as usize / PAGE_ROWS)?
            .get(number as usize % PAGE_ROWS)
    }

    /// Begins to fetch the row, if there is one of that number.
    #[inline(always)]
    pub(crate) fn prefetch(&self, number: u32) {
        if let Some(row) = self.get(number) {
            model::prefetch(row);
        }
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        let rows: usize = self.0.iter().map(Vec::capacity).sum();
        rows * size_of::<T>() + self.0.capacity() * size_of::<Vec<T>>()
    }
}

impl<T> std::ops::Index<u32> for Pages<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, number: u32) -> &T {
        &self.0[number as usize / PAGE_ROWS][number as usize % PAGE_ROWS]
    }
}

impl<T> std::ops::IndexMut<u32> for Pages<T> {
    #[inline(always)]
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.0[number as usize / PAGE_ROWS][number as usize % PAGE_ROWS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_behave_as_one_list_while_rows_come_and_leave() {
        let (mut pages, mut list) = (Pages::default(), Vec::new());
        for i in 0..20_000usize {
            // Grows to some pages, then leaves altogether.
            if i % 3 != 0 && i < 12_000 {
                assert_eq!(pages.push(i) as usize, list.len());
                list.push(i);
            } else if !list.is_empty() {
                let at = i * 7919 % list.len();
                list.swap_remove(at);
                pages.swap_remove(at as u32);
            }
            assert_eq!(pages.count() as usize, list.len());
            if i % 500 == 0 {
                assert!(pages.iter().eq(&list));
                let mut runs = Vec::new();
                while let run @ [_, ..] = pages.run(runs.len() as u32) {
                    runs.extend_from_slice(run);
                }
                assert_eq!(runs, list);
            }
        }
        assert_eq!((pages.count(), pages.get(0)), (0, None));
    }
}
