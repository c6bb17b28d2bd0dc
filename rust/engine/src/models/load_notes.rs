//! What loading found wrong with a version that is served all the same: it ran on no synthetic inputs, its rows could not be compared, or
//! a device could not run it.
//!
//! Next: `model`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most notes of a model; each kind of finding makes one.
const MAX_NOTES: usize = 8;

/// The notes of one model, without duplicates.
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

    /// The number of notes.
    pub fn count(&self) -> usize {
        self.notes().len()
    }

    /// All notes in one line; `None` if there are none.
    pub fn joined(&self) -> Option<String> {
        let notes = self.notes();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn notes(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
