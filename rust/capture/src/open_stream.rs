//! The rows of one layout: a batch, and the file that it is written to.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{BatchBuilder, RowError};
use crate::clock::Now;
use crate::file::OpenFile;
use crate::layout::FileLayout;
use crate::row::CapturedRow;

/// The rows of one layout.
pub(crate) struct OpenStream {
    /// The rows that wait.
    pub(crate) batch: BatchBuilder,
    /// The file, once there is a batch in it.
    pub(crate) file: Option<OpenFile>,
    /// When the last row came.
    pub(crate) used: Instant,
    first_row: Now,
    /// When the first row of the file came.
    opened: Instant,
}

impl OpenStream {
    /// A stream without rows.
    pub(crate) fn new(layout: Arc<FileLayout>, now: Now) -> OpenStream {
        OpenStream {
            batch: BatchBuilder::new(layout),
            file: None,
            used: now.steady,
            first_row: now,
            opened: now.steady,
        }
    }

    /// Whether its rows have this layout.
    pub(crate) fn has_layout(&self, layout: &Arc<FileLayout>) -> bool {
        Arc::ptr_eq(self.batch.layout(), layout) || self.batch.layout() == layout
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: &CapturedRow<'_>, now: Now) -> Result<(), RowError> {
        if self.batch.rows() == 0 {
            self.first_row = now;
        }
        self.used = now.steady;
        self.batch.push(row)
    }

    /// The message of the batch, which is empty afterwards.
    pub(crate) fn take_batch(&mut self) -> Vec<u8> {
        self.batch.encode()
    }

    /// Opens a file for the batch that was taken.
    pub(crate) fn open_file(&mut self, folder: &Path) -> io::Result<&mut OpenFile> {
        let file = OpenFile::create(folder, self.batch.layout(), self.first_row.wall)?;
        self.opened = self.first_row.steady;
        Ok(self.file.insert(file))
    }

    /// Whether its first row has waited for so long.
    pub(crate) fn has_waited(&self, age: Duration, now: Now) -> bool {
        self.batch.rows() > 0 && now.steady.saturating_duration_since(self.first_row.steady) >= age
    }

    /// Whether its file is as old as that.
    pub(crate) fn is_file_older_than(&self, age: Duration, now: Now) -> bool {
        self.file.is_some() && now.steady.saturating_duration_since(self.opened) >= age
    }

    /// Whether no row came for so long, and nothing waits.
    pub(crate) fn is_idle(&self, age: Duration, now: Now) -> bool {
        let idle = now.steady.saturating_duration_since(self.used) >= age;
        idle && self.file.is_none() && self.batch.rows() == 0
    }
}
