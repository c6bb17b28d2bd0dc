//! Which requests are copied to shadows and which are captured.
//!
//! Each purpose draws for itself: its salt is its own, so that no draw says anything about another or about the slots. A
//! request is drawn by its sticky key or by a number of its own; the drawn set for a smaller share is a part of the set for
//! a greater one.
//! Not here: comparing (`comparison`), running a shadow, writing (`headgate-server`). Next: `route`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::comparison::Comparison;
use crate::rules::FieldName;
use crate::slots::{SLOTS, number_hash, slot_of, slot_of_hash, text_hash};

/// The most shadows of an endpoint.
pub const MAX_SHADOWS: usize = 8;

/// A shadow as the document has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowSpec {
    /// The version that gets the copies.
    pub to: String,
    /// The share of requests, in slots of 0.01 %.
    pub share: u16,
    /// What is drawn.
    #[serde(default)]
    pub by: DrawBy,
    /// How outputs are compared, by name.
    #[serde(default)]
    pub compare: BTreeMap<String, Comparison>,
    /// How long a copy may wait and run, in milliseconds.
    #[serde(default, rename = "timeout")]
    pub timeout_ms: Option<u64>,
    /// The headers and parameters whose values are counted apart.
    #[serde(default)]
    pub slices: Vec<FieldName>,
    /// How many of the newest differing pairs are kept.
    #[serde(default)]
    pub keep_examples: u16,
    /// Tensors and columns (`tensor.column`) that kept examples leave out.
    #[serde(default)]
    pub redact: Vec<String>,
}

/// A shadow that the document has and that does not run.
#[derive(Clone, Debug, PartialEq)]
pub struct IdleShadow {
    /// Its index in the document.
    pub place: usize,
    /// What the document says of it.
    pub spec: ShadowSpec,
    /// Why it does not run.
    pub state: IdleState,
    /// The same in words.
    pub reason: String,
}

/// Why a shadow does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleState {
    /// It is switched off.
    Off,
    /// Its version is not loaded, because it is blocked or does not load.
    NotLoaded,
    /// It is the champion now, and would be compared with itself.
    Champion,
}

impl IdleState {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            IdleState::Off => "off",
            IdleState::NotLoaded => "not_loaded",
            IdleState::Champion => "champion",
        }
    }
}

/// What is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrawBy {
    /// Each request for itself.
    #[default]
    Request,
    /// Sticky keys, with all their requests; a request without its key is drawn for itself.
    Sticky,
}

/// Which requests are kept, as the document has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureSpec {
    /// The share of requests, in slots of 0.01 %.
    pub share: u16,
    /// How long they are kept, in milliseconds.
    #[serde(rename = "keep")]
    pub keep_ms: u64,
    /// What all of them may take on the disk, in bytes.
    #[serde(rename = "max_size")]
    pub max_bytes: u64,
    /// Tensors and columns (`tensor.column`) that are left out.
    #[serde(default)]
    pub redact: Vec<String>,
}

/// A version that gets copies of requests, compiled.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// Its index in the endpoint's versions.
    pub version: u8,
    /// Which requests it gets.
    pub sample: Sample,
    /// What the document says of it.
    pub spec: Arc<ShadowSpec>,
}

impl Shadow {
    /// A shadow of `endpoint`; `version` is the index of its version.
    #[must_use]
    pub fn new(endpoint: &str, version: u8, spec: &ShadowSpec) -> Shadow {
        let sample = Sample::new(endpoint, &format!("shadow/{}", spec.to), spec.share, spec.by);
        Shadow { version, sample, spec: Arc::new(spec.clone()) }
    }
}

/// Which requests are captured, compiled.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Which requests.
    pub sample: Sample,
    /// What the document says of it.
    pub spec: Arc<CaptureSpec>,
}

impl Capture {
    /// The capture of `endpoint`.
    #[must_use]
    pub fn new(endpoint: &str, spec: &CaptureSpec) -> Capture {
        let sample = Sample::new(endpoint, "capture", spec.share, DrawBy::Request);
        Capture { sample, spec: Arc::new(spec.clone()) }
    }
}

/// A share of requests that are chosen by a draw of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    salt: Box<str>,
    /// A hash of the salt, with which numbers are hashed.
    seed: u64,
    share: u16,
    by: DrawBy,
}

impl Sample {
    /// Chooses `share` of 10 000; `purpose` says what for, such as `shadow/v8`, and makes the draw independent of others.
    #[must_use]
    pub fn new(endpoint: &str, purpose: &str, share: u16, by: DrawBy) -> Sample {
        let salt: Box<str> = format!("{endpoint}/{purpose}").into();
        Sample { seed: text_hash(&salt), salt, share, by }
    }

    /// What keys are hashed with.
    #[must_use]
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// Whether it chooses a request with that number and that sticky key. `key` is asked only if keys are drawn; it is `None` for a request
    /// without one. A key has the slot of [`slot_of`], a number that of [`number_hash`].
    #[inline]
    #[must_use]
    pub fn chooses<'k>(&self, request: u64, key: impl FnOnce() -> Option<&'k [u8]>) -> bool {
        if self.share == 0 || usize::from(self.share) >= SLOTS {
            return self.share != 0;
        }
        let key = if self.by == DrawBy::Sticky { key() } else { None };
        let slot = match key {
            Some(key) => slot_of(&self.salt, key),
            None => slot_of_hash(number_hash(self.seed, request)),
        };
        slot < self.share
    }

    /// Whether it chooses all requests of a caller with that sticky key, or none; `None` if each is drawn for itself.
    #[must_use]
    pub fn foresee(&self, key: Option<&[u8]>) -> Option<bool> {
        let foreseen = self.share == 0
            || usize::from(self.share) >= SLOTS
            || (self.by == DrawBy::Sticky && key.is_some());
        foreseen.then(|| self.chooses(0, || key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::comparison::Tolerance;

    #[test]
    fn a_spec_has_each_comparison_in_its_form() {
        let spec: ShadowSpec = serde_json::from_str(
            r#"{"to": "v8", "share": 1000, "by": "sticky", "keep_examples": 3, "slices": ["header.x"], "timeout": 200,
                "compare": {"a": {"exact": true}, "b": {"within": {"absolute": 0.5}}, "c": {"label": true},
                    "d": {"threshold": 0.5}, "e": {"top": 3}, "f": {"within": {"relative": 0.01}}}}"#,
        )
        .unwrap();
        assert_eq!(
            spec.compare.into_values().collect::<Vec<_>>(),
            [
                Comparison::Exact,
                Comparison::Within(Tolerance::Absolute(0.5)),
                Comparison::Label,
                Comparison::Threshold(0.5),
                Comparison::Top(3),
                Comparison::Within(Tolerance::Relative(0.01)),
            ]
        );
        assert_eq!((spec.by, spec.timeout_ms), (DrawBy::Sticky, Some(200)));
    }

    /// Of 20 000 requests, how many each of two samples chooses, and how many both do.
    fn chosen(first: &Sample, second: &Sample) -> (u32, u32, u32) {
        let mut counts = (0, 0, 0);
        for request in 0..20_000_u64 {
            let (one, other) = (first.chooses(request, || None), second.chooses(request, || None));
            counts.0 += u32::from(one);
            counts.1 += u32::from(other);
            counts.2 += u32::from(one && other);
        }
        counts
    }

    #[test]
    fn draws_for_different_purposes_are_independent() {
        let sample = |purpose: &str| Sample::new("digits", purpose, 1_000, DrawBy::Request);
        let (one, other, both) = chosen(&sample("shadow/v8"), &sample("capture"));
        // 10 % each, 1 % both: within five standard deviations.
        assert!((1_788..2_212).contains(&one) && (1_788..2_212).contains(&other), "{one} {other}");
        assert!((130..270).contains(&both), "{both}");
        let (_, _, same) = chosen(&sample("capture"), &sample("capture"));
        assert_eq!(same, other);
    }

    /// Pearson's statistic of a table with two rows and two columns: the 99.99 % quantile under independence is 15.1.
    fn chi_square(table: [[f64; 2]; 2]) -> f64 {
        let total: f64 = table.iter().flatten().sum();
        let row = |i: usize| table[i][0] + table[i][1];
        let column = |j: usize| table[0][j] + table[1][j];
        let term = |i: usize, j: usize| {
            let expected = row(i) * column(j) / total;
            (table[i][j] - expected).powi(2) / expected
        };
        term(0, 0) + term(0, 1) + term(1, 0) + term(1, 1)
    }

    #[test]
    fn the_split_and_the_draws_by_the_same_key_are_independent() {
        // All salts begin alike, as they do in one endpoint.
        let sample = |purpose| Sample::new("digits", purpose, 3_000, DrawBy::Sticky);
        let samples = [sample("shadow/v8"), sample("shadow/v9"), sample("capture")];
        let draw = |which: usize, key: &[u8]| match which.checked_sub(1) {
            None => slot_of("digits/v8/1", key) < 3_000,
            Some(sample) => samples[sample].chooses(7, || Some(key)),
        };
        for first in 0..=samples.len() {
            for second in first + 1..=samples.len() {
                let mut table = [[0.0; 2]; 2];
                for user in 0..20_000 {
                    let key = format!("user-{user}");
                    let (one, other) = (draw(first, key.as_bytes()), draw(second, key.as_bytes()));
                    table[usize::from(one)][usize::from(other)] += 1.0;
                }
                assert!(chi_square(table) < 15.1, "{first} and {second}: {table:?}");
                assert!((5_600.0..6_400.0).contains(&(table[1][0] + table[1][1])), "{first}: {table:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_smaller_share_chooses_a_part_of_a_greater_one(request: u64, key: Option<[u8; 4]>, one in 0_u16..=10_000, other in 0_u16..=10_000) {
            let by = if key.is_some() { DrawBy::Sticky } else { DrawBy::Request };
            let sample = |share| Sample::new("digits", "shadow/v8", share, by);
            let key = key.as_ref().map(|key| &key[..]);
            if sample(one.min(other)).chooses(request, || key) {
                prop_assert!(sample(one.max(other)).chooses(request, || key));
            }
            prop_assert!(!sample(0).chooses(request, || key) && sample(10_000).chooses(request, || key));
        }

        #[test]
        fn a_sticky_key_is_chosen_with_all_its_requests(one: u64, other: u64, key: [u8; 4]) {
            let sample = Sample::new("digits", "shadow/v8", 5_000, DrawBy::Sticky);
            prop_assert_eq!(sample.chooses(one, || Some(&key)), sample.chooses(other, || Some(&key)));
        }
    }
}
