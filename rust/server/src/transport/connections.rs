//! The connections of an IO thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use headgate_engine::Instant;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::metrics::close_reason::CloseReason;
use crate::thread::io::{self, Io};
use crate::transport::connection_state::ConnectionState;
use crate::transport::eviction;
use crate::transport::serve;
use crate::transport::service::Service;

/// The connections of this thread.
#[derive(Default)]
pub struct Connections {
    /// The number of the newest connection.
    last_id: Cell<u64>,
    open: RefCell<HashMap<u64, (Rc<ConnectionState>, AbortHandle)>>,
    /// Notified when a connection ends.
    emptied: Notify,
}

impl Connections {
    /// Asks each connection to end.
    pub fn close(&self) {
        let now = Instant::now();
        self.open.borrow().values().for_each(|(conn, _)| conn.close(now));
    }

    /// Closes the connections that can be spared best; how many they are.
    pub fn make_room(&self, io: &Io, count: &AtomicUsize) -> usize {
        let mut open = self.open.borrow_mut();
        let gone =
            eviction::choose_evicted(open.iter().map(|(id, (conn, _))| (*id, &**conn)), Instant::now());
        for task in gone.iter().filter_map(|id| open.remove(id)) {
            // Counted down here and not at the task's end: the next socket is on its way.
            count.fetch_sub(1, Relaxed);
            io.shared.metrics.connections_closed.add(CloseReason::Crowded);
            task.1.abort();
        }
        gone.len()
    }

    /// Waits until the last one is gone.
    pub async fn emptied(&self) {
        while !self.open.borrow().is_empty() {
            self.emptied.notified().await;
        }
    }

    /// Serves a socket; `count` is counted down when its connection ends.
    pub fn serve_socket<S: Service>(self: &Rc<Self>, io: &Io, socket: TcpStream, count: &Arc<AtomicUsize>) {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let conn = Rc::new(ConnectionState::default());
        if io.shared.closing.load(Relaxed) {
            conn.close(Instant::now());
        }
        io.shared.metrics.thread(io.thread).accepted.add(1);
        // Counted down however the connection ends, also by a panic.
        let guard = ConnectionGuard { id, connections: self.clone(), count: count.clone() };
        let served = conn.clone();
        let task = tokio::task::spawn_local(async move {
            let _guard = guard;
            serve::serve::<S>(socket, &served).await;
        });
        self.open.borrow_mut().insert(id, (conn, task.abort_handle()));
    }
}

/// Takes a connection out of the list when it ends.
struct ConnectionGuard {
    id: u64,
    connections: Rc<Connections>,
    count: Arc<AtomicUsize>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        // One that made room has been counted down.
        if self.connections.open.borrow_mut().remove(&self.id).is_some() {
            self.count.fetch_sub(1, Relaxed);
        }
        self.connections.emptied.notify_one();
        io::try_with(|io| io.shared.metrics.thread(io.thread).closed.add(1));
    }
}
