//! The limits of a plan, each with the place that breaks it.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::SocketAddr;

use headgate_core::error::{Error, Result};

use super::{Arrivals, Closed, LONGEST_NS, Load, Open, Plan, Protocol, RequestPlan, TargetPlan, from_json};

const MOST_THREADS: usize = 256;
const MOST_IN_FLIGHT: usize = 1_000_000;
const MOST_RECORDS: usize = 1 << 31;
const MOST_GROUPS: usize = 255;

impl Plan {
    /// Reads a plan and checks it against the lengths of the `bodies` that come with it.
    pub fn parse(text: &str, bodies: &[impl AsRef<[u8]>]) -> Result<Plan> {
        let plan: Plan = from_json(text)?;
        check(&plan, bodies.len())?;
        Ok(plan)
    }
}

/// The error of a value that is not what it must be.
fn fault(path: impl Display, wanted: impl Display, got: impl Display) -> Error {
    Error::invalid(format!("{path}: {wanted}, got {got}"))
}

fn within(path: &str, value: usize, most: usize) -> Result<()> {
    match value {
        1.. if value <= most => Ok(()),
        _ => Err(fault(path, format_args!("must be between 1 and {most}"), value)),
    }
}

fn share(path: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(fault(path, "must be between 0 and 1", value)) }
}

fn above_zero(path: impl Display, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(fault(path, "must be above 0", value)) }
}

fn length(path: impl Display, for_ns: u64) -> Result<()> {
    match for_ns {
        1..=LONGEST_NS => Ok(()),
        0 => Err(fault(path, "must be above 0", 0)),
        _ => Err(fault(path, format_args!("a run lasts at most {} s", LONGEST_NS / 1_000_000_000), for_ns)),
    }
}

/// Refuses a plan that cannot be carried out.
fn check(plan: &Plan, bodies: usize) -> Result<()> {
    within("threads", plan.threads, MOST_THREADS)?;
    within("max_in_flight", plan.max_in_flight, MOST_IN_FLIGHT)?;
    within("max_records", plan.max_records, MOST_RECORDS)?;
    length("timeout_ns", plan.timeout_ns)?;
    share("timing_share", plan.timing_share)?;
    share("check_share", plan.check_share)?;
    let [part, of] = plan.part;
    if part == 0 || part > of {
        return Err(fault(
            "part",
            "must be this host and the number of hosts, as [1, 3]",
            format_args!("[{part}, {of}]"),
        ));
    }
    if plan.cpus.as_ref().is_some_and(Vec::is_empty) {
        return Err(fault("cpus", "must name a CPU, or be null", "[]"));
    }
    for (at, target) in plan.targets.iter().enumerate() {
        check_target(at, target)?;
    }
    check_requests(plan, bodies)?;
    match &plan.load {
        Load::Open(open) => check_open(open, plan.requests.len()),
        Load::Closed(closed) => check_closed(closed, plan.max_in_flight),
    }
}

fn check_target(at: usize, target: &TargetPlan) -> Result<()> {
    let path = format!("targets[{at}].address");
    if target.address.starts_with("https:") || target.authority.starts_with("https:") {
        return Err(fault(path, "https is not built yet: must be an IP address and a port", &target.address));
    }
    if target.address.parse::<SocketAddr>().is_err() {
        return Err(fault(path, "must be an IP address and a port, as 127.0.0.1:8000", &target.address));
    }
    if target.authority.is_empty() || !printable(&target.authority) || target.authority.contains(' ') {
        return Err(fault(
            format_args!("targets[{at}].authority"),
            "must be a host and a port",
            format_args!("{:?}", target.authority),
        ));
    }
    match target.connections {
        Some(0) => Err(fault(format_args!("targets[{at}].connections"), "must be above 0, or null", 0)),
        _ => Ok(()),
    }
}

fn printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn check_requests(plan: &Plan, bodies: usize) -> Result<()> {
    if plan.requests.is_empty() {
        return Err(fault("requests", "must have a request", "[]"));
    }
    for (at, request) in plan.requests.iter().enumerate() {
        check_request(&format!("requests[{at}]"), request, plan, bodies)?;
    }
    let total: f64 = plan.requests.iter().map(|request| request.weight).sum();
    above_zero("requests[..].weight: their sum", total)?;
    let groups: HashSet<&str> = plan.requests.iter().map(|request| &*request.group).collect();
    if groups.len() > MOST_GROUPS {
        return Err(fault("requests[..].group", format_args!("at most {MOST_GROUPS} groups"), groups.len()));
    }
    Ok(())
}

fn check_request(path: &str, request: &RequestPlan, plan: &Plan, bodies: usize) -> Result<()> {
    if !(request.weight >= 0.0 && request.weight.is_finite()) {
        return Err(fault(format_args!("{path}.weight"), "must be 0 or above", request.weight));
    }
    if request.target >= plan.targets.len() {
        let wanted = format!("must be below the number of targets, {}", plan.targets.len());
        return Err(fault(format_args!("{path}.target"), wanted, request.target));
    }
    if request.body >= bodies {
        let wanted = format!("must be below the number of bodies, {bodies}");
        return Err(fault(format_args!("{path}.body"), wanted, request.body));
    }
    if !request.path.starts_with('/') || !printable(&request.path) || request.path.contains(' ') {
        let got = format!("{:?}", request.path);
        return Err(fault(format_args!("{path}.path"), "must begin with / and have no space", got));
    }
    let protocol = plan.targets[request.target].protocol;
    for (at, (name, value)) in request.headers.iter().enumerate() {
        check_field(&format!("{path}.headers[{at}]"), name, value, protocol)?;
    }
    Ok(())
}

/// A header field must be one, and none that the generator writes itself.
fn check_field(path: &str, name: &str, value: &str, protocol: Protocol) -> Result<()> {
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(fault(path, "must have the name of a header field", format_args!("{name:?}")));
    }
    if http::HeaderValue::from_str(value).is_err() || !printable(value) {
        return Err(fault(path, "must have a printable value", format_args!("{value:?}")));
    }
    let own = ["host", "content-length", "transfer-encoding", "connection", "x-headgate-timing"];
    let own_of_grpc = ["content-type", "te"];
    let is = |names: &[&str]| names.iter().any(|own| name.eq_ignore_ascii_case(own));
    if is(&own) || (protocol != Protocol::Http && is(&own_of_grpc)) {
        return Err(fault(path, "must be a field that the generator does not write itself", name));
    }
    Ok(())
}

fn check_open(open: &Open, requests: usize) -> Result<()> {
    match &open.arrivals {
        Arrivals::Trace { due_ns, requests: named } => return check_trace(open, due_ns, named, requests),
        Arrivals::Gamma { cv } if !(*cv >= 0.01 && *cv <= 100.0) => {
            return Err(fault("load.open.arrivals.cv", "must be between 0.01 and 100", cv));
        }
        _ => {}
    }
    if open.stages.is_empty() {
        return Err(fault("load.open.stages", "must have a stage", "[]"));
    }
    let mut total_ns = 0u64;
    for (at, stage) in open.stages.iter().enumerate() {
        let path = format!("load.open.stages[{at}]");
        above_zero(format_args!("{path}.from"), stage.from)?;
        above_zero(format_args!("{path}.to"), stage.to)?;
        length(format_args!("{path}.for_ns"), stage.for_ns)?;
        total_ns += stage.for_ns;
        length("load.open.stages[..].for_ns: their sum", total_ns)?;
    }
    Ok(())
}

fn check_trace(open: &Open, due_ns: &[u64], named: &Option<Vec<u32>>, requests: usize) -> Result<()> {
    if !open.stages.is_empty() {
        return Err(fault(
            "load.open.stages",
            "must be empty, because a trace has its own times",
            open.stages.len(),
        ));
    }
    let (Some(first), Some(last)) = (due_ns.iter().min(), due_ns.iter().max()) else {
        return Err(fault("load.open.arrivals.due_ns", "must have a due time", "[]"));
    };
    length("load.open.arrivals.due_ns: its span", last - first + 1)?;
    let Some(named) = named else { return Ok(()) };
    if named.len() != due_ns.len() {
        let wanted = format!("must have one entry for each of the {} due times", due_ns.len());
        return Err(fault("load.open.arrivals.requests", wanted, named.len()));
    }
    match named.iter().position(|&request| request as usize >= requests) {
        Some(at) => Err(fault(
            format_args!("load.open.arrivals.requests[{at}]"),
            format_args!("must be below the number of requests, {requests}"),
            named[at],
        )),
        None => Ok(()),
    }
}

fn check_closed(closed: &Closed, max_in_flight: usize) -> Result<()> {
    within("load.closed.clients", closed.clients, max_in_flight)?;
    length("load.closed.for_ns", closed.for_ns)?;
    match closed.requests {
        Some(0) => Err(fault("load.closed.requests", "must be above 0, or null", 0)),
        _ => Ok(()),
    }
}
