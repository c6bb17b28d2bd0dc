//! What a server says in `Server-Timing` about where the time of a request went.

/// Durations in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    /// Reading the tensors.
    pub(crate) decode_ns: u64,
    /// Waiting for a thread or a batch.
    pub(crate) queue_ns: u64,
    /// The run of the model.
    pub(crate) run_ns: u64,
    /// Writing the answer: what the server says, or what is left of the total.
    pub(crate) reply_ns: u64,
    /// The whole request as the server sees it.
    pub(crate) total_ns: u64,
}

impl Phases {
    /// Reads `decode;dur=0.003, queue;dur=0, run;dur=1.2, total;dur=1.3` (milliseconds). `None` without a total.
    pub(crate) fn parse(value: &[u8]) -> Option<Phases> {
        let text = std::str::from_utf8(value).ok()?;
        let (mut phases, mut total, mut reply) = (Phases::default(), None, None);
        for metric in text.split(',') {
            let mut parts = metric.split(';').map(str::trim);
            let name = parts.next()?;
            let Some(ns) = parts.find_map(|part| part.strip_prefix("dur=")).and_then(nanoseconds) else {
                continue;
            };
            match name {
                "decode" => phases.decode_ns = ns,
                "queue" => phases.queue_ns = ns,
                "run" => phases.run_ns = ns,
                "reply" => reply = Some(ns),
                "total" => total = Some(ns),
                _ => {}
            }
        }
        phases.total_ns = total?;
        let told = phases.decode_ns + phases.queue_ns + phases.run_ns;
        phases.reply_ns = reply.unwrap_or(phases.total_ns.saturating_sub(told));
        Some(phases)
    }
}

/// A duration of at most an hour, so that sums never overflow.
fn nanoseconds(milliseconds: &str) -> Option<u64> {
    let ms: f64 = milliseconds.trim_matches('"').parse().ok()?;
    (0.0..=3.6e6).contains(&ms).then_some((ms * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_and_the_rest_of_the_total_is_the_reply() {
        let told =
            Phases::parse(b"decode;dur=0.003, queue;dur=0.000, run;dur=1.250, total;dur=1.300").unwrap();
        let wanted = Phases {
            decode_ns: 3_000,
            queue_ns: 0,
            run_ns: 1_250_000,
            reply_ns: 47_000,
            total_ns: 1_300_000,
        };
        assert_eq!(told, wanted);
        assert_eq!(Phases::parse(b"cache;desc=\"hit\", total;dur=\"2\"").unwrap().total_ns, 2_000_000);
        for other in [&b""[..], b"run;dur=1", b"total;dur=-1", b"total;dur=nan", b"total;dur=1e30", b"\xff"] {
            assert_eq!(Phases::parse(other), None);
        }
    }
}
