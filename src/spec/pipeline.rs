//! The typed pipeline: what a spec says once variables are resolved. Doc comments here become the reference and the JSON Schema.

use bytesize::ByteSize;
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::stores::Stores;

/// A whole pipeline: where raw shards lie, what happens to them, where the result goes and how a trainer reads it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pipeline {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// The pipeline's name: letters, digits, `-` and `_`.
    pub name: String,
    /// What the pipeline is for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Values that `${name}` stands for elsewhere in the spec; `--set vars.name=value` overrides them.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub vars: IndexMap<String, serde_json::Value>,
    /// Where rows come from. The first source flows through the stages; the others are side inputs of `join`, `concat` and `sql`.
    pub sources: IndexMap<String, SourceSpec>,
    /// What happens to the rows, in order: each entry is one stage's name with its options.
    #[serde(default)]
    pub stages: Vec<serde_json::Value>,
    /// Where the dataset goes.
    pub sink: SinkSpec,
    /// How a trainer reads the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<FeedSpec>,
    /// What the quality report holds.
    #[serde(default)]
    pub report: ReportSpec,
    /// What happens to rejected rows.
    #[serde(default)]
    pub quarantine: QuarantineSpec,
    /// What a run may use. Nothing here changes a byte of the result.
    #[serde(default)]
    pub resources: Resources,
    /// How stores are reached, by the beginning of their URIs (`s3://`, `s3://bucket`, `hdfs://name`). Nothing here changes a byte of the result.
    #[serde(default, skip_serializing_if = "Stores::is_empty")]
    pub stores: Stores,
    /// The seed of every random choice.
    #[serde(default)]
    pub seed: u64,
    /// Small cases that `feedline test` runs: rows in, rows out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestSpec>,
}

/// The version of the spec format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first.
    #[serde(rename = "feedline/v1")]
    V1,
}

/// One source: a set of shards.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// A file, a folder, or a glob such as `data/**/*.parquet`; hive-style folders (`month=01/`) become columns.
    pub uri: String,
    /// The shards' format; by default what the file's ending says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What to do with a shard that cannot be read.
    #[serde(default)]
    pub on_bad_shard: OnBadShard,
    /// Types of columns, for formats that have none (JSON Lines, CSV): `int64`, `float64`, `utf8`, `boolean`, `date`, `timestamp`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub columns: IndexMap<String, ColumnType>,
    /// Read `key=value` folders as columns.
    #[serde(default = "yes")]
    pub hive: bool,
    /// CSV only: the byte between fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// CSV only: whether the first line names the columns.
    #[serde(default = "yes")]
    pub header: bool,
    /// Parquet only: the keys of encrypted shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decryption: Option<DecryptionSpec>,
}

/// Where a key lies: `env:NAME` (an environment variable) or `file:path`. Never the key itself. What lies there is a key of 16 or 32 bytes
/// (AES-128, AES-256) in hex, in base64, or as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KeyRef(#[schemars(regex(pattern = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$"))] pub String);

/// The keys with which a source's encrypted shards are read (Parquet modular encryption). Shards that are not encrypted are read as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecryptionSpec {
    /// Where the footer key lies: `env:NAME` or `file:path`. Files with a plaintext footer and keys for each encrypted column do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer_key: Option<KeyRef>,
    /// Columns that have keys of their own, and where those lie. A column of structs or lists stands for all that is in it; one of its
    /// parts is named by its path in the Parquet schema, such as `address.street`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub column_keys: IndexMap<String, KeyRef>,
    /// The AAD prefix with which the files were written, where they do not store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad_prefix: Option<String>,
}

/// How the dataset is encrypted (Parquet modular encryption, AES-GCM). With a footer key alone every column is encrypted under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptionSpec {
    /// Where the footer key lies: `env:NAME` or `file:path`.
    pub footer_key: KeyRef,
    /// Columns that have keys of their own, and where those lie. Where there are any, all other columns are **not** encrypted.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub column_keys: IndexMap<String, KeyRef>,
    /// Leave footers readable, signed with the footer key: readers without keys see the schema and the columns that are not encrypted.
    #[serde(default)]
    pub plaintext_footer: bool,
}

/// A column's type as a spec writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Whole numbers of 8 bits.
    Int8,
    /// Whole numbers of 16 bits.
    Int16,
    /// Whole numbers of 32 bits.
    Int32,
    /// Whole numbers of 64 bits.
    Int64,
    /// Whole numbers of 8 bits, from 0.
    Uint8,
    /// Whole numbers of 16 bits, from 0.
    Uint16,
    /// Whole numbers of 32 bits, from 0.
    Uint32,
    /// Whole numbers of 64 bits, from 0.
    Uint64,
    /// Floating point of 32 bits.
    Float32,
    /// Floating point of 64 bits.
    Float64,
    /// True or false.
    Boolean,
    /// Text in UTF-8.
    Utf8,
    /// A day.
    Date,
    /// A moment, in microseconds, without a zone.
    Timestamp,
}

/// The format of a source's shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// One JSON object a line (`.jsonl`, `.ndjson`), plain or as `.gz` or `.zst`.
    Jsonl,
    /// Comma-separated values, plain or as `.gz` or `.zst`.
    Csv,
    /// Arrow IPC files (`.arrow`, `.feather`).
    Arrow,
}

/// What to do with a shard that cannot be read. It is reported in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadShard {
    /// Stop the run before anything is read.
    #[default]
    Fail,
    /// Leave it out, and say so in the manifest and the report.
    Skip,
    /// Leave it out, and list it in the version's quarantine with the reason.
    Quarantine,
}

/// Where the dataset goes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkSpec {
    /// The dataset's folder.
    pub uri: String,
    /// About how large a shard becomes on disk. Shards are cut at unit borders and by rows, the same on every machine.
    #[serde(default = "default_shard_bytes")]
    #[schemars(schema_with = "byte_size")]
    pub shard_bytes: ByteSize,
    /// Parquet compression.
    #[serde(default)]
    pub compression: Compression,
    /// Level of `zstd` (1 to 22).
    #[serde(default = "default_zstd_level")]
    #[schemars(range(min = 1, max = 22))]
    pub compression_level: i32,
    /// Rows in a row group of a shard.
    #[serde(default = "default_row_group_rows")]
    #[schemars(range(min = 1))]
    pub row_group_rows: usize,
    /// Encrypt the dataset: its shards, rejected rows and everything in staging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
}

/// Parquet compression of the shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard.
    #[default]
    Zstd,
    /// LZ4 (raw blocks): faster to read, larger.
    Lz4,
    /// Snappy.
    Snappy,
    /// None.
    None,
}

/// How a trainer reads the dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedSpec {
    /// Rows in a batch.
    #[serde(default = "default_batch_rows")]
    #[schemars(range(min = 1))]
    pub batch_rows: usize,
    /// Numeric columns that become one contiguous matrix, in this order. Without it all columns are given as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// The column that is learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Further columns to hand out beside the matrix, as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// A column with lists of token ids, padded or packed to `tokens.length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensSpec>,
    /// The order of rows in an epoch.
    #[serde(default)]
    pub shuffle: Shuffle,
    /// The number type of the matrix.
    #[serde(default)]
    pub dtype: Dtype,
    /// Leave out the last batch of an epoch where it has fewer rows.
    #[serde(default)]
    pub drop_last: bool,
}

/// Token columns of variable length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokensSpec {
    /// A column of lists of integers.
    pub column: String,
    /// Tokens in a row of the batch.
    pub length: usize,
    /// Pad each row, or pack rows one after another.
    #[serde(default)]
    pub mode: TokensMode,
    /// The id that fills what is left.
    #[serde(default)]
    pub pad_id: u32,
}

/// What happens to rows of tokens that are shorter than the batch's length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokensMode {
    /// Cut or fill each row to the length.
    #[default]
    Pad,
    /// Put rows one after another, so that nothing is wasted; positions and borders say where each begins.
    Pack,
}

/// The order of rows in an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// A new permutation of all rows each epoch: row groups first, then rows within a window of them.
    #[default]
    Global,
    /// As written.
    None,
}

/// The number type of a feature matrix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, IEEE.
    F16,
    /// 16 bits, the exponent of f32.
    Bf16,
}

/// What the quality report holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportSpec {
    /// How much of the data is profiled.
    #[serde(default)]
    pub profile: Profile,
    /// The column whose balance is shown by split; `feed.label` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Columns that identify an entity: values of it in more than one split are counted as leakage. The split's own key unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leakage_keys: Vec<String>,
}

/// How much of the data the report profiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Every row, before and after.
    #[default]
    Full,
    /// The first 8,192 rows of every 16: enough for pictures, at a small price.
    Sample,
    /// Counts only.
    Off,
}

/// What happens to rejected rows. They are counted by stage and reason in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineSpec {
    /// Keep the rejected rows, as they were in the source, with stage, reason, shard and row.
    #[serde(default)]
    pub keep_rows: bool,
}

/// What a run may use. Nothing here changes a byte of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// The budget of sorts, aggregates and joins, which spill to disk beyond it.
    #[serde(default = "default_memory")]
    #[schemars(schema_with = "byte_size")]
    pub memory: ByteSize,
    /// Threads; by default as many as there are cores.
    #[serde(default = "default_threads")]
    #[schemars(range(min = 1))]
    pub threads: usize,
    /// Rows that travel together between operators.
    #[serde(default = "default_engine_batch_rows")]
    #[schemars(range(min = 1))]
    pub batch_rows: usize,
    /// The folder for spilled data; by default the system's temporary folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spill: Option<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { memory: default_memory(), threads: default_threads(), batch_rows: default_engine_batch_rows(), spill: None }
    }
}

/// A small case: rows for each source, and what must come out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// What the case shows.
    pub name: String,
    /// Rows for each source: a list of objects, column to value.
    pub given: IndexMap<String, Vec<IndexMap<String, serde_json::Value>>>,
    /// What must come out.
    pub expect: ExpectSpec,
}

/// What a test case expects. What is left out is not checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectSpec {
    /// Rows that come out, over all splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Rows by split.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub splits: IndexMap<String, u64>,
    /// Rejected rows by stage (its name, or name#2 for the second of that name).
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub rejected: IndexMap<String, u64>,
    /// Rows that come out, in order, with at least these columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Vec<IndexMap<String, serde_json::Value>>>,
}

/// The `format` of texts that are sizes.
pub const BYTE_SIZE: &str = "byte-size";

/// The schema of a [`ByteSize`]: text such as `128MiB`, or a number of bytes. For `#[schemars(schema_with = "…")]`.
pub fn byte_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "type": "string", "format": BYTE_SIZE }, { "type": "integer", "minimum": 0 }] })
}

fn yes() -> bool {
    true
}
fn default_shard_bytes() -> ByteSize {
    ByteSize::mib(128)
}
fn default_zstd_level() -> i32 {
    3
}
fn default_row_group_rows() -> usize {
    131_072
}
fn default_batch_rows() -> usize {
    1024
}
fn default_memory() -> ByteSize {
    ByteSize::gib(2)
}
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
fn default_engine_batch_rows() -> usize {
    16_384
}
