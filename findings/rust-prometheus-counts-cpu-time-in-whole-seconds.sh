#!/usr/bin/env bash
# The crate prometheus 0.14.0: its collector for the process (feature `process`) has process_cpu_seconds_total in whole seconds, where the
# clients for Go, Java and Python have fractions. A program that uses 5 ms of CPU time a second shows 0 for three minutes and then a step
# of 1: a rate over a minute is 0, or three times what it should be.
#
# Seen on 2026-11-27, after a second and a half of work (the first number varies by a few hundredths):
#
#   the kernel says 1.52 s, the metric says 1
#
# What follows for a program: read /proc/self/stat itself, by the crate procfs for example, and make a counter of floats of it.
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
prometheus = { version = "=0.14.0", default-features = false, features = ["process"] }
END
cat >src/main.rs <<'END'
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};

/// User and system time: fields 14 and 15 of /proc/self/stat, in hundredths of a second on Linux.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<_> = after_name.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn main() {
    while cpu_time() < 1.5 {
        std::hint::black_box((0..1_000_000_u64).sum::<u64>());
    }
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self())).unwrap();
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let line = text.lines().find(|line| line.starts_with("process_cpu_seconds_total ")).unwrap();
    println!("{:.2} {}", cpu_time(), line.split(' ').nth(1).unwrap());
}
END
cargo build --quiet
read -r kernel metric < <(target/debug/finding)
echo "the kernel says $kernel s, the metric says $metric"
[ "$metric" = 1 ]
