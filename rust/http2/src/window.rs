//! The windows of flow control (RFC 9113, 5.2).

/// The window that every stream and connection begins with, in bytes.
pub(crate) const FIRST_WINDOW: u32 = (1 << 16) - 1;
/// The largest window.
pub(crate) const MOST: i64 = (1 << 31) - 1;

/// What a peer may send.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    size: u32,
    /// What the peer may still send.
    left: u32,
    /// What was used, and the peer has not been told.
    used: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(size: u32) -> ReceiveWindow {
        ReceiveWindow { size, left: size, used: 0 }
    }

    /// Takes what was received; false if that is more than the window.
    pub(crate) fn take(&mut self, length: usize) -> bool {
        let left = usize::try_from(self.left).ok().and_then(|left| left.checked_sub(length));
        left.inspect(|&left| self.left = left as u32).is_some()
    }

    /// Gives back what was used; what the peer must be told, which is nothing until half of the window is used.
    pub(crate) fn give_back(&mut self, length: usize) -> Option<u32> {
        self.used += length as u32;
        (self.used >= self.size / 2).then(|| {
            let used = std::mem::take(&mut self.used);
            self.left += used;
            used
        })
    }
}

/// What may be sent to the peer. Below zero if the peer made its windows smaller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendWindow(i64);

impl SendWindow {
    pub(crate) fn new(size: u32) -> SendWindow {
        SendWindow(size.into())
    }

    /// How many bytes may be sent.
    pub(crate) fn room(self) -> usize {
        self.0.max(0) as usize
    }

    pub(crate) fn take(&mut self, length: usize) {
        self.0 -= length as i64;
    }

    /// Opens the window further, or closes it; false if it would be too large.
    pub(crate) fn change(&mut self, by: i64) -> bool {
        self.0 += by;
        self.0 <= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_told_when_half_of_its_window_is_used() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.take(60));
        assert_eq!(window.give_back(49), None);
        assert!(!window.take(41));
        assert_eq!(window.give_back(11), Some(60));
        assert!(window.take(100));
        assert!(!window.take(1));
    }

    #[test]
    fn a_window_may_be_below_zero() {
        let mut window = SendWindow::new(10);
        assert!(window.change(-30));
        assert_eq!(window.room(), 0);
        assert!(window.change(25));
        assert_eq!(window.room(), 5);
        assert!(!window.change(MOST));
    }
}
