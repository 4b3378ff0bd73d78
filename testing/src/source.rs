//! The modules of a source folder, and which paths and other modules each one names.
//!
//! A textual reader of the code that is left without comments and unit tests. It finds slips, not the
//! intent to deceive. What it could not read right it refuses: globs, a renamed crate root, and code
//! below the unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A source file.
pub struct Module {
    /// Such as `cache` for `cache.rs` or `cache/mod.rs`, and `front::lane` for `front/lane.rs`.
    pub name: String,
    /// All of it.
    pub text: String,
    /// The text without comments and unit tests; strings stay.
    pub code: String,
    /// All paths in the code; of `use a::{b, c}` each one.
    pub paths: BTreeSet<String>,
    /// The other modules whose items it names.
    pub names: BTreeSet<String>,
}

/// All modules in `folder`, in the order of their names. Files called `tests.rs` are left out.
#[must_use]
pub fn modules(folder: &Path) -> Vec<Module> {
    let mut files = Vec::new();
    read(folder, "", &mut files);
    files.sort();
    let known: BTreeSet<String> = files.iter().map(|file| file.name.clone()).collect();
    let module = |File { name, scope, text }| {
        let code = code(&name, &text);
        let (uses, words) = (uses(&name, &code), words(&code));
        let names = named(&uses, &words, &scope, &known);
        let names = names.into_iter().filter(|other| *other != name).collect();
        let paths = uses.into_iter().map(|it| it.path).chain(words).collect();
        Module { name, text, code, paths, names }
    };
    files.into_iter().map(module).collect()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct File {
    name: String,
    /// The module in which relative paths are looked up.
    scope: String,
    text: String,
}

fn read(folder: &Path, parent: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let name = if parent.is_empty() { stem.clone() } else { format!("{parent}::{stem}") };
        if path.is_dir() {
            read(&path, &name, files);
        } else if stem != "tests" {
            assert!(path.extension().is_some_and(|extension| extension == "rs"), "{path:?}");
            let text = fs::read_to_string(&path).unwrap();
            let (name, scope) = match stem.as_str() {
                "mod" => (parent.to_owned(), parent.to_owned()),
                "main" => ("main".to_owned(), String::new()),
                _ => (name.clone(), name),
            };
            files.push(File { name, scope, text });
        }
    }
}

/// `text` up to its unit tests, without comments.
fn code(name: &str, text: &str) -> String {
    let (code, tests) = text.split_once("#[cfg(test)]").unwrap_or((text, ""));
    // What follows is for tests only: their module, or a file or an import for it.
    let outside = tests.split("mod tests {").next().unwrap_or_default();
    for line in outside.lines().filter(|line| line.starts_with(|c: char| c.is_alphabetic())) {
        let is_test = ["mod tests;", "mod lives;", "use super::admission;"].contains(&line);
        assert!(is_test, "{name} has `{line}` below its first #[cfg(test)]");
    }
    assert!(!code.contains("mod tests;"), "{name} has `mod tests;` without #[cfg(test)]");
    let lines = code.lines().map(|line| match line.split_once("// ") {
        Some((code, _)) if code.matches('"').count() % 2 == 0 => code,
        _ => line,
    });
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// A path of a `use`, and the name that it gets.
struct Use {
    path: String,
    name: String,
}

fn uses(module: &str, code: &str) -> Vec<Use> {
    let is_use = |line: &&str| {
        let line = line.trim_start();
        let line =
            line.split_once(") ").filter(|it| it.0.starts_with("pub(")).map_or(line, |it| it.1);
        line.starts_with("use ")
    };
    let mut found = Vec::new();
    let mut lines = code.lines();
    while let Some(first) = lines.by_ref().find(is_use) {
        let mut tree = first.split_once("use ").unwrap().1.to_owned();
        while !tree.contains(';') {
            tree.push_str(lines.next().unwrap());
        }
        let tree = tree.split(';').next().unwrap_or_default().to_owned();
        assert!(!tree.contains('*'), "{module}: a glob in `use {tree}`");
        for path in expand(&tree) {
            let (path, name) = match path.split_once(" as ") {
                Some((path, name)) => (path.trim().to_owned(), name.trim().to_owned()),
                None => {
                    let path = path.trim();
                    let path = path.strip_suffix("::self").unwrap_or(path);
                    (path.to_owned(), path.rsplit("::").next().unwrap_or_default().to_owned())
                }
            };
            assert!(path != "crate" && path != "super", "{module}: `use {tree}`");
            found.push(Use { path, name });
        }
    }
    found
}

/// The paths of a `use` tree: `a::{b, c::{self, d}}` is `a::b`, `a::c::self`, `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let (mut depth, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, character) in rest.char_indices() {
        match character {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                parts.push(rest[begin..at].trim());
                begin = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.flat_map(|part| expand(&format!("{}{part}", prefix.trim()))).collect()
}

/// All words with `::` in them.
fn words(code: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c| !is_part(c)).filter(|word| word.contains("::"));
    words.map(|word| word.trim_end_matches(':').to_owned()).collect()
}

/// The modules, of those that are `known`, whose items the paths are.
fn named(
    uses: &[Use],
    words: &[String],
    scope: &str,
    known: &BTreeSet<String>,
) -> BTreeSet<String> {
    let absolute = |path: &str| {
        let mut parts: Vec<&str> = Vec::new();
        let is_absolute = path.starts_with("crate::");
        if !is_absolute {
            parts.extend(scope.split("::").filter(|part| !part.is_empty()));
        }
        for part in path.split("::") {
            match part {
                "super" => drop(parts.pop()),
                "crate" | "self" | "" => {}
                part => parts.push(part),
            }
        }
        parts.join("::")
    };
    // A module that was imported by a name of its own: `use crate::front;` or `use crate::front as f;`.
    let imported: BTreeMap<&str, String> = uses
        .iter()
        .map(|it| (it.name.as_str(), absolute(&it.path)))
        .filter(|(_, path)| known.contains(path))
        .collect();
    let of_words = words.iter().map(|word| {
        let (first, rest) = word.split_once("::").unwrap_or((word, ""));
        imported.get(first).map_or_else(|| absolute(word), |module| format!("{module}::{rest}"))
    });
    let all = uses.iter().map(|it| absolute(&it.path)).chain(of_words);
    all.filter_map(|path| longest(&path, known)).filter(|name| *name != scope).collect()
}

/// The longest beginning of an absolute path that is a module.
fn longest(path: &str, known: &BTreeSet<String>) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    let beginnings = (1..=parts.len()).rev().filter_map(|length| parts.get(..length));
    beginnings.map(|parts| parts.join("::")).find(|name| known.contains(name))
}

/// The first module that depends on itself, and the path.
#[must_use]
pub fn cycle(modules: &[Module]) -> Option<Vec<String>> {
    let names: BTreeMap<_, _> = modules.iter().map(|it| (it.name.as_str(), &it.names)).collect();
    names.keys().find_map(|start| {
        let mut ways = vec![vec![*start]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            for next in names.get(way.last()?)?.iter().map(String::as_str) {
                if next == *start {
                    let whole = way.iter().chain([start]).map(|name| (*name).to_owned());
                    return Some(whole.collect());
                }
                if seen.insert(next) {
                    ways.push(way.iter().copied().chain([next]).collect());
                }
            }
        }
        None
    })
}
