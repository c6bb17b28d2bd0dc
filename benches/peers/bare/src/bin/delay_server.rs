//! Answers each request a fixed time after it has read it: what a load generator should measure is known.
//!
//! One thread for each connection sleeps until an absolute time, without slack. `delay-server MICROSECONDS`; prints its address.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

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

fn answer(mut stream: TcpStream, delay: u64) {
    stream.set_nodelay(true).expect("a socket");
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let (mut room, mut request) = (vec![0; ROOM], Vec::new());
    while let Ok(read @ 1..) = stream.read(&mut room) {
        let read_at = now();
        request.extend_from_slice(&room[..read]);
        if whole(&request).is_some_and(|whole| request.len() >= whole) {
            request.clear();
            sleep_until(read_at + delay);
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

fn main() {
    let delay = std::env::args().nth(1).and_then(|text| text.parse::<u64>().ok()).expect("microseconds");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream, delay * 1_000));
    }
}
