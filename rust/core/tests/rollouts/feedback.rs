//! Rollouts with made-up feedback on the real ledger and the real gate `feedback.NAME`.
//!
//! Next: `main`, which has the tests.

#![allow(clippy::print_stdout, reason = "the tables are what is asked for")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use headgate_core::feedback::declared::{FeedbackKind, FeedbackSpec, Good, Range};
use headgate_core::gates::evidence::Evidence;
use headgate_core::gates::judge::decide;
use headgate_core::gates::question::Question;
use headgate_core::gates::verdict::Verdict;
use headgate_core::trial::arm::ArmReading;
use headgate_core::trial::counts::TrialCount;
use headgate_core::trial::feedback::GivenFeedback;
use headgate_core::trial::ledger::{ArmName, Ledger, MINUTE_MS, TrialIdentity};
use headgate_core::trial::report::RunningTrial;
use headgate_core::trial::units::{UNITS, UnitTable};

use crate::random::{Keys, Random, mix};

/// What an answer's value is, low being good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values {
    /// Bad with that probability.
    Label(f64),
    /// Uniform in the unit range.
    Uniform,
    /// A number of events from 0 to 20, mostly none.
    Count(f64),
    /// A label that each key has for itself.
    LabelOfKey(f64),
}

/// A kind of rollout with feedback.
#[derive(Clone, Debug)]
pub(crate) struct FeedbackScenario {
    pub(crate) name: &'static str,
    pub(crate) values: Values,
    /// The keys and how often they come; without keys, none.
    pub(crate) keys: Option<(usize, KeyWeights)>,
    pub(crate) steps: Vec<(u16, u64)>,
    pub(crate) per_minute: f64,
    /// The part of answers that feedback comes for: good and bad ones.
    pub(crate) coverage: [f64; 2],
    /// How many minutes it takes in the mean, for good and bad values.
    pub(crate) delay: [f64; 2],
    /// Whether the mean doubles and halves every hour.
    pub(crate) drifts: bool,
    /// Added to the challenger's probability of a bad value, or to its value.
    pub(crate) worse_by: f64,
    pub(crate) look: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyWeights {
    Zipf(f64),
    OneHeavy(f64),
}

impl FeedbackScenario {
    pub(crate) fn null(name: &'static str, values: Values) -> FeedbackScenario {
        FeedbackScenario {
            name,
            values,
            keys: None,
            steps: vec![(100, 60), (500, 60), (2_500, 60), (5_000, 60)],
            per_minute: 200.0,
            coverage: [0.5; 2],
            delay: [2.0; 2],
            drifts: false,
            worse_by: 0.0,
            look: 1,
        }
    }

    fn spec(&self) -> FeedbackSpec {
        let (kind, range) = match self.values {
            Values::Label(_) | Values::LabelOfKey(_) => (FeedbackKind::Label, Range::LABEL),
            Values::Uniform => (FeedbackKind::Value, Range(-1.0, 2.0)),
            Values::Count(_) => (FeedbackKind::Count, Range(0.0, 20.0)),
        };
        FeedbackSpec { kind, range, good: Good::Low, within_ms: u64::MAX, coverage: None }
    }

    fn value(&self, (key, is_challenger): (u64, bool), minute: u64, random: &mut Random) -> f64 {
        let trend = if self.drifts && (minute / 30).is_multiple_of(2) { 2.0 } else { 1.0 };
        let worse = if is_challenger { self.worse_by } else { 0.0 };
        match self.values {
            Values::Label(bad) => f64::from(u8::from(random.chance(bad * trend + worse))),
            Values::Uniform => (random.uniform() * trend / 2.0 + worse).clamp(-1.0, 2.0),
            Values::Count(mean) => {
                let mut count = 0.0;
                while count < 20.0 && random.chance(mean * trend / (1.0 + mean * trend) + worse) {
                    count += 1.0;
                }
                count
            }
            Values::LabelOfKey(bad) => {
                let of_key = mix(key.wrapping_mul(7)) as f64 / u64::MAX as f64;
                f64::from(u8::from(of_key < bad + worse))
            }
        }
    }
}

/// The ledger of a rollout, and feedback on its way.
struct FeedbackWorld {
    ledger: Ledger,
    units: Option<UnitTable>,
    /// By the minute in which it comes.
    coming: BTreeMap<u64, Vec<GivenFeedback>>,
    split: u8,
    slots: u16,
    salt: u64,
}

impl FeedbackWorld {
    fn new(salt: u64, has_keys: bool) -> FeedbackWorld {
        let name =
            |version: &str| ArmName { version: version.into(), digest: version.into(), outputs: vec![] };
        let identity = TrialIdentity {
            attempt: "e/1".into(),
            champion: "v7".into(),
            digest: "v7".into(),
            sticky: has_keys.then(|| "x-user".into()),
        };
        let mut ledger = Ledger::new(identity, name("v7"), 0);
        ledger.arm(&name("v8"));
        let units = has_keys.then(UnitTable::default);
        FeedbackWorld { ledger, units, coming: BTreeMap::new(), split: 0, slots: 0, salt }
    }

    fn answer(&mut self, scenario: &FeedbackScenario, minute: u64, key: u64, random: &mut Random) -> u8 {
        let unit = ((u128::from(mix(key ^ mix(self.salt))) * u128::from(UNITS)) >> 64) as u32;
        let is_challenger = unit / 100 < u32::from(self.slots);
        let arm = u8::from(is_challenger);
        let value = scenario.value((key, is_challenger), minute, random);
        let is_bad = usize::from(value > 0.0);
        if random.chance(scenario.coverage[is_bad]) {
            let due = minute + (scenario.delay[is_bad] * random.exponential()) as u64;
            let unit = self.units.is_some().then_some(unit);
            let issued_s = (minute * MINUTE_MS / 1_000) as u32;
            let given = GivenFeedback { arm, split: self.split, unit, issued_s, value };
            self.coming.entry(due).or_default().push(given);
        }
        arm
    }

    fn minute(
        &mut self,
        scenario: &FeedbackScenario,
        minute: u64,
        keys: Option<&Keys>,
        random: &mut Random,
    ) -> u64 {
        let mut answers = [0; 2];
        for _ in 0..random.poisson(scenario.per_minute) {
            let key = match keys {
                None => random.next(),
                Some(keys) => keys.draw(random),
            };
            answers[usize::from(self.answer(scenario, minute, key, random))] += 1;
        }
        for (arm, ran) in answers.into_iter().enumerate() {
            let mut reading = ArmReading::default();
            for count in [TrialCount::Begun, TrialCount::Ran] {
                reading.counts.add_one(count, ran);
            }
            self.ledger.add(minute * MINUTE_MS, (self.split, arm as u8), &reading, |ns| ns);
        }
        while let Some(due) = self.coming.first_entry().filter(|due| *due.key() <= minute) {
            for given in due.remove() {
                self.ledger.add_feedback("f", &scenario.spec(), given, self.units.as_ref());
            }
        }
        answers[1]
    }

    fn fails(&self, question: &Question) -> bool {
        let Ok(evidence) = Evidence::from_ledger(&self.ledger, &RunningTrial::default(), "v8") else {
            unreachable!("the evidence of a simulation is sound")
        };
        question.gates.iter().any(|gate| decide(&evidence, *gate, question).verdict == Verdict::Fail)
    }
}

/// The challenger's answers until the gate failed; `None` if it did not.
pub(crate) fn failed_after(scenario: &FeedbackScenario, question: &Question, seed: u64) -> Option<u64> {
    let mut random = Random::new(mix(seed ^ 0xfeed));
    let keys = scenario.keys.map(|(count, weights)| match weights {
        KeyWeights::Zipf(power) => Keys::zipf(count, power),
        KeyWeights::OneHeavy(part) => Keys::one_heavy(count, part),
    });
    let mut world = FeedbackWorld::new(random.next(), keys.is_some());
    let (mut minute, mut answers) = (0, 0);
    for &(slots, minutes) in &scenario.steps {
        world.slots = slots;
        world.split = world.ledger.split(&BTreeMap::from([(0, 10_000 - slots), (1, slots)])).0;
        for _ in 0..minutes {
            answers += world.minute(scenario, minute, keys.as_ref(), &mut random);
            minute += 1;
            if minute.is_multiple_of(scenario.look) && world.fails(question) {
                return Some(answers);
            }
        }
    }
    None
}

/// The gate alone, with the whole promise of 1 %.
pub(crate) fn feedback_question() -> Question {
    crate::question(r#"{"gate": "feedback.f", "above": 0}"#)
}

/// Challengers whose feedback is no worse.
pub(crate) fn equal_feedback() -> Vec<FeedbackScenario> {
    let null = FeedbackScenario::null;
    let zipf =
        |name, values| FeedbackScenario { keys: Some((20_000, KeyWeights::Zipf(1.1))), ..null(name, values) };
    let late = |name, values| FeedbackScenario { delay: [2.0, 60.0], ..null(name, values) };
    vec![
        null("50 % bad", Values::Label(0.5)),
        null("2 % bad", Values::Label(0.02)),
        null("0.1 % bad", Values::Label(0.001)),
        null("98 % bad", Values::Label(0.98)),
        null("uniform values", Values::Uniform),
        null("counts, mostly 0", Values::Count(0.1)),
        late("bad ones come an hour later", Values::Label(0.1)),
        FeedbackScenario { drifts: true, ..null("the share changes every half hour", Values::Label(0.1)) },
        FeedbackScenario {
            steps: vec![(100, 20), (5_000, 40), (500, 40), (9_000, 20), (5_000, 60)],
            drifts: true,
            ..late("weights up and down, late, changing", Values::Label(0.1))
        },
        FeedbackScenario {
            coverage: [0.02, 0.2],
            ..null("2 % of good and 20 % of bad answers have feedback", Values::Label(0.05))
        },
        zipf("keys of zipf 1.1 that are bad or good", Values::LabelOfKey(0.1)),
        FeedbackScenario {
            keys: Some((20_000, KeyWeights::OneHeavy(0.5))),
            ..null("one key has 50 %, keys are bad or good", Values::LabelOfKey(0.1))
        },
        FeedbackScenario {
            keys: Some((500, KeyWeights::Zipf(0.0))),
            ..null("500 keys that are bad or good", Values::LabelOfKey(0.2))
        },
        FeedbackScenario {
            per_minute: 1.0,
            steps: vec![(500, 1_000), (2_500, 1_000), (5_000, 1_000)],
            look: 30,
            ..null("60 answers an hour, 2 days", Values::Label(0.1))
        },
    ]
}

/// Runs side by side with seeds from 0: what each gave.
pub(crate) fn side_by_side(runs: u64, one: impl Fn(u64) -> Option<u64> + Sync) -> Vec<Option<u64>> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut found: Vec<(u64, Option<u64>)> = std::thread::scope(|scope| {
        let work = || {
            let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < runs));
            seeds.map(|seed| (seed, one(seed))).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    found.sort_unstable();
    found.into_iter().map(|(_, after)| after).collect()
}

/// The rollouts of equal versions that the gate fails.
pub(crate) fn false_failures(scenario: &FeedbackScenario, runs: u64) -> u64 {
    let question = feedback_question();
    side_by_side(runs, |seed| failed_after(scenario, &question, seed)).iter().flatten().count() as u64
}

/// Prints false failures and what is caught; what breaks the promise.
pub(crate) fn print_feedback(runs: u64, bound: u64) -> Vec<String> {
    println!(
        "\nFeedback: false failures of {runs}, promised 1 %; at most {bound} with probability 99.9 %.\n"
    );
    println!("| equal feedback | failed | share |\n|---|---:|---:|");
    let mut broken = Vec::new();
    for scenario in equal_feedback() {
        let found = false_failures(&scenario, runs);
        println!("| {} | {found} | {:.2} % |", scenario.name, found as f64 / runs as f64 * 100.0);
        if found > bound {
            broken.push(format!("{}: {found} of {runs} failed", scenario.name));
        }
    }
    println!("\n| worse feedback | failed | challenger's answers until then, median |\n|---|---:|---:|");
    for (name, values, worse_by) in [
        ("10 % bad become 11 %", Values::Label(0.1), 0.01),
        ("10 % bad become 12 %", Values::Label(0.1), 0.02),
        ("10 % bad become 15 %", Values::Label(0.1), 0.05),
        ("10 % bad become 20 %", Values::Label(0.1), 0.1),
        ("2 % bad become 4 %", Values::Label(0.02), 0.02),
        ("uniform values, worse by a tenth of their deviation", Values::Uniform, 0.0144),
        ("uniform values, worse by half of their deviation", Values::Uniform, 0.0722),
    ] {
        let scenario = FeedbackScenario { worse_by, ..FeedbackScenario::null(name, values) };
        let question = feedback_question();
        let found = side_by_side(100, |seed| failed_after(&scenario, &question, seed));
        let mut after: Vec<u64> = found.iter().map(|after| after.unwrap_or(u64::MAX)).collect();
        after.sort_unstable();
        let median = if after[50] == u64::MAX { "-".to_owned() } else { after[50].to_string() };
        println!("| {name} | {} % | {median} |", found.iter().flatten().count());
    }
    broken
}
