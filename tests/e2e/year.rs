//! A year of samples, filled in in the order of time: how long a question about all of it takes a node that has just started, from its disk and from the bucket,
//! and with how many requests.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use tests::{Server, ServerOptions, cpu_seconds, rss_bytes, soak, unix_now, wait_until};

use super::bucket::{Store, flush};
use super::queries::metric;
use super::series::{field, push, varint};

const DAY: i64 = 86_400_000;
const DAYS: i64 = 365;

/// How much a year is.
#[derive(Clone, Copy)]
struct Plan {
    series: i64,
    /// Milliseconds from sample to sample.
    interval: i64,
    /// Who fills in, each its part of the series.
    writers: i64,
}

impl Plan {
    fn new() -> Plan {
        match soak() {
            true => Plan {
                series: 2000,
                interval: 60_000,
                writers: 4,
            },
            false => Plan {
                series: 40,
                interval: 1_800_000,
                writers: 2,
            },
        }
    }

    /// A counter that starts anew now and then, with steps that nobody can foretell.
    fn value(&self, series: i64, time: i64) -> f64 {
        let at = time / self.interval;
        let mut mixed = (at * 4096 + series) as u64;
        for _ in 0..2 {
            mixed = (mixed ^ mixed >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        (at % 1000 * 64) as f64 + (mixed >> 58) as f64
    }

    /// Some series over some time, one after another.
    fn body(&self, series: impl Iterator<Item = i64>, from: i64, to: i64) -> Vec<u8> {
        let mut request = Vec::new();
        for series in series {
            let mut inner = Vec::new();
            let (instance, job) = (format!("i{series}"), format!("j{}", series % 3));
            for (name, value) in [
                ("__name__", "requests_total"),
                ("instance", &instance),
                ("job", &job),
            ] {
                let mut label = Vec::new();
                field(&mut label, 1, name.as_bytes(), false);
                field(&mut label, 2, value.as_bytes(), false);
                field(&mut inner, 1, &label, false);
            }
            let mut time = from;
            while time < to {
                let mut sample = vec![0x09];
                sample.extend_from_slice(&self.value(series, time).to_le_bytes());
                sample.push(0x10);
                varint(&mut sample, time as u64, false);
                field(&mut inner, 2, &sample, false);
                time += self.interval;
            }
            field(&mut request, 1, &inner, false);
        }
        request
    }

    /// Fills in the year that begins at `start`: nobody is more than a day in front of others.
    fn fill(&self, server: &Server, start: i64) {
        let barrier = Barrier::new(self.writers as usize);
        std::thread::scope(|scope| {
            for writer in 0..self.writers {
                let barrier = &barrier;
                scope.spawn(move || {
                    for day in 0..DAYS {
                        // A node looks now and then what is to be cut; here a year is over within a second.
                        if barrier.wait().is_leader() && !soak() && day % 30 == 29 {
                            flush(server);
                        }
                        let mine: Vec<i64> = (writer..self.series)
                            .step_by(self.writers as usize)
                            .collect();
                        // Requests of ten thousand samples or so.
                        let some = (10_000 * self.interval / DAY).clamp(1, 500) as usize;
                        for some in mine.chunks(some) {
                            let from = start + day * DAY;
                            let body = self.body(some.iter().copied(), from, from + DAY);
                            let answer = push(server, None, &body);
                            assert!(answer.status < 300, "day {day}: {}", answer.text());
                        }
                    }
                });
            }
        });
    }
}

/// What the answer must be at a step.
type Expected = fn(&Plan, i64) -> f64;

struct Question {
    query: String,
    expected: Expected,
}

fn questions() -> Vec<Question> {
    let per_day: Expected = |plan, _| (plan.series * (DAY / plan.interval)) as f64;
    vec![
        // All bytes of the year.
        Question {
            query: "sum(count_over_time(requests_total[1d]))".into(),
            expected: per_day,
        },
        // A page of each series and day.
        Question {
            query: "sum(requests_total)".into(),
            expected: |plan, time| {
                (0..plan.series)
                    .map(|series| plan.value(series, time))
                    .sum()
            },
        },
        // One series.
        Question {
            query: "max_over_time(requests_total{instance=\"i7\"}[1d])".into(),
            expected: |plan, time| {
                let steps = DAY / plan.interval;
                let times = (0..steps).map(|step| time - step * plan.interval);
                times.map(|time| plan.value(7, time)).fold(0.0, f64::max)
            },
        },
        Question {
            query: "requests_total{instance=\"i7\"}".into(),
            expected: |plan, time| plan.value(7, time),
        },
    ]
}

/// Asks all of the year at a step of a day, compares every value, tells the cost; gives the requests to the bucket.
fn ask(server: &mut Server, plan: &Plan, start: i64, question: &Question, whence: &str) -> u64 {
    // Steps at the last sample of each day.
    let (first, last) = (
        start + DAY - plan.interval,
        start + DAYS * DAY - plan.interval,
    );
    let pid = server.child().pid();
    let (cpu, asked) = (cpu_seconds(pid), Instant::now());
    let params = [
        ("query", &*question.query),
        ("start", &(first / 1000).to_string()),
        ("end", &(last / 1000).to_string()),
        ("step", "86400"),
        ("stats", "true"),
        ("nocache", "1"),
    ];
    let answer = server.api(None).data("/api/v1/query_range", &params);
    let (took, cpu) = (asked.elapsed(), cpu_seconds(pid) - cpu);
    let values = answer["result"][0]["values"].as_array();
    let values = values.unwrap_or_else(|| panic!("{whence}: {}: {answer}", question.query));
    assert_eq!(values.len() as i64, DAYS, "{whence}: {}", question.query);
    for (day, value) in values.iter().enumerate() {
        let time = first + day as i64 * DAY;
        let expected = (question.expected)(plan, time);
        let got = value[1].as_str().and_then(|text| text.parse::<f64>().ok());
        assert_eq!(
            got,
            Some(expected),
            "{whence}: {} at {time}",
            question.query
        );
    }
    let of_bucket = |what: &str| answer["stats"]["bucket"][what].as_u64().unwrap_or(0);
    let requests = of_bucket("requests");
    println!(
        "{whence}: {} took {:.2} s, {cpu:.2} CPU-seconds; {requests} requests, {} bytes; the process has {} MiB",
        question.query,
        took.as_secs_f64(),
        of_bucket("bytes"),
        rss_bytes(pid) >> 20,
    );
    requests
}

fn size_of_blocks(server: &Server) -> (usize, u64) {
    let dir = std::fs::read_dir(server.data().join("blocks")).expect("there is a directory");
    let sizes = dir.filter_map(|entry| {
        let entry = entry.expect("it can be read");
        let is_block = entry.file_name().to_string_lossy().ends_with(".block");
        is_block.then(|| entry.metadata().map_or(0, |of| of.len()))
    });
    sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size))
}

/// What the machine holds of files in memory goes, where that may be said.
fn forget_files() {
    if soak() {
        let done = std::fs::write("/proc/sys/vm/drop_caches", "3");
        println!("files are not in memory: {}", done.is_ok());
    }
}

#[test]
fn a_year_is_answered_from_the_disk_and_from_the_bucket_with_few_requests() {
    let folder = tempfile::tempdir().unwrap();
    let port = tests::free_port();
    let Some(_store) = Store::start(folder.path(), port) else {
        return;
    };
    let mut args = super::bucket::args(port);
    // What is not said here is as it is for everybody: only merged blocks go to the bucket.
    args.retain(|arg| !arg.contains("ship-unmerged") && !arg.contains("retention-period"));
    args.extend(
        [
            "-blocks-storage.s3.http.request-timeout=60s",
            "-compactor.compaction-interval=2s",
            "-ingester.retention=20000h",
            "-distributor.ingestion-rate-limit=0",
        ]
        .map(str::to_owned),
    );
    let Some(mut server) = Server::start(ServerOptions {
        args: args.clone(),
        ..Default::default()
    }) else {
        return;
    };
    let plan = Plan::new();
    let today = unix_now() * 1000 / DAY * DAY;
    let start = today - (DAYS + 1) * DAY;
    let filled = Instant::now();
    plan.fill(&server, start);
    let samples = plan.series * (DAYS * DAY / plan.interval);
    println!(
        "{} series, {samples} samples, filled in within {:?}, {:.1} CPU-seconds, {} MiB",
        plan.series,
        filled.elapsed(),
        cpu_seconds(server.child().pid()),
        rss_bytes(server.child().pid()) >> 20,
    );
    flush(&server);
    let merging = Instant::now();
    let mut seen = (0, 0);
    let mut since = Instant::now();
    // Nothing is left to be merged or sent when nothing has changed for a while.
    let quiet = Duration::from_secs(if soak() { 60 } else { 6 });
    wait_until("merges to end", Duration::from_secs(3600), || {
        let now = size_of_blocks(&server);
        if now != seen || metric(&server, "myelin_uploader_pending_blocks") > 0.0 {
            (seen, since) = (now, Instant::now());
        }
        since.elapsed() >= quiet
    });
    let (blocks, bytes) = seen;
    println!(
        "{blocks} blocks of {bytes} bytes, {:.2} a sample, merged and sent within {:?}, {:.1} CPU-seconds in all",
        bytes as f64 / samples as f64,
        merging.elapsed() - quiet,
        cpu_seconds(server.child().pid()),
    );
    server.stop();
    forget_files();
    server.restart();
    for question in questions() {
        let before = size_of_blocks(&server);
        let requests = ask(&mut server, &plan, start, &question, "disk");
        // A start may find another merge to do: what it makes can be in the bucket's index before the question, which holds the blocks it was made of, comes to that.
        let is_still = size_of_blocks(&server) == before;
        assert!(
            requests == 0 || !is_still,
            "what is on the disk is not asked for: {requests} requests"
        );
    }
    server.stop();
    args.push("-blocks-storage.tsdb.retention-period=1s".to_owned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    server.restart_with(&args);
    super::bucket::wait_for_the_disk_to_be_free(&server);
    // Of the bucket nothing is known but what is read now.
    server.kill();
    let headers = server.data().join("bucket");
    std::fs::remove_dir_all(headers).unwrap();
    forget_files();
    server.restart();
    for (whence, most) in [("bucket", 4), ("bucket, again", 2)] {
        for question in questions() {
            let requests = ask(&mut server, &plan, start, &question, whence);
            assert!(requests > 0, "the samples are in the bucket alone");
            let a_block = requests as f64 / blocks as f64;
            println!("{a_block:.2} requests a block");
            if !soak() {
                assert!(a_block <= f64::from(most), "{requests}, {blocks} blocks");
            }
        }
    }
}
