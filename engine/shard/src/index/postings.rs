//! Lists of series: which series carry a label, sorted by reference.
//!
//! References mostly come ascending, so adding is an append. A list of one series, the usual case for labels that name an instance of
//! something, owns no memory. A short list is one piece of memory; a reference that is used again can be smaller than its last one, and then the
//! list is marked and sorted when it is next read (the standard sort merges the two runs in linear time). A long list is
//! pieces of at most [`PIECE`] references that are always sorted, so that no step, be it growth, a reference in the middle or removal, touches more than a piece.

use model::sorted::subtract;

/// References of a piece, 64 KiB: moving one takes some microseconds.
pub(crate) const PIECE: usize = 1 << 14;

/// The series of one label.
#[derive(Debug, Clone)]
pub(crate) enum Postings {
    /// One series.
    One(u32),
    /// Ascending.
    Sorted(Vec<u32>),
    /// Ascending runs in any order.
    Runs(Vec<u32>),
    /// Ascending, within and from piece to piece; none is empty.
    Long(Vec<Vec<u32>>),
}

const _: () = assert!(size_of::<Postings>() == 32);

impl Default for Postings {
    fn default() -> Postings {
        Postings::Sorted(Vec::new())
    }
}

impl Postings {
    /// Adds a series that is not in the list. Returns by how many heap bytes it has grown.
    pub(crate) fn add(&mut self, series: u32) -> isize {
        match self {
            Postings::One(first) => {
                let (low, high) = (series.min(*first), series.max(*first));
                *self = Postings::Sorted(vec![low, high]);
                8
            }
            Postings::Sorted(list) if list.is_empty() => {
                let freed = list.capacity() as isize * 4;
                *self = Postings::One(series);
                -freed
            }
            Postings::Sorted(list) | Postings::Runs(list) if list.len() == PIECE => {
                let before = list.capacity() as isize * 4;
                let mut list = std::mem::take(list);
                list.sort();
                let mut pieces = vec![list];
                add_to(&mut pieces, series);
                *self = Postings::Long(pieces);
                self.bytes() as isize - before
            }
            Postings::Sorted(list) => {
                let ascends = list.last().is_some_and(|&last| last < series);
                let more = grow(list);
                list.push(series);
                if !ascends {
                    *self = Postings::Runs(std::mem::take(list));
                }
                more
            }
            Postings::Runs(list) => {
                let more = grow(list);
                list.push(series);
                more
            }
            Postings::Long(pieces) => add_to(pieces, series),
        }
    }

    /// How many series. Cost: linear in pieces.
    pub(crate) fn count(&self) -> usize {
        match self {
            Postings::One(_) => 1,
            Postings::Sorted(list) | Postings::Runs(list) => list.len(),
            Postings::Long(pieces) => pieces.iter().map(Vec::len).sum(),
        }
    }

    /// Puts a short list in order. Cost: linear where references were added out of order since the last call.
    pub(crate) fn sort(&mut self) {
        if let Postings::Runs(list) = self {
            list.sort();
            debug_assert!(
                list.is_sorted_by(|a, b| a < b),
                "a series is in a list once"
            );
            *self = Postings::Sorted(std::mem::take(list));
        }
    }

    /// The list in pieces, ascending if [`Postings::sort`] came before.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u32]> {
        let (one, many) = match self {
            Postings::One(series) => (std::slice::from_ref(series), &[][..]),
            Postings::Sorted(list) | Postings::Runs(list) => (&list[..], &[][..]),
            Postings::Long(pieces) => (&[][..], &pieces[..]),
        };
        let one = Some(one).filter(|one| !one.is_empty());
        one.into_iter().chain(many.iter().map(|piece| &piece[..]))
    }

    /// Of a sorted list the series from `from` on that lie together: empty only when there are none.
    pub(crate) fn piece_from(&self, from: u32) -> &[u32] {
        let piece = match self {
            Postings::One(series) => std::slice::from_ref(series),
            Postings::Sorted(list) | Postings::Runs(list) => list,
            Postings::Long(pieces) => {
                let at = pieces.partition_point(|piece| last_of(piece) < from);
                pieces.get(at).map_or(&[][..], |piece| piece)
            }
        };
        &piece[piece.partition_point(|&series| series < from)..]
    }

    /// Removes those of `dead`, which ascends, that are not below `from`, looking at about `budget` series but at least one piece.
    /// Series may be added between two calls as long as none is in `dead`.
    pub(crate) fn remove(&mut self, dead: &[u32], from: u32, budget: usize) -> Removal {
        self.sort();
        let before = self.bytes();
        let mut removal = Removal::default();
        match self {
            Postings::One(series) => {
                removal.looked_at = 1;
                if dead.binary_search(series).is_ok() {
                    *self = Postings::default();
                }
            }
            Postings::Sorted(list) | Postings::Runs(list) => {
                removal.looked_at = list.len();
                retain(list, dead);
                if let [only] = list[..] {
                    *self = Postings::One(only);
                }
            }
            Postings::Long(pieces) => {
                let mut at = pieces.partition_point(|piece| last_of(piece) < from);
                while let Some(piece) = pieces.get_mut(at) {
                    if removal.looked_at >= budget {
                        removal.next = Some(piece[0]);
                        break;
                    }
                    removal.looked_at += piece.len();
                    retain(piece, dead);
                    match piece[..] {
                        [] => drop(pieces.remove(at)),
                        _ => at = join(pieces, at) + 1,
                    }
                }
                if removal.next.is_none() && pieces.len() <= 1 {
                    let list = pieces.pop().unwrap_or_default();
                    *self = match list[..] {
                        [only] => Postings::One(only),
                        _ => Postings::Sorted(list),
                    };
                }
            }
        }
        removal.freed = before as isize - self.bytes() as isize;
        removal
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Postings::One(_) => 0,
            Postings::Sorted(list) | Postings::Runs(list) => list.capacity() * 4,
            Postings::Long(pieces) => {
                let lists: usize = pieces.iter().map(|piece| piece.capacity() * 4).sum();
                lists + pieces.capacity() * size_of::<Vec<u32>>()
            }
        }
    }
}

/// What [`Postings::remove`] did.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// Where to go on; `None` when all are removed.
    pub(crate) next: Option<u32>,
    pub(crate) looked_at: usize,
    /// Heap bytes, negative if there are more now.
    pub(crate) freed: isize,
}

/// Lists grow by a quarter: doubling them would leave a third of all postings memory unused. Returns the bytes that are new.
fn grow(list: &mut Vec<u32>) -> isize {
    let before = list.capacity();
    if list.len() == before {
        let room = PIECE.saturating_sub(before).max(1);
        list.reserve_exact((before / 4).max(2).min(room));
    }
    (list.capacity() - before) as isize * 4
}

fn last_of(piece: &[u32]) -> u32 {
    *piece.last().expect("no piece is empty")
}

/// Adds to the piece where the series belongs, which is taken in halves when it is full. Returns the bytes that are new.
fn add_to(pieces: &mut Vec<Vec<u32>>, series: u32) -> isize {
    let before = pieces.capacity();
    let list_of_pieces = |pieces: &Vec<Vec<u32>>| {
        (pieces.capacity() - before) as isize * size_of::<Vec<u32>>() as isize
    };
    let last = pieces.last_mut().expect("a long list has pieces");
    if last_of(last) < series {
        if last.len() < PIECE {
            let more = grow(last);
            last.push(series);
            return more;
        }
        let mut next = Vec::with_capacity(PIECE / 16);
        next.push(series);
        pieces.push(next);
        return PIECE as isize / 16 * 4 + list_of_pieces(pieces);
    }
    let mut at = pieces.partition_point(|piece| last_of(piece) < series);
    let mut more = 0;
    if pieces[at].len() >= PIECE {
        let low = &mut pieces[at];
        let was = low.capacity();
        let high = low.split_off(PIECE / 2);
        low.shrink_to_fit();
        more += (low.capacity() + high.capacity()) as isize * 4 - was as isize * 4;
        let to_high = last_of(low) < series;
        pieces.insert(at + 1, high);
        more += list_of_pieces(pieces);
        at += usize::from(to_high);
    }
    let piece = &mut pieces[at];
    more += grow(piece);
    piece.insert(piece.partition_point(|&other| other < series), series);
    more
}

/// Puts a piece to the one before if both are small. Returns where it is now.
fn join(pieces: &mut Vec<Vec<u32>>, at: usize) -> usize {
    if at == 0 || pieces[at - 1].len() + pieces[at].len() > PIECE / 2 {
        return at;
    }
    let piece = pieces.remove(at);
    pieces[at - 1].extend_from_slice(&piece);
    at - 1
}

/// Removes all of `dead`; both ascend.
fn retain(list: &mut Vec<u32>, dead: &[u32]) {
    let (Some(&first), Some(&last)) = (list.first(), list.last()) else {
        return;
    };
    let dead = &dead[dead.partition_point(|&d| d < first)..];
    let dead = &dead[..dead.partition_point(|&d| d <= last)];
    if dead.is_empty() {
        return;
    }
    subtract(list, dead);
    if list.len() * 2 < list.capacity() {
        list.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn listed(postings: &mut Postings) -> Vec<u32> {
        postings.sort();
        postings.pieces().flatten().copied().collect()
    }

    /// A sweep of one piece at a time, between whose steps series come back by numbers used before, in the middle too: the case that a position
    /// in the list rather than a series would get wrong.
    #[test]
    fn long_lists_behave_as_sets_while_they_are_swept_in_steps() {
        let mut rng = SmallRng::seed_from_u64(11);
        let (mut postings, mut model) = (Postings::default(), BTreeSet::new());
        let (mut bytes, mut steps_most) = (0, 0);
        let mut long = 0;
        for round in 0..12 {
            // Grows to some pieces, is emptied nearly at last.
            let adds = if round < 9 { 3 * PIECE as u32 } else { 10 };
            let top = model.last().copied().unwrap_or(0);
            let ascending = (top + 1..top + adds).step_by(2);
            let anywhere: Vec<u32> = (0..adds / 4)
                .map(|_| rng.random_range(0..top + 1))
                .collect();
            for series in ascending.chain(anywhere) {
                if model.insert(series) {
                    bytes += postings.add(series);
                }
            }
            long += usize::from(matches!(postings, Postings::Long(_)));
            assert!(listed(&mut postings).iter().eq(&model), "round {round}");
            let part = if round < 9 { 0.3 } else { 0.999 };
            let dead: Vec<u32> = model
                .iter()
                .copied()
                .filter(|_| rng.random_bool(part))
                .collect();
            let (mut from, mut steps) = (0, 0);
            loop {
                let removal = postings.remove(&dead, from, 1);
                bytes -= removal.freed;
                steps += 1;
                assert!(removal.looked_at <= PIECE, "{} at once", removal.looked_at);
                let Some(next) = removal.next else { break };
                assert!(next > from || from == 0);
                from = next;
                for _ in 0..50 {
                    let series = rng.random_range(0..top + adds);
                    if dead.binary_search(&series).is_err() && model.insert(series) {
                        bytes += postings.add(series);
                    }
                }
            }
            steps_most = steps_most.max(steps);
            dead.iter().for_each(|series| assert!(model.remove(series)));
            assert!(
                listed(&mut postings).iter().eq(&model),
                "round {round}, swept"
            );
            assert_eq!(postings.count(), model.len());
            assert_eq!(bytes, postings.bytes() as isize, "round {round}");
            for probe in [0, top / 2, top, u32::MAX] {
                let found = postings.piece_from(probe).first().copied();
                assert_eq!(found, model.range(probe..).next().copied());
            }
            assert!(
                postings.bytes() <= 8 * model.len() + 16 * PIECE,
                "{}",
                postings.bytes()
            );
        }
        assert!(
            long >= 8 && steps_most > 3,
            "{long} long, {steps_most} steps"
        );
        let dead: Vec<u32> = model.into_iter().collect();
        let removal = postings.remove(&dead, 0, usize::MAX);
        assert_eq!(
            (removal.next, postings.count(), postings.bytes()),
            (None, 0, 0)
        );
    }

    proptest! {
        #[test]
        fn lists_behave_as_sets(
            adds in prop::collection::btree_set(0u32..300, 0..80),
            order in any::<u64>(), dead in prop::collection::btree_set(0u32..300, 0..80),
        ) {
            let mut shuffled: Vec<u32> = adds.iter().copied().collect();
            shuffled.sort_by_key(|&s| u64::from(s).wrapping_mul(order | 1) >> 7);
            let mut postings = Postings::default();
            for &series in &shuffled {
                postings.add(series);
            }
            prop_assert_eq!(postings.count(), adds.len());
            let sorted: Vec<u32> = adds.iter().copied().collect();
            prop_assert_eq!(listed(&mut postings), sorted);
            let dead: Vec<u32> = dead.into_iter().collect();
            prop_assert_eq!(postings.remove(&dead, 0, 1).next, None);
            let left: Vec<u32> = adds.into_iter().filter(|s| !dead.contains(s)).collect();
            prop_assert_eq!(listed(&mut postings), left);
        }
    }
}
