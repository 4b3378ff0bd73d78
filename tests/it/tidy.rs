//! The invariants of the source, which module may do what, and that the README tells the truth.
//!
//! A textual check, on what is left when comments and unit tests are taken away: it catches the
//! slip, not the intent to deceive.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::fake_api::FakeApi;
use crate::gateway::Gateway;

/// A source file: its module's name, such as `cache` or `front::head`, its text, and its code
/// alone.
struct Module {
    name: String,
    text: String,
    code: String,
}

fn modules() -> Vec<Module> {
    let mut modules = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut modules);
    modules.sort_by(|one, other| one.name.cmp(&other.name));
    modules
}

fn collect(folder: &Path, parent: &str, modules: &mut Vec<Module>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, &format!("{parent}{stem}::"), modules);
        } else if stem != "tests" {
            assert!(path.extension().is_some_and(|extension| extension == "rs"), "{path:?}");
            let text = fs::read_to_string(&path).unwrap();
            let name = match stem.as_str() {
                "mod" => parent.trim_end_matches("::").to_owned(),
                stem => format!("{parent}{stem}"),
            };
            modules.push(Module { name, code: code(&text), text });
        }
    }
}

/// `text` up to its unit tests, without comments; what a string holds stays.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split_once("// ").map_or(line, |(code, _)| code));
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether `word` stands in `code` as a whole word; a path such as `std::env` is one too.
fn names(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).and_then(|code| code.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|code| code.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[track_caller]
fn only(allowed: &[&str], words: &[&str]) {
    for module in modules() {
        for word in words.iter().filter(|word| names(&module.code, word)) {
            assert!(
                allowed.contains(&&*module.name),
                "{} names `{word}`, which is for {allowed:?} only",
                module.name
            );
        }
    }
}

/// The modules of policy, which are functions over values.
const PURE: [&str; 9] = [
    "http::routes",
    "http::reply",
    "http::representation",
    "documents",
    "json",
    "url",
    "front::head",
    "front::admission",
    "config::values",
];

#[test]
fn only_the_lane_and_the_workers_name_tiny_http() {
    only(&["server", "front::lane", "front"], &["tiny_http::", "use tiny_http"]);
}

#[test]
fn only_the_front_touches_client_sockets() {
    only(&["front::event_loop", "front::connection"], &["TcpStream"]);
}

#[test]
fn nothing_is_static_but_what_logging_counts() {
    let is_static = |line: &&str| {
        let line = line.trim_start().trim_start_matches("pub(crate) ");
        line.starts_with("static ") || line.starts_with("thread_local!")
    };
    for module in modules().iter().filter(|module| module.name != "logging") {
        let found = module.code.lines().find(is_static);
        assert!(found.is_none(), "{}: {found:?}", module.name);
    }
}

#[test]
fn only_upstream_names_ureq_and_rustls() {
    only(
        &["upstream", "upstream::trust", "upstream::failure", "upstream::resolver"],
        &["ureq::", "rustls::", "rustls_pemfile::", "use ureq", "use rustls"],
    );
}

#[test]
fn only_config_reads_the_environment() {
    // Arguments and what cargo sets when it compiles are not the environment.
    only(&["config"], &["env::var", "env::vars", "env::var_os", "env::vars_os"]);
}

#[test]
fn one_function_is_unsafe() {
    only(&["front::connection"], &["unsafe", "extern \"C\""]);
    let modules = modules();
    let blocks = modules.iter().map(|module| module.code.matches("unsafe {").count());
    assert_eq!(blocks.sum::<usize>(), 1);
}

#[test]
fn policy_does_no_io_and_reads_no_clock() {
    let io = [
        "std::fs",
        "std::net::TcpStream",
        "std::net::TcpListener",
        "std::thread",
        "Mutex",
        "RwLock",
        "Condvar",
        "Atomic",
        "mpsc",
        "std::process",
        "std::env",
        "log",
        "println",
        "eprintln",
        "stderr",
        "stdout",
        "Instant::now",
        "SystemTime::now",
    ];
    for module in modules().iter().filter(|module| PURE.contains(&&*module.name)) {
        for word in io {
            assert!(!names(&module.code, word), "{} names `{word}`", module.name);
        }
    }
}

#[test]
fn nothing_is_done_under_the_caches_lock_but_the_change_itself() {
    let modules = modules();
    let cache = modules.iter().find(|module| module.name == "cache").expect("src/cache.rs");
    for function in cache.code.split("fn ").filter(|function| function.contains(".lock()")) {
        let name = function.split('(').next().unwrap_or_default();
        for word in ["info!", "warn!", "error!", "debug!", "fetch(", "serialise(", "serde_json"] {
            assert!(!function.contains(word), "`{name}` takes the lock and has `{word}`");
        }
    }
}

#[test]
fn every_file_says_at_its_top_what_it_is() {
    for module in modules() {
        assert!(module.text.starts_with("//! "), "{}", module.name);
    }
}

#[test]
fn the_readme_names_each_setting_of_the_program_and_no_other() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let help = Gateway::builder(&FakeApi::start()).arg("--help").run().stdout;

    // In `--help`, a setting is a line of its own, its meaning is indented further. In the README
    // it is in the first cell of a row.
    let settings = help.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let rows = readme.lines().filter(|line| line.starts_with('|'));
    let first_cells = rows.filter_map(|row| row.split('|').nth(1));
    assert_eq!(setting_names(first_cells), setting_names(settings));
}

/// All words that look like the name of an environment variable.
fn setting_names<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    lines
        .flat_map(|line| line.split(|c| !part(c)))
        .filter(|word| word.len() > 2 && (word.contains('_') || *word == "WORKERS"))
        .collect()
}
