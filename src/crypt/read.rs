//! Footers of files that may be encrypted, and which columns the keys at hand open.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::column_crypto_metadata::ColumnCryptoMetaData;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{Key, belongs};
use crate::error::{Error, Kind, Mistake, Result};
use crate::spec::pipeline::{DecryptionSpec, EncryptionSpec, KeyRef};

/// The last bytes of a file with an encrypted footer.
pub(crate) const ENCRYPTED: &[u8] = b"PARE";
/// Nonce and tag: what a signed footer ends with.
const SIGNATURE: usize = 28;
/// What the library says of files without the identifier that keeps parts of one file from being put into another.
const NO_IDENTIFIER: &str = "AAD unique file identifier";
/// Columns that an error names.
const NAMED: usize = 8;

/// A key, or why it is not at hand.
type Slot = Result<Key, String>;

/// The keys with which files are read. A key that is not there is no fault until a file needs it.
#[derive(Debug, Clone, Default)]
pub struct FileKeys {
    footer: Option<Slot>,
    columns: Vec<(String, Slot)>,
    aad_prefix: Option<Vec<u8>>,
    /// Whether they were named by a dataset's spec, not by a source's.
    of_dataset: bool,
}

/// A footer that was read.
#[derive(Debug)]
pub struct Opened {
    /// The footer. What pages need to be decrypted is in it.
    pub metadata: ParquetMetaData,
    /// Columns (by their whole name, and without the parts of a struct or list) that cannot be read, and why.
    pub locked: BTreeMap<String, String>,
}

/// What a column's pages are encrypted with.
enum Lock {
    Footer,
    Column,
}

impl FileKeys {
    /// The keys that a source names; relative paths start from `base`.
    pub fn of_source(spec: &DecryptionSpec, base: &Path) -> Self {
        let columns = spec.column_keys.iter().map(|(name, at)| (name.clone(), Key::fetch(at, base))).collect();
        let footer = spec.footer_key.as_ref().map(|at| Key::fetch(at, base));
        Self { footer, columns, aad_prefix: spec.aad_prefix.clone().map(String::into_bytes), of_dataset: false }
    }

    /// The keys of a dataset that was written with these options.
    pub fn of_sink(spec: &EncryptionSpec, base: &Path) -> Self {
        let fetch = |at: &KeyRef| Key::fetch(at, base);
        let columns = spec.column_keys.iter().map(|(name, at)| (name.clone(), fetch(at))).collect();
        Self { footer: Some(fetch(&spec.footer_key)), columns, aad_prefix: None, of_dataset: true }
    }

    /// The keys of a version, out of the environment and files that its manifest names; relative paths start from the current folder.
    pub fn of_version(manifest: &crate::dataset::Manifest) -> Self {
        super::encryption_of(manifest).map_or_else(Self::default, |spec| Self::of_sink(&spec, Path::new(".")))
    }

    /// Keys that are at hand.
    pub(super) fn of(footer: Key, columns: Vec<(String, Key)>) -> Self {
        let columns = columns.into_iter().map(|(name, key)| (name, Ok(key))).collect();
        Self { footer: Some(Ok(footer)), columns, aad_prefix: None, of_dataset: true }
    }

    /// What is wrong with the keys themselves, at places below `pointer`.
    pub(super) fn mistakes(&self, pointer: &str) -> Vec<Mistake> {
        let footer = self.footer.iter().map(|slot| (format!("{pointer}/footer_key"), slot));
        let columns = self.columns.iter().map(|(name, slot)| (crate::spec::join(&format!("{pointer}/column_keys"), name), slot));
        let wrong = footer.chain(columns).filter_map(|(at, slot)| Some((at, slot.as_ref().err()?)));
        let help = "a key is 16 or 32 bytes, in hex, in base64 or as they are";
        wrong.map(|(at, why)| Mistake::new(at, why).help(help)).collect()
    }

    /// Decodes a footer: `tail` is the end of a file from the footer's first byte on.
    ///
    /// # Errors
    /// `Input` where the footer is damaged. `Key` where it is encrypted and the key is missing or another one: nobody can tell that from damage.
    pub fn decode(&self, tail: &Bytes) -> Result<Opened> {
        let encrypted = tail.ends_with(ENCRYPTED);
        let first = if encrypted { self.decrypt(tail, &[])? } else { parse(tail, None).map_err(damaged)? };
        let locks = locks(&first);
        let by_footer = locks.values().any(|lock| matches!(lock, Lock::Footer));
        if locks.is_empty() || (encrypted && locks.values().all(|lock| matches!(lock, Lock::Footer))) {
            return Ok(Opened { metadata: first, locked: BTreeMap::new() });
        }
        let mut locked = BTreeMap::new();
        let mut keys: Vec<(String, Key)> = Vec::new();
        for (path, lock) in &locks {
            match (lock, &self.footer) {
                (Lock::Column, _) => match self.column(path) {
                    Ok(key) => keys.push((path.clone(), key)),
                    Err(why) => _ = locked.insert(path.clone(), why),
                },
                (Lock::Footer, Some(Ok(_))) => {}
                (Lock::Footer, Some(Err(why))) => _ = locked.insert(path.clone(), format!("it is under the footer key, and {why}")),
                (Lock::Footer, None) => _ = locked.insert(path.clone(), "it is under the footer key, and none is named".to_owned()),
            }
        }
        let no_footer_key = !matches!(self.footer, Some(Ok(_)));
        if keys.is_empty() && (encrypted || no_footer_key) {
            return Ok(Opened { metadata: first, locked });
        }
        if by_footer && no_footer_key {
            let why = "the footer key is not at hand, which other columns of the file need";
            locks.keys().for_each(|path| _ = locked.entry(path.clone()).or_insert_with(|| why.to_owned()));
            return Ok(Opened { metadata: first, locked });
        }
        Ok(Opened { metadata: self.decrypt(tail, &keys)?, locked })
    }

    /// The footer with these columns' keys.
    fn decrypt(&self, tail: &Bytes, columns: &[(String, Key)]) -> Result<ParquetMetaData> {
        let encrypted = tail.ends_with(ENCRYPTED);
        let footer = match &self.footer {
            Some(Ok(key)) => Some(key.bytes().to_vec()),
            _ if !encrypted => None,
            Some(Err(why)) => return Err(self.missing(format!("its footer key is not at hand: {why}"))),
            None => return Err(self.missing("no footer key is named for it".to_owned())),
        };
        let verify = footer.is_some();
        // A readable footer can be read without its key, but not without any.
        let mut properties = FileDecryptionProperties::builder(footer.unwrap_or_else(|| vec![0; 16]));
        for (path, key) in columns {
            properties = properties.with_column_key(path, key.bytes().to_vec());
        }
        if let Some(prefix) = &self.aad_prefix {
            properties = properties.with_aad_prefix(prefix.clone());
        }
        if !verify {
            properties = properties.disable_footer_signature_verification();
        }
        let properties = properties.build()?;
        parse(tail, Some(properties)).map_err(|e| self.refused(&e))
    }

    fn column(&self, path: &str) -> Result<Key, String> {
        let whole = self.columns.iter().find(|(name, _)| name == path);
        let found = whole.or_else(|| self.columns.iter().find(|(name, _)| belongs(name, path)));
        found.map_or_else(|| Err("no key is named for it".to_owned()), |(_, slot)| slot.clone())
    }

    /// A shard is encrypted, and there is no key for it.
    fn missing(&self, why: String) -> Error {
        Error::new(Kind::Key, format!("the shard is encrypted, and {why}")).hint(self.where_keys_are("footer_key: env:NAME"))
    }

    /// The error that columns are wanted which `locked` says cannot be read.
    pub fn lacking<'a>(&self, locked: impl IntoIterator<Item = (&'a String, &'a String)>) -> Error {
        let mut parts: Vec<(String, &str)> = Vec::new();
        for (path, why) in locked {
            parts.push((format!("`{path}`"), why));
        }
        let names: Vec<&str> = parts.iter().take(NAMED).map(|(name, _)| name.as_str()).collect();
        let more = if parts.len() > NAMED { format!(" and {} more", parts.len() - NAMED) } else { String::new() };
        let why = parts.first().map_or("", |(_, why)| why);
        let message = match parts.len() {
            1 => format!("the column {} is encrypted, and its key is not at hand: {why}", names.join("")),
            n => format!("{n} columns are encrypted, and their keys are not at hand: {}{more} (of the first: {why})", names.join(", ")),
        };
        let first = parts.first().map_or("NAME", |(name, _)| name.trim_matches('`'));
        Error::new(Kind::Key, message).hint(self.where_keys_are(&format!("column_keys: {{ {first}: env:NAME }}")))
    }

    fn where_keys_are(&self, example: &str) -> String {
        if self.of_dataset {
            return "the dataset's spec names where its keys lie (`sink.encryption`): set that environment variable, or put the file there"
                .to_owned();
        }
        format!("name it in the source, for example `decryption: {{ {example} }}`")
    }

    /// Why a key did not open a footer.
    fn refused(&self, e: &ParquetError) -> Error {
        let text = e.to_string();
        let column = text.split_once("Unable to decrypt column '").and_then(|(_, rest)| rest.split('\'').next());
        let message = match column {
            Some(column) => format!("the key of the column `{column}` is not the one that the shard was written with"),
            None if text.contains("AAD prefix") => "the shard was written with an AAD prefix that it does not store".to_owned(),
            None if text.contains("AES_GCM_CTR") => "the shard is encrypted by AES_GCM_CTR_V1, which is not supported".to_owned(),
            None if text.contains(NO_IDENTIFIER) => {
                "the shard lacks the file identifier that Parquet encryption asks for (as files of DuckDB do): it cannot be decrypted"
                    .to_owned()
            }
            None if text.contains("signature") => {
                "the footer's signature does not fit: the footer key is not the one that the shard was written with, or the footer was changed"
                    .to_owned()
            }
            None if text.contains("unable to decrypt") => {
                "the footer key is not the one that the shard was written with (or its AAD prefix, or the footer is damaged)".to_owned()
            }
            None => format!("the encrypted footer cannot be read: {}", text.trim_start_matches("Parquet error: ")),
        };
        let hint = match column {
            _ if text.contains(NO_IDENTIFIER) => "have it written by another program, such as pyarrow or Feedline".to_owned(),
            _ if text.contains("AES_GCM_CTR") => "have it written with AES_GCM_V1, the default of Parquet's writers".to_owned(),
            None if text.contains("AAD prefix") => "give it in the source: `decryption: { aad_prefix: … }`".to_owned(),
            _ if self.of_dataset => {
                "the dataset's spec names where its keys lie (`sink.encryption`): is it the key of that run?".to_owned()
            }
            Some(column) => format!("check what `decryption.column_keys.{column}` names in the source"),
            None => "check what `decryption.footer_key` names in the source".to_owned(),
        };
        Error::new(Kind::Key, message).hint(hint)
    }
}

/// The columns that are encrypted, by path, in any row group.
fn locks(metadata: &ParquetMetaData) -> BTreeMap<String, Lock> {
    let columns = metadata.row_groups().iter().flat_map(|g| g.columns());
    let locked = columns.filter_map(|c| {
        Some(match c.crypto_metadata()? {
            ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY => (c.column_path().string(), Lock::Footer),
            ColumnCryptoMetaData::ENCRYPTION_WITH_COLUMN_KEY(with) => (with.path_in_schema.join("."), Lock::Column),
        })
    });
    locked.collect()
}

fn parse(tail: &Bytes, keys: Option<Arc<FileDecryptionProperties>>) -> Result<ParquetMetaData, ParquetError> {
    let decrypting = keys.is_some();
    if decrypting && tail.len() < SIGNATURE + 8 {
        return Err(ParquetError::General("it is too short".to_owned()));
    }
    let mut reader = ParquetMetaDataReader::new().with_decryption_properties(keys);
    // The library trusts the lengths in what it decrypts.
    let parsed = catch_unwind(AssertUnwindSafe(|| reader.try_parse(tail).and_then(|()| reader.finish())));
    parsed.unwrap_or_else(|_| Err(ParquetError::General("its lengths contradict each other".to_owned())))
}

fn damaged(e: ParquetError) -> Error {
    Error::input(format!("the Parquet footer cannot be read: {e}"))
}

/// The columns among those wanted that are locked, by path: a wanted name stands for all that is in it.
pub(crate) fn wanted<'a>(locked: &'a BTreeMap<String, String>, columns: &[&str]) -> Vec<(&'a String, &'a String)> {
    locked.iter().filter(|(path, _)| columns.iter().any(|name| belongs(name, path))).collect()
}
