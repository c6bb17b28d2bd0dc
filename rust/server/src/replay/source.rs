//! The captured requests that a replay takes: files of one version, within a span of time.
//!
//! Next: `run`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use headgate_capture::layout::VersionIdentity;
use headgate_capture::reader::{CaptureReader, RecordedRow};
use headgate_core::error::{Code, Error, Result};
use serde::Deserialize;

use crate::replay::recorded::RecordedTensors;

/// A span of time, in microseconds since 1970, without its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// From this time on.
    #[serde(default)]
    pub since_us: Option<i64>,
    /// Up to this time.
    #[serde(default)]
    pub until_us: Option<i64>,
}

impl Span {
    /// Whether a row was answered within it.
    pub fn has(&self, row: &RecordedRow) -> bool {
        self.since_us.is_none_or(|since| since <= row.time_us)
            && self.until_us.is_none_or(|until| row.time_us < until)
    }
}

/// The files of what one version answered, with the same tensors, the oldest first.
#[derive(Debug)]
pub struct RecordedFiles {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// The tensors of their rows.
    pub tensors: RecordedTensors,
    /// Files that were left out, because their tensors are others.
    pub other_tensors: u64,
}

impl RecordedFiles {
    /// Finds what a version answered within a span.
    ///
    /// # Errors
    /// `policy_invalid` if there is nothing, or if inputs were left out of it; `storage_failed` if the folder cannot be read.
    pub fn find(folder: &Path, version: &VersionIdentity, span: Span) -> Result<RecordedFiles> {
        let unreadable = |path: &Path, error: &io::Error| {
            Error::new(Code::StorageFailed, format!("{}: {error}", path.display()))
        };
        let mut names = names(folder).map_err(|error| unreadable(folder, &error))?;
        names.sort();
        let mut found: Option<RecordedFiles> = None;
        // The newest decides which tensors are meant.
        for path in names.into_iter().rev().map(|name| folder.join(name)) {
            let Some(layout) = CaptureReader::open(&path).ok().map(|reader| reader.layout().clone()) else {
                continue;
            };
            if layout.version != *version || !has_row(&path, span) {
                continue;
            }
            let tensors = RecordedTensors::of(&layout).map_err(|why| Error::new(Code::PolicyInvalid, why));
            match (&mut found, tensors) {
                (None, tensors) => {
                    found = Some(RecordedFiles { paths: vec![path], tensors: tensors?, other_tensors: 0 });
                }
                (Some(files), Ok(tensors)) if files.tensors == tensors => files.paths.push(path),
                (Some(files), _) => files.other_tensors += 1,
            }
        }
        let mut found = found.ok_or_else(|| nothing(version, span))?;
        found.paths.reverse();
        Ok(found)
    }
}

fn nothing(version: &VersionIdentity, span: Span) -> Error {
    let when = if span == Span::default() { "" } else { " within that time" };
    let VersionIdentity { endpoint, version, digest } = version;
    Error::new(
        Code::PolicyInvalid,
        format!(
            "no request of endpoint {endpoint:?} that {version:?} ({digest}) answered is captured{when}; write capture in its document, or name the version whose requests are meant (against)"
        ),
    )
}

/// The names of the files, also of those that are written to.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .filter(|name| {
                name.as_ref().is_ok_and(|name| name.ends_with(".arrows") || name.ends_with(".arrows.open"))
            })
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn has_row(path: &Path, span: Span) -> bool {
    let Ok(mut reader) = CaptureReader::open(path) else { return false };
    while let Ok(Some(rows)) = reader.next_batch() {
        if rows.iter().any(|row| span.has(row)) {
            return true;
        }
    }
    false
}

/// The files, one after the other. One that was closed, and so renamed, since it was found is read under its new name.
pub fn open(path: &Path) -> io::Result<CaptureReader> {
    match CaptureReader::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            CaptureReader::open(&path.with_extension(""))
        }
        opened => opened,
    }
}

/// Whether a file was deleted, because it was kept long enough.
pub fn is_gone(path: &Path) -> bool {
    File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
