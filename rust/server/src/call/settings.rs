//! What the trace and logging extensions report. Neither can be changed over the protocol.

use headgate_core::error::{Code, Error, Result};

use crate::thread::io::Io;

/// A logging setting's value.
#[derive(Clone, Copy, Debug)]
pub enum LogValue {
    /// On or off.
    Flag(bool),
    /// A number.
    Number(u32),
    /// Words.
    Text(&'static str),
}

/// Logging: diagnostics go to standard error.
pub const LOG: [(&str, LogValue); 6] = [
    ("log_file", LogValue::Text("")),
    ("log_info", LogValue::Flag(true)),
    ("log_warning", LogValue::Flag(true)),
    ("log_error", LogValue::Flag(true)),
    ("log_verbose_level", LogValue::Number(0)),
    ("log_format", LogValue::Text("default")),
];

/// Tracing: off; a client's own trace context is passed on. Triton's clients expect every value to be a string.
pub const TRACE: [(&str, &str); 6] = [
    ("trace_level", "OFF"),
    ("trace_rate", "0"),
    ("trace_count", "-1"),
    ("log_frequency", "0"),
    ("trace_file", ""),
    ("trace_mode", "triton"),
];

/// Refuses a request to change settings; one without settings asks what they are.
///
/// # Errors
/// `permission_denied`; `unsupported`, naming the first setting, if the operator lets clients control the gateway.
pub fn refuse_changes<'a>(io: &Io, mut names: impl Iterator<Item = &'a String>) -> Result<()> {
    match names.next() {
        None => Ok(()),
        Some(_) if !io.shared.config.allow_repository_control => Err(Error::new(
            Code::PermissionDenied,
            "changing settings over the protocol is off; start with --allow-repository-control",
        )),
        Some(name) => Err(Error::new(
            Code::Unsupported,
            format!("setting {name:?} cannot be changed over the protocol; see `headgate serve --help`"),
        )),
    }
}
