//! The whole push path over cores that are a map: what lands where, what is answered, and that nothing is held afterwards.

mod bounds;
mod fair;
mod fake;
mod ha;
mod otlp;
mod real;
mod refused;
mod v2;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use model::{Labels, Metadata, MetricType, TenantId, TenantLimits, varint};
use prometheus::Registry;
use proptest::prelude::*;
use shard::Refusal;
use wire::remote_write::encode;
use wire::snappy;

use super::*;
use fake::FakeCores;

const NOW: i64 = 1_700_000_000_000;

type Pairs<'a> = &'a [(&'a str, &'a str)];

struct Rig {
    cores: Arc<FakeCores>,
    overrides: Arc<Overrides>,
    metadata: Arc<MetadataStore>,
    registry: Registry,
    service: PushService,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(TenantLimits::cortex(), PushOptions::default())
    }

    fn with(limits: TenantLimits, options: PushOptions) -> Rig {
        let cores = Arc::new(FakeCores::new(3));
        let overrides = Arc::new(Overrides::new(limits));
        let metadata = Arc::new(MetadataStore::default());
        let registry = Registry::new();
        let service = PushService::new(
            options,
            cores.clone(),
            overrides.clone(),
            metadata.clone(),
            &registry,
            Arc::new(|| NOW),
        )
        .unwrap();
        Rig {
            cores,
            overrides,
            metadata,
            registry,
            service,
        }
    }

    async fn send(&self, packed: Vec<u8>) -> (u16, String) {
        self.send_as("a", packed).await
    }

    async fn send_as(&self, tenant: &str, packed: Vec<u8>) -> (u16, String) {
        let tenant = TenantId::new(tenant).unwrap();
        let body = Full::new(Bytes::from(packed));
        told(self.service.handle(&tenant, &HeaderMap::new(), body).await).await
    }

    /// One sample a series.
    async fn push(&self, series: &[(Pairs<'_>, i64, f64)]) -> (u16, String) {
        self.send(snappy::pack(&request(series))).await
    }

    /// What one tenant has stored: label text to samples.
    fn stored(&self, tenant: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
        self.cores.contents(tenant)
    }

    /// Histograms and exemplars as they came.
    fn others(&self) -> Vec<String> {
        self.cores.others()
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let family = family.unwrap_or_else(|| panic!("no metric {name}"));
        let mut sum = 0.0;
        for metric in family.get_metric() {
            if label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label) {
                sum += metric.get_counter().get_value() + metric.get_gauge().get_value();
            }
        }
        sum
    }

    fn assert_nothing_held(&self) {
        assert_eq!(self.metric("myelin_distributor_inflight_bytes", ""), 0.0);
        assert_eq!(
            self.metric("cortex_distributor_inflight_push_requests", ""),
            0.0
        );
        assert_eq!(
            self.service.shared.inflight_bytes.load(Ordering::Relaxed),
            0
        );
    }
}

async fn told(response: Response<Full<Bytes>>) -> (u16, String) {
    let status = response.status().as_u16();
    let retry = response.headers().get(http::header::RETRY_AFTER).cloned();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert_eq!(
        retry.is_some(),
        matches!(status, 429 | 503),
        "{status} {text}"
    );
    (status, text)
}

fn request(series: &[(Pairs<'_>, i64, f64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (pairs, time, value) in series {
        encode::put_series(&mut out, pairs.iter().copied(), &[(*time, *value)]);
    }
    out
}

/// A field with a length that is padded to `width` bytes.
fn padded(out: &mut Vec<u8>, tag: u8, content: &[u8], width: usize) {
    out.push(tag);
    for i in 0..width {
        let bits = (content.len() >> (7 * i)) as u8 & 0x7f;
        out.push(if i + 1 < width { bits | 0x80 } else { bits });
    }
    out.extend_from_slice(content);
}

fn padded_series(pairs: Pairs<'_>, time: i64, value: f64, width: usize) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, text) in pairs {
        let mut label = Vec::new();
        padded(&mut label, 0x0a, name.as_bytes(), width);
        padded(&mut label, 0x12, text.as_bytes(), width);
        padded(&mut series, 0x0a, &label, width);
    }
    padded(&mut series, 0x12, &sample(time, value), 1);
    let mut out = Vec::new();
    padded(&mut out, 0x0a, &series, 3);
    out
}

fn sample(time: i64, value: f64) -> Vec<u8> {
    let mut sample = vec![9];
    sample.extend(value.to_bits().to_le_bytes());
    sample.push(16);
    varint::put_u64(&mut sample, time as u64);
    sample
}

const UP: Pairs<'static> = &[("__name__", "up"), ("instance", "i"), ("job", "a")];
const DOWN: Pairs<'static> = &[("__name__", "down"), ("job", "b")];
const UP_TEXT: &str = r#"{__name__="up", instance="i", job="a"}"#;

#[tokio::test]
async fn a_series_is_sent_with_labels_once_and_by_key_from_then_on() {
    let rig = Rig::new();
    for k in 0..5 {
        let answer = rig.push(&[(UP, k, k as f64), (DOWN, k, -1.0)]).await;
        assert_eq!(answer, (200, String::new()));
    }
    assert_eq!(
        rig.stored("a")[UP_TEXT],
        [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    );
    assert_eq!(
        rig.cores.counts(),
        (8, 2),
        "samples by key, series with labels"
    );
    assert_eq!(
        rig.metric("cortex_distributor_received_samples_total", "a"),
        10.0
    );
    assert_eq!(
        rig.metric(
            "cortex_distributor_latest_seen_sample_timestamp_seconds",
            "a"
        ),
        0.004
    );
    rig.assert_nothing_held();
}

#[tokio::test]
async fn permuted_labels_padded_varints_and_empty_labels_are_one_series() {
    let rig = Rig::new();
    let permuted: Pairs<'_> = &[
        ("job", "a"),
        ("__name__", "up"),
        ("none", ""),
        ("instance", "i"),
    ];
    assert_eq!(rig.push(&[(UP, 1, 1.0), (permuted, 2, 2.0)]).await.0, 200);
    for (time, width) in [(3, 2), (4, 3), (5, 2), (6, 3)] {
        let body = padded_series(UP, time, time as f64, width);
        assert_eq!(rig.send(snappy::pack(&body)).await.0, 200);
    }
    let stored = rig.stored("a");
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[UP_TEXT].len(), 6);
    assert_eq!(rig.cores.counts(), (2, 4));
}

#[tokio::test]
async fn a_dead_key_is_sent_again_with_labels_within_the_push() {
    let rig = Rig::new();
    rig.push(&[(UP, 1, 1.0), (DOWN, 1, 1.0)]).await;
    rig.cores.kill("up");
    assert_eq!(rig.push(&[(UP, 2, 2.0), (DOWN, 2, 2.0)]).await.0, 200);
    assert_eq!(rig.stored("a")[UP_TEXT], [(2, 2.0)]);
    assert_eq!(rig.metric("myelin_alias_dead_keys_total", ""), 1.0);
    let before = rig.cores.counts();
    assert_eq!(rig.push(&[(UP, 3, 3.0), (DOWN, 3, 3.0)]).await.0, 200);
    assert_eq!(
        rig.cores.counts(),
        (before.0 + 2, before.1),
        "the new key was learned"
    );
}

/// Bodies are unpacked into memory that all share: what is unpacked again while another body was there must be this one's.
#[tokio::test]
async fn a_dead_key_is_found_again_in_its_own_body_though_others_came_between() {
    let rig = Rig::new();
    rig.push(&[(UP, 1, 1.0), (DOWN, 1, 1.0)]).await;
    rig.cores.kill("up");
    rig.cores.hold_next();
    let body = snappy::pack(&request(&[(DOWN, 2, 2.0), (UP, 2, 2.0)]));
    let mut push = Box::pin(rig.send(body));
    let soon = tokio::time::timeout(Duration::from_millis(5), &mut push);
    assert!(soon.await.is_err());
    let secret: Pairs<'_> = &[("__name__", "secret"), ("of", "somebody else")];
    let others = request(&[(secret, 7, 7.0), (secret, 8, 8.0), (secret, 9, 9.0)]);
    assert_eq!(rig.send_as("b", snappy::pack(&others)).await.0, 200);
    rig.cores.release();
    assert_eq!(push.await, (200, String::new()));
    assert_eq!(rig.metric("myelin_alias_dead_keys_total", ""), 1.0);
    let stored = rig.stored("a");
    assert_eq!(stored[UP_TEXT], [(2, 2.0)]);
    assert_eq!(
        stored[r#"{__name__="down", job="b"}"#],
        [(1, 1.0), (2, 2.0)]
    );
    assert_eq!(stored.len(), 2, "{stored:?}");
    assert_eq!(rig.stored("b").len(), 1);
}

/// The framed format of snappy, of one chunk that is not packed.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    let mut out = snappy::STREAM_IDENTIFIER.to_vec();
    out.push(1);
    out.extend(&(bytes.len() as u32 + 4).to_le_bytes()[..3]);
    out.extend(
        (!crc)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8)
            .to_le_bytes(),
    );
    out.extend(bytes);
    out
}

/// A framed body, whose length nobody knows before it is unpacked, takes the credits of what it is.
#[tokio::test]
async fn a_framed_body_counts_with_what_it_unpacks_to() {
    let rig = Rig::new();
    let request = request(&[(UP, 1, 1.0)]);
    assert_eq!(rig.send(framed(&request)).await.0, 200);
    let of_framed = rig.cores.credits();
    assert_eq!(rig.send_as("b", snappy::pack(&request)).await.0, 200);
    assert_eq!(rig.cores.credits(), of_framed);
    assert!(of_framed as usize > request.len(), "{of_framed}");
}

#[tokio::test]
async fn a_refused_push_has_stored_nothing_and_is_503() {
    let rig = Rig::new();
    let wide: Vec<Vec<(String, String)>> = (0..50)
        .map(|i| vec![("__name__".into(), "m".into()), ("i".into(), i.to_string())])
        .collect();
    let wide: Vec<Vec<(&str, &str)>> = wide
        .iter()
        .map(|s| s.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect())
        .collect();
    let series: Vec<(Pairs<'_>, i64, f64)> = wide.iter().map(|s| (&s[..], 1, 1.0)).collect();
    rig.cores.fill(2);
    let (status, text) = rig.push(&series).await;
    assert_eq!(
        (status, text.as_str()),
        (503, "core 2 is at its queue limit")
    );
    assert!(rig.stored("a").is_empty());
    rig.cores.drain();
    assert_eq!(rig.push(&series).await.0, 200);
    assert_eq!(rig.stored("a").len(), 50);
    assert_eq!(
        rig.metric("myelin_distributor_overload_total", "queue"),
        1.0
    );
}

#[tokio::test]
async fn a_core_that_refuses_or_goes_away_is_5xx_and_a_repeat_succeeds() {
    let rig = Rig::new();
    rig.cores.refuse_next(Refusal::NoSpace("disk full".into()));
    let (status, text) = rig.push(&[(UP, 1, 1.0)]).await;
    assert_eq!(status, 503);
    assert!(text.contains("disk full"), "{text}");
    rig.cores.vanish_next();
    assert_eq!(rig.push(&[(UP, 1, 1.0)]).await.0, 500);
    assert_eq!(rig.push(&[(UP, 1, 1.0)]).await.0, 200);
    assert_eq!(
        rig.push(&[(UP, 1, 1.0)]).await.0,
        200,
        "a repeat adds nothing and is fine"
    );
    assert_eq!(rig.stored("a")[UP_TEXT], [(1, 1.0)]);
    rig.assert_nothing_held();
}

#[tokio::test]
async fn good_series_of_a_partly_bad_body_are_stored_and_the_first_error_told() {
    let rig = Rig::new();
    let nameless: Pairs<'_> = &[("job", "x")];
    let repeated: Pairs<'_> = &[("__name__", "m"), ("a", "1"), ("a", "2")];
    let body = [
        (UP, 1, 1.0),
        (nameless, 1, 1.0),
        (repeated, 1, 1.0),
        (DOWN, 1, 1.0),
    ];
    assert_eq!(
        rig.push(&body).await,
        (400, "sample missing metric name".into())
    );
    assert_eq!(rig.stored("a").len(), 2);
    let discarded = |reason| rig.metric("cortex_discarded_samples_total", reason);
    assert_eq!(
        (
            discarded("missing_metric_name"),
            discarded("duplicate_label_names")
        ),
        (1.0, 1.0)
    );
}

#[tokio::test]
async fn what_a_core_refuses_is_told_in_the_words_of_cortex() {
    let rig = Rig::new();
    rig.push(&[(UP, 5_000, 1.0)]).await;
    let (status, text) = rig.push(&[(DOWN, 1, 1.0), (UP, 4_000, 1.0)]).await;
    assert_eq!(status, 400);
    assert_eq!(
        text,
        format!(
            "user=a: err: out of order sample. timestamp=1970-01-01T00:00:04Z, series={UP_TEXT}"
        )
    );
    assert_eq!(rig.stored("a").len(), 2);
    assert_eq!(
        rig.metric("cortex_discarded_samples_total", "sample-out-of-order"),
        1.0
    );
    let (status, text) = rig.push(&[(UP, 5_000, 2.0)]).await;
    assert_eq!(status, 400);
    assert!(text.contains("duplicate sample for timestamp"), "{text}");
}

/// Story: one bad time took the good samples of its series with it, though the sender is told not to repeat them.
#[tokio::test]
async fn a_bad_time_takes_no_other_sample_with_it_in_a_series_known_or_not() {
    let rig = Rig::new();
    let (far, farther) = (NOW + 3_600_000, NOW + 7_200_000);
    for round in 0..3 {
        let (one, two) = (10 * round + 1, 10 * round + 2);
        let samples = [(one, 1.0), (far, 9.0), (two, 2.0), (farther, 9.0)];
        let mut body = Vec::new();
        encode::put_series(&mut body, UP.iter().copied(), &samples);
        encode::put_series(&mut body, DOWN.iter().copied(), &[(far, 9.0)]);
        let (status, text) = rig.send(snappy::pack(&body)).await;
        assert_eq!(
            (status, text),
            (400, format!("timestamp too new: {far} metric: \"up\""))
        );
    }
    let stored = rig.stored("a");
    let wanted = [1, 2, 11, 12, 21, 22].map(|time| (time, f64::from(2 - time as i32 % 2)));
    assert_eq!(stored[UP_TEXT], wanted);
    assert_eq!(stored.len(), 1, "nothing of the other series was good");
    let metric = |name, label| rig.metric(name, label);
    let discarded = "cortex_discarded_samples_total";
    assert_eq!(metric(discarded, "too_far_in_future"), 9.0);
    assert_eq!(metric("cortex_distributor_samples_in_total", "a"), 15.0);
    let received = "cortex_distributor_received_samples_total";
    assert_eq!(metric(received, "a"), 6.0);
    let latest = "cortex_distributor_latest_seen_sample_timestamp_seconds";
    assert_eq!(metric(latest, "a"), 0.022);
}

/// Story: what a tenant sent beyond its own rate counted for the rate of the process, whose bound then answered 503 to everybody; and the pages
/// for operators showed it as taken.
#[tokio::test(start_paused = true)]
async fn a_tenant_over_its_own_rate_takes_nothing_of_the_rate_of_all() {
    let limits = TenantLimits {
        ingestion_rate: 1.0,
        ingestion_burst_size: 2,
        ..TenantLimits::cortex()
    };
    let options = PushOptions {
        samples_per_second_max: 3.0,
        ..PushOptions::default()
    };
    let rig = Rig::with(limits, options);
    assert_eq!(rig.push(&[(UP, 1, 1.0), (DOWN, 1, 1.0)]).await.0, 200);
    for _ in 0..10 {
        assert_eq!(rig.push(&[(UP, 2, 1.0), (DOWN, 2, 1.0)]).await.0, 429);
    }
    rig.service.tick();
    assert_eq!(rig.service.shared.rate.get(), 2.0);
    let of_tenant = rig.service.rate_of(&TenantId::new("a").unwrap());
    assert_eq!(of_tenant, 2.0 / TENANT_TICKS as f64);
    let body = snappy::pack(&request(&[(UP, 1, 1.0), (DOWN, 1, 1.0)]));
    assert_eq!(rig.send_as("b", body.clone()).await.0, 200);
    assert_eq!(rig.send_as("c", body.clone()).await.0, 200);
    assert_eq!(rig.service.shared.accepted.load(Ordering::Relaxed), 6);
    rig.assert_nothing_held();
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_all_or_nothing_and_tells_when_to_come_back() {
    let limits = TenantLimits {
        ingestion_rate: 1.0,
        ingestion_burst_size: 2,
        ..TenantLimits::cortex()
    };
    let rig = Rig::with(limits, PushOptions::default());
    assert_eq!(rig.push(&[(UP, 1, 1.0)]).await.0, 200);
    let (status, text) = rig.push(&[(UP, 2, 1.0), (DOWN, 2, 1.0)]).await;
    assert_eq!(status, 429);
    assert_eq!(
        text,
        "ingestion rate limit (1) exceeded while adding 2 samples and 0 metadata"
    );
    assert_eq!(rig.stored("a").len(), 1, "nothing of it is stored");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(rig.push(&[(UP, 2, 1.0), (DOWN, 2, 1.0)]).await.0, 200);
    assert_eq!(
        rig.send_as("b", snappy::pack(&request(&[(UP, 1, 1.0), (DOWN, 1, 1.0)])))
            .await
            .0,
        200
    );
    assert_eq!(
        rig.metric("cortex_discarded_samples_total", "rate_limited"),
        2.0
    );
}

#[tokio::test]
async fn exemplars_are_refused_in_the_words_of_cortex() {
    let series = r#"series: {__name__="up", instance="i", job="a"} labels:"#;
    for (exemplar, words) in [
        (
            vec![0x18, 7],
            format!("exemplar missing labels, timestamp: 7 {series} {{}}"),
        ),
        (
            exemplar_message("abc", 0),
            format!(r#"exemplar missing timestamp, timestamp: 0 {series} {{trace_id="abc"}}"#),
        ),
    ] {
        let body = series_of(UP, &[(0x12, sample(1, 1.0)), (0x1a, exemplar)]);
        let (status, text) = Rig::new().send(snappy::pack(&body)).await;
        assert_eq!((status, text), (400, words));
    }
}

/// Story: one exemplar of a wrong clock, years ahead, and none that came later was kept: they were out of order.
#[tokio::test]
async fn exemplars_of_the_future_are_refused_as_samples_are() {
    let rig = Rig::new();
    let newest = NOW + 600_000;
    for (round, (time, refused)) in [(newest, false), (newest + 1, true)]
        .into_iter()
        .enumerate()
    {
        let mut exemplar = exemplar_message("abc", 0);
        exemplar.truncate(exemplar.len() - 1);
        varint::put_u64(&mut exemplar, time as u64);
        let at = round as i64 + 1;
        let body = series_of(UP, &[(0x12, sample(at, 1.0)), (0x1a, exemplar)]);
        let words = format!(
            r#"exemplar timestamp too new, timestamp: {time} series: {UP_TEXT} labels: {{trace_id="abc"}}"#
        );
        let expected = match refused {
            true => (400, words),
            false => (200, String::new()),
        };
        assert_eq!(rig.send(snappy::pack(&body)).await, expected);
    }
    assert_eq!(rig.others(), [format!("exemplar {newest} before 1")]);
    assert_eq!(rig.stored("a")[UP_TEXT].len(), 2, "its sample is stored");
    let discarded = "cortex_discarded_exemplars_total";
    assert_eq!(rig.metric(discarded, "exemplar_too_far_in_future"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn exemplars_count_for_the_rate() {
    let limits = TenantLimits {
        ingestion_rate: 1.0,
        ingestion_burst_size: 2,
        ..TenantLimits::cortex()
    };
    let rig = Rig::with(limits, PushOptions::default());
    let fields = |exemplars| {
        let exemplar = (0x1a, exemplar_message("abc", 2));
        [vec![(0x12, sample(1, 1.0))], vec![exemplar; exemplars]].concat()
    };
    let three = snappy::pack(&series_of(UP, &fields(2)));
    assert_eq!(rig.send(three).await.0, 429);
    for name in ["samples", "exemplars"] {
        let name = format!("cortex_discarded_{name}_total");
        assert!(rig.metric(&name, "rate_limited") > 0.0, "{name}");
    }
    let two = snappy::pack(&series_of(UP, &fields(1)));
    assert_eq!(rig.send(two).await.0, 200);
}

/// A series of version 1: labels, then fields of the series.
fn series_of(labels: &[(&str, &str)], fields: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        padded(&mut label, 0x0a, name.as_bytes(), 1);
        padded(&mut label, 0x12, value.as_bytes(), 1);
        padded(&mut series, 0x0a, &label, 1);
    }
    for (tag, field) in fields {
        padded(&mut series, *tag, field, 2);
    }
    let mut body = Vec::new();
    padded(&mut body, 0x0a, &series, 3);
    body
}

/// A histogram message: one observation, of zero, this schema (zigzag) and time.
fn histogram_message(schema: u8, time: u8) -> Vec<u8> {
    vec![0x08, 1, 0x20, schema, 0x30, 1, 0x78, time]
}

fn exemplar_message(trace: &str, time: u8) -> Vec<u8> {
    let mut label = Vec::new();
    padded(&mut label, 0x0a, b"trace_id", 1);
    padded(&mut label, 0x12, trace.as_bytes(), 2);
    let mut exemplar = Vec::new();
    padded(&mut exemplar, 0x0a, &label, 2);
    exemplar.extend([0x18, time]);
    exemplar
}

/// Story: such an exemplar was stored, and shown as `{"": "x"}`.
#[tokio::test]
async fn an_exemplar_with_a_label_without_a_name_is_refused_alone() {
    let rig = Rig::new();
    let mut label = Vec::new();
    padded(&mut label, 0x12, b"x", 1);
    let mut nameless = Vec::new();
    padded(&mut nameless, 0x0a, &label, 1);
    nameless.extend([0x18, 1]);
    let fields = [
        (0x12, sample(1, 1.0)),
        (0x1a, nameless),
        (0x1a, exemplar_message("abc", 2)),
    ];
    let (status, text) = rig.send(snappy::pack(&series_of(UP, &fields))).await;
    assert_eq!(status, 400);
    assert!(text.contains("exemplar label name is empty"), "{text}");
    assert_eq!(rig.stored("a")[UP_TEXT], [(1, 1.0)]);
    assert_eq!(rig.others().len(), 1);
    let metric = "cortex_discarded_exemplars_total";
    assert_eq!(rig.metric(metric, "exemplar_labels_invalid"), 1.0);
}

#[tokio::test]
async fn a_mixed_series_is_taken_sample_by_sample_and_a_bad_histogram_is_named() {
    let rig = Rig::new();
    let fields = [
        (0x12, sample(1, 1.0)),
        (0x22, histogram_message(0, 2)),
        // Schema 9 is above what there is.
        (0x22, histogram_message(18, 3)),
        (0x12, sample(4, 4.0)),
        (0x1a, exemplar_message("abc", 2)),
        (0x1a, exemplar_message(&"x".repeat(125), 2)),
        (0x1a, exemplar_message("abc", 0)),
        (0x1a, vec![0x18, 1]),
    ];
    let body = series_of(UP, &fields);
    // The second time an alias knows the series, and everything is there already.
    for _ in 0..2 {
        let (status, text) = rig.send(snappy::pack(&body)).await;
        assert_eq!(status, 400);
        assert_eq!(
            text,
            r#"histogram schema 9 is not supported: series up{instance="i", job="a"}"#
        );
    }
    assert_eq!(rig.stored("a")[UP_TEXT], [(1, 1.0), (4, 4.0)]);
    // Between the floats, as the times have it, and the exemplars behind.
    let others = ["histogram 2 before 1", "exemplar 2 before 2"];
    assert_eq!(rig.others(), [others, others].concat());
    for (metric, reason, count) in [
        ("samples", "native_histogram_invalid_schema", 2.0),
        ("exemplars", "exemplar_labels_missing", 2.0),
        ("exemplars", "exemplar_labels_too_long", 2.0),
        ("exemplars", "exemplar_timestamp_invalid", 2.0),
    ] {
        let name = format!("cortex_discarded_{metric}_total");
        assert_eq!(rig.metric(&name, reason), count, "{reason}");
    }
}

#[tokio::test]
async fn a_series_of_histograms_alone_is_one_and_bad_ones_take_nothing_else_with_them() {
    let rig = Rig::new();
    let fields = [
        (0x22, histogram_message(0, 2)),
        (0x22, histogram_message(0, 3)),
    ];
    assert_eq!(rig.send(snappy::pack(&series_of(UP, &fields))).await.0, 200);
    assert_eq!(
        rig.others(),
        ["histogram 2 before 0", "histogram 3 before 0"]
    );
    // Bytes that are no message at all cannot be told from the rest of the body.
    let broken = series_of(UP, &[(0x22, vec![0x08])]);
    assert_eq!(rig.send(snappy::pack(&broken)).await.0, 400);
    assert_eq!(rig.others().len(), 2);
}

#[tokio::test]
async fn metadata_is_kept_for_its_tenant_and_bad_records_told() {
    let rig = Rig::new();
    let mut body = request(&[(UP, 1, 1.0)]);
    let help = Metadata {
        kind: MetricType::Gauge,
        help: "is it".into(),
        unit: "".into(),
    };
    encode::put_metadata(&mut body, "up", &help);
    assert_eq!(rig.send(snappy::pack(&body)).await.0, 200);
    let of = |tenant| {
        rig.metadata
            .list(&TenantId::new(tenant).unwrap(), None, 0, 0)
    };
    assert_eq!(of("a"), [("up".to_owned(), vec![help.clone()])]);
    assert!(of("b").is_empty());
    let mut bad = Vec::new();
    let long = Metadata {
        help: "h".repeat(2000),
        ..help.clone()
    };
    encode::put_metadata(&mut bad, "long", &long);
    encode::put_metadata(&mut bad, "", &help);
    encode::put_metadata(&mut bad, "good", &help);
    let (status, text) = rig.send(snappy::pack(&bad)).await;
    assert_eq!(status, 400);
    assert!(
        text.starts_with("metadata 'HELP' value too long: \"hhh"),
        "{text}"
    );
    assert_eq!(of("a").len(), 2);
    assert_eq!(
        rig.metric("cortex_discarded_metadata_total", "help_too_long"),
        1.0
    );
    assert_eq!(
        rig.metric("cortex_discarded_metadata_total", "missing_metric_name"),
        1.0
    );
}

#[tokio::test]
async fn labels_behind_the_samples_are_not_mistaken_for_the_series_before_them() {
    let rig = Rig::new();
    let short: Pairs<'_> = &[("__name__", "up")];
    assert_eq!(rig.push(&[(short, 1, 1.0)]).await.0, 200);
    let mut series = Vec::new();
    let mut name = Vec::new();
    padded(&mut name, 0x0a, b"__name__", 1);
    padded(&mut name, 0x12, b"up", 1);
    padded(&mut series, 0x0a, &name, 1);
    padded(&mut series, 0x12, &sample(2, 2.0), 1);
    let mut job = Vec::new();
    padded(&mut job, 0x0a, b"job", 1);
    padded(&mut job, 0x12, b"x", 1);
    padded(&mut series, 0x0a, &job, 1);
    let mut body = Vec::new();
    padded(&mut body, 0x0a, &series, 1);
    for _ in 0..2 {
        assert_eq!(rig.send(snappy::pack(&body)).await.0, 200);
        let stored = rig.stored("a");
        assert_eq!(stored[r#"{__name__="up"}"#], [(1, 1.0)]);
        assert_eq!(stored[r#"{__name__="up", job="x"}"#], [(2, 2.0)]);
    }
    rig.cores.kill("up");
    assert_eq!(rig.send(snappy::pack(&body)).await.0, 200);
    assert_eq!(rig.stored("a")[r#"{__name__="up", job="x"}"#], [(2, 2.0)]);
}

#[tokio::test]
async fn tenants_never_share_a_series_or_an_alias() {
    let rig = Rig::new();
    for k in 0..3 {
        for (tenant, value) in [("a", 1.0), ("b", 2.0)] {
            let body = snappy::pack(&request(&[(UP, k, value)]));
            assert_eq!(rig.send_as(tenant, body).await.0, 200);
        }
    }
    assert_eq!(rig.stored("a")[UP_TEXT], [(0, 1.0), (1, 1.0), (2, 1.0)]);
    assert_eq!(rig.stored("b")[UP_TEXT], [(0, 2.0), (1, 2.0), (2, 2.0)]);
}

#[tokio::test]
async fn changed_settings_are_applied_to_series_that_were_known() {
    let rig = Rig::new();
    rig.push(&[(UP, 1, 1.0)]).await;
    let limits = TenantLimits {
        drop_labels: vec!["instance".into()],
        ..TenantLimits::cortex()
    };
    rig.overrides.replace(limits, []);
    rig.push(&[(UP, 2, 2.0)]).await;
    let stored = rig.stored("a");
    assert_eq!(stored[UP_TEXT], [(1, 1.0)]);
    assert_eq!(stored[r#"{__name__="up", job="a"}"#], [(2, 2.0)]);
}

#[tokio::test]
async fn the_node_pushes_its_own_metrics_the_same_way() {
    let rig = Rig::new();
    let tenant = TenantId::new("ops").unwrap();
    let up = Labels::from_pairs(UP.iter().copied()).unwrap();
    for k in 1..=2 {
        rig.service
            .push_internal(&tenant, &[(up.clone(), k, 1.0)], &[])
            .await
            .unwrap();
    }
    assert_eq!(rig.stored("ops")[UP_TEXT], [(1, 1.0), (2, 1.0)]);
    let bad = [(Labels::empty(), 1, 1.0), (up, 1, 5.0)];
    let refused = rig.service.push_internal(&tenant, &bad, &[]).await;
    assert_eq!(refused.unwrap_err().class(), model::Class::Client);
}

#[tokio::test]
async fn siblings_share_limits_and_counters_but_not_aliases() {
    let rig = Rig::new();
    let sibling = rig.service.sibling();
    rig.push(&[(UP, 1, 1.0)]).await;
    let tenant = TenantId::new("a").unwrap();
    let body = Full::new(Bytes::from(snappy::pack(&request(&[(UP, 2, 2.0)]))));
    assert_eq!(
        sibling
            .handle(&tenant, &HeaderMap::new(), body)
            .await
            .status(),
        200
    );
    assert_eq!(rig.cores.counts(), (0, 2));
    assert_eq!(
        rig.metric("cortex_distributor_received_samples_total", "a"),
        2.0
    );
}

#[test]
fn options_that_cannot_work_are_refused() {
    let bad = |change: fn(&mut PushOptions)| {
        let mut options = PushOptions::default();
        change(&mut options);
        options.validate().is_err()
    };
    assert!(bad(|o| o.recv_bytes_max = 0));
    assert!(bad(|o| o.inflight_bytes_max = 1 << 20));
    assert!(bad(|o| o.inflight_bytes_per_tenant_max = 1 << 20));
    assert!(bad(|o| o.aliases_max = 0));
    assert!(PushOptions::default().validate().is_ok());
}

/// Gateway threads run several pushes at once, and a runtime may move them.
#[test]
fn the_future_of_a_push_can_be_sent() {
    fn sendable<T: Send>(_: &T) {}
    let rig = Rig::new();
    let (tenant, headers) = (TenantId::fake(), HeaderMap::new());
    sendable(
        &rig.service
            .handle(&tenant, &headers, Full::new(Bytes::new())),
    );
    sendable(&rig.service.push_internal(&tenant, &[], &[]));
}

#[derive(Debug, Clone)]
enum Step {
    /// Series numbers, in the order of the body.
    Push(Vec<usize>),
    /// All keys of the series with this number and all of its metric die.
    Kill(usize),
    /// The queue of a core is full for one push.
    Refuse(Vec<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || prop::collection::vec(0usize..80, 1..100);
    prop_oneof![
        6 => numbers().prop_map(Step::Push),
        1 => (0usize..80).prop_map(Step::Kill),
        1 => numbers().prop_map(Step::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the order of series, with keys dying and pushes refused in between: each sample acknowledged is stored, once, in
    /// its series, and nothing else is.
    #[test]
    fn stored_is_what_was_acknowledged(steps in prop::collection::vec(step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rig = Rig::new();
        let texts: Vec<(String, String)> =
            (0..80).map(|i| (format!("m{}", i % 10), (i / 10).to_string())).collect();
        let labels: Vec<[(&str, &str); 2]> =
            texts.iter().map(|(name, i)| [("__name__", name.as_str()), ("i", i.as_str())]).collect();
        let mut model: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
        let mut time = 0;
        for step in steps {
            match step {
                Step::Kill(i) => {
                    rig.cores.kill(&texts[i].0);
                    model.retain(|text, _| !text.contains(&format!("\"{}\"", texts[i].0)));
                }
                Step::Refuse(numbers) => {
                    (0..3).for_each(|core| rig.cores.fill(core));
                    let series: Vec<(Pairs<'_>, i64, f64)> =
                        numbers.iter().map(|&i| (&labels[i][..], time, 0.0)).collect();
                    prop_assert_eq!(runtime.block_on(rig.push(&series)).0, 503);
                    rig.cores.drain();
                }
                Step::Push(numbers) => {
                    let mut series: Vec<(Pairs<'_>, i64, f64)> = Vec::new();
                    for i in numbers {
                        time += 1;
                        series.push((&labels[i][..], time, i as f64));
                        let text = texts::label_set(labels[i]);
                        model.entry(text).or_default().push((time, i as f64));
                    }
                    prop_assert_eq!(runtime.block_on(rig.push(&series)), (200, String::new()));
                }
            }
            prop_assert_eq!(rig.stored("a"), model.clone());
        }
    }
}

/// Story: what cores refuse was told before what the gateway refuses, wherever in the body it stood.
#[tokio::test]
async fn the_error_told_is_the_first_of_the_body_whoever_refuses() {
    let limits = TenantLimits {
        max_label_value_length: 12,
        ..TenantLimits::cortex()
    };
    let rig = Rig::with(limits, PushOptions::default());
    assert_eq!(rig.push(&[(UP, 1, 1.0)]).await.0, 200);
    let long: Pairs<'_> = &[("__name__", "x"), ("l", "longer than twelve")];
    for _ in 0..2 {
        let (status, text) = rig.push(&[(long, 1, 1.0), (UP, 1, 2.0)]).await;
        assert_eq!(
            (status, text.contains("longer than twelve")),
            (400, true),
            "{text}"
        );
        let (status, text) = rig.push(&[(UP, 1, 2.0), (long, 1, 1.0)]).await;
        assert_eq!(
            (status, text.contains("duplicate sample")),
            (400, true),
            "{text}"
        );
    }
}
