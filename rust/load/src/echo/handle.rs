//! A server's address, and its end.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

/// A server that is stopped when it is dropped.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    end: Option<Box<dyn FnOnce()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Echo {
    /// Runs a server until `end` is called.
    pub(super) fn run(
        address: SocketAddr,
        end: impl FnOnce() + 'static,
        server: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Echo> {
        let thread = std::thread::Builder::new().name("load-echo".into()).spawn(server)?;
        Ok(Echo { address, end: Some(Box::new(end)), thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
        if let Some(thread) = self.thread.take() {
            // A server that failed has closed its connections, which the client has counted.
            drop(thread.join());
        }
    }
}
