//! What a run that writes an encrypted dataset keeps to itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::encryption::encrypt::FileEncryptionProperties;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use super::{FileKeys, Key};
use crate::error::{Error, Kind, Mistake, Result, nearest};
use crate::sink::shard::plain;
use crate::spec::join;
use crate::spec::pipeline::EncryptionSpec;

/// What sealed records of staging begin with, and are bound to.
const SEALED: &[u8] = b"feedline-sealed/v1";

/// The keys of the dataset that is written, where it is encrypted, and what may be shown of which column. One that is not encrypted has
/// an empty vault, which lets everything pass.
#[derive(Debug, Clone, Default)]
pub struct Vault {
    lock: Option<Lock>,
    /// Columns that the dataset stores in the clear.
    clear: BTreeSet<String>,
    /// Columns that came encrypted.
    came_encrypted: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Lock {
    footer: Key,
    columns: Vec<(String, Key)>,
    plaintext_footer: bool,
    staging: Key,
}

impl Vault {
    /// The vault of a sink; relative paths to keys start from `base`.
    ///
    /// # Errors
    /// `Key` where a key is not at hand.
    pub fn open(spec: Option<&EncryptionSpec>, base: &Path) -> Result<Self> {
        let Some(spec) = spec else { return Ok(Self::default()) };
        let fetch = |at| {
            Key::fetch(at, base).map_err(|why| {
                Error::new(Kind::Key, format!("the dataset is encrypted, and {why}"))
                    .hint("set what `sink.encryption` names: a key of 16 or 32 bytes, in hex, in base64 or as they are")
            })
        };
        let footer = fetch(&spec.footer_key)?;
        let columns = spec.column_keys.iter().map(|(name, at)| Ok((name.clone(), fetch(at)?))).collect::<Result<Vec<_>>>()?;
        let staging = staging_key(&footer, &columns);
        let lock = Lock { footer, columns, plaintext_footer: spec.plaintext_footer, staging };
        Ok(Self { lock: Some(lock), ..Self::default() })
    }

    /// The vault once it is known what columns come out, and which came encrypted.
    pub fn knowing(mut self, output: &Schema, came_encrypted: impl IntoIterator<Item = String>) -> Self {
        let has_key = |name: &str| self.lock.iter().flat_map(|l| &l.columns).any(|(key, _)| belongs(key, name) || belongs(name, key));
        let in_clear = |name: &str| self.lock.as_ref().is_none_or(|l| !l.columns.is_empty()) && !has_key(name);
        self.clear = output.fields().iter().map(|f| f.name().clone()).filter(|name| in_clear(name)).collect();
        self.came_encrypted = came_encrypted.into_iter().collect();
        self
    }

    /// Whether the dataset is encrypted.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Columns that came encrypted and go out in the clear, in order.
    pub fn laid_open(&self) -> impl Iterator<Item = &str> {
        self.came_encrypted.iter().map(String::as_str).filter(|name| self.clear.contains(*name))
    }

    /// Whether values of a column of this name, at whatever step, may stand in a report or manifest: where nothing is encrypted, or the dataset
    /// stores a column of the name in the clear.
    pub fn shows(&self, column: &str) -> bool {
        let touched = self.is_locked() || self.came_encrypted.contains(column);
        !touched || self.clear.contains(column)
    }

    /// What tells the keys of one run from those of another, for names in staging. Nothing can be learned from it.
    pub fn mark(&self) -> Option<String> {
        let lock = self.lock.as_ref()?;
        let mut hash = Sha256::new_with_prefix("feedline-staging-mark/v1");
        hash.update(lock.staging.bytes());
        Some(hex::encode(hash.finalize())[..16].to_owned())
    }

    /// How shards with these columns are encrypted.
    ///
    /// # Errors
    /// `Internal` for a column that [`unknown_columns`] would have found.
    pub fn of_shards(&self, schema: &SchemaRef) -> Result<Option<Arc<FileEncryptionProperties>>> {
        let Some(lock) = &self.lock else { return Ok(None) };
        let mut properties = FileEncryptionProperties::builder(lock.footer.bytes().to_vec()).with_plaintext_footer(lock.plaintext_footer);
        let leaves = leaves(schema)?;
        for (name, key) in &lock.columns {
            for leaf in leaves.iter().filter(|leaf| belongs(name, leaf)) {
                properties = properties.with_column_key(leaf, key.bytes().to_vec());
            }
        }
        Ok(Some(properties.build()?))
    }

    /// How files of rejected rows are encrypted: every column, those without a key of their own under the footer key.
    ///
    /// # Errors
    /// Where Parquet lacks a column's type.
    pub fn of_rejected(&self, schema: &SchemaRef) -> Result<Option<Arc<FileEncryptionProperties>>> {
        let Some(lock) = &self.lock else { return Ok(None) };
        let mut properties = FileEncryptionProperties::builder(lock.footer.bytes().to_vec());
        if !lock.columns.is_empty() {
            for leaf in leaves(schema)? {
                let own = lock.columns.iter().find(|(name, _)| belongs(name, &leaf));
                properties = properties.with_column_key(&leaf, own.map_or(&lock.footer, |(_, key)| key).bytes().to_vec());
            }
        }
        Ok(Some(properties.build()?))
    }

    /// Whether the text of a rejected line may be kept: it belongs to no column, so only where one key is for all.
    pub fn keeps_lines(&self) -> bool {
        self.lock.as_ref().is_none_or(|l| l.columns.is_empty())
    }

    /// How Parquet in staging is encrypted.
    ///
    /// # Errors
    /// None that input can bring about.
    pub fn of_staging(&self) -> Result<Option<Arc<FileEncryptionProperties>>> {
        let Some(lock) = &self.lock else { return Ok(None) };
        Ok(Some(FileEncryptionProperties::builder(lock.staging.bytes().to_vec()).build()?))
    }

    /// The keys of shards.
    pub fn shard_keys(&self) -> FileKeys {
        self.lock.as_ref().map_or_else(FileKeys::default, |l| FileKeys::of(l.footer.clone(), l.columns.clone()))
    }

    /// The keys of Parquet in staging.
    pub fn staging_keys(&self) -> FileKeys {
        self.lock.as_ref().map_or_else(FileKeys::default, |l| FileKeys::of(l.staging.clone(), Vec::new()))
    }

    /// A record for staging, encrypted where the dataset is: AES-256-GCM, a random nonce first.
    ///
    /// # Errors
    /// `Internal` where the system gives no random bytes.
    pub fn seal(&self, mut record: Vec<u8>) -> Result<Vec<u8>> {
        let Some(lock) = &self.lock else { return Ok(record) };
        let failed = |_| Error::internal("a record could not be encrypted");
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        cipher(lock)?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(SEALED), &mut record).map_err(failed)?;
        Ok([SEALED, &nonce, &record].concat())
    }

    /// A record out of staging.
    ///
    /// # Errors
    /// `Storage` where it is damaged, or was sealed by another key.
    pub fn unseal(&self, record: &[u8]) -> Result<Vec<u8>> {
        let Some(lock) = &self.lock else { return Ok(record.to_vec()) };
        let damaged = || Error::storage("a record in staging cannot be decrypted").hint("remove the staging folder and run again");
        let sealed = record.strip_prefix(SEALED).ok_or_else(damaged)?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let mut record = sealed.to_vec();
        let opened = cipher(lock)?.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(SEALED), &mut record);
        let length = opened.map_err(|_| damaged())?.len();
        record.truncate(length);
        Ok(record)
    }
}

/// A mistake for each key of a sink whose column does not come out.
pub fn unknown_columns(spec: &EncryptionSpec, output: &SchemaRef) -> Result<Vec<Mistake>> {
    let leaves = leaves(output)?;
    let known = |name: &str| leaves.iter().any(|leaf| belongs(name, leaf));
    let unknown = spec.column_keys.keys().filter(|name| !known(name));
    let names = || output.fields().iter().map(|f| f.name().as_str());
    let mistake = |name: &String| {
        Mistake::new(join("/sink/encryption/column_keys", name), format!("no column `{name}` comes out")).help(nearest(name, names()))
    };
    Ok(unknown.map(mistake).collect())
}

/// Whether a leaf of a schema is the column of a name or a part of it.
pub(crate) fn belongs(name: &str, leaf: &str) -> bool {
    leaf.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The paths of all leaves in the Parquet schema.
fn leaves(schema: &SchemaRef) -> Result<Vec<String>> {
    let schema = ArrowSchemaConverter::new().convert(&plain(schema))?;
    Ok(schema.columns().iter().map(|c| c.path().string()).collect())
}

fn cipher(lock: &Lock) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, lock.staging.bytes()).map_err(|_| Error::internal("the staging key has another size"))?;
    Ok(LessSafeKey::new(key))
}

/// A key that only who has all keys can make.
fn staging_key(footer: &Key, columns: &[(String, Key)]) -> Key {
    let mut keys: Vec<(&str, &Key)> = columns.iter().map(|(name, key)| (name.as_str(), key)).collect();
    keys.sort_unstable_by_key(|(name, _)| *name);
    let mut hash = Sha256::new_with_prefix("feedline-staging-key/v1");
    for (name, key) in std::iter::once(("", footer)).chain(keys) {
        for part in [name.as_bytes(), key.bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Key::of(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn vault(columns: &[(&str, u8)]) -> Vault {
        let columns: Vec<(String, Key)> = columns.iter().map(|(name, key)| ((*name).to_owned(), Key::of([*key; 32]))).collect();
        let footer = Key::of([1; 32]);
        let staging = staging_key(&footer, &columns);
        Vault { lock: Some(Lock { footer, columns, plaintext_footer: false, staging }), ..Vault::default() }
    }

    fn schema() -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8View, true);
        let place = DataType::Struct(vec![text("city"), text("zip")].into());
        Arc::new(Schema::new(vec![text("id"), text("ssn"), Field::new("place", place, true)]))
    }

    #[test]
    fn records_come_back_from_the_same_keys_alone() {
        let (a, b) = (vault(&[("ssn", 2)]), vault(&[("ssn", 3)]));
        let sealed = a.seal(b"MARKER".to_vec()).unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"MARKER"));
        assert_ne!(sealed, a.seal(b"MARKER".to_vec()).unwrap(), "a nonce is used once");
        assert_eq!(a.unseal(&sealed).unwrap(), b"MARKER");
        assert_eq!(b.unseal(&sealed).unwrap_err().kind(), Kind::Storage);
        for damaged in [&sealed[..sealed.len() - 1], &sealed[..20], b"", b"plain"] {
            assert!(a.unseal(damaged).is_err());
        }
        let open = Vault::default();
        assert_eq!(open.unseal(&open.seal(b"x".to_vec()).unwrap()).unwrap(), b"x");
        assert!(a.mark() != b.mark() && open.mark().is_none());
    }

    #[test]
    fn only_what_is_stored_in_the_clear_is_shown() {
        let shown = |vault: Vault, came: &[&str]| {
            let vault = vault.knowing(&schema(), came.iter().map(|c| (*c).to_owned()));
            ["id", "ssn", "place", "gone"].into_iter().filter(|c| vault.shows(c)).collect::<Vec<_>>()
        };
        assert_eq!(shown(Vault::default(), &[]), ["id", "ssn", "place", "gone"]);
        // What came encrypted and was dropped is nobody's business; what the dataset holds in the clear is.
        assert_eq!(shown(Vault::default(), &["ssn", "gone"]), ["id", "ssn", "place"]);
        assert_eq!(shown(vault(&[]), &[]), Vec::<&str>::new());
        assert_eq!(shown(vault(&[("ssn", 2), ("place.zip", 2)]), &[]), ["id"]);
    }

    #[test]
    fn a_column_stands_for_all_of_its_parts() {
        let of = |columns: &[(&str, u8)]| {
            let (mut names, _, _) = vault(columns).of_shards(&schema()).unwrap().unwrap().column_keys();
            names.sort();
            names
        };
        assert_eq!(of(&[("place", 2), ("ssn", 3)]), ["place.city", "place.zip", "ssn"]);
        assert_eq!(of(&[("place.zip", 2)]), ["place.zip"]);
        let (names, _, _) = vault(&[("ssn", 2)]).of_rejected(&schema()).unwrap().unwrap().column_keys();
        assert_eq!(names.len(), 4, "of rejected rows every column is encrypted");
        let spec = |column: &str| EncryptionSpec {
            footer_key: crate::spec::pipeline::KeyRef("env:K".to_owned()),
            column_keys: [(column.to_owned(), crate::spec::pipeline::KeyRef("env:K".to_owned()))].into_iter().collect(),
            plaintext_footer: false,
        };
        assert!(unknown_columns(&spec("place.zip"), &schema()).unwrap().is_empty());
        let mistakes = unknown_columns(&spec("plaec"), &schema()).unwrap();
        assert_eq!(
            (mistakes[0].at.as_str(), mistakes[0].help.as_deref()),
            ("/sink/encryption/column_keys/plaec", Some("did you mean `place`?"))
        );
    }
}
