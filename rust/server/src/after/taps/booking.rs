//! What is booked on a version, once, when its request is over: counters, the breaker, the access log, sketches.

use std::time::{Duration, Instant, SystemTime};

use headgate_core::breaker::HealthSignal;
use headgate_core::error::Code;
use headgate_engine::Ran;

use super::{Account, Answer, Logged, nanos};
use crate::after::access_log::Entry;
use crate::after::state;
use crate::metrics::Shard;
use crate::thread::io::Io;

impl Account {
    pub(super) fn shard(&self) -> &Shard {
        self.version().payload.metrics.shard(self.waiter.thread)
    }

    /// Books everything, once; `delivered` is when the bytes were out.
    pub(super) fn book(&mut self, io: &Io, delivered: Option<Instant>) {
        self.booked = true;
        let Some(Answer(code)) = self.answer else { return };
        let shard = self.shard();
        shard.count_outcome(code);
        shard.finished.add(1);
        if self.direct {
            shard.direct.add(1);
        }
        if self.passed_on {
            shard.passed_on.add(1);
        }
        if code.is_none() && self.instead.is_some() {
            shard.fallback.add(1);
        }
        for (histogram, ns) in
            [(&shard.decode, self.decode_ns), (&shard.queue, self.queue_ns), (&shard.run, self.run_ns)]
        {
            if let Some(ns) = ns {
                histogram.record(ns);
            }
        }
        let total_ns = nanos(self.received, delivered.unwrap_or(self.phase_end));
        if code.is_none() { &shard.success_ns } else { &shard.failure_ns }.add(total_ns);
        if self.run_ns.is_some() {
            shard.last_run_ns.set(io.shared.ns_at(self.phase_end));
        }
        if self.run_ns.is_some() && self.counts_run {
            shard.runs.add(1);
        }
        if let Some(ran) = self.ran.as_ref().filter(|_| code.is_none()) {
            shard.rows.add(ran.rows() as u64);
            ran.teach(Duration::from_nanos(self.run_ns.unwrap_or_default()));
        }
        match delivered {
            Some(now) => {
                if self.run_ns.is_some() {
                    shard.reply.record(nanos(self.phase_end, now));
                }
                shard.total.record(total_ns);
            }
            None if self.passed_on || matches!(code, Some(Code::Cancelled | Code::Internal)) => {}
            None => shard.undelivered.add(1),
        }
        self.write_down(code, delivered.is_some());
        if code.is_none() && !self.direct && self.instead.is_none() {
            self.sketch(io, delivered.unwrap_or(self.phase_end));
        }
    }

    /// Tells the breaker what the request says about the version: nothing, unless it answered or failed. What waited too long in the
    /// queue is shed, and no failure of the model. Of a run that took too long a probe tells (`attribution::report_in_time`).
    pub fn report(&mut self, io: &Io, code: Option<Code>) {
        let pass = self.pass.take();
        let (Some(breaker), Some(pass)) = (&self.version().payload.breaker, pass) else { return };
        let verdict = match code {
            None => HealthSignal::Success,
            // A defect before its run is none of the version's.
            Some(Code::Internal) if !self.is_decoded() => HealthSignal::Neutral,
            Some(Code::BackendFailed | Code::Internal) => HealthSignal::Failure,
            Some(_) => HealthSignal::Neutral,
        };
        breaker.report(pass, verdict, self.waiter.thread, io.shared.now_ns());
    }

    fn write_down(&mut self, code: Option<Code>, delivered: bool) {
        let Some(logged) = self.log.take() else { return };
        let Logged { log, protocol, context } = *logged;
        let rows = self.ran.as_ref().filter(|_| code.is_none()).map_or(0, Ran::rows);
        log.log(Entry {
            at: SystemTime::now(),
            protocol,
            endpoint: self.endpoint.name.clone(),
            version: Some(self.version().name.clone()),
            direct: self.direct,
            code,
            delivered,
            rows,
            fallback: self.instead.clone(),
            times_ns: self.times().collect(),
            context,
        });
    }

    fn sketch(&mut self, io: &Io, now: Instant) {
        let Some(ran) = self.ran.take() else { return };
        let state = &self.version().payload;
        let Some(sketch) = &state.sketch else { return };
        state::try_with(|after| {
            let mut sketcher = after.sketcher.borrow_mut();
            sketcher.record(io, sketch, self.request_hash, &ran, now, self.shard());
        });
    }

    /// Books what ended without an answer that was read.
    pub(super) fn abandoned(&mut self, io: &Io) {
        if self.answer.is_none() {
            // Unwinding is a defect of ours; otherwise the client left.
            let panicking = std::thread::panicking();
            self.answered(io, Some(if panicking { Code::Internal } else { Code::Cancelled }));
        }
        self.book(io, None);
    }
}
