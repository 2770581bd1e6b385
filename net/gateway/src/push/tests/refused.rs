//! Series that were refused before cost no message and no parse, and are taken again when they may be.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn pairs(names: &[String]) -> Vec<[(&str, &str); 1]> {
    names
        .iter()
        .map(|name| [("__name__", name.as_str())])
        .collect()
}

async fn scrape(rig: &Rig, names: &[String], time: i64) -> (u16, String) {
    let pairs = pairs(names);
    let all: Vec<_> = pairs.iter().map(|pairs| (&pairs[..], time, 1.0)).collect();
    rig.push(&all).await
}

#[tokio::test(start_paused = true)]
async fn an_over_limit_tenant_is_told_the_same_every_scrape_and_the_cores_are_asked_once() {
    let rig = Rig::new();
    rig.cores.limit_series(3);
    let limits = TenantLimits {
        max_series_per_user: 3,
        ..TenantLimits::cortex()
    };
    rig.overrides.replace(limits, []);
    let names: Vec<String> = (0..10).map(|i| format!("m{i}")).collect();
    let first = scrape(&rig, &names, 1).await;
    assert_eq!(first.0, 400);
    let asked = rig.cores.counts().1;
    assert_eq!(asked, 10);
    for time in 2..6 {
        // The words are those of the first refused series of the body, in its order.
        assert_eq!(scrape(&rig, &names[3..], time).await, {
            let (status, text) = first.clone();
            (status, text)
        });
    }
    assert_eq!(rig.cores.counts().1, asked, "nothing was sent again");
    assert_eq!(
        rig.metric("myelin_series_refused_again_total", ""),
        4.0 * 7.0
    );
    assert_eq!(rig.metric("myelin_aliases_refused", ""), 7.0);
    assert_eq!(
        rig.metric("cortex_discarded_samples_total", "per_user_series_limit"),
        7.0 * 5.0
    );
    assert_eq!(
        rig.metric("cortex_distributor_samples_in_total", "a"),
        10.0 + 4.0 * 7.0
    );
    rig.assert_nothing_held();
}

#[tokio::test(start_paused = true)]
async fn a_series_beyond_a_limit_is_answered_429_where_the_tenant_has_it_so() {
    let rig = Rig::new();
    rig.cores.limit_series(1);
    let limits = TenantLimits {
        max_series_per_user: 1,
        series_limit_status: model::SeriesLimitStatus::TooManyRequests,
        ..TenantLimits::cortex()
    };
    rig.overrides.replace(limits, []);
    let names: Vec<String> = (0..2).map(|i| format!("m{i}")).collect();
    // The second is refused from memory.
    for time in 1..3 {
        let (status, text) = scrape(&rig, &names, time).await;
        assert_eq!(status, 429, "{text}");
        assert!(
            text.contains("per-user series limit of 1 exceeded"),
            "{text}"
        );
    }
    assert_eq!(scrape(&rig, &names[..1], 3).await.0, 200);
    // What is wrong otherwise is as ever.
    let unnamed: &[(&str, &str)] = &[("a", "b")];
    assert_eq!(rig.push(&[(unnamed, 4, 1.0)]).await.0, 400);
    rig.assert_nothing_held();
}

/// A limit frees up without a word to the gateway: after a few minutes each series is tried again, and when one of them is taken all the
/// others are tried at once, however long their aliases would have held.
#[tokio::test(start_paused = true)]
async fn a_limit_that_frees_up_is_noticed_within_minutes() {
    let rig = Rig::new();
    rig.cores.limit_series(0);
    let names: Vec<String> = (0..40).map(|i| format!("m{i}")).collect();
    assert_eq!(scrape(&rig, &names, 1).await.0, 400);
    rig.cores.limit_series(100);
    let mut minutes = 0;
    while rig.stored("a").len() < names.len() {
        assert!(minutes < 6, "{} are stored", rig.stored("a").len());
        tokio::time::advance(MINUTE).await;
        minutes += 1;
        scrape(&rig, &names, 1 + minutes).await;
        if !rig.stored("a").is_empty() {
            scrape(&rig, &names, 100 + minutes).await;
            assert_eq!(rig.stored("a").len(), names.len(), "one was taken, so all");
        }
    }
    assert!(minutes > 1, "they were remembered for a while");
    assert_eq!(scrape(&rig, &names, 1000).await.0, 200);
    assert_eq!(rig.metric("myelin_aliases_refused", ""), 0.0);
}

#[tokio::test(start_paused = true)]
async fn labels_that_break_a_rule_are_remembered_until_the_rule_changes() {
    let rig = Rig::new();
    let limits = |max| TenantLimits {
        max_label_names_per_series: max,
        ..TenantLimits::cortex()
    };
    rig.overrides.replace(limits(2), []);
    let first = rig.push(&[(UP, 1, 1.0), (DOWN, 1, 1.0)]).await;
    assert_eq!(first.0, 400);
    assert!(first.1.contains("limit: 2"), "{}", first.1);
    assert_eq!(rig.push(&[(UP, 1, 1.0), (DOWN, 2, 1.0)]).await, first);
    assert_eq!(rig.metric("myelin_series_refused_again_total", ""), 1.0);
    assert_eq!(
        rig.metric(
            "cortex_discarded_samples_total",
            "max_label_names_per_series"
        ),
        2.0
    );
    rig.overrides.replace(limits(3), []);
    assert_eq!(rig.push(&[(UP, 3, 1.0), (DOWN, 3, 1.0)]).await.0, 200);
    assert_eq!(rig.stored("a")[UP_TEXT], [(3, 1.0)]);
}

#[tokio::test(start_paused = true)]
async fn a_tenants_refusals_are_no_others() {
    let rig = Rig::new();
    rig.cores.limit_series(0);
    let body = snappy::pack(&request(&[(UP, 1, 1.0)]));
    assert_eq!(rig.send_as("a", body.clone()).await.0, 400);
    rig.cores.limit_series(10);
    assert_eq!(rig.send_as("b", body.clone()).await.0, 200);
    assert_eq!(rig.send_as("a", body).await.0, 400, "remembered");
}
