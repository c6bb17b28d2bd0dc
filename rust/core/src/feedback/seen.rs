//! The receipts that have been used: a bounded set of serial numbers, in which each counts once.
//!
//! Serials are given out in their order, so that receipts of one time have serials that are near each other. A chunk holds the serials
//! of 65 536 numbers, as a sorted list while they are few and as a bitmap when they are many (Chambi, Lemire, Kaser and Godin 2016).
//! What is forgotten, for want of room or because it is too old, is remembered by the newest time of issue in it: no receipt as old as
//! that is taken again. So a serial can never count twice, whatever is forgotten.

use std::collections::BTreeMap;

/// The serials of a chunk.
const CHUNK: u64 = 1 << 16;
/// The most serials of a list; a bitmap takes as much.
const MOST_LISTED: usize = 4096;
const WORDS: usize = (CHUNK / 64) as usize;
/// What a chunk takes beside its serials, in bytes.
const OVERHEAD: usize = 64;

/// What became of a serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It was not there, and is now.
    New,
    /// It was there.
    Duplicate,
    /// It was issued at a time of which the set has forgotten serials.
    Forgotten,
}

#[derive(Clone, Debug, PartialEq)]
enum Serials {
    /// In ascending order.
    Listed(Vec<u16>),
    Bitmap(Box<[u64; WORDS]>),
}

#[derive(Clone, Debug, PartialEq)]
struct Chunk {
    /// The newest time of issue of a serial in it, in seconds since 1970.
    newest_s: u32,
    serials: Serials,
}

/// The serials that were used for one feedback.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenSet {
    chunks: BTreeMap<u64, Chunk>,
    /// No receipt that was issued at this time or before is taken, in seconds since 1970; 0 is none.
    forgotten_s: u32,
    bytes: usize,
    most_bytes: usize,
}

impl SeenSet {
    /// An empty set that takes so many bytes at most, but for its newest chunk.
    pub fn new(most_bytes: usize) -> SeenSet {
        SeenSet { chunks: BTreeMap::new(), forgotten_s: 0, bytes: 0, most_bytes }
    }

    /// An empty set that takes nothing that was issued at `forgotten_s` or before, in seconds since 1970.
    pub fn forgetting(most_bytes: usize, forgotten_s: u32) -> SeenSet {
        SeenSet { forgotten_s, ..SeenSet::new(most_bytes) }
    }

    /// Notes a serial that was issued at `issued_s`, in seconds since 1970.
    pub fn insert(&mut self, serial: u64, issued_s: u32) -> Insertion {
        if issued_s <= self.forgotten_s {
            return Insertion::Forgotten;
        }
        let (number, low) = (serial / CHUNK, (serial % CHUNK) as u16);
        let chunk = self.chunks.entry(number).or_insert_with(|| {
            self.bytes += OVERHEAD;
            Chunk { newest_s: 0, serials: Serials::Listed(Vec::new()) }
        });
        let before = chunk.serials.bytes();
        if !chunk.serials.insert(low) {
            return Insertion::Duplicate;
        }
        chunk.newest_s = chunk.newest_s.max(issued_s);
        self.bytes = self.bytes + chunk.serials.bytes() - before;
        while self.bytes > self.most_bytes && self.chunks.len() > 1 {
            self.forget_oldest();
        }
        Insertion::New
    }

    /// Forgets chunks of which every serial was issued before `before_s`, in seconds since 1970.
    pub fn forget_before(&mut self, before_s: u32) {
        let old: Vec<u64> = self
            .chunks
            .iter()
            .filter(|(_, chunk)| chunk.newest_s < before_s)
            .map(|(number, _)| *number)
            .collect();
        old.into_iter().for_each(|number| self.forget(number));
    }

    fn forget_oldest(&mut self) {
        let oldest = self.chunks.iter().min_by_key(|(number, chunk)| (chunk.newest_s, **number));
        if let Some(number) = oldest.map(|(number, _)| *number) {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(chunk) = self.chunks.remove(&number) {
            self.forgotten_s = self.forgotten_s.max(chunk.newest_s);
            self.bytes -= OVERHEAD + chunk.serials.bytes();
        }
    }

    /// The bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many serials are in it.
    pub fn len(&self) -> u64 {
        self.chunks.values().map(|chunk| chunk.serials.len()).sum()
    }

    /// Whether it has no serial.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// No receipt that was issued at this time or before is taken, in seconds since 1970.
    pub fn forgotten_s(&self) -> u32 {
        self.forgotten_s
    }

    /// The newest time of issue of a serial that is in it or was forgotten, in seconds since 1970; 0 if there was none.
    pub fn newest_s(&self) -> u32 {
        self.chunks.values().map(|chunk| chunk.newest_s).fold(self.forgotten_s, u32::max)
    }

    /// All of it, for a file, in little-endian numbers: the time of what is forgotten (4 bytes), the number of chunks (4), and each chunk
    /// as its number (8), its newest time (4), the number of its serials (4), and the serials (2 each), or a bitmap of 8 192 bytes if
    /// they are more than 4 096.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.forgotten_s.to_le_bytes());
        out.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        for (number, chunk) in &self.chunks {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&chunk.newest_s.to_le_bytes());
            out.extend_from_slice(&(chunk.serials.len() as u32).to_le_bytes());
            match &chunk.serials {
                Serials::Listed(serials) => {
                    serials.iter().for_each(|low| out.extend_from_slice(&low.to_le_bytes()))
                }
                Serials::Bitmap(words) => {
                    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()))
                }
            }
        }
    }

    /// What [`SeenSet::write_to`] wrote, taken from the front of `bytes`; `None` for other bytes.
    pub fn read_from(bytes: &mut &[u8], most_bytes: usize) -> Option<SeenSet> {
        let mut set = SeenSet::new(most_bytes);
        set.forgotten_s = u32::from_le_bytes(take(bytes)?);
        for _ in 0..u32::from_le_bytes(take(bytes)?) {
            let number = u64::from_le_bytes(take(bytes)?);
            let newest_s = u32::from_le_bytes(take(bytes)?);
            let count = u32::from_le_bytes(take(bytes)?) as usize;
            let serials = if count > MOST_LISTED {
                let mut words = Box::new([0u64; WORDS]);
                for word in words.iter_mut() {
                    *word = u64::from_le_bytes(take(bytes)?);
                }
                Serials::Bitmap(words)
            } else {
                let listed = (0..count).map(|_| take(bytes).map(u16::from_le_bytes));
                Serials::Listed(listed.collect::<Option<_>>()?)
            };
            let is_sound = serials.len() == count as u64 && count > 0 && serials.is_in_order();
            let is_next = set.chunks.last_key_value().is_none_or(|(last, _)| *last < number);
            if !is_sound || !is_next || number > u64::MAX / CHUNK {
                return None;
            }
            set.bytes += OVERHEAD + serials.bytes();
            set.chunks.insert(number, Chunk { newest_s, serials });
        }
        while set.bytes > set.most_bytes && set.chunks.len() > 1 {
            set.forget_oldest();
        }
        Some(set)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

impl Serials {
    /// Adds a serial. False if it is there.
    fn insert(&mut self, low: u16) -> bool {
        if let Serials::Listed(serials) = self
            && serials.len() >= MOST_LISTED
            && serials.binary_search(&low).is_err()
        {
            let mut words = Box::new([0u64; WORDS]);
            serials.iter().for_each(|&low| words[usize::from(low) / 64] |= 1 << (low % 64));
            *self = Serials::Bitmap(words);
        }
        match self {
            Serials::Listed(serials) => match serials.binary_search(&low) {
                Ok(_) => false,
                Err(place) => {
                    serials.insert(place, low);
                    true
                }
            },
            Serials::Bitmap(words) => {
                let (word, bit) = (&mut words[usize::from(low) / 64], 1 << (low % 64));
                let is_new = *word & bit == 0;
                *word |= bit;
                is_new
            }
        }
    }

    fn len(&self) -> u64 {
        match self {
            Serials::Listed(serials) => serials.len() as u64,
            Serials::Bitmap(words) => words.iter().map(|word| u64::from(word.count_ones())).sum(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Serials::Listed(serials) => 2 * serials.len(),
            Serials::Bitmap(_) => 8 * WORDS,
        }
    }

    fn is_in_order(&self) -> bool {
        match self {
            Serials::Listed(serials) => serials.is_sorted_by(|a, b| a < b),
            Serials::Bitmap(_) => true,
        }
    }
}

#[cfg(test)]
mod tests;
