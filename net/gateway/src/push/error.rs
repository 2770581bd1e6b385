//! Why a push is not answered 200.

use std::time::Duration;

use http::StatusCode;
use model::{Class, CoreId};
use shard::Refusal;
use wire::remote_write;
use wire::snappy;

/// Series leave memory when they have not been written for long, so nothing is gained by coming back sooner.
const SERIES_LIMIT_RETRY_S: u64 = 60;

/// Bounds of `distributor.instance_limits`, in the words of Cortex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InstanceLimit {
    /// `max_inflight_push_requests`.
    #[error("too many inflight push requests in distributor")]
    InflightPushes,
    /// `max_ingestion_rate`.
    #[error("distributor's samples push rate limit reached")]
    Rate,
}

/// See the table of the module above.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Something in it was refused; the words of the first.
    #[error("{0}")]
    Invalid(String),
    /// Not snappy, or too large.
    #[error(transparent)]
    Unpack(#[from] snappy::Error),
    /// Not a write request.
    #[error(transparent)]
    Decode(#[from] remote_write::Error),
    /// Not OTLP metrics.
    #[error(transparent)]
    Otlp(#[from] wire::otlp::Error),
    /// Not gzip, or not zstd.
    #[error("cannot unpack the body: {0}")]
    Packing(String),
    /// Neither protobuf nor JSON, where it may be either.
    #[error("{0}")]
    ContentType(String),
    /// The connection ended inside the body.
    #[error("cannot read the body: {0}")]
    Body(String),
    /// The body did not come in time.
    #[error("the body did not arrive within {} s", .0.as_secs())]
    Slow(Duration),
    /// Another content type or encoding.
    #[error("{0}")]
    MediaType(String),
    /// More than the tenant's rate.
    #[error("{text}")]
    RateLimited {
        /// The words of Cortex.
        text: String,
        /// When it may pass.
        wait: Duration,
    },
    /// A series is beyond a limit of the tenant's series, and that is to be answered so; the words of the first error. The rest is stored.
    #[error("{0}")]
    SeriesLimit(String),
    /// Too many bytes of bodies in work.
    #[error("too many bytes of pushes in work{}", if *.of_tenant { " for this tenant" } else { "" })]
    Inflight {
        /// Those of the tenant, or of all.
        of_tenant: bool,
    },
    /// It is of a replica of an HA pair that is not elected: no error but to those who look.
    #[error("replicas did not match, rejecting sample: replica={replica}, elected={elected}")]
    NotElected {
        /// The one that sent it.
        replica: String,
        /// The one that is taken.
        elected: String,
    },
    /// The store of elections has no answer.
    #[error("cannot tell which replica is elected: {0}")]
    Election(String),
    /// A limit of this process, set by its operator.
    #[error("{0}")]
    Instance(InstanceLimit),
    /// More pushes than the node can do in reasonable time, and this tenant has its share of it.
    #[error("the node is overloaded")]
    Overload,
    /// A core cannot take it now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A core went away with the push.
    #[error("core {0} is gone")]
    CoreGone(CoreId),
}

impl PushError {
    /// What kind of thing went wrong.
    pub fn class(&self) -> Class {
        match self {
            PushError::Invalid(_)
            | PushError::Unpack(_)
            | PushError::Decode(_)
            | PushError::Otlp(_)
            | PushError::Packing(_)
            | PushError::ContentType(_)
            | PushError::Body(_)
            | PushError::NotElected { .. }
            | PushError::MediaType(_) => Class::Client,
            PushError::RateLimited { .. } | PushError::SeriesLimit(_) => Class::Limit,
            PushError::Slow(_)
            | PushError::Inflight { .. }
            | PushError::Instance(_)
            | PushError::Overload
            | PushError::Refused(_) => Class::Overload,
            PushError::CoreGone(_) | PushError::Election(_) => Class::Internal,
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            PushError::Invalid(_)
            | PushError::Unpack(_)
            | PushError::Decode(_)
            | PushError::Otlp(_)
            | PushError::Packing(_)
            | PushError::ContentType(_)
            | PushError::Body(_) => StatusCode::BAD_REQUEST,
            PushError::NotElected { .. } => StatusCode::ACCEPTED,
            PushError::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            PushError::RateLimited { .. } | PushError::SeriesLimit(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            // Not 408: Prometheus drops what gets that.
            PushError::Slow(_)
            | PushError::Inflight { .. }
            | PushError::Instance(_)
            | PushError::Overload
            | PushError::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            PushError::CoreGone(_) | PushError::Election(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Seconds for `Retry-After`, where a repeat can help.
    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            PushError::RateLimited { wait, .. } => Some(wait.as_secs_f64().ceil().max(1.0) as u64),
            PushError::SeriesLimit(_) => Some(SERIES_LIMIT_RETRY_S),
            PushError::Slow(_)
            | PushError::Inflight { .. }
            | PushError::Instance(_)
            | PushError::Overload
            | PushError::Refused(Refusal::QueueFull(_)) => Some(1),
            PushError::Refused(_) => Some(10),
            _ => None,
        }
    }

    /// The metric's label value of a 503.
    pub(super) fn overload(&self) -> Option<&'static str> {
        match self {
            PushError::Inflight { of_tenant: true } => Some("tenant_inflight_bytes"),
            PushError::Inflight { of_tenant: false } => Some("inflight_bytes"),
            PushError::Instance(InstanceLimit::InflightPushes) => {
                Some("instance_inflight_push_requests")
            }
            PushError::Instance(InstanceLimit::Rate) => Some("instance_ingestion_rate"),
            PushError::Overload => Some("overload"),
            PushError::Slow(_) => Some("slow_body"),
            PushError::Refused(Refusal::QueueFull(_)) => Some("queue"),
            PushError::Refused(Refusal::NoSpace(_)) => Some("no_space"),
            PushError::Refused(Refusal::NoMemory) => Some("memory"),
            PushError::Refused(Refusal::Poisoned { .. }) => Some("poisoned"),
            PushError::Refused(Refusal::Elsewhere(_)) => Some("ingester"),
            PushError::Refused(_) => Some("stopping"),
            _ => None,
        }
    }
}
