//! Measuring against servers that answer well, differently each time, and not at all.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::measure::{Effort, Outcome, geometric_mean_ms, measure};
use super::set::{Query, Times, built_in};
use crate::mock::{Asked, serve};
use crate::process::Process;
use crate::target::TargetOptions;

const EFFORT: Effort = Effort {
    repeat: 3,
    time_max: Duration::from_secs(60),
    timeout: Duration::from_secs(10),
};

const TIMES: Times = Times {
    end_ms: 1_700_000_000_000,
    range_ms: 900_000,
    step_ms: 15_000,
    nocache: true,
};

fn ask(
    query: &Query,
    concurrency: usize,
    answer: impl Fn(&Asked) -> Option<(u16, String)> + Send + Sync + 'static,
) -> Outcome {
    let address = serve(answer);
    let options = TargetOptions {
        url: format!("http://{address}/api/v1/push"),
        query_url: None,
        tenant: Some("a".into()),
    };
    let target = options.resolve().unwrap();
    let server = Process::new(std::process::id()).unwrap();
    measure(
        query,
        &target,
        address,
        &TIMES,
        concurrency,
        &EFFORT,
        Some(&server),
    )
    .unwrap()
}

fn vector(value: &str) -> Option<(u16, String)> {
    let text = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"a":"b"}},"value":[1,"{value}"]}}]}}}}"#
    );
    Some((200, text))
}

#[test]
fn each_connection_asks_once_untimed_and_then_as_often_as_it_should() {
    for query in built_in() {
        let outcome = ask(&query, 4, |asked| {
            assert!(asked.path.starts_with("/prometheus/api/v1/"));
            assert_eq!(asked.header("x-scope-orgid"), Some("a"));
            let whole = asked.path.clone() + &String::from_utf8_lossy(&asked.body);
            assert!(whole.contains("nocache=1"), "{} {whole}", asked.method);
            vector("1")
        });
        assert_eq!((outcome.asked, outcome.rows), (12, 1));
        assert!(outcome.errors.is_empty() && outcome.steady);
        assert!(outcome.cpu_ms.is_some() && outcome.latency.is_some());
    }
}

#[test]
fn answers_that_differ_among_themselves_are_noticed() {
    let number = AtomicU64::new(0);
    let query = &built_in()[0];
    let outcome = ask(query, 2, move |_| {
        vector(&number.fetch_add(1, SeqCst).to_string())
    });
    assert!(outcome.errors.is_empty() && !outcome.steady);
}

#[test]
fn a_query_with_an_error_has_no_figure_and_neither_has_the_mean() {
    let query = &built_in()[0];
    let good = ask(query, 1, |_| vector("1"));
    assert!(geometric_mean_ms([&good].into_iter()).is_some());
    let number = AtomicU64::new(0);
    let outcomes = [
        ask(query, 1, |_| Some((422, "too many samples".into()))),
        ask(query, 1, |_| Some((200, "<html>".into()))),
        ask(query, 1, |_| None),
        ask(query, 1, move |_| {
            let second = number.fetch_add(1, SeqCst) == 1;
            if second {
                Some((503, "busy".into()))
            } else {
                vector("1")
            }
        }),
    ];
    for outcome in &outcomes {
        assert!(!outcome.errors.is_empty());
        assert!(outcome.latency.is_none() && outcome.cpu_ms.is_none());
        assert_eq!(geometric_mean_ms([&good, outcome].into_iter()), None);
    }
    assert!(
        outcomes[0]
            .errors
            .keys()
            .next()
            .unwrap()
            .contains("422: too many samples")
    );
    assert!(outcomes[1].errors.keys().next().unwrap().contains("<html>"));
}
