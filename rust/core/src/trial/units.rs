//! What is known of a unit: one byte for each of a million, and no key. A second byte is there for those that were refused.
//!
//! ```text
//! unit = (xxh64(salt || 0x00 || key) * 1 000 000) >> 64
//! byte: bit 0 the champion ran or refused a request of it, bit 1 a challenger did, bit 2 its first request of the window was taken,
//!       bits 3 to 7 its error: 0 none, 1 to 30 on the champion at that split, 31 on a challenger
//! second byte: bits 3 to 7 its refusal, in the same way
//! ```
//! A byte for each feedback says up to which split the unit has given it. Another one says, as the second byte does, at which split the
//! outputs of an answer were counted.
//! Many keys may share a unit, and then count as one. Several threads write one table; each change of a byte is one atomic exchange, so
//! that two requests of a unit cannot both be its first.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::feedback::declared::MAX_FEEDBACKS;

/// The number of units.
pub const UNITS: u32 = 1_000_000;
/// The most splits that a unit can have erred at.
pub const MAX_LEVELS: usize = 30;

const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;
const CHUNKS: usize = (UNITS as usize).div_ceil(CHUNK);
/// The bytes of a unit beside those of feedbacks.
const PLANES: usize = 2;

/// The numbers of the first chunks of feedbacks and of outputs in a store.
const FEEDBACK_CHUNKS: usize = PLANES * CHUNKS;
const OUTPUT_CHUNKS: usize = FEEDBACK_CHUNKS + MAX_FEEDBACKS * CHUNKS;

const SEEN_BY_CHAMPION: u8 = 1;
const SEEN_BY_CHALLENGER: u8 = 2;
const TAKEN: u8 = 4;
const ERROR_SHIFT: u32 = 3;
const ON_CHALLENGER: u8 = 31;

/// The unit of a hash of a key: `(hash * 1 000 000) >> 64`.
#[inline]
pub fn unit_of_hash(hash: u64) -> u32 {
    ((u128::from(hash) * u128::from(UNITS)) >> 64) as u32
}

/// Whose side an arm is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The version that has every slot that is not given away.
    Champion,
    /// A version with slots of its own.
    Challenger,
}

/// What a request is for its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// No request of the unit was seen before.
    pub is_first: bool,
    /// No request of the unit was seen before on this side.
    pub is_first_on_side: bool,
}

/// What an error is for its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// The unit has erred before, so that this one does not count.
    Repeated,
    /// Its first one.
    First,
    /// It erred on the champion at an earlier split, in which the challengers had fewer slots.
    After(u8),
}

type Chunks = Box<[OnceLock<Box<[AtomicU8]>>]>;

fn no_chunks(planes: usize) -> Chunks {
    (0..planes * CHUNKS).map(|_| OnceLock::new()).collect()
}

fn byte_of(chunks: &Chunks, chunk: usize, unit: u32) -> &AtomicU8 {
    let chunk = chunks[chunk].get_or_init(|| (0..CHUNK).map(|_| AtomicU8::new(0)).collect());
    &chunk[unit as usize & (CHUNK - 1)]
}

/// The bytes of all units. Chunks of 4 096 are allocated when one of their units is first seen, and those of second bytes (behind
/// the others) when one is first refused.
pub struct UnitTable {
    chunks: Chunks,
    /// For each feedback a byte of each unit: the number of the newest split of which it was counted, and one more.
    feedback: OnceLock<Chunks>,
    /// A byte of each unit whose outputs were counted: bits 3 to 7 at which split, as with errors.
    outputs: OnceLock<Chunks>,
}

impl Default for UnitTable {
    fn default() -> Self {
        Self { chunks: no_chunks(PLANES), feedback: OnceLock::new(), outputs: OnceLock::new() }
    }
}

impl UnitTable {
    fn byte(&self, unit: u32) -> &AtomicU8 {
        self.byte_of((unit >> CHUNK_BITS) as usize, unit)
    }

    fn byte_of(&self, chunk: usize, unit: u32) -> &AtomicU8 {
        byte_of(&self.chunks, chunk, unit)
    }

    /// Notes that a request of the unit ended on that side.
    pub fn see(&self, unit: u32, side: Side) -> Sighting {
        let bit = match side {
            Side::Champion => SEEN_BY_CHAMPION,
            Side::Challenger => SEEN_BY_CHALLENGER,
        };
        let before = self.byte(unit).fetch_or(bit, Relaxed);
        Sighting {
            is_first: before & (SEEN_BY_CHAMPION | SEEN_BY_CHALLENGER) == 0,
            is_first_on_side: before & bit == 0,
        }
    }

    /// Takes the unit's first request of the window. False if another one was taken.
    pub fn take(&self, unit: u32) -> bool {
        self.byte(unit).fetch_or(TAKEN, Relaxed) & TAKEN == 0
    }

    /// Gives back what [`UnitTable::take`] took, for a request that says nothing.
    pub fn give_back(&self, unit: u32) {
        self.byte(unit).fetch_and(!TAKEN, Relaxed);
    }

    /// Begins another window, in which each unit has a first request again.
    pub fn clear_taken(&self) {
        for byte in self.chunks.iter().filter_map(OnceLock::get).flat_map(|chunk| chunk.iter()) {
            if byte.load(Relaxed) & TAKEN != 0 {
                byte.fetch_and(!TAKEN, Relaxed);
            }
        }
    }

    /// Notes that a request of the unit erred on that side at the split `level`. `challengers_slots` gives the slots of all challengers
    /// at a split: a unit that erred on the champion counts again only if they have more slots now.
    pub fn err(&self, unit: u32, side: Side, level: u8, challengers_slots: impl Fn(u8) -> u16) -> UnitError {
        mark(self.byte(unit), side, level, challengers_slots)
    }

    /// Notes that a request of the unit was refused on that side at the split `level`, as [`UnitTable::err`] does for errors.
    pub fn refuse(
        &self,
        unit: u32,
        side: Side,
        level: u8,
        challengers_slots: impl Fn(u8) -> u16,
    ) -> UnitError {
        let byte = self.byte_of(CHUNKS + (unit >> CHUNK_BITS) as usize, unit);
        mark(byte, side, level, challengers_slots)
    }

    /// Notes that the outputs of an answer of the unit are counted, as [`UnitTable::err`] does for errors.
    pub fn count_outputs(
        &self,
        unit: u32,
        side: Side,
        level: u8,
        challengers_slots: impl Fn(u8) -> u16,
    ) -> UnitError {
        mark(self.output_byte(unit), side, level, challengers_slots)
    }

    /// Whether the outputs of an answer of the unit would be counted at the split `level`.
    pub fn would_count_outputs(&self, unit: u32, level: u8, challengers_slots: impl Fn(u8) -> u16) -> bool {
        found(self.output_byte(unit).load(Relaxed), level, challengers_slots) != UnitError::Repeated
    }

    fn output_byte(&self, unit: u32) -> &AtomicU8 {
        byte_of(self.outputs.get_or_init(|| no_chunks(1)), (unit >> CHUNK_BITS) as usize, unit)
    }

    /// Whether the feedback of this number is the unit's first one on an answer of the split, or of a later one than those before.
    pub fn first_feedback(&self, unit: u32, feedback: u8, split: u8) -> bool {
        debug_assert!(usize::from(feedback) < MAX_FEEDBACKS);
        let chunks = self.feedback.get_or_init(|| no_chunks(MAX_FEEDBACKS));
        let chunk = usize::from(feedback) * CHUNKS + (unit >> CHUNK_BITS) as usize;
        byte_of(chunks, chunk, unit).fetch_max(split + 1, Relaxed) <= split
    }

    /// Forgets the units of the feedback of this number.
    pub fn clear_feedback(&self, feedback: u8) {
        let Some(chunks) = self.feedback.get() else { return };
        let own = &chunks[usize::from(feedback) * CHUNKS..][..CHUNKS];
        own.iter()
            .filter_map(OnceLock::get)
            .flat_map(|chunk| chunk.iter())
            .for_each(|byte| byte.store(0, Relaxed));
    }

    /// The bytes in use.
    pub fn bytes(&self) -> usize {
        self.numbered().count() * CHUNK
    }

    /// The chunks that are there with their numbers.
    fn numbered(&self) -> impl Iterator<Item = (usize, &[AtomicU8])> {
        let feedback = self.feedback.get().into_iter().flatten().zip(FEEDBACK_CHUNKS..);
        let outputs = self.outputs.get().into_iter().flatten().zip(OUTPUT_CHUNKS..);
        let all = self.chunks.iter().zip(0..).chain(feedback).chain(outputs);
        all.filter_map(|(chunk, number)| Some((number, &**chunk.get()?)))
    }

    /// All bytes, for a store: each chunk that is there as its number in two bytes (little-endian) and its 4 096 bytes. Chunks of second
    /// bytes are numbered on behind the others, those of feedbacks behind these, and those of outputs last.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.bytes() + 4 * CHUNKS);
        for (number, chunk) in self.numbered() {
            all.extend_from_slice(&(number as u16).to_le_bytes());
            all.extend(chunk.iter().map(|byte| byte.load(Relaxed)));
        }
        all
    }

    /// The table that was stored; `None` if the bytes are not such.
    pub fn from_bytes(bytes: &[u8]) -> Option<UnitTable> {
        let table = UnitTable::default();
        let chunks = bytes.chunks_exact(2 + CHUNK);
        if !chunks.remainder().is_empty() {
            return None;
        }
        for chunk in chunks {
            let (number, units) = chunk.split_at(2);
            let number = usize::from(u16::from_le_bytes([number[0], number[1]]));
            let place = match number {
                number if number < FEEDBACK_CHUNKS => &table.chunks[number],
                number if number < OUTPUT_CHUNKS => {
                    &table.feedback.get_or_init(|| no_chunks(MAX_FEEDBACKS))[number - FEEDBACK_CHUNKS]
                }
                number => table.outputs.get_or_init(|| no_chunks(1)).get(number - OUTPUT_CHUNKS)?,
            };
            place.set(units.iter().map(|&byte| AtomicU8::new(byte)).collect()).ok()?;
        }
        Some(table)
    }
}

/// Marks the event of a unit in its byte, unless an earlier one stands for it.
fn mark(byte: &AtomicU8, side: Side, level: u8, challengers_slots: impl Fn(u8) -> u16) -> UnitError {
    debug_assert!(usize::from(level) < MAX_LEVELS);
    let mut before = byte.load(Relaxed);
    loop {
        let found = found(before, level, &challengers_slots);
        if found == UnitError::Repeated {
            return found;
        }
        let error = if side == Side::Challenger { ON_CHALLENGER } else { level + 1 };
        let after = before & ((1 << ERROR_SHIFT) - 1) | error << ERROR_SHIFT;
        match byte.compare_exchange_weak(before, after, Relaxed, Relaxed) {
            Ok(_) => return found,
            Err(other) => before = other,
        }
    }
}

/// What an event at the split `level` is for a unit with that byte.
fn found(byte: u8, level: u8, challengers_slots: impl Fn(u8) -> u16) -> UnitError {
    match byte >> ERROR_SHIFT {
        0 => UnitError::First,
        ON_CHALLENGER => UnitError::Repeated,
        marked if challengers_slots(level) <= challengers_slots(marked - 1) => UnitError::Repeated,
        marked => UnitError::After(marked - 1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::slots::{key_hash, slot_of_hash};
    use proptest::prelude::*;

    #[test]
    fn a_unit_is_a_hundredth_of_a_slot() {
        let hash = key_hash("fraud/r7", b"user-0");
        assert_eq!(unit_of_hash(hash), 328_801);
        assert_eq!(u32::from(slot_of_hash(hash)), unit_of_hash(hash) / 100);
        assert_eq!(unit_of_hash(u64::MAX), UNITS - 1);
    }

    #[test]
    fn a_chunk_is_allocated_with_its_first_unit() {
        let table = UnitTable::default();
        assert_eq!(table.bytes(), 0);
        table.see(0, Side::Champion);
        table.see(4_095, Side::Champion);
        assert_eq!(table.bytes(), 4_096);
        table.see(UNITS - 1, Side::Champion);
        assert_eq!(table.bytes(), 2 * 4_096);
    }

    #[test]
    fn what_is_stored_comes_back_and_other_bytes_do_not() {
        let table = UnitTable::default();
        table.see(7, Side::Champion);
        table.err(7, Side::Champion, 0, |_| 100);
        table.see(900_000, Side::Challenger);
        table.refuse(900_000, Side::Challenger, 0, |_| 100);
        table.count_outputs(UNITS - 1, Side::Champion, 0, |_| 100);
        let stored = table.to_bytes();
        let back = UnitTable::from_bytes(&stored).unwrap();
        assert_eq!(back.to_bytes(), stored);
        assert_eq!(back.err(7, Side::Champion, 0, |_| 100), UnitError::Repeated);
        assert!(!back.see(900_000, Side::Challenger).is_first);
        assert_eq!(back.refuse(900_000, Side::Challenger, 0, |_| 100), UnitError::Repeated);
        let slots = |level: u8| [100, 200][usize::from(level)];
        assert!(
            !back.would_count_outputs(UNITS - 1, 0, slots) && back.would_count_outputs(UNITS - 1, 1, slots)
        );
        assert_eq!(back.count_outputs(UNITS - 1, Side::Challenger, 1, slots), UnitError::After(0));
        assert!(back.first_feedback(7, 0, 0), "no byte of outputs is one of feedback");
        assert!(UnitTable::from_bytes(&stored[1..]).is_none());
        let mut foreign = stored.clone();
        foreign[1] = 0xff;
        assert!(UnitTable::from_bytes(&foreign).is_none());
        assert!(UnitTable::from_bytes(&[stored.clone(), stored].concat()).is_none());
    }

    #[test]
    fn a_refusal_is_no_error() {
        let table = UnitTable::default();
        assert_eq!(table.refuse(7, Side::Champion, 0, |_| 100), UnitError::First);
        assert_eq!(table.err(7, Side::Champion, 0, |_| 100), UnitError::First);
        assert_eq!(table.refuse(7, Side::Challenger, 0, |_| 100), UnitError::Repeated);
        assert_eq!(table.bytes(), 2 * 4_096);
    }

    #[test]
    fn of_several_threads_one_is_first() {
        const THREADS: usize = 4;
        let (table, units) = (UnitTable::default(), 0..2_000u32);
        let firsts: Vec<[u64; 3]> = std::thread::scope(|scope| {
            let count = || {
                let mut firsts = [0; 3];
                for unit in units.clone() {
                    firsts[0] += u64::from(table.see(unit, Side::Champion).is_first);
                    firsts[1] += u64::from(table.take(unit));
                    firsts[2] += u64::from(table.err(unit, Side::Challenger, 0, |_| 1) == UnitError::First);
                }
                firsts
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for which in 0..3 {
            assert_eq!(firsts.iter().map(|of_thread| of_thread[which]).sum::<u64>(), units.len() as u64);
        }
    }

    /// What a test does to the units.
    #[derive(Clone, Debug)]
    enum Step {
        See(u32, Side),
        Take(u32),
        GiveBack(u32),
        ClearTaken,
        Err(u32, Side, u8),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let side = || prop_oneof![Just(Side::Champion), Just(Side::Challenger)];
        let unit = || prop_oneof![0u32..4, Just(UNITS - 1)];
        prop_oneof![
            (unit(), side()).prop_map(|(unit, side)| Step::See(unit, side)),
            unit().prop_map(Step::Take),
            unit().prop_map(Step::GiveBack),
            Just(Step::ClearTaken),
            (unit(), side(), 0u8..4).prop_map(|(unit, side, level)| Step::Err(unit, side, level)),
        ]
    }

    /// The same in plain words.
    #[derive(Clone, Default)]
    struct PlainUnit {
        seen: Vec<Side>,
        taken: bool,
        erred_on_challenger: bool,
        /// The split of its last error on the champion.
        erred_at: Option<u8>,
    }

    proptest! {
        #[test]
        fn the_bytes_say_what_a_plain_model_says(
            steps in proptest::collection::vec(any_step(), 0..80),
            slots in proptest::array::uniform4(1u16..10_000),
        ) {
            let table = UnitTable::default();
            let mut model: HashMap<u32, PlainUnit> = HashMap::new();
            let at = |level: u8| slots[usize::from(level)];
            for step in steps {
                match step {
                    Step::See(unit, side) => {
                        let plain = model.entry(unit).or_default();
                        let expected = Sighting {
                            is_first: plain.seen.is_empty(), is_first_on_side: !plain.seen.contains(&side),
                        };
                        plain.seen.push(side);
                        prop_assert_eq!(table.see(unit, side), expected);
                    }
                    Step::Take(unit) => {
                        let plain = model.entry(unit).or_default();
                        prop_assert_eq!(table.take(unit), !plain.taken);
                        plain.taken = true;
                    }
                    Step::GiveBack(unit) => {
                        model.entry(unit).or_default().taken = false;
                        table.give_back(unit);
                    }
                    Step::ClearTaken => {
                        model.values_mut().for_each(|plain| plain.taken = false);
                        table.clear_taken();
                    }
                    Step::Err(unit, side, level) => {
                        let plain = model.entry(unit).or_default();
                        let expected = match (plain.erred_on_challenger, plain.erred_at) {
                            (true, _) => UnitError::Repeated,
                            (false, None) => UnitError::First,
                            (false, Some(earlier)) if at(level) > at(earlier) => UnitError::After(earlier),
                            (false, Some(_)) => UnitError::Repeated,
                        };
                        if expected != UnitError::Repeated {
                            match side {
                                Side::Challenger => plain.erred_on_challenger = true,
                                Side::Champion => plain.erred_at = Some(level),
                            }
                        }
                        prop_assert_eq!(table.err(unit, side, level, at), expected);
                    }
                }
            }
        }
    }
}
