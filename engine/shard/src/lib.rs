//! Skeleton; the owner replaces it and keeps the exports used by others.
mod message;
pub use message::*;
