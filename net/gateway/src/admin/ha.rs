//! Who is elected of each cluster of each tenant, for operators; JSON for those who ask for it. Names as in Cortex.

use std::fmt::Write;

use http::{HeaderMap, Response, StatusCode};

use super::tenants::wants_json;
use crate::api::object::Object;
use crate::distributor::texts;
use crate::ha::Line;
use crate::reply::{self, Body};
use crate::state::Gateway;

/// The page.
pub(crate) fn ha_tracker(gateway: &Gateway, headers: &HeaderMap) -> Response<Body> {
    let services = match gateway.services() {
        Ok(services) => services,
        Err(reason) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    };
    let Some(tracker) = services.push.ha() else {
        let off = "the HA tracker is off (distributor.ha_tracker.enable_ha_tracker)\n";
        return reply::text(StatusCode::OK, off);
    };
    let now_ms = (gateway.options.now_ms)();
    let lines = tracker.lines(now_ms, |tenant| {
        let limits = services.overrides.limits(tenant);
        limits.ha_tracker_failover_timeout
    });
    match wants_json(headers) {
        true => json(&lines, now_ms),
        false => html(&lines, now_ms),
    }
}

fn json(lines: &[Line], now_ms: i64) -> Response<Body> {
    const NANOS: i64 = 1_000_000;
    let mut out = Vec::with_capacity(256);
    let mut object = Object::open(&mut out);
    object
        .list("elected", lines, |out, line| {
            let mut object = Object::open(out);
            object
                .text("userID", line.tenant.as_str())
                .text("cluster", &line.cluster)
                .text("replica", &line.replica)
                .text("electedAt", &texts::rfc3339(line.received_at_ms))
                .signed("updateDuration", line.update_in_ms.saturating_mul(NANOS))
                .signed(
                    "failoverDuration",
                    line.failover_in_ms.saturating_mul(NANOS),
                );
            object.close();
        })
        .text("now", &texts::rfc3339(now_ms));
    object.close();
    reply::typed(StatusCode::OK, "application/json", out)
}

fn html(lines: &[Line], now_ms: i64) -> Response<Body> {
    let mut page = format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>HA tracker</title></head><body>\
         <h1>HA tracker</h1><p>Now: {}</p><table border=\"1\"><tr><th>User</th><th>Cluster</th><th>Replica</th>\
         <th>Elected at</th><th>Time until update</th><th>Time until failover</th></tr>",
        texts::rfc3339(now_ms)
    );
    for line in lines {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.3} s</td><td>{:.3} s</td></tr>",
            escaped(line.tenant.as_str()),
            escaped(&line.cluster),
            escaped(&line.replica),
            texts::rfc3339(line.received_at_ms),
            line.update_in_ms as f64 / 1000.0,
            line.failover_in_ms as f64 / 1000.0,
        );
    }
    page.push_str("</table></body></html>\n");
    reply::typed(StatusCode::OK, "text/html; charset=utf-8", page)
}

/// Names of clusters and replicas come from senders.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_may_have_any_name_and_the_page_stays_a_page() {
        assert_eq!(
            escaped("<script>alert('a&b\")"),
            "&lt;script&gt;alert(&#39;a&amp;b&quot;)"
        );
    }
}
