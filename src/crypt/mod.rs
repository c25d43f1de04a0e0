//! Encryption: Parquet modular encryption of shards, and what else an encrypted dataset needs.
//!
//! ```text
//!  spec ── env:NAME, file:path ──▶ keys ─┬▶ sources, feed, verify: footers and pages are decrypted where they are read
//!                                        └▶ vault ─┬▶ shards, rejected rows: Parquet, AES-GCM
//!                                                  ├▶ staging: Parquet and records under a key of its own
//!                                                  └▶ report, manifest: what may be shown of which column
//! ```
//!
//! # Keys
//!
//! A spec names where a key lies, never the key: `env:NAME` is an environment variable, `file:path` a file. Relative paths start from the spec's
//! folder; where only a dataset is at hand (`feed`, `apply`, `verify`), from the current folder. What lies there is a key of 16 bytes (AES-128) or 32
//! bytes (AES-256), read as the first of these that fits; line breaks and spaces around a text do not count:
//!
//! 1. **hex**: 32 or 64 hex digits;
//! 2. **base64**, with the standard or the URL alphabet: 24 or 44 characters, or 22 or 43 without padding;
//! 3. **as it is**: exactly 16 or 32 bytes. Text of 32 characters that may as well be the base64 of 24 bytes is refused: write it in hex.
//!
//! Parquet knows keys of 24 bytes (AES-192) too, the library beneath Feedline does not: they are refused. So are files of the algorithm
//! AES_GCM_CTR_V1.
//!
//! # What is encrypted
//!
//! - **Shards**: every column under the footer key, or those under `column_keys` alone, each under its own (then the others are not encrypted).
//! - **Rejected rows**: every column; those without a key of their own under the footer key. The text of lines that could not be read belongs to no
//!   column: beside column keys it is left out.
//! - **Staging** (reshaped segments, files read from JSON Lines, CSV and Arrow IPC, profiles, fits): under a key made from all keys together,
//!   `SHA-256(label ‖ every key)`, so that nobody reads it who could not read every column. Verdicts (numbers of rows) are not encrypted.
//! - **Not encrypted**: what DataFusion spills while it sorts and joins. That lies in `resources.spill` on the machine that runs,
//!   and is removed with the run: let that folder lie on an encrypted disk. Names of columns, paths, numbers of rows and bytes stand in the manifest.
//!
//! # What may be shown
//!
//! The manifest and the report lie beside the data in the clear. Of a column that is not stored in the clear under its name ([`Vault::shows`]) they
//! hold counts alone: rows, nulls, distinct values. Fitted statistics are the exception: `feedline apply` needs them, so a fit that looks at such a
//! column stands in the manifest, and a run warns of it.
//!
//! # Hashes
//!
//! Nonces are random, so that the bytes of an encrypted shard differ from run to run. A version's hash therefore covers the rows ([`RowsHash`]); the
//! file's own SHA-256 stands beside it in the manifest, where `feedline verify` checks it without a key. With keys, `feedline verify --rows`
//! hashes the rows again.

mod key;
mod read;
mod rows;
mod vault;

pub use key::Key;
pub(crate) use read::{ENCRYPTED, wanted};
pub use read::{FileKeys, Opened};
pub use rows::RowsHash;
pub(crate) use vault::belongs;
pub use vault::{Vault, unknown_columns};

use std::path::Path;

use crate::dataset::Manifest;
use crate::error::{Mistake, Result};
use crate::spec::Loaded;
use crate::spec::pipeline::EncryptionSpec;

/// Looks for every key that a spec names.
///
/// # Errors
/// `Spec` with every key that is not there or is none, each at its place.
pub fn check(loaded: &Loaded, base: &Path) -> Result<()> {
    let sources = loaded.pipeline.sources.iter().filter_map(|(name, s)| Some((name, s.decryption.as_ref()?)));
    let mut mistakes: Vec<Mistake> =
        sources.flat_map(|(name, keys)| FileKeys::of_source(keys, base).mistakes(&format!("/sources/{name}/decryption"))).collect();
    if let Some(keys) = &loaded.pipeline.sink.encryption {
        mistakes.extend(FileKeys::of_sink(keys, base).mistakes("/sink/encryption"));
    }
    if mistakes.is_empty() { Ok(()) } else { Err(loaded.source.errors(mistakes).into()) }
}

/// How a version is encrypted, where it is.
pub fn encryption_of(manifest: &Manifest) -> Option<EncryptionSpec> {
    serde_json::from_value(manifest.spec.pointer("/sink/encryption")?.clone()).ok()
}
