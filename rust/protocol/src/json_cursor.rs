//! A cursor over strict JSON (RFC 8259), with which envelopes are read.
//!
//! Not here: tensor data. `list_extent` skips it and returns its bytes, which `numbers` or `strings` read later.
//! Next: `envelope`.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr2, memchr3};

use crate::json_fault::{FaultKind, JsonFault, ParseResult};
use crate::json_string;

/// How deep values without a meaning here may be nested.
const MAX_DEPTH: usize = 64;

/// How deep tensor data may be nested. It is one more than the largest rank, so that data that is too deep gets a message
/// of its own.
const MAX_DATA_DEPTH: usize = headgate_core::tensor::MAX_RANK + 1;

/// The offset of the first byte at or after `pos` that is not white space of JSON.
#[inline(always)]
pub(crate) fn skip_space(data: &[u8], mut pos: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = data.get(pos) {
        pos += 1;
    }
    pos
}

/// The offset behind the digits from `pos` on, if there is one.
#[inline(always)]
fn digits_end(data: &[u8], pos: usize) -> Option<usize> {
    let mut end = pos;
    while let Some(b'0'..=b'9') = data.get(end) {
        end += 1;
    }
    (end > pos).then_some(end)
}

/// The offset behind the number at `pos`, if there is one; the same as [`JsonCursor::number`] finds.
#[inline(always)]
fn number_end(data: &[u8], pos: usize) -> Option<usize> {
    let first = pos + usize::from(data.get(pos) == Some(&b'-'));
    let mut end = if data.get(first) == Some(&b'0') { first + 1 } else { digits_end(data, first)? };
    if data.get(end) == Some(&b'.') {
        end = digits_end(data, end + 1)?;
    }
    if let Some(b'e' | b'E') = data.get(end) {
        let signed = matches!(data.get(end + 1), Some(b'+' | b'-'));
        end = digits_end(data, end + 1 + usize::from(signed))?;
    }
    Some(end)
}

/// The kinds of JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonKind {
    Text,
    List,
    Object,
    Bool,
    Null,
    Number,
    /// A byte that begins no value.
    Invalid,
    /// The end of the input.
    End,
}

impl fmt::Display for JsonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JsonKind::Text => "a string",
            JsonKind::List => "a list",
            JsonKind::Object => "an object",
            JsonKind::Bool => "true or false",
            JsonKind::Null => "null",
            JsonKind::Number => "a number",
            JsonKind::Invalid => "something that is not JSON",
            JsonKind::End => "nothing",
        })
    }
}

/// Bytes of JSON and a position in them, which is never behind their end.
#[derive(Debug)]
pub(crate) struct JsonCursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> JsonCursor<'a> {
    /// A cursor at the first byte.
    pub(crate) fn new(bytes: &'a [u8]) -> JsonCursor<'a> {
        JsonCursor { bytes, pos: 0 }
    }

    /// The next byte that is not white space. The cursor stays in front of it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        self.pos = skip_space(self.bytes, self.pos);
        self.bytes.get(self.pos).copied()
    }

    /// A fault at the present position.
    pub(crate) fn fault(&self, kind: FaultKind) -> JsonFault {
        JsonFault::new(self.bytes, self.pos, kind)
    }

    /// The kind of the next value, by its first byte.
    #[inline]
    pub(crate) fn kind(&mut self) -> JsonKind {
        match self.peek() {
            Some(b'"') => JsonKind::Text,
            Some(b'[') => JsonKind::List,
            Some(b'{') => JsonKind::Object,
            Some(b't' | b'f') => JsonKind::Bool,
            Some(b'n') => JsonKind::Null,
            Some(b'-' | b'0'..=b'9') => JsonKind::Number,
            Some(_) => JsonKind::Invalid,
            None => JsonKind::End,
        }
    }

    /// Skips one byte that must come next.
    fn expect_byte(&mut self, byte: u8, expected: &'static str) -> ParseResult<()> {
        if self.peek() == Some(byte) {
            self.pos += 1;
            return Ok(());
        }
        Err(self.fault(FaultKind::Expected(expected)))
    }

    /// Checks that only white space is left.
    pub(crate) fn expect_end(&mut self) -> ParseResult<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault(FaultKind::Trailing)),
        }
    }

    /// Reads an object. `each` is called behind every key, and must consume the value.
    pub(crate) fn members<E: From<JsonFault>>(
        &mut self,
        mut each: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect_byte(b'{', "an object")?;
        if self.peek() == Some(b'}') {
            self.pos += 1;
            return Ok(());
        }
        loop {
            let key = self.string("a key in double quotes")?;
            self.expect_byte(b':', "a colon")?;
            each(self, key)?;
            match self.peek() {
                Some(b',') => self.pos += 1,
                Some(b'}') => {
                    self.pos += 1;
                    return Ok(());
                }
                _ => return Err(self.fault(FaultKind::Expected("a comma or the end of the object")).into()),
            }
        }
    }

    /// As [`JsonCursor::members`], but a member that is `null` counts as absent: many clients write every optional field.
    #[inline]
    pub(crate) fn present_members<E: From<JsonFault>>(
        &mut self,
        mut each: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.members(|cursor, key| match cursor.peek() {
            Some(b'n') => Ok(cursor.expect_literal(b"null")?),
            _ => each(cursor, key),
        })
    }

    /// Reads a list. `each` is called in front of every element with its index, and must consume the element.
    pub(crate) fn elements<E: From<JsonFault>>(
        &mut self,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect_byte(b'[', "a list")?;
        if self.peek() == Some(b']') {
            self.pos += 1;
            return Ok(());
        }
        for index in 0.. {
            each(self, index)?;
            match self.peek() {
                Some(b',') => self.pos += 1,
                Some(b']') => {
                    self.pos += 1;
                    break;
                }
                _ => return Err(self.fault(FaultKind::Expected("a comma or the end of the list")).into()),
            }
        }
        Ok(())
    }

    /// Reads a string. It is borrowed if it has no escapes.
    pub(crate) fn string(&mut self, expected: &'static str) -> ParseResult<Cow<'a, str>> {
        self.expect_byte(b'"', expected)?;
        let (text, end) = json_string::read(self.bytes, self.pos)?;
        self.pos = end;
        Ok(text)
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&mut self) -> ParseResult<bool> {
        match self.peek() {
            Some(b't') => self.expect_literal(b"true").map(|()| true),
            Some(b'f') => self.expect_literal(b"false").map(|()| false),
            _ => Err(self.fault(FaultKind::Expected("true or false"))),
        }
    }

    /// Skips a literal.
    fn expect_literal(&mut self, word: &'static [u8]) -> ParseResult<()> {
        if self.bytes[self.pos..].starts_with(word) {
            self.pos += word.len();
            return Ok(());
        }
        Err(self.fault(FaultKind::Expected("true, false or null")))
    }

    /// Reads the text of a number and checks its grammar. The caller parses it.
    pub(crate) fn number(&mut self) -> ParseResult<&'a str> {
        self.peek();
        let start = self.pos;
        if self.bytes.get(self.pos) == Some(&b'-') {
            self.pos += 1;
        }
        match self.bytes.get(self.pos) {
            Some(b'0') => self.pos += 1,
            _ => self.skip_digits()?,
        }
        if self.bytes.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.pos) {
            self.pos += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.pos) {
                self.pos += 1;
            }
            self.skip_digits()?;
        }
        std::str::from_utf8(&self.bytes[start..self.pos]).map_err(|_| self.fault(FaultKind::Utf8))
    }

    /// Skips one digit or more.
    fn skip_digits(&mut self) -> ParseResult<()> {
        let start = self.pos;
        while let Some(b'0'..=b'9') = self.bytes.get(self.pos) {
            self.pos += 1;
        }
        if self.pos == start { Err(self.fault(FaultKind::Expected("a digit"))) } else { Ok(()) }
    }

    /// Skips any value and returns its bytes.
    pub(crate) fn value_extent(&mut self) -> ParseResult<&'a [u8]> {
        self.pos = skip_space(self.bytes, self.pos);
        let start = self.pos;
        self.skip()?;
        Ok(&self.bytes[start..self.pos])
    }

    /// Skips a value of any kind, and checks that it is valid JSON.
    pub(crate) fn skip(&mut self) -> ParseResult<()> {
        self.skip_nested(MAX_DEPTH)
    }

    fn skip_nested(&mut self, depth: usize) -> ParseResult<()> {
        match self.peek() {
            Some(b'{' | b'[') if depth == 0 => Err(self.fault(FaultKind::Depth)),
            Some(b'{') => self.members(|cursor, _| cursor.skip_nested(depth - 1)),
            Some(b'[') => self.elements(|cursor, _| {
                cursor.skip_numbers();
                cursor.skip_nested(depth - 1)
            }),
            Some(b'"') => self.string("a string").map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') => self.expect_literal(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => Err(self.fault(FaultKind::Expected("a value"))),
        }
    }

    /// Skips elements of a list as long as each is a number with a comma behind it; returns how many. An element must be left behind them.
    pub(crate) fn skip_numbers(&mut self) -> usize {
        let mut count = 0;
        self.pos = skip_space(self.bytes, self.pos);
        while let Some(end) = number_end(self.bytes, self.pos)
            && self.bytes.get(end) == Some(&b',')
        {
            self.pos = skip_space(self.bytes, end + 1);
            count += 1;
        }
        count
    }

    /// Skips a list by counting brackets outside strings, and returns its bytes, brackets included.
    ///
    /// The inside is not checked: the decoder of the bytes does that.
    pub(crate) fn list_extent(&mut self) -> ParseResult<&'a [u8]> {
        if self.peek() != Some(b'[') {
            return Err(self.fault(FaultKind::Expected("a list")));
        }
        let start = self.pos;
        let mut depth = 0;
        loop {
            let Some(step) = memchr3(b'[', b']', b'"', &self.bytes[self.pos..]) else {
                self.pos = self.bytes.len();
                return Err(self.fault(FaultKind::Expected("the end of the list")));
            };
            let at = self.pos + step;
            self.pos = at + 1;
            match self.bytes[at] {
                b'[' if depth == MAX_DATA_DEPTH => {
                    return Err(JsonFault::new(self.bytes, at, FaultKind::Depth));
                }
                b'[' => depth += 1,
                b']' if depth == 1 => return Ok(&self.bytes[start..self.pos]),
                b']' => depth -= 1,
                _ => self.pos = self.string_end(self.pos)?,
            }
        }
    }

    /// The offset behind the quote that ends the string whose content starts at `pos`.
    fn string_end(&mut self, mut pos: usize) -> ParseResult<usize> {
        while let Some(step) = self.bytes.get(pos..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            pos += step;
            if self.bytes[pos] == b'"' {
                return Ok(pos + 1);
            }
            pos += 2;
        }
        self.pos = self.bytes.len();
        Err(self.fault(FaultKind::Expected("the end of a string")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(text: &str) -> ParseResult<&[u8]> {
        JsonCursor::new(text.as_bytes()).list_extent()
    }

    #[test]
    fn an_extent_ends_at_its_own_bracket() {
        for (text, want) in [
            ("[1,2] ,3]", "[1,2]"),
            (" [[1],[2]]]", "[[1],[2]]"),
            (r#"["]","\"]","\\"],"x""#, r#"["]","\"]","\\"]"#),
            ("[]", "[]"),
            (r#"["a"]"#, r#"["a"]"#),
            (r#"[["a"],"b"]x"#, r#"[["a"],"b"]"#),
        ] {
            assert_eq!(extent(text).unwrap(), want.as_bytes(), "{text}");
        }
    }

    #[test]
    fn an_extent_without_end_is_refused() {
        for text in ["[", "[[1]", r#"["]"#, r#"["\"#, r#"["\""#, "1", "", r#"["a""#] {
            assert!(extent(text).is_err(), "{text}");
        }
        assert_eq!(extent(&"[".repeat(64)).unwrap_err().kind, FaultKind::Depth);
    }

    #[test]
    fn skipping_agrees_with_serde_json() {
        for text in [
            "null",
            "true",
            "false",
            "tru",
            "nulll",
            "0",
            "-0",
            "01",
            "1.",
            ".5",
            "1e5",
            "1e",
            "1E+2",
            "-",
            "+1",
            "[]",
            "[1,]",
            "[,1]",
            "{}",
            r#"{"a":1}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a"}"#,
            r#""\u12""#,
            r#""\x""#,
            r#""\ud800""#,
            r#""\ud83d\ude00""#,
            "\"\t\"",
            "[1 2]",
            "[1,-2.5e3, 0 ,4]",
            "[1,-2.5e3,]",
            "[1,01,2]",
            "[1,2.,3]",
            "[1,2e,3]",
            "[1,-,3]",
            "[1, 2,[3,4,5],6]",
            r#"{"a":[{"b":null}]}"#,
            "NaN",
            "1 1",
            "",
        ] {
            let mut cursor = JsonCursor::new(text.as_bytes());
            let ours = cursor.skip().and_then(|()| cursor.expect_end()).is_ok();
            assert_eq!(ours, serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn values_nobody_reads_have_a_depth_limit() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(JsonCursor::new(deep(64).as_bytes()).skip().is_ok());
        assert_eq!(JsonCursor::new(deep(65).as_bytes()).skip().unwrap_err().kind, FaultKind::Depth);
        assert_eq!(
            JsonCursor::new("[".repeat(1_000_000).as_bytes()).skip().unwrap_err().kind,
            FaultKind::Depth
        );
    }
}
