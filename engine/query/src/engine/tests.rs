//! Admission, deadline, quarantine; over mailboxes that nobody empties, so that only the engine itself is looked at.

use shard::Mailboxes;

use super::*;

/// An engine over mailboxes that nobody empties.
fn engine() -> Engine {
    let mailboxes = Mailboxes::new(1, 1 << 20, 100);
    Engine::start(Options::new(1), mailboxes, &Registry::new())
}

fn caller() -> Caller {
    let limits = Arc::new(TenantLimits::unlimited());
    Caller {
        tenant: TenantId::fake(),
        limits,
        now_ms: 0,
        client: Arc::default(),
    }
}

#[tokio::test]
async fn a_text_that_made_us_panic_is_counted_and_refused_for_a_while() {
    let (engine, caller) = (engine(), caller());
    let explode = async |_: &Turn| engine.run(|| panic!("boom")).await;
    let error = engine
        .bounded::<()>(Asking::plain("query", "boom"), &caller, explode)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Panicked), "{error}");
    assert_eq!(
        (error.class(), engine.metrics.panics.get()),
        (Class::Internal, 1)
    );
    let again = Query {
        text: "boom".to_owned(),
        times: Times::Instant(0),
        timeout: None,
        lookback: None,
        per_step: false,
        uncached: false,
        waited: std::time::Duration::ZERO,
    };
    let error = engine.query(&caller, again).await.unwrap_err();
    assert!(matches!(error, Error::Quarantined), "{error}");
    assert_eq!(engine.metrics.panics.get(), 1);
    assert!(engine.format(&caller, "1+1".to_owned()).await.is_ok());
}

#[tokio::test]
async fn a_core_that_does_not_answer_costs_no_more_than_the_deadline() {
    let query = Query {
        text: "up".to_owned(),
        times: Times::Instant(0),
        timeout: Some(Duration::from_millis(50)),
        lookback: None,
        per_step: false,
        uncached: false,
        waited: std::time::Duration::ZERO,
    };
    let error = engine().query(&caller(), query).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
}

#[tokio::test]
async fn a_query_behind_the_lookback_limit_is_empty_and_asks_no_core() {
    let limits = TenantLimits {
        max_query_lookback: Duration::from_secs(3600),
        ..TenantLimits::unlimited()
    };
    let caller = Caller {
        limits: Arc::new(limits),
        now_ms: 10_000_000,
        ..caller()
    };
    let query = Query {
        text: "up".to_owned(),
        times: Times::Instant(0),
        timeout: Some(Duration::from_secs(60)),
        lookback: None,
        per_step: false,
        uncached: false,
        waited: std::time::Duration::ZERO,
    };
    // The mailbox of this engine is never answered: a read would end in a timeout.
    let answer = engine().query(&caller, query.clone()).await.unwrap();
    assert_eq!(answer.value, QueryValue::Vector(Vec::new()));

    // Of a range the steps behind the limit are not there, whatever they would say; the others are the ones that were asked for.
    let steps = async |text: &str, start, end| {
        let query = Query {
            text: text.to_owned(),
            times: Times::Range {
                start,
                end,
                step: 1_000_000,
            },
            ..query.clone()
        };
        match engine().query(&caller, query).await?.value {
            QueryValue::Matrix(series) => {
                let times = series.iter().flat_map(|one| one.floats.iter());
                Ok::<Vec<i64>, Error>(times.map(|point| point.t).collect())
            }
            other => panic!("{other:?}"),
        }
    };
    for text in ["1", "vector(1)"] {
        let seen = steps(text, 5_500_000, 8_000_000).await.unwrap();
        assert_eq!(seen, [6_500_000, 7_500_000], "{text}");
        assert_eq!(
            steps(text, 6_400_000, 6_400_000).await.unwrap(),
            [6_400_000],
            "the limit itself"
        );
        assert_eq!(
            steps(text, 0, 6_399_999).await.unwrap(),
            [0_i64; 0],
            "{text}"
        );
        assert_eq!(
            steps(text, 6_300_000, 7_000_000).await.unwrap(),
            [0_i64; 0],
            "{text}: the first step is hidden and there is no other"
        );
    }
    assert!(
        steps("1 +", 0, 1).await.is_err(),
        "what is no query stays none"
    );
}
