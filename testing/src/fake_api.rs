//! A Kubernetes API server of two endpoints: real TCP, real TLS with a CA of its own, a real ES256
//! key, and the service account volume that the kubelet would mount.
//!
//! The test sets what each path answers, at any time, and reads which requests came. Nothing here sleeps: a thread waits in `accept`,
//! in a read or on `changed`, and [`FakeApi`]'s drop ends all three.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::CertificateParams;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::certificates::{named_ca, self_signed, server, signed_by};
use crate::wait::SOON;

/// The path of the discovery document.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";
/// The path of the key set.
pub const JWKS: &str = "/openid/v1/jwks";
/// The issuer of the discovery document.
pub const ISSUER: &str = "https://issuer.example";
/// The default of kube-apiserver: its own address, which nobody outside can reach.
pub const INTERNAL_JWKS_URI: &str = "https://10.96.0.1:6443/openid/v1/jwks";
/// The gateway's token at the start.
pub const FIRST_TOKEN: &str = "token-1";
/// In the body of every error: no client of the gateway may see it.
pub const UPSTREAM_TEXT: &str = "text of the API server";

/// What a path answers from now on.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 200 with a body.
    Ok {
        /// Its `Content-Type`.
        content_type: &'static str,
        /// The body.
        body: String,
    },
    /// The body is a `Status` object, as the API server sends it.
    Status(u16),
    /// 302 to this location.
    Redirect(String),
    /// Nothing, until the path is given another answer, which is sent then.
    Hang,
    /// 200, one byte of the body after each pause.
    Drip {
        /// The body.
        body: String,
        /// Before each byte but the first.
        pause: Duration,
    },
    /// Announces more body than it sends, then closes the connection.
    Truncated {
        /// What is sent of the body.
        body: String,
    },
    /// Reads the request and closes the connection.
    Close,
}

impl Answer {
    /// What kube-apiserver sends with the discovery document.
    pub fn discovery(body: impl Into<String>) -> Self {
        Self::Ok { content_type: "application/json", body: body.into() }
    }

    /// What kube-apiserver sends with the key set.
    pub fn jwks(body: impl Into<String>) -> Self {
        Self::Ok { content_type: "application/jwk-set+json", body: body.into() }
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target, with its query.
    pub path: String,
    /// All header lines, in order.
    pub head: Vec<String>,
    /// The number of the connection, counted from 1.
    pub connection: usize,
}

impl Request {
    /// The value of the first header line with this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .iter()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(n, value)| n.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// The API server; it ends when this is dropped.
pub struct FakeApi {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where the gateway finds its token and the CA.
    pub volume: Volume,
    key: Mutex<SigningKey>,
    listener: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Notified of every request, every new answer and the end.
    changed: Condvar,
}

struct State {
    listening: bool,
    /// Set by drop: no thread may wait any more.
    over: bool,
    ca_pem: String,
    tls: Arc<ServerConfig>,
    tokens: Vec<String>,
    answers: HashMap<String, Answer>,
    hang_up_on_reuse: bool,
    cache_control: String,
    requests: Vec<Request>,
    accepted: usize,
    /// The open connections by number.
    open: HashMap<usize, Connection>,
}

struct Connection {
    /// Of the connection's own socket, to shut it from outside.
    socket: TcpStream,
    answering: bool,
}

impl FakeApi {
    /// Starts on a free port; answers both documents to whoever shows [`FIRST_TOKEN`].
    #[must_use]
    pub fn start() -> Self {
        let key = SigningKey::generate();
        let (ca_pem, tls) = tls();
        let tls = Arc::new(tls);
        let volume = Volume::create();
        volume.write(FIRST_TOKEN, &ca_pem);
        let answers = HashMap::from([
            (DISCOVERY.to_owned(), Answer::discovery(discovery(ISSUER, INTERNAL_JWKS_URI))),
            (JWKS.to_owned(), Answer::jwks(key_set(&[key.jwk()]))),
        ]);
        let state = State {
            listening: false,
            over: false,
            ca_pem,
            tls,
            tokens: vec![FIRST_TOKEN.to_owned()],
            answers,
            hang_up_on_reuse: false,
            cache_control: "no-cache, private".to_owned(),
            requests: Vec::new(),
            accepted: 0,
            open: HashMap::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = Self {
            address: listener.local_addr().unwrap(),
            volume,
            key: Mutex::new(key),
            listener: Mutex::new(None),
            shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }),
        };
        api.listen(listener);
        api
    }

    /// For `UPSTREAM_HOST`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    // What it answers.

    /// `path` gets this answer from now on, and so do requests that hang.
    pub fn set(&self, path: &str, answer: Answer) {
        self.state().answers.insert(path.to_owned(), answer);
        self.shared.changed.notify_all();
    }

    /// Both documents get this answer.
    pub fn set_both(&self, answer: &Answer) {
        self.set(DISCOVERY, answer.clone());
        self.set(JWKS, answer.clone());
    }

    /// Both documents are as at the start, with the current key.
    pub fn set_good(&self) {
        self.set(DISCOVERY, Answer::discovery(discovery(ISSUER, INTERNAL_JWKS_URI)));
        self.set(JWKS, Answer::jwks(self.jwks()));
    }

    /// The tokens that are accepted from now on; any other gets 401.
    pub fn accept_tokens(&self, tokens: &[&str]) {
        self.state().tokens = tokens.iter().map(|&token| token.to_owned()).collect();
    }

    /// From now on a request that is not the first on its connection finds it closed: the race
    /// that every pool of connections loses now and then.
    pub fn hang_up_on_reuse(&self) {
        self.state().hang_up_on_reuse = true;
    }

    /// From now on every answer says that it is valid for so many seconds.
    pub fn set_max_age(&self, seconds: u32) {
        self.state().cache_control = format!("public, max-age={seconds}");
    }

    // Its keys.

    /// The key set that it would serve now.
    #[must_use]
    pub fn jwks(&self) -> String {
        key_set(&[self.key.lock().unwrap().jwk()])
    }

    /// The name of the key that it signs with: the SHA-256 of its public half.
    #[must_use]
    pub fn kid(&self) -> String {
        self.key.lock().unwrap().kid.clone()
    }

    /// Signs with a new key from now on, and serves only that one.
    pub fn rotate_key(&self) {
        *self.key.lock().unwrap() = SigningKey::generate();
        self.set(JWKS, Answer::jwks(self.jwks()));
    }

    /// A JWT with these claims, as `kubectl create token` would print it.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.key.lock().unwrap().sign(claims)
    }

    // Its certificate and its connections.

    /// The CA of its certificate.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.state().ca_pem.clone()
    }

    /// New connections get a certificate of a new CA, which the volume does not hold yet.
    pub fn rotate_ca(&self) {
        let (ca_pem, tls) = tls();
        let mut state = self.state();
        state.ca_pem = ca_pem;
        state.tls = Arc::new(tls);
    }

    /// New connections get this certificate and these parameters.
    pub fn set_tls(&self, tls: ServerConfig) {
        self.state().tls = Arc::new(tls);
    }

    /// Closes every connection that waits for its next request.
    pub fn close_idle_connections(&self) {
        for connection in self.state().open.values().filter(|connection| !connection.answering) {
            connection.shut();
        }
    }

    /// As if its process were killed: connections are cut, new ones refused.
    pub fn go_down(&self) {
        {
            let mut state = self.state();
            state.listening = false;
            state.open.values().for_each(Connection::shut);
        }
        let listener = self.listener.lock().unwrap().take();
        if let Some(listener) = listener {
            // Wakes it; it may have ended already.
            let _ = TcpStream::connect(self.address);
            listener.join().unwrap();
        }
    }

    /// Listens again, on the same port.
    pub fn come_back(&self) {
        self.listen(TcpListener::bind(self.address).expect("the same port"));
    }

    /// Listens on this port of the same address from now on, and on no other.
    #[must_use]
    pub fn moved_to_port(mut self, port: u16) -> Self {
        self.go_down();
        self.address.set_port(port);
        self.come_back();
        self
    }

    // What came.

    /// All requests since the start.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// How often `path` was asked for since the start.
    #[must_use]
    pub fn count(&self, path: &str) -> usize {
        count(&self.state().requests, path)
    }

    /// How many connections were accepted since the start, whatever became of them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state().accepted
    }

    /// Waits until `path` was asked for `n` times since the start.
    #[track_caller]
    pub fn wait_for_count(&self, path: &str, n: usize) {
        let came = self.wait_until(SOON, |requests| count(requests, path) >= n);
        assert!(came, "{path} was asked for {} times, not {n}", self.count(path));
    }

    /// Waits for `n` more requests for `path`, the first of which may be under way.
    #[track_caller]
    pub fn wait_for_more(&self, path: &str, n: usize) {
        self.wait_for_count(path, self.count(path) + n);
    }

    /// Waits until the requests since the start fulfil `condition`; false when they never did.
    pub fn wait_until(&self, patience: Duration, condition: impl Fn(&[Request]) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        while !condition(&state.requests) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    fn listen(&self, listener: TcpListener) {
        self.state().listening = true;
        let shared = Arc::clone(&self.shared);
        let thread = thread::spawn(move || shared.accept_all(&listener));
        *self.listener.lock().unwrap() = Some(thread);
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.state().over = true;
        self.shared.changed.notify_all();
        self.go_down();
    }
}

fn count(requests: &[Request], path: &str) -> usize {
    requests.iter().filter(|request| request.path == path).count()
}

impl Connection {
    fn shut(&self) {
        // Fails when the peer was faster.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn accept_all(self: Arc<Self>, listener: &TcpListener) {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            // As Go has it by default.
            socket.set_nodelay(true).unwrap();
            let mut state = self.state.lock().unwrap();
            if !state.listening {
                return;
            }
            state.accepted += 1;
            let number = state.accepted;
            let connection = Connection { socket: socket.try_clone().unwrap(), answering: false };
            state.open.insert(number, connection);
            let tls = Arc::clone(&state.tls);
            let shared = Arc::clone(&self);
            thread::spawn(move || {
                let session = StreamOwned::new(ServerConnection::new(tls).unwrap(), socket);
                // Ends at end of file or with an error, both of which tests provoke.
                let _ = shared.serve(BufReader::new(session), number);
                shared.state.lock().unwrap().open.remove(&number);
            });
        }
    }

    fn serve(&self, mut session: Session, number: usize) -> io::Result<()> {
        for n in 0.. {
            let Some(request) = read_request(&mut session, number)? else { return Ok(()) };
            let reused = n > 0;
            let Some(answer) = self.answer_to(&request, reused) else { return Ok(()) };
            self.send(&mut session, &answer)?;
            if let Some(connection) = self.state.lock().unwrap().open.get_mut(&number) {
                connection.answering = false;
            }
        }
        Ok(())
    }

    /// Notes the request and returns its answer, as soon as there is one; none at the end.
    fn answer_to(&self, request: &Request, reused: bool) -> Option<Answer> {
        let mut state = self.state.lock().unwrap();
        state.requests.push(request.clone());
        if let Some(connection) = state.open.get_mut(&request.connection) {
            connection.answering = true;
        }
        self.changed.notify_all();
        loop {
            let answer = state.answer_to(request, reused);
            if state.over {
                return None;
            }
            if !matches!(answer, Answer::Hang) {
                return Some(answer);
            }
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Writes the answer; an error when it ends with the end of the connection.
    fn send(&self, session: &mut Session, answer: &Answer) -> io::Result<()> {
        let session = session.get_mut();
        let control = self.state.lock().unwrap().cache_control.clone();
        let close = Err(io::ErrorKind::ConnectionAborted.into());
        match answer {
            Answer::Ok { content_type, body } => {
                session.write_all(head(200, content_type, body.len(), &control).as_bytes())?;
                session.write_all(body.as_bytes())
            }
            Answer::Status(status) => {
                let body = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": UPSTREAM_TEXT, "code": status,
                })
                .to_string();
                session.write_all(
                    head(*status, "application/json", body.len(), &control).as_bytes(),
                )?;
                session.write_all(body.as_bytes())
            }
            Answer::Redirect(location) => write!(
                session,
                "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            ),
            Answer::Drip { body, pause } => {
                session
                    .write_all(head(200, "application/json", body.len(), &control).as_bytes())?;
                for byte in body.as_bytes() {
                    session.write_all(&[*byte])?;
                    self.pause(*pause)?;
                }
                Ok(())
            }
            Answer::Truncated { body } => {
                let announced = body.len() + 100;
                session.write_all(head(200, "application/json", announced, &control).as_bytes())?;
                session.write_all(body.as_bytes())?;
                session.conn.send_close_notify();
                session.flush()?;
                close
            }
            Answer::Hang | Answer::Close => close,
        }
    }

    fn pause(&self, pause: Duration) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, pause, |state| !state.over).unwrap();
        if waited.0.over { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl State {
    fn answer_to(&self, request: &Request, reused: bool) -> Answer {
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if reused && self.hang_up_on_reuse {
            Answer::Close
        } else if !token.is_some_and(|token| self.tokens.iter().any(|good| good == token)) {
            Answer::Status(401)
        } else {
            match self.answers.get(&request.path) {
                Some(Answer::Ok { content_type, .. }) if !accepts(request, content_type) => {
                    Answer::Status(406)
                }
                Some(answer) => answer.clone(),
                None => Answer::Status(404),
            }
        }
    }
}

/// Whether `Accept` allows this type; parameters do not matter to kube-apiserver either.
fn accepts(request: &Request, content_type: &str) -> bool {
    request.header("accept").is_none_or(|ranges| {
        ranges
            .split(',')
            .map(|range| range.split(';').next().unwrap_or_default().trim())
            .any(|range| [content_type, "application/*", "*/*"].contains(&range))
    })
}

fn head(status: u16, content_type: &str, length: usize, control: &str) -> String {
    // `Audit-Id` and the like come from a real one too, and must go no further.
    format!(
        "HTTP/1.1 {status} -\r\nAudit-Id: 6f0d1e8a\r\nCache-Control: {control}\r\n\
         Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
}

type Session = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// None at the end of the stream.
fn read_request(session: &mut Session, connection: usize) -> io::Result<Option<Request>> {
    let mut lines = session.lines();
    let Some(line) = lines.next().transpose()? else { return Ok(None) };
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut head = Vec::new();
    for line in lines {
        match line? {
            line if line.is_empty() => break,
            line => head.push(line),
        }
    }
    Ok(Some(Request { method, path, head, connection }))
}

/// The discovery document of kube-apiserver: these members, in this order.
#[must_use]
pub fn discovery(issuer: &str, jwks_uri: &str) -> String {
    format!(
        r#"{{"issuer":"{issuer}","jwks_uri":"{jwks_uri}","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}}"#
    )
}

/// A key set of these keys.
#[must_use]
pub fn key_set(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// A key set of so many RSA keys, some 480 bytes each: the largest that a cluster may have.
#[must_use]
pub fn large_key_set(count: usize) -> String {
    let key = |number| {
        let modulus =
            [&[0xc0], &digest::digest(&digest::SHA512, &[number]).as_ref().repeat(4)[1..]];
        let (kid, n) = (format!("key-{number}"), URL_SAFE_NO_PAD.encode(modulus.concat()));
        json!({ "use": "sig", "kty": "RSA", "kid": kid, "alg": "RS256", "n": n, "e": "AQAB" })
    };
    let keys: Vec<_> = (0..=u8::MAX).map(key).take(count).map(|key| key.to_string()).collect();
    key_set(&keys)
}

/// What the API server signs tokens with.
struct SigningKey {
    pair: EcdsaKeyPair,
    kid: String,
}

impl SigningKey {
    fn generate() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        let hash = digest::digest(&digest::SHA256, pair.public_key().as_ref());
        Self { pair, kid: URL_SAFE_NO_PAD.encode(hash) }
    }

    /// The public half (RFC 7518 §6.2.1), members in kube-apiserver's order.
    fn jwk(&self) -> String {
        // An uncompressed point: 4, then x and y of 32 bytes each.
        let (x, y) = self.pair.public_key().as_ref().split_at(1).1.split_at(32);
        format!(
            r#"{{"use":"sig","kty":"EC","kid":"{}","crv":"P-256","alg":"ES256","x":"{}","y":"{}"}}"#,
            self.kid,
            URL_SAFE_NO_PAD.encode(x),
            URL_SAFE_NO_PAD.encode(y),
        )
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": self.kid });
        let [header, claims] =
            [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A fresh CA, in PEM, and a server that holds a certificate of it for 127.0.0.1 and localhost.
#[must_use]
pub fn tls() -> (String, ServerConfig) {
    // A name of its own each, or the certificate of another one fails for its signature and not, as in
    // a real cluster, because its issuer is not trusted.
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let name = format!("stand-in CA {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let ca = self_signed(named_ca(&name));
    let names = ["127.0.0.1", "localhost"].map(str::to_owned);
    let own = signed_by(CertificateParams::new(names).unwrap(), &ca);
    let config = server(&[&own], &own.key, &[]);
    (ca.pem, config)
}

/// A service account volume, laid out as the kubelet does it: `token` and `ca.crt` are links into
/// `..data`, itself a link to a directory with a time for a name, and an update is one rename.
pub struct Volume {
    dir: PathBuf,
    updates: AtomicUsize,
}

impl Volume {
    /// In a fresh directory of the system's for temporary files.
    fn create() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir()
            .join(format!("kube-issuer-gateway-{}-{number}", std::process::id()));
        // Left there by a process of the same number that did not remove it.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for name in ["token", "ca.crt"] {
            symlink(Path::new("..data").join(name), dir.join(name)).unwrap();
        }
        Self { dir, updates: AtomicUsize::new(0) }
    }

    /// Swaps both files at once.
    pub fn write(&self, token: &str, ca_pem: &str) {
        let data = self.dir.join("..data");
        let before = fs::read_link(&data);
        let now = format!("..2026_11_23_04_05_06.{}", self.updates.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(self.dir.join(&now)).unwrap();
        fs::write(self.dir.join(&now).join("token"), token).unwrap();
        fs::write(self.dir.join(&now).join("ca.crt"), ca_pem).unwrap();
        symlink(&now, self.dir.join("..data_tmp")).unwrap();
        fs::rename(self.dir.join("..data_tmp"), data).unwrap();
        if let Ok(before) = before {
            fs::remove_dir_all(self.dir.join(before)).unwrap();
        }
    }

    /// As drop does, for a program that ends without dropping.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.dir);
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// For `SA_TOKEN_PATH`.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// For `SA_CA_CERT_PATH`.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.remove();
    }
}
