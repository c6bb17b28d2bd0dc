//! A sliding window over what was counted: rings of tumbling minutes, hours and days. Time is given, in Unix seconds.
//!
//! A minute closes when time passes it; closed minutes add up to an hour when that hour is over, hours to a day. A window is
//! the sum of the newest sub-windows of the finest ring that reaches back far enough: minutes up to an hour, hours up to two
//! days, days beyond. Minutes without traffic cost nothing. Next: `report`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::live::Live;
use crate::packed::Packed;
use crate::plan::FeaturePlan;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;
/// Sub-windows kept: an hour of minutes, two days of hours, five weeks of days.
const KEEP: [u64; 3] = [60, 48, 35];

/// The time that a sum really covers; sub-windows are not cut, so it may start before what was asked for, and it starts
/// later where nothing older is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Unix seconds, inclusive.
    pub from: u64,
    /// Unix seconds, exclusive.
    pub to: u64,
}

/// Closed sub-windows of one length, oldest first.
#[derive(Debug)]
struct Ring {
    step: u64,
    keep: u64,
    closed: VecDeque<(u64, Packed)>,
    /// Everything that starts before this was dropped, by age or for memory.
    horizon: u64,
}

impl Ring {
    fn new(step: u64, keep: u64, start: u64) -> Self {
        Self { step, keep, closed: VecDeque::new(), horizon: start }
    }

    /// The sub-windows that start in the range.
    fn within(&self, from: u64, to: u64) -> impl Iterator<Item = &Packed> {
        self.closed.iter().filter(move |(start, _)| (from..to).contains(start)).map(|(_, packed)| packed)
    }

    fn age(&mut self, now: u64) {
        let oldest = (now - now % self.step).saturating_sub(self.keep * self.step);
        self.horizon = self.horizon.max(oldest);
        while self.closed.front().is_some_and(|(start, _)| *start < oldest) {
            self.closed.pop_front();
        }
    }

    /// Drops the oldest sub-window if it starts before `until`, which says what a coarser ring already holds.
    fn drop_oldest(&mut self, until: u64) -> Option<usize> {
        self.closed.front().filter(|(start, _)| *start < until)?;
        let (start, packed) = self.closed.pop_front()?;
        self.horizon = self.horizon.max(start + self.step);
        Some(packed.bytes())
    }
}

/// The rings of one version.
#[derive(Debug)]
pub struct Window {
    plan: Arc<FeaturePlan>,
    open: Live,
    open_start: u64,
    minutes: Ring,
    hours: Ring,
    days: Ring,
    /// Hours that start before this are in the hour ring; the same for days.
    hours_done: u64,
    days_done: u64,
    bytes: usize,
    cap_bytes: usize,
}

impl Window {
    /// An empty window. Closed sub-windows together stay below `cap_bytes`: minutes that an hour already holds go first, then
    /// hours that a day holds, then the oldest days. The minutes of this hour and the hours of this day are never dropped.
    pub fn new(plan: Arc<FeaturePlan>, now: u64, cap_bytes: usize) -> Self {
        let open_start = floor(now, MINUTE);
        Self {
            open: Live::new(&plan),
            plan,
            open_start,
            minutes: Ring::new(MINUTE, KEEP[0], open_start),
            hours: Ring::new(HOUR, KEEP[1], open_start),
            days: Ring::new(DAY, KEEP[2], open_start),
            hours_done: floor(now, HOUR),
            days_done: floor(now, DAY),
            bytes: 0,
            cap_bytes,
        }
    }

    /// Adds what was counted since the last call; it belongs to the minute of `now`. A clock that went back changes
    /// nothing but the minute that takes the counts.
    pub fn add(&mut self, counted: &Live, now: u64) {
        self.roll(now);
        self.open.merge(counted);
    }

    /// Bytes of all closed sub-windows.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The sum over the newest `seconds`, and the time that it covers.
    pub fn sum(&mut self, seconds: u64, now: u64) -> (Live, Span) {
        self.roll(now);
        let wanted = now.saturating_sub(seconds);
        let mut sum = self.open.clone();
        let from = if floor(wanted, MINUTE) >= self.minutes.horizon {
            let from = floor(wanted, MINUTE);
            self.minutes.within(from, u64::MAX).for_each(|packed| packed.add_to(&mut sum));
            from
        } else {
            self.minutes.within(self.hours_done, u64::MAX).for_each(|packed| packed.add_to(&mut sum));
            self.before_this_hour(wanted, &mut sum)
        };
        (sum, Span { from, to: now.max(from) })
    }

    /// Hours, and days where hours do not reach.
    fn before_this_hour(&self, wanted: u64, sum: &mut Live) -> u64 {
        let first = floor(wanted, HOUR);
        if first >= self.hours.horizon {
            self.hours.within(first, self.hours_done).for_each(|packed| packed.add_to(sum));
            return first;
        }
        self.hours.within(self.days_done, self.hours_done).for_each(|packed| packed.add_to(sum));
        self.days.within(floor(wanted, DAY), self.days_done).for_each(|packed| packed.add_to(sum));
        floor(wanted, DAY).max(self.days.horizon)
    }

    /// Closes what `now` has passed.
    fn roll(&mut self, now: u64) {
        let minute = floor(now, MINUTE);
        if minute <= self.open_start {
            return;
        }
        if !self.open.is_empty() {
            let packed = Packed::new(&self.open);
            self.bytes += packed.bytes();
            self.minutes.closed.push_back((self.open_start, packed));
            self.open = Live::new(&self.plan);
        }
        self.open_start = minute;
        let hour = floor(now, HOUR);
        self.bytes += condense(&self.plan, &self.minutes, &mut self.hours, self.hours_done..hour);
        self.hours_done = hour;
        let day = floor(now, DAY);
        self.bytes += condense(&self.plan, &self.hours, &mut self.days, self.days_done..day);
        self.days_done = day;
        self.shrink(now);
    }

    fn shrink(&mut self, now: u64) {
        for ring in [&mut self.minutes, &mut self.hours, &mut self.days] {
            ring.age(now);
        }
        self.bytes = self.count_bytes();
        while self.bytes > self.cap_bytes {
            let (hours_done, days_done) = (self.hours_done, self.days_done);
            let dropped = self.minutes.drop_oldest(hours_done).or_else(|| self.hours.drop_oldest(days_done));
            match dropped.or_else(|| self.days.drop_oldest(u64::MAX)) {
                Some(bytes) => self.bytes -= bytes,
                None => return,
            }
        }
    }

    fn count_bytes(&self) -> usize {
        let rings = [&self.minutes, &self.hours, &self.days];
        rings.iter().flat_map(|ring| &ring.closed).map(|(_, packed)| packed.bytes()).sum()
    }
}

/// Adds up the fine sub-windows of each coarse one that is over; gives the bytes that this took.
fn condense(plan: &FeaturePlan, fine: &Ring, coarse: &mut Ring, over: std::ops::Range<u64>) -> usize {
    let mut bytes = 0;
    let starts = fine.closed.iter().map(|(start, _)| floor(*start, coarse.step));
    let mut starts: Vec<u64> = starts.filter(|start| over.contains(start)).collect();
    starts.dedup();
    for start in starts {
        let mut sum = Live::new(plan);
        fine.within(start, start + coarse.step).for_each(|packed| packed.add_to(&mut sum));
        let packed = Packed::new(&sum);
        bytes += packed.bytes();
        coarse.closed.push_back((start, packed));
    }
    bytes
}

fn floor(time: u64, step: u64) -> u64 {
    time - time % step
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::baseline::Direction;
    use crate::plan::TensorInfo;
    use crate::view::Datatype;

    fn plan() -> Arc<FeaturePlan> {
        let info = TensorInfo {
            name: "X".into(),
            direction: Direction::Input,
            datatype: Datatype::Fp32,
            row_elements: Some(1),
        };
        FeaturePlan::compile(&[info], &BTreeMap::new(), None).unwrap()
    }

    fn rows(plan: &FeaturePlan, rows: u64) -> Live {
        let mut live = Live::new(plan);
        live.offered = rows;
        live
    }

    /// 2026-01-05 00:00:00 UTC.
    const START: u64 = 1_767_571_200;

    #[test]
    fn every_row_is_in_the_window_that_reaches_back_to_it() {
        let plan = plan();
        let mut window = Window::new(Arc::clone(&plan), START, usize::MAX);
        let mut rows_at: Vec<(u64, u64)> = Vec::new();
        // Uneven steps over six days, with gaps longer than an hour and than a day.
        let mut now = START;
        for i in 0..3000u64 {
            now += 1
                + (i * 7919) % 173
                + if i % 1000 == 999 { 90_000 } else { 0 }
                + if i % 97 == 0 { 4000 } else { 0 };
            window.add(&rows(&plan, i + 1), now);
            rows_at.push((now, i + 1));
            for seconds in [30, 600, 3600, 7200, 86_400, 3 * 86_400, 30 * 86_400] {
                let (sum, span) = window.sum(seconds, now);
                let within =
                    rows_at.iter().filter(|(at, _)| *at >= span.from).map(|(_, rows)| rows).sum::<u64>();
                assert_eq!(sum.offered, within, "{seconds} s at {now}, {span:?}");
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
        let mut window = Window::new(Arc::clone(&plan), START, usize::MAX);
        for minute in 0..40 * 24 * 60 {
            window.add(&rows(&plan, 1), START + minute * 60);
        }
        assert_eq!(
            (window.minutes.closed.len(), window.hours.closed.len(), window.days.closed.len()),
            (60, 48, 35)
        );
        let (sum, span) = window.sum(365 * DAY, START + 40 * DAY);
        assert_eq!(span.from, START + 5 * DAY);
        assert_eq!(sum.offered, 35 * 24 * 60);
    }

    #[test]
    fn a_cap_drops_detail_before_history() {
        let plan = plan();
        let mut unlimited = Window::new(Arc::clone(&plan), START, usize::MAX);
        let mut capped = Window::new(Arc::clone(&plan), START, 6_500);
        for minute in 0..3 * 24 * 60 + 30 {
            unlimited.add(&rows(&plan, 1), START + minute * 60);
            capped.add(&rows(&plan, 1), START + minute * 60);
        }
        let now = START + (3 * 24 * 60 + 30) * 60;
        assert!(
            capped.bytes() <= 6_500 && unlimited.bytes() > 6_500,
            "{} {}",
            capped.bytes(),
            unlimited.bytes()
        );
        assert_eq!(capped.sum(30 * DAY, now).0, unlimited.sum(30 * DAY, now).0);
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let plan = plan();
        let mut window = Window::new(Arc::clone(&plan), START, usize::MAX);
        window.add(&rows(&plan, 1), START + 120);
        window.add(&rows(&plan, 2), START + 10);
        assert_eq!(window.sum(3600, START + 130).0.offered, 3);
    }
}
