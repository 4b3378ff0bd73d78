//! The gateway under test: the real binary, a child process, on ports the kernel chose.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::ops::Deref;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{self, Response};
use crate::fake_api::{FakeApi, SOON};

/// The binary under test: `$GATEWAY`, such as a static one, or the one that cargo has just built.
pub(crate) fn binary() -> OsString {
    env::var_os("GATEWAY").unwrap_or_else(|| env!("CARGO_BIN_EXE_kube-issuer-gateway").into())
}

/// Whether the binary under test is loaded by the dynamic linker, which stands in it by name.
pub(crate) fn is_dynamic() -> bool {
    let bytes = std::fs::read(binary()).expect("read the binary");
    bytes.windows(9).any(|nine| nine == b"/ld-linux")
}

/// A gateway that listens.
pub(crate) struct Gateway {
    process: Process,
    pub(crate) public: SocketAddr,
    /// None when it was told to have none.
    pub(crate) admin: Option<SocketAddr>,
}

/// A gateway to be started: settings and arguments.
pub(crate) struct Builder {
    command: Command,
}

/// The child itself, whether it listens or not; killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: Arc<Log>,
}

/// How a child ended and what it said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) log: String,
}

impl Gateway {
    /// Starts it in front of `api` and returns once it says that it listens.
    pub(crate) fn start(api: &FakeApi) -> Self {
        Self::builder(api).start()
    }

    /// With the settings that lead to `api`, and free ports.
    pub(crate) fn builder(api: &FakeApi) -> Builder {
        let mut command = Command::new(binary());
        command.env_clear().stdin(Stdio::null());
        // Where a binary built by `make coverage` counts the lines that it runs.
        command.envs(env::var_os("LLVM_PROFILE_FILE").map(|path| ("LLVM_PROFILE_FILE", path)));
        Builder { command }
            .set("LISTEN_ADDR", "127.0.0.1")
            .set("LISTEN_PORT", "0")
            .set("ADMIN_PORT", "0")
            .set("UPSTREAM_HOST", api.url())
            .set("SA_TOKEN_PATH", api.volume.token())
            .set("SA_CA_CERT_PATH", api.volume.ca())
    }

    /// One GET on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Response {
        client::get(self.public, path)
    }

    /// SIGTERM, then the end; `SHUTDOWN_DELAY_SECONDS` should be short.
    pub(crate) fn terminate(self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }

    pub(crate) fn wait(self) -> ExitStatus {
        self.process.wait()
    }
}

impl Deref for Gateway {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Builder {
    pub(crate) fn set(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn unset(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Started by this command, which must end up in the gateway: `unshare`, or `sh` and `exec`.
    pub(crate) fn under(self, wrapper: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        let variables = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.args(&wrapper[1..]).arg(self.command.get_program()).env_clear().envs(variables);
        command.stdin(Stdio::null());
        Self { command }
    }

    pub(crate) fn spawn(mut self) -> Process {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the gateway");
        let log = Arc::new(Log::default());
        let (stderr, writer) = (child.stderr.take().expect("stderr is piped"), Arc::clone(&log));
        thread::spawn(move || writer.read(stderr));
        Process { child, log }
    }

    pub(crate) fn start(self) -> Gateway {
        let process = self.spawn();
        let line = process.wait_for_log("listening public=");
        let address = |key| field(&line, key).filter(|value| *value != "off");
        let parse = |value: &str| value.parse().expect("an address");
        let public = address("public").map(parse).expect("the public address");
        let admin = address("admin").map(parse);
        Gateway { process, public, admin }
    }

    /// Runs it to its end, which must come soon.
    pub(crate) fn run(self) -> Ended {
        self.spawn().end()
    }
}

impl Process {
    /// The next line with `needle` in it that no earlier wait for the same needle returned; panics
    /// when none comes soon. So a second wait is for a second event, in whatever order others come.
    pub(crate) fn wait_for_log(&self, needle: &str) -> String {
        self.log.wait_for(needle)
    }

    /// Waits from here on find only lines that are still to come.
    pub(crate) fn forget_log(&self) {
        let mut lines = self.log.inner.lock().unwrap();
        lines.forgotten = lines.all.len();
    }

    /// All lines so far, to assert on what is not there.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    pub(crate) fn signal(&self, name: &str) {
        kill(name, &self.child.id().to_string());
    }

    /// Signals the one child of a wrapper that does not become the gateway itself.
    pub(crate) fn signal_child(&self, name: &str) {
        let children = self.proc(&format!("task/{}/children", self.child.id()));
        kill(name, std::fs::read_to_string(children).unwrap().trim());
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.log.inner.lock().unwrap().ended
    }

    /// Waits for the end, and reads what it said.
    pub(crate) fn end(mut self) -> Ended {
        self.log.wait_for_end();
        let code = self.child.wait().unwrap().code();
        let mut stdout = String::new();
        let mut pipe = self.child.stdout.take().expect("stdout is piped");
        pipe.read_to_string(&mut stdout).expect("text on stdout");
        Ended { code, stdout, log: self.log() }
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.log.wait_for_end();
        self.child.wait().unwrap()
    }

    pub(crate) fn threads(&self) -> usize {
        self.entries("task")
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.entries("fd")
    }

    pub(crate) fn descriptor_numbers(&self) -> Vec<i32> {
        let entries = std::fs::read_dir(self.proc("fd")).unwrap();
        entries
            .filter_map(|entry| {
                entry.unwrap().file_name().to_str().and_then(|name| name.parse().ok())
            })
            .collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that was resident since the start.
    pub(crate) fn peak_kib(&self) -> usize {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
    }

    fn entries(&self, name: &str) -> usize {
        std::fs::read_dir(self.proc(name)).unwrap().count()
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }
}

fn kill(name: &str, pid: &str) {
    let killed = Command::new("kill").args(["-s", name, pid]).status().expect("run kill");
    assert!(killed.success(), "kill: {killed}");
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the child has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of `key=value` in a line of the text log; what stands in quotes is one value.
pub(crate) fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (mut quoted, mut escaped) = (false, false);
    let separator = |c| {
        let separates = c == ' ' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    };
    line.split(separator)
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .map(|value| value.trim_matches('"'))
}

/// Asks again and again until `condition` holds, which must be soon: for what no line tells.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Every line of stderr since the start.
#[derive(Default)]
struct Log {
    inner: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    /// For each needle, the index after the line that was found last.
    found: HashMap<String, usize>,
    /// So many of the first lines are not looked at.
    forgotten: usize,
    ended: bool,
}

impl Log {
    fn read(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // By `eprintln!`, which shows it only when the test fails.
            eprintln!("gateway: {line}");
            self.inner.lock().unwrap().all.push(line);
            self.changed.notify_all();
        }
        self.inner.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    fn wait_for(&self, needle: &str) -> String {
        let lines = self.inner.lock().unwrap();
        let (mut lines, _) = self
            .changed
            .wait_timeout_while(lines, SOON, |lines| lines.next(needle).is_none() && !lines.ended)
            .unwrap();
        let Some(index) = lines.next(needle) else {
            // Or the panic would poison it for the thread that reads the log.
            drop(lines);
            panic!("no log line with {needle:?}");
        };
        lines.found.insert(needle.to_owned(), index + 1);
        lines.all[index].clone()
    }

    fn wait_for_end(&self) {
        let lines = self.inner.lock().unwrap();
        let (lines, _) =
            self.changed.wait_timeout_while(lines, SOON, |lines| !lines.ended).unwrap();
        let ended = lines.ended;
        drop(lines);
        assert!(ended, "still running after {SOON:?}");
    }

    fn text(&self) -> String {
        self.inner.lock().unwrap().all.join("\n")
    }
}

impl Lines {
    fn next(&self, needle: &str) -> Option<usize> {
        let found = self.found.get(needle).copied().unwrap_or_default();
        let from = found.max(self.forgotten);
        self.all.iter().skip(from).position(|line| line.contains(needle)).map(|n| from + n)
    }
}
