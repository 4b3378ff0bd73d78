use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const A: &str = "https://a.example";
const B: &str = "https://b.example";
const S: Duration = Duration::from_secs(1);

/// A signing key and its `kid`.
struct Key(EcdsaKeyPair, &'static str);

impl Key {
    fn new(kid: &'static str) -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), kid)
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref().get(1..).unwrap();
        let (x, y) = point.split_at(32);
        let [x, y] = [x, y].map(|it| URL_SAFE_NO_PAD.encode(it));
        json!({"kty": "EC", "crv": "P-256", "kid": self.1, "x": x, "y": y})
    }

    /// Issued so many seconds after the scene began.
    fn token(&self, issuer: &str, second: u64) -> String {
        let header = json!({"alg": "ES256", "kid": self.1});
        // Neither its audience nor its end matters.
        let claims = json!({"iss": issuer, "iat": 1_000_000 + second, "exp": 1});
        let [header, claims] = [header, claims].map(|it| URL_SAFE_NO_PAD.encode(it.to_string()));
        let unsigned = format!("{header}.{claims}");
        let signature = self.0.sign(&SystemRandom::new(), unsigned.as_bytes()).unwrap();
        format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A clock that begins at a time with a whole second.
struct Scene {
    own: OwnToken,
    start: Instant,
}

impl Scene {
    fn new() -> Self {
        Self { own: OwnToken::new(), start: Instant::now() }
    }

    /// The state after a round, and whether it wants another one.
    fn check(&mut self, second: u32, token: &str, issuer: &str, keys: &[&Key]) -> (State, bool) {
        let jwks: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        let jwks: Vec<_> = jwks.iter().collect();
        let time = (self.start + second * S, date(second));
        let checked = self.own.check(token, issuer, &jwks, time);
        (checked.state, checked.wants_round)
    }
}

fn date(second: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + second * S
}

#[test]
fn a_token_of_what_is_served_is_verified() {
    let (one, two) = (Key::new("one"), Key::new("two"));
    let mut scene = Scene::new();
    assert_eq!(scene.check(1, &one.token(A, 0), A, &[&one]), (State::Verified, false));
    assert_eq!(scene.check(2, &two.token(A, 2), A, &[&one, &two]), (State::Verified, false));
}

#[test]
fn a_mismatch_wants_one_round_and_fails_when_it_has_lasted() {
    let (one, two, other) = (Key::new("one"), Key::new("two"), Key::new("one"));
    for (token, mismatch) in [
        (one.token(B, 400), Mismatch::Issuer),
        (two.token(A, 400), Mismatch::Kid),
        (other.token(A, 400), Mismatch::Signature),
    ] {
        let mut scene = Scene::new();
        scene.check(1, &one.token(A, 0), A, &[&one]);
        let (pending, failed) = (State::Pending(mismatch), State::Failed(mismatch));
        assert_eq!(scene.check(401, &token, A, &[&one]), (pending, true));
        assert_eq!(scene.check(402, &token, A, &[&one]), (pending, false));
        assert_eq!(scene.check(700, &token, A, &[&one]), (pending, false));
        assert_eq!(scene.check(701, &token, A, &[&one]), (failed, false));
        // A renewed one that does not match either changes nothing.
        let renewed = other.token(B, 702);
        let issuer = State::Failed(Mismatch::Issuer);
        assert_eq!(scene.check(703, &renewed, A, &[&one]), (issuer, true));
        assert_eq!(scene.check(704, &one.token(A, 704), A, &[&one]), (State::Verified, false));
        assert_eq!(scene.check(705, &token, A, &[&one]), (pending, true));
    }
}

#[test]
fn the_alarm_lasts_until_the_token_is_verified() {
    let (one, two, three) = (Key::new("one"), Key::new("two"), Key::new("three"));
    let mut scene = Scene::new();
    let token = two.token(A, 400);
    scene.check(1, &one.token(A, 0), A, &[&one]);
    scene.check(401, &token, A, &[&one]);
    let failed = State::Failed(Mismatch::Kid);
    assert_eq!(scene.check(701, &token, A, &[&one]).0, failed);
    // Neither a failed round nor another key that does not help, nor an older token.
    scene.own.interrupt();
    assert_eq!(scene.check(702, &token, A, &[&one]).0, failed);
    assert_eq!(scene.check(703, &token, A, &[&one, &three]).0, failed);
    assert_eq!(scene.check(704, &two.token(A, 0), A, &[&one, &three]).0, failed);
    assert_eq!(scene.check(705, &token, A, &[&one, &two]).0, State::Verified);
}

#[test]
fn a_token_that_is_not_clearly_newer_than_what_is_served_says_nothing() {
    let (one, two) = (Key::new("one"), Key::new("two"));
    let old = one.token(A, 0);
    let mut scene = Scene::new();
    scene.check(1, &old, A, &[&one]);
    // After a rotation and the grace; and after a migration to another issuer.
    for (second, issuer) in [(100, A), (3000, B)] {
        for passed in [0, 1000, 2000] {
            let (state, _) = scene.check(second + passed, &old, issuer, &[&two]);
            assert!(matches!(state, State::Pending(_)), "{state:?}");
        }
    }
    // A control plane of three, in a migration to B: the first serves it, and another still issues A.
    // It may do so for five minutes.
    for issued_at in [110, 400] {
        let token = one.token(A, issued_at);
        let mut scene = Scene::new();
        scene.check(1, &old, A, &[&one]);
        scene.check(100, &old, B, &[&one]);
        for second in [400, 1000, 3000] {
            let (state, _) = scene.check(second, &token, B, &[&one]);
            assert_eq!(state, State::Pending(Mismatch::Issuer), "{issued_at} {second}");
        }
    }
}

#[test]
fn what_is_served_anew_begins_the_wait_anew() {
    let (one, two, three) = (Key::new("one"), Key::new("two"), Key::new("three"));
    let mut scene = Scene::new();
    let token = three.token(A, 400);
    let pending = State::Pending(Mismatch::Kid);
    scene.check(1, &one.token(A, 0), A, &[&one]);
    assert_eq!(scene.check(401, &token, A, &[&one]).0, pending);
    // Then the token is not newer than the set; a set that has it ends the matter.
    assert_eq!(scene.check(600, &token, A, &[&one, &two]).0, pending);
    assert_eq!(scene.check(1900, &token, A, &[&one, &two]).0, pending);
    assert_eq!(scene.check(1901, &token, A, &[&two, &three]).0, State::Verified);
}

#[test]
fn sets_that_alternate_do_not_begin_the_wait_anew() {
    let (one, two, three) = (Key::new("one"), Key::new("two"), Key::new("three"));
    let mut scene = Scene::new();
    let mut failed_at = None;
    for round in 0..40_u32 {
        let second = round * 50;
        let keys = if round % 3 == 0 { [&two] } else { [&one] };
        let token = three.token(A, if round < 10 { 0 } else { 500 });
        if matches!(scene.check(second, &token, A, &keys).0, State::Failed(_)) {
            failed_at.get_or_insert(second);
        }
    }
    // From 500 on the token counts.
    assert_eq!(failed_at, Some(800));
}

#[test]
fn rounds_that_fail_do_not_count() {
    let (one, two) = (Key::new("one"), Key::new("two"));
    let mut scene = Scene::new();
    let token = two.token(A, 400);
    let pending = State::Pending(Mismatch::Kid);
    scene.check(1, &one.token(A, 0), A, &[&one]);
    assert_eq!(scene.check(401, &token, A, &[&one]).0, pending);
    assert_eq!(scene.check(501, &token, A, &[&one]).0, pending);
    scene.own.interrupt();
    // An hour without upstream, and then 200 s more.
    assert_eq!(scene.check(4000, &token, A, &[&one]).0, pending);
    assert_eq!(scene.check(4199, &token, A, &[&one]).0, pending);
    assert_eq!(scene.check(4200, &token, A, &[&one]).0, State::Failed(Mismatch::Kid));
}

#[test]
fn the_order_of_keys_and_two_keys_of_one_kid_do_not_matter() {
    let (one, two, other) = (Key::new("one"), Key::new("two"), Key::new("two"));
    let mut scene = Scene::new();
    scene.check(1, &one.token(A, 0), A, &[&one, &other]);
    let token = two.token(A, 400);
    let signature = Mismatch::Signature;
    assert_eq!(scene.check(410, &token, A, &[&other, &one]).0, State::Pending(signature));
    assert_eq!(scene.check(710, &token, A, &[&one, &other]).0, State::Failed(signature));
    assert_eq!(scene.check(711, &token, A, &[&one, &other, &two]).0, State::Verified);
}

#[test]
fn what_is_no_token_of_an_issuer_is_not_checked() {
    let one = Key::new("one");
    let legacy = one.token("kubernetes/serviceaccount", 5);
    let http = one.token("http://a.example", 5);
    for token in ["opaque", "a.b.c", "e30.e30.", &legacy, &http] {
        let mut scene = Scene::new();
        for second in [0, 1000] {
            assert_eq!(scene.check(second, token, A, &[&one]), (State::NotChecked, false));
        }
    }
}

#[test]
fn an_algorithm_that_is_not_known_is_checked_by_kid_and_issuer() {
    let header = json!({"alg": "ML-DSA-65", "kid": "a"});
    let claims = json!({"iss": A, "iat": 1_000_400});
    let [header, claims] = [header, claims].map(|it| URL_SAFE_NO_PAD.encode(it.to_string()));
    let token = format!("{header}.{claims}.c2ln");
    let key = json!({"kty": "AKP", "kid": "a", "pub": "AA"});
    for (issuer, keys, expected) in [
        (A, vec![&key], State::Verified),
        (B, vec![&key], State::Failed(Mismatch::Issuer)),
        (A, vec![], State::Failed(Mismatch::Kid)),
    ] {
        let mut own = OwnToken::new();
        let start = Instant::now();
        own.check(&token, issuer, &keys, (start, date(1)));
        let checked = own.check(&token, issuer, &keys, (start + 300 * S, date(301)));
        assert_eq!(checked.state, expected);
    }
}

#[test]
fn the_log_has_a_word_for_each_mismatch() {
    let words = [Mismatch::Issuer, Mismatch::Kid, Mismatch::Signature].map(Mismatch::word);
    assert_eq!(words, ["issuer", "kid", "signature"]);
}
