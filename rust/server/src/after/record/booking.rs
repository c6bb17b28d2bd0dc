//! What is booked on a version, once, when its request is over: counters, the breaker, the access log, sketches.

use std::time::{Duration, SystemTime};

use headgate_core::error::Code;
use headgate_core::route::RouteReason;
use headgate_engine::Instant;
use headgate_engine::RunResult;

use super::{LogSample, RequestRecord};
use crate::after::access_log::LogEntry;
use crate::after::capturing::CapturedEnd;
use crate::after::copies::{self, DrawnCopies, FinishedRun};
use crate::after::sketching::SampledRun;
use crate::after::thread_state;
use crate::metrics::Shard;
use crate::thread::io::Io;

impl RequestRecord {
    /// Books everything, once; `delivered` is when the bytes were out.
    pub(super) fn book(&mut self, io: &Io, delivered: Option<Instant>) {
        self.is_booked = true;
        let Some(outcome) = self.outcome else { return };
        let code = outcome.code;
        let shard = self.routed.shard();
        self.count_outcome(shard, code);
        self.count_run(shard, code);
        let timing = &self.timing;
        let total_ns = delivered.unwrap_or(timing.phase_end).nanos_since(timing.received);
        if code.is_none() { &shard.success_ns } else { &shard.failure_ns }.add(total_ns);
        match delivered {
            Some(now) => {
                if timing.run_ns.is_some() {
                    shard.reply.record(now.nanos_since(timing.phase_end));
                }
                shard.total.record(total_ns);
            }
            None if self.passed_on.is_some() || matches!(code, Some(Code::Cancelled | Code::Internal)) => {}
            None => shard.undelivered.add(1),
        }
        self.write_log(code, delivered.is_some());
        if self.version().payload.trial.is_some() {
            self.book_trial(io, code, delivered);
        }
        if code.is_none() && !self.routed.is_direct() && self.fallback_header.is_none() {
            self.sketch(io, delivered.unwrap_or(self.timing.phase_end));
        }
        if let Some(drawn) = self.copies.take() {
            self.hand_over(drawn, code, delivered.unwrap_or_else(Instant::now));
        }
    }

    /// Hands the tensors over to the shadows and the capture that drew the request. Last, because they are gone then.
    #[cold]
    fn hand_over(&mut self, drawn: DrawnCopies, code: Option<Code>, at: Instant) {
        let run = self.sample.run.take();
        let end = CapturedEnd { code, run_ns: self.timing.run_ns };
        if let Some(finished) = FinishedRun::new(run, self.sample.failed, self.timing.stage, end) {
            copies::hand_over(self.endpoint(), drawn, finished, at);
        }
    }

    fn count_outcome(&self, shard: &Shard, code: Option<Code>) {
        shard.count_outcome(code);
        shard.finished.add(1);
        match self.routed.reason {
            RouteReason::Direct => shard.direct.add(1),
            // A version that answers in place of another was not chosen by the rule.
            RouteReason::Rule(_) if self.fallback_header.is_none() => shard.by_rule.add(1),
            RouteReason::Rule(_) | RouteReason::Sticky | RouteReason::Drawn => {}
        }
        if self.passed_on.is_some() {
            shard.passed_on.add(1);
        }
        if code.is_none() && self.fallback_header.is_some() {
            shard.fallback.add(1);
        }
    }

    fn count_run(&self, shard: &Shard, code: Option<Code>) {
        let timing = &self.timing;
        for (histogram, ns) in
            [(&shard.decode, timing.decode_ns), (&shard.queue, timing.queue_ns), (&shard.run, timing.run_ns)]
        {
            if let Some(ns) = ns {
                histogram.record(ns);
            }
        }
        if timing.run_ns.is_some() && timing.counts_run {
            shard.runs.add(1);
        }
        if let Some(run) = self.sample.run.as_ref().filter(|_| code.is_none()) {
            shard.rows.add(run.rows() as u64);
            run.offer_probe_input(Duration::from_nanos(timing.run_ns.unwrap_or_default()));
        }
    }

    fn write_log(&mut self, code: Option<Code>, delivered: bool) {
        let Some(sample) = self.log.take() else { return };
        let LogSample { log, protocol, context } = *sample;
        log.log(LogEntry {
            at: SystemTime::now(),
            protocol,
            endpoint: self.endpoint().name.clone(),
            version: Some(self.version().name.clone()),
            direct: self.routed.is_direct(),
            rule: self.routed.rule(),
            code,
            delivered,
            rows: self.sample.run.as_ref().filter(|_| code.is_none()).map_or(0, RunResult::rows),
            fallback: self.fallback_header.clone(),
            times_ns: self.timing.times().collect(),
            context,
        });
    }

    fn sketch(&self, io: &Io, now: Instant) {
        let Some(run) = &self.sample.run else { return };
        let Some(sketch) = &self.version().payload.sketch else { return };
        thread_state::try_with(|after| {
            let mut sketcher = after.sketcher.borrow_mut();
            let sampled = SampledRun { run, request_hash: self.sample.request_hash, at: now };
            sketcher.record(io, sketch, &sampled, self.routed.shard());
        });
    }

    /// Books a request that ended without a response that was read.
    pub(super) fn book_abandoned(&mut self, io: &Io) {
        if self.outcome.is_none() {
            // Unwinding is a defect of ours; otherwise the client left.
            let is_panicking = std::thread::panicking();
            self.answered(io, Some(if is_panicking { Code::Internal } else { Code::Cancelled }));
        }
        self.book(io, None);
    }
}
