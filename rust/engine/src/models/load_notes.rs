//! What loading found out about a version that is served all the same: it took no made-up inputs, its rows could not be compared, a
//! device would not have it.
//!
//! Next: `model`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most notes of a model; each kind of finding makes one.
const MAX_NOTES: usize = 8;

/// The notes of one model, each of them once.
#[derive(Debug, Default)]
pub struct LoadNotes(Mutex<Vec<String>>);

impl LoadNotes {
    /// Adds a note, unless it is there.
    pub(crate) fn add(&self, note: String) {
        let mut notes = self.notes();
        if notes.len() < MAX_NOTES && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.notes().len()
    }

    /// All of them in one line; `None` if there are none.
    pub fn joined(&self) -> Option<String> {
        let notes = self.notes();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn notes(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
