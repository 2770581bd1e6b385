//! The harness of the whole-system tests: a server under test, real components beside it, an HTTP client.
//!
//! Everything that is started listens on free loopback ports, writes into a temporary directory and is stopped when its handle is
//! dropped. A component that is not installed is a failure under `make test` (`MYELIN_TEST_STRICT=1`) and a printed skip
//! elsewhere, see [`component`]. What lies in `../shared` beside the project may be used through [`shared`], never copied.

mod cluster;
mod http;
mod process;
mod server;

pub use cluster::Cluster;
pub use http::{Api, Response, encode_form};
pub use process::{Child, cpu_seconds, free_port, rss_bytes};
pub use server::{Server, ServerOptions};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// True where a missing component must fail the test.
pub fn strict() -> bool {
    std::env::var_os("MYELIN_TEST_STRICT").is_some_and(|v| v == "1")
}

/// True under `make soak`.
pub fn soak() -> bool {
    std::env::var_os("MYELIN_SOAK").is_some_and(|v| v == "1")
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the root")
        .to_owned()
}

/// A file or folder of `../shared`, or a printed skip.
pub fn shared(path: &str) -> Option<PathBuf> {
    let found = root().join("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    eprintln!("SKIP: ../shared/{path} does not lie beside the project");
    None
}

/// A program in the path (or in the folders of administrators), or `None` with a printed skip; a failure under `make test`.
pub fn component(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path
        .split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|d| Path::new(d).join(name))
        .find(|p| p.is_file());
    if found.is_none() {
        missing(&format!("{name} is not installed"));
    }
    found
}

/// A program of this workspace, built by `make bins` (or by `cargo build --workspace --bins`).
pub fn binary(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a test knows its own path");
    let found = test
        .parent()
        .and_then(Path::parent)
        .map(|d| d.join(name))
        .filter(|p| p.is_file());
    if found.is_none() {
        missing(&format!(
            "{name} is not built: cargo build --workspace --bins"
        ));
    }
    found
}

/// A printed skip; a failure under `make test`.
pub fn missing(what: &str) {
    assert!(
        !strict(),
        "{what}, and under `make test` nothing may be missing"
    );
    eprintln!("SKIP: {what}");
}

/// Calls `done` until it is true. Panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Seconds since the epoch.
pub fn unix_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("the clock stands after 1970").as_secs() as i64
}

/// Chance for moments in time; where to strike need not be repeatable, since the machine is not.
pub fn chance() -> rand::rngs::SmallRng {
    use rand::SeedableRng;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    rand::rngs::SmallRng::seed_from_u64(now.expect("the clock stands after 1970").as_nanos() as u64)
}
