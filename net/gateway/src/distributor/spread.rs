//! Where a new series goes: to one of the nodes, and there to one of the cores.
//!
//! Cores are numbered through, node after node. A node chooses among its own cores as if it were alone, so that what it finds in its log after a
//! restart is where it was; the node is chosen by other bits of the same hash.

use model::{CoreId, identity};

/// How many cores each node has; one node, unless a distributor stands before several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// Behind the last core of each node.
    ends: Box<[u16]>,
}

impl Spread {
    /// The cores of this node.
    pub fn here(cores: u16) -> Spread {
        Spread {
            ends: Box::new([cores]),
        }
    }

    /// The cores of several nodes, each of which has some. `None`: none, or too many to be numbered.
    pub fn over(cores: &[u16]) -> Option<Spread> {
        let mut end = 0_u16;
        let mut ends = Vec::with_capacity(cores.len());
        for &count in cores {
            end = end.checked_add(count).filter(|_| count > 0)?;
            ends.push(end);
        }
        (!ends.is_empty()).then(|| Spread { ends: ends.into() })
    }

    /// Cores of all nodes.
    pub fn count(&self) -> u16 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Nodes.
    pub fn nodes(&self) -> u16 {
        self.ends.len() as u16
    }

    /// The core of a placement hash.
    pub fn place(&self, placement: u64) -> CoreId {
        let node = match self.nodes() {
            1 => 0,
            nodes => identity::core_of(placement.rotate_left(32), nodes).0,
        };
        let first = self.first(node);
        let cores = self.ends[usize::from(node)] - first;
        CoreId(first + identity::core_of(placement, cores).0)
    }

    /// The node of a core, and the number that the core has there.
    pub fn node_of(&self, core: CoreId) -> (u16, u16) {
        let node = self.ends.partition_point(|end| *end <= core.0) as u16;
        (node, core.0 - self.first(node))
    }

    fn first(&self, node: u16) -> u16 {
        match node {
            0 => 0,
            node => self.ends[usize::from(node) - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_gets_its_share_and_is_the_one_that_its_node_would_choose() {
        let spread = Spread::over(&[4, 1, 3]).unwrap();
        assert_eq!((spread.count(), spread.nodes()), (8, 3));
        let mut counts = [0_u32; 8];
        let mut hash = 1_u64;
        for _ in 0..30_000 {
            hash = hash
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let placement = hash ^ (hash >> 29);
            let core = spread.place(placement);
            counts[usize::from(core.0)] += 1;
            let (node, at_home) = spread.node_of(core);
            let cores = [4, 1, 3][usize::from(node)];
            assert_eq!(identity::core_of(placement, cores).0, at_home);
        }
        for (core, nominal) in [2500, 2500, 2500, 2500, 10_000, 3333, 3333, 3333]
            .into_iter()
            .enumerate()
        {
            assert!(counts[core].abs_diff(nominal) < nominal / 5, "{counts:?}");
        }
    }

    #[test]
    fn one_node_is_its_own_spread_and_nothing_is_none() {
        let spread = Spread::here(5);
        for placement in [0, 1 << 60, u64::MAX] {
            assert_eq!(spread.place(placement), identity::core_of(placement, 5));
        }
        assert_eq!(spread.node_of(CoreId(4)), (0, 4));
        assert_eq!(Spread::over(&[]), None);
        assert_eq!(Spread::over(&[2, 0]), None);
        assert_eq!(Spread::over(&[40_000, 40_000]), None);
    }
}
