//! Lets the real binary export the documents of a stand-in API server: for `tests/export/served`.
//!
//! Usage: `exported ISSUER AUDIENCE DIR`. What `export` says goes to stderr. Two tokens of the issuer for the
//! audience go to stdout, a line each: one is signed by the key that was exported, the other one by
//! another key. The exit code is that of `export`.

#![allow(
    clippy::disallowed_methods,
    clippy::exit,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::significant_drop_tightening,
    clippy::unwrap_used,
    reason = "a program for a script of tests: it may fail loudly"
)]

use std::env;
use std::process;
use std::time::SystemTime;

use serde_json::json;

use testing::fake_api::{self, Answer, DISCOVERY, FakeApi, INTERNAL_JWKS_URI};
use testing::gateway::Gateway;

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [issuer, audience, folder] = arguments.as_slice() else {
        eprintln!("usage: exported ISSUER AUDIENCE DIR");
        process::exit(2);
    };
    let (api, other) = (FakeApi::start(), FakeApi::start());
    let document = fake_api::discovery(issuer, INTERNAL_JWKS_URI);
    api.set(DISCOVERY, Answer::discovery(document));

    let exporting = Gateway::builder(&api).quiet().set("ISSUER", issuer);
    let ended = exporting.arg("export").arg(folder).run();
    eprintln!("{}\n{}", ended.log, ended.stdout);

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": issuer,
        "sub": "system:serviceaccount:default:demo",
        "aud": [audience],
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
    });
    println!("{}\n{}", api.sign(&claims), other.sign(&claims));
    // By hand, since `exit` drops nothing.
    api.volume.remove();
    other.volume.remove();
    process::exit(ended.code.unwrap_or(1));
}
