//! Stages of a load, and the time at which the expected number of requests reaches a value.
//!
//! Within a stage the rate goes from one value to another in a straight line. A process with rate 1 becomes one with this rate if its
//! times are put through the inverse of the expected number (time change of a Poisson process; Çinlar 1975).

use crate::plan::Stage;

/// A stage with where it begins, in seconds and in expected requests.
#[derive(Clone, Debug)]
struct Placed {
    begins_s: f64,
    begins_at: f64,
    ends_at: f64,
    from: f64,
    slope: f64,
}

/// The stages of a load in order.
#[derive(Clone, Debug)]
pub(crate) struct Stages {
    placed: Vec<Placed>,
    /// The whole number of requests a second, if the rate is one and never changes: due times are then exact.
    whole_rate: Option<u64>,
    length_ns: u64,
}

impl Stages {
    pub(crate) fn new(stages: &[Stage]) -> Stages {
        let mut placed: Vec<Placed> = Vec::with_capacity(stages.len());
        let (mut begins_ns, mut begins_at) = (0u64, 0.0);
        for stage in stages {
            let seconds = stage.for_ns as f64 / 1e9;
            let ends_at = begins_at + (stage.from + stage.to) / 2.0 * seconds;
            placed.push(Placed {
                begins_s: begins_ns as f64 / 1e9,
                begins_at,
                ends_at,
                from: stage.from,
                slope: (stage.to - stage.from) / seconds,
            });
            begins_at = ends_at;
            begins_ns += stage.for_ns;
        }
        let rate = stages.first().map_or(0.0, |stage| stage.from);
        let constant = stages.iter().all(|stage| stage.from == rate && stage.to == rate);
        let whole = constant && rate.fract() == 0.0 && rate <= 1e9;
        Stages { placed, whole_rate: whole.then_some(rate as u64), length_ns: begins_ns }
    }

    /// The length of all stages together.
    pub(crate) fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// The expected number of requests.
    pub(crate) fn expected(&self) -> f64 {
        self.placed.last().map_or(0.0, |last| last.ends_at)
    }

    /// The due time of request `index` if the gaps of rate 1 are all 1; `None` after the end.
    pub(crate) fn constant(&self, index: u64, stage: &mut usize) -> Option<u64> {
        match self.whole_rate {
            Some(rate) => {
                let due_ns = u128::from(index) * 1_000_000_000 / u128::from(rate);
                u64::try_from(due_ns).ok().filter(|&due_ns| due_ns < self.length_ns)
            }
            None => self.when(index as f64, stage),
        }
    }

    /// When the expected number of requests reaches `number`, in nanoseconds; `None` if the stages end before. `stage` is a place that
    /// the caller keeps for numbers that never fall: the stage of the last one.
    pub(crate) fn when(&self, number: f64, stage: &mut usize) -> Option<u64> {
        while number >= self.placed.get(*stage)?.ends_at {
            *stage += 1;
        }
        let placed = &self.placed[*stage];
        let left = number - placed.begins_at;
        // The root of from·t + slope·t²/2 = left, in the form that loses no digits where the slope is near 0.
        let root = (placed.from * placed.from + 2.0 * left * placed.slope).max(0.0).sqrt();
        let due_ns = ((placed.begins_s + 2.0 * left / (placed.from + root)) * 1e9) as u64;
        (due_ns < self.length_ns).then_some(due_ns)
    }
}
