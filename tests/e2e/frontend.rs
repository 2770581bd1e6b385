//! What stands before the evaluation of a query: rules and bounds of a tenant, the queue, identical queries, and what the log tells.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use tests::{Response, Server, ServerOptions, encode_form, unix_now, wait_until};

use crate::queries::{ask_slow, metric};
use crate::series::{body, push};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(config: &str, args: &[&str]) -> Option<Server> {
    Server::start(ServerOptions {
        config: format!("auth_enabled: true\n{config}"),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        ..ServerOptions::default()
    })
}

/// One series of `up` with a sample now.
fn write(server: &Server, tenant: &str) -> i64 {
    let now = unix_now();
    let labels = [("__name__", "up"), ("instance", "one")];
    let answer = push(server, Some(tenant), &body(&[(&labels, now * 1000, 1.0)]));
    assert_eq!(answer.status, 200, "{}", answer.text());
    now
}

fn refused(answer: &Response, status: u16, kind: &str, text: &str) {
    let json = answer.json();
    assert_eq!(answer.status, status, "{json}");
    assert_eq!(
        (&json["status"], &json["errorType"]),
        (&"error".into(), &kind.into())
    );
    assert!(json["error"].as_str().unwrap().contains(text), "{json}");
}

#[test]
fn rules_and_bounds_of_a_tenant_are_answered_in_the_envelope_and_counted() {
    let config = "
limits:
  max_query_length: 1d
  max_query_response_size: 400
  max_regex_pattern_length: 20
  query_rejection:
    enabled: true
    query_attributes:
    - {regex: 'topk', api_type: query_range}
    - {user_agent_regex: '^badbot'}
";
    let Some(mut server) = start(
        config,
        &[
            "-frontend.log-queries-longer-than=-1s",
            "-frontend.query-stats-enabled",
        ],
    ) else {
        return;
    };
    let now = write(&server, "a");
    let api = server.api(Some("a"));
    let range = |query: &str, hours: i64| {
        let (start, end) = ((now - hours * 3600).to_string(), now.to_string());
        let params = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", "3600"),
        ];
        api.get("/api/v1/query_range", &params)
    };
    let too_long = "the query time range exceeds the limit (query length: 172800s, limit: 86400s)";
    refused(&range("up", 48), 400, "bad_data", too_long);
    assert_eq!(range("up", 12).status, 200);
    let rejected = "rejected by the service operator";
    refused(&range("topk(1, up)", 12), 422, "execution", rejected);
    let instant = |query: &str| api.get("/api/v1/query", &[("query", query)]);
    assert_eq!(instant("topk(1, up)").status, 200);
    let (start, end) = ((now - 3600).to_string(), now.to_string());
    let explained = [
        ("query", "topk(1, up)"),
        ("start", &start),
        ("end", &end),
        ("step", "60"),
        ("analyze", "true"),
    ];
    let explained = api.get("/api/v1/explain", &explained);
    refused(&explained, 422, "execution", rejected);
    let bot = api.get_with("/api/v1/query?query=up", &[("User-Agent", "badbot/2")]);
    refused(&bot, 422, "execution", rejected);
    let large = "label_replace(up, \"x\", \"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\", \"\", \"\")";
    refused(
        &instant(large),
        422,
        "execution",
        "response size exceeds limit (limit: 400 bytes",
    );
    refused(
        &instant("up{instance=~\"one|two|three|four|five\"}"),
        422,
        "execution",
        "max_regex_pattern_length",
    );
    for (reason, count) in [
        ("time_range_exceeded", 1),
        ("query_rejected", 3),
        ("response_size_exceeded", 1),
        ("unoptimized_regex_matcher", 1),
    ] {
        let line =
            format!("cortex_rejected_queries_total{{reason=\"{reason}\",user=\"a\"}} {count}");
        let metrics = server.admin().get("/metrics", &[]).text();
        assert!(
            metrics.lines().any(|l| l == line),
            "{line} is not in\n{metrics}"
        );
    }
    assert!(metric(&server, "cortex_slow_queries_total") >= 7.0);
    let log = server.child().log();
    let line = |what: &str, of: &str| {
        let found = log.lines().find(|l| l.contains(what) && l.contains(of));
        found
            .unwrap_or_else(|| panic!("no {what} of {of} in\n{log}"))
            .to_owned()
    };
    let slow = line(
        "slow query detected",
        "param_query=\"topk(1, up)\" param_time=\"\" param_start=1",
    );
    for field in [
        "tenant=a",
        "method=GET",
        "path=/prometheus/api/v1/query_range",
        "status=422",
        "param_step=3600",
    ] {
        assert!(slow.contains(field), "{field} is not in {slow}");
    }
    let stats = line("query stats", "param_query=\"topk(1, up)\"");
    for field in [
        "tenant=a",
        "fetched_series_count=1",
        "samples_count=1",
        "query_wall_time_seconds=",
    ] {
        assert!(stats.contains(field), "{field} is not in {stats}");
    }
}

/// While the only place is taken, the same question comes from several clients, the first of whom hangs up; then the place becomes free.
#[test]
fn identical_queries_that_wait_are_one_evaluation_also_when_the_first_client_leaves() {
    let Some(server) = start("", &["-querier.max-concurrent=1"]) else {
        return;
    };
    let now = write(&server, "a");
    write(&server, "b");
    let place = ask_slow(&server, Some("busy"));
    let listed = || server.admin().get("/querier/queries", &[]).json()["data"]["running"].clone();
    wait_until("the place to be taken", PATIENCE, || {
        listed()[0]["state"] == "working"
    });

    let params = [("query", "sum(up)"), ("time", &now.to_string())];
    let path = format!("/prometheus/api/v1/query?{}", encode_form(&params));
    let mut first = TcpStream::connect(server.address()).unwrap();
    write!(
        first,
        "GET {path} HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: a\r\n\r\n"
    )
    .unwrap();
    let waits = |tenant: &str, count: usize| {
        let line = format!("cortex_query_frontend_queue_length{{user=\"{tenant}\"}} {count}");
        server
            .admin()
            .get("/metrics", &[])
            .text()
            .lines()
            .any(|l| l == line)
    };
    wait_until("the first to wait", PATIENCE, || waits("a", 1));
    let ask = |tenant: &str| {
        let (api, time) = (server.api(Some(tenant)), now.to_string());
        thread::spawn(move || api.get("/api/v1/query", &[("query", "sum(up)"), ("time", &time)]))
    };
    let mut others: Vec<_> = (0..4).map(|_| ask("a")).collect();
    others.push(ask("b"));
    wait_until("all to be there", PATIENCE, || {
        metric(&server, "myelin_query_frontend_shared_total") == 4.0 && waits("b", 1)
    });
    assert!(waits("a", 1), "those of a are one");
    drop(first);
    let gone = || {
        let metrics = server.admin().get("/metrics", &[]).text();
        let of = |l: &str| {
            l.starts_with("cortex_request_duration_seconds_count") && l.contains("\"499\"")
        };
        metrics.lines().any(of)
    };
    wait_until("the server to notice", PATIENCE, gone);
    let id = listed()[0]["id"].clone();
    let kill = format!("/querier/queries/{id}/kill");
    assert_eq!(server.admin().post(&kill, &[], b"").unwrap().status, 200);
    assert_eq!(place.join().unwrap().status, 499);
    for answer in others {
        let answer = answer.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["data"]["result"][0]["value"][1], "1");
    }
    for tenant in ["a", "b"] {
        let line =
            format!("cortex_query_frontend_queries_total{{op=\"query\",user=\"{tenant}\"}} 1");
        let metrics = server.admin().get("/metrics", &[]).text();
        assert!(metrics.lines().any(|l| l == line), "{metrics}");
    }
}

#[test]
fn what_was_acknowledged_before_a_query_is_in_its_answer_however_many_ask_the_same() {
    let Some(server) = start("", &[]) else {
        return;
    };
    let now = unix_now() * 1000;
    thread::scope(|scope| {
        for n in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for i in 0..40 {
                    let series = format!("{n}-{i}");
                    let labels = [("__name__", "told"), ("n", series.as_str())];
                    let answer = push(server, Some("a"), &body(&[(&labels, now, 1.0)]));
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    // The same question from all of them, each after a write of its own.
                    let time = (now / 1000).to_string();
                    let params = [("query", "told"), ("time", time.as_str())];
                    let answer = server.api(Some("a")).get("/api/v1/query", &params);
                    let found = answer.json()["data"]["result"].as_array().unwrap().clone();
                    let is_there = found.iter().any(|s| s["metric"]["n"] == series.as_str());
                    assert!(is_there, "{series} is not among {}", found.len());
                }
            });
        }
    });
}
