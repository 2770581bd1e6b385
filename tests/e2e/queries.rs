//! The query side from outside: what the head holds, plans and their cost, queries that are seen, killed or named after a crash, and hostile
//! ones that end in a clear error while others are served.

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::{Response, Server, ServerOptions, encode_form, rss_bytes, unix_now, wait_until};

use crate::series::{body, push};

fn with_config(config: &str) -> Option<Server> {
    Server::start(ServerOptions {
        config: config.to_owned(),
        ..ServerOptions::default()
    })
}

/// `series` series of the metric `many`, each with samples every 15 s over the last `minutes`.
fn fill(server: &Server, tenant: Option<&str>, series: usize, minutes: i64) {
    let now = unix_now() * 1000;
    let names: Vec<String> = (0..series).map(|n| format!("{n:05}")).collect();
    let labels: Vec<[(&str, &str); 3]> = names
        .iter()
        .map(|n| [("__name__", "many"), ("job", "load"), ("n", n.as_str())])
        .collect();
    for tick in (0..minutes * 4).rev() {
        for some in labels.chunks(2000) {
            let time = now - tick * 15_000;
            let all: Vec<_> = some.iter().map(|l| (&l[..], time, tick as f64)).collect();
            let answer = push(server, tenant, &body(&all));
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

fn error(answer: &Response) -> String {
    let json = answer.json();
    assert_eq!(json["status"], "error", "{json}");
    json["error"].as_str().unwrap().to_owned()
}

/// The value of a metric of the server, over all its labels.
pub(crate) fn metric(server: &Server, name: &str) -> f64 {
    let text = server.admin().get("/metrics", &[]).text();
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '{']) {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    };
    text.lines().filter_map(of).sum()
}

/// A query of many seconds on little memory, whatever is stored: medians over wide windows of a subquery.
const SLOW: &str = "quantile_over_time(0.5, vector(time())[30m:100ms])";

/// Each is another one: identical queries would be one evaluation.
pub(crate) fn ask_slow(server: &Server, tenant: Option<&str>) -> thread::JoinHandle<Response> {
    static ASKED: AtomicI64 = AtomicI64::new(0);
    let (api, now) = (server.api(tenant), unix_now());
    let other = ASKED.fetch_add(1, Ordering::Relaxed);
    thread::spawn(move || {
        let (start, end) = ((now - 9_000 - other).to_string(), now.to_string());
        let range = [
            ("query", SLOW),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        api.get("/api/v1/query_range", &range)
    })
}

#[test]
fn the_head_tells_what_costs_most_and_only_to_its_tenant() {
    let Some(server) = with_config("auth_enabled: true\n") else {
        return;
    };
    fill(&server, Some("a"), 300, 1);
    let api = server.api(Some("a"));
    let head = api.data("/api/v1/status/tsdb", &[("limit", "1")]);
    assert_eq!(head["headStats"]["numSeries"], 300, "{head}");
    assert_eq!(head["headStats"]["numLabelPairs"], 302, "{head}");
    assert_eq!(head["seriesCountByMetricName"][0]["name"], "many");
    assert_eq!(head["seriesCountByMetricName"][0]["value"], 300);
    assert_eq!(head["labelValueCountByLabelName"][0]["name"], "n");
    assert_eq!(
        head["labelValueCountByLabelName"].as_array().unwrap().len(),
        1
    );
    // Bytes of values, each once for every series: 4 for the name and the job, 5 for the number.
    assert_eq!(head["memoryInBytesByLabelName"][0]["value"], 1500, "{head}");
    assert_eq!(
        head["seriesCountByLabelValuePair"][0]["name"],
        "__name__=many"
    );
    for bad in ["0", "-1", "x", "10001"] {
        let answer = api.get("/api/v1/status/tsdb", &[("limit", bad)]);
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    let other = server.api(Some("b")).data("/api/v1/status/tsdb", &[]);
    assert_eq!(other["headStats"]["numSeries"], 0, "{other}");

    let names = api
        .get("/api/v1/cardinality/label_names", &[("limit", "2")])
        .json();
    assert_eq!(names["label_names_count"], 3, "{names}");
    assert_eq!(
        names["cardinality"][0]["label_values_count"], 300,
        "{names}"
    );
    for selector in ["", "{n=~\"0000.\"}"] {
        let mut params = vec![("label_names[]", "job")];
        if !selector.is_empty() {
            params.push(("selector", selector));
        }
        let values = api.get("/api/v1/cardinality/label_values", &params).json();
        let wanted = if selector.is_empty() { 300 } else { 10 };
        assert_eq!(values["series_count_total"], wanted, "{values}");
        let job = &values["labels"][0];
        assert_eq!(job["cardinality"][0]["label_value"], "load", "{values}");
        assert_eq!(job["cardinality"][0]["series_count"], wanted, "{values}");
    }
    let active = [("selector", "{n=~\"0000[12]\"}")];
    let active = api.get("/api/v1/cardinality/active_series", &active).json();
    assert_eq!(active["data"].as_array().unwrap().len(), 2, "{active}");
}

#[test]
fn a_plan_is_explained_and_its_cost_measured() {
    let Some(server) = Server::plain() else {
        return;
    };
    fill(&server, None, 200, 2);
    let api = server.api(None);
    let query = "sum by (job) (rate(many{n=~\"000..\"}[1m])) / 2";
    let plan = api.data("/api/v1/explain", &[("query", query)]);
    assert_eq!(plan["plan"]["kind"], "binary", "{plan}");
    assert_eq!(
        plan["plan"]["children"][0]["detail"], "sum by (job)",
        "{plan}"
    );
    let selector = &plan["selectors"][0];
    assert_eq!(selector["estimated"]["series"], 200, "{plan}");
    assert!(selector.get("fetched").is_none() && plan.get("run").is_none());
    let now = unix_now();
    let (start, end) = ((now - 60).to_string(), now.to_string());
    let range = [
        ("query", query),
        ("analyze", "true"),
        ("start", &start),
        ("end", &end),
        ("step", "15"),
    ];
    let plan = api.data("/api/v1/explain", &range);
    assert_eq!(plan["steps"], 5);
    assert_eq!(plan["selectors"][0]["fetched"]["series"], 100, "{plan}");
    assert!(plan["selectors"][0]["decoded"]["samples"].as_u64().unwrap() >= 100);
    let sum = &plan["plan"]["children"][0];
    assert_eq!(sum["cost"]["series"], 1, "{plan}");
    assert!(plan["run"]["totalQueryableSamples"].as_u64().unwrap() > 0);
    let bad = api.get("/api/v1/explain", &[("query", "1"), ("analyze", "maybe")]);
    assert_eq!(bad.status, 400);
}

#[test]
fn statistics_tell_the_samples_of_every_step() {
    let Some(server) = Server::plain() else {
        return;
    };
    fill(&server, None, 3, 2);
    let now = unix_now();
    let (start, end) = ((now - 30).to_string(), now.to_string());
    let range = [
        ("query", "sum(many)"),
        ("stats", "all"),
        ("start", &start),
        ("end", &end),
        ("step", "15"),
    ];
    let samples = &server.api(None).data("/api/v1/query_range", &range)["stats"]["samples"];
    let steps = samples["totalQueryableSamplesPerStep"].as_array().unwrap();
    assert_eq!(steps.len(), 3, "{samples}");
    assert_eq!(steps[0][0], now - 30);
    let sum: u64 = steps.iter().map(|s| s[1].as_u64().unwrap()).sum();
    assert_eq!(samples["totalQueryableSamples"], sum);
    assert_eq!(steps[1][1], 3, "{samples}");
}

#[test]
fn a_query_is_seen_and_killed_by_its_tenant_and_the_operator_and_by_nobody_else() {
    let Some(server) = with_config("auth_enabled: true\n") else {
        return;
    };
    fill(&server, Some("a"), 20, 1);
    for admin in [false, true] {
        let victim = ask_slow(&server, Some("a"));
        let seen = || server.api(Some("a")).data("/api/v1/queries", &[]);
        wait_until("the query to be seen", Duration::from_secs(20), || {
            seen().as_array().is_some_and(|all| !all.is_empty())
        });
        let one = seen()[0].clone();
        assert_eq!((&one["query"], &one["tenant"]), (&SLOW.into(), &"a".into()));
        let id = one["id"].as_u64().unwrap();
        let other = server.api(Some("b"));
        assert_eq!(other.data("/api/v1/queries", &[]), serde_json::json!([]));
        let path = format!("/api/v1/queries/{id}/kill");
        assert_eq!(other.post(&path, &[], b"").unwrap().status, 404);
        let answer = match admin {
            false => server.api(Some("a")).post(&path, &[], b""),
            true => {
                let all = server.admin().get("/querier/queries", &[]).json();
                assert_eq!(all["data"]["running"][0]["id"], id, "{all}");
                let path = format!("/querier/queries/{id}");
                server.admin().post(&path, &[], b"")
            }
        };
        assert_eq!(answer.unwrap().status, 200);
        let answer = victim.join().unwrap();
        assert_eq!(answer.status, 499, "{}", answer.text());
        assert!(error(&answer).contains("killed"), "{}", answer.text());
    }
    wait_until(
        "the memory to be given back",
        Duration::from_secs(20),
        || metric(&server, "myelin_query_memory_bytes") == 0.0,
    );
}

#[test]
fn the_query_that_was_at_work_when_the_node_died_is_named_after_it() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    fill(&server, None, 20, 1);
    let victim = ask_slow(&server, None);
    let file = server.data().join("queries.active");
    let written = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until(
        "the query to be written down",
        Duration::from_secs(20),
        || written().contains("quantile_over_time"),
    );
    server.kill();
    // The client finds a broken connection, which panics in its thread.
    let _ = victim.join();
    server.restart();
    let all = server.admin().get("/querier/queries", &[]).json();
    let left = all["data"]["atLastCrash"].as_array().unwrap().clone();
    assert_eq!(left.len(), 1, "{all}");
    let left: serde_json::Value = serde_json::from_str(left[0].as_str().unwrap()).unwrap();
    assert_eq!(left["query"], SLOW);
    assert!(
        server
            .child()
            .log()
            .contains("was at work when the node ended")
    );
    assert_eq!(metric(&server, "myelin_query_unfinished_at_start"), 1.0);
    server.stop();
    server.restart();
    assert_eq!(metric(&server, "myelin_query_unfinished_at_start"), 0.0);
}

#[test]
fn a_tenant_at_its_bounds_is_told_which_and_others_are_served() {
    let config = "auth_enabled: true\n\
                  querier: {max_concurrent: 4}\n\
                  limits: {max_concurrent_queries: 1, max_outstanding_requests_per_tenant: 1,\n\
                  max_fetched_series_per_query: 10, promql_experimental_functions_enabled: false}\n";
    let Some(server) = with_config(config) else {
        return;
    };
    fill(&server, Some("a"), 9, 1);
    let (api, now) = (server.api(Some("a")), unix_now() as f64);
    let experimental = [("query", "mad_over_time(many[1m])")];
    let answer = api.get("/api/v1/query", &experimental);
    assert_eq!(answer.status, 400);
    assert!(
        error(&answer).contains("\"mad_over_time\" is not enabled"),
        "{}",
        answer.text()
    );
    let victims = [ask_slow(&server, Some("a")), ask_slow(&server, Some("a"))];
    wait_until(
        "one to work and one to wait",
        Duration::from_secs(20),
        || {
            let all = server.admin().get("/querier/queries", &[]).json();
            all["data"]["running"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
        },
    );
    let answer = api.get("/api/v1/query", &[("query", "1")]);
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(error(&answer).contains("too many outstanding requests"));
    assert!(answer.header("retry-after").is_some());
    let other = server.api(Some("b")).query("1 + 1", now);
    assert_eq!(other[1], "2");
    for one in server.admin().get("/querier/queries", &[]).json()["data"]["running"]
        .as_array()
        .unwrap()
    {
        let path = format!("/querier/queries/{}", one["id"]);
        assert_eq!(server.admin().post(&path, &[], b"").unwrap().status, 200);
    }
    for victim in victims {
        assert_eq!(victim.join().unwrap().status, 499);
    }
    fill(&server, Some("c"), 11, 1);
    let answer = server
        .api(Some("c"))
        .get("/api/v1/query", &[("query", "many")]);
    assert_eq!(answer.status, 422);
    let text = error(&answer);
    assert!(
        text.contains(
            "the query hit the max number of series limit (limit: 10 series, at least 11 found"
        ),
        "{text}"
    );
}

/// Tells the others to end.
struct Finish<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Story: everything over eleven thousand steps held gigabytes, and whoever asked next paid for it.
#[test]
fn hostile_queries_end_in_a_clear_error_while_others_are_served_and_memory_stays_bounded() {
    const MEMORY: u64 = 64 << 20;
    let config = format!(
        "querier: {{max_memory: {}, timeout: 20s}}\n\
         limits: {{max_estimated_memory_consumption_per_query: {MEMORY}}}\n",
        3 * MEMORY
    );
    let Some(mut server) = with_config(&config) else {
        return;
    };
    fill(&server, None, 8000, 2);
    let before = rss_bytes(server.child().pid());
    let now = unix_now();
    let (start, end) = ((now - 11_000).to_string(), now.to_string());
    let nested = (0..12).fold("many".to_owned(), |inner, _| {
        format!("max_over_time(({inner})[1h:1s])")
    });
    let catastrophic = format!("{{n=~\"(({})*)*x\"}}", "(a|a)*".repeat(40));
    let hostile: Vec<(&str, String)> = vec![
        ("everything", "{__name__=~\".+\"}".to_owned()),
        (
            "everything twice",
            "{__name__=~\".+\"} + {n!=\"\"}".to_owned(),
        ),
        ("nested subqueries", nested),
        (
            "a regex bomb",
            "many{n=~\"((a{1000}){1000}){1000}\"}".to_owned(),
        ),
        ("an alternation of stars", catastrophic),
        ("9 MB of text", format!("sum({})", "a".repeat(9 << 20))),
        ("11 MB of text", format!("sum({})", "a".repeat(11 << 20))),
    ];
    let api = server.api(None);
    let done = std::sync::atomic::AtomicBool::new(false);
    let served = thread::scope(|scope| {
        // Also when an attack fails, or the scope would wait for ever.
        let finished = Finish(&done);
        let others = scope.spawn({
            let (api, done) = (api.clone(), &done);
            move || {
                let mut served = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let found = api.query("count(many{n=\"00001\"})", now as f64);
                    assert_eq!(found[0]["value"][1], "1");
                    served += 1;
                }
                served
            }
        });
        let attack = |(what, query): &(&str, String)| {
            let begun = Instant::now();
            let params = [
                ("query", query.as_str()),
                ("start", &start),
                ("end", &end),
                ("step", "1"),
            ];
            let form = encode_form(&params);
            let headers = [("Content-Type", "application/x-www-form-urlencoded")];
            let answer = match api.post("/api/v1/query_range", &headers, form.as_bytes()) {
                Ok(answer) => answer,
                // Refused before all of it was sent; not every client reads the answer then.
                Err(_) if *what == "11 MB of text" => return,
                Err(error) => panic!("{what}: {error}"),
            };
            let shown = answer.text();
            let shown = shown.get(..300).unwrap_or(&shown);
            // The regex of stars is harmless here, where matching is linear: it may find nothing.
            let harmless = *what == "an alternation of stars" && answer.status == 200;
            assert!(
                harmless || (400..=503).contains(&answer.status),
                "{what}: {} {shown}",
                answer.status
            );
            assert!(harmless || !error(&answer).is_empty(), "{what}");
            assert!(begun.elapsed() < Duration::from_secs(40), "{what}: {shown}");
            println!("{what}: {} {shown}", answer.status);
        };
        hostile.iter().for_each(attack);
        thread::scope(|scope| {
            let storms = hostile.iter().map(|one| scope.spawn(move || attack(one)));
            storms
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|storm| storm.join().unwrap());
        });
        drop(finished);
        others.join().unwrap()
    });
    assert!(served > 10, "others were hardly served: {served}");
    let grown = rss_bytes(server.child().pid()).saturating_sub(before);
    assert!(grown < 700 << 20, "grew by {grown} bytes");
    wait_until(
        "the memory to be given back",
        Duration::from_secs(30),
        || metric(&server, "myelin_query_memory_bytes") == 0.0,
    );
    assert!(server.child().ended().is_none());
}
