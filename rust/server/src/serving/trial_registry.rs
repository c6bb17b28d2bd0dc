//! The trials of all endpoints. A trial outlives the snapshots that serve it, so that a change of weights or a reload of a version
//! counts on, and ends when no snapshot has it any more.
//!
//! Not here: one trial (`trial`), the counters (`headgate_core::trial`), the booking of requests (`after::record`), the database.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_core::error::{Code, Error, Result};
use headgate_core::feedback::declared::FeedbackSpec;
use headgate_core::slots::SLOTS;
use headgate_core::spec::EndpointSpec;
use headgate_core::trial::arm::TrialArm;
use headgate_core::trial::feedback::GivenFeedback;
use headgate_core::trial::feedback_count::Counted;
use headgate_core::trial::ledger::{ArmName, Ledger, TrialIdentity};
use headgate_core::trial::outputs::VersionOutputs;
use headgate_core::trial::report::Detail;
use headgate_core::trial::units::UnitTable;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::serving::trial::{ArmThresholds, Trial, TrialClock, TrialVersion};

/// The most trials that have ended and stay in memory.
const MAX_ENDED: usize = 256;
/// The most trials of one endpoint that have ended and stay in memory.
const MAX_ENDED_OF_ENDPOINT: usize = 2;

/// The trials of all endpoints, by name.
pub struct TrialRegistry {
    threads: usize,
    trials: Mutex<HashMap<String, Vec<Arc<Trial>>>>,
    /// Set when the gateway stops: what no snapshot has any more goes on with the next start.
    stopping: AtomicBool,
}

/// The thresholds that the control plane sets, in nanoseconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    attempt: String,
    arms: BTreeMap<String, ArmThresholds>,
}

/// The state of a trial as it is stored.
pub struct StoredTrial {
    /// The ledger, as JSON.
    pub ledger: Vec<u8>,
    /// The bytes of the units; empty for an endpoint without sticky key.
    pub units: Vec<u8>,
}

impl TrialRegistry {
    /// An empty registry for a number of IO threads.
    pub fn new(threads: usize) -> TrialRegistry {
        TrialRegistry { threads, trials: Mutex::default(), stopping: AtomicBool::new(false) }
    }

    /// The arms of the versions of a spec, in their order; `None` for each version without slots, and for all if only one has any.
    /// `outputs` gives the names of a version's outputs, and what is counted of them.
    ///
    /// # Errors
    /// `policy_invalid` for a table that is not sound.
    pub fn arms(
        &self,
        spec: &EndpointSpec,
        outputs: impl Fn(usize) -> (Vec<String>, Option<Arc<VersionOutputs>>),
        clock: TrialClock,
    ) -> Result<Vec<Option<Arc<TrialArm>>>> {
        let slots = slots_of(spec)?;
        if slots.iter().filter(|&&slots| slots > 0).count() < 2 {
            self.forget_stored(&spec.name);
            return Ok(vec![None; slots.len()]);
        }
        let versions = spec.versions.iter().enumerate().map(|(index, version)| {
            let (names, outputs) = outputs(index);
            let (version, digest) = (version.name.clone(), version.digest.clone());
            TrialVersion { name: ArmName { version, digest, outputs: names }, outputs }
        });
        let versions: Vec<TrialVersion> = versions.collect();
        let champion =
            versions.iter().map(|version| &version.name).find(|name| name.version == spec.champion);
        let Some(champion) = champion else { return Ok(vec![None; slots.len()]) };
        let mut trials = self.trials();
        let trial = find_or_begin(trials.entry(spec.name.clone()).or_default(), spec, champion, clock);
        if let Some(of_endpoint) = trials.get_mut(&spec.name) {
            of_endpoint.retain(|other| Arc::ptr_eq(other, &trial) || !other.state().is_stored);
        }
        Ok(trial.arms(&versions, &slots, self.threads, clock))
    }

    /// These arms of an endpoint are served from now on.
    pub fn serve(&self, endpoint: &str, arms: &[Arc<TrialArm>]) {
        self.trials().get(endpoint).into_iter().flatten().for_each(|trial| trial.serve(arms));
    }

    /// No trial ends from now on, because the gateway stops.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Collects the counts of the IO threads, and ends trials that no snapshot has any more.
    pub fn collect(&self, clock: TrialClock) {
        let mut trials = self.trials();
        for of_endpoint in trials.values_mut() {
            of_endpoint.retain(|trial| self.collect_one(trial, clock));
            let ended: Vec<u64> =
                of_endpoint.iter().filter_map(|trial| trial.state().ledger.ended_ms).collect();
            forget_ended(of_endpoint, ended, MAX_ENDED_OF_ENDPOINT);
        }
        let ended = trials.values().flatten().filter_map(|trial| trial.state().ledger.ended_ms).collect();
        let least = oldest_that_stays(ended, MAX_ENDED);
        trials.retain(|_, of_endpoint| {
            of_endpoint.retain(|trial| trial.state().ledger.ended_ms.is_none_or(|ended| ended >= least));
            !of_endpoint.is_empty()
        });
    }

    /// What is known of the newest trial of an endpoint, and in short of those before it: `{"trial": ..., "earlier": [...]}`. `served` is
    /// an arm of the snapshot that is served.
    pub fn report(
        &self,
        endpoint: &str,
        served: Option<&Arc<TrialArm>>,
        clock: TrialClock,
        detail: Detail,
    ) -> Value {
        let mut of_endpoint = self.trials().get(endpoint).cloned().unwrap_or_default();
        of_endpoint.retain(|trial| self.collect_one(trial, clock) && !trial.state().is_stored);
        of_endpoint.sort_by_key(|trial| {
            let state = trial.state();
            (state.serves(served), state.ledger.begun_ms)
        });
        let newest = of_endpoint.pop().map(|trial| trial.report(served, clock, detail));
        let earlier = of_endpoint.iter().rev().map(|trial| trial.report(None, clock, Detail::Summary));
        json!({"trial": newest, "earlier": earlier.collect::<Vec<_>>()})
    }

    /// Sets the thresholds of a trial's arms, and begins another window; its number.
    ///
    /// # Errors
    /// `invalid_argument` for other JSON, or a version that is no arm; `not_found` if the endpoint has no such trial.
    pub fn set_thresholds(&self, endpoint: &str, json: &[u8], clock: TrialClock) -> Result<u32> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let thresholds: Thresholds = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| Error::invalid(format!("thresholds: {}: {}", error.path(), error.inner())))?;
        let of_endpoint = self.trials().get(endpoint).cloned().unwrap_or_default();
        let running = of_endpoint.iter().find(|trial| {
            let state = trial.state();
            !state.live.is_empty() && state.ledger.identity.attempt == thresholds.attempt
        });
        let trial = running.ok_or_else(|| {
            let words = format!("endpoint {endpoint:?} has no trial of attempt {:?} now", thresholds.attempt);
            Error::new(Code::NotFound, words)
        })?;
        trial.set_thresholds(&thresholds.arms, clock)
    }

    /// Counts feedback on an answer of the trial with that tag. `None` if the trial is not in memory any more.
    pub fn add_feedback(
        &self,
        endpoint: &str,
        tag: u32,
        (name, spec): (&str, &FeedbackSpec),
        given: GivenFeedback,
    ) -> Option<Counted> {
        let of_endpoint = self.trials().get(endpoint).cloned()?;
        let mut known = of_endpoint.iter().rev();
        let trial = known.find(|trial| trial.state().ledger.identity.tag() == tag)?;
        Some(trial.add_feedback(name, spec, given))
    }

    /// Every trial with the number of its newest change: `[{"endpoint", "begun_ms", "ended_ms", "changes"}]`.
    pub fn list(&self, clock: TrialClock) -> Value {
        self.collect(clock);
        let trials = self.trials();
        let listed =
            trials.iter().flat_map(|(name, of_endpoint)| of_endpoint.iter().map(move |trial| (name, trial)));
        listed
            .filter_map(|(name, trial)| {
                let state = trial.state();
                let Ledger { begun_ms, ended_ms, .. } = state.ledger;
                (!state.is_stored).then(|| {
                    json!({"endpoint": name, "begun_ms": begun_ms, "ended_ms": ended_ms, "changes": state.changes})
                })
            })
            .collect()
    }

    /// The present state of the trial that began then, for a store.
    pub fn stored(&self, endpoint: &str, begun_ms: u64, clock: TrialClock) -> Option<StoredTrial> {
        let of_endpoint = self.trials().get(endpoint).cloned()?;
        let trial = of_endpoint.iter().find(|trial| trial.state().ledger.begun_ms == begun_ms)?;
        self.collect_one(trial, clock);
        let ledger = {
            let mut state = trial.state();
            state.ledger.written_ms = clock.now_ms();
            serde_json::to_vec(&state.ledger).ok()?
        };
        // After the ledger: a unit whose error is in the ledger must not count again after a restart.
        let units = trial.shared.units.as_ref().map(UnitTable::to_bytes).unwrap_or_default();
        Some(StoredTrial { ledger, units })
    }

    /// Takes in a trial that was stored. It goes on if the endpoint is served with it again.
    ///
    /// # Errors
    /// `invalid_argument` for a state that cannot be read.
    pub fn restore(&self, endpoint: &str, stored: &StoredTrial) -> Result<()> {
        let ledger: Ledger = serde_json::from_slice(&stored.ledger)
            .map_err(|error| Error::invalid(format!("the trial of endpoint {endpoint:?}: {error}")))?;
        let units = match ledger.identity.sticky {
            None => Some(None),
            Some(_) => UnitTable::from_bytes(&stored.units).map(Some),
        };
        let Some(units) = units.filter(|_| ledger.is_sound()) else {
            return Err(Error::invalid(format!("the trial of endpoint {endpoint:?} contradicts itself")));
        };
        let mut trials = self.trials();
        let of_endpoint = trials.entry(endpoint.to_owned()).or_default();
        let begun_ms = ledger.begun_ms;
        let known = |trial: &Arc<Trial>| {
            let state = trial.state();
            state.ledger.begun_ms == begun_ms || state.ledger.identity == ledger.identity
        };
        if !of_endpoint.iter().any(known) {
            of_endpoint.push(Arc::new(Trial::new(ledger, units, true)));
        }
        Ok(())
    }

    /// The arms that `served` has, by endpoint, with the totals of their trial: what metrics show.
    pub fn summaries<'a>(
        &self,
        served: impl Iterator<Item = (&'a str, &'a Arc<TrialArm>)>,
        clock: TrialClock,
    ) -> Vec<(String, Value)> {
        let reports = served.map(|(endpoint, arm)| {
            let mut report = self.report(endpoint, Some(arm), clock, Detail::Summary);
            (endpoint.to_owned(), report["trial"].take())
        });
        reports.collect()
    }

    /// Collects the counts of one trial. False if it is to be forgotten.
    fn collect_one(&self, trial: &Trial, clock: TrialClock) -> bool {
        trial.collect(clock);
        self.stopping.load(Relaxed) || trial.end_if_unserved(clock)
    }

    /// Forgets what was stored of an endpoint that is served without a trial.
    fn forget_stored(&self, endpoint: &str) {
        if let Some(of_endpoint) = self.trials().get_mut(endpoint) {
            of_endpoint.retain(|trial| !trial.state().is_stored);
        }
    }

    fn trials(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Trial>>>> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slots of each version of a spec.
fn slots_of(spec: &EndpointSpec) -> Result<Vec<u16>> {
    let weights = spec.table.weights()?;
    let given: u16 = weights.values().sum();
    let slots = |name: &str| match weights.get(name) {
        Some(&slots) => slots,
        None if name == spec.champion => SLOTS as u16 - given,
        None => 0,
    };
    Ok(spec.versions.iter().map(|version| slots(&version.name)).collect())
}

fn find_or_begin(
    of_endpoint: &mut Vec<Arc<Trial>>,
    spec: &EndpointSpec,
    champion: &ArmName,
    clock: TrialClock,
) -> Arc<Trial> {
    let identity = TrialIdentity {
        attempt: spec.table.salt.clone(),
        champion: champion.version.clone(),
        digest: champion.digest.clone(),
        sticky: spec.sticky.clone(),
    };
    if let Some(trial) = of_endpoint.iter().find(|trial| trial.state().ledger.identity == identity) {
        return trial.clone();
    }
    // The number by which it is stored is its own.
    let newest = of_endpoint.iter().map(|trial| trial.state().ledger.begun_ms).max();
    let begun_ms = newest.map_or(clock.now_ms(), |newest| clock.now_ms().max(newest + 1));
    let units = identity.sticky.is_some().then(UnitTable::default);
    let trial = Arc::new(Trial::new(Ledger::new(identity, champion.clone(), begun_ms), units, false));
    of_endpoint.push(trial.clone());
    trial
}

/// Forgets the oldest trials that have ended, beyond `most`.
fn forget_ended(of_endpoint: &mut Vec<Arc<Trial>>, ended: Vec<u64>, most: usize) {
    let least = oldest_that_stays(ended, most);
    of_endpoint.retain(|trial| trial.state().ledger.ended_ms.is_none_or(|ended| ended >= least));
}

/// The time before which nothing stays, so that the newest `most` do.
fn oldest_that_stays(mut times: Vec<u64>, most: usize) -> u64 {
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.get(most - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use headgate_core::trial::outputs::{Reference, WatchedFeature, WatchedOutputs};

    use super::*;

    const CLOCK: TrialClock = TrialClock { now_ns: 0, epoch_unix_ms: 0 };

    fn outputs(edges: &[f64]) -> Option<Arc<VersionOutputs>> {
        let counts = vec![5; edges.len() + 1];
        let feature = WatchedFeature::new("y", "0", 0, Reference { edges, counts: &counts, apart: [0; 3] });
        let watched = Arc::new(WatchedOutputs::new(vec![feature?])?);
        Some(Arc::new(VersionOutputs { places: vec![None], watched }))
    }

    fn arms(registry: &TrialRegistry, outputs: &Option<Arc<VersionOutputs>>) -> Vec<Arc<TrialArm>> {
        let spec = json!({
            "name": "e", "revision": 1, "load": {"versions": ["v1", "v2"]},
            "spec": {
                "versions": {"v1": {"digest": "a"}, "v2": {"digest": "b"}},
                "traffic": {"champion": "v1"}, "limits": {"timeout": 1000},
            },
            "traffic": {"champion": "v1", "last_good": "v1", "table": {"salt": "e/1", "given": [["v2", 0, 4999]]}},
        });
        let spec = EndpointSpec::from_json(spec.to_string().as_bytes()).unwrap();
        let found = registry.arms(&spec, |_| (vec!["y".to_owned()], outputs.clone()), CLOCK);
        found.unwrap().into_iter().flatten().collect()
    }

    #[test]
    fn a_build_that_is_not_served_takes_no_counted_outputs_away() {
        let registry = TrialRegistry::new(1);
        let bins = |served: &Arc<TrialArm>| {
            let report = registry.report("e", Some(served), CLOCK, Detail::Summary);
            report["trial"]["outputs"]["features"][0]["bins"].clone()
        };
        let served = arms(&registry, &outputs(&[0.0]));
        registry.serve("e", &served);
        let first = bins(&served[0]);
        assert!(first.is_u64(), "{first}");
        let later = arms(&registry, &outputs(&[0.0, 1.0, 2.0]));
        assert_eq!(bins(&served[0]), first);
        registry.serve("e", &later);
        assert_ne!(bins(&later[0]), first);
    }
}
