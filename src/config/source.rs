//! The variables that are settings of this program, and the mistakes found in them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::names;
use super::settings::{SETTINGS, Setting};
use super::values::{Range, seconds};
use crate::logging::line::cut;

/// What Kubernetes sets in each pod, also with `enableServiceLinks: false`: Kubernetes docs,
/// "Accessing the API from a Pod".
const SERVICE: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];

/// The settings that are given, by name; their values are trimmed and not empty.
pub(super) struct Source {
    variables: BTreeMap<String, String>,
    /// One sentence each.
    pub(super) mistakes: Vec<String>,
    pub(super) lookalikes: Vec<Lookalike>,
}

/// A variable that is no setting, and has almost the name of one.
#[derive(Debug)]
pub(crate) struct Lookalike {
    pub(crate) name: String,
    pub(crate) setting: &'static str,
}

impl Source {
    pub(super) fn new(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut source =
            Self { variables: BTreeMap::new(), mistakes: Vec::new(), lookalikes: Vec::new() };
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            let is_setting =
                SETTINGS.iter().any(|it| it.name == name || it.old_name == Some(&name));
            if !is_setting && !SERVICE.contains(&&*name) {
                // For a Service named `upstream` Kubernetes sets UPSTREAM_PORT, to an address.
                let is_link = value.to_str().is_some_and(|value| value.starts_with("tcp://"));
                let setting = names::similar(&name).filter(|_| !is_link);
                source.lookalikes.extend(setting.map(|setting| Lookalike { name, setting }));
                continue;
            }
            match value.into_string() {
                // In Kubernetes manifests an empty value often means "not set".
                Ok(value) if value.trim().is_empty() => {}
                Ok(value) => drop(source.variables.insert(name, value.trim().to_owned())),
                Err(_) if !is_setting => {}
                Err(value) => {
                    source.mistakes.push(format!("{name} is {value:?}, which is not UTF-8"));
                }
            }
        }
        source
    }

    /// Host and port of the API server, as Kubernetes sets them.
    pub(super) fn service(&self) -> Option<[&str; 2]> {
        let [host, port] = SERVICE.map(|name| self.variables.get(name).map(String::as_str));
        Some([host?, port?])
    }

    /// Whether `setting` was given under its own name.
    pub(super) fn is_given(&self, setting: &Setting) -> bool {
        self.variables.contains_key(setting.name)
    }

    /// The settings that are given and differ from their defaults: names and values, in the order of
    /// [`SETTINGS`].
    pub(super) fn changed(&self) -> Vec<(&'static str, String)> {
        let changed = SETTINGS.iter().flat_map(|setting| {
            let names = [Some(setting.name), setting.old_name].into_iter().flatten();
            names.filter_map(|name| {
                let value = self.variables.get(name).filter(|value| *value != setting.default)?;
                Some((name, cut(value)))
            })
        });
        changed.collect()
    }

    pub(super) fn add_mistake(&mut self, name: &str, value: &str, must_be: &str) {
        self.mistakes.push(format!("{name} is {value:?}: it must be {must_be}"));
    }

    /// The name and value by which `setting` was given; else its own name and its default.
    pub(super) fn text(&mut self, setting: &Setting) -> (&'static str, String) {
        let own = self.variables.get(setting.name);
        let old = setting.old_name.and_then(|name| Some((name, self.variables.get(name)?)));
        match (own, old) {
            (Some(own), Some((old_name, old))) if own != old => {
                let mistake = format!(
                    "{} is {own:?} and {old_name}, its older name, is {old:?}: set only one of them",
                    setting.name
                );
                let own = own.clone();
                self.mistakes.push(mistake);
                (setting.name, own)
            }
            (Some(own), _) => (setting.name, own.clone()),
            (None, Some((old_name, old))) => (old_name, old.clone()),
            (None, None) => (setting.name, setting.default.to_owned()),
        }
    }

    /// The value of `setting`, or its default, as parsed by `parse`. If `parse` returns `None`, the
    /// mistake is noted.
    pub(super) fn parsed<T>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (name, text) = self.text(setting);
        let value = parse(&text);
        if value.is_none() {
            self.add_mistake(name, &text, setting.must_be);
        }
        value
    }

    /// The value of a setting that has no default; `None` also if it is not given.
    pub(super) fn optional<T>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if self.is_given(setting) { self.parsed(setting, parse) } else { None }
    }

    pub(super) fn seconds(&mut self, setting: &Setting, range: &Range) -> Duration {
        self.parsed(setting, |text| seconds(text, range)).unwrap_or_default()
    }

    /// The path of a file. If the file cannot be read now, the mistake is noted.
    pub(super) fn file(&mut self, setting: &Setting) -> PathBuf {
        let (name, path) = self.text(setting);
        let readable = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
        if let Err(error) = readable {
            self.mistakes
                .push(format!("{name} is {path:?}: it must be {}: {error}", setting.must_be));
        }
        PathBuf::from(path)
    }
}
