//! The plan of a run: what is sent, when, to where. Parsing refuses what cannot work and says where it stands.
//!
//! Read next: `plan/checks`, which has the limits.

mod checks;

use headgate_core::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The longest run: due times are kept as microseconds in 32 bits.
pub(crate) const LONGEST_NS: u64 = u32::MAX as u64 * 1000;

/// A run as its caller describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Decides due times, the mix and the samples.
    pub seed: u64,
    /// Threads that send.
    pub threads: usize,
    /// The CPUs that the threads run on; not pinned if absent.
    #[serde(default)]
    pub cpus: Option<Vec<usize>>,
    /// How a thread waits for the next due time.
    #[serde(default)]
    pub wait: Wait,
    /// How long an answer may take, from sending on.
    pub timeout_ns: u64,
    /// Requests in flight at once, of all threads together.
    pub max_in_flight: usize,
    /// Requests of a run.
    pub max_records: usize,
    /// This host and the number of hosts, from 1.
    #[serde(default = "whole")]
    pub part: [u64; 2],
    /// Open or closed loop.
    pub load: Load,
    /// Where requests go.
    pub targets: Vec<TargetPlan>,
    /// What is sent.
    pub requests: Vec<RequestPlan>,
    /// The share of requests that ask for the server's phases.
    #[serde(default)]
    pub timing_share: f64,
    /// The share of answers that are compared with the first answer to the same request.
    #[serde(default)]
    pub check_share: f64,
}

fn whole() -> [u64; 2] {
    [1, 1]
}

/// How a thread waits for the next due time.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// `Spin` if each thread has a CPU of its own, else `Sleep`.
    #[default]
    Auto,
    /// Polls the sockets without a pause.
    Spin,
    /// Sleeps until shortly before the due time, then polls.
    Sleep,
}

/// What decides when requests are sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// A schedule, whatever the answers take.
    Open(Open),
    /// A number of clients, each with one request in flight.
    Closed(Closed),
}

/// An open loop.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The gaps.
    pub arrivals: Arrivals,
    /// The rates; none for a trace.
    #[serde(default)]
    pub stages: Vec<Stage>,
}

/// The gaps between due times.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Arrivals {
    /// All the same.
    Constant {},
    /// Exponential.
    Poisson {},
    /// Gamma with a coefficient of variation.
    Gamma {
        /// Standard deviation over mean.
        cv: f64,
    },
    /// Recorded.
    Trace {
        /// Due times; the first is the anchor.
        due_ns: Vec<u64>,
        /// The request of each due time, as an index; drawn by weight if absent.
        #[serde(default)]
        requests: Option<Vec<u32>>,
    },
}

/// A stretch of time in which the rate goes from one value to another.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Requests per second at the beginning.
    pub from: f64,
    /// Requests per second at the end.
    pub to: f64,
    /// The length.
    pub for_ns: u64,
}

/// A closed loop.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closed {
    /// Each sends its next request when its last is answered.
    pub clients: usize,
    /// How long requests are sent.
    pub for_ns: u64,
    /// The most requests of all clients together.
    #[serde(default)]
    pub requests: Option<u64>,
}

/// A server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetPlan {
    /// IP address and port.
    pub address: String,
    /// The `Host` or `:authority` that is sent.
    pub authority: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The most connections, of all threads together; as many as are needed if absent.
    #[serde(default)]
    pub connections: Option<usize>,
}

/// What is spoken with a target.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// Unary gRPC.
    Grpc,
    /// Messages on bidirectional streams of gRPC.
    GrpcStream,
}

/// A request that may be sent many times.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestPlan {
    /// An index into the targets.
    pub target: usize,
    /// What the request is counted as.
    pub group: String,
    /// Its share of the mix, relative to the other weights.
    pub weight: f64,
    /// The path, with the query.
    pub path: String,
    /// Further header fields, or metadata of gRPC.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// An index into the bodies.
    pub body: usize,
    /// Rows in the body.
    #[serde(default = "one_row")]
    #[allow(dead_code, reason = "the caller's own count; kept so that a plan says it")]
    pub rows: u32,
}

fn one_row() -> u32 {
    1
}

impl Plan {
    /// The names of the groups in the order of their first request, and the group of each request.
    pub(crate) fn groups(&self) -> (Vec<String>, Vec<u8>) {
        let mut names: Vec<String> = Vec::new();
        let kinds = self.requests.iter().map(|request| {
            let at = names.iter().position(|name| *name == request.group).unwrap_or_else(|| {
                names.push(request.group.clone());
                names.len() - 1
            });
            // `check` allows at most 255 groups.
            at as u8
        });
        let kinds = kinds.collect();
        (names, kinds)
    }
}

/// Reads JSON; the error says where the fault stands.
pub(crate) fn from_json<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        Error::invalid(if path == "." { inner.to_string() } else { format!("{path}: {inner}") })
    })?;
    json.end().map_err(|error| Error::invalid(error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests;
