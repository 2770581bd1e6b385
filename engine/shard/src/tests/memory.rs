//! Bytes per series: what the table in `memtable` says, against the accounts of a filled memtable and against what the allocator says was given back
//! when its parts are dropped one after another. The allocator counts size classes, so it says more than was asked for: [`SLACK`].

use tikv_jemalloc_ctl::thread::{allocatedp, deallocatedp};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How much more than the accounts the allocator may say, per component: a size class is at most a quarter larger than what is asked for.
const SLACK: f64 = 1.25;

/// Bytes that this thread has allocated and not given back; other tests run beside this one.
fn live() -> i64 {
    let read = |bytes: u64| i64::try_from(bytes).unwrap();
    read(allocatedp::read().unwrap().get()) - read(deallocatedp::read().unwrap().get())
}

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
    let before = live();
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
    // The table in the module's documentation, for ten labels and six samples, within a tenth.
    let table = [
        ("rows", accounts.rows, 88.0),
        ("colds", accounts.colds, 64.0),
        ("chunks", accounts.chunks, 16.0),
        ("pairs", accounts.pairs, 40.0),
        ("ids", accounts.ids, 21.0),
        ("indexes", accounts.indexes, 60.0),
    ];
    for (what, bytes, budget) in table {
        let (measured, most) = (per_series(bytes), budget * 1.1);
        assert!(measured < most, "{what}: {measured:.1} of {budget} bytes");
    }
    // Part by part, and nothing is left that is in no account.
    let mut parts = memtable.into_parts();
    let mut last = before;
    let mut weigh = |what: &str, said: usize, part: Box<dyn std::any::Any>| {
        drop(part);
        let freed = last - live();
        last = live();
        let (said, freed) = (per_series(said), freed as f64 / SERIES as f64);
        println!("  {what}: {said:.1} bytes by the accounts, {freed:.1} by the allocator");
        assert!(
            freed < said * SLACK + 1.0,
            "{what}: {freed:.1} bytes, accounts {said:.1}"
        );
        assert!(
            freed > said * 0.9 - 1.0,
            "{what}: {freed:.1} bytes, accounts {said:.1}"
        );
    };
    weigh(
        "index",
        accounts.indexes,
        Box::new(std::mem::take(&mut parts.tenants)),
    );
    weigh(
        "identities",
        accounts.ids,
        Box::new(std::mem::take(&mut parts.ids)),
    );
    let rows = accounts.rows + accounts.chunks;
    weigh(
        "rows and open chunks",
        rows,
        Box::new(std::mem::take(&mut parts.rows)),
    );
    let colds = accounts.colds + accounts.pairs;
    weigh(
        "cold rows and label lists",
        colds,
        Box::new(std::mem::take(&mut parts.colds)),
    );
}
