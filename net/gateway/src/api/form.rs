//! The parameters of a request: those of its URL, and of its body where a form was posted.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};

use crate::connection::{BodyError, Received, TimedBody};
use crate::params::Form;
use crate::reply::ApiError;
use crate::state::Options;

/// Reads the parameters. Errors: a body beyond the bound (413), one that does not come whole or in time, or is no form (400).
pub(crate) async fn read(options: &Options, request: Request<Received>) -> Result<Form, ApiError> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let has_form = matches!(head.method, Method::POST | Method::PUT);
    if !has_form || !is_form(&head.headers) {
        return Ok(Form::parse(query, b"")?);
    }
    let max = usize::try_from(options.form_bytes_max).unwrap_or(usize::MAX);
    let body = Limited::new(TimedBody::new(body, options.read_timeout), max);
    let bytes = body
        .collect()
        .await
        .map_err(|error| match error.downcast::<BodyError>() {
            Ok(error) => ApiError::bad_data(error.to_string()),
            Err(_) => ApiError {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                kind: "bad_data",
                message: format!("the form is larger than {max} bytes"),
            },
        })?;
    Ok(Form::parse(query, &bytes.to_bytes())?)
}

/// Media types are written in any case, and may have parameters.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media = value.and_then(|value| value.split(';').next());
    media.is_some_and(|media| {
        media
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: a form of another spelling was not read, and the query told as empty.
    #[test]
    fn a_form_is_known_in_any_spelling() {
        let of = |text: &str| {
            is_form(&HeaderMap::from_iter([(
                CONTENT_TYPE,
                text.parse().unwrap(),
            )]))
        };
        assert!(of("application/x-www-form-urlencoded"));
        assert!(of("Application/X-WWW-Form-URLEncoded; charset=UTF-8"));
        assert!(!of("application/x-www-form-urlencodedish") && !of("application/json"));
        assert!(!is_form(&HeaderMap::new()));
    }
}
