//! Two real Prometheus with the labels of an HA pair scrape the same and write to us; each is killed in turn. What is stored has no gap but
//! for the failover, and no series twice.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Api, Child, Server, ServerOptions, component, free_port, unix_now, wait_until};

const FAILOVER_SECONDS: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(60);

struct Replica {
    name: &'static str,
    port: u16,
    process: Child,
    program: std::path::PathBuf,
    folder: std::path::PathBuf,
}

impl Replica {
    fn start(name: &'static str, program: &Path, server: &Server, target: u16) -> Replica {
        let port = free_port();
        let folder = server.folder().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{cluster: c, __replica__: {name}}}}}\n\
             scrape_configs:\n\
             - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}\n\
             remote_write:\n\
             - {{url: '{}', queue_config: {{batch_send_deadline: 500ms}}}}\n",
            server.push_url()
        );
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        Replica {
            name,
            port,
            process: run(program, &folder, port),
            program: program.to_owned(),
            folder,
        }
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn revive(&mut self) {
        self.process = run(&self.program, &self.folder, self.port);
    }

    /// The longest time between two of its own samples while it ran.
    fn longest_interval(&self, since: i64) -> f64 {
        let ready = format!("http://127.0.0.1:{}/-/ready", self.port);
        wait_until("a replica to be ready", PATIENCE, || {
            ureq::get(&ready).call().is_ok()
        });
        let api = Api::new(&format!("http://127.0.0.1:{}", self.port), None);
        let answer = api.query(&format!("up[{}s]", unix_now() - since), unix_now() as f64);
        let times = times(&answer);
        let intervals = times.windows(2).map(|pair| pair[1] - pair[0]);
        // The longest is that in which it was dead.
        let mut intervals: Vec<f64> = intervals.collect();
        intervals.sort_by(f64::total_cmp);
        intervals.pop();
        intervals.pop().unwrap_or(1.0)
    }
}

fn run(program: &Path, folder: &Path, port: u16) -> Child {
    let mut command = Command::new(program);
    command
        .arg(format!(
            "--config.file={}",
            folder.join("prometheus.yml").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("tsdb").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    Child::start(&mut command, &folder.join("log"))
}

/// The times of the samples of the only series of a matrix.
fn times(answer: &Value) -> Vec<f64> {
    let series = answer.as_array().unwrap();
    assert_eq!(series.len(), 1, "{series:?}");
    let values = series[0]["values"].as_array().unwrap();
    values.iter().map(|v| v[0].as_f64().unwrap()).collect()
}

#[test]
fn a_pair_of_real_prometheus_is_one_series_and_a_death_costs_the_failover_timeout() {
    let (Some(program), Some(exporter)) = (
        component("prometheus"),
        component("prometheus-node-exporter"),
    ) else {
        return;
    };
    let options = ServerOptions {
        config: "auth_enabled: false\n\
                 limits: {accept_ha_samples: true, ha_tracker_failover_timeout: 3s, max_series_per_user: 0}\n\
                 distributor:\n  ha_tracker:\n    enable_ha_tracker: true\n    \
                 ha_tracker_update_timeout: 1s\n    ha_tracker_update_timeout_jitter_max: 0s\n"
            .into(),
        ..Default::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let target = free_port();
    let _exporter = Child::start(
        Command::new(exporter).arg(format!("--web.listen-address=127.0.0.1:{target}")),
        &server.folder().join("node_exporter.log"),
    );
    let begin = unix_now();
    let mut a = Replica::start("a", &program, &server, target);
    let api = server.api(None);
    let elected = || {
        let headers = [("Accept", "application/json")];
        let page = server.admin().get_with("/ha_tracker", &headers).json();
        let line = &page["elected"][0];
        assert!(line.is_null() || line["userID"] == "fake" && line["cluster"] == "c");
        line["replica"].as_str().unwrap_or_default().to_owned()
    };
    wait_until("the first to be elected", PATIENCE, || elected() == "a");
    let mut b = Replica::start("b", &program, &server, target);
    let stored = |window: i64| {
        let answer = api.query(&format!("up[{window}s]"), unix_now() as f64);
        let first = answer[0]["values"].as_array();
        first.map_or(0, Vec::len)
    };
    let deduped = || {
        let metrics = server.admin().get("/metrics", &[]).text();
        let name = "cortex_distributor_deduped_samples_total{cluster=\"c\",user=\"fake\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.is_some_and(|count| count != "0")
    };
    wait_until("the second to be passed over", PATIENCE, deduped);
    a.kill();
    wait_until("the second to be elected", PATIENCE, || elected() == b.name);
    a.revive();
    wait_until("some samples of the second", PATIENCE, || stored(5) >= 4);
    assert_eq!(elected(), "b", "nobody takes over from a living one");
    b.kill();
    wait_until("the first to be elected again", PATIENCE, || {
        elected() == a.name
    });
    b.revive();
    wait_until("some samples of the first", PATIENCE, || stored(5) >= 4);

    let window = unix_now() - begin + 1;
    let times = times(&api.query(&format!("up[{window}s]"), unix_now() as f64));
    let scrape = [&a, &b].map(|replica| replica.longest_interval(begin));
    // A machine that is too busy scrapes less often, and that is no gap of ours.
    let scrape = scrape.into_iter().fold(1.0, f64::max);
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = longest.fold(0.0, f64::max);
    assert!(
        longest <= FAILOVER_SECONDS + 2.0 * scrape,
        "a gap of {longest} s, scrapes every {scrape} s: {times:?}"
    );
    let names = api.data("/api/v1/labels", &[]);
    assert!(!names.to_string().contains("__replica__"), "{names}");
    let twice = "count by (__name__, cpu, mode) (node_cpu_seconds_total) > 1";
    let twice = api.query(twice, unix_now() as f64);
    assert_eq!(twice, serde_json::json!([]));
    server.stop();
}
