//! Rules of an endpoint's traffic: the first rule whose conditions all hold sends a request to its version, before weights.
//!
//! A condition looks at a header or at a parameter of the request. A parameter is compared as JSON reads it: a string with the
//! text, a boolean with `true` or `false`, a number with every text that is the same number.
//! Not here: which rule can never match (a warning of the document). Next: `route`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The most rules of an endpoint.
pub const MAX_RULES: usize = 256;

/// What rules look at in a request.
pub trait RequestFields {
    /// The value of a header by its name in lower case; the first if there are several.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The value of a parameter.
    fn parameter(&self, name: &str) -> Option<FieldValue<'_>>;
}

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// A string.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// True or false.
    Bool(bool),
}

/// One rule of a document.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// What a request must carry, by `header.<name>` or `parameter.<name>`.
    pub when: BTreeMap<FieldName, AcceptedSpec>,
    /// The version that answers.
    pub to: String,
}

/// A header or a parameter of the request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub enum FieldName {
    /// A header by its name in lower case; written `header.<name>`.
    Header(Box<str>),
    /// A parameter by its name; written `parameter.<name>`.
    Parameter(Box<str>),
}

/// The values that satisfy a condition, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptedSpec {
    /// Any of these; upper and lower case differ.
    OneOf(Vec<String>),
    /// Every string that begins so.
    Prefix(String),
}

/// One rule, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    conditions: Box<[(FieldName, Accepted)]>,
    /// Its index in the document, where rules whose version is not loaded count as well.
    number: u16,
    /// The index of the version that it sends requests to.
    to: u8,
}

#[derive(Clone, Debug, PartialEq)]
enum Accepted {
    OneOf(AcceptedValues),
    Prefix(Box<str>),
}

/// The values of a list.
#[derive(Clone, Debug, PartialEq)]
struct AcceptedValues {
    /// All of them as text, sorted.
    texts: Box<[Box<str>]>,
    /// The values of those that JSON reads as a number.
    numbers: Box<[f64]>,
}

impl Rule {
    /// Compiles the rule with that `number`, which sends requests to the version with the index `to`.
    #[must_use]
    pub fn new(spec: &RuleSpec, number: u16, to: u8) -> Rule {
        let conditions = spec.when.iter().map(|(name, accepted)| (name.clone(), Accepted::new(accepted)));
        Rule { conditions: conditions.collect(), number, to }
    }

    fn matches(&self, request: &impl RequestFields) -> bool {
        self.conditions.iter().all(|(name, accepted)| match name {
            FieldName::Header(name) => {
                // HTTP/1.1 has no blanks around a value, HTTP/2 may have some.
                request.header(name).is_some_and(|value| accepted.matches(value.trim_ascii()))
            }
            FieldName::Parameter(name) => {
                request.parameter(name).is_some_and(|value| accepted.matches_value(value))
            }
        })
    }
}

impl Accepted {
    fn new(spec: &AcceptedSpec) -> Accepted {
        match spec {
            AcceptedSpec::OneOf(values) => Accepted::OneOf(AcceptedValues::new(values)),
            AcceptedSpec::Prefix(prefix) => Accepted::Prefix(prefix.as_str().into()),
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Accepted::OneOf(values) => values.has_text(value),
            Accepted::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
        }
    }

    fn matches_value(&self, value: FieldValue<'_>) -> bool {
        match (self, value) {
            (_, FieldValue::Text(text)) => self.matches(text.as_bytes()),
            (Accepted::Prefix(_), _) => false,
            (Accepted::OneOf(values), FieldValue::Bool(value)) => {
                values.has_text(if value { b"true" } else { b"false" })
            }
            (Accepted::OneOf(values), FieldValue::Integer(value)) => values.has_integer(value),
            (Accepted::OneOf(values), FieldValue::Number(value)) => values.numbers.contains(&value),
        }
    }
}

impl AcceptedValues {
    fn new(values: &[String]) -> AcceptedValues {
        let mut texts: Vec<Box<str>> = values.iter().map(|value| value.as_str().into()).collect();
        texts.sort_unstable();
        let numbers = values.iter().filter_map(|value| serde_json::from_str(value).ok()).collect();
        AcceptedValues { texts: texts.into(), numbers }
    }

    fn has_text(&self, value: &[u8]) -> bool {
        self.texts.binary_search_by(|text| text.as_bytes().cmp(value)).is_ok()
    }

    fn has_integer(&self, value: i64) -> bool {
        /// Beyond it, neighbouring integers are the same `f64`.
        const MAX_EXACT: u64 = 1 << 53;
        if value.unsigned_abs() <= MAX_EXACT {
            return self.numbers.contains(&(value as f64));
        }
        self.texts.iter().any(|text| text.parse() == Ok(value))
    }
}

impl TryFrom<String> for FieldName {
    type Error = String;

    fn try_from(text: String) -> Result<FieldName, String> {
        match text.split_once('.') {
            Some(("header", name)) if !name.is_empty() => {
                Ok(FieldName::Header(name.to_ascii_lowercase().into()))
            }
            Some(("parameter", name)) if !name.is_empty() => Ok(FieldName::Parameter(name.into())),
            _ => Err(format!(
                "{text:?} names no header and no parameter: \"header.<name>\" or \"parameter.<name>\""
            )),
        }
    }
}

/// The number of the first rule that matches and the index of its version.
#[inline]
pub fn first_match(rules: &[Rule], request: &impl RequestFields) -> Option<(u16, u8)> {
    let rule = rules.iter().find(|rule| rule.matches(request))?;
    Some((rule.number, rule.to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Request {
        headers: Vec<(&'static str, &'static [u8])>,
        parameters: Vec<(&'static str, FieldValue<'static>)>,
    }

    impl RequestFields for Request {
        fn header(&self, name: &str) -> Option<&[u8]> {
            self.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
        }

        fn parameter(&self, name: &str) -> Option<FieldValue<'_>> {
            self.parameters.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
        }
    }

    fn rules(json: &str) -> Vec<Rule> {
        let specs: Vec<RuleSpec> = serde_json::from_str(json).unwrap();
        specs.iter().enumerate().map(|(at, spec)| Rule::new(spec, at as u16, at as u8 + 1)).collect()
    }

    #[test]
    fn the_first_rule_whose_conditions_all_hold_wins() {
        let rules = rules(
            r#"[{"when": {"header.X-Country": {"one_of": ["DE", "FR"]}, "parameter.tier": {"one_of": ["3"]}}, "to": "a"},
                {"when": {"header.user-agent": {"prefix": "test-"}}, "to": "b"},
                {"when": {"header.x-country": {"one_of": ["DE"]}}, "to": "c"}]"#,
        );
        let of = |headers: &[(&'static str, &'static str)], tier: Option<i64>| {
            let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            let parameters = tier.map(|tier| ("tier", FieldValue::Integer(tier))).into_iter().collect();
            first_match(&rules, &Request { headers, parameters })
        };
        assert_eq!(of(&[("x-country", "FR")], Some(3)), Some((0, 1)));
        assert_eq!(of(&[("x-country", "FR")], Some(30)), None);
        assert_eq!(of(&[("x-country", "DE"), ("user-agent", "test-7")], None), Some((1, 2)));
        assert_eq!(of(&[("x-country", "DE"), ("user-agent", "Test-7")], None), Some((2, 3)));
        assert_eq!(of(&[("x-country", " DE ")], None), Some((2, 3)));
        assert_eq!(of(&[("x-country", "de")], None), None);
        assert_eq!(of(&[], None), None);
    }

    #[test]
    fn a_parameter_is_compared_as_json_reads_it() {
        let holds = |accepted: &str, value: FieldValue<'static>| {
            let rules = rules(&format!(r#"[{{"when": {{"parameter.p": {accepted}}}, "to": "a"}}]"#));
            first_match(&rules, &Request { parameters: vec![("p", value)], ..Request::default() }).is_some()
        };
        assert!(holds(r#"{"one_of": ["3"]}"#, FieldValue::Integer(3)));
        assert!(holds(r#"{"one_of": ["3"]}"#, FieldValue::Text("3")));
        assert!(holds(r#"{"one_of": ["2.5"]}"#, FieldValue::Number(2.5)));
        assert!(holds(r#"{"one_of": ["true"]}"#, FieldValue::Bool(true)));
        assert!(holds(r#"{"prefix": "go"}"#, FieldValue::Text("gold")));
        assert!(holds(r#"{"one_of": ["3.0"]}"#, FieldValue::Integer(3)));
        assert!(holds(r#"{"one_of": ["3"]}"#, FieldValue::Number(3.0)));
        assert!(holds(r#"{"one_of": ["9223372036854775807"]}"#, FieldValue::Integer(i64::MAX)));
        assert!(!holds(r#"{"one_of": ["9223372036854775806"]}"#, FieldValue::Integer(i64::MAX)));
        // JSON writes no number so.
        assert!(!holds(r#"{"one_of": ["007", "+7"]}"#, FieldValue::Integer(7)));
        assert!(!holds(r#"{"one_of": ["inf", "NaN"]}"#, FieldValue::Number(f64::INFINITY)));
        assert!(!holds(r#"{"one_of": ["3", "false"]}"#, FieldValue::Bool(true)));
        assert!(!holds(r#"{"one_of": ["True"]}"#, FieldValue::Bool(true)));
        assert!(!holds(r#"{"prefix": "3"}"#, FieldValue::Integer(31)));
    }

    #[test]
    fn a_prefix_needs_the_value_to_be_there() {
        let rules = rules(r#"[{"when": {"header.x": {"prefix": ""}}, "to": "a"}]"#);
        assert_eq!(first_match(&rules, &Request::default()), None);
        let empty = Request { headers: vec![("x", b"")], ..Request::default() };
        assert_eq!(first_match(&rules, &empty), Some((0, 1)));
    }

    #[test]
    fn what_is_neither_header_nor_parameter_is_named() {
        for text in ["header.", "cookie.x", "x-user", ""] {
            let fault = FieldName::try_from(text.to_owned()).unwrap_err();
            assert!(fault.contains("header.<name>"), "{fault}");
        }
    }
}
