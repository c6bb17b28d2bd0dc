//! The access log: one JSON line for each sampled request, written by a thread of its own.
//!
//! A request that is not sampled costs a draw; one that is, a message into a bounded queue. When the queue is full, lines are
//! dropped and counted; no request waits.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use headgate_core::error::{Code, Error, Result};
use headgate_engine::Instant;
use headgate_engine::join_until;
use http::HeaderValue;
use serde_json::json;
use socket2::SockRef;

use crate::request_context::RequestContext;
use crate::scheduling::spawn;

/// Lines that may wait to be written.
const QUEUE_CAPACITY: usize = 8192;
/// How long a line may wait in the buffer.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// Which wire a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// A gRPC call.
    Grpc,
    /// One request of a gRPC stream.
    GrpcStream,
}

impl Protocol {
    const fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "http/2",
            Protocol::Grpc => "grpc",
            Protocol::GrpcStream => "grpc-stream",
        }
    }
}

/// What is known of a request at its end.
#[derive(Debug)]
pub struct LogEntry {
    /// When it ended.
    pub at: SystemTime,
    /// How it came.
    pub protocol: Protocol,
    /// The endpoint that it named.
    pub endpoint: Box<str>,
    /// The version that answered, if one was chosen.
    pub version: Option<Box<str>>,
    /// Whether the caller named the version.
    pub direct: bool,
    /// The number of the rule that sent it to the version.
    pub rule: Option<u16>,
    /// `None` is success.
    pub code: Option<Code>,
    /// Whether the response's bytes were with the socket.
    pub delivered: bool,
    /// Rows of a good response.
    pub rows: usize,
    /// In whose place the version answered, and why.
    pub fallback: Option<HeaderValue>,
    /// The phases that were reached and the total, by name, in nanoseconds.
    pub times_ns: Vec<(&'static str, u64)>,
    /// What came with it.
    pub context: RequestContext,
}

/// The log's front: what requests see.
pub struct AccessLog {
    sender: Sender<LogEntry>,
    /// A draw below this is sampled.
    threshold: u64,
    share: f64,
    /// Lines that found the queue full, or that could not be written.
    pub dropped: AtomicU64,
    /// Set when the gateway stops: how long what waits may still be written.
    until: OnceLock<Instant>,
    receiver: Mutex<Option<Receiver<LogEntry>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
    /// A file that was opened and that the thread has not begun to write to: the first one, or one in the place of another.
    opened: Mutex<Option<File>>,
}

impl AccessLog {
    /// A log that appends to `path` and takes this share of requests.
    ///
    /// # Errors
    /// `invalid_argument` when the file cannot be opened, or the share is not within 0 and 1.
    pub fn open(path: &Path, share: f64) -> Result<AccessLog> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::invalid(format!("access_log_share is {share}; it must be from 0 to 1")));
        }
        let file = open(path)?;
        let (sender, receiver) = bounded(QUEUE_CAPACITY);
        // Rounds up to everything at 1: the largest draw is below it too.
        let threshold = (share * u64::MAX as f64) as u64;
        Ok(AccessLog {
            sender,
            threshold,
            share,
            dropped: AtomicU64::new(0),
            until: OnceLock::new(),
            receiver: Mutex::new(Some(receiver)),
            thread: Mutex::default(),
            path: path.to_owned(),
            opened: Mutex::new(Some(file)),
        })
    }

    /// Opens the path anew, for a log that was moved away: every line that is logged after this goes to the new file.
    ///
    /// # Errors
    /// `invalid_argument` if the path cannot be opened; the file that was open is written on.
    pub fn reopen(&self) -> Result<()> {
        let file = open(&self.path)?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Starts the thread that writes.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub fn start(self: &std::sync::Arc<Self>) -> Result<()> {
        let (Some(receiver), Some(file)) = (take(&self.receiver), take(&self.opened)) else { return Ok(()) };
        let log = self.clone();
        let thread = spawn("hg-access-log".to_owned(), move || log.write(&receiver, BufWriter::new(file)))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Whether a request with this draw is logged.
    pub fn samples(&self, draw: u64) -> bool {
        draw <= self.threshold && self.share > 0.0
    }

    /// Logs a request.
    pub fn log(&self, entry: LogEntry) {
        if self.sender.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Writes what waits, until `deadline` or for a moment when that is over, and ends the thread; true when that is done by
    /// then. Lines that are left are counted as dropped.
    pub fn stop(&self, deadline: Instant) -> bool {
        let Some(thread) = take(&self.thread) else { return true };
        let deadline = deadline.max(Instant::now() + FLUSH_INTERVAL);
        // Nothing comes first that could fail: only the first to stop has the thread.
        let _ = self.until.set(deadline);
        // Wakes a thread that waits; one that finds the queue full does not.
        drop(self.sender.try_send(LogEntry::end()));
        join_until(thread, deadline).is_some()
    }

    fn write(&self, receiver: &Receiver<LogEntry>, mut file: BufWriter<File>) {
        let mut flush_at: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let stopping = self.until.get();
            if stopping.is_some_and(|until| *until <= now) {
                break;
            }
            let wait = flush_at.map_or(FLUSH_INTERVAL, |at| at.saturating_duration_since(now));
            match receiver.recv_timeout(if stopping.is_some() { Duration::ZERO } else { wait }) {
                Ok(entry) if entry.is_end() => {}
                Ok(entry) => {
                    self.switch_file(&mut file);
                    flush_at.get_or_insert_with(|| Instant::now() + FLUSH_INTERVAL);
                    self.count(writeln!(file, "{}", entry.line(self.share)));
                }
                Err(RecvTimeoutError::Timeout) if stopping.is_none() => {
                    flush_at = None;
                    self.count(file.flush());
                    self.switch_file(&mut file);
                }
                Err(_) => break,
            }
        }
        let left = receiver.try_iter().filter(|entry| !entry.is_end()).count();
        self.dropped.fetch_add(left as u64, Relaxed);
        self.count(file.flush());
    }

    /// Takes the file that was opened in the place of the present one, if there is one. What is buffered belongs to the old.
    fn switch_file(&self, file: &mut BufWriter<File>) {
        if let Some(opened) = take(&self.opened) {
            self.count(file.flush());
            *file = BufWriter::new(opened);
        }
    }

    /// A full disk costs lines, which are counted, and nothing else.
    fn count(&self, written: std::io::Result<()>) {
        if written.is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Opens a log. A pipe without a reader fails at once: waiting for one would hold the caller for ever.
fn open(path: &Path) -> Result<File> {
    // A pipe without a reader fails instead of waiting for one.
    let file = File::options().create(true).append(true).custom_flags(libc::O_NONBLOCK).open(path);
    // From here on it waits, in its own thread, if a reader is slow. Opened anew it would wait for a reader that has just left.
    // The call is the same for sockets and pipes.
    file.and_then(|file| SockRef::from(&file).set_nonblocking(false).map(|()| file)).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::ENXIO) => "it is a pipe that nobody reads, or a socket".to_owned(),
            _ => error.to_string(),
        };
        Error::invalid(format!("the access log {} cannot be opened: {why}", path.display()))
    })
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl LogEntry {
    /// The message that only wakes the thread.
    fn end() -> LogEntry {
        LogEntry {
            at: SystemTime::UNIX_EPOCH,
            protocol: Protocol::Http1,
            endpoint: "".into(),
            version: None,
            direct: false,
            rule: None,
            code: None,
            delivered: false,
            rows: 0,
            fallback: None,
            times_ns: Vec::new(),
            context: RequestContext::default(),
        }
    }

    fn is_end(&self) -> bool {
        self.at == SystemTime::UNIX_EPOCH
    }

    /// The line, without its end. Absent is what was not reached or not sent.
    fn line(&self, share: f64) -> String {
        let mut line = json!({
            "time": humantime::format_rfc3339_millis(self.at).to_string(),
            "protocol": self.protocol.as_str(),
            "endpoint": self.endpoint,
            "code": self.code.map_or("ok", Code::as_str),
            "delivered": self.delivered,
            "share": share,
        });
        let mut put = |key: &str, value: serde_json::Value| line[key] = value;
        if let Some(version) = &self.version {
            put("version", json!(version));
            put("direct", json!(self.direct));
        }
        if let Some(rule) = self.rule {
            put("rule", json!(rule));
        }
        if self.rows > 0 {
            put("rows", json!(self.rows));
        }
        if let Some(fallback) = self.fallback.as_ref().map(HeaderValue::as_bytes) {
            put("fallback", json!(String::from_utf8_lossy(fallback)));
        }
        for (name, ns) in &self.times_ns {
            put(&format!("{name}_us"), json!(*ns as f64 / 1e3));
        }
        if let Some(id) = self.context.request_id.as_ref().map(HeaderValue::as_bytes) {
            put("request_id", json!(String::from_utf8_lossy(id)));
        }
        if let Some(trace) = &self.context.trace {
            put("trace_id", json!(trace.id()));
            put("span_id", json!(trace.span()));
            put("parent_id", json!(trace.parent()));
        }
        line.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn entry(endpoint: &str) -> LogEntry {
        LogEntry {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_571_200_123),
            endpoint: endpoint.into(),
            version: Some("v1".into()),
            times_ns: vec![("run", 1500), ("total", 20_000)],
            ..LogEntry::end()
        }
    }

    #[test]
    fn every_line_is_json_and_none_is_lost_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.jsonl");
        let log = Arc::new(AccessLog::open(&path, 1.0).unwrap());
        log.start().unwrap();
        for index in 0..100 {
            log.log(entry(&format!("endpoint \"{index}\"\n")));
        }
        assert!(log.stop(Instant::now() + Duration::from_secs(10)));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), log.dropped.load(Relaxed)), (100, 0));
        assert_eq!(lines[7]["endpoint"], "endpoint \"7\"\n");
        assert_eq!(lines[7]["time"], "2026-01-05T00:00:00.123Z");
        assert_eq!((&lines[7]["run_us"], &lines[7]["total_us"]), (&json!(1.5), &json!(20.0)));
    }

    #[test]
    fn a_log_that_was_moved_away_is_opened_anew_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let log = Arc::new(AccessLog::open(&path, 1.0).unwrap());
        log.start().unwrap();
        let written = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        log.log(entry("before"));
        while written(&path).is_empty() {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &moved).unwrap();
        log.log(entry("between"));
        while written(&moved).lines().count() < 2 {
            std::thread::yield_now();
        }
        log.reopen().unwrap();
        log.log(entry("after"));
        assert!(log.stop(Instant::now() + Duration::from_secs(10)));
        assert!(written(&moved).contains("between") && !written(&moved).contains("after"));
        assert_eq!((written(&path).lines().count(), log.dropped.load(Relaxed)), (1, 0));
    }

    #[test]
    fn a_pipe_without_a_reader_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = AccessLog::open(&path, 1.0).err().unwrap();
        assert!(error.message.ends_with("it is a pipe that nobody reads, or a socket"), "{error}");
        let both = File::options().read(true).write(true).open(&path).unwrap();
        assert!(AccessLog::open(&path, 1.0).unwrap().reopen().is_ok());
        drop(both);
    }

    #[test]
    fn a_path_that_cannot_be_opened_anew_costs_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/log");
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        let log = Arc::new(AccessLog::open(&path, 1.0).unwrap());
        log.start().unwrap();
        std::fs::rename(folder.path().join("logs"), folder.path().join("old")).unwrap();
        assert!(log.reopen().unwrap_err().to_string().contains("logs/log"));
        log.log(entry("e"));
        assert!(log.stop(Instant::now() + Duration::from_secs(10)));
        assert_eq!(std::fs::read_to_string(folder.path().join("old/log")).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_thread_that_could_not_write_in_time_ends_when_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        // Both ends at once, so that neither waits for the other. Nothing is read: the pipe is full after 64 KiB.
        let both = File::options().read(true).write(true).open(&path).unwrap();
        let mut reader = File::open(&path).unwrap();
        let log = Arc::new(AccessLog::open(&path, 1.0).unwrap());
        drop(both);
        log.start().unwrap();
        while log.dropped.load(Relaxed) == 0 {
            log.log(entry("e"));
        }
        let before = log.dropped.load(Relaxed);
        assert!(!log.stop(Instant::now()));
        // To its end, that is until the thread has let go of the file.
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        assert!(log.dropped.load(Relaxed) > before, "what was left is counted");
    }

    #[test]
    fn a_stop_whose_time_is_over_still_writes_what_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Arc::new(AccessLog::open(&path, 1.0).unwrap());
        log.start().unwrap();
        (0..100).for_each(|_| log.log(entry("e")));
        log.stop(Instant::now());
        let written = || std::fs::read_to_string(&path).unwrap().lines().count() as u64;
        assert!(written() > 0);
        log.log(entry("late"));
        assert_eq!(written() + log.dropped.load(Relaxed), 101, "what is not written is counted");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        // The log was not started, so that no thread takes lines out.
        let log = AccessLog::open(&folder.path().join("log"), 1.0).unwrap();
        (0..QUEUE_CAPACITY + 3).for_each(|_| log.log(entry("e")));
        assert_eq!(log.dropped.load(Relaxed), 3);
    }

    #[test]
    fn the_share_decides() {
        let folder = tempfile::tempdir().unwrap();
        let open = |share| AccessLog::open(&folder.path().join("log"), share);
        let all = open(1.0).unwrap();
        assert!(all.samples(0) && all.samples(u64::MAX));
        let none = open(0.0).unwrap();
        assert!(!none.samples(0) && !none.samples(u64::MAX));
        let half = open(0.5).unwrap();
        assert!(half.samples(u64::MAX / 4) && !half.samples(u64::MAX / 4 * 3));
        assert!(open(1.5).is_err() && open(f64::NAN).is_err());
        assert!(AccessLog::open(&folder.path().join("no/such/folder"), 1.0).is_err());
    }
}
