//! What the bare loop stands on: epoll.

use std::os::fd::RawFd;

/// An event of the kernel's list; `u64` is the number of the socket.
pub use libc::epoll_event as Event;

/// An event that says nothing: room for one.
pub const NOTHING: Event = Event { events: 0, u64: 0 };

/// The kernel's list of sockets that can be read.
pub struct Ready(RawFd);

impl Ready {
    /// An empty list.
    #[expect(clippy::new_without_default, reason = "it asks the kernel")]
    pub fn new() -> Ready {
        // SAFETY: no pointers.
        Ready(unsafe { libc::epoll_create1(0) })
    }

    /// Puts a socket on the list.
    pub fn watch(&self, socket: RawFd) {
        let mut event = Event { events: libc::EPOLLIN as u32, u64: socket as u64 };
        // SAFETY: the event lives for the call.
        assert_eq!(unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, socket, &mut event) }, 0);
    }

    /// Sleeps until sockets can be read.
    pub fn wait<'a>(&self, events: &'a mut [Event]) -> &'a [Event] {
        // SAFETY: room for as many events as are announced.
        let count = unsafe { libc::epoll_wait(self.0, events.as_mut_ptr(), events.len() as i32, -1) };
        &events[..usize::try_from(count).unwrap_or(0)]
    }
}

/// Sockets by their numbers.
pub struct Sockets<T>(Vec<Option<T>>);

impl<T> Default for Sockets<T> {
    fn default() -> Sockets<T> {
        Sockets(Vec::new())
    }
}

impl<T> Sockets<T> {
    /// Adds what belongs to a socket.
    pub fn add(&mut self, socket: RawFd, of: T) {
        let place = socket as usize;
        self.0.resize_with(self.0.len().max(place + 1), || None);
        self.0[place] = Some(of);
    }

    /// The place of a socket.
    pub fn place(&mut self, event: &Event) -> &mut Option<T> {
        &mut self.0[event.u64 as usize]
    }
}
