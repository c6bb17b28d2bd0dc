//! Answers each request a fixed time after it has read it: what a load generator should measure is known.
//!
//! One thread for each connection sleeps until an absolute time, without slack. `delay-server MICROSECONDS`; prints its address.
//!
//! `delay-server MICROSECONDS FROM TO` is one queue: requests are served one after the other in so long each, and none between these
//! milliseconds after the first.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Longer than any request.
const ROOM: usize = 1 << 16;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// The monotonic time in nanoseconds.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives for the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Sleeps until shortly before a time, and polls the clock for the rest.
fn sleep_until(due: u64) {
    const EARLY: u64 = 60_000;
    if let Some(wake) = due.checked_sub(EARLY) {
        let time =
            libc::timespec { tv_sec: (wake / 1_000_000_000) as i64, tv_nsec: (wake % 1_000_000_000) as i64 };
        // SAFETY: the struct lives for the call. An interrupted sleep ends early, and the loop below waits for the rest.
        unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const time,
                std::ptr::null_mut(),
            )
        };
    }
    while now() < due {
        std::hint::spin_loop();
    }
}

/// The length of a request, if its head is there.
fn whole(request: &[u8]) -> Option<usize> {
    let head = request.windows(4).position(|end| end == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&request[..head]).expect("a head in ASCII");
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().expect("a number"))
    });
    Some(head + 4 + length.unwrap_or(0))
}

/// When requests end that are served one after the other.
struct Queue {
    begun: Option<u64>,
    free: u64,
    /// Nanoseconds after the first request in which none is served.
    stall: (u64, u64),
}

impl Queue {
    /// The end of a request that came now.
    fn end(&mut self, now: u64, service: u64) -> u64 {
        let begun = *self.begun.get_or_insert(now);
        let mut begins = now.max(self.free);
        if (begun + self.stall.0..begun + self.stall.1).contains(&begins) {
            begins = begun + self.stall.1;
        }
        self.free = begins + service;
        self.free
    }
}

fn answer(mut stream: TcpStream, delay: u64, queue: Option<&Mutex<Queue>>) {
    stream.set_nodelay(true).expect("a socket");
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let (mut room, mut request) = (vec![0; ROOM], Vec::new());
    while let Ok(read @ 1..) = stream.read(&mut room) {
        let read_at = now();
        request.extend_from_slice(&room[..read]);
        if whole(&request).is_some_and(|whole| request.len() >= whole) {
            request.clear();
            sleep_until(match queue {
                Some(queue) => queue.lock().expect("no panic").end(read_at, delay),
                None => read_at + delay,
            });
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let (delay, queue) = match numbers[..] {
        [delay] => (delay, None),
        [delay, from, to] => {
            let stall = (from * 1_000_000, to * 1_000_000);
            (delay, Some(Arc::new(Mutex::new(Queue { begun: None, free: 0, stall }))))
        }
        _ => panic!("delay-server MICROSECONDS [FROM TO]"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    for stream in listener.incoming().flatten() {
        let queue = queue.clone();
        std::thread::spawn(move || answer(stream, delay * 1_000, queue.as_deref()));
    }
}
