//! The requests of a plan, encoded once: what is sent many times is only pointed at.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use headgate_core::error::{Error, Result};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::plan::{Plan, Protocol, RequestPlan, TargetPlan};

/// The header field that asks a server for its phases.
pub(crate) const TIMING: &str = "x-headgate-timing";

/// A request as it is sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) target: u32,
    pub(crate) kind: u8,
    pub(crate) form: Form,
    pub(crate) body: Bytes,
}

/// What stands in front of the body.
#[derive(Debug)]
pub(crate) enum Form {
    /// The head without its empty line.
    Http(Box<[u8]>),
    /// Address and metadata of a call; the body has its frame in front.
    Grpc { uri: Uri, headers: HeaderMap },
}

/// A server as the threads know it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) connections: Option<usize>,
}

/// The targets of a plan.
pub(crate) fn targets(plan: &Plan) -> Result<Vec<Target>> {
    let target = |target: &TargetPlan| {
        let address = target.address.parse();
        let address = address.map_err(|error| Error::invalid(format!("{}: {error}", target.address)))?;
        Ok(Target { address, protocol: target.protocol, connections: target.connections })
    };
    plan.targets.iter().map(target).collect()
}

/// The requests of a plan. `kinds` has the group of each.
pub(crate) fn requests(plan: &Plan, bodies: &[Bytes], kinds: &[u8]) -> Result<Arc<[Prepared]>> {
    let mut framed: HashMap<usize, Bytes> = HashMap::new();
    let prepared = plan.requests.iter().zip(kinds).map(|(request, &kind)| {
        let target = &plan.targets[request.target];
        let body = &bodies[request.body];
        let (form, body) = match target.protocol {
            Protocol::Http => (Form::Http(http_head(request, target, body.len())), body.clone()),
            Protocol::Grpc | Protocol::GrpcStream => {
                let body = match framed.get(&request.body) {
                    Some(body) => body.clone(),
                    None => framed.entry(request.body).or_insert(grpc_frame(body)?).clone(),
                };
                (grpc_form(request, target)?, body)
            }
        };
        // A plan that was checked has fewer targets than 2^32, because each is named by a request in JSON.
        Ok(Prepared { target: request.target as u32, kind, form, body })
    });
    prepared.collect::<Result<Vec<_>>>().map(Arc::from)
}

fn http_head(request: &RequestPlan, target: &TargetPlan, body: usize) -> Box<[u8]> {
    let RequestPlan { path, headers, .. } = request;
    let mut head =
        format!("POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {body}\r\n", target.authority);
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.into_bytes().into()
}

/// A message with its frame in front: no compression, and its length.
fn grpc_frame(message: &Bytes) -> Result<Bytes> {
    let length = u32::try_from(message.len())
        .map_err(|_| Error::invalid(format!("a message of {} bytes is too long for gRPC", message.len())))?;
    let mut framed = Vec::with_capacity(5 + message.len());
    framed.push(0);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    Ok(framed.into())
}

fn grpc_form(request: &RequestPlan, target: &TargetPlan) -> Result<Form> {
    let invalid = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("a request to {}{}: {error}", target.authority, request.path))
    };
    let uri = format!("http://{}{}", target.authority, request.path);
    let uri = uri.parse().map_err(|error| invalid(&error))?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| invalid(&error))?;
        headers.append(name, HeaderValue::from_str(value).map_err(|error| invalid(&error))?);
    }
    Ok(Form::Grpc { uri, headers })
}
