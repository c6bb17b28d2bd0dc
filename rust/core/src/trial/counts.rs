//! The counters of an arm, by name.
//!
//! Next: `arm`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// What is counted of an arm.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum TrialCount { $($(#[doc = $doc])+ $variant,)+ }

        impl TrialCount {
            /// All counters, in the order of the table.
            pub const ALL: &'static [TrialCount] = &[$(TrialCount::$variant,)+];

            /// The name in reports and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(TrialCount::$variant => $name,)+ }
            }
        }
    };
}

counts! {
    /// Slot-routed requests that have begun.
    Begun = "begun";
    /// Of these, requests whose client is at fault, which are no evidence.
    ClientMistakes = "client_mistakes";
    /// Requests that their own version ran.
    Ran = "ran";
    /// Requests that were refused for want of time or room.
    Shed = "shed";
    /// Requests whose version could not be run.
    NotReady = "not_ready";
    /// Requests that another version was asked for, without a run of their own.
    FellBack = "fell_back";
    /// Requests whose client left.
    Cancelled = "cancelled";
    /// Requests that the gateway ended without an outcome.
    Lost = "lost";
    /// Runs that failed.
    BackendFailed = "backend_failed";
    /// Runs that ended with a defect of the gateway.
    Internal = "internal";
    /// Runs that did not end in time.
    DeadlineExceeded = "deadline_exceeded";
    /// Requests that ran, and that another version was asked for afterwards.
    PassedOn = "passed_on";
    /// Answers that were looked at for NaN, at least in part.
    Answers = "answers";
    /// Answers with a NaN.
    NanAnswers = "nan_answers";
    /// Answers with an infinity.
    InfiniteAnswers = "infinite_answers";
    /// Answers that were not looked at whole: outputs that were freed before, or have very many elements.
    UnseenAnswers = "unseen_answers";
    /// Runs whose outputs could not be written as the request wanted them: NaN in JSON, say.
    Unwritable = "unwritable";
    /// Requests that were the first of their unit in the trial.
    FirstRequests = "first_requests";
    /// Units with a request on this side: the champion, or the challengers.
    Units = "units";
    /// Errors that are the first of their unit.
    FirstErrors = "first_errors";
    /// Errors of units that erred on the champion before, when the challengers had fewer slots.
    FirstErrorsAfter = "first_errors_after";
    /// Refusals (requests that were shed, not ready, or fell back) that are the first of their unit.
    FirstRefusals = "first_refusals";
    /// Refusals of units that the champion refused before, when the challengers had fewer slots.
    FirstRefusalsAfter = "first_refusals_after";
    /// First errors that are not among the events, because the trial has had too many splits.
    UnplacedErrors = "unplaced_errors";
    /// Runs whose times say nothing: the model was fetched or placed anew meanwhile, or its placement is not decided yet.
    Unsettled = "unsettled";
    /// Requests that a rule sent to the version. They and the following are no evidence.
    ByRule = "by_rule";
    /// Requests that named the version.
    Direct = "direct";
    /// Requests that the version answered in another one's place.
    Fallback = "fallback";
}

/// The number of counters.
pub const COUNTS: usize = TrialCount::ALL.len();

/// The counters that the requests which have ended are divided into.
pub const OUTCOMES: [TrialCount; 6] = [
    TrialCount::Ran,
    TrialCount::Shed,
    TrialCount::NotReady,
    TrialCount::FellBack,
    TrialCount::Cancelled,
    TrialCount::Lost,
];

/// The counters of requests that their version refused.
pub const REFUSALS: [TrialCount; 3] = [TrialCount::Shed, TrialCount::NotReady, TrialCount::FellBack];

/// The counters of errors.
pub const ERRORS: [TrialCount; 3] =
    [TrialCount::BackendFailed, TrialCount::Internal, TrialCount::DeadlineExceeded];

/// The counters of an arm at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, u64>", into = "BTreeMap<String, u64>")]
pub struct ArmCounts([u64; COUNTS]);

impl Default for ArmCounts {
    fn default() -> Self {
        Self([0; COUNTS])
    }
}

impl ArmCounts {
    /// One counter.
    pub fn get(&self, count: TrialCount) -> u64 {
        self.0[count as usize]
    }

    /// Adds to one counter.
    pub fn add_one(&mut self, count: TrialCount, by: u64) {
        self.0[count as usize] += by;
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &ArmCounts) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum += count);
    }

    /// The counts since `earlier`, which must be earlier counts of the same arm.
    pub fn since(&self, earlier: &ArmCounts) -> ArmCounts {
        ArmCounts(std::array::from_fn(|index| self.0[index].saturating_sub(earlier.0[index])))
    }

    /// Whether nothing was counted.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&count| count == 0)
    }

    /// Requests that were routed to the arm and are evidence, those in progress included.
    pub fn routed(&self) -> u64 {
        self.get(TrialCount::Begun).saturating_sub(self.get(TrialCount::ClientMistakes))
    }

    /// Requests that have ended and are evidence.
    pub fn ended(&self) -> u64 {
        OUTCOMES.iter().map(|&outcome| self.get(outcome)).sum()
    }

    /// Requests that their version did not run, for want of room, time or readiness.
    pub fn refused(&self) -> u64 {
        REFUSALS.iter().map(|&refusal| self.get(refusal)).sum()
    }

    /// Requests in progress.
    pub fn in_flight(&self) -> u64 {
        self.routed().saturating_sub(self.ended())
    }

    /// Runs that ended with an error.
    pub fn errors(&self) -> u64 {
        ERRORS.iter().map(|&error| self.get(error)).sum()
    }
}

/// A counter that this build does not know was written by another one, and is left out.
impl From<BTreeMap<String, u64>> for ArmCounts {
    fn from(named: BTreeMap<String, u64>) -> ArmCounts {
        let mut counts = ArmCounts::default();
        for &count in TrialCount::ALL {
            counts.0[count as usize] = named.get(count.as_str()).copied().unwrap_or(0);
        }
        counts
    }
}

impl From<ArmCounts> for BTreeMap<String, u64> {
    fn from(counts: ArmCounts) -> BTreeMap<String, u64> {
        let named = TrialCount::ALL.iter().map(|&count| (count.as_str().to_owned(), counts.get(count)));
        named.filter(|(_, count)| *count > 0).collect()
    }
}

/// The first requests of units that were compared with the thresholds of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceedances {
    /// How many were compared.
    pub compared: u64,
    /// Those whose run took longer than its threshold, or failed.
    pub slower_run: u64,
    /// Those that took longer than the threshold from admission to reply, or failed.
    pub slower_reply: u64,
}

impl Exceedances {
    /// Adds other counts.
    pub fn add(&mut self, other: Exceedances) {
        self.compared += other.compared;
        self.slower_run += other.slower_run;
        self.slower_reply += other.slower_reply;
    }

    /// The counts since `earlier`.
    pub fn since(self, earlier: Exceedances) -> Exceedances {
        Exceedances {
            compared: self.compared.saturating_sub(earlier.compared),
            slower_run: self.slower_run.saturating_sub(earlier.slower_run),
            slower_reply: self.slower_reply.saturating_sub(earlier.slower_reply),
        }
    }
}
