//! Gates: whether the evidence of a trial shows that the challenger does harm, watched without pause.
//!
//! Pure: the report of a trial and a question go in, verdicts with their numbers come out, so that anybody can judge a stored trial
//! again. `docs/design/gates.md` says what each gate promises.
//!
//! Read in this order: [`question`] (what is asked), [`evidence`] (what a report says of two arms), [`exposure`] (how much of what
//! happened each arm was exposed to), [`timeline`] (events in blocks), [`event_test`] (the test on them), [`error_rate`],
//! [`availability`] and [`latency`] (the gates on events), [`feedback`] and [`coverage`] (the gate on means),
//! [`output_drift`] (the gate on distributions), [`durations`] and [`thresholds`] (what durations are compared with), [`power`] (what so much data
//! can show), [`sample_ratio`], [`few_keys`] and [`interference`] (what pauses a rollout), [`judge`] (all of it).
//!
//! Not here: what follows from a verdict (the control plane), the statistics themselves ([`crate::stats`]).

pub mod availability;
pub mod coverage;
pub mod durations;
pub mod error_rate;
pub mod event_test;
pub mod evidence;
pub mod exposure;
pub mod feedback;
pub mod few_keys;
pub mod interference;
pub mod judge;
pub mod latency;
pub mod output_drift;
pub mod power;
pub mod question;
pub mod report;
pub mod sample_ratio;
pub mod thresholds;
pub mod timeline;
pub mod verdict;

#[cfg(test)]
mod tests;
