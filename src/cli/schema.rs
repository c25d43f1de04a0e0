//! `feedline schema`

use clap::Args;

use super::print;
use crate::error::Result;
use crate::spec::json_schema_text;

/// Options of `feedline schema`.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "Examples:
  feedline schema > schemas/pipeline.schema.json

Editors with yaml-language-server then complete and check a spec that begins with:
  # yaml-language-server: $schema=schemas/pipeline.schema.json")]
pub struct SchemaArgs {}

pub(super) fn run(_: SchemaArgs) -> Result<u8> {
    print(&json_schema_text())?;
    Ok(0)
}
