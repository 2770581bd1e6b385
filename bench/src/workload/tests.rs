//! What is in the bodies, read back with the decoder of the server.

use std::collections::{BTreeMap, HashSet};

use wire::remote_write::v1::{Part, Record, Walk};

use super::*;

fn shape(kind: Kind) -> Shape {
    Shape {
        kind,
        series: 1050,
        scrapes: 4,
        samples_per_body: 100,
        connections: 3,
        tenants: 1,
        interval_ms: 15_000,
        start_ms: 1_000_000,
    }
}

fn unpack(request: &Request) -> Vec<u8> {
    let mut buffer = wire::snappy::Buffer::default();
    wire::snappy::unpack(&request.body, 1 << 30, &mut buffer).unwrap();
    buffer.as_slice().to_vec()
}

/// Label bytes and times of a body.
fn samples(request: &Request) -> Vec<(Vec<u8>, i64)> {
    let body = unpack(request);
    let mut walk = Walk::new(&body);
    let mut samples = Vec::new();
    while let Some(record) = walk.next_record().unwrap() {
        let Record::Series(raw) = record else {
            panic!("only series were written");
        };
        let mut parts = raw.parts();
        while let Some(part) = parts.next_part().unwrap() {
            if let Part::Sample { time, .. } = part {
                samples.push((raw.label_bytes().to_vec(), time));
            }
        }
    }
    samples
}

/// Every series' times in the order in which its connection sends them; a series is on one connection only.
fn by_series(load: &Load) -> BTreeMap<Vec<u8>, Vec<i64>> {
    let mut all = BTreeMap::new();
    for queue in &load.connections {
        let mut of_queue: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
        for request in queue {
            let samples = samples(request);
            assert_eq!(samples.len(), request.samples as usize);
            for (labels, time) in samples {
                of_queue.entry(labels).or_default().push(time);
            }
        }
        for (labels, times) in of_queue {
            assert!(all.insert(labels, times).is_none(), "on two connections");
        }
    }
    all
}

#[test]
fn every_workload_has_every_sample_once_in_order_and_within_its_time() {
    for kind in [Kind::Steady, Kind::Churn, Kind::Shuffled, Kind::Small] {
        let shape = shape(kind);
        let load = build(&shape, &mut Progress::new(true));
        let series = by_series(&load);
        assert_eq!(series.len() as u64, shape.series_distinct(), "{kind:?}");
        let total: usize = series.values().map(Vec::len).sum();
        assert_eq!(total as u64, shape.samples());
        assert_eq!(load.samples, shape.samples());
        for times in series.values() {
            assert!(times.is_sorted_by(|a, b| a < b), "{kind:?}");
            let inside = |t: &i64| (shape.start_ms + 1..shape.end_ms()).contains(t);
            assert!(times.iter().all(inside));
        }
    }
}

#[test]
fn a_lane_keeps_its_connection() {
    let load = build(&shape(Kind::Steady), &mut Progress::new(true));
    assert_eq!(load.requests(), 11 * 4);
    // The eleventh lane is the short one: index 10, hence connection 1, at every scrape.
    let short: Vec<usize> = load
        .connections
        .iter()
        .map(|q| q.iter().filter(|r| r.samples == 50).count())
        .collect();
    assert_eq!(short, [0, 4, 0]);
}

#[test]
fn shuffled_bodies_mix_targets_in_another_order_each_scrape() {
    let load = build(&shape(Kind::Shuffled), &mut Progress::new(true));
    let queue = &load.connections[0];
    let per_scrape = queue.len() / 4;
    let order = |scrape: usize| -> Vec<Vec<u8>> {
        let bodies = &queue[scrape * per_scrape..][..per_scrape];
        bodies.iter().flat_map(samples).map(|(l, _)| l).collect()
    };
    let (first, second) = (order(0), order(1));
    assert_ne!(first, second);
    assert_eq!(
        first.iter().collect::<HashSet<_>>(),
        second.iter().collect::<HashSet<_>>()
    );
    // Samples of a target share their time within a scrape: the six targets of 1050 series are all in one body.
    let times: HashSet<i64> = samples(&queue[0]).into_iter().map(|(_, t)| t).collect();
    assert_eq!(times.len(), 6);
}

#[test]
fn wide_gives_each_tenant_its_series_and_no_body_two_tenants() {
    let wide = Shape {
        tenants: 100,
        ..shape(Kind::Wide)
    };
    let load = build(&wide, &mut Progress::new(true));
    let mut by_tenant: BTreeMap<Option<u32>, u64> = BTreeMap::new();
    for request in load.connections.iter().flatten() {
        *by_tenant.entry(request.tenant).or_default() += u64::from(request.samples);
    }
    assert_eq!(by_tenant.len(), 100);
    assert!(by_tenant.values().all(|samples| [40, 44].contains(samples)));
    assert_eq!(by_series(&load).len(), 1050);
}

#[test]
fn version_two_has_the_same_samples() {
    let shape = shape(Kind::V2);
    let load = build(&shape, &mut Progress::new(true));
    assert_eq!(load.protocol, Protocol::V2);
    let first = &load.connections[0][0];
    assert_eq!(first.samples, 100);
    let body = unpack(first);
    let holds = |text: &str| body.windows(text.len()).any(|w| w == text.as_bytes());
    // A symbol each, once.
    assert!(holds("http_request_duration_seconds_bucket") && holds("__name__"));
    let plain = build(&super::tests::shape(Kind::Steady), &mut Progress::new(true));
    assert!(body.len() * 3 < unpack(&plain.connections[0][0]).len());
}

#[test]
fn churn_replaces_a_tenth_at_each_scrape() {
    let churn = Shape {
        series: 1000,
        scrapes: 25,
        ..shape(Kind::Churn)
    };
    for scrape in 1..25 {
        let replaced = (0..1000)
            .filter(|i| churn.generation(*i, scrape) != churn.generation(*i, scrape - 1))
            .count();
        assert_eq!(replaced, 100, "scrape {scrape}");
    }
    assert_eq!(churn.series_distinct(), 1000 + 24 * 100);
    assert!((0..1000).all(|i| churn.generation(i, 0) == 0));
}
