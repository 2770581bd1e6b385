//! What kind of thing went wrong, so that only the gateway has to know HTTP.

/// The four kinds of errors of the house (and three that only queries know), as seen by a client.
///
/// | class | push | query |
/// | --- | --- | --- |
/// | `Client` | 400 | 400 `bad_data` |
/// | `Limit` | 429 (the tenant's rate) or 400 (series limits) | 422 `execution` |
/// | `Rate` | - | 429 with `Retry-After` |
/// | `Execution` | - | 422 `execution` |
/// | `Overload` | 503 with `Retry-After` | 503 with `Retry-After` |
/// | `Timeout` | 503 | 503 `timeout` |
/// | `Canceled` | 499 | 499 `canceled` |
/// | `Internal` | 500 | 500 `internal` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request itself is wrong; repeating it cannot help.
    Client,
    /// A configured bound of this tenant or query is exceeded.
    Limit,
    /// A tenant has more requests under way than it may; later ones can pass.
    Rate,
    /// The query is well formed but cannot be evaluated on this data.
    Execution,
    /// This node cannot take the work now; repeating it later can help.
    Overload,
    /// The deadline passed.
    Timeout,
    /// The client has gone.
    Canceled,
    /// Our fault.
    Internal,
}

impl Class {
    /// Whether the same request may succeed later without being changed.
    pub fn retry_can_help(self) -> bool {
        matches!(
            self,
            Class::Overload | Class::Rate | Class::Timeout | Class::Internal
        )
    }
}
