//! JSON Lines: one object a line.
//!
//! The first reading gathers the types of all lines ([`infer`]), the second makes rows of them. What a line must hold is settled before
//! it is converted: it is JSON by the strict grammar, an object, and fits the columns ([`fit`]). Arrow's decoder, which is fast but forgives much
//! (a missing comma, `1.5` as the whole number 1), then sees good lines only.

mod fit;
mod infer;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use roaring::RoaringTreemap;

use super::bytes::{Input, Line, too_long};
use super::{BLOCK_BYTES, BLOCK_ROWS, Job, Out, arrow_type, unchanged, unknown_column};
use crate::error::{Error, Result};
use infer::Seen;

/// Different names in one file; more are values that ended up as keys.
const MAX_NAMES: usize = 10_000;

/// Reads a shard. Gives the hash of its stored bytes where it was read to its end.
pub(super) fn read(job: &Job, out: &mut Out) -> Result<Option<String>> {
    let found = survey(job)?;
    let schema = found.schema(job)?;
    out.columns(&schema)?;
    let digest = rows(job, &found, &schema, out)?;
    unchanged(found.digest.as_deref(), digest.as_deref())
}

/// What the first reading finds.
struct Survey {
    seen: Seen,
    /// Lines that are not JSON objects.
    bad: RoaringTreemap,
    records: u64,
    /// The first of the bad lines' reasons.
    first: Option<String>,
    /// Whether all of the file was read.
    complete: bool,
    digest: Option<String>,
}

fn survey(job: &Job) -> Result<Survey> {
    let mut input = job.opener.open()?;
    let mut found = Survey { seen: Seen::default(), bad: RoaringTreemap::new(), records: 0, first: None, complete: true, digest: None };
    let mut lines = Lines::new(job.limit);
    while let Some((number, line)) = lines.next(&mut input)? {
        found.records += 1;
        let is_array = found.records == 1 && matches!(line, Ok([b'[', ..]));
        match line.and_then(object) {
            Ok(text) => {
                found.seen.add(text).map_err(|e| Error::internal(format!("line {number}: {e}")))?;
                if found.records.is_multiple_of(1024) {
                    found.seen.few_names()?;
                }
            }
            Err(reason) => {
                if is_array {
                    return Err(Error::input("the file is a JSON array, not JSON Lines")
                        .hint("write one object a line, for example with `jq -c '.[]'`"));
                }
                found.bad.insert(number);
                found.first.get_or_insert(format!("line {number}: {reason}"));
            }
        }
    }
    found.seen.few_names()?;
    found.complete = !lines.stopped;
    found.digest = input.digest().map(str::to_owned);
    match found.first {
        Some(first) if found.bad.len() == found.records => {
            Err(Error::input(format!("no line of the file can be read; {first}")).hint("write one object a line"))
        }
        _ => Ok(found),
    }
}

impl Seen {
    fn few_names(&self) -> Result<()> {
        if self.names() <= MAX_NAMES {
            return Ok(());
        }
        Err(Error::input(format!("the objects have more than {MAX_NAMES} different names"))
            .hint("are keys of a map written as names? Write it as a list of pairs, or as text"))
    }
}

impl Survey {
    /// The columns in the order in which the lines bring them, with the types that the spec names.
    fn schema(&self, job: &Job) -> Result<SchemaRef> {
        let mut fields: Vec<Field> = Vec::new();
        for (name, seen) in self.seen.fields() {
            let inferred = seen.data_type(true);
            if let Some(t) = job.columns.get(name).map(|t| arrow_type(*t)).or(inferred) {
                fields.push(Field::new(name, t, true));
            }
        }
        for (name, t) in &job.columns {
            if self.seen.fields().any(|(known, _)| known == name) {
                continue;
            }
            if self.complete && self.records > 0 {
                return Err(unknown_column(name, self.seen.fields().map(|(known, _)| known.as_str())));
            }
            fields.push(Field::new(name, arrow_type(*t), true));
        }
        if fields.is_empty() {
            return Err(match self.records {
                0 => {
                    Error::input("the file has no records, so no columns").hint("name them in `columns:` of the source, or remove the file")
                }
                _ => Error::input("the file's objects have no columns").hint("write values into them, or remove the file"),
            });
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// The second reading.
fn rows(job: &Job, found: &Survey, schema: &SchemaRef, out: &mut Out) -> Result<Option<String>> {
    let mut input = job.opener.open()?;
    let mut lines = Lines::new(job.limit);
    let mut block = Block::new(schema.clone());
    // Inferred types fit every line, unless shapes are mixed or the spec names others.
    let check = !job.columns.is_empty() || found.seen.is_mixed();
    while let Some((number, line)) = lines.next(&mut input)? {
        let text = match line {
            Ok(text) if !found.bad.contains(number) => text,
            Ok(text) => {
                let reason = object(text).err().unwrap_or_else(|| "not JSON".to_owned());
                out.reject(number, &reason, text)?;
                continue;
            }
            Err(reason) => {
                out.reject(number, &reason, lines.text())?;
                continue;
            }
        };
        if check && let Err(reason) = fit::check(text, schema) {
            out.reject(number, &reason, text)?;
            continue;
        }
        block.push(number, text);
        if block.is_full() {
            block.flush(out)?;
        }
    }
    block.flush(out)?;
    Ok(input.digest().map(str::to_owned))
}

/// The text of a line that holds one JSON object, or why it does not.
fn object(line: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    fit::is_object(text).map_err(|e| not_json(&e))?.then_some(text).ok_or_else(|| "not an object".to_owned())
}

/// The cause without its place, so that lines are counted by cause.
fn not_json(e: &serde_json::Error) -> String {
    let text = e.to_string();
    format!("not JSON: {}", text.rsplit_once(" at line ").map_or(text.as_str(), |(cause, _)| cause))
}

/// A line's number and its text without the space around it, or why it was not read.
type Numbered<'a> = (u64, Result<&'a [u8], String>);

/// The lines that are not blank, with their numbers.
struct Lines {
    line: Vec<u8>,
    number: u64,
    left: Option<u64>,
    stopped: bool,
}

impl Lines {
    fn new(limit: Option<u64>) -> Self {
        Self { line: Vec::new(), number: 0, left: limit, stopped: false }
    }

    /// The next line.
    fn next(&mut self, input: &mut Input) -> Result<Option<Numbered<'_>>> {
        loop {
            self.line.clear();
            let Some(read) = input.line(&mut self.line)? else { return Ok(None) };
            self.number += 1;
            if read == Line::Whole && self.line.trim_ascii().is_empty() {
                continue;
            }
            if let Some(left) = &mut self.left {
                if *left == 0 {
                    self.stopped = true;
                    return Ok(None);
                }
                *left -= 1;
            }
            return Ok(Some((self.number, if read == Line::Whole { Ok(self.line.trim_ascii()) } else { Err(too_long()) })));
        }
    }

    fn text(&self) -> &[u8] {
        &self.line
    }
}

/// Lines that are converted together.
struct Block {
    schema: SchemaRef,
    text: Vec<u8>,
    /// Number and end of each line.
    lines: Vec<(u64, usize)>,
}

impl Block {
    fn new(schema: SchemaRef) -> Self {
        Self { schema, text: Vec::new(), lines: Vec::new() }
    }

    fn push(&mut self, number: u64, line: &[u8]) {
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        self.lines.push((number, self.text.len()));
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= BLOCK_ROWS || self.text.len() >= BLOCK_BYTES
    }

    fn flush(&mut self, out: &mut Out) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        match decode(&self.schema, &self.text, self.lines.len()) {
            Ok(batch) => out.rows(batch, self.text.len())?,
            Err(_) => self.one_by_one(out)?,
        }
        self.text.clear();
        self.lines.clear();
        Ok(())
    }

    /// Should Arrow's decoder refuse what was found good, then only the line at fault is lost.
    fn one_by_one(&self, out: &mut Out) -> Result<()> {
        let mut from = 0;
        for (number, end) in &self.lines {
            let line = &self.text[from..*end];
            match decode(&self.schema, line, 1) {
                Ok(batch) => out.rows(batch, line.len())?,
                Err(_) => out.reject(*number, "a value cannot be converted", line)?,
            }
            from = *end;
        }
        Ok(())
    }
}

fn decode(schema: &SchemaRef, text: &[u8], rows: usize) -> Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(schema.clone()).with_batch_size(rows).with_coerce_primitive(true).build_decoder()?;
    decoder.decode(text)?;
    let batch = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone()));
    if batch.num_rows() != rows {
        return Err(Error::internal(format!("{} rows of {rows} lines", batch.num_rows())));
    }
    Ok(batch)
}

/// A list of this type.
fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}
