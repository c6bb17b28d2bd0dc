//! Which call of the protocol a path names.

use crate::request::inference::Target;
use std::borrow::Cow;

use headgate_core::error::{Error, Result};

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolCall<'a> {
    /// `/v2/models/{endpoint}[/versions/{version}]/infer`
    Infer(Target<'a>),
    /// `/v1/models/{endpoint}[/versions/{version}]:predict`
    Predict(Target<'a>),
    /// `/v2`
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2/models/{endpoint}[/versions/{version}]`
    Model(Target<'a>),
    /// `/v2/models/{endpoint}[/versions/{version}]/ready`
    ModelReady(Target<'a>),
    /// Anything else of the protocol.
    Extension(ExtensionCall<'a>),
}

/// A call of one of the protocol's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionCall<'a> {
    /// `/v2/models` and `/v1/models`
    Models,
    /// `/v1/models/{endpoint}[/versions/{version}]`
    ModelStatus(Target<'a>),
    /// `/v2/models/{endpoint}[/versions/{version}]/config`
    Config(Target<'a>),
    /// `/v2/models/stats`, `/v2/models/{endpoint}[/versions/{version}]/stats`
    Statistics(Option<Target<'a>>),
    /// `/v2/repository[/{repository}]/index`
    Index(&'a str),
    /// `/v2/repository[/{repository}]/models/{endpoint}/load`
    Load(&'a str, &'a str),
    /// `/v2/repository[/{repository}]/models/{endpoint}/unload`
    Unload(&'a str, &'a str),
    /// `/v2/models/{endpoint}/feedback`
    Feedback(&'a str),
    /// `/v2/trace/setting`, `/v2/models/{endpoint}[/versions/{version}]/trace/setting`
    Trace(Option<Target<'a>>),
    /// `/v2/logging`
    Logging,
    /// `/v2/{system,cuda}sharedmemory[/region/{region}]/{status,register,unregister}`
    SharedMemory(SharedMemoryCall),
}

/// A call of the shared memory extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedMemoryCall {
    /// Which regions there are.
    Status,
    /// Take a region.
    Register,
    /// Forget regions.
    Unregister,
}

/// A path with its escapes decoded, once. A slash that is escaped stays so: it parts no segments, and no name has one.
///
/// # Errors
/// `invalid_argument` for a percent sign without two hexadecimal digits behind it, and for bytes that are not UTF-8.
pub fn decoded(path: &str) -> Result<Cow<'_, str>> {
    let mut parts = path.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(|| {
            Error::invalid(format!(
                "the path has {:?}; an escape is % and two hexadecimal digits, such as %20",
                escape(part)
            ))
        })?;
        match byte {
            b'/' => decoded.extend_from_slice(b"%2F"),
            _ => decoded.push(byte),
        }
        decoded.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| Error::invalid("the escapes of the path are not UTF-8"))
}

/// The characters in the place of an escape.
fn escape(part: &str) -> String {
    format!("%{}", part.chars().take(2).collect::<String>())
}

impl<'a> ProtocolCall<'a> {
    /// The call that a path names.
    pub fn parse(path: &'a str) -> Option<ProtocolCall<'a>> {
        if let Some(rest) = path.strip_prefix("/v2/models/") {
            return ProtocolCall::of_model(rest);
        }
        if let Some(rest) = path.strip_prefix("/v1/models") {
            return ProtocolCall::of_v1(rest);
        }
        match path.strip_prefix("/v2")? {
            "" | "/" => Some(ProtocolCall::Server),
            "/health/live" => Some(ProtocolCall::Live),
            "/health/ready" => Some(ProtocolCall::Ready),
            rest => ExtensionCall::parse(rest).map(ProtocolCall::Extension),
        }
    }

    fn of_model(rest: &'a str) -> Option<ProtocolCall<'a>> {
        if rest == "stats" {
            return Some(ProtocolCall::Extension(ExtensionCall::Statistics(None)));
        }
        let (target, rest) = Target::parse(rest)?;
        Some(match rest {
            "" => ProtocolCall::Model(target),
            "/infer" => ProtocolCall::Infer(target),
            "/ready" => ProtocolCall::ModelReady(target),
            "/config" => ProtocolCall::Extension(ExtensionCall::Config(target)),
            "/feedback" if target.version.is_none() => {
                ProtocolCall::Extension(ExtensionCall::Feedback(target.endpoint))
            }
            "/stats" => ProtocolCall::Extension(ExtensionCall::Statistics(Some(target))),
            "/trace/setting" => ProtocolCall::Extension(ExtensionCall::Trace(Some(target))),
            _ => return None,
        })
    }

    fn of_v1(rest: &'a str) -> Option<ProtocolCall<'a>> {
        let Some(rest) = rest.strip_prefix('/') else {
            return rest.is_empty().then_some(ProtocolCall::Extension(ExtensionCall::Models));
        };
        // Names have no colon, so that what follows one is the verb.
        let (path, verb) = rest.split_once(':').map_or((rest, None), |(path, verb)| (path, Some(verb)));
        let (target, left) = Target::parse(path)?;
        match (left, verb) {
            ("", None) => Some(ProtocolCall::Extension(ExtensionCall::ModelStatus(target))),
            ("", Some("predict")) => Some(ProtocolCall::Predict(target)),
            _ => None,
        }
    }
}

impl<'a> ExtensionCall<'a> {
    fn parse(rest: &'a str) -> Option<ExtensionCall<'a>> {
        let (family, rest) = rest.strip_prefix('/')?.split_once('/').unwrap_or((&rest[1..], ""));
        match (family, rest) {
            ("models", "") => Some(ExtensionCall::Models),
            ("trace", "setting") => Some(ExtensionCall::Trace(None)),
            ("logging", "") => Some(ExtensionCall::Logging),
            ("repository", rest) => ExtensionCall::of_repository(rest),
            ("systemsharedmemory" | "cudasharedmemory", rest) => {
                let (region, verb) = rest.rsplit_once('/').unwrap_or(("", rest));
                if !region.is_empty() && region.strip_prefix("region/").is_none_or(str::is_empty) {
                    return None;
                }
                Some(ExtensionCall::SharedMemory(match verb {
                    "status" => SharedMemoryCall::Status,
                    "register" => SharedMemoryCall::Register,
                    "unregister" => SharedMemoryCall::Unregister,
                    _ => return None,
                }))
            }
            _ => None,
        }
    }

    fn of_repository(rest: &'a str) -> Option<ExtensionCall<'a>> {
        let mut parts = rest.split('/');
        let mut first = parts.next()?;
        let mut repository = "";
        if !matches!(first, "index" | "models") {
            (repository, first) = (first, parts.next()?);
        }
        let found = match first {
            "index" => ExtensionCall::Index(repository),
            "models" => {
                let endpoint = parts.next().filter(|name| !name.is_empty())?;
                match parts.next()? {
                    "load" => ExtensionCall::Load(repository, endpoint),
                    "unload" => ExtensionCall::Unload(repository, endpoint),
                    _ => return None,
                }
            }
            _ => return None,
        };
        parts.next().is_none().then_some(found)
    }
}

impl<'a> Target<'a> {
    /// `{endpoint}[/versions/{version}]`, and what follows.
    fn parse(path: &'a str) -> Option<(Target<'a>, &'a str)> {
        let (endpoint, rest) = name(path)?;
        match rest.strip_prefix("/versions/") {
            None => Some((Target { endpoint, version: None }, rest)),
            Some(rest) => {
                let (version, rest) = name(rest)?;
                Some((Target { endpoint, version: Some(version) }, rest))
            }
        }
    }
}

/// The part in front of the next slash, which is not empty, and what follows, the slash included.
fn name(path: &str) -> Option<(&str, &str)> {
    // A name is short: looking at each byte costs less than a search that is made for long texts.
    let end = path.bytes().position(|byte| byte == b'/').unwrap_or(path.len());
    (end > 0).then(|| path.split_at(end))
}

#[cfg(test)]
mod tests {
    use headgate_core::error::Code;

    use super::*;

    const PLAIN: Target<'static> = Target { endpoint: "digits", version: None };
    const DIRECT: Target<'static> = Target { endpoint: "digits", version: Some("v2") };

    #[test]
    fn every_call_of_the_protocol_is_known() {
        for (path, call) in [
            ("/v2", ProtocolCall::Server),
            ("/v2/", ProtocolCall::Server),
            ("/v2/health/live", ProtocolCall::Live),
            ("/v2/health/ready", ProtocolCall::Ready),
            ("/v2/models/digits", ProtocolCall::Model(PLAIN)),
            ("/v2/models/digits/versions/v2", ProtocolCall::Model(DIRECT)),
            ("/v2/models/digits/ready", ProtocolCall::ModelReady(PLAIN)),
            ("/v2/models/digits/versions/v2/ready", ProtocolCall::ModelReady(DIRECT)),
            ("/v2/models/digits/infer", ProtocolCall::Infer(PLAIN)),
            ("/v2/models/digits/versions/v2/infer", ProtocolCall::Infer(DIRECT)),
            ("/v1/models/digits:predict", ProtocolCall::Predict(PLAIN)),
            ("/v1/models/digits/versions/v2:predict", ProtocolCall::Predict(DIRECT)),
        ] {
            assert_eq!(ProtocolCall::parse(path), Some(call), "{path}");
        }
    }

    #[test]
    fn every_call_of_an_extension_is_known() {
        for (path, call) in [
            ("/v2/models", ExtensionCall::Models),
            ("/v1/models", ExtensionCall::Models),
            ("/v1/models/digits", ExtensionCall::ModelStatus(PLAIN)),
            ("/v1/models/digits/versions/v2", ExtensionCall::ModelStatus(DIRECT)),
            ("/v2/models/digits/config", ExtensionCall::Config(PLAIN)),
            ("/v2/models/digits/versions/v2/config", ExtensionCall::Config(DIRECT)),
            ("/v2/models/stats", ExtensionCall::Statistics(None)),
            ("/v2/models/digits/stats", ExtensionCall::Statistics(Some(PLAIN))),
            ("/v2/models/digits/feedback", ExtensionCall::Feedback("digits")),
            ("/v2/models/digits/trace/setting", ExtensionCall::Trace(Some(PLAIN))),
            ("/v2/trace/setting", ExtensionCall::Trace(None)),
            ("/v2/logging", ExtensionCall::Logging),
            ("/v2/repository/index", ExtensionCall::Index("")),
            ("/v2/repository/other/index", ExtensionCall::Index("other")),
            ("/v2/repository/models/digits/load", ExtensionCall::Load("", "digits")),
            ("/v2/repository/other/models/digits/unload", ExtensionCall::Unload("other", "digits")),
            ("/v2/systemsharedmemory/status", ExtensionCall::SharedMemory(SharedMemoryCall::Status)),
            (
                "/v2/cudasharedmemory/region/r/register",
                ExtensionCall::SharedMemory(SharedMemoryCall::Register),
            ),
            ("/v2/systemsharedmemory/unregister", ExtensionCall::SharedMemory(SharedMemoryCall::Unregister)),
        ] {
            assert_eq!(ProtocolCall::parse(path), Some(ProtocolCall::Extension(call)), "{path}");
        }
    }

    #[test]
    fn escapes_are_decoded_once_and_an_escaped_slash_parts_nothing() {
        for (path, wanted) in [
            ("/v2/models/a%2Eb/infer", "/v2/models/a.b/infer"),
            ("/v1/models/digits%3Apredict", "/v1/models/digits:predict"),
            ("/v2/m%6fdels/%64igits", "/v2/models/digits"),
            ("/v2/models/a%252Eb", "/v2/models/a%2Eb"),
            ("/v2/models%2Fdigits", "/v2/models%2Fdigits"),
            ("/v2/models/a%2fb/infer", "/v2/models/a%2Fb/infer"),
            ("/%C3%A9", "/\u{e9}"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(decoded(path).unwrap(), wanted, "{path}");
        }
        for path in ["/%", "/%2", "/%zz", "/%2/x", "/%+1", "/%\u{e9}", "/%FF", "/%C3"] {
            assert_eq!(decoded(path).unwrap_err().code, Code::InvalidArgument, "{path}");
        }
    }

    #[test]
    fn nothing_else_is_a_call() {
        for path in [
            "",
            "/",
            "/v1",
            "/v2x",
            "/v2/health",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/digits/",
            "/v2/models/digits/versions",
            "/v2/models/digits/versions//infer",
            "/v2/models/digits/infer/more",
            "/v2/models/digits/versions/v1/feedback",
            "/v2/models/digits/other",
            "/v1/models/",
            "/v1/models/digits:classify",
            "/v1/models/digits:predict/more",
            "/v1/models/:predict",
            "/v1/modelsx",
            "/v2/repository",
            "/v2/repository/models/digits",
            "/v2/repository/models//load",
            "/v2/repository/models/digits/load/more",
            "/v2/systemsharedmemory",
            "/v2/systemsharedmemory/region//status",
            "/v2/systemsharedmemory/regions/r/status",
        ] {
            assert_eq!(ProtocolCall::parse(path), None, "{path}");
        }
    }
}
