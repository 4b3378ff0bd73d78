//! Prints which module of `src`, or of another source folder, names which others: `make modules`.
//!
//! The exit code is 1 when there is a cycle.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program to look at, started by hand: it may fail loudly"
)]

use std::env;
use std::path::Path;
use std::process::ExitCode;

use testing::source;

fn main() -> ExitCode {
    let folder = env::args().nth(1).unwrap_or_else(|| "src".to_owned());
    let modules = source::modules(Path::new(&folder));
    for module in &modules {
        let lines = module.text.lines().count();
        let names = module.names.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        println!("{:<22} {lines:>4} lines  names {names}", module.name);
    }
    let edges: usize = modules.iter().map(|module| module.names.len()).sum();
    println!("{} modules, {edges} edges", modules.len());
    match source::cycle(&modules) {
        Some(way) => {
            println!("a cycle: {}", way.join(" > "));
            ExitCode::from(1)
        }
        None => {
            println!("no cycle");
            ExitCode::SUCCESS
        }
    }
}
