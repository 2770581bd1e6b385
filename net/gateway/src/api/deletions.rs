//! Deletions: of series by selectors and time, and of a tenant.
//!
//! Names and answers are those of Cortex' purger. What is deleted is so at once for whoever asks, so there is nothing that could be cancelled; the
//! status of a request is about the blocks: *received* while some still hold what nobody sees any more, *processed* behind that.

use http::{Method, Response, StatusCode};
use model::TenantId;
use query::Deletion;
use wire::json::{put_float, put_string};

use super::Api;
use super::object::{Object, put_list};
use crate::params::ParamError;
use crate::reply::{self, ApiError, Body};
use crate::state::Services;

impl Api<'_> {
    /// `PUT` and `POST` delete, `GET` lists.
    pub(super) async fn delete_series(&self) -> Result<Response<Body>, ApiError> {
        let (engine, tenant) = (&self.services.engine, &self.caller.tenant);
        if matches!(self.request.0, Method::GET | Method::HEAD) {
            let list = deletions(self.services, tenant).await?;
            let mut out = Vec::with_capacity(256);
            put_list(&mut out, &list, put_request);
            return Ok(reply::typed(StatusCode::OK, "application/json", out));
        }
        let selectors = self.form.all("match[]");
        if selectors.is_empty() {
            return Err(ApiError::bad_data("no match[] parameter provided"));
        }
        let now_ms = self.caller.now_ms;
        let start = self.form.time("start")?.unwrap_or(0);
        let end = self.form.time("end")?.unwrap_or(now_ms);
        let wrong = |name, reason: &str| {
            let reason = reason.to_owned();
            Err(ParamError::Invalid { name, reason }.into())
        };
        if end > now_ms {
            return wrong("end", "deletes in the future are not allowed");
        }
        if start > end {
            return wrong("start", "start time must not be after end time");
        }
        let id = engine
            .delete_series(tenant, selectors, (start, end))
            .await?;
        self.services.push.retry_refused(tenant);
        tracing::info!(%tenant, id = %shown(id), start, end, "series were deleted");
        Ok(reply::text(StatusCode::NO_CONTENT, ""))
    }

    /// Nothing can be cancelled: that is said, or that there is no such request.
    pub(super) async fn cancel_delete(&self) -> Result<Response<Body>, ApiError> {
        let Some(id) = self.form.first("request_id").filter(|id| !id.is_empty()) else {
            return Err(ApiError::bad_data("request_id is missing"));
        };
        let list = deletions(self.services, &self.caller.tenant).await?;
        match list.iter().any(|one| shown(one.id) == id) {
            true => Err(ApiError::bad_data(
                "deletion of series is not cancellable: what a request names is deleted at once",
            )),
            false => Err(ApiError::bad_data(
                "could not find delete request with given id",
            )),
        }
    }

    /// Has the compactor look for what deletions apply to, now.
    pub(super) async fn clean_tombstones(&self) -> Result<Response<Body>, ApiError> {
        match &self.services.peers {
            None => (self.services.compact)(),
            Some(peers) => peers.compact().await?,
        }
        Ok(reply::text(StatusCode::NO_CONTENT, ""))
    }
}

/// Those of this node, or of all that hold series.
async fn deletions(services: &Services, tenant: &TenantId) -> Result<Vec<Deletion>, ApiError> {
    Ok(match &services.peers {
        None => services.engine.deletions(tenant).await?,
        Some(peers) => peers.deletions(tenant).await?.0,
    })
}

/// Deletes all that a tenant has.
pub(crate) async fn delete_tenant(
    services: &Services,
    tenant: &TenantId,
) -> Result<Response<Body>, ApiError> {
    let id = services.engine.delete_tenant(tenant).await?;
    services.metadata.forget(tenant);
    services.push.retry_refused(tenant);
    tracing::info!(%tenant, id = %shown(id), "a tenant was deleted");
    Ok(reply::text(StatusCode::OK, ""))
}

/// Whether the blocks of a tenant that was deleted are gone.
pub(crate) async fn delete_tenant_status(
    services: &Services,
    tenant: &TenantId,
) -> Result<Response<Body>, ApiError> {
    let deleted = match &services.peers {
        None => services.engine.is_tenant_deleted(tenant).await?,
        Some(peers) => peers.deletions(tenant).await?.1,
    };
    let mut out = Vec::with_capacity(64);
    let mut object = Object::open(&mut out);
    object.text("tenant_id", tenant.as_str());
    object.flag("blocks_deleted", deleted);
    object.close();
    Ok(reply::typed(StatusCode::OK, "application/json", out))
}

fn shown(id: u128) -> String {
    format!("{id:032x}")
}

/// Seconds with decimals, as Prometheus writes times.
fn put_time(out: &mut Vec<u8>, ms: i64) {
    put_float(out, ms as f64 / 1000.0);
}

fn put_request(out: &mut Vec<u8>, request: &Deletion) {
    let mut object = Object::open(out);
    object.text("request_id", &shown(request.id));
    object.field("start_time", |out| put_time(out, request.start));
    object.field("end_time", |out| put_time(out, request.end));
    object.field("selectors", |out| {
        put_list(out, &request.selectors, |out, text| put_string(out, text));
    });
    object.text(
        "status",
        match request.over_ms {
            Some(_) => "processed",
            None => "received",
        },
    );
    object.field("created_at", |out| put_time(out, request.created_ms));
    if let Some(over_ms) = request.over_ms {
        object.field("processed_at", |out| put_time(out, over_ms));
    }
    object.number("blocks_pending", request.blocks_pending);
    if !request.missing_on.is_empty() {
        object.field("missing_on", |out| {
            put_list(out, &request.missing_on, |out, text| put_string(out, text));
        });
    }
    object.close();
}
