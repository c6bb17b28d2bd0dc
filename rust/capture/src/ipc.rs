//! The messages of an Arrow IPC stream: the schema, record batches, the end.
//!
//! ```text
//! message: FF FF FF FF | length of the metadata, 32 bits | metadata (flatbuffers), padded to 8 bytes | body
//! end:     FF FF FF FF | 00 00 00 00
//! ```
//! The numbers below are those of Arrow's `Schema.fbs` and `Message.fbs`. Next: `metadata`, which reads them.

use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, UnionWIPOffset, WIPOffset};
use headgate_core::tensor::DataType;

use crate::columns::Body;
use crate::layout::{FileLayout, Redaction, TensorLayout};

/// What a message begins with.
pub(crate) const MARKER: [u8; 4] = [0xFF; 4];
/// What ends a stream.
pub(crate) const END: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
/// The key of the layout in the metadata of the schema.
pub(crate) const LAYOUT_KEY: &str = "headgate";

/// The kinds of messages, `MessageHeader`.
pub(crate) const SCHEMA: u8 = 1;
pub(crate) const RECORD_BATCH: u8 = 3;

/// `MetadataVersion.V5`.
const VERSION: i16 = 4;

/// The offset of a field in a table's directory.
pub(crate) const fn slot(field: u16) -> u16 {
    4 + 2 * field
}

type Builder<'a> = FlatBufferBuilder<'a>;
type Table = WIPOffset<TableFinishedWIPOffset>;

/// A type of Arrow, `Type`.
enum ArrowType {
    Int { bits: i32, signed: bool },
    Float { precision: i16 },
    Binary,
    Utf8,
    Bool,
    TimestampUs,
    List,
}

impl ArrowType {
    /// The type of the elements of a tensor. Arrow has no bfloat16, whose bits are kept.
    fn of(datatype: DataType) -> ArrowType {
        let int = |bits, signed| ArrowType::Int { bits, signed };
        match datatype {
            DataType::Bool => ArrowType::Bool,
            DataType::Uint8 => int(8, false),
            DataType::Uint16 | DataType::Bf16 => int(16, false),
            DataType::Uint32 => int(32, false),
            DataType::Uint64 => int(64, false),
            DataType::Int8 => int(8, true),
            DataType::Int16 => int(16, true),
            DataType::Int32 => int(32, true),
            DataType::Int64 => int(64, true),
            DataType::Fp16 => ArrowType::Float { precision: 0 },
            DataType::Fp32 => ArrowType::Float { precision: 1 },
            DataType::Fp64 => ArrowType::Float { precision: 2 },
            DataType::Bytes => ArrowType::Binary,
        }
    }

    const fn number(&self) -> u8 {
        match self {
            ArrowType::Int { .. } => 2,
            ArrowType::Float { .. } => 3,
            ArrowType::Binary => 4,
            ArrowType::Utf8 => 5,
            ArrowType::Bool => 6,
            ArrowType::TimestampUs => 10,
            ArrowType::List => 12,
        }
    }

    fn write(&self, builder: &mut Builder<'_>) -> Table {
        let zone = matches!(self, ArrowType::TimestampUs).then(|| builder.create_string("UTC"));
        let table = builder.start_table();
        match *self {
            ArrowType::Int { bits, signed } => {
                builder.push_slot_always(slot(0), bits);
                builder.push_slot_always(slot(1), signed);
            }
            ArrowType::Float { precision } => builder.push_slot_always(slot(0), precision),
            ArrowType::TimestampUs => builder.push_slot_always(slot(0), 2_i16),
            ArrowType::Binary | ArrowType::Utf8 | ArrowType::Bool | ArrowType::List => {}
        }
        if let Some(zone) = zone {
            builder.push_slot_always(slot(1), zone);
        }
        builder.end_table(table)
    }
}

/// A column of the schema.
struct Field<'a> {
    name: &'a str,
    kind: ArrowType,
    nullable: bool,
    /// The column of the elements of a list.
    child: Option<Table>,
    metadata: &'a [(&'a str, String)],
}

impl Field<'_> {
    fn write(self, builder: &mut Builder<'_>) -> Table {
        let name = builder.create_string(self.name);
        let number = self.kind.number();
        let kind = self.kind.write(builder);
        let children: Vec<Table> = self.child.into_iter().collect();
        let children = builder.create_vector(&children);
        let metadata = pairs(builder, self.metadata.iter().map(|(key, value)| (*key, value.as_str())));
        let table = builder.start_table();
        builder.push_slot_always(slot(0), name);
        builder.push_slot_always(slot(1), self.nullable);
        builder.push_slot_always(slot(2), number);
        builder.push_slot_always(slot(3), kind);
        builder.push_slot_always(slot(5), children);
        builder.push_slot_always(slot(6), metadata);
        builder.end_table(table)
    }
}

type Vector<'a> = WIPOffset<flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<TableFinishedWIPOffset>>>;

/// Pairs of texts, `[KeyValue]`.
fn pairs<'b, 'a>(builder: &mut Builder<'b>, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vector<'b> {
    let tables: Vec<Table> = pairs
        .map(|(key, value)| {
            let (key, value) = (builder.create_string(key), builder.create_string(value));
            let table = builder.start_table();
            builder.push_slot_always(slot(0), key);
            builder.push_slot_always(slot(1), value);
            builder.end_table(table)
        })
        .collect();
    builder.create_vector(&tables)
}

/// The columns that every file has.
fn fact_fields(builder: &mut Builder<'_>) -> Vec<Table> {
    let uint = |bits| ArrowType::Int { bits, signed: false };
    [
        ("time", ArrowType::TimestampUs, false),
        ("request", uint(64), false),
        ("version", ArrowType::Utf8, false),
        ("digest", ArrowType::Utf8, false),
        ("revision", uint(64), false),
        ("unit", uint(64), true),
        ("reason", ArrowType::Utf8, false),
        ("rule", uint(16), true),
        ("code", ArrowType::Utf8, false),
        ("run_ns", uint(64), true),
        ("total_ns", uint(64), false),
    ]
    .into_iter()
    .map(|(name, kind, nullable)| Field { name, kind, nullable, child: None, metadata: &[] }.write(builder))
    .collect()
}

/// The two columns of a tensor.
fn tensor_fields(builder: &mut Builder<'_>, tensor: &TensorLayout) -> [Table; 2] {
    let redacted = match &tensor.redacted {
        Redaction::None => String::new(),
        Redaction::Tensor => "*".to_owned(),
        Redaction::Columns(columns) => {
            let names: Vec<&str> = columns
                .redacted
                .iter()
                .filter_map(|&index| Some(columns.columns.get(index)?.as_str()))
                .collect();
            serde_json::json!(names).to_string()
        }
    };
    let mut metadata = vec![("headgate.datatype", tensor.datatype.as_str().to_owned())];
    if !redacted.is_empty() {
        metadata.push(("headgate.redacted", redacted));
    }
    let side = tensor.side.as_str();
    let mut list = |prefix: &str, item: ArrowType, metadata: &[(&str, String)]| {
        let item = Field { name: "item", kind: item, nullable: false, child: None, metadata: &[] };
        let child = Some(item.write(builder));
        let name = format!("{prefix}.{}", tensor.name);
        Field { name: &name, kind: ArrowType::List, nullable: true, child, metadata }.write(builder)
    };
    let shape = list(&format!("{side}_shape"), ArrowType::Int { bits: 64, signed: true }, &[]);
    [shape, list(side, ArrowType::of(tensor.datatype), &metadata)]
}

/// The message that a stream begins with.
pub(crate) fn schema(layout: &FileLayout) -> Vec<u8> {
    let mut builder = Builder::new();
    let mut fields = fact_fields(&mut builder);
    for tensor in &layout.tensors {
        fields.extend(tensor_fields(&mut builder, tensor));
    }
    let fields = builder.create_vector(&fields);
    // A layout has texts, numbers and lists alone, which are always JSON.
    let json = serde_json::to_string(layout).unwrap_or_default();
    let metadata = pairs(&mut builder, [(LAYOUT_KEY, json.as_str())].into_iter());
    let table = builder.start_table();
    builder.push_slot_always(slot(0), 0_i16); // little-endian
    builder.push_slot_always(slot(1), fields);
    builder.push_slot_always(slot(2), metadata);
    let schema = builder.end_table(table);
    message(builder, SCHEMA, schema.as_union_value(), &[])
}

/// The message of a batch.
pub(crate) fn batch(rows: usize, body: &Body) -> Vec<u8> {
    let mut builder = Builder::new();
    let nodes = structs(&mut builder, &body.nodes);
    let buffers = structs(&mut builder, &body.buffers);
    let table = builder.start_table();
    builder.push_slot_always(slot(0), rows as i64);
    builder.push_slot_always(slot(1), nodes);
    builder.push_slot_always(slot(2), buffers);
    let batch = builder.end_table(table);
    message(builder, RECORD_BATCH, batch.as_union_value(), &body.bytes)
}

/// A vector of structs of two 64-bit numbers, such as `FieldNode` and `Buffer`.
fn structs<'a>(
    builder: &mut Builder<'a>,
    values: &[(usize, usize)],
) -> WIPOffset<flatbuffers::Vector<'a, i64>> {
    builder.start_vector::<i64>(2 * values.len());
    // A flatbuffer is written from its end.
    for &(first, second) in values.iter().rev() {
        builder.push(second as i64);
        builder.push(first as i64);
    }
    builder.end_vector::<i64>(values.len())
}

fn message(mut builder: Builder<'_>, kind: u8, header: WIPOffset<UnionWIPOffset>, body: &[u8]) -> Vec<u8> {
    let table = builder.start_table();
    builder.push_slot_always(slot(0), VERSION);
    builder.push_slot_always(slot(1), kind);
    builder.push_slot_always(slot(2), header);
    builder.push_slot_always(slot(3), body.len() as i64);
    let root = builder.end_table(table);
    builder.finish_minimal(root);
    let metadata = builder.finished_data();
    let padded = metadata.len().next_multiple_of(8);
    let mut message = Vec::with_capacity(8 + padded + body.len());
    message.extend_from_slice(&MARKER);
    message.extend_from_slice(&(padded as u32).to_le_bytes());
    message.extend_from_slice(metadata);
    message.resize(8 + padded, 0);
    message.extend_from_slice(body);
    message
}
