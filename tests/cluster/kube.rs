//! The cluster by kubectl, and the scripts of tests/kind: all that the scenarios know of it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use testing::wait;

use crate::load;

const CONTEXT: &str = "kind-kube-issuer-gateway";
/// Of deploy.yaml: its namespace, and the name of everything in it.
pub(crate) const NAME: &str = "kube-issuer-gateway";
/// Of the gateway's pods, however they were installed.
pub(crate) const LABEL: &str = "app.kubernetes.io/name=kube-issuer-gateway";

/// Runs a command to its end, with `input` for it to read; what it printed, or what went wrong.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<Printed, String> {
    let what = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{what}: {error}"))?;
    // A child that does not want it all ends the pipe early: its exit code tells what that means.
    drop(child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes())));
    let output = child.wait_with_output().map_err(|error| format!("{what}: {error}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let printed = Printed { out: text(&output.stdout), err: text(&output.stderr) };
    if output.status.success() {
        return Ok(printed);
    }
    Err(format!("{what}: {}: {}{}", output.status, printed.out, printed.err))
}

#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) out: String,
    pub(crate) err: String,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.args(["--context", CONTEXT]).args(arguments);
    command
}

pub(crate) fn try_kubectl(arguments: &[&str]) -> Result<String, String> {
    run(&mut command(arguments), "").map(|printed| printed.out)
}

#[track_caller]
pub(crate) fn kubectl(arguments: &[&str]) -> String {
    try_kubectl(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// With `input` on standard input, for `-f -`.
#[track_caller]
pub(crate) fn kubectl_with(input: &str, arguments: &[&str]) -> Printed {
    run(&mut command(arguments), input).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
pub(crate) fn json(arguments: &[&str]) -> Value {
    let text = kubectl(&[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).expect("JSON of kubectl")
}

/// One of tests/kind, run from the repository's root.
#[track_caller]
pub(crate) fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(format!("tests/kind/{name}"));
    command.args(arguments).envs(environment.iter().copied());
    run(&mut command, "").unwrap_or_else(|error| panic!("{error}")).out
}

/// Tries four times a second until it is done; panics with the last reason when the time is over.
#[track_caller]
pub(crate) fn within<T>(
    limit: Duration,
    what: &str,
    attempt: impl FnMut() -> Result<T, String>,
) -> T {
    wait::within(limit, Duration::from_millis(250), what, attempt)
}

/// A Deployment of the gateway.
#[derive(Clone, Copy)]
pub(crate) struct Deployment {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
}

/// What a pod is at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) restarts: i64,
    pub(crate) ready: bool,
    /// Whether it was told to stop.
    pub(crate) stopping: bool,
    pub(crate) uid: String,
}

impl Deployment {
    /// Its pods, those that stop too, by name.
    pub(crate) fn pods(self) -> Vec<Pod> {
        let list = json(&["-n", self.namespace, "get", "pods", "-l", LABEL]);
        let mut pods: Vec<_> = list["items"].as_array().unwrap().iter().map(Pod::read).collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        pods
    }

    fn target(self) -> String {
        format!("deployment/{}", self.name)
    }

    /// Waits until all pods are ready, and no old one is left.
    #[track_caller]
    pub(crate) fn settle(self) {
        let status = ["-n", self.namespace, "rollout", "status", &self.target(), "--timeout=180s"];
        kubectl(&status);
        let wanted =
            json(&["-n", self.namespace, "get", &self.target()])["spec"]["replicas"].clone();
        within(Duration::from_secs(120), "only ready pods, as many as wanted", || {
            let pods = self.pods();
            let good = pods.iter().all(|pod| pod.ready && !pod.stopping);
            if good && wanted == pods.len() { Ok(()) } else { Err(format!("{pods:?}")) }
        });
    }

    #[track_caller]
    pub(crate) fn restart(self) {
        kubectl(&["-n", self.namespace, "rollout", "restart", &self.target()]);
        self.settle();
    }

    #[track_caller]
    pub(crate) fn scale(self, replicas: &str) {
        kubectl(&["-n", self.namespace, "scale", &self.target(), "--replicas", replicas]);
        self.settle();
    }

    /// Changes the pods' template until the guard is dropped. The rollout is not waited for.
    #[track_caller]
    pub(crate) fn change(self, patch: &Value) -> Changed {
        let was = json(&["-n", self.namespace, "get", &self.target()]);
        let revision = &was["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
        let undo = format!("--to-revision={}", revision.as_str().unwrap());
        kubectl(&["-n", self.namespace, "patch", &self.target(), "-p", &patch.to_string()]);
        Changed { deployment: self, undo }
    }

    /// What all its pods have logged, those that stop or ended too.
    pub(crate) fn log(self) -> String {
        let pods = self.pods();
        pods.iter().map(|pod| log(self.namespace, &pod.name)).collect()
    }
}

pub(crate) fn log(namespace: &str, pod: &str) -> String {
    try_kubectl(&["-n", namespace, "logs", pod]).unwrap_or_default()
}

/// A line of a log that holds all of these.
#[track_caller]
pub(crate) fn assert_line(log: &str, words: &[&str]) {
    let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let lines: Vec<_> = log.lines().filter(|line| !line.contains(" request path=")).collect();
    assert!(found, "no line with {words:?} in:\n{}", lines.join("\n"));
}

/// A change of a Deployment's pods, undone when dropped.
pub(crate) struct Changed {
    deployment: Deployment,
    undo: String,
}

impl Drop for Changed {
    fn drop(&mut self) {
        let Deployment { namespace, name } = self.deployment;
        put_back(|| {
            kubectl(&["-n", namespace, "rollout", "undo", "deployment", name, &self.undo]);
            self.deployment.settle();
        });
    }
}

/// A second panic, while the first is under way, would end the process.
fn put_back(what: impl FnOnce()) {
    if thread::panicking() {
        drop(catch_unwind(AssertUnwindSafe(what)));
    } else {
        what();
    }
}

impl Pod {
    fn read(pod: &Value) -> Self {
        let statuses = pod["status"]["containerStatuses"].as_array();
        let container = statuses.and_then(|all| all.first()).unwrap_or(&Value::Null);
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
        Self {
            name: pod["metadata"]["name"].as_str().unwrap().to_owned(),
            uid: pod["metadata"]["uid"].as_str().unwrap().to_owned(),
            restarts: container["restartCount"].as_i64().unwrap_or(0),
            // Not the container's: with its node taken for lost, a pod is not ready either.
            ready: ready.any(|condition| condition["status"] == "True"),
            stopping: pod["metadata"]["deletionTimestamp"].is_string(),
        }
    }
}

/// Runs something when dropped: what a scenario changed is put back, however it ends.
pub(crate) struct AtEnd<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        put_back(&mut self.0);
    }
}

/// A way to one port of a pod, ready or not, by `kubectl port-forward`; ended when dropped.
pub(crate) struct PortForward {
    child: Child,
    /// kubectl writes a line for each connection, and ends when it cannot.
    _printed: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl PortForward {
    #[track_caller]
    pub(crate) fn open(namespace: &str, pod: &str, port: u16) -> Self {
        let (pod, port) = (format!("pod/{pod}"), format!(":{port}"));
        let arguments = ["-n", namespace, "port-forward", "--address", "127.0.0.1", &pod, &port];
        let mut child = command(&arguments).stdout(Stdio::piped()).spawn().expect("kubectl");
        let mut line = String::new();
        let mut printed = BufReader::new(child.stdout.take().unwrap());
        printed.read_line(&mut line).unwrap();
        // Forwarding from 127.0.0.1:40001 -> 8081
        let address = line.split(' ').nth(2).and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("port-forward said {line:?}"));
        Self { child, _printed: printed, address }
    }

    /// One GET, of which the status and the body without its line's end are given.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let answer = load::get_at(self.address, path).expect("an answer by port-forward");
        (answer.status, load::text(&answer))
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

/// Pods as they come up: how long each took from scheduled to ready, by the clock of this process.
///
/// The times in a pod's conditions are whole seconds, which is as long as it takes.
pub(crate) struct StartUps {
    child: Child,
    reader: Option<JoinHandle<Vec<Duration>>>,
}

impl StartUps {
    #[track_caller]
    pub(crate) fn watch(namespace: &str) -> Self {
        const COLUMNS: &str = "jsonpath={.metadata.name} \
            {.status.conditions[?(@.type==\"PodScheduled\")].status}\
            {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}";
        let arguments =
            ["-n", namespace, "get", "pods", "-l", LABEL, "--watch-only", "-o", COLUMNS];
        let mut child = command(&arguments).stdout(Stdio::piped()).spawn().expect("kubectl");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let read = move || {
            let mut scheduled = BTreeMap::new();
            let mut took = Vec::new();
            for line in lines {
                let (pod, conditions) = line.split_once(' ').unwrap_or_default();
                if conditions.starts_with("True") {
                    scheduled.entry(pod.to_owned()).or_insert_with(|| Some(Instant::now()));
                }
                if conditions == "TrueTrue"
                    && let Some(since) = scheduled.get_mut(pod).and_then(Option::take)
                    // A pod that was ready before the watch began shows both at once.
                    && since.elapsed() > Duration::from_millis(20)
                {
                    took.push(since.elapsed());
                }
            }
            took
        };
        let reader = thread::Builder::new().name("start-ups".to_owned()).spawn(read).unwrap();
        Self { child, reader: Some(reader) }
    }

    /// The durations so far, the shortest first.
    pub(crate) fn stop(mut self) -> Vec<Duration> {
        end(&mut self.child);
        let mut took = self.reader.take().unwrap().join().unwrap();
        took.sort_unstable();
        took
    }
}

impl Drop for StartUps {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// What the kubelet's cAdvisor tells of a pod's cgroup, all containers together.
#[derive(Clone, Copy, Default)]
struct Usage {
    peak: f64,
    periods: f64,
    throttled: f64,
    oom_kills: f64,
    /// Milliseconds since 1970.
    at: f64,
}

/// Reads them every few seconds, of all the gateway's pods, also of those that go.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<String, Usage>>>,
    thread: Option<JoinHandle<()>>,
}

/// The sum over all pods of the run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Total {
    pub(crate) periods: f64,
    pub(crate) throttled: f64,
    pub(crate) oom_kills: f64,
}

impl Sampler {
    pub(crate) fn start() -> Self {
        let node = kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
        let path = format!("/api/v1/nodes/{node}/proxy/metrics/cadvisor");
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let run = {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // While the API server is away there is nothing to read.
                    if let Ok(text) = try_kubectl(&["get", "--request-timeout=5s", "--raw", &path])
                    {
                        read_usage(&text, &mut seen.lock().unwrap());
                    }
                    thread::sleep(Duration::from_secs(3));
                }
            }
        };
        let thread = thread::Builder::new().name("sampler".to_owned()).spawn(run).unwrap();
        Self { stop, seen, thread: Some(thread) }
    }

    pub(crate) fn total(&self) -> Total {
        self.seen.lock().unwrap().values().fold(Total::default(), |sum, usage| Total {
            periods: sum.periods + usage.periods,
            throttled: sum.throttled + usage.throttled,
            oom_kills: sum.oom_kills + usage.oom_kills,
        })
    }

    /// The highest memory peak of these pods; of all that were ever seen when there are none.
    pub(crate) fn peak(&self, pods: &[Pod]) -> f64 {
        let seen = self.seen.lock().unwrap();
        let wanted = |name: &str| pods.is_empty() || pods.iter().any(|pod| pod.name == name);
        seen.iter()
            .filter(|(name, _)| wanted(name))
            .map(|(_, usage)| usage.peak)
            .fold(0.0, f64::max)
    }

    /// Waits until the figures of these pods are younger than now: cAdvisor looks every ten to
    /// twenty seconds.
    #[track_caller]
    pub(crate) fn refresh(&self, pods: &[Pod]) {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() * 1000.0;
        within(Duration::from_secs(60), "fresh figures of cAdvisor", || {
            let seen = self.seen.lock().unwrap();
            let old =
                pods.iter().find(|pod| seen.get(&pod.name).is_none_or(|usage| usage.at < now));
            old.map_or(Ok(()), |pod| Err(pod.name.clone()))
        });
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Packets that the machine dropped since its table of connections was full, which is then why
/// requests were lost. 0 where the kernel does not tell.
pub(crate) fn dropped_packets() -> u64 {
    let text = std::fs::read_to_string("/proc/net/stat/nf_conntrack").unwrap_or_default();
    let mut lines = text.lines();
    let column =
        lines.next().unwrap_or_default().split_whitespace().position(|word| word == "drop");
    let dropped = |line: &str| {
        let word = column.and_then(|column| line.split_whitespace().nth(column));
        word.and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0)
    };
    lines.map(dropped).sum()
}

/// Lines such as `name{container="",…,namespace="n",pod="p"} 4.067328e+06 1795410776582`; those
/// of a pod as a whole have an empty container and an empty name.
fn read_usage(text: &str, seen: &mut BTreeMap<String, Usage>) {
    let whole = |line: &&str| line.contains("{container=\"\"") && line.contains(",name=\"\"");
    for line in text.lines().filter(whole) {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let Some(pod) = label(",pod").filter(|pod| pod.contains(NAME)) else { continue };
        let mut numbers = line.rsplit(' ').filter_map(|number| number.parse::<f64>().ok());
        let (Some(at), Some(value)) = (numbers.next(), numbers.next()) else { continue };
        let usage = seen.entry(pod.to_owned()).or_default();
        let slot = match line.split('{').next().unwrap_or_default() {
            "container_memory_max_usage_bytes" => &mut usage.peak,
            "container_cpu_cfs_periods_total" => &mut usage.periods,
            "container_cpu_cfs_throttled_periods_total" => &mut usage.throttled,
            "container_oom_events_total" => &mut usage.oom_kills,
            _ => continue,
        };
        *slot = slot.max(value);
        usage.at = usage.at.max(at);
    }
}
