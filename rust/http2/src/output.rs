//! The bytes that wait for the socket.

use std::io::IoSlice;

use bytes::Buf;

/// What of a reply's body is copied behind the head of its frame, in bytes: one piece costs the kernel less than two.
pub(crate) const SHORT: usize = 4 << 10;
/// The memory for bytes that is kept while nothing waits, in bytes.
const KEPT: usize = 16 << 10;

/// Bytes of a body that are written from where they are.
pub(crate) struct Chunk<B> {
    pub(crate) data: B,
    /// What is left of them in the present frame.
    pub(crate) left: usize,
    /// Whether nothing follows them.
    pub(crate) is_last: bool,
    /// The place of their stream, and its number.
    pub(crate) place: usize,
    pub(crate) id: u32,
}

/// Bytes in the order in which they are written: `first`, the chunk, and then what came behind it.
pub(crate) struct Output<B> {
    first: Vec<u8>,
    /// How much of `first` is written.
    written: usize,
    chunk: Option<Chunk<B>>,
    behind: Vec<u8>,
}

impl<B: Buf> Output<B> {
    pub(crate) fn new() -> Output<B> {
        Output { first: Vec::new(), written: 0, chunk: None, behind: Vec::new() }
    }

    /// Where frames are appended.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        if self.chunk.is_some() { &mut self.behind } else { &mut self.first }
    }

    /// Lets a frame, whose head was appended last, go on with a chunk.
    pub(crate) fn go_on_with(&mut self, chunk: Chunk<B>) {
        debug_assert!(self.chunk.is_none() && self.behind.is_empty());
        self.chunk = Some(chunk);
    }

    /// Whether there is a chunk.
    pub(crate) fn has_chunk(&self) -> bool {
        self.chunk.is_some()
    }

    /// How many bytes wait, the chunk aside.
    pub(crate) fn len(&self) -> usize {
        self.first.len() - self.written + self.behind.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0 && self.chunk.is_none()
    }

    /// Lends what is written next.
    pub(crate) fn next<R>(&self, use_them: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let first = IoSlice::new(&self.first[self.written..]);
        match &self.chunk {
            None => use_them(&[first]),
            Some(chunk) => {
                let bytes = chunk.data.chunk();
                use_them(&[first, IoSlice::new(&bytes[..bytes.len().min(chunk.left)])])
            }
        }
    }

    /// Notes that the socket took some bytes; the chunk, if its frame is complete.
    pub(crate) fn advance(&mut self, count: usize) -> Option<Chunk<B>> {
        let of_first = count.min(self.first.len() - self.written);
        self.written += of_first;
        if self.written == self.first.len() {
            self.first.clear();
            self.written = 0;
        } else if self.written >= KEPT && self.written >= self.first.len() / 2 {
            // A client that never takes all of it must not make what it has taken stay.
            self.first.drain(..self.written);
            self.written = 0;
        }
        let chunk = self.chunk.as_mut()?;
        chunk.data.advance(count - of_first);
        chunk.left -= count - of_first;
        if chunk.left > 0 || !self.first.is_empty() {
            return None;
        }
        std::mem::swap(&mut self.first, &mut self.behind);
        self.chunk.take()
    }

    /// Lets go of memory that a long reply has taken.
    pub(crate) fn shrink(&mut self) {
        for bytes in [&mut self.first, &mut self.behind] {
            if bytes.is_empty() && bytes.capacity() > KEPT {
                *bytes = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_does_not_stay_beside_what_always_waits() {
        let mut output = Output::<&[u8]>::new();
        output.end().extend_from_slice(&[0; 30_000]);
        for _ in 0..1_000 {
            output.end().extend_from_slice(&[0; 10_000]);
            assert!(output.advance(10_000).is_none());
            assert_eq!(output.len(), 30_000);
        }
        assert!(output.first.capacity() < 500_000);
    }

    fn taken(output: &mut Output<&'static [u8]>, count: usize) -> Vec<u8> {
        let next = output.next(|slices| slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>());
        let count = count.min(next.len());
        let _ = output.advance(count);
        next[..count].to_vec()
    }

    #[test]
    fn bytes_keep_their_order_however_they_are_taken() {
        for step in 1..12 {
            let mut output = Output::new();
            output.end().extend_from_slice(b"head");
            output.go_on_with(Chunk { data: &b"chunk"[..], left: 5, is_last: true, place: 0, id: 1 });
            output.end().extend_from_slice(b"behind");
            let mut all = Vec::new();
            while !output.is_empty() {
                all.extend(taken(&mut output, step));
            }
            assert_eq!(all, b"headchunkbehind", "{step}");
        }
    }
}
