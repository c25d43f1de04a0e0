//! The hash kernels as DataFusion scalar functions. None holds state: seeds and tables are literal arguments, so that a plan with them can
//! be sent to another machine, where [`all`] is registered too.
//!
//! 128-bit hashes and order keys travel as `Decimal128(38, 0)`: the widest number that DataFusion groups, sorts and spills natively. Its
//! decimal digits mean nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Decimal128Array, UInt32Array, UInt64Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type, UInt64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::{Expr, ident, lit};

use super::cuts::CutTable;
use super::kernel::{canonical, hash_row, hash_rows, normalize_text};
use super::step::ROW;

/// The type of 128-bit hashes and order keys.
pub const KEY: DataType = DataType::Decimal128(38, 0);

/// All functions, to be registered wherever plans run.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    FUNCTIONS.to_vec()
}

/// `hash(seed, row identity)` above, the identity below: an order of rows that is as good as random and has no ties.
pub fn row_key(seed: u64) -> Expr {
    call(Kernel::RowKey, vec![lit(seed), ident(ROW)])
}

/// The 128-bit hash of some columns' values, in this order.
pub fn hash(seed: u64, columns: Vec<Expr>) -> Expr {
    call(Kernel::Hash, std::iter::once(lit(seed)).chain(columns).collect())
}

/// The 128-bit hash of a text's normal form; null where the text is null.
pub fn text_hash(text: Expr) -> Expr {
    call(Kernel::TextHash, vec![text])
}

/// A number of any float type as `Float64`, −0.0 as 0.0 and every NaN as one.
pub fn float_key(column: Expr) -> Expr {
    call(Kernel::FloatKey, vec![column])
}

/// Bytes that compare as rows do in this order, with the row identity as their end; the whole order turned around where `last`.
pub fn order_key(order: &[(Expr, SortOptions)], last: bool) -> Expr {
    let code = |o: &SortOptions| match (o.descending != last, o.nulls_first != last) {
        (false, false) => 'a',
        (false, true) => 'A',
        (true, false) => 'd',
        (true, true) => 'D',
    };
    let mut how: String = order.iter().map(|(_, o)| code(o)).collect();
    how.push(if last { 'd' } else { 'a' });
    let columns = order.iter().map(|(e, _)| e.clone());
    call(Kernel::OrderKey, [lit(how), ident(ROW)].into_iter().chain(columns).collect())
}

/// The row identity at the end of an [`order_key`] made with the same `last`.
pub fn order_row(key: Expr, last: bool) -> Expr {
    call(Kernel::OrderRow, vec![lit(last), key])
}

/// The first `bits` bits of an order key, 1 to 31, as `UInt32`: buckets of rising keys.
pub fn bucket(key: Expr, bits: u32) -> Expr {
    call(Kernel::Bucket, vec![lit(bits), key])
}

/// The code of a key's place among its class's cuts; null where the table has none. See [`CutTable`].
pub fn cut(table: &CutTable, class: Expr, key: Expr) -> Expr {
    call(Kernel::Cut, vec![lit(ScalarValue::Binary(Some(table.encode()))), class, key])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kernel {
    RowKey,
    Hash,
    TextHash,
    FloatKey,
    OrderKey,
    OrderRow,
    Bucket,
    Cut,
}

const KERNELS: [(Kernel, &str); 8] = [
    (Kernel::RowKey, "feedline_row_key"),
    (Kernel::Hash, "feedline_hash"),
    (Kernel::TextHash, "feedline_text_hash"),
    (Kernel::FloatKey, "feedline_float_key"),
    (Kernel::OrderKey, "feedline_order_key"),
    (Kernel::OrderRow, "feedline_order_row"),
    (Kernel::Bucket, "feedline_bucket"),
    (Kernel::Cut, "feedline_cut"),
];

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let make = |(kernel, name)| Function { kernel, name, signature: Signature::variadic_any(Volatility::Immutable) };
    KERNELS.into_iter().map(|k| Arc::new(ScalarUDF::from(make(k)))).collect()
});

fn call(kernel: Kernel, args: Vec<Expr>) -> Expr {
    FUNCTIONS[kernel as usize].call(args)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    kernel: Kernel,
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(match self.kernel {
            Kernel::RowKey | Kernel::Hash | Kernel::TextHash => KEY,
            Kernel::FloatKey => DataType::Float64,
            Kernel::OrderKey => DataType::Binary,
            Kernel::OrderRow => DataType::UInt64,
            Kernel::Bucket | Kernel::Cut => DataType::UInt32,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let never_null = matches!(self.kernel, Kernel::RowKey | Kernel::Hash | Kernel::OrderKey | Kernel::Bucket);
        Ok(Arc::new(Field::new(self.name, self.return_type(&[])?, !never_null || args.arg_fields.is_empty())))
    }

    /// A table of cuts would make a name of megabytes: its hash is as good.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        let mut hasher = DefaultHasher::new();
        args.hash(&mut hasher);
        Ok(format!("{}#{:x}", self.name, hasher.finish()))
    }

    fn display_name(&self, args: &[Expr]) -> DfResult<String> {
        let shown: Vec<String> = args.iter().filter(|a| !matches!(a, Expr::Literal(..))).map(ToString::to_string).collect();
        Ok(format!("{}({})", self.name, shown.join(", ")))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let made = self.run(&Arguments { name: self.name, args })?;
        Ok(ColumnarValue::Array(made))
    }
}

impl Function {
    fn run(&self, args: &Arguments) -> DfResult<ArrayRef> {
        match self.kernel {
            Kernel::RowKey => {
                let seed = args.number(0)?;
                let rows = args.column(1)?;
                let rows = rows.as_primitive_opt::<UInt64Type>().ok_or_else(|| args.wrong())?;
                keys(rows.values().iter().map(|row| (u128::from(hash_row(*row, seed)) << 64 | u128::from(*row)) as i128))
            }
            Kernel::Hash => {
                let columns = (1..args.args.args.len()).map(|i| args.column(i)).collect::<DfResult<Vec<_>>>()?;
                let hashes = hash_rows::<u128>(&columns, args.args.number_rows, args.number(0)?)?;
                keys(hashes.into_iter().map(|h| h as i128))
            }
            Kernel::TextHash => text_hashes(args),
            Kernel::FloatKey => {
                let floats = cast(&args.column(0)?, &DataType::Float64)?;
                Ok(Arc::new(floats.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical)))
            }
            Kernel::OrderKey => order_keys(args),
            Kernel::OrderRow => order_rows(args),
            Kernel::Bucket => {
                let shift = 32 - u32::try_from(args.number(0)?).unwrap_or(32).clamp(1, 31);
                let keys = args.keys(1)?;
                // the sign bit turned, signed keys rise as unsigned ones do
                let of = |k: i128| (((k as u128) ^ (1 << 127)) >> 96) as u32 >> shift;
                Ok(Arc::new(UInt32Array::from_iter_values(keys.values().iter().map(|k| of(*k)))))
            }
            Kernel::Cut => {
                let table = match args.args.args.first() {
                    Some(ColumnarValue::Scalar(ScalarValue::Binary(Some(bytes)))) => bytes,
                    _ => return Err(args.wrong()),
                };
                Ok(Arc::new(CutTable::codes(table, &args.keys(1)?, &args.keys(2)?).ok_or_else(|| args.wrong())?))
            }
        }
    }
}

/// A call's arguments, and the error that they are not what the kernel takes.
struct Arguments {
    name: &'static str,
    args: ScalarFunctionArgs,
}

impl Arguments {
    fn wrong(&self) -> DataFusionError {
        let types: Vec<String> = self.args.arg_fields.iter().map(|f| f.data_type().to_string()).collect();
        exec_datafusion_err!("{} is made for Feedline's own plans and cannot take ({})", self.name, types.join(", "))
    }

    fn column(&self, i: usize) -> DfResult<ArrayRef> {
        self.args.args.get(i).ok_or_else(|| self.wrong())?.to_array(self.args.number_rows)
    }

    fn keys(&self, i: usize) -> DfResult<Decimal128Array> {
        self.column(i)?.as_primitive_opt::<Decimal128Type>().cloned().ok_or_else(|| self.wrong())
    }

    fn number(&self, i: usize) -> DfResult<u64> {
        match self.args.args.get(i) {
            Some(ColumnarValue::Scalar(ScalarValue::UInt64(Some(n)))) => Ok(*n),
            Some(ColumnarValue::Scalar(ScalarValue::UInt32(Some(n)))) => Ok(u64::from(*n)),
            _ => Err(self.wrong()),
        }
    }
}

fn keys(values: impl Iterator<Item = i128>) -> DfResult<ArrayRef> {
    Ok(Arc::new(Decimal128Array::from_iter_values(values).with_data_type(KEY)))
}

fn text_hashes(args: &Arguments) -> DfResult<ArrayRef> {
    let column = args.column(0)?;
    let texts = cast(&column, &DataType::Utf8View)?;
    let mut normal = String::new();
    let hashes = texts.as_string_view().iter().map(|text| {
        text.map(|text| {
            normalize_text(text, &mut normal);
            xxhash_rust::xxh3::xxh3_128(normal.as_bytes()) as i128
        })
    });
    Ok(Arc::new(Decimal128Array::from_iter(hashes).with_data_type(KEY)))
}

fn order_keys(args: &Arguments) -> DfResult<ArrayRef> {
    let Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(how)))) = args.args.args.first() else { return Err(args.wrong()) };
    let (columns, own) = how.split_at(how.len().saturating_sub(1));
    let identities = args.column(1)?;
    let identities = identities.as_primitive_opt::<UInt64Type>().ok_or_else(|| args.wrong())?;
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for (i, code) in columns.chars().enumerate() {
        let array = args.column(i + 2)?;
        let options = SortOptions { descending: code.eq_ignore_ascii_case(&'d'), nulls_first: code.is_ascii_uppercase() };
        fields.push(SortField::new_with_options(array.data_type().clone(), options));
        arrays.push(array);
    }
    let rows = RowConverter::new(fields)?.convert_columns(&arrays)?;
    let mut out = BinaryBuilder::with_capacity(identities.len(), rows.size() + 8 * identities.len());
    let mut bytes = Vec::new();
    for (row, identity) in rows.iter().zip(identities.values()) {
        bytes.clear();
        bytes.extend_from_slice(row.as_ref());
        bytes.extend_from_slice(&turned(*identity, own == "d").to_be_bytes());
        out.append_value(&bytes);
    }
    Ok(Arc::new(out.finish()))
}

fn order_rows(args: &Arguments) -> DfResult<ArrayRef> {
    let Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(last)))) = args.args.args.first() else { return Err(args.wrong()) };
    let column = cast(&args.column(1)?, &DataType::Binary)?;
    let identity = |key: &[u8]| key.last_chunk::<8>().map(|end| turned(u64::from_be_bytes(*end), *last));
    Ok(Arc::new(column.as_binary::<i32>().iter().map(|key| key.and_then(identity)).collect::<UInt64Array>()))
}

fn turned(identity: u64, last: bool) -> u64 {
    if last { !identity } else { identity }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};
    use proptest::prelude::*;

    use super::*;
    use crate::stages::testing::{Shape, columns, session, table};

    #[test]
    fn every_kernel_is_called_by_its_own_name() {
        for (i, (kernel, name)) in KERNELS.iter().enumerate() {
            assert_eq!((*kernel as usize, FUNCTIONS[i].name()), (i, *name));
        }
        assert_eq!(all().len(), KERNELS.len());
    }

    #[test]
    fn a_call_from_sql_with_wrong_arguments_is_an_error() {
        let session = session(Shape { partitions: 1, batch: 8 });
        all().iter().for_each(|f| session.register_udf(f.as_ref().clone()));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for (_, name) in KERNELS.iter().filter(|(k, _)| !matches!(k, Kernel::TextHash | Kernel::FloatKey)) {
            let run = async { session.sql(&format!("select {name}('x', 'y', 'z')")).await?.collect().await };
            assert!(runtime.block_on(run).unwrap_err().to_string().contains("Feedline's own plans"), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn order_keys_compare_as_rows_do(rows in proptest::collection::vec((proptest::option::of(0i64..4), -2.0f64..2.0), 2..40), desc: bool, nulls_first: bool, last: bool) {
            let shape = Shape { partitions: 2, batch: 7 };
            let a = Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0))) as ArrayRef;
            let data = columns(vec![("a", a), ("b", Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.1))))]);
            let options = SortOptions { descending: desc, nulls_first };
            let order = [(ident("a"), options), (float_key(ident("b")), SortOptions::default().desc())];
            let made = tokio::runtime::Runtime::new().unwrap().block_on(async {
                let keyed = table(&session(shape), data, shape).select(vec![order_key(&order, last).alias("key")]).unwrap();
                let both = keyed.select(vec![order_row(ident("key"), last).alias(ROW), ident("key")]).unwrap();
                both.sort(vec![ident("key").sort(true, true)]).unwrap().collect().await.unwrap()
            });
            let got: Vec<u64> = made.iter().flat_map(|b| b.column(0).as_primitive::<UInt64Type>().values().to_vec()).collect();
            let mut expected: Vec<u64> = (0..rows.len() as u64).collect();
            expected.sort_by(|x, y| {
                let (x, y) = (*x as usize, *y as usize);
                let nulls = |r: usize| rows[r].0.is_none() != nulls_first;
                let a = nulls(x).cmp(&nulls(y)).then(if desc { rows[y].0.cmp(&rows[x].0) } else { rows[x].0.cmp(&rows[y].0) });
                a.then(rows[y].1.total_cmp(&rows[x].1)).then(x.cmp(&y))
            });
            if last {
                expected.reverse();
            }
            prop_assert_eq!(got, expected);
        }
    }
}
