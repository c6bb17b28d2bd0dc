//! What a session takes and gives, as its graph declares it, and what of that cannot be served.
//!
//! Not here: the session (`session`), models that end in ZipMap (`zipmap`).

use std::ptr::null;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{MAX_RANK, MAX_TENSORS, Signature, TensorSpec};
use ort_sys::{ONNXType, OrtTypeInfo};

use crate::api::{Api, string};
use crate::element::from_onnx;

/// Refuses a signature that no request could fit, or no answer.
///
/// # Errors
/// `model_load_failed` that names the tensor and the bound.
pub(crate) fn check(signature: &Signature) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Code::ModelLoadFailed, why));
    if signature.inputs.len() > MAX_TENSORS {
        let count = signature.inputs.len();
        return refuse(format!("the model has {count} inputs; a request can list {MAX_TENSORS} at most"));
    }
    let inputs = signature.inputs.iter().map(|spec| ("input", spec));
    let outputs = signature.outputs.iter().map(|spec| ("output", spec));
    if let Some((what, spec)) = inputs.chain(outputs).find(|(_, spec)| spec.shape.len() > MAX_RANK) {
        let rank = spec.shape.len();
        return refuse(format!(
            "{what} {:?} has {rank} dimensions; a tensor can have {MAX_RANK} at most",
            spec.name
        ));
    }
    let mut names: Vec<&str> = signature.outputs.iter().map(|spec| &*spec.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => refuse(format!(
            "output {:?} is declared twice; declare it once among the graph's outputs",
            pair[0]
        )),
    }
}

/// # Safety
/// `info` is a live type description; it is released here.
pub(crate) unsafe fn tensor_spec(
    api: Api,
    what: &str,
    name: String,
    info: *mut OrtTypeInfo,
) -> Result<TensorSpec> {
    // SAFETY: the caller's promise; the tensor description belongs to `info` and is read before it is released.
    unsafe {
        let spec = read_spec(api, what, name, info);
        (api.ReleaseTypeInfo)(info);
        spec
    }
}

/// # Safety
/// As [`tensor_spec`], without the release.
unsafe fn read_spec(api: Api, what: &str, name: String, info: *const OrtTypeInfo) -> Result<TensorSpec> {
    let refuse = |why: String| Error::new(Code::ModelLoadFailed, format!("{what} {name:?} {why}"));
    let mut tensor = null();
    // SAFETY: `info` is live; casting a non-tensor gives null.
    unsafe { api.check((api.CastTypeInfoToTensorInfo)(info, &mut tensor), Code::ModelLoadFailed)? };
    if tensor.is_null() {
        let mut kind = ONNXType::ONNX_TYPE_UNKNOWN;
        // SAFETY: `info` is live, the out-pointer valid.
        unsafe { api.check((api.GetOnnxTypeFromTypeInfo)(info, &mut kind), Code::ModelLoadFailed)? };
        return Err(refuse(format!("is {}; only tensors can be served: {}", words(kind), remedy(what))));
    }
    let (mut number, mut rank) = (0i32, 0usize);
    // SAFETY: the enum is an i32 in the C API; the arrays have the length that is passed.
    let (dims, symbols) = unsafe {
        api.check((api.GetTensorElementType)(tensor, (&raw mut number).cast()), Code::ModelLoadFailed)?;
        api.check((api.GetDimensionsCount)(tensor, &mut rank), Code::ModelLoadFailed)?;
        let mut dims = vec![0i64; rank];
        let mut symbols = vec![null(); rank];
        api.check((api.GetDimensions)(tensor, dims.as_mut_ptr(), rank), Code::ModelLoadFailed)?;
        api.check((api.GetSymbolicDimensions)(tensor, symbols.as_mut_ptr(), rank), Code::ModelLoadFailed)?;
        (dims, symbols.into_iter().map(|symbol| string(symbol)).collect())
    };
    let datatype = from_onnx(number)
        .ok_or_else(|| refuse(format!("has ONNX element type {number}, which the protocol cannot carry")))?;
    // SAFETY: the tensor's description is live.
    let any_rank = !unsafe { (api.TensorTypeAndShape_HasShape)(tensor) };
    let shape = if any_rank { vec![-1] } else { dims.into_iter().map(|dim| dim.max(-1)).collect() };
    let symbols = if any_rank { Vec::new() } else { symbols };
    Ok(TensorSpec { name, datatype, shape, symbols, any_rank, labels: Vec::new() })
}

/// A kind of value, as messages call it.
fn words(kind: ONNXType) -> &'static str {
    match kind {
        ONNXType::ONNX_TYPE_SEQUENCE => "a sequence",
        ONNXType::ONNX_TYPE_MAP => "a map",
        ONNXType::ONNX_TYPE_OPTIONAL => "an optional value",
        ONNXType::ONNX_TYPE_SPARSETENSOR => "a sparse tensor",
        _ => "no tensor",
    }
}

/// What its author can do about a value that is no tensor.
fn remedy(what: &str) -> &'static str {
    match what {
        "input" => "make what is in it inputs of their own, each a tensor",
        _ => {
            "take it out of the graph's outputs, or declare the tensors that it is made of in its place (of a sequence, \
             what ConcatFromSequence or SequenceAt makes of it)"
        }
    }
}
