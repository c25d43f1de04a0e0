//! Verdicts: what was decided about the rows of a unit. Small, one file a unit and layer, in staging: they are a run's checkpoints too.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;
use futures::future::try_join_all;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::storage::Location;

/// What one step decided about a unit's rows. Row numbers are those in the unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Verdict {
    /// The rejected rows, by the reason's code.
    Rejects(BTreeMap<u32, RoaringBitmap>),
    /// The split of each row; of rows that were rejected before, 0.
    Splits(Vec<u8>),
    /// The number of copies of each row, where that is not 1.
    Copies(BTreeMap<u32, u32>),
}

/// All that one pass decided about a unit's rows, by step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitVerdict {
    /// Step and verdict, in the order of steps.
    pub entries: Vec<(u32, Verdict)>,
}

/// What is known about a unit's rows so far.
#[derive(Debug, Clone)]
pub struct UnitState {
    /// The rows that are left.
    pub alive: BooleanBuffer,
    /// The split of each row, once that is decided.
    pub splits: Option<Vec<u8>>,
    /// Copies of rows that are delivered more than once.
    pub copies: BTreeMap<u32, u32>,
    /// Who rejected what.
    pub rejects: Vec<(u32, u32, RoaringBitmap)>,
}

impl UnitState {
    /// Nothing is decided.
    pub fn fresh(rows: u32) -> Self {
        let alive = BooleanBuffer::new_set(rows as usize);
        Self { alive, splits: None, copies: BTreeMap::new(), rejects: Vec::new() }
    }

    /// Adds what a pass decided.
    pub fn apply(&mut self, verdict: UnitVerdict) {
        for (step, entry) in verdict.entries {
            match entry {
                Verdict::Splits(codes) => self.splits = Some(codes),
                Verdict::Copies(copies) => self.copies.extend(copies),
                Verdict::Rejects(by_code) => {
                    let mut alive = BooleanBufferBuilder::new(self.alive.len());
                    alive.append_buffer(&self.alive);
                    for (code, rows) in by_code {
                        rows.iter().for_each(|row| alive.set_bit(row as usize, false));
                        self.rejects.push((step, code, rows));
                    }
                    self.alive = alive.finish();
                }
            }
        }
    }
}

/// The verdicts of one segment in staging. A **layer** is what one pass decided: first the row decisions on its way, then its own.
#[derive(Debug, Clone)]
pub struct Verdicts {
    at: Location,
}

impl Verdicts {
    /// The verdicts below a folder.
    pub fn new(at: Location) -> Self {
        Self { at }
    }

    fn file(&self, layer: &str, unit: u32) -> Location {
        self.at.child(&format!("{layer}/{unit:08}.bin"))
    }

    /// Writes a unit's verdict in a layer. Doing a unit again writes the same bytes.
    pub async fn write(&self, layer: &str, unit: u32, verdict: &UnitVerdict) -> Result<()> {
        let bytes = zstd::encode_all(postcard::to_stdvec(verdict)?.as_slice(), 1)?;
        self.file(layer, unit).write(bytes).await
    }

    /// Reads a unit's verdict in a layer, or `None` where it is not written.
    pub async fn read(&self, layer: &str, unit: u32) -> Result<Option<UnitVerdict>> {
        let file = self.file(layer, unit);
        let Some(bytes) = file.read().await? else { return Ok(None) };
        let bytes = zstd::decode_all(bytes.as_ref())?;
        let verdict =
            postcard::from_bytes(&bytes).map_err(|e| Error::from(e).at(file.display()).hint("remove the staging folder and run again"))?;
        Ok(Some(verdict))
    }

    /// What is known about a unit after some layers.
    pub async fn state<'a>(&self, unit: u32, rows: u32, layers: impl Iterator<Item = &'a str>) -> Result<UnitState> {
        let found = try_join_all(layers.map(|layer| async move {
            self.read(layer, unit).await?.ok_or_else(|| {
                Error::internal(format!("the verdict of unit {unit} in `{layer}` is missing"))
                    .hint("remove the staging folder and run again")
            })
        }));
        let mut state = UnitState::fresh(rows);
        found.await?.into_iter().for_each(|verdict| state.apply(verdict));
        Ok(state)
    }

    /// The units whose verdict in a layer is written.
    pub async fn units(&self, layer: &str) -> Result<BTreeSet<u32>> {
        let written = self.at.child(layer).list().await?;
        Ok(written.iter().filter_map(|m| m.location.filename()?.strip_suffix(".bin")?.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn layers_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::new(Location::open("v", dir.path()).unwrap());
        let reject = |rows: &[u32]| Verdict::Rejects(BTreeMap::from([(0, rows.iter().copied().collect())]));
        verdicts.write("a", 3, &UnitVerdict { entries: vec![(0, reject(&[1])), (1, Verdict::Splits(vec![0, 0, 1, 0]))] }).await.unwrap();
        verdicts.write("b", 3, &UnitVerdict { entries: vec![(2, reject(&[3]))] }).await.unwrap();
        let state = verdicts.state(3, 4, ["a", "b"].into_iter()).await.unwrap();
        assert_eq!(state.alive.set_indices().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(state.splits, Some(vec![0, 0, 1, 0]));
        assert_eq!(state.rejects.len(), 2);
        assert!(verdicts.state(4, 4, ["a"].into_iter()).await.is_err());
    }
}
