//! The inputs and outputs that a session's graph declares, and those that cannot be served.
//!
//! Not here: the session (`session`), models that end in ZipMap (`zipmap`).

use std::ffi::c_char;
use std::ptr::{null, null_mut};

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{MAX_RANK, MAX_TENSORS, Signature, TensorSpec};
use ort_sys::{ONNXType, OrtAllocator, OrtApi, OrtSession, OrtStatusPtr, OrtTypeInfo};

use crate::api::{Api, copy_c_string};
use crate::element::from_onnx;

/// The inputs and outputs that a session declares.
pub(crate) struct DeclaredSignature {
    /// Those that can be served.
    pub(crate) signature: Signature,
    /// The initialisers that a run may replace. The runtime may return them as outputs, as it may return inputs.
    pub(crate) replaceable: Vec<String>,
    /// Optional inputs that no request can have, each with the reason.
    pub(crate) unsupported_inputs: Vec<String>,
}

impl DeclaredSignature {
    /// # Errors
    /// `model_load_failed` that names the tensor that cannot be served.
    ///
    /// # Safety
    /// The session is live.
    pub(crate) unsafe fn read(api: Api, session: *const OrtSession) -> Result<DeclaredSignature> {
        // SAFETY: the caller guarantees it, and the type is the table's own.
        unsafe {
            let inputs = INPUTS.read(api, session)?.into_iter().map(|(_, spec)| spec);
            let outputs = OUTPUTS.read(api, session)?.into_iter().map(|(_, spec)| spec);
            let mut signature = Signature {
                inputs: inputs.collect::<Result<_>>()?,
                outputs: outputs.collect::<Result<_>>()?,
                ..Signature::default()
            };
            let (mut replaceable, mut unsupported_inputs) = (Vec::new(), Vec::new());
            // An optional input that cannot be served keeps the model's value, so that the model is not refused.
            for (name, spec) in REPLACEABLE.read(api, session)? {
                match spec {
                    Ok(spec) => signature.optional_inputs.push(spec),
                    Err(error) => unsupported_inputs.push(error.message.into_owned()),
                }
                replaceable.push(name);
            }
            Ok(DeclaredSignature { signature, replaceable, unsupported_inputs })
        }
    }
}

/// The note about optional inputs that are not offered. It names some of them.
pub(crate) fn not_offered(mut reasons: Vec<String>) -> String {
    const NAMED: usize = 3;
    let more = reasons.len().saturating_sub(NAMED);
    reasons.truncate(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("optional inputs that are not offered: {}{more}", reasons.join(", "))
}

/// The functions that describe one kind of a session's tensors.
struct TensorReader {
    role: &'static str,
    count: fn(&OrtApi) -> CountFn,
    name: fn(&OrtApi) -> NameFn,
    info: fn(&OrtApi) -> InfoFn,
}

type CountFn = unsafe extern "system" fn(*const OrtSession, *mut usize) -> OrtStatusPtr;
type NameFn =
    unsafe extern "system" fn(*const OrtSession, usize, *mut OrtAllocator, *mut *mut c_char) -> OrtStatusPtr;
type InfoFn = unsafe extern "system" fn(*const OrtSession, usize, *mut *mut OrtTypeInfo) -> OrtStatusPtr;

const INPUTS: TensorReader = TensorReader {
    role: "input",
    count: |api| api.SessionGetInputCount,
    name: |api| api.SessionGetInputName,
    info: |api| api.SessionGetInputTypeInfo,
};
const OUTPUTS: TensorReader = TensorReader {
    role: "output",
    count: |api| api.SessionGetOutputCount,
    name: |api| api.SessionGetOutputName,
    info: |api| api.SessionGetOutputTypeInfo,
};
const REPLACEABLE: TensorReader = TensorReader {
    role: "input",
    count: |api| api.SessionGetOverridableInitializerCount,
    name: |api| api.SessionGetOverridableInitializerName,
    info: |api| api.SessionGetOverridableInitializerTypeInfo,
};

impl TensorReader {
    /// Each tensor's name, and its description or why there is none.
    ///
    /// # Safety
    /// The session is live.
    unsafe fn read(&self, api: Api, session: *const OrtSession) -> Result<Vec<(String, Result<TensorSpec>)>> {
        let (mut count, mut allocator) = (0usize, null_mut());
        // SAFETY: the caller guarantees it; the out-pointers are valid, each index is below the count, and the allocator is the static
        // default one.
        unsafe {
            api.check((self.count)(&api)(session, &mut count), Code::ModelLoadFailed)?;
            api.check((api.GetAllocatorWithDefaultOptions)(&mut allocator), Code::ModelLoadFailed)?;
            let one = |index| {
                let (mut name, mut info) = (null_mut(), null_mut());
                let status = (self.name)(&api)(session, index, allocator, &mut name);
                api.check(status, Code::ModelLoadFailed)?;
                let copy = copy_c_string(name);
                api.check((api.AllocatorFree)(allocator, name.cast()), Code::ModelLoadFailed)?;
                let status = (self.info)(&api)(session, index, &mut info);
                api.check(status, Code::ModelLoadFailed)?;
                Ok((copy.clone(), tensor_spec(api, self.role, copy, info)))
            };
            (0..count).map(one).collect()
        }
    }
}

/// Refuses a signature that no request or no response could have.
///
/// # Errors
/// `model_load_failed` that names the tensor and the bound.
pub(crate) fn check(signature: &Signature) -> Result<()> {
    let refuse = |reason: String| Err(Error::new(Code::ModelLoadFailed, reason));
    if signature.inputs.len() > MAX_TENSORS {
        let count = signature.inputs.len();
        return refuse(format!("the model has {count} inputs; a request can list {MAX_TENSORS} at most"));
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
unsafe fn tensor_spec(api: Api, role: &str, name: String, info: *mut OrtTypeInfo) -> Result<TensorSpec> {
    // SAFETY: the caller guarantees it; the tensor description belongs to `info` and is read before it is released.
    unsafe {
        let spec = read_spec(api, role, name, info);
        (api.ReleaseTypeInfo)(info);
        spec
    }
}

/// # Safety
/// As [`tensor_spec`], without the release.
unsafe fn read_spec(api: Api, role: &str, name: String, info: *const OrtTypeInfo) -> Result<TensorSpec> {
    let refuse = |reason: String| Error::new(Code::ModelLoadFailed, format!("{role} {name:?} {reason}"));
    if name.is_empty() {
        return Err(refuse("has no name, so that no request can mean it; give it one".to_owned()));
    }
    let (mut tensor, mut kind) = (null(), ONNXType::ONNX_TYPE_UNKNOWN);
    // SAFETY: `info` is live, the out-pointers valid; the cast gives null unless it is a tensor, dense or sparse.
    unsafe {
        api.check((api.GetOnnxTypeFromTypeInfo)(info, &mut kind), Code::ModelLoadFailed)?;
        api.check((api.CastTypeInfoToTensorInfo)(info, &mut tensor), Code::ModelLoadFailed)?;
    }
    if tensor.is_null() || kind != ONNXType::ONNX_TYPE_TENSOR {
        return Err(refuse(format!("is {}; only tensors can be served: {}", kind_name(kind), remedy(role))));
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
        (dims, symbols.into_iter().map(|symbol| copy_c_string(symbol)).collect())
    };
    let datatype = from_onnx(number)
        .ok_or_else(|| refuse(format!("has ONNX element type {number}, which the protocol cannot carry")))?;
    if rank > MAX_RANK {
        return Err(refuse(format!("has {rank} dimensions; a tensor can have {MAX_RANK} at most")));
    }
    // SAFETY: the tensor's description is live.
    let any_rank = !unsafe { (api.TensorTypeAndShape_HasShape)(tensor) };
    let shape = if any_rank { vec![-1] } else { dims.into_iter().map(|dim| dim.max(-1)).collect() };
    let symbols = if any_rank { Vec::new() } else { symbols };
    Ok(TensorSpec { name, datatype, shape, symbols, any_rank, labels: Vec::new() })
}

/// The name of a kind of value in messages.
fn kind_name(kind: ONNXType) -> &'static str {
    match kind {
        ONNXType::ONNX_TYPE_SEQUENCE => "a sequence",
        ONNXType::ONNX_TYPE_MAP => "a map",
        ONNXType::ONNX_TYPE_OPTIONAL => "an optional value",
        ONNXType::ONNX_TYPE_SPARSETENSOR => "a sparse tensor",
        _ => "no tensor",
    }
}

/// The advice for the author of a model with a value that is no tensor.
fn remedy(role: &str) -> &'static str {
    match role {
        "input" => "make what is in it inputs of their own, each a tensor",
        _ => {
            "take it out of the graph's outputs, or declare the tensors that it is made of in its place (of a sequence, \
             what ConcatFromSequence or SequenceAt makes of it)"
        }
    }
}
