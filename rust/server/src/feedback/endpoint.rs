//! The receipts of one endpoint: those that are issued, and those that come back.
//!
//! A serial is the number of the start, and a count behind it, so that no two receipts of a key have the same one whatever was written
//! last. The number of a start is at least its second, because a file that a backup brings back knows no start since. Nothing is issued
//! until the number of the start is on the disk.
//!
//! Next: `registry`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use headgate_core::feedback::declared::{Feedbacks, MAX_WITHIN_MS};
use headgate_core::feedback::moments::Moments;
use headgate_core::feedback::seen::{Insertion, SeenSet};
use http::{HeaderName, HeaderValue};
use xxhash_rust::xxh64::xxh64;

use super::receipt::{KEY_BYTES, Receipt, ReceiptArm, ReceiptFault, ReceiptKey};
use super::refusal::{Refusal, RefusedFeedback};
use super::sent::SentFeedback;
use super::state_file::{self, Found, ReceiptState, SET_BYTES};

/// The name of the header of an answer, of the metadata of one over gRPC, and of the parameter of one in a stream.
pub const RECEIPT: &str = "x-headgate-receipt";
/// The same as the name of a field.
pub static X_RECEIPT: HeaderName = HeaderName::from_static(RECEIPT);
/// The bits of a serial that count within one start. What counts beyond them takes numbers of seconds that are over by then.
const COUNT_BITS: u32 = 32;
/// The most versions whose feedback is told apart, and the name of all others.
const MAX_VERSIONS: usize = 256;
const OTHER: &str = "other";
/// Seconds by which the oldest receipt that counts moves on until a set is walked again.
const SWEEP_S: u32 = 60;
/// The most sets of feedbacks that are not declared any more.
const MAX_REMOVED: usize = 8;
/// The name that stands in the file for all feedbacks without a set; no feedback has it.
const ALL_OTHERS: &str = "";

/// Feedback that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenFeedback {
    /// The name of the feedback.
    pub name: String,
    /// The number that was given.
    pub value: f64,
    /// The answer.
    pub receipt: Receipt,
}

/// What is issued and taken for one endpoint.
pub struct EndpointFeedback {
    key: ReceiptKey,
    file: Option<PathBuf>,
    starts: u32,
    next_serial: AtomicU64,
    /// Whether the number of the start is on the disk.
    is_durable: AtomicBool,
    /// Whether the file that was there could not be read, so that receipts of before are refused.
    pub was_damaged: bool,
    refused: [AtomicU64; Refusal::ALL.len()],
    book: Mutex<Book>,
    /// Held while the file is written.
    writing: Mutex<()>,
    /// Whether the last write failed.
    is_unsaved: AtomicBool,
}

#[derive(Default)]
struct Book {
    seen: BTreeMap<String, SeenSet>,
    /// The time before which each set forgot last, in seconds since 1970.
    swept_s: BTreeMap<String, u32>,
    /// The newest time of issue in sets that were removed, in seconds since 1970. A feedback without a set takes nothing as old as that.
    removed_s: u32,
    /// How many sets were removed.
    removed: [u64; Removal::ALL.len()],
    /// The names of versions by their tag.
    versions: BTreeMap<u32, String>,
    /// The sums of each version and feedback.
    sums: BTreeMap<(String, String), Moments>,
    /// Grows with each receipt that is used, and how far it is on the disk.
    changes: u64,
    written: u64,
}

/// Why the set of a feedback was removed that is not declared any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// No receipt in it would be taken if the feedback were declared again.
    Expired,
    /// There were more than [`MAX_REMOVED`].
    Room,
}

impl Removal {
    /// All of them.
    pub const ALL: [Removal; 2] = [Removal::Expired, Removal::Room];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Removal::Expired => "expired",
            Removal::Room => "room",
        }
    }
}

/// The tag of a version in receipts.
pub fn version_tag(name: &str, digest: &str) -> u32 {
    xxh64(format!("{name}\0{digest}").as_bytes(), 0) as u32
}

impl EndpointFeedback {
    /// The receipts of an endpoint whose state is in `file`; in memory alone without one. `now_s` is in seconds since 1970.
    ///
    /// # Errors
    /// Those of the system for a file that is there and cannot be read, and if it gives no random bytes.
    pub fn open(endpoint: &str, file: Option<PathBuf>, now_s: u64) -> std::io::Result<EndpointFeedback> {
        let found = file.as_deref().map_or(Ok(Found::Nothing), state_file::read)?;
        let was_damaged = found == Found::Damaged;
        let mut state = match found {
            Found::State(state) => state,
            Found::Nothing | Found::Damaged => {
                let mut key = [0; KEY_BYTES];
                getrandom::fill(&mut key).map_err(std::io::Error::other)?;
                ReceiptState { key, starts: 0, seen: BTreeMap::new() }
            }
        };
        state.starts = state.starts.wrapping_add(1).max(u32::try_from(now_s).unwrap_or(0));
        let removed_s = state.seen.remove(ALL_OTHERS).map_or(0, |others| others.forgotten_s());
        let feedback = EndpointFeedback {
            key: ReceiptKey::new(state.key, endpoint),
            is_durable: AtomicBool::new(file.is_none()),
            file,
            starts: state.starts,
            next_serial: AtomicU64::new(u64::from(state.starts) << COUNT_BITS),
            was_damaged,
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            book: Mutex::new(Book { seen: state.seen, removed_s, changes: 1, ..Book::default() }),
            writing: Mutex::new(()),
            is_unsaved: AtomicBool::new(false),
        };
        // A disk that is full issues no receipts; the endpoint is served all the same.
        drop(feedback.save());
        Ok(feedback)
    }

    /// Learns the name of a version.
    pub fn know(&self, name: &str, digest: &str) {
        let mut book = self.book();
        if book.versions.len() < MAX_VERSIONS {
            book.versions.insert(version_tag(name, digest), name.to_owned());
        }
    }

    /// Whether the last write of the file failed.
    pub fn is_unsaved(&self) -> bool {
        self.is_unsaved.load(Relaxed)
    }

    /// The receipts issued since the start.
    pub fn issued(&self) -> u64 {
        self.next_serial.load(Relaxed) - (u64::from(self.starts) << COUNT_BITS)
    }

    /// Feedback that was refused for that reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Relaxed)
    }

    /// The bytes of the receipts that were used.
    pub fn seen_bytes(&self) -> usize {
        self.book().seen.values().map(SeenSet::bytes).sum()
    }

    /// The sets that were removed for that reason.
    pub fn removed(&self, removal: Removal) -> u64 {
        self.book().removed[removal as usize]
    }

    /// The sums of each version and feedback since the start.
    pub fn sums(&self) -> Vec<((String, String), Moments)> {
        self.book().sums.iter().map(|(key, sums)| (key.clone(), *sums)).collect()
    }

    /// Counts a refusal.
    pub fn count_refusal(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Relaxed);
    }

    /// Takes feedback at `now_s`, in seconds since 1970, and marks its receipt as used.
    ///
    /// # Errors
    /// Why it is refused, which is counted.
    pub fn take(
        &self,
        declared: &Feedbacks,
        sent: &SentFeedback,
        now_s: u64,
    ) -> Result<TakenFeedback, RefusedFeedback> {
        let taken =
            self.check(declared, sent, now_s).and_then(|(taken, oldest_s)| self.mark(taken, oldest_s));
        taken.inspect_err(|refused| self.count_refusal(refused.refusal))
    }

    /// The feedback, and the time before which receipts of its kind are late, in seconds since 1970.
    fn check(
        &self,
        declared: &Feedbacks,
        sent: &SentFeedback,
        now_s: u64,
    ) -> Result<(TakenFeedback, u32), RefusedFeedback> {
        let receipt = self.key.read(sent.receipt.as_bytes()).map_err(|fault| match fault {
            ReceiptFault::Malformed => RefusedFeedback::new(
                Refusal::Malformed,
                "receipt is not the text of a receipt; send x-headgate-receipt of the answer as it came",
            ),
            ReceiptFault::Forged => RefusedFeedback::new(
                Refusal::Forged,
                "receipt was not issued by this gateway for this endpoint",
            ),
        })?;
        let unknown = |words: String| RefusedFeedback::new(Refusal::UnknownKind, words);
        let names = || declared.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (name, spec) = match &sent.kind {
            Some(kind) => declared.get_key_value(kind).ok_or_else(|| {
                unknown(format!("the endpoint has no feedback {kind:?}; it has {}", names()))
            })?,
            None => match declared.iter().collect::<Vec<_>>()[..] {
                [only] => only,
                _ => return Err(unknown(format!("kind is missing; it is one of {}", names()))),
            },
        };
        let bad_value = |words| RefusedFeedback::new(Refusal::BadValue, words);
        let value = spec.number(&sent.value).map_err(bad_value)?;
        let oldest_s = now_s.saturating_sub(spec.within_ms / 1_000);
        if u64::from(receipt.issued_s) < oldest_s {
            let words = format!("the answer is older than {} takes feedback for (within)", name);
            return Err(RefusedFeedback::new(Refusal::Late, words));
        }
        let oldest_s = u32::try_from(oldest_s).unwrap_or(u32::MAX);
        Ok((TakenFeedback { name: name.clone(), value, receipt }, oldest_s))
    }

    /// Marks a receipt as used, and counts the value.
    fn mark(&self, taken: TakenFeedback, oldest_s: u32) -> Result<TakenFeedback, RefusedFeedback> {
        let mut book = self.book();
        let book = &mut *book;
        let Receipt { serial, issued_s, version, .. } = taken.receipt;
        let removed_s = book.removed_s;
        let unused = || SeenSet::forgetting(SET_BYTES, removed_s);
        let seen = book.seen.entry(taken.name.clone()).or_insert_with(unused);
        match seen.insert(serial, issued_s) {
            Insertion::New => {}
            Insertion::Duplicate => {
                let words = format!("the receipt was used for {} before; it counts once", taken.name);
                return Err(RefusedFeedback::new(Refusal::Duplicate, words));
            }
            Insertion::Forgotten => {
                let words = "the answer is older than what is known of used receipts";
                return Err(RefusedFeedback::new(Refusal::Late, words));
            }
        }
        // What is late is refused before this, so that nothing depends on how often the set is walked.
        let swept_s = book.swept_s.entry(taken.name.clone()).or_default();
        if oldest_s >= swept_s.saturating_add(SWEEP_S) {
            *swept_s = oldest_s;
            seen.forget_before(oldest_s);
        }
        book.changes += 1;
        let version = book.versions.get(&version).map_or(OTHER, String::as_str).to_owned();
        book.sums.entry((version, taken.name.clone())).or_default().add_one(taken.value);
        Ok(taken)
    }

    /// Removes the sets of feedbacks that are not declared any more: those of which no receipt could be taken if they were declared again,
    /// and of more than [`MAX_REMOVED`] those that were used the longest time ago. `None` is an endpoint that is not served, of which it is
    /// not known what is declared: there only the former go. `now_s` is in seconds since 1970.
    pub fn remove_undeclared(&self, declared: Option<&Feedbacks>, now_s: u64) {
        let mut book = self.book();
        let is_undeclared = |name: &str| declared.is_none_or(|declared| !declared.contains_key(name));
        let sets = book.seen.iter().filter(|(name, _)| is_undeclared(name));
        let mut sets: Vec<(u32, String)> = sets.map(|(name, set)| (set.newest_s(), name.clone())).collect();
        sets.sort();
        let too_many = declared.map_or(0, |_| sets.len().saturating_sub(MAX_REMOVED));
        for (place, (newest_s, name)) in sets.into_iter().enumerate() {
            if u64::from(newest_s) + MAX_WITHIN_MS / 1_000 < now_s {
                book.remove(&name, Removal::Expired);
            } else if place < too_many {
                book.remove(&name, Removal::Room);
            }
        }
    }

    /// Writes what changed since the last time.
    ///
    /// # Errors
    /// Those of the system.
    pub fn save(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, bytes) = {
            let mut book = self.book();
            if book.changes == book.written {
                return Ok(());
            }
            let mut seen = std::mem::take(&mut book.seen);
            if book.removed_s > 0 {
                seen.insert(ALL_OTHERS.to_owned(), SeenSet::forgetting(SET_BYTES, book.removed_s));
            }
            let mut state = ReceiptState { key: *self.key.bytes(), starts: self.starts_to_write(), seen };
            let bytes = state.to_bytes();
            state.seen.remove(ALL_OTHERS);
            book.seen = state.seen;
            (book.changes, bytes)
        };
        let written = state_file::write(file, &bytes);
        self.is_unsaved.store(written.is_err(), Relaxed);
        written?;
        let mut book = self.book();
        book.written = book.written.max(changes);
        self.is_durable.store(true, Relaxed);
        Ok(())
    }

    /// The number of this start, or that which its serials have reached.
    fn starts_to_write(&self) -> u32 {
        self.starts.max((self.next_serial.load(Relaxed) >> COUNT_BITS) as u32)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Removes the set of a feedback, and what is told of it. Its receipts are too old for any other feedback that has no set.
    fn remove(&mut self, feedback: &str, removal: Removal) {
        let Some(set) = self.seen.remove(feedback) else { return };
        self.removed_s = self.removed_s.max(set.newest_s());
        self.swept_s.remove(feedback);
        self.sums.retain(|(_, name), _| name != feedback);
        self.removed[removal as usize] += 1;
        self.changes += 1;
    }
}

/// What one version of a snapshot needs to issue receipts.
pub struct VersionReceipts {
    /// The endpoint's.
    pub endpoint: std::sync::Arc<EndpointFeedback>,
    /// The revision.
    pub revision: u32,
    /// The tag of the version.
    pub version: u32,
    /// The version's place in the trial that is on.
    pub arm: Option<ReceiptArm>,
}

/// What a slot decided of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotDecision {
    /// The slot.
    pub slot: u16,
    /// The unit of the sticky key.
    pub unit: Option<u32>,
}

impl VersionReceipts {
    /// The receipt of an answer at `now_s`, in seconds since 1970; `decision` is there if a slot chose the version. `None` while the number
    /// of the start is not on the disk.
    pub fn issue(&self, decision: Option<SlotDecision>, now_s: u64) -> Option<HeaderValue> {
        if !self.endpoint.is_durable.load(Relaxed) {
            return None;
        }
        let receipt = Receipt {
            arm: self.arm.filter(|_| decision.is_some()),
            slot: decision.map(|decision| decision.slot),
            unit: decision.and_then(|decision| decision.unit),
            revision: self.revision,
            version: self.version,
            issued_s: u32::try_from(now_s).unwrap_or(u32::MAX),
            serial: self.endpoint.next_serial.fetch_add(1, Relaxed),
        };
        HeaderValue::from_bytes(&self.endpoint.key.text(&receipt)).ok()
    }
}

#[cfg(test)]
mod tests;
