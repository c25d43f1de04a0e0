//! Fit passes: statistics learned from the rows that are left.
//!
//! Moments are folded unit by unit and merged in unit order (rule 4). Quantiles are exact: DataFusion sorts the one column, with spill,
//! and the ranks are picked from the stream. Frequencies are a `GROUP BY`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, Schema, UInt8Type};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;
use tokio::task::JoinSet;

use super::moments::Gather;
use super::rows::{RowsTable, View};
use crate::error::{Error, Result};
use crate::stages::step::{Fit, FitKind, FitResult, Fits, SPLIT, Scope, Step};

/// Learns the fits of one pass. Row decisions on the way are recorded by the first reading.
pub async fn learn(view: &View, steps: &[usize], session: &SessionContext) -> Result<Fits> {
    let fits: Vec<&Fit> =
        steps.iter().filter_map(|i| if let Step::Fit(f) = &view.live.segment.steps[*i].step { Some(f) } else { None }).collect();
    let mut view = view.clone();
    let mut learned = Fits::new();
    let moments: Vec<&Fit> = fits.iter().copied().filter(|f| f.kind == FitKind::Moments).collect();
    if !moments.is_empty() || view.record.is_some() {
        learned.extend(fold(&view, &moments).await?);
        view.record = None;
    }
    for fit in fits {
        let result = match &fit.kind {
            FitKind::Moments => continue,
            FitKind::Quantiles(qs) => quantiles(table(&view, fit, session)?, fit, qs).await?,
            FitKind::Frequencies { at_most } => frequencies(table(&view, fit, session)?, fit, *at_most).await?,
        };
        learned.insert(fit.key.clone(), result);
    }
    Ok(learned)
}

/// How often [`learn`] reads the rows.
pub fn readings<'a>(steps: impl Iterator<Item = &'a Step>, records: bool) -> u64 {
    let kinds: Vec<&FitKind> = steps.filter_map(|s| if let Step::Fit(f) = s { Some(&f.kind) } else { None }).collect();
    let folds = records || kinds.contains(&&FitKind::Moments);
    let others = kinds.iter().map(|kind| match kind {
        FitKind::Moments => 0,
        FitKind::Quantiles(_) => 2,
        FitKind::Frequencies { .. } => 1,
    });
    u64::from(folds) + others.sum::<u64>()
}

/// The fit's column over the rows that it learns from.
fn table(view: &View, fit: &Fit, session: &SessionContext) -> Result<DataFrame> {
    let df = session.read_table(Arc::new(RowsTable::new(view.clone(), true)))?;
    let df = match train_code(view, fit)? {
        Some(train) => df.filter(ident(SPLIT).eq(lit(train)))?,
        None => df,
    };
    Ok(df.select(vec![ident(&fit.column)])?)
}

fn train_code(view: &View, fit: &Fit) -> Result<Option<u8>> {
    match (fit.on, view.live.segment.train()) {
        (Scope::All, _) => Ok(None),
        (Scope::Train, Some(train)) => Ok(Some(train)),
        (Scope::Train, None) => Err(Error::internal(format!("`{}` learns from train, but there is no such split", fit.key))),
    }
}

/// Moments of some columns in one reading; each thread folds units of its own, and the units are merged in order.
async fn fold(view: &View, fits: &[&Fit]) -> Result<Fits> {
    let all = view.schema();
    let mut names: Vec<&str> = fits.iter().map(|f| f.column.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if fits.iter().any(|f| f.on == Scope::Train) {
        names.push(SPLIT);
    }
    let fields: Vec<_> = names.iter().map(|n| all.field_with_name(n).cloned()).collect::<Result<_, _>>()?;
    let schema = Arc::new(Schema::new(fields));
    let wanted: Vec<(usize, Option<u8>)> =
        fits.iter().map(|f| Ok((schema.index_of(&f.column)?, train_code(view, f)?))).collect::<Result<_>>()?;
    let mut tasks = JoinSet::new();
    for units in view.live.deal(view.upto, view.live.threads) {
        let mut rows = view.read(units, schema.clone())?;
        let wanted = wanted.clone();
        tasks.spawn(async move {
            let mut by_unit: BTreeMap<u32, Vec<Gather>> = BTreeMap::new();
            while let Some((unit, batch)) = rows.next().await? {
                let gathers = by_unit.entry(unit).or_insert_with(|| vec![Gather::default(); wanted.len()]);
                for ((column, train), gather) in wanted.iter().zip(gathers) {
                    gather_column(gather, &batch, *column, *train)?;
                }
            }
            Ok::<_, Error>(by_unit)
        });
    }
    let mut by_unit = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        by_unit.extend(done??);
    }
    let mut totals = vec![Gather::default(); fits.len()];
    for gathers in by_unit.values() {
        totals.iter_mut().zip(gathers).for_each(|(total, g)| total.merge(g));
    }
    Ok(fits.iter().zip(totals).map(|(f, g)| (f.key.clone(), FitResult::Moments(g.finish()))).collect())
}

fn gather_column(gather: &mut Gather, batch: &RecordBatch, column: usize, train: Option<u8>) -> Result<()> {
    let array = doubles(batch.column(column))?;
    let values = array.as_primitive::<Float64Type>();
    let Some(train) = train else {
        add_all(gather, values);
        return Ok(());
    };
    let split = batch.column_by_name(SPLIT).ok_or_else(|| Error::internal("a batch has lost its splits"))?;
    let split = split.as_primitive::<UInt8Type>().values();
    for (i, s) in split.iter().enumerate() {
        match (*s == train, values.is_null(i)) {
            (true, false) => gather.add(values.value(i)),
            (true, true) => gather.add_nulls(1),
            (false, _) => {}
        }
    }
    Ok(())
}

/// Numbers as doubles. Nearly all decimals fit 64 bits, which the processor converts by itself; 128 bits take a function call. The result is the same.
fn doubles(array: &ArrayRef) -> Result<ArrayRef> {
    let DataType::Decimal128(_, scale) = array.data_type() else { return Ok(cast(array, &DataType::Float64)?) };
    let power = 10_f64.powi(i32::from(*scale));
    let double = |v: i128| i64::try_from(v).map_or(v as f64, |v| v as f64) / power;
    Ok(Arc::new(array.as_primitive::<Decimal128Type>().unary::<_, Float64Type>(double)))
}

fn add_all(gather: &mut Gather, values: &Float64Array) {
    if values.null_count() == 0 {
        values.values().iter().for_each(|x| gather.add(*x));
    } else {
        values.iter().flatten().for_each(|x| gather.add(x));
        gather.add_nulls(values.null_count() as u64);
    }
}

/// Exact quantiles with linear interpolation between neighbours, as numpy's default: position q · (n − 1).
async fn quantiles(df: DataFrame, fit: &Fit, qs: &[f64]) -> Result<FitResult> {
    let x = datafusion::logical_expr::cast(ident(&fit.column), DataType::Float64);
    let df = df.select(vec![x.alias("x")])?.filter(ident("x").is_not_null())?;
    let df = df.filter(Expr::eq(ident("x"), lit(f64::NAN)).is_not_true())?;
    let total = df.clone().count().await? as u64;
    let mut ranks: Vec<u64> = qs.iter().flat_map(|q| neighbours(*q, total)).map(|(rank, _)| rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let mut picked: BTreeMap<u64, f64> = BTreeMap::new();
    let mut stream = df.sort(vec![ident("x").sort(true, false)])?.execute_stream().await?;
    let (mut seen, mut next) = (0_u64, ranks.iter().copied().peekable());
    while let Some(batch) = stream.try_next().await? {
        let values = batch.column(0).as_primitive::<Float64Type>();
        while let Some(rank) = next.next_if(|r| *r < seen + values.len() as u64) {
            picked.insert(rank, values.value((rank - seen) as usize));
        }
        seen += values.len() as u64;
        if next.peek().is_none() {
            break;
        }
    }
    let value = |q: &f64| {
        let [(a, _), (b, weight)] = neighbours(*q, total);
        match (picked.get(&a), picked.get(&b)) {
            (Some(a), Some(b)) if weight > 0.0 => a + (b - a) * weight,
            (Some(a), _) => *a,
            _ => f64::NAN,
        }
    };
    Ok(FitResult::Quantiles { count: total, values: qs.iter().map(value).collect() })
}

/// The two ranks around a quantile and their weights.
fn neighbours(q: f64, n: u64) -> [(u64, f64); 2] {
    let position = q * n.saturating_sub(1) as f64;
    let low = position.floor();
    let weight = position - low;
    [(low as u64, 1.0 - weight), (position.ceil() as u64, weight)]
}

/// Values with their counts, most frequent first.
async fn frequencies(df: DataFrame, fit: &Fit, at_most: usize) -> Result<FitResult> {
    let text = datafusion::logical_expr::cast(ident(&fit.column), DataType::Utf8);
    let df = df.select(vec![text.alias("value")])?.aggregate(vec![ident("value")], vec![count(lit(1_i64)).alias("n")])?;
    let mut stream = df.execute_stream().await?;
    let (mut nulls, mut values) = (0_u64, Vec::new());
    while let Some(batch) = stream.try_next().await? {
        let (texts, counts) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        for (text, n) in texts.iter().zip(counts.values()) {
            match text {
                None => nulls += *n as u64,
                Some(text) => values.push((text.to_owned(), *n as u64)),
            }
        }
        if values.len() > at_most {
            return Err(Error::input(format!("column `{}` has more than {at_most} distinct values", fit.column))
                .at(format!("`{}`", fit.key))
                .hint("use a column with fewer values, or group rare ones first with `derive`"));
        }
    }
    values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(FitResult::Frequencies { nulls, values })
}

#[cfg(test)]
mod tests {
    use arrow::array::Decimal128Array;

    use super::*;

    #[test]
    fn decimals_become_the_doubles_that_a_cast_makes() {
        let values =
            [0, 1, -1, 12_345, i64::MAX.into(), i128::from(i64::MAX) + 1, i64::MIN.into(), i128::from(i64::MIN) - 1, 10_i128.pow(37) + 7];
        for scale in [0, 2, 5, 18, -3] {
            let all = values.iter().map(|v| Some(*v)).chain([None]).collect::<Decimal128Array>();
            let all: ArrayRef = Arc::new(all.with_precision_and_scale(38, scale).unwrap());
            assert_eq!(&doubles(&all).unwrap(), &cast(&all, &DataType::Float64).unwrap(), "scale {scale}");
        }
    }
}
