//! Arrow IPC: the stream format, and the file format, which is the stream between two magic words with a footer behind.
//!
//! Both are read as a stream, message by message, so that nothing but one batch is in memory. Lengths in the file are believed only as far as
//! there are bytes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;

use super::bytes::Input;
use super::{Job, Out};
use crate::error::{Error, Result};
use crate::source::types::flowing;

/// What a file of the file format begins and ends with.
const MAGIC: &[u8] = b"ARROW1";
/// What stands before a message's length.
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// The end of a stream.
const END: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];

/// Reads a shard. Gives the hash of its stored bytes where it was read to its end.
pub(super) fn read(job: &Job, out: &mut Out) -> Result<Option<String>> {
    if !job.columns.is_empty() {
        return Err(Error::spec("`columns` is for formats without types; Arrow IPC has its own")
            .hint("leave `columns` out; change types with the stage `cast`"));
    }
    let mut input = job.opener.open()?;
    let is_file = input.peek()?.starts_with(MAGIC);
    if is_file {
        input.read_bytes(8)?;
    }
    let mut sink = Sink { out, schema: None, left: job.limit };
    let mut decoder = StreamDecoder::new();
    let mut padded = is_file;
    while let Some((head, body)) = message(&mut input, std::mem::take(&mut padded))? {
        let bytes = head.len() + body.len();
        sink.feed(&mut decoder, head, bytes)?;
        sink.feed(&mut decoder, body, bytes)?;
        if sink.left == Some(0) {
            return Ok(None);
        }
    }
    // A message without a body is only looked at when something follows.
    sink.feed(&mut decoder, END.to_vec(), 0)?;
    if sink.schema.is_none() {
        return Err(Error::input("not an Arrow IPC file: it has no schema"));
    }
    let tail = drain(&mut input)?;
    if is_file && !tail.ends_with(MAGIC) {
        return Err(cut_short());
    }
    Ok(input.digest().map(str::to_owned))
}

/// The next message: its head with marker and length, and its body. None at the stream's end. Behind the first magic word zeros may come
/// before it, to whatever alignment the writer likes.
fn message(input: &mut Input, padded: bool) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut head = [0; 8];
    let mut read = input.read_up_to(&mut head[..4])?;
    while padded && read == 4 && head[..4] == [0; 4] {
        read = input.read_up_to(&mut head[..4])?;
    }
    if read == 0 {
        return Ok(None);
    }
    // Before Arrow 0.15 there was no marker.
    let marked = head[..4] == CONTINUATION;
    if read < 4 || (marked && input.read_up_to(&mut head[4..])? < 4) {
        return Err(cut_short());
    }
    let start = if marked { 8 } else { 4 };
    let length = u32::from_le_bytes([head[start - 4], head[start - 3], head[start - 2], head[start - 1]]);
    if length == 0 {
        return Ok(None);
    }
    let metadata = exactly(input, length.into())?;
    let parsed = arrow::ipc::root_as_message(&metadata)
        .map_err(|_| Error::input("not an Arrow IPC file, or damaged: a message's head cannot be read"))?;
    let length = u64::try_from(parsed.bodyLength()).map_err(|_| Error::input("the file is damaged: a message has a negative length"))?;
    let body = exactly(input, length)?;
    let batch = parsed.header_as_record_batch().or_else(|| parsed.header_as_dictionary_batch()?.data());
    if batch.is_some_and(|batch| !believable(&batch, &body)) {
        return Err(Error::input("the Arrow IPC file is damaged: the sizes of its values contradict each other"));
    }
    let head = [&head[..start], &metadata].concat();
    Ok(Some((head, body)))
}

/// Whether a batch's buffers lie in its body, and packed ones can have the sizes that they name: as much is allocated for them at once. The
/// best that LZ4 and Zstandard can do is less than 2¹⁶ to 1.
fn believable(batch: &arrow::ipc::RecordBatch<'_>, body: &[u8]) -> bool {
    let packed = batch.compression().is_some();
    batch.buffers().iter().flatten().all(|buffer| {
        let within = || {
            let begin = usize::try_from(buffer.offset()).ok()?;
            body.get(begin..begin.checked_add(usize::try_from(buffer.length()).ok()?)?)
        };
        match within() {
            None => false,
            Some(bytes) => match bytes.first_chunk() {
                Some(size) if packed => i64::from_le_bytes(*size) <= buffer.length().saturating_mul(1 << 16),
                _ => true,
            },
        }
    })
}

fn exactly(input: &mut Input, length: u64) -> Result<Vec<u8>> {
    let bytes = input.read_bytes(length)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(cut_short()) }
}

/// Reads what is left, and gives the end of it.
fn drain(input: &mut Input) -> Result<Vec<u8>> {
    let mut tail = Vec::new();
    loop {
        let more = input.read_bytes(1 << 16)?;
        if more.is_empty() {
            return Ok(tail);
        }
        tail.extend_from_slice(&more);
        tail.drain(..tail.len().saturating_sub(MAGIC.len()));
    }
}

fn cut_short() -> Error {
    Error::input("the Arrow IPC file is cut short, or damaged")
}

fn damaged(e: ArrowError) -> Error {
    Error::input(format!("the Arrow IPC file is damaged: {e}"))
}

/// Takes batches, in flowing types.
struct Sink<'a> {
    out: &'a mut Out,
    schema: Option<SchemaRef>,
    left: Option<u64>,
}

impl Sink<'_> {
    fn feed(&mut self, decoder: &mut StreamDecoder, bytes: Vec<u8>, weight: usize) -> Result<()> {
        let mut buffer = Buffer::from_vec(bytes);
        loop {
            let batch = decoder.decode(&mut buffer).map_err(damaged)?;
            if self.schema.is_none()
                && let Some(schema) = decoder.schema()
            {
                let schema = flow(&schema);
                self.out.columns(&schema)?;
                self.schema = Some(schema);
            }
            match (batch, &self.schema) {
                (Some(batch), Some(schema)) => self.left = take(self.out, batch, schema, self.left, weight)?,
                _ if buffer.is_empty() => return Ok(()),
                _ => {}
            }
        }
    }
}

fn take(out: &mut Out, batch: RecordBatch, schema: &SchemaRef, left: Option<u64>, weight: usize) -> Result<Option<u64>> {
    let rows = left.map_or(batch.num_rows(), |l| batch.num_rows().min(usize::try_from(l).unwrap_or(usize::MAX)));
    let batch = batch.slice(0, rows);
    let options = CastOptions { safe: false, ..Default::default() };
    let arrays = batch.columns().iter().zip(schema.fields()).map(|(array, field)| {
        if array.data_type() == field.data_type() { Ok(array.clone()) } else { cast_with_options(array, field.data_type(), &options) }
    });
    let arrays = arrays.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    out.rows(RecordBatch::try_new(schema.clone(), arrays).map_err(damaged)?, weight)?;
    Ok(left.map(|l| l - rows as u64))
}

fn flow(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| Field::new(f.name(), flowing(f.data_type()), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
