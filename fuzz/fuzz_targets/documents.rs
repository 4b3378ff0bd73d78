//! Documents: what of an API server's answer is let out.
//!
//! The first byte says which policy holds, the rest is what the API server sends: it is taken as a
//! discovery document and as a JWKS.

#![no_main]

#[path = "../../src/documents/mod.rs"]
#[allow(dead_code)]
mod documents;
#[path = "../../src/json.rs"]
#[allow(dead_code)]
mod json;
#[path = "../../src/url.rs"]
#[allow(dead_code)]
mod url;
mod second_reader;

use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Map, Value};

use crate::documents::{JWKS_PATH, JwksUri, Layout, MAX_SERVED_BYTES, Published, Refused};
use crate::json::JsonError;
use crate::second_reader::Json;
use crate::url::HttpsUrl;

const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&choice, sent)) = data.split_first() else { return Corpus::Reject };
    let policy = match choice % 4 {
        0 => JwksUri::Fixed("https://a.example/fixed?x".to_owned()),
        1 => JwksUri::Auto,
        2 => JwksUri::Upstream,
        _ => JwksUri::Fixed("https://cdn.example/keys".to_owned()),
    };
    let mut defaults = Map::new();
    if choice & 4 != 0 {
        defaults.insert("claims_supported".to_owned(), serde_json::json!(["sub", "iss"]));
        defaults.insert("z".to_owned(), serde_json::json!({ "n": 1 }));
    }
    let read = parsed(sent);
    discovery(sent, read.as_ref(), &policy, &defaults);
    jwks(sent, read.as_ref());
    Corpus::Keep
});

/// The gateway and the second reader see the same in the same bytes, or the gateway sees nothing.
fn parsed(sent: &[u8]) -> Option<Json> {
    let read = second_reader::read(sent);
    match (json::parse(sent), &read) {
        (Ok(value), read) => {
            let seen = of(&value);
            assert_eq!(Some(&seen), read.as_ref());
            assert!(seen.depth() <= 16 && !seen.has_twins());
            served(&value);
        }
        (Err(refused), Some(read)) => match refused {
            JsonError::TooDeep => assert!(read.depth() > 16),
            JsonError::Encoding(_) => panic!("{refused}"),
            JsonError::Duplicate(_) => assert!(read.has_twins()),
            // Deeper than `serde_json` goes.
            JsonError::Syntax(_) => assert!(read.depth() > 16, "{refused}"),
        },
        (Err(_), None) => {}
    }
    read
}

/// What is served says what was let in; served twice, it is the same. The bytes without spaces.
fn served(value: &Value) -> Option<Vec<u8>> {
    let mut outcome = None;
    for layout in [Layout::Pretty, Layout::Compact] {
        match documents::serialise(value, layout) {
            Ok(bytes) => {
                assert!(bytes.len() <= MAX_SERVED_BYTES);
                assert_eq!(second_reader::read(&bytes), Some(of(value)));
                let again = json::parse(&bytes).unwrap_or_else(|refused| panic!("{refused}"));
                assert_eq!(&again, value);
                assert_eq!(documents::serialise(&again, layout).ok().as_ref(), Some(&bytes));
                outcome = Some(bytes);
            }
            Err(Refused::TooLarge(length)) => assert!(length > MAX_SERVED_BYTES),
            Err(refused) => panic!("{refused}"),
        }
    }
    outcome
}

fn discovery(sent: &[u8], read: Option<&Json>, policy: &JwksUri, defaults: &Map<String, Value>) {
    let Ok(let_in) = documents::check_discovery(sent) else { return };
    let Some(Json::Object(read)) = read else { panic!("no object") };
    let published = match documents::publish(let_in, policy, defaults) {
        Ok(published) => published,
        Err(Refused::JwksUri(uri)) => {
            assert!(*policy == JwksUri::Upstream && HttpsUrl::parse(&uri).is_none());
            return;
        }
        Err(refused) => panic!("{refused}"),
    };
    let Published { value, issuer, jwks_uri, issuer_path, jwks_path, .. } = &published;

    // What was there stands where it stood; only `jwks_uri` is another, and defaults follow.
    let Json::Object(made) = of(value) else { panic!("no object") };
    let (kept, added) = made.split_at(read.len());
    for (made, read) in kept.iter().zip(read) {
        assert_eq!(made.0, read.0);
        if made.0 == "jwks_uri" {
            assert_eq!(made.1.string(), Some(jwks_uri.as_str()));
        } else {
            assert_eq!(made.1, read.1);
        }
        if made.0 == "issuer" {
            assert_eq!(made.1.string(), Some(issuer.as_str()));
        }
    }
    let missing = defaults.iter().filter(|name| read.iter().all(|member| member.0 != *name.0));
    let missing: Vec<_> = missing.map(|(name, value)| (name.clone(), of(value))).collect();
    assert_eq!(added, missing);

    urls(issuer, jwks_uri);
    let upstreams = read.iter().find(|member| member.0 == "jwks_uri").and_then(|m| m.1.string());
    match policy {
        JwksUri::Upstream => assert_eq!(Some(jwks_uri.as_str()), upstreams),
        JwksUri::Fixed(uri) => assert_eq!(jwks_uri, uri),
        JwksUri::Auto => {
            let ours = format!("{}{JWKS_PATH}", issuer.strip_suffix('/').unwrap_or(issuer));
            assert!(*jwks_uri == ours || Some(jwks_uri.as_str()) == upstreams);
            // Those who reach the issuer reach the keys, and here.
            assert_eq!(origin(jwks_uri), origin(issuer));
            assert!(jwks_path.is_some(), "{issuer:?} {jwks_uri:?}");
        }
    }
    assert_eq!(jwks_path.is_some(), origin(jwks_uri) == origin(issuer), "{issuer:?} {jwks_uri:?}");
    assert!(issuer_path.is_empty() || issuer_path.starts_with('/'));
    assert!(jwks_path.as_ref().is_none_or(|path| path.starts_with('/') && !path.contains('?')));

    // Through the gate once more, it stays as it is.
    let Some(bytes) = served(value) else { return };
    let again = documents::check_discovery(&bytes).unwrap_or_else(|refused| panic!("{refused}"));
    let again = documents::publish(again, policy, defaults);
    let again = again.unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(again.value, published.value);
    assert_eq!((again.issuer_path, again.jwks_path), (published.issuer_path, published.jwks_path));
}

/// What a relying party is sent to is https, and nothing that a reader could take for another.
fn urls(issuer: &str, jwks_uri: &str) {
    for url in [issuer, jwks_uri] {
        assert!(HttpsUrl::parse(url).is_some());
        assert!(url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://")));
        assert!(!url.contains('#'), "{url:?}");
        assert!(!url.chars().any(|c| c.is_whitespace() || c.is_control()), "{url:?}");
        let authority = url[8..].split(['/', '?']).next().unwrap_or_default();
        assert!(!authority.is_empty() && !authority.contains(['@', '\\']), "{url:?}");
    }
    assert!(!issuer.contains('?'));
}

/// Host in lower case and port of an https URL, by its text.
fn origin(url: &str) -> (String, u16) {
    let authority = url[8..].split(['/', '?']).next().unwrap_or_default().to_ascii_lowercase();
    // The colons of an IPv6 address stand in brackets.
    let colon = authority.rfind([':', ']']).filter(|at| authority[*at..].starts_with(':'));
    let (host, port) = authority.split_at(colon.unwrap_or(authority.len()));
    let digits = port.trim_start_matches(':');
    assert!(!host.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()), "{url:?}");
    (host.to_owned(), if digits.is_empty() { 443 } else { digits.parse().expect("a port") })
}

/// A set is let in exactly when it has public keys, and nothing else, and goes out as it came.
fn jwks(sent: &[u8], read: Option<&Json>) {
    let let_in = match documents::check_jwks(sent) {
        Ok(let_in) => let_in,
        Err(refused) => {
            let clean = read.is_some_and(|read| read.depth() <= 16 && !read.has_twins());
            assert!(!(clean && read.is_some_and(is_public_set)), "{refused}");
            return;
        }
    };
    let read = read.expect("JSON");
    assert!(is_public_set(read));
    let value = let_in.with_keys(let_in.keys.clone());
    let Some(bytes) = served(&value) else { return };
    let Some(seen) = second_reader::read(&bytes) else { panic!("no JSON") };
    assert_eq!(&seen, read);
    let Some(Json::Array(keys)) = seen.member("keys") else { panic!("no keys") };
    let kids: Vec<_> = keys.iter().filter_map(|key| key.member("kid")?.string()).collect();
    assert_eq!(let_in.keys.iter().filter_map(documents::kid).collect::<Vec<_>>(), kids);
    let again = documents::check_jwks(&bytes).unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(again.with_keys(again.keys.clone()), value);
}

fn is_public_set(read: &Json) -> bool {
    let Some(Json::Array(keys)) = read.member("keys") else { return false };
    let is_public = |key: &Json| {
        let Json::Object(members) = key else { return false };
        let kty = key.member("kty").and_then(Json::string);
        kty.is_some_and(|kty| kty != "oct")
            && members.iter().all(|member| !PRIVATE.contains(&member.0.as_str()))
    };
    !keys.is_empty() && keys.iter().all(is_public)
}

fn of(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Number(number) => Json::Number(number.to_string()),
        Value::String(text) => Json::String(text.clone()),
        Value::Array(items) => Json::Array(items.iter().map(of).collect()),
        Value::Object(members) => {
            Json::Object(members.iter().map(|(name, value)| (name.clone(), of(value))).collect())
        }
    }
}
