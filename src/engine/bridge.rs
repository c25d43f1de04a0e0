//! The only place where batches cross between Arrow (DataFusion) and Polars, through the Arrow C Data Interface.
//!
//! ```text
//!  RecordBatch ──▶ FFI_ArrowArray ══▶ polars_arrow ──▶ expressions ──▶ polars_arrow ══▶ FFI_ArrowArray ──▶ ArrayRef
//!               only the columns read                evaluated in the calling thread             in the order of the expressions
//! ```
//!
//! Both sides keep text as string views and share buffers by reference counts, so nothing is copied but where a type has another
//! layout over there ([`carried`] says what becomes of each type).
//!
//! A [`Program`] is compiled once (types are coerced, expressions become physical) and then run over many batches: a run costs the work
//! itself and a few microseconds. It never enters Polars' thread pool by itself: the parallelism is DataFusion's, one batch a thread.
//!
//! Expressions must be elementwise: a value may depend on its own row alone, because otherwise the size of a batch would change a result.

#![allow(unsafe_code)]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, NullArray, RecordBatch, RecordBatchOptions, make_array, new_empty_array, new_null_array};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use polars::prelude as pl;
use polars::prelude::{Expr, IntoColumn, IntoLazy};
use polars_arrow::ffi as c;
use polars_expr::prelude::{ExecutionState, PhysicalExpr};
use polars_expr::{ExpressionConversionState, create_physical_expr};
use polars_plan::prelude::{AExpr, Arena, ExprToIRContext, IR, IRAggExpr, Node, is_elementwise, node_to_expr, to_expr_ir};

use crate::error::{Error, Result, nearest};

/// Expressions made ready for batches of one schema.
pub struct Program {
    reads: Vec<Read>,
    makes: Vec<Make>,
}

/// A column that crosses over.
struct Read {
    name: String,
    /// Its type on the way, see [`carried`].
    carried: DataType,
    /// The same in Polars' Arrow.
    there: polars_arrow::datatypes::ArrowDataType,
}

/// An expression and the type of what it makes.
struct Make {
    expr: Arc<dyn PhysicalExpr>,
    /// The type in Polars.
    there: pl::DataType,
    /// The same in Arrow.
    back: DataType,
    /// The type of the array handed out.
    carried: DataType,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reads: Vec<_> = self.reads.iter().map(|r| &r.name).collect();
        write!(f, "Program(reads {reads:?}, makes {:?})", self.makes.iter().map(|m| &m.carried).collect::<Vec<_>>())
    }
}

impl Program {
    /// Compiles expressions for batches that have at least the columns of `schema` which the expressions name.
    ///
    /// An [`Error`] of kind `Spec` says that a column is missing, that types do not fit, or that an expression is not elementwise.
    pub fn new(schema: &Schema, exprs: &[Expr]) -> Result<Self> {
        let mut reads: Vec<Read> = Vec::new();
        for name in exprs.iter().flat_map(columns_of) {
            if reads.iter().all(|r| r.name != name) {
                reads.push(Read::new(schema, name)?);
            }
        }
        let input: pl::Schema =
            reads.iter().map(|r| pl::Field::new(r.name.as_str().into(), pl::DataType::from_arrow(&r.there, None))).collect();
        let makes = compile(input, exprs)?;
        Ok(Self { reads, makes })
    }

    /// The types of what [`run`](Self::run) makes, in the order of the expressions.
    pub fn types(&self) -> impl Iterator<Item = &DataType> {
        self.makes.iter().map(|m| &m.carried)
    }

    /// One array for each expression, each as long as the batch.
    pub fn run(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(self.types().map(new_empty_array).collect());
        }
        if rows == 1 && !self.reads.is_empty() {
            // Polars takes a column of one row for a scalar, and divides by scalars through their reciprocal: the last bit of a result would
            // depend on how rows were cut into batches.
            let twice = arrow::compute::take_record_batch(batch, &arrow::array::UInt32Array::from(vec![0, 0]))?;
            return Ok(self.run(&twice)?.iter().map(|made| made.slice(0, 1)).collect());
        }
        let columns = self.reads.iter().map(|r| r.import(batch)).collect::<Result<Vec<_>>>()?;
        let frame = pl::DataFrame::new(rows, columns)?;
        let state = ExecutionState::new();
        self.makes.iter().map(|m| m.evaluate(&frame, &state)).collect()
    }
}

/// Compiles and runs expressions over one batch: arrays in the order of `exprs`, each of `batch.num_rows()` rows (a literal is repeated).
/// Use a [`Program`] where there is more than one batch.
pub fn evaluate(batch: &RecordBatch, exprs: &[Expr]) -> Result<Vec<ArrayRef>> {
    Program::new(batch.schema_ref(), exprs)?.run(batch)
}

/// The fields that named expressions make out of columns of a schema.
///
/// The expressions also run once over a row of nulls, because Polars finds some mistakes (`ABS` of a text) only then.
pub fn infer(schema: &Schema, exprs: &[(String, Expr)]) -> Result<Vec<Field>> {
    let alone: Vec<Expr> = exprs.iter().map(|(_, e)| e.clone()).collect();
    let program = Program::new(schema, &alone)?;
    let fields = program.reads.iter().map(|r| Field::new(&r.name, r.carried.clone(), true)).collect::<Vec<_>>();
    let nulls = program.reads.iter().map(|r| new_null_array(&r.carried, 1)).collect();
    program.run(&RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), nulls, &one_row())?)?;
    Ok(exprs.iter().zip(program.types()).map(|((name, _), t)| Field::new(name, t.clone(), true)).collect())
}

fn one_row() -> RecordBatchOptions {
    RecordBatchOptions::new().with_row_count(Some(1))
}

/// Whether each value depends on its own row alone; otherwise, what in the expression looks at other rows.
pub fn elementwise(expr: &Expr) -> Result<(), String> {
    let mut arena = Arena::new();
    let schema = pl::Schema::default();
    let ir = to_expr_ir(expr.clone(), &mut ExprToIRContext::new_no_verification(&mut arena, &schema)).map_err(|e| plain(&e))?;
    elementwise_in(ir.node(), &arena)
}

/// The names of the columns that an expression reads, in the order in which it first names them.
pub fn columns_of(expr: &Expr) -> Vec<String> {
    // Polars walks its trees from the right.
    let leaves: Vec<&str> = expr.into_iter().filter_map(|e| if let Expr::Column(name) = e { Some(name.as_str()) } else { None }).collect();
    let mut names: Vec<String> = Vec::new();
    for name in leaves.into_iter().rev() {
        if names.iter().all(|n| n != name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The column of exactly this name (`polars::col` would read `*` and `^…$` as patterns).
pub fn column(name: &str) -> Expr {
    Expr::Column(name.into())
}

/// A number as a literal of type `Float64` (`polars::lit` gives one that takes the other side's type).
pub fn number(value: f64) -> Expr {
    Expr::Literal(pl::Scalar::from(value).into())
}

/// The first value of an array as a literal of the same type.
pub fn literal(array: &ArrayRef) -> Result<Expr> {
    let carried = carried(array.data_type()).map_err(Error::internal)?;
    let there = to_polars_type(&carried)?;
    let series = import("literal", array, &carried, &there)?;
    let value = series.get(0)?.into_static();
    Ok(Expr::Literal(pl::Scalar::new(series.dtype().clone(), value).into()))
}

/// The Polars type that stands for an Arrow type.
pub fn polars_type(t: &DataType) -> Result<pl::DataType> {
    let carried = carried(t).map_err(Error::internal)?;
    Ok(pl::DataType::from_arrow(&to_polars_type(&carried)?, None))
}

/// What a type becomes when it crosses to Polars and back; `Err` says why it cannot.
///
/// Text and binary become views, dictionaries their values, seconds milliseconds, times of day nanoseconds, small decimals 128 bits, 16-bit
/// floats 32 bits, lists large lists. All other types stay as they are.
pub fn carried(t: &DataType) -> Result<DataType, String> {
    use DataType as D;
    Ok(match t {
        D::Utf8 | D::LargeUtf8 | D::Utf8View => D::Utf8View,
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => D::BinaryView,
        D::Float16 => D::Float32,
        D::Date64 | D::Timestamp(TimeUnit::Second, None) => D::Timestamp(TimeUnit::Millisecond, None),
        D::Timestamp(TimeUnit::Second, zone) => D::Timestamp(TimeUnit::Millisecond, zone.clone()),
        D::Time32(_) | D::Time64(_) => D::Time64(TimeUnit::Nanosecond),
        D::Duration(TimeUnit::Second) => D::Duration(TimeUnit::Millisecond),
        D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) | D::Decimal256(p, s) if *s >= 0 && *p <= 38 => D::Decimal128(*p, *s),
        D::List(f) | D::LargeList(f) | D::ListView(f) | D::LargeListView(f) | D::FixedSizeList(f, _) => {
            D::LargeList(Arc::new(Field::new("item", inside(f)?, true)))
        }
        D::Struct(fields) if !fields.is_empty() => {
            let there = fields.iter().map(|f| Ok(Field::new(f.name(), inside(f)?, true))).collect::<Result<Vec<_>, String>>();
            D::Struct(Fields::from(there?))
        }
        D::Dictionary(_, values) => carried(values)?,
        D::RunEndEncoded(_, values) => carried(values.data_type())?,
        same if same.is_primitive() && !same.is_decimal() && !matches!(same, D::Interval(_)) => same.clone(),
        D::Boolean | D::Null => t.clone(),
        other => return Err(format!("expressions cannot work with the type {other}")),
    })
}

/// The type of what lies in a list or a struct. Polars exports a nested `Null` in a form that arrow-rs does not take.
fn inside(field: &Field) -> Result<DataType, String> {
    match carried(field.data_type())? {
        DataType::Null => Err("expressions cannot work with lists or structs of the type Null".to_owned()),
        other => Ok(other),
    }
}

impl Read {
    fn new(schema: &Schema, name: String) -> Result<Self> {
        let Ok(field) = schema.field_with_name(&name) else {
            let hint = nearest(&name, schema.fields().iter().map(|f| f.name().as_str()));
            return Err(Error::spec(format!("there is no column `{name}`")).hint(hint));
        };
        let carried = carried(field.data_type()).map_err(|why| Error::spec(format!("column `{name}`: {why}")))?;
        let there = to_polars_type(&carried)?;
        Ok(Self { name, carried, there })
    }

    fn import(&self, batch: &RecordBatch) -> Result<pl::Column> {
        let array = batch.column_by_name(&self.name).ok_or_else(|| Error::internal(format!("a batch lacks the column `{}`", self.name)))?;
        Ok(import(&self.name, array, &self.carried, &self.there).map_err(|e| e.at(format!("column `{}`", self.name)))?.into_column())
    }
}

impl Make {
    fn evaluate(&self, frame: &pl::DataFrame, state: &ExecutionState) -> Result<ArrayRef> {
        let rows = frame.height();
        let column = self.expr.evaluate(frame, state).map_err(|e| Error::input(plain(&e)))?;
        let column = if column.len() == 1 && rows != 1 { column.new_from_index(0, rows) } else { column };
        if column.len() != rows {
            return Err(Error::internal(format!("an expression made {} values of {rows} rows", column.len())));
        }
        let series = column.take_materialized_series();
        let back = if *series.dtype() == self.there { self.back.clone() } else { from_polars_type(series.dtype())? };
        let array = export(&series.rechunk(), back)?;
        if *array.data_type() == self.carried { Ok(array) } else { Ok(arrow::compute::cast(&array, &self.carried)?) }
    }
}

/// Lets Polars' planner resolve and coerce types, then turns every expression into a physical one that stays in the calling thread.
fn compile(input: pl::Schema, exprs: &[Expr]) -> Result<Vec<Make>> {
    if exprs.is_empty() {
        return Ok(Vec::new());
    }
    // Own names, so that two expressions of one name do not collide and a bare column is a projection like any other.
    let named: Vec<Expr> = exprs.iter().enumerate().map(|(i, e)| e.clone().alias(i.to_string())).collect();
    let plan = pl::DataFrame::empty_with_schema(&input).lazy().select(named).to_alp().map_err(|e| Error::spec(plain(&e)))?;
    let mut arena = plan.expr_arena;
    let IR::Select { expr, schema, .. } = plan.lp_arena.get(plan.lp_top) else {
        return Err(Error::internal("Polars planned a projection as something else"));
    };
    if expr.len() != exprs.len() {
        return Err(Error::spec("an expression names several columns at once").hint("name each column by itself"));
    }
    let input = Arc::new(input);
    let mut state = ExpressionConversionState::new(false);
    expr.iter()
        .zip(schema.iter_values())
        .map(|(ir, there)| {
            elementwise_in(ir.node(), &arena).map_err(Error::spec)?;
            let expr = create_physical_expr(ir, &mut arena, &input, &mut state).map_err(|e| Error::spec(plain(&e)))?;
            let back = from_polars_type(there)?;
            let carried = carried(&back).map_err(Error::spec)?;
            Ok(Make { expr, there: there.clone(), back, carried })
        })
        .collect()
}

fn elementwise_in(root: Node, arena: &Arena<AExpr>) -> Result<(), String> {
    let mut stack = polars::polars_utils::idx_vec::UnitVec::new();
    stack.push(root);
    while let Some(node) = stack.pop() {
        let expr = arena.get(node);
        // The right side of `a IN (1, 2)`: a list of constants.
        if let AExpr::Agg(IRAggExpr::Implode { input, .. }) = expr
            && matches!(arena.get(*input), AExpr::Literal(_))
        {
            continue;
        }
        if !is_elementwise(&mut stack, expr, arena) {
            let what = match expr {
                AExpr::Over { .. } => "is a window over other rows",
                AExpr::Sort { .. } | AExpr::SortBy { .. } => "sorts rows",
                AExpr::Agg { .. } | AExpr::AnonymousAgg { .. } | AExpr::Len => "aggregates over rows",
                AExpr::Literal(_) => "is a list of values that has no row of its own",
                _ => "looks at other rows",
            };
            return Err(format!("`{}` {what}, but a column's value may depend on its own row alone", node_to_expr(node, arena)));
        }
    }
    Ok(())
}

/// What a Polars error says, without the plan it prints below.
pub fn plain(e: &pl::PolarsError) -> String {
    let mut root = e;
    while let pl::PolarsError::Context { error, .. } | pl::PolarsError::ExprContext { error, .. } = root {
        root = error;
    }
    let text = root.to_string();
    text.split("\n\nResolved plan").next().unwrap_or(&text).trim().to_owned()
}

// The two sides declare the same C structs of the Arrow C Data Interface, field by field (`repr(C)`); `transmute` checks their sizes.

fn to_polars_type(t: &DataType) -> Result<polars_arrow::datatypes::ArrowDataType> {
    let schema = FFI_ArrowSchema::try_from(&Field::new("", t.clone(), true))?;
    // SAFETY: both are the C Data Interface's `ArrowSchema`. Ownership moves: the value's `release` runs once, when the new one is dropped.
    let schema = unsafe { std::mem::transmute::<FFI_ArrowSchema, c::ArrowSchema>(schema) };
    // SAFETY: arrow-rs has just filled the struct, and it lives until the call returns.
    Ok(unsafe { c::import_field_from_c(&schema) }?.dtype)
}

fn from_polars_type(t: &pl::DataType) -> Result<DataType> {
    if t.contains_unknown() {
        return Err(Error::spec("the type of an expression is not known before it runs").hint("cast it: `CAST(… AS DOUBLE)`"));
    }
    // Without the metadata that Polars adds to mark its categories: they come back as their text.
    let field = polars_arrow::datatypes::Field::new("".into(), t.try_to_arrow(pl::CompatLevel::newest())?, true);
    let schema = c::export_field_to_c(&field);
    // SAFETY: as in `to_polars_type`, the other way round.
    let schema = unsafe { std::mem::transmute::<c::ArrowSchema, FFI_ArrowSchema>(schema) };
    Ok(DataType::try_from(&schema)?)
}

fn import(name: &str, array: &ArrayRef, carried: &DataType, there: &polars_arrow::datatypes::ArrowDataType) -> Result<pl::Series> {
    let data = if array.data_type() == carried { array.to_data() } else { arrow::compute::cast(array, carried)?.to_data() };
    let array = FFI_ArrowArray::new(&data);
    // SAFETY: both are the C Data Interface's `ArrowArray`. Ownership moves: `release` runs once, when Polars drops its last reference.
    let array = unsafe { std::mem::transmute::<FFI_ArrowArray, c::ArrowArray>(array) };
    // SAFETY: arrow-rs has just filled the struct from valid data of the type `carried`, of which `there` is the translation. Its buffers
    // are immutable and counted, so that they outlive every reference which Polars keeps.
    let array = unsafe { c::import_array_from_c(array, there.clone()) }?;
    Ok(pl::Series::try_from((pl::PlSmallStr::from_str(name), array))?)
}

fn export(series: &pl::Series, t: DataType) -> Result<ArrayRef> {
    if t == DataType::Null {
        // Polars exports a buffer with it, which arrow-rs refuses.
        return Ok(Arc::new(NullArray::new(series.len())));
    }
    let array = c::export_array_to_c(series.to_arrow(0, pl::CompatLevel::newest()));
    // SAFETY: as in `import`, the other way round.
    let array = unsafe { std::mem::transmute::<c::ArrowArray, FFI_ArrowArray>(array) };
    // SAFETY: Polars has just filled the struct from a valid array whose type translates to `t`; arrow-rs copies what is not aligned.
    Ok(make_array(unsafe { from_ffi_and_data_type(array, t) }?))
}

#[cfg(test)]
mod tests;
