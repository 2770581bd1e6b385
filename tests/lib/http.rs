//! A client of the HTTP API: statuses are values, not errors.

use std::time::Duration;

use serde_json::Value;

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Panics with the body where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}), status {}: {}", self.status, self.text()))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// One server, one tenant.
#[derive(Clone)]
pub struct Api {
    agent: ureq::Agent,
    base: String,
    tenant: Option<String>,
}

impl Api {
    /// `base` is what stands before `/api/v1/query`, for instance `http://127.0.0.1:9009/prometheus`.
    pub fn new(base: &str, tenant: Option<&str>) -> Api {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Api {
            agent,
            base: base.to_owned(),
            tenant: tenant.map(str::to_owned),
        }
    }

    /// GET of `path?params` below the base.
    pub fn get(&self, path: &str, params: &[(&str, &str)]) -> Response {
        self.try_get(path, params)
            .unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// As [`Api::get`], for servers that may be gone.
    pub fn try_get(&self, path: &str, params: &[(&str, &str)]) -> Result<Response, ureq::Error> {
        let mut request = self
            .agent
            .get(format!("{}{path}?{}", self.base, encode_form(params)));
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        collect(request.call()?)
    }

    /// As [`Api::get`], with headers.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.call().and_then(collect);
        response.unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// POST of a body with headers.
    pub fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        collect(request.send(body)?)
    }

    /// POST of a form.
    pub fn form(&self, path: &str, params: &[(&str, &str)]) -> Response {
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        self.post(path, &headers, encode_form(params).as_bytes())
            .unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// `data` of a successful answer. Panics with the answer otherwise.
    pub fn data(&self, path: &str, params: &[(&str, &str)]) -> Value {
        let response = self.get(path, params);
        let json = response.json();
        assert!(
            response.status == 200 && json["status"] == "success",
            "{path} {params:?}: {}",
            response.text()
        );
        json["data"].clone()
    }

    /// The result of an instant query.
    pub fn query(&self, query: &str, time: f64) -> Value {
        self.data(
            "/api/v1/query",
            &[("query", query), ("time", &time.to_string())],
        )["result"]
            .clone()
    }

    /// The result of a range query.
    pub fn query_range(&self, query: &str, start: f64, end: f64, step: f64) -> Value {
        let (start, end, step) = (start.to_string(), end.to_string(), step.to_string());
        let params = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", &step),
        ];
        self.data("/api/v1/query_range", &params)["result"].clone()
    }
}

fn collect(mut response: ureq::http::Response<ureq::Body>) -> Result<Response, ureq::Error> {
    let headers = response.headers().iter();
    let headers = headers
        .map(|(n, v)| {
            (
                n.to_string(),
                String::from_utf8_lossy(v.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = response
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_to_vec()?;
    Ok(Response {
        status: response.status().as_u16(),
        headers,
        body,
    })
}

/// `a=b&c=d`, percent-encoded.
pub fn encode_form(params: &[(&str, &str)]) -> String {
    let encode = |s: &str| {
        s.bytes().fold(String::new(), |mut out, b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                out.push(b as char);
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
            out
        })
    };
    params
        .iter()
        .map(|(n, v)| format!("{}={}", encode(n), encode(v)))
        .collect::<Vec<_>>()
        .join("&")
}
