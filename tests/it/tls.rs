//! Which API servers are trusted by which bundle, and what of a bundle that is not as it should be.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use testing::certificates::rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
    SerialNumber, date_time_ymd,
};
use testing::certificates::{
    Pair, named, self_signed, self_signed_with, server, signed_by, signed_with,
};
use testing::fake_api::{Answer, FIRST_TOKEN, FakeApi, JWKS};
use testing::gateway::{Gateway, field};

/// For a server on 127.0.0.1.
fn params(name: &str) -> CertificateParams {
    named(name, "127.0.0.1")
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// An API server that shows `chain`, of which the first has `key`, and a CA file of this content.
pub(crate) fn api(chain: &[&Pair], key: &KeyPair, bundle: &str) -> FakeApi {
    let api = FakeApi::start();
    api.set_tls(server(chain, key, &[]));
    api.volume.write(FIRST_TOKEN, bundle);
    api
}

#[track_caller]
fn assert_trusted(api: &FakeApi) -> Gateway {
    let gateway = Gateway::start(api);
    assert_eq!(gateway.get(JWKS).status, 200, "{}", gateway.log());
    gateway
}

/// It gets no request, and so no token; the line says `because`.
#[track_caller]
fn assert_untrusted(api: &FakeApi, because: &str) {
    let gateway = Gateway::start(api);
    let line = gateway.wait_for_log("fetch failed");
    assert_eq!(field(&line, "reason"), Some("untrusted-certificate"), "{line}");
    assert!(line.contains(because), "{line}");
    assert!(api.connections() > 0);
    assert_eq!(api.requests().len(), 0, "the token was sent");
}

// A server certificate that is in the bundle itself.

#[test]
fn a_self_signed_server_certificate_in_the_bundle_is_trusted() {
    for params in [ca_params("self-signed CA"), params("self-signed")] {
        let server = self_signed(params);
        assert_trusted(&api(&[&server], &server.key, &server.pem));
    }
}

#[test]
fn a_server_certificate_in_the_bundle_is_trusted_without_its_ca() {
    let ca = self_signed(ca_params("CA that nobody has"));
    let server = signed_by(params("server"), &ca);
    assert_trusted(&api(&[&server], &server.key, &server.pem));
}

#[test]
fn who_has_the_certificate_and_another_key_gets_no_token() {
    let server = self_signed(ca_params("self-signed CA"));
    let other = KeyPair::generate().unwrap();
    assert_untrusted(&api(&[&server], &other, &server.pem), "");
}

#[test]
fn only_the_first_certificate_of_a_server_may_be_the_one_in_the_bundle() {
    let ca = self_signed(ca_params("CA that nobody has"));
    let (server, in_bundle) = (signed_by(params("server"), &ca), self_signed(params("in bundle")));
    assert_untrusted(&api(&[&server, &in_bundle], &server.key, &in_bundle.pem), "");
}

#[test]
fn a_server_certificate_in_the_bundle_is_checked_as_any_other() {
    let mut other_name = ca_params("other name");
    other_name.subject_alt_names =
        CertificateParams::new(["a.example".to_owned()]).unwrap().subject_alt_names;
    let mut expired = ca_params("expired");
    expired.not_after = date_time_ymd(2020, 1, 1);
    expired.not_before = date_time_ymd(2019, 1, 1);
    let mut not_yet = ca_params("not yet valid");
    not_yet.not_before = date_time_ymd(2999, 1, 1);
    not_yet.not_after = date_time_ymd(3000, 1, 1);
    let mut for_clients = ca_params("for clients");
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut for_anything = ca_params("for anything");
    for_anything.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    for (params, because) in [
        (other_name, "not valid for"),
        (expired, "expired"),
        (not_yet, "not valid yet"),
        (for_clients, ""),
        (for_anything, ""),
    ] {
        let server = self_signed(params);
        assert_untrusted(&api(&[&server], &server.key, &server.pem), because);
    }
}

// Anchors.

#[test]
fn what_does_not_say_that_it_is_a_ca_vouches_for_no_other_certificate() {
    let real = self_signed(ca_params("real CA"));
    let serving = |name: &str, is_ca: IsCa| {
        let mut params = params(name);
        params.is_ca = is_ca;
        params
    };
    let mut no_cert_sign = ca_params("CA without keyCertSign");
    no_cert_sign.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for params in [
        serving("serving certificate, CA:FALSE", IsCa::ExplicitNoCa),
        serving("serving certificate without basicConstraints", IsCa::NoCa),
        no_cert_sign,
    ] {
        // Whoever holds its key makes a certificate for the API server's address.
        let in_bundle = self_signed(params);
        let forged = signed_by(self::params("forged"), &in_bundle);
        let bundle = format!("{}{}", real.pem, in_bundle.pem);
        assert_untrusted(&api(&[&forged, &in_bundle], &forged.key, &bundle), "");
    }
}

#[test]
fn an_intermediate_that_may_not_sign_vouches_for_nothing() {
    let root = self_signed(ca_params("root"));
    let mut may_not_sign = ca_params("not for certificates");
    may_not_sign.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let intermediate = signed_by(may_not_sign, &root);
    let server = signed_by(params("server"), &intermediate);
    for bundle in [root.pem.clone(), format!("{}{}", root.pem, intermediate.pem)] {
        assert_untrusted(&api(&[&server, &intermediate], &server.key, &bundle), "UnknownIssuer");
    }
}

/// As in the PKIs of governments and companies; docs/security.md has the way round.
#[test]
fn an_intermediate_with_critical_policies_is_refused_and_trusted_in_the_bundle() {
    let root = self_signed(ca_params("root"));
    let mut policies = ca_params("intermediate");
    // RFC 5280 §4.2.1.4: certificatePolicies with anyPolicy.
    let any_policy = vec![0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0];
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 32], any_policy);
    extension.set_criticality(true);
    policies.custom_extensions = vec![extension];
    let intermediate = signed_by(policies, &root);
    let server = signed_by(params("server"), &intermediate);
    let chain = [&server, &intermediate];
    assert_untrusted(&api(&chain, &server.key, &root.pem), "UnsupportedCriticalExtension");
    assert_trusted(&api(&chain, &server.key, &intermediate.pem));
}

#[test]
fn a_ca_whose_serial_number_is_long_is_trusted() {
    let mut long = ca_params("CA");
    long.serial_number = Some(SerialNumber::from(vec![1; 25]));
    let ca = self_signed(long);
    let server = signed_by(params("server"), &ca);
    assert_trusted(&api(&[&server], &server.key, &ca.pem));
}

/// A resumed session would not show it.
#[test]
fn the_certificate_is_verified_on_each_connection() {
    let ca = self_signed(ca_params("CA"));
    let (trusted, other) = (signed_by(params("server"), &ca), self_signed(params("other")));
    let before = server(&[&trusted], &trusted.key, &[]);
    let mut after = server(&[&other], &other.key, &[]);
    after.session_storage = Arc::clone(&before.session_storage);
    let api = api(&[&trusted], &trusted.key, &ca.pem);
    api.set_tls(before);
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    assert_eq!(gateway.get(JWKS).status, 200);
    api.wait_for_more(JWKS, 2);

    api.set_tls(after);
    api.close_idle_connections();

    let line = gateway.wait_for_log("fetch failed");
    assert_eq!(field(&line, "reason"), Some("untrusted-certificate"), "{line}");
}

#[test]
fn an_anchor_that_has_expired_is_logged_with_its_date() {
    let mut old = ca_params("old CA");
    old.not_before = date_time_ymd(2019, 1, 1);
    old.not_after = date_time_ymd(2020, 2, 3);
    let (old, ca) = (self_signed(old), self_signed(ca_params("CA")));
    let server = signed_by(params("server"), &ca);
    let bundle = format!("{}{}", ca.pem, old.pem);
    let gateway = assert_trusted(&api(&[&server], &server.key, &bundle));
    let line = gateway.wait_for_log("a certificate of the CA file has expired");
    assert_eq!(field(&line, "block"), Some("2"), "{line}");
    assert_eq!(field(&line, "expires"), Some("2020-02-03T00:00:00Z"), "{line}");
}

/// The day after so many, as year, month and day.
fn day_in(days: u64) -> (i32, u8, u8) {
    let day = std::time::SystemTime::now() + std::time::Duration::from_secs(days * 86_400);
    let day = humantime::format_rfc3339_seconds(day).to_string();
    let mut parts = day.split(['-', 'T']);
    let mut number = || parts.next().unwrap().parse().unwrap();
    (number(), u8::try_from(number()).unwrap(), u8::try_from(number()).unwrap())
}

#[test]
fn what_expires_within_a_month_is_logged_before() {
    let soon = |mut params: CertificateParams| {
        let (year, month, day) = day_in(20);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        params
    };
    let ca = self_signed(soon(ca_params("CA")));
    let server = signed_by(soon(params("server")), &ca);
    let api = api(&[&server], &server.key, &ca.pem);
    let (year, month, day) = day_in(20);
    let expires = format!("{year}-{month:02}-{day:02}T00:00:00Z");
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    for message in
        ["a certificate of the CA file expires soon", "the API server's certificate expires soon"]
    {
        let line = gateway.wait_for_log(message);
        assert_eq!(field(&line, "expires"), Some(&*expires), "{line}");
    }
    // Once, and not in each round.
    api.wait_for_more(JWKS, 3);
    assert_eq!(gateway.log().matches("expires soon").count(), 2, "{}", gateway.log());
}

#[test]
fn a_token_that_was_not_renewed_in_time_is_logged() {
    let api = FakeApi::start();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let token = |warn_after: u64| {
        api.sign(&serde_json::json!({
            "iat": now - 4000, "exp": now + 31_536_000, "kubernetes.io": {"warnafter": warn_after},
        }))
    };
    let (fresh, old) = (token(now + 600), token(now - 393));
    api.accept_tokens(&[&fresh, &old]);
    api.volume.write(&fresh, &api.ca_pem());
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    api.wait_for_more(JWKS, 2);
    assert!(!gateway.log().contains("has not been renewed"), "{}", gateway.log());

    api.volume.write(&old, &api.ca_pem());
    gateway.wait_for_log("the gateway's own token has not been renewed");
    assert!(!gateway.log().contains(&old));
}

// What TLS takes.

#[test]
fn post_quantum_key_exchange_alone_is_enough() {
    let ca = self_signed(ca_params("CA"));
    let pair = signed_by(params("server"), &ca);
    for group in [kx_group::X25519MLKEM768, kx_group::SECP256R1MLKEM768] {
        let api = api(&[&pair], &pair.key, &ca.pem);
        api.set_tls(server(&[&pair], &pair.key, &[group]));
        assert_trusted(&api);
    }
}

#[test]
fn certificates_over_each_nist_curve_are_trusted() {
    let algorithms = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ECDSA_P521_SHA512];
    for of_ca in algorithms {
        for of_server in algorithms {
            let ca = self_signed_with(ca_params("CA"), of_ca);
            let server = signed_with(params("server"), &ca, of_server);
            assert_trusted(&api(&[&server], &server.key, &ca.pem));
        }
    }
}

// Bundles that scripts have joined.

/// Blocks that cannot be used, and what is said of each.
fn bad_blocks(good: &Pair) -> Vec<(String, &'static str)> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
    const END: &str = "-----END CERTIFICATE-----\n";
    let request = good.params.serialize_request(&good.key).unwrap().pem().unwrap();
    let cut_off = good.pem.split_once("-----END").unwrap().0;
    let mut garbage = good.der.to_vec();
    garbage.extend_from_slice(b"secret");
    let garbage = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, garbage);
    vec![
        (cut_off.to_owned(), "it has no line -----END CERTIFICATE-----"),
        (format!("{BEGIN}{END}"), "it is empty"),
        (format!("{BEGIN}se*cret\n{END}"), "it is not valid base64"),
        (request.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "it is not an X.509 certificate"),
        (format!("{BEGIN}{garbage}\n{END}"), "it is not an X.509 certificate"),
    ]
}

#[test]
fn a_block_that_cannot_be_used_is_named_and_the_others_are_used() {
    let ca = self_signed(ca_params("CA"));
    let server = signed_by(params("server"), &ca);
    for (bad, because) in bad_blocks(&ca) {
        let bundle = format!("# a comment\n{bad}\n{}", ca.pem);
        let gateway = assert_trusted(&api(&[&server], &server.key, &bundle));
        let line = gateway.wait_for_log("a certificate of the CA file is left out");
        assert_eq!((field(&line, "block"), field(&line, "line")), (Some("1"), Some("2")), "{line}");
        assert!(line.contains(because) && line.contains(" WARN "), "{line}");
        assert!(line.len() < 400 && !line.contains("se*cret"), "{line}");
    }
}

#[test]
fn a_bundle_without_a_usable_certificate_ends_the_program_with_2() {
    let ca = self_signed(ca_params("CA"));
    let utf_16: Vec<u8> = ca.pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf_16 = [&[0xff, 0xfe][..], &utf_16].concat();
    let mut files: Vec<(Vec<u8>, &str)> =
        bad_blocks(&ca).into_iter().map(|(bad, because)| (bad.into_bytes(), because)).collect();
    files.push((ca.der.to_vec(), "it is DER and not PEM"));
    files.push((utf_16, "it is UTF-16 and not PEM"));
    files.push((b"nothing\n".to_vec(), "it contains no PEM certificate"));
    for (file, because) in files {
        let api = FakeApi::start();
        let path = api.volume.dir().join("bundle");
        std::fs::write(&path, file).unwrap();
        let ended = Gateway::builder(&api).set("SA_CA_CERT_PATH", &path).run();
        assert_eq!(ended.code, Some(2), "{}", ended.log);
        assert!(ended.log.contains(because), "{because}: {}", ended.log);
        assert!(ended.log.contains("SA_CA_CERT_PATH"), "{}", ended.log);
    }
}

#[test]
fn files_joined_without_a_newline_give_both_certificates() {
    let (other, ca) = (self_signed(ca_params("other CA")), self_signed(ca_params("CA")));
    let server = signed_by(params("server"), &ca);
    for bundle in [
        format!("{}{}", other.pem.trim_end(), ca.pem),
        format!("\u{feff}{}{}", ca.pem.trim_end(), other.pem),
        ca.pem.replace('\n', "\n    "),
        ca.pem.replace('\n', "\r\n"),
    ] {
        assert_trusted(&api(&[&server], &server.key, &bundle));
    }
}

#[test]
fn a_bundle_that_gets_a_bad_block_while_it_runs_goes_on_with_the_others() {
    let first = self_signed(ca_params("first CA"));
    let server_of_first = signed_by(params("server"), &first);
    let api = api(&[&server_of_first], &server_of_first.key, &first.pem);
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    assert_eq!(gateway.get(JWKS).status, 200);

    let second = self_signed(ca_params("second CA"));
    let server_of_second = signed_by(params("server"), &second);
    let cut_off = first.pem.split_once("-----END").unwrap().0;
    api.volume.write(FIRST_TOKEN, &format!("{cut_off}\n{}", second.pem));
    api.set_tls(server(&[&server_of_second], &server_of_second.key, &[]));
    api.rotate_key();
    api.close_idle_connections();

    gateway.wait_for_log("a certificate of the CA file is left out");
    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));
}

// What the log says.

/// The line of a fetch that failed, and that it is short, with this word.
#[track_caller]
fn failure(api: &FakeApi, reason: &str) -> String {
    let gateway = Gateway::start(api);
    let line = gateway.wait_for_log("fetch failed");
    assert_eq!(field(&line, "reason"), Some(reason), "{line}");
    assert!(line.len() < 700, "{line}");
    let word = format!("unavailable: {reason}\n");
    assert_eq!(gateway.get(JWKS).text(), word);
    assert_eq!(api.requests().len(), 0);
    line
}

#[test]
fn a_server_certificate_that_has_expired_is_to_be_renewed() {
    let ca = self_signed(ca_params("CA"));
    let mut expired = params("server");
    (expired.not_before, expired.not_after) =
        (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
    let server = signed_by(expired, &ca);
    let line = failure(&api(&[&server], &server.key, &ca.pem), "untrusted-certificate");
    assert!(line.contains("is not valid now") && line.contains("renew the API server's"), "{line}");
}

#[test]
fn a_server_without_a_key_exchange_of_ours_is_called_tls() {
    let ca = self_signed(ca_params("CA"));
    let pair = signed_by(params("server"), &ca);
    let api = api(&[&pair], &pair.key, &ca.pem);
    api.set_tls(server(&[&pair], &pair.key, &[kx_group::MLKEM1024]));
    let line = failure(&api, "tls");
    assert!(line.contains("--tls-curve-preferences"), "{line}");
}

#[test]
fn a_port_that_speaks_plain_http_is_called_protocol() {
    let api = FakeApi::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let answers = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut hello = [0; 5];
        client.read_exact(&mut hello).unwrap();
        client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap();
        // Until the gateway has read it.
        let _ = client.read_to_end(&mut Vec::new());
    });
    let gateway = Gateway::builder(&api).set("UPSTREAM_HOST", url).start();
    let line = gateway.wait_for_log("fetch failed");
    assert_eq!(field(&line, "reason"), Some("protocol"), "{line}");
    assert!(line.contains("it is not TLS") && line.contains("https port"), "{line}");
    drop(gateway);
    answers.join().unwrap();
}

/// A CA that openssl makes with these arguments of `req`, and a certificate of it for 127.0.0.1.
fn by_openssl(arguments: &[&str]) -> (String, FakeApi) {
    let api = FakeApi::start();
    let file = |name: &str| api.volume.dir().join(name).to_str().unwrap().to_owned();
    let [ca, ca_key, request, certificate, names] =
        ["o-ca.pem", "o-ca.key", "o.csr", "o.pem", "o.cnf"].map(file);
    let run = |arguments: &[&str]| {
        let ended = Command::new("openssl").args(arguments).output().expect("run openssl");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    let mut make_ca = vec!["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=openssl CA"];
    make_ca.extend(["-out", &ca, "-keyout", &ca_key]);
    make_ca.extend(arguments);
    run(&make_ca);

    let pair = self_signed(params("server"));
    std::fs::write(&request, pair.params.serialize_request(&pair.key).unwrap().pem().unwrap())
        .unwrap();
    std::fs::write(&names, "subjectAltName=IP:127.0.0.1\n").unwrap();
    run(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-extfile",
        &names,
        "-out",
        &certificate,
    ]);
    let pem = std::fs::read(&certificate).unwrap();
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    let shown = Pair { der, ..pair };
    api.set_tls(server(&[&shown], &shown.key, &[]));
    let ca_pem = std::fs::read_to_string(&ca).unwrap();
    api.volume.write(FIRST_TOKEN, &ca_pem);
    (ca_pem, api)
}

#[test]
fn a_short_rsa_key_is_named_with_its_length() {
    let (_, api) = by_openssl(&["-newkey", "rsa:1024"]);
    let line = failure(&api, "untrusted-certificate");
    assert!(line.contains("RSA with 1024 bits; it must have 2048 at least"), "{line}");
}

/// It has no extensions, and so no way to say whether it is a CA: RFC 5280 §4.1.2.1.
#[test]
fn a_ca_of_version_1_is_trusted() {
    let mut arguments =
        vec!["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-config", "/dev/null"];
    let help = Command::new("openssl").args(["req", "-help"]).output().expect("run openssl");
    // Since OpenSSL 3.2, which makes version 3 otherwise.
    if String::from_utf8_lossy(&help.stderr).contains("-x509v1") {
        arguments.push("-x509v1");
    }
    let (ca, api) = by_openssl(&arguments);
    let der = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
    // RFC 5280 §4.1: version 3 has a tag for its version, [0], before the serial number.
    assert!(!der.windows(5).any(|bytes| bytes == [0xa0, 3, 2, 1, 2]), "not of version 1");
    assert_trusted(&api);
}

#[test]
fn an_algorithm_that_is_not_supported_is_named() {
    let (_, api) = by_openssl(&["-newkey", "ed448"]);
    let line = failure(&api, "untrusted-certificate");
    assert!(line.contains("Ed448"), "{line}");
}

#[test]
fn ecdsa_with_sha_512_is_trusted_over_each_curve() {
    for curve in ["ec_paramgen_curve:P-256", "ec_paramgen_curve:P-384"] {
        let (_, api) = by_openssl(&["-newkey", "ec", "-pkeyopt", curve, "-sha512"]);
        assert_trusted(&api);
    }
}

#[test]
fn a_response_head_that_is_too_long_is_called_protocol() {
    let api = FakeApi::start();
    api.set_both(&Answer::Redirect("x".repeat(20 << 10)));
    let gateway = Gateway::start(&api);
    let line = gateway.wait_for_log("fetch failed");
    assert_eq!(field(&line, "reason"), Some("protocol"), "{line}");
    assert!(line.len() < 700 && line.contains("https port"), "{line}");
    assert_eq!(gateway.get(JWKS).text(), "unavailable: protocol\n");
}

/// There is no date after the year 9999.
#[test]
fn a_token_that_never_expires_is_a_token() {
    let claims = r#"{"iat":1,"exp":300000000000,"kubernetes.io":{"warnafter":2}}"#;
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    for format in ["json", "text"] {
        let api = FakeApi::start();
        api.accept_tokens(&[&token]);
        api.volume.write(&token, &api.ca_pem());
        let gateway = Gateway::builder(&api).set("LOG_FORMAT", format).spawn();
        gateway.wait_for_log("document changed");
        assert!(!gateway.log().contains("panicked"));
    }
}

#[test]
fn a_bundle_of_bad_blocks_has_ten_lines_and_a_count() {
    let api = FakeApi::start();
    let bad = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".repeat(10_000);
    api.volume.write(FIRST_TOKEN, &format!("{bad}{}", api.ca_pem()));
    let gateway = assert_trusted(&api);
    let line = gateway.wait_for_log("more certificates of the CA file are left out");
    assert_eq!(field(&line, "others"), Some("9990"), "{line}");
    assert_eq!(gateway.log().matches("a certificate of the CA file is left out").count(), 10);
}

#[test]
fn a_file_that_is_far_too_long_is_not_read_to_its_end() {
    let api = FakeApi::start();
    api.volume.write(FIRST_TOKEN, &"x".repeat(2 << 20));
    let ended = Gateway::builder(&api).run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.log.contains("it is longer than 1048576 bytes"), "{}", ended.log);

    api.volume.write(&"x".repeat(20 << 10), &api.ca_pem());
    let line = failure(&api, "unauthorized");
    assert!(line.contains("it is longer than 16384 bytes"), "{line}");
}

#[test]
fn a_token_that_cannot_be_sent_is_not_sent_and_the_line_says_why() {
    for (token, because) in [
        ("\u{feff}token-1", "it begins with a byte order mark"),
        ("token\n-1", "it has a line break within the token"),
        ("token\0-1", "it has a NUL within the token"),
        ("token -1", "it has a space, or a character that is not ASCII"),
        (" \n", "it contains no token"),
    ] {
        let api = FakeApi::start();
        api.volume.write(token, &api.ca_pem());
        let line = failure(&api, "unauthorized");
        assert!(line.contains(because), "{line}");
        assert!(!line.contains("-1\""), "{line}");
    }
}

#[test]
fn a_document_in_another_encoding_is_called_so() {
    let api = FakeApi::start();
    api.set_both(&Answer::jwks("\u{feff}{}"));
    let gateway = Gateway::start(&api);
    let line = gateway.wait_for_log("fetch failed document=jwks");
    assert!(line.contains("it is not JSON but text with a byte order mark"), "{line}");
}
