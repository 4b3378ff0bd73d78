//! Pure: the characters of a head, and its lines.

use std::iter;

use memchr::memchr;

/// What is between the LFs of `text`, before the first one and behind the last one.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let text = rest?;
        let end = memchr(b'\n', text);
        rest = end.and_then(|end| text.get(end + 1..));
        text.get(..end.unwrap_or(text.len()))
    })
}

/// Whether it has no control byte but tabs.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    // Without an early end, so that the compiler looks at many bytes at a time.
    bytes.iter().fold(true, |so_far, byte| so_far & matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// RFC 9112 §3.2: the characters of RFC 3986 §3.2.2, and a port; an empty value is valid.
pub(super) fn is_host(value: &[u8]) -> bool {
    let is_port = |rest: &[u8]| match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    if let Some(literal) = value.strip_prefix(b"[") {
        let end = literal.iter().position(|byte| *byte == b']').unwrap_or(0);
        let (address, rest) = literal.split_at(end);
        return !address.is_empty()
            && address.iter().all(|byte| is_name(byte) || *byte == b':')
            && rest.strip_prefix(b"]").is_some_and(is_port);
    }
    let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
    let (name, rest) = value.split_at(end);
    name.iter().all(is_name) && is_port(rest)
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

pub(super) fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())
}
