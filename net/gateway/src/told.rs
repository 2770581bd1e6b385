//! Lines of the log about what clients do wrong, and the trace that a request belongs to.
//!
//! A client can cause as many refusals as it likes; the log gets [`LINES_A_SECOND`] of them, and each line says how many were left out before it.

use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use prometheus::{IntCounter, Registry};
use tokio::time::Instant;

/// Lines that may come at once.
const BURST: f64 = 10.0;

/// Lines that may come for ever.
const LINES_A_SECOND: f64 = 1.0;

/// See the module.
#[derive(Debug)]
pub(crate) struct Told {
    bucket: Mutex<Bucket>,
    left_out: IntCounter,
}

#[derive(Debug)]
struct Bucket {
    lines: f64,
    filled: Instant,
    left_out: u64,
}

impl Told {
    pub(crate) fn new(registry: &Registry) -> Told {
        let left_out = IntCounter::new(
            "myelin_log_lines_left_out_total",
            "Lines about refused requests that were left out of the log because there were too many.",
        );
        let left_out = left_out.expect("a valid metric");
        registry
            .register(Box::new(left_out.clone()))
            .expect("each metric is registered once");
        Told {
            bucket: Mutex::new(Bucket {
                lines: BURST,
                filled: Instant::now(),
                left_out: 0,
            }),
            left_out,
        }
    }

    /// Whether there is room for a line now, and how many were left out since the last.
    pub(crate) fn room(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.lines = (bucket.lines + since * LINES_A_SECOND).min(BURST);
        bucket.filled = now;
        if bucket.lines < 1.0 {
            bucket.left_out += 1;
            self.left_out.inc();
            return None;
        }
        bucket.lines -= 1.0;
        Some(std::mem::take(&mut bucket.left_out))
    }
}

/// The trace of a request: of the header `traceparent`, if it is well formed. Source: W3C Trace Context.
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let mut hex = |len: usize| {
        let part = parts.next()?;
        let digits = part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == len && digits).then_some(part)
    };
    let (version, trace, parent, _) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    // Later versions may have more behind; `ff` is none.
    let ends = version != "00" || parts.next().is_none();
    (ends && version != "ff" && !is_zero(trace) && !is_zero(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_have_a_rate_and_say_how_many_were_left_out() {
        let told = Told::new(&Registry::new());
        let now = Instant::now();
        let room = |seconds| told.room(now + Duration::from_secs(seconds));
        for _ in 0..10 {
            assert_eq!(room(0), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(room(0), None);
        }
        assert_eq!((room(1), room(1), room(2)), (Some(5), None, Some(1)));
        assert_eq!(told.left_out.get(), 6);
    }

    #[test]
    fn a_trace_is_taken_from_a_header_that_is_well_formed() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let of = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            trace_id(&headers).map(str::to_owned)
        };
        let well = of(format!("00-{TRACE}-00f067aa0ba902b7-01"));
        assert_eq!(well.as_deref(), Some(TRACE));
        assert!(of(format!("01-{TRACE}-00f067aa0ba902b7-01-later")).is_some());
        for wrong in [
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            "x\" level=error".to_owned(),
        ] {
            assert_eq!(of(wrong.clone()), None, "{wrong}");
        }
    }
}
