//! Whether the challenger has more bad events than the champion, watched without pause.
//!
//! Each event came from one of two arms. If both are equally good, it came from the challenger with probability `s`,
//! the challenger's share of the exposure at that moment, whatever the rate of events does (Lindon and Malek, NeurIPS
//! 2022). The product of likelihood ratios against the alternative "the challenger has `d` times the rate" is then a
//! martingale of mean 1, so that it reaches a threshold `t` with probability 1/t at most, however often it is looked at
//! (Ville 1939). A mixture over several `d` is one, too.

use super::proportion::Interval;

/// The alternatives: how many times the champion's rate the challenger has.
pub const ALTERNATIVES: [f64; 6] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0];

/// Events that happened while the challenger's share of the exposure was the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Events {
    /// The challenger's share of the exposure, in (0, 1).
    pub exposure: f64,
    /// The champion's events.
    pub champion: u64,
    /// The challenger's events.
    pub challenger: u64,
}

/// The challenger's share of the exposure: its weight among the arms, times the share of its requests that it ran.
///
/// `weight` is its weight in the routing table; `ran` and `champion_ran` are the shares of an arm's slot-routed requests
/// that the arm's own version ran. An arm that sheds is exposed less than its weight says.
#[must_use]
pub fn exposure(weight: f64, ran: f64, champion_ran: f64) -> f64 {
    weight * ran / (weight * ran + (1.0 - weight) * champion_ran)
}

/// The weight to count an error of a unit with that had erred on the champion at weights up to `highest`; none if the
/// unit could not have reached the challenger since. A unit errs once, so only the weight it has gained since counts.
#[must_use]
pub fn weight_after_champion_error(weight: f64, highest: f64) -> Option<f64> {
    (weight > highest).then(|| (weight - highest) / (1.0 - highest))
}

/// A running test of "the challenger's rate is at most the champion's".
///
/// A part of the wealth is kept in reserve, and each block starts with a share of it. A long good time therefore does
/// not have to be made up for before a change for the worse is seen.
#[derive(Clone, Debug, PartialEq)]
pub struct SequentialTest {
    margin: f64,
    /// ln of the wealth on each alternative, minus infinity before the first block.
    ln_wealth: [f64; ALTERNATIVES.len()],
    blocks: u32,
}

impl Default for SequentialTest {
    fn default() -> Self {
        Self::new(1.0)
    }
}

impl SequentialTest {
    /// A test of "the challenger's rate is at most `margin` times the champion's"; 1 asks whether it is worse at all.
    #[must_use]
    pub fn new(margin: f64) -> Self {
        Self { margin, ln_wealth: [f64::NEG_INFINITY; ALTERNATIVES.len()], blocks: 0 }
    }

    /// Begins a block: at the start of a step, and every ten minutes with traffic. Block `j` brings `1/(j(j+1))` into
    /// play, so that all blocks together bring 1.
    pub fn begin_block(&mut self) {
        self.blocks += 1;
        let j = f64::from(self.blocks);
        let ln_part = -(j * (j + 1.0)).ln() - (ALTERNATIVES.len() as f64).ln();
        for wealth in &mut self.ln_wealth {
            *wealth = ln_add(*wealth, ln_part);
        }
    }

    /// Leaves out blocks whose events are not known. What they would have brought into play counts as lost, so that the promise holds.
    pub fn skip_blocks(&mut self, blocks: u32) {
        self.blocks = self.blocks.saturating_add(blocks);
    }

    /// Counts events; those before the first block begin it.
    pub fn count(&mut self, events: Events) {
        if self.ln_wealth[0] == f64::NEG_INFINITY {
            self.begin_block();
        }
        let shifted = shifted(events.exposure, self.margin);
        for (wealth, alternative) in self.ln_wealth.iter_mut().zip(ALTERNATIVES) {
            *wealth += ln_likelihood_ratio(events, shifted, alternative);
        }
    }

    /// ln of the e-value: what a wager of 1 that the challenger is worse has become.
    #[must_use]
    pub fn ln_e_value(&self) -> f64 {
        let reserve = 1.0 / (f64::from(self.blocks) + 1.0);
        self.ln_wealth.iter().fold(reserve.ln(), |sum, wealth| ln_add(sum, *wealth))
    }

    /// The e-value: the test rejects at level `1/t` once this has reached `t`.
    #[must_use]
    pub fn e_value(&self) -> f64 {
        self.ln_e_value().exp()
    }
}

/// All ratios of the challenger's rate to the champion's that `events` do not contradict at `confidence`, valid at every
/// moment: those where neither the test nor its mirror (the challenger has `1/d` times the rate) reaches `2/alpha`.
#[must_use]
pub fn ratio_interval(events: &[Events], confidence: f64) -> Interval {
    let ln_threshold = (2.0 / (1.0 - confidence)).ln();
    let any = |of: fn(&Events) -> u64| events.iter().map(of).sum::<u64>() > 0;
    let above = |ratio: f64| ln_mixture(events, ratio, false) >= ln_threshold;
    let below = |ratio: f64| ln_mixture(events, ratio, true) >= ln_threshold;
    let low = if any(|e| e.challenger) { boundary(above) } else { 0.0 };
    let high =
        if any(|e| e.champion) { 1.0 / boundary(|inverse| below(1.0 / inverse)) } else { f64::INFINITY };
    Interval { low, high }
}

/// The ratio of the challenger's rate to the champion's that makes `events` most likely: 0 without an event of the challenger, infinity
/// without one of the champion, NaN without any.
#[must_use]
pub fn ratio_estimate(events: &[Events]) -> f64 {
    const HALVINGS: usize = 100;
    let sum = |of: fn(&Events) -> u64| events.iter().map(of).sum::<u64>() as f64;
    let (champion, challenger) = (sum(|e| e.champion), sum(|e| e.challenger));
    if champion == 0.0 || challenger == 0.0 {
        return challenger / champion;
    }
    // The likelihood is greatest where the challenger's events are as many as are expected of the total.
    let expected = |ratio: f64| {
        events.iter().map(|e| (e.champion + e.challenger) as f64 * shifted(e.exposure, ratio)).sum::<f64>()
    };
    let (mut low, mut high) = (1e-9_f64.ln(), 1e9_f64.ln());
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if expected(middle.exp()) < challenger { low = middle } else { high = middle }
    }
    f64::midpoint(low, high).exp()
}

/// ln of the likelihood ratios of `events`, mixed over the alternatives, at a supposed ratio of `margin`.
#[must_use]
pub fn ln_evidence(events: &[Events], margin: f64) -> f64 {
    ln_mixture(events, margin, false)
}

/// ln(e^a + e^b), with minus infinity as nothing.
#[must_use]
pub fn ln_sum(a: f64, b: f64) -> f64 {
    ln_add(a, b)
}

/// The greatest ratio that is contradicted, for a test that contradicts all ratios below some bound; 0 if none is.
fn boundary(contradicted: impl Fn(f64) -> bool) -> f64 {
    const SMALLEST: f64 = 1e-9;
    const GREATEST: f64 = 1e9;
    const HALVINGS: usize = 200;
    if !contradicted(SMALLEST) {
        return 0.0;
    }
    let (mut low, mut high) = (SMALLEST.ln(), GREATEST.ln());
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if contradicted(middle.exp()) { low = middle } else { high = middle }
    }
    low.exp()
}

/// ln of the mean of the likelihood ratios at a supposed ratio; `mirrored` against alternatives of fewer events.
fn ln_mixture(events: &[Events], ratio: f64, mirrored: bool) -> f64 {
    let of = |alternative: f64| -> f64 {
        let alternative = if mirrored { 1.0 / alternative } else { alternative };
        events.iter().map(|e| ln_likelihood_ratio(*e, shifted(e.exposure, ratio), alternative)).sum()
    };
    let sum = ALTERNATIVES.iter().fold(f64::NEG_INFINITY, |sum, alternative| ln_add(sum, of(*alternative)));
    sum - (ALTERNATIVES.len() as f64).ln()
}

/// The challenger's part of the events if its rate is `ratio` times the champion's.
fn shifted(exposure: f64, ratio: f64) -> f64 {
    exposure * ratio / (exposure * ratio + 1.0 - exposure)
}

/// ln of the likelihood ratio of the events: `alternative` times the rate against the same rate.
fn ln_likelihood_ratio(events: Events, exposure: f64, alternative: f64) -> f64 {
    let total = (events.champion + events.challenger) as f64;
    events.challenger as f64 * alternative.ln() - total * (exposure * (alternative - 1.0)).ln_1p()
}

/// ln(e^a + e^b), with minus infinity as nothing.
fn ln_add(a: f64, b: f64) -> f64 {
    let (greater, smaller) = if a > b { (a, b) } else { (b, a) };
    if smaller == f64::NEG_INFINITY { greater } else { greater + (smaller - greater).exp().ln_1p() }
}

#[cfg(test)]
mod tests;
