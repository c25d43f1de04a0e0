//! The one public error: by meaning, with a place, a hint and an exit code.
//!
//! Every message answers three questions: what is wrong, where (file, row, line and column) and what to do next.
//! A spec with several mistakes is one [`Error`] that carries them all.

use std::fmt;

/// What went wrong, by meaning. The meaning fixes the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line was used wrongly (exit 64).
    Usage,
    /// The spec is wrong (exit 78).
    Spec,
    /// The data breaks its contract or a check failed (exit 1).
    Quality,
    /// An input shard or row cannot be used (exit 3).
    Input,
    /// Something is encrypted, and the keys at hand do not open it (exit 3). Never taken for damage.
    Key,
    /// A store refused or failed (exit 3).
    Storage,
    /// Another run holds the lease, or the store asks to try again (exit 75).
    Lease,
    /// A resource ran out: memory budget or disk (exit 3).
    Resources,
    /// A fault of Feedline's own (exit 3).
    Internal,
}

/// One mistake in a spec, found before anything runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mistake {
    /// JSON pointer into the spec, for example `/stages/2/dedup/keys/0`.
    pub at: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Mistake {
    /// A mistake at a JSON pointer into the spec.
    pub fn new(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at: at.into(), message: message.into(), help: None }
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same mistake below a prefix of the path: stages report places relative to their own options.
    pub fn under(mut self, prefix: &str) -> Self {
        self.at = format!("{prefix}{}", self.at);
        self
    }
}

/// The error of every public function of Feedline.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    /// The message without values of the data, where it has some.
    bare: Option<String>,
    place: Option<String>,
    row: Option<u64>,
    hint: Option<String>,
    mistakes: Option<serde_json::Value>,
    passing: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Feedline's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            bare: None,
            place: None,
            row: None,
            hint: None,
            mistakes: None,
            passing: false,
            source: None,
        }))
    }

    /// The command line was used wrongly.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The spec is wrong; the message is already complete (several mistakes are rendered by [`crate::spec`]).
    pub fn spec(message: impl Into<String>) -> Self {
        Self::new(Kind::Spec, message)
    }

    /// An input cannot be used.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// A store refused or failed.
    pub fn storage(message: impl Into<String>) -> Self {
        Self::new(Kind::Storage, message)
    }

    /// A fault of Feedline's own.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Adds where: a shard, a row, a line.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place.get_or_insert(place.into());
        self
    }

    /// Adds the row by its identity (`_row`): who knows the shards names the row's place in its own.
    pub fn at_row(mut self, identity: u64) -> Self {
        self.0.row.get_or_insert(identity);
        self
    }

    /// Adds the wider place around the one that is known: the shard around a row.
    pub fn within(mut self, wider: impl Into<String>) -> Self {
        let wider = wider.into();
        self.0.place = Some(self.0.place.take().map_or_else(|| wider.clone(), |place| format!("{place}, in {wider}")));
        self
    }

    /// The same error where the spec said what was used wrongly: a location in a spec is a mistake of the spec, not of the command line.
    pub fn in_spec(mut self) -> Self {
        if self.0.kind == Kind::Usage {
            self.0.kind = Kind::Spec;
        }
        self
    }

    /// Adds a value of the data, in words, to what is wrong.
    pub fn of_value(mut self, words: impl fmt::Display) -> Self {
        let message = format!("{}: {words}", self.0.message);
        self.0.bare = Some(std::mem::replace(&mut self.0.message, message));
        self
    }

    /// The same error without values of the data, for messages about encrypted data.
    pub fn withheld(mut self) -> Self {
        if let Some(bare) = self.0.bare.take() {
            self.0.message = format!("{bare} (the data is encrypted: no value is shown)");
            self.0.source = None;
        }
        self
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    /// Adds the spec's mistakes one by one, as a JSON list: the message shows them to people, this to programs.
    pub fn mistaken(mut self, mistakes: serde_json::Value) -> Self {
        self.0.mistakes = Some(mistakes);
        self
    }

    /// Adds the cause.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says whether the same work may succeed a little later.
    pub(crate) fn passing(mut self, passing: bool) -> Self {
        self.0.passing = passing;
        self
    }

    /// Whether the same work may succeed a little later: a store failed for a passing reason, and nobody below has tried again until time was up.
    pub fn is_passing(&self) -> bool {
        self.0.passing
    }

    /// What it means.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What is wrong, without place and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What is wrong in a line; the message of a spec's mistakes shows them all below it.
    pub fn summary(&self) -> &str {
        match &self.0.mistakes {
            Some(_) => self.message().lines().next().unwrap_or_default(),
            None => self.message(),
        }
    }

    /// The spec's mistakes one by one, where that is what is wrong: a JSON list as [`SpecErrors::to_json`](crate::spec::SpecErrors::to_json) gives it.
    pub fn mistakes(&self) -> Option<&serde_json::Value> {
        self.0.mistakes.as_ref()
    }

    /// Where it is wrong.
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// The identity of the row, where one is to blame.
    pub fn row(&self) -> Option<u64> {
        self.0.row
    }

    /// What to do next.
    pub fn to_do(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The exit code of a process that ends with this error (sysexits where they fit).
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            Kind::Quality => 1,
            Kind::Usage => 64,
            Kind::Lease => 75,
            Kind::Spec => 78,
            Kind::Input | Kind::Key | Kind::Storage | Kind::Resources | Kind::Internal => 3,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(place) = &self.0.place {
            write!(f, " ({place})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

const MEMORY_HINT: &str = "raise `resources.memory`, or lower `resources.threads`: each thread sorts in its own share";
const DISK_HINT: &str = "free space where the sink and `resources.spill` lie, then run again: finished work is kept";

/// A full disk speaks through many libraries; this is what it says in all of them.
pub(crate) fn is_disk_full(text: &str) -> bool {
    text.contains("No space left on device") || text.contains("os error 28") || text.contains("StorageFull")
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(e: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as D;
        match e {
            // An error of our own that travelled through a DataFusion stream comes back as it was.
            D::External(inner) => match inner.downcast::<Error>() {
                Ok(own) => *own,
                Err(other) => Error::engine(other.to_string(), false).because(other),
            },
            D::Context(text, inner) => {
                let inner = Error::from(*inner);
                if inner.kind() == Kind::Internal { Error::engine(format!("{text}: {inner}"), false) } else { inner }
            }
            D::Shared(inner) => match inner.find_root() {
                D::External(boxed) if boxed.downcast_ref::<Error>().is_some() => {
                    boxed.downcast_ref::<Error>().map_or_else(|| Error::internal(inner.to_string()), Error::copy)
                }
                _ => Error::engine(inner.to_string(), matches!(inner.find_root(), D::ResourcesExhausted(_))),
            },
            D::ArrowError(inner, _) => Error::from(*inner),
            D::ParquetError(inner) => Error::from(*inner),
            D::ObjectStore(inner) => Error::from(*inner),
            D::ResourcesExhausted(text) => Error::engine(text, true),
            other => Error::engine(other.strip_backtrace(), false),
        }
    }
}

impl Error {
    fn engine(text: String, exhausted: bool) -> Self {
        if is_disk_full(&text) {
            return Error::disk_full(text);
        }
        if exhausted {
            return Error::new(Kind::Resources, format!("the memory budget is spent: {text}")).hint(MEMORY_HINT);
        }
        let mut e = Error::internal(text);
        // Engines put values into their messages.
        e.0.bare = Some("an operation failed on some row".to_owned());
        e
    }

    /// The disk is full, as some library said in its own words.
    pub(crate) fn disk_full(text: String) -> Self {
        Error::new(Kind::Resources, format!("the disk is full: {text}")).hint(DISK_HINT)
    }

    fn copy(&self) -> Self {
        let mut copy = Error::new(self.kind(), self.message());
        copy.0.bare = self.0.bare.clone();
        copy.0.place = self.0.place.clone();
        copy.0.row = self.0.row;
        copy.0.mistakes = self.0.mistakes.clone();
        copy.0.hint = self.0.hint.clone();
        copy.0.passing = self.0.passing;
        copy.0.source = self.0.source.as_ref().map(|s| s.to_string().into());
        copy
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(e: Error) -> Self {
        datafusion::error::DataFusionError::External(Box::new(e))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        match e {
            arrow::error::ArrowError::ExternalError(inner) => match inner.downcast::<Error>() {
                Ok(own) => *own,
                Err(other) => Error::engine(other.to_string(), false).because(other),
            },
            other => Error::engine(other.to_string(), false),
        }
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(e: parquet::errors::ParquetError) -> Self {
        // What a store says while Parquet is written travels as it is.
        let e = match e {
            parquet::errors::ParquetError::External(inner) => match crate::storage::stored(inner) {
                Ok(store) => return store.into(),
                Err(other) => parquet::errors::ParquetError::External(other),
            },
            other => other,
        };
        let text = e.to_string();
        if is_disk_full(&text) { Error::engine(text, false) } else { Error::input(format!("cannot read Parquet: {text}")) }
    }
}

impl From<polars::error::PolarsError> for Error {
    fn from(e: polars::error::PolarsError) -> Self {
        Error::engine(format!("Polars: {e}"), false)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let text = e.to_string();
        if is_disk_full(&text) {
            return Error::engine(text, false);
        }
        Error::storage(text).because(e)
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Error::internal(format!("cannot read JSON: {e}"))
    }
}

impl From<postcard::Error> for Error {
    fn from(e: postcard::Error) -> Self {
        Error::internal(format!("cannot read a staged record: {e}"))
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(e: tokio::task::JoinError) -> Self {
        Error::internal(format!("a worker ended: {e}"))
    }
}

/// The nearest of some names to one that is unknown, as "did you mean `x`?", or a list where none is near.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = unknown.to_lowercase();
    let best = known.iter().map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), *k)).min();
    match best {
        Some((distance, name)) if distance <= 1 + unknown.chars().count() / 3 => format!("did you mean `{name}`?"),
        Some(_) if known.len() <= 24 => format!("valid names: {}", known.join(", ")),
        Some(_) => format!("valid names: {}, … ({} in all)", known[..24].join(", "), known.len()),
        None => "there are none to choose from".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names_the_near_and_lists_the_far() {
        assert_eq!(nearest("tailnmu", ["tailnum", "flight"]), "did you mean `tailnum`?");
        assert_eq!(nearest("zzzzzz", ["a", "b"]), "valid names: a, b");
        assert_eq!(nearest("x", []), "there are none to choose from");
    }

    #[test]
    fn a_wider_place_goes_around_the_narrow_one() {
        assert_eq!(Error::input("x").at("row 7").within("`a.parquet`").place(), Some("row 7, in `a.parquet`"));
        assert_eq!(Error::input("x").within("`a.parquet`").place(), Some("`a.parquet`"));
    }

    #[test]
    fn wrong_use_in_a_spec_is_a_mistake_of_the_spec_and_other_errors_stay() {
        assert_eq!((Error::usage("x").in_spec().exit_code(), Error::storage("x").in_spec().exit_code()), (78, 3));
    }

    #[test]
    fn values_can_be_left_out() {
        let e = Error::input("cannot cast x").of_value("the value is `7`").at("row 3");
        assert_eq!(e.to_string(), "cannot cast x: the value is `7` (row 3)");
        assert_eq!(e.withheld().message(), "cannot cast x (the data is encrypted: no value is shown)");
        let e = Error::from(arrow::error::ArrowError::CastError("cannot cast 'secret'".to_owned())).withheld();
        assert!(!e.message().contains("secret"), "{e}");
        assert_eq!(Error::input("x").withheld().message(), "x");
    }

    #[test]
    fn own_errors_survive_the_way_through_datafusion() {
        let e = Error::input("bad row").at("a.parquet, row 7").hint("mend it");
        let back = Error::from(datafusion::error::DataFusionError::from(e).context("while scanning"));
        assert_eq!((back.kind(), back.place(), back.to_do()), (Kind::Input, Some("a.parquet, row 7"), Some("mend it")));
    }
}
