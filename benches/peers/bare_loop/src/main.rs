//! One thread, epoll, and nothing else: what one read gives is taken for a request, the model runs once where there is one, and
//! every answer is the same. Nothing is parsed, checked, counted or written down.
//!
//! `bare-loop ANSWER_FILE [ONNX_RUNTIME_LIBRARY MODEL]`; prints its address.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use headgate_core::tensor::Shape;
use headgate_runtime::{Binding, Library, Session, SessionOptions};

/// The model, and buffers for one row of zeros.
struct Model {
    session: Session,
    binding: Binding,
}

impl Model {
    fn load(library: &str, model: &str) -> Model {
        let library = Library::open(Path::new(library)).expect("an ONNX Runtime library");
        let session = Session::load(library, Path::new(model), SessionOptions::default()).expect("a model");
        let mut binding = Binding::new(library, session.signature());
        for (index, input) in session.signature().inputs.iter().enumerate() {
            let dims: Vec<i64> = input.shape.iter().map(|&dim| dim.max(1)).collect();
            let shape = Shape::new(&dims).expect("one row");
            binding.input_mut(index).reshape(&shape).expect("room for a row");
        }
        Model { session, binding }
    }

    fn run(&mut self) {
        self.binding.run(&self.session).expect("a run");
    }
}

/// The kernel's list of sockets that can be read.
struct Ready(RawFd);

impl Ready {
    fn new() -> Ready {
        // SAFETY: no pointers.
        Ready(unsafe { libc::epoll_create1(0) })
    }

    fn watch(&self, socket: RawFd) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: socket as u64 };
        // SAFETY: the event lives for the call.
        assert_eq!(unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, socket, &mut event) }, 0);
    }

    fn wait(&self, events: &mut [libc::epoll_event]) -> usize {
        // SAFETY: room for as many events as are announced.
        let count = unsafe { libc::epoll_wait(self.0, events.as_mut_ptr(), events.len() as i32, -1) };
        usize::try_from(count).unwrap_or(0)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let body = std::fs::read(&arguments[0]).expect("the answer");
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())
            .into_bytes();
    answer.extend_from_slice(&body);
    let mut model = arguments.get(2).map(|model| Model::load(&arguments[1], model));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("{}", listener.local_addr().expect("a bound address"));
    let ready = Ready::new();
    ready.watch(listener.as_raw_fd());
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut request = [0; 1 << 14];
    loop {
        let count = ready.wait(&mut events);
        for event in &events[..count] {
            let socket = event.u64 as usize;
            if socket as RawFd == listener.as_raw_fd() {
                let (stream, _) = listener.accept().expect("a connection");
                stream.set_nodelay(true).expect("a socket");
                ready.watch(stream.as_raw_fd());
                let place = stream.as_raw_fd() as usize;
                connections.resize_with(connections.len().max(place + 1), || None);
                connections[place] = Some(stream);
                continue;
            }
            let Some(stream) = &mut connections[socket] else { continue };
            match stream.read(&mut request) {
                Ok(length) if length > 0 => {
                    if let Some(model) = &mut model {
                        model.run();
                    }
                    // A client that left is noticed by the next read.
                    let _ = stream.write_all(&answer);
                }
                _ => connections[socket] = None,
            }
        }
    }
}
