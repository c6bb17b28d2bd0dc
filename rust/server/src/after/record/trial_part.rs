//! A request's part in the trial of its version, from its route to its booking.
//!
//! Next: `trial`.

use headgate_core::trial::arm::TrialRequest;
use headgate_core::trial::non_finite::NonFiniteOutputs;
use headgate_core::trial::outputs::OutputBins;

/// A request's part in a trial.
#[derive(Clone, Copy)]
pub(super) struct TrialPart {
    /// The request, as the arm has begun to count it.
    pub(super) request: TrialRequest,
    /// What is in its outputs, if they were looked at before it is booked.
    pub(super) outputs: Option<NonFiniteOutputs>,
    /// The bins of its values, likewise.
    pub(super) bins: OutputBins,
}
