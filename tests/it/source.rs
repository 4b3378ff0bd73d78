//! The modules of a source folder, and which of them each one names.
//!
//! A textual reader, of the code that is left without comments and unit tests: it finds the slip, not
//! the intent to deceive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A source file.
pub(crate) struct Module {
    /// Such as `cache` for `cache.rs` or `cache/mod.rs`, and `front::lane` for `front/lane.rs`.
    pub(crate) name: String,
    pub(crate) text: String,
    /// The text without comments and unit tests; strings stay.
    pub(crate) code: String,
    /// The other modules whose items it names.
    pub(crate) names: BTreeSet<String>,
}

/// All modules in `folder`, in the order of their names. Files called `tests.rs` are left out.
pub(crate) fn modules(folder: &Path) -> Vec<Module> {
    let mut texts = BTreeMap::new();
    read(folder, "", &mut texts);
    let known: BTreeSet<String> = texts.keys().cloned().collect();
    let module = |(name, (text, scope)): (String, (String, String))| {
        let code = code(&text);
        let names =
            named(&code, &scope, &known).into_iter().filter(|other| *other != name).collect();
        Module { name, text, code, names }
    };
    texts.into_iter().map(module).collect()
}

/// By name: the text of a file, and the module that `super` and its own children are looked up in.
fn read(folder: &Path, parent: &str, texts: &mut BTreeMap<String, (String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let name = if parent.is_empty() { stem.clone() } else { format!("{parent}::{stem}") };
        if path.is_dir() {
            read(&path, &name, texts);
        } else if stem != "tests" {
            assert!(path.extension().is_some_and(|extension| extension == "rs"), "{path:?}");
            let text = fs::read_to_string(&path).unwrap();
            let (name, scope) = match stem.as_str() {
                "mod" => (parent.to_owned(), parent.to_owned()),
                "main" => ("main".to_owned(), String::new()),
                _ => (name.clone(), name),
            };
            texts.insert(name, (text, scope));
        }
    }
}

/// `text` up to its unit tests, without comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split_once("// ").map_or(line, |(code, _)| code));
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules, of those that are `known`, to which a path in `code` leads.
fn named(code: &str, scope: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let uses = code.split("use ").skip(1).filter_map(|rest| rest.split(';').next());
    let mut paths: Vec<String> = uses
        .flat_map(|tree| expand(&tree.split_whitespace().collect::<Vec<_>>().concat()))
        .collect();
    // Elsewhere a path has no braces.
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c| !is_part(c)).filter(|word| word.contains("::"));
    paths.extend(words.map(ToOwned::to_owned));
    paths.iter().filter_map(|path| resolve(path, scope, known)).collect()
}

/// The paths of a `use` tree without white space: `a::{b,c::{self,d}}` is `a::b`, `a::c`, `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree.replace("::self", "")];
    };
    let (mut depth, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, character) in rest.char_indices() {
        match character {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                parts.push(&rest[begin..at]);
                begin = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    parts.into_iter().flat_map(|part| expand(&format!("{prefix}{part}"))).collect()
}

/// The longest beginning of `path`, seen from `scope`, that is a module.
fn resolve(path: &str, scope: &str, known: &BTreeSet<String>) -> Option<String> {
    let mut absolute: Vec<&str> = scope.split("::").filter(|part| !part.is_empty()).collect();
    for part in path.split("::") {
        match part {
            "crate" => absolute.clear(),
            "super" => drop(absolute.pop()),
            "self" | "" => {}
            part => absolute.push(part),
        }
    }
    let own = scope.split("::").filter(|part| !part.is_empty()).count();
    let is_relative = !path.starts_with("crate") && !path.starts_with("super");
    // A path of another crate has no beginning that is a module below this one.
    let least = if is_relative { own + 1 } else { 1 };
    let beginnings = (least..=absolute.len()).rev().filter_map(|length| absolute.get(..length));
    beginnings.map(|parts| parts.join("::")).find(|name| known.contains(name))
}

/// The first module that leads back to itself, and the way.
pub(crate) fn circle(modules: &[Module]) -> Option<Vec<String>> {
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
