//! A page of a source is damaged: the tenant's part stays where it is, is named and counted, and everything else is merged all the same.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::model::some;
use super::{Content, HOUR_MS, Node, tenant};

#[test]
fn a_damaged_part_stays_and_stops_nobody_else() {
    for at in [60, 90, 400] {
        let mut node = Node::new(at);
        let mut rng = SmallRng::seed_from_u64(at);
        let mut now = 1_000 * HOUR_MS;
        let first = node.cut(&some(&mut rng, now));
        node.cut(&some(&mut rng, now));
        let path = first.path().to_owned();
        node.sim.flip(&path, at, 4);
        let damaged: Vec<_> = first
            .meta()
            .parts
            .iter()
            .filter(|part| node_cannot_read(&node, &path, &part.tenant))
            .map(|part| part.tenant.clone())
            .collect();
        assert_eq!(damaged.len(), 1, "one page is damaged");
        let damaged = &damaged[0];
        let mut compactor = node.compactor();
        let stop = std::sync::atomic::AtomicBool::new(false);
        for _ in 0..12 {
            node.sim.advance(Duration::from_secs(7200));
            let mut reactor = reactor::Reactor::sim(&node.sim);
            compactor.run(&mut reactor, &stop).unwrap();
            now += 2 * HOUR_MS;
            node.cut(&some(&mut rng, now));
        }
        node.sim.advance(Duration::from_secs(100 * 3600));
        let mut reactor = reactor::Reactor::sim(&node.sim);
        compactor.run(&mut reactor, &stop).unwrap();
        let again = compactor.run(&mut reactor, &stop).unwrap();
        assert_eq!(again.files, 0, "it comes to rest");
        let list = node.catalog.list();
        let left = list.iter().find(|block| block.path() == path);
        let left = left.expect("the damaged file stays");
        let parts: Vec<_> = left.parts().map(|part| &part.tenant).collect();
        assert_eq!(parts, [damaged], "of others nothing is left in it");
        assert!(list.len() < 12, "{:?}", node.files());
        let others = |content: Content| -> Content {
            let all = content.into_iter();
            all.filter(|(series, _)| series.0 != *damaged).collect()
        };
        let sound: Vec<_> = (list.iter())
            .filter(|block| block.path() != path)
            .cloned()
            .collect();
        assert_eq!(others(super::seen(&sound)), others(node.expected.clone()));
        // All of the tenant that was in other files is there too.
        assert!(
            super::seen(&sound)
                .keys()
                .any(|series| series.0 == *damaged)
        );
        // And nothing comes back with a start.
        node.sim.crash();
        node.start();
        let list = node.catalog.list();
        let left = list.iter().find(|block| block.path() == path).unwrap();
        assert_eq!(left.parts().count(), 1);
        assert_ne!(*damaged, tenant("none"));
    }
}

fn node_cannot_read(node: &Node, path: &std::path::Path, tenant: &::model::TenantId) -> bool {
    let list = node.catalog.list();
    let block = list.iter().find(|block| block.path() == path).unwrap();
    let mut file = block.source();
    let read = block.block().index(&mut file, tenant).and_then(|index| {
        let index = index.expect("it has the tenant");
        let all: Vec<u32> = (0..index.series_count()).collect();
        index.labels(&mut file, &all)?;
        index.read(&mut file, &all, (i64::MIN, i64::MAX), &mut |_, _| {})
    });
    read.is_err()
}
