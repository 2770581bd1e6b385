//! The texts of label values: an arena of pages, so that a text costs its bytes and nothing else.
//!
//! A page counts the bytes of its living texts and is freed as a whole when the last one leaves. Texts that came together
//! (the pods of a deployment) leave together, so churn frees pages; a page kept by one survivor is the price of having no
//! moving collection.

/// Bytes of a full page. The first page of a tenant grows up to it, so that small tenants stay small.
const PAGE_BYTES: usize = 1 << 16;

/// Where a text lies: page in the upper half, offset in the lower. Longer than a page means a page of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text {
    at: u32,
    len: u32,
}

#[derive(Debug, Default)]
struct Page {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that belong to living texts.
    live: usize,
}

/// The arena.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pages: Vec<Page>,
    /// Indexes of pages that hold nothing.
    free: Vec<u32>,
    /// The page that is being filled.
    open: Option<u32>,
}

impl Texts {
    /// Copies a text in; `None` when all 65,536 pages (4 GiB) are taken.
    pub(crate) fn add(&mut self, text: &str) -> Option<Text> {
        let own_page = text.len() > PAGE_BYTES / 4;
        let fits = |page: &Page| page.bytes.len() + text.len() <= PAGE_BYTES;
        let page = match self
            .open
            .filter(|&open| !own_page && fits(&self.pages[open as usize]))
        {
            Some(open) => open,
            None => {
                let page = self.take_page()?;
                if !own_page {
                    let full = self.open.replace(page);
                    full.into_iter().for_each(|full| self.free_if_dead(full));
                }
                page
            }
        };
        let into = &mut self.pages[page as usize];
        if into.bytes.capacity() - into.bytes.len() < text.len() {
            let more = into.bytes.len().clamp(64, PAGE_BYTES / 2).max(text.len());
            into.bytes.reserve_exact(more);
        }
        let at = page << 16 | into.bytes.len() as u32;
        into.bytes.extend_from_slice(text.as_bytes());
        into.live += text.len();
        Some(Text {
            at,
            len: text.len() as u32,
        })
    }

    /// The text.
    #[inline]
    pub(crate) fn get(&self, text: Text) -> &str {
        let (page, offset) = (text.at >> 16, (text.at & 0xffff) as usize);
        let bytes = &self.pages[page as usize].bytes[offset..offset + text.len as usize];
        std::str::from_utf8(bytes).expect("only whole texts are copied in")
    }

    /// The bytes of the text: for comparisons, without the check for UTF-8.
    #[inline]
    pub(crate) fn bytes_of(&self, text: Text) -> &[u8] {
        let (page, offset) = (text.at >> 16, (text.at & 0xffff) as usize);
        &self.pages[page as usize].bytes[offset..offset + text.len as usize]
    }

    /// Lets a text go.
    pub(crate) fn remove(&mut self, text: Text) {
        let page = text.at >> 16;
        let from = &mut self.pages[page as usize];
        assert!(from.live >= text.len as usize, "a text leaves once");
        from.live -= text.len as usize;
        if self.open != Some(page) {
            self.free_if_dead(page);
        }
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| page.bytes.capacity()).sum();
        pages + self.pages.capacity() * size_of::<Page>() + self.free.capacity() * 4
    }

    fn take_page(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let page = u32::try_from(self.pages.len())
                .ok()
                .filter(|&page| page < 1 << 16)?;
            self.pages.push(Page::default());
            Some(page)
        })
    }

    fn free_if_dead(&mut self, page: u32) {
        if self.pages[page as usize].live == 0 {
            self.pages[page as usize].bytes = Vec::new();
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_all_lengths_come_back_as_they_were() {
        let mut texts = Texts::default();
        let words: Vec<String> = (0..400).map(|i| "ä".repeat(i * i % 40_000)).collect();
        let kept: Vec<Text> = words.iter().map(|word| texts.add(word).unwrap()).collect();
        for (word, &text) in words.iter().zip(&kept) {
            assert_eq!(texts.get(text), word);
            assert_eq!(texts.bytes_of(text), word.as_bytes());
        }
    }

    #[test]
    fn pages_are_freed_when_their_last_text_leaves_and_used_again() {
        let mut texts = Texts::default();
        let mut alive = std::collections::VecDeque::new();
        for i in 0..200_000 {
            alive.push_back(texts.add(&format!("pod-{i:08}")).unwrap());
            if alive.len() > 10_000 {
                let oldest = alive.pop_front().unwrap();
                texts.remove(oldest);
            }
        }
        assert!(texts.bytes() < 4 * 12 * 10_000, "{} bytes", texts.bytes());
    }

    #[test]
    fn a_small_arena_is_small() {
        let mut texts = Texts::default();
        assert_eq!(texts.bytes(), 0);
        texts.add("node").unwrap();
        assert!(texts.bytes() < 512, "{} bytes", texts.bytes());
    }
}
