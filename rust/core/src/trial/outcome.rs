//! How a slot-routed request ended, as far as its version is concerned.
//!
//! ```text
//! routed = ran + shed + not_ready + fell_back + cancelled + lost        (a client's mistake is not among the routed)
//! ```
//! A request ran if a run of it began on its own version, whatever became of it afterwards: a fallback hides no failure. It fell back
//! if another version was asked without such a run. Errors are requests that ran and ended with `backend_failed`, `internal` or
//! `deadline_exceeded`.

use crate::error::Code;

/// How far the version has come with the run of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunStage {
    /// No run has begun.
    #[default]
    NotBegun,
    /// A run has begun, and has failed or was not waited for.
    Begun,
    /// The run gave outputs.
    Succeeded,
}

/// What became of the request when this version did not answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOn {
    /// Another version answered it.
    Answered,
    /// Other versions were asked, and none answered.
    Unanswered,
    /// Other versions were asked, and one found that the client is at fault.
    Mistaken,
}

/// The end of a request on the version that its slot chose.
#[derive(Clone, Copy, Debug)]
pub struct RequestEnd {
    /// `None` for success.
    pub code: Option<Code>,
    /// How far its run came.
    pub stage: RunStage,
    /// Whether other versions were asked.
    pub passed_on: Option<PassedOn>,
    /// Whether the gateway ended it: it stops, or a defect unwound the request.
    pub is_cut_off: bool,
    /// Whether an output has a NaN or an infinity.
    pub is_non_finite: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialOutcome {
    /// Its own version ran it.
    Ran(Option<TrialError>),
    /// It was refused because there was too much to do, or too little time left to run it.
    Shed,
    /// Its version could not be run: it is left alone by its breaker, or out of memory.
    NotReady,
    /// Another version was asked without a run of its own.
    FellBack,
    /// Its client left.
    Cancelled,
    /// The gateway ended it without an outcome.
    Lost,
    /// The client is at fault, so that it says nothing about the version.
    ClientMistake,
}

/// The error that a run ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialError {
    /// The run failed.
    BackendFailed,
    /// A defect of the gateway.
    Internal,
    /// The run did not end in time.
    DeadlineExceeded,
}

impl TrialError {
    /// The code of the error.
    pub fn code(self) -> Code {
        match self {
            TrialError::BackendFailed => Code::BackendFailed,
            TrialError::Internal => Code::Internal,
            TrialError::DeadlineExceeded => Code::DeadlineExceeded,
        }
    }
}

/// Whether a code says that the client is at fault.
pub fn is_client_mistake(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::ModelNotFound
            | Code::VersionNotFound
            | Code::NotFound
            | Code::RequestTimeout
            | Code::PayloadTooLarge
            | Code::UnsupportedMediaType
            | Code::Misdirected
            | Code::RateLimited
            | Code::Unsupported
    )
}

impl TrialOutcome {
    /// The outcome of a request that ended so.
    pub fn of(end: &RequestEnd) -> TrialOutcome {
        let Some(code) = end.code else { return TrialOutcome::Ran(None) };
        if end.is_cut_off && matches!(code, Code::Cancelled | Code::Internal) {
            return TrialOutcome::Lost;
        }
        match (code, end.stage) {
            (Code::Cancelled, _) => TrialOutcome::Cancelled,
            // The outputs are there, and cannot be written as the request wants them. For NaN in JSON, only a challenger has a champion
            // that answers in its place, which must make no difference.
            (code, RunStage::Succeeded) if is_client_mistake(code) => TrialOutcome::Ran(None),
            (Code::BackendFailed, RunStage::Succeeded) if end.is_non_finite => TrialOutcome::Ran(None),
            (_, RunStage::NotBegun) => without_run(code, end.passed_on),
            (Code::BackendFailed, _) => TrialOutcome::Ran(Some(TrialError::BackendFailed)),
            (Code::Internal, _) => TrialOutcome::Ran(Some(TrialError::Internal)),
            (Code::DeadlineExceeded, _) => TrialOutcome::Ran(Some(TrialError::DeadlineExceeded)),
            // The fault of a run was attributed to the request, or its response found no room.
            (code, _) => without_run(code, end.passed_on),
        }
    }
}

/// The outcome of a request whose version has no share in it.
fn without_run(code: Code, passed_on: Option<PassedOn>) -> TrialOutcome {
    match (passed_on, code) {
        // No version takes it.
        (None | Some(PassedOn::Unanswered), code) if is_client_mistake(code) => TrialOutcome::ClientMistake,
        (Some(PassedOn::Mistaken), _) => TrialOutcome::ClientMistake,
        (Some(_), _) => TrialOutcome::FellBack,
        (None, Code::Overloaded | Code::DeadlineExceeded) => TrialOutcome::Shed,
        (None, Code::ModelNotReady | Code::ModelLoadFailed) => TrialOutcome::NotReady,
        (None, _) => TrialOutcome::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [RunStage; 3] = [RunStage::NotBegun, RunStage::Begun, RunStage::Succeeded];

    fn end(code: Code, stage: RunStage) -> RequestEnd {
        RequestEnd { code: Some(code), stage, passed_on: None, is_cut_off: false, is_non_finite: false }
    }

    #[test]
    fn an_error_is_counted_only_for_a_run_and_whatever_a_fallback_does() {
        for code in [Code::BackendFailed, Code::Internal, Code::DeadlineExceeded] {
            for passed_on in [None, Some(PassedOn::Answered), Some(PassedOn::Unanswered)] {
                let ran = TrialOutcome::of(&RequestEnd { passed_on, ..end(code, RunStage::Begun) });
                let TrialOutcome::Ran(Some(error)) = ran else { unreachable!("{code}: {ran:?}") };
                assert_eq!(error.code(), code);
                let without = TrialOutcome::of(&RequestEnd { passed_on, ..end(code, RunStage::NotBegun) });
                assert!(!matches!(without, TrialOutcome::Ran(_)), "{code}: {without:?}");
            }
        }
    }

    #[test]
    fn a_mistake_of_the_client_is_no_evidence_wherever_it_is_found() {
        for code in Code::ALL.iter().copied().filter(|&code| is_client_mistake(code)) {
            for stage in [RunStage::NotBegun, RunStage::Begun] {
                assert_eq!(
                    TrialOutcome::of(&end(code, stage)),
                    TrialOutcome::ClientMistake,
                    "{code} {stage:?}"
                );
                let unanswered = RequestEnd { passed_on: Some(PassedOn::Unanswered), ..end(code, stage) };
                assert_eq!(TrialOutcome::of(&unanswered), TrialOutcome::ClientMistake);
                let mistaken = RequestEnd { passed_on: Some(PassedOn::Mistaken), ..end(code, stage) };
                assert_eq!(TrialOutcome::of(&mistaken), TrialOutcome::ClientMistake);
                // What the champion took was no mistake: the challenger takes other inputs.
                let answered = RequestEnd { passed_on: Some(PassedOn::Answered), ..end(code, stage) };
                assert_eq!(TrialOutcome::of(&answered), TrialOutcome::FellBack);
            }
        }
    }

    #[test]
    fn a_mistake_that_another_version_finds_is_no_evidence_against_one_that_did_not_run() {
        for code in [Code::ModelNotReady, Code::Overloaded, Code::DeadlineExceeded] {
            let mistaken =
                RequestEnd { passed_on: Some(PassedOn::Mistaken), ..end(code, RunStage::NotBegun) };
            assert_eq!(TrialOutcome::of(&mistaken), TrialOutcome::ClientMistake);
        }
    }

    #[test]
    fn outputs_that_are_no_numbers_are_no_error_of_either_arm() {
        for (code, passed_on) in
            [(Code::InvalidArgument, None), (Code::BackendFailed, Some(PassedOn::Answered))]
        {
            let end = RequestEnd { passed_on, is_non_finite: true, ..end(code, RunStage::Succeeded) };
            assert_eq!(TrialOutcome::of(&end), TrialOutcome::Ran(None));
        }
    }

    #[test]
    fn what_the_gateway_ends_is_lost_and_what_the_client_ends_is_cancelled() {
        for stage in STAGES {
            assert_eq!(TrialOutcome::of(&end(Code::Cancelled, stage)), TrialOutcome::Cancelled);
            for code in [Code::Cancelled, Code::Internal] {
                let cut = RequestEnd { is_cut_off: true, ..end(code, stage) };
                assert_eq!(TrialOutcome::of(&cut), TrialOutcome::Lost);
            }
        }
    }

    #[test]
    fn a_refusal_before_the_run_is_shed_or_not_ready_or_fell_back() {
        for (code, outcome) in [
            (Code::Overloaded, TrialOutcome::Shed),
            (Code::DeadlineExceeded, TrialOutcome::Shed),
            (Code::ModelNotReady, TrialOutcome::NotReady),
            (Code::ModelLoadFailed, TrialOutcome::NotReady),
            (Code::Draining, TrialOutcome::Lost),
        ] {
            assert_eq!(TrialOutcome::of(&end(code, RunStage::NotBegun)), outcome, "{code}");
            for passed_on in [PassedOn::Answered, PassedOn::Unanswered] {
                let end = RequestEnd { passed_on: Some(passed_on), ..end(code, RunStage::NotBegun) };
                assert_eq!(TrialOutcome::of(&end), TrialOutcome::FellBack, "{code}");
            }
        }
    }
}
