#!/usr/bin/env bash
# tiny_http 0.12.0: when accept fails the server never accepts again, and says so once, to one caller of recv().
#
# The error stands in the same queue as requests. Whoever takes it learns of it; every other worker of the usual pool
# (`while let Ok(request) = server.recv()`) waits on, and a later recv_timeout() says Ok(None), as if all were well. Connections that were
# accepted before are served on, so the process looks alive while no new client gets in. A pool of N workers loses one of them.
#
# Seen on 2026-11-27 (socket2 0.6.5 shuts the listener, as an administrator's or a kernel's error would end it):
#
#   first recv: InvalidInput
#   second recv: nothing
#   a connection from before: GET /later
#
# What follows for a program: look at the error and end, or watch the listening socket; do not count on recv() to tell each worker.
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
tiny_http = { version = "=0.12.0", default-features = false }
socket2 = { version = "=0.6.5", features = ["all"] }
END
cat >src/main.rs <<'END'
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let same = listener.try_clone().unwrap();
    let server = tiny_http::Server::from_listener(listener, None).unwrap();
    let wait = Duration::from_secs(2);

    // Accepted while all is well.
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let request = server.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    request.respond(tiny_http::Response::from_string("ok")).unwrap();

    socket2::SockRef::from(&same).shutdown(Shutdown::Read).unwrap();
    match server.recv_timeout(Duration::from_secs(10)) {
        Err(error) => println!("first recv: {:?}", error.kind()),
        Ok(request) => println!("first recv: {:?}", request.map(|it| it.url().to_owned())),
    }
    match server.recv_timeout(wait) {
        Err(error) => println!("second recv: {:?}", error.kind()),
        Ok(None) => println!("second recv: nothing"),
        Ok(Some(request)) => println!("second recv: {}", request.url()),
    }
    client.write_all(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    match server.recv_timeout(Duration::from_secs(10)) {
        Ok(Some(request)) => println!("a connection from before: {} {}", request.method(), request.url()),
        other => println!("a connection from before: {:?}", other.map(|_| ())),
    }
    // Server's own end would connect to itself, which nobody accepts.
    std::process::exit(0);
}
END
cargo run --quiet >out
cat out
diff out - <<'END'
first recv: InvalidInput
second recv: nothing
a connection from before: GET /later
END
