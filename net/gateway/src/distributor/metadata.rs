//! What a metadata record must be.

use model::{Metadata, MetricType};
use wire::remote_write::v1::RawMetadata;

/// Order and texts as in Cortex; bytes that are not UTF-8 are refused like texts that are too long.
pub(super) fn check_metadata(
    raw: &RawMetadata<'_>,
    len_max: u32,
) -> Result<(String, Metadata), (&'static str, String)> {
    let lossy = |bytes| super::texts::quote_short(&String::from_utf8_lossy(bytes));
    if raw.metric.is_empty() {
        return Err((
            "missing_metric_name",
            "metadata missing metric name".to_owned(),
        ));
    }
    for (bytes, what, reason) in [
        (raw.metric, "METRIC_NAME", "metric_name_too_long"),
        (raw.help, "HELP", "help_too_long"),
        (raw.unit, "UNIT", "unit_too_long"),
    ] {
        if len_max != 0 && bytes.len() > len_max as usize {
            let (cause, metric) = (lossy(bytes), lossy(raw.metric));
            let text = format!("metadata '{what}' value too long: {cause} metric {metric}");
            return Err((reason, text));
        }
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
    let (Ok(metric), Ok(help), Ok(unit)) = (text(raw.metric), text(raw.help), text(raw.unit))
    else {
        let text = format!("metadata is not valid UTF-8: metric {}", lossy(raw.metric));
        return Err(("metadata_invalid", text));
    };
    Ok((
        metric,
        Metadata {
            kind: MetricType::from_number(raw.kind),
            help,
            unit,
        },
    ))
}
