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

    // In any case of letters.
    assert_eq!(mode("readonly").text(), "READONLY\n");
    assert_eq!(mode("active").text(), "ACTIVE\n");
    for wrong in ["read-only", "SHUTDOWN", ""] {
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
    for seconds in ["0", "121", "x", "-1", "0.5"] {
        let cpu = admin.get("/debug/pprof/profile", &[("seconds", seconds)]);
        assert_eq!(cpu.status, 400, "{}", cpu.text());
        assert!(cpu.text().contains("from 1 to 120"), "{}", cpu.text());
    }
    let line = admin.get("/debug/pprof/cmdline", &[]).text();
    assert!(line.contains("-data.dir="), "{line}");
}

/// A message of protobuf as numbers of fields with numbers, or with bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number without an end");
    }
    let mut all = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = varint(&mut message);
        let bytes = match tag & 7 {
            0 => &message[..0],
            2 => {
                let (bytes, rest) = message.split_at(value as usize);
                message = rest;
                bytes
            }
            kind => panic!("wire type {kind}"),
        };
        all.push((tag >> 3, value, bytes));
    }
    all
}

/// The names of functions in the samples of a profile, and how many samples there are.
fn functions_of(profile: &[u8]) -> (Vec<String>, u64) {
    let all = fields(profile);
    let of = |field| all.iter().filter(move |one| one.0 == field);
    let strings: Vec<String> = of(6)
        .map(|one| String::from_utf8(one.2.to_vec()).expect("UTF-8"))
        .collect();
    assert_eq!(strings[0], "");
    let number = |message: &[u8], field| {
        let found = fields(message).into_iter().find(|one| one.0 == field);
        found.expect("it has that field").1
    };
    let functions: std::collections::HashMap<u64, String> = of(5)
        .map(|one| (number(one.2, 1), strings[number(one.2, 2) as usize].clone()))
        .collect();
    let locations: std::collections::HashMap<u64, Vec<u64>> = of(4)
        .map(|one| {
            let lines = fields(one.2).into_iter().filter(|field| field.0 == 4);
            (
                number(one.2, 1),
                lines.map(|line| number(line.2, 1)).collect(),
            )
        })
        .collect();
    let packed = |mut bytes: &[u8]| {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let end = bytes
                .iter()
                .position(|byte| byte & 0x80 == 0)
                .expect("an end")
                + 1;
            let value = bytes[..end]
                .iter()
                .rev()
                .fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
            all.push(value);
            bytes = &bytes[end..];
        }
        all
    };
    let (mut names, mut samples) = (Vec::new(), 0);
    for sample in of(2) {
        for (field, _, bytes) in fields(sample.2) {
            match field {
                1 => {
                    let found = packed(bytes)
                        .into_iter()
                        .flat_map(|id| locations[&id].clone());
                    names.extend(found.map(|id| functions[&id].clone()));
                }
                2 => samples += packed(bytes)[0],
                _ => {}
            }
        }
    }
    (names, samples)
}

#[test]
fn a_cpu_profile_of_a_busy_node_names_what_it_does() {
    let Some(server) = start("") else { return };
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
    let profile = || {
        server
            .admin()
            .get("/debug/pprof/profile", &[("seconds", "4")])
    };
    let (answer, refused) = std::thread::scope(|scope| {
        let (server, is_over) = (&server, &is_over);
        scope.spawn(move || {
            while !is_over() {
                assert_eq!(write(server, None, "m").status, 200);
            }
        });
        scope.spawn(move || {
            while !is_over() {
                // Some 100,000 samples.
                server
                    .api(None)
                    .query("sum_over_time(vector(1)[1h:40ms])", unix_now() as f64);
            }
        });
        let first = scope.spawn(profile);
        let mut refused = None;
        while !first.is_finished() && refused.is_none() {
            let other = server
                .admin()
                .get("/debug/pprof/profile", &[("seconds", "1")]);
            refused = Some(other).filter(|other| other.status != 200);
        }
        let mut answer = first.join().expect("no panic");
        // One of the two began. It is taken while there is something to see.
        if answer.status == 409 {
            answer = profile();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        (answer, refused)
    });
    let refused = refused.map_or(409, |refused| refused.status);
    assert_eq!(refused, 409);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (names, samples) = functions_of(&answer.body);
    assert!(samples > 10, "{samples}");
    let ours = |name: &String| {
        ["promql::", "query::", "gateway::", "shard::"]
            .iter()
            .any(|of| name.contains(of))
    };
    assert!(names.iter().any(ours), "{names:?}");
    assert_eq!(server.admin().get("/ready", &[]).status, 200);
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

/// Where standard error could not be written, its disk being full, every request that had something to log ended in a panic: what was to be stored was,
/// and nobody was told.
#[test]
fn a_log_that_cannot_be_written_takes_nothing_with_it() {
    let to_nowhere = ["sh", "-c", "exec \"$@\" >/dev/full 2>/dev/full", "sh"];
    let options = ServerOptions {
        wrapper: to_nowhere.map(str::to_owned).to_vec(),
        ..ServerOptions::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let now = unix_now() * 1000;
    let (good, bad) = ([("__name__", "good")], [("job", "nameless")]);
    let answer = push(&server, None, &body(&[(&good, now, 1.0), (&bad, now, 1.0)]));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(
        answer.text().contains("missing metric name"),
        "{}",
        answer.text()
    );
    let at = (now / 1000).to_string();
    let found = server
        .api(None)
        .data("/api/v1/query", &[("query", "good"), ("time", &at)]);
    assert_eq!(found["result"][0]["value"][1], "1", "{found}");
    assert!(metric(&server, "myelin_log_lines_lost_total") > 1.0);
    server.stop();
}
