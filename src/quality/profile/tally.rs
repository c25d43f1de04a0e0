//! Distinct and most frequent values: exact while there are few, sketches afterwards.
//!
//! Up to [`CAPACITY`] distinct values are counted exactly. With the next one the counts become a Misra–Gries summary (1982; merged as by
//! Agarwal et al., PODS 2012): where the table is full, the median count is taken off all counters and those without anything left go,
//! so that a count is too small by at most [`Tally::error`], which is at most 1/512 of the values. Beside it a HyperLogLog sketch counts the distinct
//! values. Where no value stands out (identifiers, measurements) the table is only churned: it is given up early.

use datasketches::common::NumStdDev;
use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::summary::Distinct;

/// Distinct values that are counted exactly.
pub(super) const CAPACITY: usize = 1024;
/// Values that are looked at before a table may be given up …
const PATIENCE: u64 = 1 << 15;
/// … which happens where no counter holds this part of them: what the table could tell of such values is mostly its own error.
const STANDS_OUT: u64 = 1_000;
/// 2^12 registers of a byte: a standard error of 1.04/√4096 = 1.6 %.
const LOG2_REGISTERS: u8 = 12;

/// Counts of values that are named by 64-bit keys: a number's own key, a text's hash.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    keys: Vec<u64>,
    counts: Vec<u64>,
    /// What is shown of each value; empty where keys speak for themselves.
    labels: Vec<String>,
    /// Open addressing into `keys`: an index plus one, or 0. Built anew after reading.
    #[serde(skip)]
    slots: Vec<u16>,
    /// By how much a count may be too small, and the most that a value without a counter can have.
    error: u64,
    /// Values offered since counting stopped being exact.
    offered: u64,
    /// The table was given up.
    given_up: bool,
    /// The distinct values, once they are too many to count exactly.
    distinct: Option<Hll>,
}

/// A value with its count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub key: u64,
    pub count: u64,
    pub label: Option<&'a str>,
}

impl Tally {
    /// Whether every value is counted exactly.
    pub fn is_exact(&self) -> bool {
        self.distinct.is_none()
    }

    /// Whether there is nothing to say about frequent values.
    pub fn given_up(&self) -> bool {
        self.given_up
    }

    /// By how much a count may be too small.
    pub fn error(&self) -> u64 {
        self.error
    }

    /// All counters, in order of first appearance.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.keys.iter().zip(&self.counts).enumerate().map(|(i, (key, count))| Entry {
            key: *key,
            count: *count,
            label: self.labels.get(i).map(String::as_str),
        })
    }

    /// Keys with counts, by key.
    pub fn sorted(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = self.keys.iter().copied().zip(self.counts.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    /// The number of distinct values, with 95 % bounds where it is an estimate.
    pub fn distinct(&self) -> Distinct {
        match &self.distinct {
            None => Distinct { estimate: self.keys.len() as u64, low: self.keys.len() as u64, high: self.keys.len() as u64 },
            Some(Hll(hll)) => Distinct {
                estimate: hll.estimate().round() as u64,
                low: hll.lower_bound(NumStdDev::Two).floor() as u64,
                high: hll.upper_bound(NumStdDev::Two).ceil() as u64,
            },
        }
    }

    /// Counts a value exactly; `false`, and nothing counted, where it would be one too many.
    #[inline]
    pub fn add_exact(&mut self, key: u64, count: u64, label: impl FnOnce() -> Option<String>) -> bool {
        match self.find(key) {
            Ok(index) => self.counts[index] += count,
            Err(_) if self.keys.len() >= CAPACITY => return false,
            Err(slot) => self.insert(slot, key, count, label()),
        }
        true
    }

    /// Stops counting exactly.
    pub fn spill(&mut self) {
        if self.is_exact() {
            self.offered = self.counts.iter().sum();
            let mut hll = Hll::new();
            self.keys.iter().for_each(|key| hll.add(*key));
            self.distinct = Some(hll);
        }
    }

    /// Counts a value once exact counting is over.
    #[inline]
    pub fn add_sketched(&mut self, key: u64, label: impl FnOnce() -> Option<String>) {
        self.offered += 1;
        let Some(hll) = &mut self.distinct else { return };
        if self.given_up {
            return hll.add(key);
        }
        // A value in the table is in the sketch already.
        let slot = match self.find(key) {
            Ok(index) => return self.counts[index] += 1,
            Err(slot) => slot,
        };
        if let Some(hll) = &mut self.distinct {
            hll.add(key);
        }
        if self.keys.len() < CAPACITY {
            return self.insert(slot, key, 1, label());
        }
        self.make_room(CAPACITY / 2);
        if !self.given_up
            && let Err(slot) = self.find(key)
        {
            self.insert(slot, key, 1, label());
        }
    }

    /// Takes in another tally, where the values of both can still be counted exactly; `false`, and nothing done, where they cannot.
    pub fn merge_exact(&mut self, other: &Self) -> bool {
        if !self.is_exact() || !other.is_exact() {
            return false;
        }
        self.index();
        let new = other.keys.iter().filter(|key| self.find(**key).is_err()).count();
        if self.keys.len() + new > CAPACITY {
            return false;
        }
        for entry in other.entries() {
            self.add_exact(entry.key, entry.count, || entry.label.map(str::to_owned));
        }
        true
    }

    /// Takes in another tally; exact counting is over for both.
    pub fn merge_sketched(&mut self, other: &Self) {
        if let (Some(mine), Some(theirs)) = (&mut self.distinct, &other.distinct) {
            mine.merge(theirs);
        }
        self.offered += other.offered;
        self.error += other.error;
        self.index();
        if self.given_up || other.given_up {
            return self.give_up();
        }
        for entry in other.entries() {
            match self.find(entry.key) {
                Ok(index) => self.counts[index] += entry.count,
                Err(slot) => self.insert(slot, entry.key, entry.count, entry.label.map(str::to_owned)),
            }
        }
        if self.keys.len() > CAPACITY {
            self.make_room(CAPACITY);
        }
    }

    /// Makes the table fit for use after it was read.
    pub fn index(&mut self) {
        if self.slots.is_empty() && !self.keys.is_empty() {
            self.rebuild((2 * self.keys.len()).next_power_of_two());
        }
    }

    /// Takes so much off every counter that at most `keep` are left, or gives up.
    fn make_room(&mut self, keep: usize) {
        let mut order = self.counts.clone();
        let (_, off, _) = order.select_nth_unstable_by(keep, |a, b| b.cmp(a));
        let off = *off;
        self.error += off;
        let most = self.counts.iter().max().copied().unwrap_or(0);
        if self.offered >= PATIENCE && most < self.offered / STANDS_OUT {
            return self.give_up();
        }
        let stays: Vec<bool> = self.counts.iter().map(|count| *count > off).collect();
        let mut flags = stays.iter();
        self.keys.retain(|_| flags.next() == Some(&true));
        let mut flags = stays.iter();
        self.labels.retain(|_| flags.next() == Some(&true));
        self.counts.retain(|count| *count > off);
        self.counts.iter_mut().for_each(|count| *count -= off);
        self.rebuild(self.slots.len());
    }

    fn give_up(&mut self) {
        self.given_up = true;
        self.keys = Vec::new();
        self.counts = Vec::new();
        self.labels = Vec::new();
        self.slots = Vec::new();
    }

    #[inline]
    fn find(&self, key: u64) -> Result<usize, usize> {
        let mask = self.slots.len().wrapping_sub(1);
        if self.slots.is_empty() {
            return Err(0);
        }
        let mut slot = mixed(key) as usize & mask;
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                index if self.keys[index as usize - 1] == key => return Ok(index as usize - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn insert(&mut self, slot: usize, key: u64, count: u64, label: Option<String>) {
        self.keys.push(key);
        self.counts.push(count);
        self.labels.extend(label);
        if 2 * self.keys.len() > self.slots.len() {
            self.rebuild((4 * self.keys.len()).next_power_of_two().max(16));
        } else {
            self.slots[slot] = self.keys.len() as u16;
        }
    }

    fn rebuild(&mut self, slots: usize) {
        self.slots.clear();
        self.slots.resize(slots, 0);
        let mask = slots - 1;
        for (index, key) in self.keys.iter().enumerate() {
            let mut slot = mixed(*key) as usize & mask;
            while self.slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = index as u16 + 1;
        }
    }
}

/// A folded 64×64→128 bit multiplication: every bit of the key moves every bit of the low half.
#[inline]
fn mixed(key: u64) -> u64 {
    let wide = u128::from(key ^ 0x9E37_79B9_7F4A_7C15) * u128::from(0xD6E8_FEB8_6659_FD93_u64);
    (wide >> 64) as u64 ^ wide as u64
}

/// A HyperLogLog sketch that is stored in DataSketches' own format.
#[derive(Debug, Clone)]
struct Hll(HllSketch);

impl Hll {
    #[allow(clippy::expect_used)] // The number of registers is a constant within the range that is allowed.
    fn new() -> Self {
        Self(HllSketch::new(LOG2_REGISTERS, HllType::Hll8).expect("12 lies between 4 and 21"))
    }

    #[inline]
    fn add(&mut self, key: u64) {
        self.0.update_with_coupon(Coupon::from_value(key));
    }

    #[allow(clippy::expect_used)] // As above.
    fn merge(&mut self, other: &Self) {
        let mut union = HllUnion::new(LOG2_REGISTERS).expect("12 lies between 4 and 21");
        union.update(&self.0);
        union.update(&other.0);
        self.0 = union.to_sketch(HllType::Hll8);
    }
}

impl Serialize for Hll {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.serialize();
        if to.is_human_readable() { to.serialize_str(&hex::encode(bytes)) } else { bytes.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for Hll {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = if from.is_human_readable() {
            hex::decode(String::deserialize(from)?).map_err(de::Error::custom)?
        } else {
            Vec::<u8>::deserialize(from)?
        };
        HllSketch::deserialize(&bytes).map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn tally(values: impl IntoIterator<Item = u64>) -> Tally {
        let mut tally = Tally::default();
        for value in values {
            if tally.is_exact() {
                if tally.add_exact(value, 1, || None) {
                    continue;
                }
                tally.spill();
            }
            tally.add_sketched(value, || None);
        }
        tally
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn counts_lie_within_the_bound(left in skewed(), right in skewed()) {
            let mut exact: HashMap<u64, u64> = HashMap::new();
            left.iter().chain(&right).for_each(|v| *exact.entry(*v).or_default() += 1);
            let (mut all, mut other) = (tally(left), tally(right));
            if !all.merge_exact(&other) {
                all.spill();
                other.spill();
                all.merge_sketched(&other);
            }
            prop_assert!(all.keys.len() <= CAPACITY);
            for (value, count) in exact {
                let counted = all.find(value).map_or(0, |i| all.counts[i]);
                prop_assert!(counted <= count && count <= counted + all.error());
            }
        }
    }

    fn skewed() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec((0.0..1.0f64).prop_map(|u| (u.powi(6) * 20_000.0) as u64), 0..20_000)
    }

    #[test]
    fn a_heavy_value_is_found_among_many() {
        let counted = tally((0..200_000u64).map(|i| if i % 3 == 0 { 7 } else { i % 5_000 }));
        let heavy = counted.entries().max_by_key(|e| e.count).unwrap();
        assert_eq!(heavy.key, 7);
        assert!((66_667..66_720).contains(&(heavy.count + counted.error())) || heavy.count + counted.error() >= 66_667);
        let distinct = counted.distinct();
        assert!(distinct.low <= 5_000 && 5_000 <= distinct.high, "{distinct:?}");
    }

    #[test]
    fn unique_values_are_given_up() {
        let counted = tally((0..200_000u64).map(|i| i * 7_919));
        assert!(counted.given_up() && counted.keys.is_empty());
        let distinct = counted.distinct();
        assert!(distinct.low <= 200_000 && 200_000 <= distinct.high, "{distinct:?}");
    }

    #[test]
    fn a_stored_tally_goes_on_counting() {
        let counted = tally(0..5_000);
        let mut back: Tally = postcard::from_bytes(&postcard::to_stdvec(&counted).unwrap()).unwrap();
        let mut same: Tally = serde_json::from_str(&serde_json::to_string(&counted).unwrap()).unwrap();
        back.merge_sketched(&counted);
        same.merge_sketched(&counted);
        assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&same).unwrap());
    }
}
