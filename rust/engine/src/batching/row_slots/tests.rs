use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    Ready(usize),
    Leave(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1usize..5).prop_map(Step::Take),
        (0usize..12).prop_map(Step::Ready),
        (0usize..12).prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 0..40)
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

proptest! {
    /// Rows never overlap and never exceed the room. The ready requests are those that wrote their rows and did not leave. Each gets its
    /// outcome once, and no other request gets one.
    #[test]
    fn slots_are_what_was_taken(steps in steps()) {
        const ROOM: usize = 16;
        let now = Instant::now();
        let slots = RowSlots::<usize>::new(ROOM);
        // The expected slots: rows, and 'w'riting, 'r'eady or 'g'one.
        let mut model: Vec<(usize, usize, char)> = Vec::new();
        let mut submitted = 0;
        for step in steps {
            match step {
                Step::Take(rows) => {
                    let used: usize = model.iter().map(|slot| slot.1).sum();
                    let queued_at = slots.reserve(rows, 0, now, now);
                    prop_assert_eq!(queued_at.is_some(), used + rows <= ROOM);
                    if let Some((index, start)) = queued_at {
                        prop_assert_eq!((index, start), (model.len(), used));
                        model.push((start, rows, 'w'));
                    }
                }
                Step::Ready(index) => {
                    if let Some(slot) = model.get_mut(index).filter(|slot| slot.2 == 'w') {
                        slot.2 = 'r';
                        submitted += usize::from(slots.mark_written(index));
                    }
                }
                Step::Leave(index) => {
                    if let Some(slot) = model.get_mut(index).filter(|slot| slot.2 != 'g') {
                        slot.2 = 'g';
                        slots.leave(index);
                    }
                }
            }
        }
        prop_assert!(submitted <= 1);
        for (index, slot) in model.iter_mut().enumerate().filter(|(_, slot)| slot.2 == 'w') {
            slot.2 = 'r';
            slots.mark_written(index);
        }
        let requests = slots.close();
        let stayed: Vec<_> = (0..model.len()).filter(|&index| model[index].2 == 'r').collect();
        prop_assert_eq!(requests.iter().map(|request| request.index).collect::<Vec<_>>(), stayed);
        prop_assert!(requests.iter().all(|request| (request.start, request.rows) == (model[request.index].0, model[request.index].1)));
        prop_assert_eq!(slots.reserve(1, 0, now, now), None);
        prop_assert!(requests.iter().all(|request| slots.poll(request.index, &mut noop()).is_pending()));
        slots.settle(requests.iter().map(|request| (request.index, request.index)));
        prop_assert!(requests.iter().all(|request| slots.poll(request.index, &mut noop()) == Poll::Ready(request.index)));
        prop_assert!(requests.iter().all(|request| slots.poll(request.index, &mut noop()).is_pending()));
    }
}

#[test]
fn a_wait_ends_when_it_is_full_or_everybody_left() {
    let (slots, now) = (RowSlots::<()>::new(2), Instant::now());
    slots.wait(|_, _| panic!("no request is there to wait for"));
    slots.reserve(2, 0, now, now + Duration::from_secs(9)).unwrap();
    let mut calls = 0;
    slots.wait(|waiting, _| {
        calls += 1;
        assert!(
            waiting.full && waiting.rows == 2 && waiting.earliest_deadline == now + Duration::from_secs(9)
        );
        None
    });
    assert_eq!(calls, 1);
}
