//! Pure: at which paths a static site has the two documents.
//!
//! A relying party asks for the issuer's path with `/.well-known/openid-configuration`, and then for the
//! path of `jwks_uri`. Both come from upstream.
//!
//! Invariant: what is allowed is listed, not what is harmful. A segment is a plain name, which a file system,
//! a bucket and a web server all read in the same way: nothing in it is encoded.
//!
//! Sources: `OpenID` Connect Discovery 1.0 §4; RFC 3986 §3.3 (segments) and §5.2.4 (dot segments).

use std::fmt;

use crate::documents::{DISCOVERY_PATH, JWKS_PATH, Published};

/// Where the two files are, relative to the folder of the site.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) discovery: String,
    pub(super) jwks: String,
}

/// Why a path of the documents cannot be one of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Segment {
        /// What has the path.
        of: &'static str,
        path: String,
        why: Why,
    },
    /// One of the files would be, or have to be below, the other one.
    Collision { discovery: String, jwks: String },
}

/// What is wrong with a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Empty,
    Dots(String),
    Character(char),
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment { of, path, why } => {
                write!(out, "the path of {of}, {path:?}, cannot be one of a file: it has ")?;
                match why {
                    Why::Empty => out.write_str("an empty segment"),
                    Why::Dots(dots) => write!(out, "the segment {dots:?}"),
                    Why::Character(character) => write!(
                        out,
                        "{character:?}, and only letters, digits and -._~!$&'()*+,;=:@ are allowed"
                    ),
                }
            }
            Self::Collision { discovery, jwks } => {
                write!(
                    out,
                    "the key set cannot be at {jwks:?} with the discovery document at {discovery:?}"
                )
            }
        }
    }
}

/// Where a site has the documents, so that relying parties find them. A key set whose `jwks_uri` is not at
/// the issuer's origin is [`JWKS_PATH`] below the issuer: there it hides none of another issuer.
pub(super) fn of_site(published: &Published) -> Result<Paths, Refused> {
    let Published { issuer_path, jwks_path, .. } = published;
    let discovery = relative("the issuer", &format!("{issuer_path}{DISCOVERY_PATH}"))?;
    let jwks = match jwks_path {
        Some(path) => relative("jwks_uri", path)?,
        None => relative("the issuer", &format!("{issuer_path}{JWKS_PATH}"))?,
    };
    let is_inside = |one: &str, other: &str| format!("{one}/").starts_with(&format!("{other}/"));
    if is_inside(&discovery, &jwks) || is_inside(&jwks, &discovery) {
        return Err(Refused::Collision { discovery, jwks });
    }
    Ok(Paths { discovery, jwks })
}

/// `path` without its slash at the front, if each segment is a plain name.
fn relative(of: &'static str, path: &str) -> Result<String, Refused> {
    let names = path.strip_prefix('/').unwrap_or(path);
    match names.split('/').find_map(what_is_wrong) {
        Some(why) => Err(Refused::Segment { of, path: path.to_owned(), why }),
        None => Ok(names.to_owned()),
    }
}

/// `None`: the segment is a name that needs no encoding.
fn what_is_wrong(segment: &str) -> Option<Why> {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(*c);
    match segment {
        "" => Some(Why::Empty),
        "." | ".." => Some(Why::Dots(segment.to_owned())),
        _ => segment.chars().find(|c| !is_plain(c)).map(Why::Character),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use serde_json::Map;

    use super::*;
    use crate::documents::{self, JwksUri};

    fn paths(issuer: &str, jwks_uri: &str) -> Result<(String, String), String> {
        let document = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{jwks_uri}"}}"#);
        let discovery = documents::check_discovery(document.as_bytes()).unwrap();
        let published = documents::publish(discovery, &JwksUri::Upstream, &Map::new()).unwrap();
        let paths = of_site(&published).map_err(|refused| refused.to_string());
        paths.map(|Paths { discovery, jwks }| (discovery, jwks))
    }

    #[test]
    fn a_path_that_is_no_plain_file_is_refused() {
        for (issuer, jwks_uri, expected) in [
            ("https://a", "https://a/../b", "it has the segment \"..\""),
            ("https://a", "https://a/b/./c", "it has the segment \".\""),
            ("https://a", "https://a", "it has an empty segment"),
            ("https://a", "https://a/b/", "it has an empty segment"),
            ("https://a", "https://a//etc/keys", "it has an empty segment"),
            ("https://a", "https://a/%2e%2e/b", "it has '%', and only letters"),
            ("https://a", "https://a/b%2Fc", "it has '%', and only letters"),
            ("https://a", "https://a/b|c", "it has '|', and only letters"),
            ("https://a/../..", "https://a/b", "it has the segment \"..\""),
            ("https://a/b//", "https://a/b", "it has an empty segment"),
            ("https://a/%00", "https://a/b", "it has '%', and only letters"),
            // Below the issuer, because it is elsewhere.
            ("https://a/..", "https://b/keys", "it has the segment \"..\""),
            (
                "https://a",
                "https://a/.well-known/openid-configuration",
                "with the discovery document at",
            ),
            ("https://a", "https://a/.well-known", "with the discovery document at"),
            (
                "https://a",
                "https://a/.well-known/openid-configuration/keys",
                "with the discovery document at",
            ),
        ] {
            let refused = paths(issuer, jwks_uri).expect_err(jwks_uri);
            assert!(refused.contains(expected), "{issuer} {jwks_uri}: {refused}");
        }
    }

    #[test]
    fn the_sentence_says_whose_path_it_is() {
        assert_eq!(
            paths("https://a/..", "https://a/b").unwrap_err(),
            "the path of the issuer, \"/../.well-known/openid-configuration\", cannot be one of a \
             file: it has the segment \"..\""
        );
        assert_eq!(
            paths("https://a", "https://a/b c".replace(' ', "%20").as_str()).unwrap_err(),
            "the path of jwks_uri, \"/b%20c\", cannot be one of a file: it has '%', and only letters, \
             digits and -._~!$&'()*+,;=:@ are allowed"
        );
    }

    #[test]
    fn relying_parties_find_both_documents() {
        for (issuer, jwks_uri, discovery, jwks) in [
            ("https://a", "https://a/openid/v1/jwks", "", "openid/v1/jwks"),
            ("https://a/", "https://a/keys", "", "keys"),
            ("https://a/b/c", "https://a/b/c/openid/v1/jwks", "b/c/", "b/c/openid/v1/jwks"),
            ("https://a/b/", "https://A:443/d/keys.json?e=f", "b/", "d/keys.json"),
            ("https://a", "https://b/keys", "", "openid/v1/jwks"),
            ("https://a/b", "https://a:8443/keys", "b/", "b/openid/v1/jwks"),
            ("https://a/...", "https://a/..b/-c@d:e", ".../", "..b/-c@d:e"),
            ("https://a", "https://a/.well-known/keys", "", ".well-known/keys"),
        ] {
            let expected =
                (format!("{discovery}.well-known/openid-configuration"), jwks.to_owned());
            assert_eq!(paths(issuer, jwks_uri), Ok(expected), "{issuer} {jwks_uri}");
        }
    }

    #[test]
    fn whatever_the_path_is_the_file_stays_below_the_folder() {
        const LETTERS: [char; 7] = ['/', '.', 'a', '%', '2', '\\', '\0'];
        let mut texts = vec![String::new()];
        let mut accepted = 0;
        for _ in 0..6 {
            let longer = |text: &String| LETTERS.map(|letter| format!("{text}{letter}"));
            texts = texts.iter().flat_map(longer).collect();
            for text in texts.iter().filter_map(|text| relative("", &format!("/{text}")).ok()) {
                let names: Vec<_> = Path::new(&text).components().collect();
                assert!(names.iter().all(|name| matches!(name, Component::Normal(_))), "{text}");
                assert_eq!(names.len(), text.split('/').count(), "{text}");
                accepted += 1;
            }
        }
        assert!(accepted > 100, "{accepted}");
    }
}
