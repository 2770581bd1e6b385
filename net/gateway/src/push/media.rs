//! Content type and encoding of a push.
//!
//! Missing, or `application/x-protobuf` with or without `proto=prometheus.WriteRequest`: version 1. With
//! `proto=io.prometheus.write.v2.Request`: version 2. Anything else is 415, and so is an encoding other than snappy. Source: Cortex.
//!
//! OTLP: `application/x-protobuf` or `application/json`, else 400 as in Cortex and Prometheus; packed as gzip, zstd or not at all, else 415.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use wire::otlp::Encoding;
use wire::remote_write::Protocol;

use super::PushError;
use super::unpack::Packing;

/// Headers of answers to version 2: how many samples, histograms and exemplars are stored.
pub(super) const WRITTEN_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

/// Which message the body holds, if it is packed as it may be.
pub(super) fn protocol(headers: &HeaderMap) -> Result<Protocol, PushError> {
    let encoding = text(headers, CONTENT_ENCODING)?;
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        let text = format!("unsupported content encoding {encoding:?}, use snappy");
        return Err(PushError::MediaType(text));
    }
    message(headers)
}

/// Which message the body holds, however it is packed.
pub(super) fn message(headers: &HeaderMap) -> Result<Protocol, PushError> {
    let content_type = text(headers, CONTENT_TYPE)?;
    let unsupported = || {
        let text = format!("unsupported content type {content_type:?}, use application/x-protobuf");
        Err(PushError::MediaType(text))
    };
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if content_type.is_empty() {
        return Ok(Protocol::V1);
    }
    if !media.eq_ignore_ascii_case("application/x-protobuf") {
        return unsupported();
    }
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        if !name.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        return match value.trim().trim_matches('"') {
            "prometheus.WriteRequest" => Ok(Protocol::V1),
            "io.prometheus.write.v2.Request" => Ok(Protocol::V2),
            _ => unsupported(),
        };
    }
    Ok(Protocol::V1)
}

/// How a push of OTLP is written and packed.
pub(super) fn otlp(headers: &HeaderMap) -> Result<(Encoding, Packing), PushError> {
    let packing = match text(headers, CONTENT_ENCODING)? {
        "" => Packing::None,
        name if name.eq_ignore_ascii_case("identity") => Packing::None,
        name if name.eq_ignore_ascii_case("gzip") => Packing::Gzip,
        name if name.eq_ignore_ascii_case("zstd") => Packing::Zstd,
        other => {
            let text = format!("unsupported content encoding {other:?}, use gzip or zstd");
            return Err(PushError::MediaType(text));
        }
    };
    let content_type = text(headers, CONTENT_TYPE)?;
    match encoding_of(content_type) {
        Some(encoding) => Ok((encoding, packing)),
        None => Err(PushError::ContentType(format!(
            "unsupported content type {content_type:?}, use application/x-protobuf or application/json"
        ))),
    }
}

fn encoding_of(content_type: &str) -> Option<Encoding> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    [Encoding::Protobuf, Encoding::Json]
        .into_iter()
        .find(|encoding| media.eq_ignore_ascii_case(encoding.content_type()))
}

/// How a sender of OTLP wants to be answered; JSON where it does not say anything that is known.
pub(super) fn otlp_encoding(headers: &HeaderMap) -> Encoding {
    let content_type = text(headers, CONTENT_TYPE).unwrap_or_default();
    encoding_of(content_type).unwrap_or(Encoding::Json)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Result<&str, PushError> {
    let Some(value) = headers.get(&name) else {
        return Ok("");
    };
    value
        .to_str()
        .map(str::trim)
        .map_err(|_| PushError::MediaType(format!("header {name} is not text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content_type: Option<&str>, encoding: Option<&str>) -> Result<Protocol, u16> {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
        }
        if let Some(value) = encoding {
            headers.insert(CONTENT_ENCODING, value.parse().unwrap());
        }
        protocol(&headers).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn content_types_choose_the_protocol_or_are_415() {
        for v1 in [
            None,
            Some(""),
            Some("application/x-protobuf"),
            Some("Application/X-Protobuf; charset=utf-8"),
            Some("application/x-protobuf;proto=prometheus.WriteRequest"),
        ] {
            assert_eq!(of(v1, Some("snappy")), Ok(Protocol::V1), "{v1:?}");
        }
        let v2 = "application/x-protobuf; proto=io.prometheus.write.v2.Request";
        assert_eq!(of(Some(v2), Some("snappy")), Ok(Protocol::V2));
        for bad in [
            "application/json",
            "text/plain",
            "application/x-protobuf;proto=x.Y",
        ] {
            assert_eq!(of(Some(bad), Some("snappy")), Err(415), "{bad}");
        }
    }

    #[test]
    fn otlp_is_protobuf_or_json_in_two_packings() {
        let of = |content_type: &str, encoding: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
            headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
            otlp(&headers).map_err(|error| error.status().as_u16())
        };
        let (protobuf, json) = ("application/x-protobuf", "Application/JSON; charset=utf-8");
        assert_eq!(of(protobuf, ""), Ok((Encoding::Protobuf, Packing::None)));
        assert_eq!(of(json, "GZIP"), Ok((Encoding::Json, Packing::Gzip)));
        assert_eq!(of(json, "zstd"), Ok((Encoding::Json, Packing::Zstd)));
        assert_eq!(of(protobuf, "snappy"), Err(415));
        assert_eq!(of("text/plain", "gzip"), Err(400));
        assert_eq!(of("", ""), Err(400));
    }

    #[test]
    fn only_snappy_or_nothing_is_an_encoding() {
        assert_eq!(of(None, None), Ok(Protocol::V1));
        assert_eq!(of(None, Some("Snappy")), Ok(Protocol::V1));
        assert_eq!(of(None, Some("gzip")), Err(415));
        assert_eq!(of(None, Some("identity")), Err(415));
    }
}
