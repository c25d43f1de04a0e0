//! A URI with a folder or a glob to the list of shards below it.

use std::path::Path as FsPath;

use globset::{GlobBuilder, GlobMatcher};

use crate::error::{Error, Result};
use crate::spec::pipeline::{Format, SourceSpec};
use crate::spec::stores::Stores;
use crate::storage::Location;

/// A shard that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The path below the source's root: the same wherever the data lies.
    pub path: String,
    /// Where it is.
    pub location: Location,
    /// Size in bytes.
    pub bytes: u64,
    /// What tells a changed object: ETag, or time of change.
    pub stamp: String,
    /// The ETag, where the store gives one: reads are of this object and no other.
    pub e_tag: Option<String>,
    /// Its format.
    pub format: Format,
    /// `gz` or `zst` where the ending says so.
    pub packed: Option<&'static str>,
}

impl Found {
    /// A Parquet file of our own that is known to be there.
    pub fn own(path: impl Into<String>, location: Location, bytes: u64) -> Self {
        Self { path: path.into(), location, bytes, stamp: String::new(), e_tag: None, format: Format::Parquet, packed: None }
    }
}

/// All shards of a source, ordered by path. `base` is the folder that relative paths start from, `stores` says how stores are reached.
pub async fn discover(name: &str, spec: &SourceSpec, base: &FsPath, stores: &Stores) -> Result<Vec<Found>> {
    let (root_uri, pattern) = split_glob(&spec.uri);
    let root = Location::open_with(root_uri, base, stores).map_err(Error::in_spec)?;
    let place = || format!("source `{name}`: {}", root.display());
    if let Some(local) = &root.local
        && !local.exists()
    {
        return Err(Error::input("there is no such file or folder").at(place()).hint("check `uri`, and that the data is mounted here"));
    }
    if pattern.is_none()
        && root.local.as_ref().is_some_and(|l| !l.is_dir())
        && let Some(one) = single(&root, spec, &place).await?
    {
        return Ok(vec![one]);
    }
    readable(&root).map_err(|e| e.at(place()))?;
    let matcher = pattern.map(|p| glob(p, name)).transpose()?;
    let mut shards = Vec::new();
    let (mut seen, mut other) = (0_usize, None);
    let listed = root.list().await.map_err(|e| e.within(format!("source `{name}`")))?;
    // In a store, whether a path is an object or a folder shows by what lies below it. A listing also tells in words what is wrong with the keys.
    if listed.is_empty()
        && pattern.is_none()
        && root.local.is_none()
        && let Some(one) = single(&root, spec, &place).await?
    {
        return Ok(vec![one]);
    }
    for meta in listed {
        let Some(path) = below(&root, &meta.location) else { continue };
        if is_hidden(&path) {
            continue;
        }
        seen += 1;
        let fits = matcher.as_ref().is_none_or(|m| m.is_match(&path));
        match (fits, spec.format.or(format_of(&path).map(|f| f.0))) {
            (true, Some(format)) => shards.push(found(path.clone(), root.child(&path), &meta, format)),
            // An explicit pattern that matches a file of no known format is a mistake; in a folder such files are merely beside the data.
            (true, None) if matcher.is_some() => {
                return Err(Error::input(format!("`{path}` has an ending that names no format"))
                    .at(place())
                    .hint("set `format:` in the source"));
            }
            _ => other = other.or(Some(path)),
        }
    }
    if shards.is_empty() {
        let hint = match other {
            Some(path) => format!("{seen} files lie here, none fits, for example `{path}`"),
            None if root.local.is_some() => "the folder is empty".to_owned(),
            // A store has no folders: an empty one and one that is not there look the same.
            None => "nothing lies below this path: check it, and that the data was written there".to_owned(),
        };
        return Err(Error::input("no shards found").at(place()).hint(hint));
    }
    one_format(&shards).map_err(|e| e.at(place()))?;
    Ok(shards)
}

/// The one object that a path without a glob names.
async fn single(root: &Location, spec: &SourceSpec, place: &impl Fn() -> String) -> Result<Option<Found>> {
    let Some(meta) = root.head().await? else { return Ok(None) };
    let file = root.path.filename().unwrap_or_default().to_owned();
    let format = spec.format.or(format_of(&file).map(|f| f.0)).ok_or_else(|| {
        Error::input("the file's ending names no format that Feedline reads").at(place()).hint("set `format:` in the source")
    })?;
    Ok(Some(found(file, root.clone(), &meta, format)))
}

fn found(path: String, location: Location, meta: &object_store::ObjectMeta, format: Format) -> Found {
    let stamp = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.timestamp_micros().to_string());
    let packed = format_of(&path).and_then(|f| f.1);
    Found { path, location, bytes: meta.size, stamp, e_tag: meta.e_tag.clone(), format, packed }
}

/// A listing leaves out folders it may not read; here that is an error.
fn readable(root: &Location) -> Result<()> {
    fn check(folder: &FsPath) -> Result<()> {
        let entries = std::fs::read_dir(folder).map_err(|e| {
            Error::storage(format!("cannot read the folder {}: {e}", folder.display())).hint("give the user who runs Feedline access to it")
        })?;
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                check(&entry.path())?;
            }
        }
        Ok(())
    }
    root.local.as_deref().filter(|l| l.is_dir()).map_or(Ok(()), check)
}

fn one_format(shards: &[Found]) -> Result<()> {
    match shards.iter().find(|s| s.format != shards[0].format) {
        None => Ok(()),
        Some(odd) => Err(Error::input(format!("`{}` and `{}` have different formats", shards[0].path, odd.path))
            .hint("give each format a source of its own and put them together with `concat`")),
    }
}

/// The part of a URI before its first glob character, and the pattern from there on.
fn split_glob(uri: &str) -> (&str, Option<&str>) {
    match uri.find(['*', '?', '[', '{']) {
        None => (uri, None),
        Some(at) => match uri[..at].rfind('/') {
            // The root of a disk, or of a bucket, keeps its slash.
            Some(slash) if slash == 0 || uri[..slash].ends_with('/') => (&uri[..slash + 1], Some(&uri[slash + 1..])),
            Some(slash) => (&uri[..slash], Some(&uri[slash + 1..])),
            None => (".", Some(uri)),
        },
    }
}

fn glob(pattern: &str, name: &str) -> Result<GlobMatcher> {
    let built = GlobBuilder::new(pattern).literal_separator(true).build();
    built.map(|g| g.compile_matcher()).map_err(|e| {
        Error::spec(format!("the glob `{pattern}` is wrong: {}", e.kind()))
            .at(format!("source `{name}`"))
            .hint("close each `[` and `{`; to mean one literally write `[[]` or `[{]`")
    })
}

/// The path of an object below a root, or `None` for one that is not below it.
fn below(root: &Location, path: &object_store::path::Path) -> Option<String> {
    let parts: Vec<_> = path.prefix_match(&root.path)?.map(|p| p.as_ref().to_owned()).collect();
    Some(parts.join("/"))
}

/// Files and folders that begin with `_` or `.` are other tools' bookkeeping, by the convention of Hive and Spark; `key=value` folders are not.
fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.') || (part.starts_with('_') && !part.contains('=')))
}

/// The format and packing that a file's ending names.
fn format_of(path: &str) -> Option<(Format, Option<&'static str>)> {
    let lower = path.to_lowercase();
    let (stem, packed) = if let Some(stem) = lower.strip_suffix(".gz") {
        (stem, Some("gz"))
    } else if let Some(stem) = lower.strip_suffix(".zst") {
        (stem, Some("zst"))
    } else {
        (lower.as_str(), None)
    };
    let format = match stem.rsplit('.').next()? {
        "parquet" | "pq" if packed.is_none() => Format::Parquet,
        "jsonl" | "ndjson" | "json" => Format::Jsonl,
        "csv" => Format::Csv,
        "arrow" | "feather" | "ipc" if packed.is_none() => Format::Arrow,
        _ => return None,
    };
    Some((format, packed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_split_at_the_first_special_part() {
        assert_eq!(split_glob("data/**/*.parquet"), ("data", Some("**/*.parquet")));
        assert_eq!(split_glob("*.csv"), (".", Some("*.csv")));
        assert_eq!(split_glob("/x*"), ("/", Some("x*")));
        assert_eq!(split_glob("s3://b/*.parquet"), ("s3://b", Some("*.parquet")));
        assert_eq!(split_glob("hdfs:///*.parquet"), ("hdfs:///", Some("*.parquet")));
        assert_eq!(split_glob("a/b.parquet"), ("a/b.parquet", None));
    }

    #[test]
    fn endings_name_formats() {
        assert_eq!(format_of("a/B.Parquet"), Some((Format::Parquet, None)));
        assert_eq!(format_of("x.jsonl.zst"), Some((Format::Jsonl, Some("zst"))));
        assert_eq!(format_of("x.parquet.gz"), None);
        assert_eq!(format_of("README.md"), None);
    }

    #[test]
    fn bookkeeping_is_hidden() {
        assert!(is_hidden("_SUCCESS") && is_hidden("a/.crc") && is_hidden("_feedline/x.parquet"));
        assert!(!is_hidden("_year=2013/x.parquet"));
    }
}
