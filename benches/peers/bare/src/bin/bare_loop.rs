//! One thread, epoll, and nothing else: what one read gives is taken for a request, the model runs once where there is one, and
//! every answer is the same. Nothing is parsed, checked, counted or written down.
//!
//! `bare-loop ANSWER_FILE [ONNX_RUNTIME_LIBRARY MODEL]`; prints its address.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;

use bare::{NOTHING, Ready, Sockets};
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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let body = std::fs::read(&arguments[0]).expect("the answer");
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    let mut model = arguments.get(2).map(|model| Model::load(&arguments[1], model));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("{}", listener.local_addr().expect("a bound address"));
    let ready = Ready::new();
    ready.watch(listener.as_raw_fd());
    let mut connections: Sockets<TcpStream> = Sockets::default();
    let mut events = [NOTHING; 256];
    let mut request = [0; 1 << 14];
    loop {
        for event in ready.wait(&mut events) {
            if event.u64 == listener.as_raw_fd() as u64 {
                let (stream, _) = listener.accept().expect("a connection");
                stream.set_nodelay(true).expect("a socket");
                ready.watch(stream.as_raw_fd());
                connections.add(stream.as_raw_fd(), stream);
                continue;
            }
            let place = connections.place(event);
            let Some(stream) = place else { continue };
            match stream.read(&mut request) {
                Ok(length) if length > 0 => {
                    if let Some(model) = &mut model {
                        model.run();
                    }
                    // A client that left is noticed by the next read.
                    let _ = stream.write_all(&answer);
                }
                _ => *place = None,
            }
        }
    }
}
