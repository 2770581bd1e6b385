//! A snapshot of the node, as Prometheus' admin API makes one: of all tenants, so it is an operator's, not a tenant's.

use std::sync::Arc;

use http::{Request, Response, StatusCode};

use super::object::Object;
use super::success_bytes;
use crate::connection::Received;
use crate::params::ParamError;
use crate::reply::{self, ApiError, Body};
use crate::state::Gateway;

/// Makes one; answers with its name below `<data>/snapshots`.
pub(crate) async fn snapshot(gateway: &Arc<Gateway>, request: Request<Received>) -> Response<Body> {
    made(gateway, request)
        .await
        .unwrap_or_else(|error| error.response())
}

async fn made(
    gateway: &Arc<Gateway>,
    request: Request<Received>,
) -> Result<Response<Body>, ApiError> {
    let form = super::form::read(&gateway.options, request).await?;
    // The words that Prometheus takes.
    let skip_head = match form.first("skip_head").unwrap_or_default() {
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        other => {
            let reason = format!("{other:?} is neither true nor false");
            let name = "skip_head";
            return Err(ParamError::Invalid { name, reason }.into());
        }
    };
    let services = gateway.services().map_err(ApiError::unavailable)?;
    let name = services.engine.snapshot(skip_head).await?;
    tracing::info!(name, skip_head, "a snapshot was made");
    let out = success_bytes(Vec::new(), |out| {
        let mut object = Object::open(out);
        object.text("name", &name);
        object.close();
    });
    Ok(reply::typed(StatusCode::OK, "application/json", out))
}
