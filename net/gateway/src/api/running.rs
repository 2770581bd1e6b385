//! Queries in flight: a tenant sees and ends its own, an operator all (`/querier/queries`).

use http::{Response, StatusCode};
use query::Running;
use wire::json::put_time;

use super::object::{Object, put_list};
use super::{Api, success_bytes};
use crate::reply::{self, ApiError, Body};
use crate::state::Gateway;

impl Api<'_> {
    pub(super) fn queries(&self) -> Response<Body> {
        let running = self.services.engine.running(Some(&self.caller.tenant));
        self.success(false, |out| put_list(out, &running, put_running))
    }

    pub(super) fn kill(&self, id: u64) -> Result<Response<Body>, ApiError> {
        match self.services.engine.kill(Some(&self.caller.tenant), id) {
            true => Ok(self.success(false, |out| out.extend_from_slice(b"null"))),
            false => Err(no_such(id)),
        }
    }
}

/// Of all tenants, and what was at work when the node last crashed.
pub(crate) fn all_queries(gateway: &Gateway) -> Response<Body> {
    let services = match gateway.services() {
        Ok(services) => services,
        Err(reason) => return ApiError::unavailable(reason).response(),
    };
    let running = services.engine.running(None);
    let out = success_bytes(Vec::new(), |out| {
        let mut object = Object::open(out);
        object.list("running", &running, put_running).list(
            "atLastCrash",
            &services.at_last_crash,
            |out, line| {
                wire::json::put_string(out, line);
            },
        );
        object.close();
    });
    reply::typed(StatusCode::OK, "application/json", out)
}

/// Ends a query of any tenant.
pub(crate) fn kill_any(gateway: &Gateway, id: u64) -> Response<Body> {
    match gateway.services() {
        Err(reason) => ApiError::unavailable(reason).response(),
        Ok(services) if services.engine.kill(None, id) => {
            let out = success_bytes(Vec::new(), |out| out.extend_from_slice(b"null"));
            reply::typed(StatusCode::OK, "application/json", out)
        }
        Ok(_) => no_such(id).response(),
    }
}

fn no_such(id: u64) -> ApiError {
    ApiError::not_found(format!("no query {id} is in flight"))
}

fn put_running(out: &mut Vec<u8>, one: &Running) {
    let mut object = Object::open(out);
    object
        .number("id", one.id)
        .text("tenant", one.tenant.as_str())
        .text("operation", one.operation)
        .text("query", &one.text)
        .field("since", |out| put_time(out, one.since_ms))
        .seconds("elapsed", one.elapsed)
        .text("state", if one.at_work { "working" } else { "waiting" })
        .number("memoryBytes", one.memory_bytes);
    object.close();
}
