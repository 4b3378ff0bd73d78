use super::*;

/// Why `text` is refused, as the front would refuse it; `None` when it is accepted.
#[track_caller]
fn refusal(text: &[u8]) -> Option<Refusal> {
    let text = text.get(empty_lines(text)..).unwrap();
    let outcome = length(text, 0).and_then(|length| match length {
        Some(length) => check(text.get(..length).unwrap()).map(|_| ()),
        None => panic!("not complete: {:?}", String::from_utf8_lossy(text)),
    });
    outcome.err()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_head_that_two_parsers_could_read_differently_is_refused_with_its_mistake() {
    for (head, expected) in [
        ("GET / HTTP/1.1\nHost: a\n\r\n\r\n", BAD_BYTE),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", BAD_BYTE),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", BAD_BYTE),
        ("GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", BAD_BYTE),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n", BAD_FIELD),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD_FIELD),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", BAD_FIELD),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", BAD_FIELD),
        ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", BAD_FIELD),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: x\r\n\r\n", BAD_FIELD),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", BAD_BYTE),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", BAD_BYTE),
        ("GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n", BAD_BYTE),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET /\r\n\r\n", BAD_REQUEST_LINE),
        ("GET\r\n\r\n", BAD_REQUEST_LINE),
        ("GET / HTTP\r\n\r\n", BAD_REQUEST_LINE),
        ("GET / HTTP/1\u{e9}\r\n\r\n", BAD_REQUEST_LINE),
        ("GET / HTTP/11.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET a:1 HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET http://:80/a HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("CONNECT  HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("CONNECT a/b HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: []\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: a[::1]\r\n\r\n", BAD_HOST),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD_REQUEST_LINE),
        ("GET / HTTP/1.1\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD_HOST),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD_HOST),
    ] {
        assert_eq!(refusal(head.as_bytes()), Some(expected), "{head:?}");
    }
    for (letters, expected) in [(32, None), (33, Some(BAD_REQUEST_LINE))] {
        let head = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "G".repeat(letters));
        assert_eq!(refusal(head.as_bytes()), expected, "{letters}");
    }
}

#[test]
fn bytes_that_are_not_http_are_refused_before_the_head_is_complete() {
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/1.1\n", b"\0", b"G\rE", b"\nG"] {
        assert_eq!(length(bytes, 0), Err(BAD_BYTE), "{bytes:?}");
    }
}

#[test]
fn no_body_is_accepted_however_its_length_is_given() {
    for (fields, expected) in [
        ("Content-Length: 0\r\n", None),
        ("Content-Length: 000\r\n", None),
        ("Content-Length: 1\r\n", Some(BODY)),
        ("Content-Length: 100000000000000\r\n", Some(BODY)),
        ("Content-Length: 9223372036854775807\r\n", Some(BODY)),
        ("Content-Length: 18446744073709551616\r\n", Some(BODY)),
        ("Transfer-Encoding: \r\n", Some(BODY)),
        ("Transfer-Encoding: gzip, chunked\r\n", Some(BODY)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Some(BODY)),
        ("Content-Length: -1\r\n", Some(BAD_LENGTH)),
        ("Content-Length: +0\r\n", Some(BAD_LENGTH)),
        ("Content-Length: 0x0\r\n", Some(BAD_LENGTH)),
        ("Content-Length:\r\n", Some(BAD_LENGTH)),
        ("Content-Length: 0, 0\r\n", Some(BAD_LENGTH)),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", Some(BAD_LENGTH)),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", Some(BAD_LENGTH)),
    ] {
        assert_eq!(refusal(&get(fields)), expected, "{fields:?}");
    }
}

#[test]
fn an_empty_body_in_chunks_is_accepted_from_proxies_that_send_one() {
    let chunked = "Host: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
    for (line, follows, expected) in [
        ("GET / HTTP/1.1", &b"0\r\n\r\n"[..], Ok(Some(5))),
        ("HEAD / HTTP/1.1", b"0\r\n\r\nGET", Ok(Some(5))),
        ("GET / HTTP/1.1", b"", Ok(None)),
        ("GET / HTTP/1.1", b"0\r\n\r", Ok(None)),
        ("GET / HTTP/1.1", b"1", Err(BODY)),
        ("GET / HTTP/1.1", b"00", Err(BODY)),
        ("GET / HTTP/1.1", b"0;a\r\n\r\n", Err(BODY)),
        ("GET / HTTP/1.1", b"0\r\nA: b\r\n\r\n", Err(BODY)),
        ("GET / HTTP/1.1", b"0\n\n", Err(BODY)),
        ("POST / HTTP/1.1", b"0\r\n\r\n", Err(BODY)),
        ("OPTIONS / HTTP/1.1", b"0\r\n\r\n", Err(BODY)),
        ("GET / HTTP/1.0", b"0\r\n\r\n", Err(BODY)),
    ] {
        let head = format!("{line}\r\n{chunked}");
        let outcome = check(head.as_bytes()).and_then(|head| body_length(&head, follows));
        assert_eq!(outcome, expected, "{line} {follows:?}");
    }
    assert_eq!(body_length(&check(&get("")).unwrap(), b"0\r\n\r\n"), Ok(Some(0)));
}

#[test]
fn other_protocols_are_known_by_their_first_bytes() {
    for (bytes, expected) in [
        (&b"\x16\x03\x01\x02\0"[..], Some(TLS)),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Some(PROXY_PROTOCOL)),
        (b"\r\n\r\n\0\r\nQUIT\n", Some(PROXY_PROTOCOL)),
        (b"\0\r\nQUIT\n", Some(PROXY_PROTOCOL)),
        (b"\x16", None),
        (b"GET / HTTP/1.1", None),
        (b"PROXY UNKNOWN\r\n", Some(PROXY_PROTOCOL)),
        (b"PROXY /x HTTP/1.1\r\n", None),
        (b"PROXYZ", None),
        (b"\r\n\r\n", None),
    ] {
        assert_eq!(other_protocol(bytes), expected, "{bytes:?}");
    }
}

#[test]
fn versions_and_expectations_are_answered_as_the_rfc_says() {
    for (head, expected) in [
        ("GET / HTTP/1.0\r\n\r\n", None),
        ("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", Some(EXPECTATION)),
        ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", None),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Some(BAD_VERSION)),
        ("GET / HTTP/2\r\nHost: a\r\n\r\n", Some(BAD_VERSION)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(BAD_VERSION)),
    ] {
        assert_eq!(refusal(head.as_bytes()), expected, "{head:?}");
    }
}

#[test]
fn heads_that_clients_send_are_parsed() {
    let (current, old) = (Version::Current, Version::Old);
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", ("GET", "/", current)),
        ("HEAD /a?b HTTP/1.1\r\nHost:\r\n\r\n", ("HEAD", "/a", current)),
        ("GET / HTTP/1.1\r\nhost:a\r\nX:\r\n\r\n", ("GET", "/", current)),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\nX: caf\u{e9} \t x\r\n\r\n", ("GET", "/", current)),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", "/", current)),
        ("GET http://a/b/c HTTP/1.1\r\nHost: b\r\n\r\n", ("GET", "/b/c", current)),
        ("GET HTTPS://a HTTP/1.2\r\nHost: b\r\n\r\n", ("GET", "/", current)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ("OPTIONS", "*", current)),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", ("CONNECT", "a:443", current)),
        ("FROB /?a=/../b HTTP/1.0\r\n\r\n", ("FROB", "/", old)),
    ] {
        let bytes = head.as_bytes().get(empty_lines(head.as_bytes())..).unwrap();
        assert_eq!(length(bytes, 0), Ok(Some(bytes.len())), "{head:?}");
        let Head { method, path, version, .. } = check(bytes).unwrap();
        assert_eq!((method, path, version), expected, "{head:?}");
    }
}

#[test]
fn all_fields_that_are_forwarded_are_parsed() {
    let head = get("Connection: te, Close\r\nIf-None-Match: \"a\"\r\nUser-Agent: u\r\n\
                    If-None-Match: W/\"b\"\r\nAccept: */*\r\nX-Forwarded-For: x, 192.0.2.1\r\n");
    let expected = Head {
        method: "GET",
        path: "/",
        version: Version::Current,
        close: true,
        keep_alive: false,
        if_none_match: vec!["\"a\"", "W/\"b\""],
        user_agent: Some(b"u"),
        forwarded_for: Some(b"192.0.2.1"),
        body: Body::None,
    };
    assert_eq!(check(&head), Ok(expected));
}

#[test]
fn a_head_has_a_longest_length_and_a_largest_number_of_lines() {
    assert_eq!(refusal(&get(&"A: b\r\n".repeat(MAX_LINES - 1))), None);
    assert_eq!(refusal(&get(&"A: b\r\n".repeat(MAX_LINES))), Some(TOO_MANY_LINES));
    let fits = format!("A: {}\r\n", "b".repeat(MAX_HEAD - get("A: \r\n").len()));
    assert_eq!(get(&fits).len(), MAX_HEAD);
    assert_eq!(refusal(&get(&fits)), None);
    assert_eq!(refusal(&get(&format!("B{fits}"))), Some(TOO_LONG));
    assert_eq!(length(&[b'a'; MAX_HEAD], 0), Err(TOO_LONG));
    assert_eq!(length(&[b'a'; MAX_HEAD - 1], 0), Ok(None));
}

#[test]
fn only_the_path_of_a_target_counts() {
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
    for (path, expected) in
        [(format!("/{long}?{long}"), None), (format!("/{long}a"), Some(LONG_PATH))]
    {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refusal(head.as_bytes()), expected);
    }
}

#[test]
fn what_is_forwarded_has_a_longest_length() {
    let tags = format!("If-None-Match: \"{}\"\r\n", "a".repeat(1000));
    let mut out = Vec::new();
    check(&get(&tags.repeat(5))).unwrap().rewrite("1 peer", &mut out);
    assert_eq!(out.windows(5).filter(|five| five == b"Match").count(), 2);
    assert!(out.len() < MAX_PATH + MAX_TAGS + 512);

    // Two fields that have the longest length together, and one more byte.
    let (first, second) = ("a".repeat(MAX_TAGS / 2), "b".repeat(MAX_TAGS / 2));
    for (more, expected) in [("", vec![&first, &second]), ("c", vec![&first])] {
        let head = get(&format!("If-None-Match: {first}\r\nIf-None-Match: {second}{more}\r\n"));
        assert_eq!(check(&head).unwrap().if_none_match, expected, "{more}");
    }

    let long = format!("User-Agent: {}\r\n", "a".repeat(MAX_LOGGED + 1));
    let mut out = Vec::new();
    check(&get(&long)).unwrap().rewrite("1 peer", &mut out);
    assert_eq!(out.iter().filter(|byte| **byte == b'a').count(), MAX_LOGGED);
}

#[test]
fn a_value_that_needs_no_escaping_is_not_copied() {
    assert!(matches!(printable(b"curl/8.5.0 (x; y)"), Cow::Borrowed("curl/8.5.0 (x; y)")));
    assert!(
        matches!(printable(&[b'a'; MAX_LOGGED + 1]), Cow::Borrowed(text) if text.len() == MAX_LOGGED)
    );
}

#[test]
fn only_what_the_gateway_uses_is_forwarded() {
    for (fields, expected) in [
        ("C: 9 9\r\nAnswer-Connection: close\r\nCookie: a\r\n", ""),
        ("Connection: Keep-Alive, Upgrade\r\nUpgrade: h2c\r\n", ""),
        (
            "If-None-Match: \"a\"\r\nIf-None-Match: \u{e9}\r\nIf-None-Match: W/\"b\"\r\n",
            "If-None-Match: \"a\"\r\nIf-None-Match: W/\"b\"\r\n",
        ),
        ("User-Agent: a/1\r\nUser-Agent: b\r\n", "User-Agent: a/1\r\n"),
        ("User-Agent: caf\u{e9}\t\"x\"\\\r\n", "User-Agent: caf\\xc3\\xa9\\x09\"x\"\\\r\n"),
        ("User-Agent:\r\nX-Forwarded-For: a,\r\n", ""),
        ("Accept: x, */*\r\n", ""),
        (
            "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: evil, 192.0.2.1 , 2001:db8::1\r\n",
            "X-Forwarded-For: 2001:db8::1\r\n",
        ),
    ] {
        let mut out = Vec::new();
        check(&get(fields)).unwrap().rewrite("1 192.0.2.7:80", &mut out);
        let expected = format!("GET / HTTP/1.1\r\nC: 1 192.0.2.7:80\r\n{expected}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{fields:?}");
    }
}

#[test]
fn the_worker_gets_the_value_of_the_answers_connection_field() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: te, Close\r\n\r\n", Some("close")),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, close\r\n\r\n", Some("close")),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", None),
        ("GET / HTTP/1.0\r\n\r\n", Some("close")),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Some("keep-alive")),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: keep-alive\r\n\r\n",
            Some("keep-alive"),
        ),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", Some("close")),
    ] {
        let checked = check(head.as_bytes()).unwrap();
        assert_eq!(checked.answer_connection(), expected, "{head:?}");
        let mut out = Vec::new();
        checked.rewrite("1 peer", &mut out);
        let line = format!("\r\nAnswer-Connection: {}\r\n", expected.unwrap_or("nothing"));
        let has_line = text(&out).contains(&line);
        assert_eq!(has_line, expected.is_some(), "{head:?}");
    }
}

#[test]
fn a_head_in_pieces_is_found_like_one_in_one_piece() {
    let mut text = get("A: b\r\n");
    text.extend_from_slice(b"GET");
    for cut in 0..text.len() {
        let (first, complete) = (text.get(..cut).unwrap(), text.len() - 3);
        match length(first, 0).unwrap() {
            Some(length) => assert!(cut >= complete && length == complete),
            None => assert_eq!(length(&text, cut).unwrap(), Some(complete), "{cut}"),
        }
    }
}
