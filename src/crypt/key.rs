//! A key, from the environment or a file.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::spec::pipeline::KeyRef;

/// More than any key takes, in whatever form.
const LONGEST: usize = 1024;

/// A key of 16 or 32 bytes. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// The key that lies at a place; relative paths start from `base`. Errors are words that never hold what was found.
    pub fn fetch(at: &KeyRef, base: &Path) -> Result<Self, String> {
        if let Some(name) = at.0.strip_prefix("env:") {
            let value = std::env::var_os(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
            return Self::parse(value.as_encoded_bytes()).map_err(|e| format!("the environment variable `{name}` {e}"));
        }
        let path = at.0.strip_prefix("file:").unwrap_or(&at.0);
        let full = base.join(path);
        let size = std::fs::metadata(&full).map(|m| m.len());
        let bytes = match size {
            Ok(size) if size > LONGEST as u64 => return Err(format!("the file `{path}` has {size} bytes: it is no key")),
            _ => std::fs::read(&full).map_err(|e| format!("the file `{path}` cannot be read: {e}"))?,
        };
        Self::parse(&bytes).map_err(|e| format!("the file `{path}` {e}"))
    }

    /// A key of bytes whose number is right already.
    pub(super) fn of(bytes: [u8; 32]) -> Self {
        Self(bytes.to_vec())
    }

    /// Hex, base64, or the bytes themselves: see [`crate::crypt`].
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map(str::trim).unwrap_or_default();
        if text.is_empty() && bytes.iter().all(u8::is_ascii_whitespace) {
            return Err("is empty".to_owned());
        }
        if let (32 | 48 | 64, Ok(key)) = (text.len(), hex::decode(text)) {
            return Self::sized(key);
        }
        let decoded = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|e| e.decode(text).ok());
        match (text.len(), decoded) {
            (22 | 24 | 43 | 44, Some(key)) if matches!(key.len(), 16 | 32) => return Self::sized(key),
            (32, Some(_)) => {
                return Err("has 32 characters, which may be a key of 32 bytes or the base64 of one of 24: write it in hex".to_owned());
            }
            _ => {}
        }
        // A line break behind a text key is the editor's; behind raw bytes it may be a part of them.
        let raw = if matches!(text.len(), 16 | 24 | 32) { text.as_bytes() } else { bytes };
        Self::sized(raw.to_vec())
    }

    fn sized(key: Vec<u8>) -> Result<Self, String> {
        match key.len() {
            16 | 32 => Ok(Self(key)),
            24 => Err("holds a key of 24 bytes (AES-192), which is not supported: use one of 16 or 32".to_owned()),
            n => Err(format!("holds {n} bytes, which are no key: give 16 or 32 bytes, in hex, in base64 or as they are")),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: impl AsRef<[u8]>) -> Result<Vec<u8>, String> {
        Key::parse(text.as_ref()).map(|k| k.0)
    }

    #[test]
    fn keys_come_in_hex_base64_and_raw() {
        let (short, long): (Vec<u8>, Vec<u8>) = ((200..216).collect(), (200..232).collect());
        for key in [&short, &long] {
            let forms = [hex::encode(key), STANDARD.encode(key), STANDARD_NO_PAD.encode(key), URL_SAFE.encode(key)];
            forms.iter().for_each(|form| {
                assert_eq!(parse(form).as_ref(), Ok(key), "{form}");
                assert_eq!(parse(format!("  {form}\r\n")).as_ref(), Ok(key), "{form}");
            });
            assert_eq!(parse(key).as_ref(), Ok(key));
        }
        assert_eq!(parse("0123456789012345\n").unwrap(), b"0123456789012345");
        assert_eq!(parse("a key with 32 letters, in words!").unwrap().len(), 32);
        // Raw bytes may end in what looks like a line break.
        let mut odd = vec![0xC3_u8; 15];
        odd.push(b'\n');
        assert_eq!(parse(&odd).unwrap(), odd);
    }

    #[test]
    fn what_is_no_key_is_told_without_being_shown() {
        for (text, words) in [
            ("", "empty"),
            (" \n", "empty"),
            ("tooshortsecret", "14 bytes"),
            (&hex::encode([7_u8; 24]), "24 bytes"),
            (&STANDARD.encode([7_u8; 24]), "write it in hex"),
            ("abcdefghijklmnopqrstuvwxyzABCDEF", "write it in hex"),
            (&"z".repeat(64), "64 bytes"),
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.contains(words), "{text}: {e}");
            assert!(text.trim().is_empty() || !e.contains(text), "{e}");
        }
        let fetch = |at: &str| Key::fetch(&KeyRef(at.to_owned()), Path::new("/no/such/folder")).unwrap_err();
        assert_eq!(fetch("env:FEEDLINE_NO_SUCH_KEY"), "the environment variable `FEEDLINE_NO_SUCH_KEY` is not set");
        assert!(fetch("file:key").starts_with("the file `key` cannot be read: "));
        assert_eq!(format!("{:?}", Key(vec![1; 16])), "Key(…)");
    }
}
