//! Black-box tests: each starts the real binary against a fake API server that speaks real TLS.
//!
//! One test binary, so that it is linked once; one module per promise of the documentation. No test
//! shares anything with another, and none sleeps for luck: each waits for a line of the log, a
//! request at the fake API server or an answer.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::significant_drop_tightening,
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy.toml does not know for tests, may fail loudly too"
)]

mod startup;
mod log;
mod issuer;
mod serving;
mod caching;
mod freshness;
mod trust;
mod tls;
mod names;
mod cluster_dns;
mod upstream_failures;
mod hostile_clients;
mod admin;
mod metrics;
mod status;
mod doctor;
mod shutdown;
mod export;
mod pages;
mod tidy;

/// Says that this machine cannot run a test, which then returns. In the gate, which sets
/// `NO_SKIPPED_TESTS`, it fails.
#[track_caller]
fn skip(reason: &str) {
    assert!(std::env::var_os("NO_SKIPPED_TESTS").is_none(), "skipped: {reason}");
    eprintln!("skipped: {reason}");
}
