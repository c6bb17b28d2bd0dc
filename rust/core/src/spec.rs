//! An endpoint's state as the control plane hands it over: plain data, parsed, not yet checked.
//!
//! Not here: the checks and the compiled form (`snapshot`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::slots::TableState;

/// The whole state of one endpoint.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// The name clients call.
    pub name: String,
    /// The control plane's number for this state; answers carry it.
    pub revision: u64,
    /// Every version to be loaded, in the document's order.
    pub versions: Vec<VersionSpec>,
    /// The version that takes every slot not given away.
    pub champion: String,
    /// The slots given away.
    #[serde(default)]
    pub table: TableState,
    /// The header that holds the sticky key, in lower case; `None` draws per request.
    #[serde(default)]
    pub sticky: Option<String>,
    /// How long a request may take, in milliseconds.
    pub timeout_ms: u64,
    /// Names for a tensor's columns, by tensor.
    #[serde(default)]
    pub columns: BTreeMap<String, Vec<String>>,
    /// Names for the classes of an output, by tensor: what the classification extension says.
    #[serde(default)]
    pub labels: BTreeMap<String, Vec<String>>,
    /// What JSON answers say where a number is none.
    #[serde(default)]
    pub non_finite: NonFinite,
    /// The file that holds the drift baseline.
    #[serde(default)]
    pub baseline: Option<String>,
    /// Whether this state overtakes a load of the same endpoint that is in progress.
    #[serde(default)]
    pub urgent: bool,
}

/// What a JSON answer says for NaN and the infinities, which JSON has no numbers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Nothing: the request fails and names the element.
    #[default]
    Error,
    /// `null`.
    Null,
    /// `"NaN"`, `"Infinity"` or `"-Infinity"`.
    String,
}

/// One version: exactly one of `artifact` and `constant`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionSpec {
    /// The version's name.
    pub name: String,
    /// What it is, whatever it is called: equal digests are the same thing.
    pub digest: String,
    /// The model file to load.
    #[serde(default)]
    pub artifact: Option<String>,
    /// Outputs that are always the same, by output name: a scalar or one row's values.
    #[serde(default)]
    pub constant: Option<BTreeMap<String, Value>>,
}

impl EndpointSpec {
    /// Reads the JSON form.
    ///
    /// # Errors
    /// `policy_invalid` with the parser's words.
    pub fn from_json(json: &[u8]) -> Result<EndpointSpec> {
        serde_json::from_slice(json)
            .map_err(|error| Error::new(Code::PolicyInvalid, format!("endpoint state: {error}")))
    }
}
