//! Alerts, rules and dashboards of `docs/mixin`: real promtool checks and tests the rules, and whatever a rule or a dashboard names is there on a running node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Server, ServerOptions, component, root, unix_now, wait_until};

use crate::caches::Memcached;
use crate::queries::{ask_slow, metric};
use crate::series::{body, push};

const PATIENCE: Duration = Duration::from_secs(60);

fn folder() -> PathBuf {
    root().join("docs/mixin")
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules_and_the_alerts_fire_when_they_should() {
    let Some(promtool) = component("promtool") else {
        return;
    };
    for args in [
        &["check", "rules", "rules.yaml", "alerts.yaml"][..],
        &["test", "rules", "tests.yaml"],
    ] {
        let output = Command::new(&promtool)
            .args(args)
            .current_dir(folder())
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(output.status.success(), "promtool {args:?}:\n{told}");
    }
}

/// An expression, and where it stands.
struct Named {
    place: String,
    text: String,
}

/// Expressions of rules; and the names that they record.
fn of_rules(file: &str, found: &mut Vec<Named>, recorded: &mut BTreeSet<String>) {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut name = "";
    for (at, line) in lines.iter().enumerate() {
        let word = line.trim().trim_start_matches("- ");
        if let Some(record) = word.strip_prefix("record: ") {
            recorded.insert(record.to_owned());
            name = record;
        }
        if let Some(alert) = word.strip_prefix("alert: ") {
            name = alert;
        }
        let Some(expr) = word.strip_prefix("expr: ") else {
            continue;
        };
        let indent = |l: &str| l.len() - l.trim_start().len();
        let text = match expr {
            "|" => {
                let more = lines[at + 1..].iter();
                let more = more.take_while(|l| indent(l) > indent(line));
                more.copied().collect::<Vec<_>>().join("\n")
            }
            expr => expr.to_owned(),
        };
        let place = format!("{file}: {name}");
        found.push(Named { place, text });
    }
}

/// Expressions of all panels of the dashboards.
fn of_dashboards(found: &mut Vec<Named>) -> usize {
    let files = std::fs::read_dir(folder().join("dashboards")).unwrap();
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        count += 1;
        for panel in json["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"].as_str().unwrap();
                let text = text.replace("$__rate_interval", "1m");
                let text = text.replace("$job", ".*").replace("$instance", ".*");
                let place = format!("{}: {}", path.display(), panel["title"]);
                found.push(Named { place, text });
            }
        }
    }
    count
}

/// Labels by which an expression groups or joins.
fn grouped_by(text: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for word in ["by (", "on ("] {
        for part in text.split(word).skip(1) {
            let list = part.split(')').next().unwrap();
            labels.extend(list.split(',').map(|l| l.trim().to_owned()));
        }
    }
    labels
}

/// Names of series on a page of metrics, and the labels that they have.
fn exported(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        let labels = found.entry(line[..end].to_owned()).or_default();
        for part in line[end..].split("=\"") {
            let name = part.rsplit(['{', ',']).next().unwrap();
            labels.insert(name.to_owned());
        }
    }
    found
}

fn write(server: &Server, tenant: &str, labels: &[(&str, &str)], time: i64) -> u16 {
    push(server, Some(tenant), &body(&[(labels, time, 1.0)])).status
}

/// A node on which everything has happened once that makes a metric appear.
fn busy() -> Option<Server> {
    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path().join("bucket");
    std::fs::create_dir_all(&bucket).unwrap();
    let cores = folder.path().join("cores");
    std::fs::create_dir(&cores).unwrap();
    let runtime = folder.path().join("runtime.yaml");
    std::fs::write(&runtime, "overrides: {a: {max_series_per_user: 7}}").unwrap();
    let mut memcached = Memcached::start(folder.path())?;
    // Both are read while the server runs, which ends with the test.
    let _ = folder.keep();
    let server = Server::start(ServerOptions {
        config: "auth_enabled: true\n\
                 limits: {accept_ha_samples: true, max_outstanding_requests_per_tenant: 1, max_regex_pattern_length: 9, ha_tracker_failover_timeout: 2s}\n"
            .to_owned(),
        args: vec![
            "-distributor.ha-tracker.enable".to_owned(),
            "-distributor.ha-tracker.update-timeout=1s".to_owned(),
            "-distributor.ha-tracker.update-timeout-jitter-max=0s".to_owned(),
            "-querier.max-concurrent=1".to_owned(),
            "-frontend.log-queries-longer-than=-1s".to_owned(),
            "-blocks-storage.backend=filesystem".to_owned(),
            format!("-blocks-storage.filesystem.dir={}", bucket.display()),
            "-blocks-storage.tsdb.ship-interval=100ms".to_owned(),
            "-blocks-storage.tsdb.ship-unmerged-after=0s".to_owned(),
            format!("-runtime-config.file={}", runtime.display()),
            format!("-data.core-dirs={}", cores.display()),
            format!("-frontend.memcached.addresses=127.0.0.1:{}", memcached.port),
        ],
        ..ServerOptions::default()
    })?;
    let now = unix_now() * 1000;
    assert_eq!(write(&server, "a", &[("__name__", "up")], now), 200);
    let tomorrow = now + 86_400_000;
    assert_eq!(write(&server, "a", &[("__name__", "up")], tomorrow), 400);
    let of = |replica: &'static str, time| {
        let labels = [
            ("__name__", "up"),
            ("__replica__", replica),
            ("cluster", "c"),
        ];
        write(&server, "a", &labels, time)
    };
    assert_eq!(of("one", now), 200);
    assert_eq!(of("two", now), 202);
    wait_until("another election", PATIENCE, || {
        of("two", unix_now() * 1000) == 200
    });
    let api = server.api(Some("a"));
    let time = (now / 1000 - 3600).to_string();
    let end = (now / 1000).to_string();
    let range = [
        ("query", "sum(up)"),
        ("start", &time),
        ("end", &end),
        ("step", "15"),
    ];
    assert_eq!(api.get("/api/v1/query_range", &range).status, 200);
    let kept = "thanos_memcached_operation_duration_seconds_count{name=\"frontend.memcached\",operation=\"set\"}";
    wait_until("the answer to be in memcached", PATIENCE, || {
        metric(&server, kept) > 0.0
    });
    memcached.child.kill();
    let later = [("query", "count(up)"), range[1], range[2], range[3]];
    assert_eq!(api.get("/api/v1/query_range", &later).status, 200);
    let long = [("query", "up{job=~\"a.b.c.d.e.f\"}")];
    assert_eq!(api.get("/api/v1/query", &long).status, 422);
    // One works, one waits, one is refused.
    let slow = [(); 3].map(|()| ask_slow(&server, Some("a")));
    let refused = "cortex_query_frontend_discarded_requests_total";
    wait_until("one to be refused", PATIENCE, || {
        metric(&server, refused) == 1.0
    });
    let running = server.admin().get("/querier/queries", &[]).json();
    for one in running["data"]["running"].as_array().unwrap() {
        let path = format!("/querier/queries/{}/kill", one["id"]);
        server.admin().post(&path, &[], b"").unwrap();
    }
    for thread in slow {
        thread.join().unwrap();
    }
    assert_eq!(
        server
            .admin()
            .get("/ingester/flush", &[("wait", "true")])
            .status,
        204
    );
    Some(server)
}

#[test]
fn whatever_rules_and_dashboards_name_is_exported_by_a_running_node() {
    let (mut named, mut recorded) = (Vec::new(), BTreeSet::new());
    of_rules("rules.yaml", &mut named, &mut recorded);
    of_rules("alerts.yaml", &mut named, &mut recorded);
    let rules = named.len();
    assert!(rules > 40, "{rules} rules are read");
    assert_eq!(of_dashboards(&mut named), 6);
    assert!(
        named.len() > rules + 90,
        "{} expressions of panels",
        named.len() - rules
    );
    let Some(server) = busy() else { return };
    let text = server.admin().get("/metrics", &[]).text();
    let exported = exported(&text);
    let mut wrong = BTreeSet::new();
    for Named { place, text } in &named {
        let expr = promql::parse(text).unwrap_or_else(|e| panic!("{place}: {e}: {text}"));
        let mut labels = BTreeSet::from(["job".to_owned(), "instance".to_owned()]);
        let mut records = false;
        for selector in expr.selectors() {
            let name = selector.matchers.iter().find(|m| m.name() == "__name__");
            let name = name
                .unwrap_or_else(|| panic!("{place}: no name"))
                .value()
                .to_owned();
            records |= recorded.contains(&name);
            match exported.get(&name) {
                Some(has) => {
                    labels.extend(has.iter().cloned());
                    for matcher in selector.matchers.iter().filter(|m| m.name() != "__name__") {
                        if !has.contains(matcher.name())
                            && !matches!(matcher.name(), "job" | "instance")
                        {
                            wrong
                                .insert(format!("{place}: {name} has no label {}", matcher.name()));
                        }
                    }
                }
                None if recorded.contains(&name) => {}
                None => {
                    wrong.insert(format!("{place}: {name} is not exported"));
                }
            }
        }
        for label in grouped_by(text)
            .iter()
            .filter(|l| !l.is_empty() && !records)
        {
            if !labels.contains(label) {
                wrong.insert(format!("{place}: nothing in it has the label {label}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
