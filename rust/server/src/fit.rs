//! Whether a document fits the models that it names. Looked at when somebody asks for it; what was served before is served again
//! without being judged anew.

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::tensor::{Signature, TensorSpec};
use headgate_engine::Model;

use crate::version::LoadFailure;

/// Checks everything.
///
/// # Errors
/// `policy_invalid` for names of classes or columns that their tensor does not have, and for a version that takes or gives
/// something else than the champion without saying so.
pub fn check(spec: &EndpointSpec, models: &[Arc<Model>]) -> std::result::Result<(), LoadFailure> {
    let signatures: Vec<&Signature> = models.iter().map(|model| model.signature()).collect();
    let named = labels(spec, &signatures).and_then(|()| columns(spec, &signatures));
    named.map_err(|error| LoadFailure { version: String::new(), error })?;
    compatible(spec, &signatures)
}

fn wrong(path: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Code::PolicyInvalid, format!("{path}: {why}"))
}

fn labels(spec: &EndpointSpec, signatures: &[&Signature]) -> Result<()> {
    let outputs: Vec<&TensorSpec> = signatures.iter().flat_map(|signature| &signature.outputs).collect();
    for (tensor, names) in &spec.labels {
        let path = format!("labels.{tensor}");
        let found = of_name(&outputs, tensor)
            .map_err(|known| wrong(&path, format!("is no output of any version; there are {known}")))?;
        for output in found {
            if let Some(classes) = classes(output).filter(|&classes| classes != names.len()) {
                let count = names.len();
                return Err(wrong(&path, format!("has {count} names, and the output has {classes} classes")));
            }
        }
    }
    Ok(())
}

fn columns(spec: &EndpointSpec, signatures: &[&Signature]) -> Result<()> {
    let tensors = signatures.iter().flat_map(|signature| signature.inputs.iter().chain(&signature.outputs));
    let tensors: Vec<&TensorSpec> = tensors.collect();
    for (tensor, names) in &spec.columns {
        let path = format!("columns.{tensor}");
        let found = of_name(&tensors, tensor)
            .map_err(|known| wrong(&path, format!("is no tensor of any version; there are {known}")))?;
        for tensor in found {
            let count = names.len();
            match row(tensor) {
                Some(elements) if elements == count => {}
                Some(elements) => {
                    return Err(wrong(
                        &path,
                        format!("has {count} names, and a row has {elements} elements"),
                    ));
                }
                None => {
                    let why = "has names, but the model leaves open how many elements a row has";
                    return Err(wrong(&path, why));
                }
            }
        }
    }
    Ok(())
}

/// The tensors of that name.
///
/// # Errors
/// The names that there are, when there is none.
fn of_name<'a>(tensors: &[&'a TensorSpec], name: &str) -> std::result::Result<Vec<&'a TensorSpec>, String> {
    let found: Vec<_> = tensors.iter().filter(|tensor| tensor.name == name).copied().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut known: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    Err(known.join(", "))
}

/// The values of a row, which are the classes of an output; `None` where the shape leaves that open. A shape of one dimension
/// is one row.
fn classes(output: &TensorSpec) -> Option<usize> {
    if output.shape.len() > 1 || output.any_rank { row(output) } else { product(&output.shape) }
}

/// The elements of a row; `None` where the model leaves that open.
fn row(tensor: &TensorSpec) -> Option<usize> {
    if tensor.any_rank { None } else { product(tensor.shape.get(1..).unwrap_or_default()) }
}

fn product(sizes: &[i64]) -> Option<usize> {
    sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(usize::try_from(size).ok()?))
}

fn compatible(spec: &EndpointSpec, signatures: &[&Signature]) -> std::result::Result<(), LoadFailure> {
    let is_champion = |version: &VersionSpec| version.name == spec.champion && version.artifact.is_some();
    let Some(champion) = spec.versions.iter().position(is_champion) else { return Ok(()) };
    let champion = signatures[champion];
    let models = spec.versions.iter().zip(signatures).filter(|(version, _)| version.artifact.is_some());
    for (version, signature) in models {
        let Some(why) = differs(signature, champion) else { continue };
        let why = format!("{why} in the champion {}", spec.champion);
        let stands_in = spec.fallback.as_ref().is_some_and(|fallback| fallback.to().contains(&version.name));
        let error = if !version.compatible && stands_in {
            // Whoever asked for the champion would be told that the request is wrong, or get another answer than he reads.
            wrong("traffic.fallback.to", format!("{} cannot stand in: {why}", version.name))
        } else if !version.compatible {
            continue;
        } else {
            let hint = "write compatible: false where callers know that";
            wrong(&format!("versions.{}", version.name), format!("{why}; {hint}"))
        };
        return Err(LoadFailure { error, version: version.name.clone() });
    }
    Ok(())
}

/// Whether what fits one version's inputs fits the other's.
pub fn takes_the_same(one: &Signature, other: &Signature) -> bool {
    difference("input", &one.inputs, &other.inputs).is_none()
}

/// How a version differs from the champion, in words.
fn differs(version: &Signature, champion: &Signature) -> Option<String> {
    difference("input", &version.inputs, &champion.inputs)
        .or_else(|| difference("output", &version.outputs, &champion.outputs))
}

/// What the first tensor is that is not the same; names of dimensions and the order of tensors do not matter.
fn difference(what: &str, challenger: &[TensorSpec], champion: &[TensorSpec]) -> Option<String> {
    let shown = |tensor: Option<&TensorSpec>| {
        tensor.map_or("missing".to_owned(), |tensor| match tensor.any_rank {
            true => format!("{} of any rank", tensor.datatype),
            false => format!("{} {:?}", tensor.datatype, tensor.shape),
        })
    };
    let named = |tensors: &'_ [TensorSpec], name: &str| tensors.iter().position(|tensor| tensor.name == name);
    champion.iter().chain(challenger).find_map(|tensor| {
        let mine = named(challenger, &tensor.name).map(|at| &challenger[at]);
        let theirs = named(champion, &tensor.name).map(|at| &champion[at]);
        let same = mine.zip(theirs).is_some_and(|(mine, theirs)| {
            (mine.datatype, &mine.shape, mine.any_rank) == (theirs.datatype, &theirs.shape, theirs.any_rank)
        });
        (!same).then(|| format!("{what} {:?} is {}, and {}", tensor.name, shown(mine), shown(theirs)))
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
        Signature { inputs: owned(inputs), outputs: owned(outputs) }
    }

    fn spec(more: &str) -> EndpointSpec {
        let json = format!(
            r#"{{"name": "e", "revision": 1, "champion": "v1", "timeout_ms": 1, "versions": [
                {{"name": "v1", "digest": "1", "artifact": "1"}},
                {{"name": "v2", "digest": "2", "artifact": "2"{more}}}]}}"#
        );
        EndpointSpec::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_version_that_takes_or_gives_something_else_says_so() {
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
    fn a_champion_that_is_unlike_others_excuses_only_itself() {
        let [x, y] = [tensor("x", &[-1, 4]), tensor("x", &[-1, 5])];
        let (ours, other) = (signature(&[&x], &[]), signature(&[&y], &[]));
        let mut spec = spec("");
        spec.versions[0].compatible = false;
        assert_eq!(compatible(&spec, &[&ours, &other]).unwrap_err().version, "v2");
        assert!(compatible(&spec, &[&ours, &ours]).is_ok());
    }

    #[test]
    fn who_stands_in_takes_what_the_champion_takes() {
        let [x, y] = [tensor("x", &[-1, 4]), tensor("x", &[-1, 5])];
        let (ours, other) = (signature(&[&x], &[]), signature(&[&y], &[]));
        let mut spec = spec(r#", "compatible": false"#);
        spec.fallback = Some(serde_json::from_str(r#"{"to": ["v2"]}"#).unwrap());
        let error = compatible(&spec, &[&ours, &other]).unwrap_err().error;
        assert!(error.message.starts_with("traffic.fallback.to: v2 cannot stand in"), "{error}");
        assert!(compatible(&spec, &[&ours, &ours]).is_ok());
    }

    #[test]
    fn classes_are_the_values_of_a_row() {
        for (shape, wanted) in [
            (&[-1, 1000, 1, 1][..], Some(1000)),
            (&[-1, 4, 10], Some(40)),
            (&[10], Some(10)),
            (&[-1, 2, -1], None),
            (&[-1], None),
        ] {
            assert_eq!(classes(&tensor("y", shape)), wanted, "{shape:?}");
        }
    }
}
