//! What the gateway's tests and benchmarks share: a fake API server, the gateway's process, an HTTP client, and a
//! reader of the source.
//!
//! Nothing here knows what a test promises.

#![warn(missing_docs)]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::significant_drop_tightening,
    clippy::unwrap_used,
    reason = "for tests, which may fail loudly"
)]

pub mod certificates;
pub mod client;
pub mod fake_api;
pub mod gateway;
pub mod source;
pub mod wait;
