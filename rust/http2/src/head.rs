//! The head of a request, and whether its fields make one (RFC 9113, 8.2 and 8.3).

use std::ops::Range;

use bytes::Bytes;
use http::Method;
use http::uri::{Authority, PathAndQuery};

use crate::hpack::FieldList;

/// The head of a request as it was read. Server code makes what it needs of it, once for all requests with the same head.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target: a path that begins with `/`, and a query; or `*`, as CONNECT has it here.
    pub target: PathAndQuery,
    /// The names and values of all fields, pseudo-fields aside. Names are in lower case. `:authority` comes as the field `host`.
    pub text: Bytes,
    /// Where names and values stand in the text, which has less than 64 KiB.
    pub fields: Vec<(Range<usize>, Range<usize>)>,
    /// The length that the request declares for its body.
    pub content_length: Option<u64>,
}

/// The pseudo-fields of a request.
#[derive(Default)]
struct PseudoFields {
    method: Option<Range<usize>>,
    scheme: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    path: Option<Range<usize>>,
}

/// The fields that belong to a connection, which HTTP/2 does not have.
const OF_CONNECTIONS: [&[u8]; 5] =
    [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"];

/// The head that a list of fields makes; `None` if it makes none.
pub(crate) fn read(list: FieldList) -> Option<RequestHead> {
    let FieldList { mut text, fields, .. } = list;
    let pseudo_count = fields.iter().take_while(|(name, _)| text[name.clone()].starts_with(b":")).count();
    let pseudo = pseudo_fields(&text, &fields[..pseudo_count])?;
    let mut fields = fields;
    fields.drain(..pseudo_count);
    if !fields.iter().all(|(name, value)| is_field(&text[name.clone()], &text[value.clone()])) {
        return None;
    }
    let method = Method::from_bytes(&text[pseudo.method.clone()?]).ok()?;
    let target = target(&method, &text, &pseudo)?;
    if let Some(authority) = pseudo.authority {
        // An empty one says nothing.
        if !authority.is_empty() {
            Authority::try_from(&text[authority.clone()]).ok()?;
        }
        let has_host = fields.iter().any(|(name, _)| &text[name.clone()] == b"host");
        if !has_host {
            let name = text.len()..text.len() + 4;
            text.extend_from_slice(b"host");
            fields.push((name, authority));
        }
    }
    let content_length = content_length(&text, &fields)?;
    Some(RequestHead { method, target, text: text.into(), fields, content_length })
}

/// What a request is for.
fn target(method: &Method, text: &[u8], pseudo: &PseudoFields) -> Option<PathAndQuery> {
    if method == Method::CONNECT {
        // It has an authority alone.
        let is_alone = pseudo.scheme.is_none() && pseudo.path.is_none() && pseudo.authority.is_some();
        return is_alone.then(|| PathAndQuery::from_static("*"));
    }
    if pseudo.scheme.clone()?.is_empty() {
        return None;
    }
    let target = PathAndQuery::try_from(&text[pseudo.path.clone()?]).ok()?;
    (target.as_str().starts_with('/') || target.as_str() == "*").then_some(target)
}

/// Whether the fields behind a body are well-formed.
pub(crate) fn are_trailers(list: &FieldList) -> bool {
    list.fields.iter().all(|(name, value)| is_field(&list.text[name.clone()], &list.text[value.clone()]))
}

/// The pseudo-fields, each of which is there once at most.
fn pseudo_fields(text: &[u8], fields: &[(Range<usize>, Range<usize>)]) -> Option<PseudoFields> {
    let mut found = PseudoFields::default();
    for (name, value) in fields {
        let place = match &text[name.clone()] {
            b":method" => &mut found.method,
            b":scheme" => &mut found.scheme,
            b":authority" => &mut found.authority,
            b":path" => &mut found.path,
            _ => return None,
        };
        if place.replace(value.clone()).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Whether a field is one that a message of HTTP/2 may have.
fn is_field(name: &[u8], value: &[u8]) -> bool {
    let is_name = !name.is_empty() && name.iter().all(|&byte| is_name_byte(byte));
    let is_value = value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let is_of_connection = OF_CONNECTIONS.contains(&name) || (name == b"te" && value != b"trailers");
    is_name && is_value && !is_of_connection
}

/// Whether a byte is one of a token, letters in lower case.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The length that the fields declare, if they do; `None` if they declare no number, or several.
fn content_length(text: &[u8], fields: &[(Range<usize>, Range<usize>)]) -> Option<Option<u64>> {
    let mut declared = None;
    for (_, value) in fields.iter().filter(|(name, _)| &text[name.clone()] == b"content-length") {
        let digits = &text[value.clone()];
        let length = digits.iter().try_fold(0u64, |length, &digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            length.checked_mul(10)?.checked_add(digit)
        });
        let length = length.filter(|_| !digits.is_empty())?;
        if declared.replace(length).is_some_and(|before| before != length) {
            return None;
        }
    }
    Some(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(fields: &[(&str, &str)]) -> Option<RequestHead> {
        let mut list = FieldList::new(1 << 16);
        for (name, value) in fields {
            let start = list.text.len();
            list.text.extend_from_slice(name.as_bytes());
            let end = list.text.len();
            list.text.extend_from_slice(value.as_bytes());
            list.fields.push((start..end, end..list.text.len()));
        }
        read(list)
    }

    const GOOD: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "http"), (":path", "/a?b"), (":authority", "x:1")];

    fn with(fields: &[(&str, &str)]) -> Option<RequestHead> {
        head_of(&[&GOOD[..], fields].concat())
    }

    #[test]
    fn a_head_has_method_target_and_fields() {
        let head = with(&[("te", "trailers"), ("content-length", "12")]).unwrap();
        assert_eq!((&head.method, head.target.path(), head.target.query()), (&Method::POST, "/a", Some("b")));
        assert_eq!(head.content_length, Some(12));
        let text = |range: &Range<usize>| std::str::from_utf8(&head.text[range.clone()]).unwrap();
        let fields: Vec<_> = head.fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        assert_eq!(fields, [("te", "trailers"), ("content-length", "12"), ("host", "x:1")]);
        assert!(head_of(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")]).is_some());
        assert!(head_of(&[(":method", "CONNECT"), (":authority", "a:1")]).is_some());
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for fields in [
            &GOOD[1..],
            &GOOD[..2],
            &[GOOD[0], GOOD[2]],
            &[GOOD[0], GOOD[0], GOOD[1], GOOD[2]],
            &[GOOD[0], GOOD[1], (":path", "")],
            &[GOOD[0], GOOD[1], (":path", "a")],
            &[GOOD[0], GOOD[1], (":path", "/ ")],
            &[(":method", "CONNECT"), GOOD[1], GOOD[2]],
            &[(":method", "A B"), GOOD[1], GOOD[2]],
            &[(":status", "200"), GOOD[0], GOOD[1], GOOD[2]],
            &[GOOD[0], GOOD[1], ("a", "b"), GOOD[2]],
            &[GOOD[0], GOOD[1], GOOD[2], (":authority", "a b")],
        ] {
            assert!(head_of(fields).is_none(), "{fields:?}");
        }
        for field in [
            ("Upper", "a"),
            ("", "a"),
            ("a b", "c"),
            ("a", "b\nc"),
            ("a", "b\0"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("content-length", "a"),
            ("content-length", ""),
            ("content-length", "-1"),
            ("content-length", "99999999999999999999"),
            ("\u{e9}", "a"),
        ] {
            assert!(with(&[field]).is_none(), "{field:?}");
        }
        assert!(with(&[("content-length", "1"), ("content-length", "2")]).is_none());
        assert!(with(&[("content-length", "1"), ("content-length", "1"), ("a", "\u{e9}\t")]).is_some());
    }
}
