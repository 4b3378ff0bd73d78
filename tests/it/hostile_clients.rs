//! No client can take the gateway down: what hostile ones are answered, what they cost, and that
//! well-behaved ones are served meanwhile.
//!
//! The same attacks, longer and measured, are `bench/src/bin/attack/`. Nothing here is timed.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use testing::client::{self, Client, Response};
use testing::fake_api::{Answer, DISCOVERY, FakeApi, JWKS, large_key_set};
use testing::gateway::{Builder, Gateway, field};
use testing::wait::{SOON, eventually};

/// What the gateway may use of the 64 MiB that it is to live in.
const MOST_KIB: usize = 48 << 10;
/// The front's bound for answers that nobody reads, all together.
const MOST_UNREAD: usize = 8 << 20;

/// A gateway that is going to be attacked, and a well-behaved client that stays.
struct Scene {
    gateway: Gateway,
    well_behaved: Client,
    document: Vec<u8>,
    threads: usize,
    descriptors: usize,
    // Ends after the gateway.
    _api: FakeApi,
}

impl Scene {
    fn start() -> Self {
        Self::with(FakeApi::start(), |builder| builder)
    }

    /// The key set has 120 RSA keys.
    fn with_large_key_set() -> Self {
        let api = FakeApi::start();
        api.set(JWKS, Answer::jwks(large_key_set(120)));
        let scene = Self::with(api, |builder| builder);
        assert!(scene.document.len() > 45_000, "{}", scene.document.len());
        scene
    }

    fn with(api: FakeApi, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let gateway = configure(Gateway::builder(&api)).start();
        let document = gateway.get(JWKS).body;
        // That request's own connection must be gone.
        let mut descriptors = 0;
        eventually("two looks see the same number of descriptors", || {
            let now = gateway.descriptors();
            now == std::mem::replace(&mut descriptors, now)
        });
        let threads = gateway.threads();
        let mut well_behaved = Client::connect(gateway.public);
        // Who has asked twice is not the first to be shut out.
        assert_eq!([well_behaved.get(JWKS).status, well_behaved.get(JWKS).status], [200, 200]);
        Self { gateway, well_behaved, document, threads, descriptors, _api: api }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.public
    }

    /// Both well-behaved clients get what they ask for: one that keeps its connection, one that has
    /// just come.
    fn assert_well_behaved_clients_are_served(&mut self) {
        let kept = self.well_behaved.get(JWKS);
        assert!(kept.status == 200 && kept.body == self.document, "{kept:?}");
        self.assert_a_new_client_is_served();
    }

    fn assert_a_new_client_is_served(&self) {
        let new = self.gateway.get(JWKS);
        assert!(new.status == 200 && new.body == self.document, "{new:?}");
    }

    /// Well-behaved clients are served, little memory was used, and nothing is left of the attack.
    fn assert_unharmed(mut self) {
        self.assert_well_behaved_clients_are_served();
        self.assert_recovered();
    }

    fn assert_recovered(self) {
        let Self { gateway, well_behaved, threads, descriptors, .. } = self;
        drop(well_behaved);
        assert!(gateway.peak_kib() < MOST_KIB, "{} KiB", gateway.peak_kib());
        eventually("threads and descriptors are as before", || {
            gateway.threads() <= threads && gateway.descriptors() <= descriptors
        });
        assert_eq!(client::get(gateway.admin.unwrap(), "/livez").status, 200);
        assert!(!gateway.has_ended());
    }
}

/// Sends these bytes on a connection of their own and reads to its end: the status of each answer,
/// in order. Nothing but whole answers may come.
fn statuses(address: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    let mut socket = connect(address);
    // The gateway need not listen to the end.
    let _ = socket.write_all(bytes);
    let mut received = Vec::new();
    // Nor need the end be a clean one, when it did not.
    if let Err(error) = socket.read_to_end(&mut received) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{:?}", text(bytes));
    }
    let (mut statuses, mut rest) = (Vec::new(), &received[..]);
    while !rest.is_empty() {
        statuses.push(Response::read(&mut rest, "GET").expect("a whole answer").status);
    }
    statuses
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("connect to the gateway");
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.set_write_timeout(Some(SOON)).unwrap();
    socket
}

/// A connection that takes little at a time, in segments as small as on a bad path.
fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.connect(&address.into()).expect("connect to the gateway");
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// A request for the key set with these header lines.
fn get(fields: &str) -> Vec<u8> {
    request("GET", JWKS, fields)
}

/// The last one on its connection.
fn last(method: &str, target: &str) -> Vec<u8> {
    request(method, target, "Connection: close\r\n")
}

fn request(method: &str, target: &str, fields: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

// What is answered.

#[test]
fn a_head_in_which_two_readers_see_two_requests_ends_its_connection() {
    let scene = Scene::start();
    let smuggled = text(&get("")).replace(JWKS, "/smuggled");
    for (shape, status) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
        ("Content-Length: 0\r\nContent-Length: 41\r\n\r\n", 400),
        ("Content-Length: 0, 41\r\n\r\n", 400),
        ("Content-Length: +0\r\n\r\n", 400),
        ("Content-Length: 0x0\r\n\r\n", 400),
        ("Content-Length: \r\n\r\n", 400),
        ("X: a\nContent-Length: 41\r\n\r\n", 400),
        ("X: a\n\n", 400),
        ("X: a\rContent-Length: 41\r\n\r\n", 400),
        ("X: a\r\n Content-Length: 41\r\n\r\n", 400),
        ("X: a\r\n\tContent-Length: 41\r\n\r\n", 400),
        ("Content-Length : 41\r\n\r\n", 400),
        ("Content-Length\t: 41\r\n\r\n", 400),
        ("Content-Length\0: 41\r\n\r\n", 400),
        ("X: \0\r\nContent-Length: 41\r\n\r\n", 400),
        ("Host: b\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n00\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n-1\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n0;a=\n\r\n", 413),
        ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding:\r\n\r\n", 413),
        ("Content-Length: 41\r\n\r\n", 413),
    ] {
        for method in ["GET", "POST"] {
            let head = format!("{method} {JWKS} HTTP/1.1\r\nHost: a\r\n{shape}{smuggled}");
            assert_eq!(statuses(scene.address(), head.as_bytes()), [status], "{head:?}");
        }
    }
    let log = scene.gateway.log();
    assert!(!log.contains("smuggled"), "{log}");
    scene.assert_unharmed();
}

#[test]
fn an_empty_body_in_chunks_is_no_body() {
    let mut scene = Scene::start();
    let chunked = |method: &str| {
        format!(
            "{method} {JWKS} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"
        )
    };
    // What follows it is the next request.
    let pipeline = [chunked("GET").into_bytes(), chunked("GET").into(), last("GET", JWKS)].concat();
    assert_eq!(statuses(scene.address(), &pipeline), [200, 200, 200]);
    for method in ["POST", "OPTIONS", "DELETE", "FROB"] {
        assert_eq!(statuses(scene.address(), chunked(method).as_bytes()), [413], "{method}");
    }
    let old = chunked("GET").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(statuses(scene.address(), old.as_bytes()), [413]);

    // In pieces, wherever it is cut.
    let (head, mut client) = (chunked("HEAD"), Client::connect(scene.address()));
    for cut in 1..head.len() {
        let (first, second) = head.split_at(cut);
        client.send(first);
        // When another client has its answer, the front has read the first piece.
        assert_eq!(scene.well_behaved.get(JWKS).status, 200);
        client.send(second);
        assert_eq!(client.read("HEAD").status, 200, "{cut}");
    }
    drop(client);
    scene.assert_unharmed();
}

#[test]
fn an_empty_body_that_does_not_come_is_given_up() {
    let scene = Scene::start();
    let head = request("GET", JWKS, "Transfer-Encoding: chunked\r\n");
    for begun in ["", "0", "0\r\n\r"] {
        assert_eq!(
            statuses(scene.address(), &[&head, begun.as_bytes()].concat()),
            [408],
            "{begun:?}"
        );
    }
    scene.assert_unharmed();
}

#[test]
fn other_protocols_are_named_with_what_to_turn_off() {
    let scene = Scene::start();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    for (sent, expected) in [
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03random".to_vec(), "it is TLS"),
        ([b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), get("")].concat(), "PROXY protocol"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "PROXY protocol"),
        ([&signature[..], b"\x21\x11\0\x0c0123456789ab", &get("")].concat(), "PROXY protocol"),
    ] {
        assert_eq!(statuses(scene.address(), &sent), [400], "{:?}", text(&sent));
        let line = scene.gateway.wait_for_log("refused status=400");
        assert!(line.contains(expected), "{line}");
        assert!(line.contains("use http") || line.contains("turn it off"), "{line}");
    }
    scene.assert_unharmed();
}

#[test]
fn no_body_is_waited_for_however_it_is_announced() {
    let scene = Scene::start();
    let length = |length: &str| format!("Content-Length: {length}\r\n");
    for (method, fields, body, status) in [
        ("POST", length("1000000"), Vec::new(), 413),
        ("GET", length("100000000000000"), Vec::new(), 413),
        ("GET", length("9000000000000000000"), Vec::new(), 413),
        ("GET", length("18446744073709551615"), Vec::new(), 413),
        ("GET", length("18446744073709551616"), Vec::new(), 413),
        ("GET", length(&"9".repeat(1000)), Vec::new(), 413),
        ("POST", "Transfer-Encoding: chunked\r\n".into(), b"1\r\nx\r\n".repeat(100_000), 413),
        ("POST", length("600000"), vec![b'x'; 600_000], 413),
        ("POST", length("4") + "Expect: 100-continue\r\n", Vec::new(), 413),
        ("GET", "Expect: 100-continue\r\n".into(), Vec::new(), 417),
        ("GET", "Expect: something\r\n".into(), Vec::new(), 417),
    ] {
        let sent = [request(method, JWKS, &fields), body].concat();
        assert_eq!(statuses(scene.address(), &sent), [status], "{method} {fields:?}");
    }
    scene.assert_unharmed();
}

#[test]
fn what_is_not_http_1_is_refused() {
    let scene = Scene::start();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random".to_vec();
    let garbage: Vec<u8> = (0..=255).cycle().take(5000).map(|byte: u8| byte ^ 0x5a).collect();
    for (sent, status) in [
        (hello, 400),
        (garbage, 400),
        (vec![0; 100_000], 400),
        (b"GET /\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n".to_vec(), 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), 505),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"\r\n\r\n\r\n \r\n\r\n".to_vec(), 400),
    ] {
        assert_eq!(statuses(scene.address(), &sent), [status], "{:?}", text(&sent));
    }
    scene.assert_unharmed();
}

#[test]
fn what_is_odd_but_good_is_answered() {
    let scene = Scene::start();
    let upgrade = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    for (sent, status) in [
        (get(upgrade), 200),
        (format!("GET {JWKS} HTTP/1.0\r\n\r\n").into(), 200),
        (format!("GET {JWKS} HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").into(), 200),
        ([b"\r\n\r\n".to_vec(), last("GET", JWKS)].concat(), 200),
        (last("GET", &format!("http://elsewhere.example{JWKS}")), 200),
        (last("GET", "http://elsewhere.example"), 404),
        (last("OPTIONS", "*"), 404),
        (last("CONNECT", "a:443"), 404),
        (last("GET", &format!("/{}", "a".repeat(2_000))), 404),
        (last("GET", &format!("{JWKS}?{}", "a".repeat(15_000))), 200),
        (last("GET", &format!("/{}", "a".repeat(15_000))), 414),
        (last("FROB", JWKS), 405),
    ] {
        assert_eq!(statuses(scene.address(), &sent), [status], "{:?}", text(&sent));
    }
    scene.assert_unharmed();
}

#[test]
fn a_head_without_end_is_cut_off() {
    let scene = Scene::start();
    let begun = format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\nX: ");
    for more in [vec![b'x'; 1 << 20], b"x\r\nX: ".repeat(100_000), b"x".repeat(20 << 10)] {
        let sent = [begun.as_bytes(), &more].concat();
        assert_eq!(statuses(scene.address(), &sent), [431]);
    }
    let path = last("GET", &format!("/{}", "a".repeat(100_000)));
    assert_eq!(statuses(scene.address(), &path), [431]);
    let lines = get(&"X: y\r\n".repeat(64));
    assert_eq!(statuses(scene.address(), &lines), [431]);
    scene.assert_unharmed();
}

#[test]
fn pipelined_requests_are_all_answered_in_their_order() {
    let scene = Scene::start();
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for (target, status) in [(JWKS, 200), ("/nowhere", 404), (DISCOVERY, 200)].repeat(100) {
        sent.extend(request("GET", target, ""));
        expected.push(status);
    }
    sent.extend(last("GET", "/livez"));
    expected.push(200);

    assert_eq!(statuses(scene.address(), &sent), expected);

    scene.assert_unharmed();
}

// Who takes long.

#[test]
fn a_head_that_does_not_come_whole_is_given_up() {
    let mut scene = Scene::start();
    let begun = format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(14 << 10));
    let slow: Vec<_> = (0..100)
        .map(|_| {
            let mut socket = connect(scene.address());
            socket.write_all(begun.as_bytes()).unwrap();
            socket
        })
        .collect();
    scene.assert_well_behaved_clients_are_served();

    for mut socket in slow {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    }

    scene.assert_unharmed();
}

#[test]
fn an_answer_comes_whole_on_a_path_of_small_segments() {
    let mut scene = Scene::with_large_key_set();
    let mut narrow = connect_narrow(scene.address());
    for _ in 0..3 {
        narrow.write_all(&get("")).unwrap();
        let answer = read_slowly(&mut narrow, scene.document.len());
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", text(&answer));
        assert!(answer.ends_with(&scene.document));
        scene.assert_well_behaved_clients_are_served();
    }
    drop(narrow);
    scene.assert_unharmed();
}

/// Reads an answer with a body of this length a few bytes at a time.
fn read_slowly(socket: &mut TcpStream, length: usize) -> Vec<u8> {
    let (mut answer, mut buffer) = (Vec::new(), [0; 100]);
    loop {
        let count = socket.read(&mut buffer).expect("more of the answer");
        assert!(count > 0, "the end after {} bytes", answer.len());
        answer.extend_from_slice(&buffer[..count]);
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() >= head + 4 + length) {
            return answer;
        }
    }
}

#[test]
fn answers_that_nobody_takes_are_bounded_all_together() {
    let mut scene = Scene::with_large_key_set();
    let mut unread = Vec::new();
    for n in 0..400 {
        let mut socket = connect_narrow(scene.address());
        // The second one waits until the first answer was taken.
        socket.write_all(&get("").repeat(2)).unwrap();
        unread.push(socket);
        if n % 40 == 39 {
            scene.assert_well_behaved_clients_are_served();
            // With those that are just being written, or thrown away.
            let unread = unread_bytes(scene.address());
            assert!(unread < MOST_UNREAD + MOST_UNREAD / 2, "{unread}");
        }
    }
    scene.gateway.wait_for_log("closed");
    eventually("no more is left than may be", || unread_bytes(scene.address()) <= MOST_UNREAD);
    assert!(unread_bytes(scene.address()) > MOST_UNREAD / 2, "the clients have read it");
    drop(unread);
    scene.assert_unharmed();
}

/// Bytes that the kernel holds of what the gateway wrote: `tx_queue` of `/proc/net/tcp`.
fn unread_bytes(address: SocketAddr) -> usize {
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    let queue = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, queues) = (words.next()?, words.nth(2)?);
        let queue = queues.split(':').next()?;
        local.ends_with(&port).then(|| usize::from_str_radix(queue, 16).unwrap())
    };
    sockets.lines().skip(1).filter_map(queue).sum()
}

#[test]
fn a_pipeline_whose_answers_nobody_reads_stands_still() {
    let mut scene = Scene::with_large_key_set();
    let pipeline = get("").repeat(1000);
    let mut unread = Vec::new();
    for _ in 0..16 {
        let mut socket = connect_narrow(scene.address());
        // Until there is no room in any buffer, which is the expected end.
        let stuck = (0..1000).find_map(|_| socket.write_all(&pipeline).err());
        assert!(stuck.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        unread.push(socket);
        scene.assert_well_behaved_clients_are_served();
    }
    drop(unread);
    scene.assert_unharmed();
}

// Who comes and goes.

#[test]
fn resets_harm_nobody() {
    let mut scene = Scene::start();
    for sent in [Vec::new(), get(""), get("").repeat(20), b"GET".to_vec()] {
        for _ in 0..100 {
            let mut socket = connect(scene.address());
            socket.write_all(&sent).unwrap();
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
        scene.assert_well_behaved_clients_are_served();
    }
    let log = scene.gateway.log();
    assert!(!log.contains("panic"), "{log}");
    scene.assert_unharmed();
}

#[test]
fn who_connects_and_leaves_harms_nobody() {
    let mut scene = Scene::start();
    for n in 0..500 {
        let socket = connect(scene.address());
        if n % 2 == 0 {
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }
    scene.assert_well_behaved_clients_are_served();
    scene.assert_unharmed();
}

// More than there is room for.

#[test]
fn a_new_client_is_accepted_however_many_are_connected() {
    for opening in [Vec::new(), get(""), b"GET / HT".to_vec()] {
        let most = |builder: Builder| builder.set("MAX_CONNECTIONS", "64");
        let scene = Scene::with(FakeApi::start(), most);
        let mut others = Vec::new();
        for n in 0..400 {
            let mut socket = connect(scene.address());
            socket.write_all(&opening).unwrap();
            others.push(socket);
            if n % 40 == 0 {
                scene.assert_a_new_client_is_served();
            }
        }
        scene.assert_a_new_client_is_served();
        scene.gateway.wait_for_log("evicted");
        // Connections cost a descriptor each, and no thread.
        let (threads, descriptors) = (scene.gateway.threads(), scene.gateway.descriptors());
        assert!(threads <= scene.threads, "{threads}");
        assert!(descriptors <= scene.descriptors + 64, "{descriptors}");
        drop(others);
        scene.assert_recovered();
    }
}

/// Tells threads that all is over, also when the test fails.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn clients_that_are_never_idle_keep_no_new_client_out() {
    let most = |builder: Builder| builder.set("MAX_CONNECTIONS", "64");
    let scene = Scene::with(FakeApi::start(), most);
    let over = AtomicBool::new(false);
    let ask = |socket: &mut TcpStream| {
        // An answer may be on its way, or the connection may have had to make room.
        let is_open = match socket.read(&mut [0; 4096]) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        is_open && socket.write_all(&get("")).is_ok()
    };
    let others = || {
        let mut sockets = Vec::new();
        while !over.load(Ordering::Relaxed) {
            sockets.resize_with(60, || {
                let socket = connect(scene.address());
                socket.set_nonblocking(true).unwrap();
                socket
            });
            sockets.retain_mut(ask);
            // As often as somebody who is never taken to be silent.
            thread::sleep(Duration::from_millis(10));
        }
    };
    thread::scope(|scope| {
        let _end = AtTheEnd(&over);
        scope.spawn(others);
        scope.spawn(others);
        scene.gateway.wait_for_log("evicted");
        let begin = Instant::now();
        let admin = scene.gateway.admin.unwrap();
        for _ in 0..50 {
            scene.assert_a_new_client_is_served();
            // The kubelet does not notice.
            assert_eq!(client::get(admin, "/livez").status, 200);
            assert_eq!(client::get(admin, "/readyz").status, 200);
        }
        // Some 60 are queued before each of them: a wait for each of those would add up to minutes.
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    });
    scene.assert_recovered();
}

#[test]
fn a_lack_of_descriptors_lowers_the_number_of_connections() {
    let few = |builder: Builder| {
        let builder = builder.set("MAX_CONNECTIONS", "3000");
        builder.under(&["sh", "-c", "ulimit -n 100 && exec \"$0\""])
    };
    let scene = Scene::with(FakeApi::start(), few);
    let line = scene.gateway.wait_for_log("connection limit lowered");
    assert_eq!(field(&line, "limit"), Some("36"), "{line}");
    let mut others = Vec::new();
    for _ in 0..300 {
        let mut socket = connect(scene.address());
        socket.write_all(&get("")).unwrap();
        others.push(socket);
        assert!(scene.gateway.descriptors() <= 100);
    }
    scene.assert_a_new_client_is_served();
    drop(others);
    scene.assert_recovered();
}

#[test]
fn without_descriptors_for_its_listeners_it_does_not_start() {
    let api = FakeApi::start();
    for limit in ["ulimit -n 6 && exec \"$0\"", "ulimit -n 31 && exec \"$0\""] {
        let ended = Gateway::builder(&api).under(&["sh", "-c", limit]).run();
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        let line = ended.log.lines().last().unwrap_or_default();
        assert!(line.contains(" ERROR ") && line.contains("(ulimit -Hn)"), "{line}");
    }
}

#[test]
fn the_admin_listener_has_the_same_limits() {
    let scene = Scene::start();
    let admin = scene.gateway.admin.unwrap();
    let mut others = Vec::new();
    for _ in 0..100 {
        others.push(connect(admin));
    }
    assert_eq!(client::get(admin, "/livez").status, 200);
    drop(others);
    let huge = request("GET", "/livez", "Content-Length: 100000000000000\r\n");
    assert_eq!(statuses(admin, &huge), [413]);
    let endless = request("GET", "/livez", &format!("X: {}\r\n", "x".repeat(1 << 20)));
    assert_eq!(statuses(admin, &endless), [431]);
    scene.assert_unharmed();
}

// The log.

#[test]
fn no_client_can_forge_a_line() {
    let scene = Scene::start();
    for target in
        ["/a%0a2026-01-01T00:00:00.000Z%20INFO%20%20listening", "/a\"b\\c=d", "/%1b[31m%00", "/a=b"]
    {
        assert_eq!(statuses(scene.address(), &last("GET", target)), [404]);
        let line = scene.gateway.wait_for_log("status=404");
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 24 && rest.starts_with("INFO  request path="), "{line:?}");
        assert_eq!(field(&line, "status"), Some("404"), "{line:?}");
    }
    // These get no further than the front, which says nothing of what they sent.
    for target in ["/a\nlistening public=evil", "/a\u{1b}[31mevil", "/a evil HTTP/1.1 x"] {
        assert_eq!(statuses(scene.address(), &last("GET", target)), [400]);
        let line = scene.gateway.wait_for_log("refused");
        assert_eq!(field(&line, "status"), Some("400"), "{line:?}");
    }
    let log = scene.gateway.log();
    assert!(!log.contains("evil") && log.matches("listening public=").count() == 1, "{log}");
    assert!(log.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{log:?}");
}

#[test]
fn the_log_counts_who_was_shut_out_by_reason() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("SHUTDOWN_DELAY_SECONDS", "0").start();
    for (bytes, status, times) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 400, 3),
        (b"GET / HTTP/2.0\r\n\r\n", 505, 1),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", 413, 2),
    ] {
        for _ in 0..times {
            assert_eq!(statuses(gateway.public, bytes), [status]);
        }
    }
    gateway.signal("TERM");
    let line = gateway.wait_for_log("connections since the start");
    assert_eq!(field(&line, "refused"), Some("400:3,413:2,505:1"), "{line}");
    for reason in ["evicted", "unread", "unanswered", "rejected"] {
        assert_eq!(field(&line, reason), Some("0"), "{line}");
    }
    gateway.wait();
}

#[test]
fn a_flood_of_requests_is_no_flood_of_lines() {
    const ALL: usize = 300;
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("LOG_LINES_PER_SECOND", "5").start();
    for (path, message, kind) in [
        (JWKS, "INFO  request path=/openid/v1/jwks ", "request"),
        ("/nowhere", "INFO  request path=/nowhere ", "\"failed request\""),
    ] {
        let mut client = Client::connect(gateway.public);
        let answers: Vec<Response> = (0..ALL).map(|_| client.get(path)).collect();
        assert!(answers.windows(2).all(|two| two[0].status == two[1].status));
        let told = |log: &str| -> (usize, usize) {
            let left_out = format!("log lines suppressed kind={kind} ");
            let lines = log.lines().filter(|line| line.contains(message)).count();
            let counts = log.lines().filter(|line| line.contains(&left_out));
            (
                lines,
                counts.map(|line| field(line, "count").unwrap().parse::<usize>().unwrap()).sum(),
            )
        };
        // All of them are in the log, as lines or as a number.
        eventually("every request is accounted for", || {
            let (lines, left_out) = told(&gateway.log());
            lines + left_out == ALL
        });
        let (lines, _) = told(&gateway.log());
        assert!((1..ALL / 4).contains(&lines), "{lines} lines");
    }
    // A healthy flood is no warning, and said every ten seconds.
    let log = gateway.log();
    let suppressed = log.lines().filter(|line| line.contains("log lines suppressed"));
    assert!(suppressed.clone().all(|line| line.contains(" INFO ")), "{log}");
    assert!(suppressed.count() <= 4, "{log}");
}
