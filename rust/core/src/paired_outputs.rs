//! How the outputs of two versions are distributed that answered the same requests: the copies of a shadow.
//!
//! Not here: versions that answer different requests (`trial::output_ledger`), what is decided on it (`gates::output_drift`).

use serde_json::{Value, json};

use crate::stats::difference_sequence::DifferenceSums;
use crate::trial::outputs::{OutputBins, WatchedOutputs};

/// The pairs of answers, by feature.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedOutputs {
    features: Vec<PairedFeature>,
    left_out: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct PairedFeature {
    output: String,
    column: String,
    pairs: u64,
    sums: DifferenceSums,
}

impl PairedOutputs {
    /// No pairs yet.
    pub fn new(watched: &WatchedOutputs) -> PairedOutputs {
        let features = watched.features().iter().map(|feature| PairedFeature {
            output: feature.output.clone(),
            column: feature.column.clone(),
            pairs: 0,
            sums: DifferenceSums::new(feature.bins()),
        });
        PairedOutputs { features: features.collect(), left_out: watched.left_out }
    }

    /// Adds the answers of champion and challenger to one request. A feature that one of them lacks is not compared.
    pub fn add(&mut self, champion: OutputBins, challenger: OutputBins) {
        for (number, feature) in self.features.iter_mut().enumerate() {
            if let (Some(first), Some(second)) = (champion.get(number), challenger.get(number)) {
                feature.pairs += 1;
                feature.sums.add_pair([first, second]);
            }
        }
    }

    /// As a trial tells its outputs, for `champion` and `challenger`.
    pub fn report(&self) -> Value {
        let features = self.features.iter().map(|PairedFeature { output, column, pairs, sums }| {
            json!({
                "output": output, "column": column, "bins": sums.sums.len(),
                "values": {"champion": pairs, "challenger": pairs}, "sums": {"challenger": sums},
            })
        });
        json!({"features": features.collect::<Vec<_>>(), "left_out": self.left_out})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gates::report::judge_json;
    use crate::trial::outputs::{Reference, WatchedFeature};

    fn watched() -> WatchedOutputs {
        let feature = |name: &str| {
            let reference = Reference { edges: &[0.0, 1.0], counts: &[5, 5, 5], apart: [0; 3] };
            WatchedFeature::new(name, name, 0, reference).unwrap()
        };
        WatchedOutputs::new(vec![feature("score"), feature("other")]).unwrap()
    }

    fn bins(feature: usize, bin: u16) -> OutputBins {
        let mut bins = OutputBins::default();
        bins.set(feature, bin);
        bins
    }

    fn judged(outputs: &PairedOutputs, gate: &Value) -> Value {
        let evidence =
            json!({"format": 1, "champion": "v7", "challenger": "v8", "pairs": outputs.report()}).to_string();
        let question = json!({"challenger": "v8", "false_rollbacks": 0.01, "gates": [gate]}).to_string();
        let answer: Value = serde_json::from_str(&judge_json(&evidence, &question).unwrap()).unwrap();
        answer["gates"][0].clone()
    }

    #[test]
    fn pairs_of_which_many_move_fail_and_a_gate_on_events_has_nothing() {
        let mut outputs = PairedOutputs::new(&watched());
        let gate = json!({"gate": "output_drift.score", "above": 0.1});
        let nothing = judged(&outputs, &gate);
        assert_eq!(nothing["verdict"], "undecided");
        assert!(nothing["reason"].as_str().unwrap().contains("no answer of v8"), "{nothing}");
        for pair in 0..400 {
            let moved = if pair % 2 == 0 { 3 } else { 1 };
            outputs.add(bins(0, 1), bins(0, moved));
        }
        let found = judged(&outputs, &gate);
        assert_eq!((&found["verdict"], &found["distance"]), (&json!("fail"), &json!(0.5)), "{found}");
        assert_eq!(found["challenger"]["n"], 400);
        // Of the other feature no version has a value.
        assert_eq!(
            judged(&outputs, &json!({"gate": "output_drift.other", "above": 0.1}))["challenger"]["n"],
            0
        );
        assert_eq!(judged(&outputs, &json!({"gate": "error_rate", "above": 2}))["verdict"], "undecided");
    }

    #[test]
    fn pairs_that_agree_pass() {
        let mut outputs = PairedOutputs::new(&watched());
        for pair in 0..400 {
            let bin = if pair % 3 == 0 { 1 } else { 2 };
            outputs.add(bins(0, bin), bins(0, bin));
        }
        // Also if there is an output that one of them lacks.
        for gate in ["output_drift.score", "output_drift"] {
            let found = judged(&outputs, &json!({"gate": gate, "above": 0.1}));
            assert_eq!((&found["verdict"], &found["distance"]), (&json!("pass"), &json!(0.0)), "{found}");
        }
    }
}
