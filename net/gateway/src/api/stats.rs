//! The statistics of a query as JSON. Source: Prometheus `util/stats`. Samples per step are there with `stats=all`, `bucket` is our own.

use query::Answer;
use wire::json::{put_time, put_u64};

use super::object::put_list;

/// Timings in seconds, and samples.
pub(crate) fn json(answer: &Answer) -> String {
    let [waited, parse, fetch, evaluate] = answer.durations.map(|d| d.as_secs_f64());
    let stats = &answer.stats;
    format!(
        "{{\"timings\":{{\"evalTotalTime\":{:.9},\"resultSortTime\":0,\"queryPreparationTime\":{:.9},\
         \"innerEvalTime\":{:.9},\"execQueueTime\":{:.9},\"execTotalTime\":{:.9}}},\
         \"samples\":{{{}\"totalQueryableSamples\":{},\"peakSamples\":{}}}{}}}",
        parse + fetch + evaluate,
        parse + fetch,
        evaluate,
        waited,
        waited + parse + fetch + evaluate,
        per_step(&answer.per_step),
        stats.total_samples,
        stats.peak_samples,
        from_bucket(answer.account.from_bucket()),
    )
}

/// What long-term storage had to do with it, behind a comma; nothing without it.
fn from_bucket((requests, bytes): (u64, u64)) -> String {
    match requests {
        0 => String::new(),
        _ => format!(",\"bucket\":{{\"requests\":{requests},\"bytes\":{bytes}}}"),
    }
}

/// The field with its comma, or nothing.
fn per_step(steps: &[(i64, u64)]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let mut out = b"\"totalQueryableSamplesPerStep\":".to_vec();
    put_list(&mut out, steps, |out, (time, samples)| {
        out.push(b'[');
        put_time(out, *time);
        out.push(b',');
        put_u64(out, *samples);
        out.push(b']');
    });
    out.push(b',');
    String::from_utf8(out).expect("numbers and punctuation")
}
