//! Every rule with its words, and the order in which rules are looked at.

use model::varint;

use super::super::names::Names;
use super::*;

/// All steps but those of HA pairs and relabelling.
fn labels<'a>(sent: LabelIter<'a>, limits: &TenantLimits) -> Result<Pairs<'a>, Unusable> {
    let mut pairs = read(sent)?;
    remove(&mut pairs, limits, None);
    if !pairs.is_empty() {
        finish(&mut pairs, limits).map_err(Unusable::Invalid)?;
    }
    Ok(pairs)
}

fn label_bytes<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        let mut label = Vec::new();
        for (tag, content) in [(0x0a, name.as_ref()), (0x12, value.as_ref())] {
            label.push(tag);
            varint::put_u64(&mut label, content.len() as u64);
            label.extend_from_slice(content);
        }
        out.push(0x0a);
        varint::put_u64(&mut out, label.len() as u64);
        out.extend_from_slice(&label);
    }
    out
}

fn checked(
    pairs: &[(&str, &str)],
    limits: &TenantLimits,
) -> Result<Vec<(String, String)>, Invalid> {
    match labels(Names::V1.labels(&label_bytes(pairs)), limits) {
        Ok(pairs) => Ok(pairs
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect()),
        Err(Unusable::Invalid(invalid)) => Err(invalid),
        Err(Unusable::Malformed(malformed)) => panic!("{malformed}"),
    }
}

fn refused(pairs: &[(&str, &str)], limits: &TenantLimits) -> (Reason, String) {
    let invalid = checked(pairs, limits).expect_err("the series passed");
    (invalid.reason, invalid.text)
}

fn limits() -> TenantLimits {
    TenantLimits {
        max_label_names_per_series: 3,
        max_label_name_length: 10,
        max_label_value_length: 12,
        max_labels_size_bytes: 34,
        ..TenantLimits::cortex()
    }
}

#[test]
fn labels_are_sorted_and_empty_values_and_dropped_labels_removed() {
    let limits = TenantLimits {
        drop_labels: vec!["replica".into()],
        ..limits()
    };
    let got = checked(
        &[
            ("z", "1"),
            ("replica", "a"),
            ("__name__", "up"),
            ("gone", ""),
            ("", ""),
            ("a", "2"),
        ],
        &limits,
    );
    let want = [("__name__", "up"), ("a", "2"), ("z", "1")];
    assert_eq!(
        got.unwrap(),
        want.map(|(n, v)| (n.to_owned(), v.to_owned()))
    );
    assert_eq!(
        checked(&[("replica", "a"), ("empty", "")], &limits),
        Ok(vec![])
    );
}

#[test]
fn names_that_would_need_quotes_are_refused_where_only_legacy_ones_are_taken() {
    let legacy = TenantLimits {
        name_scheme: model::NameScheme::Legacy,
        ..limits()
    };
    let dotted = [("__name__", "a.b"), ("c", "1")];
    let label = [("__name__", "a:b"), ("c.d", "1")];
    for sent in [&dotted, &label] {
        assert!(checked(sent, &limits()).is_ok());
    }
    assert!(checked(&[("__name__", "a:b"), ("c_d", "ü")], &legacy).is_ok());
    assert_eq!(
        refused(&dotted, &legacy),
        (
            Reason::MetricNameInvalid,
            "sample invalid metric name: \"a.b\"".to_owned()
        )
    );
    assert_eq!(
        refused(&label, &legacy),
        (
            Reason::LabelInvalid,
            "sample invalid label: \"c.d\" metric \"a:b{c.d=\\\"1\\\"}\"".to_owned()
        )
    );
    // Who does not insist on a name does not look at it, as in Cortex.
    let any = TenantLimits {
        enforce_metric_name: false,
        ..legacy
    };
    assert!(checked(&dotted, &any).is_ok());
}

/// Labels, and what they are refused for.
type Case<'a> = (&'a [(&'a str, &'a str)], Reason, &'a str);

#[test]
fn each_rule_has_the_words_of_cortex() {
    let cases: [Case<'_>; 8] = [
        (
            &[("a", "b")],
            Reason::MissingMetricName,
            "sample missing metric name",
        ),
        (
            &[("__name__", ""), ("a", "b")],
            Reason::MissingMetricName,
            "sample missing metric name",
        ),
        (
            &[("__name__", "up"), ("a", "1"), ("b", "2"), ("c", "3")],
            Reason::MaxLabelNamesPerSeries,
            r#"series has too many labels (actual: 4, limit: 3) series: 'up{a="1", b="2", c="3"}'"#,
        ),
        (
            &[("__name__", "up"), ("", "x")],
            Reason::LabelInvalid,
            r#"sample invalid label: "" metric "up{=\"x\"}""#,
        ),
        (
            &[("__name__", "up"), ("aaaaaaaaaaa", "x")],
            Reason::LabelNameTooLong,
            r#"label name too long: "aaaaaaaaaaa" metric "up{aaaaaaaaaaa=\"x\"}""#,
        ),
        (
            &[("__name__", "up"), ("a", "xxxxxxxxxxxxx")],
            Reason::LabelValueTooLong,
            r#"label value too long for metric: "up{a=\"xxxxxxxxxxxxx\"}" label value: "xxxxxxxxxxxxx""#,
        ),
        (
            &[("a", "1"), ("__name__", "up"), ("a", "2")],
            Reason::DuplicateLabelNames,
            r#"duplicate label name: "a" metric "up{a=\"1\", a=\"2\"}""#,
        ),
        (
            &[("__name__", "abcdefghijkl"), ("aaaaaaaaaa", "abcdefghijkl")],
            Reason::LabelsSizeBytes,
            r#"labels size bytes exceeded for metric (actual: 42, limit: 34) metric: "abcdefghijkl{aaaaaaaaaa=\"abcdefghijkl\"}""#,
        ),
    ];
    for (pairs, reason, text) in cases {
        assert_eq!(refused(pairs, &limits()), (reason, text.to_owned()));
    }
}

#[test]
fn earlier_rules_win_over_later_ones() {
    let everything_wrong = [
        ("aaaaaaaaaaa", "xxxxxxxxxxxxx"),
        ("", "x"),
        ("b", "1"),
        ("b", "1"),
        ("c", "1"),
    ];
    assert_eq!(
        refused(&everything_wrong, &limits()).0,
        Reason::MissingMetricName
    );
    let named = [&[("__name__", "up")], &everything_wrong[..]].concat();
    assert_eq!(refused(&named, &limits()).0, Reason::MaxLabelNamesPerSeries);
    let many = TenantLimits {
        max_label_names_per_series: 0,
        ..limits()
    };
    assert_eq!(refused(&named, &many).0, Reason::LabelInvalid);
    assert_eq!(refused(&named[..2], &many).0, Reason::LabelNameTooLong);
}

#[test]
fn zero_is_no_limit_and_without_enforcement_a_name_may_be_missing() {
    let none = TenantLimits {
        max_label_names_per_series: 0,
        max_label_name_length: 0,
        max_label_value_length: 0,
        max_labels_size_bytes: 0,
        enforce_metric_name: false,
        ..TenantLimits::cortex()
    };
    let long = "x".repeat(100_000);
    let pairs: Vec<(String, &str)> = (0..500).map(|i| (format!("l{i:03}"), &long[..])).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    assert_eq!(checked(&pairs, &none).unwrap().len(), 500);
}

#[test]
fn names_may_be_any_utf8() {
    let odd = [
        ("1x-ü.y", "v"),
        ("__name__", "żółć métrique"),
        ("a-b.c", "😀"),
    ];
    assert_eq!(checked(&odd, &TenantLimits::cortex()).unwrap().len(), 3);
}

#[test]
fn bytes_that_are_not_utf8_refuse_the_series_wherever_they_are() {
    let limits = TenantLimits::cortex();
    let reason =
        |pairs: &[(&[u8], &[u8])]| match labels(Names::V1.labels(&label_bytes(pairs)), &limits) {
            Err(Unusable::Invalid(invalid)) => invalid.reason,
            other => panic!("{other:?}"),
        };
    assert_eq!(
        reason(&[(b"__name__", b"up"), (b"a", b"\xff")]),
        Reason::LabelInvalid
    );
    assert_eq!(
        reason(&[(b"__name__", b"up"), (b"\xfe", b"x")]),
        Reason::LabelInvalid
    );
    assert_eq!(reason(&[(b"__name__", b"\xff")]), Reason::MetricNameInvalid);
}

#[test]
fn times_are_bounded_on_both_sides_only_where_configured() {
    let hour = std::time::Duration::from_secs(3600);
    let now = 1_700_000_000_000;
    let open = TimeBounds::new(&TenantLimits::cortex(), now);
    assert!(open.hold(0) && open.hold(i64::MIN) && open.hold(now + 600_000));
    assert!(!open.hold(now + 600_001) && !open.hold(i64::MAX));
    let limits = TenantLimits {
        reject_old_samples: true,
        reject_old_samples_max_age: hour,
        creation_grace_period: std::time::Duration::ZERO,
        ..TenantLimits::cortex()
    };
    let bounds = TimeBounds::new(&limits, now);
    assert!(bounds.hold(now) && bounds.hold(now - 3_600_000));
    let old = bounds.refuse(now - 3_600_001, "up");
    assert_eq!(old.reason, Reason::TooOld);
    assert_eq!(old.text, "timestamp too old: 1699996399999 metric: \"up\"");
    let new = bounds.refuse(now + 1, "up");
    assert_eq!(new.reason, Reason::TooFarInFuture);
    assert_eq!(new.text, "timestamp too new: 1700000000001 metric: \"up\"");
}
