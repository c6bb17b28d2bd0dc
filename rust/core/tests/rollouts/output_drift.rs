//! Rollouts with made-up outputs on the real counters and the real gate `output_drift`.
//!
//! Next: `main`, which has the tests.

#![allow(clippy::print_stdout, reason = "the tables are what is asked for")]

use std::sync::Arc;

use headgate_core::gates::question::Question;
use headgate_core::trial::outputs::{
    OutputBins, OutputPlace, Reference, VersionOutputs, WatchedFeature, WatchedOutputs,
};

use crate::feedback::{KeyWeights, side_by_side};
use crate::random::{Keys, Random, mix};
use crate::world::{Outcome, World};

/// What an answer says: a number from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outputs {
    /// Any number is as frequent.
    Uniform,
    /// One of five labels, which are numbers.
    Label,
    /// 0 in 99 of 100 answers.
    MostlyZero,
    /// A number that each key has for itself.
    OfKey,
}

/// A kind of rollout with outputs.
#[derive(Clone, Debug)]
pub(crate) struct OutputScenario {
    pub(crate) name: &'static str,
    pub(crate) outputs: Outputs,
    /// The keys and how often they come; without keys, none.
    pub(crate) keys: Option<(usize, KeyWeights)>,
    pub(crate) steps: Vec<(u16, u64)>,
    pub(crate) per_minute: f64,
    /// Whether half of the numbers move to the lower end every half hour, in both versions.
    pub(crate) drifts: bool,
    /// The part of requests that champion and challenger shed.
    pub(crate) shed: [f64; 2],
    /// The part of the challenger's numbers that moves to the upper end.
    pub(crate) moved: f64,
    pub(crate) look: u64,
}

impl OutputScenario {
    pub(crate) fn null(name: &'static str, outputs: Outputs) -> OutputScenario {
        OutputScenario {
            name,
            outputs,
            keys: None,
            steps: vec![(100, 60), (500, 60), (2_500, 60), (5_000, 60)],
            per_minute: 200.0,
            drifts: false,
            shed: [0.0; 2],
            moved: 0.0,
            look: 1,
        }
    }

    fn value(&self, (key, is_challenger): (u64, bool), minute: u64, random: &mut Random) -> f64 {
        let mut value = match self.outputs {
            Outputs::Uniform => random.uniform(),
            Outputs::Label => (random.uniform() * 5.0).floor() / 5.0,
            Outputs::MostlyZero => {
                if random.chance(0.01) {
                    random.uniform()
                } else {
                    0.0
                }
            }
            Outputs::OfKey => mix(key.wrapping_mul(7)) as f64 / u64::MAX as f64,
        };
        if self.drifts && (minute / 30).is_multiple_of(2) && random.chance(0.5) {
            value /= 10.0;
        }
        if is_challenger && random.chance(self.moved) { 1.0 } else { value }
    }
}

/// One output with bins of a fiftieth.
fn outputs() -> Arc<VersionOutputs> {
    let edges: Vec<f64> = (0..50).map(|edge| f64::from(edge) / 50.0).collect();
    let counts = vec![20; edges.len() + 1];
    let reference = Reference { edges: &edges, counts: &counts, apart: [0; 3] };
    let feature = WatchedFeature::new("score", "score", 0, reference);
    let Some(watched) = feature.and_then(|feature| WatchedOutputs::new(vec![feature])) else {
        unreachable!("the reference has values")
    };
    let place = OutputPlace { output: 0, element: 0, width: 1 };
    Arc::new(VersionOutputs { watched: Arc::new(watched), places: vec![Some(place)] })
}

/// The challenger's answers until the gate failed; `None` if it did not.
pub(crate) fn failed_after(scenario: &OutputScenario, question: &Question, seed: u64) -> Option<u64> {
    let mut random = Random::new(mix(seed ^ 0x0d1f));
    let keys = scenario.keys.map(|(count, weights)| match weights {
        KeyWeights::Zipf(power) => Keys::zipf(count, power),
        KeyWeights::OneHeavy(part) => Keys::one_heavy(count, part),
    });
    let outputs = outputs();
    let mut world = World::new(random.next(), question.clone(), keys.is_some()).with_outputs(outputs.clone());
    let (mut minute, mut answers) = (0, 0);
    for &(slots, minutes) in &scenario.steps {
        world.begin_step(slots);
        for _ in 0..minutes {
            for _ in 0..random.poisson(scenario.per_minute) {
                let key = match &keys {
                    None => random.next(),
                    Some(keys) => keys.draw(&mut random),
                };
                let (unit, is_challenger) = world.unit(key);
                if random.chance(scenario.shed[usize::from(is_challenger)]) {
                    world.request(unit, is_challenger, Outcome::Shed);
                    continue;
                }
                let mut bins = OutputBins::default();
                let value = scenario.value((key, is_challenger), minute, &mut random);
                bins.set(0, outputs.watched.features()[0].bin_of(value));
                world.answer(unit, is_challenger, bins);
                answers += u64::from(is_challenger);
            }
            world.end_minute();
            minute += 1;
            if minute.is_multiple_of(scenario.look) && world.fails(&question.gates) {
                return Some(answers);
            }
        }
    }
    None
}

/// The gate alone, with the whole promise of 1 %.
pub(crate) fn output_question(above: f64, distance: &str) -> Question {
    crate::question(&format!(r#"{{"gate": "output_drift", "above": {above}, "distance": "{distance}"}}"#))
}

/// Challengers that are no further from the champion than the limit, with the limit.
pub(crate) fn near_outputs() -> Vec<(OutputScenario, f64)> {
    let null = OutputScenario::null;
    let zipf =
        |name, outputs| OutputScenario { keys: Some((20_000, KeyWeights::Zipf(1.1))), ..null(name, outputs) };
    let equal = [
        null("any number", Outputs::Uniform),
        null("five labels", Outputs::Label),
        null("99 % are 0", Outputs::MostlyZero),
        OutputScenario { drifts: true, ..null("both move every half hour", Outputs::Uniform) },
        zipf("keys of zipf 1.1 with a number each", Outputs::OfKey),
        OutputScenario {
            keys: Some((20_000, KeyWeights::OneHeavy(0.5))),
            ..null("one key has 50 %, a number each", Outputs::OfKey)
        },
        OutputScenario {
            keys: Some((500, KeyWeights::Zipf(0.0))),
            ..null("500 keys with a number each", Outputs::OfKey)
        },
        OutputScenario {
            steps: vec![(100, 20), (5_000, 40), (500, 40), (9_000, 20), (5_000, 60)],
            drifts: true,
            ..zipf("weights up and down, both move", Outputs::OfKey)
        },
        OutputScenario {
            shed: [0.3, 0.0],
            drifts: true,
            ..null("champion sheds 30 %, both move", Outputs::Uniform)
        },
        OutputScenario {
            shed: [0.0, 0.3],
            drifts: true,
            ..null("challenger sheds 30 %, both move", Outputs::Uniform)
        },
        OutputScenario {
            shed: [0.0, 0.3],
            drifts: true,
            ..zipf("challenger sheds 30 %, keys, both move", Outputs::OfKey)
        },
        OutputScenario {
            per_minute: 1.0,
            steps: vec![(500, 1_000), (2_500, 1_000), (5_000, 1_000)],
            look: 30,
            ..null("60 answers an hour, 2 days", Outputs::Uniform)
        },
    ];
    let mut all: Vec<(OutputScenario, f64)> = equal.into_iter().map(|scenario| (scenario, 0.0)).collect();
    // A part that moves to the upper end is a distance of as much: of the share that is not there yet.
    let at_limit = OutputScenario { moved: 0.1, ..null("as far as the limit, 0.1", Outputs::Uniform) };
    let drifting = OutputScenario { drifts: true, ..at_limit.clone() };
    all.push((at_limit, 0.1));
    all.push((OutputScenario { name: "as far as the limit, both move", ..drifting }, 0.1));
    all
}

/// The rollouts of near versions that the gate fails.
pub(crate) fn false_failures((scenario, above): &(OutputScenario, f64), distance: &str, runs: u64) -> u64 {
    let question = output_question(*above, distance);
    side_by_side(runs, |seed| failed_after(scenario, &question, seed)).iter().flatten().count() as u64
}

/// Prints false failures and what is caught; what breaks the promise.
pub(crate) fn print_outputs(runs: u64, bound: u64) -> Vec<String> {
    println!("\nOutputs: false failures of {runs}, promised 1 %; at most {bound} with probability 99.9 %.\n");
    println!("| outputs no further apart than the limit | ks | total_variation |\n|---|---:|---:|");
    let mut broken = Vec::new();
    for near in near_outputs() {
        let found = ["ks", "total_variation"].map(|distance| false_failures(&near, distance, runs));
        println!("| {} | {} | {} |", near.0.name, found[0], found[1]);
        if found.iter().any(|&found| found > bound) {
            broken.push(format!("{}: {found:?} of {runs} failed", near.0.name));
        }
    }
    println!("\n| distance, limit 0.1 | ks failed, of 100 | median | total_variation | median |");
    println!("|---|---:|---:|---:|---:|");
    for moved in [0.12, 0.15, 0.2, 0.3, 0.5] {
        let scenario = OutputScenario { moved, ..OutputScenario::null("", Outputs::Uniform) };
        let row = ["ks", "total_variation"].map(|distance| {
            let question = output_question(0.1, distance);
            let found = side_by_side(100, |seed| failed_after(&scenario, &question, seed));
            let mut after: Vec<u64> = found.iter().map(|after| after.unwrap_or(u64::MAX)).collect();
            after.sort_unstable();
            let median = if after[50] == u64::MAX { "-".to_owned() } else { after[50].to_string() };
            format!("{} % | {median}", found.iter().flatten().count())
        });
        println!("| {moved} | {} | {} |", row[0], row[1]);
    }
    broken
}
