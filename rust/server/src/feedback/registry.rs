//! The receipts of all endpoints, which outlive the snapshots that issue them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_core::error::{Code, Error, Result};

use super::endpoint::EndpointFeedback;
use super::state_file;

/// The receipts of all endpoints, by name.
#[derive(Default)]
pub struct FeedbackRegistry {
    folder: Option<PathBuf>,
    endpoints: Mutex<HashMap<String, Arc<EndpointFeedback>>>,
}

impl FeedbackRegistry {
    /// A registry with its files in a folder; in memory alone without one.
    pub fn new(folder: Option<PathBuf>) -> FeedbackRegistry {
        FeedbackRegistry { folder, endpoints: Mutex::default() }
    }

    /// The receipts of an endpoint. The first call reads its file.
    ///
    /// # Errors
    /// `storage_failed` if its file cannot be read.
    pub fn endpoint(&self, name: &str) -> Result<Arc<EndpointFeedback>> {
        let mut endpoints = self.endpoints();
        if let Some(known) = endpoints.get(name) {
            return Ok(known.clone());
        }
        let file = self.folder.as_ref().map(|folder| state_file::path_of(folder, name));
        let opened = EndpointFeedback::open(name, file).map_err(|error| {
            let words = format!("the receipts of endpoint {name:?} cannot be read: {error}");
            Error::new(Code::StorageFailed, words)
        })?;
        let opened = Arc::new(opened);
        endpoints.insert(name.to_owned(), opened.clone());
        Ok(opened)
    }

    /// Writes what changed of an endpoint.
    ///
    /// # Errors
    /// Those of the system.
    pub fn save(&self, name: &str) -> std::io::Result<()> {
        let known = self.endpoints().get(name).cloned();
        known.map_or(Ok(()), |known| known.save())
    }

    /// Writes what changed of all endpoints; how many could not be written, which are written the next time.
    pub fn save_all(&self) -> usize {
        self.list().iter().filter(|(_, endpoint)| endpoint.save().is_err()).count()
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
