//! A relying party with one of two Rust crates, each with its default settings.
//!
//! Usage: relying-party openidconnect-rs|jsonwebtoken|jsonwebtoken10|jsonwebtoken9 ISSUER AUDIENCE, tokens on standard input,
//! one a line; for each a line `accepted SUBJECT` or `refused REASON`. The certificate authorities are those of SSL_CERT_FILE.

use std::error::Error;
use std::io::BufRead as _;

use openidconnect::core::{CoreClient, CoreIdToken, CoreProviderMetadata};
use openidconnect::{ClientId, HttpRequest, HttpResponse, IssuerUrl, Nonce};
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

type Outcome = Result<String, Box<dyn Error>>;

fn agent() -> Result<ureq::Agent, Box<dyn Error>> {
    let pem = std::fs::read(std::env::var("SSL_CERT_FILE")?)?;
    let roots: Result<Vec<_>, _> = rustls_pemfile::certs(&mut &*pem)
        .map(|der| der.map(|der| Certificate::from_der(&der).to_owned()))
        .collect();
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots?)).build();
    let agent = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None);
    Ok(agent.build().into())
}

/// `{error}` and what caused it.
fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words.replace('\n', " ")
}

fn openidconnect_rs(issuer: &str, audience: &str, token: &str) -> Outcome {
    let agent = agent()?;
    let client = |request: HttpRequest| -> Result<HttpResponse, ureq::Error> {
        let (parts, mut body) = agent.run(request)?.into_parts();
        let body = body.read_to_vec()?;
        let mut response = openidconnect::http::Response::new(body);
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        Ok(response)
    };
    // Discovery fetches the key set as well.
    let provider = CoreProviderMetadata::discover(&IssuerUrl::new(issuer.to_owned())?, &client)?;
    let client = CoreClient::from_provider_metadata(provider, ClientId::new(audience.to_owned()), None);
    let token: CoreIdToken = token.parse()?;
    let no_nonce = |_: Option<&Nonce>| Ok(());
    let claims = token.claims(&client.id_token_verifier(), no_nonce)?;
    Ok(claims.subject().to_string())
}

/// The address of the key set, which the crate leaves to its user, and its text.
fn key_set(issuer: &str) -> Outcome {
    let agent = agent()?;
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let discovery = agent.get(url).call()?.into_body().read_to_string()?;
    let discovery: Value = serde_json::from_str(&discovery)?;
    let uri = discovery.get("jwks_uri").and_then(Value::as_str).ok_or("no jwks_uri")?;
    Ok(agent.get(uri).call()?.into_body().read_to_string()?)
}

macro_rules! with_jsonwebtoken {
    ($name:ident, $jwt:ident) => {
        fn $name(issuer: &str, audience: &str, token: &str) -> Outcome {
            use $jwt::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
            let keys: JwkSet = serde_json::from_str(&key_set(issuer)?)?;
            let header = decode_header(token)?;
            let kid = header.kid.ok_or("no kid")?;
            let key = keys.find(&kid).ok_or("unknown kid")?;
            let mut validation = Validation::new(header.alg);
            if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
                return Err("an algorithm that is not wanted".into());
            }
            validation.set_issuer(&[issuer]);
            validation.set_audience(&[audience]);
            let token = decode::<Value>(token, &DecodingKey::from_jwk(key)?, &validation)?;
            Ok(token.claims["sub"].to_string())
        }
    };
}
with_jsonwebtoken!(jsonwebtoken_11, jsonwebtoken);
with_jsonwebtoken!(jsonwebtoken_10, jsonwebtoken10);
with_jsonwebtoken!(jsonwebtoken_9, jsonwebtoken9);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [party, issuer, audience] = arguments.as_slice() else {
        return Err("usage: relying-party NAME ISSUER AUDIENCE".into());
    };
    let verify = match party.as_str() {
        "openidconnect-rs" => openidconnect_rs,
        "jsonwebtoken" => jsonwebtoken_11,
        "jsonwebtoken10" => jsonwebtoken_10,
        "jsonwebtoken9" => jsonwebtoken_9,
        _ => return Err("there is no such relying party".into()),
    };
    for token in std::io::stdin().lock().lines() {
        match verify(issuer, audience, token?.trim()) {
            Ok(subject) => println!("accepted {subject}"),
            Err(error) => println!("refused {}", in_words(&*error)),
        }
    }
    Ok(())
}
