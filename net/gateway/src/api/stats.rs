//! The statistics of a query as JSON. Source: Prometheus `util/stats`; samples per step are not counted.

use query::Answer;

/// Timings in seconds, and samples.
pub(super) fn json(answer: &Answer) -> String {
    let [waited, parse, fetch, evaluate] = answer.durations.map(|d| d.as_secs_f64());
    let stats = &answer.stats;
    format!(
        "{{\"timings\":{{\"evalTotalTime\":{:.9},\"resultSortTime\":0,\"queryPreparationTime\":{:.9},\
         \"innerEvalTime\":{:.9},\"execQueueTime\":{:.9},\"execTotalTime\":{:.9}}},\
         \"samples\":{{\"totalQueryableSamples\":{},\"peakSamples\":{}}}}}",
        parse + fetch + evaluate,
        parse + fetch,
        evaluate,
        waited,
        waited + parse + fetch + evaluate,
        stats.total_samples,
        stats.peak_samples,
    )
}
