//! What a run tells: the counters of its threads, and what the summary makes of its records.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value, json};

use crate::client_limits::{ClientUse, MachineTimes, ThreadTimes};
use crate::errors::ErrorTable;
use crate::export::hdr_v2;
use crate::histogram::{Counts, Histogram};
use crate::records::{LONGEST_NS, Outcome, Records, SLOWER_THAN_ANY};
use crate::summary::{Measured, Question, slices, summarise};
use crate::switches::LEAD_NS;
use crate::thread_state::{PhaseHistograms, ThreadState};

/// How much an answer has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    Summary,
    Whole,
}

/// A run at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) records: &'a Records,
    pub(crate) elapsed_ns: u64,
    pub(crate) finished: bool,
    pub(crate) before: MachineTimes,
    pub(crate) after: MachineTimes,
}

/// All that an answer is made from.
pub(crate) struct Report<'a> {
    pub(crate) seen: Seen<'a>,
    pub(crate) states: &'a [Arc<ThreadState>],
    pub(crate) groups: &'a [String],
    pub(crate) timeout_ns: u64,
    /// The length of a schedule.
    pub(crate) length_ns: Option<u64>,
    pub(crate) stopped: bool,
}

impl Report<'_> {
    pub(crate) fn to_json(&self, question: &Question, detail: Detail) -> Value {
        let Seen { records, elapsed_ns, finished, .. } = self.seen;
        let measured = Measured { records, groups: self.groups, timeout_ns: self.timeout_ns };
        // A closed loop has no due times that a request could miss.
        let late = self.states.iter().filter(|_| self.length_ns.is_some()).map(|state| &state.lateness);
        let lateness = Counts::of(late);
        let due = self.due();
        // No request is due after the end of the schedule: waiting for the last answers is no part of the rate.
        let sending_ns =
            self.length_ns.filter(|_| !self.stopped).map_or(elapsed_ns, |length| length.min(elapsed_ns));
        let per_second = |count: u64| (sending_ns > 0).then(|| count as f64 * 1e9 / sending_ns as f64);
        let mut answer = object(json!({
            "elapsed_ns": elapsed_ns,
            "finished": finished,
            "interrupted": self.interrupted(),
            "counts": self.counts(due),
            "offered_per_second": per_second(due),
            "good_per_second": per_second(self.of(Outcome::Good)),
            "lateness": {
                "p50_ns": lateness.quantile_ns(0.5),
                "p99_ns": lateness.quantile_ns(0.99),
                "max_ns": lateness.max_ns(),
            },
            "phases": self.phases(),
            "client": self.client(due, &lateness, question),
            "errors": self.errors(),
            "replies": self.replies(),
        }));
        answer.extend(object(summarise(measured, question)));
        if detail == Detail::Whole {
            answer.insert("slices".into(), slices(measured));
            answer.insert("hdr_v2".into(), hdr_v2(records, &lateness));
        }
        answer.into()
    }

    fn due(&self) -> u64 {
        self.states.iter().map(|state| state.sent.load(Relaxed) + state.of(Outcome::Unsent)).sum()
    }

    fn of(&self, outcome: Outcome) -> u64 {
        self.states.iter().map(|state| state.of(outcome)).sum()
    }

    fn counts(&self, due: u64) -> Value {
        let [good, shed, failed, timed_out, unsent] =
            [Outcome::Good, Outcome::Shed, Outcome::Failed, Outcome::TimedOut, Outcome::Unsent]
                .map(|outcome| self.of(outcome));
        json!({
            "due": due,
            "sent": due.saturating_sub(unsent),
            "good": good,
            "shed": shed,
            "failed": failed,
            "timed_out": timed_out,
            "unsent": unsent,
            "in_flight": due.saturating_sub(good + shed + failed + timed_out + unsent),
        })
    }

    fn interrupted(&self) -> Option<String> {
        let of_thread = |state: &Arc<ThreadState>| {
            state.interrupted.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.states.iter().find_map(of_thread).or_else(|| self.stopped.then(|| "stopped".to_owned()))
    }

    fn phases(&self) -> Value {
        let of = |select: fn(&PhaseHistograms) -> &Histogram| {
            Counts::of(self.states.iter().map(|state| select(&state.phases)))
        };
        let told = |counts: &Counts| {
            json!({
                "mean_ns": counts.mean_ns(),
                "p50_ns": counts.quantile_ns(0.5),
                "p99_ns": counts.quantile_ns(0.99),
            })
        };
        let total = of(|phases| &phases.total);
        json!({
            "sampled": total.total(),
            "decode": told(&of(|phases| &phases.decode)),
            "queue": told(&of(|phases| &phases.queue)),
            "run": told(&of(|phases| &phases.run)),
            "reply": told(&of(|phases| &phases.reply)),
            "total": told(&total),
            "outside": told(&of(|phases| &phases.outside)),
        })
    }

    fn client(&self, due: u64, lateness: &Counts, question: &Question) -> Value {
        let Seen { elapsed_ns, before, after, records, .. } = self.seen;
        let times: Vec<ThreadTimes> = self.states.iter().map(|state| current_times(state)).collect();
        // Threads are there before the first request is due.
        let lived_ns = elapsed_ns + LEAD_NS;
        let share = |ns: u64, threads: u64| Some((ns as f64 / (lived_ns * threads) as f64).min(1.0));
        let cpu_ns = times.iter().map(|times| times.cpu_ns).sum();
        let delay_ns = times.iter().map(|times| times.delay_ns).max().unwrap_or(0);
        let answered = records.response.iter().copied().filter(|&code| code != SLOWER_THAN_ANY);
        let used = ClientUse {
            cpu_share: share(cpu_ns, times.len() as u64),
            run_delay_share: share(delay_ns, 1),
            steal_share: before.steal_share(&after),
            throttled_share: before.throttled_share(&after, elapsed_ns),
            lateness_p99_ns: lateness.quantile_ns(0.99),
            response_p99_ns: Counts::of_codes(answered).quantile_of(0.99, records.len() as u64),
            // The longest time that a duration may have stands for an objective of errors.
            objective_ns: question
                .objectives
                .iter()
                .map(|objective| objective.limit_ns)
                .filter(|&limit| limit < LONGEST_NS)
                .min(),
            due,
            sent: due.saturating_sub(self.of(Outcome::Unsent)),
        };
        let reasons = used.reasons();
        json!({
            "cpu_share": used.cpu_share,
            "run_delay_share": used.run_delay_share,
            "steal_share": used.steal_share,
            "throttled_share": used.throttled_share,
            "limited": !reasons.is_empty(),
            "reasons": reasons,
        })
    }

    fn errors(&self) -> Value {
        let mut all = ErrorTable::default();
        for state in self.states {
            all.merge(&state.errors.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let row = |row: crate::errors::ErrorRow| json!({"what": row.what, "count": row.count, "example": row.example});
        all.into_rows().into_iter().map(row).collect()
    }

    fn replies(&self) -> Value {
        let sum = |select: fn(&ThreadState) -> &std::sync::atomic::AtomicU64| {
            self.states.iter().map(|state| select(state).load(Relaxed)).sum::<u64>()
        };
        let example = self
            .states
            .iter()
            .find_map(|state| state.differing_example.lock().unwrap_or_else(PoisonError::into_inner).clone());
        json!({
            "compared": sum(|state| &state.compared),
            "differing": sum(|state| &state.differing),
            "example": example,
        })
    }
}

/// The times of a thread now, or at its end.
fn current_times(state: &ThreadState) -> ThreadTimes {
    let noted = *state.times.lock().unwrap_or_else(PoisonError::into_inner);
    if state.ended.load(Relaxed) { noted } else { ThreadTimes::read(noted.id).unwrap_or(noted) }
}

/// The fields of a value that is an object.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
