//! A sliding window over what was counted: sub-windows that follow each other. Time is given, in Unix seconds.
//!
//! A minute closes when time passes it. Minutes stay apart for an hour, then each hour becomes one sub-window; hours stay
//! apart for two days, then each day becomes one; days stay for five weeks. A window is the sum of all sub-windows that reach
//! into it. Minutes without traffic cost nothing.
//!
//! When memory is short, sub-windows join before their time, the shortest neighbours first; then their exponential buckets
//! become coarser; what is left is dropped only if not even one sub-window fits. So nothing that is still kept is counted
//! wrong, and the span says what a sum covers. Next: `report`.

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
/// How long sub-windows stay apart before they become one of this length.
const COARSER: [(u64, u64); 2] = [(HOUR, HOUR), (DAY, 2 * DAY)];
/// How long sub-windows are kept at all.
const RETENTION: u64 = 35 * DAY;

/// The time that a sum really covers; sub-windows are not cut, so it may start before what was asked for, and it starts
/// later where nothing older is kept.
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
    /// Both as one; `next` is the later one.
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
    /// The minute that is not over; its fixed part is in the memory of the [`crate::shard::ShardCollector`].
    open: Option<LiveCounts>,
    open_start: u64,
    /// Oldest first.
    sub_windows: VecDeque<SubWindow>,
    /// Everything that ended before this was dropped, by age or for memory.
    horizon: u64,
    share: BudgetShare,
}

/// What a window saw: a copy that is summed feature by feature, so that it takes no more memory than the window itself.
#[derive(Debug)]
pub struct WindowSum {
    plan: Arc<FeaturePlan>,
    parts: Vec<Arc<PackedCounts>>,
    /// The copy of the minute that is not over.
    _share: BudgetShare,
}

impl WindowSum {
    /// What was sketched.
    pub fn plan(&self) -> &Arc<FeaturePlan> {
        &self.plan
    }

    /// Rows that came by.
    pub fn offered(&self) -> u64 {
        self.parts.iter().map(|part| part.rows().offered).sum()
    }

    /// Rows that the sampler kept.
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

    /// One feature, by its place in the plan.
    pub fn feature(&self, at: usize) -> LiveFeature {
        let slots = |feature: &Feature| Some(self.plan.reference(feature)?.counts.len());
        let mut sum = LiveFeature::new(slots(&self.plan.features()[at]));
        self.parts.iter().for_each(|part| part.add_feature(at, &mut sum));
        sum
    }

    /// All of it at once.
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

    /// What takes in the counts since the last call; they belong to the minute of `now`. A clock that went back changes
    /// nothing but the minute that takes the counts. [`SlidingWindow::close_and_shrink`] is to follow.
    pub fn open(&mut self, now: u64) -> &mut LiveCounts {
        self.advance(now);
        self.open.get_or_insert_with(|| LiveCounts::new(&self.plan))
    }

    /// Closes what `now` has passed, and stays within `cap` bytes and the budget: joins sub-windows, the shortest neighbours
    /// first, then makes exponential buckets coarser, then drops the oldest.
    pub fn close_and_shrink(&mut self, now: u64, cap: usize) {
        self.advance(now);
        loop {
            let wanted = self.needed_bytes();
            if (wanted <= cap && self.share.resize(wanted)) || !self.shrink() {
                // Nothing can be made smaller: the memory of the collector's sum holds the rest.
                return;
            }
        }
    }

    /// Bytes of all sub-windows, but for the fixed part of the open one.
    pub fn bytes(&self) -> usize {
        self.share.bytes()
    }

    /// The sum over the newest `seconds`, and the time that it covers.
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

    /// Closes what `now` has passed.
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

    /// Joins what is old enough, and drops what is too old.
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

    /// Makes one of a sub-window and the next.
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

    /// Takes the next step to less memory; false when there is none.
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
