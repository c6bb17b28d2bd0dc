//! What is booked of a request on the trial of its version, while one is on: as evidence if a slot chose the version, else apart.
//!
//! Not here: what is counted (`headgate_core::trial`), when a trial is on (`serving::trial_registry`).

use headgate_core::error::Code;
use headgate_core::route::RouteReason;
use headgate_core::trial::arm::{NotCompared, TrialEnd};
use headgate_core::trial::non_finite::NonFiniteOutputs;
use headgate_core::trial::outcome::{RequestEnd, RunStage};
use headgate_core::trial::outputs::OutputBins;
use headgate_engine::Instant;
use headgate_engine::RunResult;

use super::RequestRecord;
use super::non_finite;
use super::trial_part::TrialPart;
use crate::after::copies;
use crate::output_bins;
use crate::thread::io::Io;

impl RequestRecord {
    /// Begins to count the request in the trial of its version, if its slot chose that. `unit` is that of its sticky key.
    pub fn begin_trial(&mut self, io: &Io, unit: Option<u32>) {
        if !matches!(self.routed.reason, RouteReason::Sticky | RouteReason::Drawn) {
            return;
        }
        let Some(arm) = &self.version().payload.trial else { return };
        let request = arm.begin(self.routed.thread, unit, io.shared.now_ns());
        self.trial = Some(TrialPart { request, outputs: None, bins: OutputBins::default() });
    }

    /// Frees what a run holds of the request's memory before the request is booked: its tensors, or their share of that memory if copies
    /// of the request were drawn.
    pub fn release_run(&mut self) {
        let Some(mut run) = self.sample.run.take() else { return };
        if self.copies.is_some() {
            self.sample.run = copies::detach(&mut run).is_ok().then_some(run);
        } else if let (Some(mut part), RunStage::Succeeded) = (self.trial, self.timing.stage) {
            part.outputs.get_or_insert_with(|| non_finite::outputs(&run));
            part.bins = self.bins_of(&part, &run);
            self.trial = Some(part);
        }
    }

    /// The bins of the values of a run, if the request's unit counts with it.
    fn bins_of(&self, part: &TrialPart, run: &RunResult) -> OutputBins {
        let Some(arm) = &self.version().payload.trial else { return OutputBins::default() };
        let Some(wanted) = arm.wanted_outputs(&part.request) else { return OutputBins::default() };
        let row_of = |rows| output_bins::row_of_request(self.sample.request_hash, rows);
        output_bins::bins(wanted, row_of, |index| run.output(index).ok())
    }

    /// Whether the outputs of the run are evidence of a trial.
    pub fn has_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// The outputs were looked at elsewhere.
    pub fn looked_at(&mut self, outputs: Option<NonFiniteOutputs>) {
        if let Some(part) = &mut self.trial {
            part.outputs = outputs;
        }
    }

    /// Books the request on the trial. Its tensors must not have been sketched yet.
    pub(super) fn book_trial(&mut self, io: &Io, code: Option<Code>, delivered: Option<Instant>) {
        let part = self.trial.take();
        let Some(arm) = &self.version().payload.trial else { return };
        let thread = self.routed.thread;
        let Some(part) = part else { return arm.count_apart(thread, self.not_compared()) };
        let TrialPart { request, outputs, bins } = part;
        let timing = &self.timing;
        let succeeded = timing.stage == RunStage::Succeeded;
        let run = self.sample.run.as_ref().filter(|_| succeeded);
        let outputs = outputs.or_else(|| run.map(non_finite::outputs));
        let bins = run.filter(|_| bins.is_empty()).map_or(bins, |run| self.bins_of(&part, run));
        let now = delivered.unwrap_or_else(Instant::now);
        let end = RequestEnd {
            code,
            stage: timing.stage,
            passed_on: self.passed_on,
            is_cut_off: std::thread::panicking() || (delivered.is_none() && is_cut_off(io, now)),
            is_non_finite: outputs.is_some_and(|outputs| outputs.nan | outputs.infinite != 0),
        };
        // How long the client let an answer lie says nothing about the version.
        let is_replied = delivered.is_some() || code.is_some();
        let ended_at = if is_replied { now } else { timing.phase_end };
        let ended = TrialEnd {
            end,
            now_ns: io.shared.ns_at(ended_at),
            is_replied,
            run_ns: timing.run_ns,
            is_settled: !timing.was_disturbed && self.version().payload.model.placement_policy.is_settled(),
            outputs,
            bins,
        };
        arm.end(thread, request, &ended);
    }

    /// Why the request is no evidence though its version is part of a trial.
    fn not_compared(&self) -> NotCompared {
        match self.routed.reason {
            _ if self.fallback_header.is_some() => NotCompared::Fallback,
            RouteReason::Direct => NotCompared::Direct,
            RouteReason::Rule(_) => NotCompared::ByRule,
            // Without the header, which names that cannot be header values would cause.
            RouteReason::Sticky | RouteReason::Drawn => NotCompared::Fallback,
        }
    }
}

/// Whether the gateway is about to stop and ends what is in progress.
fn is_cut_off(io: &Io, now: Instant) -> bool {
    io.last_start_at().is_some_and(|last_start| last_start <= now)
}
