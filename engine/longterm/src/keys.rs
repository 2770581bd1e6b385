//! The names of objects (`docs/formats/bucket.md`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use block::{FileKind, Meta};
use model::TenantId;

/// Everything of one tenant alone.
pub(crate) const TENANTS: &str = "tenants/";

/// Blocks that small tenants share.
pub(crate) const SHARED: &str = "shared/";

/// Who writes, where that has to be agreed on.
pub(crate) const LEASE: &str = "lease.json";

/// For trying out what the store does with conditions. By host and directory, so that nodes of one host do not meet there.
pub(crate) fn probe(node: &str, dir: &Path) -> String {
    let mut hash = DefaultHasher::new();
    std::path::absolute(dir)
        .unwrap_or_else(|_| dir.to_owned())
        .hash(&mut hash);
    format!("probe-{node}-{:08x}", hash.finish() as u32)
}

const INDEX: &str = "index.json";
const BLOCK: &str = ".block";

/// The index of a tenant.
pub(crate) fn index(tenant: &TenantId) -> String {
    format!("{TENANTS}{tenant}/{INDEX}")
}

/// Where a block belongs.
pub(crate) fn block(meta: &Meta) -> String {
    let id = meta.info.id;
    match (meta.info.kind, &meta.parts[..]) {
        (FileKind::Block, [part]) => format!("{TENANTS}{}/{id:032x}{BLOCK}", part.tenant),
        _ => format!("{SHARED}{id:032x}{BLOCK}"),
    }
}

/// The tenant of whose index this is the key.
pub(crate) fn tenant_of_index(key: &str) -> Option<TenantId> {
    let (tenant, rest) = key.strip_prefix(TENANTS)?.split_once('/')?;
    (rest == INDEX).then(|| TenantId::new(tenant).ok())?
}

/// The tenant whose alone this is.
pub(crate) fn tenant_of(key: &str) -> Option<TenantId> {
    let (tenant, _) = key.strip_prefix(TENANTS)?.split_once('/')?;
    TenantId::new(tenant).ok()
}

/// The id of the block of which this is the key.
pub(crate) fn block_id(key: &str) -> Option<u128> {
    let (_, name) = key.rsplit_once('/')?;
    let id = name.strip_suffix(BLOCK)?;
    (id.len() == 32).then(|| u128::from_str_radix(id, 16).ok())?
}
