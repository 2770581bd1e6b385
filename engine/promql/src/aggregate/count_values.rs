//! `count_values`: how many series of a group have which value, the value in a label.

use std::collections::BTreeMap;

use model::Labels;

use crate::Error;
use crate::value::{ABSENT, VectorSeries, is_absent};

/// One series per group and value that occurs in it, sorted by labels.
///
/// `groups[i]` is the group of `series[i]`, `group_labels` the labels of each group. The label replaces one of the same name; groups that
/// become equal by that count together. Errors: a name that is no label's name.
pub(crate) fn count_values(
    groups: &[u32],
    group_labels: &[Labels],
    series: &[VectorSeries],
    label: &str,
    steps: usize,
) -> Result<Vec<VectorSeries>, Error> {
    assert_eq!(groups.len(), series.len());
    if label.is_empty() || label.contains('\u{fffd}') {
        return Err(Error::execution(format!("invalid label name {label:?}")));
    }
    // By bits first: most values repeat, and bits are cheaper to compare than texts.
    let mut counts: BTreeMap<(u32, u64), Vec<u32>> = BTreeMap::new();
    for (group, one) in groups.iter().zip(series) {
        for (step, value) in one.values.iter().enumerate() {
            if !is_absent(*value) {
                counts
                    .entry((*group, value.to_bits()))
                    .or_insert_with(|| vec![0; steps])[step] += 1;
            }
        }
    }
    let mut results: BTreeMap<Labels, Vec<u32>> = BTreeMap::new();
    for ((group, bits), count) in counts {
        let value = value_text(f64::from_bits(bits));
        let labels = group_labels[group as usize].with(label, &value);
        let total = results.entry(labels).or_insert_with(|| vec![0; steps]);
        for (total, count) in total.iter_mut().zip(count) {
            *total += count;
        }
    }
    Ok(results
        .into_iter()
        .map(|(labels, counts)| {
            let values = counts
                .into_iter()
                .map(|count| if count == 0 { ABSENT } else { f64::from(count) })
                .collect();
            VectorSeries::new(labels, false, values)
        })
        .collect())
}

/// A float in as many digits as it needs and without an exponent.
fn value_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> VectorSeries {
        VectorSeries::new(Labels::empty(), false, values.to_vec())
    }

    #[test]
    fn values_are_counted_by_group_and_step() {
        let group = |name: &str| Labels::from_pairs([("g", name)]).unwrap();
        let input = [
            series(&[1.0, 0.5]),
            series(&[1.0, ABSENT]),
            series(&[f64::NAN, 1e21]),
        ];
        let result = count_values(&[0, 0, 1], &[group("a"), group("b")], &input, "v", 2).unwrap();
        let shown: Vec<_> = result
            .iter()
            .map(|one| {
                let counts: Vec<_> = one
                    .values
                    .iter()
                    .map(|v| if is_absent(*v) { 0.0 } else { *v })
                    .collect();
                format!("{} {counts:?}", one.labels)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "{g=\"a\", v=\"0.5\"} [0.0, 1.0]",
                "{g=\"a\", v=\"1\"} [2.0, 0.0]",
                "{g=\"b\", v=\"1000000000000000000000\"} [0.0, 1.0]",
                "{g=\"b\", v=\"NaN\"} [1.0, 0.0]",
            ]
        );
    }

    #[test]
    fn groups_that_differ_only_in_the_overwritten_label_count_together() {
        let group = |name: &str| Labels::from_pairs([("job", name)]).unwrap();
        let input = [series(&[6.0]), series(&[6.0])];
        let result = count_values(&[0, 1], &[group("a"), group("b")], &input, "job", 1).unwrap();
        assert_eq!(result.len(), 1);
        assert_eq!(result[0].values, [2.0]);
        assert!(count_values(&[], &[], &[], "", 1).is_err());
    }
}
