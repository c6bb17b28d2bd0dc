//! The file of an endpoint's receipts: its key, the number of its newest start, and which receipts have been used. Only its owner can read it.
//!
//! ```text
//! magic 8 | key 32 | starts 4 | sets 4 | for each set: length of its name 2, its name, its serials | xxh64 of all before it 8
//! ```
//! A file is replaced as a whole: written beside the old one, flushed to the disk, renamed. A file that is damaged or missing makes a new
//! key, because receipts of the old one might count again.
//!
//! Next: `endpoint`.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use headgate_core::feedback::seen::SeenSet;
use xxhash_rust::xxh64::xxh64;

use super::receipt::KEY_BYTES;

const MAGIC: &[u8; 8] = b"hgrcpt\0\x01";
/// The most bytes of a set in memory; in a file it takes about as many.
pub const SET_BYTES: usize = 4 << 20;
/// The most bytes that are read of a file.
const MOST_BYTES: u64 = 256 << 20;

/// What the file holds.
#[derive(Debug, PartialEq)]
pub struct ReceiptState {
    /// The key.
    pub key: [u8; KEY_BYTES],
    /// The number of the newest start with this key.
    pub starts: u32,
    /// The receipts that were used, by feedback.
    pub seen: BTreeMap<String, SeenSet>,
}

/// What was found in place of a file.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// The state.
    State(ReceiptState),
    /// No file.
    Nothing,
    /// A file that this build did not write, or that is damaged.
    Damaged,
}

/// The file of an endpoint in a folder. Names of endpoints are names of files.
pub fn path_of(folder: &Path, endpoint: &str) -> PathBuf {
    folder.join(format!("{endpoint}.receipts"))
}

impl ReceiptState {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.starts.to_le_bytes());
        out.extend_from_slice(&(self.seen.len() as u32).to_le_bytes());
        for (name, set) in &self.seen {
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            set.write_to(&mut out);
        }
        let sum = xxh64(&out, 0);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// The state in the bytes of a file; `None` for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<ReceiptState> {
        let (content, sum) = bytes.split_last_chunk::<8>()?;
        if xxh64(content, 0) != u64::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = content.strip_prefix(MAGIC)?;
        let key = *take::<KEY_BYTES>(&mut rest)?;
        let starts = u32::from_le_bytes(*take(&mut rest)?);
        let mut seen = BTreeMap::new();
        for _ in 0..u32::from_le_bytes(*take(&mut rest)?) {
            let length = usize::from(u16::from_le_bytes(*take(&mut rest)?));
            let (name, after) = rest.split_at_checked(length)?;
            rest = after;
            let name = std::str::from_utf8(name).ok()?.to_owned();
            seen.insert(name, SeenSet::read_from(&mut rest, SET_BYTES)?);
        }
        rest.is_empty().then_some(ReceiptState { key, starts, seen })
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(first)
}

/// Reads a file.
///
/// # Errors
/// Those of the system but that there is no file.
pub fn read(path: &Path) -> io::Result<Found> {
    let file =
        match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
    if !file.metadata()?.is_file() {
        return Ok(Found::Damaged);
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(ReceiptState::from_bytes(&bytes).map_or(Found::Damaged, Found::State))
}

/// Replaces a file, which is on the disk when this returns.
///
/// # Errors
/// Those of the system; the file that was there is as it was.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use headgate_core::feedback::seen::Insertion;

    use super::*;

    fn state() -> ReceiptState {
        let mut set = SeenSet::new(SET_BYTES);
        assert!((0..5_000).all(|serial| set.insert(serial * 3, 1) == Insertion::New));
        let seen = BTreeMap::from([("sale".to_owned(), set), ("empty".to_owned(), SeenSet::new(SET_BYTES))]);
        ReceiptState { key: [9; KEY_BYTES], starts: 3, seen }
    }

    #[test]
    fn a_state_comes_back_from_its_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(&folder.path().join("below"), "digits");
        assert_eq!(read(&path).unwrap(), Found::Nothing);
        for _ in 0..2 {
            write(&path, &state().to_bytes()).unwrap();
            assert_eq!(read(&path).unwrap(), Found::State(state()));
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), "digits");
        let whole = state().to_bytes();
        for damaged in [&whole[..whole.len() - 1], &whole[1..], b"", b"x"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(read(&path).unwrap(), Found::Damaged);
        }
        bolero::check!().with_type::<(u16, u8, Vec<u8>)>().for_each(|(place, byte, other)| {
            let mut changed = whole.clone();
            let place = usize::from(*place) % changed.len();
            changed[place] = *byte;
            let is_same = changed == whole;
            assert_eq!(ReceiptState::from_bytes(&changed).is_some(), is_same);
            assert_eq!(ReceiptState::from_bytes(other), None);
        });
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Damaged);
    }

    #[test]
    fn a_write_that_fails_leaves_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), "digits");
        write(&path, &state().to_bytes()).unwrap();
        std::fs::create_dir(folder.path().join("digits.receipts.new")).unwrap();
        assert!(write(&path, b"other").is_err());
        assert_eq!(read(&path).unwrap(), Found::State(state()));
    }
}
