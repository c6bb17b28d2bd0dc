//! What is made up: which keys come how often, what goes wrong, and how the weight grows.

use headgate_core::gates::question::{Gate, Question};

use crate::random::{Keys, Random, mix};
use crate::world::{Outcome, World};

/// Which keys requests have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyModel {
    /// Without keys.
    None,
    /// Keys whose frequency falls with a power of their rank.
    Zipf(f64),
    /// One key with a part of all requests.
    OneHeavy(f64),
}

/// The requests of both arms over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rhythm {
    Steady,
    /// In one minute of thirty, errors are twenty times as frequent and runs four times as long.
    Bursts,
    /// Requests, errors and durations rise and fall in the course of a day, which lasts `minutes`.
    Daily {
        minutes: f64,
    },
}

/// A kind of rollout.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) keys: KeyModel,
    pub(crate) per_minute: f64,
    /// The slots of each step, and its minutes.
    pub(crate) steps: Vec<(u16, u64)>,
    /// The probability that a run fails.
    pub(crate) error: f64,
    /// The part of keys whose every run fails.
    pub(crate) poison: f64,
    /// The part of keys whose runs take three times as long.
    pub(crate) slow: f64,
    /// The part of requests that champion and challenger shed.
    pub(crate) shed: [f64; 2],
    pub(crate) rhythm: Rhythm,
    /// How many times the champion's errors, and durations, the challenger has.
    pub(crate) challenger_error: f64,
    pub(crate) challenger_time: f64,
    /// Minutes between looks.
    pub(crate) look: u64,
    /// The first minute in which the challenger differs.
    pub(crate) worse_from: u64,
}

impl Scenario {
    /// Equal arms, keys that are all alike, a ramp of 1, 5, 25 and 50 %.
    pub(crate) fn null(name: &'static str) -> Scenario {
        Scenario {
            name,
            keys: KeyModel::Zipf(0.0),
            per_minute: 300.0,
            steps: vec![(100, 20), (500, 20), (2_500, 20), (5_000, 20)],
            error: 0.004,
            poison: 0.0,
            slow: 0.05,
            shed: [0.0; 2],
            rhythm: Rhythm::Steady,
            challenger_error: 1.0,
            challenger_time: 1.0,
            look: 1,
            worse_from: 0,
        }
    }

    /// A challenger with `ratio` times the champion's errors, at one weight; so many of its requests between looks.
    pub(crate) fn harm(name: &'static str, slots: u16, ratio: f64, per_look: f64) -> Scenario {
        let per_minute = per_look * 10_000.0 / f64::from(slots);
        Scenario {
            per_minute,
            steps: vec![(slots, 20_000)],
            error: 0.002,
            challenger_error: ratio,
            ..Scenario::null(name)
        }
    }
}

/// How a rollout has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Ending {
    /// The challenger's requests until a gate failed; `None` if none did.
    pub(crate) failed_after: Option<u64>,
    /// The challenger's requests in all.
    pub(crate) requests: u64,
}

/// Runs a rollout with a seed: `judged` of the question's gates may roll it back.
pub(crate) fn run(scenario: &Scenario, question: &Question, judged: &[Gate], seed: u64) -> Ending {
    let mut random = Random::new(mix(seed));
    let keys = match scenario.keys {
        KeyModel::None => None,
        KeyModel::Zipf(power) => Some(Keys::zipf(20_000, power)),
        KeyModel::OneHeavy(part) => Some(Keys::one_heavy(20_000, part)),
    };
    let mut world = World::new(random.next(), question.clone(), keys.is_some());
    let mut ending = Ending::default();
    for &(slots, minutes) in &scenario.steps {
        world.begin_step(slots);
        for _ in 0..minutes {
            ending.requests += minute(scenario, &mut world, keys.as_ref(), &mut random);
            world.end_minute();
            if world.minute.is_multiple_of(scenario.look) && world.fails(judged) {
                return Ending { failed_after: Some(ending.requests), ..ending };
            }
        }
    }
    ending
}

/// The requests of a minute; those of the challenger.
fn minute(scenario: &Scenario, world: &mut World, keys: Option<&Keys>, random: &mut Random) -> u64 {
    let (load, trouble, slowness) = scenario.rhythm.at(world.minute);
    let mut of_challenger = 0;
    for _ in 0..random.poisson(scenario.per_minute * load) {
        let key = match keys {
            None => random.next(),
            Some(keys) => keys.draw(random),
        };
        let (unit, is_challenger) = world.unit(key);
        of_challenger += u64::from(is_challenger);
        let outcome = scenario.outcome((key, is_challenger, world.minute), (trouble, slowness), random);
        world.request(unit, is_challenger, outcome);
    }
    of_challenger
}

impl Rhythm {
    /// Factors on requests, errors and durations in a minute.
    fn at(self, minute: u64) -> (f64, f64, f64) {
        match self {
            Rhythm::Steady => (1.0, 1.0, 1.0),
            Rhythm::Bursts if minute % 30 == 17 => (1.0, 20.0, 4.0),
            Rhythm::Bursts => (1.0, 1.0, 1.0),
            Rhythm::Daily { minutes } => {
                let wave = (minute as f64 / minutes * std::f64::consts::TAU).sin();
                (1.0 + 0.8 * wave, 1.0 + 0.9 * wave, 1.0 + 0.5 * wave)
            }
        }
    }
}

impl Scenario {
    fn outcome(
        &self,
        (key, is_challenger, minute): (u64, bool, u64),
        (trouble, slowness): (f64, f64),
        random: &mut Random,
    ) -> Outcome {
        let is_worse = is_challenger && minute >= self.worse_from;
        let (errors, time) =
            if is_worse { (self.challenger_error, self.challenger_time) } else { (1.0, 1.0) };
        if random.chance(self.shed[usize::from(is_challenger)]) {
            return Outcome::Shed;
        }
        // Which keys are special does not depend on the attempt.
        let of_key = mix(key.wrapping_mul(3)) as f64 / u64::MAX as f64;
        if of_key < self.poison || random.chance((self.error * trouble * errors).min(1.0)) {
            return Outcome::Failed;
        }
        let of_key = mix(key.wrapping_mul(5)) as f64 / u64::MAX as f64;
        let slow = if of_key < self.slow { 3.0 } else { 1.0 };
        let run = 2e6 * slow * slowness * time * (0.4 * random.normal()).exp();
        let queue = 0.3e6 * slowness * random.exponential();
        Outcome::Answered { run_ns: run as u64, reply_ns: (run + queue) as u64 }
    }
}
