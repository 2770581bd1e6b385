//! Buckets of S3 and of what speaks like it, over `aws-sdk-s3`.
//!
//! The SDK signs, finds credentials (keys of the configuration, else its usual chain: environment, profile, web identity, container, instance), repeats
//! what fails in passing with growing, scattered pauses, and sends a CRC of each body which the store checks. What is added here: several ranges side by
//! side; large objects in parts, each compared by the MD5 that most stores tell as its etag; a deadline over a whole body; errors by what they mean.
//!
//! A crate of its own because the SDK takes a minute to build. It has a runtime of two threads; callers block.

#![forbid(unsafe_code)]

mod client;
mod failure;
mod options;
mod upload;

pub use client::S3;
pub use options::{Encryption, Options};

#[cfg(test)]
mod tests;
