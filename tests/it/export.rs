//! `export`: which files it writes, and when it leaves them alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use testing::fake_api::{
    Answer, DISCOVERY, FakeApi, ISSUER, JWKS, discovery, key_set, large_key_set,
};
use testing::gateway::{Builder, Ended, Gateway, Process};

const DISCOVERY_FILE: &str = ".well-known/openid-configuration";
const JWKS_FILE: &str = "openid/v1/jwks";
const BOTH: &str = "changed: openid/v1/jwks .well-known/openid-configuration\n";

/// A folder for files, empty.
fn folder(api: &FakeApi) -> PathBuf {
    let folder = api.volume.dir().join("site");
    fs::create_dir(&folder).unwrap();
    folder
}

fn export(api: &FakeApi, folder: &Path) -> Builder {
    with_arguments(Gateway::builder(api), folder)
}

fn with_arguments(builder: Builder, folder: &Path) -> Builder {
    builder.arg("export").arg(folder.to_str().unwrap())
}

/// By path the bytes, the inode, and the time of the last change in seconds and nanoseconds.
type Tree = BTreeMap<String, (Vec<u8>, u64, i64, i64)>;

/// What is below a folder, except for folders.
fn tree(folder: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            found.insert(name, (bytes, metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    tree(folder).into_keys().collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn kids(path: &Path) -> Vec<String> {
    let keys = read_json(path)["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_fails(ended: &Ended, expected: &str) {
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{}", ended.log);
    let said = ended.log.lines().filter(|line| line.contains(" ERROR ")).collect::<Vec<_>>();
    assert_eq!(said.len(), 1, "{}", ended.log);
    assert!(said[0].contains(expected), "{expected:?} is not in {}", said[0]);
}

#[test]
fn a_site_has_what_the_gateway_serves_at_the_paths_that_relying_parties_ask_for() {
    let api = FakeApi::start();
    let folder = folder(&api);
    let gateway = Gateway::start(&api);

    // A narrow umask must not hide the site from a web server.
    let shell = ["sh", "-c", "umask 077; exec \"$0\" \"$@\""];
    let ended = with_arguments(Gateway::builder(&api).under(&shell), &folder).run();

    assert_eq!((ended.code, &*ended.stdout), (Some(3), BOTH), "{}", ended.log);
    assert_eq!(names(&folder), [DISCOVERY_FILE, JWKS_FILE]);
    for (file, path) in [(DISCOVERY_FILE, DISCOVERY), (JWKS_FILE, JWKS)] {
        assert_eq!(fs::read(folder.join(file)).unwrap(), gateway.get(path).body, "{file}");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&folder.join(file)), 0o644, "{file}");
        assert_eq!(mode(folder.join(file).parent().unwrap()), 0o755, "{file}");
    }
    assert!(!ended.log.contains("listening"), "{}", ended.log);
}

#[test]
fn a_second_run_touches_nothing_and_a_rotation_changes_the_key_set_alone() {
    let api = FakeApi::start();
    let folder = folder(&api);
    assert_eq!(export(&api, &folder).run().code, Some(3));
    let before = tree(&folder);

    let ended = export(&api, &folder).run();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), "unchanged\n"), "{}", ended.log);
    assert_eq!(tree(&folder), before);

    api.rotate_key();
    let ended = export(&api, &folder).run();
    assert_eq!((ended.code, &*ended.stdout), (Some(3), "changed: openid/v1/jwks\n"));
    let after = tree(&folder);
    assert_eq!(after[DISCOVERY_FILE], before[DISCOVERY_FILE]);
    assert_eq!(kids(&folder.join(JWKS_FILE)), [api.kid()]);
    assert_eq!(after.len(), 2);
}

#[test]
fn what_fails_changes_no_file_and_is_said() {
    let api = FakeApi::start();
    let folder = folder(&api);
    assert_eq!(export(&api, &folder).run().code, Some(3));
    let before = tree(&folder);
    // It would be written, but for the other document.
    let other = Answer::discovery(discovery(ISSUER, "https://issuer.example/other"));

    let private = r#"{"kty":"EC","kid":"a","d":"SECRET"}"#.to_owned();
    for (path, answer, expected) in [
        (JWKS, Answer::Status(403), "system:service-account-issuer-discovery"),
        (JWKS, Answer::Status(500), "cannot fetch the key set: upstream answered 500"),
        (JWKS, Answer::Hang, "within UPSTREAM_TIMEOUT_SECONDS"),
        (JWKS, Answer::Truncated { body: api.jwks() }, "cannot fetch the key set: "),
        (JWKS, Answer::jwks("{"), "the document is refused: it is not JSON"),
        (JWKS, Answer::jwks(key_set(&[])), "not an array with at least one key"),
        (JWKS, Answer::jwks(key_set(&[private])), "keys[0] has \"d\", a member of a private key"),
        (JWKS, Answer::jwks(key_set(&[r#"{"kty":"oct"}"#.into()])), "is a symmetric key"),
        (DISCOVERY, Answer::Status(404), "cannot fetch the discovery document: "),
        (DISCOVERY, Answer::discovery("[]"), "the document is refused: it is not a JSON object"),
        (DISCOVERY, Answer::discovery(discovery("http://a", "https://a/b")), "is not an https URL"),
    ] {
        api.set_good();
        api.set(DISCOVERY, other.clone());
        let timeout = if matches!(answer, Answer::Hang) { "0.5" } else { "5" };
        api.set(path, answer);

        let ended = export(&api, &folder).set("UPSTREAM_TIMEOUT_SECONDS", timeout).run();

        assert_fails(&ended, expected);
        assert!(!ended.log.contains("SECRET"), "{}", ended.log);
        assert_eq!(tree(&folder), before, "{expected}");
    }
    api.go_down();
    assert_fails(&export(&api, &folder).run(), "cannot reach https://127.0.0.1");
    assert_eq!(tree(&folder), before);
}

#[test]
fn another_issuer_than_issuer_is_not_written() {
    let api = FakeApi::start();
    let folder = folder(&api);

    let ended = export(&api, &folder).set("ISSUER", "https://issuer.example/").run();

    let sentence = "the issuer is \"https://issuer.example\" and ISSUER is \
                    \"https://issuer.example/\": nothing is written";
    assert_fails(&ended, sentence);
    assert_eq!(names(&folder), [""; 0]);
    assert_eq!(export(&api, &folder).set("ISSUER", ISSUER).run().code, Some(3));
}

#[test]
fn the_paths_are_those_of_the_issuer_and_of_the_published_jwks_uri() {
    for (issuer, jwks_uri, setting, discovery_file, jwks_file) in [
        ("https://a.example/b/c", "https://10.0.0.1/x", "auto", "b/c/", "b/c/openid/v1/jwks"),
        ("https://a.example/b/", "https://a.example/keys.json", "auto", "b/", "keys.json"),
        ("https://a.example", "https://10.0.0.1/x", "https://a.example/k/s?v=1", "", "k/s"),
        // Elsewhere: below the issuer, where it hides none of another one.
        ("https://a.example/b", "https://10.0.0.1/x", "upstream", "b/", "b/openid/v1/jwks"),
        ("https://a.example", "https://10.0.0.1/x", "https://k.example/s", "", JWKS_FILE),
    ] {
        let api = FakeApi::start();
        let folder = folder(&api);
        api.set(DISCOVERY, Answer::discovery(discovery(issuer, jwks_uri)));

        let ended = export(&api, &folder).set("JWKS_URI", setting).run();

        let discovery_file = format!("{discovery_file}{DISCOVERY_FILE}");
        let expected = format!("changed: {jwks_file} {discovery_file}\n");
        assert_eq!((ended.code, ended.stdout), (Some(3), expected), "{}", ended.log);
        assert_eq!(read_json(&folder.join(&discovery_file))["issuer"], issuer);
        assert_eq!(kids(&folder.join(jwks_file)), [api.kid()]);
        let is_elsewhere = ended.log.contains("jwks_uri is not at the issuer's scheme");
        assert_eq!(is_elsewhere, setting == "upstream" || setting.contains("k.example"));
    }
}

#[test]
fn a_path_that_leads_out_of_the_folder_or_is_no_plain_file_is_refused() {
    let api = FakeApi::start();
    let folder = folder(&api);
    let before = tree(api.volume.dir());

    for (issuer, jwks_uri, expected) in [
        ("https://a.example/..", "https://10.0.0.1/x", "the path of the issuer"),
        ("https://a.example/../../etc", "https://10.0.0.1/x", "it has the segment \"..\""),
        ("https://a.example", "https://a.example/../token", "the path of jwks_uri, \"/../token\""),
        ("https://a.example", "https://a.example/b/../../token", "it has the segment \"..\""),
        ("https://a.example", "https://a.example//etc/keys", "it has an empty segment"),
        ("https://a.example", "https://a.example/b/", "it has an empty segment"),
        ("https://a.example", "https://a.example/%2e%2e/token", "it has '%'"),
        ("https://a.example", "https://a.example/.well-known", "the key set cannot be at"),
        (
            "https://a.example",
            "https://a.example/.well-known/openid-configuration",
            "the key set cannot be at",
        ),
    ] {
        api.set(DISCOVERY, Answer::discovery(discovery(issuer, jwks_uri)));
        assert_fails(&export(&api, &folder).run(), expected);
        assert_eq!(tree(api.volume.dir()), before, "{issuer} {jwks_uri}");
    }
    let long = format!("https://a.example/{}", "k".repeat(256));
    api.set(DISCOVERY, Answer::discovery(discovery("https://a.example", &long)));
    assert_fails(&export(&api, &folder).run(), "os error 36");
    assert_eq!(tree(api.volume.dir()), before);
}

#[test]
fn a_symbolic_link_below_the_folder_is_not_followed() {
    let api = FakeApi::start();
    let folder = folder(&api);
    let outside = api.volume.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    let victim = outside.join("victim");
    fs::write(&victim, "kept").unwrap();
    let before = tree(&outside);

    symlink(&outside, folder.join("openid")).unwrap();
    assert_fails(&export(&api, &folder).run(), "site/openid\" is a symbolic link or no folder");
    fs::remove_file(folder.join("openid")).unwrap();

    // Of the second file: the first one must not be written either.
    fs::create_dir(folder.join(".well-known")).unwrap();
    symlink(&victim, folder.join(DISCOVERY_FILE)).unwrap();
    let sentence = "openid-configuration\" is a symbolic link or no file, and is not replaced";
    assert_fails(&export(&api, &folder).run(), sentence);
    assert_eq!(names(&folder), [DISCOVERY_FILE]);
    fs::remove_file(folder.join(DISCOVERY_FILE)).unwrap();

    fs::create_dir(folder.join(DISCOVERY_FILE)).unwrap();
    assert_fails(&export(&api, &folder).run(), sentence);
    fs::remove_dir(folder.join(DISCOVERY_FILE)).unwrap();
    let made = Command::new("mkfifo").arg(folder.join(DISCOVERY_FILE)).status().unwrap();
    assert!(made.success());
    assert_fails(&export(&api, &folder).run(), sentence);
    fs::remove_file(folder.join(DISCOVERY_FILE)).unwrap();
    assert_eq!(tree(&outside), before);

    // The folder itself is the operator's word.
    let link = api.volume.dir().join("link");
    symlink(&folder, &link).unwrap();
    assert_eq!(export(&api, &link).run().code, Some(3));
    assert_eq!(names(&folder), [DISCOVERY_FILE, JWKS_FILE]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let api = FakeApi::start();
    let folder = folder(&api);
    let missing = folder.join("missing");
    assert_fails(&export(&api, &missing).run(), "missing\": No such file or directory");
    assert_fails(&export(&api, &missing).arg("--watch").run(), "cannot open the folder");
    let file = folder.join("file");
    fs::write(&file, "kept").unwrap();
    assert_fails(&export(&api, &file).run(), "file\": Not a directory");
    assert_eq!(api.connections(), 0);

    // Root may write anywhere, unless it cannot get that capability.
    let capabilities = "--bounding-set=-dac_override,-dac_read_search";
    let builder = Gateway::builder(&api);
    let builder = match rustix::process::geteuid().is_root() {
        true => builder.under(&["setpriv", capabilities]),
        false => builder,
    };
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    let ended = with_arguments(builder, &folder).run();
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    assert_fails(&ended, "cannot make the folder");
    assert!(ended.log.contains("Permission denied"), "{}", ended.log);
    assert_eq!(names(&folder), ["file"]);
}

#[test]
fn a_read_only_file_is_replaced() {
    let api = FakeApi::start();
    let folder = folder(&api);
    assert_eq!(export(&api, &folder).run().code, Some(3));
    fs::set_permissions(folder.join(JWKS_FILE), Permissions::from_mode(0o444)).unwrap();
    api.rotate_key();

    assert_eq!(export(&api, &folder).run().code, Some(3));

    assert_eq!(kids(&folder.join(JWKS_FILE)), [api.kid()]);
    assert_eq!(fs::metadata(folder.join(JWKS_FILE)).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn a_disk_that_is_full_leaves_the_files_and_no_temporary_one() {
    let api = FakeApi::start();
    let folder = folder(&api);
    assert_eq!(export(&api, &folder).run().code, Some(3));
    let before = tree(&folder);
    api.rotate_key();

    // A limit on the size of files fails as a full disk does, in the middle of a write.
    let shell = ["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""];
    let ended = with_arguments(Gateway::builder(&api).under(&shell), &folder).run();

    assert_fails(&ended, "jwks\": File too large");
    assert_eq!(tree(&folder), before);
}

#[test]
fn for_gcp_there_is_one_file_with_the_members_that_google_takes() {
    let api = FakeApi::start();
    let folder = folder(&api);
    let rsa = r#"{"use":"sig","kty":"RSA","kid":"r","alg":"RS256","n":"AQ","e":"AQAB","x5t":"a"}"#;
    let new = r#"{"kty":"AKP","kid":"post-quantum","alg":"ML-DSA-65","pub":"AQ"}"#;
    let own: Value = serde_json::from_str(&api.jwks()).unwrap();
    let keys = [rsa.to_owned(), new.to_owned(), own["keys"][0].to_string()];
    api.set(JWKS, Answer::jwks(key_set(&keys)));

    let ended = export(&api, &folder).arg("--for").arg("gcp").run();

    assert_eq!((ended.code, &*ended.stdout), (Some(3), "changed: jwks.json\n"), "{}", ended.log);
    assert_eq!(names(&folder), ["jwks.json"]);
    let expected = json!({ "keys": [
        { "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "r", "n": "AQ", "e": "AQAB" },
        own["keys"][0],
    ]});
    assert_eq!(read_json(&folder.join("jwks.json")), expected);
    assert!(ended.log.contains("keys are left out kids=post-quantum"), "{}", ended.log);
    let before = tree(&folder);
    assert_eq!(export(&api, &folder).arg("--for=gcp").run().code, Some(0));

    api.set(JWKS, Answer::jwks(key_set(&[new.to_owned()])));
    let ended = export(&api, &folder).arg("--for=gcp").run();
    assert_fails(&ended, "no key is RSA or EC");
    assert_eq!(tree(&folder), before);
    let ended = export(&api, &folder).arg("--for=gcp").set("ISSUER", "https://b.example").run();
    assert_fails(&ended, "https://b.example");
}

/// `export --watch` with short rounds, which it logs.
fn watch(api: &FakeApi, folder: &Path) -> Process {
    let settings = [("CACHE_TTL_SECONDS", "0.1"), ("RUST_LOG", "debug")];
    let builder =
        settings.iter().fold(export(api, folder), |it, (name, value)| it.set(name, value));
    builder.arg("--watch").spawn()
}

/// Waits for the end of a round that has begun after now.
fn wait_for_round(process: &Process) {
    process.forget_log();
    // The first may have begun before.
    for _ in 0..2 {
        process.wait_for_log("round ended");
    }
}

#[test]
fn watching_follows_a_rotation_and_keeps_the_old_key_until_a_signal_ends_it() {
    for signal in ["TERM", "INT"] {
        let api = FakeApi::start();
        let folder = folder(&api);
        let process = watch(&api, &folder);
        process.wait_for_log("round ended");
        let old = api.kid();
        assert_eq!(kids(&folder.join(JWKS_FILE)), [&*old]);
        let before = tree(&folder);
        wait_for_round(&process);
        assert_eq!(tree(&folder), before);
        // It and the one that waits for signals.
        assert_eq!(process.threads(), 2);

        api.rotate_key();
        wait_for_round(&process);
        assert_eq!(kids(&folder.join(JWKS_FILE)), [api.kid(), old]);

        process.signal(signal);
        let ended = process.end();
        let expected = format!("{BOTH}changed: openid/v1/jwks\n");
        assert_eq!((ended.code, ended.stdout), (Some(0), expected), "{}", ended.log);
        assert_eq!(names(&folder), [DISCOVERY_FILE, JWKS_FILE]);
    }
}

#[test]
fn watching_writes_one_file_for_api_servers_that_take_turns() {
    let api = FakeApi::start();
    let folder = folder(&api);
    let one = api.jwks();
    let process = watch(&api, &folder);
    process.wait_for_log("round ended");
    api.rotate_key();
    let other = api.jwks();
    wait_for_round(&process);
    let before = tree(&folder);

    for jwks in [&one, &other, &one, &other] {
        api.set(JWKS, Answer::jwks(jwks.clone()));
        wait_for_round(&process);
        assert_eq!(tree(&folder), before);
    }
    process.signal("TERM");
    assert_eq!(process.end().stdout, format!("{BOTH}changed: openid/v1/jwks\n"));
}

#[test]
fn watching_survives_failures_and_logs_them_as_the_gateway_does() {
    let api = FakeApi::start();
    let folder = folder(&api);
    api.set_both(&Answer::Status(503));
    let process = watch(&api, &folder);

    let line = process.wait_for_log("fetch failed document=discovery");
    for part in [" WARN ", "reason=upstream-error", "error=\"upstream answered 503\"", "retry_in="]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(names(&folder), [""; 0]);
    api.set_good();
    process.wait_for_log("upstream recovered failed_rounds=");
    assert_eq!(names(&folder), [DISCOVERY_FILE, JWKS_FILE]);
    let before = tree(&folder);

    let private = r#"{"kty":"EC","kid":"a","d":"SECRET"}"#.to_owned();
    api.set(JWKS, Answer::jwks(key_set(&[private])));
    let line = process.wait_for_log("fetch failed document=jwks");
    assert!(line.contains(" ERROR ") && line.contains("reason=bad-document"), "{line}");
    api.set_good();
    process.wait_for_log("upstream recovered");
    api.set(DISCOVERY, Answer::discovery(discovery("https://a.example/..", "https://a/b")));
    let line = process.wait_for_log("nothing was written");
    assert!(line.contains(" ERROR ") && line.contains("it has the segment"), "{line}");
    api.set_good();
    process.wait_for_log("files can be written again");
    assert_eq!(tree(&folder), before);

    process.signal("TERM");
    let ended = process.end();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), BOTH), "{}", ended.log);
    assert!(!ended.log.contains("SECRET"), "{}", ended.log);
}

#[test]
fn watching_warns_of_another_issuer_and_does_not_write_it_with_issuer() {
    for setting in ["", ISSUER] {
        let api = FakeApi::start();
        let folder = folder(&api);
        let process = export(&api, &folder).set("ISSUER", setting).set("CACHE_TTL_SECONDS", "0.1");
        let process = process.set("RUST_LOG", "debug").arg("--watch").spawn();
        process.wait_for_log("round ended");
        let before = tree(&folder);

        api.set(DISCOVERY, Answer::discovery(discovery("https://b.example/c", "https://a/b")));

        if setting.is_empty() {
            let line = process.wait_for_log("issuer changed");
            assert!(line.contains(" WARN ") && line.contains("to=https://b.example/c"), "{line}");
            wait_for_round(&process);
            assert_eq!(names(&folder).len(), 4);
        } else {
            let line = process.wait_for_log("nothing was written");
            assert!(line.contains(" ERROR ") && line.contains("https://b.example/c"), "{line}");
            wait_for_round(&process);
            assert_eq!(tree(&folder), before);
        }
        assert!(!process.has_ended());
    }
}

#[test]
fn a_signal_ends_it_between_two_rounds_and_in_one_that_hangs() {
    let api = FakeApi::start();
    let folder = folder(&api);
    // A minute passes between two rounds.
    let process = export(&api, &folder).set("RUST_LOG", "debug").arg("--watch").spawn();
    process.wait_for_log("round ended");
    process.signal("INT");
    assert_eq!(process.end().code, Some(0));

    let before = tree(&folder);
    api.rotate_key();
    api.set(JWKS, Answer::Hang);
    let asked = api.count(JWKS);
    let process = export(&api, &folder).set("UPSTREAM_TIMEOUT_SECONDS", "1").arg("--watch").spawn();
    api.wait_for_count(JWKS, asked + 1);
    process.signal("TERM");
    let ended = process.end();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{}", ended.log);
    assert_eq!(tree(&folder), before);
}

#[test]
fn whoever_reads_a_file_sees_all_of_it() {
    let api = FakeApi::start();
    let folder = folder(&api);
    let sets = [large_key_set(200), large_key_set(150)];
    api.set(JWKS, Answer::jwks(sets[0].clone()));
    let process = export(&api, &folder).set("CACHE_TTL_SECONDS", "0.1").arg("--watch");
    let process = process.set("KEY_GRACE_SECONDS", "0").set("RUST_LOG", "debug").spawn();
    process.wait_for_log("round ended");
    let file = folder.join(JWKS_FILE);
    let is_over = AtomicBool::new(false);

    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.insert(kids(&file).len());
                thread::yield_now();
            }
            seen
        });
        for set in sets.iter().cycle().skip(1).take(8) {
            api.set(JWKS, Answer::jwks(set.clone()));
            wait_for_round(&process);
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });

    assert_eq!(seen, BTreeSet::from([150, 200]));
    assert_eq!(names(&folder), [DISCOVERY_FILE, JWKS_FILE]);
}

#[test]
fn bad_arguments_and_settings_end_it_with_2_and_help_explains() {
    let api = FakeApi::start();
    let folder = folder(&api);

    for (arguments, expected) in [
        (&["export"][..], "export lacks the folder to write to (DIR)"),
        (&["export", "a", "b"], "unexpected argument \"b\""),
        (&["export", "a", "--once"], "invalid option '--once'"),
        (&["export", "a", "--for=aws"], "--for is \"aws\": it must be gcp"),
    ] {
        let builder = arguments.iter().fold(Gateway::builder(&api), |it, next| it.arg(next));
        let ended = builder.run();
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{}", ended.log);
        assert!(ended.log.contains(expected) && ended.log.lines().count() == 1, "{}", ended.log);
    }
    let ended = export(&api, &folder).set("ISSUER", "http://a").run();
    assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{}", ended.log);
    fs::write(api.volume.dir().join("none.pem"), "none").unwrap();
    let ended =
        export(&api, &folder).set("SA_CA_CERT_PATH", api.volume.dir().join("none.pem")).run();
    assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{}", ended.log);
    assert_eq!(api.connections(), 0);

    let help = export(&api, &folder).arg("--help").run();
    assert_eq!((help.code, &*help.log), (Some(0), ""));
    for part in ["--for gcp", "--watch", "3 a file was written", "KEY_GRACE_SECONDS"] {
        assert!(help.stdout.contains(part), "{part} is not in\n{}", help.stdout);
    }
    let help = Gateway::builder(&api).arg("--help").run().stdout;
    assert!(help.contains("kube-issuer-gateway export DIR [--for gcp] [--watch]"), "{help}");
}
