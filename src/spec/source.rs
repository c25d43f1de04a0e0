//! Where everything in a spec was written, and mistakes shown there.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode};

use super::tree::{Flaw, Node, Place, Value, last};
use crate::error::{Error, Mistake};
use crate::storage::masked;

/// Bytes of the longest line that is shown around a mistake.
const LONGEST_SHOWN: usize = 2000;

/// A text that values were written in: the spec itself, or a `--set` argument.
#[derive(Debug, Clone)]
struct Text {
    name: String,
    content: String,
}

#[derive(Debug, Clone)]
struct Entry {
    key: Option<Place>,
    value: Place,
    container: bool,
}

/// A spec's text, with the place of every key and value by JSON pointer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpecSource {
    texts: Arc<Vec<Text>>,
    places: Arc<HashMap<String, Entry>>,
}

impl SpecSource {
    /// The texts alone: places follow with [`SpecSource::index`].
    pub(crate) fn new(name: &str, content: &str) -> Self {
        // What a person wrote into a URI by mistake is not shown around other mistakes.
        let text = Text { name: name.to_owned(), content: masked(content) };
        Self { texts: Arc::new(vec![text]), places: Arc::default() }
    }

    /// Adds the text of a `--set` argument; its number is the result.
    pub(crate) fn add_override(&mut self, content: String) -> usize {
        let texts = Arc::make_mut(&mut self.texts);
        texts.push(Text { name: "--set".to_owned(), content: masked(&content) });
        texts.len() - 1
    }

    /// Writes asterisks over a place, so that no message ever shows what stands there.
    pub(crate) fn mask(&mut self, place: Place) {
        let Some(text) = Arc::make_mut(&mut self.texts).get_mut(place.text) else { return };
        let end = place.end.min(text.content.len());
        if let Some(written) = text.content.get(place.start..end) {
            let stars: String = written.chars().flat_map(|c| if c == '\n' { vec!['\n'] } else { vec!['*'; c.len_utf8()] }).collect();
            text.content.replace_range(place.start..end, &stars);
        }
    }

    /// Remembers where each key and value of a tree was written.
    pub(crate) fn index(&mut self, root: &Node) {
        let mut places = HashMap::new();
        root.walk("", &mut |pointer, node| {
            let container = matches!(node.value, Value::List(_) | Value::Map(_));
            places.insert(pointer.to_owned(), Entry { key: node.key, value: node.at, container });
        });
        self.places = Arc::new(places);
    }

    /// Mistakes at JSON pointers, as an error that shows each at its place. A pointer that does not exist stands for its nearest parent.
    pub fn errors(&self, mistakes: Vec<Mistake>) -> SpecErrors {
        SpecErrors::new(self.clone(), mistakes.into_iter().map(|m| Flaw::new(self.place_of(&m), m)).collect())
    }

    /// Line and column (both from 1, columns in characters) of the value at a JSON pointer, or of its nearest parent. `None` where it was
    /// given by `--set`, and for a spec that could not be read.
    pub fn line_col(&self, pointer: &str) -> Option<(usize, usize)> {
        let (_, entry) = self.nearest(pointer)?;
        let place = shown(entry, false);
        (place.text == 0).then(|| self.line_col_of(place))
    }

    /// The spec's name, as it was opened.
    pub fn name(&self) -> &str {
        self.texts.first().map_or("", |t| t.name.as_str())
    }

    fn nearest<'a>(&self, pointer: &'a str) -> Option<(&'a str, &Entry)> {
        let mut at = pointer;
        loop {
            if let Some(entry) = self.places.get(at) {
                return Some((at, entry));
            }
            at = &at[..at.rfind('/')?];
        }
    }

    /// A mistake that names its own key is about the key; others are about the value.
    fn place_of(&self, mistake: &Mistake) -> Place {
        let Some((at, entry)) = self.nearest(&mistake.at) else { return Place::default() };
        let about_key = at == mistake.at && mistake.message.contains(&format!("`{}`", last(at)));
        shown(entry, about_key)
    }

    fn line_col_of(&self, place: Place) -> (usize, usize) {
        let content = self.texts.get(place.text).map_or("", |t| t.content.as_str());
        let before = content.get(..place.start.min(content.len())).unwrap_or(content);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        (1 + before.matches('\n').count(), 1 + before[line_start..].chars().count())
    }
}

/// What is underlined for an entry: the value, but the key where the value is long, empty, or not meant.
fn shown(entry: &Entry, about_key: bool) -> Place {
    match entry.key {
        Some(key) if about_key || entry.container || entry.value.start == entry.value.end => key,
        _ => entry.value,
    }
}

/// Everything that is wrong with a spec, each mistake with its place, in the order of the text.
#[derive(Debug, Clone)]
pub struct SpecErrors {
    source: SpecSource,
    flaws: Vec<Flaw>,
}

impl SpecErrors {
    pub(crate) fn new(source: SpecSource, mut flaws: Vec<Flaw>) -> Self {
        flaws.sort_by(|a, b| (a.place, &a.mistake.message).cmp(&(b.place, &b.mistake.message)));
        flaws.dedup();
        Self { source, flaws }
    }

    /// Together with flaws whose places are known already.
    pub(crate) fn with(self, mut flaws: Vec<Flaw>) -> Self {
        flaws.extend(self.flaws);
        Self::new(self.source, flaws)
    }

    /// The mistakes, in the order of the text.
    pub fn mistakes(&self) -> impl Iterator<Item = &Mistake> {
        self.flaws.iter().map(|f| &f.mistake)
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.flaws.len()
    }

    /// `file:line:col: message`, with `  help: …` below, for each mistake: for editors, logs and scripts.
    pub fn plain(&self) -> String {
        self.flaws.iter().map(|flaw| self.plain_of(flaw)).collect()
    }

    fn plain_of(&self, flaw: &Flaw) -> String {
        let (line, column) = self.source.line_col_of(flaw.place);
        let name = self.source.texts.get(flaw.place.text).map_or("", |t| t.name.as_str());
        let mut out = format!("{name}:{line}:{column}: {}\n", flaw.mistake.message);
        if let Some(help) = &flaw.mistake.help {
            // writing to a String cannot fail
            let _ = writeln!(out, "  help: {help}");
        }
        out
    }

    /// The mistakes as a JSON list of objects with `file`, `line`, `column`, `at`, `message` and `help`, for editors and scripts.
    pub fn to_json(&self) -> serde_json::Value {
        let one = |flaw: &Flaw| {
            let (line, column) = self.source.line_col_of(flaw.place);
            let file = self.source.texts.get(flaw.place.text).map_or("", |t| t.name.as_str());
            let Mistake { at, message, help } = &flaw.mistake;
            serde_json::json!({ "file": file, "line": line, "column": column, "at": at, "message": message, "help": help })
        };
        self.flaws.iter().map(one).collect()
    }

    /// Each mistake with the lines of the spec around it.
    pub fn fancy(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(120).with_context_lines(1);
        let sources: Vec<_> = self.source.texts.iter().map(|t| NamedSource::new(&t.name, t.content.clone())).collect();
        let mut out = String::new();
        for flaw in &self.flaws {
            // A line of thousands of characters would bury the message.
            if self.content(flaw.place.text).lines().any(|line| line.len() > LONGEST_SHOWN) {
                out.push_str(&self.plain_of(flaw));
                out.push('\n');
                continue;
            }
            let shown = Shown { flaw, source: sources.get(flaw.place.text), content: self.content(flaw.place.text) };
            let mut one = String::new();
            match handler.render_report(&mut one, &shown) {
                Ok(()) => out.push_str(one.trim_start_matches('\n')),
                Err(_) => out.push_str(&self.plain()),
            }
            out.push('\n');
        }
        out.truncate(out.trim_end().len());
        out
    }

    fn content(&self, text: usize) -> &str {
        self.source.texts.get(text).map_or("", |t| t.content.as_str())
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plain().trim_end())
    }
}

impl std::error::Error for SpecErrors {}

impl From<SpecErrors> for Error {
    fn from(errors: SpecErrors) -> Self {
        let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let count = errors.count();
        let plural = if count == 1 { "mistake" } else { "mistakes" };
        Error::spec(format!("{count} {plural} in {}\n\n{}", errors.source.name(), errors.fancy(color))).mistaken(errors.to_json())
    }
}

/// One mistake as miette wants it.
#[derive(Debug)]
struct Shown<'a> {
    flaw: &'a Flaw,
    source: Option<&'a NamedSource<String>>,
    content: &'a str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.flaw.mistake.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.flaw.mistake.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.filter(|_| !self.content.is_empty()).map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if self.content.is_empty() {
            return None;
        }
        // A whole map would be a wall of text: its first line is enough.
        let Place { start, end, .. } = self.flaw.place;
        let start = start.min(self.content.len().saturating_sub(1));
        let end = end.clamp(start, self.content.len());
        let first = self.content.get(start..end).and_then(|s| s.lines().next()).map_or(0, str::len);
        Some(Box::new(std::iter::once(LabeledSpan::underline((start, first)))))
    }
}
