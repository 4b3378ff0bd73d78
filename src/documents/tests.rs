use super::*;

const KEY: &str = r#"{"kty":"EC","kid":"a","x":"1","y":"2"}"#;

fn discovery_of(issuer: &str, jwks_uri: &str) -> String {
    format!(r#"{{"issuer":"{issuer}","jwks_uri":"{jwks_uri}","z":1,"a":[2]}}"#)
}

fn published(issuer: &str, jwks_uri: &str, policy: &JwksUri) -> Published {
    let valid = check_discovery(discovery_of(issuer, jwks_uri).as_bytes()).unwrap();
    publish(valid, policy, &Map::new()).unwrap()
}

#[test]
fn a_discovery_document_that_is_not_valid_is_refused_with_its_mistake() {
    let no_json = "it is not JSON: ";
    let twice = "the member \"issuer\" appears twice in one object";
    let not_an_issuer = "is not an https URL without query and fragment";
    for (document, expected) in [
        ("", no_json),
        ("<html>", no_json),
        ("[]", "it is not a JSON object"),
        ("\"text\"", "it is not a JSON object"),
        ("{}", "it has no string member issuer"),
        (r#"{"issuer":"https://a"}"#, "it has no string member jwks_uri"),
        (r#"{"jwks_uri":"https://a"}"#, "it has no string member issuer"),
        (r#"{"issuer":1,"jwks_uri":"https://a"}"#, "it has no string member issuer"),
        (r#"{"issuer":"https://a","jwks_uri":null}"#, "it has no string member jwks_uri"),
        (r#"{"issuer":"https://a","jwks_uri":"https://a/k"} x"#, no_json),
        (r#"{"issuer":"https://a","jwks_uri":"https://a/k""#, no_json),
        (r#"{"issuer":"https://a","jwks_uri":"https://a/k","issuer":"https://b"}"#, twice),
        (r#"{"issuer":"https://a","jwks_uri":"https://a/k","\u0069ssuer":"https://b"}"#, twice),
        (r#"{"issuer":"https://a","jwks_uri":"https://a/k","x":"\ud800"}"#, no_json),
        (&discovery_of("http://a", "https://a/k"), not_an_issuer),
        (&discovery_of("https://a?b", "https://a/k"), not_an_issuer),
        (&discovery_of("https://a/#b", "https://a/k"), not_an_issuer),
        (&discovery_of("https://user@a", "https://a/k"), not_an_issuer),
        (&discovery_of("https://", "https://a/k"), not_an_issuer),
    ] {
        let refused = check_discovery(document.as_bytes()).unwrap_err().to_string();
        // The end of an https URL's sentence says which member it is about.
        assert!(refused.starts_with(expected) || refused.ends_with(expected), "{refused}");
    }
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep = format!(r#"{{"issuer":"https://a","jwks_uri":"https://a/k","x":{deep}}}"#);
    assert!(matches!(check_discovery(deep.as_bytes()), Err(Refused::Json(_))));
    assert!(matches!(check_discovery(b"{\"issuer\":\"\xff\"}"), Err(Refused::Json(_))));
}

#[test]
fn a_key_set_that_is_not_valid_is_refused_with_its_mistake() {
    for (set, expected) in [
        ("[]", "it is not a JSON object"),
        ("{}", "its member keys is not an array with at least one key"),
        (r#"{"keys":[]}"#, "its member keys is not an array with at least one key"),
        (r#"{"keys":{}}"#, "its member keys is not an array with at least one key"),
        (r#"{"keys":[1]}"#, "keys[0] is not an object with a string kty"),
        (r#"{"keys":[{}]}"#, "keys[0] is not an object with a string kty"),
        (r#"{"keys":[{"kty":1}]}"#, "keys[0] is not an object with a string kty"),
        (r#"{"keys":[{"kty":"oct"}]}"#, "keys[0] is a symmetric key (kty oct)"),
        (
            r#"{"keys":[{"kty":"EC","kid":"a","kid":"b"}]}"#,
            "the member \"kid\" appears twice in one object",
        ),
    ] {
        assert_eq!(check_jwks(set.as_bytes()).unwrap_err().to_string(), expected, "{set}");
    }
    for member in PRIVATE_MEMBERS {
        let set = format!(r#"{{"keys":[{KEY},{{"kty":"RSA","{member}":"1"}}]}}"#);
        let expected = format!("keys[1] has \"{member}\", a member of a private key");
        assert_eq!(check_jwks(set.as_bytes()).unwrap_err().to_string(), expected);
    }
}

#[test]
fn keys_of_a_type_that_is_not_known_yet_are_published() {
    let set = format!(r#"{{"keys":[{KEY},{{"kty":"AKP","alg":"ML-DSA-65","pub":"x"}}]}}"#);
    let valid = check_jwks(set.as_bytes()).unwrap();
    assert_eq!(valid.keys.iter().filter_map(kid).collect::<Vec<_>>(), ["a"]);
    let value = valid.with_keys(valid.keys.clone());
    assert_eq!(serialise(&value, Layout::Compact).unwrap(), set.as_bytes());
}

#[test]
fn the_layout_is_the_one_asked_for() {
    let value = json::parse(br#"{"z":1.10,"a":[]}"#).unwrap();
    assert_eq!(serialise(&value, Layout::Compact).unwrap(), br#"{"z":1.10,"a":[]}"#);
    assert_eq!(serialise(&value, Layout::Pretty).unwrap(), b"{\n  \"z\": 1.10,\n  \"a\": []\n}");
}

#[test]
fn what_is_too_large_to_serve_is_refused() {
    // With its two quotes it has this many bytes.
    let of_length = |bytes: usize| Value::String("x".repeat(bytes - 2));
    let longest = of_length(MAX_SERVED_BYTES);
    assert_eq!(serialise(&longest, Layout::Compact).unwrap().len(), MAX_SERVED_BYTES);
    let value = of_length(MAX_SERVED_BYTES + 1);
    let refused = serialise(&value, Layout::Compact).unwrap_err().to_string();
    assert_eq!(refused, "its 131073 bytes exceed the limit of 131072");
    assert!(matches!(serialise_keys(&value, Layout::Pretty), Err(Refused::TooLarge(_))));
}

#[test]
fn a_large_key_set_is_compact_whatever_was_asked_for() {
    // Five bytes for each when indented, and two when not.
    for (elements, is_large) in [(7_000, false), (9_000, true), (30_000, true)] {
        let value = Value::Array(vec![Value::from(1); elements]);
        let (bytes, found) = serialise_keys(&value, Layout::Pretty).unwrap();
        assert_eq!((found, bytes.contains(&b'\n')), (is_large, !is_large), "{elements}");
    }
    for (bytes, is_large) in [(LARGE_KEY_SET, false), (LARGE_KEY_SET + 1, true)] {
        let value = Value::String("x".repeat(bytes - 2));
        assert_eq!(serialise_keys(&value, Layout::Pretty).unwrap().1, is_large, "{bytes}");
    }
}

#[test]
fn members_beside_the_keys_keep_their_place() {
    let set = format!(r#"{{"a":1,"keys":[{KEY}],"b":[2]}}"#);
    let valid = check_jwks(set.as_bytes()).unwrap();
    let value = valid.with_keys(valid.keys.clone());
    assert_eq!(serialise(&value, Layout::Compact).unwrap(), set.as_bytes());
}

#[test]
fn an_unusable_jwks_uri_of_upstream_is_refused_only_where_it_would_be_published() {
    let ours = "https://a/openid/v1/jwks";
    for unusable in [
        "http://a/k",
        "/k",
        "https://:6443/k",
        "https://2001:db8::1/k",
        "https://a:+443/k",
        "https://a:65536/k",
        "https://[2001:db8::1]x443/k",
    ] {
        assert_eq!(published("https://a", unusable, &JwksUri::Auto).jwks_uri, ours);
        let fixed = JwksUri::Fixed("https://b/k".to_owned());
        assert_eq!(published("https://a", unusable, &fixed).jwks_uri, "https://b/k");
        let valid = check_discovery(discovery_of("https://a", unusable).as_bytes()).unwrap();
        let refused = publish(valid, &JwksUri::Upstream, &Map::new()).err().unwrap().to_string();
        assert_eq!(refused, format!("jwks_uri {unusable:?} is not an https URL"));
    }
}

#[test]
fn an_internal_jwks_uri_is_replaced_by_one_at_the_issuer() {
    for (issuer, expected) in [
        ("https://issuer.example", "https://issuer.example/openid/v1/jwks"),
        ("https://issuer.example/", "https://issuer.example/openid/v1/jwks"),
        ("https://issuer.example/c/1", "https://issuer.example/c/1/openid/v1/jwks"),
        ("https://issuer.example/c/1/", "https://issuer.example/c/1/openid/v1/jwks"),
        ("https://issuer.example:8443", "https://issuer.example:8443/openid/v1/jwks"),
    ] {
        let internal = "https://10.0.0.1:6443/openid/v1/jwks";
        let valid = check_discovery(discovery_of(issuer, internal).as_bytes()).unwrap();
        assert_eq!(valid.issuer(), issuer);
        let published = published(issuer, internal, &JwksUri::Auto);
        assert_eq!(published.jwks_uri, expected);
        assert_eq!(published.issuer, issuer);
        assert_eq!(published.value.get("issuer").unwrap(), issuer);
        assert_eq!(published.value.get("jwks_uri").unwrap(), expected);
        let names: Vec<_> = published.value.as_object().unwrap().keys().collect();
        assert_eq!(names, ["issuer", "jwks_uri", "z", "a"]);
    }
}

#[test]
fn upstreams_jwks_uri_is_kept_when_it_is_at_the_issuers_origin() {
    for (issuer, jwks_uri, path) in [
        ("https://issuer.example", "https://issuer.example/keys", "/keys"),
        ("https://issuer.example", "https://ISSUER.example:443/keys?a", "/keys"),
        ("https://issuer.example:443/a", "https://issuer.example", "/"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443/k", "/k"),
    ] {
        let published = published(issuer, jwks_uri, &JwksUri::Auto);
        assert_eq!(published.jwks_uri, jwks_uri);
        assert_eq!(published.jwks_path.as_deref(), Some(path));
    }
}

#[test]
fn a_jwks_uri_that_the_user_chose_is_published_wherever_it_points() {
    let fixed = JwksUri::Fixed("https://cdn.example/keys".to_owned());
    for (policy, expected, path) in [
        (&fixed, "https://cdn.example/keys", None),
        (&JwksUri::Upstream, "https://10.0.0.1:6443/k", None),
        (
            &JwksUri::Fixed("https://issuer.example/k2".to_owned()),
            "https://issuer.example/k2",
            Some("/k2"),
        ),
    ] {
        let published = published("https://issuer.example", "https://10.0.0.1:6443/k", policy);
        assert_eq!(published.jwks_uri, expected);
        assert_eq!(published.jwks_path.as_deref(), path);
    }
}

#[test]
fn defaults_are_added_only_where_upstream_has_none() {
    let valid =
        check_discovery(discovery_of("https://a.example", "https://a.example/k").as_bytes());
    let Value::Object(defaults) = json::parse(br#"{"z":9,"claims_supported":["sub"]}"#).unwrap()
    else {
        panic!("no object");
    };
    let published = publish(valid.unwrap(), &JwksUri::Auto, &defaults).unwrap();
    assert_eq!(published.value.get("z").unwrap().to_string(), "1");
    assert_eq!(published.value.get("claims_supported").unwrap().to_string(), r#"["sub"]"#);
}

#[test]
fn members_that_serde_json_keeps_for_itself_pass_as_what_they_are() {
    for name in ["$serde_json::private::Number", "$serde_json::private::RawValue"] {
        for value in [r#""1""#, r#""[""#, "1", "{}"] {
            let key = format!(r#"{{"kty":"EC","{name}":{value}}}"#);
            let keys = format!(r#"{{"keys":[{key}],"{name}":{value}}}"#);
            let jwks = check_jwks(keys.as_bytes()).unwrap();
            let bytes = serialise(&jwks.with_keys(jwks.keys.clone()), Layout::Compact).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), keys);
            let text = format!(
                r#"{{"{name}":{value},"issuer":"https://a.example","jwks_uri":"https://a.example/k"}}"#
            );
            let discovery = check_discovery(text.as_bytes()).unwrap();
            let published = publish(discovery, &JwksUri::Auto, &Map::new()).unwrap();
            assert_eq!(published.value.to_string(), text);
        }
        // One alone, where serde_json would see a number.
        let alone = format!(r#"{{"{name}":"1"}}"#);
        let keys = format!(r#"{{"keys":[{alone}]}}"#);
        assert!(matches!(check_jwks(keys.as_bytes()), Err(Refused::KeyWithoutType(0))), "{keys}");
        assert!(matches!(check_jwks(alone.as_bytes()), Err(Refused::NoKeys)), "{alone}");
        assert!(matches!(check_discovery(alone.as_bytes()), Err(Refused::NoString("issuer"))));
    }
}

#[test]
fn paths_that_do_not_depend_on_upstream_are_known_before() {
    let fixed = |uri: &str| JwksUri::Fixed(uri.to_owned());
    for (issuer, jwks_uri, expected) in [
        ("https://a.example", JwksUri::Auto, (Some(""), None)),
        ("https://a.example/", JwksUri::Upstream, (Some(""), None)),
        ("https://a.example/c/1/", fixed("https://a.example:443/k"), (Some("/c/1"), Some("/k"))),
        ("https://a.example/c", fixed("https://b.example/k"), (Some("/c"), None)),
        ("a.example", fixed("https://a.example/k"), (None, None)),
    ] {
        let (path, jwks) = known_paths(issuer, &jwks_uri);
        assert_eq!((path.as_deref(), jwks.as_deref()), expected, "{issuer} {jwks_uri:?}");
    }
}

#[test]
fn each_document_has_the_path_and_the_media_type_that_kube_apiserver_has_for_it() {
    let of = |kind: Kind| (kind.name(), kind.path(), kind.media_type());
    let discovery = ("discovery", "/.well-known/openid-configuration", "application/json");
    assert_eq!(of(Kind::Discovery), discovery);
    assert_eq!(of(Kind::Jwks), ("jwks", "/openid/v1/jwks", "application/jwk-set+json"));
}

#[test]
fn a_document_that_is_a_little_too_large_to_serve_is_read_whole_and_refused_as_such() {
    assert!(MAX_UPSTREAM_BYTES >= 2 * u64::try_from(MAX_SERVED_BYTES).unwrap());
}
