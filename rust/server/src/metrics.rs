//! What is counted, and where: each IO thread has its own shard of every series, written by that thread alone.
//!
//! Handles are resolved when a snapshot is built, so a request looks up no label. A series lives as long as a snapshot or a
//! request holds it, and is then shown for five minutes more: what was counted since a scraper's last look would be lost. Rendering adds the shards up. The metrics of versions and connections are declared in [`rendering`].

pub mod close_reason;
pub mod hand_over_reason;
pub mod reason_counters;
pub mod rendering;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use headgate_core::error::Code;
use headgate_core::histogram::{Counts, Histogram};

use self::close_reason::CloseReason;
use self::hand_over_reason::HandOverReason;
use self::reason_counters::ReasonCounters;

/// Answers by code: one counter for each code and one for success.
const OUTCOMES: usize = Code::ALL.len() + 1;

/// A counter with one writer.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may call this.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed) + count, Relaxed);
    }

    /// Sets; only the owning thread may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One IO thread's share of a version's series.
#[derive(Default)]
pub struct Shard {
    outcomes: [Counter; OUTCOMES],
    /// Requests begun.
    pub started: Counter,
    /// Requests whose answer is out, or whose client is gone.
    pub finished: Counter,
    /// Time of good answers from the first byte to the last, in nanoseconds; of failures likewise.
    pub success_ns: Counter,
    /// See [`Shard::success_ns`].
    pub failure_ns: Counter,
    /// Rows of good answers.
    pub rows: Counter,
    /// When the newest run ended, on [`crate::serving::shared::Shared::now_ns`]'s clock; 0 before the first.
    pub last_run_ns: Counter,
    /// Requests that named the version themselves.
    pub direct: Counter,
    /// Requests refused because too little time was left for a run.
    pub hopeless: Counter,
    /// Requests that another version answered in this one's place.
    pub passed_on: Counter,
    /// Requests that this version answered in another one's place.
    pub fallback: Counter,
    /// Answers whose client was gone before the bytes were with the socket.
    pub undelivered: Counter,
    /// From the request's first byte to the answer's last.
    pub total: Histogram,
    /// From the body's JSON to typed values.
    pub decode: Histogram,
    /// Waiting for a pool thread.
    pub queue: Histogram,
    /// The run that the request was part of.
    pub run: Histogram,
    /// Runs, each counted once however many requests were part of it.
    pub runs: Counter,
    /// From the run's end until the bytes are with the socket.
    pub reply: Histogram,
    /// Rows that a tap saw.
    pub rows_seen: Counter,
    /// Rows that a tap sketched.
    pub rows_sampled: Counter,
    /// Rows that a tap could not take (no memory left under the cap).
    pub rows_dropped: Counter,
}

impl Shard {
    /// Counts an answer: `None` is success.
    pub fn count_outcome(&self, code: Option<Code>) {
        self.outcomes[code.map_or(0, |code| 1 + code as usize)].add(1);
    }
}

/// All threads' shards of one version's series; a shard is made when its thread first counts.
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

    /// Runs of the model, whole batches counted once.
    pub fn runs(&self) -> u64 {
        self.sum(|shard| shard.runs.get())
    }

    /// Requests begun and not finished.
    pub fn in_flight(&self) -> u64 {
        let finished = self.sum(|shard| shard.finished.get());
        self.sum(|shard| shard.started.get()).saturating_sub(finished)
    }

    /// How requests ended.
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

    /// Answers so far, of every code.
    pub fn requests(&self) -> u64 {
        self.sum(|shard| shard.outcomes.iter().map(Counter::get).sum())
    }
}

/// How the requests of a version ended.
#[derive(Clone, Copy, Debug)]
pub struct RequestTotals {
    /// Good answers.
    pub succeeded: u64,
    /// All others.
    pub failed: u64,
    /// Time of good answers, in nanoseconds.
    pub success_ns: u64,
    /// Time of all others, in nanoseconds.
    pub failure_ns: u64,
    /// Rows of good answers.
    pub rows: u64,
    /// When the newest run ended, on [`crate::serving::shared::Shared::now_ns`]'s clock.
    pub last_ns: Option<u64>,
}

/// One IO thread's counters that belong to no version.
#[derive(Default)]
pub struct IoShard {
    /// Connections taken over.
    pub accepted: Counter,
    /// Connections gone.
    pub closed: Counter,
    refusals: [Counter; OUTCOMES],
}

impl IoShard {
    /// Counts a refusal that came before a version was known.
    pub fn count_refusal(&self, code: Code) {
        self.refusals[1 + code as usize].add(1);
    }
}

/// Versions that were taken away and whose series are still shown, at most.
const MAX_DEPARTED: usize = 1024;
/// How long such series are shown after the first scrape that shows them: whoever scrapes at least as often misses nothing, however
/// many others do.
const DEPARTED_SHOWN_FOR: Duration = Duration::from_secs(300);

/// The series of a version.
struct VersionSeries {
    metrics: Arc<VersionMetrics>,
    /// When they were shown first since nobody else holds them.
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
    /// Connections closed at once because there were too many.
    pub connections_refused: AtomicU64,
    /// Connections closed after they had been taken.
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

    /// The series of a version: the present ones if there are any, else new ones.
    pub fn version(&self, endpoint: &str, version: &str) -> Arc<VersionMetrics> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.to_owned(), version.to_owned());
        if let Some(series) = versions.get_mut(&key) {
            series.shown_since = None;
            return series.metrics.clone();
        }
        if versions.values().filter(|series| series.is_departed()).count() >= MAX_DEPARTED {
            // Those that somebody has seen go first.
            versions.retain(|_, series| !series.is_departed() || series.shown_since.is_none());
            if versions.values().filter(|series| series.is_departed()).count() >= MAX_DEPARTED {
                versions.retain(|_, series| !series.is_departed());
            }
        }
        let metrics = Arc::new(VersionMetrics::new(endpoint, version, self.threads.len()));
        versions.insert(key, VersionSeries { metrics: metrics.clone(), shown_since: None });
        metrics
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.threads.iter().map(|thread| thread.accepted.get().saturating_sub(thread.closed.get())).sum()
    }

    /// What is to be shown now: the series of versions that somebody holds, and those that were taken away not long ago.
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
