//! What is kept of results, against what happened.

use model::{FloatPoint, Labels};
use promql::{Params, parse, plan};
use shard::Changes;

use super::*;

fn series(name: &str, times: impl IntoIterator<Item = i64>) -> RangeSeries {
    RangeSeries {
        labels: Labels::from_pairs([("__name__", name)]).unwrap(),
        floats: times
            .into_iter()
            .map(|t| FloatPoint { t, v: t as f64 })
            .collect(),
        histograms: Vec::new(),
    }
}

fn piece(first: i64, last: i64, series: Vec<RangeSeries>) -> Piece {
    Piece {
        first,
        last,
        series,
        infos: Vec::new(),
        warned: false,
    }
}

/// A node's cache, the changes of its tenants, and one of them.
struct Fixture {
    results: Results,
    changes: Changes,
    tenant: TenantId,
    now_ms: i64,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            results: Results::new(1 << 20),
            changes: Changes::default(),
            tenant: TenantId::fake(),
            now_ms: 0,
        }
    }

    fn open(
        &self,
        text: &str,
        (start, end, step): (i64, i64, i64),
        floor: i64,
        settled: i64,
    ) -> Option<Session> {
        let plan = plan(&parse(text).unwrap(), &Params::range(start, end, step)).unwrap();
        let request = Request {
            tenant: &self.tenant,
            text,
            floor,
            settled,
            now_ms: self.now_ms,
            ttl_ms: 1000,
        };
        let asked = Asked::of(&request, &plan)?;
        let history = self.changes.history(&self.tenant, asked.until());
        Some(self.results.open(asked, vec![history]))
    }

    /// Asks for `m` from 0 to 90 by 10, and keeps what was missing.
    fn ask(&self, settled: i64) -> Vec<(i64, i64)> {
        let session = self.open("m", (0, 90, 10), i64::MIN, settled).unwrap();
        let runs = session.to_evaluate(0);
        let evaluate = |&(first, last): &(i64, i64)| {
            let times = (first..=last).step_by(10);
            piece(first, last, vec![series("m", times)])
        };
        let pieces: Vec<_> = runs.iter().map(evaluate).collect();
        assert_eq!(session.answer(&pieces), [series("m", (0..=90).step_by(10))]);
        self.results.keep(session, &pieces, None);
        runs
    }
}

#[test]
fn only_what_is_missing_new_or_changed_is_evaluated() {
    let fixture = Fixture::new();
    assert_eq!(fixture.ask(65), [(0, 90)]);
    assert_eq!(fixture.ask(65), [(70, 90)]);
    assert_eq!(fixture.ask(80), [(70, 90)]);
    assert_eq!(fixture.ask(80), [(90, 90)]);
    fixture.changes.note(&fixture.tenant, 31);
    assert_eq!(fixture.ask(80), [(40, 90)]);
    fixture.changes.note(&fixture.tenant, 81);
    assert_eq!(
        fixture.ask(80),
        [(90, 90)],
        "newer than anything that was kept"
    );
    fixture.changes.note(&fixture.tenant, -5);
    assert_eq!(fixture.ask(80), [(0, 90)]);
}

#[test]
fn a_change_between_asking_and_keeping_is_not_forgotten() {
    let fixture = Fixture::new();
    let session = fixture.open("m", (0, 90, 10), i64::MIN, 100).unwrap();
    // The read has been to this core already.
    fixture.changes.note(&fixture.tenant, 45);
    fixture
        .results
        .keep(session, &[piece(0, 90, vec![series("m", [0, 50])])], None);
    let session = fixture.open("m", (0, 90, 10), i64::MIN, 100).unwrap();
    assert_eq!(session.to_evaluate(0), [(50, 90)]);
}

#[test]
fn queries_share_what_is_kept_where_text_step_and_phase_are_the_same() {
    let fixture = Fixture::new();
    fixture.ask(100);
    let missing = |text: &str, times: (i64, i64, i64)| {
        fixture
            .open(text, times, i64::MIN, 100)
            .unwrap()
            .to_evaluate(0)
    };
    assert_eq!(missing("m", (-20, 120, 10)), [(-20, -10), (100, 120)]);
    assert_eq!(missing("m", (30, 50, 10)), []);
    assert_eq!(missing("m", (35, 50, 10)), [(35, 45)]);
    assert_eq!(missing("m", (30, 50, 20)), [(30, 50)]);
    assert_eq!(missing("n", (30, 50, 10)), [(30, 50)]);
}

#[test]
fn what_sees_beyond_its_steps_or_is_not_settled_is_left_alone() {
    let fixture = Fixture::new();
    let open =
        |text, floor, settled| fixture.open(text, (1_000_000, 2_000_000, 1000), floor, settled);
    assert!(open("m", i64::MIN, 3_000_000).is_some());
    for text in ["m offset -1s", "m @ 7", "rate(m[5m] smoothed)", "time()"] {
        assert!(open(text, i64::MIN, 3_000_000).is_none(), "{text}");
    }
    assert!(
        open("m", i64::MIN, 900_000).is_some(),
        "older steps of its grid may be kept"
    );
    // Lookback is five minutes: the first step that sees nothing hidden is that after 1,800,000.
    let session = open("m", 1_500_000, 3_000_000).unwrap();
    assert_eq!(session.asked.keep.0, 1_800_000);
    assert!(open("m", 2_000_000, 2_100_000).is_none());
}

#[test]
fn a_piece_that_warned_or_is_too_large_is_not_kept() {
    let fixture = Fixture::new();
    let session = fixture.open("m", (0, 90, 10), i64::MIN, 100).unwrap();
    let warned = Piece {
        warned: true,
        ..piece(0, 40, vec![series("m", [0])])
    };
    let large = piece(50, 60, vec![series("m", vec![55; 10_000])]);
    let kept = piece(70, 90, vec![series("m", [70])]);
    fixture.results.keep(session, &[warned, large, kept], None);
    let session = fixture.open("m", (0, 90, 10), i64::MIN, 100).unwrap();
    assert_eq!(session.to_evaluate(0), [(0, 60)]);
}

#[test]
fn runs_end_before_multiples_of_the_interval() {
    assert_eq!(split(0, 100, 10, 0), [(0, 100)]);
    assert_eq!(
        split(0, 100, 10, 30),
        [(0, 20), (30, 50), (60, 80), (90, 100)]
    );
    assert_eq!(split(5, 62, 19, 30), [(5, 24), (43, 43), (62, 62)]);
    assert_eq!(split(-45, 0, 10, 30), [(-45, -35), (-25, -5)]);
    assert_eq!(split(7, 7, 10, 30), [(7, 7)]);
    assert_eq!(split(0, 40, 20, 7), [(0, 0), (20, 20), (40, 40)]);
    // A query at the end of time made pieces without end, on the thread of the gateway.
    let (first, last) = (i64::MIN, i64::MAX);
    assert_eq!(split(last, last, 1000, 86_400_000), [(last, last)]);
    assert!(split(last - 1, last, 1, 86_400_000).len() <= 2);
    assert_eq!(split(first, first, 1, 86_400_000), [(first, first)]);
    assert_eq!(split(first, last - 1, last, last).len(), 3);
}

#[test]
fn runs_with_different_series_become_sorted_series_with_all_their_points() {
    let early = [series("a", [0, 10]), series("c", [0])];
    let late = [series("a", [20]), series("b", [20, 30]), series("d", [40])];
    let joined = join(&[(0, 10, &early), (20, 30, &late)]);
    assert_eq!(
        joined,
        [
            series("a", [0, 10, 20]),
            series("b", [20, 30]),
            series("c", [0])
        ]
    );
}

#[test]
fn neighbours_become_one_so_that_their_number_stays_small() {
    let fixture = Fixture::new();
    for last in 0..200 {
        let session = fixture
            .open("m", (0, last * 10, 10), i64::MIN, last * 10)
            .unwrap();
        let runs = session.to_evaluate(0);
        assert_eq!(runs, [(last * 10, last * 10)]);
        fixture.results.keep(
            session,
            &[piece(last * 10, last * 10, vec![series("m", [last * 10])])],
            None,
        );
    }
    let session = fixture.open("m", (0, 1990, 10), i64::MIN, 1990).unwrap();
    assert!(session.kept.len() < 3, "{}", session.kept.len());
    assert_eq!(session.answer(&[]), [series("m", (0..200).map(|i| i * 10))]);
}

/// Age is counted from the first that was kept, so that a dashboard which is looked at all the time does not keep it for ever.
#[test]
fn what_is_kept_for_longer_than_it_may_be_is_evaluated_again() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.ask(50), [(0, 90)]);
    fixture.now_ms = 999;
    assert_eq!(fixture.ask(70), [(60, 90)]);
    fixture.now_ms = 1000;
    assert_eq!(fixture.ask(70), [(0, 90)]);
    fixture.now_ms = 1999;
    assert_eq!(fixture.ask(70), [(80, 90)]);
}
