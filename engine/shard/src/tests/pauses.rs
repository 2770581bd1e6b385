//! How long one step can hold a core: the longest single creation of a series while two million come, and the longest slice of a collection
//! while half of them leave. The times are printed, not asserted; the suite runs it small, for what is left. The whole:
//!
//! ```text
//! MYELIN_PAUSE_SERIES=2000000 cargo test --release -p shard --lib -- --nocapture longest_pauses
//! ```
//!
//! Longest step at two million, dev profile (opt-level 1), two CPUs that others used too, one run:
//!
//! | | one piece of memory each | pieces |
//! | --- | --- | --- |
//! | `create_series` | 241 ms, 219 ms, 148 ms | 10.7 ms, 8.1 ms, 8.1 ms |
//! | `collect` | 21.6 ms | 12.5 ms |

#![expect(clippy::disallowed_methods, reason = "it measures")]

use ::model::{Labels, TenantId, identity};

use crate::limits::{GC_SLICE_ROWS, OLD_SERIES_LINGER_S};
use crate::memtable::Memtable;
use crate::memtable::append::SeriesLimits;

/// Eight labels that all series share, and two that no two series do: the worst that churn does to an index.
fn labels_of(i: usize) -> Labels {
    let shared = [
        "cluster",
        "container",
        "endpoint",
        "job",
        "namespace",
        "region",
        "zone",
    ];
    let shared = shared.map(|name| (name, "the-same".to_owned()));
    let unique = [
        ("__name__", "metric".to_owned()),
        (
            "instance",
            format!("10.{}.{}.{}:8080", i >> 16, i >> 8 & 255, i & 255),
        ),
        ("pod", format!("deployment-7d9f8b6c5d-{i:07x}")),
    ];
    Labels::from_pairs(shared.into_iter().chain(unique)).unwrap()
}

#[test]
fn longest_pauses() {
    let series = std::env::var("MYELIN_PAUSE_SERIES").map_or(20_000, |n| n.parse().unwrap());
    let mut memtable = Memtable::new(Default::default(), 1, 120, 1000);
    let tenant = TenantId::fake();
    let slot = memtable.tenant_slot(&tenant);
    let mut scratch = Vec::new();
    let mut create = Vec::new();
    for i in 0..series {
        let labels = labels_of(i);
        let id = identity::series_id(&tenant, labels.packed(), &mut scratch);
        // Half of them are old by the time of the collection.
        let first = (if i % 2 == 0 { 0 } else { 1_000_000_000 }, 1.0);
        let start = std::time::Instant::now();
        memtable
            .create_series(slot, id, labels.packed(), first, SeriesLimits::default())
            .unwrap();
        create.push(start.elapsed());
    }
    report("create_series", create);
    memtable.tenant_mut(slot).newest = 1_000_000_000;
    let wall_ms = 1_000_000_000 + i64::from(OLD_SERIES_LINGER_S) * 1000;
    let mut round = memtable.begin_collection(wall_ms);
    let mut slices = Vec::new();
    loop {
        let start = std::time::Instant::now();
        let over = memtable.collect(&mut round, 0, 0, GC_SLICE_ROWS);
        slices.push(start.elapsed());
        if over {
            break;
        }
    }
    report("collect", slices);
    assert_eq!(memtable.totals.series, series as u64 / 2, "half have left");
}

fn report(what: &str, mut times: Vec<std::time::Duration>) {
    let sum: std::time::Duration = times.iter().sum();
    times.sort_unstable_by(|a, b| b.cmp(a));
    let longest = &times[..times.len().min(8)];
    println!(
        "{what}: {} steps in {sum:?}, the longest {longest:?}",
        times.len()
    );
}
