//! CPU profiles of the process, sampled by the crate `pprof` and written in the format of `go tool pprof`.
//!
//! A timer of CPU time sends SIGPROF to a thread that runs, whose handler walks its stack into memory that was taken before. While no profile is taken there is
//! neither timer nor handler. What the handler may meet here:
//!
//! - *Calls of the kernel that wait*: files and sockets go on by themselves (`SA_RESTART`); rings, doorbells and futexes come back with EINTR, which the reactor and the runtimes
//!   take for nothing.
//! - *The allocator and its own profiles*: the handler allocates nothing. glibc since 2.35 finds the tables of unwinding without a lock (and libgcc since 12 asks it), so a thread
//!   that was unwinding itself is no danger; with older ones such a sample could be, and such a thread is one that panics or is sampled by jemalloc.
//! - *The stack*: some 20 KiB of it.
//!
//! Compilers write tables that hold at every instruction, so no frame pointers are needed.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gateway::CpuProfile;
use pprof::{ProfilerGuardBuilder, Report};

/// Samples of a second of CPU time. Not a round number, so that it does not keep step with what works in rounds.
const FREQUENCY: i32 = 99;

/// Begins to look what the process does with its CPU time. What comes back ends that and tells it; who drops it ends it, too. Both take a while: symbols are read.
///
/// Errors: there is a profile at work, or the kernel refuses the timer.
pub(crate) fn begin() -> Result<CpuProfile, String> {
    let failed = |error: pprof::Error| format!("no CPU profile: {error}");
    let guard = ProfilerGuardBuilder::default().frequency(FREQUENCY).build();
    let guard = guard.map_err(failed)?;
    let (begun, clock) = (SystemTime::now(), Instant::now());
    Ok(Box::new(move || {
        let duration = clock.elapsed();
        let report = guard.report().build().map_err(failed)?;
        // So that the encoding is not sampled.
        drop(guard);
        Ok(encode(&report, begun, duration))
    }))
}

/// The tables of a profile. Source: `proto/profile.proto` of google/pprof.
#[derive(Default)]
struct Profile {
    strings: HashMap<String, u64>,
    /// By name and file; numbers begin at 1.
    functions: HashMap<(u64, u64), u64>,
    /// By what is inlined into each other: function and line.
    locations: HashMap<Vec<(u64, u64)>, u64>,
    /// Messages of the profile as they come.
    out: Vec<u8>,
    table: Vec<String>,
}

impl Profile {
    fn string(&mut self, text: &str) -> u64 {
        if let Some(index) = self.strings.get(text) {
            return *index;
        }
        let index = self.table.len() as u64;
        self.table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let key = (self.string(name), self.string(file));
        let next = self.functions.len() as u64 + 1;
        if let Some(id) = self.functions.get(&key) {
            return *id;
        }
        self.functions.insert(key, next);
        let mut message = Vec::new();
        put_number(&mut message, 1, next);
        put_number(&mut message, 2, key.0);
        put_number(&mut message, 3, key.0);
        put_number(&mut message, 4, key.1);
        put_bytes(&mut self.out, 5, &message);
        next
    }

    fn location(&mut self, lines: Vec<(u64, u64)>) -> u64 {
        let next = self.locations.len() as u64 + 1;
        if let Some(id) = self.locations.get(&lines) {
            return *id;
        }
        let mut message = Vec::new();
        put_number(&mut message, 1, next);
        for &(function, line) in &lines {
            let mut content = Vec::new();
            put_number(&mut content, 1, function);
            put_number(&mut content, 2, line);
            put_bytes(&mut message, 4, &content);
        }
        put_bytes(&mut self.out, 4, &message);
        self.locations.insert(lines, next);
        next
    }
}

fn encode(report: &Report, begun: SystemTime, duration: Duration) -> Vec<u8> {
    let period = 1_000_000_000 / FREQUENCY as u64;
    let mut profile = Profile::default();
    // The first string of a table is empty.
    profile.string("");
    let [samples, count, cpu, nanoseconds, thread] =
        ["samples", "count", "cpu", "nanoseconds", "thread"].map(|text| profile.string(text));
    let kind = |kind, unit| {
        let mut message = Vec::new();
        put_number(&mut message, 1, kind);
        put_number(&mut message, 2, unit);
        message
    };
    put_bytes(&mut profile.out, 1, &kind(samples, count));
    put_bytes(&mut profile.out, 1, &kind(cpu, nanoseconds));
    for (frames, count) in &report.data {
        let mut places = Vec::new();
        for symbols in &frames.frames {
            let lines = symbols.iter().map(|symbol| {
                let function = profile.function(&symbol.name(), &symbol.filename());
                (function, u64::from(symbol.lineno.unwrap_or(0)))
            });
            let lines = lines.collect();
            put_varint(&mut places, profile.location(lines));
        }
        let count = u64::try_from(*count).unwrap_or(0);
        let mut values = Vec::new();
        put_varint(&mut values, count);
        put_varint(&mut values, count * period);
        let mut label = Vec::new();
        put_number(&mut label, 1, thread);
        put_number(&mut label, 2, profile.string(&frames.thread_name));
        let mut message = Vec::new();
        put_bytes(&mut message, 1, &places);
        put_bytes(&mut message, 2, &values);
        put_bytes(&mut message, 3, &label);
        put_bytes(&mut profile.out, 2, &message);
    }
    let begun = begun.duration_since(UNIX_EPOCH).unwrap_or_default();
    put_number(&mut profile.out, 9, begun.as_nanos() as u64);
    put_number(&mut profile.out, 10, duration.as_nanos() as u64);
    put_bytes(&mut profile.out, 11, &kind(cpu, nanoseconds));
    put_number(&mut profile.out, 12, period);
    let mut out = profile.out;
    for text in &profile.table {
        put_bytes(&mut out, 6, text.as_bytes());
    }
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
