//! A request's part in the trial of its version, from its route to its booking.
//!
//! Next: `trial`.

use headgate_core::trial::arm::TrialRequest;
use headgate_core::trial::non_finite::NonFiniteOutputs;

/// A request's part in a trial.
#[derive(Clone, Copy)]
pub(super) struct TrialPart {
    /// The request, as the arm has begun to count it.
    pub(super) request: TrialRequest,
    /// What is in its outputs, if they were looked at before it is booked.
    pub(super) outputs: Option<NonFiniteOutputs>,
}
