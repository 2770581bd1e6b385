//! Changes of the past, against a list of everything that happened.

use proptest::prelude::*;

use super::*;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

#[test]
fn a_write_older_than_what_is_kept_is_told_to_those_who_read_before_it() {
    let changes = Changes::default();
    let now = || changes.history(&tenant("a"), 1000);
    let before = now().mark;
    changes.note(&tenant("a"), 1001);
    assert_eq!(now().since(before), i64::MAX, "newer than what is kept");
    changes.note(&tenant("a"), 600);
    let between = now().mark;
    changes.note(&tenant("a"), 800);
    let after = now();
    assert_eq!((after.since(before), after.since(between)), (600, 800));
    assert_eq!(after.since(after.mark), i64::MAX);
    assert_eq!(after.since(after.mark + 1), i64::MIN, "of no time that was");
}

#[test]
fn another_tenant_does_not_notice() {
    let changes = Changes::default();
    let now = |name, until| changes.history(&tenant(name), until);
    let (of_a, of_b) = (now("a", 1000), now("b", 500));
    assert_ne!(of_a.id, of_b.id);
    changes.note(&tenant("b"), 700);
    changes.note(&tenant("a"), 700);
    assert_eq!(now("a", 0).since(of_a.mark), 700);
    assert_eq!(now("b", 0).since(of_b.mark), i64::MAX);
    assert_eq!(changes.noted(), 1);
}

#[test]
fn with_too_many_tenants_all_begin_anew_under_other_numbers() {
    let changes = Changes::default();
    let first = changes.history(&tenant("first"), 0).id;
    assert_ne!(Changes::default().history(&tenant("first"), 0).id, first);
    for n in 0..TENANTS_MAX {
        changes.of(&tenant(&format!("t{n}")));
    }
    assert_ne!(changes.history(&tenant("first"), 0).id, first);
}

proptest! {
    /// Against a list of everything that happened: never too little, and exact while the history is short.
    #[test]
    fn the_lowest_change_after_a_mark_is_never_missed(steps in proptest::collection::vec((0..200i64, 0..4u8), 1..400)) {
        let changes = Changes::default();
        let (mut floor, mut happened, mut marks) = (i64::MIN, Vec::new(), Vec::new());
        for (time, kind) in steps {
            if kind == 0 {
                floor = floor.max(time);
                marks.push((changes.history(&tenant("a"), time).mark, happened.len()));
            } else {
                changes.note(&tenant("a"), time);
                if time <= floor {
                    happened.push(time);
                }
            }
        }
        let now = changes.history(&tenant("a"), i64::MIN);
        for (mark, from) in marks {
            let expected = happened[from..].iter().copied().min().unwrap_or(i64::MAX);
            let told = now.since(mark);
            prop_assert!(told <= expected);
            prop_assert!(told == expected || happened.len() > STEPS_MAX);
        }
    }
}
