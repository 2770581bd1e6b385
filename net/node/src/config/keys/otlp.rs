//! The keys of OTLP and of remote write 2.0.

use super::super::Config;
use super::super::setting::Setting;
use super::{Key, kind_of};

pub(super) fn keys() -> Vec<Key> {
    vec![
        key!(
            "distributor.otlp_max_recv_msg_size",
            "distributor.otlp-max-recv-msg-size",
            distributor.otlp_max_recv_msg_size,
            "16MiB",
            "Largest body of an OTLP push, packed and unpacked alike. What it is translated into is bounded by `distributor.max_recv_msg_size`. \
             Never more than half of `distributor.max_inflight_bytes` and `distributor.max_inflight_bytes_per_tenant`."
        ),
        key!(
            "distributor.remote_writev2_enabled",
            "distributor.remote-writev2-enabled",
            distributor.remote_writev2_enabled,
            "false",
            "Whether pushes may be remote write 2.0. Where not, they are answered 415, and senders that know both fall back to 1.0."
        ),
        key!(
            "distributor.otlp.add_metric_suffixes",
            "distributor.otlp.add-metric-suffixes",
            distributor.otlp.add_metric_suffixes,
            "false",
            "Whether names of OTLP metrics end with their unit and `_total`, as Prometheus' do."
        ),
        key!(
            "distributor.otlp.disable_target_info",
            "distributor.otlp.disable-target-info",
            distributor.otlp.disable_target_info,
            "true",
            "Whether no series `target_info` is written, which has the attributes of a resource as labels."
        ),
        key!(
            "distributor.otlp.convert_all_attributes",
            "distributor.otlp.convert-all-attributes",
            distributor.otlp.convert_all_attributes,
            "true",
            "Whether all attributes of a resource are labels of its series; else those of `limits.promote_resource_attributes`."
        ),
        key!(
            "distributor.otlp.allow_delta_temporality",
            "distributor.otlp.allow-delta-temporality",
            distributor.otlp.allow_delta_temporality,
            "true",
            "Whether points that tell a difference since the last one are stored, as they are and with an unknown type; else they are refused."
        ),
        key!(
            "distributor.otlp.promote_scope_metadata",
            "distributor.otlp.promote-scope-metadata",
            distributor.otlp.promote_scope_metadata,
            "true",
            "Whether name, version, schema URL and attributes of the instrumentation scope are labels, `otel_scope_name` and so on."
        ),
        key!(
            "distributor.otlp.convert_histograms_to_nhcb",
            "distributor.otlp.convert-histograms-to-nhcb",
            distributor.otlp.convert_histograms_to_nhcb,
            "true",
            "Whether histograms with explicit bounds become native histograms with custom buckets instead of `_bucket`, `_sum` and `_count`."
        ),
        key!(
            "limits.promote_resource_attributes",
            "distributor.promote-resource-attributes",
            limits.promote_resource_attributes,
            "cloud.region,k8s.pod.name",
            "Attributes of an OTLP resource that are labels of its series. The flag may be repeated."
        ),
    ]
}
