//! The report as one HTML page: tables, bars and plots, nothing from elsewhere, no script.

use std::fmt::Write as _;

use super::plot::{self, Plot, Scale};
use super::report::{Report, Table, WorkloadReport, short};
use super::watch::Timeline;

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1c2430; --soft: #5d6b7e; --back: #fff; --panel: #f5f7fa; --rule: #d9e0e8;
  --c0: #0b7a75; --c1: #c2571a; --c2: #5b4bb7; --c3: #a8852a; --c4: #b03060; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e9f0; --soft: #9aa8ba; --back: #12161c; --panel: #1b212a; --rule: #313b48;
  --c0: #3fc1b8; --c1: #f08b4f; --c2: #a496f5; --c3: #dcb95a; --c4: #ef7fa6; --bad: #ff8a80; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 28px 32px 60px; max-width: 1480px; background: var(--back); color: var(--text);
  font: 14px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px } h2 { font-size: 18px; margin: 40px 0 2px } h3 { font-size: 14px; margin: 22px 0 6px }
p, .facts { margin: 4px 0; color: var(--soft) } .facts div { overflow-wrap: anywhere } .facts b { color: var(--text); font-weight: 600 }
.scroll { overflow-x: auto; margin: 12px 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--rule); white-space: nowrap }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 64px } th:first-child, td:first-child { text-align: left; padding-left: 0 }
td:first-child { font-weight: 600 }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: 6px 12px; align-items: center; max-width: 860px; margin: 12px 0 }
.bar { height: 20px; border-radius: 3px; min-width: 2px; display: inline-block; vertical-align: middle } .bars .n { margin-left: 8px; font-variant-numeric: tabular-nums }
.bad { color: var(--bad) } .good { color: var(--c0) }
.plots { display: grid; gap: 6px 14px; margin: 10px 0 } .plots .name { font-weight: 600 } .plots .of { color: var(--soft); align-self: center; font-size: 13px }
svg { width: 100%; background: var(--panel); border-radius: 5px; display: block }
svg text { font: 9.5px system-ui, sans-serif; fill: var(--soft) } svg .end { text-anchor: end } svg .middle { text-anchor: middle }
svg .grid { stroke: var(--rule); stroke-width: .7 } svg .mark { stroke: var(--soft); stroke-width: .8; stroke-dasharray: 3 3 }
svg .line { fill: none; stroke-width: 1.6; stroke-linejoin: round }
.l0 { stroke: var(--c0) } .l1 { stroke: var(--c1) } .l2 { stroke: var(--c2) } .l3 { stroke: var(--c3) } .l4 { stroke: var(--c4) }
.dot { stroke: none } .dot.l0, .b0 { fill: var(--c0); background: var(--c0) } .dot.l1, .b1 { fill: var(--c1); background: var(--c1) }
.dot.l2, .b2 { fill: var(--c2); background: var(--c2) } .dot.l3, .b3 { fill: var(--c3); background: var(--c3) } .dot.l4, .b4 { fill: var(--c4); background: var(--c4) }
";

/// Colours; further targets begin again.
const COLOURS: usize = 5;
const LINES: [&str; COLOURS] = ["l0", "l1", "l2", "l3", "l4"];

pub(super) fn render(report: &Report) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>myelin-bench compare</title>\n<style>",
    );
    page.push_str(STYLE);
    page.push_str("</style>\n<h1>myelin-bench compare</h1>\n<div class=\"facts\">\n");
    // Writing to a string does not fail, here and below.
    let mut fact = |name: &str, text: &str| {
        let _ = writeln!(page, "<div><b>{name}</b> {}</div>", escape(text));
    };
    fact("machine", &report.machine);
    fact("command", &report.command);
    let cpus = |cpus: &Option<String>| cpus.clone().unwrap_or_else(|| "any".to_owned());
    fact(
        "runs",
        &format!(
            "{} rounds; servers on CPUs {}, load on CPUs {}; CPU time until {} quiet seconds after the last answer and one count over all series. Medians, with the least and the most",
            report.rounds,
            cpus(&report.server_cpus),
            cpus(&report.load_cpus),
            report.quiet_seconds
        ),
    );
    for target in &report.targets {
        let text = format!(
            "{} · acknowledges {} · {}",
            target.version, target.ack, target.command
        );
        fact(&escape(&target.name), &text);
    }
    page.push_str("</div>\n");
    for workload in &report.workloads {
        section(&mut page, report, workload);
    }
    page.push_str("</html>\n");
    page
}

fn section(page: &mut String, report: &Report, workload: &WorkloadReport) {
    let _ = writeln!(
        page,
        "<h2>{}</h2>\n<p>{}</p>",
        escape(&workload.name),
        escape(&workload.size())
    );
    for note in &workload.notes {
        let _ = writeln!(page, "<p>{}</p>", escape(note));
    }
    for line in workload.refusals() {
        let _ = writeln!(page, "<p class=\"bad\">No figure: {}</p>", escape(&line));
    }
    bars(page, workload);
    table(page, &workload.table(&|target| report.ack(target)));
    for line in workload.ratios() {
        let _ = writeln!(page, "<p>{}</p>", escape(&line));
    }
    plots(page, workload);
    if let Some(queries) = workload.query_table() {
        page.push_str("<h3>Queries</h3>\n");
        table(page, &queries);
    }
}

fn bars(page: &mut String, workload: &WorkloadReport) {
    let costs: Vec<_> = workload
        .targets()
        .into_iter()
        .map(|target| (target, workload.cost(target, |p| p.samples_per_cpu_second)))
        .collect();
    let most = costs
        .iter()
        .filter_map(|(_, cost)| cost.map(|c| c.median))
        .fold(0.0, f64::max);
    page.push_str("<h3>Samples per CPU-second</h3>\n<div class=\"bars\">\n");
    for (index, (target, cost)) in costs.iter().enumerate() {
        let _ = write!(page, "<span>{}</span><span>", escape(target));
        let _ = match cost {
            Some(cost) => write!(
                page,
                "<span class=\"bar b{}\" style=\"width:{:.1}%\"></span><span class=\"n\">{}</span>",
                index % COLOURS,
                80.0 * cost.median / most,
                short(cost.median)
            ),
            None => write!(page, "<span class=\"bad\">no figure</span>"),
        };
        page.push_str("</span>\n");
    }
    page.push_str("</div>\n");
}

fn table(page: &mut String, table: &Table) {
    page.push_str("<div class=\"scroll\"><table>\n<tr>");
    for cell in &table.head {
        let _ = write!(page, "<th>{}</th>", escape(cell));
    }
    page.push_str("</tr>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for cell in row {
            let class = match cell.as_str() {
                "no figure" | "differs" => " class=\"bad\"",
                "same" => " class=\"good\"",
                _ => "",
            };
            let _ = write!(page, "<td{class}>{}</td>", escape(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// A quantity, how it is found in a timeline, whether its scale is logarithmic, and how its numbers look.
type Row = (
    &'static str,
    fn(&Timeline) -> &[Option<f64>],
    bool,
    fn(f64) -> String,
);

const ROWS: [Row; 4] = [
    ("samples/s", |t| &t.samples_per_second, true, round),
    ("p99 of a write, ms", |t| &t.p99_ms, true, round),
    ("RSS, MB", |t| &t.rss_mb, false, round),
    ("CPUs in use", |t| &t.cpu, false, short),
];

/// Without the digits that a round number does not need.
fn round(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e4 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

fn plots(page: &mut String, workload: &WorkloadReport) {
    let targets = workload.targets();
    let runs: Vec<_> = targets
        .iter()
        .filter_map(|target| workload.typical_run(target))
        .collect();
    let _ = writeln!(
        page,
        "<h3>Over time, the median run; the dashed line is the last acknowledgement</h3>\n\
         <div class=\"plots\" style=\"grid-template-columns:84px repeat({},minmax(200px,440px))\">\n<span></span>",
        runs.len()
    );
    for run in &runs {
        let _ = writeln!(page, "<span class=\"name\">{}</span>", escape(&run.target));
    }
    for (name, column, logarithmic, unit) in ROWS {
        let values = runs.iter().flat_map(|run| column(&run.timeline));
        let scale = Scale::over(values, logarithmic);
        let _ = writeln!(page, "<span class=\"of\">{name}</span>");
        for (index, run) in runs.iter().enumerate() {
            let plot = Plot {
                bin_seconds: run.timeline.bin_seconds,
                points: column(&run.timeline),
                mark_seconds: run.timeline.load_seconds,
                class: LINES[index % COLOURS],
            };
            let title = format!("{name} of {}", escape(&run.target));
            page.push_str(&plot::draw(&plot, &scale, unit, &title));
            page.push('\n');
        }
    }
    page.push_str("</div>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
