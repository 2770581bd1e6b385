//! The last value of each series within one segment, as replay rebuilds it.
//!
//! A table of pages over the ref, which is an index and therefore dense: neighbours in a body are neighbours here, so that a
//! lookup is two loads from warm lines. Bounded by `SERIES_REF_MAX` and, in sound data, by the number of series.

use crate::limits::SERIES_REF_MAX;

const PAGE: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Bases {
    pages: Vec<Option<Box<[Option<f64>; PAGE]>>>,
}

impl Bases {
    /// Where the last value of a series stands; `None` if there can be no such series.
    #[inline]
    pub(crate) fn slot(&mut self, series: u32) -> Option<&mut Option<f64>> {
        if series >= SERIES_REF_MAX {
            return None;
        }
        let page = series as usize / PAGE;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new([None; PAGE]));
        Some(&mut page[series as usize % PAGE])
    }

    /// Forgets all values; keeps the memory, as the next segment has the same series.
    pub(crate) fn clear(&mut self) {
        for page in self.pages.iter_mut().flatten() {
            page.fill(None);
        }
    }
}
