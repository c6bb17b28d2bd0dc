//! The captured requests that a replay takes: files of one version, within a span of time.
//!
//! Next: `run`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use headgate_capture::layout::{FileLayout, VersionIdentity};
use headgate_capture::reader::{self, CaptureReader, RecordedRow};
use headgate_core::error::{Code, Error, Result};
use serde::Deserialize;

use crate::replay::recorded::RecordedTensors;

/// The longest time between an answer and the writer, which names a file after its first row: requests do not wait longer in the queue.
const MAX_DELAY_US: i64 = 120_000_000;

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
    /// Finds the files that may have what a version answered within a span. Reads their heads and no row.
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
        let mut ends = FileEnds::default();
        // The newest decides which tensors are meant.
        for path in names.into_iter().rev().map(|name| folder.join(name)) {
            let Some(layout) = CaptureReader::open(&path).ok().map(|reader| reader.layout().clone()) else {
                continue;
            };
            if layout.version != *version || !may_have_row(&path, ends.replace(&path, &layout), span) {
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

/// Of each layout, when the file begins that follows the one that is looked at: files of one layout are written one after the other.
#[derive(Default)]
struct FileEnds(Vec<(FileLayout, i64)>);

impl FileEnds {
    /// Takes in a file, and gives when its rows end, in microseconds since 1970. Files come the newest first.
    fn replace(&mut self, path: &Path, layout: &FileLayout) -> Option<i64> {
        let begun = reader::first_row_time(path).and_then(micros);
        let place = self.0.iter().position(|(known, _)| known == layout);
        match (place, begun) {
            (Some(place), Some(begun)) => Some(std::mem::replace(&mut self.0[place].1, begun)),
            (Some(place), None) => Some(self.0[place].1),
            (None, begun) => {
                self.0.extend(begun.map(|begun| (layout.clone(), begun)));
                let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
                // The clock of a file system may be a little behind.
                micros(changed).map(|changed| changed.saturating_add(1_000_000))
            }
        }
    }
}

/// Whether a file may have a row within a span, by what is known without reading its rows: a large capture takes minutes to read.
fn may_have_row(path: &Path, end_us: Option<i64>, span: Span) -> bool {
    let begun = reader::first_row_time(path).and_then(micros);
    let earliest = begun.map(|begun| begun.saturating_sub(MAX_DELAY_US));
    span.until_us.is_none_or(|until| earliest.is_none_or(|earliest| earliest < until))
        && span.since_us.is_none_or(|since| end_us.is_none_or(|end| since <= end))
}

fn micros(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use headgate_capture::clock::Now;
    use headgate_capture::layout::FileLayout;
    use headgate_capture::row::{CapturedRow, RowFacts};
    use headgate_capture::store::{CaptureStore, CaptureTarget, Retention};
    use headgate_core::tensor::Signature;

    use super::*;

    const MINUTE: i64 = 60_000_000;
    /// 2026-01-05.
    const BEGIN: i64 = 1_767_571_200_000_000;

    fn version() -> VersionIdentity {
        VersionIdentity { endpoint: "e".into(), version: "v".into(), digest: "d".into() }
    }

    /// Files of one row each, an hour apart.
    fn capture(folder: &Path) {
        let layout = FileLayout::new(version(), &Signature::default(), &BTreeMap::new(), &[]);
        let retention = Retention { keep_ms: u64::MAX, max_bytes: u64::MAX };
        let target = CaptureTarget { layout: Arc::new(layout), retention };
        let steady = std::time::Instant::now();
        let at = |passed: u64| Now {
            wall: UNIX_EPOCH + Duration::from_micros(BEGIN as u64 + passed),
            steady: steady + Duration::from_micros(passed),
        };
        let mut store = CaptureStore::open(folder.to_owned(), u64::MAX, Arc::default(), at(0));
        for hour in 0..3 {
            let now = at(60 * hour * MINUTE as u64);
            let facts = RowFacts {
                time_us: BEGIN + 60 * hour as i64 * MINUTE,
                request: 0,
                revision: 0,
                unit: None,
                reason: "drawn",
                rule: None,
                code: "ok",
                run_ns: None,
                total_ns: 0,
            };
            store.write(&target, &CapturedRow { facts, tensors: vec![] }, now);
            store.close(now);
        }
    }

    #[test]
    fn files_are_found_by_their_names_and_no_row_is_read() {
        let folder = tempfile::tempdir().unwrap();
        capture(folder.path());
        let found = |since: Option<i64>, until: Option<i64>| {
            let time = |minutes: i64| BEGIN + minutes * MINUTE;
            let span = Span { since_us: since.map(time), until_us: until.map(time) };
            let files = RecordedFiles::find(&folder.path().join("e"), &version(), span);
            files.map(|files| files.paths.len()).map_err(|error| error.message)
        };
        assert_eq!(found(None, None), Ok(3));
        // The row of the middle one is not within the span, but others of its file might be.
        assert_eq!(found(Some(65), Some(100)), Ok(1));
        assert_eq!(found(Some(30), Some(90)), Ok(2));
        assert_eq!(found(Some(60), None), Ok(3));
        assert_eq!(found(Some(61), None), Ok(2));
        // A row was answered before the writer named the file after it.
        assert_eq!(found(None, Some(-1)), Ok(1));
        let before = found(None, Some(-2)).unwrap_err();
        assert!(before.contains("is captured within that time"), "{before}");
        // Nothing was written after the last file was.
        let after = found(Some(100 * 365 * 24 * 60), None).unwrap_err();
        assert!(after.contains("is captured within that time"), "{after}");
    }
}
