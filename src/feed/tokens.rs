//! Rows of tokens of many lengths become rows of one length.
//!
//! ```text
//!  pad    [a a a . .] [b b b b b] [c . . . .]      one row each: cut or filled to the length; the mask says which
//!  pack   [a a a c .] [b b b b b]                  next fit, in order: a row that does not fit begins the next packed row
//! segment  1 1 1 2 0   1 1 1 1 1
//! position 0 1 2 0 0   0 1 2 3 4
//! ```
//!
//! A row longer than the packed length is cut into pieces of it, each a segment of its own whose positions begin at 0. No token is lost.

use super::decode::Lists;
use super::ring::Sections;

/// Part of one row of the dataset in a packed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The packed row, counted from the first of the step.
    pub row: u64,
    /// The place in the packed row.
    pub at: u32,
    /// The row's position in the epoch.
    pub position: u64,
    /// The first of its tokens that is taken.
    pub from: u64,
    /// How many are taken.
    pub len: u32,
}

/// Where a packer stands: the next row's position and how many of its tokens are taken. This is all of its remainder, because a step
/// always ends with a full packed row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next row's position.
    pub position: u64,
    /// Tokens of it that are taken.
    pub taken: u64,
}

/// Packs rows into steps of so many packed rows, by next fit, in order.
#[derive(Debug)]
pub struct Packer {
    length: u32,
    rows: u64,
    cursor: Cursor,
    pieces: Vec<Piece>,
    row: u64,
    used: u32,
}

impl Packer {
    /// A packer of `rows` packed rows a step, each with `length` tokens.
    pub fn new(length: u32, rows: u64, cursor: Cursor) -> Self {
        Self { length, rows, cursor, pieces: Vec::new(), row: 0, used: 0 }
    }

    /// The position of the first row of the step that is being packed.
    pub fn step_start(&self) -> u64 {
        self.pieces.first().map_or(self.cursor.position, |p| p.position)
    }

    /// Where the packer stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Adds the row at the cursor, which has `len` tokens in all. True where the step is full: then [`Packer::finish`] it and add again.
    pub fn add(&mut self, len: u64) -> bool {
        while self.row < self.rows {
            let left = len.saturating_sub(self.cursor.taken);
            if left == 0 {
                self.cursor = Cursor { position: self.cursor.position + 1, taken: 0 };
                return false;
            }
            let room = self.length - self.used;
            if left > u64::from(room) && self.used > 0 {
                self.close();
                continue;
            }
            let take = left.min(u64::from(room)) as u32;
            self.pieces.push(Piece { row: self.row, at: self.used, position: self.cursor.position, from: self.cursor.taken, len: take });
            self.cursor.taken += u64::from(take);
            self.used += take;
            if u64::from(take) == left {
                self.cursor = Cursor { position: self.cursor.position + 1, taken: 0 };
                if self.used == self.length {
                    self.close();
                }
                return self.row == self.rows;
            }
            self.close();
        }
        true
    }

    fn close(&mut self) {
        self.row += 1;
        self.used = 0;
    }

    /// Ends the step: its pieces and its packed rows. At the end of the data the last row may be part empty and rows may be missing.
    pub fn finish(&mut self) -> (Vec<Piece>, u64) {
        if self.used > 0 {
            self.close();
        }
        let rows = std::mem::take(&mut self.row);
        (std::mem::take(&mut self.pieces), rows)
    }
}

/// Writes one row, cut or filled, at row `at` of the slot.
pub(super) fn pad(tokens: &[u32], length: usize, pad_id: u32, at: usize, out: &mut Sections<'_>) {
    let cells = at * length..(at + 1) * length;
    let n = tokens.len().min(length);
    let (ids, mask) = (&mut out.ids[cells.clone()], &mut out.mask[cells]);
    ids[..n].copy_from_slice(&tokens[..n]);
    ids[n..].fill(pad_id);
    mask[..n].fill(1);
    mask[n..].fill(0);
}

/// Writes packed rows. `pieces` are those of rows `first..`, and `tokens_of` gives the tokens of the row at a position.
pub(super) fn pack<'a>(
    pieces: &[Piece],
    first: u64,
    length: usize,
    pad_id: u32,
    tokens_of: impl Fn(u64) -> Option<(&'a Lists, u32)>,
    out: &mut Sections<'_>,
) {
    let mut segment = 0;
    for (i, piece) in pieces.iter().enumerate() {
        segment = if piece.at == 0 { 1 } else { segment + 1 };
        let row = (piece.row - first) as usize * length;
        let (start, n) = (row + piece.at as usize, piece.len as usize);
        if let Some((lists, at)) = tokens_of(piece.position) {
            let from = piece.from as usize;
            out.ids[start..start + n].copy_from_slice(&lists.row(at)[from..from + n]);
        }
        out.segments[start..start + n].fill(segment);
        out.positions[start..start + n].iter_mut().zip(0..).for_each(|(p, k)| *p = k);
        let last_of_row = pieces.get(i + 1).is_none_or(|next| next.row != piece.row);
        if last_of_row {
            let rest = start + n..row + length;
            out.ids[rest.clone()].fill(pad_id);
            out.segments[rest.clone()].fill(0);
            out.positions[rest].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packs everything: the pieces of each step, with its number of rows and the cursor after it.
    fn pack_all(lens: &[u64], length: u32, rows: u64, from: Cursor) -> Vec<(Vec<Piece>, u64, Cursor)> {
        let mut packer = Packer::new(length, rows, from);
        let mut steps = Vec::new();
        while let Some(&len) = lens.get(packer.cursor().position as usize) {
            if packer.add(len) {
                let (pieces, rows) = packer.finish();
                steps.push((pieces, rows, packer.cursor()));
            }
        }
        let (pieces, rows) = packer.finish();
        if rows > 0 {
            steps.push((pieces, rows, packer.cursor()));
        }
        steps
    }

    proptest! {
        #[test]
        fn no_token_is_lost_or_doubled(lens in prop::collection::vec(0u64..60, 0..80), length in 1u32..40, rows in 1u64..5) {
            let steps = pack_all(&lens, length, rows, Cursor::default());
            let mut next = vec![0u64; lens.len()];
            let mut last = 0;
            for (i, (pieces, n, _)) in steps.iter().enumerate() {
                prop_assert!(*n == rows || i + 1 == steps.len());
                let mut used = vec![0u32; *n as usize];
                for p in pieces {
                    prop_assert!(p.position >= last && p.len > 0);
                    last = p.position;
                    prop_assert_eq!(p.from, next[p.position as usize]);
                    next[p.position as usize] += u64::from(p.len);
                    prop_assert_eq!(p.at, used[p.row as usize]);
                    used[p.row as usize] += p.len;
                }
                prop_assert!(used.iter().all(|&u| u > 0 && u <= length));
            }
            prop_assert_eq!(next, lens);
        }

        #[test]
        fn going_on_from_a_cursor_gives_the_same_steps(lens in prop::collection::vec(0u64..60, 0..80), length in 1u32..40, rows in 1u64..5, at in any::<prop::sample::Index>()) {
            let steps = pack_all(&lens, length, rows, Cursor::default());
            if !steps.is_empty() {
                let k = at.index(steps.len());
                prop_assert_eq!(&pack_all(&lens, length, rows, steps[k].2)[..], &steps[k + 1..]);
            }
        }

        #[test]
        fn rows_do_not_depend_on_the_size_of_steps(lens in prop::collection::vec(0u64..60, 0..80), length in 1u32..40, rows in 2u64..5) {
            // A job that goes on with another world size packs the same rows.
            let flat = |rows| {
                let mut before = 0;
                pack_all(&lens, length, rows, Cursor::default()).into_iter().flat_map(|(pieces, n, _)| {
                    let out: Vec<Piece> = pieces.into_iter().map(|p| Piece { row: p.row + before, ..p }).collect();
                    before += n;
                    out
                }).collect::<Vec<_>>()
            };
            prop_assert_eq!(flat(rows), flat(1));
        }
    }

    #[test]
    fn next_fit_by_hand() {
        let steps = pack_all(&[3, 1, 5, 12], 5, 2, Cursor::default());
        let piece = |row, at, position, from, len| Piece { row, at, position, from, len };
        let got: Vec<Vec<Piece>> = steps.into_iter().map(|s| s.0).collect();
        assert_eq!(got[0], [piece(0, 0, 0, 0, 3), piece(0, 3, 1, 0, 1), piece(1, 0, 2, 0, 5)]);
        assert_eq!(got[1], [piece(0, 0, 3, 0, 5), piece(1, 0, 3, 5, 5)]);
        assert_eq!(got[2..], [vec![piece(0, 0, 3, 10, 2)]]);
    }

    #[test]
    fn arrays_by_hand() {
        let lists = Lists { offsets: vec![0, 3, 4, 9], ids: (10..19).collect() };
        let pieces = pack_all(&[3, 1, 5], 5, 2, Cursor::default()).remove(0).0;
        let (mut ids, mut segments, mut positions) = (vec![9; 10], vec![9; 10], vec![9; 10]);
        let mut out = Sections {
            features: &mut [],
            labels: &mut [],
            ids: &mut ids,
            mask: &mut [],
            segments: &mut segments,
            positions: &mut positions,
        };
        pack(&pieces, 0, 5, 7, |p| Some((&lists, p as u32)), &mut out);
        assert_eq!(ids, [10, 11, 12, 13, 7, 14, 15, 16, 17, 18]);
        assert_eq!(segments, [1, 1, 1, 2, 0, 1, 1, 1, 1, 1]);
        assert_eq!(positions, [0, 1, 2, 0, 0, 0, 1, 2, 3, 4]);
        let (mut ids, mut mask) = (vec![9; 6], vec![9; 6]);
        let mut out =
            Sections { features: &mut [], labels: &mut [], ids: &mut ids, mask: &mut mask, segments: &mut [], positions: &mut [] };
        pad(&[1], 3, 7, 0, &mut out);
        pad(&[1, 2, 3, 4], 3, 7, 1, &mut out);
        assert_eq!((ids, mask), (vec![1, 7, 7, 1, 2, 3], vec![1, 0, 0, 1, 1, 1]));
    }
}
