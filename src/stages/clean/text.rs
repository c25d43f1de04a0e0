//! The first part of `clean`: tidy text.

use polars::prelude::{Column, DataType as Pl, Field as PlField, IntoColumn, PolarsResult, StringChunkedBuilder};
use schemars::JsonSchema;
use serde::Deserialize;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfd_quick, is_nfkc_quick, is_nfkd_quick};

use super::Lowering;
use crate::engine::bridge::column;
use crate::error::Mistake;
use crate::stages::kit;

/// How text is tidied, in the order of the options.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// The columns; all columns of text unless given.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Drop control characters but line feeds and tabs.
    #[serde(default = "yes")]
    pub control: bool,
    /// The Unicode normalization form.
    #[serde(default)]
    pub unicode: Unicode,
    /// What happens to whitespace.
    #[serde(default)]
    pub whitespace: Whitespace,
    /// Text of no characters becomes null.
    #[serde(default)]
    pub empty_to_null: bool,
}

/// A Unicode normalization form (Unicode Standard Annex 15).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unicode {
    /// Composed: the form of most text on the web.
    #[default]
    Nfc,
    /// Composed, and look-alikes replaced: `ﬁ` becomes `fi`, full-width letters plain ones.
    Nfkc,
    /// Decomposed.
    Nfd,
    /// Decomposed, and look-alikes replaced.
    Nfkd,
    /// As it is.
    None,
}

/// What happens to whitespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whitespace {
    /// It goes from both ends.
    #[default]
    Trim,
    /// It goes from both ends, and every run of it becomes one space.
    Collapse,
    /// As it is.
    None,
}

fn yes() -> bool {
    true
}

/// Adds the step that tidies text.
pub fn lower(options: &TextOptions, lowering: &mut Lowering<'_>) {
    let cx = lowering.cx;
    let texts: Vec<String> = match &options.columns {
        None => cx.schema.fields().iter().filter(|f| kit::is_text(f.data_type())).map(|f| f.name().clone()).collect(),
        Some(names) => kit::each(names, "/text/columns", &mut Default::default(), &mut lowering.mistakes, |at, name| {
            let field = cx.column(at, name)?;
            if kit::is_text(field.data_type()) {
                return Ok(name.to_owned());
            }
            let mistake = Mistake::new(at, format!("column `{name}` is {}, which is not text", field.data_type()));
            Err(mistake.help("cast it first: `- cast: { columns: { … } }`"))
        }),
    };
    if texts.is_empty() {
        if options.columns.is_none() {
            lowering.mistakes.push(Mistake::new("/text", "no column of text reaches this stage").help("leave `text` out"));
        }
        return;
    }
    let columns: Vec<_> = texts.iter().map(|n| (n.clone(), arrow::datatypes::DataType::Utf8View)).collect();
    let tidy = Tidy::new(options);
    lowering.replace(&columns, Vec::new(), move |_| {
        let tidied = |name: &String| {
            column(name).map_with_fmt_str(move |c| tidy.column(&c), |_, f| Ok(PlField::new(f.name().clone(), Pl::String)), "tidy_text")
        };
        Ok(texts.iter().map(tidied).collect())
    });
}

/// One pass over a text instead of one for every option.
#[derive(Debug, Clone, Copy)]
struct Tidy {
    control: bool,
    unicode: Unicode,
    whitespace: Whitespace,
    empty_to_null: bool,
}

impl Tidy {
    fn new(options: &TextOptions) -> Self {
        let TextOptions { columns: _, control, unicode, whitespace, empty_to_null } = options;
        Self { control: *control, unicode: *unicode, whitespace: *whitespace, empty_to_null: *empty_to_null }
    }

    fn column(&self, texts: &Column) -> PolarsResult<Column> {
        let texts = texts.str()?;
        let mut made = StringChunkedBuilder::new(texts.name().clone(), texts.len());
        // Reused for every row: no text allocates.
        let mut scratch = Default::default();
        for text in texts.iter() {
            match text.map(|t| self.text(t, &mut scratch)) {
                Some(t) if !(t.is_empty() && self.empty_to_null) => made.append_value(t),
                _ => made.append_null(),
            }
        }
        Ok(made.finish().into_column())
    }

    /// The tidied text: a part of the text itself where nothing in it has to change.
    fn text<'a>(&self, text: &'a str, [plain, normal, single]: &'a mut [String; 3]) -> &'a str {
        let mut now = text;
        if self.control && now.chars().any(is_unwanted) {
            plain.clear();
            plain.extend(now.chars().filter(|c| !is_unwanted(*c)));
            now = plain;
        }
        if !self.is_normal(now) {
            normal.clear();
            match self.unicode {
                Unicode::Nfc => normal.extend(now.nfc()),
                Unicode::Nfkc => normal.extend(now.nfkc()),
                Unicode::Nfd => normal.extend(now.nfd()),
                Unicode::Nfkd => normal.extend(now.nfkd()),
                Unicode::None => normal.push_str(now),
            }
            now = normal;
        }
        if self.whitespace != Whitespace::None {
            now = now.trim();
        }
        if self.whitespace == Whitespace::Collapse && has_gaps(now) {
            single.clear();
            for word in now.split_whitespace() {
                if !single.is_empty() {
                    single.push(' ');
                }
                single.push_str(word);
            }
            now = single;
        }
        now
    }

    fn is_normal(&self, text: &str) -> bool {
        if text.is_ascii() {
            return true;
        }
        let quick = match self.unicode {
            Unicode::Nfc => is_nfc_quick(text.chars()),
            Unicode::Nfkc => is_nfkc_quick(text.chars()),
            Unicode::Nfd => is_nfd_quick(text.chars()),
            Unicode::Nfkd => is_nfkd_quick(text.chars()),
            Unicode::None => IsNormalized::Yes,
        };
        quick == IsNormalized::Yes
    }
}

fn is_unwanted(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// Whether there is whitespace other than single spaces.
fn has_gaps(text: &str) -> bool {
    let mut before = 'x';
    text.chars().any(|c| {
        let gap = c.is_whitespace() && (c != ' ' || before == ' ');
        before = c;
        gap
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn tidy(options: Value, text: &str) -> String {
        Tidy::new(&serde_json::from_value(options).unwrap()).text(text, &mut Default::default()).to_owned()
    }

    #[test]
    fn each_option_does_what_it_says() {
        let none = json!({ "control": false, "unicode": "none", "whitespace": "none" });
        assert_eq!(tidy(none.clone(), " a\u{0}\u{0301} "), " a\u{0}\u{0301} ");
        // A control character between a letter and its accent does not keep them apart.
        assert_eq!(tidy(json!({}), "\u{feff} e\u{1}\u{301}\r\n\tx\u{7f} "), "\u{feff} é\n\tx");
        assert_eq!(tidy(json!({ "unicode": "nfkc" }), "ﬁｎｅ②"), "fine2");
        assert_eq!(tidy(json!({ "unicode": "nfd" }), "é"), "e\u{301}");
        assert_eq!(tidy(json!({ "unicode": "nfkd" }), "ﬁé"), "fie\u{301}");
        assert_eq!(tidy(json!({ "whitespace": "collapse" }), "  a \t b\u{a0}c\n\nd "), "a b c d");
        assert_eq!(tidy(json!({ "whitespace": "trim" }), "\u{2003}a  b\n"), "a  b");
    }

    proptest! {
        #[test]
        fn tidying_twice_is_tidying_once(text in "\\PC{0,12}[ \t\r\n\u{0}\u{301}\u{a0}aé]{0,12}\\PC{0,6}") {
            for unicode in ["nfc", "nfkc", "nfd", "nfkd", "none"] {
                for whitespace in ["trim", "collapse", "none"] {
                    let options = json!({ "unicode": unicode, "whitespace": whitespace });
                    let once = tidy(options.clone(), &text);
                    prop_assert_eq!(tidy(options.clone(), &once), once.clone());
                    prop_assert!(!once.chars().any(is_unwanted));
                }
            }
        }
    }
}
