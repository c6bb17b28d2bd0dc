//! Reading an ordinary request and writing its response allocates nothing once the buffers are warm.
#![expect(unsafe_code, reason = "counting allocations needs a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use headgate_core::error::Result;
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, TensorSpec};
use headgate_protocol::{
    Envelope, EnvelopeScratch, OutputTensor, ResponseHead, StringTable, TensorData, TypedSliceMut, binary,
    response,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const JSON: &str = concat!(
    r#"{"id":"abc","parameters":{"binary_data_output":false,"tenant":"a"},"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","#,
    r#""data":[[1.5,2,3e2,0.1234567890123456789]]},{"name":"S","shape":[2],"datatype":"BYTES","data":["a","b\n"]},"#,
    r#"{"name":"B","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"#,
    r#""outputs":[{"name":"Y"},{"name":"Z","parameters":{"binary_data":true}}]}"#
);

struct Buffers {
    scratch: EnvelopeScratch,
    chosen: Vec<headgate_protocol::SelectedOutput>,
    values: Vec<f32>,
    table: StringTable,
    answer: Vec<u8>,
}

fn serve(body: &[u8], length: &[u8], specs: &[TensorSpec], buffers: &mut Buffers) -> Result<()> {
    let Buffers { scratch, chosen, values, table, answer } = buffers;
    let mut envelope = Envelope::parse(binary::split(body, Some(length))?, scratch)?;
    envelope.select_outputs(specs, chosen)?;
    values.resize(4, 0.0);
    envelope.inputs[0].decode_into(TypedSliceMut::Fp32(values))?;
    envelope.inputs[1].decode_strings(table)?;
    envelope.inputs[2].decode_into(TypedSliceMut::Fp32(&mut values[..2]))?;
    let shape = envelope.inputs[0].shape;
    let output = |index: usize| OutputTensor {
        name: &specs[index].name,
        datatype: DataType::Fp32,
        shape: shape.view(),
        data: TensorData::Fp32(values),
        binary: chosen[index].binary,
        non_finite: NonFinite::Error,
        template: None,
    };
    let head =
        ResponseHead { id: envelope.id.as_deref(), model_name: "m", model_version: "1", template: None };
    answer.clear();
    let parts = response::write(answer, &head, &[output(0), output(1)])?;
    assert!(parts.has_binary());
    scratch.recycle(&mut envelope);
    Ok(())
}

#[test]
fn a_warm_request_allocates_nothing() {
    let body = [JSON.as_bytes(), &[0; 8]].concat();
    let length = JSON.len().to_string();
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: vec![-1],
        symbols: vec![],
        any_rank: false,
        labels: Vec::new(),
    };
    let specs = [spec("Y"), spec("Z")];
    let mut buffers = Buffers {
        scratch: EnvelopeScratch::default(),
        chosen: Vec::new(),
        values: Vec::new(),
        table: StringTable::default(),
        answer: Vec::new(),
    };
    let mut counts = [0; 3];
    for count in &mut counts {
        let before = ALLOCATIONS.with(Cell::get);
        serve(&body, length.as_bytes(), &specs, &mut buffers).unwrap();
        *count = ALLOCATIONS.with(Cell::get) - before;
    }
    assert!(counts[0] > 0, "the first request has to make its buffers");
    assert_eq!(counts[1..], [0, 0]);
}
