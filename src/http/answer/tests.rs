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
