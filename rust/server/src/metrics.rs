//! What is counted, and where: each IO thread has its own shard of every series, written by that thread alone.
//!
//! Handles are resolved when a snapshot is built, so a request looks up no label. A series lives as long as a snapshot or a
//! request holds it, and is then shown for five minutes more: what was counted since a scraper's last look would be lost. Rendering adds the shards up. Every metric of the data plane is declared in [`families`].

pub mod by_reason;
pub mod closed;
pub mod handed_over;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use headgate_core::error::Code;
use headgate_engine::histogram::{BUCKETS, Counts, Histogram, upper_ns};
use serde_json::{Map, Value, json};

use self::by_reason::ByReason;
use self::closed::Reason;
use self::handed_over::HandOver;

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
    pub fn outcome(&self, code: Option<Code>) {
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
    pub fn outcome(&self) -> Outcome {
        let succeeded = self.sum(|shard| shard.outcomes[0].get());
        Outcome {
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
pub struct Outcome {
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
    pub fn refused(&self, code: Code) {
        self.refusals[1 + code as usize].add(1);
    }
}

/// Versions that were taken away and whose series are still shown, at most.
const DEPARTED: usize = 1024;
/// How long such series are shown after the first scrape that shows them: whoever scrapes at least as often misses nothing, however
/// many others do.
const FAREWELL: Duration = Duration::from_secs(300);

/// The series of a version.
struct Held {
    metrics: Arc<VersionMetrics>,
    /// When they were shown first since nobody else holds them.
    farewell: Option<Instant>,
}

impl Held {
    fn is_departed(&self) -> bool {
        Arc::strong_count(&self.metrics) == 1
    }
}

/// The series of the whole data plane.
pub struct Metrics {
    threads: Box<[IoShard]>,
    versions: Mutex<HashMap<(String, String), Held>>,
    /// Connections closed at once because there were too many.
    pub connections_refused: AtomicU64,
    /// Connections closed after they had been taken.
    pub connections_closed: ByReason<Reason>,
    /// Connections that were handed to hyper.
    pub handed_over: ByReason<HandOver>,
}

impl Metrics {
    /// Series for a number of IO threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads).map(|_| IoShard::default()).collect(),
            versions: Mutex::default(),
            connections_refused: AtomicU64::new(0),
            connections_closed: ByReason::default(),
            handed_over: ByReason::default(),
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
        if let Some(held) = versions.get_mut(&key) {
            held.farewell = None;
            return held.metrics.clone();
        }
        if versions.values().filter(|held| held.is_departed()).count() >= DEPARTED {
            // Those that somebody has seen go first.
            versions.retain(|_, held| !held.is_departed() || held.farewell.is_none());
            if versions.values().filter(|held| held.is_departed()).count() >= DEPARTED {
                versions.retain(|_, held| !held.is_departed());
            }
        }
        let metrics = Arc::new(VersionMetrics::new(endpoint, version, self.threads.len()));
        versions.insert(key, Held { metrics: metrics.clone(), farewell: None });
        metrics
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.threads.iter().map(|thread| thread.accepted.get().saturating_sub(thread.closed.get())).sum()
    }

    /// What is to be shown now: the series of versions that somebody holds, and those that were taken away not long ago.
    fn shown(&self, now: Instant) -> Vec<Arc<VersionMetrics>> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|_, held| {
            if !held.is_departed() {
                held.farewell = None;
                return true;
            }
            now.saturating_duration_since(*held.farewell.get_or_insert(now)) < FAREWELL
        });
        let mut live: Vec<_> = versions.values().map(|held| held.metrics.clone()).collect();
        live.sort_by(|a, b| (&a.endpoint, &a.version).cmp(&(&b.endpoint, &b.version)));
        live
    }
}

/// Numbers that other parts know.
pub struct Gauges {
    /// The snapshot's generation.
    pub generation: u64,
    /// Jobs waiting for a pool thread.
    pub waiting: usize,
    /// Bytes held by sketches.
    pub sketch_bytes: usize,
    /// Lines that the access log had no room for.
    pub log_dropped: u64,
}

/// What was counted of each version that is served, for figures of the last minutes:
///
/// ```json
/// {"upper_ns": [256, ..., null], "versions": [
///     {"endpoint": "e", "version": "v", "codes": {"ok": 3}, "durations": [[12, 3]], "seen": 3, "sketched": 3}]}
/// ```
/// `durations` are the buckets that have any, by their place in `upper_ns`.
pub fn totals(metrics: &Metrics, now: Instant) -> Value {
    let versions = metrics.shown(now).into_iter().map(|version| {
        let codes: Map<String, Value> = (0..OUTCOMES)
            .map(|index| (outcome_name(index), version.sum(|shard| shard.outcomes[index].get())))
            .filter(|&(_, count)| count > 0)
            .map(|(name, count)| (name.to_owned(), json!(count)))
            .collect();
        let durations = version.counts(|shard| &shard.total).counts;
        let durations: Vec<_> = durations.iter().enumerate().filter(|&(_, &count)| count > 0).collect();
        json!({
            "endpoint": version.endpoint,
            "version": version.version,
            "codes": codes,
            "durations": durations,
            "seen": version.sum(|shard| shard.rows_seen.get()),
            "sketched": version.sum(|shard| shard.rows_sampled.get()),
        })
    });
    json!({
        "upper_ns": (0..BUCKETS).map(upper_ns).collect::<Vec<_>>(),
        "versions": versions.collect::<Vec<_>>(),
    })
}

/// Every family with its samples, as the control plane takes them.
pub fn families(metrics: &Metrics, gauges: &Gauges, now: Instant) -> Vec<Value> {
    let live = metrics.shown(now);
    let mut families = vec![requests(&live), refusals(metrics)];
    families.extend(counters(&live));
    families.extend(durations(&live));
    families.extend(whole(metrics, gauges));
    families
}

fn counter(live: &[Arc<VersionMetrics>], name: &str, help: &str, read: fn(&Shard) -> u64) -> Value {
    family(name, help, "counter", live.iter().map(|version| json!([labels(version), version.sum(read)])))
}

/// One family; samples are pairs of labels and a value.
pub fn family(name: &str, help: &str, kind: &str, samples: impl Iterator<Item = Value>) -> Value {
    json!({"name": name, "help": help, "type": kind, "samples": samples.collect::<Vec<_>>()})
}

/// What is counted for each version.
#[rustfmt::skip]
fn counters(live: &[Arc<VersionMetrics>]) -> Vec<Value> {
    let counter = |name, help, read| counter(live, name, help, read);
    let seconds = live.iter().map(|v| json!([labels(v), v.sum(|s| s.success_ns.get()) as f64 / 1e9]));
    let in_flight = live.iter().map(|v| json!([labels(v), v.in_flight()]));
    vec![
        counter("headgate_rows_total", "Rows of good answers.", |s| s.rows.get()),
        family("headgate_request_success_seconds_total", "Time of good answers, from the request's first byte to the answer's last.", "counter", seconds),
        counter("headgate_requests_direct_total", "Requests that named the version themselves; outside gates and drift.", |s| s.direct.get()),
        counter("headgate_requests_hopeless_total", "Requests refused before any work: less time was left than a run takes.", |s| s.hopeless.get()),
        counter("headgate_requests_passed_on_total", "Requests that another version answered (traffic.fallback), on the version that did not.", |s| s.passed_on.get()),
        counter("headgate_requests_fallback_total", "Requests that this version answered in place of another; outside gates and drift.", |s| s.fallback.get()),
        counter("headgate_requests_undelivered_total", "Answers whose client left before the bytes were with the socket.", |s| s.undelivered.get()),
        family("headgate_requests_in_flight", "Requests begun and not finished.", "gauge", in_flight),
        counter("headgate_runs_total", "Runs of the model; a batch is one.", |s| s.runs.get()),
        counter("headgate_tap_rows_seen_total", "Rows that passed the taps.", |s| s.rows_seen.get()),
        counter("headgate_tap_rows_sampled_total", "Rows that were sketched.", |s| s.rows_sampled.get()),
        counter("headgate_tap_rows_dropped_total", "Rows that no sketch could take: the memory cap was reached.", |s| s.rows_dropped.get()),
    ]
}

/// How long the phases took, for each version.
#[rustfmt::skip]
fn durations(live: &[Arc<VersionMetrics>]) -> [Value; 5] {
    let histogram = |name: &str, help: &str, read: fn(&Shard) -> &Histogram| {
        family(name, help, "histogram", live.iter().map(|v| json!([labels(v), seconds(&v.counts(read))])))
    };
    [
        histogram("headgate_request_duration_seconds", "From the request's first byte to the answer's last.", |s| &s.total),
        histogram("headgate_decode_duration_seconds", "From the body's bytes to typed values.", |s| &s.decode),
        histogram("headgate_queue_duration_seconds", "Waiting for a pool thread; inline runs do not wait.", |s| &s.queue),
        histogram("headgate_run_duration_seconds", "The model's run, for each request that was part of it.", |s| &s.run),
        histogram("headgate_reply_duration_seconds", "From the run's end until the bytes are with the socket.", |s| &s.reply),
    ]
}

/// What belongs to no version.
#[rustfmt::skip]
fn whole(metrics: &Metrics, gauges: &Gauges) -> Vec<Value> {
    let accepted = metrics.threads.iter().map(|thread| thread.accepted.get()).sum();
    let refused = metrics.connections_refused.load(Relaxed);
    vec![
        single("headgate_connections", "Connections open.", "gauge", metrics.connections()),
        single("headgate_connections_accepted_total", "Connections taken over by an IO thread.", "counter", accepted),
        single("headgate_connections_refused_total", "Connections closed at once because there were too many and none could be spared.", "counter", refused),
        single("headgate_connections_crowded_total", "Connections that waited for their client and were closed to make room for new ones.", "counter", metrics.connections_closed.get(Reason::Crowded)),
        single("headgate_connections_unread_total", "Connections closed because their answers were not read for as long as one may be idle.", "counter", metrics.connections_closed.get(Reason::Unread)),
        family("headgate_connections_closed_total", "Connections that the data ports closed before their clients did: idle, head_timeout, body_timeout, body_too_large, unread (an answer that nobody takes), or crowded (to make room for a new one).", "counter", metrics.connections_closed.samples()),
        family("headgate_connections_handed_over_total", "Connections of HTTP/1.1 that the fast reader gave to hyper for good, which costs more for each request: head (no whole head, or a long one), request (chunks, escapes, a long body), body (it came behind its head).", "counter", metrics.handed_over.samples()),
        single("headgate_pool_waiting", "Runs waiting for a pool thread.", "gauge", gauges.waiting as u64),
        single("headgate_sketch_bytes", "Memory held by sketches: counters of the threads, windows, plans and baselines (--sketch-memory).", "gauge", gauges.sketch_bytes as u64),
        single("headgate_access_log_dropped_total", "Lines that the access log had no room for, or could not write.", "counter", gauges.log_dropped),
        single("headgate_snapshot_generation", "The number of the live snapshot.", "gauge", gauges.generation),
    ]
}

fn labels(version: &VersionMetrics) -> Value {
    json!({"endpoint": version.endpoint, "version": version.version})
}

fn single(name: &str, help: &str, kind: &str, value: u64) -> Value {
    json!({"name": name, "help": help, "type": kind, "samples": [[{}, value]]})
}

fn requests(live: &[Arc<VersionMetrics>]) -> Value {
    let mut samples = Vec::new();
    for version in live {
        for index in 0..OUTCOMES {
            let count = version.sum(|shard| shard.outcomes[index].get());
            if count > 0 || index == 0 {
                let mut labels = labels(version);
                labels["code"] = json!(outcome_name(index));
                samples.push(json!([labels, count]));
            }
        }
    }
    json!({"name": "headgate_requests_total", "help": "Inference requests by the version that answered and the code.",
        "type": "counter", "samples": samples})
}

fn refusals(metrics: &Metrics) -> Value {
    let samples = (1..OUTCOMES)
        .map(|index| (index, metrics.threads.iter().map(|thread| thread.refusals[index].get()).sum::<u64>()))
        .filter(|(_, count)| *count > 0)
        .map(|(index, count)| json!([{"code": outcome_name(index)}, count]))
        .collect::<Vec<_>>();
    json!({"name": "headgate_requests_refused_total", "help": "Requests refused before a version was known, by code.",
        "type": "counter", "samples": samples})
}

fn outcome_name(index: usize) -> &'static str {
    if index == 0 { "ok" } else { Code::ALL[index - 1].as_str() }
}

/// A histogram as Prometheus has it: cumulative, bounds in seconds, one bucket for each power of two.
fn seconds(counts: &Counts) -> Value {
    let mut cumulative = 0;
    let mut buckets = Vec::new();
    for (index, count) in counts.counts.iter().enumerate() {
        cumulative += count;
        if let Some(bound) = upper_ns(index).filter(|bound| bound.is_power_of_two()) {
            buckets.push(json!([bound as f64 / 1e9, cumulative]));
        }
    }
    json!({"buckets": buckets, "sum": counts.sum_ns as f64 / 1e9, "count": cumulative})
}

#[cfg(test)]
mod tests;
