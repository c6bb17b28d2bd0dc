//! The answer for the part of a run after its warm-up.

use headgate_core::stats::codes::{BATCHES, BatchCounts};
use headgate_core::stats::quantile::{self, needed_growth};
use headgate_core::stats::steadiness::{UNSTEADY_Z, little_gap, mann_kendall, overload};
use headgate_core::stats::verdict::{Objective, judge};
use serde_json::{Value, json};

use super::distribution::Distribution;
use super::in_flight::{InFlight, Parts, in_flight};
use super::measured::Measured;
use super::question::{LatencyObjective, Question};
use super::warm_up::{WarmUp, warm_up};
use crate::records::{Outcome, SLOWER_THAN_ANY, code_of, highest_ns, lowest_ns};

/// The greatest gap of Little's law in a steady window.
const MAX_LITTLE_GAP: f64 = 0.01;

/// The requests that count.
struct Window<'a> {
    measured: Measured<'a>,
    /// The first of them.
    first: usize,
    from_ns: u64,
    /// Between the start of the window and the last due time.
    length_ns: u64,
    responses: BatchCounts,
}

/// The statistics of a run: `warmup`, `response`, `service`, `objectives`, `steadiness`, `need_ns`, `groups`.
///
/// Durations are in nanoseconds; what is unknown is null. A quantile among requests without a good answer has `censored` set
/// and the timeout as its value, which it reaches at least. `warmup.requests` came before the window. `need_ns` is how much
/// longer the run must be for the wanted precision of the objectives' quantiles (without objectives: of the p99): 0 if it is
/// reached, null if that is not known.
#[must_use]
pub fn summarise(measured: Measured<'_>, question: &Question) -> Value {
    let WarmUp { from_ns, settled } = match question.from_ns {
        Some(from_ns) => WarmUp { from_ns, settled: true },
        None => warm_up(&measured),
    };
    let window = Window::new(measured, from_ns);
    json!({
        "warmup": {"from_ns": from_ns, "settled": settled, "requests": window.first},
        "response": window.response(question),
        "service": window.service(question),
        "objectives": question.objectives.iter().map(|objective| window.objective(*objective)).collect::<Value>(),
        "steadiness": window.steadiness(),
        "need_ns": window.need_ns(question),
        "groups": window.groups(question),
    })
}

impl<'a> Window<'a> {
    fn new(measured: Measured<'a>, from_ns: u64) -> Window<'a> {
        let records = measured.records;
        let first = records.due_us.partition_point(|&due_us| u64::from(due_us) * 1_000 < from_ns);
        let last_ns = records.due_us.last().map_or(0, |&due_us| u64::from(due_us) * 1_000);
        let responses = BatchCounts::of(&records.response[first..]);
        Window { measured, first, from_ns, length_ns: last_ns.saturating_sub(from_ns), responses }
    }

    fn response(&self, question: &Question) -> Value {
        let mut all = Distribution::new();
        self.measured.records.response[self.first..].iter().for_each(|&code| all.add(code));
        json!({
            "mean_ns": all.mean_ns(),
            "max_ns": all.max_ns(),
            "quantiles": self.quantiles(&self.responses, question),
        })
    }

    /// Service times of good answers; the others are slower than any, as in `response`.
    fn service(&self, question: &Question) -> Value {
        let records = self.measured.records;
        let mut all = Distribution::new();
        for at in self.first..records.len() {
            all.add(if records.outcome[at] == Outcome::Good { records.service[at] } else { SLOWER_THAN_ANY });
        }
        let quantile = |&p: &f64| {
            let code = all.quantile(p);
            json!({"quantile": p, "value_ns": self.value_ns(code), "censored": code == Some(SLOWER_THAN_ANY)})
        };
        let quantiles: Value = question.quantiles.iter().map(quantile).collect();
        json!({"mean_ns": all.mean_ns(), "max_ns": all.max_ns(), "quantiles": quantiles})
    }

    fn quantiles(&self, counts: &BatchCounts, question: &Question) -> Value {
        let estimate = |&p: &f64| {
            let found = quantile::interval(counts, p, question.alpha);
            json!({
                "quantile": p,
                "value_ns": self.value_ns(found.map(|found| found.value)),
                "low_ns": found.and_then(|found| found.low).map(|code| self.low_ns(code)),
                "high_ns": found.and_then(|found| found.high).filter(|&code| code != SLOWER_THAN_ANY).map(highest_ns),
                "censored": found.is_some_and(|found| found.value == SLOWER_THAN_ANY),
                "inflation": found.and_then(|found| found.inflation),
                "effective": found.map(|found| found.effective),
            })
        };
        question.quantiles.iter().map(estimate).collect()
    }

    fn value_ns(&self, code: Option<u16>) -> Option<u64> {
        code.map(|code| if code == SLOWER_THAN_ANY { self.measured.timeout_ns } else { highest_ns(code) })
    }

    fn low_ns(&self, code: u16) -> u64 {
        if code == SLOWER_THAN_ANY { self.measured.timeout_ns } else { lowest_ns(code) }
    }

    fn objective(&self, objective: LatencyObjective) -> Value {
        let LatencyObjective { quantile, limit_ns, alpha } = objective;
        let found = judge(&self.responses, Objective { quantile, limit: code_of(limit_ns), alpha });
        json!({
            "quantile": quantile,
            "limit_ns": limit_ns,
            "verdict": found.verdict.as_str(),
            "pass_evidence": found.evidence.pass,
            "fail_evidence": found.evidence.fail,
            "needed": found.needed,
            "slower": found.slower,
            "requests": found.requests,
            "inflation": found.inflation,
        })
    }

    fn steadiness(&self) -> Value {
        let each_ns = self.length_ns / BATCHES as u64;
        if self.responses.total() < BATCHES as u64 || each_ns == 0 {
            return json!({"steady": null, "latency_z": null, "in_flight_z": null, "overload": null, "little_gap": null});
        }
        let medians: Vec<f64> = (0..BATCHES)
            .filter_map(|batch| self.responses.batch_quantile(batch, 0.5))
            .map(f64::from)
            .collect();
        let parts = Parts { from_ns: self.from_ns, each_ns, count: BATCHES };
        let InFlight { means, integral, durations } = in_flight(&self.measured, parts);
        let (latency_z, in_flight_z) = (mann_kendall(&medians).z, mann_kendall(&means).z);
        let (overload, gap) = (overload(&means), little_gap(integral, durations));
        let has_no_trend = latency_z.abs() <= UNSTEADY_Z && in_flight_z.abs() <= UNSTEADY_Z;
        json!({
            "steady": has_no_trend && !overload && gap.is_some_and(|gap| gap <= MAX_LITTLE_GAP),
            "latency_z": latency_z,
            "in_flight_z": in_flight_z,
            "overload": overload,
            "little_gap": gap,
        })
    }

    fn need_ns(&self, question: &Question) -> Option<u64> {
        let mut quantiles: Vec<f64> =
            question.objectives.iter().map(|objective| objective.quantile).collect();
        if quantiles.is_empty() {
            quantiles.push(0.99);
        }
        let value_of = |code| highest_ns(code) as f64;
        let growth = |p| needed_growth(&self.responses, p, question.alpha, question.precision, value_of);
        let most = quantiles
            .into_iter()
            .map(growth)
            .try_fold(1.0, |most: f64, growth| growth.map(|growth| most.max(growth)))?;
        Some((self.length_ns as f64 * (most - 1.0)) as u64)
    }

    fn groups(&self, question: &Question) -> Value {
        let (records, groups) = (self.measured.records, self.measured.groups);
        let mut of_groups: Vec<([u64; 5], Vec<u16>)> = vec![Default::default(); groups.len()];
        // Room for exactly what comes: a list that grows by doubling takes twice its memory at ten million requests.
        let mut due = vec![0; groups.len()];
        for &kind in &records.kind[self.first..] {
            if let Some(due) = due.get_mut(usize::from(kind)) {
                *due += 1;
            }
        }
        for ((_, codes), due) in of_groups.iter_mut().zip(due) {
            codes.reserve_exact(due);
        }
        for at in self.first..records.len() {
            if let Some((counts, codes)) = of_groups.get_mut(usize::from(records.kind[at])) {
                counts[records.outcome[at] as usize] += 1;
                codes.push(records.response[at]);
            }
        }
        let group = |(name, (counts, codes)): (&String, &([u64; 5], Vec<u16>))| {
            let [good, shed, failed, timed_out, unsent] = *counts;
            let due = codes.len() as u64;
            json!({
                "group": name,
                "counts": {
                    "due": due, "sent": due - unsent, "good": good, "shed": shed, "failed": failed,
                    "timed_out": timed_out, "unsent": unsent, "in_flight": 0,
                },
                "quantiles": self.quantiles(&BatchCounts::of(codes), question),
            })
        };
        groups.iter().zip(&of_groups).map(group).collect()
    }
}
