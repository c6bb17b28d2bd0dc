//! The layout of a file: which tensors its rows have, and what is left out of them.
//!
//! The layout follows from a version's signature, so each file belongs to one version. It is written into the schema of the file as JSON,
//! so that a reader needs nothing else. Next: `row`.

use std::collections::BTreeMap;

use headgate_core::tensor::{DataType, Signature, TensorSpec};
use serde::{Deserialize, Serialize};

/// The number of this form of files. It grows when the columns change.
pub const FORMAT: u32 = 1;

/// The layout of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLayout {
    /// The form of the file: [`FORMAT`].
    pub format: u32,
    /// The version that answered.
    #[serde(flatten)]
    pub version: VersionIdentity,
    /// The tensors, inputs first: the required ones, the optional ones, the outputs.
    pub tensors: Vec<TensorLayout>,
}

/// The version that answered the requests of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionIdentity {
    /// The endpoint.
    pub endpoint: String,
    /// The version's name.
    pub version: String,
    /// Its digest.
    pub digest: String,
}

/// A tensor of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorLayout {
    /// Whether requests or answers have it.
    pub side: Side,
    /// Its name in the model.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its dimensions as the version declares them; `-1` takes any size.
    pub shape: Vec<i64>,
    /// Whether the number of dimensions is open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_rank: bool,
    /// Whether a request may leave it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What is left out of it.
    #[serde(default, skip_serializing_if = "Redaction::is_none")]
    pub redacted: Redaction,
}

/// Whether requests or answers have a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// A tensor of requests.
    Input,
    /// A tensor of answers.
    Output,
}

impl Side {
    /// The first part of the names of the columns.
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::Input => "input",
            Side::Output => "output",
        }
    }
}

/// What is left out of a tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redaction {
    /// Nothing.
    #[default]
    None,
    /// All elements; the tensor is null.
    Tensor,
    /// Some columns, whose elements are zero or empty.
    Columns(RedactedColumns),
}

/// The columns of a tensor that are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedactedColumns {
    /// The names of all columns of the tensor: the elements of a row, in their order.
    pub columns: Vec<String>,
    /// Which of them are left out, ascending.
    pub redacted: Vec<usize>,
}

impl Redaction {
    /// Whether nothing is left out.
    pub fn is_none(&self) -> bool {
        *self == Redaction::None
    }

    /// What is left out of a tensor by `redact`, whose entries are `tensor` or `tensor.column`.
    fn of(
        tensor: &str,
        columns: Option<&Vec<String>>,
        redact: &[String],
        is_tensor: impl Fn(&str) -> bool,
    ) -> Redaction {
        let mut redacted = Vec::new();
        for entry in redact {
            if entry == tensor {
                return Redaction::Tensor;
            }
            let Some(column) = entry.strip_prefix(tensor).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            match columns.and_then(|names| names.iter().position(|name| name == column)) {
                Some(index) => redacted.push(index),
                None if is_tensor(entry) => {}
                // A column that the tensor does not have by name may be any of it.
                None => return Redaction::Tensor,
            }
        }
        let Some(columns) = columns.filter(|_| !redacted.is_empty()) else { return Redaction::None };
        redacted.sort_unstable();
        redacted.dedup();
        Redaction::Columns(RedactedColumns { columns: columns.clone(), redacted })
    }
}

impl FileLayout {
    /// The layout for a version with this signature. `columns` names the columns of tensors, and `redact` what is left out.
    pub fn new(
        version: VersionIdentity,
        signature: &Signature,
        columns: &BTreeMap<String, Vec<String>>,
        redact: &[String],
    ) -> FileLayout {
        let is_tensor =
            |name: &str| signature.all_inputs().chain(&signature.outputs).any(|spec| spec.name == name);
        let tensor = |side: Side, optional: bool, spec: &TensorSpec| TensorLayout {
            side,
            name: spec.name.clone(),
            datatype: spec.datatype,
            shape: spec.shape.clone(),
            any_rank: spec.any_rank,
            optional,
            redacted: Redaction::of(&spec.name, columns.get(&spec.name), redact, is_tensor),
        };
        let required = signature.inputs.iter().map(|spec| tensor(Side::Input, false, spec));
        let optional = signature.optional_inputs.iter().map(|spec| tensor(Side::Input, true, spec));
        let outputs = signature.outputs.iter().map(|spec| tensor(Side::Output, false, spec));
        FileLayout { format: FORMAT, version, tensors: required.chain(optional).chain(outputs).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature {
        let spec = |name: &str, datatype| TensorSpec {
            name: name.into(),
            datatype,
            shape: vec![-1, 3],
            symbols: vec![],
            any_rank: false,
            labels: vec![],
        };
        Signature {
            inputs: vec![spec("X", DataType::Fp32), spec("X.b", DataType::Int64)],
            outputs: vec![spec("label", DataType::Bytes)],
            optional_inputs: vec![spec("o", DataType::Bool)],
        }
    }

    fn redactions(redact: &[&str]) -> Vec<Redaction> {
        let columns = BTreeMap::from([("X".to_owned(), ["a", "iban", "c"].map(str::to_owned).to_vec())]);
        let version =
            VersionIdentity { endpoint: "e".into(), version: "v".into(), digest: "sha256:1".into() };
        let redact: Vec<String> = redact.iter().map(|&entry| entry.to_owned()).collect();
        let layout = FileLayout::new(version, &signature(), &columns, &redact);
        assert_eq!(layout.tensors.len(), 4);
        layout.tensors.into_iter().map(|tensor| tensor.redacted).collect()
    }

    #[test]
    fn an_entry_names_a_tensor_or_a_column_of_it() {
        use Redaction::{None, Tensor};
        assert_eq!(redactions(&[]), [None, None, None, None]);
        assert_eq!(redactions(&["label", "o"]), [None, None, Tensor, Tensor]);
        let columns = ["a", "iban", "c"].map(str::to_owned).to_vec();
        let iban = Redaction::Columns(RedactedColumns { columns, redacted: vec![1] });
        assert_eq!(redactions(&["X.iban", "X.iban"]), [iban, None, None, None]);
    }

    #[test]
    fn a_column_that_is_not_known_by_name_takes_the_tensor_with_it() {
        use Redaction::{None, Tensor};
        assert_eq!(redactions(&["label.first"]), [None, None, None, Tensor]);
        // The tensor `X.b` is meant.
        assert_eq!(redactions(&["X.b"]), [None, Tensor, None, None]);
    }

    #[test]
    fn a_layout_reads_as_it_was_written() {
        let version =
            VersionIdentity { endpoint: "e".into(), version: "v".into(), digest: "sha256:1".into() };
        let columns = BTreeMap::from([("X".to_owned(), ["a", "b", "c"].map(str::to_owned).to_vec())]);
        let redact = ["X.b".to_owned(), "o".to_owned()];
        let layout = FileLayout::new(version, &signature(), &columns, &redact);
        let json = serde_json::to_string(&layout).unwrap();
        assert_eq!(serde_json::from_str::<FileLayout>(&json).unwrap(), layout);
    }
}
