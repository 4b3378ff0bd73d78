//! The admission machine: random lives of it, on a simulated clock.

#![no_main]

#[path = "../../src/front/admission/mod.rs"]
mod admission;
#[path = "../lives.rs"]
mod lives;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus {
    match lives::live(data.iter().copied()) {
        0 => Corpus::Reject,
        _ => Corpus::Keep,
    }
});
