//! Changes of the past, against a list of everything that happened.

use proptest::prelude::*;

use super::*;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

#[test]
fn a_write_older_than_what_is_kept_is_told_to_those_who_read_before_it() {
    let changes = Changes::default();
    let a = changes.of(&tenant("a"));
    let before = a.mark(&changes, 1000);
    changes.note(&tenant("a"), 1001);
    assert_eq!(a.since(before), i64::MAX, "newer than what is kept");
    changes.note(&tenant("a"), 600);
    let between = a.mark(&changes, 1000);
    changes.note(&tenant("a"), 800);
    assert_eq!((a.since(before), a.since(between)), (600, 800));
    let after = a.mark(&changes, 1000);
    assert_eq!(a.since(after), i64::MAX);
}

#[test]
fn another_tenant_does_not_notice() {
    let changes = Changes::default();
    let (a, b) = (changes.of(&tenant("a")), changes.of(&tenant("b")));
    let (of_a, of_b) = (a.mark(&changes, 1000), b.mark(&changes, 500));
    changes.note(&tenant("b"), 700);
    changes.note(&tenant("a"), 700);
    assert_eq!((a.since(of_a), b.since(of_b)), (700, i64::MAX));
    assert_eq!(changes.noted(), 1);
}

#[test]
fn with_too_many_tenants_all_begin_anew_under_other_numbers() {
    let changes = Changes::default();
    let first = changes.of(&tenant("first")).watch();
    for n in 0..TENANTS_MAX {
        changes.of(&tenant(&format!("t{n}")));
    }
    assert_ne!(changes.of(&tenant("first")).watch(), first);
}

proptest! {
    /// Against a list of everything that happened: never too little, and exact while the history is short.
    #[test]
    fn the_lowest_change_after_a_mark_is_never_missed(steps in proptest::collection::vec((0..200i64, 0..4u8), 1..400)) {
        let changes = Changes::default();
        let a = changes.of(&tenant("a"));
        let (mut floor, mut happened, mut marks) = (i64::MIN, Vec::new(), Vec::new());
        for (time, kind) in steps {
            if kind == 0 {
                floor = floor.max(time);
                marks.push((a.mark(&changes, time), happened.len()));
            } else {
                changes.note(&tenant("a"), time);
                if time <= floor {
                    happened.push(time);
                }
            }
        }
        for (mark, from) in marks {
            let expected = happened[from..].iter().copied().min().unwrap_or(i64::MAX);
            let told = a.since(mark);
            prop_assert!(told <= expected);
            prop_assert!(told == expected || happened.len() > STEPS_MAX);
        }
    }
}
