//! Reads an answer from pieces of any size. What is not kept of a body is only counted.

use super::chunks::Chunks;
use super::head::{Framing, Head};

/// The longest head of an answer.
const LONGEST_HEAD: usize = 64 << 10;
/// The bytes of a body that are kept of an answer that is an error.
pub(crate) const EXAMPLE_BYTES: usize = 200;
/// The longest body that is kept whole.
pub(crate) const LONGEST_KEPT: usize = 8 << 20;

/// What is kept of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The beginning, if the status is an error.
    Errors,
    /// All of it, up to [`LONGEST_KEPT`].
    Whole,
}

/// How far an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed.
    More,
    /// The answer ended behind this many bytes of the piece.
    Done { used: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    Done,
}

/// The state of one answer. Its memory is used again for the next.
#[derive(Debug)]
pub(crate) struct Parser {
    state: State,
    /// A head of which only a part has come.
    partial: Vec<u8>,
    head: Head,
    keep: Keep,
    kept: Vec<u8>,
    body_bytes: u64,
}

impl Parser {
    pub(crate) fn new() -> Parser {
        Parser {
            state: State::Head,
            partial: Vec::new(),
            head: Head::default(),
            keep: Keep::Errors,
            kept: Vec::new(),
            body_bytes: 0,
        }
    }

    /// Makes ready for the next answer.
    pub(crate) fn reset(&mut self, keep: Keep) {
        self.state = State::Head;
        self.partial.clear();
        self.kept.clear();
        self.keep = keep;
        self.body_bytes = 0;
    }

    /// The head of the answer that was read.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// What was kept of the body.
    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Whether the whole body was kept.
    pub(crate) fn kept_whole(&self) -> bool {
        self.kept.len() as u64 == self.body_bytes
    }

    /// Whether the body goes on until the connection ends.
    pub(crate) fn needs_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Whether nothing of an answer has come.
    pub(crate) fn is_untouched(&self) -> bool {
        self.state == State::Head && self.partial.is_empty()
    }

    /// Reads a piece. The error says what is wrong; the parser is of no use until [`Parser::reset`].
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Progress, &'static str> {
        let mut at = 0;
        loop {
            match self.state {
                State::Head => match self.feed_head(&bytes[at..])? {
                    Some(used) => at += used,
                    None => return Ok(Progress::More),
                },
                State::Length(left) => {
                    let taken = left.min((bytes.len() - at) as u64);
                    self.take(&bytes[at..at + taken as usize]);
                    at += taken as usize;
                    self.state = if taken == left { State::Done } else { State::Length(left - taken) };
                    if taken < left {
                        return Ok(Progress::More);
                    }
                }
                State::Chunked(mut chunks) => {
                    let (used, data) = chunks.step(&bytes[at..])?;
                    self.take(&bytes[at + used - data..at + used]);
                    at += used;
                    self.state = if chunks == Chunks::Done { State::Done } else { State::Chunked(chunks) };
                    if used == 0 {
                        return Ok(Progress::More);
                    }
                }
                State::UntilClose => {
                    self.take(&bytes[at..]);
                    return Ok(Progress::More);
                }
                State::Done => return Ok(Progress::Done { used: at }),
            }
        }
    }

    /// The connection has ended: whether the answer is complete.
    pub(crate) fn end(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.state == State::Done
    }

    /// The bytes of the piece that belong to a head, once it is complete. Answers below 200 announce another one.
    fn feed_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        let before = self.partial.len();
        let parsed = if before == 0 {
            end_of_head(bytes, 0).map(|end| (Head::parse(&bytes[..end]), end))
        } else {
            self.partial.extend_from_slice(bytes);
            end_of_head(&self.partial, before).map(|end| (Head::parse(&self.partial[..end]), end - before))
        };
        let Some((head, used)) = parsed else {
            if before == 0 {
                self.partial.extend_from_slice(bytes);
            }
            check_beginning(&self.partial)?;
            return if self.partial.len() > LONGEST_HEAD { Err("the head is too long") } else { Ok(None) };
        };
        self.partial.clear();
        self.head = head?;
        self.state = match (self.head.status, self.head.framing) {
            (101, _) => return Err("the server switched protocols"),
            (100..200, _) => State::Head,
            (_, Framing::Length(length)) => State::Length(length),
            (_, Framing::Chunked) => State::Chunked(Chunks::default()),
            (_, Framing::UntilClose) => State::UntilClose,
        };
        Ok(Some(used))
    }

    fn take(&mut self, data: &[u8]) {
        self.body_bytes += data.len() as u64;
        let room = match self.keep {
            Keep::Whole => LONGEST_KEPT,
            Keep::Errors if (200..300).contains(&self.head.status) => 0,
            Keep::Errors => EXAMPLE_BYTES,
        };
        let taken = data.len().min(room.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(&data[..taken]);
    }
}

/// Refuses at once what can be no answer, however it goes on.
fn check_beginning(bytes: &[u8]) -> Result<(), &'static str> {
    let wanted = b"HTTP/1.";
    let compared = bytes.len().min(wanted.len());
    if bytes[..compared] == wanted[..compared] { Ok(()) } else { Err("the answer is not HTTP/1.1") }
}

/// The end of a head, behind its empty line; bytes before `from` were looked through before.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[start..]).map(|at| start + at).find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
