//! Checks that a document fits the models that it names. A new document is checked; a state that was served before is served again
//! without a check.

use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::tensor::{Signature, TensorSpec};

use crate::serving::load_versions::LoadFailure;
use crate::serving::named_tensors::{self, invalid};

/// Checks a spec against the signatures of its versions, which are in the same order.
///
/// # Errors
/// As `named_tensors::check`; `policy_invalid` if the signature of a version differs from the champion's and the document does not
/// allow that.
pub fn check(spec: &EndpointSpec, signatures: &[&Signature]) -> std::result::Result<(), LoadFailure> {
    named_tensors::check(spec, signatures).map_err(|error| LoadFailure { version: String::new(), error })?;
    compatible(spec, signatures)
}

fn compatible(spec: &EndpointSpec, signatures: &[&Signature]) -> std::result::Result<(), LoadFailure> {
    let is_champion = |version: &VersionSpec| version.name == spec.champion && version.artifact.is_some();
    let Some(champion) = spec.versions.iter().position(is_champion) else { return Ok(()) };
    let champion = signatures[champion];
    let models = spec.versions.iter().zip(signatures).filter(|(version, _)| version.artifact.is_some());
    for (version, signature) in models {
        let Some(reason) = describe_difference(signature, champion) else { continue };
        let reason = format!("{reason} in the champion {}", spec.champion);
        let stands_in = spec.fallback.as_ref().is_some_and(|fallback| fallback.to().contains(&version.name));
        let error = if !version.compatible && stands_in {
            // A caller of the champion would get an error for its inputs, or outputs that it does not expect.
            invalid("traffic.fallback.to", format!("{} cannot stand in: {reason}", version.name))
        } else if !version.compatible {
            continue;
        } else {
            let hint = "write compatible: false where callers know that";
            invalid(&format!("versions.{}", version.name), format!("{reason}; {hint}"))
        };
        return Err(LoadFailure { error, version: version.name.clone() });
    }
    Ok(())
}

/// Whether every request that fits the inputs of `one` fits those of `other`, with any optional inputs.
pub fn accepts_same_inputs(one: &Signature, other: &Signature) -> bool {
    let is_taken = |spec: &TensorSpec| {
        other.all_inputs().any(|taken| taken.name == spec.name && same_type_and_shape(taken, spec))
    };
    // Compared as a whole first: mostly nothing differs, and the search among thousands of optional inputs takes long.
    let same = one.inputs == other.inputs && one.optional_inputs == other.optional_inputs;
    same || difference("input", &inputs(other), &inputs(one)).is_none()
        && one.optional_inputs.iter().all(is_taken)
}

/// How a version differs from the champion, in words. Optional inputs do not count: an exporter may list all weights of a model there,
/// and callers leave them out if versions differ in them.
fn describe_difference(version: &Signature, champion: &Signature) -> Option<String> {
    difference("input", &inputs(version), &inputs(champion))
        .or_else(|| difference("output", &required(&version.outputs), &required(&champion.outputs)))
}

fn inputs(signature: &Signature) -> Vec<SignatureTensor<'_>> {
    let optional = signature.optional_inputs.iter().map(SignatureTensor::Optional);
    required(&signature.inputs).into_iter().chain(optional).collect()
}

fn required(specs: &[TensorSpec]) -> Vec<SignatureTensor<'_>> {
    specs.iter().map(SignatureTensor::Required).collect()
}

/// A tensor of a signature.
#[derive(Clone, Copy)]
enum SignatureTensor<'a> {
    Required(&'a TensorSpec),
    Optional(&'a TensorSpec),
}

impl<'a> SignatureTensor<'a> {
    fn spec(self) -> &'a TensorSpec {
        let (SignatureTensor::Required(spec) | SignatureTensor::Optional(spec)) = self;
        spec
    }

    fn is_required(self) -> bool {
        matches!(self, SignatureTensor::Required(_))
    }
}

impl std::fmt::Display for SignatureTensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TensorSpec { datatype, shape, any_rank, .. } = self.spec();
        let optional = if self.is_required() { "" } else { "optional " };
        match any_rank {
            true => write!(f, "{optional}{datatype} of any rank"),
            false => write!(f, "{optional}{datatype} {shape:?}"),
        }
    }
}

/// Whether two tensors have the same type and shape. The names of dimensions do not matter.
fn same_type_and_shape(one: &TensorSpec, other: &TensorSpec) -> bool {
    (one.datatype, &one.shape, one.any_rank) == (other.datatype, &other.shape, other.any_rank)
}

/// The first tensor that the champion or the challenger requires and that differs between them. The order of tensors does not matter.
fn difference(
    what: &str,
    challenger: &[SignatureTensor<'_>],
    champion: &[SignatureTensor<'_>],
) -> Option<String> {
    let named = |tensors: &[SignatureTensor<'_>], name: &str| {
        tensors.iter().position(|tensor| tensor.spec().name == name)
    };
    let shown = |tensor: Option<SignatureTensor<'_>>| {
        tensor.map_or("missing".to_owned(), |tensor| tensor.to_string())
    };
    champion.iter().chain(challenger).filter(|tensor| tensor.is_required()).find_map(|tensor| {
        let name = &tensor.spec().name;
        let own = named(challenger, name).map(|at| challenger[at]);
        let champions = named(champion, name).map(|at| champion[at]);
        let same = own.zip(champions).is_some_and(|(own, champions)| {
            same_type_and_shape(own.spec(), champions.spec())
                && (champions.is_required() || !own.is_required())
        });
        (!same).then(|| format!("{what} {name:?} is {}, and {}", shown(own), shown(champions)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use headgate_core::tensor::DataType;

    fn tensor(name: &str, shape: &[i64]) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: shape.into(),
            symbols: Vec::new(),
            any_rank: false,
            labels: Vec::new(),
        }
    }

    fn signature(inputs: &[&TensorSpec], outputs: &[&TensorSpec]) -> Signature {
        let owned = |tensors: &[&TensorSpec]| tensors.iter().copied().cloned().collect();
        Signature { inputs: owned(inputs), outputs: owned(outputs), ..Signature::default() }
    }

    fn spec(more: &str) -> EndpointSpec {
        let json = format!(
            r#"{{"name": "e", "revision": 1,
                "spec": {{"versions": {{"v1": {{"digest": "1"}}, "v2": {{"digest": "2"{more}}}}},
                    "traffic": {{"champion": "v1"}}, "limits": {{"timeout": 1}}}},
                "traffic": {{"champion": "v1", "last_good": "v1"}},
                "load": {{"versions": ["v1", "v2"], "artifacts": {{"v1": "1", "v2": "2"}}}}}}"#
        );
        EndpointSpec::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_version_with_another_signature_must_be_declared() {
        let [x, y] = [tensor("x", &[-1, 4]), tensor("y", &[-1, 3])];
        let champion = signature(&[&x, &y], &[&y]);
        assert!(compatible(&spec(""), &[&champion, &signature(&[&y, &x], &[&y])]).is_ok());
        let integers = TensorSpec { datatype: DataType::Int64, ..x.clone() };
        let (wider, more) = (tensor("x", &[-1, 5]), tensor("z", &[-1]));
        for (other, says) in [
            (signature(&[&wider, &y], &[&y]), "input \"x\" is FP32 [-1, 5], and FP32 [-1, 4]"),
            (signature(&[&integers, &y], &[&y]), "input \"x\" is INT64 [-1, 4], and FP32 [-1, 4]"),
            (signature(&[&x], &[&y]), "input \"y\" is missing, and FP32 [-1, 3]"),
            (signature(&[&x, &y], &[&y, &more]), "output \"z\" is FP32 [-1], and missing"),
        ] {
            let LoadFailure { version, error } = compatible(&spec(""), &[&champion, &other]).unwrap_err();
            assert_eq!(version, "v2");
            assert!(error.message.starts_with(&format!("versions.v2: {says} in the champion v1")), "{error}");
            assert!(compatible(&spec(r#", "compatible": false"#), &[&champion, &other]).is_ok());
        }
    }

    #[test]
    fn optional_inputs_are_no_difference_unless_the_champion_requires_them_or_the_challenger_does() {
        let [x, k, other] = [tensor("x", &[-1, 4]), tensor("k", &[2]), tensor("k", &[3])];
        let plain = signature(&[&x], &[]);
        let optional = |k: &TensorSpec| Signature { optional_inputs: vec![k.clone()], ..plain.clone() };
        let required = signature(&[&x, &k], &[]);
        for (champion, challenger) in [
            (&plain, &optional(&k)),
            (&optional(&k), &plain),
            (&optional(&k), &optional(&other)),
            (&required, &optional(&k)),
        ] {
            assert_eq!(describe_difference(challenger, champion), None);
        }
        let says = |champion: &_, challenger: &_| describe_difference(challenger, champion).unwrap();
        assert_eq!(says(&optional(&k), &required), "input \"k\" is FP32 [2], and optional FP32 [2]");
        assert_eq!(says(&required, &optional(&other)), "input \"k\" is optional FP32 [3], and FP32 [2]");
        assert!(
            accepts_same_inputs(&plain, &optional(&k)) && accepts_same_inputs(&optional(&k), &optional(&k))
        );
        assert!(
            !accepts_same_inputs(&optional(&k), &plain)
                && !accepts_same_inputs(&optional(&k), &optional(&other))
        );
        assert!(
            accepts_same_inputs(&required, &optional(&k)) && !accepts_same_inputs(&optional(&k), &required)
        );
    }

    #[test]
    fn a_champion_that_may_differ_does_not_allow_others_to_differ() {
        let [x, y] = [tensor("x", &[-1, 4]), tensor("x", &[-1, 5])];
        let (ours, other) = (signature(&[&x], &[]), signature(&[&y], &[]));
        let mut spec = spec("");
        spec.versions[0].compatible = false;
        assert_eq!(compatible(&spec, &[&ours, &other]).unwrap_err().version, "v2");
        assert!(compatible(&spec, &[&ours, &ours]).is_ok());
    }

    #[test]
    fn a_fallback_must_accept_the_inputs_of_the_champion() {
        let [x, y] = [tensor("x", &[-1, 4]), tensor("x", &[-1, 5])];
        let (ours, other) = (signature(&[&x], &[]), signature(&[&y], &[]));
        let mut spec = spec(r#", "compatible": false"#);
        spec.fallback = Some(serde_json::from_str(r#"{"to": ["v2"]}"#).unwrap());
        let error = compatible(&spec, &[&ours, &other]).unwrap_err().error;
        assert!(error.message.starts_with("traffic.fallback.to: v2 cannot stand in"), "{error}");
        assert!(compatible(&spec, &[&ours, &ours]).is_ok());
    }
}
