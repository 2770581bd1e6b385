//! Claims about canonical label sets.

use super::*;
use proptest::prelude::*;

fn set(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

#[test]
fn the_order_of_the_pairs_does_not_matter() {
    assert_eq!(
        set(&[("a", "1"), ("b", "2")]),
        set(&[("b", "2"), ("a", "1")])
    );
}

#[test]
fn an_empty_value_is_no_label() {
    assert_eq!(set(&[("a", "1"), ("b", "")]), set(&[("a", "1")]));
    assert_eq!(set(&[("a", "1")]).with("a", ""), Labels::empty());
}

#[test]
fn a_name_given_twice_is_refused_by_name() {
    let error = Labels::from_pairs([("a", "1"), ("a", "2")]).unwrap_err();
    assert_eq!(error, LabelsError::Duplicate("a".into()));
}

#[test]
fn packed_bytes_that_break_a_rule_are_refused() {
    let mut unsorted = Vec::new();
    put_label(&mut unsorted, "b", "1");
    put_label(&mut unsorted, "a", "1");
    assert_eq!(
        Labels::from_packed(&unsorted),
        Err(LabelsError::Unsorted("a".into()))
    );
    let mut empty = Vec::new();
    put_label(&mut empty, "b", "");
    assert_eq!(
        Labels::from_packed(&empty),
        Err(LabelsError::Empty("b".into()))
    );
    assert_eq!(
        Labels::from_packed(&[5, b'a']),
        Err(LabelsError::Truncated(0))
    );
    assert!(matches!(
        Labels::from_packed(&[1, 0xff, 1, b'x']),
        Err(LabelsError::NotUtf8(_))
    ));
}

#[test]
fn a_prefix_sorts_first_and_names_before_values() {
    assert!(set(&[("a", "1")]) < set(&[("a", "1"), ("b", "0")]));
    assert!(set(&[("a", "9")]) < set(&[("b", "0")]));
    assert!(set(&[("a", "1")]) < set(&[("a", "2")]));
}

proptest! {
    #[test]
    fn packed_form_survives_the_round_trip(map in prop::collection::btree_map("\\PC{1,8}", "\\PC{1,200}", 0..12)) {
        let labels = Labels::from_pairs(map.iter()).unwrap();
        prop_assert_eq!(&Labels::from_packed(labels.packed()).unwrap(), &labels);
        let pairs: Vec<_> = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(pairs, map.clone().into_iter().collect::<Vec<_>>());
        for (name, value) in &map {
            prop_assert_eq!(labels.get(name), Some(value.as_str()));
            prop_assert_eq!(labels.with(name, "").with(name, value), labels.clone());
        }
    }

    #[test]
    fn sets_are_ordered_pair_by_pair(
        a in prop::collection::btree_map("[a-c]{1,2}", "[xé]{1,3}|x{126,129}y?", 0..5),
        b in prop::collection::btree_map("[a-c]{1,2}", "[xé]{1,3}|x{126,129}y?", 0..5),
    ) {
        let (left, right) = (Labels::from_pairs(a.iter()).unwrap(), Labels::from_pairs(b.iter()).unwrap());
        prop_assert_eq!(left.cmp(&right), a.iter().cmp(b.iter()), "{} {}", left, right);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(labels) = Labels::from_packed(&bytes) {
            prop_assert_eq!(labels.packed(), &bytes[..]);
            let _ = labels.iter().count();
        }
    }
}
