//! A warm plain request on the inline path allocates nothing, from its first byte to the work after its response, but for a power of two
//! that its time is the first to fall into.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "counting allocations needs a global allocator; a test says what went wrong by panicking"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::{answer, connect, free, gateway_with, request, signature};
use headgate_core::error::Result;
use headgate_core::tensor::Signature;
use headgate_core::trial::report::Detail;
use headgate_engine::runtime::Binding;
use headgate_engine::{Executable, Model};
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct BodyMemory;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for BodyMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Fails only while a thread's locals are being destroyed.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: BodyMemory = BodyMemory;

/// Doubles its input, and reports how often its thread has allocated so far.
struct Telling {
    signature: Signature,
    tell: Mutex<Sender<u64>>,
}

impl Executable for Telling {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        // A shadow's thread runs the champion again, for the noise floor, and one of the pool what the watchdog ended on a busy machine.
        if !std::thread::current().name().is_some_and(|name| name.starts_with("hg-io")) {
            return free().run(binding);
        }
        let so_far = ALLOCATIONS.with(Cell::get);
        self.tell.lock().unwrap().send(so_far).unwrap();
        free().run(binding)?;
        // What the model and the channel of this test allocate does not count.
        ALLOCATIONS.with(|count| count.set(so_far));
        Ok(())
    }
}

/// Requests after which a thread is warm.
const WARM_UP: usize = 20;

/// The allocations of warm requests.
struct WarmRequests {
    /// Allocations from one request to the next.
    counts: Vec<u64>,
    /// Powers of two that the time of a request fell into for the first time meanwhile, at most: each is allocated then.
    new_powers: u64,
}

impl WarmRequests {
    /// Asserts that no more was allocated than that and `others`.
    fn assert_few(&self, others: u64) {
        let WarmRequests { counts, new_powers } = self;
        assert!(
            counts.iter().sum::<u64>() <= new_powers + others,
            "{new_powers} new powers of two: {counts:?}"
        );
    }
}

/// The powers of two that the times of requests fell into so far.
fn powers(gateway: &Gateway) -> u64 {
    let totals = gateway.totals();
    let versions = totals["versions"].as_array().unwrap().iter();
    let buckets = versions.flat_map(|version| version["durations"].as_array().unwrap());
    buckets.map(|bucket| bucket[0].as_u64().unwrap() / 64).collect::<HashSet<_>>().len() as u64
}

/// Many requests, of which all but the first are warm.
fn per_request(gateway: &Gateway, address: SocketAddr, told: &Receiver<u64>) -> WarmRequests {
    per_request_and_then(gateway, address, told, |_| {})
}

/// The same, with something that is done after each request, whose number it gets.
fn per_request_and_then(
    gateway: &Gateway,
    address: SocketAddr,
    told: &Receiver<u64>,
    after: impl FnMut(u64),
) -> WarmRequests {
    let mut stream = connect(address);
    of_connection(gateway, &mut stream, &request("model", 2.0), told, after)
}

/// The same for this request on one connection.
fn of_connection(
    gateway: &Gateway,
    stream: &mut TcpStream,
    request: &str,
    told: &Receiver<u64>,
    mut after: impl FnMut(u64),
) -> WarmRequests {
    let (mut counts, mut before) = (Vec::new(), 0);
    for number in 0..60 {
        if number == WARM_UP {
            before = powers(gateway);
        }
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(answer(stream).0, 200);
        counts.push(told.recv_timeout(common::PATIENCE).unwrap());
        after(number as u64);
    }
    // What the last request allocates after its reply is not among the counts, and may be among the powers.
    let new_powers = powers(gateway) - before;
    WarmRequests {
        counts: counts.windows(2).skip(WARM_UP).map(|pair| pair[1] - pair[0]).collect(),
        new_powers,
    }
}

/// The allocations of each warm request of an endpoint that shares its traffic between two versions of one model.
fn warm_requests_of_a_trial() -> WarmRequests {
    let (tell, told) = channel();
    let (gateway, address) = gateway_with(&json!({"sketches": false}));
    let telling = Telling { signature: signature(), tell: Mutex::new(tell) };
    let model = gateway.engine().adopt("telling", Box::new(telling), &Default::default()).unwrap();
    model.placement_policy.pin_inline();
    let version = |name: &str| json!({"name": name, "digest": "telling", "artifact": "adopted"});
    let shared = json!({
        "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 60000, "sticky": "header.host",
        "versions": [version("v1"), version("v2")],
        "table": {"salt": "model/telling/1", "given": [["v2", 0, 4999]]},
    });
    gateway.apply(common::spec(&shared)).unwrap();
    let thresholds = json!({"attempt": "model/telling/1", "arms": {"v1": {"run_ns": 1, "reply_ns": 1}}});
    gateway.set_trial_thresholds("model", thresholds.to_string().as_bytes()).unwrap();
    let requests = per_request(&gateway, address, &told);
    let trial = gateway.trial("model", Detail::Summary).unwrap();
    let routed = |arm: usize| trial["trial"]["arms"][arm]["routed"].as_u64().unwrap();
    assert_eq!(routed(0) + routed(1), 60, "{trial}");
    requests
}

/// The allocations of each warm request on a gateway with these settings.
fn warm_requests(settings: &Value) -> WarmRequests {
    let (tell, told) = channel();
    let (gateway, address) = gateway_with(settings);
    let telling = Telling { signature: signature(), tell: Mutex::new(tell) };
    let model = gateway.engine().adopt("telling", Box::new(telling), &Default::default()).unwrap();
    model.placement_policy.pin_inline();
    common::serve_adopted(&gateway, "model", "telling");
    per_request(&gateway, address, &told)
}

/// A gateway whose endpoint has two versions and what else `traffic` says of it, and that has served no request yet.
struct TwoVersions {
    gateway: Arc<Gateway>,
    address: SocketAddr,
    told: Receiver<u64>,
    _models: [Arc<Model>; 2],
}

impl TwoVersions {
    fn new(settings: &Value, traffic: &Value) -> TwoVersions {
        let (tell, told) = channel();
        let (gateway, address) = gateway_with(settings);
        let telling = Telling { signature: signature(), tell: Mutex::new(tell) };
        let adopt =
            |digest, executable| gateway.engine().adopt(digest, executable, &Default::default()).unwrap();
        let model = adopt("telling", Box::new(telling) as Box<dyn Executable>);
        model.placement_policy.pin_inline();
        let models = [model, adopt("other", Box::new(free()))];
        let version = |name, digest| json!({"name": name, "digest": digest, "artifact": "adopted"});
        let mut state = json!({
            "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 600_000,
            "versions": [version("v1", "telling"), version("v2", "other")],
        });
        state.as_object_mut().unwrap().extend(traffic.as_object().unwrap().clone());
        gateway.apply(common::spec(&state)).unwrap();
        TwoVersions { gateway, address, told, _models: models }
    }

    fn requests(&self) -> WarmRequests {
        per_request(&self.gateway, self.address, &self.told)
    }

    /// What the gateway says of the shadow.
    fn shadow(&self) -> Value {
        self.gateway.shadows("model").unwrap()["shadows"][0].clone()
    }
}

/// An endpoint with a shadow that gets every request.
fn shadowed(settings: &Value) -> TwoVersions {
    TwoVersions::new(settings, &json!({"shadow": [{"to": "v2", "share": 10_000}]}))
}

#[test]
fn a_warm_plain_request_on_the_inline_path_allocates_nothing() {
    warm_requests(&json!({"sketches": false})).assert_few(0);
}

#[test]
fn a_trace_and_a_request_id_allocate_nothing() {
    let (tell, told) = channel();
    let (gateway, address) = gateway_with(&json!({"sketches": false}));
    let telling = Telling { signature: signature(), tell: Mutex::new(tell) };
    let model = gateway.engine().adopt("telling", Box::new(telling), &Default::default()).unwrap();
    model.placement_policy.pin_inline();
    common::serve_adopted(&gateway, "model", "telling");
    let fields =
        "x-request-id: 7\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let request = request("model", 2.0).replacen("host:", &format!("{fields}host:"), 1);
    of_connection(&gateway, &mut connect(address), &request, &told, |_| {}).assert_few(0);
}

#[test]
fn a_trial_allocates_only_for_durations_that_it_has_not_seen_yet() {
    // Those of the run and of the time from admission to reply are powers of two as well.
    warm_requests_of_a_trial().assert_few(8);
}

#[test]
fn sketching_allocates_only_for_buckets_that_are_not_there_yet() {
    let WarmRequests { counts, new_powers } = warm_requests(&json!({"sketches": true}));
    // The first values after a collection find an empty second buffer, once.
    let allocating = counts.iter().filter(|&&count| count > 0).count() as u64;
    assert!(allocating <= 1 + new_powers, "{new_powers} new powers of two: {counts:?}");
}

#[test]
fn choosing_by_rules_allocates_nothing() {
    let when = |field: &str, accepted: Value| json!({"when": {field: accepted}, "to": "v2"});
    let others = [
        when("header.x-tester", json!({"one_of": ["yes", "of course"]})),
        when("header.host", json!({"prefix": "test-"})),
        when("parameter.tier", json!({"one_of": ["gold", "7"]})),
    ];
    let last = json!({"when": {"header.host": {"one_of": ["t", "u"]}}, "to": "v1"});
    for (rules, by_rule) in [(others.to_vec(), 0), ([&others[..], &[last]].concat(), 60)] {
        let served = TwoVersions::new(&json!({"sketches": false}), &json!({"rules": rules}));
        served.requests().assert_few(0);
        let labels = json!({"endpoint": "model", "version": "v1"});
        let counted = || common::metric(&served.gateway, "headgate_requests_by_rule_total", &labels);
        common::eventually("the last request", || counted() == by_rule);
    }
}

#[test]
fn shadows_that_do_not_draw_a_request_allocate_nothing() {
    // The slot of the key `t` is above the share. Numbers are drawn seldom.
    let shadows = [
        json!({"to": "v2", "share": 1, "by": "sticky", "slices": ["header.host"]}),
        json!({"to": "v2", "share": 1, "by": "request", "slices": ["header.host"]}),
    ];
    for shadow in shadows {
        let traffic = json!({"shadow": [shadow], "sticky": "header.host"});
        let served = TwoVersions::new(&json!({"sketches": false, "shadow_cpu": 1.0}), &traffic);
        let requests = served.requests();
        let drawn = served.shadow()["drawn"].as_u64().unwrap();
        assert!(drawn == 0 || shadow["by"] == "request", "{drawn}");
        requests.assert_few(drawn * A_COPY_AND_ITS_BUFFERS);
    }
}

#[test]
fn shadows_that_are_switched_off_allocate_nothing() {
    let shadow = json!([{"to": "v2", "share": 10_000}]);
    for traffic in [json!({"shadow": []}), json!({"shadow": shadow, "shadows_off": ["v2"]})] {
        TwoVersions::new(&json!({"sketches": false}), &traffic).requests().assert_few(0);
    }
}

/// More than what a copy, and buffers in place of those that it takes along, allocate.
const A_COPY_AND_ITS_BUFFERS: u64 = 24;

#[test]
fn a_copy_allocates_its_owner_even_if_it_finds_no_room() {
    let requests = shadowed(&json!({"sketches": false, "shadow_memory_bytes": 0})).requests();
    assert!(requests.counts.iter().all(|&count| count >= 1), "{:?}", requests.counts);
    requests.assert_few(requests.counts.len() as u64);
}

#[test]
fn a_copy_that_was_run_gives_its_buffers_back_to_the_next_request() {
    let served = shadowed(&json!({"sketches": false, "shadow_cpu": 1.0}));
    let is_over = |number| {
        let pairs = served.shadow()["pairs"].as_u64().unwrap();
        let held = common::metric(&served.gateway, "headgate_shadow_memory_bytes", &json!({}));
        pairs == number + 1 && held == 0
    };
    let requests = per_request_and_then(&served.gateway, served.address, &served.told, |number| {
        common::eventually("the end of the copy", || is_over(number));
    });
    requests.assert_few(requests.counts.len() as u64);
}

#[test]
fn a_copy_that_waits_costs_its_request_no_more_than_buffers_for_the_next_one() {
    let WarmRequests { counts, .. } = shadowed(&json!({"sketches": false, "shadow_cpu": 1.0})).requests();
    assert!(counts.iter().all(|count| (1..=A_COPY_AND_ITS_BUFFERS).contains(count)), "{counts:?}");
}
