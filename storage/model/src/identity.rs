//! Three hashes, three purposes; the two that are stable are here.
//!
//! The *identity* names a series on disk and, later, gives its ring token: unkeyed xxh3-128 of tenant and canonical
//! labels. The *placement* hash chooses the core: the same without `__name__`, `le` and `quantile`, so that the series of a
//! target share a core. (The third, the *alias* hash, is keyed, lives in the gateway and never leaves the process.)
//! Both are drawn in `docs/formats/identity.md` and never change; the test below holds them to known values.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{CoreId, Labels, METRIC_NAME, SeriesId, TenantId, put_label, varint};

/// Labels that do not take part in the placement: what differs between the series of one target.
pub const NOT_PLACED: [&str; 3] = [METRIC_NAME, "le", "quantile"];

/// The identity: xxh3-128, seed 0, over varint length and bytes of the tenant id, then the packed labels.
///
/// `scratch` is cleared and used, so that no call allocates once it has grown.
pub fn series_id(tenant: &TenantId, packed: &[u8], scratch: &mut Vec<u8>) -> SeriesId {
    put_tenant(tenant, scratch);
    scratch.extend_from_slice(packed);
    SeriesId(xxh3_128(scratch))
}

/// The placement hash: xxh3-64, seed 0, over the same bytes without the labels of [`NOT_PLACED`].
pub fn placement(tenant: &TenantId, labels: &Labels, scratch: &mut Vec<u8>) -> u64 {
    placement_of_pairs(tenant, labels.iter(), scratch)
}

/// As [`placement`], of labels that are not packed yet: canonical pairs, ascending by name.
pub fn placement_of_pairs<'a>(
    tenant: &TenantId,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
    scratch: &mut Vec<u8>,
) -> u64 {
    put_tenant(tenant, scratch);
    for (name, value) in pairs.filter(|(name, _)| !NOT_PLACED.contains(name)) {
        put_label(scratch, name, value);
    }
    xxh3_64(scratch)
}

/// The core of a placement hash among `count` cores: multiply-shift, so that every core gets an equal range.
pub fn core_of(placement: u64, count: u16) -> CoreId {
    assert!(count > 0, "a node has at least one core");
    CoreId(((u128::from(placement) * u128::from(count)) >> 64) as u16)
}

fn put_tenant(tenant: &TenantId, out: &mut Vec<u8>) {
    out.clear();
    varint::put_u64(out, tenant.as_str().len() as u64);
    out.extend_from_slice(tenant.as_str().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    /// If this fails, every block and log ever written names its series differently: change nothing.
    #[test]
    fn identity_and_placement_are_what_they_always_were() {
        let tenant = TenantId::fake();
        let up = labels(&[("__name__", "up"), ("job", "node"), ("instance", "a:9100")]);
        let mut scratch = Vec::new();
        assert_eq!(
            series_id(&tenant, up.packed(), &mut scratch).to_string(),
            IDENTITY_OF_UP
        );
        assert_eq!(placement(&tenant, &up, &mut scratch), PLACEMENT_OF_UP);
    }

    const IDENTITY_OF_UP: &str = "a273b0be822306664ba0d275ef972d53";
    const PLACEMENT_OF_UP: u64 = 653000561227024179;

    #[test]
    fn series_of_a_target_share_a_core_and_tenants_do_not_share_identities() {
        let mut s = Vec::new();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let x = labels(&[("__name__", "x_bucket"), ("job", "j"), ("le", "1")]);
        let y = labels(&[("__name__", "y"), ("job", "j")]);
        assert_eq!(placement(&a, &x, &mut s), placement(&a, &y, &mut s));
        assert_ne!(
            series_id(&a, x.packed(), &mut s),
            series_id(&a, y.packed(), &mut s)
        );
        assert_ne!(
            series_id(&a, x.packed(), &mut s),
            series_id(&b, x.packed(), &mut s)
        );
    }

    #[test]
    fn targets_spread_evenly_over_the_cores() {
        let mut counts = [0u32; 7];
        let mut scratch = Vec::new();
        for i in 0..7000 {
            let l = labels(&[
                ("instance", &format!("10.0.{}.{}:9100", i / 250, i % 250)),
                ("job", "node"),
            ]);
            let hash = placement(&TenantId::fake(), &l, &mut scratch);
            counts[usize::from(core_of(hash, 7).0)] += 1;
        }
        assert!(
            counts.iter().all(|&c| (850..1150).contains(&c)),
            "{counts:?}"
        );
    }
}
