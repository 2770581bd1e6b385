//! `and`, `or`, `unless`: which samples of one side stay, by what the other side has at the same step.

use std::collections::HashMap;

use model::Labels;

use super::numbering::{Chosen, Numbering};
use super::without_empty;
use crate::expr::{BinaryOp, Matching};
use crate::value::VectorSeries;

/// The labels by which two series find each other.
pub(super) fn signature(matching: &Matching) -> Chosen {
    if matching.on {
        Chosen::only(&matching.labels)
    } else {
        Chosen::except(&matching.labels)
    }
}

/// For every signature of one side, at which steps it has a sample.
struct Presence {
    numbering: Numbering,
    steps: Vec<Vec<bool>>,
}

impl Presence {
    fn of(series: &[VectorSeries], matching: &Matching, count: usize) -> Presence {
        let mut presence = Presence {
            numbering: Numbering::new(signature(matching)),
            steps: Vec::new(),
        };
        for one in series {
            let number = presence.numbering.number(&one.labels) as usize;
            if number == presence.steps.len() {
                presence.steps.push(vec![false; count]);
            }
            let steps = &mut presence.steps[number];
            one.mark_present(steps);
        }
        presence
    }

    fn get(&mut self, labels: &Labels) -> Option<&[bool]> {
        let number = self.numbering.find(labels)?;
        Some(&self.steps[number as usize])
    }
}

/// Evaluates a set operator.
pub(super) fn operate(
    op: BinaryOp,
    matching: &Matching,
    left: Vec<VectorSeries>,
    right: Vec<VectorSeries>,
    count: usize,
) -> Vec<VectorSeries> {
    match op {
        BinaryOp::And => {
            let mut presence = Presence::of(&right, matching, count);
            without_empty(filter(left, &mut presence, true))
        }
        BinaryOp::Unless => {
            let mut presence = Presence::of(&right, matching, count);
            without_empty(filter(left, &mut presence, false))
        }
        _ => {
            let mut presence = Presence::of(&left, matching, count);
            let right = without_empty(filter(right, &mut presence, false));
            union(left, right)
        }
    }
}

/// Keeps samples where the other side's presence is as `wanted`.
fn filter(
    mut series: Vec<VectorSeries>,
    presence: &mut Presence,
    wanted: bool,
) -> Vec<VectorSeries> {
    for one in &mut series {
        match presence.get(&one.labels) {
            Some(steps) => one.keep_steps(|step| steps[step] == wanted),
            None if wanted => one.keep_steps(|_| false),
            None => {}
        }
    }
    series
}

/// Both, a series of the same labels being one: the signatures see to it that never both have a sample at a step. (One whose name is to
/// go is another than one whose name stays, so that a step says the same whatever steps are evaluated beside it.)
fn union(mut left: Vec<VectorSeries>, right: Vec<VectorSeries>) -> Vec<VectorSeries> {
    let key = |one: &VectorSeries| (one.labels.clone(), one.drop_name);
    let mut index: HashMap<(Labels, bool), usize> = HashMap::with_capacity(left.len());
    for (i, one) in left.iter().enumerate() {
        index.entry(key(one)).or_insert(i);
    }
    for one in right {
        let Some(i) = index.get(&key(&one)) else {
            left.push(one);
            continue;
        };
        let into = &mut left[*i];
        let mut one = one;
        one.keep_steps(|step| !into.is_present(step));
        into.join(one).expect("no step has both");
    }
    left
}
