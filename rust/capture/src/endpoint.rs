//! What is captured of one endpoint: rows on their way into files, rotation, the room that they take, and what follows an error.
//!
//! An error stops the capture of the endpoint for a while, which doubles up to a minute; then the next rows are tried. Next: `store`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use crate::batch::RowError;
use crate::clock::Now;
use crate::counters::{CaptureCounters, DropReason};
use crate::file::{ClosedResult, OpenFile};
use crate::folder::{Folder, Retention};
use crate::free_space::writable_bytes;
use crate::layout::FileLayout;
use crate::open_stream::OpenStream;
use crate::row::CapturedRow;

/// A batch is written when it has so many rows, or so many bytes, or when its first row has waited so long.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
pub(crate) const BATCH_AGE: Duration = Duration::from_secs(5);
/// A file is closed when it has so many rows, or so many bytes.
const FILE_ROWS: u64 = 1 << 20;
const FILE_BYTES: u64 = 64 << 20;
/// A file has at most one part in so many of the room and of the time for which rows are kept.
const FILE_SHARE: u32 = 8;
/// The longest and the shortest time that a file is written to.
const MAX_FILE_AGE: Duration = Duration::from_secs(3600);
const MIN_FILE_AGE: Duration = Duration::from_secs(60);
/// Files of one endpoint that are written to at the same time: one for each version, digest and redaction.
const MAX_STREAMS: usize = 8;
/// How long capture is stopped after the first error, and at most.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// How often the folder is read again.
const LIST_AGAIN: Duration = Duration::from_secs(60);
/// What a schema and a stream's end take beside the batches, about.
const OVERHEAD: u64 = 16 << 10;

/// What is captured of one endpoint.
pub(crate) struct EndpointStore {
    folder: Folder,
    counters: Arc<CaptureCounters>,
    streams: Vec<OpenStream>,
    /// The revision that set the bounds last.
    revision: u64,
    /// The rows of the batch that is being written.
    in_flight: u64,
    is_recovered: bool,
    stopped: Option<StopAfterError>,
    listed: Instant,
}

/// Until when capture is stopped, and for how long this was.
struct StopAfterError {
    until: Instant,
    backoff: Duration,
}

/// Why a batch was not written.
enum WriteError {
    Io(io::Error),
    /// It is larger than the room for the whole endpoint.
    TooLarge,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        WriteError::Io(error)
    }
}

impl EndpointStore {
    /// The store in a folder, which need not exist and is not read yet.
    pub(crate) fn new(path: PathBuf, counters: Arc<CaptureCounters>, now: Now) -> EndpointStore {
        EndpointStore {
            folder: Folder::new(path),
            counters,
            streams: Vec::new(),
            revision: 0,
            in_flight: 0,
            is_recovered: false,
            stopped: None,
            listed: now.steady,
        }
    }

    /// Recovers what a crash left in the folder, once.
    pub(crate) fn recover(&mut self, now: Now) {
        if std::mem::replace(&mut self.is_recovered, true) {
            return;
        }
        let recovered = self.folder.recover();
        self.counters.files.fetch_add(recovered.files, Relaxed);
        if let Some(error) = recovered.error {
            self.stop(&error, now);
        }
        self.publish_sizes();
    }

    /// Drops what waits to be written after a panic, which may have left it in any state, and stops capture for a while. Files that were
    /// written to keep the name of an open one until the next start.
    pub(crate) fn abandon(&mut self, now: Now) {
        let waiting = self.streams.iter().map(|stream| stream.batch.rows() as u64).sum::<u64>();
        self.counters.drop_rows(DropReason::Failed, waiting + std::mem::take(&mut self.in_flight));
        self.streams.clear();
        self.stop(&io::Error::other("the writer panicked; this is a defect of Headgate"), now);
        // The next tick counts the files.
        self.listed = now.steady.checked_sub(LIST_AGAIN).unwrap_or(now.steady);
    }

    /// Adds a row.
    pub(crate) fn write(
        &mut self,
        layout: &Arc<FileLayout>,
        retention: Retention,
        row: &CapturedRow<'_>,
        now: Now,
    ) {
        if self.is_stopped(now) {
            return self.counters.drop_rows(DropReason::Stopped, 1);
        }
        // A row that waited since an older revision must not bring its bounds back.
        if row.facts.revision >= self.revision
            && let Err(error) = self.folder.set_retention(retention)
        {
            self.counters.drop_rows(DropReason::Failed, 1);
            return self.stop(&error, now);
        }
        let place = self.stream(layout, now);
        if !self.streams[place].batch.has_room(row.bytes()) {
            self.flush(place, now);
        }
        let stream = &mut self.streams[place];
        match stream.push(row, now) {
            Ok(()) if stream.batch.rows() >= BATCH_ROWS || stream.batch.bytes() >= BATCH_BYTES => {
                self.flush(place, now);
            }
            Ok(()) => {}
            Err(RowError::TooLarge) => self.counters.drop_rows(DropReason::TooLarge, 1),
            Err(RowError::Mismatch) => self.counters.drop_rows(DropReason::Unreadable, 1),
        }
    }

    /// Applies the bounds of a new revision to what is on the disk.
    pub(crate) fn set_retention(&mut self, retention: Retention, revision: u64, now: Now) {
        self.revision = revision;
        let set = self.folder.set_retention(retention);
        self.note_error(set, now);
        if self.disk_bytes() > retention.max_bytes {
            self.close_files(now);
        }
        let expired = self.delete_expired(now);
        self.note_error(expired, now);
        self.publish_sizes();
    }

    /// The place of the stream with this layout.
    fn stream(&mut self, layout: &Arc<FileLayout>, now: Now) -> usize {
        if let Some(place) = self.streams.iter().position(|stream| stream.has_layout(layout)) {
            return place;
        }
        if self.streams.len() >= MAX_STREAMS {
            let used = |place: &usize| self.streams[*place].used;
            let oldest = (0..self.streams.len()).min_by_key(used).unwrap_or_default();
            self.flush(oldest, now);
            self.close_file(oldest, now);
            self.streams.remove(oldest);
        }
        self.streams.push(OpenStream::new(layout.clone(), now));
        self.streams.len() - 1
    }

    /// Writes the batch of a stream.
    fn flush(&mut self, place: usize, now: Now) {
        let rows = self.streams[place].batch.rows() as u64;
        if rows == 0 {
            return;
        }
        self.in_flight = rows;
        let message = self.streams[place].take_batch();
        let written = self.write_batch(place, &message, rows, now);
        self.in_flight = 0;
        match written {
            Ok(()) => {
                self.counters.rows.fetch_add(rows, Relaxed);
                self.counters.bytes.fetch_add(message.len() as u64, Relaxed);
                self.counters.succeed();
                self.stopped = None;
                if self.streams[place].file.as_ref().is_some_and(|file| self.is_large(file)) {
                    self.close_file(place, now);
                }
            }
            Err(WriteError::TooLarge) => self.counters.drop_rows(DropReason::TooLarge, rows),
            Err(WriteError::Io(error)) => {
                self.counters.drop_rows(DropReason::Failed, rows);
                self.stop(&error, now);
                // What the file has is complete; the next rows begin another one.
                self.close_file(place, now);
            }
        }
        self.publish_sizes();
    }

    fn write_batch(&mut self, place: usize, message: &[u8], rows: u64, now: Now) -> Result<(), WriteError> {
        let bytes = message.len() as u64 + OVERHEAD;
        self.make_room(bytes, now)?;
        self.folder.prepare()?;
        if writable_bytes(self.folder.path())? < bytes {
            let error =
                "too little space is left on the disk; capture leaves a reserve to the rest of the gateway";
            return Err(io::Error::new(io::ErrorKind::StorageFull, error).into());
        }
        let stream = &mut self.streams[place];
        let file = match &mut stream.file {
            Some(file) => file,
            None => stream.open_file(self.folder.path())?,
        };
        Ok(file.append(message, rows)?)
    }

    /// Deletes the oldest files until so many bytes more fit into the room of the endpoint.
    fn make_room(&mut self, bytes: u64, now: Now) -> Result<(), WriteError> {
        let Some(max_bytes) = self.folder.retention().map(|retention| retention.max_bytes) else {
            return Ok(());
        };
        if bytes > max_bytes {
            return Err(WriteError::TooLarge);
        }
        while self.disk_bytes() + bytes > max_bytes {
            if self.delete_oldest()? {
                continue;
            }
            // Only files that are written to are left.
            match self.streams.iter().position(|stream| stream.file.is_some()) {
                Some(place) => self.close_file(place, now),
                None => return Err(WriteError::TooLarge),
            }
        }
        Ok(())
    }

    /// Deletes the oldest file; false if there is none.
    pub(crate) fn delete_oldest(&mut self) -> io::Result<bool> {
        let deleted = self.folder.delete_oldest()?;
        self.counters.deleted.fetch_add(u64::from(deleted), Relaxed);
        self.publish_sizes();
        Ok(deleted)
    }

    /// Writes batches that have waited long enough, closes files that are old, deletes what is kept no longer.
    pub(crate) fn tick(&mut self, now: Now) {
        if !self.is_stopped(now) {
            self.write_what_waits(now);
        }
        if now.steady.saturating_duration_since(self.listed) >= LIST_AGAIN {
            self.listed = now.steady;
            let written = self.streams.iter().filter_map(|stream| stream.file.as_ref());
            let written: Vec<String> = written.map(OpenFile::open_name).collect();
            let listed = self.folder.list(&written);
            self.note_error(listed, now);
        }
        self.folder.bound_times(now.wall);
        let expired = self.delete_expired(now);
        self.note_error(expired, now);
        self.publish_sizes();
    }

    fn write_what_waits(&mut self, now: Now) {
        let max_age = self.max_file_age();
        for place in 0..self.streams.len() {
            if self.streams[place].has_waited(BATCH_AGE, now) {
                self.flush(place, now);
            }
            if self.streams[place].is_file_older_than(max_age, now) {
                self.flush(place, now);
                self.close_file(place, now);
            }
        }
        self.streams.retain(|stream| !stream.is_idle(max_age, now));
    }

    fn delete_expired(&mut self, now: Now) -> io::Result<()> {
        let Some(retention) = self.folder.retention() else { return Ok(()) };
        let is_expired =
            |begun: SystemTime| now.wall.duration_since(begun).is_ok_and(|age| age >= retention.keep());
        while self.folder.oldest().is_some_and(is_expired) || self.folder.bytes() > retention.max_bytes {
            self.delete_oldest()?;
        }
        Ok(())
    }

    /// Writes everything and closes all files.
    pub(crate) fn close(&mut self, now: Now) {
        for place in 0..self.streams.len() {
            self.flush(place, now);
            self.close_file(place, now);
        }
        self.streams.clear();
        self.publish_sizes();
    }

    /// Closes all files, so that they can be deleted or read.
    pub(crate) fn close_files(&mut self, now: Now) {
        for place in 0..self.streams.len() {
            self.close_file(place, now);
        }
        self.publish_sizes();
    }

    fn close_file(&mut self, place: usize, now: Now) {
        let Some(file) = self.streams[place].file.take() else { return };
        let ClosedResult { file, error } = file.close();
        if let Some(file) = file {
            self.counters.files.fetch_add(1, Relaxed);
            // One that could not be closed takes room as well, and is deleted like the others.
            self.folder.add(file);
        }
        if let Some(error) = error {
            self.stop(&error, now);
        }
    }

    /// Stops capture for a while.
    pub(crate) fn stop(&mut self, error: &io::Error, now: Now) {
        // What follows from the first error says less than it does.
        if self.is_stopped(now) {
            return;
        }
        self.counters.fail(described(&self.folder, error), now.wall);
        let backoff = self.stopped.as_ref().map_or(MIN_BACKOFF, |stop| stop.backoff * 2).min(MAX_BACKOFF);
        self.stopped = Some(StopAfterError { until: now.steady + backoff, backoff });
    }

    fn is_stopped(&self, now: Now) -> bool {
        self.stopped.as_ref().is_some_and(|stop| now.steady < stop.until)
    }

    fn note_error(&mut self, result: io::Result<()>, now: Now) {
        if let Err(error) = result {
            self.stop(&error, now);
        }
    }

    fn is_large(&self, file: &OpenFile) -> bool {
        let room = self.folder.retention().map_or(u64::MAX, |retention| retention.max_bytes);
        file.rows >= FILE_ROWS || file.bytes >= FILE_BYTES.min(room / u64::from(FILE_SHARE))
    }

    fn max_file_age(&self) -> Duration {
        let keep = self.folder.retention().map_or(MAX_FILE_AGE, |retention| retention.keep());
        (keep / FILE_SHARE).clamp(MIN_FILE_AGE, MAX_FILE_AGE)
    }

    /// The bytes of all files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let open = self.streams.iter().filter_map(|stream| stream.file.as_ref());
        self.folder.bytes() + open.map(|file| file.bytes).sum::<u64>()
    }

    /// When the first row of the oldest closed file was captured.
    pub(crate) fn oldest(&self) -> Option<SystemTime> {
        self.folder.oldest()
    }

    /// Whether there is nothing to write, to close or to delete.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether a file is written to.
    pub(crate) fn has_open_file(&self) -> bool {
        self.streams.iter().any(|stream| stream.file.is_some())
    }

    fn publish_sizes(&self) {
        let open = self.streams.iter().filter(|stream| stream.file.is_some()).count();
        self.counters.disk_bytes.store(self.disk_bytes(), Relaxed);
        self.counters.disk_files.store((self.folder.count() + open) as u64, Relaxed);
    }
}

fn described(folder: &Folder, error: &io::Error) -> String {
    format!("{}: {error}", folder.path().display())
}
