//! What a request says about its version to the breaker: at its end, or when a probe has ended.

use headgate_core::breaker::{BreakerPermit, HealthSignal};
use headgate_core::error::{Code, Error, Result};

use super::RequestRecord;
use super::routed_version::RoutedVersion;
use crate::thread::io::{self, Io};

impl RequestRecord {
    /// Lets the request through the breaker of its version, if that has one.
    ///
    /// # Errors
    /// `model_not_ready` while the breaker is open.
    pub fn pass_breaker(&mut self, io: &Io) -> Result<()> {
        let Some(breaker) = &self.version().payload.breaker else { return Ok(()) };
        let pass = breaker.permit(io.shared.now_ns()).map_err(|wait| {
            let name = &self.version().name;
            let words = format!(
                "version {name} has failed too often and is left alone for {wait:.1?} (limits.breaker)"
            );
            Error::new(Code::ModelNotReady, words).after(wait)
        })?;
        self.breaker_pass = Some(pass);
        Ok(())
    }

    /// Reports to the breaker what the outcome says about the version: nothing, unless it answered or failed. A request that waited
    /// too long in the queue was shed, and is no failure of the model. A run that took too long is judged by a probe
    /// (`attribution::report_in_time`).
    pub fn report(&mut self, io: &Io, code: Option<Code>) {
        let pass = self.breaker_pass.take();
        let (Some(breaker), Some(pass)) = (&self.version().payload.breaker, pass) else { return };
        let verdict = match code {
            None => HealthSignal::Success,
            // A defect before the run is not the version's.
            Some(Code::Internal) if !self.timing.is_decoded() => HealthSignal::Neutral,
            Some(Code::BackendFailed | Code::Internal) => HealthSignal::Failure,
            Some(_) => HealthSignal::Neutral,
        };
        breaker.report(pass, verdict, self.routed.thread, io.shared.now_ns());
    }

    /// Takes over the report to the breaker, for a caller that must find out first what to say.
    pub fn report_later(&mut self) -> Option<BreakerReport> {
        let pass = Some(self.breaker_pass.take()?);
        Some(BreakerReport { pass, routed: self.routed.clone() })
    }

    /// Reports to the breaker that the request says nothing about the version, whatever its outcome.
    pub fn excuse_version(&mut self) {
        drop(self.report_later());
    }
}

/// A report to a version's breaker that is still to be made. Dropped before, it says nothing about the version.
pub struct BreakerReport {
    pass: Option<BreakerPermit>,
    routed: RoutedVersion,
}

impl BreakerReport {
    /// Makes the report.
    pub fn send(mut self, verdict: HealthSignal) {
        self.send_once(verdict);
    }

    fn send_once(&mut self, verdict: HealthSignal) {
        let breaker = &self.routed.version().payload.breaker;
        let (Some(breaker), Some(pass)) = (breaker, self.pass.take()) else { return };
        io::try_with(|io| breaker.report(pass, verdict, self.routed.thread, io.shared.now_ns()));
    }
}

impl Drop for BreakerReport {
    fn drop(&mut self) {
        self.send_once(HealthSignal::Neutral);
    }
}
