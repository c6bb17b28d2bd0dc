//! The receipts of all endpoints, which outlive the snapshots that issue them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_core::error::{Code, Error, Result};
use headgate_core::feedback::declared::Feedbacks;

use super::endpoint::EndpointFeedback;
use super::state_file;

/// The receipts of all endpoints, by name.
#[derive(Default)]
pub struct FeedbackRegistry {
    folder: Option<PathBuf>,
    endpoints: Mutex<HashMap<String, Arc<EndpointFeedback>>>,
    /// Held while a file is opened, so that none is opened twice.
    opening: Mutex<()>,
}

impl FeedbackRegistry {
    /// A registry with its files in a folder; in memory alone without one.
    pub fn new(folder: Option<PathBuf>) -> FeedbackRegistry {
        FeedbackRegistry { folder, ..FeedbackRegistry::default() }
    }

    /// The receipts of an endpoint. The first call reads its file, at `now_s` in seconds since 1970.
    ///
    /// # Errors
    /// `storage_failed` if its file cannot be read.
    pub fn endpoint(&self, name: &str, now_s: u64) -> Result<Arc<EndpointFeedback>> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        // The others are found meanwhile: a disk may hang.
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let file = self.folder.as_ref().map(|folder| state_file::path_of(folder, name));
        let opened = EndpointFeedback::open(name, file, now_s).map_err(|error| {
            let words = format!("the receipts of endpoint {name:?} cannot be read: {error}");
            Error::new(Code::StorageFailed, words)
        })?;
        let opened = Arc::new(opened);
        self.endpoints().insert(name.to_owned(), opened.clone());
        Ok(opened)
    }

    fn known(&self, name: &str) -> Option<Arc<EndpointFeedback>> {
        self.endpoints().get(name).cloned()
    }

    /// Writes what changed of an endpoint.
    ///
    /// # Errors
    /// Those of the system.
    pub fn save(&self, name: &str) -> std::io::Result<()> {
        self.known(name).map_or(Ok(()), |known| known.save())
    }

    /// Removes sets of feedbacks that are not declared any more, at `now_s` in seconds since 1970; `declared` gives what a served endpoint
    /// declares.
    pub fn remove_undeclared(&self, now_s: u64, declared: impl Fn(&str) -> Option<Feedbacks>) {
        for (name, endpoint) in self.list() {
            endpoint.remove_undeclared(declared(&name).as_ref(), now_s);
        }
    }

    /// Writes what changed of all endpoints; how many could not be written. They are told by `headgate_feedback_unsaved`, and written the
    /// next time.
    pub fn save_all(&self) -> usize {
        self.list().iter().filter(|(_, endpoint)| endpoint.save().is_err()).count()
    }

    /// Whether no endpoint issues receipts.
    pub fn is_empty(&self) -> bool {
        self.endpoints().is_empty()
    }

    /// All endpoints by name.
    pub fn list(&self) -> Vec<(String, Arc<EndpointFeedback>)> {
        let mut list: Vec<_> =
            self.endpoints().iter().map(|(name, endpoint)| (name.clone(), endpoint.clone())).collect();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<String, Arc<EndpointFeedback>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
