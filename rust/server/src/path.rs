//! Which call of the protocol a path names.

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// `/v2`
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2/models/{endpoint}[/versions/{version}]`
    Model(Target<'a>),
    /// `…/ready`
    ModelReady(Target<'a>),
    /// `…/infer`
    Infer(Target<'a>),
}

/// The endpoint, and the version when the caller names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The endpoint's name.
    pub endpoint: &'a str,
    /// The version's name.
    pub version: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// The call that a path names.
    pub fn parse(path: &'a str) -> Option<Call<'a>> {
        let rest = path.strip_prefix("/v2")?;
        if let Some(rest) = rest.strip_prefix("/models/") {
            return Call::of_model(rest);
        }
        match rest {
            "" | "/" => Some(Call::Server),
            "/health/live" => Some(Call::Live),
            "/health/ready" => Some(Call::Ready),
            _ => None,
        }
    }

    fn of_model(rest: &'a str) -> Option<Call<'a>> {
        let mut parts = rest.split('/');
        let endpoint = parts.next().filter(|name| !name.is_empty())?;
        let mut next = parts.next();
        let mut version = None;
        if next == Some("versions") {
            version = Some(parts.next().filter(|name| !name.is_empty())?);
            next = parts.next();
        }
        let target = Target { endpoint, version };
        let call = match next {
            None => Call::Model(target),
            Some("ready") => Call::ModelReady(target),
            Some("infer") => Call::Infer(target),
            Some(_) => return None,
        };
        parts.next().is_none().then_some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_of_the_protocol_is_known_and_nothing_else() {
        let plain = Target { endpoint: "digits", version: None };
        let direct = Target { endpoint: "digits", version: Some("v2") };
        for (path, call) in [
            ("/v2", Call::Server),
            ("/v2/health/live", Call::Live),
            ("/v2/health/ready", Call::Ready),
            ("/v2/models/digits", Call::Model(plain)),
            ("/v2/models/digits/versions/v2", Call::Model(direct)),
            ("/v2/models/digits/ready", Call::ModelReady(plain)),
            ("/v2/models/digits/versions/v2/ready", Call::ModelReady(direct)),
            ("/v2/models/digits/infer", Call::Infer(plain)),
            ("/v2/models/digits/versions/v2/infer", Call::Infer(direct)),
        ] {
            assert_eq!(Call::parse(path), Some(call), "{path}");
        }
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
            "/v2/models/digits/other",
        ] {
            assert_eq!(Call::parse(path), None, "{path}");
        }
    }
}
