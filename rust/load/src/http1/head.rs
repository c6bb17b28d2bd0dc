//! The head of an answer: the status line, and the few fields that the generator needs.

use crate::phases::Phases;

/// What the head says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the server closes the connection after the answer.
    pub(crate) closes: bool,
    /// Bytes of JSON in front of binary tensors.
    pub(crate) json_bytes: Option<usize>,
    pub(crate) phases: Option<Phases>,
    pub(crate) framing: Framing,
}

/// How the end of the body is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    #[default]
    UntilClose,
}

impl Head {
    /// Reads a head that ends with an empty line. The error says what is wrong.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Head, &'static str> {
        let mut lines =
            bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let (status, old) = status_line(lines.next().unwrap_or_default())?;
        let mut head = Head { status, closes: old, ..Head::default() };
        let mut length = None;
        for line in lines.take_while(|line| !line.is_empty()) {
            let at = memchr::memchr(b':', line).ok_or("a header line has no colon")?;
            head.field(&line[..at], line[at + 1..].trim_ascii(), &mut length)?;
        }
        if matches!(status, 204 | 304) {
            head.framing = Framing::Length(0);
        } else if head.framing != Framing::Chunked {
            head.framing = length.map_or(Framing::UntilClose, Framing::Length);
        }
        head.closes |= head.framing == Framing::UntilClose;
        Ok(head)
    }

    fn field(&mut self, name: &[u8], value: &[u8], length: &mut Option<u64>) -> Result<(), &'static str> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        // The length of the name decides first: most fields are of no interest.
        match name.len() {
            10 if is("connection") => {
                let mut options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                self.closes |= options.any(|option| option.eq_ignore_ascii_case(b"close"));
            }
            13 if is("server-timing") => self.phases = Phases::parse(value),
            14 if is("content-length") => {
                let told = number(value).ok_or("content-length is no number")?;
                if length.is_some_and(|other| other != told) {
                    return Err("there are two different content-lengths");
                }
                *length = Some(told);
            }
            17 if is("transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("transfer-encoding is not chunked");
                }
                self.framing = Framing::Chunked;
            }
            31 if is("inference-header-content-length") => {
                self.json_bytes = number(value).and_then(|bytes| usize::try_from(bytes).ok());
            }
            _ => {}
        }
        Ok(())
    }
}

/// The status, and whether the version is 1.0, which closes.
fn status_line(line: &[u8]) -> Result<(u16, bool), &'static str> {
    let rest = line.strip_prefix(b"HTTP/1.").ok_or("the answer is not HTTP/1.1")?;
    match rest {
        [minor @ (b'0' | b'1'), b' ', a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', end @ ..]
            if end.first().is_none_or(|&byte| byte == b' ') =>
        {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Ok((digit(a) * 100 + digit(b) * 10 + digit(c), *minor == b'0'))
        }
        _ => Err("the status line has no status"),
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0')))
}
