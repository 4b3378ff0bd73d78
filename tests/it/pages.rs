//! The Markdown pages: a link leads somewhere, and the README stays short and up to date.

use std::collections::BTreeSet;
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

/// The text of a page without its code blocks.
fn prose(page: &Path) -> String {
    let text =
        fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let parts = format!("\n{text}");
    let mut prose = String::new();
    let mut is_code = false;
    for line in parts.lines() {
        let is_fence = line.trim_start().starts_with("```");
        if !is_fence && !is_code {
            prose.push_str(line);
            prose.push('\n');
        }
        is_code ^= is_fence;
    }
    assert!(!is_code, "{} has a code block without an end", page.display());
    prose
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
