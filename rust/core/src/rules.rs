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

/// The rules of an endpoint, compiled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The fields that conditions look at, each once, those of the first rules first.
    fields: Box<[FieldName]>,
    rules: Box<[Rule]>,
}

/// One rule, compiled.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    conditions: Box<[Condition]>,
    /// Its index in the document, where rules whose version is not loaded count as well.
    number: u16,
    /// The index of the version that it sends requests to.
    to: u8,
}

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    /// The index of its field.
    field: u16,
    accepted: Accepted,
}

#[derive(Clone, Debug, PartialEq)]
enum Accepted {
    OneOf(AcceptedValues),
    Prefix(Box<str>),
}

/// The values of a list.
#[derive(Clone, Debug, PartialEq)]
struct AcceptedValues {
    /// All of them as text, sorted by fingerprint.
    texts: Box<[Box<str>]>,
    /// The fingerprints of the texts, in the same order: mostly they tell that a value is none of them, and no text is read.
    fingerprints: Box<[u64]>,
    /// The values of those that JSON reads as a number.
    numbers: Box<[f64]>,
}

impl Rules {
    /// Compiles rules; `version` finds the index of a version. A rule whose version it does not find matches nothing.
    #[must_use]
    pub fn new(specs: &[RuleSpec], version: impl Fn(&str) -> Option<u8>) -> Rules {
        let mut fields = Vec::new();
        let mut rules = Vec::new();
        for (number, spec) in specs.iter().enumerate() {
            let Some(to) = version(&spec.to) else { continue };
            let conditions = spec.when.iter().map(|(name, accepted)| Condition {
                field: index_of(&mut fields, name),
                accepted: Accepted::new(accepted),
            });
            rules.push(Rule { conditions: conditions.collect(), number: number as u16, to });
        }
        Rules { fields: fields.into(), rules: rules.into() }
    }

    /// Whether a rule sends requests to the version of this index.
    pub fn send_to(&self, version: u8) -> bool {
        self.rules.iter().any(|rule| rule.to == version)
    }

    /// The number of the first rule that matches and the index of its version.
    #[inline]
    pub fn first_match(&self, request: &impl RequestFields) -> Option<(u16, u8)> {
        if self.rules.is_empty() { None } else { self.search(request) }
    }

    fn search(&self, request: &impl RequestFields) -> Option<(u16, u8)> {
        let mut fields = FieldReader { names: &self.fields, request, read: [const { None }; FIELDS_KEPT] };
        let mut holds = |condition: &Condition| {
            fields.value(condition.field).is_some_and(|value| condition.accepted.matches(value))
        };
        let rule = self.rules.iter().find(|rule| rule.conditions.iter().all(&mut holds))?;
        Some((rule.number, rule.to))
    }
}

fn index_of(fields: &mut Vec<FieldName>, name: &FieldName) -> u16 {
    let index = fields.iter().position(|known| known == name).unwrap_or_else(|| {
        fields.push(name.clone());
        fields.len() - 1
    });
    index as u16
}

/// The most fields of a request that are kept while its rules are tried.
const FIELDS_KEPT: usize = 8;

/// Reads the fields of one request: a search among its headers costs more than a comparison, and many rules look at the same field.
struct FieldReader<'a, R> {
    names: &'a [FieldName],
    request: &'a R,
    read: [Option<Option<Field<'a>>>; FIELDS_KEPT],
}

#[derive(Clone, Copy)]
enum Field<'a> {
    Text(Text<'a>),
    Other(FieldValue<'a>),
}

/// A text and its fingerprint.
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    fingerprint: u64,
}

impl<'a> Text<'a> {
    fn new(bytes: &'a [u8]) -> Text<'a> {
        Text { bytes, fingerprint: fingerprint(bytes) }
    }
}

/// A number of the length and of bytes at both ends: equal texts have equal fingerprints.
#[inline]
fn fingerprint(text: &[u8]) -> u64 {
    let length = (text.len() as u64).rotate_right(8);
    length
        ^ match (text.first_chunk(), text.last_chunk(), text) {
            (Some(first), Some(last), _) => {
                u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(31)
            }
            (_, _, [a, b, .., c, d]) => u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
            (_, _, [a, rest @ ..]) => u64::from(*a) | u64::from(*rest.last().unwrap_or(&0)) << 32,
            (_, _, []) => 0,
        }
}

impl<'a, R: RequestFields> FieldReader<'a, R> {
    fn value(&mut self, field: u16) -> Option<Field<'a>> {
        let name = &self.names[usize::from(field)];
        match self.read.get_mut(usize::from(field)) {
            Some(Some(value)) => *value,
            Some(unread) => *unread.insert(find(self.request, name)),
            None => find(self.request, name),
        }
    }
}

fn find<'a>(request: &'a impl RequestFields, name: &FieldName) -> Option<Field<'a>> {
    match name {
        // HTTP/1.1 has no blanks around a value, HTTP/2 may have some.
        FieldName::Header(name) => {
            request.header(name).map(|value| Field::Text(Text::new(value.trim_ascii())))
        }
        FieldName::Parameter(name) => request.parameter(name).map(|value| match value {
            FieldValue::Text(text) => Field::Text(Text::new(text.as_bytes())),
            other => Field::Other(other),
        }),
    }
}

impl Accepted {
    fn new(spec: &AcceptedSpec) -> Accepted {
        match spec {
            AcceptedSpec::OneOf(values) => Accepted::OneOf(AcceptedValues::new(values)),
            AcceptedSpec::Prefix(prefix) => Accepted::Prefix(prefix.as_str().into()),
        }
    }

    fn matches(&self, field: Field<'_>) -> bool {
        match (self, field) {
            (Accepted::OneOf(values), Field::Text(text)) => values.has_text(text),
            (Accepted::OneOf(values), Field::Other(value)) => values.has_value(value),
            (Accepted::Prefix(prefix), Field::Text(text)) => text.bytes.starts_with(prefix.as_bytes()),
            (Accepted::Prefix(_), Field::Other(_)) => false,
        }
    }
}

impl AcceptedValues {
    fn new(values: &[String]) -> AcceptedValues {
        let mut texts: Vec<Box<str>> = values.iter().map(|value| value.as_str().into()).collect();
        texts.sort_by_cached_key(|text| fingerprint(text.as_bytes()));
        let fingerprints = texts.iter().map(|text| fingerprint(text.as_bytes())).collect();
        let numbers = values.iter().filter_map(|value| serde_json::from_str(value).ok()).collect();
        AcceptedValues { texts: texts.into(), fingerprints, numbers }
    }

    fn has_text(&self, text: Text<'_>) -> bool {
        let first = self.fingerprints.partition_point(|&known| known < text.fingerprint);
        let known = self.fingerprints.iter().zip(&self.texts).skip(first);
        known
            .take_while(|&(&known, _)| known == text.fingerprint)
            .any(|(_, known)| known.as_bytes() == text.bytes)
    }

    fn has_value(&self, value: FieldValue<'_>) -> bool {
        match value {
            FieldValue::Text(text) => self.has_text(Text::new(text.as_bytes())),
            FieldValue::Bool(value) => self.has_text(Text::new(if value { b"true" } else { b"false" })),
            FieldValue::Integer(value) => self.has_integer(value),
            FieldValue::Number(value) => self.numbers.contains(&value),
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// Versions are called `a`, `b` and so on, and have the indices 1, 2 and so on; `z` is not loaded.
    fn rules(json: &str) -> Rules {
        let specs: Vec<RuleSpec> = serde_json::from_str(json).unwrap();
        Rules::new(&specs, |name| (name != "z").then(|| name.as_bytes()[0] - b'a' + 1))
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
            rules.first_match(&Request { headers, parameters })
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
            rules.first_match(&Request { parameters: vec![("p", value)], ..Request::default() }).is_some()
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
        assert_eq!(rules.first_match(&Request::default()), None);
        let empty = Request { headers: vec![("x", b"")], ..Request::default() };
        assert_eq!(rules.first_match(&empty), Some((0, 1)));
    }

    #[test]
    fn a_rule_whose_version_is_not_loaded_is_passed_over_and_keeps_its_number() {
        let rules = rules(
            r#"[{"when": {"header.x": {"one_of": ["1"]}}, "to": "z"},
                {"when": {"header.x": {"one_of": ["1"]}}, "to": "b"}]"#,
        );
        let request = Request { headers: vec![("x", b"1")], ..Request::default() };
        assert_eq!(rules.first_match(&request), Some((1, 2)));
    }

    #[test]
    fn each_field_of_many_rules_is_its_own() {
        // More fields than are kept, each asked by two rules.
        let fields = FIELDS_KEPT * 2;
        let rule = |n: usize, value: &str| {
            format!(r#"{{"when": {{"header.h{n}": {{"one_of": ["{value}"]}}}}, "to": "a"}}"#)
        };
        let all: Vec<String> =
            ["no", "yes"].iter().flat_map(|value| (0..fields).map(|n| rule(n, value))).collect();
        let rules = rules(&format!("[{}]", all.join(",")));
        for n in 0..fields {
            let name: &'static str = Box::leak(format!("h{n}").into_boxed_str());
            let request = Request { headers: vec![(name, b"yes")], ..Request::default() };
            assert_eq!(rules.first_match(&request), Some(((fields + n) as u16, 1)));
        }
        assert_eq!(rules.first_match(&Request::default()), None);
    }

    proptest! {
        #[test]
        fn a_list_has_exactly_its_texts(values in prop::collection::vec("[ab]{0,20}", 1..40), asked in "[ab]{0,20}") {
            let accepted = AcceptedValues::new(&values);
            prop_assert_eq!(accepted.has_text(Text::new(asked.as_bytes())), values.contains(&asked));
            for value in &values {
                prop_assert!(accepted.has_text(Text::new(value.as_bytes())), "{}", value);
            }
        }
    }

    #[test]
    fn what_is_neither_header_nor_parameter_is_named() {
        for text in ["header.", "cookie.x", "x-user", ""] {
            let fault = FieldName::try_from(text.to_owned()).unwrap_err();
            assert!(fault.contains("header.<name>"), "{fault}");
        }
    }
}
