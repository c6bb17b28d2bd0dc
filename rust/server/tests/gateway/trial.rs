//! The counters of a trial over real sockets: they are those that a client counts, over every way in which a request ends.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{
    LONG, PATIENCE, connect, eventually, gateway_with, signature, spec, status_and_body, whole_answer,
};
use headgate_core::error::{Code, Error, Result};
use headgate_core::slots::{key_hash, slot_of};
use headgate_core::tensor::{Shape, Signature};
use headgate_core::trial::report::Detail;
use headgate_core::trial::units::unit_of_hash;
use headgate_engine::runtime::Binding;
use headgate_engine::{Executable, Model};
use headgate_server::gateway::Gateway;
use headgate_server::serving::trial_registry::StoredTrial;
use serde_json::{Value, json};

const SALT: &str = "model/challenger/1";

/// What a model does with its next runs.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Mode {
    Double,
    Fail,
    Nan,
    NanAtEnd,
    Infinite,
    Panic,
    Wait,
}

/// A model that does what it is told.
struct Scripted {
    signature: Signature,
    mode: Arc<AtomicU8>,
    entered: Mutex<Sender<()>>,
    leave: Mutex<Receiver<()>>,
}

/// The test's side of it.
struct Script {
    model: Arc<Model>,
    mode: Arc<AtomicU8>,
    entered: Receiver<()>,
    leave: Sender<()>,
}

impl Script {
    /// Has its runs made on a pool thread from now on.
    fn run_in_pool(&self) {
        self.model.placement_policy.demote(0);
    }

    fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, SeqCst);
    }
}

/// Adopts a scripted model under this digest, which runs on the IO thread.
fn script(gateway: &Gateway, digest: &str) -> Script {
    let script = script_as(gateway, digest, &json!({}));
    script.model.placement_policy.pin_inline();
    script
}

/// Adopts a scripted model under this digest, with these run settings.
fn script_as(gateway: &Gateway, digest: &str, run: &Value) -> Script {
    let run = serde_json::from_value(run.clone()).unwrap();
    let mode = Arc::<AtomicU8>::default();
    let ((entered_in, entered), (leave, leave_out)) = (channel(), channel());
    let scripted = Scripted {
        signature: signature(),
        mode: mode.clone(),
        entered: Mutex::new(entered_in),
        leave: Mutex::new(leave_out),
    };
    let model = gateway.engine().adopt(digest, Box::new(scripted), &run).unwrap();
    Script { model, mode, entered, leave }
}

impl Executable for Scripted {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let mode = self.mode.load(SeqCst);
        if mode == Mode::Wait as u8 {
            self.entered.lock().unwrap().send(()).unwrap();
            self.leave.lock().unwrap().recv_timeout(LONG).expect("the test lets the run go on");
        }
        if mode == Mode::Fail as u8 {
            return Err(Error::new(Code::BackendFailed, "it is told to fail"));
        }
        assert!(mode != Mode::Panic as u8, "it is told to panic");
        let values: Vec<f32> = binding.input(0).view()?.elements::<f32>().unwrap().to_vec();
        let shape: Shape = *binding.input(0).shape();
        let output = binding.output_mut(0);
        output.reshape(&shape)?;
        let answer = |value: f32| match mode {
            mode if mode == Mode::Nan as u8 => f32::NAN,
            mode if mode == Mode::Infinite as u8 => f32::INFINITY,
            _ => 2.0 * value,
        };
        let out = output.elements_mut::<f32>().unwrap();
        out.iter_mut().zip(values).for_each(|(out, value)| *out = answer(value));
        if mode == Mode::NanAtEnd as u8 {
            *out.last_mut().unwrap() = f32::NAN;
        }
        Ok(())
    }
}

/// A gateway whose endpoint `model` gives half of its slots to `v2`.
struct Trial {
    gateway: Arc<Gateway>,
    address: SocketAddr,
    champion: Script,
    challenger: Script,
}

/// The state of the endpoint with that many slots for the challenger; `changes` replaces fields.
fn state(slots: u16, changes: &Value) -> Value {
    let mut state = json!({
        "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 60000, "sticky": "header.x-user",
        "versions": [
            {"name": "v1", "digest": "sha256:v1", "artifact": "adopted"},
            {"name": "v2", "digest": "sha256:v2", "artifact": "adopted"},
        ],
        "table": {"salt": SALT, "given": [["v2", 0, slots - 1]]},
    });
    state.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    state
}

/// A trial of which both versions are run on a pool thread, in batches.
fn batched_trial() -> Trial {
    let run = json!({"placement": "pool", "max_batch": 8});
    let (gateway, address) = gateway_with(&json!({}));
    let [champion, challenger] = ["sha256:v1", "sha256:v2"].map(|digest| script_as(&gateway, digest, &run));
    let trial = Trial { gateway, address, champion, challenger };
    let mut versions = state(1, &json!({}))["versions"].clone();
    versions.as_array_mut().unwrap().iter_mut().for_each(|version| version["run"] = run.clone());
    trial.apply(5_000, &json!({"versions": versions}));
    trial
}

fn trial(config: &Value, changes: &Value) -> Trial {
    let (gateway, address) = gateway_with(config);
    let (champion, challenger) = adopt(&gateway);
    let trial = Trial { gateway, address, champion, challenger };
    trial.apply(5_000, changes);
    trial
}

fn adopt(gateway: &Gateway) -> (Script, Script) {
    (script(gateway, "sha256:v1"), script(gateway, "sha256:v2"))
}

impl Trial {
    fn apply(&self, slots: u16, changes: &Value) {
        self.gateway.apply(spec(&state(slots, changes))).unwrap();
        let events = self.gateway.events();
        assert_eq!(events.last().unwrap()["event"], "applied", "{events:?}");
    }

    fn script(&self, challenger: bool) -> &Script {
        if challenger { &self.challenger } else { &self.champion }
    }

    /// Sends a request of that key.
    fn send(&self, key: &str, more: &Request<'_>) -> TcpStream {
        let mut stream = connect(self.address);
        stream.write_all(&more.bytes(key)).unwrap();
        stream
    }

    fn ask(&self, key: &str, more: &Request<'_>) -> u16 {
        status_and_body(&mut self.send(key, more)).0
    }

    /// The trial, once nothing is in progress.
    fn report(&self) -> Value {
        let report = || self.gateway.trial("model", Detail::Whole).unwrap()["trial"].clone();
        eventually("the end of all requests", || {
            report()["arms"].as_array().unwrap().iter().all(|arm| arm["in_flight"] == 0)
        });
        let report = report();
        for arm in report["arms"].as_array().unwrap() {
            let sum: u64 = ["ran", "shed", "not_ready", "fell_back", "cancelled", "lost"]
                .iter()
                .map(|outcome| arm[outcome].as_u64().unwrap())
                .sum();
            assert_eq!(arm["routed"], sum, "{arm}");
        }
        report
    }

    fn arm(&self, challenger: bool) -> Value {
        self.report()["arms"][usize::from(challenger)].clone()
    }
}

/// What is special about a request.
#[derive(Clone, Copy, Default)]
struct Request<'a> {
    version: Option<&'a str>,
    headers: &'a str,
    body: Option<&'a str>,
    binary: bool,
}

impl Request<'_> {
    fn bytes(&self, key: &str) -> Vec<u8> {
        let version = self.version.map_or(String::new(), |version| format!("/versions/{version}"));
        let mut body = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]}]});
        if self.binary {
            body["parameters"] = json!({"binary_data_output": true});
        }
        let body = self.body.map_or(body.to_string(), str::to_owned);
        let key = if key.is_empty() { String::new() } else { format!("x-user: {key}\r\n") };
        let (headers, length) = (self.headers, body.len());
        format!(
            "POST /v2/models/model{version}/infer HTTP/1.1\r\nhost: t\r\n{key}{headers}content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Keys whose slots are the challenger's, or the champion's, while it has the first 5 000.
fn keys(challenger: bool) -> impl Iterator<Item = String> {
    (0..)
        .map(|number| format!("user-{number}"))
        .filter(move |key| (slot_of(SALT, key.as_bytes()) < 5_000) == challenger)
}

fn key(challenger: bool) -> String {
    keys(challenger).next().unwrap()
}

/// Requests that end in the ways that need no second party; the status that the client reads.
#[derive(Clone, Copy, Debug)]
enum Way {
    Success,
    Failure,
    Nan,
    NanAsBinary,
    Panic,
    Mistake,
    CutShort,
    NoTime,
    Direct,
}

const WAYS: [Way; 9] = [
    Way::Success,
    Way::Failure,
    Way::Nan,
    Way::NanAsBinary,
    Way::Panic,
    Way::Mistake,
    Way::CutShort,
    Way::NoTime,
    Way::Direct,
];

/// Data that does not go together with its shape: found when the data is decoded, behind the choice of the version.
const MISTAKE: &str = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[2.0]}]}"#;
/// A body that ends early: found before a version is chosen.
const CUT_SHORT: &str = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","da"#;

/// What the client expects of an arm.
#[derive(Default)]
struct Expected {
    counts: BTreeMap<&'static str, u64>,
    units: HashSet<u32>,
    erred: HashSet<u32>,
}

impl Expected {
    fn add(&mut self, name: &'static str) {
        *self.counts.entry(name).or_insert(0) += 1;
    }

    fn add_unit(&mut self, unit: u32, erred: bool) {
        self.units.insert(unit);
        if erred {
            self.erred.insert(unit);
        }
    }

    fn check(&self, arm: &Value) {
        let of = |name: &str| self.counts.get(name).copied().unwrap_or(0);
        for name in ["ran", "shed", "fell_back", "cancelled", "lost", "errors", "nan_answers", "passed_on"] {
            assert_eq!(arm[name], of(name), "{name} of {arm}");
        }
        for name in ["direct", "fallback", "client_mistakes"] {
            assert_eq!(arm["apart"][name], of(name), "{name} of {arm}");
        }
        assert_eq!(arm["units"], self.units.len(), "{arm}");
        assert_eq!(arm["first_requests"], self.units.len(), "{arm}");
        assert_eq!(arm["first_errors"], self.erred.len(), "{arm}");
    }
}

/// Asks one request of one way, and adds what the client expects of both arms.
fn ask_one(trial: &Trial, challenger: bool, way: Way, key: &str, expected: &mut [Expected; 2]) {
    let script = trial.script(challenger);
    let (mode, request) = match way {
        Way::Success => (Mode::Double, Request::default()),
        Way::Failure => (Mode::Fail, Request::default()),
        Way::Nan => (Mode::Nan, Request::default()),
        Way::NanAsBinary => (Mode::Nan, Request { binary: true, ..Request::default() }),
        Way::Panic => (Mode::Panic, Request::default()),
        Way::Mistake => (Mode::Double, Request { body: Some(MISTAKE), ..Request::default() }),
        Way::CutShort => (Mode::Double, Request { body: Some(CUT_SHORT), ..Request::default() }),
        Way::NoTime => {
            (Mode::Double, Request { headers: "x-headgate-timeout: 0ms\r\n", ..Request::default() })
        }
        Way::Direct => {
            let version = if challenger { "v2" } else { "v1" };
            (Mode::Double, Request { version: Some(version), ..Request::default() })
        }
    };
    script.set(mode);
    let status = trial.ask(key, &request);
    script.set(Mode::Double);
    let unit = unit_of_hash(key_hash(SALT, key.as_bytes()));
    let mine = &mut expected[usize::from(challenger)];
    // The champion answers for a challenger whose answer cannot be used.
    let is_rescued = challenger && matches!(way, Way::Failure | Way::Nan | Way::Panic);
    match way {
        Way::Direct => mine.add("direct"),
        Way::Mistake => mine.add("client_mistakes"),
        // Nobody knows which version it was for.
        Way::CutShort => {}
        Way::NoTime => {
            mine.add("shed");
            mine.add_unit(unit, false);
        }
        Way::Success | Way::Failure | Way::Nan | Way::NanAsBinary | Way::Panic => {
            let erred = matches!(way, Way::Failure | Way::Panic);
            mine.add("ran");
            mine.add_unit(unit, erred);
            if erred {
                mine.add("errors");
            }
            if matches!(way, Way::Nan | Way::NanAsBinary) {
                mine.add("nan_answers");
            }
        }
    }
    if is_rescued {
        mine.add("passed_on");
        expected[0].add("fallback");
    }
    let wanted: u16 = match way {
        Way::Success | Way::NanAsBinary | Way::Direct => 200,
        Way::Failure | Way::Nan | Way::Panic if is_rescued => 200,
        Way::Nan | Way::Mistake | Way::CutShort => 400,
        Way::NoTime => 504,
        Way::Failure | Way::Panic => 500,
    };
    assert_eq!(status, wanted, "{way:?}, challenger: {challenger}");
}

#[test]
fn the_counts_are_those_of_the_client() {
    let trial = trial(&json!({}), &json!({}));
    let mut expected = <[Expected; 2]>::default();
    let keys = [false, true].map(|challenger| keys(challenger).take(20).collect::<Vec<_>>());
    // An input that each version is known to take, so that a probe can tell whose fault a failure is.
    for challenger in [false, true] {
        ask_one(&trial, challenger, Way::Success, &keys[usize::from(challenger)][0], &mut expected);
    }
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..400 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (way, challenger) = (WAYS[(state >> 40) as usize % WAYS.len()], state >> 50 & 1 == 1);
        let key = &keys[usize::from(challenger)][(state >> 55) as usize % 20];
        ask_one(&trial, challenger, way, key, &mut expected);
    }
    // Once this one is booked, so are all before it: they come to the same thread.
    ask_one(&trial, false, Way::Success, &keys[0][0], &mut expected);
    let report = trial.report();
    for (arm, expected) in report["arms"].as_array().unwrap().iter().zip(&expected) {
        expected.check(arm);
        assert_eq!(arm["slots"], 5_000);
        let ended = arm["routed"].as_u64().unwrap();
        let version = arm["version"].as_str().unwrap();
        let rows = report["minutes"].as_array().unwrap();
        let in_rows =
            |name: &str| rows.iter().map(|row| row["arms"][version][name].as_u64().unwrap_or(0)).sum::<u64>();
        assert_eq!((in_rows("ended"), in_rows("ran")), (ended, arm["ran"].as_u64().unwrap()));
        let events = report["first_errors"].as_array().unwrap();
        let events = events.iter().filter(|event| event["version"] == version).count();
        assert_eq!(events, expected.erred.len());
        assert_eq!(arm["nan_by_output"]["y"], arm["nan_answers"]);
    }
    assert_eq!(report["unit"], "sticky_key");
}

#[test]
fn without_a_key_the_unit_is_the_request() {
    let trial =
        trial(&json!({}), &json!({"sticky": null, "table": {"salt": SALT, "given": [["v2", 0, 9998]]}}));
    trial.challenger.set(Mode::Infinite);
    for _ in 0..5 {
        assert_eq!(trial.ask("", &Request { binary: true, ..Request::default() }), 200);
    }
    let arm = trial.arm(true);
    // One slot in 10 000 is the champion's.
    assert_eq!((&arm["units"], &arm["infinite_answers"]), (&json!(5), &json!(5)));
    assert_eq!(trial.report()["unit"], "request");
}

#[test]
fn a_client_that_leaves_and_a_run_that_is_late_are_told_apart() {
    let changes = json!({"fallback": "none"});
    let trial = trial(&json!({}), &changes);
    let key = key(true);
    trial.challenger.set(Mode::Wait);
    trial.challenger.run_in_pool();
    let gone = trial.send(&key, &Request::default());
    trial.challenger.entered.recv_timeout(PATIENCE).unwrap();
    drop(gone);
    eventually("the client's leaving", || trial.arm_now(true)["cancelled"] == 1);
    trial.challenger.leave.send(()).unwrap();
    let late = Request { headers: "x-headgate-timeout: 3000ms\r\n", ..Request::default() };
    let mut stream = trial.send(&key, &late);
    trial.challenger.entered.recv_timeout(PATIENCE).unwrap();
    assert_eq!(whole_answer(&mut stream).0, 504);
    trial.challenger.leave.send(()).unwrap();
    let arm = trial.arm(true);
    assert_eq!(
        (&arm["cancelled"], &arm["ran"], &arm["codes"]["deadline_exceeded"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!((&arm["units"], &arm["first_errors"]), (&json!(1), &json!(1)));
}

impl Trial {
    /// An arm as it is now, with requests in progress.
    fn arm_now(&self, challenger: bool) -> Value {
        let report = self.gateway.trial("model", Detail::Summary).unwrap();
        report["trial"]["arms"][usize::from(challenger)].clone()
    }
}

#[test]
fn what_a_stopping_gateway_cuts_off_is_lost() {
    let trial = trial(&json!({}), &json!({}));
    trial.champion.run_in_pool();
    trial.champion.set(Mode::Wait);
    let stream = trial.send(&key(false), &Request::default());
    trial.champion.entered.recv_timeout(PATIENCE).unwrap();
    // The gateway has no time for the request, whose run goes on.
    assert!(!trial.gateway.stop(Duration::ZERO, Duration::ZERO));
    // The gateway waits only a short time for its threads, which may have more to do after that.
    eventually("the request's end", || trial.arm_now(false)["in_flight"] == 0);
    let arm = trial.arm_now(false);
    assert_eq!((&arm["lost"], &arm["routed"]), (&json!(1), &json!(1)));
    trial.champion.leave.send(()).unwrap();
    drop(stream);
}

#[test]
fn a_challenger_that_is_left_alone_does_not_run() {
    let breaker = json!({"consecutive": 3, "success_rate": 5000, "window": 10000, "min_requests": 20});
    let trial = trial(&json!({}), &json!({"limits": {"breaker": breaker}}));
    for challenger in [false, true] {
        assert_eq!(trial.ask(&key(challenger), &Request::default()), 200);
    }
    trial.challenger.set(Mode::Fail);
    for key in keys(true).take(10) {
        assert_eq!(trial.ask(&key, &Request::default()), 200);
    }
    let arm = trial.arm(true);
    let [ran, fell_back, errors] = ["ran", "fell_back", "errors"].map(|name| arm[name].as_u64().unwrap());
    // On a busy machine some requests come after the breaker's time, and probe.
    assert_eq!((ran + fell_back, errors + 1), (11, ran), "{arm}");
    assert!(ran >= 4 && fell_back > 0, "{arm}");
    eventually("the booking", || trial.arm_now(false)["apart"]["fallback"] == 10);
}

#[test]
fn a_failed_run_of_a_batch_of_one_request_is_an_error_of_its_version() {
    let trial = batched_trial();
    for mode in [Mode::Fail, Mode::Panic] {
        trial.challenger.set(mode);
        for key in keys(true).take(5) {
            assert_eq!(trial.ask(&key, &Request::default()), 200);
        }
    }
    let arm = trial.arm(true);
    let counts = ["ran", "errors", "fell_back", "lost", "passed_on", "first_errors"];
    assert_eq!(counts.map(|name| arm[name].as_u64().unwrap()), [10, 10, 0, 0, 10, 5], "{arm}");
    trial.champion.set(Mode::Fail);
    assert_eq!(trial.ask(&key(false), &Request::default()), 500);
    let arm = trial.arm(false);
    assert_eq!(["ran", "errors", "lost"].map(|name| arm[name].as_u64().unwrap()), [1, 1, 0], "{arm}");
}

#[test]
fn a_mistake_that_the_champion_finds_is_none_of_a_challenger_that_is_left_alone() {
    let breaker = json!({"consecutive": 1, "success_rate": 5000, "window": 10000, "min_requests": 20});
    let trial = trial(&json!({}), &json!({"limits": {"breaker": breaker}}));
    let key = key(true);
    assert_eq!(trial.ask(&key, &Request::default()), 200);
    trial.challenger.set(Mode::Fail);
    assert_eq!(trial.ask(&key, &Request::default()), 200);
    assert_eq!(trial.ask(&key, &Request { body: Some(MISTAKE), ..Request::default() }), 400);
    let arm = trial.arm(true);
    assert_eq!(
        (&arm["routed"], &arm["fell_back"], &arm["apart"]["client_mistakes"]),
        (&json!(2), &json!(0), &json!(1))
    );
}

#[test]
fn of_very_large_answers_the_io_thread_sees_the_beginning_and_a_thread_that_writes_json_the_end() {
    let trial = trial(&json!({}), &json!({}));
    let values = (4 << 20) / size_of::<f32>() + 1;
    let body =
        json!({"inputs": [{"name": "x", "shape": [values], "datatype": "FP32", "data": vec![2; values]}]});
    let mut as_binary = body.clone();
    as_binary["parameters"] = json!({"binary_data_output": true});
    let [body, as_binary] = [body, as_binary].map(|body| body.to_string());
    let key = key(true);
    let seen = |arm: &Value| {
        let counts = ["ran", "answers", "unseen_answers", "nan_answers", "unwritable", "errors"];
        counts.map(|name| arm[name].as_u64().unwrap())
    };
    let ask = |mode: Mode, body: &str| {
        trial.challenger.set(mode);
        assert_eq!(trial.ask(&key, &Request { body: Some(body), ..Request::default() }), 200);
        seen(&trial.arm(true))
    };
    assert_eq!(ask(Mode::NanAtEnd, &as_binary), [1, 1, 1, 0, 0, 0]);
    assert_eq!(ask(Mode::Nan, &as_binary), [2, 2, 2, 1, 0, 0]);
    assert_eq!(ask(Mode::NanAtEnd, &body), [3, 3, 2, 2, 1, 0]);
}

#[test]
fn rules_are_counted_apart() {
    let rules = json!([{"when": {"header.x-tester": {"one_of": ["1"]}}, "to": "v2"}]);
    let trial = trial(&json!({}), &json!({"rules": rules}));
    assert_eq!(trial.ask(&key(false), &Request { headers: "x-tester: 1\r\n", ..Request::default() }), 200);
    // It is booked once its reply is out.
    eventually("the booking", || trial.arm_now(true)["apart"]["by_rule"] == 1);
    assert_eq!(trial.arm(true)["routed"], 0);
}

#[test]
fn a_trial_outlives_changes_of_weights_and_ends_with_the_last_slot() {
    let trial = trial(&json!({}), &json!({}));
    let key = key(true);
    assert_eq!(trial.ask(&key, &Request::default()), 200);
    trial.apply(6_000, &json!({"revision": 2}));
    assert_eq!(trial.ask(&key, &Request::default()), 200);
    let report = trial.report();
    assert_eq!((&report["arms"][1]["ran"], &report["arms"][1]["units"]), (&json!(2), &json!(1)));
    let slots: Vec<_> =
        report["splits"].as_array().unwrap().iter().map(|split| split["slots"]["v2"].clone()).collect();
    assert_eq!(slots, [5_000, 6_000]);
    trial.apply(6_000, &json!({"revision": 3, "table": {"salt": "", "given": []}}));
    assert_eq!(trial.ask(&key, &Request::default()), 200);
    eventually("the trial's end", || {
        trial.gateway.trial("model", Detail::Summary).unwrap()["trial"]["ended_ms"].is_u64()
    });
    assert_eq!(trial.report()["arms"][1]["ran"], 2);
    assert!(trial.report()["arms"][1]["slots"].is_null());
    // Another attempt is another trial.
    trial.apply(
        6_000,
        &json!({"revision": 4, "table": {"salt": "model/challenger/2", "given": [["v2", 0, 9]]}}),
    );
    let report = trial.gateway.trial("model", Detail::Summary).unwrap();
    assert_eq!(
        (&report["trial"]["attempt"], &report["trial"]["arms"][1]["ran"]),
        (&json!("model/challenger/2"), &json!(0))
    );
    assert_eq!(report["earlier"][0]["arms"][1]["ran"], 2);
}

#[test]
fn first_requests_are_compared_with_thresholds_that_were_set_before() {
    let trial = trial(&json!({}), &json!({}));
    let thresholds = |arms: Value| {
        let thresholds = json!({"attempt": SALT, "arms": arms}).to_string();
        trial.gateway.set_trial_thresholds("model", thresholds.as_bytes())
    };
    // No answer is faster than a nanosecond, and none slower than an hour.
    let hour = 3_600_000_000_000u64;
    let window =
        thresholds(json!({"v1": {"run_ns": hour, "reply_ns": hour}, "v2": {"run_ns": 1, "reply_ns": 1}}));
    assert_eq!(window.unwrap(), 1);
    for challenger in [false, true] {
        for key in keys(challenger).take(3) {
            (0..2).for_each(|_| assert_eq!(trial.ask(&key, &Request::default()), 200));
        }
    }
    let exceedances = |challenger: bool| trial.arm(challenger)["exceedances"].clone();
    let of = |compared: u64, run: u64, reply: u64| json!({"compared": compared, "slower_run": run, "slower_reply": reply, "running_slower_reply": 0, "unwatched": 0});
    assert_eq!((exceedances(false), exceedances(true)), (of(3, 0, 0), of(3, 3, 3)));
    assert_eq!(thresholds(json!({"v1": {"run_ns": 1}})).unwrap(), 2);
    trial.champion.set(Mode::Wait);
    trial.champion.run_in_pool();
    assert_eq!((exceedances(false), exceedances(true)), (of(0, 0, 0), of(0, 0, 0)));
    // A request that hangs is slower before it ends.
    assert_eq!(thresholds(json!({"v1": {"reply_ns": 1_000_000}})).unwrap(), 3);
    let mut stream = trial.send(&key(false), &Request::default());
    trial.champion.entered.recv_timeout(PATIENCE).unwrap();
    eventually("the threshold", || trial.arm_now(false)["exceedances"]["running_slower_reply"] == 1);
    trial.champion.leave.send(()).unwrap();
    assert_eq!(whole_answer(&mut stream).0, 200);
    assert_eq!(exceedances(false), of(1, 0, 1));
    let unknown = thresholds(json!({"v9": {"run_ns": 1}})).unwrap_err();
    assert!(unknown.message.contains("arms.v9") && unknown.message.contains("v1, v2"), "{unknown}");
    let other = trial.gateway.set_trial_thresholds("model", br#"{"attempt":"other","arms":{}}"#).unwrap_err();
    assert_eq!(other.code, Code::NotFound);
    assert_eq!(trial.report()["window"]["number"], 3);
}

#[test]
fn an_answer_that_the_client_does_not_take_has_no_time_to_the_reply() {
    let trial = trial(&json!({}), &json!({}));
    let values = 6_000_000;
    let bytes = values * size_of::<f32>();
    let tensor = json!({"name": "x", "shape": [values], "datatype": "FP32", "parameters": {"binary_data_size": bytes}});
    let head = json!({"inputs": [tensor], "parameters": {"binary_data_output": true}}).to_string();
    let headers = format!("inference-header-content-length: {}\r\n", head.len());
    let body = head + &"\0".repeat(bytes);
    let request = Request { headers: &headers, body: Some(&body), ..Request::default() };
    // The response has begun and is far larger than the buffers of the sockets. Then the client leaves.
    let mut stream = trial.send(&key(false), &request);
    stream.read_exact(&mut [0; 16]).unwrap();
    drop(stream);
    let arm = trial.arm(false);
    let counts = [&arm["ran"], &arm["run"]["count"], &arm["reply"]["count"], &arm["cancelled"]];
    assert_eq!(counts.map(|count| count.as_u64().unwrap()), [1, 1, 0, 0], "{arm}");
}

#[test]
fn a_stored_trial_goes_on_after_a_gap() {
    let first = trial(&json!({}), &json!({}));
    let key = key(true);
    first.challenger.set(Mode::Fail);
    assert_eq!(first.ask(&key, &Request::default()), 200);
    first.report();
    first.gateway.stop(Duration::ZERO, Duration::ZERO);
    let listed = first.gateway.trials();
    let begun_ms = listed[0]["begun_ms"].as_u64().unwrap();
    let stored = first.gateway.stored_trial("model", begun_ms).unwrap();
    assert!(first.gateway.stored_trial("model", 1).is_none());
    assert!(listed[0]["ended_ms"].is_null(), "a stop ends no trial");

    let (gateway, address) = gateway_with(&json!({}));
    gateway.restore_trial("model", &stored).unwrap();
    assert!(gateway.trial("model", Detail::Summary).is_err(), "it is not served yet");
    assert_eq!(gateway.trials(), json!([]));
    let (champion, challenger) = adopt(&gateway);
    let second = Trial { gateway, address, champion, challenger };
    second.apply(5_000, &json!({}));
    second.challenger.set(Mode::Fail);
    assert_eq!(second.ask(&key, &Request::default()), 200);
    let report = second.report();
    let arm = &report["arms"][1];
    // The unit and its error are known from before.
    assert_eq!((&arm["errors"], &arm["first_errors"], &arm["units"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(
        (report["begun_ms"].as_u64().unwrap(), report["gaps"].as_array().unwrap().len()),
        (begun_ms, 1)
    );
    let garbage = StoredTrial { ledger: stored.ledger, units: vec![1, 2, 3] };
    assert_eq!(second.gateway.restore_trial("model", &garbage).unwrap_err().code, Code::InvalidArgument);
}

#[test]
fn an_endpoint_with_one_version_has_no_trial() {
    let trial = trial(&json!({}), &json!({"table": {"salt": "", "given": []}}));
    assert_eq!(trial.ask(&key(false), &Request::default()), 200);
    assert_eq!(trial.gateway.trial("model", Detail::Whole).unwrap(), json!({"trial": null, "earlier": []}));
    assert_eq!(trial.gateway.trial("other", Detail::Whole).unwrap_err().code, Code::ModelNotFound);
}

/// A baseline of the output `y`, from 0 to 99, in a file of that folder.
fn baseline(folder: &std::path::Path) -> String {
    let column = headgate_sketch::Column {
        tensor: "y".to_owned(),
        column: "0".to_owned(),
        index: 0,
        direction: headgate_sketch::Direction::Output,
        integer: false,
    };
    let values: Vec<f64> = (0..100).map(f64::from).collect();
    let fitted = headgate_sketch::fit(&[column], &[&values]).unwrap();
    let path = folder.join("baseline.json");
    std::fs::write(&path, fitted.to_json()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn outputs_are_counted_on_the_bins_of_the_baseline_once_for_each_key() {
    let folder = tempfile::tempdir().unwrap();
    let with_baseline = json!({"baseline": baseline(folder.path())});
    let trial = trial(&json!({}), &with_baseline);
    let values = || {
        let feature = trial.report()["outputs"]["features"][0].clone();
        [&feature["values"]["v1"], &feature["values"]["v2"]].map(|count| count.as_u64().unwrap_or(0))
    };
    let ask = |key: &str, body: &str| {
        assert_eq!(trial.ask(key, &Request { body: Some(body), ..Request::default() }), 200);
    };
    let rows = |data: &[f32]| {
        json!({"inputs": [{"name": "x", "shape": [data.len()], "datatype": "FP32", "data": data}]})
            .to_string()
    };
    for key in keys(false).take(3) {
        ask(&key, &rows(&[20.0]));
        ask(&key, &rows(&[30.0]));
    }
    // A request with many rows is one value, and one that names the version none.
    let key = key(true);
    assert_eq!(trial.ask(&key, &Request { version: Some("v2"), ..Request::default() }), 200);
    ask(&key, &rows(&[40.0; 8]));
    assert_eq!(values(), [3, 1]);
    // Half of the keys each: 4 values have an information of 1, and those of the challenger lie above those of the champion.
    let sums = trial.report()["outputs"]["features"][0]["sums"]["v2"].clone();
    assert_eq!(sums["information"], 1.0);
    let upper: f64 =
        sums["sums"].as_array().unwrap().iter().rev().take(20).map(|sum| sum.as_f64().unwrap()).sum();
    assert!(upper > 0.4, "{sums}");
    // A failed run has no answer, and its key counts with its next one.
    let other = keys(true).nth(1).unwrap();
    trial.challenger.set(Mode::Fail);
    trial.ask(&other, &Request::default());
    trial.challenger.set(Mode::Double);
    assert_eq!(values(), [3, 1]);
    ask(&other, &rows(&[40.0]));
    assert_eq!(values(), [3, 2]);
    // NaN is a value as well.
    trial.challenger.set(Mode::Nan);
    trial.ask(&keys(true).nth(2).unwrap(), &Request { binary: true, ..Request::default() });
    assert_eq!(values(), [3, 3]);
    // Without bins nothing is counted, and other ones begin anew.
    trial.apply(5_000, &json!({}));
    assert_eq!(trial.report()["outputs"], Value::Null);
    trial.challenger.set(Mode::Double);
    trial.apply(5_000, &with_baseline);
    ask(&keys(true).nth(3).unwrap(), &rows(&[40.0]));
    assert_eq!(values(), [0, 1]);
}
