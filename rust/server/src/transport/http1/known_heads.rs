//! The heads of past requests: a client sends the same head over and over, but for values such as lengths, ids and keys.
//!
//! A head that has the same request line and the same field names in the same order, with the same bytes around its values, is not parsed.
//! A value may differ if it is visible ASCII and spaces, which have one reading; the values that frame a request are read by the functions
//! that parsing reads them with. At the first difference beyond that, the head is parsed.
//!
//! Not here: parsing ([`head::parse`]).

use std::cell::RefCell;
use std::rc::Rc;

use http::Method;

use super::head::{self, MAX_HEAD, PlainPath, PlainRequest};
use crate::headers::HeaderField;
use crate::transport::framing;

/// The most heads that a thread keeps.
const KEPT: usize = 4;
/// The longest head that is kept, in bytes.
const MAX_KEPT: usize = 1 << 10;
/// So many requests that no head fits must come before one is replaced: if nothing repeats, keeping costs next to nothing.
const PATIENCE: u32 = 16;
/// After so many requests in a row that no head fitted, only one in [`PATIENCE`] is compared.
const DOUBTFUL: u32 = 64;

/// The heads of one thread.
#[derive(Default)]
struct KnownHeads {
    kept: Vec<KnownHead>,
    /// The place of the one that fitted last.
    last: usize,
    /// The place that is overwritten next.
    next: usize,
    /// Requests in a row that none fitted.
    missed: u32,
}

/// A head, and how it was parsed.
#[derive(Default)]
struct KnownHead {
    bytes: Vec<u8>,
    method: Method,
    path: Rc<str>,
    fields: Vec<HeaderField>,
    /// The places among the fields of those that frame a request.
    length_field: Option<usize>,
    host_field: Option<usize>,
    connection_fields: Vec<usize>,
    length: usize,
    closes: bool,
}

thread_local! {
    static KNOWN: RefCell<KnownHeads> = RefCell::default();
}

/// As [`head::end`] and [`head::parse`], by what this thread knows of past heads: where the head ends, and the request if it is plain.
pub(super) fn read(
    bytes: &[u8],
    searched: usize,
    fields: &mut Vec<HeaderField>,
    most: usize,
) -> Option<(usize, Option<PlainRequest>)> {
    if bytes.is_empty() {
        // A connection that waits for its next request asks this each time.
        return None;
    }
    KNOWN.with_borrow_mut(|known| known.read(bytes, searched, fields, most))
}

impl KnownHeads {
    fn read(
        &mut self,
        bytes: &[u8],
        searched: usize,
        fields: &mut Vec<HeaderField>,
        most: usize,
    ) -> Option<(usize, Option<PlainRequest>)> {
        if let Some(same) = self.same(bytes) {
            fields.extend_from_slice(&same.fields);
            return Some((same.bytes.len(), same.request(same.length, same.closes, most)));
        }
        let end = head::end(bytes, searched)?;
        Some((end, self.parse(&bytes[..end], fields, most)))
    }

    /// The head that fitted last, if these bytes begin with it: its only empty line is their head's end.
    fn same(&mut self, bytes: &[u8]) -> Option<&KnownHead> {
        let last = self.kept.get(self.last).filter(|_| self.missed < DOUBTFUL)?;
        if !bytes.starts_with(&last.bytes) {
            return None;
        }
        self.missed = 0;
        Some(last)
    }

    fn parse(&mut self, head: &[u8], fields: &mut Vec<HeaderField>, most: usize) -> Option<PlainRequest> {
        if self.missed < DOUBTFUL || self.missed.is_multiple_of(PATIENCE) {
            let order = (self.last..self.kept.len()).chain(0..self.last.min(self.kept.len()));
            for place in order {
                if let Some(plain) = self.kept[place].read(head, fields, most) {
                    (self.last, self.missed) = (place, 0);
                    return Some(plain);
                }
                fields.clear();
            }
        }
        let plain = head::parse(head, fields, most)?;
        self.missed = self.missed.wrapping_add(1);
        if head.len() <= MAX_KEPT {
            if self.kept.len() < KEPT {
                self.kept.push(KnownHead::default());
                self.kept.last_mut()?.learn(head, fields, &plain);
            } else if self.missed.is_multiple_of(PATIENCE) {
                self.kept[self.next].learn(head, fields, &plain);
                self.next = (self.next + 1) % KEPT;
            }
        }
        Some(plain)
    }
}

impl KnownHead {
    /// Takes over a head that was parsed.
    fn learn(&mut self, head: &[u8], fields: &[HeaderField], plain: &PlainRequest) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        self.fields.clear();
        self.fields.extend_from_slice(fields);
        self.method = plain.method.clone();
        self.path = plain.path.of_head(head).into();
        (self.length, self.closes) = (plain.length, plain.closes);
        let named = |name: &'static str| {
            let is = move |field: &HeaderField| field.name(head).eq_ignore_ascii_case(name.as_bytes());
            fields.iter().enumerate().filter(move |(_, field)| is(field)).map(|(place, _)| place)
        };
        self.length_field = named("content-length").next();
        self.host_field = named("host").next();
        self.connection_fields.clear();
        self.connection_fields.extend(named("connection"));
    }

    /// Reads a head that differs in values only, and adds its fields to `fields`, which may have some if it gives `None`.
    fn read(&self, head: &[u8], fields: &mut Vec<HeaderField>, most: usize) -> Option<PlainRequest> {
        let (mut length, mut closes) = (self.length, self.closes);
        if head == self.bytes {
            fields.extend_from_slice(&self.fields);
        } else {
            self.read_values(head, fields)?;
            if let Some(place) = self.length_field {
                length = head::number(fields[place].value(head))?;
            }
            if self.host_field.is_none_or(|place| !framing::is_host(fields[place].value(head))) {
                return None;
            }
            closes = false;
            for &place in &self.connection_fields {
                closes |= head::is_close(fields[place].value(head))?;
            }
        }
        self.request(length, closes, most)
    }

    /// The request of a head with that length and end, unless it is too long.
    fn request(&self, length: usize, closes: bool, most: usize) -> Option<PlainRequest> {
        let (method, path) = (self.method.clone(), PlainPath::Known(self.path.clone()));
        (length <= most).then_some(PlainRequest { method, path, length, closes })
    }

    /// Finds the values in a head that has the same bytes around them.
    fn read_values(&self, head: &[u8], fields: &mut Vec<HeaderField>) -> Option<()> {
        if head.len() > MAX_HEAD {
            return None;
        }
        let (mut known_at, mut at) = (0, 0);
        for field in &self.fields {
            let (name, value) = (field.name_range(), field.value_range());
            // An empty value says nothing of where it stands.
            if value.is_empty() {
                return None;
            }
            let around = &self.bytes[known_at..value.start];
            if !head[at..].starts_with(around) {
                return None;
            }
            let name_at = at + (name.start - known_at);
            at += around.len();
            let same = &self.bytes[value.clone()];
            let rest = &head[at..];
            let length = match rest.strip_prefix(same) {
                // With the same byte behind it the value ends there, or the comparison of what is around values fails.
                Some(behind) if behind.first() == self.bytes.get(value.end) => same.len(),
                _ => plain_value(rest)?,
            };
            fields.push(HeaderField::at(name_at..name_at + name.len(), at..at + length)?);
            at += length;
            known_at = value.end;
        }
        (head[at..] == self.bytes[known_at..]).then_some(())
    }
}

/// The length of the value at the beginning of `rest`, up to the end of its line, if its bytes have one reading: visible ASCII and spaces,
/// of which none is its first or its last byte.
fn plain_value(rest: &[u8]) -> Option<usize> {
    let length = visible_length(rest)?;
    let value = &rest[..length];
    let has_one_reading = rest[length] == b'\r' && value.first()? != &b' ' && value.last()? != &b' ';
    has_one_reading.then_some(length)
}

/// The number of bytes in front of the first one that is neither visible ASCII nor a space; `None` if all are. Eight are looked at at a time.
fn visible_length(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let (words, tail) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // What a lane borrows or carries reaches higher lanes only, and the lowest one counts.
        let below_space = word.wrapping_sub(u64::from(b' ') * ONES) & !word;
        let above_tilde = word.wrapping_add(u64::from(0x80 - (b'~' + 1)) * ONES) | word;
        let odd = (below_space | above_tilde) & (0x80 * ONES);
        if odd != 0 {
            return Some(8 * place + odd.trailing_zeros() as usize / 8);
        }
    }
    let in_tail = tail.iter().position(|byte| !matches!(byte, b' '..=b'~'))?;
    Some(8 * words.len() + in_tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::name_value_pairs;

    const MOST: usize = 1000;
    const HEADS: [&str; 5] = [
        "POST /v2/models/digits/infer HTTP/1.1\r\nHost: a:80\r\nContent-Type: application/json\r\nContent-Length: 270\r\n\r\n",
        "POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx-request-id:  7\r\ncontent-length:3\r\nx-user-id: u1 \r\n\r\n",
        "GET /v2/health/ready HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\naccept: */*\r\n\r\n",
        "POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\nempty:\r\ncontent-length: 10\r\n\r\n",
        "GET /v2 HTTP/1.1\nhost: a\n\n\r\n\r\n",
    ];

    type Read = Option<(Method, String, usize, bool, Vec<(Vec<u8>, Vec<u8>)>)>;

    fn words(plain: Option<PlainRequest>, head: &[u8], fields: &[HeaderField]) -> Read {
        let PlainRequest { method, path, length, closes } = plain?;
        let pairs = name_value_pairs(head, fields).map(|(name, value)| (name.to_vec(), value.to_vec()));
        let path = path.of_head(head).to_owned();
        Some((method, path, length, closes, pairs.collect()))
    }

    fn parsed(head: &[u8]) -> Read {
        let mut fields = Vec::new();
        let plain = head::parse(head, &mut fields, MOST);
        words(plain, head, &fields)
    }

    fn known(heads: &mut KnownHeads, head: &[u8]) -> Read {
        let mut fields = Vec::new();
        let plain = heads.parse(head, &mut fields, MOST);
        words(plain, head, &fields)
    }

    fn filled() -> KnownHeads {
        let mut heads = KnownHeads::default();
        for head in HEADS {
            known(&mut heads, head.as_bytes());
        }
        heads
    }

    #[test]
    fn a_head_with_other_values_is_not_parsed() {
        let mut heads = filled();
        for (from, to) in
            [("270", "9"), ("a:80", "[::1]"), ("-01\r", "-00\r"), ("id:  7", "id:  seven of nine")]
        {
            let head = HEADS[..2].concat();
            assert!(head.contains(from), "{from}");
            for head in &HEADS[..2] {
                let head = head.replace(from, to);
                let fits =
                    heads.kept.iter().any(|kept| kept.read(head.as_bytes(), &mut Vec::new(), MOST).is_some());
                assert!(fits, "{head:?}");
                assert_eq!(known(&mut heads, head.as_bytes()), parsed(head.as_bytes()));
            }
        }
        let closing = HEADS[2].replace("keep-alive", "close");
        assert!(known(&mut heads, closing.as_bytes()).unwrap().3);
        for odd in [HEADS[0].replace("270", "1001"), HEADS[0].replace("a:80", "a/b")] {
            assert_eq!(known(&mut heads, odd.as_bytes()), None, "{odd:?}");
        }
    }

    #[test]
    fn a_head_ends_where_its_empty_line_is() {
        bolero::check!().with_type::<(u8, u16, Vec<u8>)>().for_each(|(which, cut, behind)| {
            let mut heads = filled();
            let head = HEADS[usize::from(*which) % HEADS.len()].as_bytes();
            known(&mut heads, head);
            let bytes = [head, behind].concat();
            for bytes in [&bytes[..], &bytes[..usize::from(*cut) % bytes.len()]] {
                let mut fields = Vec::new();
                let found = heads.read(bytes, 0, &mut fields, MOST);
                let found = found.map(|(end, plain)| (end, words(plain, &bytes[..end], &fields)));
                let wanted = head::end(bytes, 0).map(|end| (end, parsed(&bytes[..end])));
                assert_eq!(found, wanted, "{}", bytes.escape_ascii());
            }
        });
        let mut heads = filled();
        known(&mut heads, HEADS[0].as_bytes());
        assert!(heads.same(&[HEADS[0], "{}"].concat().into_bytes()).is_some());
    }

    #[test]
    fn the_visible_bytes_end_at_the_first_other_one() {
        for length in 0..20 {
            for byte in 0..=u8::MAX {
                for behind in [b'a', 0, 0x7f, 0xff] {
                    let mut bytes = vec![b'~'; length];
                    bytes.extend([byte, behind, b' ', b'\r', b'\n']);
                    let wanted = bytes.iter().position(|byte| !matches!(byte, b' '..=b'~'));
                    assert_eq!(visible_length(&bytes), wanted, "{}", bytes.escape_ascii());
                }
            }
        }
        assert_eq!(visible_length(b"all of it is visible"), None);
    }

    #[test]
    fn few_heads_are_kept_and_none_that_is_long() {
        let mut heads = KnownHeads::default();
        for round in 0..500 {
            let head = format!("GET /v2/{round} HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(round * 4));
            assert_eq!(known(&mut heads, head.as_bytes()), parsed(head.as_bytes()));
        }
        assert_eq!(heads.kept.len(), KEPT);
        assert!(heads.kept.iter().all(|kept| kept.bytes.len() <= MAX_KEPT));
        // It goes on learning.
        let last = HEADS[0].as_bytes();
        for _ in 0..2 * PATIENCE {
            known(&mut heads, last);
        }
        assert_eq!(heads.missed, 0);
    }

    #[test]
    fn any_change_of_a_head_is_read_as_by_parsing_it() {
        type Change = (u8, u16, u8, Vec<u8>);
        bolero::check!().with_type::<Vec<Change>>().for_each(|changes| {
            let mut heads = filled();
            for (which, at, length, bytes) in changes {
                let mut head = HEADS[usize::from(*which) % HEADS.len()].as_bytes().to_vec();
                let at = usize::from(*at) % head.len();
                let end = head.len().min(at + usize::from(length % 4));
                // Mostly what heads consist of.
                const USUAL: &[u8] = b"09aZ -:\r\n\t\x7f\xff/,kc";
                let new = bytes
                    .iter()
                    .map(|&byte| if byte % 4 == 0 { byte } else { USUAL[usize::from(byte) % USUAL.len()] });
                head.splice(at..end, new);
                let wanted = parsed(&head);
                assert_eq!(known(&mut heads, &head), wanted, "{}", head.escape_ascii());
                assert_eq!(known(&mut heads, &head), wanted, "{}", head.escape_ascii());
            }
        });
    }
}
