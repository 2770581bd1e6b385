//! The script language of Prometheus' `promqltest`: `clear`, `load`, `eval instant`, `eval range` and what is expected of them.
//!
//! A script is a list of blocks; every `clear` begins a new one, with an empty store. A [`Case`] is one `eval`, named by file and
//! line. Tags say which parts of the language it needs, as the shared harness tags them.

use std::sync::LazyLock;

use model::Labels;
use regex::Regex;

use crate::notation::{self, Point, Result};

/// The commands between two `clear`s.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) commands: Vec<Command>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Load(Load),
    Eval(Box<Case>),
}

/// Series to put into the store.
#[derive(Debug)]
pub(crate) struct Load {
    /// Milliseconds between two values.
    pub(crate) gap: i64,
    /// Classic histograms are loaded as custom-bucket histograms too.
    pub(crate) with_nhcb: bool,
    pub(crate) series: Vec<(Labels, Vec<Option<Point>>)>,
    /// Start timestamps were given; they are not kept.
    pub(crate) start_timestamps: bool,
}

/// One `eval`.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) line: usize,
    pub(crate) expr: String,
    /// `eval range`, not `eval instant`.
    pub(crate) range: bool,
    /// Milliseconds.
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) step: i64,
    pub(crate) expect: Expect,
    /// Parts of the language beyond its core.
    pub(crate) tags: Vec<&'static str>,
}

/// What must come of it.
#[derive(Debug, Default)]
pub(crate) struct Expect {
    pub(crate) ordered: bool,
    pub(crate) fail: bool,
    /// The error must contain, or match, these.
    pub(crate) fail_texts: Vec<Text>,
    pub(crate) warn: bool,
    pub(crate) no_warn: bool,
    pub(crate) info: bool,
    pub(crate) no_info: bool,
    pub(crate) warn_texts: Vec<Text>,
    pub(crate) info_texts: Vec<Text>,
    pub(crate) scalar: Option<f64>,
    pub(crate) string: Option<String>,
    /// The result is a range vector.
    pub(crate) matrix: bool,
    /// Position, labels, values.
    pub(crate) series: Vec<(usize, Labels, Vec<Option<Point>>)>,
}

/// A text to find.
#[derive(Debug)]
pub(crate) enum Text {
    Plain(String),
    Pattern(Regex),
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is valid")
}

static LOAD: LazyLock<Regex> = LazyLock::new(|| pattern(r"^load(?:_(with_nhcb))?\s+(.+?)$"));
static INSTANT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$")
});
static RANGE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$")
});
static EXPECT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?$")
});
static EXPECT_MATRIX: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^expect range vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)$"));
static DURATION_PART: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d+)(ms|[ywdhms])"));
static STRING: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`"#));

/// Which parts of the language a query needs, by the look of it.
static FEATURES: LazyLock<[(&'static str, Regex); 4]> = LazyLock::new(|| {
    [
        ("fill", pattern(r"(?i)\bfill(_left|_right)?\s*\(")),
        ("extended-range", pattern(r"\b(anchored|smoothed)\b")),
        (
            "duration-expr",
            pattern(
                r#"\[[^\]"]*[-+*/^%()][^\]"]*\]|offset\s*-?\s*\(|offset\s+-?[a-z]+\(|offset\s+-?[\da-z]+\s*[-+*/^%]\s*[\da-z(]"#,
            ),
        ),
        (
            "experimental-fn",
            pattern(concat!(
                r"(?i)\b(info|limitk|limit_ratio|mad_over_time|sort_by_label|sort_by_label_desc|",
                r"first_over_time|double_exponential_smoothing|ts_of_max_over_time|",
                r"ts_of_min_over_time|ts_of_last_over_time|ts_of_first_over_time|",
                r"histogram_quantiles|start|end|range|step|max_of|min_of)\s*(?:\(|by\b|without\b)"
            )),
        ),
    ]
});
static AT_ENDS: LazyLock<Regex> = LazyLock::new(|| pattern(r"@\s*(start|end)\s*\(\)"));

/// A Prometheus duration in milliseconds.
pub(crate) fn duration(text: &str) -> Result<i64> {
    let text = text.trim();
    if text == "0" {
        return Ok(0);
    }
    let mut total = 0;
    let mut rest = text;
    while let Some(part) = DURATION_PART.captures(rest) {
        let number: i64 = part[1]
            .parse()
            .map_err(|_| format!("bad duration {text:?}"))?;
        total += number
            * match &part[2] {
                "y" => 365 * 86_400_000,
                "w" => 7 * 86_400_000,
                "d" => 86_400_000,
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1000,
                _ => 1,
            };
        rest = &rest[part[0].len()..];
    }
    if rest.is_empty() && !text.is_empty() {
        Ok(total)
    } else {
        Err(format!("bad duration {text:?}"))
    }
}

/// Reads a script.
pub(crate) fn parse(text: &str) -> Result<Vec<Block>> {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .map(|line| if line.starts_with('#') { "" } else { line })
        .collect();
    let mut blocks = vec![Block::default()];
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let begin = at;
        at += 1;
        if line.is_empty() {
            continue;
        }
        let body = lines[at..].iter().take_while(|l| !l.is_empty()).count();
        let body = &lines[at..at + body];
        let word = line.split([' ', '\t']).next().unwrap_or_default();
        let in_line = |e: String| format!("line {}: {e}", begin + 1);
        if word.eq_ignore_ascii_case("clear") {
            blocks.push(Block::default());
            continue;
        }
        let block = blocks.last_mut().expect("there is always a block");
        if word.starts_with("load") {
            let load = parse_load(line, body).map_err(in_line)?;
            block.commands.push(Command::Load(load));
            at += body.len();
        } else if word.starts_with("eval") {
            let (case, used) = parse_eval(line, body, begin + 1).map_err(in_line)?;
            block.commands.push(Command::Eval(Box::new(case)));
            at += used;
        } else {
            return Err(in_line(format!("unknown command {line:?}")));
        }
    }
    blocks.retain(|block| !block.commands.is_empty());
    blocks.iter_mut().for_each(tag);
    Ok(blocks)
}

fn parse_load(line: &str, body: &[&str]) -> Result<Load> {
    let head = LOAD.captures(line).ok_or("malformed load")?;
    let mut load = Load {
        gap: duration(&head[2])?,
        with_nhcb: head.get(1).is_some(),
        series: Vec::new(),
        start_timestamps: false,
    };
    for line in body {
        let metric_end = line.find([' ', '\t']).unwrap_or(line.len());
        if line[..metric_end].ends_with("@st") {
            load.start_timestamps = true;
        } else {
            load.series.push(notation::series(line)?);
        }
    }
    Ok(load)
}

fn parse_eval(line: &str, body: &[&str], number: usize) -> Result<(Case, usize)> {
    let mut case = Case {
        line: number,
        expr: String::new(),
        range: false,
        start: 0,
        end: 0,
        step: 0,
        expect: Expect::default(),
        tags: Vec::new(),
    };
    let modifier = if let Some(head) = INSTANT.captures(line) {
        case.expr = head[3].to_owned();
        case.start = head.get(2).map_or(Ok(0), |at| duration(at.as_str()))?;
        case.end = case.start;
        head.get(1).map(|m| m.as_str().to_owned())
    } else if let Some(head) = RANGE.captures(line) {
        case.expr = head[5].to_owned();
        case.range = true;
        [case.start, case.end, case.step] = [
            duration(&head[2])?,
            duration(&head[3])?,
            duration(&head[4])?,
        ];
        head.get(1).map(|m| m.as_str().to_owned())
    } else {
        return Err("malformed eval".to_owned());
    };
    match modifier.as_deref() {
        Some("fail") => case.expect.fail = true,
        Some("warn") => case.expect.warn = true,
        Some("info") => case.expect.info = true,
        Some("ordered") => case.expect.ordered = true,
        _ => {}
    }
    let mut position = 0;
    for (i, line) in body.iter().enumerate() {
        if expect_line(&mut case, line)? {
            continue;
        }
        if let Some(scalar) = notation::number(line) {
            case.expect.scalar = Some(scalar);
            return Ok((case, i + 1));
        }
        position += 1;
        let (labels, values) = notation::series(line)?;
        case.expect.series.push((position, labels, values));
    }
    Ok((case, body.len()))
}

/// Reads a line that is no result; false when it is one.
fn expect_line(case: &mut Case, line: &str) -> Result<bool> {
    let expect = &mut case.expect;
    let compiled = |text: &str| {
        Regex::new(text)
            .map(Text::Pattern)
            .map_err(|e| e.to_string())
    };
    if expect.fail
        && let Some(text) = line.strip_prefix("expected_fail_message")
    {
        expect.fail_texts.push(Text::Plain(text.trim().to_owned()));
        return Ok(true);
    }
    if expect.fail
        && let Some(text) = line.strip_prefix("expected_fail_regexp")
    {
        expect.fail_texts.push(compiled(text.trim())?);
        return Ok(true);
    }
    if let Some(text) = line.strip_prefix("expect string ") {
        expect.string = Some(notation::quoted(text)?.0);
        return Ok(true);
    }
    if let Some(times) = EXPECT_MATRIX.captures(line) {
        expect.matrix = true;
        [case.start, case.end, case.step] = [
            duration(&times[1])?,
            duration(&times[2])?,
            duration(&times[3])?,
        ];
        return Ok(true);
    }
    if line != "expect" && !line.starts_with("expect ") {
        return Ok(false);
    }
    let parts = EXPECT
        .captures(line)
        .ok_or_else(|| format!("malformed {line:?}"))?;
    let text = match (parts.get(2).map(|m| m.as_str()), parts.get(3)) {
        (Some("regex"), Some(text)) => Some(compiled(text.as_str().trim())?),
        (_, Some(text)) => Some(Text::Plain(text.as_str().trim().to_owned())),
        _ => None,
    };
    match &parts[1] {
        "ordered" => expect.ordered = true,
        "fail" => {
            expect.fail = true;
            expect.fail_texts.extend(text);
        }
        "warn" => {
            expect.warn = true;
            expect.warn_texts.extend(text);
        }
        "info" => {
            expect.info = true;
            expect.info_texts.extend(text);
        }
        "no_warn" => expect.no_warn = true,
        _ => expect.no_info = true,
    }
    Ok(true)
}

/// Tags every case with what its query needs and what its block holds.
fn tag(block: &mut Block) {
    let mut of_block: Vec<&'static str> = Vec::new();
    for command in &block.commands {
        if let Command::Load(load) = command {
            if load.with_nhcb {
                of_block.push("nhcb");
            }
            if load.start_timestamps {
                of_block.push("start-timestamp");
            }
            let points = load.series.iter().flat_map(|(_, values)| values).flatten();
            of_block.extend(points.filter_map(histogram_tag));
        }
    }
    of_block.sort_unstable();
    of_block.dedup();
    for command in &mut block.commands {
        if let Command::Eval(case) = command {
            case.tags = of_block.clone();
            let plain = STRING.replace_all(&case.expr, "\"\"");
            let plain = AT_ENDS.replace_all(&plain, "");
            let needed = FEATURES.iter().filter(|(_, look)| look.is_match(&plain));
            case.tags.extend(needed.map(|(tag, _)| *tag));
            let points = case
                .expect
                .series
                .iter()
                .flat_map(|(_, _, values)| values)
                .flatten();
            case.tags.extend(points.filter_map(histogram_tag));
            case.tags.sort_unstable();
            case.tags.dedup();
        }
    }
}

fn histogram_tag(point: &Point) -> Option<&'static str> {
    match point {
        Point::Float(_) => None,
        Point::Histogram(h) if h.schema == model::CUSTOM_BUCKETS_SCHEMA => Some("nhcb"),
        Point::Histogram(_) => Some("native-histogram"),
    }
}

#[test]
fn a_script_is_read_into_blocks_and_cases() {
    let text = "load 5m\n\tup{a=\"b\"} 1+1x3\n\n# comment\neval instant at 5m up\n  expect no_warn\n  up{a=\"b\"} 2\n\n\
                clear\neval range from 0 to 1m step 10s 1 + 1\n  {} 2x6\n\neval_fail instant at 0s foo(\n\neval instant at 0s 1\n  1\n";
    let blocks = parse(text).unwrap();
    assert_eq!(blocks.len(), 2);
    let Command::Eval(case) = &blocks[0].commands[1] else {
        panic!("the second command is an eval");
    };
    assert_eq!(
        (case.line, case.start, case.expr.as_str()),
        (5, 300_000, "up")
    );
    assert!(case.expect.no_warn && case.expect.series.len() == 1 && case.tags.is_empty());
    let Command::Eval(last) = &blocks[1].commands[2] else {
        panic!("the last command is an eval");
    };
    assert_eq!(last.expect.scalar, Some(1.0));
    assert!(parse("eval sometimes up").is_err());
}

#[test]
fn durations_may_have_several_units() {
    assert_eq!(duration("1h5m10s3ms"), Ok(3_910_003));
    assert_eq!(duration("0"), Ok(0));
    assert!(duration("5").is_err());
    assert!(duration("").is_err());
}
