//! The bytes of a shard as a plain `Read`: from disk or from a store, hashed as they are stored, unpacked, without a byte-order mark.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::source::Found;
use crate::source::ahead::{open_tagged, unreachable};
use crate::storage::Location;

/// Pieces of an object that may wait for the reader.
const AHEAD: usize = 8;
/// Bytes that are looked at together.
const BUFFER: usize = 256 * 1024;
/// A longer line is not read: what follows up to its end is skipped.
pub(super) const MAX_LINE: usize = 128 << 20;

/// Opens a shard's bytes, as often as they are needed.
pub(super) struct Opener {
    found: Found,
    handle: Handle,
}

/// A shard's bytes, unpacked, and the hash of what is stored once all of it was read.
pub(super) struct Input {
    reader: BufReader<Box<dyn Read + Send>>,
    digest: Arc<OnceLock<String>>,
}

impl Opener {
    /// For use on a blocking thread; objects of a store are fetched by the runtime that this is called in.
    pub(super) fn new(found: &Found) -> Self {
        Self { found: found.clone(), handle: Handle::current() }
    }

    /// Begins at the first byte. Fails where the file cannot be opened, is empty, or is text in UTF-16.
    pub(super) fn open(&self) -> Result<Input> {
        let digest = Arc::new(OnceLock::new());
        let raw = Raw { from: self.raw()?, hash: Some(Sha256::new()), digest: digest.clone() };
        let reader: Box<dyn Read + Send> = match self.found.packed {
            Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Some(_) => Box::new(zstd::stream::read::Decoder::new(raw).map_err(broken)?),
            None => Box::new(raw),
        };
        let mut reader = BufReader::with_capacity(BUFFER, reader);
        let start = reader.fill_buf().map_err(broken)?;
        if start.is_empty() {
            return Err(Error::input("the file is empty").hint("remove it, or write its header"));
        }
        if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
            return Err(Error::input("the file is text in UTF-16").hint("convert it to UTF-8, for example with `iconv -f UTF-16 -t UTF-8`"));
        }
        if start.starts_with(b"\xEF\xBB\xBF") {
            reader.consume(3);
        }
        Ok(Input { reader, digest })
    }

    fn raw(&self) -> Result<Box<dyn Read + Send>> {
        if let Some(local) = &self.found.location.local {
            return Ok(Box::new(std::fs::File::open(local)?));
        }
        let (to, from) = mpsc::channel(AHEAD);
        let (at, e_tag) = (self.found.location.clone(), self.found.e_tag.clone());
        let place = at.clone();
        self.handle.spawn(async move {
            let fetched = async {
                let mut stream = open_tagged(&at, e_tag.as_deref(), None).await?.into_stream();
                while let Some(bytes) = stream.try_next().await? {
                    if to.send(Ok(bytes)).await.is_err() {
                        break; // the reader has what it needs
                    }
                }
                Ok(())
            };
            if let Err(e) = fetched.await {
                let _ = to.send(Err(e)).await;
            }
        });
        Ok(Box::new(Fetched { from, current: Bytes::new(), at: place }))
    }
}

impl Input {
    /// SHA-256 of the stored bytes in hex, where all were read.
    pub(super) fn digest(&self) -> Option<&str> {
        self.digest.get().map(String::as_str)
    }

    /// Fills the buffer, or less where the shard ends before.
    pub(super) fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]).map_err(broken)? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// The next `length` bytes, or fewer where the shard ends before. Memory grows with what arrives, not with what is asked for: a
    /// damaged length cannot exhaust it.
    pub(super) fn read_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.reader).take(length).read_to_end(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }

    /// The first bytes, without taking them.
    pub(super) fn peek(&mut self) -> Result<&[u8]> {
        self.reader.fill_buf().map_err(broken)
    }

    /// Appends the next line with its end to `line`; `None` after the last one.
    pub(super) fn line(&mut self, line: &mut Vec<u8>) -> Result<Option<Line>> {
        let mut length = 0_usize;
        loop {
            let ready = self.reader.fill_buf().map_err(broken)?;
            if ready.is_empty() {
                return Ok((length > 0).then_some(if length > MAX_LINE { Line::TooLong } else { Line::Whole }));
            }
            let end = memchr::memchr(b'\n', ready);
            let take = end.map_or(ready.len(), |e| e + 1);
            if length + take <= MAX_LINE {
                line.extend_from_slice(&ready[..take]);
            }
            length = length.saturating_add(take);
            self.reader.consume(take);
            if end.is_some() {
                return Ok(Some(if length > MAX_LINE { Line::TooLong } else { Line::Whole }));
            }
        }
    }
}

/// How a line was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it.
    Whole,
    /// Its beginning: it is longer than [`MAX_LINE`].
    TooLong,
}

/// Why a too long line is rejected.
pub(super) fn too_long() -> String {
    format!("longer than {} MiB", MAX_LINE >> 20)
}

/// An error of the store comes back as it was; any other means that what is stored cannot be unpacked.
fn broken(e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(own) => own,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Error::input("the file is cut short: it ends in the middle of packed data"),
        Err(e) => Error::input(format!("the file cannot be unpacked: {e}")),
    }
}

/// Stored bytes, hashed as they pass.
struct Raw {
    from: Box<dyn Read + Send>,
    hash: Option<Sha256>,
    digest: Arc<OnceLock<String>>,
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.from.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Err(e) => return Err(io::Error::other(e.downcast::<Error>().unwrap_or_else(Error::from))),
            Ok(read) => read,
        };
        if read > 0 {
            if let Some(hash) = &mut self.hash {
                hash.update(&buffer[..read]);
            }
        } else if !buffer.is_empty()
            && let Some(hash) = self.hash.take()
        {
            let _ = self.digest.set(hex::encode(hash.finalize()));
        }
        Ok(read)
    }
}

/// An object that arrives in pieces.
struct Fetched {
    from: mpsc::Receiver<Result<Bytes, object_store::Error>>,
    current: Bytes,
    at: Location,
}

impl Read for Fetched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.from.blocking_recv() {
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(e)) => return Err(io::Error::other(unreachable(e, &self.at))),
                None => return Ok(0),
            }
        }
        let take = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..take]);
        Ok(take)
    }
}
