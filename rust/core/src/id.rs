//! The grammar of names: endpoints and versions share it.
//!
//! Next: `tensor`.

use crate::error::{Error, Result};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 128;

/// Checks a name against `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}` without `..`.
///
/// # Errors
/// `invalid_argument` with a sentence that names `what` ("endpoint", "version") and the grammar.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} name {name:?} is not valid: use 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -, \
         the first of them no . or -, and no \"..\""
    )))
}

/// Whether `name` fits the grammar.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let Some(first) = bytes.first() else { return false };
    bytes.len() <= MAX_NAME
        && (first.is_ascii_alphanumeric() || *first == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds_at_its_edges() {
        let long = "a".repeat(MAX_NAME);
        for good in ["a", "_", "0", "fraud-score", "v1.2_3-x", long.as_str()] {
            assert!(is_name(good), "{good}");
        }
        let longer = "a".repeat(MAX_NAME + 1);
        for bad in ["", ".", "-a", "a..b", "a/b", "ä", "a b", longer.as_str()] {
            assert!(!is_name(bad), "{bad}");
            assert!(check_name("version", bad).is_err());
        }
    }
}
