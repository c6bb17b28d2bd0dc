//! Compares a shadow's output with the champion's: row by row, as the document says.
//!
//! A row is what belongs to one index of the first dimension; a tensor without dimensions is one row. Numbers are compared
//! as `f64`, which holds every value of the protocol's types but 64-bit integers beyond 2^53; `exact` compares those as they
//! are. NaN equals NaN: both versions say the same thing.
//! Not here: what is counted of it (`headgate-server`).

use serde::Deserialize;

/// How an output is compared with the champion's.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Every element is the same.
    #[serde(deserialize_with = "always")]
    Exact,
    /// Every number is at most this far away.
    Within(Tolerance),
    /// The greatest of each row's values is at the same place.
    #[serde(deserialize_with = "always")]
    Label,
    /// Every number is on the same side of this one.
    Threshold(f64),
    /// The places of the so many greatest values of each row are the same set.
    Top(u16),
}

/// How far apart two numbers may be.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// So far.
    Absolute(f64),
    /// This part of the champion's number.
    Relative(f64),
}

fn always<'de, D: serde::Deserializer<'de>>(written: D) -> Result<(), D::Error> {
    bool::deserialize(written).map(|_| ())
}

/// What an output is compared by if the document does not say: floats within 0.1 %, all else exactly.
pub const DEFAULT_FOR_FLOATS: Comparison = Comparison::Within(Tolerance::Relative(0.001));

/// One row of an output as a label, if the comparison has labels: what the direction of a change is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowLabel {
    /// The place of the greatest value; of a threshold, 1 at or above it and 0 below.
    Class(u32),
    /// A value is NaN, so that there is none.
    NotANumber,
}

impl Comparison {
    /// Whether a row of numbers agrees with the champion's row. Rows of different lengths do not.
    #[must_use]
    pub fn agrees(self, champion: &[f64], shadow: &[f64]) -> bool {
        champion.len() == shadow.len()
            && match self {
                Comparison::Exact => pairs(champion, shadow).all(|(a, b)| same(a, b)),
                Comparison::Within(tolerance) => pairs(champion, shadow).all(|(a, b)| tolerance.allows(a, b)),
                Comparison::Label => self.label(champion) == self.label(shadow),
                Comparison::Threshold(threshold) => {
                    pairs(champion, shadow).all(|(a, b)| side(a, threshold) == side(b, threshold))
                }
                Comparison::Top(count) => greatest(champion, count) == greatest(shadow, count),
            }
    }

    /// The label of a row of numbers; `None` if this comparison has no labels.
    #[must_use]
    pub fn label(self, row: &[f64]) -> Option<RowLabel> {
        match self {
            Comparison::Label => Some(argmax(row)),
            Comparison::Threshold(threshold) if row.len() == 1 => Some(side(row[0], threshold)),
            _ => None,
        }
    }

    /// Whether it is for numbers alone.
    #[must_use]
    pub fn needs_numbers(self) -> bool {
        self != Comparison::Exact
    }
}

impl Tolerance {
    fn allows(self, champion: f64, shadow: f64) -> bool {
        let bound = match self {
            Tolerance::Absolute(bound) => bound,
            Tolerance::Relative(share) => share * champion.abs(),
        };
        same(champion, shadow) || (champion - shadow).abs() <= bound && bound.is_finite()
    }
}

fn pairs<'a>(champion: &'a [f64], shadow: &'a [f64]) -> impl Iterator<Item = (f64, f64)> + 'a {
    champion.iter().copied().zip(shadow.iter().copied())
}

fn same(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan()
}

fn side(value: f64, threshold: f64) -> RowLabel {
    if value.is_nan() { RowLabel::NotANumber } else { RowLabel::Class(u32::from(value >= threshold)) }
}

/// The place of the greatest value, the first of several.
fn argmax(row: &[f64]) -> RowLabel {
    let mut best: Option<(usize, f64)> = None;
    for (place, &value) in row.iter().enumerate() {
        if value.is_nan() {
            return RowLabel::NotANumber;
        }
        if best.is_none_or(|(_, greatest)| value > greatest) {
            best = Some((place, value));
        }
    }
    best.map_or(RowLabel::NotANumber, |(place, _)| RowLabel::Class(place as u32))
}

/// The places of the so many greatest values, ascending; of equal values the first. NaN is below every number.
fn greatest(row: &[f64], count: u16) -> Vec<usize> {
    let order = |value: f64| if value.is_nan() { f64::NEG_INFINITY } else { value };
    let mut places: Vec<usize> = (0..row.len()).collect();
    places.sort_by(|&a, &b| order(row[b]).total_cmp(&order(row[a])));
    places.truncate(count.into());
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;

    #[test]
    fn exact_means_every_element() {
        assert!(Comparison::Exact.agrees(&[1.0, NAN, INF], &[1.0, NAN, INF]));
        assert!(!Comparison::Exact.agrees(&[1.0], &[1.0 + f64::EPSILON]));
        assert!(!Comparison::Exact.agrees(&[NAN], &[1.0]));
        assert!(!Comparison::Exact.agrees(&[1.0], &[1.0, 2.0]));
        assert!(Comparison::Exact.agrees(&[0.0], &[-0.0]));
    }

    #[test]
    fn a_tolerance_is_absolute_or_a_part_of_the_champions_number() {
        let absolute = Comparison::Within(Tolerance::Absolute(0.5));
        assert!(absolute.agrees(&[1.0], &[1.5]) && !absolute.agrees(&[1.0], &[1.500_000_1]));
        let relative = Comparison::Within(Tolerance::Relative(0.01));
        assert!(relative.agrees(&[-200.0], &[-198.0]) && !relative.agrees(&[-200.0], &[-197.9]));
        assert!(relative.agrees(&[0.0], &[0.0]) && !relative.agrees(&[0.0], &[1e-9]));
        for comparison in [absolute, relative] {
            assert!(comparison.agrees(&[NAN, INF], &[NAN, INF]));
            assert!(!comparison.agrees(&[INF], &[-INF]) && !comparison.agrees(&[INF], &[5.0]));
            assert!(!comparison.agrees(&[1.0], &[NAN]) && !comparison.agrees(&[NAN], &[1.0]));
        }
    }

    #[test]
    fn a_label_is_the_place_of_the_greatest_value() {
        assert!(Comparison::Label.agrees(&[0.1, 0.7, 0.2], &[0.3, 0.4, 0.3]));
        assert!(!Comparison::Label.agrees(&[0.1, 0.7, 0.2], &[0.3, 0.3, 0.4]));
        assert_eq!(Comparison::Label.label(&[0.5, 0.5]), Some(RowLabel::Class(0)));
        assert_eq!(Comparison::Label.label(&[0.5, NAN]), Some(RowLabel::NotANumber));
    }

    #[test]
    fn a_threshold_has_two_sides() {
        let comparison = Comparison::Threshold(0.5);
        assert!(comparison.agrees(&[0.5, 0.1], &[0.9, 0.49]) && !comparison.agrees(&[0.5], &[0.49]));
        assert!(!comparison.agrees(&[0.5], &[NAN]));
        assert_eq!(comparison.label(&[0.7]), Some(RowLabel::Class(1)));
        assert_eq!(comparison.label(&[0.7, 0.1]), None);
    }

    #[test]
    fn the_greatest_values_are_a_set() {
        let comparison = Comparison::Top(2);
        assert!(comparison.agrees(&[3.0, 1.0, 2.0], &[2.0, 1.0, 3.0]));
        assert!(!comparison.agrees(&[3.0, 1.0, 2.0], &[3.0, 2.0, 1.0]));
        assert!(Comparison::Top(5).agrees(&[1.0], &[2.0]));
    }

    proptest! {
        #[test]
        fn every_row_agrees_with_itself(row in prop::collection::vec(prop_oneof![any::<f64>(), Just(NAN)], 0..8), bound in 0.0..1.0_f64, count in 1_u16..4) {
            for comparison in [
                Comparison::Exact,
                Comparison::Within(Tolerance::Absolute(bound)),
                Comparison::Within(Tolerance::Relative(bound)),
                Comparison::Label,
                Comparison::Threshold(bound),
                Comparison::Top(count),
            ] {
                prop_assert!(comparison.agrees(&row, &row), "{comparison:?}");
            }
        }
    }
}
