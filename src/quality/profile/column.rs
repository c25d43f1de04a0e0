//! The profile of one column: counters, a tally of values, and sketches of where numbers lie.

use serde::{Deserialize, Serialize};

use super::class::Class;
use super::histogram::histogram;
use super::moments::Moments;
use super::ranks::{Ranks, WIDTH, quantile};
use super::summary::{Booleans, ColumnSummary, Lengths, Numbers, QUANTILES, TOP, TopValue, Value};
use super::tally::{Entry, Tally};

/// Everything that is kept of a column.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Column {
    pub name: String,
    pub data_type: String,
    pub class: Class,
    pub rows: u64,
    pub nulls: u64,
    pub nan: u64,
    pub positive_infinite: u64,
    pub negative_infinite: u64,
    pub trues: u64,
    pub padded: u64,
    pub lengths: LengthCounts,
    tally: Tally,
    numbers: NumberSketch,
}

/// What is kept of numbers once there are too many different ones to count each.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct NumberSketch {
    /// Keys not yet folded in, in row order. Work is done by blocks of a fixed number of values, so batches leave no trace.
    block: Vec<u64>,
    moments: Moments,
    ranks: Ranks,
    /// Smallest and largest key.
    ends: Option<(u64, u64)>,
}

/// Lengths of texts or lists.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct LengthCounts {
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
    by_doubling: Vec<u64>,
}

impl Column {
    /// The profile of no rows.
    pub fn new(name: String, data_type: String, class: Class) -> Self {
        Self {
            name,
            data_type,
            class,
            rows: 0,
            nulls: 0,
            nan: 0,
            positive_infinite: 0,
            negative_infinite: 0,
            trues: 0,
            padded: 0,
            lengths: LengthCounts::default(),
            tally: Tally::default(),
            numbers: NumberSketch::default(),
        }
    }

    /// Must be called once after the profile was read from bytes, before anything is added.
    pub fn index(&mut self) {
        self.tally.index();
    }

    /// Takes in the keys of numbers, in row order.
    pub fn add_numbers(&mut self, keys: &[u64]) {
        let mut rest = keys;
        if self.tally.is_exact() {
            let Some(at) = keys.iter().position(|key| !self.tally.add_exact(*key, 1, || None)) else { return };
            self.spill();
            rest = &keys[at..];
        }
        while !rest.is_empty() {
            let room = WIDTH - self.numbers.block.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.numbers.block.extend_from_slice(now);
            if self.numbers.block.len() == WIDTH {
                self.fold_block();
            }
            rest = later;
        }
    }

    /// Takes in a text or bytes by their hash.
    #[inline]
    pub fn add_hashed(&mut self, key: u64, label: impl Fn() -> String) {
        if self.tally.is_exact() {
            if self.tally.add_exact(key, 1, || Some(label())) {
                return;
            }
            self.spill();
        }
        self.tally.add_sketched(key, || Some(label()));
    }

    /// Takes in the profile of later rows.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.nulls += other.nulls;
        self.nan += other.nan;
        self.positive_infinite += other.positive_infinite;
        self.negative_infinite += other.negative_infinite;
        self.trues += other.trues;
        self.padded += other.padded;
        self.lengths.merge(&other.lengths);
        if self.tally.merge_exact(&other.tally) {
            return;
        }
        let mut other = other.clone();
        other.index();
        self.spill();
        other.spill();
        // Folding both open blocks first keeps the order of work a matter of the two profiles alone.
        self.fold_block();
        other.fold_block();
        self.tally.merge_sketched(&other.tally);
        self.numbers.moments.merge(&other.numbers.moments);
        self.numbers.ranks.merge(&other.numbers.ranks);
        self.numbers.widen(other.numbers.ends);
    }

    /// Exact counts become sketches.
    fn spill(&mut self) {
        if !self.tally.is_exact() {
            return;
        }
        if self.class.is_number() {
            let sorted = self.tally.sorted();
            let class = self.class;
            self.numbers.moments = Moments::of(sorted.iter().map(|(key, count)| (class.number(*key), *count as f64)));
            self.numbers.ranks.add_counted(&sorted);
            self.numbers.widen(sorted.first().zip(sorted.last()).map(|(a, b)| (a.0, b.0)));
        }
        self.tally.spill();
    }

    fn fold_block(&mut self) {
        let numbers = &mut self.numbers;
        if numbers.block.is_empty() {
            return;
        }
        let mut values = [0.0; WIDTH];
        let class = self.class;
        for (value, key) in values.iter_mut().zip(&numbers.block) {
            *value = class.number(*key);
        }
        numbers.moments.merge(&Moments::of_block(&values[..numbers.block.len()]));
        for key in &numbers.block {
            self.tally.add_sketched(*key, || None);
        }
        let mut block = std::mem::take(&mut numbers.block);
        numbers.ranks.add_block(&mut block);
        numbers.widen(block.first().zip(block.last()).map(|(a, b)| (*a, *b)));
        block.clear();
        numbers.block = block;
    }

    /// What the profile says.
    pub fn summary(&self) -> ColumnSummary {
        let mut folded = self.clone();
        folded.fold_block();
        let tallied = self.class.is_tallied() && self.rows > self.nulls;
        ColumnSummary {
            name: self.name.clone(),
            data_type: self.data_type.clone(),
            count: self.rows,
            nulls: self.nulls,
            nan: self.nan,
            positive_infinite: self.positive_infinite,
            negative_infinite: self.negative_infinite,
            distinct: tallied.then(|| folded.tally.distinct()),
            numbers: folded.number_summary(),
            booleans: (self.class == Class::Boolean).then(|| Booleans { trues: self.trues, falses: self.rows - self.nulls - self.trues }),
            lengths: self.lengths.summary(),
            padded: (self.class == Class::Text).then_some(self.padded),
            top: folded.top(),
            note: folded.note(),
        }
    }

    fn number_summary(&self) -> Option<Numbers> {
        if !self.class.is_number() {
            return None;
        }
        let class = self.class;
        let exact = self.tally.is_exact();
        let (sorted, moments) = if exact {
            let sorted = self.tally.sorted();
            let moments = Moments::of(sorted.iter().map(|(key, count)| (class.number(*key), *count as f64)));
            (sorted, moments)
        } else {
            (self.with_ends(self.numbers.ranks.weighted()), self.numbers.moments)
        };
        let (first, last) = sorted.first().zip(sorted.last())?;
        let total: u64 = sorted.iter().map(|(_, weight)| weight).sum();
        // Moments of durations are in ticks until here, and shown in seconds.
        let scale = if let Class::Duration { per_second } = class { per_second as f64 } else { 1.0 };
        let measured = |moment: Option<f64>| moment.filter(|_| class.has_moments()).map(|m| m / scale);
        Some(Numbers {
            min: Some(class.value(first.0)),
            max: Some(class.value(last.0)),
            mean: measured(moments.mean()),
            std: measured(moments.std()),
            quantiles: QUANTILES.iter().filter_map(|p| Some((*p, class.value(quantile(&sorted, *p)?)))).collect(),
            rank_error: if exact { 0.0 } else { self.numbers.ranks.error() as f64 / total as f64 },
            histogram: histogram(class, &sorted),
        })
    }

    /// The smallest and largest value are known exactly, though the sketch may have let go of them.
    fn with_ends(&self, mut sorted: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
        if let Some((least, most)) = self.numbers.ends {
            if let Some(first) = sorted.first_mut().filter(|first| first.0 > least) {
                first.1 -= 1;
                sorted.insert(0, (least, 1));
            }
            if let Some(last) = sorted.last_mut().filter(|last| last.0 < most) {
                last.1 -= 1;
                sorted.push((most, 1));
            }
            sorted.retain(|(_, weight)| *weight > 0);
        }
        sorted
    }

    fn top(&self) -> Vec<TopValue> {
        // A counter no larger than the bound may belong to a value that others outnumber: it says nothing.
        let mut entries: Vec<Entry<'_>> = self.tally.entries().filter(|entry| entry.count > self.tally.error()).collect();
        entries.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.label.cmp(&b.label)).then(a.key.cmp(&b.key)));
        let shown = |entry: &Entry<'_>| entry.label.map_or_else(|| self.class.value(entry.key), |label| Value::Text(label.to_owned()));
        entries
            .iter()
            .take(TOP)
            .map(|entry| TopValue { value: shown(entry), count: entry.count, at_most: entry.count + self.tally.error() })
            .collect()
    }

    fn note(&self) -> Option<String> {
        match self.class {
            Class::Other => Some("values of this type are counted, not looked into".to_owned()),
            Class::List => Some("elements are counted, not looked into".to_owned()),
            _ if self.tally.given_up() => Some("no value stands out, so that frequent ones were not followed".to_owned()),
            _ => None,
        }
    }
}

impl NumberSketch {
    fn widen(&mut self, by: Option<(u64, u64)>) {
        self.ends = match (self.ends, by) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, theirs) => mine.or(theirs),
        };
    }
}

impl LengthCounts {
    /// Counts a length.
    #[inline]
    pub fn add(&mut self, length: u64) {
        if self.count == 0 {
            self.min = length;
        }
        self.count += 1;
        self.sum += length;
        self.min = self.min.min(length);
        self.max = self.max.max(length);
        let bin = (u64::BITS - length.leading_zeros()) as usize;
        if bin >= self.by_doubling.len() {
            self.by_doubling.resize(bin + 1, 0);
        }
        self.by_doubling[bin] += 1;
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum += other.sum;
        if self.by_doubling.len() < other.by_doubling.len() {
            self.by_doubling.resize(other.by_doubling.len(), 0);
        }
        self.by_doubling.iter_mut().zip(&other.by_doubling).for_each(|(mine, theirs)| *mine += theirs);
    }

    fn summary(&self) -> Option<Lengths> {
        (self.count > 0).then(|| Lengths {
            min: self.min,
            mean: self.sum as f64 / self.count as f64,
            max: self.max,
            empty: self.by_doubling.first().copied().unwrap_or(0),
            by_doubling: self.by_doubling.clone(),
        })
    }
}
