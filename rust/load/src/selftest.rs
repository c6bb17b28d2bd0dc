//! What the generator itself can do on this machine: an open loop against a server in the same process.

use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::echo;
use crate::plan::{Protocol, from_json};
use crate::run::LoadRun;

const TIMEOUT_NS: u64 = 2_000_000_000;
/// Requests that are sent at most.
const MOST_RECORDS: usize = 5_000_000;
const LONGEST_S: f64 = 600.0;
const MOST_BYTES: usize = 64 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelfTest {
    seconds: f64,
    rate: f64,
    request_bytes: usize,
    reply_bytes: usize,
    #[serde(default = "one")]
    threads: usize,
    #[serde(default)]
    cpus: Option<Vec<usize>>,
    #[serde(default)]
    wait: Option<String>,
    #[serde(default)]
    protocol: Protocol,
}

fn one() -> usize {
    1
}

/// The answer of a run at a Poisson rate against an echo of the same protocol: lateness, and what limited the client.
///
/// # Errors
/// `invalid_argument` with the place of what is wrong in the question, `internal` if the system gives no socket.
pub fn selftest(question: &str) -> Result<Value> {
    let test: SelfTest = from_json(question)?;
    if !(test.seconds > 0.0 && test.seconds <= LONGEST_S) {
        let wanted = format!("seconds: must be above 0 and at most {LONGEST_S}, got {}", test.seconds);
        return Err(Error::invalid(wanted));
    }
    for (name, bytes) in [("request_bytes", test.request_bytes), ("reply_bytes", test.reply_bytes)] {
        if bytes > MOST_BYTES {
            return Err(Error::invalid(format!("{name}: must be at most {MOST_BYTES}, got {bytes}")));
        }
    }
    let system = |error| Error::new(Code::Internal, format!("the echo cannot be started: {error}"));
    let echo = echo::start(test.protocol, test.reply_bytes).map_err(system)?;
    let address = echo.address.to_string();
    let plan = json!({
        "seed": 1, "threads": test.threads, "cpus": test.cpus, "wait": test.wait.as_deref().unwrap_or("auto"),
        "timeout_ns": TIMEOUT_NS, "max_in_flight": 10_000, "max_records": MOST_RECORDS,
        "load": {"open": {"arrivals": {"kind": "poisson"}, "stages": [
            {"from": test.rate, "to": test.rate, "for_ns": (test.seconds * 1e9) as u64},
        ]}},
        "targets": [{"address": address, "authority": address, "protocol": test.protocol}],
        "requests": [{"target": 0, "group": "echo", "weight": 1.0, "path": "/", "body": 0}],
    });
    let run = LoadRun::new(&plan.to_string(), vec![vec![b'x'; test.request_bytes]])?;
    run.start()?;
    // The longest test, its timeout, and a machine that is busy.
    if !run.wait(Duration::from_secs_f64(test.seconds + 60.0)) {
        return Err(Error::new(Code::Internal, "the test did not end a minute after its last request"));
    }
    run.look(r#"{"from_ns": 0}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_answers_everything() {
        for protocol in ["http", "grpc", "grpc_stream"] {
            for (request_bytes, reply_bytes) in [(0, 0), (1000, 200), (300_000, 300_000)] {
                let question = json!({
                    "seconds": 0.2, "rate": 100, "request_bytes": request_bytes, "reply_bytes": reply_bytes, "threads": 2,
                    "wait": "sleep", "protocol": protocol,
                });
                // On a busy machine some requests time out, and nothing else happens to them.
                let answers_all = |_| {
                    let answer = selftest(&question.to_string()).unwrap();
                    let count = |name: &str| answer["counts"][name].as_u64().unwrap();
                    assert_eq!(count("good") + count("timed_out"), count("due"), "{protocol}: {answer}");
                    assert!(answer["lateness"]["p99_ns"].is_u64());
                    count("good") > 5 && count("good") == count("due")
                };
                assert!((0..10).any(answers_all), "{protocol}, {request_bytes} bytes");
            }
        }
    }

    #[test]
    fn a_question_that_is_wrong_is_refused() {
        let refusal = |question: Value| selftest(&question.to_string()).unwrap_err().message.to_string();
        let with = |name: &str, value: Value| {
            let mut question = json!({"seconds": 1, "rate": 10, "request_bytes": 1, "reply_bytes": 1});
            question[name] = value;
            refusal(question)
        };
        assert!(with("seconds", json!(0)).starts_with("seconds: must be above 0"));
        assert!(with("rate", json!(-1)).starts_with("load.open.stages[0].from: must be above 0"));
        assert!(with("reply_bytes", json!(1u64 << 40)).starts_with("reply_bytes: must be at most"));
        assert!(with("sed", json!(1)).starts_with("sed: unknown field"));
        assert!(with("protocol", json!("smtp")).starts_with("protocol: unknown variant"));
    }
}
