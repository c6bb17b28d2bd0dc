//! Reading a request takes at most a small multiple of its size in memory.
#![expect(unsafe_code, reason = "counting allocations needs a global allocator")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::iterations;
use headgate_core::tensor::{DataType, Signature, TensorSpec};
use headgate_protocol::{
    Envelope, EnvelopeScratch, InputTensor, StringTable, TypedSliceMut, binary, predict, protobuf,
};

thread_local! {
    /// Bytes allocated and not freed, and their maximum since the last reset.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: isize) {
    // Nothing is counted while a thread ends.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `ptr` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The maximum of allocated bytes during some work, less those before it.
fn most_held(work: impl FnOnce()) -> usize {
    let before = HELD.with(Cell::get);
    MOST.with(|most| most.set(before));
    work();
    (MOST.with(Cell::get) - before).unsigned_abs()
}

/// The most bytes of one element of a list beside its text: an input of the envelope, its largest piece, and the growth of a list.
const PER_BYTE: usize = 64;
/// The most bytes of every request: error messages, first lists.
const BASE: usize = 64 << 10;

fn bounded(body: &[u8], work: impl FnOnce()) {
    let held = most_held(work);
    let most = BASE + PER_BYTE * body.len();
    assert!(held <= most, "{held} bytes for a body of {}: {:?}", body.len(), String::from_utf8_lossy(body));
}

/// Inputs of that rank: numbers and strings.
fn specs(rank: usize) -> [TensorSpec; 2] {
    [("X", DataType::Fp64), ("S", DataType::Bytes)].map(|(name, datatype)| TensorSpec {
        name: name.into(),
        datatype,
        shape: vec![-1; rank],
        symbols: vec![],
        any_rank: false,
        labels: Vec::new(),
    })
}

/// Decodes an input as the server does: into a buffer of the claimed shape, which is made first.
fn decode(input: &InputTensor<'_>) {
    if input.datatype == DataType::Bytes {
        let _ = input.decode_strings(&mut StringTable::default());
        // The memory that the runtime allocates for each.
        drop(vec![0u8; 32 * input.shape.count()]);
    } else {
        let mut values = vec![0f64; input.shape.count()];
        let _ = input.decode_into(TypedSliceMut::Fp64(&mut values));
    }
}

/// Reads a body in every form.
fn read(body: &[u8]) {
    let each = size_of::<u8>();
    bounded(body, || {
        if let Ok(envelope) =
            Envelope::parse(binary::BodyParts { json: body, tail: None }, &mut EnvelopeScratch::default())
        {
            for input in &envelope.inputs {
                assert!(input.shape.count() * each <= body.len().max(1) || input.shape.count() == 0);
                decode(input);
            }
        }
    });
    bounded(body, || {
        if let Ok(request) = protobuf::parse(body, &mut EnvelopeScratch::default()) {
            for input in &request.envelope.inputs {
                assert!(input.shape.count() * each <= body.len());
                decode(input);
            }
        }
    });
    for rank in 1..=3 {
        let both = specs(rank);
        for specs in [&both[..1], &both[1..], &both] {
            let signature = Signature { inputs: specs.to_vec(), ..Signature::default() };
            bounded(body, || {
                if let Ok(envelope) = predict::parse(body, &mut EnvelopeScratch::default()) {
                    let mut buffer = Vec::new();
                    let inputs = predict::inputs(&envelope, &signature, &mut buffer).unwrap_or_default();
                    inputs.iter().for_each(decode);
                }
            });
        }
    }
}

/// Pieces that make large claims in few bytes.
const PIECES: [&str; 16] = [
    r#"{"inputs":[{"name":"X","datatype":"FP32","shape":["#,
    r#"{"inputs":[{"name":"X","datatype":"BYTES","shape":["#,
    r#"{"instances":["#,
    r#"{"inputs":{"X":["#,
    "9999999999",
    "1048576,0",
    r#"],"data":["#,
    "1,",
    r#""a","#,
    "[",
    "]",
    "]}]}",
    "]}",
    "{}",
    r#"{"b64":"YQ=="},"#,
    "\u{a}\u{ff}\u{ff}\u{ff}\u{ff}\u{7}",
];

#[test]
fn any_body_takes_memory_in_proportion() {
    bolero::check!().with_iterations(iterations(20_000)).with_type::<(Vec<u8>, bool)>().for_each(
        |(picks, pieces)| {
            if *pieces {
                let body: String =
                    picks.iter().map(|&pick| PIECES[usize::from(pick) % PIECES.len()]).collect();
                read(body.as_bytes());
            } else {
                read(picks);
            }
        },
    );
}

/// Many claims in one: the first of the rows is long, and so is the list of them.
#[test]
fn ragged_rows_take_memory_in_proportion() {
    let (first, rest) = ("1,".repeat(9_999), ",[1]".repeat(9_999));
    read(format!("{{\"instances\":[[{first}1]{rest}]}}").as_bytes());
    let (first, rest) = ("\"\",".repeat(9_999), ",[\"\"]".repeat(9_999));
    read(format!("{{\"instances\":[[{first}\"\"]{rest}]}}").as_bytes());
}
