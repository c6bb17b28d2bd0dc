//! The header fields of a request in one of two forms: the map of hyper, or a list of positions in the head.
//!
//! A request has few fields, and few of them are looked up. So the list needs no hash, no copy and no reference count.

use std::ops::Range;

use bytes::Bytes;
use headgate_http2::write_field;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header fields of a request. Look-ups take names in lower case.
#[derive(Clone, Copy)]
pub enum Headers<'a> {
    /// The map that hyper makes.
    Map(&'a HeaderMap),
    /// A head, and the positions of the fields in it.
    List(HeaderList<'a>),
}

/// A head and the positions of its fields.
#[derive(Clone, Copy)]
pub struct HeaderList<'a> {
    head: &'a Bytes,
    fields: &'a [HeaderField],
    /// A bit for each name: most names that are looked up are not there.
    names: u64,
}

/// The bit of a name, by its length and its first letter: few names have both in common.
#[inline(always)]
fn name_bit(name: &[u8]) -> u64 {
    let first = name.first().map_or(0, u8::to_ascii_lowercase);
    1 << ((name.len() + usize::from(first)) % 64)
}

/// The bits of all names of a head.
#[derive(Clone, Copy)]
pub struct NameBits(u64);

impl NameBits {
    /// Those of these fields.
    #[inline(always)]
    pub fn of(head: &[u8], fields: &[HeaderField]) -> NameBits {
        NameBits(fields.iter().fold(0, |names, field| names | name_bit(field.name(head))))
    }
}

impl<'a> HeaderList<'a> {
    /// The first value of a name.
    fn find(self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find_map(|field| field.value_of(self.head, name))
    }

    /// Whether a field may have this name.
    #[inline(always)]
    fn may_have(&self, name: &str) -> bool {
        self.names & name_bit(name.as_bytes()) != 0
    }
}

/// The position of a field in its head.
#[derive(Clone, Copy, Debug)]
pub struct HeaderField {
    name: ByteRange,
    value: ByteRange,
}

/// A part of a head.
#[derive(Clone, Copy, Debug, Default)]
struct ByteRange {
    start: u16,
    length: u16,
}

impl HeaderField {
    /// The field with this name and value, which are parts of `head`; `None` if the head is too long.
    pub fn of(head: &[u8], name: &[u8], value: &[u8]) -> Option<HeaderField> {
        Some(HeaderField { name: ByteRange::of(head, name)?, value: ByteRange::of(head, value)? })
    }

    /// The field whose name and value are at these places of a head; `None` if the head is too long.
    pub fn at(name: Range<usize>, value: Range<usize>) -> Option<HeaderField> {
        let range = |range: Range<usize>| {
            let (start, length) = (range.start.try_into().ok()?, range.len().try_into().ok()?);
            Some(ByteRange { start, length })
        };
        Some(HeaderField { name: range(name)?, value: range(value)? })
    }

    /// Where the name stands in its head.
    pub fn name_range(&self) -> Range<usize> {
        self.name.range()
    }

    /// Where the value stands in its head; anywhere if it is empty.
    pub fn value_range(&self) -> Range<usize> {
        self.value.range()
    }

    /// The name, as it is written.
    pub fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        self.name.of_head(head)
    }

    /// The value.
    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        self.value.of_head(head)
    }

    /// The value, if `name` is the name. The lengths are compared first, because they differ for most fields.
    // Inlined, because a look-up calls it for every field.
    #[inline(always)]
    fn value_of<'a>(&self, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let is_it = usize::from(self.name.length) == name.len() && names_match(self.name.of_head(head), name);
        is_it.then(|| self.value.of_head(head))
    }
}

impl ByteRange {
    fn of(head: &[u8], part: &[u8]) -> Option<ByteRange> {
        if part.is_empty() {
            // An empty slice may point anywhere.
            return Some(ByteRange::default());
        }
        let start = (part.as_ptr() as usize).checked_sub(head.as_ptr() as usize)?;
        Some(ByteRange { start: start.try_into().ok()?, length: part.len().try_into().ok()? })
    }

    fn range(self) -> Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.length)
    }

    fn of_head(self, head: &[u8]) -> &[u8] {
        &head[usize::from(self.start)..][..usize::from(self.length)]
    }
}

static NOTHING: Bytes = Bytes::new();

impl<'a> Headers<'a> {
    /// No fields.
    pub const NONE: Headers<'static> = Headers::List(HeaderList { head: &NOTHING, fields: &[], names: 0 });

    /// The fields of a head.
    // Inlined, because each request comes by it.
    #[inline(always)]
    pub fn of_list(head: &'a Bytes, fields: &'a [HeaderField]) -> Headers<'a> {
        Headers::of_known_list(head, fields, NameBits::of(head, fields))
    }

    /// The fields of a head whose names were looked at.
    pub fn of_known_list(
        head: &'a Bytes,
        fields: &'a [HeaderField],
        NameBits(names): NameBits,
    ) -> Headers<'a> {
        Headers::List(HeaderList { head, fields, names })
    }

    /// The values of a name, in their order.
    pub fn values(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let (map, (head, fields)) = match self {
            Headers::Map(map) => (Some(map.get_all(name)), (&NOTHING, &[][..])),
            Headers::List(list) if !list.may_have(name) => (None, (&NOTHING, &[][..])),
            Headers::List(HeaderList { head, fields, .. }) => (None, (head, fields)),
        };
        let of_map = map.into_iter().flatten().map(HeaderValue::as_bytes);
        of_map.chain(fields.iter().filter_map(move |field| field.value_of(head, name)))
    }

    /// The first value of a name.
    // Inlined, so that a name that is not there costs the test of a bit.
    #[inline(always)]
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        match self {
            Headers::Map(map) => map.get(name).map(HeaderValue::as_bytes),
            Headers::List(list) if !list.may_have(name) => None,
            Headers::List(list) => list.find(name),
        }
    }

    /// Whether a field may have a value that begins so. In the list form this costs less than the look-up of a name.
    pub fn may_have_value(self, beginning: &[u8]) -> bool {
        match self {
            Headers::Map(_) => true,
            Headers::List(HeaderList { head, fields, .. }) => {
                fields.iter().any(|field| field.value(head).starts_with(beginning))
            }
        }
    }

    /// The first value of each name. One pass over a map is cheaper than a look-up for each name, which hashes it.
    #[inline(always)]
    pub fn first_values<const N: usize>(self, names: [&str; N]) -> [Option<&'a [u8]>; N] {
        let mut values = [None; N];
        let Headers::Map(map) = self else {
            for (value, name) in values.iter_mut().zip(names) {
                *value = self.get(name);
            }
            return values;
        };
        let bits = names.iter().fold(0, |bits, name| bits | name_bit(name.as_bytes()));
        for (own, value) in map {
            let own: &[u8] = own.as_ref();
            if bits & name_bit(own) == 0 {
                continue;
            }
            if let Some(at) = names.iter().position(|name| names_match(own, name)) {
                values[at].get_or_insert(value.as_bytes());
            }
        }
        values
    }

    /// A value that outlives the request. In the list form it shares the head, without a copy.
    pub fn to_value(self, value: &'a [u8]) -> Option<HeaderValue> {
        match self {
            Headers::Map(_) => HeaderValue::from_bytes(value).ok(),
            Headers::List(HeaderList { head, .. }) => {
                HeaderValue::from_maybe_shared(head.slice_ref(value)).ok()
            }
        }
    }
}

/// Header fields that are the same for many replies: as lines of a head and as a block of HTTP/2, so that one copy writes them, and as
/// pairs for hyper.
pub struct PreparedFields {
    pairs: Box<[(HeaderName, HeaderValue)]>,
    lines: Box<[u8]>,
    block: Box<[u8]>,
}

impl PreparedFields {
    /// These fields.
    pub fn new(pairs: impl Into<Box<[(HeaderName, HeaderValue)]>>) -> PreparedFields {
        let pairs = pairs.into();
        let (mut lines, mut block) = (Vec::new(), Vec::new());
        for (name, value) in &pairs {
            write_line(&mut lines, name, value);
            write_field(&mut block, name.as_str().as_bytes(), value.as_bytes());
        }
        PreparedFields { pairs, lines: lines.into(), block: block.into() }
    }

    /// The fields one by one.
    pub fn pairs(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.pairs.iter().cloned()
    }

    /// The fields as [`write_line`] writes them.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The fields as [`write_field`] writes them.
    pub fn block(&self) -> &[u8] {
        &self.block
    }
}

/// Appends a field to a head, behind the end of the line before it.
pub fn write_line(head: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(name.as_str().as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value.as_bytes());
}

/// Appends the fields of a map to a block of HTTP/2.
pub fn write_block(block: &mut Vec<u8>, fields: &HeaderMap) {
    fields.iter().for_each(|(name, value)| write_field(block, name.as_str().as_bytes(), value.as_bytes()));
}

/// The names and values of a list.
#[cfg(test)]
pub fn name_value_pairs<'a>(
    head: &'a [u8],
    fields: &'a [HeaderField],
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields.iter().map(move |field| (field.name.of_head(head), field.value.of_head(head)))
}

/// Whether two names are the same but for the case of their letters. Eight bytes are compared at a time; the last words overlap.
#[inline(always)]
fn names_match(own: &[u8], name: &str) -> bool {
    let name = name.as_bytes();
    if own.len() != name.len() {
        return false;
    }
    let (Some(own_last), Some(name_last)) = (own.last_chunk::<8>(), name.last_chunk::<8>()) else {
        return own.eq_ignore_ascii_case(name);
    };
    let pairs = own.as_chunks::<8>().0.iter().zip(name.as_chunks::<8>().0);
    pairs.chain([(own_last, name_last)]).all(|(own, name)| lower_case(*own) == lower_case(*name))
}

/// Eight bytes with their letters in lower case, as lanes of a word.
#[inline(always)]
fn lower_case(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let word = u64::from_le_bytes(bytes);
    // The sums are below 256 for each lane, so that no lane changes another.
    let low = word & (0x7f * ONES);
    let from_a = low + (0x80 - u64::from(b'A')) * ONES;
    let behind_z = low + (0x7f - u64::from(b'Z')) * ONES;
    let is_upper = (from_a ^ behind_z) & !word & (0x80 * ONES);
    word | (is_upper >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms of the same fields.
    fn with_both(fields: &[(&str, &str)], see: impl Fn(Headers<'_>)) {
        let mut map = HeaderMap::new();
        for &(name, value) in fields {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        see(Headers::Map(&map));
        let head: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = Bytes::from(head);
        let mut start = 0;
        let list: Vec<HeaderField> = fields
            .iter()
            .map(|(name, value)| {
                let name_at = start;
                let value_at = name_at + name.len() + 2;
                start = value_at + value.len() + 2;
                let (name, value) = (&head[name_at..][..name.len()], &head[value_at..][..value.len()]);
                HeaderField::of(&head, name, value).unwrap()
            })
            .collect();
        see(Headers::of_list(&head, &list));
    }

    #[test]
    fn a_map_and_a_list_of_the_same_fields_give_the_same_values() {
        with_both(&[("Host", "a"), ("X-Y", "1"), ("x-y", "2"), ("empty", "")], |headers| {
            assert_eq!(headers.get("host"), Some(&b"a"[..]));
            assert_eq!(headers.get("x-y"), Some(&b"1"[..]));
            assert_eq!(headers.get("empty"), Some(&b""[..]));
            assert_eq!(headers.get("x"), None);
            assert_eq!(headers.values("host").collect::<Vec<_>>(), [b"a"]);
            assert_eq!(headers.values("x-y").collect::<Vec<_>>(), [b"1", b"2"]);
            assert_eq!(
                headers.first_values(["x-y", "none", "empty"]),
                [Some(&b"1"[..]), None, Some(&b""[..])]
            );
            for name in ["x-y", "empty"] {
                let value = headers.get(name).unwrap();
                assert_eq!(headers.to_value(value).unwrap().as_bytes(), value);
            }
        });
    }

    #[test]
    fn names_differ_in_the_case_of_letters_only() {
        for name in ["te", "connection", "x-request-id", "a-name-of-24-characters-"] {
            for at in 0..name.len() {
                for byte in 0..=u8::MAX {
                    let mut own = name.as_bytes().to_vec();
                    own[at] = byte;
                    assert_eq!(names_match(&own, name), own.eq_ignore_ascii_case(name.as_bytes()), "{own:?}");
                }
            }
            assert!(!names_match(&name.as_bytes()[1..], name));
        }
    }

    #[test]
    fn a_slice_outside_the_head_is_no_field() {
        let around = vec![b'x'; 200_000];
        assert!(HeaderField::of(&around[70_000..], &around[..1], b"").is_none());
        assert!(HeaderField::of(&around, &around[70_000..70_001], b"").is_none());
        assert!(HeaderField::of(&around, &around[..70_000], b"").is_none());
    }
}
