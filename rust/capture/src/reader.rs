//! Reads captured requests back, one record batch after the other.
//!
//! Every file that `crate::store` writes can be read. Bytes that are something else are an error or the end, never a panic.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::SystemTime;

use headgate_core::tensor::DataType;

use crate::file::ClosedFile;
use crate::ipc::{LAYOUT_KEY, RECORD_BATCH, SCHEMA};
use crate::layout::{FORMAT, FileLayout};
use crate::metadata::Table;
use crate::stream::{HeadRead, read_head};

/// The most bytes of the body of a batch.
const MAX_BODY: u64 = 4 << 30;

/// A file of captured requests.
pub struct CaptureReader {
    file: BufReader<File>,
    layout: FileLayout,
}

/// A request that was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedRow {
    /// When it was answered, in microseconds since 1970.
    pub time_us: i64,
    /// The number by which it was drawn.
    pub request: u64,
    /// Why the version answered: `sticky`, `drawn`, `rule` or `direct`.
    pub reason: String,
    /// `ok`, or the code of the error.
    pub code: String,
    /// How long the run took, in nanoseconds.
    pub run_ns: Option<u64>,
    /// Its tensors, in the order of the layout; `None` for one that it does not have.
    pub tensors: Vec<Option<RecordedTensor>>,
}

/// A tensor that was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedTensor {
    /// Its dimensions.
    pub shape: Vec<i64>,
    /// Its elements. What was left out is zero or empty.
    pub elements: RecordedElements,
}

/// The elements of a tensor that was read back.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordedElements {
    /// Elements of a fixed size, little-endian.
    Fixed(Vec<u8>),
    /// Strings.
    Strings {
        /// The bytes of all.
        bytes: Vec<u8>,
        /// The offset of each.
        offsets: Vec<usize>,
    },
}

/// When the first row of a file came to the writer, by the file's name; `None` for another name. The row was answered a little before.
pub fn first_row_time(path: &Path) -> Option<SystemTime> {
    ClosedFile::found(path.file_name()?.to_str()?, 0).map(|file| file.begun)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is no file of captured requests: {what}"))
}

impl CaptureReader {
    /// Opens a file.
    ///
    /// # Errors
    /// Those of the file system; `InvalidData` for a file that is not ours, or that a newer Headgate wrote.
    pub fn open(path: &Path) -> io::Result<CaptureReader> {
        let mut file = BufReader::new(File::open(path)?);
        let HeadRead::Message(head) = read_head(&mut file)? else { return Err(damaged("it has no schema")) };
        if head.kind != SCHEMA {
            return Err(damaged("it does not begin with a schema"));
        }
        let json = layout_json(&head.metadata).ok_or_else(|| damaged("its schema has no layout"))?;
        let layout: FileLayout = serde_json::from_str(json).map_err(|error| damaged(&error.to_string()))?;
        if layout.format != FORMAT {
            return Err(damaged(&format!(
                "its format is {}, and this Headgate reads {FORMAT}",
                layout.format
            )));
        }
        Ok(CaptureReader { file, layout })
    }

    /// The layout of the rows.
    pub fn layout(&self) -> &FileLayout {
        &self.layout
    }

    /// The rows of the next batch; `None` at the end, which a crash may have moved forward.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` for a batch that is not as the layout says.
    pub fn next_batch(&mut self) -> io::Result<Option<Vec<RecordedRow>>> {
        let HeadRead::Message(head) = read_head(&mut self.file)? else { return Ok(None) };
        if head.kind != RECORD_BATCH || head.body > MAX_BODY {
            return Err(damaged("a message is no batch"));
        }
        let mut body = Vec::new();
        (&mut self.file).take(head.body).read_to_end(&mut body)?;
        if body.len() as u64 != head.body {
            return Ok(None);
        }
        let rows = rows(&head.metadata, &body, &self.layout, head.rows);
        rows.map(Some).ok_or_else(|| damaged("a batch does not have the columns of its layout"))
    }
}

fn layout_json(metadata: &[u8]) -> Option<&str> {
    let schema = Table::root(metadata)?.table(2)?;
    let pairs = schema.tables(2)?;
    pairs.into_iter().find(|pair| pair.text(0) == Some(LAYOUT_KEY))?.text(1)
}

fn rows(metadata: &[u8], body: &[u8], layout: &FileLayout, count: u64) -> Option<Vec<RecordedRow>> {
    let buffers = Table::root(metadata)?.table(2)?.structs(2)?;
    let mut buffers = Buffers { body, buffers: buffers.into_iter() };
    // A row has eight bytes at least.
    let count = usize::try_from(count).ok().filter(|count| *count <= body.len())?;
    let time = buffers.numbers(count)?;
    let request = buffers.numbers(count)?;
    // The version, the digest, the revision and the unit.
    buffers.skip(3 + 3 + 2 + 2)?;
    let reason = buffers.texts(count)?;
    buffers.skip(2)?;
    let code = buffers.texts(count)?;
    let run = buffers.numbers(count)?;
    buffers.skip(2)?;
    let tensors: Vec<TensorLists<'_>> = layout
        .tensors
        .iter()
        .map(|tensor| TensorLists::read(&mut buffers, tensor.datatype, count))
        .collect::<Option<_>>()?;
    (0..count)
        .map(|row| {
            Some(RecordedRow {
                time_us: time.number(row)? as i64,
                request: request.number(row)?,
                reason: String::from_utf8(reason.text(row)?.to_vec()).ok()?,
                code: String::from_utf8(code.text(row)?.to_vec()).ok()?,
                run_ns: if run.is_valid(row)? { Some(run.number(row)?) } else { None },
                tensors: tensors.iter().map(|lists| lists.tensor(row)).collect::<Option<_>>()?,
            })
        })
        .collect()
}

/// The buffers of a batch, in their order.
struct Buffers<'a> {
    body: &'a [u8],
    buffers: std::vec::IntoIter<(usize, usize)>,
}

impl<'a> Buffers<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let (begin, length) = self.buffers.next()?;
        self.body.get(begin..begin.checked_add(length)?)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.next().map(drop))
    }

    fn validity(&mut self, count: usize) -> Option<Validity<'a>> {
        let bits = self.next()?;
        (bits.is_empty() || bits.len() >= count.div_ceil(8)).then_some(Validity(bits))
    }

    fn numbers(&mut self, count: usize) -> Option<NumberColumn<'a>> {
        let validity = self.validity(count)?;
        let values = self.next()?;
        (values.len() >= count.checked_mul(8)?).then_some(NumberColumn { validity, values })
    }

    fn texts(&mut self, count: usize) -> Option<TextColumn<'a>> {
        self.next()?;
        Some(TextColumn { offsets: self.offsets(count)?, bytes: self.next()? })
    }

    fn offsets(&mut self, count: usize) -> Option<Offsets<'a>> {
        let bytes = self.next()?;
        (bytes.len() >= count.checked_add(1)?.checked_mul(4)?).then_some(Offsets(bytes))
    }
}

/// Which rows are not null; all of them if it is empty.
struct Validity<'a>(&'a [u8]);

impl Validity<'_> {
    fn has(&self, row: usize) -> Option<bool> {
        if self.0.is_empty() { Some(true) } else { bit(self.0, row) }
    }
}

fn bit(bits: &[u8], at: usize) -> Option<bool> {
    Some(bits.get(at / 8)? >> (at % 8) & 1 == 1)
}

struct NumberColumn<'a> {
    validity: Validity<'a>,
    values: &'a [u8],
}

impl NumberColumn<'_> {
    fn number(&self, row: usize) -> Option<u64> {
        let bytes = self.values.get(8 * row..8 * row + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn is_valid(&self, row: usize) -> Option<bool> {
        self.validity.has(row)
    }
}

/// Where the parts of a column begin and end.
struct Offsets<'a>(&'a [u8]);

impl Offsets<'_> {
    fn at(&self, index: usize) -> Option<usize> {
        let bytes = self.0.get(4 * index..4 * index + 4)?;
        usize::try_from(i32::from_le_bytes(bytes.try_into().ok()?)).ok()
    }

    fn range(&self, index: usize) -> Option<std::ops::Range<usize>> {
        let range = self.at(index)?..self.at(index + 1)?;
        (range.start <= range.end).then_some(range)
    }
}

struct TextColumn<'a> {
    offsets: Offsets<'a>,
    bytes: &'a [u8],
}

impl<'a> TextColumn<'a> {
    fn text(&self, row: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.offsets.range(row)?)
    }
}

/// The columns of a tensor.
struct TensorLists<'a> {
    is_present: Validity<'a>,
    shapes: Offsets<'a>,
    dims: &'a [u8],
    has_elements: Validity<'a>,
    lists: Offsets<'a>,
    values: Values<'a>,
}

enum Values<'a> {
    Fixed { size: usize, bytes: &'a [u8] },
    Bools(&'a [u8]),
    Strings(TextColumn<'a>),
}

impl<'a> TensorLists<'a> {
    fn read(buffers: &mut Buffers<'a>, datatype: DataType, count: usize) -> Option<TensorLists<'a>> {
        let (is_present, shapes) = (buffers.validity(count)?, buffers.offsets(count)?);
        buffers.skip(1)?;
        let dims = buffers.next()?;
        let (has_elements, lists) = (buffers.validity(count)?, buffers.offsets(count)?);
        let elements = lists.at(count)?;
        let values = match (datatype, datatype.size()) {
            (_, None) => Values::Strings(buffers.texts(elements)?),
            (DataType::Bool, _) => {
                buffers.skip(1)?;
                Values::Bools(buffers.next()?)
            }
            (_, Some(size)) => {
                buffers.skip(1)?;
                Values::Fixed { size, bytes: buffers.next()? }
            }
        };
        Some(TensorLists { is_present, shapes, dims, has_elements, lists, values })
    }

    /// The tensor of a row, which may be none. The outer `None` is damage.
    fn tensor(&self, row: usize) -> Option<Option<RecordedTensor>> {
        if !self.is_present.has(row)? {
            return Some(None);
        }
        let dims = self.shapes.range(row)?;
        let dims = self.dims.get(8 * dims.start..8 * dims.end)?;
        let dims = dims.chunks_exact(8).map(|dim| dim.try_into().map(i64::from_le_bytes));
        let shape: Vec<i64> = dims.collect::<Result<_, _>>().ok()?;
        let count = shape
            .iter()
            .try_fold(1_usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))?;
        let elements = if self.has_elements.has(row)? {
            let list = self.lists.range(row).filter(|list| list.len() == count)?;
            self.values.get(list)?
        } else {
            self.values.zeros(count)?
        };
        Some(Some(RecordedTensor { shape, elements }))
    }
}

impl Values<'_> {
    fn get(&self, list: std::ops::Range<usize>) -> Option<RecordedElements> {
        Some(match self {
            Values::Fixed { size, bytes } => {
                RecordedElements::Fixed(bytes.get(size * list.start..size * list.end)?.to_vec())
            }
            Values::Bools(bits) => {
                RecordedElements::Fixed(list.map(|at| bit(bits, at).map(u8::from)).collect::<Option<_>>()?)
            }
            Values::Strings(texts) => {
                let (mut bytes, mut offsets) = (Vec::new(), Vec::with_capacity(list.len()));
                for at in list {
                    offsets.push(bytes.len());
                    bytes.extend_from_slice(texts.text(at)?);
                }
                RecordedElements::Strings { bytes, offsets }
            }
        })
    }

    /// What stands for a tensor that was left out; `None` for one that no file can have.
    fn zeros(&self, count: usize) -> Option<RecordedElements> {
        const MAX: usize = 1 << 30;
        let size = match self {
            Values::Fixed { size, .. } => *size,
            Values::Bools(_) => 1,
            Values::Strings(_) => size_of::<usize>(),
        };
        let bytes = count.checked_mul(size).filter(|&bytes| bytes <= MAX)?;
        Some(match self {
            Values::Strings(_) => RecordedElements::Strings { bytes: Vec::new(), offsets: vec![0; count] },
            _ => RecordedElements::Fixed(vec![0; bytes]),
        })
    }
}
