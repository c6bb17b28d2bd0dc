//! What kept the client from being a fair judge: threads that waited for a CPU, a machine that was stolen from, a throttled container.

use std::fs;
use std::path::PathBuf;

/// Times of a thread in nanoseconds, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadTimes {
    pub(crate) id: u32,
    pub(crate) cpu_ns: u64,
    /// Ready to run, without a CPU.
    pub(crate) delay_ns: u64,
}

impl ThreadTimes {
    /// The times of this thread.
    pub(crate) fn of_this() -> ThreadTimes {
        let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        ThreadTimes::read(id).unwrap_or(ThreadTimes { id, ..ThreadTimes::default() })
    }

    /// The times of a thread of this process; `None` if it has ended or the kernel does not count.
    pub(crate) fn read(id: u32) -> Option<ThreadTimes> {
        let text = fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let (cpu_ns, delay_ns) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(ThreadTimes { id, cpu_ns, delay_ns })
    }
}

/// What the machine and the container have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct MachineTimes {
    /// Ticks of all CPUs, and those that a hypervisor took.
    all_ticks: u64,
    stolen_ticks: Option<u64>,
    throttled_ns: Option<u64>,
}

impl MachineTimes {
    pub(crate) fn now() -> MachineTimes {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (all_ticks, stolen_ticks) = ticks(&stat);
        let throttled = cpu_stat_path().and_then(|path| fs::read_to_string(path).ok());
        MachineTimes { all_ticks, stolen_ticks, throttled_ns: throttled.and_then(|text| throttled_ns(&text)) }
    }

    /// The share of all CPUs' time that a hypervisor took between two readings.
    pub(crate) fn steal_share(&self, later: &MachineTimes) -> Option<f64> {
        let stolen = later.stolen_ticks?.saturating_sub(self.stolen_ticks?);
        let all = later.all_ticks.saturating_sub(self.all_ticks);
        (all > 0).then(|| stolen as f64 / all as f64)
    }

    /// The time that the container was not allowed to run, as a share of the time between two readings.
    pub(crate) fn throttled_share(&self, later: &MachineTimes, elapsed_ns: u64) -> Option<f64> {
        let throttled = later.throttled_ns?.saturating_sub(self.throttled_ns?);
        (elapsed_ns > 0).then(|| throttled as f64 / elapsed_ns as f64)
    }
}

/// The sum of a machine's ticks, and those that were stolen: the eighth number (proc_stat(5)). Guests' are in the first ones already.
fn ticks(stat: &str) -> (u64, Option<u64>) {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let numbers: Vec<u64> =
        line.split_ascii_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    (numbers.iter().sum(), numbers.get(7).copied())
}

/// `cpu.stat` of this process's control group, version 2.
fn cpu_stat_path() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from("/sys/fs/cgroup").join(group).join("cpu.stat"))
}

fn throttled_ns(stat: &str) -> Option<u64> {
    let microseconds = stat.lines().find_map(|line| line.strip_prefix("throttled_usec "))?;
    microseconds.trim().parse::<u64>().ok()?.checked_mul(1000)
}

/// What is known of the client during a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientUse {
    pub(crate) cpu_share: Option<f64>,
    pub(crate) run_delay_share: Option<f64>,
    pub(crate) steal_share: Option<f64>,
    pub(crate) throttled_share: Option<f64>,
    /// Lateness and response times at the 99th percentile.
    pub(crate) lateness_p99_ns: Option<u64>,
    pub(crate) response_p99_ns: Option<u64>,
    /// The shortest limit of an objective: what matters little to it is no limit of the client.
    pub(crate) objective_ns: Option<u64>,
    pub(crate) due: u64,
    pub(crate) sent: u64,
}

/// The share of a thread's or machine's time that may be lost.
const MOST_LOST: f64 = 0.01;
/// The share of the response time that may be lateness.
const MOST_LATE: f64 = 0.05;
/// The share of a schedule that has to be sent.
const LEAST_SENT: f64 = 0.999;

impl ClientUse {
    /// Why the client was the limit, in words; none if it was not.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let (Some(late), Some(response)) = (self.lateness_p99_ns, self.response_p99_ns)
            && let allowed = response.max(self.objective_ns.unwrap_or(0))
            && late as f64 > MOST_LATE * allowed as f64
        {
            let what = if allowed > response { "objective" } else { "response time" };
            let [late, allowed] = [late, allowed].map(|ns| ns as f64 / 1000.0);
            reasons.push(format!(
                "requests were sent late: at the 99th percentile {late:.0} us, more than 5 % of the {what} of {allowed:.0} us"
            ));
        }
        if self.due > 0 && (self.sent as f64) < LEAST_SENT * self.due as f64 {
            let share = 100.0 * self.sent as f64 / self.due as f64;
            reasons.push(format!(
                "{share:.2} % of the {} requests that were due were sent; the others found the most requests in flight",
                self.due
            ));
        }
        for (share, what) in [
            (self.run_delay_share, "a thread that sends waited for a CPU"),
            (self.steal_share, "the hypervisor gave the CPUs to others"),
            (self.throttled_share, "the container was throttled"),
        ] {
            if let Some(share) = share.filter(|&share| share > MOST_LOST) {
                reasons.push(format!("{what} for {:.1} % of the time", 100.0 * share));
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_counts_is_read() {
        assert_eq!(ticks("cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 1"), (36, Some(8)));
        assert_eq!(ticks(""), (0, None));
        assert_eq!(throttled_ns("nr_periods 1\nthrottled_usec 25\n"), Some(25_000));
        let now = ThreadTimes::of_this();
        assert!(ThreadTimes::read(now.id).unwrap().cpu_ns >= now.cpu_ns);
        assert_eq!(ThreadTimes::read(u32::MAX), None);
        let [before, after] = [
            MachineTimes { all_ticks: 100, stolen_ticks: Some(5), throttled_ns: None },
            MachineTimes { all_ticks: 300, stolen_ticks: Some(9), throttled_ns: Some(1) },
        ];
        assert_eq!(before.steal_share(&after), Some(0.02));
        assert_eq!((before.throttled_share(&after, 10), after.steal_share(&after)), (None, None));
    }

    #[test]
    fn each_limit_is_named_and_a_fair_client_has_none() {
        let fair = ClientUse {
            run_delay_share: Some(0.01),
            steal_share: Some(0.0),
            lateness_p99_ns: Some(50_000),
            response_p99_ns: Some(1_000_000),
            due: 10_000,
            sent: 9_990,
            ..ClientUse::default()
        };
        assert!(fair.reasons().is_empty());
        assert!(ClientUse::default().reasons().is_empty());
        let late = ClientUse { lateness_p99_ns: Some(200_000), ..fair };
        assert!(ClientUse { objective_ns: Some(5_000_000), ..late }.reasons().is_empty());
        let strict = ClientUse { objective_ns: Some(3_000_000), ..late }.reasons();
        assert!(strict[0].contains("more than 5 % of the objective of 3000 us"), "{strict:?}");
        for (limited, word) in [
            (ClientUse { lateness_p99_ns: Some(60_000), ..fair }, "sent late: at the 99th percentile 60 us"),
            (ClientUse { sent: 9_900, ..fair }, "99.00 % of the 10000 requests"),
            (ClientUse { run_delay_share: Some(0.02), ..fair }, "waited for a CPU for 2.0 %"),
            (ClientUse { steal_share: Some(0.5), ..fair }, "hypervisor"),
            (ClientUse { throttled_share: Some(0.02), ..fair }, "throttled"),
        ] {
            let reasons = limited.reasons();
            assert!(reasons.len() == 1 && reasons[0].contains(word), "{reasons:?}");
        }
    }
}
