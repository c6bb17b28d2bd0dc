//! A sliding window over live counts: consecutive sub-windows. The caller passes the time, in Unix seconds.
//!
//! A sub-window begins as a minute, and closes when the minute is over. After an hour, minutes are joined to one sub-window for each
//! hour. After two days, hours are joined to days. Days are dropped after five weeks. The sum over a window takes every sub-window
//! that overlaps it. Minutes without traffic cost nothing.
//!
//! If memory is short, sub-windows are joined earlier, the shortest neighbours first. Then their exponential buckets become coarser.
//! The last sub-window is dropped only if even it does not fit. So all counts in a sum are right, and the span says what time the
//! sum covers. Next: `report`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::budget::{BudgetShare, SketchBudget};
use crate::exponential::FEWEST;
use crate::live::{LiveCounts, LiveFeature, LiveTensor};
use crate::packed::PackedCounts;
use crate::plan::{Feature, FeaturePlan};

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;
/// The length of joined sub-windows, and the age at which sub-windows are joined to it.
const COARSER: [(u64, u64); 2] = [(HOUR, HOUR), (DAY, 2 * DAY)];
/// The age at which sub-windows are dropped.
const RETENTION: u64 = 35 * DAY;

/// The time that a sum covers. Sub-windows are not cut, so that it may start before the requested time. It starts later if older
/// sub-windows were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    /// Unix seconds, inclusive.
    pub from: u64,
    /// Unix seconds, exclusive.
    pub to: u64,
}

/// A closed sub-window.
#[derive(Debug)]
struct SubWindow {
    from: u64,
    to: u64,
    packed: Arc<PackedCounts>,
}

impl SubWindow {
    /// This sub-window and the next one as one.
    fn joined(&self, next: &Self) -> Self {
        Self { from: self.from, to: next.to, packed: Arc::new(self.packed.merged(&next.packed)) }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.packed.bytes()
    }
}

/// The sub-windows of one version.
#[derive(Debug)]
pub struct SlidingWindow {
    plan: Arc<FeaturePlan>,
    /// The present minute. The memory of its fixed part is in the share of the [`crate::shard::ShardCollector`].
    open: Option<LiveCounts>,
    open_start: u64,
    /// Oldest first.
    sub_windows: VecDeque<SubWindow>,
    /// Sub-windows that ended before this time were dropped, by age or for memory.
    horizon: u64,
    share: BudgetShare,
}

/// A copy of the counts of a window. It is summed feature by feature, so that it takes no more memory than the window.
#[derive(Debug)]
pub struct WindowSum {
    plan: Arc<FeaturePlan>,
    parts: Vec<Arc<PackedCounts>>,
    /// The memory of the copy of the present minute.
    _share: BudgetShare,
}

impl WindowSum {
    /// The plan of the counts.
    pub fn plan(&self) -> &Arc<FeaturePlan> {
        &self.plan
    }

    /// All rows, sampled or not.
    pub fn offered(&self) -> u64 {
        self.parts.iter().map(|part| part.rows().offered).sum()
    }

    /// Rows that were sampled.
    pub fn observed(&self) -> u64 {
        self.parts.iter().map(|part| part.rows().observed).sum()
    }

    /// Tensors in the plan's order.
    pub fn tensors(&self) -> Vec<LiveTensor> {
        let mut tensors = vec![LiveTensor::default(); self.plan.tensors.len()];
        for part in &self.parts {
            tensors.iter_mut().zip(part.tensors()).for_each(|(into, tensor)| into.merge(tensor));
        }
        tensors
    }

    /// One feature, by its index in the plan.
    pub fn feature(&self, at: usize) -> LiveFeature {
        let slots = |feature: &Feature| Some(self.plan.reference(feature)?.counts.len());
        let mut sum = LiveFeature::new(slots(&self.plan.features()[at]));
        self.parts.iter().for_each(|part| part.add_feature(at, &mut sum));
        sum
    }

    /// The sum of all features.
    pub fn live(&self) -> LiveCounts {
        LiveCounts {
            offered: self.offered(),
            observed: self.observed(),
            tensors: self.tensors(),
            features: (0..self.plan.features().len()).map(|at| self.feature(at)).collect(),
        }
    }
}

impl SlidingWindow {
    /// An empty window, whose memory counts against `budget`.
    pub fn new(plan: Arc<FeaturePlan>, now: u64, budget: &Arc<SketchBudget>) -> Self {
        let open_start = round_down(now, MINUTE);
        Self {
            plan,
            open: None,
            open_start,
            sub_windows: VecDeque::new(),
            horizon: open_start,
            share: BudgetShare::new(Arc::clone(budget)),
        }
    }

    /// The counts of the minute of `now`, to which the caller adds the counts since the last call. If the clock was set back, the
    /// counts go to the present minute. The caller must then call [`SlidingWindow::close_and_shrink`].
    pub fn open(&mut self, now: u64) -> &mut LiveCounts {
        self.advance(now);
        self.open.get_or_insert_with(|| LiveCounts::new(&self.plan))
    }

    /// Closes the minutes before `now`, and shrinks the window to `cap` bytes and the budget: joins sub-windows, the shortest
    /// neighbours first, then makes exponential buckets coarser, then drops the oldest.
    pub fn close_and_shrink(&mut self, now: u64, cap: usize) {
        self.advance(now);
        loop {
            let wanted = self.needed_bytes();
            if (wanted <= cap && self.share.resize(wanted)) || !self.shrink() {
                // Nothing can be made smaller. The rest is in the share of the collector.
                return;
            }
        }
    }

    /// Bytes of all sub-windows without the fixed part of the open one.
    pub fn bytes(&self) -> usize {
        self.share.bytes()
    }

    /// The sum over the last `seconds`, and the time that it covers.
    pub fn sum(&mut self, seconds: u64, now: u64) -> (WindowSum, TimeSpan) {
        self.advance(now);
        let first = round_down(now.saturating_sub(seconds), MINUTE);
        let within = || self.sub_windows.iter().filter(|sub_window| sub_window.to > first);
        let oldest = within().next().map_or(u64::MAX, |sub_window| sub_window.from);
        let mut parts: Vec<_> = within().map(|sub_window| Arc::clone(&sub_window.packed)).collect();
        let share = BudgetShare::new(Arc::clone(self.share.budget()));
        if let Some(open) = &self.open {
            let copy = PackedCounts::new(open);
            share.grow_unchecked(copy.bytes());
            parts.push(Arc::new(copy));
        }
        let from = first.max(self.horizon).min(oldest);
        (
            WindowSum { plan: Arc::clone(&self.plan), parts, _share: share },
            TimeSpan { from, to: now.max(from) },
        )
    }

    /// Closes the minutes before `now`.
    fn advance(&mut self, now: u64) {
        let minute = round_down(now, MINUTE);
        if minute <= self.open_start {
            return;
        }
        if let Some(open) = self.open.take().filter(|open| !open.is_empty()) {
            let (from, to) = (self.open_start, self.open_start + MINUTE);
            self.sub_windows.push_back(SubWindow { from, to, packed: Arc::new(PackedCounts::new(&open)) });
        }
        self.open_start = minute;
        self.join_old(minute);
    }

    /// Joins sub-windows that are old enough, and drops those that are too old.
    fn join_old(&mut self, minute: u64) {
        for (step, apart) in COARSER {
            let mut at = 0;
            while at + 1 < self.sub_windows.len() {
                let (from, to) = (self.sub_windows[at].from, self.sub_windows[at + 1].to);
                let end = round_down(from, step) + step;
                if end + apart > minute {
                    break;
                }
                if to <= end {
                    self.join(at);
                } else {
                    at += 1;
                }
            }
        }
        self.horizon = self.horizon.max(round_down(minute, DAY).saturating_sub(RETENTION));
        while self.sub_windows.front().is_some_and(|sub_window| sub_window.to <= self.horizon) {
            self.sub_windows.pop_front();
        }
    }

    /// Joins a sub-window and the next one.
    fn join(&mut self, at: usize) {
        if let Some(next) = self.sub_windows.remove(at + 1) {
            self.sub_windows[at] = self.sub_windows[at].joined(&next);
        }
    }

    fn needed_bytes(&self) -> usize {
        let fewest = self.plan.features().len() * FEWEST * size_of::<u64>();
        let open = self.open.as_ref().map_or(0, |open| open.bucket_bytes().saturating_sub(fewest));
        open + self.sub_windows.iter().map(SubWindow::bytes).sum::<usize>()
    }

    /// Takes the next step to less memory. Returns false if there is none.
    fn shrink(&mut self) -> bool {
        let length = |at: &usize| self.sub_windows[at + 1].to - self.sub_windows[*at].from;
        if let Some(at) = (0..self.sub_windows.len().saturating_sub(1)).min_by_key(length) {
            self.join(at);
            return true;
        }
        let mut coarser = self.open.as_mut().is_some_and(LiveCounts::coarsen);
        if let Some(last) = self.sub_windows.front_mut()
            && let Some(packed) = last.packed.coarser()
        {
            last.packed = Arc::new(packed);
            coarser = true;
        }
        if coarser {
            return true;
        }
        let dropped = self.sub_windows.pop_front();
        self.horizon = dropped.as_ref().map_or(self.horizon, |sub_window| sub_window.to);
        dropped.is_some()
    }
}

fn round_down(time: u64, step: u64) -> u64 {
    time - time % step
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::baseline::Direction;
    use crate::plan::TensorInfo;
    use crate::typed_slice::ElementType;

    fn plan() -> Arc<FeaturePlan> {
        let info = TensorInfo {
            name: "X".into(),
            direction: Direction::Input,
            datatype: ElementType::Fp32,
            row_elements: Some(1),
        };
        FeaturePlan::compile(&[info], &BTreeMap::new(), None).unwrap()
    }

    fn add(window: &mut SlidingWindow, rows: u64, now: u64) {
        window.open(now).offered += rows;
        window.close_and_shrink(now, usize::MAX);
    }

    /// 2026-01-05 00:00:00 UTC.
    const START: u64 = 1_767_571_200;

    #[test]
    fn every_row_is_in_the_window_that_reaches_back_to_it() {
        let plan = plan();
        let mut window = SlidingWindow::new(Arc::clone(&plan), START, &SketchBudget::new(usize::MAX));
        let mut rows_at: Vec<(u64, u64)> = Vec::new();
        // Uneven steps over six days, with gaps longer than an hour and than a day.
        let mut now = START;
        for i in 0..3000u64 {
            now += 1
                + (i * 7919) % 173
                + if i % 1000 == 999 { 90_000 } else { 0 }
                + if i % 97 == 0 { 4000 } else { 0 };
            add(&mut window, i + 1, now);
            rows_at.push((now, i + 1));
            for seconds in [30, 600, 3600, 7200, 86_400, 3 * 86_400, 30 * 86_400] {
                let (sum, span) = window.sum(seconds, now);
                let within =
                    rows_at.iter().filter(|(at, _)| *at >= span.from).map(|(_, rows)| rows).sum::<u64>();
                assert_eq!(sum.offered(), within, "{seconds} s at {now}, {span:?}");
                let wanted = now - seconds;
                assert!(span.from <= wanted.max(START), "the window starts late: {span:?}");
                let slack = if seconds < 3600 {
                    MINUTE
                } else if seconds <= 2 * DAY - HOUR {
                    HOUR
                } else {
                    DAY
                };
                assert!(span.from + slack > wanted, "the window starts early: {span:?}");
            }
        }
    }

    #[test]
    fn old_sub_windows_are_dropped() {
        let plan = plan();
        let mut window = SlidingWindow::new(Arc::clone(&plan), START, &SketchBudget::new(usize::MAX));
        for minute in 0..40 * 24 * 60 {
            add(&mut window, 1, START + minute * 60);
        }
        // Up to two hours of minutes, up to three days of hours, the days before.
        assert!(
            (60 + 48 + 32..=120 + 72 + 35).contains(&window.sub_windows.len()),
            "{}",
            window.sub_windows.len()
        );
        let (sum, span) = window.sum(365 * DAY, START + 40 * DAY);
        assert_eq!(span.from, START + 5 * DAY);
        assert_eq!(sum.offered(), 35 * 24 * 60);
    }

    #[test]
    fn short_memory_takes_detail_before_history() {
        let plan = plan();
        let mut unlimited = SlidingWindow::new(Arc::clone(&plan), START, &SketchBudget::new(usize::MAX));
        let budget = SketchBudget::new(8_000);
        let mut limited = SlidingWindow::new(Arc::clone(&plan), START, &budget);
        let (mut now, mut most) = (START, 0);
        for minute in 0..3 * 24 * 60 + 30 {
            now = START + minute * 60;
            unlimited.open(now).offered += 1;
            limited.open(now).offered += 1;
            unlimited.close_and_shrink(now, usize::MAX);
            limited.close_and_shrink(now, 5_000);
            most = most.max(limited.bytes());
            assert!(budget.used() == limited.bytes());
        }
        assert!(most <= 5_000 && unlimited.bytes() > 5_000, "{most} {}", unlimited.bytes());
        let all = limited.sum(30 * DAY, now).0;
        assert_eq!(all.live(), unlimited.sum(30 * DAY, now).0.live(), "no row is lost");
        let (hour, span) = limited.sum(HOUR, now);
        assert!(
            span.from + 24 * HOUR > now && hour.offered() < all.offered(),
            "the newest stay apart: {span:?}"
        );
        drop((all, hour));
        limited.close_and_shrink(now, 0);
        assert_eq!((limited.bytes(), budget.used()), (0, 0), "not even one sub-window fits");
        let (rest, span) = limited.sum(30 * DAY, now);
        assert!(
            rest.offered() <= 1 && span.from + HOUR > now,
            "the span says that nothing older is there: {span:?}"
        );
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let plan = plan();
        let mut window = SlidingWindow::new(Arc::clone(&plan), START, &SketchBudget::new(usize::MAX));
        add(&mut window, 1, START + 120);
        add(&mut window, 2, START + 10);
        assert_eq!(window.sum(3600, START + 130).0.offered(), 3);
    }
}
