//! The files of one endpoint, and how long they are kept.
//!
//! Next: `endpoint`.

use std::collections::{HashMap, VecDeque};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::file::{self, ClosedFile};

/// The file that holds the retention, so that files are deleted in time when nothing is captured any more.
const RETENTION: &str = "retention.json";

/// How long files are kept, and how much room they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// No row is kept longer, in milliseconds.
    pub keep_ms: u64,
    /// The most bytes of all files of the endpoint.
    pub max_bytes: u64,
}

impl Retention {
    /// How long a row is kept.
    pub(crate) fn keep(&self) -> Duration {
        Duration::from_millis(self.keep_ms)
    }
}

/// The files of one endpoint.
pub(crate) struct Folder {
    path: PathBuf,
    files: VecDeque<ClosedFile>,
    bytes: u64,
    retention: Option<Retention>,
}

/// What an earlier process left.
#[derive(Default)]
pub(crate) struct RecoveredFiles {
    /// The files that it had open, which have rows.
    pub(crate) files: u64,
    /// An error of a file, which stays as it is.
    pub(crate) error: Option<io::Error>,
}

impl Folder {
    /// The folder at a path, which need not exist and is not read yet.
    pub(crate) fn new(path: PathBuf) -> Folder {
        Folder { path, files: VecDeque::new(), bytes: 0, retention: None }
    }

    /// Reads the folder, and recovers what a crash left in it.
    pub(crate) fn recover(&mut self) -> RecoveredFiles {
        let mut recovered = RecoveredFiles::default();
        self.retention = read_retention(&self.path);
        for name in names(&self.path).unwrap_or_default() {
            let Some(name) = file::name_of_open(&name) else { continue };
            match file::recover(&self.path, name) {
                Ok(found) => recovered.files += u64::from(found.is_some()),
                Err(error) => recovered.error = Some(error),
            }
        }
        if let Err(error) = self.list(&[]) {
            recovered.error = Some(error);
        }
        recovered
    }

    /// Reads which files there are: others may delete some. `written` are the names of those that are written to, which are not counted
    /// here; another open one is left of a close or of a recovery that failed.
    ///
    /// # Errors
    /// Those of reading the folder, unless there is none.
    pub(crate) fn list(&mut self, written: &[String]) -> io::Result<()> {
        let mut files: Vec<ClosedFile> = Vec::new();
        for name in names(&self.path)? {
            let Some(file) = ClosedFile::found(&name, 0).filter(|_| !written.contains(&name)) else {
                continue;
            };
            match std::fs::symlink_metadata(self.path.join(&name)) {
                Ok(metadata) if metadata.is_file() => {
                    files.push(ClosedFile { bytes: metadata.len(), ..file })
                }
                Ok(_) => {}
                // Deleted since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // A time that was ahead of the clock is bounded by when the file was first seen.
        let known: HashMap<&str, SystemTime> =
            self.files.iter().map(|file| (&*file.name, file.begun)).collect();
        for file in &mut files {
            file.begun = known.get(&*file.name).copied().unwrap_or(file.begun);
        }
        files.sort_by(|one, other| one.age_order().cmp(&other.age_order()));
        self.bytes = files.iter().map(|file| file.bytes).sum();
        self.files = files.into();
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the files that are not written to.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of files that are not written to.
    pub(crate) fn count(&self) -> usize {
        self.files.len()
    }

    /// When the first row of the oldest file was captured.
    pub(crate) fn oldest(&self) -> Option<SystemTime> {
        self.files.front().map(|file| file.begun)
    }

    /// Adds a file that is not written to any more.
    pub(crate) fn add(&mut self, file: ClosedFile) {
        self.bytes += file.bytes;
        let place = self.files.partition_point(|other| other.age_order() < file.age_order());
        self.files.insert(place, file);
    }

    /// Takes files whose time is ahead of the clock as begun now: the clock was wrong, and they would never be old enough to go.
    pub(crate) fn bound_times(&mut self, now: SystemTime) {
        if self.files.back().is_none_or(|newest| newest.begun <= now) {
            return;
        }
        for file in self.files.iter_mut().rev().take_while(|file| file.begun > now) {
            file.begun = now;
        }
        self.files.make_contiguous().sort_by(|one, other| one.age_order().cmp(&other.age_order()));
    }

    /// Deletes the oldest file; false if there is none.
    ///
    /// # Errors
    /// Those of the file system. The file is still there then.
    pub(crate) fn delete_oldest(&mut self) -> io::Result<bool> {
        let Some(file) = self.files.front() else { return Ok(false) };
        match std::fs::remove_file(self.path.join(&file.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.bytes -= file.bytes;
        self.files.pop_front();
        Ok(true)
    }

    /// The retention that was set last, also by an earlier process.
    pub(crate) fn retention(&self) -> Option<Retention> {
        self.retention
    }

    /// Sets the retention, and creates the folder if there is none.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn set_retention(&mut self, retention: Retention) -> io::Result<()> {
        if self.retention == Some(retention) {
            return Ok(());
        }
        self.write_retention(retention)?;
        self.retention = Some(retention);
        Ok(())
    }

    /// Creates the folder if it is not there any more.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        match self.retention.filter(|_| !self.path.exists()) {
            Some(retention) => self.write_retention(retention),
            None => Ok(()),
        }
    }

    fn write_retention(&self, retention: Retention) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let temporary = self.path.join(format!("{RETENTION}.new"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(serde_json::json!(retention).to_string().as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&temporary, self.path.join(RETENTION))
    }
}

/// A retention that cannot be read is none: the next document sets it.
fn read_retention(path: &Path) -> Option<Retention> {
    serde_json::from_slice(&std::fs::read(path.join(RETENTION)).ok()?).ok()
}

/// The names in a folder; none if there is no folder.
fn names(path: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
