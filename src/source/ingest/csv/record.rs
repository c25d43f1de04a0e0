//! Lines to records.
//!
//! A field in quotes may hold delimiters, line ends and doubled quotes. A quote that is opened and never closed would swallow the lines behind
//! it; so what spans lines must close its quotes properly (behind the closing quote comes a delimiter or the line's end). Where it does not, its
//! first line alone is rejected, and reading goes on with the next line.

use crate::error::Result;
use crate::source::ingest::bytes::{Input, Line, too_long};

/// Bytes of a record that spans lines; a longer one is a quote that was not closed.
const MAX_RECORD: usize = 16 << 20;

/// One record.
pub(super) struct Record<'a> {
    /// The number of its first line, from 1.
    pub line: u64,
    /// Its text, line end included.
    pub raw: &'a [u8],
    /// Its fields, or why it cannot be read.
    pub fields: Result<Fields<'a>, String>,
}

/// The fields of a record, without quotes.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    text: &'a str,
    ends: &'a [usize],
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8], ends: &'a [usize]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).ok().filter(|t| ends.iter().all(|e| t.is_char_boundary(*e)));
        Ok(Self { text: text.ok_or("not UTF-8")?, ends })
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(self) -> impl Iterator<Item = &'a str> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(self.ends).map(move |(begin, end)| &self.text[begin..*end])
    }
}

/// Reads records.
pub(super) struct Records {
    input: Input,
    /// Lines that were read; those before `at` are done with.
    buffer: Vec<u8>,
    at: usize,
    /// Lines before `at`.
    lines: u64,
    split: Splitter,
    /// Where in the buffer a line begins of which only the beginning was read.
    long: Option<usize>,
    last: (u64, std::ops::Range<usize>, Option<String>),
}

impl Records {
    pub(super) fn new(input: Input, delimiter: u8) -> Self {
        let split = Splitter { delimiter, state: State::FieldStart, odd: false, bytes: Vec::new(), ends: Vec::new() };
        Self { input, buffer: Vec::new(), at: 0, lines: 0, split, long: None, last: (0, 0..0, None) }
    }

    /// See [`Input::digest`].
    pub(super) fn digest(&self) -> Option<&str> {
        self.input.digest()
    }

    /// The next record; lines without anything are none.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>> {
        loop {
            if self.at == self.buffer.len() || self.at > MAX_RECORD {
                self.buffer.drain(..self.at);
                self.long = self.long.and_then(|l| l.checked_sub(self.at));
                self.at = 0;
            }
            let begin = self.at;
            let Some((mut end, mut whole)) = self.next_line(begin)? else { return Ok(None) };
            let first_end = end;
            self.split.reset();
            let mut closed = self.split.line(&self.buffer[begin..end]);
            // A quote is open: the record goes on.
            while !closed && whole == Line::Whole && end - begin < MAX_RECORD {
                let Some(next) = self.next_line(end)? else { break };
                closed = self.split.line(&self.buffer[end..next.0]);
                (end, whole) = next;
            }
            let spans = end > first_end;
            let problem = if whole == Line::TooLong && !spans {
                Some(too_long())
            } else if !closed || (spans && self.split.odd) {
                end = first_end;
                Some("a quote is not closed".to_owned())
            } else {
                None
            };
            let line = self.lines + 1;
            self.lines += memchr::memchr_iter(b'\n', &self.buffer[begin..end]).count().max(1) as u64;
            self.at = end;
            if self.buffer[begin..end].iter().all(|b| matches!(b, b'\r' | b'\n')) {
                continue;
            }
            self.last = (line, begin..end, problem);
            return Ok(Some(self.again()));
        }
    }

    /// The record that was read last.
    pub(super) fn again(&self) -> Record<'_> {
        let (line, raw, problem) = &self.last;
        let fields = match problem {
            None => Fields::new(&self.split.bytes, &self.split.ends),
            Some(reason) => Err(reason.clone()),
        };
        Record { line: *line, raw: &self.buffer[raw.clone()], fields }
    }

    /// The end of the line that begins at `begin` of the buffer; it is read where it is not there yet.
    fn next_line(&mut self, begin: usize) -> Result<Option<(usize, Line)>> {
        if begin < self.buffer.len() {
            let end = memchr::memchr(b'\n', &self.buffer[begin..]).map_or(self.buffer.len(), |e| begin + e + 1);
            return Ok(Some((end, if self.long == Some(begin) { Line::TooLong } else { Line::Whole })));
        }
        let read = self.input.line(&mut self.buffer)?;
        if read == Some(Line::TooLong) {
            self.long = Some(begin);
        }
        Ok(read.map(|line| (self.buffer.len(), line)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote within quotes: the end, or the first of two.
    QuoteInQuotes,
}

/// Splits a record, line by line.
struct Splitter {
    delimiter: u8,
    state: State,
    /// Text stood behind a closing quote.
    odd: bool,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Splitter {
    fn reset(&mut self) {
        self.state = State::FieldStart;
        self.odd = false;
        self.bytes.clear();
        self.ends.clear();
    }

    /// Takes a line. False where a quote is still open behind it.
    fn line(&mut self, line: &[u8]) -> bool {
        let end = line.strip_suffix(b"\n").unwrap_or(line);
        let end = end.strip_suffix(b"\r").unwrap_or(end);
        if self.state == State::FieldStart && memchr::memchr(b'"', end).is_none() {
            self.plain(end);
            return true;
        }
        for byte in end {
            self.byte(*byte);
        }
        if self.state == State::Quoted {
            self.bytes.extend_from_slice(&line[end.len()..]);
            return false;
        }
        self.ends.push(self.bytes.len());
        true
    }

    /// A line without quotes.
    fn plain(&mut self, line: &[u8]) {
        let mut from = 0;
        for at in memchr::memchr_iter(self.delimiter, line).chain(std::iter::once(line.len())) {
            self.bytes.extend_from_slice(&line[from..at]);
            self.ends.push(self.bytes.len());
            from = at + 1;
        }
    }

    fn byte(&mut self, byte: u8) {
        self.state = match self.state {
            State::FieldStart if byte == b'"' => State::Quoted,
            State::Quoted if byte == b'"' => State::QuoteInQuotes,
            State::QuoteInQuotes if byte == b'"' => {
                self.bytes.push(byte);
                State::Quoted
            }
            State::FieldStart | State::Plain | State::QuoteInQuotes if byte == self.delimiter => {
                self.ends.push(self.bytes.len());
                State::FieldStart
            }
            State::Quoted => {
                self.bytes.push(byte);
                State::Quoted
            }
            state => {
                self.odd |= state == State::QuoteInQuotes;
                self.bytes.push(byte);
                State::Plain
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (bool, Vec<String>) {
        let mut s = Splitter { delimiter: b',', state: State::FieldStart, odd: false, bytes: Vec::new(), ends: Vec::new() };
        let mut closed = true;
        for line in text.split_inclusive('\n') {
            closed = s.line(line.as_bytes());
        }
        let fields = Fields::new(&s.bytes, &s.ends).unwrap().iter().map(str::to_owned).collect();
        (closed, fields)
    }

    #[test]
    fn quotes_hold_delimiters_line_ends_and_quotes() {
        assert_eq!(split("a,\"b,\r\nc\",\"d\"\"e\"\r\n"), (true, vec!["a".into(), "b,\r\nc".into(), "d\"e".into()]));
        assert_eq!(split("a,,\n"), (true, vec!["a".into(), "".into(), "".into()]));
        assert_eq!(split("\"\",5\" disk"), (true, vec!["".into(), "5\" disk".into()]));
        assert!(!split("a,\"b\n").0);
    }
}
