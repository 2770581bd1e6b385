//! Who asks, where the node itself finds out: passwords, tokens, client certificates.
//!
//! Off by default: something in front authenticates and sets `X-Scope-OrgID` ([`crate::tenant`]). With an [`Authenticator`] this layer stands where
//! that proxy would: it finds the identity, holds it to its scopes and tenants, and sets the header; nobody behind it knows the difference. So
//! no route can forget to ask, and what an identity may not read cannot be named.
//!
//! 1. `Authorization: Basic` or `Bearer`; else the name of a verified client certificate. Neither, or a wrong one: 401.
//! 2. The scope of the route ([`Scope`]). Not among those of the identity: 403.
//! 3. The tenants of the header, all of them (`a|b`), or the only one of the identity. Not among its own: 403.
//!
//! *Cost.* A password is hashed so that guessing it is slow; this must neither be paid for each request nor stall a thread that serves others. What
//! was verified is remembered by a hash of the header under a key of this process, so that memory holds no password; the first time is computed
//! on a thread for blocking work, [`AT_ONCE_MAX`] at once, and only [`WAITING_MAX`] requests wait for it, [`WAITING_OF_ONE_MAX`] of them for one
//! name: whoever guesses at a name keeps none but its own user waiting. Another file of credentials forgets everything that was verified.

mod cache;
mod credentials;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::Semaphore;

use crate::reply;
use crate::router::{Endpoint, Route};
use crate::tenant::{TENANT_HEADER, Tenancy};
use cache::Cache;
pub use credentials::{Credentials, CredentialsError, User, hash_password, new_token, token_hash};
pub use credentials::{Identity, Scope, Tenants};

/// Passwords that are computed at once; each takes some 20 MiB and a CPU for tens of milliseconds.
const AT_ONCE_MAX: usize = 2;

/// Requests that wait for a password to be computed; further ones are answered 503, but for the first of each name.
const WAITING_MAX: usize = 64;

/// Of them, those of one user name.
const WAITING_OF_ONE_MAX: usize = 8;

/// Longest header that is looked at.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// The name of a verified client certificate, as an extension of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateName(pub(crate) Arc<str>);

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("no credentials")]
    Missing,
    #[error("wrong credentials")]
    Wrong,
    #[error("too many requests wait for their password to be checked")]
    Busy,
    #[error("the credentials do not have the scope {0:?}")]
    Scope(&'static str),
    #[error("the credentials are not those of tenant {0:?}")]
    Tenant(String),
    #[error("no org id, and the credentials do not have exactly one tenant")]
    Ambiguous,
}

impl Denied {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Denied::Missing | Denied::Wrong => StatusCode::UNAUTHORIZED,
            Denied::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Denied::Scope(_) | Denied::Tenant(_) => StatusCode::FORBIDDEN,
            Denied::Ambiguous => StatusCode::BAD_REQUEST,
        }
    }

    /// The label of the metric.
    fn reason(&self) -> &'static str {
        match self {
            Denied::Missing => "missing",
            Denied::Wrong => "wrong",
            Denied::Busy => "busy",
            Denied::Scope(_) => "scope",
            Denied::Tenant(_) | Denied::Ambiguous => "tenant",
        }
    }

    /// The headers that go with it.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        match self.status() {
            StatusCode::UNAUTHORIZED => {
                let basic = HeaderValue::from_static("Basic realm=\"myelin\", charset=\"UTF-8\"");
                headers.insert(WWW_AUTHENTICATE, basic);
                let bearer = HeaderValue::from_static("Bearer realm=\"myelin\"");
                headers.append(WWW_AUTHENTICATE, bearer);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let seconds = HeaderValue::from_static(reply::RETRY_AFTER_SECONDS);
                headers.insert(http::header::RETRY_AFTER, seconds);
            }
            _ => {}
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Authenticator {
    current: RwLock<Arc<Current>>,
    /// Whether `/metrics` is open to everybody.
    open_metrics: bool,
    places: Arc<Semaphore>,
    waiting: Mutex<HashMap<String, usize>>,
    denied: IntCounterVec,
    computed: prometheus::IntCounter,
}

/// A file of credentials, and what was verified by it.
#[derive(Debug)]
struct Current {
    credentials: Credentials,
    verified: Mutex<Cache>,
}

impl Authenticator {
    /// Authenticates by these credentials. Errors: a registry that has these metrics already.
    pub fn new(
        credentials: Credentials,
        open_metrics: bool,
        registry: &Registry,
    ) -> Result<Authenticator, prometheus::Error> {
        let denied = IntCounterVec::new(
            Opts::new(
                "myelin_auth_denied_total",
                "Requests that were not served because of their credentials, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(denied.clone()))?;
        let computed = prometheus::IntCounter::new(
            "myelin_auth_passwords_computed_total",
            "Passwords that were hashed, because they had not been verified before.",
        )?;
        registry.register(Box::new(computed.clone()))?;
        Ok(Authenticator {
            current: RwLock::new(Arc::new(Current::new(credentials))),
            open_metrics,
            places: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            waiting: Mutex::default(),
            denied,
            computed,
        })
    }

    /// From now on these hold, and nothing that was verified before.
    pub fn replace(&self, credentials: Credentials) {
        let new = Arc::new(Current::new(credentials));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    fn current(&self) -> Arc<Current> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Admits a request to a route: finds out who asks, and sets the header that names the tenant.
    pub(crate) async fn admit(
        &self,
        route: &Route,
        tenancy: Tenancy,
        headers: &mut HeaderMap,
        certificate: Option<&CertificateName>,
    ) -> Result<(), Denied> {
        let admitted = self.try_admit(route, tenancy, headers, certificate).await;
        if let Err(denied) = &admitted {
            self.denied.with_label_values(&[denied.reason()]).inc();
        }
        // Nobody behind this needs it.
        headers.remove(AUTHORIZATION);
        admitted
    }

    async fn try_admit(
        &self,
        route: &Route,
        tenancy: Tenancy,
        headers: &mut HeaderMap,
        certificate: Option<&CertificateName>,
    ) -> Result<(), Denied> {
        let Some(scopes) = self.scopes(route) else {
            return Ok(());
        };
        let identity = self.identify(headers, certificate).await?;
        if !scopes.iter().any(|scope| identity.has(*scope)) {
            return Err(Denied::Scope(scopes[0].name()));
        }
        match route.is_of_tenant() {
            true => set_tenant(&identity.tenants, tenancy, headers),
            false => Ok(()),
        }
    }

    /// The scopes that a route is open to, any of them; `None`: to everybody.
    fn scopes(&self, route: &Route) -> Option<&'static [Scope]> {
        match route {
            Route::Ready | Route::Healthy => None,
            Route::Metrics if self.open_metrics => None,
            Route::Metrics => Some(&[Scope::Metrics, Scope::Admin]),
            Route::Push | Route::Otlp => Some(&[Scope::Write]),
            Route::UserLimits | Route::UserOverrides | Route::UserStats => Some(&[Scope::Read]),
            // Each by name, so that whoever adds one has to think of this.
            Route::Api(
                Endpoint::Query
                | Endpoint::QueryRange
                | Endpoint::QueryExemplars
                | Endpoint::Labels
                | Endpoint::LabelValues(_)
                | Endpoint::Series
                | Endpoint::Metadata
                | Endpoint::FormatQuery
                | Endpoint::ParseQuery
                | Endpoint::BuildInfo
                | Endpoint::StatusTsdb
                | Endpoint::Read
                | Endpoint::Rules
                | Endpoint::Alerts
                | Endpoint::Explain
                | Endpoint::CardinalityNames
                | Endpoint::CardinalityValues
                | Endpoint::ActiveSeries
                | Endpoint::Queries
                | Endpoint::Kill(_)
                | Endpoint::Unknown,
            ) => Some(&[Scope::Read]),
            Route::Api(
                Endpoint::DeleteSeries | Endpoint::CancelDelete | Endpoint::CleanTombstones,
            ) => Some(&[Scope::Admin]),
            // Of a tenant too is what takes its data away; whose, its header says, as everywhere.
            Route::Config
            | Route::RuntimeConfig
            | Route::AllUserStats
            | Route::HaTracker
            | Route::Services
            | Route::AllQueries
            | Route::KillAny(_)
            | Route::Flush
            | Route::Snapshot
            | Route::Shutdown
            | Route::Mode { .. }
            | Route::Profile(_)
            | Route::DeleteTenant
            | Route::DeleteTenantStatus
            | Route::Index
            | Route::Unknown => Some(&[Scope::Admin]),
        }
    }

    async fn identify(
        &self,
        headers: &HeaderMap,
        certificate: Option<&CertificateName>,
    ) -> Result<Arc<Identity>, Denied> {
        let current = self.current();
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            let name = certificate.ok_or(Denied::Missing)?;
            let known = current.credentials.by_certificate(&name.0);
            return known.ok_or(Denied::Wrong);
        };
        // Two of them: whoever added one must not decide by luck.
        if values.next().is_some() || value.len() > HEADER_BYTES_MAX {
            return Err(Denied::Wrong);
        }
        let text = value.to_str().map_err(|_| Denied::Wrong)?;
        let (kind, secret) = text.split_once(' ').ok_or(Denied::Wrong)?;
        let secret = secret.trim();
        // However it is written: else whoever has one secret could fill the memory, and all would be forgotten.
        let one = format!("{} {secret}", kind.to_ascii_lowercase());
        let key = current.verified().key(one.as_bytes());
        if let Some(identity) = current.verified().get(&key) {
            return Ok(identity);
        }
        let identity = if kind.eq_ignore_ascii_case("bearer") {
            current.credentials.by_token(secret).ok_or(Denied::Wrong)?
        } else if kind.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(secret).map_err(|_| Denied::Wrong)?;
            let decoded = String::from_utf8(decoded).map_err(|_| Denied::Wrong)?;
            let (name, password) = decoded.split_once(':').ok_or(Denied::Wrong)?;
            self.by_password(&current, name, password).await?
        } else {
            return Err(Denied::Wrong);
        };
        current.verified().put(key, identity.clone());
        Ok(identity)
    }

    /// Computes a password, elsewhere and in its turn. A name that nobody has costs the same.
    async fn by_password(
        &self,
        current: &Arc<Current>,
        name: &str,
        password: &str,
    ) -> Result<Arc<Identity>, Denied> {
        let known = current.credentials.has_password(name);
        // All names that nobody has wait as one.
        let _waiting = Waiting::enter(self, if known { name } else { "" }).ok_or(Denied::Busy)?;
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|_| Denied::Busy)?;
        self.computed.inc();
        let current = current.clone();
        let (name, password) = (name.to_owned(), password.to_owned());
        let computed = tokio::task::spawn_blocking(move || {
            let _place = place;
            current.credentials.by_password(&name, &password)
        });
        computed
            .await
            .map_err(|_| Denied::Busy)?
            .ok_or(Denied::Wrong)
    }
}

impl Current {
    fn new(credentials: Credentials) -> Current {
        Current {
            credentials,
            verified: Mutex::new(Cache::default()),
        }
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for a password; it stops when this is dropped, also with its connection.
struct Waiting<'a> {
    of: &'a Authenticator,
    name: String,
}

impl<'a> Waiting<'a> {
    fn enter(of: &'a Authenticator, name: &str) -> Option<Waiting<'a>> {
        let waiting = &mut *of.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        let own = waiting.get(name).copied().unwrap_or(0);
        // The first of a name always gets in: guesses at other names must not keep it out.
        if own >= WAITING_OF_ONE_MAX || (own > 0 && all >= WAITING_MAX) {
            return None;
        }
        waiting.insert(name.to_owned(), own + 1);
        Some(Waiting {
            of,
            name: name.to_owned(),
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiting = &mut *self
            .of
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(&self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(waiting.remove(&self.name)),
        }
    }
}

/// Holds the header to the tenants of an identity, or sets it where there is only one to choose.
fn set_tenant(own: &Tenants, tenancy: Tenancy, headers: &mut HeaderMap) -> Result<(), Denied> {
    if tenancy == Tenancy::Off {
        let fake = model::TenantId::fake();
        return match own.has(fake.as_str()) {
            true => Ok(()),
            false => Err(Denied::Tenant(fake.to_string())),
        };
    }
    let mut named = false;
    for value in headers.get_all(TENANT_HEADER) {
        // What is no text is no tenant of anybody; the answer to it is given behind this.
        let Ok(text) = value.to_str() else {
            return Err(Denied::Tenant(String::new()));
        };
        for tenant in text.split('|').filter(|_| !text.is_empty()) {
            named = true;
            if !own.has(tenant) {
                return Err(Denied::Tenant(tenant.chars().take(150).collect()));
            }
        }
    }
    if named {
        return Ok(());
    }
    let only = own.only().ok_or(Denied::Ambiguous)?;
    let value = HeaderValue::from_str(only).map_err(|_| Denied::Ambiguous)?;
    headers.insert(TENANT_HEADER, value);
    Ok(())
}

#[cfg(test)]
mod tests;
