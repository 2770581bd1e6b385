//! Comparisons against a server that keeps what it is given, and one that cheats: a figure must not come of that.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use clap::Parser;
use wire::remote_write::v1::{self, Part, Record, Walk};

use super::report::{Report, TargetReport, WorkloadReport};
use super::run::{Figures, ProcessFigures, QueryFigure, RunReport};
use super::watch::Timeline;
use super::*;
use crate::mock::{Asked, serve};

/// What a mock does with a push.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Every fifth push is acknowledged and forgotten.
    Forgets,
    /// Every fifth is refused.
    Refuses,
    /// Every fifth is refused, but stored.
    RefusesAndStores,
    /// Every fifth connection is closed without an answer.
    Hangs,
    /// Every sample is there twice.
    Doubles,
    /// Counts nothing: queries fail.
    CannotCount,
}

/// Starts a mock that is pushed to and counts samples of a metric, or series; gives its address.
fn mock(manner: Manner) -> std::net::SocketAddr {
    let series: Mutex<HashSet<Vec<u8>>> = Mutex::default();
    let samples = Mutex::new(Vec::<(String, u64)>::new());
    let pushes = AtomicU64::new(0);
    serve(move |asked| {
        if asked.path.ends_with("/push") {
            let fifth = pushes.fetch_add(1, SeqCst) % 5 == 4;
            let stores = !fifth
                || matches!(
                    manner,
                    Manner::Honest
                        | Manner::RefusesAndStores
                        | Manner::Doubles
                        | Manner::CannotCount
                );
            if stores {
                store(asked, &series, &samples);
                if manner == Manner::Doubles {
                    store(asked, &series, &samples);
                }
            }
            return match (manner, fifth) {
                (Manner::Refuses | Manner::RefusesAndStores, true) => Some((503, "busy".into())),
                (Manner::Hangs, true) => None,
                _ => Some((204, String::new())),
            };
        }
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        let value = if form.contains("vector") {
            1
        } else if manner == Manner::CannotCount {
            return Some((422, "too many samples".into()));
        } else if form.contains("count_over_time") {
            let samples = samples.lock().unwrap();
            let of = |(name, _): &&(String, u64)| form.contains(&format!("%28{name}%7B"));
            samples.iter().filter(of).map(|(_, count)| *count).sum()
        } else {
            series.lock().unwrap().len() as u64
        };
        Some((200, vector(value)))
    })
}

/// The answer to a query: this number.
fn vector(value: u64) -> String {
    format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}}}"#
    )
}

fn store(asked: &Asked, series: &Mutex<HashSet<Vec<u8>>>, counts: &Mutex<Vec<(String, u64)>>) {
    let mut unpacked = wire::snappy::Buffer::default();
    wire::snappy::unpack(&asked.body, 1 << 24, &mut unpacked).unwrap();
    let mut walk = Walk::new(unpacked.as_slice());
    while let Some(record) = walk.next_record().unwrap() {
        let Record::Series(raw) = record else {
            continue;
        };
        let labels = raw.label_bytes().to_vec();
        let name = v1::labels(&labels)
            .map(|label| label.unwrap())
            .find(|(name, _)| *name == b"__name__")
            .map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
            .unwrap();
        let mut parts = raw.parts();
        while let Some(part) = parts.next_part().unwrap() {
            if let Part::Sample { .. } = part {
                counts.lock().unwrap().push((name.clone(), 1));
            }
        }
        series.lock().unwrap().insert(labels);
    }
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(arguments: &[&str]) -> Options {
    let all = [&["compare"], arguments].concat();
    Line::try_parse_from(all).unwrap().options
}

/// One small workload on one mock.
fn compared(manner: Manner, further: &[&str]) -> Report {
    let address = mock(manner);
    let target = format!("name=mock;ack=when it likes;tenants;push=http://{address}/api/v1/push");
    let arguments = [
        "--target",
        &target,
        "--rounds",
        "1",
        "--series",
        "700",
        "--scrapes",
        "3",
        "--quiet",
        "--samples-per-body",
        "100",
        "--connections",
        "2",
        "--quiet-seconds",
        "0",
    ];
    compare(&options(&[&arguments[..], further].concat())).unwrap()
}

#[test]
fn an_honest_server_has_a_figure() {
    for workload in ["steady", "churn", "shuffled", "small", "slow"] {
        let report = compared(Manner::Honest, &["--workload", workload]);
        let run = &report.workloads[0].runs[0];
        assert_eq!(run.refused, Vec::<String>::new(), "{workload}");
        assert_eq!((run.lost, run.acknowledged), (Some(0), 2100));
        assert!(run.figures.is_some());
        assert_eq!(report.refused(), 0);
        assert!(report.text().contains("when it likes"));
    }
}

#[test]
fn the_load_of_many_tenants_is_counted_tenant_by_tenant() {
    // The mock has no tenants, so that each of them is told the whole: more than was sent.
    let report = compared(Manner::Honest, &["--workload", "steady", "--tenants", "2"]);
    let run = &report.workloads[0].runs[0];
    assert_eq!(run.lost, Some(-2100));
    assert!(run.figures.is_none());
}

#[test]
fn whatever_is_lost_or_not_2xx_leaves_no_figure() {
    for (manner, told) in [
        (Manner::Forgets, "acknowledged samples are not there"),
        (Manner::Refuses, "503: busy"),
        (Manner::RefusesAndStores, "were not acknowledged"),
        (Manner::Hangs, "were not acknowledged"),
        (Manner::Doubles, "never sent"),
        (Manner::CannotCount, "422 too many samples"),
    ] {
        let report = compared(manner, &[]);
        let run = &report.workloads[0].runs[0];
        assert!(run.figures.is_none(), "{told}");
        assert!(
            run.refused.iter().any(|why| why.contains(told)),
            "{:?}",
            run.refused
        );
        assert_eq!(report.refused(), 1);
        let text = report.text();
        assert!(
            text.contains("NO FIGURE") && text.contains("no figure"),
            "{text}"
        );
        assert!(page::render(&report).contains("No figure: mock, round 1"));
    }
}

/// More than a server takes is the one load of which it may refuse parts, by 503, and what it acknowledged has to be there.
#[test]
fn in_overload_503_is_an_answer_and_nothing_else() {
    let overload = ["--rate", "1000000", "--overload"];
    for manner in [Manner::Honest, Manner::Refuses, Manner::RefusesAndStores] {
        let report = compared(manner, &overload);
        let run = &report.workloads[0].runs[0];
        assert_eq!(run.refused, Vec::<String>::new());
        let acknowledged = if manner == Manner::Honest { 2100 } else { 1700 };
        assert_eq!(run.acknowledged, acknowledged, "21 pushes");
        assert!(run.figures.is_some());
        assert!(report.text().contains("overload: "));
    }
    for (manner, told) in [
        (Manner::Forgets, "acknowledged samples are not there"),
        (Manner::Hangs, "were not acknowledged"),
        (Manner::Doubles, "never sent"),
    ] {
        let report = compared(manner, &overload);
        let run = &report.workloads[0].runs[0];
        assert!(run.figures.is_none(), "{told}");
        let why = &run.refused;
        assert!(why.iter().any(|why| why.contains(told)), "{why:?}");
    }
}

#[test]
fn a_server_that_does_not_start_is_told_and_the_others_are_measured() {
    let address = mock(Manner::Honest);
    let good = format!("name=good;push=http://{address}/api/v1/push");
    let bad = "name=bad;push=http://127.0.0.1:{port}/api/v1/push;command=false";
    let report = compare(&options(&[
        "--target",
        bad,
        "--target",
        &good,
        "--rounds",
        "1",
        "--series",
        "10",
        "--scrapes",
        "2",
        "--quiet",
        "--quiet-seconds",
        "0",
    ]))
    .unwrap();
    let [bad, good] = &report.workloads[0].runs[..] else {
        panic!("two runs");
    };
    assert!(
        bad.refused[0].starts_with("did not start"),
        "{:?}",
        bad.refused
    );
    assert!(good.figures.is_some());
}

#[test]
fn what_a_server_does_not_speak_is_left_out_and_said() {
    let report = compared(Manner::Honest, &["--workload", "v2"]);
    assert!(report.workloads[0].runs.is_empty());
    assert!(report.workloads[0].notes[0].contains("remote write 2.0"));
}

#[test]
fn a_round_has_all_workloads() {
    let pushed = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&pushed);
    let address = serve(move |asked| {
        let second = asked.header("content-type").unwrap_or("").contains("v2");
        if asked.path.ends_with("/push") {
            log.lock().unwrap().push(second);
            return Some((204, String::new()));
        }
        Some((200, vector(1)))
    });
    let target = format!("name=mock;ack=never;v2;push=http://{address}/api/v1/push");
    let arguments = [
        "--target",
        &target,
        "--workload",
        "steady,v2",
        "--rounds",
        "3",
        "--series",
        "500",
        "--scrapes",
        "2",
        "--quiet",
        "--quiet-seconds",
        "0",
    ];
    let report = compare(&options(&arguments)).unwrap();
    let mut turns = pushed.lock().unwrap().clone();
    turns.dedup();
    assert_eq!(turns, [false, true, false, true, false, true]);
    for workload in &report.workloads {
        let rounds: Vec<u32> = workload.runs.iter().map(|run| run.round).collect();
        assert_eq!(rounds, [1, 2, 3], "{}", workload.name);
    }
}

#[test]
fn cpus_are_shared_out_unless_they_are_given() {
    let plain = options(&[]);
    let of = |options: &Options, allowed: &[usize]| options.cpus(allowed).unwrap();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of(&plain, &[0, 1, 3]), (some("0"), some("1,3")));
    assert_eq!(of(&plain, &[2]), (None, some("2")));
    let given = options(&["--server-cpus", "2-3"]);
    assert_eq!(of(&given, &[0, 1, 2, 3]), (some("2-3"), some("0,1")));
    assert!(options(&["--load-cpus", "x"]).cpus(&[0]).is_err());
}

/// A report that is the same on every machine.
fn fixed() -> Report {
    let timeline = |speed: f64| Timeline {
        bin_seconds: 0.5,
        load_seconds: 4.0 / speed,
        samples_per_second: (0..8)
            .map(|i| Some(speed * 1e6 * (1.0 + f64::from(i % 3))))
            .collect(),
        p99_ms: (0..8)
            .map(|i| (i != 5).then_some(20.0 / speed + f64::from(i)))
            .collect(),
        rss_mb: (0..8)
            .map(|i| Some(40.0 + 10.0 * f64::from(i) / speed))
            .collect(),
        cpu: (0..8).map(|i| Some(1.0 - f64::from(i) * 0.05)).collect(),
    };
    let run = |target: &str, round: u32, speed: f64| RunReport {
        target: target.to_owned(),
        round,
        figures: Some(Figures {
            samples_per_second: speed * 1e6,
            p50_ms: 2.0 / speed,
            p99_ms: 20.0 / speed,
            max_ms: 40.0 / speed,
            served_p99_ms: 10.0 / speed,
            process: Some(ProcessFigures {
                samples_per_cpu_second: speed * 1.1e6,
                cpu_seconds: 6.0 / speed,
                samples_per_machine_cpu_second: speed * 0.9e6,
                machine_cpu_seconds: 6.6 / speed,
                seconds_until_quiet: 1.0,
                rss_idle_bytes: 20_000_000,
                rss_bytes: 90_000_000,
                rss_peak_bytes: 95_000_000,
                bytes_per_series: 700.0 / speed,
                disk_bytes: 12_000_000,
                disk_bytes_per_sample: 2.0,
            }),
        }),
        acknowledged: 6_000_000,
        lost: Some(0),
        outcomes: [("200".to_owned(), 3000)].into(),
        timeline: timeline(speed),
        queries: vec![QueryFigure {
            name: "selector".to_owned(),
            kind: "instant",
            concurrency: 1,
            p50_ms: Some(1.0 / speed),
            p99_ms: Some(2.0 / speed),
            max_ms: Some(3.0 / speed),
            cpu_ms: Some(1.0 / speed),
            checksum: Some("0000000a-0000000b-0000000c".parse().unwrap()),
            errors: Vec::new(),
        }],
        ..RunReport::default()
    };
    let mut bad = run("<other>", 2, 1.0);
    bad.figures = None;
    bad.lost = Some(2000);
    bad.refused = vec!["2000 acknowledged samples are not there".to_owned()];
    bad.queries[0].checksum = Some("00000001-00000002-00000003".parse().unwrap());
    let shape = options(&[])
        .shape
        .shape(Kind::Steady, 1_700_000_000_000)
        .unwrap();
    let target = |name: &str, ack: &str| TargetReport {
        name: name.to_owned(),
        version: format!("{name} 1.0"),
        command: format!("{name} --port={{port}}"),
        ack: ack.to_owned(),
    };
    Report {
        command: "myelin-bench compare".to_owned(),
        machine: "a machine".to_owned(),
        server_cpus: Some("0".to_owned()),
        load_cpus: Some("1".to_owned()),
        rounds: 2,
        quiet_seconds: 10,
        targets: vec![
            target("myelin", "durable"),
            target("<other>", "from memory"),
        ],
        workloads: vec![WorkloadReport {
            name: "steady".to_owned(),
            shape,
            rate: None,
            requests: 3000,
            body_bytes: 180_000_000,
            notes: vec!["a note".to_owned()],
            runs: vec![
                run("myelin", 1, 4.0),
                run("<other>", 1, 1.0),
                run("myelin", 2, 5.0),
                bad,
            ],
        }],
    }
}

/// The page and the table of a fixed report are what they were. `UPDATE_GOLDEN=1` renews them.
#[test]
fn the_report_looks_as_it_did() {
    let report = fixed();
    for (name, text) in [
        ("report.html", page::render(&report)),
        ("report.txt", report.text()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/compare/golden")
            .join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, golden, "{name} changed; UPDATE_GOLDEN=1 renews it");
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_shows_names_as_text() {
    let page = page::render(&fixed());
    for outside in ["http:", "https:", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("&lt;other&gt;") && !page.contains("<other>"));
    assert!(page.contains("differs") && page.contains("No figure: &lt;other&gt;, round 2"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<svg").count(), 8);
}
