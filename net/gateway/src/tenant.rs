//! Whose request is it: the rules of the header `X-Scope-OrgID`.
//!
//! Nothing here authenticates; something in front of the node sets the header (`docs/operations`). With authentication off the header is
//! not even looked at, and everything belongs to the tenant `fake`. Texts and rules as in Cortex, statuses 401 without a tenant and
//! 400 for one that cannot be.

use http::{HeaderMap, StatusCode};
use model::{TenantError, TenantId};

/// Names the tenant.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// Whether requests name their tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenancy {
    /// `auth_enabled: true`: each request must.
    Header,
    /// `auth_enabled: false`: everything belongs to `fake`.
    Off,
}

/// Why a request has no tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoTenant {
    /// No header, or an empty one.
    #[error("no org id")]
    Missing,
    /// The header holds no tenant id.
    #[error(transparent)]
    Invalid(TenantError),
    /// More tenants than a query may read.
    #[error("too many tenants, max: {max}, actual: {actual}")]
    TooMany {
        /// At most.
        max: usize,
        /// So many different ones.
        actual: usize,
    },
    /// Bytes that are not even text.
    #[error("tenant ID contains unsupported characters")]
    NotText,
}

impl NoTenant {
    /// 401 where there is none, 400 where it is wrong.
    pub fn status(&self) -> StatusCode {
        match self {
            NoTenant::Missing => StatusCode::UNAUTHORIZED,
            NoTenant::Invalid(_) | NoTenant::NotText | NoTenant::TooMany { .. } => {
                StatusCode::BAD_REQUEST
            }
        }
    }
}

/// Whether a query may read the data of several tenants, `a|b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Federation {
    /// Else such a header is refused.
    pub enabled: bool,
    /// Tenants of one query; 0: no bound but that of a header.
    pub tenants_max: usize,
}

impl Tenancy {
    /// The tenant of a request for the log, however wrong the request is; empty where it names none that can be.
    pub(crate) fn told_of(self, headers: &HeaderMap) -> String {
        let federation = Federation {
            enabled: true,
            tenants_max: 0,
        };
        let tenant = self.tenants_of(headers, federation);
        tenant.map_or_else(|_| String::new(), |tenant| tenant.as_str().to_owned())
    }

    /// The tenant of a request that may be of several: their names joined then, each once and sorted.
    pub fn tenants_of(
        self,
        headers: &HeaderMap,
        federation: Federation,
    ) -> Result<TenantId, NoTenant> {
        let several = match self.tenant_of(headers) {
            Err(NoTenant::Invalid(TenantError::Several)) if federation.enabled => headers,
            other => return other,
        };
        let mut values = several.get_all(TENANT_HEADER).iter();
        let first = values.next().ok_or(NoTenant::Missing)?;
        if values.any(|other| other != first) {
            return Err(NoTenant::Invalid(TenantError::Several));
        }
        let text = first.to_str().map_err(|_| NoTenant::NotText)?;
        let tenants = text.split('|').map(TenantId::new);
        let tenants = tenants.collect::<Result<Vec<_>, _>>();
        let joined = TenantId::joined(&tenants.map_err(NoTenant::Invalid)?);
        let (max, actual) = (federation.tenants_max, joined.members().count());
        match max > 0 && actual > max {
            true => Err(NoTenant::TooMany { max, actual }),
            false => Ok(joined),
        }
    }

    /// The tenant of a request.
    ///
    /// Two headers that disagree are refused like `a|b`: a proxy that appends instead of replacing must not decide by luck.
    pub fn tenant_of(self, headers: &HeaderMap) -> Result<TenantId, NoTenant> {
        if self == Tenancy::Off {
            return Ok(TenantId::fake());
        }
        let mut values = headers.get_all(TENANT_HEADER).iter();
        let first = values
            .next()
            .filter(|value| !value.is_empty())
            .ok_or(NoTenant::Missing)?;
        if values.any(|other| other != first) {
            return Err(NoTenant::Invalid(TenantError::Several));
        }
        let id = first.to_str().map_err(|_| NoTenant::NotText)?;
        TenantId::new(id).map_err(NoTenant::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(TENANT_HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    fn refused(values: &[&[u8]]) -> (u16, String) {
        let error = Tenancy::Header.tenant_of(&headers(values)).unwrap_err();
        (error.status().as_u16(), error.to_string())
    }

    #[test]
    fn without_a_tenant_it_is_401_and_with_a_bad_one_400() {
        assert_eq!(refused(&[]), (401, "no org id".into()));
        assert_eq!(refused(&[b""]), (401, "no org id".into()));
        assert_eq!(refused(&[b"a|b"]), (400, "multiple org IDs present".into()));
        assert_eq!(
            refused(&[b"a", b"b"]),
            (400, "multiple org IDs present".into())
        );
        assert_eq!(refused(&[b"\xff"]).0, 400);
        for bad in ["..", ".", "../x", "a/b", "a\\b", "__markers__"] {
            assert_eq!(refused(&[bad.as_bytes()]).0, 400, "{bad}");
        }
    }

    #[test]
    fn several_tenants_pass_where_a_query_may_read_several() {
        let on = Federation {
            enabled: true,
            tenants_max: 2,
        };
        let of = |values: &[&[u8]], federation| {
            let tenants = Tenancy::Header.tenants_of(&headers(values), federation);
            tenants
                .map(|tenant| tenant.to_string())
                .map_err(|error| (error.status().as_u16(), error.to_string()))
        };
        assert_eq!(of(&[b"b|a|b"], on), Ok("a|b".into()));
        assert_eq!(of(&[b"a|a"], on), Ok("a".into()));
        assert_eq!(of(&[b"a"], on), Ok("a".into()));
        let many = "too many tenants, max: 2, actual: 3".to_owned();
        assert_eq!(of(&[b"a|b|c"], on), Err((400, many)));
        assert!(of(&[b"a|b", b"a|c"], on).is_err());
        for bad in ["a|", "|a", "a||b", "a|../x", "a|..", "a|b c", "a|b/c"] {
            assert_eq!(of(&[bad.as_bytes()], on).unwrap_err().0, 400, "{bad}");
        }
        assert_eq!(of(&[], on), Err((401, "no org id".into())));
        let off = Federation::default();
        assert_eq!(
            of(&[b"a|b"], off),
            Err((400, "multiple org IDs present".into()))
        );
        assert_eq!(
            Tenancy::Off.tenants_of(&headers(&[b"a|b"]), on),
            Ok(TenantId::fake())
        );
    }

    #[test]
    fn a_good_tenant_passes_and_the_same_header_twice_too() {
        let map = headers(&[b"team-a", b"team-a"]);
        assert_eq!(Tenancy::Header.tenant_of(&map).unwrap().as_str(), "team-a");
    }

    #[test]
    fn with_authentication_off_the_header_is_not_looked_at() {
        assert_eq!(
            Tenancy::Off.tenant_of(&headers(&[b"../x"])),
            Ok(TenantId::fake())
        );
    }
}
