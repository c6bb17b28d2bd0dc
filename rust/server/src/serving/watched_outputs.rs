//! The outputs that a trial counts: those of the champion that the endpoint's baseline has bins for.
//!
//! Not here: the counting (`headgate_core::trial::outputs`), reading values of an answer (`after::record::output_bins`).

use std::sync::Arc;

use headgate_core::spec::EndpointSpec;
use headgate_core::tensor::{DataType, Signature};
use headgate_core::trial::outputs::{OutputPlace, Reference, VersionOutputs, WatchedFeature, WatchedOutputs};
use headgate_engine::Model;
use headgate_sketch::baseline::FeatureBaseline;
use headgate_sketch::plan::MAX_ELEMENTS;
use headgate_sketch::{Baseline, Direction};

/// The counted outputs of each version of a spec, in the order of `models`; `None` for all if the baseline has none.
pub fn of_versions(
    baseline: Option<&Baseline>,
    spec: &EndpointSpec,
    models: &[Arc<Model>],
) -> Vec<Option<Arc<VersionOutputs>>> {
    let champion = spec.versions.iter().position(|version| version.name == spec.champion);
    let champion = champion.and_then(|index| models.get(index));
    let watched = baseline.zip(champion).and_then(|(baseline, model)| watched(baseline, model.signature()));
    let watched = watched.map(Arc::new);
    let of = |model: &Arc<Model>| {
        let watched = watched.clone()?;
        let places = watched
            .features()
            .iter()
            .map(|feature| place_of(model.signature(), &feature.output, feature.index));
        Some(Arc::new(VersionOutputs { places: places.collect(), watched }))
    };
    models.iter().map(of).collect()
}

/// The features of a baseline that are elements of these outputs.
fn watched(baseline: &Baseline, signature: &Signature) -> Option<WatchedOutputs> {
    let is_element = |feature: &&FeatureBaseline| {
        feature.direction == Direction::Output
            && place_of(signature, &feature.tensor, feature.index).is_some()
    };
    let features = baseline.features().iter().filter(is_element).filter_map(|feature| {
        let apart = [feature.negative_infinity, feature.positive_infinity, feature.missing];
        let reference = Reference { edges: &feature.edges, counts: &feature.counts, apart };
        WatchedFeature::new(&feature.tensor, &feature.column, feature.index, reference)
    });
    WatchedOutputs::new(features.collect())
}

/// The place of an element. Strings, and rows that are too large or of no fixed size, have features that are no elements.
fn place_of(signature: &Signature, tensor: &str, index: u32) -> Option<OutputPlace> {
    let (output, spec) = signature.outputs.iter().enumerate().find(|(_, spec)| spec.name == tensor)?;
    if spec.datatype == DataType::Bytes || spec.any_rank {
        return None;
    }
    let mut rest = spec.shape.get(1..).unwrap_or_default().iter();
    let width = rest.try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))?;
    let element = index as usize;
    (width <= MAX_ELEMENTS && element < width).then_some(OutputPlace { output, element, width })
}

#[cfg(test)]
mod tests {
    use headgate_core::tensor::TensorSpec;
    use headgate_sketch::{Column, fit};
    use serde_json::json;

    use super::*;

    fn signature(outputs: &[(&str, DataType, &[i64])]) -> Signature {
        let spec = |(name, datatype, shape): &(&str, DataType, &[i64])| {
            serde_json::from_value::<TensorSpec>(json!({"name": name, "datatype": datatype, "shape": shape}))
                .unwrap()
        };
        Signature { outputs: outputs.iter().map(spec).collect(), ..Signature::default() }
    }

    fn baseline(features: &[(&str, u32, Direction)]) -> Baseline {
        let columns: Vec<Column> = features
            .iter()
            .map(|(tensor, index, direction)| Column {
                tensor: (*tensor).to_owned(),
                column: format!("{tensor}[{index}]"),
                index: *index,
                direction: *direction,
                integer: false,
            })
            .collect();
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        fit(&columns, &vec![&values[..]; columns.len()]).unwrap()
    }

    #[test]
    fn elements_of_outputs_are_counted_and_nothing_else() {
        let signature = signature(&[
            ("text", DataType::Bytes, &[-1]),
            ("score", DataType::Fp32, &[-1, 2]),
            ("image", DataType::Fp32, &[-1, 100, 100]),
            ("open", DataType::Fp32, &[-1, -1]),
        ]);
        let baseline = baseline(&[
            ("score", 1, Direction::Output),
            ("score", 2, Direction::Output),
            ("score", 0, Direction::Input),
            ("text", 0, Direction::Output),
            ("image", 0, Direction::Output),
            ("open", 0, Direction::Output),
            ("other", 0, Direction::Output),
        ]);
        let found = watched(&baseline, &signature).unwrap();
        let names: Vec<_> = found.features().iter().map(|feature| feature.column.as_str()).collect();
        assert_eq!(names, ["score[1]"]);
        let place = place_of(&signature, "score", 1);
        assert_eq!(place, Some(OutputPlace { output: 1, element: 1, width: 2 }));
    }

    #[test]
    fn a_baseline_of_inputs_counts_nothing() {
        let signature = signature(&[("score", DataType::Fp32, &[-1])]);
        assert_eq!(watched(&baseline(&[("score", 0, Direction::Input)]), &signature), None);
        // An output without a further dimension has one element in a row.
        assert!(watched(&baseline(&[("score", 0, Direction::Output)]), &signature).is_some());
    }
}
