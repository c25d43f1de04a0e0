//! Text to hashed shingles, reading each byte once.
//!
//! ```text
//!  "The MIT-Licence, 2024"   lower case, digits as 0, words = runs of letters, digits and _
//!  the  mit  licence  0000   each word hashed once: t0 t1 t2 t3
//!  t0·B²+t1·B+t2  t1·B²+…    a polynomial that rolls: one step a word, whatever the shingle's size
//! ```

use xxhash_rust::xxh3::xxh3_64;

use super::recipe::{Recipe, Shingle};

/// The base of the rolling polynomial: odd, with well spread bits (2^64 / golden ratio).
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// What an ASCII byte becomes: 0 between words, else the byte in lower case.
const ASCII: [u8; 128] = {
    let mut table = [0u8; 128];
    let mut b = 0;
    while b < 128 {
        let byte = b as u8;
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            table[b] = byte.to_ascii_lowercase();
        }
        b += 1;
    }
    table
};

/// Turns texts into shingles; its buffers are used again for each text.
#[derive(Debug)]
pub struct Shingler {
    shingle: Shingle,
    ascii: [u8; 128],
    fold_digits: bool,
    /// `BASE^(size − 1)`: the weight of the unit that leaves the window.
    leaving: u64,
    /// The text as the kernel sees it: words in lower case, one blank between them.
    folded: Vec<u8>,
    units: Vec<u64>,
}

impl Shingler {
    /// A shingler for a recipe.
    pub fn new(recipe: &Recipe) -> Self {
        let mut ascii = ASCII;
        if recipe.fold_digits {
            ascii[b'0' as usize..=b'9' as usize].fill(b'0');
        }
        let leaving = (1..recipe.shingle.size()).fold(1u64, |power, _| power.wrapping_mul(BASE));
        Self { shingle: recipe.shingle, ascii, fold_digits: recipe.fold_digits, leaving, folded: Vec::new(), units: Vec::new() }
    }

    /// Fills `out` with the text's shingles in order, repeated ones repeated: the minimum of a set does not mind. A text shorter than a shingle is one
    /// shingle. Returns the hash of the folded text (two texts that fold alike have the same shingles), or `None` where there is no word.
    pub fn shingles(&mut self, text: &str, out: &mut Vec<u32>) -> Option<u64> {
        out.clear();
        self.fold(text);
        if self.folded.is_empty() {
            return None;
        }
        self.units.clear();
        match self.shingle {
            Shingle::Words(_) => hash_words(&self.folded, &mut self.units),
            Shingle::Chars(_) => hash_chars(&self.folded, &mut self.units),
        }
        self.roll(out);
        Some(xxh3_64(&self.folded))
    }

    /// Lower case, digits as 0 where asked, everything between words as one blank.
    fn fold(&mut self, text: &str) {
        self.folded.clear();
        self.folded.reserve(text.len());
        let bytes = text.as_bytes();
        let mut between = false;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if byte < 128 {
                at += 1;
                match self.ascii[usize::from(byte)] {
                    0 => between = true,
                    letter => {
                        blank(&mut self.folded, &mut between);
                        self.folded.push(letter);
                    }
                }
                continue;
            }
            let Some(c) = text[at..].chars().next() else { break };
            at += c.len_utf8();
            if c.is_alphanumeric() {
                blank(&mut self.folded, &mut between);
                push_char(&mut self.folded, c, self.fold_digits);
            } else {
                between = true;
            }
        }
    }

    /// Rolls the units' hashes into shingles.
    fn roll(&self, out: &mut Vec<u32>) {
        let size = self.shingle.size();
        let push = |window: u64, unit: u64| window.wrapping_mul(BASE).wrapping_add(unit);
        let first = self.units.iter().take(size).fold(0, |window, unit| push(window, *unit));
        out.reserve(self.units.len().saturating_sub(size) + 1);
        out.push(spread(first));
        if self.units.len() <= size {
            return;
        }
        let pairs = self.units.iter().zip(&self.units[size..]);
        let mut window = first;
        out.extend(pairs.map(|(old, new)| {
            window = push(window.wrapping_sub(old.wrapping_mul(self.leaving)), *new);
            spread(window)
        }));
    }
}

fn blank(folded: &mut Vec<u8>, between: &mut bool) {
    if *between && !folded.is_empty() {
        folded.push(b' ');
    }
    *between = false;
}

#[cold]
fn push_char(folded: &mut Vec<u8>, c: char, fold_digits: bool) {
    if fold_digits && c.is_numeric() {
        folded.push(b'0');
        return;
    }
    let mut utf8 = [0; 4];
    for lower in c.to_lowercase() {
        folded.extend_from_slice(lower.encode_utf8(&mut utf8).as_bytes());
    }
}

fn hash_words(folded: &[u8], units: &mut Vec<u64>) {
    units.extend(folded.split(|b| *b == b' ').map(xxh3_64));
}

/// A character's bytes as one number: enough, since the polynomial's last step spreads the bits.
fn hash_chars(folded: &[u8], units: &mut Vec<u64>) {
    let text = String::from_utf8_lossy(folded);
    units.extend(text.chars().map(|c| mix(u64::from(u32::from(c)))));
}

/// The finalizer of MurmurHash3 (Appleby, public domain): every bit of the input moves every bit of the output.
fn mix(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

fn spread(window: u64) -> u32 {
    (mix(window) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recipe(shingle: Shingle, fold_digits: bool) -> Recipe {
        Recipe { shingle, fold_digits, bands: 1, rows: 1, seed: 0 }
    }

    fn of(shingle: Shingle, text: &str) -> (Option<u64>, Vec<u32>) {
        let mut out = Vec::new();
        let hash = Shingler::new(&recipe(shingle, true)).shingles(text, &mut out);
        (hash, out)
    }

    #[test]
    fn case_digits_and_what_stands_between_words_do_not_matter() {
        let a = of(Shingle::Words(2), "The MIT-Licence, (2024)!");
        assert_eq!(a, of(Shingle::Words(2), "  the mit licence\n1999"));
        assert_eq!(a.1.len(), 3);
        assert_ne!(a, of(Shingle::Words(2), "the mit licence 199"));
        assert_eq!(of(Shingle::Words(1), "ÜBER éa ٣"), of(Shingle::Words(1), "über — ÉA 7"));
    }

    #[test]
    fn digits_count_where_asked() {
        let mut out = (Vec::new(), Vec::new());
        let mut shingler = Shingler::new(&recipe(Shingle::Words(1), false));
        shingler.shingles("v1", &mut out.0);
        shingler.shingles("v2", &mut out.1);
        assert_ne!(out.0, out.1);
    }

    #[test]
    fn no_word_gives_nothing_and_few_words_one_shingle() {
        assert_eq!(of(Shingle::Words(5), " -- !\u{3000}"), (None, vec![]));
        assert_eq!(of(Shingle::Words(5), "one two").1.len(), 1);
        assert_ne!(of(Shingle::Words(5), "one two").1, of(Shingle::Words(5), "one three").1);
        assert_eq!(of(Shingle::Words(5), "1 2 3 4 5").1.len(), 1);
        assert_eq!(of(Shingle::Chars(3), "ab, cd").1.len(), 3);
    }

    proptest! {
        /// The rolled hash of a window is the hash of that window alone.
        #[test]
        fn rolling_equals_hashing_each_window(words in prop::collection::vec("[a-z]{1,6}|é|[0-9]{2}", 1..40), size in 1usize..7) {
            let rolled = of(Shingle::Words(size), &words.join(" ")).1;
            let apart: Vec<u32> = words.windows(size.min(words.len())).map(|w| of(Shingle::Words(size), &w.join(", ")).1[0]).collect();
            prop_assert_eq!(rolled, apart);
        }

        #[test]
        fn any_text_is_fine(text in ".*", size in 1usize..9) {
            for shingle in [Shingle::Words(size), Shingle::Chars(size)] {
                let (hash, shingles) = of(shingle, &text);
                prop_assert_eq!(hash.is_none(), shingles.is_empty());
            }
        }
    }
}
