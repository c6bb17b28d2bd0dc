//! What a request is routed by: the version that it names, its headers, and its parameters without a meaning of their own.

use headgate_core::rules::{FieldValue, RequestFields};
use headgate_protocol::envelope::{ParameterValue, Parameters};

use crate::headers::Headers;
use crate::request::inference::Target;

/// The fields of one request that routing looks at.
pub(super) struct RoutingFields<'a> {
    /// The endpoint, and the version if it names one.
    pub target: Target<'a>,
    /// Its headers.
    pub headers: Headers<'a>,
    /// Its parameters.
    pub parameters: &'a Parameters<'a>,
}

impl RequestFields for RoutingFields<'_> {
    #[inline]
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name)
    }

    fn parameter(&self, name: &str) -> Option<FieldValue<'_>> {
        let (_, value) = self.parameters.custom.iter().find(|(own, _)| own == name)?;
        Some(match value {
            ParameterValue::Text(text) => FieldValue::Text(text),
            ParameterValue::Integer(value) => FieldValue::Integer(*value),
            ParameterValue::Number(value) => FieldValue::Number(*value),
            ParameterValue::Bool(value) => FieldValue::Bool(*value),
        })
    }
}
