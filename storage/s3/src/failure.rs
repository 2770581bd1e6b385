//! What an error of the SDK means to us.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use objstore::Error;

/// By what the store said, or by how far the request came.
pub(crate) fn told<E>(key: &str, error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let key = key.to_owned();
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let is_service = matches!(error, SdkError::ServiceError(_));
    let is_ours = matches!(error, SdkError::ConstructionFailure(_));
    let reason = match error.message() {
        Some(message) => format!("{} {code}: {message}", status.unwrap_or(0)),
        None => DisplayErrorContext(&error).to_string(),
    };
    match status.filter(|_| is_service) {
        Some(404) if code != "NoSuchBucket" => Error::NotFound { key },
        // Of two at the same time one is told 409.
        Some(412) => Error::Condition { key },
        Some(409) if code == "ConditionalRequestConflict" => Error::Condition { key },
        Some(416) => Error::Corrupt {
            key,
            what: "the length",
            expected: "the end of the range or more".to_owned(),
            found: "less".to_owned(),
        },
        // A body that did not arrive as it was sent, or in time.
        Some(400) if ["BadDigest", "RequestTimeout", "IncompleteBody"].contains(&&*code) => {
            Error::Unavailable { key, reason }
        }
        Some(501) => Error::Refused { key, reason },
        Some(408 | 409 | 429 | 500..) => Error::Unavailable { key, reason },
        Some(_) => Error::Refused { key, reason },
        None if is_ours => Error::Refused { key, reason },
        None => Error::Unavailable { key, reason },
    }
}

pub(crate) fn unavailable(key: &str, reason: impl ToString) -> Error {
    Error::Unavailable {
        key: key.to_owned(),
        reason: reason.to_string(),
    }
}
