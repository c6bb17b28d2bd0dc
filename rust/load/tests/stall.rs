//! A server that works first come, first served, and stands still for a second: latency from the due time shows it.
//!
//! A busy machine makes times longer and never shorter, so that this asks for the least that they must be. `make bench-load` measures
//! how close they are on a quiet one.

mod common;

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use common::{Answer, MS, SECOND, Server, answer, open, plan, started};

const SERVICE: Duration = Duration::from_millis(1);

/// Serves one request after the other in a millisecond each, and nothing between the fifth and the sixth second.
///
/// When a request ends follows from when it came, so that a thread that wakes late makes no later request late.
fn serve(requests: &std::sync::mpsc::Receiver<Sender<()>>) {
    let mut begun = None;
    let mut free = Instant::now();
    for done in requests {
        let now = Instant::now();
        let begun = *begun.get_or_insert(now);
        let mut begins = now.max(free);
        if (5.0..6.0).contains(&(begins - begun).as_secs_f64()) {
            begins = begun + Duration::from_secs(6);
        }
        free = begins + SERVICE;
        std::thread::sleep(free.saturating_duration_since(Instant::now()));
        // A client that is gone is none of this server's business.
        let _ = done.send(());
    }
}

#[test]
fn a_stall_of_a_second_shows_in_the_quantiles() {
    let (queue, requests) = channel::<Sender<()>>();
    std::thread::spawn(move || serve(&requests));
    let queue = Mutex::new(queue);
    let server = Server::start(move |_| {
        let (done, served) = channel();
        queue.lock().unwrap().send(done).unwrap();
        served.recv().unwrap();
        Answer::Bytes(answer(200, "{}"))
    });
    let run = started(&plan(server.address, &open(100.0, 10 * SECOND), serde_json::json!({})));
    assert!(run.wait(Duration::from_secs(60)));
    let result = run.result(r#"{"from_ns": 0, "quantiles": [0.95, 0.99, 0.999]}"#).unwrap();
    assert_eq!(result["counts"]["good"], 1000);
    let quantiles = result["response"]["quantiles"].as_array().unwrap();
    for (found, wanted_ms) in quantiles.iter().zip([551.0, 911.0, 992.0]) {
        let found_ms = found["value_ns"].as_u64().unwrap() as f64 / MS as f64;
        // The stall begins up to 10 ms from a due time. Requests of the other seconds are far below these quantiles.
        assert!(found_ms > wanted_ms - 20.0, "{found_ms} ms, not {wanted_ms} ms");
    }
}
