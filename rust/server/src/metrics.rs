//! The series of all metrics. Each IO thread has a shard of its own of every series, which only that thread writes.
//!
//! Handles are resolved when a snapshot is built, so a request looks up no label. A series lives as long as a snapshot or a request holds
//! it. Then it is shown for five minutes more, so that a scraper sees the last counts. Rendering adds up the shards. The metrics of
//! versions and connections are declared in [`rendering`].

pub mod close_reason;
pub mod hand_over_reason;
pub mod reason_counters;
pub mod rendering;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use headgate_core::error::Code;
use headgate_core::fine_histogram::{FineCounts, FineHistogram};
use headgate_core::histogram::{Counts, Histogram};
use headgate_engine::Instant;

use self::close_reason::CloseReason;
use self::hand_over_reason::HandOverReason;
use self::reason_counters::ReasonCounters;

/// The counters of outcomes: one for each code, and one for success.
const OUTCOMES: usize = Code::ALL.len() + 1;

/// A counter with one writer.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the thread that owns the counter may call this.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed) + count, Relaxed);
    }

    /// Sets the value. Only the thread that owns the counter may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The part of the series of a version that one IO thread writes.
#[derive(Default)]
pub struct Shard {
    outcomes: [Counter; OUTCOMES],
    /// Requests begun.
    pub started: Counter,
    /// Requests whose response is out, or whose client has left.
    pub finished: Counter,
    /// Time of successful requests from the first byte to the last, in nanoseconds.
    pub success_ns: Counter,
    /// Time of failed requests, likewise.
    pub failure_ns: Counter,
    /// Rows of successful responses.
    pub rows: Counter,
    /// When the newest run ended, on [`crate::serving::shared::Shared::now_ns`]'s clock; 0 before the first.
    pub last_run_ns: Counter,
    /// Requests that named the version.
    pub direct: Counter,
    /// Requests that a rule sent to the version.
    pub by_rule: Counter,
    /// Requests that were refused because too little time was left for a run.
    pub hopeless: Counter,
    /// Requests that another version answered in this one's place.
    pub passed_on: Counter,
    /// Requests that this version answered in another one's place.
    pub fallback: Counter,
    /// Responses whose client left before the bytes were with the socket.
    pub undelivered: Counter,
    /// From the first byte of the request to the last of the response.
    pub total: FineHistogram,
    /// From the bytes of the body to typed values.
    pub decode: Histogram,
    /// The wait for a pool thread.
    pub queue: Histogram,
    /// The run that the request was part of.
    pub run: Histogram,
    /// Runs. A batch is one run.
    pub runs: Counter,
    /// From the end of the run until the bytes are with the socket.
    pub reply: Histogram,
    /// Rows that sketching saw.
    pub rows_seen: Counter,
    /// Rows that were sketched.
    pub rows_sampled: Counter,
    /// Rows that were not sketched, because the memory limit was reached.
    pub rows_dropped: Counter,
}

impl Shard {
    /// Counts the outcome of a request; `None` is success.
    pub fn count_outcome(&self, code: Option<Code>) {
        self.outcomes[code.map_or(0, |code| 1 + code as usize)].add(1);
    }
}

/// The series of a version: one shard for each thread, which is created when the thread first counts.
pub struct VersionMetrics {
    /// The endpoint's name.
    pub endpoint: Box<str>,
    /// The version's name.
    pub version: Box<str>,
    shards: Box<[OnceLock<Box<Shard>>]>,
}

impl VersionMetrics {
    fn new(endpoint: &str, version: &str, threads: usize) -> Self {
        Self {
            endpoint: endpoint.into(),
            version: version.into(),
            shards: (0..threads).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The shard of an IO thread.
    pub fn shard(&self, thread: usize) -> &Shard {
        self.shards[thread].get_or_init(Box::default)
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter_map(|shard| shard.get().map(|shard| &**shard))
    }

    fn sum(&self, read: impl Fn(&Shard) -> u64) -> u64 {
        self.shards().map(read).sum()
    }

    /// One histogram over all threads.
    pub fn counts(&self, read: impl Fn(&Shard) -> &Histogram) -> Counts {
        let mut counts = Counts::default();
        self.shards().for_each(|shard| read(shard).add_to(&mut counts));
        counts
    }

    /// The time of requests from the first byte to the last, over all threads.
    pub fn total_counts(&self) -> FineCounts {
        let mut counts = FineCounts::default();
        self.shards().for_each(|shard| shard.total.add_to(&mut counts));
        counts
    }

    /// Runs of the model. A batch is one run.
    pub fn runs(&self) -> u64 {
        self.sum(|shard| shard.runs.get())
    }

    /// Requests that have begun and not finished.
    pub fn in_flight(&self) -> u64 {
        let finished = self.sum(|shard| shard.finished.get());
        self.sum(|shard| shard.started.get()).saturating_sub(finished)
    }

    /// The totals of the requests.
    pub fn request_totals(&self) -> RequestTotals {
        let succeeded = self.sum(|shard| shard.outcomes[0].get());
        RequestTotals {
            succeeded,
            failed: self.requests() - succeeded,
            success_ns: self.sum(|shard| shard.success_ns.get()),
            failure_ns: self.sum(|shard| shard.failure_ns.get()),
            rows: self.sum(|shard| shard.rows.get()),
            last_ns: self.shards().map(|shard| shard.last_run_ns.get()).max().filter(|&ns| ns > 0),
        }
    }

    /// Requests that have an outcome.
    pub fn requests(&self) -> u64 {
        self.sum(|shard| shard.outcomes.iter().map(Counter::get).sum())
    }
}

/// The totals of the requests of a version.
#[derive(Clone, Copy, Debug)]
pub struct RequestTotals {
    /// Successful requests.
    pub succeeded: u64,
    /// Failed requests.
    pub failed: u64,
    /// Time of successful requests, in nanoseconds.
    pub success_ns: u64,
    /// Time of failed requests, in nanoseconds.
    pub failure_ns: u64,
    /// Rows of successful responses.
    pub rows: u64,
    /// When the newest run ended, on [`crate::serving::shared::Shared::now_ns`]'s clock.
    pub last_ns: Option<u64>,
}

/// The counters of an IO thread that belong to no version.
#[derive(Default)]
pub struct IoShard {
    /// Connections taken over.
    pub accepted: Counter,
    /// Connections that have ended.
    pub closed: Counter,
    refusals: [Counter; OUTCOMES],
}

impl IoShard {
    /// Counts a refusal before a version was chosen.
    pub fn count_refusal(&self, code: Code) {
        self.refusals[1 + code as usize].add(1);
    }
}

/// The most departed series that are shown: those of versions that are not served any more.
const MAX_DEPARTED: usize = 1024;
/// How long a departed series is shown after the first scrape that shows it. A scraper with a shorter period misses nothing, whatever other
/// scrapers do.
const DEPARTED_SHOWN_FOR: Duration = Duration::from_secs(300);

/// The series of a version.
struct VersionSeries {
    metrics: Arc<VersionMetrics>,
    /// When a scrape first showed the series since it departed.
    shown_since: Option<Instant>,
}

impl VersionSeries {
    fn is_departed(&self) -> bool {
        Arc::strong_count(&self.metrics) == 1
    }
}

/// The series of the whole data plane.
pub struct Metrics {
    threads: Box<[IoShard]>,
    versions: Mutex<HashMap<(String, String), VersionSeries>>,
    /// Connections closed at once, because there were too many.
    pub connections_refused: AtomicU64,
    /// Connections that the gateway closed after it had accepted them.
    pub connections_closed: ReasonCounters<CloseReason>,
    /// Connections that were handed to hyper.
    pub handed_over: ReasonCounters<HandOverReason>,
}

impl Metrics {
    /// Series for a number of IO threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads).map(|_| IoShard::default()).collect(),
            versions: Mutex::default(),
            connections_refused: AtomicU64::new(0),
            connections_closed: ReasonCounters::default(),
            handed_over: ReasonCounters::default(),
        }
    }

    /// The counters of an IO thread.
    pub fn thread(&self, thread: usize) -> &IoShard {
        &self.threads[thread]
    }

    /// The series of a version, which are created if there are none.
    pub fn version(&self, endpoint: &str, version: &str) -> Arc<VersionMetrics> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.to_owned(), version.to_owned());
        if let Some(series) = versions.get_mut(&key) {
            series.shown_since = None;
            return series.metrics.clone();
        }
        if versions.values().filter(|series| series.is_departed()).count() >= MAX_DEPARTED {
            // Series that a scrape has shown go first.
            versions.retain(|_, series| !series.is_departed() || series.shown_since.is_none());
            if versions.values().filter(|series| series.is_departed()).count() >= MAX_DEPARTED {
                versions.retain(|_, series| !series.is_departed());
            }
        }
        let metrics = Arc::new(VersionMetrics::new(endpoint, version, self.threads.len()));
        versions.insert(key, VersionSeries { metrics: metrics.clone(), shown_since: None });
        metrics
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        self.threads.iter().map(|thread| thread.accepted.get().saturating_sub(thread.closed.get())).sum()
    }

    /// The series that a scrape shows at `now`: those in use, and those that departed not long ago.
    fn visible(&self, now: Instant) -> Vec<Arc<VersionMetrics>> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|_, series| {
            if !series.is_departed() {
                series.shown_since = None;
                return true;
            }
            now.saturating_duration_since(*series.shown_since.get_or_insert(now)) < DEPARTED_SHOWN_FOR
        });
        let mut live: Vec<_> = versions.values().map(|series| series.metrics.clone()).collect();
        live.sort_by(|a, b| (&a.endpoint, &a.version).cmp(&(&b.endpoint, &b.version)));
        live
    }
}

#[cfg(test)]
mod tests;
