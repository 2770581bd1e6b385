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

use crate::limits::OLD_SERIES_LINGER_S;
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

/// Creates a series as of `now_s`, with one sample.
fn come(memtable: &mut Memtable, tenant: &TenantId, labels: &Labels, now_s: u32) {
    let slot = memtable.tenant_slot(tenant);
    let time = i64::from(now_s) * 1000;
    let id = identity::series_id(tenant, labels.packed(), &mut Vec::new());
    let series = memtable
        .create_series(
            slot,
            id,
            labels.packed(),
            (time, 1.0),
            SeriesLimits::default(),
        )
        .unwrap();
    memtable.rows[series].written_s = now_s;
    let tenant = memtable.tenant_mut(slot);
    tenant.newest = tenant.newest.max(time);
}

/// A round of collection at that time, after which no segment, checkpoint or read names the dead.
fn collect(memtable: &mut Memtable, now_s: u32) {
    let mut round = memtable.begin_collection(i64::from(now_s) * 1000);
    while !memtable.collect(&mut round, 0, 0, 1000) {}
    memtable.reuse_numbers_before(1, 1);
}

/// All series leave, and their tenants.
fn leave(memtable: &mut Memtable, now_s: u32) {
    for tenant in memtable.tenants.iter_mut().flatten() {
        tenant.newest = i64::from(now_s) * 1000;
    }
    collect(memtable, now_s);
    // Once more, for the accounts without them.
    collect(memtable, now_s);
    assert_eq!((memtable.tenant_count(), memtable.totals.series), (0, 0));
}

/// What churn leaves behind must not grow: not the index, not the numbers, not what is in no account. By the allocator, since an account can forget.
#[test]
fn memory_is_flat_when_each_hour_brings_other_series() {
    const SERIES: usize = 20_000;
    /// More than the second round: where pages of texts and pieces of lists are left half empty.
    const TOLERANCE: f64 = 1.10;
    let before = live();
    let mut memtable = Memtable::new(Default::default(), 1, 120, 60_000);
    let tenant = TenantId::fake();
    let (mut bytes, mut accounts) = (Vec::new(), Vec::new());
    for round in 0..10 {
        let now_s = (1 + round) * 2 * OLD_SERIES_LINGER_S;
        // A quarter stays: the cluster is the same, its pods are new.
        for i in 0..SERIES {
            let mut labels = labels_of(i + round as usize * SERIES);
            if i % 4 != 0 {
                labels = labels.with(
                    "revision",
                    &format!("{:x}", i / 100 + round as usize * 1000),
                );
            }
            come(&mut memtable, &tenant, &labels, now_s);
        }
        collect(&mut memtable, now_s);
        assert_eq!(
            memtable.totals.series, SERIES as u64,
            "the round before has left"
        );
        bytes.push(live() - before);
        accounts.push(memtable.accounts.sum());
    }
    println!("bytes after each round: {bytes:?}, accounts {accounts:?}");
    let most = bytes[1] as f64 * TOLERANCE;
    assert!(
        bytes[2..].iter().all(|&now| (now as f64) < most),
        "{bytes:?}"
    );
    // The tenant leaves too. Rows, and the list of the numbers that can be given out again, stay for whoever comes next.
    leave(&mut memtable, 100 * OLD_SERIES_LINGER_S);
    let (left, said) = (live() - before, memtable.accounts);
    println!("left: {left} bytes, accounts {said:?}");
    assert_eq!((said.indexes, said.pairs), (0, 0));
    let numbers = memtable.rows.count() as usize * 32;
    let most = (said.sum() + numbers) as f64 * SLACK;
    assert!(
        (left as f64) < most,
        "{left} bytes left, {most} expected at most"
    );
}

/// What a tenant costs beside its series, and that it costs nothing once it has left.
#[test]
fn five_thousand_small_tenants_cost_little_more_than_their_series() {
    const TENANTS: usize = 5000;
    const SERIES: usize = 200;
    let mut memtable = Memtable::new(Default::default(), 1, 120, 60_000);
    let now_s = 2 * OLD_SERIES_LINGER_S;
    let sets: Vec<Labels> = (0..SERIES).map(labels_of).collect();
    let tenants: Vec<TenantId> = (0..TENANTS)
        .map(|i| TenantId::new(&format!("tenant-{i}")).unwrap())
        .collect();
    let before = live();
    for tenant in &tenants {
        sets.iter()
            .for_each(|labels| come(&mut memtable, tenant, labels, now_s));
    }
    collect(&mut memtable, now_s);
    let bytes = (live() - before) as f64 / (TENANTS * SERIES) as f64;
    let said = memtable.accounts;
    let index = said.indexes as f64 / TENANTS as f64;
    println!(
        "{TENANTS} tenants of {SERIES} series: {bytes:.1} bytes a series, accounts {said:?}, {index:.0} bytes of index a tenant"
    );
    assert!(bytes < 480.0, "{bytes:.1} bytes a series");
    leave(&mut memtable, now_s + OLD_SERIES_LINGER_S);
    let (left, said) = (live() - before, memtable.accounts);
    println!("left: {left} bytes, accounts {said:?}");
    assert_eq!((said.indexes, said.pairs), (0, 0));
    // Rows, numbers and slots of tenants stay for others, who need no more then.
    let now_s = 4 * OLD_SERIES_LINGER_S;
    for i in 0..TENANTS {
        let tenant = TenantId::new(&format!("later-{i}")).unwrap();
        let some = sets.iter().take(SERIES / 10);
        some.for_each(|labels| come(&mut memtable, &tenant, labels, now_s));
    }
    leave(&mut memtable, now_s + OLD_SERIES_LINGER_S);
    let again = live() - before;
    println!("left after others came and left: {again} bytes");
    assert!(
        again as f64 <= left as f64 * 1.01,
        "{left} bytes, then {again}"
    );
}
