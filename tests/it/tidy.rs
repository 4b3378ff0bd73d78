//! The invariants of the source, which module may do what, and that the README tells the truth.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::fake_api::FakeApi;
use crate::gateway::Gateway;
use crate::source::{self, Module};

/// The modules in reading order, and the others whose items each names: all of them further down.
const READING_ORDER: [(&str, &str); 37] = [
    ("main", "lifecycle config logging"),
    ("lifecycle", "config server front site refresher cache upstream http documents logging"),
    ("config", "config::source config::settings config::values documents logging"),
    ("config::source", "config::settings config::values"),
    ("config::settings", ""),
    ("config::values", "documents json url logging"),
    ("server", "front front::head site http::answer http locks logging"),
    ("front", "front::event_loop front::lane front::listener front::inbox front::counts"),
    (
        "front::event_loop",
        "front::admission front::connection front::lane front::listener front::inbox \
         front::counts front::head http::answer logging",
    ),
    (
        "front::admission",
        "front::admission::queues front::admission::phase front::admission::limits",
    ),
    ("front::admission::queues", "front::admission::phase"),
    ("front::admission::phase", "front::admission::limits"),
    ("front::admission::limits", ""),
    ("front::connection", "front::inbox front::head http::answer"),
    ("front::lane", ""),
    ("front::listener", ""),
    ("front::inbox", "front::counts http::answer locks"),
    ("front::counts", "front::head logging"),
    ("front::head", ""),
    ("site", "cache http::answer http::routes http documents reason"),
    ("refresher", "cache upstream http::routes http::representation documents"),
    ("cache", "cache::state http::routes http::representation documents reason locks"),
    ("cache::state", "http::routes http::representation documents reason"),
    ("upstream", "upstream::trust upstream::failure upstream::resolver documents"),
    ("upstream::trust", "upstream::failure"),
    ("upstream::failure", "upstream::resolver documents reason"),
    ("upstream::resolver", ""),
    ("http::answer", "http::routes http::representation http reason"),
    ("http::routes", "documents"),
    ("http::representation", "documents"),
    ("http", ""),
    ("documents", "json url"),
    ("json", ""),
    ("url", ""),
    ("reason", ""),
    ("locks", ""),
    ("logging", ""),
];

/// The modules of policy, which are functions over values.
const PURE: [&str; 17] = [
    "config::settings",
    "config::values",
    "front::admission",
    "front::admission::limits",
    "front::admission::phase",
    "front::admission::queues",
    "front::head",
    "cache::state",
    "http::answer",
    "http::routes",
    "http::representation",
    "http",
    "documents",
    "json",
    "url",
    "reason",
    "upstream::failure",
];

fn modules() -> Vec<Module> {
    source::modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// Whether `word` is in `code` as a whole word; a path such as `std::env` is one too.
fn has(code: &str, word: &str) -> bool {
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
        for word in words.iter().filter(|word| has(&module.code, word)) {
            assert!(
                allowed.contains(&&*module.name),
                "{} has `{word}`, which is for {allowed:?} only",
                module.name
            );
        }
    }
}

#[test]
fn each_module_names_only_those_below_it_in_reading_order() {
    let modules = modules();
    let names: BTreeSet<_> = modules.iter().map(|module| module.name.as_str()).collect();
    let in_order: BTreeSet<_> = READING_ORDER.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, in_order);
    for (number, (name, allowed)) in READING_ORDER.iter().enumerate() {
        let module = modules.iter().find(|module| module.name == *name).unwrap();
        let allowed: BTreeSet<_> = allowed.split_whitespace().map(ToOwned::to_owned).collect();
        assert_eq!(module.names, allowed, "{name}");
        for other in &allowed {
            let below = READING_ORDER.iter().skip(number + 1).any(|(name, _)| name == other);
            assert!(below, "{other}, which {name} names, is not below it");
        }
    }
    assert_eq!(source::circle(&modules), None);
}

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
    // Arguments, and what cargo sets when it compiles, are not the environment.
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
fn one_module_knows_poisoned_locks() {
    only(&["locks"], &["PoisonError"]);
    only(&["locks", "server", "front::inbox", "cache"], &["Mutex", "MutexGuard", "RwLock"]);
}

#[test]
fn pure_modules_have_no_clock_lock_socket_thread_file_or_log() {
    let words = [
        "Instant::now",
        "SystemTime::now",
        "elapsed",
        "Mutex",
        "RwLock",
        "Condvar",
        "Atomic",
        "mpsc",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "OwnedFd",
        "rustix",
        "socket2",
        "libc",
        "thread",
        "std::process",
        "std::env",
        "std::fs",
        "File",
        "log::",
        "debug!",
        "info!",
        "warn!",
        "error!",
        "println",
        "eprintln",
        "stderr",
        "stdout",
    ];
    for name in PURE {
        let modules = modules();
        let module = modules.iter().find(|module| module.name == name).expect(name);
        for word in words {
            assert!(!has(&module.code, word), "{name} has `{word}`");
        }
    }
}

#[test]
fn under_the_caches_lock_there_is_one_method_call_and_nothing_else() {
    const LOCK: &str = "lock(&self.state)";
    let modules = modules();
    let cache = modules.iter().find(|module| module.name == "cache").expect("src/cache/mod.rs");
    assert!(has(&cache.code, LOCK) && !cache.code.contains(".state.lock("));
    for (at, _) in cache.code.match_indices(LOCK) {
        let (before, after) = (&cache.code[..at], &cache.code[at + LOCK.len()..]);
        let line = before.lines().next_back().unwrap_or_default();
        match after.chars().next() {
            // `lock(..).method(..)`, and what follows is not another call.
            Some('.') => {
                let end = end_of_call(after).expect("a call");
                let next = after[end..].trim_start().chars().next();
                assert!(!matches!(next, Some('.' | '?')), "{line}{LOCK}{}", &after[..end + 1]);
            }
            // An argument of a wait.
            Some(',') => assert!(line.contains("wait_"), "{line}"),
            other => panic!("{line}{LOCK} is followed by {other:?}"),
        }
    }
}

/// Where the parenthesis closes that is the first to open in `code`.
fn end_of_call(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, character) in code.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[test]
fn every_file_says_at_its_top_what_it_is_and_is_short() {
    for module in modules() {
        assert!(module.text.starts_with("//! "), "{}", module.name);
        let lines = module.text.lines().count();
        assert!(lines <= 450, "{} has {lines} lines", module.name);
    }
}

#[test]
fn the_readme_has_each_setting_of_the_program_in_the_words_of_help() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let help = Gateway::builder(&FakeApi::start()).arg("--help").run().stdout;

    // In `--help`, a setting is a line of its own; its meaning, and what it must be, are indented
    // further. In the README it is in the first cell of a row.
    let mut lines = help.lines().peekable();
    let mut settings = BTreeSet::new();
    while let Some(line) = lines.next() {
        if line.starts_with("  ") && !line.starts_with("   ") {
            settings.extend(setting_names([line].into_iter()));
            let name = line.split_whitespace().next().unwrap();
            let meaning = lines.next().unwrap().trim();
            let must_be = lines.next().unwrap().trim();
            let (must_be, default) = must_be.split_once("; default ").unwrap_or((must_be, ""));
            let default =
                if default.is_empty() { "(unset)".to_owned() } else { format!("`{default}`") };
            let row = format!("| `{name}` | {default} | {must_be} | {meaning} |");
            assert!(readme.lines().any(|line| line == row), "README.md lacks: {row}");
        }
    }
    assert_eq!(settings.len(), 24);
    let rows = readme.lines().filter(|line| line.starts_with('|'));
    let first_cells = rows.filter_map(|row| row.split('|').nth(1));
    assert_eq!(setting_names(first_cells), settings);
}

/// All words that look like the name of an environment variable.
fn setting_names<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    lines
        .flat_map(|line| line.split(|c| !part(c)))
        .filter(|word| word.len() > 2 && (word.contains('_') || *word == "WORKERS"))
        .collect()
}
