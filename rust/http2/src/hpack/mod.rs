//! HPACK, the compression of header fields (RFC 7541): reading with all of it, writing without a dynamic table.

mod decoder;
mod dynamic_table;
mod encoder;
mod huffman;
mod static_table;

pub(crate) use decoder::{Decoder, FieldList, HpackError};
pub(crate) use encoder::NO_DYNAMIC_TABLE;
pub use encoder::{CommonName, write_common_field, write_field, write_status};
