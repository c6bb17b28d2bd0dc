//! Parses heads that have one reading, and finds the length of their body. It uses the parser of hyper, so that both agree.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::rc::Rc;
use std::sync::LazyLock;

use http::Method;
use httparse::Status;
use memchr::memmem::Finder;

use crate::headers::HeaderField;
use crate::transport::framing;

/// The end of a head.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));
/// The longest head of a plain request, in bytes.
pub(super) const MAX_HEAD: usize = 8 << 10;
/// The most header fields of a plain request.
const MAX_FIELDS: usize = 64;
/// The fields of another framing, or of another protocol.
const OTHER_FRAMING: [&str; 5] = ["transfer-encoding", "trailer", "te", "expect", "upgrade"];

/// A plain request, its header fields and its body aside.
pub struct PlainRequest {
    /// The method.
    pub method: Method,
    /// The path. It is all of the target.
    pub path: PlainPath,
    /// The length of its body, in bytes.
    pub length: usize,
    /// Whether it is the connection's last request.
    pub closes: bool,
}

/// The path of a plain request.
#[derive(Clone)]
pub enum PlainPath {
    /// It stands there in the head.
    InHead(Range<usize>),
    /// It is that of a past head, known to be text.
    Known(Rc<str>),
}

impl PlainPath {
    /// The text.
    pub fn of_head<'a>(&'a self, head: &'a [u8]) -> &'a str {
        match self {
            PlainPath::InHead(place) => {
                std::str::from_utf8(&head[place.clone()]).expect("a plain path is ASCII")
            }
            PlainPath::Known(path) => path,
        }
    }
}

/// Where the first head in these bytes ends. None ends in the first `searched` bytes.
pub fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(EMPTY_LINE.needle().len() - 1);
    EMPTY_LINE.find(&bytes[from..]).map(|at| from + at + EMPTY_LINE.needle().len())
}

/// Whether these bytes, in which no head ends, may begin a plain one. The first `searched` bytes may. It looks at whole lines, so that
/// a head in many pieces is not parsed for each of them.
pub fn may_go_on(bytes: &[u8], searched: usize) -> bool {
    if bytes.len() >= MAX_HEAD {
        return false;
    }
    if bytes.is_empty() || (searched > 0 && !bytes[searched..].contains(&b'\n')) {
        return true;
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let begun = httparse::Request::new(&mut []).parse_with_uninit_headers(bytes, &mut fields);
    begun == Ok(Status::Partial)
}

/// Parses a head, and adds its fields to `fields`; `None` for one that is not plain, or has a body of more than `most` bytes.
pub fn parse(head: &[u8], fields: &mut Vec<HeaderField>, most: usize) -> Option<PlainRequest> {
    let mut parsed = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let end = request.parse_with_uninit_headers(head, &mut parsed);
    let whole = end == Ok(Status::Complete(head.len())) && head.len() <= MAX_HEAD;
    if !whole || request.version != Some(1) {
        return None;
    }
    let method = Method::from_bytes(request.method?.as_bytes()).ok()?;
    let path = request.path.filter(|path| is_plain_path(path))?;
    let start = path.as_ptr() as usize - head.as_ptr() as usize;
    let path = PlainPath::InHead(start..start + path.len());
    let (mut length, mut closes, mut has_host) = (None, false, false);
    for field in &*request.headers {
        let is = |name: &&str| field.name.eq_ignore_ascii_case(name);
        if is(&"content-length") {
            let announced = number(field.value).filter(|&length| length <= most)?;
            if length.replace(announced).is_some() {
                return None;
            }
        } else if is(&"connection") {
            closes |= is_close(field.value)?;
        } else if is(&"host") {
            // What is no host, or a second one, is refused in words by `call`, behind hyper.
            if has_host || !framing::is_host(field.value) {
                return None;
            }
            has_host = true;
        } else if OTHER_FRAMING.iter().any(is) {
            return None;
        }
        fields.push(HeaderField::of(head, field.name.as_bytes(), field.value)?);
    }
    has_host.then(|| PlainRequest { method, path, length: length.unwrap_or(0), closes })
}

/// Whether a target is a path and has nothing that could be read in two ways, such as an escape.
fn is_plain_path(target: &str) -> bool {
    target.starts_with('/')
        && target.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~' | b':')
        })
}

/// A number of digits only.
pub(super) fn number(text: &[u8]) -> Option<usize> {
    let digits =
        std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// What a field `connection` with a single option says: whether to close.
pub(super) fn is_close(option: &[u8]) -> Option<bool> {
    match option {
        option if option.eq_ignore_ascii_case(b"keep-alive") => Some(false),
        option if option.eq_ignore_ascii_case(b"close") => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::rc::Rc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use http::request::Parts;
    use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
    use http_body::Body;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::headers::name_value_pairs;

    const MOST: usize = 1000;

    fn plain(head: &[u8]) -> Option<(Method, String, usize, bool, HeaderMap)> {
        let mut fields = Vec::new();
        let PlainRequest { method, path, length, closes } = parse(head, &mut fields, MOST)?;
        let mut headers = HeaderMap::new();
        for (name, value) in name_value_pairs(head, &fields) {
            headers.append(HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        let path = path.of_head(head).to_owned();
        Some((method, path, length, closes, headers))
    }

    /// The first request that hyper reads, and the length of its body.
    fn by_hyper(bytes: &[u8]) -> Option<(Parts, u64)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let (seen, first) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::new(true)));
            let (see, once) = (seen.clone(), first.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (head, body) = request.into_parts();
                if once.replace(false) {
                    let length = body.size_hint().exact().unwrap_or(u64::MAX);
                    *see.borrow_mut() = Some((head, length));
                }
                async { Ok::<_, Infallible>(Response::new(String::new())) }
            });
            // What follows the first request may be anything.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(server), service).await;
            seen.take()
        })
    }

    const LINES: &[&str] = &[
        "POST /v2/models/m/infer HTTP/1.1",
        "GET /v2 HTTP/1.1",
        "HEAD /v2/models/m/versions/1/ready HTTP/1.1",
        "GET /v2?a=b HTTP/1.1",
        "GET http://h/v2 HTTP/1.1",
        "GET /v2 HTTP/1.0",
        "OPTIONS * HTTP/1.1",
    ];
    const USUAL: &[&str] = &[
        "content-length: 3\r\n",
        "x: y\r\n",
        "X-Long-Name:  y z \t\r\n",
        "accept: */*\r\n",
        "x: \u{e9}\r\n",
        "connection: Keep-Alive\r\n",
        "Connection: close\r\n",
        "empty:\r\n",
    ];
    const ODD: &[&str] = &[
        "content-length:0\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: \r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding: gzip\r\n",
        "Connection: upgrade, close\r\n",
        "Upgrade: h2c\r\n",
        "Expect: 100-continue\r\n",
        "x\r\n",
        "x : y\r\n",
        " folded\r\n",
        "\r\n",
        "\n",
        "\r",
        "x: y\n",
        "x: \0\r\n",
        "abc",
        "0\r\n\r\n",
    ];

    /// A head of parts that are usual, an odd one here and there, and some bytes that are changed.
    fn head((line, fields, edits): &(u8, Vec<u8>, Vec<(u8, u8)>)) -> Vec<u8> {
        let pick = |from: &[&'static str], at: usize| from[at % from.len()];
        let field = |&field: &u8| match usize::from(field) {
            odd @ 240.. => pick(ODD, odd - 240 + fields.len()),
            usual => pick(USUAL, usual),
        };
        let line = pick(LINES, usize::from(*line));
        let fields: String = fields.iter().take(8).map(field).collect();
        let mut bytes = format!("{line}\r\nhost: h\r\n{fields}\r\nabc").into_bytes();
        for &(at, byte) in edits.iter().filter(|(_, byte)| byte % 8 == 0) {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        bytes
    }

    #[test]
    fn any_plain_head_has_the_same_reading_for_hyper() {
        let plain_ones = AtomicUsize::new(0);
        bolero::check!().with_type().for_each(|parts| {
            let bytes = head(parts);
            let Some(end) = end(&bytes, 0) else { return };
            let Some((method, path, length, _, headers)) = plain(&bytes[..end]) else { return };
            plain_ones.fetch_add(1, Relaxed);
            let read = by_hyper(&bytes);
            let (head, body) = read.unwrap_or_else(|| panic!("hyper refuses {}", bytes.escape_ascii()));
            assert_eq!((head.method, head.uri.to_string(), body), (method, path, length as u64));
            assert_eq!(head.headers, headers);
        });
        let plain_ones = plain_ones.into_inner();
        assert!(plain_ones > 10, "{plain_ones} of the inputs were plain");
    }

    #[test]
    fn what_is_not_plain_is_left_to_hyper() {
        let good = "POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\n";
        assert_eq!(plain(format!("{good}content-length: 3\r\n\r\n").as_bytes()).unwrap().2, 3);
        assert_eq!(plain(format!("{good}\r\n").as_bytes()).unwrap().2, 0);
        assert!(plain(format!("{good}connection: CLOSE\r\n\r\n").as_bytes()).unwrap().3);
        for odd in [
            "content-length: 1001",
            "content-length: 3\r\ncontent-length: 3",
            "content-length: 99999999999999999999999",
            "content-length: 0x3",
            "transfer-encoding: chunked",
            "expect: 100-continue",
            "te: trailers",
            "trailer: x",
            "upgrade: websocket",
            "connection: keep-alive, upgrade",
            "connection:",
            "host: h",
        ] {
            assert!(plain(format!("{good}{odd}\r\n\r\n").as_bytes()).is_none(), "{odd}");
        }
        for host in ["", "host: a b\r\n", "host: a/v2\r\n", "x: y\r\n"] {
            assert!(plain(format!("GET /v2 HTTP/1.1\r\n{host}\r\n").as_bytes()).is_none(), "{host}");
        }
        for line in [
            "POST /v2/a%62 HTTP/1.1",
            "POST /v2?x HTTP/1.1",
            "POST v2 HTTP/1.1",
            "POST /v2 HTTP/1.0",
            "POST /v2",
        ] {
            assert!(plain(format!("{line}\r\nhost: h\r\n\r\n").as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn a_head_may_go_on_while_it_can_become_one() {
        for begun in [
            "",
            "P",
            "POST /v2 HTTP/1.1\r\nho",
            "POST /v2 HTTP/1.1\r\nhost: h\r\n",
            "POST /v2 HTTP/1.1\r\nx: y\r",
        ] {
            assert!(may_go_on(begun.as_bytes(), 0), "{begun:?}");
        }
        let long = format!("POST /v2 HTTP/1.1\r\nx: {}", "y".repeat(MAX_HEAD));
        // TLS, line ends that are none, a head that has ended, one that is too long.
        for never in ["\u{16}\u{3}\u{1}", "POST /v2 HTTP/1.1\rhost", "GET /v2 HTTP/1.1\nhost: h\n\n", &long] {
            assert!(!may_go_on(never.as_bytes(), 0), "{never:?}");
        }
    }
}
