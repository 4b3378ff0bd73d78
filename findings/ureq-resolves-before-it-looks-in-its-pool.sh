#!/usr/bin/env bash
# ureq 3.5.2: a request that is served by a kept-alive connection still waits for a look-up of the name.
#
# The resolver is asked for each request, before the pool is looked at. So slow DNS slows down every request, and while DNS fails no
# request succeeds, though a connection to the server is open and idle. Where two requests go out in a row and a look-up takes longer
# than the time limit, the second one fails for the look-up alone.
#
# Seen on 2026-11-27 (a resolver of our own counts, and then fails; the server counts connections):
#
#   first: 200, look-ups 1, connections 1
#   second: 200, look-ups 2, connections 1
#   third, DNS fails: host not found, look-ups 3, connections 1
#
# What follows for a program: remember an answer of DNS for some seconds in a resolver of its own.
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
ureq = { version = "=3.5.2", default-features = false }
END
cat >src/main.rs <<'END'
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

static LOOK_UPS: AtomicUsize = AtomicUsize::new(0);
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Counting(std::net::SocketAddr);

impl Resolver for Counting {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        if LOOK_UPS.fetch_add(1, SeqCst) == 2 {
            return Err(Error::HostNotFound);
        }
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            CONNECTIONS.fetch_add(1, SeqCst);
            thread::spawn(move || {
                let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
                while let Some(Ok(line)) = lines.next() {
                    if line.is_empty() {
                        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        (&client).write_all(answer.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
    let config = Agent::config_builder().proxy(None).build();
    let agent = Agent::with_parts(config, DefaultConnector::default(), Counting(address));
    for name in ["first", "second", "third, DNS fails"] {
        let outcome = match agent.get(format!("http://a.example:{}/", address.port())).call() {
            Ok(mut response) => {
                let status = response.status().as_u16().to_string();
                assert_eq!(response.body_mut().read_to_string().unwrap(), "ok");
                status
            }
            Err(error) => error.to_string(),
        };
        let (look_ups, connections) = (LOOK_UPS.load(SeqCst), CONNECTIONS.load(SeqCst));
        println!("{name}: {outcome}, look-ups {look_ups}, connections {connections}");
    }
}
END
cargo run --quiet >out
cat out
diff out - <<'END'
first: 200, look-ups 1, connections 1
second: 200, look-ups 2, connections 1
third, DNS fails: host not found, look-ups 3, connections 1
END
