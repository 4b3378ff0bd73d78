use super::*;

/// The status with which `text` is refused as the front would, or 0.
fn status(text: &[u8]) -> u16 {
    let text = text.get(empty_lines(text)..).unwrap();
    let outcome = length(text, 0).and_then(|length| match length {
        Some(length) => check(text.get(..length).unwrap()).map(|_| ()),
        None => panic!("not whole: {:?}", String::from_utf8_lossy(text)),
    });
    outcome.err().map_or(0, |refusal| refusal.status)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_head_that_two_readers_could_read_in_two_ways_is_refused() {
    for bad in [
        "GET / HTTP/1.1\nHost: a\n\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
        "GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP\r\n\r\n",
        "GET / HTTP/1\u{e9}\r\n\r\n",
        "GET / HTTP/11.1\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://:80/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: []\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a[::1]\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    ] {
        assert_eq!(status(bad.as_bytes()), 400, "{bad:?}");
    }
    assert_eq!(status(format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "G".repeat(33)).as_bytes()), 400);
}

#[test]
fn what_is_no_http_is_refused_before_it_is_whole() {
    for bad in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/1.1\n", b"\0", b"G\rE", b"\nG"] {
        assert_eq!(length(bad, 0).unwrap_err().status, 400, "{bad:?}");
    }
}

#[test]
fn no_body_is_let_in_however_its_length_is_given() {
    for (fields, expected) in [
        ("Content-Length: 0\r\n", 0),
        ("Content-Length: 000\r\n", 0),
        ("Content-Length: 1\r\n", 413),
        ("Content-Length: 100000000000000\r\n", 413),
        ("Content-Length: 9223372036854775807\r\n", 413),
        ("Content-Length: 18446744073709551616\r\n", 413),
        ("Transfer-Encoding: chunked\r\n", 413),
        ("Transfer-Encoding: \r\n", 413),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: +0\r\n", 400),
        ("Content-Length: 0x0\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 0, 0\r\n", 400),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", 400),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400),
    ] {
        assert_eq!(status(&get(fields)), expected, "{fields:?}");
    }
}

#[test]
fn versions_and_expectations_are_answered_as_the_rfc_says() {
    for (head, expected) in [
        ("GET / HTTP/1.0\r\n\r\n", 0),
        ("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", 0),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 417),
        ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", 0),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/2\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ] {
        assert_eq!(status(head.as_bytes()), expected, "{head:?}");
    }
}

#[test]
fn heads_that_clients_send_are_let_in() {
    for good in [
        "GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:a\r\nX:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\nX: caf\u{e9} \t x\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/openid/v1/jwks HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET HTTPS://a HTTP/1.1\r\nHost: b\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        "FROB /?a=/../b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    ] {
        assert_eq!(status(good.as_bytes()), 0, "{good:?}");
    }
}

#[test]
fn a_head_may_be_so_long_and_no_longer() {
    assert_eq!(status(&get(&"A: b\r\n".repeat(MAX_LINES - 1))), 0);
    assert_eq!(status(&get(&"A: b\r\n".repeat(MAX_LINES))), 431);
    let fits = format!("A: {}\r\n", "b".repeat(MAX_HEAD - get("A: \r\n").len()));
    assert_eq!(get(&fits).len(), MAX_HEAD);
    assert_eq!(status(&get(&fits)), 0);
    assert_eq!(status(&get(&format!("B{fits}"))), 431);
    assert_eq!(length(&[b'a'; MAX_HEAD], 0).unwrap_err().status, 431);
    assert_eq!(length(&[b'a'; MAX_HEAD - 1], 0), Ok(None));
}

#[test]
fn a_target_counts_by_its_path() {
    let long = "a".repeat(MAX_PATH - 1);
    for (method, target, expected) in [
        ("GET", "/a/b?c=/d", Some("/a/b")),
        ("GET", "http://a.example/b?c", Some("/b")),
        ("GET", "HTTPS://a:1/b", Some("/b")),
        ("GET", "http://a", Some("/")),
        ("GET", "http://a?b/c", Some("/")),
        ("GET", "//a/b", Some("//a/b")),
        ("OPTIONS", "*", Some("*")),
        ("CONNECT", "a:443", Some("a:443")),
        ("GET", "a", None),
        ("GET", "*", None),
        ("GET", "http://", None),
        ("GET", "http:///a", None),
        ("GET", "http://u:p@a/b", None),
        ("GET", "ftp://a/b", None),
        ("GET", "/a#b", None),
    ] {
        assert_eq!(path(method, target), expected, "{method} {target}");
    }
    for (path, expected) in [(format!("/{long}?{long}"), 0), (format!("/{long}a"), 414)] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(head.as_bytes()), expected);
    }
}

#[test]
fn so_much_is_handed_on_and_no_more() {
    let tags = format!("If-None-Match: \"{}\"\r\n", "a".repeat(1000));
    let mut out = Vec::new();
    check(&get(&tags.repeat(5))).unwrap().hand_on("1 peer", &mut out);
    assert_eq!(out.windows(5).filter(|five| five == b"Match").count(), 2);
    assert!(out.len() < MAX_PATH + MAX_TAGS + 512);

    let long = format!("User-Agent: {}\r\n", "a".repeat(MAX_LOGGED + 1));
    let mut out = Vec::new();
    check(&get(&long)).unwrap().hand_on("1 peer", &mut out);
    assert_eq!(out.iter().filter(|byte| **byte == b'a').count(), MAX_LOGGED);
}

#[test]
fn only_what_the_gateway_reads_is_handed_on() {
    for (fields, expected) in [
        ("Client: 9 9\r\nAnswer-Connection: close\r\nCookie: a\r\n", ""),
        ("Connection: Keep-Alive, Upgrade\r\nUpgrade: h2c\r\n", ""),
        (
            "If-None-Match: \"a\"\r\nIf-None-Match: \u{e9}\r\nIf-None-Match: W/\"b\"\r\n",
            "If-None-Match: \"a\"\r\nIf-None-Match: W/\"b\"\r\n",
        ),
        ("User-Agent: a/1\r\nUser-Agent: b\r\n", "User-Agent: a/1\r\n"),
        ("User-Agent: caf\u{e9}\t\"x\"\\\r\n", "User-Agent: caf\\xc3\\xa9\\x09\"x\"\\\r\n"),
        ("User-Agent:\r\nX-Forwarded-For: a,\r\n", ""),
        ("Accept: x, */*\r\n", "Accept: x, */*\r\n"),
        (
            "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: evil, 192.0.2.1 , 2001:db8::1\r\n",
            "X-Forwarded-For: 2001:db8::1\r\n",
        ),
    ] {
        let mut out = Vec::new();
        check(&get(fields)).unwrap().hand_on("1 192.0.2.7:80", &mut out);
        let expected = format!("GET / HTTP/1.1\r\nClient: 1 192.0.2.7:80\r\n{expected}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{fields:?}");
    }
}

#[test]
fn the_worker_is_told_what_to_say_of_the_connection() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: te, Close\r\n\r\n", Some("close")),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", None),
        ("GET / HTTP/1.0\r\n\r\n", Some("close")),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Some("keep-alive")),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", Some("close")),
    ] {
        let checked = check(head.as_bytes()).unwrap();
        assert_eq!(checked.connection(), expected, "{head:?}");
        let mut out = Vec::new();
        checked.hand_on("1 peer", &mut out);
        let says = format!("\r\nAnswer-Connection: {}\r\n", expected.unwrap_or("nothing"));
        let says = text(&out).contains(&says);
        assert_eq!(says, expected.is_some(), "{head:?}");
    }
}

#[test]
fn a_head_in_pieces_is_found_as_one_in_one_piece() {
    let mut text = get("A: b\r\n");
    text.extend_from_slice(b"GET");
    for cut in 0..text.len() {
        let (first, whole) = (text.get(..cut).unwrap(), text.len() - 3);
        match length(first, 0).unwrap() {
            Some(length) => assert!(cut >= whole && length == whole),
            None => assert_eq!(length(&text, cut).unwrap(), Some(whole), "{cut}"),
        }
    }
}
