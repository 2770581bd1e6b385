//! The gate under a clock that stands still until told.

use model::{TenantId, TenantLimits};
use prometheus::Registry;

use super::*;
use crate::alias::Secret;
use crate::distributor::metrics::Metrics;
use crate::distributor::tenants::Tenants;
use crate::overrides::Overrides;

const MIB: u64 = 1 << 20;

struct Rig {
    gate: Gate,
    tenants: Tenants,
}

impl Rig {
    fn new() -> Rig {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let overrides = Arc::new(Overrides::new(TenantLimits::unlimited()));
        Rig {
            gate: Gate::new(metrics.gate.clone()),
            tenants: Tenants::new(overrides, metrics, Secret::from_seed(1), 1),
        }
    }

    fn tenant(&self, name: &str) -> Arc<Tenant> {
        self.tenants.of(&TenantId::new(name).unwrap(), 0).0
    }

    /// Enters bodies of a MiB until one is refused.
    fn fill<'g>(&'g self, tenant: &Arc<Tenant>, passes: &mut Vec<Pass<'g>>) -> usize {
        let before = passes.len();
        while let Some(pass) = self.gate.enter(tenant, MIB) {
            passes.push(pass);
        }
        passes.len() - before
    }

    fn is_overloaded(&self) -> bool {
        self.gate.lock().overloaded
    }

    /// So many MiB are finished within a window while others wait all the time.
    async fn work(&self, tenant: &Arc<Tenant>, mib: u64) {
        for _ in 0..mib {
            drop(self.gate.enter(tenant, MIB).expect("there is room"));
        }
        tokio::time::advance(WINDOW).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_floods_leaves_a_third_and_a_newcomer_is_served() {
    let rig = Rig::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| rig.tenant(name));
    let mut passes = Vec::new();
    let bound = (RATE_FIRST * BURST.as_secs_f64()) as usize / MIB as usize;
    let of_a = rig.fill(&a, &mut passes);
    assert!(of_a.abs_diff(bound * 2 / 3) <= 1, "{of_a} of {bound}");
    assert!(rig.gate.is_closed(&a) && !rig.gate.is_closed(&b));
    let of_b = rig.fill(&b, &mut passes);
    assert!(of_b > bound / 6, "{of_b} of {bound}");
    // However many flood: one with nothing in work is let in.
    assert!(rig.gate.enter(&c, MIB).is_some());
    // The shares even out as what was in work is finished.
    drop(passes);
    let mut passes = Vec::new();
    for _ in 0..bound {
        for tenant in [&a, &b] {
            passes.extend(rig.gate.enter(tenant, MIB));
        }
    }
    let held = [&a, &b].map(|tenant| tenant.work_bytes.load(Ordering::Relaxed) / MIB);
    assert!(held[0].abs_diff(held[1]) <= 1, "{held:?}");
    drop(passes);
    assert_eq!(rig.gate.lock().total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wave_is_no_overload_and_a_queue_that_stands_is() {
    let rig = Rig::new();
    let a = rig.tenant("a");
    let mut wave = Vec::new();
    rig.fill(&a, &mut wave);
    wave.clear();
    tokio::time::advance(WINDOW).await;
    rig.work(&a, 1).await;
    assert!(!rig.is_overloaded(), "it was gone within the window");
    let mut standing = Vec::new();
    while standing.len() < 200 {
        standing.push(rig.gate.enter(&a, MIB).unwrap());
    }
    for _ in 0..3 {
        rig.work(&a, 100).await;
    }
    assert!(rig.gate.enter(&a, MIB).is_none());
    assert!(rig.is_overloaded());
    standing.clear();
    tokio::time::advance(WINDOW).await;
    drop(rig.gate.enter(&a, MIB).unwrap());
    tokio::time::advance(WINDOW).await;
    drop(rig.gate.enter(&a, MIB).unwrap());
    assert!(!rig.is_overloaded(), "nobody was refused for a window");
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_lets_less_in_and_an_idle_one_is_not_slow() {
    let rig = Rig::new();
    let a = rig.tenant("a");
    tokio::time::advance(Duration::from_secs(3600)).await;
    drop(rig.gate.enter(&a, MIB));
    tokio::time::advance(Duration::from_secs(3600)).await;
    let mut passes = Vec::new();
    assert!(rig.fill(&a, &mut passes) > 300, "after an idle hour");
    // A disk that hangs: nothing is finished for a second while the rest waits.
    for _ in 0..10 {
        tokio::time::advance(WINDOW).await;
        rig.gate.is_closed(&a);
    }
    drop(passes);
    let mut passes = Vec::new();
    let few = rig.fill(&a, &mut passes);
    assert!((1..30).contains(&few), "{few}");
}

#[tokio::test(start_paused = true)]
async fn a_body_larger_than_the_bound_is_taken_alone() {
    let rig = Rig::new();
    let a = rig.tenant("a");
    let large = rig.gate.enter(&a, 4 << 30).unwrap();
    assert!(rig.gate.enter(&a, 1).is_none());
    drop(large);
    assert!(rig.gate.enter(&a, 1).is_some());
}
