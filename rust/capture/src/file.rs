//! One file: `NAME.open` while it is written to, `NAME` afterwards.
//!
//! A name begins with the time of its first row, so that the order of names is the order of ages. Next: `folder`.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::ipc;
use crate::layout::FileLayout;
use crate::stream::complete_prefix;

/// What the name of a file ends with.
const SUFFIX: &str = ".arrows";
/// What is added to the name of the file that is written to.
const OPEN: &str = ".open";
/// Names that are tried for a file, a microsecond apart.
const NAMES: u64 = 1000;

/// A file that nothing is written to any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosedFile {
    /// Its name.
    pub(crate) name: String,
    /// When its first row was captured.
    pub(crate) begun: SystemTime,
    /// Its size.
    pub(crate) bytes: u64,
}

impl ClosedFile {
    /// Orders files by age, the oldest first.
    pub(crate) fn age_order(&self) -> (SystemTime, &str) {
        (self.begun, &self.name)
    }

    /// The file of that name, also of one whose close failed and that has the name of an open file; `None` for a name that is none of ours.
    pub(crate) fn found(name: &str, bytes: u64) -> Option<ClosedFile> {
        let file = ClosedFile::of(name.strip_suffix(OPEN).unwrap_or(name), bytes)?;
        Some(ClosedFile { name: name.to_owned(), ..file })
    }

    /// The file of that name; `None` for a name that is none of ours.
    pub(crate) fn of(name: &str, bytes: u64) -> Option<ClosedFile> {
        let (stamp, _) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        Some(ClosedFile { name: name.to_owned(), begun: parse_stamp(stamp)?, bytes })
    }
}

/// The name of the file without the addition of an open one; `None` for another name.
pub(crate) fn name_of_open(name: &str) -> Option<&str> {
    name.strip_suffix(OPEN).filter(|name| ClosedFile::of(name, 0).is_some())
}

/// What closing a file left.
#[derive(Debug, Default)]
pub(crate) struct ClosedResult {
    /// The file, if there is one.
    pub(crate) file: Option<ClosedFile>,
    /// Why the file may be incomplete on the disk, or has the name of an open one.
    pub(crate) error: Option<io::Error>,
}

/// A file that is written to.
pub(crate) struct OpenFile {
    file: File,
    folder: PathBuf,
    name: String,
    begun: SystemTime,
    /// The bytes of its complete messages.
    pub(crate) bytes: u64,
    /// The rows in it.
    pub(crate) rows: u64,
}

impl OpenFile {
    /// Creates a file of rows from `begun` on, and writes the schema. Only the owner may read it.
    ///
    /// # Errors
    /// Those of the file system. The file is gone then.
    pub(crate) fn create(folder: &Path, layout: &FileLayout, begun: SystemTime) -> io::Result<OpenFile> {
        let (file, name, begun) = create_new(folder, &layout.version.version, begun)?;
        let mut open = OpenFile { file, folder: folder.to_owned(), name, begun, bytes: 0, rows: 0 };
        match open.append(&ipc::schema(layout), 0) {
            Ok(()) => Ok(open),
            Err(error) => {
                // The first error says more than one of the removal.
                let _ = std::fs::remove_file(open.open_path());
                Err(error)
            }
        }
    }

    /// Writes a message with so many rows.
    ///
    /// # Errors
    /// Those of writing; `NotFound` if the file was removed. The file ends with its last complete message then.
    pub(crate) fn append(&mut self, message: &[u8], rows: u64) -> io::Result<()> {
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the file was removed while it was written to",
            ));
        }
        if let Err(error) = self.file.write_all(message) {
            self.cut()?;
            return Err(error);
        }
        self.bytes += message.len() as u64;
        self.rows += rows;
        Ok(())
    }

    /// Removes what follows the last complete message.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(drop)
    }

    /// Ends the stream and gives the file its name. A file without rows is removed.
    pub(crate) fn close(mut self) -> ClosedResult {
        if self.rows == 0 {
            return match std::fs::remove_file(self.open_path()) {
                Ok(()) => ClosedResult::default(),
                Err(error) => self.left_open(error),
            };
        }
        // Readers take the end of the file for the end of the stream, so that a full disk costs nothing that was written.
        let synced = if self.append(&ipc::END, 0).is_ok() { self.file.sync_data() } else { Ok(()) };
        // Also without the sync: what is on the disk is read and deleted under this name.
        match std::fs::rename(self.open_path(), self.folder.join(&self.name)) {
            Ok(()) => {
                let closed = ClosedFile { name: self.name, begun: self.begun, bytes: self.bytes };
                ClosedResult { file: Some(closed), error: synced.err() }
            }
            Err(error) => self.left_open(synced.err().unwrap_or(error)),
        }
    }

    /// The file keeps the name of an open one.
    fn left_open(self, error: io::Error) -> ClosedResult {
        let is_there = error.kind() != io::ErrorKind::NotFound;
        let name = self.open_name();
        let file = is_there.then_some(ClosedFile { name, begun: self.begun, bytes: self.bytes });
        ClosedResult { file, error: Some(error) }
    }

    /// The name that the file has while it is written to.
    pub(crate) fn open_name(&self) -> String {
        format!("{}{OPEN}", self.name)
    }

    fn open_path(&self) -> PathBuf {
        self.folder.join(self.open_name())
    }
}

/// Cuts a file that a crash left to its last complete record batch and gives it its name. Gives the file and its rows; `None` if it has no
/// rows, which removes it.
///
/// # Errors
/// Those of the file system.
pub(crate) fn recover(folder: &Path, name: &str) -> io::Result<Option<(ClosedFile, u64)>> {
    let path = folder.join(format!("{name}{OPEN}"));
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
    let length = file.metadata()?.len();
    let prefix = complete_prefix(&mut file, length)?;
    let Some(mut closed) = ClosedFile::of(name, prefix.bytes).filter(|_| prefix.rows > 0) else {
        std::fs::remove_file(&path)?;
        return Ok(None);
    };
    if !prefix.is_ended {
        file.set_len(prefix.bytes)?;
        file.seek(SeekFrom::Start(prefix.bytes))?;
        if file.write_all(&ipc::END).is_err() {
            file.set_len(prefix.bytes)?;
        }
    }
    file.sync_data()?;
    closed.bytes = file.metadata()?.len();
    std::fs::rename(&path, folder.join(name))?;
    Ok(Some((closed, prefix.rows)))
}

/// A new file for rows of a version, and its name.
fn create_new(folder: &Path, version: &str, begun: SystemTime) -> io::Result<(File, String, SystemTime)> {
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    let begun = within_names(begun);
    for later in 0..NAMES {
        let begun = begun + Duration::from_micros(later);
        let name = format!("{}-{version}{SUFFIX}", stamp(begun));
        if folder.join(&name).exists() {
            continue;
        }
        let path = folder.join(format!("{name}{OPEN}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => return Ok((file, name, begun)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

/// The nearest time that a name can say: names have no sign, and years of four digits.
fn within_names(at: SystemTime) -> SystemTime {
    const LAST_DAY: Duration = Duration::from_secs(253_402_214_400);
    at.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST_DAY)
}

/// `20261130T005212.123456Z`.
fn stamp(at: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_micros(at).to_string();
    text.retain(|letter| !matches!(letter, '-' | ':'));
    text
}

fn parse_stamp(stamp: &str) -> Option<SystemTime> {
    let part = |range| stamp.get(range);
    let text =
        format!("{}-{}-{}:{}:{}", part(0..4)?, part(4..6)?, part(6..11)?, part(11..13)?, stamp.get(13..)?);
    humantime::parse_rfc3339(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_the_first_row_was_captured() {
        let begun = SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_571_200_123_456);
        let name = format!("{}-v-1.2.arrows", stamp(begun));
        assert_eq!(name, "20260105T000000.123456Z-v-1.2.arrows");
        assert_eq!(ClosedFile::of(&name, 7), Some(ClosedFile { name: name.clone(), begun, bytes: 7 }));
        assert_eq!(name_of_open(&format!("{name}.open")), Some(&*name));
        for other in ["20260105T000000.123456Z.arrows", "x-v1.arrows", "retention.json", "é-v.arrows"] {
            assert_eq!(ClosedFile::of(other, 0), None, "{other}");
        }
    }

    #[test]
    fn names_sort_by_time() {
        let at = |micros| stamp(SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
        let mut stamps: Vec<_> = [0, 999_999, 1_000_000, 60_000_000, 1_767_571_200_000_000].map(at).into();
        let sorted = stamps.clone();
        stamps.sort();
        assert_eq!(stamps, sorted);
    }
}
