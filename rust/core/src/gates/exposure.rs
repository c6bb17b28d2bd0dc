//! How much each arm was exposed: the share of its slot-routed requests that its own version ran.
//!
//! An arm that sheds, or is left alone by its breaker, has fewer errors because it has fewer runs. The share is that of an event's
//! minutes; with fewer than 200 requests of the arm in them, earlier minutes of the same split are added until there are as many, and
//! without so many the share counts as 1.
//!
//! Next: `timeline`.

use std::collections::VecDeque;

use super::evidence::{CHALLENGER, CHAMPION, Evidence, Row, UnitKind};
use crate::stats::event_ratio;

/// The requests of an arm that a share is taken of.
const ENOUGH: u64 = 200;

/// What the weights of the slots are corrected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Nothing: an event needs no run.
    None,
    /// The shares of requests that ran.
    Ran,
    /// As [`Correction::Ran`], for events of which a unit has its first one, so that a request that was shed is made up for by the next
    /// one of its key: the challenger's share then counts as 1, which never makes it look worse.
    RanOfKeys,
}

/// The challenger's part of the exposure in each row.
#[derive(Debug)]
pub struct Exposure {
    /// For each row the shares that champion and challenger ran.
    ran: Vec<[f64; 2]>,
}

impl Exposure {
    /// The exposure of the rows of `evidence`.
    pub fn new(evidence: &Evidence, correction: Correction) -> Exposure {
        if correction == Correction::None {
            return Exposure { ran: vec![[1.0; 2]; evidence.rows.len()] };
        }
        let is_made_up_for = correction == Correction::RanOfKeys && evidence.unit == UnitKind::Key;
        let mut recent = vec![[CHAMPION, CHALLENGER].map(Recent::new); evidence.splits.len()];
        let shares = |row: &Row| {
            let mut shares = recent[row.split].each_mut().map(|recent| recent.share_at(row));
            if is_made_up_for {
                shares[CHALLENGER] = 1.0;
            }
            shares
        };
        let ran = evidence.rows.iter().map(shares).collect();
        Exposure { ran }
    }

    /// The challenger's part of the exposure in a row, for units that are on it with probability `weight`; `None` if nothing can be
    /// compared.
    pub fn at(&self, row: usize, weight: f64) -> Option<f64> {
        let [champion, challenger] = self.ran[row];
        let exposure = event_ratio::exposure(weight, challenger, champion);
        (exposure > 0.0 && exposure < 1.0).then_some(exposure)
    }
}

/// The newest rows of a split that have enough requests of an arm.
#[derive(Clone, Debug)]
struct Recent {
    arm: usize,
    /// What ended and what ran in each of them, and in all.
    rows: VecDeque<(u64, u64)>,
    ended: u64,
    ran: u64,
}

impl Recent {
    fn new(arm: usize) -> Recent {
        Recent { arm, rows: VecDeque::new(), ended: 0, ran: 0 }
    }

    /// The share that ran at a row, the next one of the split.
    fn share_at(&mut self, row: &Row) -> f64 {
        let counts = &row.arms[self.arm];
        self.rows.push_back((counts.ended, counts.ran));
        self.ended += counts.ended;
        self.ran += counts.ran;
        while let Some(&(ended, ran)) = self.rows.front()
            && self.ended - ended >= ENOUGH
        {
            self.rows.pop_front();
            self.ended -= ended;
            self.ran -= ran;
        }
        if self.ended < ENOUGH { 1.0 } else { self.ran.min(self.ended) as f64 / self.ended as f64 }
    }
}
