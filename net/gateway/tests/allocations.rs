//! Nothing is allocated per sample or per known series: allocations of a push, counted in all threads, gateway and core, over a real log.
//!
//! A counting allocator stands before the system's. The series never change their value, so that their chunks need no further buffer while
//! this counts (a buffer grows by a quarter, once in some ten samples of a series that does change). What is left is per body and core: columns,
//! the message, its reply, headers of the answer, and what the threads of the cores happen to do meanwhile: 60 to 75 for two cores when this was written.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gateway::metadata::MetadataStore;
use gateway::overrides::Overrides;
use gateway::push::{PushOptions, PushService};
use http::HeaderMap;
use http_body_util::Full;
use model::{TenantId, TenantLimits};
use wire::remote_write::encode::{self, RequestV2};
use wire::snappy;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator as it came; counting touches no memory but a static.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SERIES: usize = 2000;
const CORES: usize = 2;

/// Allocations of a body, whatever it carries.
const PER_BODY: u64 = 60;
/// And of each core that it touches.
const PER_CORE: u64 = 30;

fn labels(i: usize) -> [(&'static str, String); 3] {
    [
        ("__name__", format!("metric_{}", i % 50)),
        ("instance", format!("instance-{}", i / 50)),
        ("job", "some-job-with-a-name".to_owned()),
    ]
}

fn body(v2: bool, time: i64) -> Vec<u8> {
    let (mut one, mut two) = (Vec::new(), RequestV2::default());
    for i in 0..SERIES {
        let labels = labels(i);
        let pairs = labels.iter().map(|(name, value)| (*name, value.as_str()));
        match v2 {
            false => encode::put_series(&mut one, pairs, &[(time, 1.0)]),
            true => two.put_series(pairs, &[(time, 1.0)], None),
        }
    }
    snappy::pack(&if v2 { two.finish() } else { one })
}

#[test]
fn a_push_of_known_series_allocates_a_bounded_number_of_times() {
    let dir = tempfile::tempdir().unwrap();
    let cpus = shard::topology::cores(Some(CORES), None).expect("a CPU to pin to");
    let cores = shard::Cores::start(shard::Options::new(dir.path(), cpus), |_| {}).unwrap();
    let service = PushService::new(
        PushOptions::default(),
        Arc::new(cores.mailboxes().clone()),
        Arc::new(Overrides::new(TenantLimits::unlimited())),
        Arc::new(MetadataStore::default()),
        &prometheus::Registry::new(),
        Arc::new(|| 1_700_000_000_000),
    )
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut time = 1_700_000_000_000 - 3_600_000;
    for v2 in [false, true] {
        let mut headers = HeaderMap::new();
        let media = match v2 {
            false => "application/x-protobuf",
            true => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        };
        headers.insert(http::header::CONTENT_TYPE, media.parse().unwrap());
        let tenant = TenantId::fake();
        let mut most = 0;
        for round in 0..20 {
            time += 1000;
            let body = Full::new(Bytes::from(body(v2, time)));
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let answer = runtime.block_on(service.handle(&tenant, &headers, body));
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert!(answer.status().is_success(), "{}", answer.status());
            // The first few meet new series, and buffers that are still growing.
            if round >= 5 {
                most = most.max(allocations);
            }
        }
        println!(
            "version {}: {most} allocations a body of {SERIES} samples on {CORES} cores",
            1 + u8::from(v2)
        );
        assert!(
            most <= PER_BODY + PER_CORE * CORES as u64,
            "{most} allocations"
        );
    }
    cores.stop();
}
