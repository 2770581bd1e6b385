//! `count_values`: how many series of a group have which value, the value in a label.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use model::Labels;

use crate::Error;
use crate::histogram::buckets::text;
use crate::value::{ABSENT, VectorSeries, is_absent};

/// One series per group and value that occurs in it, sorted by labels.
///
/// `groups[i]` is the group of `series[i]`, `group_labels` the labels of each group. The label replaces one of the same name; groups that
/// become equal by that count together. `is_hidden`: the label is one that the grouping takes away. `hold` is asked before a column of so many places is made: values that change from step to step make a
/// column each. Errors: a name that is no label's name; what `hold` says.
pub(crate) fn count_values(
    groups: &[u32],
    group_labels: &[Labels],
    series: &[VectorSeries],
    (label, is_hidden): (&str, bool),
    steps: usize,
    hold: impl Fn(usize) -> Result<(), Error>,
) -> Result<Vec<VectorSeries>, Error> {
    assert_eq!(groups.len(), series.len());
    if label.is_empty() || label.contains('\u{fffd}') {
        return Err(Error::execution(format!(
            "invalid label name {}",
            model::quoted(label)
        )));
    }
    let labels_of = |group: u32, value: &str| {
        let labels = &group_labels[group as usize];
        match is_hidden {
            true => labels.clone(),
            false => labels.with(label, value),
        }
    };
    let mut found: Vec<(u32, u64, u32)> = Vec::new();
    for (group, one) in groups.iter().zip(series) {
        let present = (0u32..).zip(&one.values).filter(|(_, v)| !is_absent(**v));
        found.extend(present.map(|(step, value)| (*group, value.to_bits(), step)));
    }
    found.sort_unstable();
    let mut results: BTreeMap<Labels, Vec<u32>> = BTreeMap::new();
    for (group, one) in groups.iter().zip(series) {
        for (step, histogram) in &one.histograms {
            let labels = labels_of(*group, &text(histogram));
            column(&mut results, labels, steps, &hold)?[*step as usize] += 1;
        }
    }
    for same in found.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (group, bits, _) = same[0];
        let labels = labels_of(group, &value_text(f64::from_bits(bits)));
        let counts = column(&mut results, labels, steps, &hold)?;
        for (_, _, step) in same {
            counts[*step as usize] += 1;
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

/// The counts of a result, made where it is new.
fn column(
    results: &mut BTreeMap<Labels, Vec<u32>>,
    labels: Labels,
    steps: usize,
    hold: impl Fn(usize) -> Result<(), Error>,
) -> Result<&mut Vec<u32>, Error> {
    Ok(match results.entry(labels) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => {
            hold(steps)?;
            new.insert(vec![0; steps])
        }
    })
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
        let result = count_values(
            &[0, 0, 1],
            &[group("a"), group("b")],
            &input,
            ("v", false),
            2,
            |_| Ok(()),
        )
        .unwrap();
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
        let count = |label, is_hidden| {
            let groups = [group("a"), group("b")];
            count_values(&[0, 1], &groups, &input, (label, is_hidden), 1, |_| Ok(())).unwrap()
        };
        let result = count("job", false);
        assert_eq!(result.len(), 1);
        assert_eq!(result[0].values, [2.0]);
        // `without (v)` takes it away however it came.
        let shown: Vec<_> = count("v", true)
            .iter()
            .map(|one| one.labels.to_string())
            .collect();
        assert_eq!(shown, ["{job=\"a\"}", "{job=\"b\"}"]);
        assert!(count_values(&[], &[], &[], ("", false), 1, |_| Ok(())).is_err());
    }

    #[test]
    fn a_column_is_asked_for_before_it_is_made() {
        let input = [series(&[1.0, 2.0, 1.0])];
        let held = std::cell::Cell::new(0);
        let count = |cells_max| {
            held.set(0);
            count_values(&[0], &[Labels::empty()], &input, ("v", false), 3, |cells| {
                held.set(held.get() + cells);
                if held.get() > cells_max {
                    Err(Error::Canceled)
                } else {
                    Ok(())
                }
            })
        };
        assert_eq!(count(6).unwrap().len(), 2);
        assert!(matches!(count(5), Err(Error::Canceled)));
    }
}
