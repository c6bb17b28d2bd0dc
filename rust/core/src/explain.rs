//! Which version a hypothetical request would get and why, by the code that serves.
//!
//! Not here: the sentences about it (the control plane's).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::route::{RouteReason, choose_named_version, choose_version, sticky_key};
use crate::rules::{FieldValue, RequestFields};
use crate::snapshot::Endpoint;

/// A request that somebody asks about.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HypotheticalRequest {
    /// The version that it names itself.
    #[serde(default)]
    version: Option<String>,
    /// Its headers by name in lower case.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Its parameters.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

/// Which version it gets, and who gets a copy.
#[derive(Debug, Serialize)]
pub struct Explanation<'a> {
    /// The version; none if each request draws its own.
    version: Option<&'a str>,
    /// What decides: `direct`, `rule`, `slot` or `draw`.
    by: &'static str,
    /// The number of the rule.
    rule: Option<u16>,
    /// The slot.
    slot: Option<u16>,
    /// The sticky key.
    key: Option<String>,
    /// The shadows, in the document's order.
    shadows: Vec<Copy<'a>>,
    /// The capture; none if nothing is captured.
    capture: Option<Copy<'a>>,
}

/// Whether a copy of the request is made.
#[derive(Debug, Serialize)]
struct Copy<'a> {
    /// The version that gets it; none for a capture.
    version: Option<&'a str>,
    /// The share of requests, in slots.
    share: u16,
    /// Whether this request is chosen; none if each request is drawn for itself.
    chosen: Option<bool>,
}

impl RequestFields for HypotheticalRequest {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(String::as_bytes)
    }

    fn parameter(&self, name: &str) -> Option<FieldValue<'_>> {
        match self.parameters.get(name)? {
            Value::String(text) => Some(FieldValue::Text(text)),
            Value::Bool(value) => Some(FieldValue::Bool(*value)),
            Value::Number(number) => {
                number.as_i64().map(FieldValue::Integer).or(number.as_f64().map(FieldValue::Number))
            }
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// Says which version of `endpoint` the request gets.
///
/// # Errors
/// As [`choose_named_version`].
pub fn explain<'a, V>(endpoint: &'a Endpoint<V>, request: &HypotheticalRequest) -> Result<Explanation<'a>> {
    let decision = match &request.version {
        Some(version) => choose_named_version(endpoint, version)?,
        None => choose_version(endpoint, request, || 0),
    };
    let (by, rule) = match decision.reason {
        RouteReason::Direct => ("direct", None),
        RouteReason::Rule(number) => ("rule", Some(number)),
        RouteReason::Sticky => ("slot", None),
        RouteReason::Drawn => ("draw", None),
    };
    let name = |version: u8| &*endpoint.versions[usize::from(version)].name;
    let key = sticky_key(endpoint, request);
    let is_drawn = decision.reason == RouteReason::Drawn;
    let is_by_slot = matches!(decision.reason, RouteReason::Sticky | RouteReason::Drawn);
    // A shadow is compared with the champion, so that it gets copies of what the champion answers by slot.
    let can_be_shadowed = is_by_slot && (is_drawn || decision.version == endpoint.champion);
    let shadows = endpoint.shadows.iter().map(|shadow| Copy {
        version: Some(name(shadow.version)),
        share: shadow.spec.share,
        chosen: if can_be_shadowed { shadow.sample.foresee(key) } else { Some(false) },
    });
    let capture = endpoint.capture.as_ref().map(|capture| Copy {
        version: None,
        share: capture.spec.share,
        chosen: capture.sample.foresee(key),
    });
    Ok(Explanation {
        version: (!is_drawn).then(|| name(decision.version)),
        by,
        rule,
        slot: if is_drawn { None } else { decision.slot },
        key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
        shadows: shadows.collect(),
        capture,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::{compile, tests as fixtures};

    fn explained(request: &Value) -> Value {
        let rules = r#""rules":[{"when":{"parameter.tier":{"one_of":["3"]}},"to":"v2"}],
            "shadow":[{"to":"v2","share":2500,"by":"sticky"}],"champion":"v1","sticky":"#;
        let spec = fixtures::TWO.replace(r#""champion":"v1","sticky":"#, rules);
        let endpoint = compile(&fixtures::spec(&spec), |_| Ok(())).unwrap();
        let request: HypotheticalRequest = serde_json::from_value(request.clone()).unwrap();
        serde_json::to_value(explain(&endpoint, &request).unwrap()).unwrap()
    }

    #[test]
    fn each_way_to_a_version_is_named() {
        let direct = explained(&json!({"version": "v2"}));
        assert_eq!((&direct["by"], &direct["version"]), (&json!("direct"), &json!("v2")));
        let ruled = explained(&json!({"parameters": {"tier": 3}}));
        assert_eq!(
            (&ruled["by"], &ruled["rule"], &ruled["version"]),
            (&json!("rule"), &json!(0), &json!("v2"))
        );
        assert_eq!(ruled["shadows"][0]["chosen"], json!(false));
        let slot = explained(&json!({"headers": {"x-user-id": "user-1"}}));
        assert_eq!((&slot["by"], &slot["key"]), (&json!("slot"), &json!("user-1")));
        assert!(slot["slot"].is_u64() && slot["shadows"][0]["chosen"].is_boolean());
        let drawn = explained(&json!({}));
        assert_eq!(
            (&drawn["by"], &drawn["version"], &drawn["slot"]),
            (&json!("draw"), &Value::Null, &Value::Null)
        );
        assert_eq!(drawn["shadows"], json!([{"version": "v2", "share": 2500, "chosen": null}]));
        assert_eq!(drawn["capture"], Value::Null);
    }
}
