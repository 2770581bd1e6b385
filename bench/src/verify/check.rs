//! The checking phase: every sample of every series, compared one by one.
//!
//! Raw samples come from instant queries of a range selector, in windows small enough for one answer. Windows overlap nowhere
//! and leave no gap between the first and the last time of a connection, so that a sample nobody sent is found as well.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::journal::{Fate, Journal};
use super::pattern::{METRIC, Pattern};
use super::{CommonOptions, PatienceOptions};
use crate::http::Connection;
use crate::progress::Progress;
use crate::target::Target;

/// Samples that one query may return.
const WINDOW_SAMPLES_MAX: usize = 100_000;
/// Milliseconds before the first and after the last body that are looked at for samples nobody sent.
const MARGIN_MS: i64 = 1000;
/// Wrong samples that are told one by one.
const FAULTS_TOLD_MAX: usize = 20;

/// How a sample can be wrong.
#[derive(Debug, Clone, PartialEq)]
enum Fault {
    Missing {
        connection: u16,
        series: u32,
        time: i64,
    },
    WrongValue {
        connection: u16,
        series: u32,
        time: i64,
        expected: f64,
        found: f64,
    },
    Unsent {
        connection: u16,
        series: String,
        time: i64,
        found: f64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing {
                connection,
                series,
                time,
            } => {
                write!(
                    f,
                    "lost: connection {connection} series {series} time {time} was acknowledged"
                )
            }
            Fault::WrongValue {
                connection,
                series,
                time,
                expected,
                found,
            } => write!(
                f,
                "wrong: connection {connection} series {series} time {time} is {found}, was sent as {expected}"
            ),
            Fault::Unsent {
                connection,
                series,
                time,
                found,
            } => write!(
                f,
                "unsent: connection {connection} series {series} time {time} is {found}, was never sent"
            ),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    /// Samples that must be there, and are.
    kept: u64,
    /// Samples that may be there, and are.
    unacknowledged: u64,
    lost: u64,
    wrong: u64,
    unsent: u64,
    /// The first of them.
    faults: Vec<Fault>,
}

impl Findings {
    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Missing { .. } => self.lost += 1,
            Fault::WrongValue { .. } => self.wrong += 1,
            Fault::Unsent { .. } => self.unsent += 1,
        }
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(fault);
        }
    }

    fn faults(&self) -> u64 {
        self.lost + self.wrong + self.unsent
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: HashMap<String, String>,
    values: Vec<(f64, String)>,
}

/// Part of a connection's time: `(start, end]`, and the bodies in it.
#[derive(Debug)]
struct Span {
    start: i64,
    end: i64,
    bodies: BTreeMap<i64, Fate>,
}

/// Cuts the bodies of a connection into spans of at most `bodies_max`.
fn spans(bodies: &BTreeMap<i64, Fate>, bodies_max: usize) -> Vec<Span> {
    let Some((first, last)) = bodies.keys().next().zip(bodies.keys().next_back()) else {
        return Vec::new();
    };
    let all: Vec<(i64, Fate)> = bodies.iter().map(|(time, fate)| (*time, *fate)).collect();
    let mut start = first.saturating_sub(MARGIN_MS);
    let mut spans = Vec::new();
    for part in all.chunks(bodies_max.max(1)) {
        let mut end = part[part.len() - 1].0;
        if end == *last {
            end = end.saturating_add(MARGIN_MS);
        }
        spans.push(Span {
            start,
            end,
            bodies: part.iter().copied().collect(),
        });
        start = end;
    }
    spans
}

pub(super) fn run(common: &CommonOptions, patience: &PatienceOptions) -> anyhow::Result<()> {
    let target = common.target.resolve()?;
    let journal = Journal::read(&common.state)?;
    let pattern = journal.pattern;
    let mut stream = Connection::new(target.query.address()?, common.timeout());
    target.wait_until_ready(&mut stream, Duration::from_secs(patience.wait))?;

    let mut progress = Progress::new(common.quiet);
    let total: usize = journal.bodies.iter().map(BTreeMap::len).sum();
    let mut done = 0;
    let mut findings = Findings::default();
    for (bodies, connection) in journal.bodies.iter().zip(0u16..) {
        for span in spans(bodies, WINDOW_SAMPLES_MAX / pattern.series as usize) {
            let answer = fetch(&target, &mut stream, &pattern, connection, &span)?;
            compare(&pattern, connection, &span, &answer, &mut findings)?;
            done += span.bodies.len();
            progress.tick(|| {
                format!(
                    "checked {done} of {total} bodies, {} faults",
                    findings.faults()
                )
            });
        }
    }
    progress.finish(&format!("checked {done} of {total} bodies"));
    println!(
        "run {}: {} acknowledged samples are there, {} lost, {} wrong, {} never sent; \
         {} unacknowledged ones are there too",
        pattern.run_label(),
        findings.kept,
        findings.lost,
        findings.wrong,
        findings.unsent,
        findings.unacknowledged
    );
    for fault in &findings.faults {
        println!("{fault}");
    }
    ensure!(
        findings.faults() == 0,
        "{} samples are not as they should be",
        findings.faults()
    );
    ensure!(
        findings.kept > 0,
        "nothing was acknowledged, so nothing was checked"
    );
    Ok(())
}

fn fetch(
    target: &Target,
    stream: &mut Connection,
    pattern: &Pattern,
    connection: u16,
    span: &Span,
) -> anyhow::Result<Vec<Series>> {
    let run = pattern.run_label();
    let range = span.end - span.start;
    let query = format!("{METRIC}{{run=\"{run}\",connection=\"{connection}\"}}[{range}ms]");
    let request = target.query_request(&query, span.end);
    let response = stream
        .exchange(&request)
        .with_context(|| format!("asking for {query}"))?;
    if response.status != 200 {
        bail!(
            "asking for {query}: {} {}",
            response.status,
            response.excerpt()
        );
    }
    let answer: Answer = serde_json::from_slice(&response.body)
        .with_context(|| format!("reading the answer to {query}: {}", response.excerpt()))?;
    ensure!(
        answer.data.kind == "matrix",
        "the answer to {query} is a {}",
        answer.data.kind
    );
    Ok(answer.data.result)
}

/// Compares what was found in a span with what must and may be there.
fn compare(
    pattern: &Pattern,
    connection: u16,
    span: &Span,
    answer: &[Series],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let must = span
        .bodies
        .iter()
        .filter(|(_, fate)| **fate == Fate::Acknowledged);
    let must: Vec<i64> = must.map(|(time, _)| *time).collect();
    let mut seen = vec![false; pattern.series as usize];
    for series in answer {
        let name = series.metric.get("series").cloned().unwrap_or_default();
        let number = name
            .parse::<u32>()
            .ok()
            .filter(|number| *number < pattern.series);
        let mut found = BTreeMap::new();
        for (seconds, value) in &series.values {
            let time = (seconds * 1000.0).round() as i64;
            let value: f64 = value
                .parse()
                .with_context(|| format!("not a value: {value:?}"))?;
            // Servers before Prometheus 3 include the start of a range.
            if time > span.start {
                found.insert(time, value);
            }
        }
        let Some(number) = number else {
            for (time, found) in found {
                findings.fault(Fault::Unsent {
                    connection,
                    series: name.clone(),
                    time,
                    found,
                });
            }
            continue;
        };
        ensure!(
            !seen[number as usize],
            "series {number} of connection {connection} comes twice"
        );
        seen[number as usize] = true;
        for (time, found) in &found {
            let (time, found) = (*time, *found);
            let expected = pattern.value(connection, number, time);
            match span.bodies.get(&time) {
                None => findings.fault(Fault::Unsent {
                    connection,
                    series: name.clone(),
                    time,
                    found,
                }),
                Some(_) if found.to_bits() != expected.to_bits() => {
                    findings.fault(Fault::WrongValue {
                        connection,
                        series: number,
                        time,
                        expected,
                        found,
                    })
                }
                Some(Fate::Acknowledged) => findings.kept += 1,
                Some(Fate::Sent) => findings.unacknowledged += 1,
            }
        }
        for time in must.iter().filter(|time| !found.contains_key(time)) {
            findings.fault(Fault::Missing {
                connection,
                series: number,
                time: *time,
            });
        }
    }
    for series in (0..pattern.series).filter(|number| !seen[*number as usize]) {
        for time in &must {
            findings.fault(Fault::Missing {
                connection,
                series,
                time: *time,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern {
        run: 7,
        connections: 1,
        series: 2,
    };

    fn span() -> Span {
        let bodies = BTreeMap::from([
            (10, Fate::Acknowledged),
            (20, Fate::Sent),
            (30, Fate::Acknowledged),
        ]);
        Span {
            start: 5,
            end: 30,
            bodies,
        }
    }

    fn series(number: u32, times: &[i64]) -> Series {
        let value = |time: &i64| {
            (
                *time as f64 / 1000.0,
                PATTERN.value(0, number, *time).to_string(),
            )
        };
        Series {
            metric: HashMap::from([("series".to_owned(), number.to_string())]),
            values: times.iter().map(value).collect(),
        }
    }

    fn findings(answer: &[Series]) -> Findings {
        let mut findings = Findings::default();
        compare(&PATTERN, 0, &span(), answer, &mut findings).unwrap();
        findings
    }

    #[test]
    fn all_that_was_acknowledged_is_enough_and_more_that_was_sent_is_allowed() {
        let found = findings(&[series(0, &[10, 20, 30]), series(1, &[5, 10, 30])]);
        assert_eq!(
            (found.kept, found.unacknowledged, found.faults()),
            (4, 1, 0)
        );
    }

    #[test]
    fn a_lost_sample_and_a_lost_series_are_named() {
        let found = findings(&[series(0, &[10])]);
        let expected = [
            Fault::Missing {
                connection: 0,
                series: 0,
                time: 30,
            },
            Fault::Missing {
                connection: 0,
                series: 1,
                time: 10,
            },
            Fault::Missing {
                connection: 0,
                series: 1,
                time: 30,
            },
        ];
        assert_eq!(found.faults, expected);
        assert_eq!(found.lost, 3);
    }

    #[test]
    fn a_wrong_value_and_samples_nobody_sent_are_named() {
        let mut wrong = series(0, &[10, 30]);
        wrong.values[1].1 = "0.5".to_owned();
        let found = findings(&[wrong, series(1, &[10, 11, 30]), series(9, &[10])]);
        assert_eq!((found.lost, found.wrong, found.unsent), (0, 1, 2));
    }

    #[test]
    fn spans_leave_no_gap_and_hold_every_body_once() {
        let bodies: BTreeMap<i64, Fate> = (0..10).map(|i| (1000 + i * 7, Fate::Sent)).collect();
        let spans = spans(&bodies, 4);
        assert_eq!(spans.len(), 3);
        assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(
            spans.iter().map(|span| span.bodies.len()).sum::<usize>(),
            10
        );
        for span in &spans {
            assert!(
                span.bodies
                    .keys()
                    .all(|time| *time > span.start && *time <= span.end)
            );
        }
        assert_eq!((spans[0].start, spans[2].end), (0, 1063 + MARGIN_MS));
    }

    #[test]
    fn every_value_of_the_pattern_survives_being_printed() {
        for series in 0..4 {
            for time in 1_700_000_000_000..1_700_000_000_500 {
                let value = PATTERN.value(0, series, time);
                assert_eq!(value.to_string().parse::<f64>().unwrap(), value);
            }
        }
    }
}
