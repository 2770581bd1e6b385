//! The log: one line per event, to standard error, of `key=value` pairs or as a JSON object.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, Opts};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, LogLevel};

/// Events of our crates at `level` and above, of all others warnings only. Called once.
pub(crate) fn start(level: LogLevel, format: LogFormat) {
    let ours = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let mut filter = if level == LogLevel::Error {
        "error"
    } else {
        "warn"
    }
    .to_owned();
    for name in [
        "myelin", "gateway", "query", "promql", "shard", "wal", "reactor", "chunk", "wire",
    ] {
        let _ = write!(filter, ",{name}={ours}");
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(|| Lossy(io::stderr()))
        // It would say so on standard error, and panic because it cannot.
        .log_internal_errors(false)
        .with_ansi(false);
    match format {
        LogFormat::Logfmt => lines.event_format(Logfmt).init(),
        LogFormat::Json => lines.event_format(Json).fmt_fields(JsonFields).init(),
    }
}

/// Standard error; a line that cannot be written, since its disk is full perhaps, is lost and counted: whatever was to be logged goes on.
struct Lossy<W>(W);

impl<W: io::Write> io::Write for Lossy<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.write_all(line).is_err() {
            lost().inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines that could not be written.
pub(crate) fn lost() -> &'static IntCounter {
    static LOST: OnceLock<IntCounter> = OnceLock::new();
    LOST.get_or_init(|| {
        let help = "Lines of the log that could not be written.";
        IntCounter::new("myelin_log_lines_lost_total", help).expect("a valid metric")
    })
}

/// Lines by level.
pub(crate) fn counter() -> &'static IntCounterVec {
    static LINES: OnceLock<IntCounterVec> = OnceLock::new();
    LINES.get_or_init(|| {
        let opts = Opts::new("log_messages_total", "Lines of the log, by level.");
        let lines = IntCounterVec::new(opts, &["level"]).expect("a valid metric");
        for level in ["error", "warn", "info", "debug"] {
            lines.with_label_values(&[level]);
        }
        lines
    })
}

/// `ts=2026-01-02T03:04:05.678901Z level=info part=shard msg="..." key=value`
struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (level, part) = head(event);
        counter().with_label_values(&[level]).inc();
        writer.write_str("ts=")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, " level={level} part={part}")?;
        let mut fields = Fields {
            writer: &mut writer,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        // What is true of all that happens within a request, such as its trace.
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            if let Some(fields) = fields.filter(|fields| !fields.is_empty()) {
                write!(writer, " {fields}")?;
            }
        }
        writeln!(writer)
    }
}

/// Level, and the part of the node that it is from.
fn head<'a>(event: &Event<'a>) -> (&'static str, &'a str) {
    let level = match *event.metadata().level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut parts = event.metadata().target().split("::");
    (level, parts.next().unwrap_or_default())
}

/// `{"ts":"2026-01-02T03:04:05.678901Z","level":"info","part":"shard","msg":"...","key":"value"}`; numbers and truths are such.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (level, part) = head(event);
        counter().with_label_values(&[level]).inc();
        writer.write_str("{\"ts\":\"")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "\",\"level\":\"{level}\",\"part\":\"{part}\"")?;
        JsonFields.format_fields(writer.by_ref(), event)?;
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>() {
                writer.write_str(fields)?;
            }
        }
        writer.write_str("}\n")
    }
}

/// Fields of an event or a span, a comma before each.
struct JsonFields;

impl<'w> FormatFields<'w> for JsonFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut members = Members {
            writer,
            result: Ok(()),
        };
        fields.record(&mut members);
        members.result
    }
}

struct Members<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
}

impl Members<'_> {
    fn put(&mut self, field: &Field, value: serde_json::Value) {
        let name = serde_json::Value::from(shown(field));
        self.result = self
            .result
            .and_then(|()| write!(self.writer, ",{name}:{value}"));
    }
}

impl Visit for Members<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // What JSON has no number for becomes null.
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

/// The name of a field in a line.
fn shown(field: &Field) -> &'static str {
    match field.name() {
        "message" => "msg",
        name => name,
    }
}

struct Fields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn put(&mut self, field: &Field, text: &str) {
        let name = shown(field);
        let plain = !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=' && b != b'\\');
        self.result = self.result.and_then(|()| match plain {
            true => write!(self.writer, " {name}={text}"),
            false => write!(self.writer, " {name}={text:?}"),
        });
    }
}

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_an_object_where_that_is_asked_for() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Json)
            .fmt_fields(JsonFields)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let path = "a b\n\u{1}";
            tracing::info!(count = -3, ok = true, path, "it is \"so\"");
            let trace_id = "4bf9";
            let span = tracing::error_span!("request", %trace_id);
            span.in_scope(|| tracing::warn!(share = 0.5, "within"));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        let mut first = lines[0].clone();
        assert!(first["ts"].take().as_str().unwrap().starts_with("20"));
        assert_eq!(
            first,
            serde_json::json!({
                "ts": null, "level": "info", "part": "myelin", "msg": "it is \"so\"",
                "count": -3, "ok": true, "path": "a b\n\u{1}",
            })
        );
        let second = &lines[1];
        assert_eq!(
            (&second["trace_id"], &second["share"]),
            (&"4bf9".into(), &0.5.into())
        );
    }

    #[test]
    fn an_event_is_one_line_of_pairs_with_quotes_where_needed() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Logfmt)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(count = 3, path = "a b\n", "it is \"so\"");
            let trace_id = "4bf9";
            let span = tracing::error_span!("request", %trace_id);
            span.in_scope(|| tracing::info!("within"));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("ts=20"), "{text}");
        assert!(
            text.contains(
                " level=info part=myelin msg=\"it is \\\"so\\\"\" count=3 path=\"a b\\n\"\n"
            ),
            "{text}"
        );
        assert!(text.ends_with(" msg=within trace_id=4bf9\n"), "{text}");
    }
}
