//! `near_dedup`: of texts that are nearly the same, one stays. MinHash finds candidates, exact Jaccard similarity confirms them.

pub mod components;
pub mod decide;
pub mod functions;
pub mod minhash;
pub mod recipe;
pub mod shingles;
mod survivors;
pub mod verify;

use std::sync::Arc;

use arrow::datatypes::DataType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::step::{Decide, Gives, How, Scope, Step};
use super::{Stage, StageContext};
use crate::error::Mistake;
use decide::NearDuplicates;
use recipe::{ALLOWED_HASHES, RECALL, Recipe, Shingle, bands_for, choose, recall, rows_for};

/// The reference page.
pub const PAGE: &str = r#"
Of texts that are nearly the same, one stays: the same licence with another name in it, successive versions of one page, one article on many sites.

**When to use it.** Before a `split`, so that no text is learned in one part and tested in another. Texts that are equal to the byte
are found by `dedup: { text: … }` at less cost.

**How it works.** A text in lower case, all digits taken as 0, is cut into words (runs of letters, digits and `_`), and these into overlapping
shingles of five. The similarity of two texts is the Jaccard similarity of their shingle sets: shared ÷ all. MinHash finds
pairs that are likely similar without comparing all: a signature of `bands × rows` numbers, in which two texts of similarity *s* share a band with
probability `1 − (1 − s^rows)^bands`. Each such pair is then compared exactly (`verify`), and a cluster is whatever is connected by similar pairs. One
row of each cluster stays (`keep`); the others are rejected with the reason `near duplicate`.

- Bands and rows follow from the threshold so that a pair right at it is found with at least 99 %: 26 × 5 at 0.7. More bands find more, more rows spare comparisons.
- A text with fewer words than a shingle is one shingle. A null, or a text without any word, is never a duplicate.
- In a crowd not every pair is compared: where thousands of texts share one band, a text is compared with at most 64 texts of each cluster found so
  far and with some 500 to 1,000 texts in all, so that the work grows with the texts and not with their square. Two that missed each other in one band may
  meet in another. The run counts the texts that were not compared with all, and warns of them on the terminal and in the report.
- The result depends on the data, the options and the seed alone, never on threads, batches or memory.
- Memory: 4 bytes a row, and with `verify` 4 bytes for each distinct shingle of the texts that have a candidate. Sorting spills to disk.

```yaml
- near_dedup:
    column: text
    threshold: 0.7
    keep: longest
```

With all options:

```yaml
- near_dedup:
    column: text
    threshold: 0.8
    shingle: { chars: 24 }        # or { words: 5 }
    fold_digits: true             # 2023 and 2024 are the same
    bands: 20
    rows: 7
    verify: true
    keep: { highest: stars }      # first, last, longest, { highest: column }, { lowest: column }
    guard: { column: source, max_rejected: 0.95 }
```
"#;

/// The reason that rejected rows carry.
pub const REASON: &str = "near duplicate";

/// Of texts that are nearly the same, one stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NearDedup {
    /// The text column.
    pub column: String,
    /// The Jaccard similarity of their shingles from which two texts are near duplicates; above 0, at most 1.
    #[serde(default = "default_threshold")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f64,
    /// What a shingle is: so many words, or so many characters, in a row.
    #[serde(default)]
    pub shingle: Shingle,
    /// All digits count as the same one, so that dates and version numbers make no difference.
    #[serde(default = "yes")]
    pub fold_digits: bool,
    /// Bands of the signature; by default so many that a pair right at the threshold is found with 99 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bands: Option<usize>,
    /// Hash functions in a band; by default as many as 144 hash functions in all allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows: Option<usize>,
    /// Compare candidates exactly before they count. Without it, texts that share a band are duplicates.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Which row of a cluster stays; the earlier row where that is a tie.
    #[serde(default)]
    pub keep: Keep,
    /// Stop where a group of rows would lose more than its share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// Which row of a cluster stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The first one, in the order of the source.
    #[default]
    First,
    /// The last one.
    Last,
    /// The one with most characters.
    Longest,
    /// The one with the highest value in this column; null and NaN come last.
    Highest(String),
    /// The one with the lowest value in this column; null and NaN come last.
    Lowest(String),
}

/// When too much would go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The column whose values are the groups, for example the source of a text.
    pub column: String,
    /// The largest share of its rows, 0 to 1, that a group may lose.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_rejected: f64,
    /// Groups of fewer rows are not looked at.
    #[serde(default = "default_min_rows")]
    pub min_rows: u64,
}

fn default_threshold() -> f64 {
    0.7
}

fn default_min_rows() -> u64 {
    100
}

fn yes() -> bool {
    true
}

impl NearDedup {
    /// Bands and rows: those asked for, the others so that [`RECALL`] is reached.
    fn bands_and_rows(&self) -> Result<(usize, usize), Mistake> {
        let (bands, rows) = match (self.bands, self.rows) {
            (Some(bands), Some(rows)) => (bands, rows),
            (Some(bands), None) => (bands, rows_for(self.threshold, bands)),
            (None, Some(rows)) => (bands_for(self.threshold, rows.max(1)), rows),
            (None, None) => choose(self.threshold).ok_or_else(|| {
                Mistake::new("/threshold", format!("texts as little alike as {} are not found by MinHash", self.threshold))
                    .help("raise it to 0.04 or more, or set `bands` and `rows`")
            })?,
        };
        if bands == 0 || rows == 0 || bands.saturating_mul(rows) > ALLOWED_HASHES {
            return Err(Mistake::new(
                "/bands",
                format!("{bands} bands of {rows} rows: both must be 1 or more, and their product {ALLOWED_HASHES} at most"),
            )
            .help("leave both out: they follow from the threshold"));
        }
        Ok((bands, rows))
    }

    fn mistakes(&self, cx: &StageContext<'_>) -> Vec<Mistake> {
        let mut found = Vec::new();
        match cx.column("/column", &self.column) {
            Ok(field) if is_text(field.data_type()) => {}
            Ok(field) => found.push(
                Mistake::new("/column", format!("column `{}` is {}, which is not text", self.column, field.data_type()))
                    .help("name a text column, or use `dedup: { keys: … }` for other columns"),
            ),
            Err(mistake) => found.push(mistake),
        }
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            found.push(Mistake::new("/threshold", format!("{} is not above 0 and at most 1", self.threshold)).help("0.7 to 0.9 is usual"));
        } else if let Err(mistake) = self.bands_and_rows() {
            found.push(mistake);
        }
        if self.shingle.size() == 0 {
            found.push(Mistake::new("/shingle", "a shingle has at least 1 word or character").help("`words: 5` is usual"));
        }
        if let Keep::Highest(column) | Keep::Lowest(column) = &self.keep {
            found.extend(cx.column("/keep", column).err());
        }
        if let Some(guard) = &self.guard {
            found.extend(cx.column("/guard/column", &guard.column).err());
            if !(0.0..=1.0).contains(&guard.max_rejected) {
                found.push(Mistake::new("/guard/max_rejected", "a share is between 0 and 1").help("0.95 allows 95 of 100 rows to go"));
            }
        }
        found
    }

    /// The columns that the decision looks at.
    fn reads(&self) -> Vec<String> {
        let mut reads = vec![self.column.clone()];
        let ranked = match &self.keep {
            Keep::Highest(column) | Keep::Lowest(column) => Some(column),
            _ => None,
        };
        for column in ranked.into_iter().chain(self.guard.as_ref().map(|g| &g.column)) {
            if !reads.contains(column) {
                reads.push(column.clone());
            }
        }
        reads
    }
}

impl Stage for NearDedup {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mistakes = self.mistakes(cx);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let (bands, rows) = self.bands_and_rows().map_err(|mistake| vec![mistake])?;
        let found = recall(self.threshold, bands, rows);
        if found < RECALL {
            tracing::warn!(stage = cx.label, bands, rows, "of pairs right at the threshold only {:.0} % are found", found * 100.0);
        }
        let recipe = Recipe { shingle: self.shingle, fold_digits: self.fold_digits, bands, rows, seed: cx.seed };
        let decision = NearDuplicates {
            column: self.column.clone(),
            recipe,
            verify: self.verify.then_some(self.threshold),
            keep: self.keep.clone(),
            guard: self.guard.clone(),
        };
        Ok(vec![Step::Decide(Decide {
            reads: self.reads(),
            fits: Vec::new(),
            gives: Gives::Rejects(vec![REASON.to_owned()]),
            on: Scope::All,
            how: How::Table(Arc::new(decision)),
        })])
    }
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
