//! What is written from the table of keys: `docs/config.md` (renewed by `UPDATE_GOLDEN=1`) and the help.

use super::*;

#[test]
fn the_reference_page_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    let wanted = reference::markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/config.md is out of date: UPDATE_GOLDEN=1 cargo test -p myelin"
    );
}

#[test]
fn defaults_are_valid_with_and_without_tenants() {
    for auth_enabled in [false, true] {
        assert_eq!(Config::defaults(auth_enabled).validate(), Ok(()));
    }
}

#[test]
fn the_help_names_every_flag() {
    let text = help();
    for key in keys::keys() {
        assert!(text.contains(&format!("  -{} ", key.flag)), "{}", key.flag);
    }
}

/// Story: each of these passed, and the node panicked at its start (permits of a semaphore, an overflow) or made threads until it
/// was killed.
#[test]
fn numbers_that_no_machine_can_mean_are_errors() {
    type Set = fn(&mut Config);
    let absurd: [(&str, Set); 6] = [
        // Story: a body that could never fit was answered 503, and its sender repeated it for ever.
        ("distributor.max_inflight_bytes_per_tenant", |c| {
            c.distributor.max_inflight_bytes_per_tenant.0 = 1 << 20;
        }),
        ("server.http_listen_conn_limit", |c| {
            c.server.http_listen_conn_limit = usize::MAX >> 1;
        }),
        ("server.gateway_threads", |c| {
            c.server.gateway_threads = 100_000_000;
        }),
        ("querier.workers", |c| c.querier.workers = 100_000_000),
        ("querier.max_concurrent", |c| {
            c.querier.max_concurrent = usize::MAX >> 1;
        }),
        ("distributor.max_recv_msg_size", |c| {
            c.distributor.max_recv_msg_size.0 = u64::MAX;
        }),
    ];
    for (key, set) in absurd {
        let mut config = Config::defaults(false);
        set(&mut config);
        let error = config.validate().unwrap_err();
        assert!(error.starts_with(key), "{error}");
    }
}
