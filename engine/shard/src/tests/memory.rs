//! Bytes per series: what the table in `memtable` adds up to, measured on the accounts of a filled memtable.

use ::model::{Labels, TenantId, identity};

use crate::memtable::append::SeriesLimits;
use crate::memtable::{Memtable, Totals};

/// Ten labels, as a Kubernetes target has them; 80 series a target.
pub(crate) fn labels_of(i: usize) -> Labels {
    let pod = i / 80;
    Labels::from_pairs([
        (
            "__name__",
            format!("container_metric_name_{:02}_total", i % 80),
        ),
        ("cluster", "production-eu-west-1".to_owned()),
        ("namespace", format!("team-{:02}", pod % 40)),
        ("job", "kubernetes-pods".to_owned()),
        (
            "instance",
            format!("10.{}.{}.{}:8080", pod / 65536, pod / 256 % 256, pod % 256),
        ),
        (
            "pod",
            format!("deployment-{:03}-7d9f8b6c5d-{pod:05x}", pod % 100),
        ),
        (
            "node",
            format!("ip-10-0-{}-{}.internal", pod / 30 % 256, pod / 7680),
        ),
        ("container", "main".to_owned()),
        ("endpoint", "metrics".to_owned()),
        ("service", format!("service-{:03}", pod % 100)),
    ])
    .unwrap()
}

#[test]
fn a_series_with_six_samples_takes_less_than_400_bytes() {
    const SERIES: usize = 100_000;
    let mut memtable = Memtable::new(Default::default(), 1, 120, 86_400_000);
    let tenant = TenantId::fake();
    let slot = memtable.tenant_slot(&tenant);
    let mut scratch = Vec::new();
    for i in 0..SERIES {
        let labels = labels_of(i);
        let id = identity::series_id(&tenant, labels.packed(), &mut scratch);
        let limits = SeriesLimits::default();
        let first = (0, i as f64);
        let series = memtable
            .create_series(slot, id, labels.packed(), first, limits)
            .unwrap();
        for sample in 1..6 {
            let value = (i + sample * 17) as f64;
            memtable.rows[series]
                .chunk
                .append(sample as i64 * 15_000, value);
        }
    }
    let mut round = memtable.begin_collection(0);
    while !memtable.collect(&mut round, 0, 0, 1000) {}
    let accounts = memtable.accounts;
    let per_series = |bytes: usize| bytes as f64 / SERIES as f64;
    println!("bytes per series, {SERIES} series of 10 labels with 6 samples each:");
    println!("  rows    {:6.1}", per_series(accounts.rows));
    println!("  colds   {:6.1}", per_series(accounts.colds));
    println!("  chunks  {:6.1}", per_series(accounts.chunks));
    println!("  pairs   {:6.1}", per_series(accounts.pairs));
    println!("  ids     {:6.1}", per_series(accounts.ids));
    println!("  indexes {:6.1}", per_series(accounts.indexes));
    println!("  sum     {:6.1}", per_series(accounts.sum()));
    assert!(per_series(accounts.sum()) < 400.0);
    assert_eq!(
        memtable.totals,
        Totals {
            series: SERIES as u64,
            created: SERIES as u64,
            ..Totals::default()
        }
    );
}
