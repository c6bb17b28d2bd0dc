//! Puts blocks of fields together and reads them. A block that is the same as one before has the same meaning, and is not read again.

use std::rc::Rc;

use crate::frame::{FrameHead, flag, kind, without_padding};
use crate::head::{self, RequestHead};
use crate::hpack::{Decoder, FieldList, HpackError};
use crate::reason::{ConnectionError, Reason};
use crate::receive::NO_LAST;

/// The longest block that is kept, in bytes.
const KEPT_BLOCK: usize = 512;
/// The longest text of a head that is kept, in bytes.
const KEPT_TEXT: usize = 2 << 10;
/// The blocks that are kept: clients that ask for several things take turns.
const MOST_KEPT: usize = 4;
/// The frames that a block may be spread over.
const MOST_FRAMES: usize = 64;

/// What stands in front of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockStart {
    pub(crate) stream: u32,
    /// Whether nothing follows the block.
    pub(crate) ends: bool,
    /// Whether the stream has itself for the one that it depends on, which no stream may.
    pub(crate) depends_on_itself: bool,
}

impl BlockStart {
    /// Reads the payload of HEADERS.
    pub(crate) fn read(head: FrameHead, payload: &[u8]) -> Result<(BlockStart, &[u8]), ConnectionError> {
        let mut block = without_padding(head, payload)
            .ok_or(ConnectionError::protocol("HEADERS have more padding than payload"))?;
        let mut depends_on_itself = false;
        if head.has(flag::PRIORITY) {
            let (on, rest) =
                block.split_first_chunk::<5>().ok_or(ConnectionError::size("HEADERS are cut off"))?;
            let on = u32::from_be_bytes([on[0], on[1], on[2], on[3]]) & NO_LAST;
            depends_on_itself = on == head.stream;
            block = rest;
        }
        Ok((BlockStart { stream: head.stream, ends: head.has(flag::END_STREAM), depends_on_itself }, block))
    }
}

/// A block of which more is to come.
struct Partial {
    start: BlockStart,
    block: Vec<u8>,
    frames: usize,
}

/// A block that was read before.
struct KnownBlock<H> {
    block: Vec<u8>,
    /// The table's state that it was read with, and which it left as it was.
    state: u64,
    head: Rc<H>,
    content_length: Option<u64>,
}

/// What a block is, in the place of a request's head.
pub(crate) enum HeadRead<H> {
    /// A head.
    Head { head: Rc<H>, content_length: Option<u64> },
    /// No head.
    Malformed,
    /// More fields than are taken.
    TooLarge,
}

pub(crate) struct HeadReader<H> {
    decoder: Decoder,
    partial: Option<Partial>,
    /// The newest ones, in no order.
    known: Vec<KnownBlock<H>>,
    /// Which of them is replaced next.
    next: usize,
    most: usize,
}

impl<H: From<RequestHead>> HeadReader<H> {
    /// For heads of at most `most` bytes.
    pub(crate) fn new(most: usize) -> HeadReader<H> {
        HeadReader { decoder: Decoder::new(), partial: None, known: Vec::new(), next: 0, most }
    }

    /// Whether a frame may come next: a block that has begun comes to its end first.
    pub(crate) fn check_next(&self, head: FrameHead) -> Result<(), ConnectionError> {
        let is_continuation = head.kind == kind::CONTINUATION;
        match &self.partial {
            Some(partial) if !is_continuation || partial.start.stream != head.stream => {
                Err(ConnectionError::protocol("a frame comes before the end of a block of fields"))
            }
            None if is_continuation => Err(ConnectionError::protocol("CONTINUATION follows no block")),
            _ => Ok(()),
        }
    }

    /// Begins a block of which more is to come.
    pub(crate) fn begin(&mut self, start: BlockStart, block: &[u8]) -> Result<(), ConnectionError> {
        self.partial = Some(Partial { start, block: block.to_vec(), frames: 1 });
        self.check_partial()
    }

    /// Goes on with it; the block if it is complete.
    pub(crate) fn go_on(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<Option<(BlockStart, Vec<u8>)>, ConnectionError> {
        if let Some(partial) = &mut self.partial {
            partial.block.extend_from_slice(payload);
            partial.frames += 1;
        }
        self.check_partial()?;
        let done = self.partial.take_if(|_| head.has(flag::END_HEADERS));
        Ok(done.map(|partial| (partial.start, partial.block)))
    }

    fn check_partial(&self) -> Result<(), ConnectionError> {
        let Some(partial) = &self.partial else { return Ok(()) };
        if partial.frames > MOST_FRAMES {
            return Err(ConnectionError::new(
                Reason::ENHANCE_YOUR_CALM,
                "a block of fields has too many frames",
            ));
        }
        self.check_length(&partial.block)
    }

    /// Checks the length of a block, or of the part of it that is there.
    pub(crate) fn check_length(&self, block: &[u8]) -> Result<(), ConnectionError> {
        if block.len() > 2 * self.most {
            return Err(ConnectionError::new(Reason::ENHANCE_YOUR_CALM, "a block of fields is too long"));
        }
        Ok(())
    }

    /// Reads a block in the place of a request's head.
    pub(crate) fn head(&mut self, block: &[u8]) -> Result<HeadRead<H>, ConnectionError> {
        let state = self.decoder.state();
        if let Some(known) = self.known.iter().find(|known| known.state == state && known.block == block) {
            let head = known.head.clone();
            return Ok(HeadRead::Head { head, content_length: known.content_length });
        }
        let list = self.list(block)?;
        if list.is_too_large() {
            return Ok(HeadRead::TooLarge);
        }
        let Some(head) = head::read(list) else { return Ok(HeadRead::Malformed) };
        let (content_length, length) = (head.content_length, head.text.len());
        let head = Rc::new(H::from(head));
        if self.decoder.state() == state && block.len() <= KEPT_BLOCK && length <= KEPT_TEXT {
            self.keep(KnownBlock { block: block.to_vec(), state, head: head.clone(), content_length });
        }
        Ok(HeadRead::Head { head, content_length })
    }

    fn keep(&mut self, known: KnownBlock<H>) {
        if self.known.len() < MOST_KEPT {
            self.known.push(known);
        } else {
            self.known[self.next] = known;
            self.next = (self.next + 1) % MOST_KEPT;
        }
    }

    /// Reads a block in the place of trailers; whether it is well-formed.
    pub(crate) fn trailers(&mut self, block: &[u8]) -> Result<bool, ConnectionError> {
        let list = self.list(block)?;
        Ok(!list.is_too_large() && head::are_trailers(&list))
    }

    fn list(&mut self, block: &[u8]) -> Result<FieldList, ConnectionError> {
        let mut list = FieldList::new(self.most);
        let read = self.decoder.decode(block, &mut list);
        read.map_err(|HpackError { reason, what }| ConnectionError::new(reason, what))?;
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hpack::write_field;

    /// What a head says, and what is wrong with one.
    type Said = Result<Option<(String, Vec<u8>, String)>, ConnectionError>;

    fn said(reader: &mut HeadReader<RequestHead>, block: &[u8]) -> Said {
        Ok(match reader.head(block)? {
            HeadRead::Head { head, content_length } => {
                assert_eq!(content_length, head.content_length);
                let fields = format!("{:?}", head.fields);
                Some((format!("{} {}", head.method, head.target), head.text.to_vec(), fields))
            }
            HeadRead::Malformed => None,
            HeadRead::TooLarge => Some((String::new(), Vec::new(), String::new())),
        })
    }

    /// A block with these fields, some of which are added to the table.
    fn block(path: &str, fields: &[(String, String, bool)]) -> Vec<u8> {
        let mut block = vec![0x83, 0x86, 0x04, path.len() as u8];
        block.extend_from_slice(path.as_bytes());
        for (name, value, is_added) in fields {
            let start = block.len();
            write_field(&mut block, name.as_bytes(), value.as_bytes());
            if *is_added {
                block[start] = 0x40;
            }
        }
        block
    }

    fn blocks() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let field = ("[ab-]{1,2}", "[xy]{0,2}", any::<bool>());
        let fields = prop::collection::vec(field, 0..3);
        let whole = ("/[a]{0,2}", fields).prop_map(|(path, fields)| block(&path, &fields));
        // A block of indices alone, as clients send once all of a head is in the table.
        let indices = (62u8..66).prop_map(|index| vec![0x83, 0x86, 0x84, 0x80 | index]);
        let some = prop::collection::vec(prop_oneof![whole, indices], 1..4);
        // Few blocks that come again and again, and a byte of some is another one.
        let order = prop::collection::vec((any::<prop::sample::Index>(), any::<Option<(u8, u8)>>()), 1..24);
        (some, order).prop_map(|(some, order)| {
            let pick = |(which, change): &(prop::sample::Index, Option<(u8, u8)>)| {
                let mut block = which.get(&some).clone();
                if let Some((at, byte)) = change.filter(|(at, _)| at % 4 == 0) {
                    let at = usize::from(at) % block.len();
                    block[at] = byte;
                }
                block
            };
            order.iter().map(pick).collect()
        })
    }

    proptest! {
        #[test]
        fn a_block_that_is_known_says_what_it_said(blocks in blocks()) {
            let (mut known, mut read) = (HeadReader::new(1 << 10), HeadReader::new(1 << 10));
            for block in blocks {
                read.known.clear();
                let (from_known, from_reading) = (said(&mut known, &block), said(&mut read, &block));
                prop_assert_eq!(&from_known, &from_reading);
                prop_assert_eq!(known.decoder.state(), read.decoder.state());
                if from_known.is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_head_that_comes_again_is_the_same_one() {
        let mut reader = HeadReader::<RequestHead>::new(1 << 10);
        let fields = |added| [("a".to_owned(), "b".to_owned(), added)];
        let head = |reader: &mut HeadReader<RequestHead>, block: &[u8]| match reader.head(block) {
            Ok(HeadRead::Head { head, .. }) => head,
            _ => panic!("no head"),
        };
        let first = head(&mut reader, &block("/", &fields(false)));
        assert!(Rc::ptr_eq(&first, &head(&mut reader, &block("/", &fields(false)))));
        // The table has changed: the same bytes are read again.
        head(&mut reader, &block("/", &fields(true)));
        assert!(!Rc::ptr_eq(&first, &head(&mut reader, &block("/", &fields(false)))));
    }
}
