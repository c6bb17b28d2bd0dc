//! Which connections are closed to make room for a new one: those that can be spared best, of these the ones that wait longest.
//!
//! A connection whose request is being worked on is never one of them.

use std::time::Duration;

use headgate_engine::Instant;

use crate::transport::connection_state::{ConnectionState, WaitState};

/// A client that has just connected is given this long to send a head before it counts as one that sends nothing, and one that has
/// a reply this long to take some of it.
const NEW_FOR: Duration = Duration::from_secs(1);
/// One connection in so many is closed at a time. Not one alone, because the search looks at all of them.
const CONNECTIONS_PER_EVICTION: usize = 256;

/// What a connection is doing, in the order in which connections are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvictionRank {
    /// Its client has connected and sent no head for a while.
    Silent,
    /// It was answered, and its next request is not there.
    Idle,
    /// The bodies of all its requests are still to come.
    Body,
    /// Its client takes none of the reply.
    Unread,
    /// Its client has only just connected: its head may be on the way.
    New,
}

/// How well a connection can be spared, and since when; `None` while a request of it is being worked on.
pub fn rank(conn: &ConnectionState, now: Instant) -> Option<(EvictionRank, Instant)> {
    match conn.waiting() {
        WaitState::Idle(since) | WaitState::Head(since) => Some(match conn.has_had_request() {
            true => (EvictionRank::Idle, since),
            false if now.saturating_duration_since(since) < NEW_FOR => (EvictionRank::New, since),
            false => (EvictionRank::Silent, since),
        }),
        WaitState::Busy if conn.only_receives_bodies() => Some((EvictionRank::Body, conn.received())),
        WaitState::Busy => {
            let moved = conn.unmoved_since()?.newest;
            (now.saturating_duration_since(moved) >= NEW_FOR).then_some((EvictionRank::Unread, moved))
        }
    }
}

/// The connections to close, by their numbers: the one that can be spared best, and with it a few that have no request.
pub fn choose_evicted<'a>(
    open: impl ExactSizeIterator<Item = (u64, &'a ConnectionState)>,
    now: Instant,
) -> Vec<u64> {
    let few = (open.len() / CONNECTIONS_PER_EVICTION).max(1);
    let mut spared: Vec<_> =
        open.filter_map(|(id, conn)| rank(conn, now).map(|(rank, since)| (rank, since, id))).collect();
    if spared.len() > few {
        spared.select_nth_unstable(few);
        spared.truncate(few);
    }
    spared.sort_unstable();
    let first = spared.iter().take(1);
    let others = spared.iter().skip(1).filter(|(rank, ..)| *rank <= EvictionRank::Idle);
    first.chain(others).map(|(.., id)| *id).collect()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn one(since: Instant) -> Rc<ConnectionState> {
        let conn = Rc::new(ConnectionState::default());
        conn.set_idle(since);
        conn
    }

    #[test]
    fn those_that_can_be_spared_best_go_first_and_those_that_are_worked_for_never() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (young, silent, later, trickles) = (one(at(60)), one(at(10)), one(at(20)), one(at(30)));
        trickles.first_byte(at(15));
        let idle = one(at(5));
        drop(idle.begin());
        idle.set_idle(at(5));
        let (body, works, unread) = (one(at(1)), one(at(1)), one(at(1)));
        let (receives, answers) = (body.begin(), unread.begin());
        let _receiving = receives.receiving();
        let _works = works.begin();
        let _unsent = unread.sending(at(2));
        let mut open = vec![
            (1, young),
            (2, silent),
            (3, later),
            (4, trickles),
            (5, idle),
            (6, body),
            (7, works),
            (8, unread),
        ];
        let mut order = Vec::new();
        loop {
            let gone = choose_evicted(open.iter().map(|(id, conn)| (*id, &**conn)), at(60));
            if gone.is_empty() {
                break;
            }
            open.retain(|(id, _)| !gone.contains(id));
            order.extend(gone);
        }
        assert_eq!(order, [2, 4, 3, 5, 6, 8, 1]);
        assert_eq!(open.len(), 1, "the one that is worked for stays");
        drop(answers);
    }

    #[test]
    fn a_request_that_is_run_beside_bodies_that_are_to_come_keeps_its_connection() {
        let conn = one(Instant::now());
        let (first, second) = (conn.begin(), conn.begin());
        let receiving = first.receiving();
        assert_eq!(rank(&conn, Instant::now()), None);
        let other = second.receiving();
        assert!(matches!(rank(&conn, Instant::now()), Some((EvictionRank::Body, _))));
        drop((receiving, other));
        assert_eq!(rank(&conn, Instant::now()), None);
    }

    #[test]
    fn many_that_have_no_request_go_together() {
        let start = Instant::now();
        let open: Vec<_> = (0..1024).map(|n| (n, one(start + Duration::from_millis(n)))).collect();
        let gone =
            choose_evicted(open.iter().map(|(id, conn)| (*id, &**conn)), start + Duration::from_secs(9));
        assert_eq!(gone, [0, 1, 2, 3]);
    }
}
