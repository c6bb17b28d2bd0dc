//! Which version is asked when the one that was chosen does not answer.
//!
//! The champion answers for a challenger that fails or is left alone, unless the document says `traffic.fallback: none`; then
//! come the versions that `traffic.fallback` lists. Never on a client's mistake, unless the champion takes other inputs; never for
//! a caller that named the version, and within the request's deadline.

use headgate_core::snapshot::Version;

use crate::after::record::routed_version::RoutedVersion;
use crate::serving::version::VersionState;

/// Why another version is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallbackCause {
    /// Its run failed.
    Failed,
    /// Its response could not be written as it was asked for.
    Unwritable,
    /// It takes other inputs than the champion, and the request does not fit them.
    Incompatible,
    /// It is left alone, or out of memory.
    NotReady,
    /// It took too long.
    Late,
    /// It sheds.
    Overloaded,
}

impl FallbackCause {
    /// In the words of the response's header.
    pub fn as_str(self) -> &'static str {
        match self {
            FallbackCause::Failed | FallbackCause::Unwritable => "error",
            FallbackCause::Incompatible => "incompatible",
            FallbackCause::NotReady => "not_ready",
            FallbackCause::Late => "timeout",
            FallbackCause::Overloaded => "overloaded",
        }
    }

    /// Whether the champion answers though no document says that it does. Not for what is late or overloaded: a challenger's load
    /// would move to the champion when there is too much of it.
    fn calls_the_champion(self) -> bool {
        !matches!(self, FallbackCause::Late | FallbackCause::Overloaded)
    }

    /// Whether the listed fallbacks are asked as well.
    fn calls_the_listed(self) -> bool {
        !matches!(self, FallbackCause::Unwritable | FallbackCause::Incompatible)
    }
}

/// The version that is asked next.
pub struct Fallback {
    /// Its place in the endpoint.
    pub version: u8,
    /// Why it is asked.
    pub cause: FallbackCause,
    /// How many of the listed fallbacks have had their chance then.
    tried: usize,
}

impl Fallback {
    /// Whether the version is a constant.
    pub fn is_constant(&self, routed: &RoutedVersion) -> bool {
        routed.endpoint.versions[usize::from(self.version)].payload.is_constant
    }
}

/// The versions that a request has been given to.
#[derive(Clone, Copy)]
pub struct FallbackState {
    /// The version that was chosen.
    first: u8,
    asked_champion: bool,
    /// How many of the listed fallbacks were asked or passed over.
    tried: usize,
}

impl FallbackState {
    /// A request that was routed to a version.
    pub fn new(first: u8) -> FallbackState {
        FallbackState { first, asked_champion: false, tried: 0 }
    }

    /// Whether a version is the one that was chosen.
    pub fn is_first(&self, version: u8) -> bool {
        version == self.first
    }

    /// The version that is asked after a failure of `routed`; `None` if there is none.
    pub fn next(&self, routed: &RoutedVersion, cause: FallbackCause) -> Option<Fallback> {
        let (fallback, champion) = (&routed.endpoint.fallback, routed.endpoint.champion);
        let was_asked = |version| {
            version == routed.index || version == self.first || (version == champion && self.asked_champion)
        };
        if fallback.champion && cause.calls_the_champion() && !was_asked(champion) {
            return Some(Fallback { version: champion, tried: self.tried, cause });
        }
        if !cause.calls_the_listed() {
            return None;
        }
        let mut others = fallback.to.iter().enumerate().skip(self.tried);
        let (at, &version) = others.find(|(_, version)| !was_asked(**version))?;
        Some(Fallback { version, tried: at + 1, cause })
    }

    /// The same once `next` is asked, of an endpoint with that champion.
    pub fn after(&self, next: &Fallback, champion: u8) -> FallbackState {
        FallbackState {
            first: self.first,
            asked_champion: self.asked_champion || next.version == champion,
            tried: next.tried,
        }
    }
}

/// Whether a version is the champion of its endpoint.
pub fn is_champion(routed: &RoutedVersion) -> bool {
    routed.index == routed.endpoint.champion
}

/// The champion of the endpoint, if it is a model.
pub fn champion(routed: &RoutedVersion) -> Option<&Version<VersionState>> {
    let champion = &routed.endpoint.versions[usize::from(routed.endpoint.champion)];
    (!champion.payload.is_constant).then_some(champion)
}
