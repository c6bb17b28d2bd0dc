//! How the tensors of two versions belong together: which inputs of a request another version takes, and which outputs are compared.
//!
//! Tensors belong together by name. Outputs that the document does not name are compared as well: floats within 0.1 %, all else exactly.
//! Next: `pair_run`, `comparing`.

use std::collections::BTreeMap;

use headgate_core::comparison::{Comparison, DEFAULT_FOR_FLOATS};
use headgate_core::tensor::{DataType, Signature, TensorSpec};
use headgate_engine::BufferLease;
use headgate_engine::runtime::TensorView;

use crate::shadow::pair::RecordedPair;

/// How the tensors of the version that was asked and of another one belong together.
#[derive(Debug)]
pub struct Pairing {
    /// For each required input of the request: where the other version takes it. `None` if it does not.
    required: Vec<Option<Slot>>,
    /// The same for each optional input.
    optional: Vec<Option<Slot>>,
    /// The required inputs of the other version.
    wanted: usize,
    /// The other version's inputs, for the shapes that they take.
    inputs: Signature,
    /// The outputs that are compared.
    pub outputs: Vec<OutputPairing>,
}

/// An input of the other version, by its index among the required or the optional ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Required(usize),
    Optional(usize),
}

/// An output that is compared.
#[derive(Clone, Debug)]
pub struct OutputPairing {
    /// Its name.
    pub name: String,
    /// Its index among the outputs of the version that was asked.
    pub asked: usize,
    /// Its index among the other version's outputs.
    pub other: usize,
    /// How it is compared.
    pub comparison: Comparison,
    /// The names of its classes, if it has some.
    pub labels: Vec<String>,
}

/// What the document says of outputs.
#[derive(Clone, Copy)]
pub struct OutputRules<'a> {
    /// How outputs are compared, by name.
    pub compare: &'a BTreeMap<String, Comparison>,
    /// The names of their classes.
    pub labels: &'a BTreeMap<String, Vec<String>>,
}

/// Why two versions cannot be compared, or not over one request.
pub type Mismatch = String;

impl Pairing {
    /// How requests to a version with the signature `asked` belong to the version with the signature `other`.
    ///
    /// # Errors
    /// The first tensor that does not fit, in words.
    pub fn new(asked: &Signature, other: &Signature, rules: OutputRules<'_>) -> Result<Pairing, Mismatch> {
        let slots = |specs: &[TensorSpec]| specs.iter().map(|spec| slot(spec, other)).collect();
        let (required, optional): (Vec<_>, Vec<_>) = (slots(&asked.inputs), slots(&asked.optional_inputs));
        for (index, spec) in other.inputs.iter().enumerate() {
            let taken = required.iter().chain(&optional).any(|slot| *slot == Some(Slot::Required(index)));
            if !taken {
                return Err(missing_input(spec, asked));
            }
        }
        let outputs = outputs(asked, other, rules)?;
        let inputs = Signature { outputs: Vec::new(), ..other.clone() };
        Ok(Pairing { required, optional, wanted: other.inputs.len(), inputs, outputs })
    }

    /// How the version that was asked belongs to itself, over the outputs that are compared.
    pub fn of_asked_alone(&self, asked: &Signature) -> Pairing {
        let slots = |count: usize, slot: fn(usize) -> Slot| (0..count).map(slot).map(Some).collect();
        let outputs =
            self.outputs.iter().map(|output| OutputPairing { other: output.asked, ..output.clone() });
        Pairing {
            required: slots(asked.inputs.len(), Slot::Required),
            optional: slots(asked.optional_inputs.len(), Slot::Optional),
            wanted: asked.inputs.len(),
            inputs: Signature { outputs: Vec::new(), ..asked.clone() },
            outputs: outputs.collect(),
        }
    }

    /// Fills the inputs of the other version with those of a request.
    ///
    /// # Errors
    /// Why the version does not take them, in words.
    pub fn fill(&self, pair: &dyn RecordedPair, lease: &mut BufferLease) -> Result<(), Mismatch> {
        lease.binding_mut().clear_optional_inputs();
        let mut filled = 0;
        for (index, slot) in self.required.iter().enumerate() {
            let Some(slot) = *slot else { continue };
            let view = pair.input(index).map_err(|error| error.message.into_owned())?;
            self.fill_one(slot, &view, lease)?;
            filled += usize::from(matches!(slot, Slot::Required(_)));
        }
        for (index, view) in pair.optional_inputs().map_err(|error| error.message.into_owned())? {
            let Some(slot) = self.optional.get(index).copied().flatten() else {
                let name = &pair.signature().optional_inputs[index].name;
                return Err(format!("a request gives the input {name:?}, which this version does not take"));
            };
            self.fill_one(slot, &view, lease)?;
            filled += usize::from(matches!(slot, Slot::Required(_)));
        }
        if filled < self.wanted {
            return Err("a request leaves out an input that this version must have".to_owned());
        }
        Ok(())
    }

    fn fill_one(&self, slot: Slot, view: &TensorView<'_>, lease: &mut BufferLease) -> Result<(), Mismatch> {
        let spec = match slot {
            Slot::Required(index) => &self.inputs.inputs[index],
            Slot::Optional(index) => &self.inputs.optional_inputs[index],
        };
        if !spec.accepts(&view.shape.to_shape()) {
            return Err(format!(
                "a request's input {:?} has the shape {:?}, and this version takes {:?}",
                spec.name, view.shape, spec.shape
            ));
        }
        let filled = match slot {
            Slot::Required(index) => lease.set_input(index, view),
            Slot::Optional(index) => lease.set_optional_input(index, view),
        };
        filled.map_err(|error| error.message.into_owned())
    }
}

/// Where the other version takes an input with that name and type.
fn slot(spec: &TensorSpec, other: &Signature) -> Option<Slot> {
    let same = |one: &TensorSpec| one.name == spec.name && one.datatype == spec.datatype;
    let required = other.inputs.iter().position(same).map(Slot::Required);
    required.or_else(|| other.optional_inputs.iter().position(same).map(Slot::Optional))
}

fn missing_input(spec: &TensorSpec, asked: &Signature) -> Mismatch {
    let (name, datatype) = (&spec.name, spec.datatype.as_str());
    match asked.all_inputs().find(|one| one.name == *name) {
        Some(one) => {
            format!("input {name:?} is {datatype} here and {} in the champion", one.datatype.as_str())
        }
        None => format!("it needs the input {name:?}, which the champion does not have"),
    }
}

fn outputs(
    asked: &Signature,
    other: &Signature,
    rules: OutputRules<'_>,
) -> Result<Vec<OutputPairing>, Mismatch> {
    if let Some(name) = rules.compare.keys().find(|name| !asked.outputs.iter().any(|one| one.name == **name))
    {
        return Err(format!("compare names the output {name:?}, which the champion does not have"));
    }
    let mut found = Vec::new();
    for (index, spec) in asked.outputs.iter().enumerate() {
        let named = rules.compare.get(&spec.name).copied();
        let Some(place) = other.outputs.iter().position(|one| one.name == spec.name) else {
            if named.is_some() {
                return Err(format!("compare names the output {:?}, which it does not have", spec.name));
            }
            continue;
        };
        found.push(output(spec, index, (&other.outputs[place], place), named, rules)?);
    }
    if found.is_empty() {
        return Err("it has no output of the champion's, so that nothing can be compared".to_owned());
    }
    Ok(found)
}

fn output(
    spec: &TensorSpec,
    asked: usize,
    (own, other): (&TensorSpec, usize),
    named: Option<Comparison>,
    rules: OutputRules<'_>,
) -> Result<OutputPairing, Mismatch> {
    let name = spec.name.clone();
    let strings = [spec, own].map(|one| one.datatype == DataType::Bytes);
    if strings[0] != strings[1] {
        let (champion, shadow) = (spec.datatype.as_str(), own.datatype.as_str());
        return Err(format!("output {name:?} is {shadow} here and {champion} in the champion"));
    }
    let comparison = named.unwrap_or_else(|| default_comparison(spec.datatype));
    if strings[0] && comparison.needs_numbers() {
        return Err(format!("output {name:?} holds strings, which are compared with exact alone"));
    }
    let labels = rules.labels.get(&name).unwrap_or(&spec.labels).clone();
    Ok(OutputPairing { name, asked, other, comparison, labels })
}

fn default_comparison(datatype: DataType) -> Comparison {
    match datatype {
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => DEFAULT_FOR_FLOATS,
        _ => Comparison::Exact,
    }
}
