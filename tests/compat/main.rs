//! The conformance tools beside the project, run against a server of ours. Skipped, loudly, where they do not lie there.
//!
//! Each tool ends with a line `N passed, N failed, N skipped`; the bounds are those that the project promises.

use std::path::Path;
use std::process::Command;

use tests::{Cluster, Server, ServerOptions, component, shared};

/// Tenants on and all limits out of the way, as the tools demand.
const CONFIG: &str = "\
auth_enabled: true
limits:
  ingestion_rate: 100000000
  ingestion_burst_size: 100000000
  max_series_per_user: 0
  max_series_per_metric: 0
  max_label_names_per_series: 600
";

struct Verdict {
    passed: u32,
    failed: u32,
    output: String,
}

fn run(tool: &str, server: &Server, args: &[&str]) -> Option<Verdict> {
    run_on(tool, (server, server), args)
}

/// Pushes go to one server, queries to another.
fn run_on(tool: &str, (pushed, asked): (&Server, &Server), args: &[&str]) -> Option<Verdict> {
    let folder = shared("conformance")?;
    let python = component("python3")?;
    let mut command = Command::new(python);
    command
        .current_dir(&folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(folder.join(tool))
        .arg(format!("--base-url={}/prometheus", asked.url()))
        .arg(format!("--push-url={}", pushed.push_url()))
        .args(args);
    let output = command.output().expect("python3 runs");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let count = |what: &str| {
        text.lines()
            .rev()
            .find(|l| l.contains(" passed, "))
            .and_then(|l| {
                let part = l.split(',').find(|p| p.contains(what))?;
                part.split_whitespace()
                    .find_map(|w| w.trim_matches(':').parse().ok())
            })
    };
    let (passed, failed) = (count(" passed"), count(" failed"));
    assert!(
        passed.is_some() && failed.is_some(),
        "{tool} did not end with its verdict:\n{text}"
    );
    let verdict = Verdict {
        passed: passed.unwrap_or(0),
        failed: failed.unwrap_or(0),
        output: text,
    };
    println!(
        "{tool}: {} passed, {} failed",
        verdict.passed, verdict.failed
    );
    Some(verdict)
}

fn server() -> Option<Server> {
    Server::start(ServerOptions {
        config: CONFIG.to_owned(),
        ..ServerOptions::default()
    })
}

fn assert_share(verdict: &Verdict, share: f64) {
    let all = f64::from(verdict.passed + verdict.failed);
    assert!(verdict.passed > 0, "nothing ran:\n{}", verdict.output);
    let tail: Vec<_> = verdict.output.lines().rev().take(200).collect();
    assert!(
        f64::from(verdict.passed) >= share * all,
        "below {share}:\n{}",
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn the_language_answers_as_upstream_scripts_say() {
    let Some(server) = server() else { return };
    let files = shared("conformance/promqltest");
    let Some(files) = files.as_deref().and_then(Path::to_str) else {
        return;
    };
    // Remote write 1.0, which the tool speaks, cannot carry start timestamps.
    let scripts = [
        "--files",
        files,
        "--skip-tags",
        "start-timestamp",
        "--jobs=2",
    ];
    for (more, share) in [
        (&[][..], 0.98),
        (&["--annotations"], 0.90),
        (&["--at-variants"], 0.98),
    ] {
        let args = [&scripts[..], more].concat();
        if let Some(verdict) = run("promqltest_http.py", &server, &args) {
            assert_share(&verdict, share);
            assert!(
                !verdict.output.contains("HTTP 5"),
                "a 5xx:\n{}",
                verdict.output
            );
        }
    }
}

#[test]
fn queries_answer_as_a_real_prometheus_does() {
    if component("prometheus").is_none() {
        return;
    }
    let Some(server) = server() else { return };
    if let Some(verdict) = run(
        "prom_compliance.py",
        &server,
        &["--instant", "--queries", "compliance_queries.json"],
    ) {
        assert_share(&verdict, 0.95);
    }
}

/// What the API tool finds: only what is not built yet may be missing.
fn assert_api(verdict: &Verdict) {
    let not_built = ["remote_read", "rules_alerts"];
    let missing: Vec<_> = verdict
        .output
        .lines()
        .filter(|l| l.starts_with("FAIL") || l.starts_with("OPTIONAL"))
        .filter(|l| !not_built.iter().any(|n| l.contains(n)))
        .collect();
    assert!(
        verdict.passed >= 90,
        "only {} passed:\n{}",
        verdict.passed,
        verdict.output
    );
    assert!(
        verdict.failed == 0 && missing.is_empty(),
        "{}",
        verdict.output
    );
}

#[test]
fn the_http_api_behaves() {
    let Some(server) = server() else { return };
    if let Some(verdict) = run("api_conformance.py", &server, &[]) {
        assert_api(&verdict);
    }
}

/// A distributor, an ingester, a frontend and two queriers: what holds for one process holds for them.
#[test]
fn five_processes_are_judged_as_one_is() {
    let Some(cluster) = Cluster::start(CONFIG, 1, 2) else {
        return;
    };
    let Some(files) = shared("conformance/promqltest") else {
        return;
    };
    let files = files.to_str().expect("a path of the tests");
    let both = (&cluster.distributor, &cluster.frontend);
    let scripts = [
        "--files",
        files,
        "--skip-tags",
        "start-timestamp",
        "--jobs=2",
    ];
    if let Some(verdict) = run_on("promqltest_http.py", both, &scripts) {
        assert_share(&verdict, 0.98);
    }
    let instant = ["--instant", "--queries", "compliance_queries.json"];
    if component("prometheus").is_some()
        && let Some(verdict) = run_on("prom_compliance.py", both, &instant)
    {
        assert_share(&verdict, 0.95);
    }
    if let Some(verdict) = run_on("api_conformance.py", both, &[]) {
        assert_api(&verdict);
    }
}
