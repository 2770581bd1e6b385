//! Buckets of Google Cloud Storage, over its JSON API.
//!
//! The crate `object_store` finds credentials (a service account, else the usual chain: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's file, the instance's) and renews tokens, and
//! has the HTTP client. The requests are ours: it speaks the XML API, which emulators do not write by, and hides what the store says of what arrived. Each
//! object is compared by the MD5 that the store tells, or it is an error; large ones go in pieces that are taken up again where the
//! store says; conditions are generations, which are our etags; what fails in passing is repeated with growing, scattered pauses; each try has an end.
//!
//! An upload that nobody finished is no object and ends by itself after a week: there is nothing to sweep.
//!
//! A crate of its own because what it needs takes a minute to build. It has a runtime of two threads; callers block.

#![forbid(unsafe_code)]

mod client;
mod options;
mod requests;

pub use client::Gcs;
pub use options::Options;

#[cfg(test)]
mod tests;
