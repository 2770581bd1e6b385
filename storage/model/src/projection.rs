//! Which labels of its series a reader looks at.
//!
//! `sum by (job) (rate(x[5m]))` needs two labels of a series that has ten. A core that knows this builds a label set for each
//! group rather than for each series: on the way of a query over many series that is most of the work.

use std::sync::Arc;

use crate::Labels;

/// The labels that are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Projection {
    /// Every label.
    #[default]
    All,
    /// Labels of these names, sorted, none twice. Series can then have equal labels.
    Only(Arc<[Arc<str>]>),
}

impl Projection {
    /// Labels of these names.
    pub fn only<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Projection {
        let mut names: Vec<Arc<str>> = names.into_iter().map(|n| n.as_ref().into()).collect();
        names.sort_unstable();
        names.dedup();
        Projection::Only(names.into())
    }

    /// What both readers want together.
    #[must_use]
    pub fn union(&self, other: &Projection) -> Projection {
        match (self, other) {
            (Projection::Only(one), Projection::Only(two)) => {
                Projection::only(one.iter().chain(two.iter()))
            }
            _ => Projection::All,
        }
    }

    /// The wanted part of a label set.
    #[must_use]
    pub fn apply(&self, labels: &Labels) -> Labels {
        match self {
            Projection::All => labels.clone(),
            Projection::Only(names) => {
                labels.filter(|name| names.binary_search_by(|n| (**n).cmp(name)).is_ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_wants_what_either_wants() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "3")]).unwrap();
        let (one, two) = (Projection::only(["c", "a"]), Projection::only(["a", "x"]));
        let both = one.union(&two);
        assert_eq!(both, Projection::only(["a", "c", "x"]));
        let wanted = Labels::from_pairs([("a", "1"), ("c", "3")]).unwrap();
        assert_eq!(both.apply(&labels), wanted);
        assert_eq!(one.union(&Projection::All), Projection::All);
        assert_eq!(Projection::All.apply(&labels), labels);
    }
}
