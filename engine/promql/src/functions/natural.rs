//! The order in which `node2` comes before `node10`: runs of digits compare as numbers, everything else as bytes.
//!
//! Made total: where numbers are equal but written differently (`01`, `1`) the bytes decide in the end, so that sorting does
//! not depend on the input's order.

use std::cmp::Ordering;

/// Compares naturally; equal only for equal texts.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    while !left.is_empty() && !right.is_empty() {
        let one = take_run(&mut left);
        let other = take_run(&mut right);
        let order = match (digits(one), digits(other)) {
            (Some(x), Some(y)) => x.len().cmp(&y.len()).then_with(|| x.cmp(y)),
            _ => one.cmp(other),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// Cuts the longest run of digits, or of anything else, off the front.
fn take_run<'a>(text: &mut &'a str) -> &'a str {
    let digits = text.as_bytes()[0].is_ascii_digit();
    let end = text
        .bytes()
        .position(|b| b.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    let (run, rest) = text.split_at(end);
    *text = rest;
    run
}

/// The digits of a number without leading zeros, so that the longer one is the larger one; `None` for other text. (Prometheus compares
/// numbers that do not fit 64 bits as text, which is no order.)
fn digits(run: &str) -> Option<&str> {
    run.as_bytes()[0]
        .is_ascii_digit()
        .then(|| run.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_within_text_compare_as_numbers() {
        let mut words = [
            "a99999999999999999999",
            "a10",
            "a9",
            "b",
            "a",
            "10",
            "9",
            "a9b2",
            "a9b10",
            "",
            "a01",
            "a1",
        ];
        words.sort_by(|a, b| compare(a, b));
        assert_eq!(
            words,
            [
                "",
                "9",
                "10",
                "a",
                "a01",
                "a1",
                "a9",
                "a9b2",
                "a9b10",
                "a10",
                "a99999999999999999999",
                "b"
            ]
        );
    }

    proptest! {
        #[test]
        fn the_order_is_total(words in prop::collection::vec("[a-c0-9é]{0,5}", 3)) {
            let [a, b, c] = [&words[0], &words[1], &words[2]];
            prop_assert_eq!(compare(a, b), compare(b, a).reverse());
            prop_assert_eq!(compare(a, b) == Ordering::Equal, a == b);
            if compare(a, b).is_le() && compare(b, c).is_le() {
                prop_assert!(compare(a, c).is_le());
            }
        }
    }
}
