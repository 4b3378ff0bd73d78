//! The gateway: the real binary, a child process, on ports the kernel chose, in front of a [`FakeApi`].

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use crate::client::{self, Response};
use crate::fake_api::FakeApi;
use crate::wait::SOON;

/// The gateway: `$GATEWAY`, such as a static one, or the one that cargo has built beside this program.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(given) = env::var_os("GATEWAY").filter(|given| !given.is_empty()) {
        return given.into();
    }
    let mut path = env::current_exe().expect("the path of this program");
    path.pop();
    // Where tests are.
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("kube-issuer-gateway")
}

/// Whether [`binary`] is loaded by the dynamic linker, whose name is in it.
#[must_use]
pub fn is_dynamic() -> bool {
    let bytes = std::fs::read(binary()).expect("read the binary");
    bytes.windows(9).any(|nine| nine == b"/ld-linux")
}

/// A gateway that listens.
pub struct Gateway {
    process: Process,
    /// The listener for the documents.
    pub public: SocketAddr,
    /// The admin listener; none with `ADMIN_PORT=off`.
    pub admin: Option<SocketAddr>,
}

/// A gateway to be started: settings and arguments.
pub struct Builder {
    command: Command,
    /// Whether its lines are shown, and all kept.
    is_quiet: bool,
}

/// The child itself, whether it listens or not; it is killed when this is dropped.
pub struct Process {
    child: Child,
    log: Arc<Log>,
}

/// How a child ended and what it said.
pub struct Ended {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub log: String,
}

impl Gateway {
    /// Starts it in front of `api` and returns once it says that it listens.
    pub fn start(api: &FakeApi) -> Self {
        Self::builder(api).start()
    }

    /// With the settings for `api`, free ports, and no other variable in its environment.
    #[must_use]
    pub fn builder(api: &FakeApi) -> Builder {
        let mut command = Command::new(binary());
        command.env_clear().stdin(Stdio::null());
        // Where a binary built by `make coverage` counts the lines that it runs.
        command.envs(env::var_os("LLVM_PROFILE_FILE").map(|path| ("LLVM_PROFILE_FILE", path)));
        Builder { command, is_quiet: false }
            .set("LISTEN_ADDR", "127.0.0.1")
            .set("LISTEN_PORT", "0")
            .set("ADMIN_PORT", "0")
            .set("UPSTREAM_HOST", api.url())
            .set("SA_TOKEN_PATH", api.volume.token())
            .set("SA_CA_CERT_PATH", api.volume.ca())
    }

    /// As [`Self::builder`], with a round every 0.2 seconds.
    #[must_use]
    pub fn quick(api: &FakeApi) -> Builder {
        Self::builder(api).set("CACHE_TTL_SECONDS", "0.2")
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        client::get(self.public, path)
    }

    /// SIGTERM, then the end; `SHUTDOWN_DELAY_SECONDS` should be short.
    pub fn terminate(self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }

    /// Waits for the end.
    pub fn wait(self) -> ExitStatus {
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
    /// Sets a variable of its environment.
    #[must_use]
    pub fn set(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable of its environment away.
    #[must_use]
    pub fn unset(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// For a load: its lines are not shown, and access lines not kept.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    /// Started by this command, which must end up in the gateway: `unshare`, or `sh` and `exec`.
    /// Arguments that were added before are left out, those that are added later are the command's.
    #[must_use]
    pub fn under(self, wrapper: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        let variables = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.args(&wrapper[1..]).arg(self.command.get_program()).env_clear().envs(variables);
        command.stdin(Stdio::null());
        Self { command, ..self }
    }

    /// The command, for a program that reads the log itself.
    #[must_use]
    pub fn command(self) -> Command {
        self.command
    }

    /// Starts it and does not wait.
    #[must_use]
    #[track_caller]
    pub fn spawn(mut self) -> Process {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", binary().display()));
        let log = Arc::new(Log { is_quiet: self.is_quiet, ..Log::default() });
        let (stderr, writer) = (child.stderr.take().expect("stderr is piped"), Arc::clone(&log));
        thread::spawn(move || writer.read(stderr));
        Process { child, log }
    }

    /// Starts it and returns once it says that it listens.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let process = self.spawn();
        let line = process.wait_for_log("listening public=");
        let address = |key| field(&line, key).filter(|value| *value != "off");
        let parse = |value: &str| value.parse().expect("an address");
        let public = address("public").map(parse).expect("the public address");
        let admin = address("admin").map(parse);
        Gateway { process, public, admin }
    }

    /// Runs it to its end, which must come soon.
    #[must_use]
    #[track_caller]
    pub fn run(self) -> Ended {
        self.spawn().end()
    }
}

impl Process {
    /// The next line with `needle` in it that no earlier wait for the same needle returned; panics
    /// when none comes soon. So a second wait is for a second event, in whatever order others come.
    #[track_caller]
    pub fn wait_for_log(&self, needle: &str) -> String {
        self.log.wait_for(needle)
    }

    /// Waits from here on find only lines that are still to come.
    pub fn forget_log(&self) {
        let mut lines = self.log.inner.lock().unwrap();
        lines.forgotten = lines.all.len();
    }

    /// When the first line with `needle` in it was read; none while there is none.
    #[must_use]
    pub fn logged_at(&self, needle: &str) -> Option<Instant> {
        let lines = self.log.inner.lock().unwrap();
        lines.all.iter().find(|(_, line)| line.contains(needle)).map(|(at, _)| *at)
    }

    /// All lines so far, to assert on what is not there.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Sends a signal: `TERM`, `INT`, …
    pub fn signal(&self, name: &str) {
        kill(name, &self.child.id().to_string());
    }

    /// Signals the one child of a wrapper that does not become the gateway itself.
    pub fn signal_child(&self, name: &str) {
        let children = self.proc(&format!("task/{}/children", self.child.id()));
        kill(name, std::fs::read_to_string(children).unwrap().trim());
    }

    /// Whether its standard error has ended, and so the process.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.log.inner.lock().unwrap().ended
    }

    /// Waits for the end, and reads what it said.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        self.log.wait_for_end();
        let code = self.child.wait().unwrap().code();
        let mut stdout = String::new();
        let mut pipe = self.child.stdout.take().expect("stdout is piped");
        pipe.read_to_string(&mut stdout).expect("text on stdout");
        Ended { code, stdout, log: self.log() }
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        self.log.wait_for_end();
        self.child.wait().unwrap()
    }

    /// How many threads it has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.entries("task")
    }

    /// How many descriptors it has open.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.entries("fd")
    }

    /// Which descriptors it has open.
    #[must_use]
    pub fn descriptor_numbers(&self) -> Vec<i32> {
        let entries = std::fs::read_dir(self.proc("fd")).unwrap();
        entries
            .filter_map(|entry| {
                entry.unwrap().file_name().to_str().and_then(|name| name.parse().ok())
            })
            .collect()
    }

    /// Its process ID, or that of the command that started it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that was resident since the start, in KiB.
    #[must_use]
    pub fn peak_kib(&self) -> usize {
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
#[must_use]
pub fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
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

/// Every line of stderr since the start.
#[derive(Default)]
struct Log {
    is_quiet: bool,
    inner: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    /// Each with the time at which it was read.
    all: Vec<(Instant, String)>,
    /// For each needle, the index after the line that was found last.
    found: HashMap<String, usize>,
    /// So many of the first lines are not looked at.
    forgotten: usize,
    ended: bool,
}

impl Log {
    fn read(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if !self.is_quiet {
                // By `eprintln!`, which shows it only when the test fails.
                eprintln!("gateway: {line}");
            } else if line.contains(" request path=") {
                continue;
            }
            self.inner.lock().unwrap().all.push((Instant::now(), line));
            self.changed.notify_all();
        }
        self.inner.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    #[track_caller]
    fn wait_for(&self, needle: &str) -> String {
        let lines = self.inner.lock().unwrap();
        let (mut lines, _) = self
            .changed
            .wait_timeout_while(lines, SOON, |lines| lines.next(needle).is_none() && !lines.ended)
            .unwrap();
        let Some(index) = lines.next(needle) else {
            // Or the panic would poison it for the thread that reads the log.
            drop(lines);
            let log = if self.is_quiet { self.text() } else { String::new() };
            panic!("no log line with {needle:?} {log}");
        };
        lines.found.insert(needle.to_owned(), index + 1);
        lines.all[index].1.clone()
    }

    #[track_caller]
    fn wait_for_end(&self) {
        let lines = self.inner.lock().unwrap();
        let (lines, _) =
            self.changed.wait_timeout_while(lines, SOON, |lines| !lines.ended).unwrap();
        let ended = lines.ended;
        drop(lines);
        assert!(ended, "still running after {SOON:?}");
    }

    fn text(&self) -> String {
        let lines = self.inner.lock().unwrap();
        lines.all.iter().map(|(_, line)| &**line).collect::<Vec<_>>().join("\n")
    }
}

impl Lines {
    fn next(&self, needle: &str) -> Option<usize> {
        let found = self.found.get(needle).copied().unwrap_or_default();
        let from = found.max(self.forgotten);
        self.all.iter().skip(from).position(|(_, line)| line.contains(needle)).map(|n| from + n)
    }
}
