//! The small values of an envelope: shapes, parameters, flags. Each message names the place and says what would be right.
//!
//! Next: `binary`.

use std::borrow::Cow;

use headgate_core::error::{Error, Result};
use headgate_core::tensor::{DataType, MAX_RANK, Shape};

use super::reserved::refuse_shared_memory;
use super::types::{ParameterValue, Parameters};
use crate::json_cursor::{JsonCursor, JsonKind};
use crate::json_fault::JsonFault;

/// Checks that a value of this kind comes next. `location` is called for the message only.
pub(super) fn expect_kind(
    cursor: &mut JsonCursor<'_>,
    kind: JsonKind,
    location: impl Fn() -> String,
) -> Result<()> {
    let found = cursor.kind();
    if found == kind {
        return Ok(());
    }
    Err(Error::invalid(format!("{} must be {kind}, not {found}", location())))
}

/// Reads a string that is the value of a key.
pub(super) fn text<'a>(cursor: &mut JsonCursor<'a>, location: impl Fn() -> String) -> Result<Cow<'a, str>> {
    expect_kind(cursor, JsonKind::Text, location)?;
    Ok(cursor.string("a string")?)
}

/// Reads true or false.
pub(super) fn flag(cursor: &mut JsonCursor<'_>, location: impl Fn() -> String) -> Result<bool> {
    expect_kind(cursor, JsonKind::Bool, location)?;
    Ok(cursor.boolean()?)
}

/// Reads a whole number that is not negative.
pub(super) fn unsigned(cursor: &mut JsonCursor<'_>, location: impl Fn() -> String) -> Result<u64> {
    expect_kind(cursor, JsonKind::Number, &location)?;
    let text = cursor.number()?;
    text.parse().map_err(|_| {
        Error::invalid(format!("{} must be a whole number from 0 to {}, not {text}", location(), u64::MAX))
    })
}

/// Reads a whole number above 0.
pub(super) fn positive(cursor: &mut JsonCursor<'_>, location: impl Fn() -> String) -> Result<u64> {
    match unsigned(cursor, &location)? {
        0 => Err(Error::invalid(format!("{} must be a whole number above 0", location()))),
        number => Ok(number),
    }
}

/// Reads a shape.
pub(super) fn shape(cursor: &mut JsonCursor<'_>, location: impl Fn() -> String) -> Result<Shape> {
    let location = || format!("{}: \"shape\"", location());
    expect_kind(cursor, JsonKind::List, location)?;
    let mut dims = [0i64; MAX_RANK];
    let mut rank = 0;
    cursor.elements(|cursor, index| {
        expect_kind(cursor, JsonKind::Number, || format!("{}[{index}]", location()))?;
        let text = cursor.number()?;
        let dim = text.parse().map_err(|_| {
            Error::invalid(format!(
                "{}[{index}] is {text}; a dimension is a whole number such as 64",
                location()
            ))
        })?;
        let slot = dims
            .get_mut(index)
            .ok_or_else(|| Error::invalid(format!("{} has more than {MAX_RANK} dimensions", location())))?;
        *slot = dim;
        rank = index + 1;
        Ok::<(), Error>(())
    })?;
    Shape::new(&dims[..rank]).map_err(|error| Error::invalid(format!("{}: {error}", location())))
}

/// Reads a datatype.
pub(super) fn datatype(cursor: &mut JsonCursor<'_>, location: impl Fn() -> String) -> Result<DataType> {
    let name = text(cursor, || format!("{}: \"datatype\"", location()))?;
    DataType::parse(&name).ok_or_else(|| {
        let known: Vec<&str> = DataType::ALL.iter().map(|datatype| datatype.as_str()).collect();
        Error::invalid(format!("{}: datatype \"{name}\" is not one of {}", location(), known.join(", ")))
    })
}

/// Reads a parameter's value.
pub(super) fn parameter<'a>(
    cursor: &mut JsonCursor<'a>,
    location: impl Fn() -> String,
) -> Result<ParameterValue<'a>> {
    match cursor.kind() {
        JsonKind::Text => Ok(ParameterValue::Text(cursor.string("a string")?)),
        JsonKind::Bool => Ok(ParameterValue::Bool(cursor.boolean()?)),
        JsonKind::Number => {
            let text = cursor.number()?;
            if let Ok(integer) = text.parse() {
                return Ok(ParameterValue::Integer(integer));
            }
            match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(ParameterValue::Number(number)),
                _ => Err(Error::invalid(format!("{} is {text}, which is no finite number", location()))),
            }
        }
        found => Err(Error::invalid(format!(
            "{} must be a string, a number or true or false, not {found}",
            location()
        ))),
    }
}

/// Reads the parameters of the request.
pub(super) fn request_parameters<'a>(cursor: &mut JsonCursor<'a>, into: &mut Parameters<'a>) -> Result<()> {
    expect_kind(cursor, JsonKind::Object, || "\"parameters\"".into())?;
    cursor.present_members(|cursor, key| {
        let location = || format!("parameter \"{key}\"");
        let repeated = match &*key {
            "binary_data_output" => into.binary_data_output.replace(flag(cursor, location)?).is_some(),
            "timeout" => into.timeout_us.replace(unsigned(cursor, location)?).is_some(),
            "priority" => into.priority.replace(unsigned(cursor, location)?).is_some(),
            _ => {
                let value = parameter(cursor, location)?;
                into.add_custom(key.clone(), value)?
            }
        };
        if repeated { Err(Error::invalid(format!("parameter \"{key}\" is given twice"))) } else { Ok(()) }
    })
}

/// Reads the parameters of an input or output. `known` takes those with a meaning; the others are checked and skipped.
pub(super) fn tensor_parameters<'a>(
    cursor: &mut JsonCursor<'a>,
    location: impl Fn() -> String,
    mut known: impl FnMut(&mut JsonCursor<'a>, &str) -> Result<bool>,
) -> Result<()> {
    expect_kind(cursor, JsonKind::Object, || format!("{}: \"parameters\"", location()))?;
    cursor.present_members(|cursor, key| {
        refuse_shared_memory(&key, &location)?;
        if !known(cursor, &key)? {
            parameter(cursor, || format!("{}: parameter \"{key}\"", location()))?;
        }
        Ok(())
    })
}

/// The error for a key that occurs twice.
pub(super) fn repeated_key(location: &str, key: &str) -> Error {
    Error::invalid(format!("{location} has \"{key}\" twice"))
}

/// Refuses a text that begins with a byte order mark: JSON must not have one (RFC 8259, section 8.1).
///
/// # Errors
/// `invalid_argument` that names the encoding of the mark.
pub fn refuse_byte_order_mark(text: &[u8]) -> Result<()> {
    let encoding = match text {
        [0xef, 0xbb, 0xbf, ..] => "UTF-8",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        [0, 0, 0xfe, 0xff, ..] => "UTF-32",
        _ => return Ok(()),
    };
    Err(Error::invalid(format!(
        "the body begins with the byte order mark of {encoding}; JSON is sent as UTF-8 and without a mark"
    )))
}

/// Skips a value that has no meaning here.
pub(super) fn skip(cursor: &mut JsonCursor<'_>) -> Result<()> {
    cursor.skip().map_err(|fault: JsonFault| fault.into())
}
