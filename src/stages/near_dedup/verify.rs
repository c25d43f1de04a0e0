//! Candidate pairs become links only where the exact Jaccard similarity of their shingle sets reaches the threshold.

use roaring::RoaringBitmap;

use super::components::Components;

/// In a bucket, at most so many texts of one component are compared with a text outside of it.
pub const TRIES_A_GROUP: usize = 64;
/// In a bucket, at most about so many steps are taken for a text, one for each group and one for each comparison: a huge bucket of texts that merely resemble each other costs linear time. What is
/// not compared here may meet in another band.
pub const TRIES: usize = 1024;

/// Texts that share a band's fingerprint, two or more in each bucket.
#[derive(Debug, Default)]
pub struct Buckets {
    members: Vec<u32>,
    ends: Vec<usize>,
}

impl Buckets {
    /// Keeps a bucket, unless all its members are one text. Sorts it and drops repetitions.
    pub fn add(&mut self, bucket: &mut Vec<u32>) {
        bucket.sort_unstable();
        bucket.dedup();
        if bucket.len() > 1 {
            self.members.extend_from_slice(bucket);
            self.ends.push(self.members.len());
        }
    }

    /// The buckets, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.members[start..*end])
    }

    /// Every text in any bucket once, ascending.
    pub fn candidates(&self) -> Vec<u32> {
        let mut all = self.members.clone();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.members.capacity() * 4 + self.ends.capacity() * 8
    }
}

/// Shingle sets of the candidates.
#[derive(Debug, Default)]
pub struct Sets {
    /// The candidates, ascending.
    of: Vec<u32>,
    /// Where each candidate's set lies: chunk, first, length.
    at: Vec<(u32, u32, u32)>,
    chunks: Vec<Vec<u32>>,
}

impl Sets {
    /// Room for the sets of these candidates, which must ascend.
    pub fn new(candidates: Vec<u32>) -> Self {
        Self { at: vec![(0, 0, 0); candidates.len()], of: candidates, chunks: Vec::new() }
    }

    /// Takes the next chunk of sets, one after another; which text each is of, and how many shingles it has. Texts nobody asked for are left out.
    pub fn add(&mut self, values: Vec<u32>, sets: impl Iterator<Item = (u32, usize)>) {
        let mut first = 0;
        for (text, length) in sets {
            if let Ok(slot) = self.of.binary_search(&text) {
                self.at[slot] = (self.chunks.len() as u32, first as u32, length as u32);
            }
            first += length;
        }
        self.chunks.push(values);
    }

    /// A candidate's shingles, ascending; empty where there are none.
    pub fn get(&self, text: u32) -> &[u32] {
        let Ok(slot) = self.of.binary_search(&text) else { return &[] };
        let (chunk, first, length) = self.at[slot];
        self.chunks.get(chunk as usize).map_or(&[], |c| &c[first as usize..(first + length) as usize])
    }
}

/// Whether `|a ∩ b| / |a ∪ b| ≥ threshold`, for ascending sets without repetition. Stops as soon as the answer is known.
pub fn similar(a: &[u32], b: &[u32], threshold: f64) -> bool {
    let (a, b) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let reaches = |common: usize| common > 0 && common as f64 / (a.len() + b.len() - common) as f64 >= threshold;
    let (mut i, mut j, mut common) = (0, 0, 0);
    // What is left of `a` could all be common: when even that is too little, more steps change nothing.
    while reaches(common + a.len() - i) {
        let (Some(x), Some(y)) = (a.get(i), b.get(j)) else { break };
        common += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    reaches(common)
}

/// Connected texts of a bucket.
#[derive(Debug)]
struct Group {
    /// Those that others are compared with, one or more.
    members: Vec<u32>,
    /// Whether there are more, which others are not compared with.
    more: bool,
}

impl Group {
    fn add(&mut self, texts: &[u32]) {
        let room = TRIES_A_GROUP.saturating_sub(self.members.len()).min(texts.len());
        self.members.extend_from_slice(&texts[..room]);
        self.more |= room < texts.len();
    }
}

/// Links what is similar in each bucket. Texts that are already connected are not compared, so a bucket of texts that are all alike costs one comparison
/// each. Gives the texts that were not compared with everything in their bucket, because of [`TRIES_A_GROUP`] and [`TRIES`].
pub fn link(buckets: &Buckets, sets: &Sets, threshold: f64, components: &mut Components) -> RoaringBitmap {
    let mut groups = Vec::new();
    let mut unsure = RoaringBitmap::new();
    for bucket in buckets.iter() {
        groups.clear();
        for text in bucket {
            if !place(*text, &mut groups, sets, threshold, components) {
                unsure.insert(*text);
            }
        }
    }
    unsure
}

/// Compares a text with the groups so far, then puts it where it belongs; whether it was compared with all that it is not connected to.
fn place(text: u32, groups: &mut Vec<Group>, sets: &Sets, threshold: f64, components: &mut Components) -> bool {
    let set = sets.get(text);
    let (mut tries, mut all) = (0, true);
    let mut home: Option<usize> = None;
    let mut at = 0;
    while at < groups.len() && tries < TRIES {
        let Group { members, more } = &groups[at];
        tries += 1;
        let mut connected = components.find(text) == components.find(members[0]);
        if !connected {
            let found = members.iter().inspect(|_| tries += 1).find(|other| similar(set, sets.get(**other), threshold)).copied();
            match found {
                Some(other) => {
                    components.link(text, other);
                    connected = true;
                }
                None => all &= !more,
            }
        }
        match (connected, home) {
            (true, None) => home = Some(at),
            (true, Some(home)) => {
                let joined = groups.remove(at);
                groups[home].add(&joined.members);
                groups[home].more |= joined.more;
                continue;
            }
            (false, _) => {}
        }
        at += 1;
    }
    all &= at == groups.len();
    match home {
        Some(home) => groups[home].add(&[text]),
        None => groups.push(Group { members: vec![text], more: false }),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sets_of(lists: &[Vec<u32>]) -> Sets {
        let mut sets = Sets::new((0..lists.len() as u32).collect());
        for (half, lists) in lists.chunks(2).enumerate() {
            sets.add(lists.concat(), lists.iter().enumerate().map(|(i, l)| ((half * 2 + i) as u32, l.len())));
        }
        sets
    }

    #[test]
    fn a_bucket_of_texts_that_are_all_alike_is_not_quadratic() {
        let n = 200_000;
        let mut buckets = Buckets::default();
        buckets.add(&mut (0..n).collect());
        let mut components = Components::new(n as usize);
        let mut sets = Sets::new((0..n).collect());
        sets.add(vec![7; n as usize], (0..n).map(|text| (text, 1)));
        assert!(link(&buckets, &sets, 0.7, &mut components).is_empty(), "what is connected is sure");
        assert!(components.roots().iter().all(|root| *root == 0));
    }

    #[test]
    fn a_bucket_of_texts_that_all_differ_is_not_quadratic() {
        let n = 10_000;
        let mut buckets = Buckets::default();
        buckets.add(&mut (0..n).collect());
        let mut components = Components::new(n as usize);
        let mut sets = Sets::new((0..n).collect());
        sets.add((0..n).collect(), (0..n).map(|text| (text, 1)));
        let unsure = link(&buckets, &sets, 0.7, &mut components);
        assert_eq!(components.roots(), (0..n).collect::<Vec<_>>());
        // Each group takes two tries: one to see that it is not connected, one to compare its text.
        assert_eq!(unsure.iter().collect::<Vec<_>>(), (TRIES as u32 / 2 + 1..n).collect::<Vec<_>>());
    }

    #[test]
    fn a_text_that_only_resembles_what_a_full_group_left_out_is_counted() {
        // A chain: each text shares 9 of 11 shingles with the next, so that only neighbours are similar.
        let chain: Vec<Vec<u32>> = (0..=TRIES_A_GROUP as u32 + 1).map(|i| (i..i + 10).collect()).collect();
        let n = chain.len() as u32;
        let sets = sets_of(&chain);
        let mut buckets = Buckets::default();
        buckets.add(&mut (0..n).collect());
        let mut components = Components::new(n as usize);
        let unsure = link(&buckets, &sets, 0.8, &mut components);
        // 0 … 63 fill the group, 64 is linked and left out, 65 resembles 64 alone.
        assert_eq!(unsure.iter().collect::<Vec<_>>(), [n - 1]);
        assert_eq!(components.roots()[n as usize - 2..], [0, n - 1]);
    }

    #[test]
    fn buckets_of_one_text_are_dropped() {
        let mut buckets = Buckets::default();
        buckets.add(&mut vec![4, 4]);
        buckets.add(&mut vec![9, 2, 9]);
        buckets.add(&mut vec![2, 3]);
        assert_eq!(buckets.iter().collect::<Vec<_>>(), [&[2, 9][..], &[2, 3]]);
        assert_eq!(buckets.candidates(), [2, 3, 9]);
    }

    #[test]
    fn the_threshold_itself_is_similar_enough() {
        let (a, b): (Vec<u32>, Vec<u32>) = ((0..8).collect(), (1..10).collect());
        assert!(similar(&a, &b, 0.7));
        assert!(!similar(&a, &b, 0.700_001));
        assert!(!similar(&[], &[], 0.1));
    }

    proptest! {
        #[test]
        fn similar_is_jaccard(a in prop::collection::btree_set(0u32..30, 0..25), b in prop::collection::btree_set(0u32..30, 0..25), percent in 1u32..=100) {
            let threshold = f64::from(percent) / 100.0;
            let union = a.union(&b).count();
            let jaccard = if union == 0 { 0.0 } else { a.intersection(&b).count() as f64 / union as f64 };
            let list = |s: &BTreeSet<u32>| s.iter().copied().collect::<Vec<_>>();
            prop_assert_eq!(similar(&list(&a), &list(&b), threshold), jaccard >= threshold);
        }

        /// In one bucket that is small enough, the links are those of comparing every pair.
        #[test]
        fn one_bucket_gives_the_components_of_all_pairs(lists in prop::collection::vec(prop::collection::btree_set(0u32..12, 1..8), 2..20)) {
            let lists: Vec<Vec<u32>> = lists.into_iter().map(|s| s.into_iter().collect()).collect();
            let sets = sets_of(&lists);
            let mut all_pairs = Components::new(lists.len());
            for a in 0..lists.len() {
                for b in 0..a {
                    if similar(&lists[a], &lists[b], 0.6) {
                        all_pairs.link(a as u32, b as u32);
                    }
                }
            }
            let mut buckets = Buckets::default();
            buckets.add(&mut (0..lists.len() as u32).collect());
            let mut components = Components::new(lists.len());
            prop_assert!(link(&buckets, &sets, 0.6, &mut components).is_empty());
            prop_assert_eq!(components.roots(), all_pairs.roots());
        }
    }
}
