//! The gateway in a real cluster, from outside: `make kind-test`, after `make kind-up kind-load`.
//!
//! Each function below is a promise, kept while relying parties go on asking through the
//! `NodePort`.
//! They run in this order in one process, since there is one cluster, and each puts back what it
//! changed. Nothing is done by `kubectl exec`: the image has no shell, and an operator has no more
//! than logs, probes and objects either. Figures are printed below each promise, and at the end
//! `N passed, N failed`. An argument picks those whose name holds it.
//!
//! `KIND_TEST_OUTAGE_SECONDS` (90) is how long the API server stays away. With less, what takes
//! its time (a projected token's rotation, at the end) is left out.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::significant_drop_tightening,
    clippy::unwrap_used,
    reason = "a test may fail loudly"
)]

use std::collections::BTreeSet;
use std::env;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::fake_api::{DISCOVERY, JWKS};

mod kube;
mod load;

use kube::{
    AtEnd, Changed, Deployment, NAME, Pod, PortForward, Sampler, StartUps, Total, assert_line,
    kubectl, kubectl_with, script, try_kubectl, within,
};
use load::{ISSUER, Load, Lost, Outcome};

/// Of deploy.yaml.
const MANIFEST: Deployment = Deployment { namespace: NAME, name: NAME };
/// The chart with its default values.
const CHART: Deployment = Deployment { namespace: "kube-issuer-gateway-chart", name: NAME };
/// The chart with the values of the program that it replaces.
const PROXY: Deployment = Deployment {
    namespace: "kube-issuer-gateway-proxy",
    name: "k8s-jwks-proxy-kube-issuer-gateway",
};
const PROXY_VALUES: &str = "tests/chart/k8s-jwks-proxy-values.yaml";

/// The gateway's default, and what an answer may be late on a machine of two cores.
const CACHE_TTL: Duration = Duration::from_secs(60);
const SLACK: Duration = Duration::from_secs(3);
const OUTAGE_SECONDS: u64 = 90;
/// The least that Kubernetes gives a projected token.
const TOKEN_SECONDS: u64 = 600;
const MIB: f64 = 1024.0 * 1024.0;

/// The built-in `ClusterRole`, and the binding by which Kubernetes gives it to all accounts.
const ROLE: &str = "system:service-account-issuer-discovery";

struct Run {
    sampler: Sampler,
    outage: Duration,
    /// Of all scenarios.
    outcome: Outcome,
    /// When the pod with the short token was made.
    short_token: Option<Instant>,
}

type Scenario = (&'static str, fn(&mut Run));

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), $name)),*] };
}

const SCENARIOS: &[Scenario] = &scenarios![
    deploy_yaml_and_its_examples_are_taken_by_the_api_server_strictly,
    what_the_chart_renders_is_taken_by_the_api_server_strictly,
    deploy_yaml_is_applied_and_all_pods_get_ready,
    restricted_pod_security_is_enforced,
    the_documents_are_the_api_servers_but_for_jwks_uri,
    a_rolling_restart_loses_no_request,
    scaling_to_one_and_back_loses_no_request,
    a_deleted_pod_loses_no_request,
    a_killed_pod_is_restarted,
    a_bad_setting_is_named_and_takes_no_pod_away,
    load_is_held_within_64_mib_and_a_tenth_of_a_cpu,
    without_its_binding_the_log_names_the_role_and_the_copy_is_served,
    a_bad_token_is_told_and_a_replaced_one_is_taken_up,
    a_new_signing_key_is_served_within_cache_ttl,
    an_outage_of_the_api_server_loses_no_request_and_restarts_no_pod,
    the_chart_with_default_values_survives_a_restart_and_an_outage,
    the_chart_with_k8s_jwks_proxys_values_survives_a_restart_and_an_outage,
    a_projected_tokens_rotation_is_followed,
];

fn main() -> ExitCode {
    let picked: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let seconds = env::var("KIND_TEST_OUTAGE_SECONDS").ok().filter(|text| !text.is_empty());
    let seconds = seconds.map_or(OUTAGE_SECONDS, |text| text.parse().expect("whole seconds"));
    if let Err(error) = try_kubectl(&["get", "--raw", "/readyz"]) {
        println!("no cluster: run `make kind-up kind-load` first: {error}");
        return ExitCode::FAILURE;
    }
    panic::set_hook(Box::new(|info| println!("   {info}")));
    clean_up();
    if !picked.is_empty() {
        script("deploy", &[], &[]);
        MANIFEST.settle();
    }
    let mut run = Run {
        sampler: Sampler::start(),
        outage: Duration::from_secs(seconds),
        outcome: Outcome::default(),
        short_token: None,
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, scenario) in SCENARIOS {
        if !picked.is_empty() && !picked.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        println!("== {}", name.replace('_', " "));
        load::come_from_another_address();
        let start = Instant::now();
        let good = catch_unwind(AssertUnwindSafe(|| scenario(&mut run))).is_ok();
        *if good { &mut passed } else { &mut failed } += 1;
        if !good {
            drop(try_script_logs());
        }
        println!("{} ({:.0} s)", if good { "ok" } else { "FAILED" }, start.elapsed().as_secs_f64());
    }
    clean_up();
    println!("== the whole run");
    println!("   {}", run.outcome);
    let total = run.sampler.total();
    println!("   highest memory peak of a pod: {:.1} MiB", run.sampler.peak(&[]) / MIB);
    println!("   throttled periods: {} of {}", total.throttled, total.periods);
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn try_script_logs() -> Result<(), String> {
    let printed = kube::run(&mut Command::new("tests/kind/logs"), "")?;
    let lines = printed.out.lines().filter(|line| !line.contains(" request path="));
    println!("{}", lines.collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// What the scenarios leave: the cluster is as `make kind-deploy` left it.
fn clean_up() {
    for (name, namespace) in [(NAME, CHART.namespace), ("k8s-jwks-proxy", PROXY.namespace)] {
        let exists = kubectl(&["get", "namespace", namespace, "--ignore-not-found", "-o", "name"]);
        if !exists.is_empty() {
            script("helm", &["uninstall"], &[("RELEASE", name), ("NAMESPACE", namespace)]);
        }
    }
    kubectl(&["-n", NAME, "delete", "pod", SHORT_TOKEN_POD, "--ignore-not-found", "--wait=false"]);
}

// --- what all share ------------------------------------------------------------------------------

impl Run {
    /// Does `what` under load, then takes what became of the requests; with one lost it fails.
    #[track_caller]
    fn under_load<T>(&mut self, what: impl FnOnce(&Self) -> T) -> T {
        let (result, outcome) = self.observe(what);
        assert_none_lost(&outcome);
        result
    }

    /// The same, and gives back what was lost.
    fn observe<T>(&mut self, what: impl FnOnce(&Self) -> T) -> (T, Vec<Lost>) {
        let dropped = kube::dropped_packets();
        let load = Load::start();
        // A second before and after, so that there is something to compare with.
        thread::sleep(Duration::from_secs(1));
        let result = what(self);
        thread::sleep(Duration::from_secs(1));
        let outcome = load.stop();
        println!("   {outcome}");
        let dropped = kube::dropped_packets() - dropped;
        if dropped > 0 {
            println!(
                "   this machine dropped {dropped} packets, its nf_conntrack table being full"
            );
        }
        let lost = outcome.lost.clone();
        self.outcome.add(outcome);
        (result, lost)
    }

    /// What these pods have taken of memory at most, and of CPU time since `start`.
    #[track_caller]
    fn print_usage(&self, pods: &[Pod], start: Total) {
        self.sampler.refresh(pods);
        let now = self.sampler.total();
        println!(
            "   memory peak of a pod {:.1} MiB of 64; throttled in {} of {} periods of 100 ms",
            self.sampler.peak(pods) / MIB,
            now.throttled - start.throttled,
            now.periods - start.periods
        );
        assert!(now.oom_kills < 1.0, "{} processes were killed for want of memory", now.oom_kills);
    }
}

#[track_caller]
fn assert_none_lost(lost: &[Lost]) {
    let first: Vec<_> = lost.iter().take(10).collect();
    assert!(lost.is_empty(), "{} lost, such as {first:#?}", lost.len());
}

/// The status and the first line of the body, or why there is none.
fn probe(path: &str) -> (u16, String) {
    match load::get(path) {
        Ok(answer) => (answer.status, load::text(&answer)),
        Err(error) => (0, error.to_string()),
    }
}

/// Waits until twenty answers in a row are one of these: each pod is asked, since who answers is
/// random.
#[track_caller]
fn all_pods_answer(path: &str, limit: Duration, wanted: &[(u16, &str)]) -> Duration {
    let start = Instant::now();
    within(limit, &format!("{path} is {wanted:?} from all pods"), || {
        for _ in 0..20 {
            let (status, body) = probe(path);
            if !wanted.contains(&(status, &body)) {
                return Err(format!("{status} {body}"));
            }
        }
        Ok(start.elapsed())
    })
}

/// The same pods as before, none of them restarted.
#[track_caller]
fn assert_untouched(before: &[Pod], after: &[Pod]) {
    let of = |pods: &[Pod]| -> Vec<_> {
        pods.iter().map(|pod| (pod.name.clone(), pod.uid.clone(), pod.restarts)).collect()
    };
    assert_eq!(of(before), of(after), "pods were restarted or replaced");
}

#[track_caller]
fn assert_strictly_taken(what: &str, yaml: &str) {
    let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let printed = kubectl_with(yaml, &arguments);
    assert!(!printed.err.contains("arning"), "{what}: {}", printed.err);
    println!("   {what}: {} objects", printed.out.lines().count());
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn kids(jwks: &Value) -> BTreeSet<String> {
    let keys = jwks["keys"].as_array().into_iter().flatten();
    keys.filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect()
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

// --- installing ----------------------------------------------------------------------------------

fn deploy_yaml_and_its_examples_are_taken_by_the_api_server_strictly(_: &mut Run) {
    script("gateway_api", &[], &[]);
    assert_strictly_taken("deploy.yaml", &read("deploy.yaml"));
    assert_strictly_taken("kustomize base", &kubectl(&["kustomize", "."]));
    let mut examples: Vec<_> = std::fs::read_dir("deploy/examples")
        .expect("deploy/examples")
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    examples.sort_unstable();
    // The fixed port is taken once it is exposed, and refused to another namespace's Service.
    let services = [
        "delete",
        "services",
        "-A",
        "--field-selector",
        "metadata.name=kube-issuer-gateway-nodeport",
    ];
    kubectl(&services);
    for example in examples {
        // A patch, which is no whole object.
        if example.ends_with("/openshift.yaml") {
            continue;
        }
        // What others define (Argo CD, Flux, GKE, Traefik) is not known to this cluster.
        let known = ["v1", "networking.k8s.io/v1", "gateway.networking.k8s.io/v1"];
        let known = known.map(|version| format!("apiVersion: {version}\n"));
        let text = read(&example);
        let is_known = |object: &&str| known.iter().any(|version| object.contains(version));
        let objects: Vec<_> = text.split("\n---\n").filter(is_known).collect();
        if objects.is_empty() {
            println!("   {example}: of others");
        } else {
            assert_strictly_taken(&example, &objects.join("\n---\n"));
        }
    }
}

fn what_the_chart_renders_is_taken_by_the_api_server_strictly(_: &mut Run) {
    let everything = [
        "issuer=https://oidc.example.com/clusters/eu-1",
        "ingress.enabled=true,httpRoute.enabled=true,autoscaling.enabled=true",
        "service.type=LoadBalancer,config.log.format=json",
    ];
    let everything: Vec<_> = everything.iter().flat_map(|values| ["--set", values]).collect();
    let cases = [
        ("defaults", vec![]),
        ("k8s-jwks-proxy's values", vec!["-f", PROXY_VALUES]),
        ("everything", everything),
    ];
    for (what, options) in cases {
        let yaml = script(
            "helm",
            &[vec!["template"], options].concat(),
            &[("NAMESPACE", NAME), ("RELEASE", "dry")],
        );
        assert_strictly_taken(&format!("chart, {what}"), &yaml);
    }
}

fn deploy_yaml_is_applied_and_all_pods_get_ready(run: &mut Run) {
    let start_ups = StartUps::watch(NAME);
    script("deploy", &[], &[]);
    MANIFEST.settle();
    let took = start_ups.stop();
    assert!(!took.is_empty(), "no pod was seen to get ready");
    let took: Vec<_> = took.into_iter().map(seconds).collect();
    println!("   from scheduled to ready: {}", took.join(", "));

    let node = &kube::json(&["get", "nodes"])["items"][0];
    let images = node["status"]["images"].as_array().unwrap();
    let ours = |image: &&Value| image["names"].to_string().contains("kube-issuer-gateway:kind");
    let bytes = images.iter().find(ours).expect("the image")["sizeBytes"].as_u64().unwrap();
    println!("   image: {bytes} bytes");
    assert!(bytes < 7 << 20, "the image has more than 7 MiB");

    let pods = MANIFEST.pods();
    assert_eq!(pods.len(), 2, "{pods:?}");
    assert!(pods.iter().all(|pod| pod.restarts == 0), "{pods:?}");
    start_a_pod_with_a_short_token(run);
}

fn restricted_pod_security_is_enforced(_: &mut Run) {
    let pod = |security: &Value| {
        let container =
            json!({"name": "c", "image": "kube-issuer-gateway:kind", "securityContext": security});
        let metadata = json!({"name": "violating", "namespace": NAME});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [container]}});
        let arguments =
            ["--context", "kind-kube-issuer-gateway", "apply", "--dry-run=server", "-f", "-"];
        kube::run(Command::new("kubectl").args(arguments), &pod.to_string())
    };
    let good = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    pod(&good).expect("a pod that violates nothing");
    let bad = [
        ("privileged", json!(true)),
        ("allowPrivilegeEscalation", json!(true)),
        ("runAsNonRoot", json!(false)),
        ("capabilities", json!({"add": ["NET_ADMIN"]})),
        ("seccompProfile", json!({"type": "Unconfined"})),
    ];
    for (member, value) in bad {
        let mut security = good.clone();
        security[member] = value;
        let refusal = pod(&security).expect_err(member);
        let ours = refusal.contains("violates PodSecurity \\\"restricted")
            || refusal.contains("violates PodSecurity \"restricted");
        // A privileged container may not forbid its escalation: it is refused before that.
        assert!(ours || member == "privileged", "{member}: {refusal}");
    }
}

fn the_documents_are_the_api_servers_but_for_jwks_uri(_: &mut Run) {
    let parse = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    let mut discovery = parse(&kubectl(&["get", "--raw", DISCOVERY]));
    let internal = discovery["jwks_uri"].clone();
    discovery["jwks_uri"] = format!("{ISSUER}{JWKS}").into();
    println!("   jwks_uri {internal} became {}", discovery["jwks_uri"]);
    assert_ne!(internal, discovery["jwks_uri"]);
    let through_the_service = |path: &str| {
        let service = format!("/api/v1/namespaces/{NAME}/services/http:{NAME}:http/proxy");
        kubectl(&["get", "--raw", &format!("{service}{path}")])
    };
    for (path, wanted) in [(DISCOVERY, discovery), (JWKS, parse(&kubectl(&["get", "--raw", JWKS])))]
    {
        assert_eq!(load::json(&load::get(path).expect("an answer")), wanted);
        assert_eq!(parse(&through_the_service(path)), wanted);
    }
}

// --- pods come and go ----------------------------------------------------------------------------

fn a_rolling_restart_loses_no_request(run: &mut Run) {
    let before = MANIFEST.pods();
    let start = run.sampler.total();
    let start_ups = StartUps::watch(NAME);
    run.under_load(|_| MANIFEST.restart());
    let took: Vec<_> = start_ups.stop().into_iter().map(seconds).collect();
    println!("   from scheduled to ready: {}", took.join(", "));
    let after = MANIFEST.pods();
    assert!(after.iter().all(|pod| before.iter().all(|old| old.uid != pod.uid)), "{after:?}");
    run.print_usage(&after, start);
}

fn scaling_to_one_and_back_loses_no_request(run: &mut Run) {
    let back = AtEnd(|| MANIFEST.scale("2"));
    run.under_load(|_| {
        MANIFEST.scale("1");
        assert_eq!(MANIFEST.pods().len(), 1);
        thread::sleep(Duration::from_secs(3));
        drop(back);
    });
}

fn a_deleted_pod_loses_no_request(run: &mut Run) {
    run.under_load(|_| {
        let pods = MANIFEST.pods();
        kubectl(&["-n", NAME, "delete", "pod", &pods[0].name, "--wait=true", "--timeout=60s"]);
        MANIFEST.settle();
    });
}

/// Its connections are lost with it, and what comes before that is known: they are only counted.
fn a_killed_pod_is_restarted(run: &mut Run) {
    let before = MANIFEST.pods();
    let killed = &before[0];
    let ((), lost) = run.observe(|_| {
        script("kill_pod", &[NAME, &killed.name], &[]);
        let start = Instant::now();
        within(Duration::from_secs(60), "the pod is restarted and ready", || {
            let pods = MANIFEST.pods();
            let good = pods
                .iter()
                .any(|pod| pod.uid == killed.uid && pod.restarts > killed.restarts && pod.ready);
            if good { Ok(()) } else { Err(format!("{pods:?}")) }
        });
        println!("   ready again after {}", seconds(start.elapsed()));
    });
    println!("   not asserted, lost: {}", lost.len());
}

fn a_bad_setting_is_named_and_takes_no_pod_away(run: &mut Run) {
    let before = MANIFEST.pods();
    let environment =
        json!([{"name": "CACHE_TTL_SECONDS", "value": "soon"}, {"name": "WORKERS", "value": "1"}]);
    let patch = container_patch(&json!({"env": environment}));
    run.under_load(|_| {
        let changed = MANIFEST.change(&patch);
        let bad = within(Duration::from_secs(60), "the new pod ends", || {
            let pods = MANIFEST.pods();
            let bad = pods.iter().find(|pod| before.iter().all(|old| old.uid != pod.uid));
            let bad = bad.ok_or_else(|| format!("{pods:?}"))?;
            let state = kube::json(&["-n", NAME, "get", "pod", &bad.name]);
            let status = &state["status"]["containerStatuses"][0];
            let ended = [&status["state"], &status["lastState"]]
                .into_iter()
                .find_map(|state| state["terminated"]["exitCode"].as_i64());
            ended.map(|code| (bad.name.clone(), code)).ok_or_else(|| status.to_string())
        });
        println!("   the new pod's exit code: {}", bad.1);
        assert_eq!(bad.1, 2);
        let log = kube::log(NAME, &bad.0);
        assert_line(&log, &["CACHE_TTL_SECONDS", "soon"]);
        assert_line(&log, &["WORKERS"]);
        println!("   its log: {}", log.lines().collect::<Vec<_>>().join(" | "));
        let pods = MANIFEST.pods();
        assert!(
            before.iter().all(|old| pods.iter().any(|pod| pod.uid == old.uid && pod.ready)),
            "{pods:?}"
        );
        drop(changed);
    });
}

// --- its bounds ----------------------------------------------------------------------------------

/// The container of deploy.yaml with these members changed, as a strategic merge patch.
fn container_patch(members: &Value) -> Value {
    let mut container = json!({"name": NAME});
    for (member, value) in members.as_object().unwrap() {
        container[member] = value.clone();
    }
    json!({"spec": {"template": {"spec": {"containers": [container]}}}})
}

/// As much as two pods of a tenth of a CPU give, and 600 connections that are held and silent.
fn load_is_held_within_64_mib_and_a_tenth_of_a_cpu(run: &mut Run) {
    const HELD: usize = 600;
    const GREEDY: usize = 16;
    let before = MANIFEST.pods();
    run.sampler.refresh(&before);
    let start = run.sampler.total();
    run.under_load(|_| {
        let held: Vec<_> =
            (0..HELD).map(|_| load::connect_to_the_node_port().expect("one more")).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let greedy: Vec<_> = (0..GREEDY)
            .map(|_| {
                let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
                thread::Builder::new().name("greedy".to_owned()).spawn(move || {
                    let mut connection = load::connect_to_the_node_port().expect("a connection");
                    while !stop.load(Ordering::Relaxed) {
                        let answer = load::ask(&mut connection, JWKS, &[]).expect("an answer");
                        assert_eq!(answer.status, 200);
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_secs(30));
        stop.store(true, Ordering::Relaxed);
        for thread in greedy {
            thread.unwrap().join().expect("each greedy connection is answered");
        }
        let per_second = answers.load(Ordering::Relaxed) / 30;
        println!(
            "   beside it: {per_second} answers a second on {GREEDY} connections that never pause"
        );
        drop(held);
    });
    let after = MANIFEST.pods();
    assert_untouched(&before, &after);
    run.print_usage(&after, start);
}

// --- what rotates, and what is taken away --------------------------------------------------------

fn without_its_binding_the_log_names_the_role_and_the_copy_is_served(run: &mut Run) {
    let before = MANIFEST.pods();
    let own = without_server_fields(kube::json(&["get", "clusterrolebinding", NAME]));
    let groups = kube::json(&["get", "clusterrolebinding", ROLE])["subjects"].clone();
    run.under_load(|_| {
        // Kubernetes binds the role to all accounts, and does so again when the API server starts,
        // unless it is told not to.
        let all = AtEnd(|| bind_all_service_accounts(&groups, true));
        bind_all_service_accounts(&json!([]), false);
        let own = AtEnd(|| drop(kubectl_with(&own.to_string(), &["apply", "-f", "-"])));
        kubectl(&["delete", "clusterrolebinding", NAME]);
        let took = all_pods_answer("/healthz", CACHE_TTL, &[(503, "unhealthy: forbidden")]);
        println!("   /healthz of all pods says `unhealthy: forbidden` after {}", seconds(took));
        assert_eq!(probe("/readyz"), (200, "ok".to_owned()));
        for pod in MANIFEST.pods() {
            assert_line(
                &kube::log(NAME, &pod.name),
                &["fetch failed", "reason=forbidden", ROLE, "serving=copy"],
            );
        }
        drop(own);
        // By its own binding alone: the one of all service accounts is still away.
        let took = all_pods_answer("/healthz", CACHE_TTL + SLACK, &[(200, "ok")]);
        println!("   well again {} after its own binding alone is back", seconds(took));
        for pod in MANIFEST.pods() {
            assert_line(&kube::log(NAME, &pod.name), &["upstream recovered"]);
        }
        drop(all);
    });
    assert_untouched(&before, &MANIFEST.pods());
}

fn bind_all_service_accounts(subjects: &Value, autoupdate: bool) {
    let annotations =
        json!({"rbac.authorization.kubernetes.io/autoupdate": autoupdate.to_string()});
    let patch = json!({"metadata": {"annotations": annotations}, "subjects": subjects});
    kubectl(&["patch", "clusterrolebinding", ROLE, "--type=merge", "-p", &patch.to_string()]);
}

fn without_server_fields(mut object: Value) -> Value {
    for member in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        object["metadata"].as_object_mut().unwrap().shift_remove(member);
    }
    object
}

/// By a Secret instead of the kubelet's own volume, whose token lives for an hour: the kubelet
/// swaps the file in the same way.
fn a_bad_token_is_told_and_a_replaced_one_is_taken_up(run: &mut Run) {
    let _secrets = AtEnd(|| {
        let secrets = ["test-token", "test-bound-1", "test-bound-2"];
        kubectl(&[&["-n", NAME, "delete", "secret", "--ignore-not-found"], &secrets[..]].concat());
    });
    write_secret("test-token", "this is no token");
    run.under_load(|_| {
        let changed = a_rollout_with_a_bad_token_takes_no_pod_away();
        a_revoked_token_is_told_and_survived();
        drop(changed);
    });
}

fn a_rollout_with_a_bad_token_takes_no_pod_away() -> Changed {
    let before = MANIFEST.pods();
    let mut patch = container_patch(&json!({
        "env": [{"name": "SA_TOKEN_PATH", "value": "/test-token/token"}],
        "volumeMounts": [{"name": "test-token", "mountPath": "/test-token", "readOnly": true}],
    }));
    patch["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "test-token", "secret": {"secretName": "test-token"}}]);
    let changed = MANIFEST.change(&patch);
    let bad = within(Duration::from_secs(60), "the new pod says what is wrong", || {
        let new = |pod: &Pod| before.iter().all(|old| old.uid != pod.uid);
        let bad = MANIFEST.pods().into_iter().find(new).ok_or("no new pod")?;
        let log = kube::log(NAME, &bad.name);
        if log.contains("reason=unauthorized") { Ok(bad) } else { Err(log) }
    });
    {
        let way = PortForward::open(NAME, &bad.name, 8081);
        let said = way.get("/readyz");
        println!("   a pod whose token is none says to /readyz: {said:?}");
        assert_eq!(said, (503, "not ready: unauthorized".to_owned()));
        assert_eq!(way.get("/livez").0, 200);
    }
    let words = ["fetch failed", "reason=unauthorized", "SA_TOKEN_PATH", "serving=nothing"];
    assert_line(&kube::log(NAME, &bad.name), &words);
    let now = MANIFEST.pods();
    let goes_on = |old: &Pod| now.iter().any(|pod| pod.uid == old.uid && pod.ready);
    assert!(before.iter().all(goes_on), "{now:?}");

    let start = Instant::now();
    write_secret("test-token", &mint_token("test-bound-1"));
    make_the_kubelet_look(std::slice::from_ref(&bad), "1");
    MANIFEST.settle();
    println!(
        "   rolled out {} after the token was replaced by a good one",
        seconds(start.elapsed())
    );
    assert_line(&kube::log(NAME, &bad.name), &["upstream recovered"]);
    changed
}

fn a_revoked_token_is_told_and_survived() {
    let pods = MANIFEST.pods();
    kubectl(&["-n", NAME, "delete", "secret", "test-bound-1"]);
    let took = all_pods_answer("/healthz", CACHE_TTL, &[(503, "unhealthy: unauthorized")]);
    println!(
        "   /healthz says `unhealthy: unauthorized` {} after the token was revoked",
        seconds(took)
    );
    assert_eq!(probe("/readyz"), (200, "ok".to_owned()));
    write_secret("test-token", &mint_token("test-bound-2"));
    make_the_kubelet_look(&pods, "2");
    let took = all_pods_answer("/healthz", CACHE_TTL + SLACK, &[(200, "ok")]);
    println!("   well again {} after the token was replaced", seconds(took));
    for pod in &pods {
        let log = kube::log(NAME, &pod.name);
        assert_line(&log, &["fetch failed", "reason=unauthorized", "serving=copy"]);
        assert_line(&log, &["upstream recovered"]);
    }
    assert_untouched(&pods, &MANIFEST.pods());
}

fn write_secret(name: &str, token: &str) {
    let metadata = json!({"name": name, "namespace": NAME});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata,
        "stringData": {"token": token}});
    kubectl_with(&secret.to_string(), &["apply", "-f", "-"]);
}

/// A token for the gateway, revoked when the Secret of this name, made for it, is deleted.
fn mint_token(bound_to: &str) -> String {
    write_secret(bound_to, "");
    let bound = ["--bound-object-kind=Secret", "--bound-object-name", bound_to, "--duration=10m"];
    kubectl(&[&["-n", NAME, "create", "token", NAME], &bound[..]].concat()).trim().to_owned()
}

/// At the volumes of these pods, now, and not within the next minute: a change of the pod does it.
fn make_the_kubelet_look(pods: &[Pod], word: &str) {
    for pod in pods {
        let annotation = format!("test/look={word}");
        kubectl(&["-n", NAME, "annotate", "pod", &pod.name, &annotation, "--overwrite"]);
    }
}

fn a_new_signing_key_is_served_within_cache_ttl(run: &mut Run) {
    let before = MANIFEST.pods();
    let published = || -> BTreeSet<String> {
        let jwks = try_kubectl(&["get", "--request-timeout=5s", "--raw", JWKS]).unwrap_or_default();
        kids(&serde_json::from_str(&jwks).unwrap_or_default())
    };
    let old = published();
    let took = run.under_load(|_| {
        // The script returns when the API server answers again, or, with real kind, before it went.
        script("rotate_key", &[], &[]);
        let new = within(Duration::from_secs(180), "the API server publishes a new key", || {
            published().difference(&old).next().cloned().ok_or_else(|| "no new key".to_owned())
        });
        let start = Instant::now();
        within(CACHE_TTL + SLACK, "the new key is served by all pods", || {
            let served =
                |_| load::get(JWKS).is_ok_and(|jwks| kids(&load::json(&jwks)).contains(&new));
            if (0..20).all(served) { Ok(()) } else { Err("not yet".to_owned()) }
        });
        let took = start.elapsed();
        assert_line(&MANIFEST.log(), &["signing key added", &new]);
        let_the_controllers_catch_up(Duration::from_secs(10));
        took
    });
    println!("   served by all pods {} after the API server published it", seconds(took));
    let now = kids(&load::json(&load::get(JWKS).expect("an answer")));
    assert!(old.is_subset(&now), "the old keys {old:?} are still published, and not in {now:?}");
    assert_untouched(&before, &MANIFEST.pods());
}

// --- the API server is away ----------------------------------------------------------------------

fn an_outage_of_the_api_server_loses_no_request_and_restarts_no_pod(run: &mut Run) {
    outage(run, MANIFEST);
}

/// Kubernetes' controllers look for the API server again after pauses that grow to a minute while
/// it is away; until then they may take the node for lost, and they change no Service.
fn let_the_controllers_catch_up(away: Duration) {
    thread::sleep((away + Duration::from_secs(15)).min(Duration::from_secs(75)));
    within(Duration::from_secs(60), "the node is ready", || {
        let status = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        let ready = try_kubectl(&["get", "nodes", "-o", status])?;
        if ready == "True" { Ok(()) } else { Err(ready) }
    });
}

/// What /healthz says while the API server is away. A timeout: kube-proxy refuses connections to a
/// Service without endpoints by ICMP, of which the kernel sends only so many.
const AWAY: [(u16, &str); 3] = [
    (503, "unhealthy: unreachable"),
    (503, "unhealthy: timeout"),
    (503, "unhealthy: upstream-error"),
];

/// Takes the API server away while all goes on.
///
/// While it is away nothing may be lost. When it is back, a node controller that was running all
/// the time may take the node for lost, since it has heard nothing of it, and with the node all
/// pods out of the Service: what is lost by that is told and not held against the gateway. kubeadm's
/// ends itself in an outage, having lost its lease, and gives the node time when it is back; the
/// stand-in's runs without leader election.
fn outage(run: &mut Run, deployment: Deployment) {
    let before = deployment.pods();
    let usage = run.sampler.total();
    let node_was_lost = times_the_node_was_taken_for_lost(deployment.namespace);
    let (back, lost) = run.observe(|run| {
        let restart = AtEnd(|| drop(script("apiserver", &["start"], &[])));
        script("apiserver", &["stop"], &[]);
        let start = Instant::now();
        let took = all_pods_answer("/healthz", CACHE_TTL, &AWAY);
        println!("   /healthz of all pods says so {} after it is gone", seconds(took));
        while start.elapsed() < run.outage {
            let (status, body) = probe("/healthz");
            assert!(AWAY.contains(&(status, &body)), "/healthz: {status} {body}");
            assert_eq!(probe("/readyz"), (200, "ok".to_owned()));
            assert_eq!(probe("/livez"), (200, "ok".to_owned()));
            thread::sleep(Duration::from_secs(2));
        }
        let back = Instant::now();
        drop(restart);
        let away = start.elapsed();
        println!("   the API server was away for {}", seconds(away));
        let took = all_pods_answer("/healthz", CACHE_TTL + SLACK, &[(200, "ok")]);
        println!("   well again {} after it is back", seconds(took));
        let_the_controllers_catch_up(away);
        deployment.settle();
        back
    });
    let after = deployment.pods();
    assert_untouched(&before, &after);
    for pod in &after {
        let log = kube::log(deployment.namespace, &pod.name);
        let words = ["fetch failed", "serving=copy", "hint=\"check whether the API server"];
        assert_line(&log, &words);
        assert_line(&log, &["upstream recovered"]);
    }
    let (early, late): (Vec<_>, Vec<_>) = lost.into_iter().partition(|lost| lost.when < back);
    assert_none_lost(&early);
    if times_the_node_was_taken_for_lost(deployment.namespace) > node_was_lost {
        println!(
            "   Kubernetes took the node for lost when the API server was back, and its pods too"
        );
        println!("   lost by that, and not held against the gateway: {}", late.len());
    } else {
        assert_none_lost(&late);
    }
    run.print_usage(&after, usage);
}

fn times_the_node_was_taken_for_lost(namespace: &str) -> u64 {
    let events = kube::json(&["-n", namespace, "get", "events"]);
    let events = events["items"].as_array().unwrap().iter();
    let ours = events.filter(|event| event["reason"] == "NodeNotReady");
    ours.map(|event| event["count"].as_u64().unwrap_or(1)).sum()
}

// --- the chart -----------------------------------------------------------------------------------

fn the_chart_with_default_values_survives_a_restart_and_an_outage(run: &mut Run) {
    chart(run, CHART, NAME, &[]);
}

fn the_chart_with_k8s_jwks_proxys_values_survives_a_restart_and_an_outage(run: &mut Run) {
    chart(run, PROXY, "k8s-jwks-proxy", &["-f", PROXY_VALUES]);
}

fn chart(run: &mut Run, deployment: Deployment, release: &str, options: &[&str]) {
    let environment = [("RELEASE", release), ("NAMESPACE", deployment.namespace)];
    let notes = script("helm", options, &environment);
    // The first command that NOTES gives to ask it works as it stands, but for the context.
    let ask = notes.lines().find_map(|line| line.trim().strip_prefix("kubectl get --raw /api/"));
    let path = format!("/api/{}", ask.expect("a command in NOTES"));
    deployment.settle();
    let answer = kubectl(&["get", "--raw", &path]);
    assert!(answer.contains(ISSUER), "{answer}");
    let pods = deployment.pods();
    println!("   {} pods", pods.len());
    run.under_load(|_| deployment.restart());
    outage(run, deployment);
}

// --- the kubelet renews a token ------------------------------------------------------------------

const SHORT_TOKEN_POD: &str = "kube-issuer-gateway-short-token";

/// A pod beside the others, which nothing but the last scenario asks: its token is valid for ten
/// minutes, and the kubelet renews it when eight are over.
fn start_a_pod_with_a_short_token(run: &mut Run) {
    let deployment = kube::json(&["-n", NAME, "get", "deployment", NAME]);
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    spec["automountServiceAccountToken"] = false.into();
    let sources = json!([
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]);
    spec["volumes"] = json!([{"name": "account", "projected": {"sources": sources}}]);
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mount = json!({"name": "account", "mountPath": path, "readOnly": true});
    spec["containers"][0]["volumeMounts"] = json!([mount]);
    spec.as_object_mut().unwrap().shift_remove("topologySpreadConstraints");
    let metadata = json!({"name": SHORT_TOKEN_POD, "namespace": NAME});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    let delete = ["delete", "pod", SHORT_TOKEN_POD, "--ignore-not-found", "--timeout=60s"];
    kubectl(&[&["-n", NAME], &delete[..]].concat());
    run.short_token = Some(Instant::now());
    kubectl_with(&pod.to_string(), &["create", "-f", "-"]);
}

/// The first token has expired for good after ten minutes, the minute that the API server grants
/// beyond that, and the ten seconds for which it remembers a token. A fetch that works after that
/// is one by a renewed token.
fn a_projected_tokens_rotation_is_followed(run: &mut Run) {
    if run.outage < Duration::from_secs(OUTAGE_SECONDS) {
        println!("   left out: it takes eleven minutes");
        return;
    }
    let Some(start) = run.short_token else {
        println!("   left out: its pod has not been started");
        return;
    };
    let expired = Duration::from_secs(TOKEN_SECONDS + 60 + 10 + 5);
    thread::sleep(expired.saturating_sub(start.elapsed()));
    let way = PortForward::open(NAME, SHORT_TOKEN_POD, 8080);
    // Asking makes it fetch, if the last fetch was more than five seconds ago: what counts is the
    // answer after that.
    way.get("/healthz");
    thread::sleep(Duration::from_secs(7));
    assert_eq!(way.get("/healthz"), (200, "ok".to_owned()));
    let log = kube::log(NAME, SHORT_TOKEN_POD);
    assert!(!log.contains("unauthorized"), "{log}");
    println!(
        "   a token of {TOKEN_SECONDS} s was renewed: well {} after the pod was made",
        seconds(start.elapsed())
    );
}
