//! Heads that have one reading, and which body they announce. Taken apart by the parser that hyper uses, so that both agree.

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use bytes::Bytes;
use http::Method;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use httparse::Status;
use memchr::memmem::Finder;

/// The end of a head.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));
/// The longest head of a plain request, in bytes.
const LONGEST: usize = 8 << 10;
/// The most header fields of a plain request.
const MOST_FIELDS: usize = 64;

/// A plain request, its header fields and its body aside.
pub struct Plain<'a> {
    /// The method.
    pub method: Method,
    /// The path, which is all of its target.
    pub path: &'a str,
    /// The length of its body, in bytes.
    pub length: usize,
    /// Whether it is the connection's last request.
    pub closes: bool,
}

/// Where the first head in these bytes ends.
pub fn end(bytes: &[u8]) -> Option<usize> {
    EMPTY_LINE.find(bytes).map(|at| at + 4)
}

/// Whether these bytes, in which no head ends, may begin one that is plain.
pub fn may_go_on(bytes: &[u8]) -> bool {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let begun = httparse::Request::new(&mut []).parse_with_uninit_headers(bytes, &mut fields);
    bytes.len() < LONGEST && begun == Ok(Status::Partial)
}

/// Takes a head apart, and adds its fields to `headers`; `None` for one that is not plain, or has a body of more than `most`
/// bytes.
pub fn parse<'a>(head: &'a Bytes, headers: &mut HeaderMap, most: usize) -> Option<Plain<'a>> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let end = request.parse_with_uninit_headers(head, &mut fields);
    if end != Ok(Status::Complete(head.len())) || request.version != Some(1) {
        return None;
    }
    let method = Method::from_bytes(request.method?.as_bytes()).ok()?;
    let path = request.path.filter(|path| is_plain_path(path))?;
    let (mut length, mut closes) = (None, false);
    for field in &*request.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name {
            CONTENT_LENGTH if length.is_some() => return None,
            CONTENT_LENGTH => length = Some(number(field.value).filter(|&length| length <= most)?),
            CONNECTION => closes |= is_close(field.value)?,
            // Another framing, or another protocol.
            TRANSFER_ENCODING | TRAILER | TE | EXPECT | UPGRADE => return None,
            _ => {}
        }
        headers.append(name, HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?);
    }
    Some(Plain { method, path, length: length.unwrap_or(0), closes })
}

/// Whether a target is a path and has nothing that could be read in two ways, such as an escape.
fn is_plain_path(target: &str) -> bool {
    target.starts_with('/')
        && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~:".contains(&byte))
}

/// A number of digits only.
fn number(text: &[u8]) -> Option<usize> {
    let digits =
        std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// What a field `connection` with a single option says: whether to close.
fn is_close(option: &[u8]) -> Option<bool> {
    match option {
        option if option.eq_ignore_ascii_case(b"keep-alive") => Some(false),
        option if option.eq_ignore_ascii_case(b"close") => Some(true),
        _ => None,
    }
}
