//! A spec on the command line.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Error, Result};
use crate::spec::{self, Loaded, SpecErrors};

/// A spec, with values given beside it.
#[derive(Debug, Clone, Args)]
pub struct SpecArgs {
    /// The pipeline's YAML file, or `-` for stdin.
    #[arg(value_name = "PIPELINE")]
    pub path: PathBuf,
    /// Set a value in the spec, for example `vars.raw=/data/raw` or `stages.2.dedup.keep=last` (list entries count from 0); may be
    /// repeated.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

/// A spec's text.
#[derive(Debug, Clone)]
pub struct SpecText {
    /// The YAML.
    pub text: String,
    /// Its name in messages.
    pub name: String,
    /// The folder that relative paths in it start from: the spec's own, or the current one where the spec comes from stdin.
    pub base: PathBuf,
}

/// A spec that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The spec.
    pub loaded: Loaded,
    /// The folder that relative paths in it start from.
    pub base: PathBuf,
}

/// More than any spec has: what is larger is some other file, and is not read whole.
const MOST_BYTES: u64 = 4 << 20;

impl SpecArgs {
    /// Reads and checks the spec; variables come from the process's environment.
    ///
    /// # Errors
    /// `Usage` where there is no such file, `Spec` with every mistake in it.
    pub fn open(&self) -> Result<Opened> {
        let text = self.read()?;
        let loaded = self.load(&text)?;
        Ok(Opened { loaded, base: text.base })
    }

    /// Checks the spec's text.
    pub fn load(&self, spec: &SpecText) -> std::result::Result<Loaded, SpecErrors> {
        spec::load(&spec.text, &spec.name, &self.set, &|name| std::env::var(name).ok())
    }

    /// Reads the spec's text.
    pub fn read(&self) -> Result<SpecText> {
        let mut bytes = Vec::new();
        let (name, base) = if self.path == Path::new("-") {
            std::io::stdin().lock().take(MOST_BYTES).read_to_end(&mut bytes)?;
            ("<stdin>".to_owned(), PathBuf::from("."))
        } else {
            let name = self.path.display().to_string();
            read_file(&self.path, &mut bytes).map_err(|e| unreadable(&e, &name))?;
            (name, folder(&self.path))
        };
        let text = String::from_utf8(bytes).map_err(|e| {
            let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
            Error::spec("the spec is not UTF-8 text").at(format!("{name}:{line}")).hint("save it as UTF-8; is it the right file?")
        })?;
        Ok(SpecText { text, name, base })
    }
}

fn read_file(path: &Path, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    std::fs::File::open(path)?.take(MOST_BYTES).read_to_end(bytes)?;
    Ok(())
}

fn unreadable(e: &std::io::Error, name: &str) -> Error {
    let hint = match e.kind() {
        std::io::ErrorKind::NotFound => "give the path of a pipeline's YAML file; `feedline quickstart` writes one",
        std::io::ErrorKind::IsADirectory => "give the YAML file in it",
        _ => "give the user who runs Feedline access to it",
    };
    Error::usage(format!("cannot read the spec: {e}")).at(name).hint(hint)
}

/// The folder a file lies in.
fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// `path=value`, split at the first `=` outside of double quotes.
fn assignment(text: &str) -> Result<(String, String), String> {
    let mut quoted = false;
    let at = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '=' && !quoted
    });
    match at {
        Some((at, _)) if at > 0 => Ok((text[..at].to_owned(), text[at + 1..].to_owned())),
        _ => Err("write `path=value`, for example `seed=8` or `vars.raw=data/raw`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_split_at_the_first_equals_sign() {
        let of = |text: &str| assignment(text).ok();
        assert_eq!(of("a.b=c=d"), Some(("a.b".to_owned(), "c=d".to_owned())));
        assert_eq!(of("a.\"x=y\"=1"), Some(("a.\"x=y\"".to_owned(), "1".to_owned())));
        assert_eq!(of("a="), Some(("a".to_owned(), String::new())));
        assert_eq!((of("=a"), of("a"), of("")), (None, None, None));
    }

    #[test]
    fn relative_paths_start_from_the_specs_folder() {
        assert_eq!(folder(Path::new("a/b.yaml")), Path::new("a"));
        assert_eq!(folder(Path::new("b.yaml")), Path::new("."));
        assert_eq!(folder(Path::new("/b.yaml")), Path::new("/"));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &Path| SpecArgs { path: path.to_owned(), set: Vec::new() }.read();
        assert_eq!(read(&dir.path().join("none.yaml")).unwrap_err().exit_code(), 64);
        assert_eq!(read(dir.path()).unwrap_err().exit_code(), 64);
        let file = dir.path().join("bad.yaml");
        std::fs::write(&file, b"a: 1\nb: \xff\n").unwrap();
        let e = read(&file).unwrap_err();
        assert_eq!(e.exit_code(), 78);
        assert!(e.place().unwrap().ends_with("bad.yaml:2"));
    }
}
