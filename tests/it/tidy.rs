//! The invariants of the source, which module may do what, and that the pages about it tell the truth.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testing::fake_api::FakeApi;
use testing::gateway::Gateway;
use testing::source::{self, Module};

/// The modules in reading order, and the others whose items each names: all of them further down.
const READING_ORDER: [(&str, &str); 80] = [
    ("main", "arguments export lifecycle doctor config logging"),
    ("arguments", "export doctor doctor::arguments config"),
    (
        "export",
        "export::files export::paths export::gcp config refresher::pauses key_sets upstream notices \
         documents logging::line",
    ),
    ("export::files", "documents"),
    ("export::paths", "documents"),
    ("export::gcp", "documents"),
    (
        "lifecycle",
        "config server admin front site refresher cache metrics upstream http::routes http documents \
         logging logging::line",
    ),
    (
        "doctor",
        "doctor::inside doctor::reach doctor::token doctor::documents doctor::visit \
         doctor::arguments doctor::forecast doctor::new_key doctor::relying_parties doctor::wants \
         doctor::finding config upstream documents url",
    ),
    (
        "doctor::inside",
        "doctor::token doctor::new_key doctor::relying_parties doctor::finding config upstream documents \
         reason",
    ),
    ("doctor::reach", "doctor::chain doctor::visit doctor::arguments doctor::finding url"),
    ("doctor::token", "doctor::finding jwt documents"),
    ("doctor::documents", "doctor::visit doctor::finding jwt documents json url"),
    ("doctor::chain", "doctor::finding upstream"),
    ("doctor::visit", "doctor::arguments upstream http url locks"),
    ("doctor::arguments", "doctor::relying_parties documents url"),
    ("doctor::forecast", "doctor::wants documents"),
    ("doctor::new_key", "doctor::wants doctor::finding"),
    ("doctor::relying_parties", "doctor::wants"),
    ("doctor::wants", ""),
    ("doctor::finding", "logging::line"),
    ("config", "config::source config::settings config::values documents logging"),
    ("config::source", "config::names config::settings config::values logging::line"),
    ("config::names", "config::settings"),
    ("config::settings", ""),
    ("config::values", "documents json url logging"),
    ("server", "front front::head site metrics http::answer http locks logging logging::line"),
    (
        "admin",
        "exposition status process front site metrics http::answer http::routes http logging",
    ),
    ("exposition", "process front cache observed metrics upstream documents logging::line"),
    ("status", "cache observed upstream documents reason logging::line"),
    ("process", ""),
    ("front", "front::event_loop front::lane front::listener front::inbox front::counts logging"),
    (
        "front::event_loop",
        "front::acceptor front::admission front::connection front::lane front::inbox front::counts \
         front::head http::answer logging",
    ),
    ("front::acceptor", "front::listener"),
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
    ("front::head", "front::head::syntax"),
    ("front::head::syntax", ""),
    ("site", "cache http::answer http::routes http documents reason"),
    (
        "refresher",
        "refresher::report refresher::key_history refresher::own_token refresher::pauses key_sets \
         cache observed metrics upstream http::routes http::representation documents reason logging::line",
    ),
    (
        "refresher::report",
        "refresher::alternation refresher::own_token key_sets upstream notices documents reason \
         logging::line",
    ),
    ("refresher::alternation", ""),
    ("refresher::key_history", "key_sets observed documents"),
    ("refresher::own_token", "key_sets jwt documents"),
    ("refresher::pauses", ""),
    ("key_sets", "documents"),
    ("cache", "cache::state observed http::routes http::representation documents reason locks"),
    ("cache::state", "cache::state::snapshot observed http::routes documents reason"),
    ("cache::state::snapshot", "http::routes http::representation documents"),
    ("observed", "upstream documents reason"),
    ("metrics", "http::routes documents reason"),
    (
        "upstream",
        "upstream::trust upstream::token upstream::connector upstream::verifier upstream::bundle \
         upstream::expiry upstream::failure upstream::resolver upstream::file notices http \
         documents locks",
    ),
    (
        "upstream::trust",
        "upstream::connector upstream::verifier upstream::bundle upstream::expiry upstream::file",
    ),
    ("upstream::token", "upstream::expiry upstream::failure upstream::file"),
    ("upstream::connector", "upstream::verifier url"),
    ("upstream::verifier", "upstream::bundle upstream::expiry locks"),
    ("upstream::bundle", "upstream::expiry"),
    ("upstream::expiry", "jwt"),
    ("upstream::failure", "upstream::resolver documents reason"),
    ("upstream::resolver", "locks"),
    ("upstream::file", ""),
    ("jwt", "json"),
    ("notices", ""),
    ("http::answer", "http::routes http::representation http reason"),
    ("http::routes", "documents"),
    ("http::representation", "documents"),
    ("http", ""),
    ("documents", "json url"),
    ("json", ""),
    ("url", ""),
    ("reason", ""),
    ("locks", ""),
    ("logging", "logging::line"),
    ("logging::line", ""),
];

/// The modules without clock, lock, socket, thread, file and log.
const PURE: [&str; 44] = [
    "arguments",
    "export::paths",
    "export::gcp",
    "doctor::token",
    "doctor::documents",
    "doctor::chain",
    "doctor::arguments",
    "doctor::forecast",
    "doctor::new_key",
    "doctor::relying_parties",
    "doctor::wants",
    "doctor::finding",
    "config::names",
    "config::settings",
    "config::values",
    "exposition",
    "status",
    "front::admission",
    "front::admission::limits",
    "front::admission::phase",
    "front::admission::queues",
    "front::head",
    "front::head::syntax",
    "refresher::alternation",
    "refresher::key_history",
    "refresher::own_token",
    "refresher::pauses",
    "key_sets",
    "jwt",
    "notices",
    "cache::state",
    "cache::state::snapshot",
    "observed",
    "upstream::bundle",
    "upstream::expiry",
    "upstream::failure",
    "http::answer",
    "http::routes",
    "http::representation",
    "http",
    "documents",
    "json",
    "url",
    "reason",
];

fn modules() -> Vec<Module> {
    source::modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// Whether `word` is in `code`, and not as a part of another word.
fn has(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).and_then(|code| code.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|code| code.chars().next());
        let is_inside =
            |one: Option<char>, two: Option<char>| one.is_some_and(part) && two.is_some_and(part);
        !is_inside(before, word.chars().next()) && !is_inside(word.chars().next_back(), after)
    })
}

/// Whether the module has a path that is, or begins with, one of `paths`.
fn has_path(module: &Module, paths: &[&str]) -> bool {
    let begins = |path: &String, with: &str| {
        path.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    module.paths.iter().any(|path| paths.iter().any(|with| begins(path, with)))
}

/// Those of `allowed`, and no other modules, do what `does` looks for.
#[track_caller]
fn only(allowed: &[&str], does: impl Fn(&Module) -> bool) {
    let modules = modules();
    let found: BTreeSet<_> = modules.iter().filter(|it| does(it)).map(|it| &*it.name).collect();
    assert_eq!(found, allowed.iter().copied().collect());
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
    assert_eq!(source::cycle(&modules), None);
}

#[test]
fn only_the_lane_and_the_workers_name_tiny_http() {
    only(&["server", "front::lane", "front"], |module| has_path(module, &["tiny_http"]));
}

#[test]
fn only_the_front_touches_client_sockets() {
    // `doctor` is a client itself.
    let with_sockets =
        ["doctor::visit", "front::event_loop", "front::acceptor", "front::connection"];
    only(&with_sockets, |module| has(&module.code, "TcpStream"));
}

#[test]
fn nothing_is_static_but_what_logging_counts() {
    only(&["logging"], |module| {
        let mut lines = module.code.lines().map(str::trim_start);
        let without_visibility = |line: &str| {
            let line = line.strip_prefix("pub").unwrap_or(line);
            line.split_once(") ")
                .filter(|it| it.0.starts_with('('))
                .map_or(line, |it| it.1)
                .to_owned()
        };
        lines.any(|line| {
            without_visibility(line).trim_start().starts_with("static ")
                || line.contains("thread_local!")
        })
    });
}

#[test]
fn only_upstream_and_doctor_name_ureq_and_rustls() {
    // `http::representation` hashes with rustls's library of cryptography, and not with rustls.
    let clients = [
        "doctor",
        "doctor::chain",
        "doctor::inside",
        "doctor::reach",
        "doctor::visit",
        "upstream",
        "upstream::bundle",
        "upstream::connector",
        "upstream::failure",
        "upstream::resolver",
        "upstream::trust",
        "upstream::verifier",
    ];
    only(&clients, |module| has_path(module, &["ureq", "rustls", "rustls_pemfile"]));
}

#[test]
fn only_config_reads_the_environment() {
    // Arguments, and what cargo sets when it compiles, are not the environment.
    only(&["config"], |module| has_path(module, &["std::env", "env"]));
}

#[test]
fn one_function_is_unsafe() {
    only(&["front::connection"], |module| {
        has(&module.code, "unsafe") || module.code.contains("extern \"C\"")
    });
    let modules = modules();
    let blocks = modules.iter().map(|module| module.code.matches("unsafe {").count());
    assert_eq!(blocks.sum::<usize>(), 1);
}

#[test]
fn one_module_knows_poisoned_locks() {
    only(&["locks"], |module| has(&module.code, "PoisonError") || module.code.contains(".lock()"));
    let with_locks = [
        "locks",
        "doctor::visit",
        "server",
        "front::inbox",
        "cache",
        "upstream::resolver",
        "upstream::verifier",
    ];
    only(&with_locks, |module| has(&module.code, "Mutex") || has(&module.code, "RwLock"));
}

#[test]
fn pure_modules_have_no_clock_lock_socket_thread_file_or_log() {
    only(&PURE, |module| module.text.starts_with("//! Pure: "));
    let paths = [
        "log",
        "std::env",
        "std::fs",
        "std::process",
        "std::sync::Mutex",
        "std::sync::RwLock",
        "std::sync::Condvar",
        "std::sync::atomic",
        "std::sync::mpsc",
        "std::thread",
        "std::os",
        "rustix",
        "socket2",
        "libc",
        "Instant::now",
        "SystemTime::now",
        "TcpStream",
        "TcpListener",
        "File",
    ];
    let words = [
        "elapsed",
        "trace!",
        "debug!",
        "info!",
        "warn!",
        "error!",
        "log!",
        "print!",
        "println!",
        "eprint!",
        "eprintln!",
        "dbg!",
        "stdout",
        "stderr",
        "stdin",
    ];
    for module in modules().iter().filter(|module| PURE.contains(&&*module.name)) {
        for path in paths {
            assert!(!has_path(module, &[path]), "{} names {path}", module.name);
        }
        for word in words {
            assert!(!has(&module.code, word), "{} has `{word}`", module.name);
        }
    }
}

#[test]
fn under_the_caches_lock_there_is_one_method_call_and_nothing_else() {
    const LOCK: &str = "lock(&self.state)";
    // What may be evaluated with the lock held: values that are there, and a clock.
    let arguments = [
        "",
        "kind",
        "kind, reason",
        "kind, after",
        "observed",
        "kind, Instant::now()",
        "Instant::now()",
        "Instant::now(), started + pause",
        "Instant::now(), retry",
        "ticket, kind, Instant::now()",
    ];
    let modules = modules();
    let cache = modules.iter().find(|module| module.name == "cache").expect("src/cache/mod.rs");
    let statements: Vec<String> = cache
        .code
        .split([';', '{', '}'])
        .map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|statement| statement.contains(LOCK))
        .collect();
    assert!(statements.len() > 8, "{statements:?}");
    for statement in statements {
        assert_eq!(statement.matches(LOCK).count(), 1, "{statement}");
        let keywords = ["if", "while", "match", "for", "loop", "return"];
        assert!(keywords.iter().all(|keyword| !has(&statement, keyword)), "{statement}");
        let (before, after) = statement.split_once(LOCK).unwrap();
        assert!(after.starts_with('.') || before.contains("wait_"), "{statement}");
        let call = if before.contains("wait_") {
            // The lock is an argument of a wait, whose closure is one call as well.
            let is_closure =
                |text: &str| text.contains("must_wait") || text.contains("!state.is_requested()");
            assert!(is_closure(after), "{statement}");
            after.split_once(")").unwrap().1.to_owned()
        } else {
            after.to_owned()
        };
        for call in call.split('.').skip(1).filter(|call| call.contains('(')) {
            let (_, given) = call.split_once('(').unwrap();
            let given = given.trim_end_matches(" else").strip_suffix(')').unwrap_or(given);
            let given = given.trim_end_matches([',', ' ']).trim_start();
            assert!(arguments.contains(&given), "{statement}: {given}");
        }
    }
}

#[test]
fn every_file_says_at_its_top_what_it_is_and_is_short() {
    for module in modules() {
        assert!(module.text.starts_with("//! "), "{}", module.name);
        let lines = module.text.lines().count();
        assert!(lines <= 450, "{} has {lines} lines", module.name);
    }
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

#[test]
fn the_map_in_the_documentation_has_each_module_in_reading_order() {
    let page = page("docs/development.md");
    let (_, map) = page.split_once("## Map of the code").expect("a map");
    let rows = map.lines().skip_while(|line| !line.starts_with('|')).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let files = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let in_map: Vec<_> = files
        .map(|file| file.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches('/'))
        .map(|file| file.replace('/', "::"))
        .collect();

    // A folder's row stands for its parts, except for those of the front, which have rows.
    let is_part = |name: &str| match name.rsplit_once("::") {
        Some(("front", _)) | None => false,
        Some(_) => true,
    };
    let modules = READING_ORDER.iter().map(|(name, _)| *name).filter(|name| !is_part(name));
    assert_eq!(in_map, modules.collect::<Vec<_>>());
}

#[test]
fn the_documentation_has_each_setting_of_the_program_in_the_words_of_help() {
    let page = page("docs/configuration.md");
    let help = Gateway::builder(&FakeApi::start()).arg("--help").run().stdout;

    // In `--help`, a setting is a line of its own; its meaning, and what it must be, are indented
    // further. On the page it is in the first cell of a row.
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
            assert!(page.lines().any(|line| line == row), "docs/configuration.md lacks: {row}");
        }
    }
    assert_eq!(settings.len(), 30);
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let first_cells = rows.filter_map(|row| row.split('|').nth(1));
    // A cell that begins with a name.
    let is_name = |cell: &&str| cell.trim_start_matches([' ', '`']).starts_with(char::is_uppercase);
    let first_cells = first_cells.filter(is_name);
    assert_eq!(setting_names(first_cells), settings);
}

#[test]
fn both_dockerfiles_make_the_same_image() {
    let image = |name| {
        let text = page(name);
        let stage = &text[text.find("\nFROM scratch").unwrap()..];
        let counts = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let instructions = stage.lines().filter(counts).map(str::to_owned);
        // Where the binary comes from: the build stage, or this machine.
        let (copies, rest): (Vec<_>, Vec<_>) =
            instructions.partition(|line| line.starts_with("COPY "));
        assert_eq!(copies.len(), 1);
        assert!(copies[0].ends_with(" /kube-issuer-gateway"), "{}", copies[0]);
        rest
    };
    assert_eq!(image("Dockerfile"), image("Dockerfile.scratch"));
}

/// All words that look like the name of an environment variable.
fn setting_names<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    lines
        .flat_map(|line| line.split(|c| !part(c)))
        .filter(|word| {
            word.len() > 2 && (word.contains('_') || ["WORKERS", "ISSUER"].contains(word))
        })
        .collect()
}
