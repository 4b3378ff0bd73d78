#!/usr/bin/env bash
# rustls 0.23.46: a client that is limited to TLS 1.2, or to TLS 1.3, still offers the cipher suites of both.
#
# with_protocol_versions changes the extension supported_versions of the ClientHello, and leaves the list of suites as the provider has
# it. So a server that looks at the suites (ClientHello::cipher_suites in a ResolvesServerCert, or a proxy that chooses a certificate by
# them) takes a client of TLS 1.2 for one of TLS 1.3: a probe of the old version is shown the certificate of the new one.
#
# Seen on 2026-11-28:
#
#   versions 1.3 and 1.2: 3 suites of TLS 1.3, 6 of TLS 1.2
#   versions 1.2: 3 suites of TLS 1.3, 6 of TLS 1.2
#   versions 1.3: 3 suites of TLS 1.3, 6 of TLS 1.2
#
# What follows for a program: take the suites of other versions out of the provider too, where a client is to look like an old one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
rustls = { version = "=0.23.46", default-features = false, features = ["ring", "std", "tls12"] }
END
cat >src/main.rs <<'END'
use std::sync::Arc;

use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

fn main() {
    for (name, versions) in [("1.3 and 1.2", &[&TLS13, &TLS12][..]), ("1.2", &[&TLS12]), ("1.3", &[&TLS13])] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), "a.example".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &hello[..]).unwrap();
        let accepted = acceptor.accept().unwrap().expect("a whole ClientHello");
        let names: Vec<_> = accepted.client_hello().cipher_suites().iter().map(|it| format!("{it:?}")).collect();
        let count = |start: &str| names.iter().filter(|it| it.starts_with(start)).count();
        println!("versions {name}: {} suites of TLS 1.3, {} of TLS 1.2", count("TLS13_"), count("TLS_ECDHE_"));
    }
}
END
cargo run --quiet >out
cat out
diff out - <<'END'
versions 1.3 and 1.2: 3 suites of TLS 1.3, 6 of TLS 1.2
versions 1.2: 3 suites of TLS 1.3, 6 of TLS 1.2
versions 1.3: 3 suites of TLS 1.3, 6 of TLS 1.2
END
