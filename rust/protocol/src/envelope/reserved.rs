//! Names of parameters that a request may not use.
//!
//! Next: `envelope/types`.

use headgate_core::error::{Code, Error, Result};

/// Refuses the name of a parameter that is reserved.
pub(super) fn refuse_reserved(key: &str) -> Result<()> {
    if key.starts_with("triton_") {
        return Err(Error::invalid(format!(
            "parameter \"{key}\": names that begin with triton_ are reserved"
        )));
    }
    if key.starts_with("sequence_") {
        return Err(Error::new(
            Code::Unsupported,
            format!(
                "parameter \"{key}\": sequences are not supported; send requests that do not depend on \
                 each other"
            ),
        ));
    }
    Ok(())
}

/// Refuses the parameters of a tensor that lies in shared memory.
pub(crate) fn refuse_shared_memory(key: &str, location: impl Fn() -> String) -> Result<()> {
    if key.starts_with("shared_memory_") {
        return Err(Error::new(
            Code::Unsupported,
            format!("{}: shared memory is not supported; send the elements with the request", location()),
        ));
    }
    Ok(())
}
