#!/usr/bin/env bash
# aws-lc-rs 1.19.0 (aws-lc-sys 0.47.0): the first random bytes of a process cost tens of milliseconds of CPU time, and all later ones next
# to nothing. So does the first TLS handshake of a client or server that uses it through rustls, which ring does not have.
#
# The library seeds its generator from the jitter of the CPU besides the kernel's. On a fast machine that is 30 to 70 ms; in a container
# that may use a tenth of a CPU, over half a second; in an emulator (qemu-user), seconds: enough to run into the timeout of a first request.
# Built with AWS_LC_SYS_NO_JITTER_ENTROPY=1 it takes the kernel's alone, and the first ones cost what later ones do.
#
# Seen on 2026-11-27 (the numbers vary, the orders of magnitude do not):
#
#   by default: the first 32 bytes 40.536 ms, the next 0.002 ms
#   without jitter: the first 32 bytes 0.044 ms, the next 0.000 ms
#
# What follows for a program: build it with that variable (`[env]` in .cargo/config.toml), or draw a few bytes at start, before the clock of a
# request runs.
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
aws-lc-rs = { version = "=1.19.0", default-features = false, features = ["aws-lc-sys"] }
aws-lc-sys = "=0.47.0"
END
cat >src/main.rs <<'END'
use std::time::Instant;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

fn main() {
    let random = SystemRandom::new();
    let times = [(); 2].map(|()| {
        let (begin, mut bytes) = (Instant::now(), [0; 32]);
        random.fill(&mut bytes).unwrap();
        begin.elapsed().as_secs_f64() * 1000.0
    });
    println!("{:.3} {:.3}", times[0], times[1]);
}
END
cargo build --quiet --release --target-dir default
AWS_LC_SYS_NO_JITTER_ENTROPY=1 cargo build --quiet --release --target-dir without
read -r first next < <(default/release/finding)
echo "by default: the first 32 bytes $first ms, the next $next ms"
read -r first_without next_without < <(without/release/finding)
echo "without jitter: the first 32 bytes $first_without ms, the next $next_without ms"
awk -v a="$first" -v b="$next" -v c="$first_without" 'BEGIN { exit !(a > 5 && a > 100 * b && a > 5 * c) }'
