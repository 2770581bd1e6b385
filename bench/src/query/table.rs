//! The report of `query` for humans.

use std::fmt::Write as _;

use super::Report;
use crate::target::seconds;

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "command   {}", report.command);
    let _ = writeln!(out, "machine   {}", report.machine);
    if let Some(server) = &report.server {
        let _ = writeln!(out, "server    {server}");
    }
    let _ = writeln!(
        out,
        "times     end {}, ranges of {} s, steps of {} s",
        seconds(report.end_ms),
        report.range_ms / 1000,
        report.step_ms / 1000
    );
    for mean in &report.means {
        let _ = writeln!(
            out,
            "\n{:<20} {:<8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9}  checksum, concurrency {}",
            "query",
            "",
            "p50 ms",
            "p99 ms",
            "max ms",
            "CPU ms",
            "a second",
            "rows",
            "points",
            "kB",
            mean.concurrency
        );
        let of = |q: &&super::Outcome| q.concurrency == usize::from(mean.concurrency);
        for query in report.queries.iter().filter(of) {
            let name: String = query.name.chars().take(20).collect();
            let kind = query.kind.name();
            let _ = write!(out, "{name:<20} {kind:<8} ");
            let Some(latency) = query.latency else {
                let errors: Vec<&str> = query.errors.keys().map(String::as_str).collect();
                let _ = writeln!(out, "failed: {}", errors.join("; "));
                continue;
            };
            let cpu = query.cpu_ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"));
            let checksum = query.checksum.map_or("-".to_owned(), |sum| sum.to_string());
            let note = if query.steady {
                ""
            } else {
                " (answers differ from one another)"
            };
            let _ = writeln!(
                out,
                "{:>9.2} {:>9.2} {:>9.2} {cpu:>9} {:>9.1} {:>8} {:>9} {:>9.1}  {checksum}{note}",
                latency.p50_ms,
                latency.p99_ms,
                latency.max_ms,
                query.queries_per_second,
                query.rows,
                query.points,
                query.answer_bytes as f64 / 1000.0
            );
        }
        let mean_ms = mean.geometric_mean_of_medians_ms;
        let _ = match mean_ms {
            Some(ms) => writeln!(out, "{:<29} {ms:>9.2}", "geometric mean of medians"),
            None => writeln!(out, "geometric mean of medians: none, a query failed"),
        };
    }
    out.push_str("\nTwo answers are the same if one of the three parts of their checksums is.\n");
    out
}
