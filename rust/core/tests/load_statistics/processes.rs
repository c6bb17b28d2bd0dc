//! Response times of queues, in the order of arrivals, in units of the mean run.

/// Numbers that a seed determines: splitmix64 (Steele, Lea and Flood 2014).
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        let mut mixed = Random(seed);
        Random(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number within (0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// An exponential number of mean 1.
    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }
}

/// A queue under load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Process {
    /// One server, Poisson arrivals, exponential runs of mean 1: at that load.
    Mm1(f64),
    /// As M/M/1 at a mean load of 0.5, which is 1.1 in bursts: a fifth of the time, 200 mean runs each.
    Bursts,
    /// One server that runs all that waits, up to 64, in 1 + 0.1 n; ten at a time are usual.
    Batches,
}

const BURST: (f64, f64, f64) = (2.2, 0.2, 200.0);
/// What a queue without a known stationary state forgets first.
const FORGOTTEN: usize = 20_000;

/// A duration's code: 0.1 % apart.
pub(crate) fn code_of(duration: f64) -> u16 {
    ((duration.ln() + 20.0) * 1_000.0) as u16
}

impl Process {
    pub(crate) fn name(self) -> String {
        match self {
            Process::Mm1(load) => format!("M/M/1 at {load}"),
            Process::Bursts => "bursts (MMPP/M/1)".into(),
            Process::Batches => "batches".into(),
        }
    }

    /// The codes of `n` response times.
    pub(crate) fn responses(self, n: usize, seed: u64) -> Vec<u16> {
        let mut random = Random::new(seed);
        match self {
            Process::Mm1(load) => mm1(n, load, &mut random),
            Process::Bursts => bursts(n + FORGOTTEN, &mut random).split_off(FORGOTTEN),
            Process::Batches => batches(n + FORGOTTEN, &mut random).split_off(FORGOTTEN),
        }
    }

    /// The quantile `p` as a code: exact for M/M/1, of `n` response times for others.
    pub(crate) fn quantile(self, p: f64, n: usize) -> u16 {
        match self {
            Process::Mm1(load) => code_of(-(1.0 - p).ln() / (1.0 - load)),
            _ => {
                let mut codes = self.responses(n, 0xC0DE);
                let place = (p * n as f64) as usize;
                *codes.select_nth_unstable(place).1
            }
        }
    }
}

/// Lindley's recursion, from the stationary state on.
fn mm1(n: usize, load: f64, random: &mut Random) -> Vec<u16> {
    let mut wait = if random.uniform() < load { random.exponential() / (1.0 - load) } else { 0.0 };
    let mut next = || {
        let run = random.exponential();
        let response = wait + run;
        wait = (response - random.exponential() / load).max(0.0);
        code_of(response)
    };
    (0..n).map(|_| next()).collect()
}

fn bursts(n: usize, random: &mut Random) -> Vec<u16> {
    const LOAD: f64 = 0.5;
    let (factor, share, length) = BURST;
    let quiet = (1.0 - factor * share) / (1.0 - share);
    let (mut wait, mut in_burst, mut left_in_state) = (0.0_f64, false, 0.0_f64);
    let mut next = || {
        let run = random.exponential();
        let (mut gap, mut left) = (0.0, random.exponential());
        loop {
            let rate = LOAD * if in_burst { factor } else { quiet };
            if left_in_state * rate >= left {
                gap += left / rate;
                left_in_state -= left / rate;
                break;
            }
            left -= left_in_state * rate;
            gap += left_in_state;
            in_burst = !in_burst;
            left_in_state =
                random.exponential() * if in_burst { length } else { length * (1.0 - share) / share };
        }
        let response = wait + run;
        wait = (response - gap).max(0.0);
        code_of(response)
    };
    (0..n).map(|_| next()).collect()
}

fn batches(n: usize, random: &mut Random) -> Vec<u16> {
    const RATE: f64 = 5.0;
    const MOST: usize = 64;
    let mut arrived = Vec::with_capacity(n);
    let mut now = 0.0;
    arrived.extend((0..n).map(|_| {
        now += random.exponential() / RATE;
        now
    }));
    let (mut free_at, mut first, mut codes) = (0.0_f64, 0, Vec::with_capacity(n));
    while first < n {
        let start = free_at.max(arrived[first]);
        let waiting = arrived[first..].iter().take(MOST).take_while(|&&at| at <= start).count();
        free_at = start + 1.0 + 0.1 * waiting as f64;
        codes.extend(arrived[first..first + waiting].iter().map(|at| code_of(free_at - at)));
        first += waiting;
    }
    codes
}
