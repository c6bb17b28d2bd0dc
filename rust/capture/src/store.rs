//! What is captured of all endpoints: a folder for each below one root, and the room that all of them may take.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use headgate_core::id::is_name;

use crate::clock::Now;
use crate::counters::CaptureCounters;
use crate::endpoint::{BATCH_AGE, EndpointStore};
pub use crate::folder::Retention;
use crate::layout::FileLayout;
use crate::row::CapturedRow;

/// The counters of each endpoint's capture, which others read.
#[derive(Debug, Default)]
pub struct CountersByEndpoint(Mutex<BTreeMap<String, Arc<CaptureCounters>>>);

impl CountersByEndpoint {
    /// The counters of an endpoint, which are created if there are none.
    pub fn of(&self, endpoint: &str) -> Arc<CaptureCounters> {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = counters.get(endpoint) {
            return known.clone();
        }
        counters.entry(endpoint.to_owned()).or_default().clone()
    }

    /// The counters of an endpoint, if there are some.
    pub fn find(&self, endpoint: &str) -> Option<Arc<CaptureCounters>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint).cloned()
    }

    /// All counters, by endpoint.
    pub fn all(&self) -> Vec<(String, Arc<CaptureCounters>)> {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|(endpoint, one)| (endpoint.clone(), one.clone())).collect()
    }
}

/// Which rows belong together, and for how long.
#[derive(Clone, Debug)]
pub struct CaptureTarget {
    /// The layout of their files.
    pub layout: Arc<FileLayout>,
    /// How long they are kept.
    pub retention: Retention,
}

/// What is captured of all endpoints. One thread owns it.
pub struct CaptureStore {
    root: PathBuf,
    max_bytes: u64,
    counters: Arc<CountersByEndpoint>,
    endpoints: BTreeMap<String, EndpointStore>,
}

impl CaptureStore {
    /// The longest time that a row waits in memory.
    pub const MAX_WAIT: std::time::Duration = BATCH_AGE;

    /// The store below a folder, which need not exist. All files together have at most `max_bytes`. What a crash left is recovered.
    pub fn open(root: PathBuf, max_bytes: u64, counters: Arc<CountersByEndpoint>, now: Now) -> CaptureStore {
        let mut store = CaptureStore { root, max_bytes, counters, endpoints: BTreeMap::new() };
        // A root that cannot be read fails again, and aloud, with the first row.
        let folders = std::fs::read_dir(&store.root).into_iter().flatten().flatten();
        let folders = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for name in names.into_iter().filter(|name| is_name(name)) {
            store.on_endpoint(&name, now, |_| {});
        }
        store.limit_total(now);
        store
    }

    fn endpoint(&mut self, name: &str, now: Now) -> &mut EndpointStore {
        let (root, counters) = (&self.root, &self.counters);
        self.endpoints
            .entry(name.to_owned())
            .or_insert_with(|| EndpointStore::new(root.join(name), counters.of(name), now))
    }

    /// Works on an endpoint, which is opened first if it is new. A panic is printed, costs the endpoint what waits to be written, and stops it
    /// like an error of the disk: the thread goes on with the other endpoints.
    fn on_endpoint(&mut self, name: &str, now: Now, work: impl FnOnce(&mut EndpointStore)) {
        let endpoint = self.endpoint(name, now);
        guarded(endpoint, now, |endpoint| {
            endpoint.recover(now);
            work(endpoint);
        });
    }

    fn on_all(&mut self, now: Now, work: fn(&mut EndpointStore, Now)) {
        self.endpoints
            .values_mut()
            .for_each(|endpoint| guarded(endpoint, now, |endpoint| work(endpoint, now)));
    }

    /// Adds a row. What happens to it is counted.
    pub fn write(&mut self, target: &CaptureTarget, row: &CapturedRow<'_>, now: Now) {
        let CaptureTarget { layout, retention } = target;
        let mut has_grown = false;
        self.on_endpoint(&layout.version.endpoint, now, |endpoint| {
            let before = endpoint.disk_bytes();
            endpoint.write(layout, *retention, row, now);
            has_grown = endpoint.disk_bytes() > before;
        });
        // Seldom: most rows only join a batch.
        if has_grown {
            self.limit_total(now);
        }
    }

    /// Applies the bounds of a new revision to the files of an endpoint. Does nothing for an endpoint without files: its first row does.
    pub fn set_retention(&mut self, endpoint: &str, retention: Retention, revision: u64, now: Now) {
        if let Some(store) = self.endpoints.get_mut(endpoint) {
            guarded(store, now, |store| store.set_retention(retention, revision, now));
        }
    }

    /// Writes rows that have waited long enough, closes files that are old, deletes what is kept no longer. Called once a second or so.
    pub fn tick(&mut self, now: Now) {
        self.on_all(now, EndpointStore::tick);
        self.limit_total(now);
    }

    /// Whether no row waits and no file is open, so that [`CaptureStore::tick`] only deletes.
    pub fn is_at_rest(&self) -> bool {
        self.endpoints.values().all(EndpointStore::is_at_rest)
    }

    /// Writes everything and closes all files.
    pub fn close(&mut self, now: Now) {
        self.on_all(now, EndpointStore::close);
    }

    /// Deletes the oldest files of all endpoints while all of them take too much room. An endpoint whose oldest file cannot be deleted is
    /// stopped, and the others make the room.
    fn limit_total(&mut self, now: Now) {
        let mut failed = BTreeSet::new();
        while self.endpoints.values().map(EndpointStore::disk_bytes).sum::<u64>() > self.max_bytes {
            let deletable = self.endpoints.iter_mut().filter(|(name, _)| !failed.contains(*name));
            let with_files = deletable.filter(|(_, endpoint)| endpoint.oldest().is_some());
            if let Some((name, oldest)) = with_files.min_by_key(|(_, endpoint)| endpoint.oldest()) {
                if let Err(error) = oldest.delete_oldest() {
                    oldest.stop(&error, now);
                    failed.insert(name.clone());
                }
                continue;
            }
            // Only files that are written to are left, and those that cannot be deleted.
            if !self.endpoints.values().any(EndpointStore::has_open_file) {
                return;
            }
            self.on_all(now, EndpointStore::close_files);
        }
    }
}

fn guarded(endpoint: &mut EndpointStore, now: Now, work: impl FnOnce(&mut EndpointStore)) {
    if catch_unwind(AssertUnwindSafe(|| work(endpoint))).is_err() {
        endpoint.abandon(now);
    }
}

#[cfg(test)]
mod tests;
