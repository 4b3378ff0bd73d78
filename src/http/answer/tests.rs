use super::*;
use crate::documents::Kind;

fn request<'a>(method: &'a str, if_none_match: &[&'a str]) -> Request<'a> {
    Request { method, path: "/", if_none_match: if_none_match.to_vec(), connection: None }
}

fn text(answer: &Answer) -> String {
    String::from_utf8([&answer.bytes.head, answer.bytes.body()].concat()).unwrap()
}

fn answer(request: &Request<'_>, age: Duration) -> String {
    let held = Representation::new(Kind::Jwks, b"{}".to_vec());
    let client_cache_ttl = Duration::from_secs(3600);
    let shared_cache_ttl = Some(Duration::from_secs(30));
    let fresh = Freshness { age, client_cache_ttl, shared_cache_ttl, now: SystemTime::UNIX_EPOCH };
    text(&document(&held, request, &fresh))
}

#[test]
fn an_answer_holds_these_bytes_and_no_others() {
    assert_eq!(
        answer(&request("GET", &[]), Duration::from_millis(600_999)),
        "HTTP/1.1 200 OK\r\n\
         Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         Content-Type: application/jwk-set+json\r\n\
         Content-Length: 2\r\n\
         ETag: \"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"\r\n\
         Access-Control-Allow-Origin: *\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Cache-Control: public, max-age=3000, s-maxage=30\r\n\
         Expires: Thu, 01 Jan 1970 00:50:00 GMT\r\n\
         \r\n{}"
    );
}

#[test]
fn a_copy_older_than_clients_may_keep_it_has_a_max_age_of_0() {
    let old = answer(&request("GET", &[]), Duration::from_secs(7200));
    assert!(old.contains("max-age=0, s-maxage=30\r\n"), "{old}");
}

#[test]
fn if_none_match_is_a_list_compared_weakly() {
    let etag = "\"abc\"";
    for (values, expected) in [
        (vec!["\"abc\""], true),
        (vec!["W/\"abc\""], true),
        (vec!["*"], true),
        (vec![" \"x\" , W/\"y\",\"abc\""], true),
        (vec!["\"x\"", "\"abc\""], true),
        (vec!["\"a,b\", \"abc\""], true),
        (vec![], false),
        (vec![""], false),
        (vec!["abc"], false),
        (vec!["\"abc"], false),
        (vec!["\"ABC\""], false),
        (vec!["w/\"abc\""], false),
        (vec!["\"x\", *"], false),
        (vec!["x, \"abc\""], false),
        (vec!["\""], false),
        (vec![",,,"], false),
    ] {
        assert_eq!(matches(&values, etag), expected, "{values:?}");
    }
}

#[test]
fn head_is_answered_as_get_without_the_body() {
    let get = answer(&request("GET", &[]), Duration::ZERO);
    assert_eq!(
        Some(answer(&request("HEAD", &[]), Duration::ZERO).as_str()),
        get.strip_suffix("{}")
    );
}

#[test]
fn retry_after_is_never_zero() {
    let answer =
        unavailable(&request("GET", &[]), SystemTime::UNIX_EPOCH, Reason::Timeout, Duration::ZERO);
    assert!(text(&answer).contains("\r\nRetry-After: 1\r\n"));
}

#[test]
fn a_client_that_has_the_document_gets_its_headers_without_it() {
    let etag = "\"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"";
    assert_eq!(
        answer(&request("GET", &[etag]), Duration::ZERO),
        format!(
            "HTTP/1.1 304 Not Modified\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             ETag: {etag}\r\n\
             Access-Control-Allow-Origin: *\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Cache-Control: public, max-age=3600, s-maxage=30\r\n\
             Expires: Thu, 01 Jan 1970 01:00:00 GMT\r\n\
             \r\n"
        )
    );
}

#[test]
fn an_answer_that_is_no_document_holds_these_bytes_and_no_others() {
    const PLAIN: &str = "text/plain; charset=utf-8";
    const CORS: &str = "Access-Control-Allow-Origin: *\r\n";
    const ALLOW: &str = "Allow: GET, HEAD, OPTIONS\r\n";
    let now = SystemTime::UNIX_EPOCH;
    let [get, head, post, options] =
        ["GET", "HEAD", "POST", "OPTIONS"].map(|method| request(method, &[]));
    let for_a_while = unavailable(&get, now, Reason::Timeout, Duration::from_millis(1001));
    for (answer, status, content_type, headers, length, body) in [
        (super::text(&get, now, 404, "a\n"), "404 Not Found", PLAIN, vec![CORS], 2, "a\n"),
        (super::text(&head, now, 404, "a\n"), "404 Not Found", PLAIN, vec![CORS], 2, ""),
        (
            super::text(&get, now, 500, "a\n"),
            "500 Internal Server Error",
            PLAIN,
            vec![CORS],
            2,
            "a\n",
        ),
        (page(&get, now, "a/b", "{}"), "200 OK", "a/b", vec![], 2, "{}"),
        (page(&options, now, "a/b", "{}"), "200 OK", "a/b", vec![ALLOW], 0, ""),
        (probe(&get, now, 503, "a"), "503 Service Unavailable", PLAIN, vec![CORS], 1, "a"),
        (
            probe(&options, now, 503, "a"),
            "503 Service Unavailable",
            PLAIN,
            vec![CORS, ALLOW],
            0,
            "",
        ),
        (
            method_not_allowed(&post, now),
            "405 Method Not Allowed",
            PLAIN,
            vec![CORS, ALLOW],
            19,
            "method not allowed\n",
        ),
        (
            for_a_while,
            "502 Bad Gateway",
            PLAIN,
            vec![CORS, "Retry-After: 2\r\n"],
            21,
            "unavailable: timeout\n",
        ),
    ] {
        let expected = format!(
            "HTTP/1.1 {status}\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Content-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\
             Cache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n\
             {}\r\n{body}",
            headers.concat()
        );
        assert_eq!(text(&answer), expected);
        assert_eq!(answer.bytes.length(), expected.len());
        assert!(status.starts_with(&answer.status.to_string()), "{}", answer.status);
    }
}

#[test]
fn a_preflight_is_answered_for_a_day() {
    assert_eq!(
        text(&preflight(&request("OPTIONS", &[]), SystemTime::UNIX_EPOCH)),
        "HTTP/1.1 204 No Content\r\n\
         Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         Allow: GET, HEAD, OPTIONS\r\n\
         Access-Control-Allow-Origin: *\r\n\
         Access-Control-Allow-Methods: GET, HEAD, OPTIONS\r\n\
         Access-Control-Allow-Headers: *\r\n\
         Access-Control-Max-Age: 86400\r\n\
         Cache-Control: no-store\r\n\
         \r\n"
    );
}

#[test]
fn a_refusal_has_the_rfcs_words_for_its_status_and_closes_the_connection() {
    for (status, phrase) in [
        (400, "Bad Request"),
        (408, "Request Timeout"),
        (413, "Content Too Large"),
        (414, "URI Too Long"),
        (417, "Expectation Failed"),
        (431, "Request Header Fields Too Large"),
        (505, "HTTP Version Not Supported"),
    ] {
        let bytes = refusal("GET", status, SystemTime::UNIX_EPOCH);
        let head = String::from_utf8(bytes.head.clone()).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} {phrase}\r\n")), "{head}");
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        assert_eq!(bytes.body(), format!("{}\n", phrase.to_lowercase()).as_bytes());
    }
}

#[test]
fn an_answer_says_what_becomes_of_the_connection_where_the_request_needs_it() {
    for (connection, expected) in [
        (None, None),
        (Some(Connection::Close), Some("Connection: close")),
        (Some(Connection::KeepAlive), Some("Connection: keep-alive")),
    ] {
        let request = Request { connection, ..request("GET", &[]) };
        let text = answer(&request, Duration::ZERO);
        assert_eq!(text.lines().find(|line| line.starts_with("Connection")), expected);
    }
}
