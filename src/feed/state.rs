//! Where a feed stands, small enough to go into a trainer's checkpoint.

use serde::{Deserialize, Serialize};

use crate::dataset::Manifest;
use crate::error::{Error, Kind, Result};
use crate::spec::pipeline::Shuffle;

/// The `format` of states that this Feedline writes.
pub const FORMAT: &str = "feedline-feed/v1";

/// Where a feed stands: what its consumer has received, and nothing that was only prefetched.
///
/// It says what the order is and how far it has come, never how many ranks, threads or rows a batch there were: a job may go on with
/// others. Ranks that have received equally many batches have equal states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedState {
    /// The format of this document.
    pub format: String,
    /// The manifest's hash.
    pub version: String,
    /// The split.
    pub split: String,
    /// The seed of the order.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Whether rows are shuffled.
    pub shuffle: Shuffle,
    /// Rows in a window of the shuffle.
    pub window_rows: u64,
    /// The first position of the epoch that was not received, over all ranks.
    pub position: u64,
    /// The packer's remainder: tokens of the row at `position` that were received already (a long row may be cut between packed rows).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens_taken: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl FeedState {
    /// The same order at the start of the epoch after this one.
    pub fn next_epoch(&self) -> Self {
        Self { epoch: self.epoch.saturating_add(1), position: 0, tokens_taken: 0, ..self.clone() }
    }

    /// Reads a state that was saved as JSON.
    ///
    /// # Errors
    /// Where the text is not a state of a format that this Feedline knows.
    pub fn from_json(text: &str) -> Result<Self> {
        let state: Self = serde_json::from_str(text)
            .map_err(|e| Error::input(format!("cannot read the feed's state: {e}")).hint("give the text that `state()` gave, unchanged"))?;
        if state.format != FORMAT {
            return Err(Error::input(format!("the feed's state has the format `{}`, not `{FORMAT}`", state.format))
                .hint("resume with the Feedline that saved it"));
        }
        Ok(state)
    }

    /// The state as JSON.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// An error where the state is not of this version, or beyond its end.
    pub(super) fn check(&self, manifest: &Manifest, rows: u64) -> Result<()> {
        if self.version != manifest.hash {
            return Err(Error::new(Kind::Input, format!("the state is of another dataset version ({})", short(&self.version)))
                .at(format!("version {}, {}", manifest.version, short(&manifest.hash)))
                .hint("open the version that was being read, or start the epoch anew"));
        }
        if self.position > rows {
            return Err(Error::input(format!("the state's position {} lies beyond the {rows} rows of `{}`", self.position, self.split))
                .hint("was the state edited? start the epoch anew"));
        }
        Ok(())
    }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> FeedState {
        FeedState {
            format: FORMAT.to_owned(),
            version: "abc".to_owned(),
            split: "train".to_owned(),
            seed: 7,
            epoch: 2,
            shuffle: Shuffle::Global,
            window_rows: 10,
            position: 5,
            tokens_taken: 3,
        }
    }

    #[test]
    fn json_there_and_back() {
        let s = state();
        assert_eq!(FeedState::from_json(&s.to_json().unwrap()).unwrap(), s);
        let next = s.next_epoch();
        assert_eq!((next.epoch, next.position, next.tokens_taken), (3, 0, 0));
        assert!(!next.to_json().unwrap().contains("tokens_taken"));
    }

    #[test]
    fn foreign_text_is_refused_with_a_hint() {
        let e = FeedState::from_json("{}").unwrap_err();
        assert!(e.to_do().is_some(), "{e}");
        let other = FeedState { format: "feedline-feed/v9".to_owned(), ..state() };
        assert!(FeedState::from_json(&other.to_json().unwrap()).unwrap_err().to_string().contains("v9"));
    }
}
