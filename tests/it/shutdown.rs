//! How the gateway ends.

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::skip;
use testing::client::{self, Client, Connection, Response};
use testing::fake_api::{Answer, FakeApi, JWKS};
use testing::gateway::{Builder, Gateway};
use testing::wait::{SOON, eventually};

/// Goes on serving after a signal for so many seconds.
fn with_delay(api: &FakeApi, seconds: &str) -> Builder {
    Gateway::builder(api).set("SHUTDOWN_DELAY_SECONDS", seconds)
}

#[test]
fn sigterm_and_sigint_end_it_with_success() {
    let api = FakeApi::start();
    for signal in ["TERM", "INT"] {
        let gateway = with_delay(&api, "0").start();
        assert_eq!(gateway.get(JWKS).status, 200);

        gateway.signal(signal);

        gateway.wait_for_log(&format!("stopping signal=SIG{signal}"));
        gateway.wait_for_log("stopped");
        let status = gateway.wait();
        assert_eq!(status.code(), Some(0), "SIG{signal}: {status}");
    }
}

#[test]
fn it_can_be_ended_before_upstream_ever_answered() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = with_delay(&api, "0").set("UPSTREAM_TIMEOUT_SECONDS", "60").start();
    assert!(api.wait_until(SOON, |requests| !requests.is_empty()));

    assert_eq!(gateway.terminate().code(), Some(0));
}

#[test]
fn after_a_signal_it_goes_on_serving_but_is_not_ready() {
    let api = FakeApi::start();
    let gateway = with_delay(&api, "300").start();
    let mut kept = Client::connect(gateway.public);
    assert_eq!(kept.get(JWKS).header("Connection"), None);
    let admin = gateway.admin.unwrap();
    assert_eq!(client::get(admin, "/readyz").status, 200);

    gateway.signal("TERM");
    gateway.wait_for_log("stopping signal=SIGTERM");

    for listener in [gateway.public, admin] {
        let ready = client::get(listener, "/readyz");
        assert_eq!((ready.status, ready.text()), (503, "not ready: stopping\n"));
        assert_eq!(client::get(listener, "/livez").status, 200);
    }
    // New connections are served, kept ones sent away after one more answer.
    assert_eq!(gateway.get(JWKS).status, 200);
    let last = kept.get(JWKS);
    assert_eq!((last.status, last.header("Connection")), (200, Some("close")));
    kept.assert_end();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let api = FakeApi::start();
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let gateway = with_delay(&api, "300").start();
        gateway.signal(first);
        gateway.wait_for_log("stopping");

        gateway.signal(second);

        // Within the patience of `wait`, far below the delay.
        gateway.wait();
    }
}

#[test]
fn no_request_is_lost_when_it_is_stopped_under_load() {
    let api = FakeApi::start();
    let gateway = with_delay(&api, "3").start();
    let body = gateway.get(JWKS).body;
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));

    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.public);
                while !over.load(Ordering::Relaxed) {
                    let response = client.get(JWKS);
                    assert_eq!((response.status, &response.body), (200, &body));
                    served.fetch_add(1, Ordering::Relaxed);
                    if response.header("Connection") == Some("close") {
                        client = Client::connect(gateway.public);
                    }
                }
            });
        }
        // As a load balancer does: it stops sending when the probe says so, within the delay.
        while served.load(Ordering::Relaxed) < 1_000 {
            thread::yield_now();
        }
        gateway.signal("TERM");
        gateway.wait_for_log("stopping");
        let before = served.load(Ordering::Relaxed);
        assert_eq!(gateway.get("/readyz").status, 503);
        while served.load(Ordering::Relaxed) < before + 1_000 {
            thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
    });
    let status = gateway.wait();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn what_is_under_way_is_finished() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    // One of two workers may wait: when one client is rejected, the other is known to wait.
    let gateway =
        with_delay(&api, "0").set("WORKERS", "2").set("UPSTREAM_TIMEOUT_SECONDS", "60").start();
    let mut clients = [Client::connect(gateway.public), Client::connect(gateway.public)];
    for client in &mut clients {
        client.ask(JWKS);
    }
    gateway.wait_for_log("request path=/openid/v1/jwks status=502");

    gateway.signal("TERM");
    gateway.wait_for_log("stopping");
    api.set_good();

    let mut statuses = clients.map(|mut client| client.read("GET").status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn what_never_finishes_is_given_up_after_the_timeout() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = with_delay(&api, "0")
        .set("WORKERS", "2")
        .set("SHUTDOWN_TIMEOUT_SECONDS", "0.3")
        .set("UPSTREAM_TIMEOUT_SECONDS", "60")
        .start();
    let mut clients = [Client::connect(gateway.public), Client::connect(gateway.public)];
    for client in &mut clients {
        client.ask(JWKS);
    }
    gateway.wait_for_log("request path=/openid/v1/jwks status=502");

    assert_eq!(gateway.terminate().code(), Some(0));
}

#[test]
fn idle_connections_do_not_hold_it_up() {
    let api = FakeApi::start();
    let gateway = with_delay(&api, "0").set("SHUTDOWN_TIMEOUT_SECONDS", "300").start();
    let mut kept: Vec<_> = (0..10).map(|_| Client::connect(gateway.public)).collect();
    for client in kept.iter_mut().skip(5) {
        assert_eq!(client.get(JWKS).status, 200);
    }

    // Within the patience of `terminate`, far below the timeout.
    assert_eq!(gateway.terminate().code(), Some(0));
}

#[test]
fn as_pid_1_it_ends_on_a_signal_too() {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let allowed = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return skip("no PID namespace can be made here");
    }
    let api = FakeApi::start();
    // The kernel drops what PID 1 has no handler for, and kills it by no default.
    for signals in [&["TERM"][..], &["INT"], &["TERM", "TERM"]] {
        let delay = if signals.len() == 1 { "0" } else { "300" };
        let gateway = with_delay(&api, delay).under(&unshare).start();
        for signal in signals {
            gateway.signal_child(signal);
            gateway.wait_for_log("stop");
        }
        let status = gateway.wait();
        assert!(signals.len() > 1 || status.code() == Some(0), "{signals:?}: {status}");
    }
}

#[test]
fn without_descriptors_it_is_never_deaf() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).under(&["sh", "-c", "ulimit -n 128; exec \"$0\""]).start();

    let others: Vec<_> = (0..300).map(|_| TcpStream::connect(gateway.public)).collect();
    drop(others);

    eventually("it answers or has ended", || lives(gateway.public) || gateway.has_ended());
    if gateway.has_ended() {
        assert_eq!(gateway.wait().code(), Some(1));
    }
}

/// Whether `/livez` is answered, as far as can be told without a failing test.
fn lives(address: SocketAddr) -> bool {
    let deadline = Instant::now() + SOON / 10;
    let mut connection = Connection::open(address, deadline);
    let answer = connection.as_mut().map(|it| it.request("GET", "/livez", &[], deadline));
    matches!(answer, Ok(Ok(Response { status: 200, .. })))
}

/// The sockets of the gateway, as another process with its rights can have them; none where this
/// machine forbids it.
fn sockets(gateway: &Gateway) -> Vec<Socket> {
    let pid = Pid::from_raw(gateway.pid().try_into().unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let numbers = gateway.descriptor_numbers().into_iter();
    let got = numbers.filter_map(|number: RawFd| {
        pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok().map(Socket::from)
    });
    got.collect()
}

/// Makes accept fail from outside: the listener is taken from the process and shut.
#[test]
fn a_listener_that_died_ends_it_with_1() {
    let api = FakeApi::start();
    for which in ["public", "admin"] {
        let gateway = Gateway::start(&api);
        let address = if which == "public" { gateway.public } else { gateway.admin.unwrap() };
        let is_it = |socket: &Socket| {
            let listens = socket.is_listener().unwrap_or(false);
            let local = socket.local_addr().ok().and_then(|local| local.as_socket());
            listens && local.is_some_and(|local| local.port() == address.port())
        };
        let Some(listener) = sockets(&gateway).into_iter().find(is_it) else {
            return skip("no descriptor of another process can be duplicated here");
        };

        listener.shutdown(Shutdown::Read).unwrap();
        drop(listener);

        gateway.wait_for_log(&format!("the {which} listener"));
        assert_eq!(gateway.wait().code(), Some(1), "{which}");
    }
}

/// The name of the private socket of `tiny_http` that `socket` is an end of: of the front's end it
/// is the peer's, of the other the socket's own.
fn private_name(socket: &Socket, end: End) -> Option<SockAddr> {
    let address = match end {
        End::Front => socket.peer_addr(),
        End::TinyHttp => socket.local_addr(),
    };
    address.ok().filter(|address| address.as_abstract_namespace().is_some())
}

#[derive(Clone, Copy, Debug)]
enum End {
    Front,
    TinyHttp,
}

#[test]
fn a_way_to_tiny_http_that_died_ends_it_with_1() {
    let api = FakeApi::start();
    for end in [End::Front, End::TinyHttp] {
        let gateway = Gateway::start(&api);
        let all = sockets(&gateway);
        let Some(lane) = all.iter().find(|socket| private_name(socket, end).is_some()) else {
            return skip("no descriptor of another process can be duplicated here");
        };

        lane.shutdown(Shutdown::Both).unwrap();
        // Its stderr is among them, whose end is waited for.
        drop(all);

        gateway.wait_for_log("the front cannot continue");
        gateway.wait_for_log("has ended unexpectedly");
        assert_eq!(gateway.wait().code(), Some(1), "{end:?}");
    }
}

#[test]
fn nobody_else_gets_to_tiny_http() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let all = sockets(&gateway);
    let names: Vec<_> = all.iter().filter_map(|it| private_name(it, End::Front)).collect();
    // One for each listener, or none where this machine forbids to look.
    assert!(names.len() == 2 || all.is_empty(), "{names:?}");
    for name in names {
        let stranger = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let refused = stranger.connect(&name).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{name:?}");
    }
    assert!(!all.iter().any(|socket| {
        private_name(socket, End::TinyHttp).is_some() && socket.is_listener().unwrap_or(false)
    }));
    assert_eq!(gateway.get(JWKS).status, 200);
}
