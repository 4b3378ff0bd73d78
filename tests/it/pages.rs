//! The Markdown pages: a link leads somewhere, a target of make is there, each message is on the page about logs, and the README stays short
//! and up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the repository below `folder`, without what builds leave there.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules", ".git"].contains(&name.as_str()) {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(root(), &mut found);
    found
}

fn pages() -> Vec<PathBuf> {
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    all_files().into_iter().filter(is_page).collect()
}

/// The text of a page without its code blocks, and its code blocks.
fn parts(page: &Path) -> (String, String) {
    let text =
        fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let lines = format!("\n{text}");
    let (mut prose, mut code) = (String::new(), String::new());
    let mut is_code = false;
    for line in lines.lines() {
        let is_fence = line.trim_start().starts_with("```");
        if !is_fence {
            let part = if is_code { &mut code } else { &mut prose };
            part.push_str(line);
            part.push('\n');
        }
        is_code ^= is_fence;
    }
    assert!(!is_code, "{} has a code block without an end", page.display());
    (prose, code)
}

fn prose(page: &Path) -> String {
    parts(page).0
}

/// What a heading is called in a link, as GitHub does it.
fn anchors(page: &Path) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(page).lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim();
        // Of a link in a heading, its text counts.
        let text: String =
            heading.split('[').map(|part| part.split("](").next().unwrap()).collect();
        let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
        let anchor: String = text.to_lowercase().chars().filter(kept).collect();
        let anchor = anchor.replace(' ', "-");
        let repeated = (1..).map(|n| format!("{anchor}-{n}"));
        let mut names = std::iter::once(anchor.clone()).chain(repeated);
        anchors.insert(names.find(|name| !anchors.contains(name)).unwrap());
    }
    anchors
}

/// The targets of the links and pictures of a page.
fn links(page: &Path) -> Vec<String> {
    let prose = prose(page);
    // A code span may show a link.
    let without_code: String = prose.split('`').step_by(2).collect();
    let parts = without_code.split("](").skip(1);
    parts.map(|part| part.split(')').next().unwrap().to_owned()).collect()
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(plain.pop(), "{}", path.display()),
            Component::CurDir => {}
            other @ (Component::Prefix(_) | Component::RootDir | Component::Normal(_)) => {
                plain.push(other);
            }
        }
    }
    plain
}

/// Why a link from `page` leads nowhere.
fn fault(page: &Path, link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let file = match path {
        "" => page.to_owned(),
        _ => plain(&page.parent().unwrap().join(path)),
    };
    if !file.starts_with(root()) || !file.exists() {
        return Some(format!("there is no {}", file.display()));
    }
    if anchor.is_empty() || anchors(&file).contains(anchor) {
        return None;
    }
    Some(format!("{} has no heading #{anchor}", file.display()))
}

#[test]
fn each_relative_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    assert!(pages.len() > 25, "{pages:?}");
    let mut count = 0;
    let mut faults = Vec::new();
    for page in &pages {
        for link in links(page) {
            count += 1;
            let fault = fault(page, &link);
            faults.extend(fault.map(|fault| format!("{}: {link}: {fault}", page.display())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 150, "{count} links were found");
}

#[test]
fn a_page_that_any_file_names_is_there() {
    let is_name = |c: char| c.is_alphanumeric() || "/._-#".contains(c);
    let mut count = 0;
    for file in all_files() {
        // Not text: a corpus, for example.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        // Of the past, this file's own examples, or somebody else's.
        if file.ends_with("CHANGELOG.md") || file.ends_with("tests/it/pages.rs") {
            continue;
        }
        for word in text.split(|c| !is_name(c)).filter(|word| word.starts_with("docs/")) {
            let Some((path, anchor)) = word.split_once(".md") else { continue };
            let page = root().join(format!("{path}.md"));
            assert!(page.exists(), "{}: {word}", file.display());
            let anchor = anchor.strip_prefix('#').unwrap_or_default().trim_end_matches('.');
            let is_there = anchor.is_empty() || anchors(&page).contains(anchor);
            assert!(is_there, "{}: {word}", file.display());
            count += 1;
        }
    }
    assert!(count > 50, "{count} names of pages were found");
}

fn is_target(word: &str) -> bool {
    let is_of_a_target = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(is_of_a_target)
}

/// The targets that a line of shell gives to make. In a comment only the first: words may follow.
fn given_to_make(line: &str) -> Vec<&str> {
    let mut given = Vec::new();
    let (mut is_make, mut is_comment) = (false, false);
    for word in line.split_whitespace() {
        is_comment |= word.starts_with('#');
        let target = word.trim_end_matches([',', ';', '.', ':', ')']);
        if word == "make" {
            is_make = true;
        } else if is_make && is_target(target) {
            given.push(target);
            is_make = target == word && !is_comment;
        } else if !word.contains('=') && !word.starts_with('-') {
            is_make = false;
        }
    }
    given
}

/// What a page names as a target: in code blocks, in code spans, and in a table of targets.
fn targets_named(page: &Path) -> Vec<String> {
    let (prose, code) = parts(page);
    let spans: Vec<_> =
        prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect();
    let lines = code.lines().chain(spans.iter().map(String::as_str));
    let mut named: Vec<_> = lines.flat_map(given_to_make).map(str::to_owned).collect();
    let table = prose.lines().skip_while(|line| !line.starts_with("| make target |")).skip(2);
    for row in table.take_while(|line| line.starts_with('|')) {
        let first_cell = row.split('|').nth(1).unwrap();
        named.extend(first_cell.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    named
}

/// Each target of the Makefile, with what follows its name.
fn targets(makefile: &str) -> BTreeMap<&str, &str> {
    let rules = makefile.lines().filter_map(|line| line.split_once(':'));
    rules.filter(|(name, rest)| is_target(name) && !rest.starts_with('=')).collect()
}

#[test]
fn each_target_that_a_page_names_is_in_the_makefile() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let targets = targets(&makefile);
    let mut count = 0;
    let mut missing = Vec::new();
    // Of the past.
    for page in pages().iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        for name in targets_named(page) {
            count += 1;
            if !targets.contains_key(name.as_str()) {
                missing.push(format!("{}: make {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(count > 80, "{count} names of targets were found");
}

#[test]
fn each_target_of_the_makefile_is_in_its_help() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let without_help: Vec<_> =
        targets(&makefile).into_iter().filter(|(_, rest)| !rest.contains(" ## ")).collect();
    assert!(without_help.is_empty(), "{without_help:?}");
}

#[test]
fn targets_are_found_wherever_a_page_names_them() {
    let given = [
        ("make run    # the gateway", vec!["run"]),
        ("$ make image kind-load", vec!["image", "kind-load"]),
        ("make image IMAGE=a/b:0.1.0 && docker push a/b:0.1.0", vec!["image"]),
        ("ROUNDS=5 make bench", vec!["bench"]),
        ("git checkout v1 && make reproducible AGAINST=FILE", vec!["reproducible"]),
        (
            "make kind-watch  # beside it; make kind-dashboard draws it",
            vec!["kind-watch", "kind-dashboard"],
        ),
        ("make kind-deploy  # or make kind-helm, the chart", vec!["kind-deploy", "kind-helm"]),
        ("make", vec![]),
        ("make TARGET", vec![]),
    ];
    for (line, expected) in given {
        assert_eq!(given_to_make(line), expected, "{line}");
    }
}

/// The string that ends the macro call which `rest` begins with: the message of a log line.
fn message(rest: &str) -> String {
    let (mut depth, mut is_string, mut last) = (0_usize, false, String::new());
    let mut chars = rest.chars();
    loop {
        match chars.next().expect("the end of the call") {
            '\\' if is_string => match chars.next().unwrap() {
                // A line that goes on in the next one, without its indentation.
                '\n' => chars = chars.as_str().trim_start().chars(),
                escaped => last.push(escaped),
            },
            '"' => {
                is_string = !is_string;
                if is_string {
                    last.clear();
                }
            }
            c if is_string => last.push(c),
            '(' => depth += 1,
            ')' if depth == 1 => return last,
            ')' => depth -= 1,
            _ => {}
        }
    }
}

#[test]
fn the_page_about_logs_has_each_message_and_no_others() {
    let page = root().join("docs/logs.md");
    let page = fs::read_to_string(page).unwrap();
    let messages = page.split("\n## Messages").nth(1).unwrap();
    let cells = messages.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = cells.map(|row| format!("`{}", row.split(" | ").next().unwrap()));
    let documented: BTreeSet<String> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let modules = testing::source::modules(&root().join("src"));
    let mut written = BTreeSet::new();
    for module in &modules {
        for name in ["error!", "warn!", "info!", "debug!", "log!"] {
            let call = format!("{name}(");
            for (at, _) in module.code.match_indices(&call) {
                let before = &module.code[..at];
                if !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    written.insert(message(&module.code[at + name.len()..]));
                }
            }
        }
    }
    assert!(written.len() > 50, "{written:?}");
    // `A`, `... B` is short for A and what ends in B.
    let is_short = |message: &str, span: &str| {
        span.strip_prefix("... ").is_some_and(|end| message.ends_with(end))
    };
    let is_documented = |message: &&String| {
        documented.iter().any(|span| span == *message || is_short(message, span))
    };
    let missing: Vec<_> = written.iter().filter(|message| !is_documented(message)).collect();
    assert!(missing.is_empty(), "docs/logs.md lacks {missing:#?}");
    // Not by a macro: `panic`, and the line of a program that ends.
    let others = ["panic", "the front cannot continue: CAUSE"];
    let is_written = |span: &&String| {
        let is_one = |message: &String| message == *span || is_short(message, span);
        others.contains(&span.as_str()) || written.iter().any(is_one)
    };
    let gone: Vec<_> = documented.iter().filter(|span| !is_written(span)).collect();
    assert!(gone.is_empty(), "docs/logs.md has messages that nothing writes: {gone:#?}");
}

#[test]
fn the_readme_has_at_most_250_lines_and_names_the_version() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let lines = readme.lines().count();
    assert!(lines <= 250, "{lines} lines");
    let image = concat!("kube-issuer-gateway:", env!("CARGO_PKG_VERSION"));
    assert!(readme.contains(image), "README.md does not name {image}");
}

#[test]
fn every_page_of_docs_is_reached_from_the_readme() {
    let mut seen = BTreeSet::new();
    let mut next = vec![root().join("README.md")];
    while let Some(page) = next.pop() {
        if page.extension().is_some_and(|extension| extension == "md") && seen.insert(page.clone())
        {
            let folder = page.parent().unwrap();
            let paths = links(&page).into_iter().filter(|link| !link.contains("://"));
            next.extend(paths.map(|link| plain(&folder.join(link.split('#').next().unwrap()))));
        }
    }
    let missing: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.starts_with(root().join("docs")) && !seen.contains(page))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
