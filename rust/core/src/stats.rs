//! Statistics that decisions rest on, pure: counts go in, intervals and test statistics come out.
//!
//! Read in this order: [`normal`] and [`beta`] (the distributions), [`proportion`] (intervals of shares),
//! [`agreement`] (two versions that answered the same requests), [`event_ratio`] (which of two versions has more
//! failures, watched without pause), [`mean_sequence`] (a mean, watched without pause),
//! [`difference_sequence`] (the distance of two distributions, watched without pause). For measurements of load:
//! [`student`], [`codes`] (durations, counted batch by batch), [`quantile`] (intervals of quantiles), [`verdict`] (whether
//! a rate holds an objective), [`steadiness`] (warm-up and trends), [`paired`] (which of two is slower).

pub mod agreement;
pub mod beta;
pub mod codes;
pub mod difference_sequence;
pub mod event_ratio;
pub mod mean_sequence;
pub mod normal;
pub mod paired;
pub mod proportion;
pub mod quantile;
pub mod steadiness;
pub mod student;
pub mod verdict;

#[cfg(test)]
pub(crate) mod testing {
    /// Fails unless `found` is `wanted` within `relative` (an absolute bound where `wanted` is zero).
    pub(crate) fn close(found: f64, wanted: f64, relative: f64) {
        let scale = if wanted == 0.0 { 1.0 } else { wanted.abs() };
        assert!((found - wanted).abs() <= relative * scale, "found {found:e}, wanted {wanted:e}");
    }
}
