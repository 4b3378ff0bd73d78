#!/usr/bin/env bash
# The crate prometheus 0.14.0: in a CounterVec, GaugeVec or HistogramVec two different sets of label values can be one series. The values are
# hashed one after the other without a separator, and a series is known by that hash alone: ("a", "bc") and ("ab", "c") are the same. What
# is counted for the second is added to the first, without an error.
#
# Labels that are given to a single metric (const_label) do have a separator, and a Registry tells such metrics apart.
#
# Seen on 2026-11-27:
#
#   in a vector: requests{host="a",path="bc"} 2
#   as metrics of their own: requests{host="a",path="bc"} 1 requests{host="ab",path="c"} 1
#
# What follows for a program: where the values come from outside, make each series a metric of its own.
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
prometheus = { version = "=0.14.0", default-features = false }
END
cat >src/main.rs <<'END'
use prometheus::{IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

const LABELS: [[&str; 2]; 2] = [["a", "bc"], ["ab", "c"]];

fn samples(registry: &Registry) -> String {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join(" ")
}

fn main() {
    let (registry, options) = (Registry::new(), Opts::new("requests", "Requests."));
    let vector = IntCounterVec::new(options.clone(), &["host", "path"]).unwrap();
    registry.register(Box::new(vector.clone())).unwrap();
    LABELS.iter().for_each(|values| vector.with_label_values(values).inc());
    println!("in a vector: {}", samples(&registry));

    let registry = Registry::new();
    for [host, path] in LABELS {
        let options = options.clone().const_label("host", host).const_label("path", path);
        let counter = IntCounter::with_opts(options).unwrap();
        counter.inc();
        registry.register(Box::new(counter)).unwrap();
    }
    println!("as metrics of their own: {}", samples(&registry));
}
END
cargo build --quiet
target/debug/finding | tee output
diff - output <<'END'
in a vector: requests{host="a",path="bc"} 2
as metrics of their own: requests{host="a",path="bc"} 1 requests{host="ab",path="c"} 1
END
