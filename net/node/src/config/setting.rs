//! How a value of a key is read from text and shown: the types that a setting can have.
//!
//! Durations as Go writes them (`1h30m`, `250ms`) and with `d`, `w`, `y` besides; sizes in bytes or with `KiB`, `MiB`, `GiB`.
//! What is shown can be read again.

use std::path::PathBuf;
use std::time::Duration;

use gateway::SlowerThan;
use gateway::tls::ClientAuth;
use model::{Ack, NameScheme, RateStrategy, RelabelAction, RelabelConfig, SeriesLimitStatus};

use super::caches::Compression;

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// The word for the reference page.
    const KIND: &'static str;
    /// Reads a value; the error says what was expected.
    fn parse(text: &str) -> Result<Self, String>;
    /// Writes a value as `parse` reads it.
    fn show(&self) -> String;
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

/// How a core reaches its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Io {
    /// io_uring where the kernel lets us, threads else.
    Auto,
    /// io_uring or no start.
    Uring,
    /// A helper thread with plain system calls.
    Threads,
}

/// Where blocks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// They stay on the disk.
    None,
    /// A directory.
    Filesystem,
    /// S3 or what speaks like it.
    S3,
    /// Google's.
    Gcs,
}

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
    }
}

/// How a bucket is named in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// By the path where an endpoint is given, else by the host.
    Auto,
    /// By the path.
    Path,
    /// By the host.
    VirtualHosted,
}

/// Encryption by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sse {
    /// As the bucket is set.
    None,
    /// With keys of the store.
    S3,
    /// With keys of the key service.
    Kms,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// All.
    Debug,
    /// What an operator wants to have read once.
    Info,
    /// What is wrong but handled.
    Warn,
    /// What needs a human.
    Error,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Pairs.
    Logfmt,
    /// An object.
    Json,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClientAuthType(pub(crate) ClientAuth);

impl Setting for ClientAuthType {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<ClientAuthType, String> {
        match text {
            "" | "NoClientCert" => Ok(ClientAuthType(ClientAuth::None)),
            "VerifyClientCertIfGiven" => Ok(ClientAuthType(ClientAuth::IfGiven)),
            "RequireAndVerifyClientCert" => Ok(ClientAuthType(ClientAuth::Required)),
            "RequestClientCert" | "RequireAnyClientCert" => Err(format!(
                "{text}: certificates that nobody verifies are not asked for"
            )),
            _ => Err(format!(
                "{text:?} is none of NoClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert"
            )),
        }
    }
    fn show(&self) -> String {
        match self.0 {
            ClientAuth::None => "NoClientCert",
            ClientAuth::IfGiven => "VerifyClientCertIfGiven",
            ClientAuth::Required => "RequireAndVerifyClientCert",
        }
        .to_owned()
    }
}

/// A rate a second of which zero means unlimited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

impl Setting for bool {
    const KIND: &'static str = "boolean";
    fn parse(text: &str) -> Result<bool, String> {
        match text {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
            "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Whole numbers; `1e6` is one too, as in YAML.
fn whole(text: &str, max: u64) -> Result<u64, String> {
    let number = match text.parse::<u64>() {
        Ok(number) => Some(number),
        Err(_) => text
            .parse::<f64>()
            .ok()
            .filter(|f| f.fract() == 0.0 && (0.0..=9.0e15).contains(f))
            .map(|f| f as u64),
    };
    match number {
        Some(number) if number <= max => Ok(number),
        _ => Err(format!("{text:?} is not a whole number from 0 to {max}")),
    }
}

macro_rules! whole_number {
    ($($kind:ty),*) => {$(
        impl Setting for $kind {
            const KIND: &'static str = "number";
            fn parse(text: &str) -> Result<$kind, String> {
                whole(text, <$kind>::MAX as u64).map(|n| n as $kind)
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
whole_number!(u16, u32, u64, usize);

impl Setting for Rate {
    const KIND: &'static str = "number";
    fn parse(text: &str) -> Result<Rate, String> {
        match text.parse::<f64>() {
            Ok(0.0) => Ok(Rate(f64::INFINITY)),
            Ok(rate) if rate > 0.0 => Ok(Rate(rate)),
            _ => Err(format!("{text:?} is not a number of zero or above")),
        }
    }
    fn show(&self) -> String {
        if self.0.is_infinite() {
            "0".to_owned()
        } else {
            self.0.to_string()
        }
    }
}

impl Setting for String {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for Secret {
    const KIND: &'static str = "secret";
    fn parse(text: &str) -> Result<Secret, String> {
        Ok(Secret(text.to_owned()))
    }
    fn show(&self) -> String {
        match self.0.as_str() {
            "" => String::new(),
            _ => "********".to_owned(),
        }
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";
    fn parse(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            return Err("a path must not be empty".to_owned());
        }
        Ok(PathBuf::from(text))
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// Names joined by commas.
impl Setting for Vec<String> {
    const KIND: &'static str = "list";
    fn parse(text: &str) -> Result<Vec<String>, String> {
        Ok(text
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect())
    }
    fn show(&self) -> String {
        self.join(",")
    }
}

/// Durations joined by commas.
impl Setting for Vec<Duration> {
    const KIND: &'static str = "durations";
    fn parse(text: &str) -> Result<Vec<Duration>, String> {
        let words: Vec<String> = Setting::parse(text)?;
        words.iter().map(|word| Duration::parse(word)).collect()
    }
    fn show(&self) -> String {
        let words: Vec<String> = self.iter().map(Setting::show).collect();
        words.show()
    }
}

/// `10s`, `0` for none, anything negative for all.
impl Setting for SlowerThan {
    const KIND: &'static str = "threshold";
    fn parse(text: &str) -> Result<SlowerThan, String> {
        if let Some(rest) = text.strip_prefix('-') {
            return Duration::parse(rest)
                .map(|_| SlowerThan::All)
                .map_err(|_| format!("{text:?} is not a duration such as 30s or -1s"));
        }
        Ok(match Duration::parse(text)? {
            Duration::ZERO => SlowerThan::Off,
            most => SlowerThan::Than(most),
        })
    }
    fn show(&self) -> String {
        match self {
            SlowerThan::Off => "0s".to_owned(),
            SlowerThan::Than(most) => most.show(),
            SlowerThan::All => "-1s".to_owned(),
        }
    }
}

impl Setting for i64 {
    const KIND: &'static str = "whole number";
    fn parse(text: &str) -> Result<i64, String> {
        let wrong = |_| format!("{text:?} is not a whole number");
        text.parse().map_err(wrong)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// A list of rules in YAML, of which JSON is a part; shown as JSON.
impl Setting for Vec<RelabelConfig> {
    const KIND: &'static str = "rules";
    fn parse(text: &str) -> Result<Vec<RelabelConfig>, String> {
        use serde_json::Value;
        let rules = match super::sources::tree(text).map_err(|e| e.to_string())? {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(rules)) => rules,
            Some(other) => return Err(format!("expected a list of rules, found {other}")),
        };
        let rules: Vec<RelabelConfig> = rules.iter().map(rule).collect::<Result<_, _>>()?;
        gateway::relabel::Relabel::compile(&rules)?;
        Ok(rules)
    }
    fn show(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let defaults = RelabelConfig::default();
        let rule = |rule: &RelabelConfig| {
            let mut shown = serde_json::Map::new();
            let mut put = |name: &str, value: serde_json::Value, usual: bool| {
                if !usual {
                    shown.insert(name.to_owned(), value);
                }
            };
            let none = rule.source_labels.is_empty();
            put("source_labels", rule.source_labels.clone().into(), none);
            for (name, text, usual) in [
                ("separator", &rule.separator, &defaults.separator),
                ("regex", &rule.regex, &defaults.regex),
                ("target_label", &rule.target_label, &defaults.target_label),
                ("replacement", &rule.replacement, &defaults.replacement),
            ] {
                put(name, text.clone().into(), text == usual);
            }
            put("modulus", rule.modulus.into(), rule.modulus == 0);
            put("action", rule.action.name().into(), false);
            serde_json::Value::Object(shown)
        };
        serde_json::Value::Array(self.iter().map(rule).collect()).to_string()
    }
}

/// One rule as Prometheus has it.
fn rule(value: &serde_json::Value) -> Result<RelabelConfig, String> {
    let wrong = |what: &str| format!("expected {what} in the rule {value}");
    let fields = value.as_object().ok_or_else(|| wrong("fields"))?;
    let mut rule = RelabelConfig::default();
    for (name, value) in fields {
        let text = || match value {
            serde_json::Value::String(text) => Ok(text.clone()),
            serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Ok(value.to_string()),
            _ => Err(wrong(&format!("a text as {name}"))),
        };
        match name.as_str() {
            "source_labels" => {
                let list = value.as_array().ok_or_else(|| wrong("a list of labels"))?;
                let names = list.iter().map(|name| name.as_str().map(str::to_owned));
                let names = names.collect::<Option<_>>();
                rule.source_labels = names.ok_or_else(|| wrong("names of labels"))?;
            }
            "separator" => rule.separator = text()?,
            "regex" => rule.regex = text()?,
            "target_label" => rule.target_label = text()?,
            "replacement" => rule.replacement = text()?,
            "modulus" => rule.modulus = value.as_u64().ok_or_else(|| wrong("a whole modulus"))?,
            "action" => {
                let action = text()?.to_lowercase();
                let known = RelabelAction::ALL.iter().find(|a| a.name() == action);
                let known = known.ok_or_else(|| format!("unknown relabel action {action:?}"))?;
                rule.action = *known;
            }
            other => return Err(format!("unknown field {other:?} in a relabelling rule")),
        }
    }
    Ok(rule)
}

impl Setting for ByteSize {
    const KIND: &'static str = "bytes";
    fn parse(text: &str) -> Result<ByteSize, String> {
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("B", 0)];
        let (digits, shift) = units
            .iter()
            .find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?.trim(), shift)))
            .unwrap_or((text, 0));
        let wrong = || format!("{text:?} is not a size such as 1048576 or 64MiB");
        let count = whole(digits, u64::MAX >> 1).map_err(|_| wrong())?;
        count
            .checked_mul(1 << shift)
            .map(ByteSize)
            .ok_or_else(wrong)
    }
    fn show(&self) -> String {
        [(30, "GiB"), (20, "MiB"), (10, "KiB")]
            .iter()
            .find(|&&(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift))
            .map_or_else(
                || self.0.to_string(),
                |(shift, unit)| format!("{}{unit}", self.0 >> shift),
            )
    }
}

/// Units of durations in nanoseconds, as Go and Prometheus know them.
const UNITS: [(&str, u64); 10] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 7 * 86_400_000_000_000),
    ("y", 365 * 86_400_000_000_000),
];

impl Setting for Duration {
    const KIND: &'static str = "duration";
    fn parse(text: &str) -> Result<Duration, String> {
        let wrong = || format!("{text:?} is not a duration such as 30s or 1h30m");
        if text == "0" {
            return Ok(Duration::ZERO);
        }
        let mut rest = text;
        let mut total = 0.0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
            let tail = &rest[digits..];
            let letters = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (_, unit) = UNITS
                .iter()
                .find(|(name, _)| *name == &tail[..letters])
                .ok_or_else(wrong)?;
            total += number * *unit as f64;
            rest = &tail[letters..];
        }
        if text.is_empty() || total > u64::MAX as f64 {
            return Err(wrong());
        }
        Ok(Duration::from_nanos(total as u64))
    }
    fn show(&self) -> String {
        let mut nanos = self.as_nanos();
        if nanos == 0 {
            return "0s".to_owned();
        }
        let mut text = String::new();
        for unit in ["h", "m", "s", "ms", "us", "ns"] {
            let size = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map_or(1, |(_, n)| u128::from(*n));
            if nanos >= size {
                text.push_str(&format!("{}{unit}", nanos / size));
                nanos %= size;
            }
        }
        text
    }
}

macro_rules! words {
    ($kind:ty, $($word:literal = $value:path),+) => {
        impl Setting for $kind {
            const KIND: &'static str = concat!($("`", $word, "` "),+);
            fn parse(text: &str) -> Result<$kind, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(format!("{text:?} is none of: {}", [$($word),+].join(", "))),
                }
            }
            fn show(&self) -> String {
                match self {
                    $($value => $word.to_owned(),)+
                }
            }
        }
    };
}
words!(
    Compression,
    "" = Compression::None,
    "snappy" = Compression::Snappy
);
words!(
    Io,
    "auto" = Io::Auto,
    "uring" = Io::Uring,
    "threads" = Io::Threads
);
words!(
    LogLevel,
    "debug" = LogLevel::Debug,
    "info" = LogLevel::Info,
    "warn" = LogLevel::Warn,
    "error" = LogLevel::Error
);
words!(
    LogFormat,
    "logfmt" = LogFormat::Logfmt,
    "json" = LogFormat::Json
);
words!(
    RateStrategy,
    "local" = RateStrategy::Local,
    "global" = RateStrategy::Global
);
words!(
    Backend,
    "" = Backend::None,
    "filesystem" = Backend::Filesystem,
    "s3" = Backend::S3,
    "gcs" = Backend::Gcs
);
words!(
    Lookup,
    "auto" = Lookup::Auto,
    "path" = Lookup::Path,
    "virtual-hosted" = Lookup::VirtualHosted
);
words!(
    Sse,
    "" = Sse::None,
    "SSE-S3" = Sse::S3,
    "SSE-KMS" = Sse::Kms
);
words!(
    NameScheme,
    "utf8" = NameScheme::Utf8,
    "legacy" = NameScheme::Legacy
);
words!(
    SeriesLimitStatus,
    "400" = SeriesLimitStatus::BadRequest,
    "429" = SeriesLimitStatus::TooManyRequests
);
words!(Ack, "durable" = Ack::Durable, "written" = Ack::Written);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_and_prometheus_write_them() {
        let ms = |text: &str| Duration::parse(text).map(|d| d.as_millis());
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("1.5s"), Ok(1_500));
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("1d"), Ok(86_400_000));
        assert_eq!(ms("0"), Ok(0));
        for text in ["", "5", "s", "1x", "-1s", "1h 5m", "1..5s", "9999999999y"] {
            assert!(Duration::parse(text).is_err(), "{text:?} passed");
        }
        for text in ["1h30m", "24h", "250ms", "2m", "0s"] {
            assert_eq!(Duration::parse(text).unwrap().show(), text);
        }
    }

    #[test]
    fn sizes_have_binary_units_and_whole_numbers_may_have_exponents() {
        assert_eq!(ByteSize::parse("64MiB"), Ok(ByteSize(64 << 20)));
        assert_eq!(ByteSize::parse("104857600").unwrap().show(), "100MiB");
        assert_eq!(ByteSize::parse("1000").unwrap().show(), "1000");
        assert!(ByteSize::parse("1MB").is_err() && ByteSize::parse("-1").is_err());
        assert!(ByteSize::parse("99999999999GiB").is_err());
        assert_eq!(u64::parse("1e6"), Ok(1_000_000));
        assert!(u16::parse("65536").is_err() && u32::parse("1.5").is_err());
    }

    #[test]
    fn a_rate_of_zero_is_unlimited_and_shown_as_zero() {
        assert_eq!(Rate::parse("0"), Ok(Rate(f64::INFINITY)));
        assert_eq!(Rate::parse("0").unwrap().show(), "0");
        assert_eq!(Rate::parse("2.5"), Ok(Rate(2.5)));
        assert!(Rate::parse("-1").is_err() && Rate::parse("NaN").is_err());
    }
}
