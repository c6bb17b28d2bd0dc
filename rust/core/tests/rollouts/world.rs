//! A rollout on the counters that the gateway counts on: arms, units, ledger, and the judge, with requests that are made up.
//!
//! Time is a number, and a request ends when it begins. What is made up of a request is in `scenario`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use headgate_core::error::Code;
use headgate_core::gates::durations::Durations;
use headgate_core::gates::evidence::Evidence;
use headgate_core::gates::judge::decide;
use headgate_core::gates::question::{Gate, Question};
use headgate_core::gates::thresholds::{Thresholds, thresholds};
use headgate_core::gates::verdict::Verdict;
use headgate_core::trial::arm::{ArmReading, TrialArm, TrialEnd, TrialShared};
use headgate_core::trial::ledger::{ArmName, Ledger, MINUTE_MS, TrialIdentity};
use headgate_core::trial::non_finite::NonFiniteOutputs;
use headgate_core::trial::outcome::{RequestEnd, RunStage};
use headgate_core::trial::outputs::{OutputBins, VersionOutputs};
use headgate_core::trial::report::RunningTrial;
use headgate_core::trial::units::{UNITS, UnitTable};

use crate::random::mix;

const NS_PER_MINUTE: u64 = 60_000_000_000;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Answered { run_ns: u64, reply_ns: u64 },
    Failed,
    Shed,
}

struct LiveArm {
    arm: TrialArm,
    split: u8,
    last: ArmReading,
}

/// An attempt: its trial, and the step that it is in.
pub(crate) struct World {
    shared: Arc<TrialShared>,
    ledger: Ledger,
    live: Vec<LiveArm>,
    /// The arms of champion and challenger at present.
    now: [usize; 2],
    salt: u64,
    challenger_slots: u16,
    question: Question,
    has_window: bool,
    pub(crate) minute: u64,
    /// What is counted of the outputs.
    outputs: Option<Arc<VersionOutputs>>,
}

fn name(version: &str) -> ArmName {
    ArmName { version: version.into(), digest: version.into(), outputs: vec!["y".into()] }
}

impl World {
    /// An attempt with these gates. Without keys the unit is the request.
    pub(crate) fn new(salt: u64, question: Question, has_keys: bool) -> World {
        let identity = TrialIdentity {
            attempt: format!("e/{salt}"),
            champion: "v7".into(),
            digest: "v7".into(),
            sticky: has_keys.then(|| "x-user".into()),
        };
        let mut ledger = Ledger::new(identity, name("v7"), 0);
        ledger.arm(&name("v8"));
        World {
            shared: Arc::new(TrialShared::new(has_keys.then(UnitTable::default))),
            ledger,
            live: Vec::new(),
            now: [0; 2],
            salt,
            challenger_slots: 0,
            question,
            has_window: false,
            minute: 0,
            outputs: None,
        }
    }

    /// The same, which counts these outputs of both versions.
    pub(crate) fn with_outputs(mut self, outputs: Arc<VersionOutputs>) -> World {
        self.ledger.watch(Some(&outputs.watched));
        World { outputs: Some(outputs), ..self }
    }

    /// Begins a step: the challenger has so many slots.
    pub(crate) fn begin_step(&mut self, slots: u16) {
        self.collect();
        let (split, level) = self.ledger.split(&BTreeMap::from([(0, 10_000 - slots), (1, slots)]));
        if let Some(level) = level {
            self.shared.challengers_slots[usize::from(level)].store(u32::from(slots), Relaxed);
        }
        for arm in 0..2u8 {
            let known = self.live.iter().position(|live| live.split == split && live.arm.arm == arm);
            self.now[usize::from(arm)] = known.unwrap_or_else(|| {
                let arm = TrialArm::new(self.shared.clone(), arm, Ledger::side(arm), level, 1)
                    .with_outputs(self.outputs.clone());
                self.live.push(LiveArm { arm, split, last: ArmReading::default() });
                self.live.len() - 1
            });
        }
        self.challenger_slots = slots;
        self.question.blocks_ms.push(self.minute * MINUTE_MS);
        // Each step has a window of its own.
        self.has_window = false;
    }

    /// The unit of a key, and whether it is the challenger's.
    pub(crate) fn unit(&self, key: u64) -> (u32, bool) {
        let unit = ((u128::from(mix(key ^ mix(self.salt))) * u128::from(UNITS)) >> 64) as u32;
        (unit, unit / 100 < u32::from(self.challenger_slots))
    }

    /// A request of a unit on its arm.
    pub(crate) fn request(&self, unit: u32, is_challenger: bool, outcome: Outcome) {
        self.ends((unit, is_challenger), outcome, OutputBins::default());
    }

    /// An answer to a request of a unit, with the bins of its outputs.
    pub(crate) fn answer(&self, unit: u32, is_challenger: bool, bins: OutputBins) {
        let outcome = Outcome::Answered { run_ns: 1_000, reply_ns: 2_000 };
        self.ends((unit, is_challenger), outcome, bins);
    }

    fn ends(&self, (unit, is_challenger): (u32, bool), outcome: Outcome, bins: OutputBins) {
        let arm = &self.live[self.now[usize::from(is_challenger)]].arm;
        let begun_ns = self.minute * NS_PER_MINUTE + 1;
        let request = arm.begin(0, Some(unit), begun_ns);
        let (code, stage, run_ns, reply_ns) = match outcome {
            Outcome::Answered { run_ns, reply_ns } => (None, RunStage::Succeeded, Some(run_ns), reply_ns),
            Outcome::Failed => (Some(Code::BackendFailed), RunStage::Begun, None, 1_000),
            Outcome::Shed => (Some(Code::Overloaded), RunStage::NotBegun, None, 1_000),
        };
        let end = RequestEnd { code, stage, passed_on: None, is_cut_off: false, is_non_finite: false };
        let ended = TrialEnd {
            end,
            now_ns: begun_ns + reply_ns,
            run_ns,
            is_settled: true,
            is_replied: true,
            outputs: run_ns.map(|_| NonFiniteOutputs::default()),
            bins,
        };
        arm.end(0, request, &ended);
    }

    /// Ends the minute: counts are collected, and a window is opened as soon as its thresholds are known.
    pub(crate) fn end_minute(&mut self) {
        self.collect();
        if !self.has_window {
            self.open_window();
        }
        self.minute += 1;
    }

    /// Whether any of these gates fails now.
    pub(crate) fn fails(&self, gates: &[Gate]) -> bool {
        let Ok(evidence) = self.evidence() else { unreachable!("the evidence of a simulation is sound") };
        gates.iter().any(|gate| decide(&evidence, *gate, &self.question).verdict == Verdict::Fail)
    }

    pub(crate) fn evidence(&self) -> Result<Evidence, String> {
        Evidence::from_ledger(&self.ledger, &RunningTrial::default(), "v8")
    }

    fn collect(&mut self) {
        for live in &mut self.live {
            if live.arm.counts() == live.last.counts {
                continue;
            }
            let reading = live.arm.read();
            let delta = reading.since(&live.last);
            if !delta.is_empty() {
                self.ledger
                    .add(self.minute * MINUTE_MS, (live.split, live.arm.arm), &delta, |ns| ns / 1_000_000);
            }
            live.last = reading;
        }
        self.ledger.settle_events();
        self.ledger.settle_outputs();
    }

    fn open_window(&mut self) {
        let Ok(durations) = Durations::from_ledger(&self.ledger, "v8") else { unreachable!("v8 is an arm") };
        let Ok(Thresholds::Ready([run, reply])) = thresholds(&durations, &self.question.gates) else {
            return;
        };
        self.shared.close_window();
        self.collect();
        let of_arms = [0, 1].map(|arm| (run[arm], reply[arm])).to_vec();
        let number = self.ledger.open_window(self.minute * MINUTE_MS, of_arms.clone());
        self.shared.open_window(number, &of_arms);
        self.has_window = true;
    }
}
