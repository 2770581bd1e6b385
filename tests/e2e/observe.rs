//! What an operator sees of a node, and the switches that he has: modes, pages, profiles, lines of the log, metrics.

use std::process::Command;

use tests::{Response, Server, ServerOptions, unix_now};

use crate::queries::metric;
use crate::series::{body, push};

fn start(config: &str) -> Option<Server> {
    Server::start(ServerOptions {
        config: config.to_owned(),
        ..ServerOptions::default()
    })
}

fn write(server: &Server, tenant: Option<&str>, name: &str) -> Response {
    let labels = [("__name__", name)];
    push(server, tenant, &body(&[(&labels, unix_now() * 1000, 1.0)]))
}

#[test]
fn a_node_that_is_read_only_refuses_writes_and_goes_on_reading() {
    let Some(server) = start("") else { return };
    let admin = server.admin();
    let mode = |mode: &str| admin.form("/ingester/mode", &[("mode", mode)]);
    let count = || {
        server
            .api(None)
            .query("count({__name__=~\"m.*\"})", unix_now() as f64)
    };
    assert_eq!(write(&server, None, "m1").status, 200);
    assert_eq!(admin.get("/ingester/mode", &[]).text(), "ACTIVE\n");

    assert_eq!(mode("READONLY").text(), "READONLY\n");
    let refused = write(&server, None, "m2");
    assert_eq!(refused.status, 503, "a sender keeps it and comes back");
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains("read-only"), "{}", refused.text());
    assert_eq!(count()[0]["value"][1], "1");
    assert_eq!(admin.get("/ready", &[]).status, 200, "reads go on");
    let json = admin.get("/api/v1/admin/mode", &[]);
    assert_eq!(json.json()["mode"], "READONLY");
    assert_eq!(mode("ACTIVE").status, 200);
    assert_eq!(write(&server, None, "m2").status, 200);

    for wrong in ["readonly", "SHUTDOWN", ""] {
        let refused = mode(wrong);
        assert_eq!(refused.status, 400, "{wrong}");
        assert!(refused.text().contains("ACTIVE, READONLY or DRAIN"));
    }

    assert_eq!(mode("DRAIN").text(), "DRAIN\n");
    assert_eq!(admin.get("/ready", &[]).status, 503);
    assert_eq!(write(&server, None, "m3").status, 503);
    assert!(
        metric(&server, "myelin_blocks") >= 1.0,
        "memory is in blocks"
    );
    assert_eq!(count()[0]["value"][1], "2");
    let services = admin.get("/services", &[]).text();
    assert!(services.contains("distributor => Stopping\n"), "{services}");
    assert_eq!(mode("ACTIVE").status, 200);
    assert_eq!(admin.get("/ready", &[]).status, 200);
    assert_eq!(write(&server, None, "m3").status, 200);

    assert_eq!(
        admin.post("/ingester/shutdown", &[], b"").unwrap().status,
        204
    );
    let refused = mode("ACTIVE");
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(admin.get("/ready", &[]).status, 503);
}

#[test]
fn refusals_are_told_with_tenant_and_trace_and_no_more_often_than_is_good() {
    let Some(mut server) = start("auth_enabled: true\nlimits: {max_series_per_user: 1}\n") else {
        return;
    };
    assert_eq!(write(&server, Some("told"), "one").status, 200);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let api = server.api(Some("told"));
    let query = "/api/v1/query?query=up%7B";
    assert_eq!(
        api.get_with(query, &[("traceparent", &traceparent)]).status,
        400
    );
    for _ in 0..200 {
        assert_eq!(write(&server, Some("told"), "two").status, 400);
    }
    let log = server.child().log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("request refused"))
        .collect();
    let query = lines[0];
    for field in [
        "tenant=told",
        "route=prometheus_api_v1_query",
        "status=400",
        "parse error",
    ] {
        assert!(query.contains(field), "{field} is not in {query}");
    }
    assert!(query.ends_with(&format!(" trace_id={trace}")), "{query}");
    assert!(lines[1].contains("route=api_v1_push") && !lines[1].contains("trace_id"));
    // Ten at once, and one a second from then on, however long this took.
    assert!((10..100).contains(&lines.len()), "{} lines", lines.len());
    assert!(metric(&server, "myelin_log_lines_left_out_total") >= 100.0);
    assert!(metric(&server, "log_messages_total") > 10.0);
}

#[test]
fn pages_lead_to_what_there_is_and_profiles_say_what_they_need() {
    let Some(server) = start("") else { return };
    let admin = server.admin();
    let page = admin.get("/", &[]).text();
    let (look, dangerous) = page.split_once("<h2>Dangerous</h2>").expect("two groups");
    let links = |text: &str| {
        let parts = text.split("href=\"").skip(1);
        parts
            .map(|p| p.split('"').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for path in links(look) {
        assert_eq!(admin.get(&path, &[]).status, 200, "{path}");
    }
    assert!(links(dangerous).contains(&"/ingester/shutdown".to_owned()));
    assert_eq!(
        admin.get("/ready", &[]).status,
        200,
        "looking changes nothing"
    );
    let heap = admin.get("/debug/pprof/heap", &[]);
    assert_eq!(heap.status, 501, "{}", heap.text());
    assert!(
        heap.text().contains("MALLOC_CONF=prof:true"),
        "{}",
        heap.text()
    );
    let cpu = admin.get("/debug/pprof/profile", &[]);
    assert!(cpu.status == 501 && cpu.text().contains("perf record"));
    let line = admin.get("/debug/pprof/cmdline", &[]).text();
    assert!(line.contains("-data.dir="), "{line}");
}

/// A process of its own: the environment of the harness' servers is not ours to change.
#[test]
fn a_heap_profile_is_what_jemalloc_writes() {
    let Some(program) = tests::binary("myelin") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (http, grpc) = (tests::free_port(), tests::free_port());
    let mut command = Command::new(program);
    command
        .env("MALLOC_CONF", "prof:true,lg_prof_sample:12")
        .env("TMPDIR", folder.path())
        .arg(format!(
            "-data.dir={}",
            folder.path().join("data").display()
        ))
        .arg(format!("-server.http-listen-port={http}"))
        .arg(format!("-server.grpc-listen-port={grpc}"));
    let _child = tests::Child::start(&mut command, &folder.path().join("log"));
    let api = tests::Api::new(&format!("http://127.0.0.1:{http}"), None);
    let patience = std::time::Duration::from_secs(60);
    tests::wait_until("the server", patience, || {
        api.try_get("/ready", &[]).is_ok_and(|r| r.status == 200)
    });
    for _ in 0..2 {
        let heap = api.get("/debug/pprof/heap", &[]);
        assert_eq!(heap.status, 200, "{}", heap.text());
        let text = heap.text();
        assert!(text.starts_with("heap_v2/4096\n"), "{}", &text[..100]);
        assert!(text.contains("MAPPED_LIBRARIES:"));
    }
    let left = std::fs::read_dir(folder.path()).unwrap();
    let names: Vec<_> = left.map(|e| e.unwrap().file_name()).collect();
    assert!(
        !names.iter().any(|n| n.to_string_lossy().contains("heap")),
        "{names:?}"
    );
}

#[test]
fn metrics_of_cortex_that_mean_something_here_are_there_from_the_start() {
    let Some(server) = start("") else { return };
    assert_eq!(write(&server, None, "m").status, 200);
    server.api(None).query("m", unix_now() as f64);
    let text = server.admin().get("/metrics", &[]).text();
    for name in [
        "cortex_build_info{branch=\"\",goversion=\"\",revision=\"\",version=",
        "cortex_request_message_bytes_count{method=\"POST\",route=\"api_v1_push\"} 1",
        "cortex_response_message_bytes_count{method=\"GET\",route=\"prometheus_api_v1_query\"} 1",
        "cortex_querier_request_duration_seconds_count{method=\"GET\",route=\"prometheus_api_v1_query\",status_code=\"200\",ws=\"false\"} 1",
        "cortex_ingester_queried_series_sum 1",
        "cortex_ingester_queried_samples_count 1",
        "cortex_ingester_memory_metadata 0",
        "myelin_tenant_series{user=\"fake\"} 1",
        "querier_cache_entries{cache=\"results\"} ",
        "prometheus_engine_queries 0",
        "prometheus_engine_queries_concurrent_max 20",
        "cortex_ingester_tsdb_wal_corruptions_total",
        "cortex_ingester_tsdb_compactions_total",
        "log_messages_total{level=\"error\"} 0",
    ] {
        assert!(
            text.lines().any(|l| l.starts_with(name)),
            "{name} is not in\n{text}"
        );
    }
    let sent =
        "cortex_response_message_bytes_sum{method=\"GET\",route=\"prometheus_api_v1_query\"} ";
    let bytes = text.lines().find_map(|l| l.strip_prefix(sent)).unwrap();
    assert!(bytes.parse::<f64>().unwrap() > 50.0, "{bytes}");
}
