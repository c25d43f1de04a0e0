//! Keys of two sides that become comparable.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use datafusion::logical_expr::cast as cast_to;
use datafusion::prelude::{Expr, ident};

use crate::error::Result;
use crate::stages::functions;
use crate::stages::kernel::canonical;

/// One column of the key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name in the rows.
    pub left: String,
    /// Its name in the other source.
    pub right: String,
    /// The type in which the two are compared.
    pub kind: DataType,
}

/// The type in which two columns can be compared without loss; `None` where they are of different kinds.
pub fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    match (a, b) {
        (Dictionary(_, values), other) | (other, Dictionary(_, values)) => common_type(values, other),
        (a, b) if a.is_string() && b.is_string() => Some(Utf8View),
        (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => Some(BinaryView),
        (UInt64, UInt64) => Some(UInt64),
        (UInt64, other) | (other, UInt64) if other.is_integer() => Some(Decimal128(20, 0)),
        (a, b) if a.is_integer() && b.is_integer() => Some(Int64),
        (a, b) if a.is_floating() && b.is_floating() => Some(Float64),
        (Timestamp(a, x), Timestamp(b, y)) if x.is_some() == y.is_some() => Some(Timestamp(finer(*a, *b), x.clone())),
        (Decimal128(p, s), Decimal128(q, t)) if s == t => Some(Decimal128(*p.max(q), *s)),
        (a, b) if a == b && !a.is_nested() => Some(a.clone()),
        _ => None,
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |u: &TimeUnit| match u {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(&a) >= rank(&b) { a } else { b }
}

impl Key {
    /// A column of the key in its common type, with one zero and one NaN.
    pub fn array(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let array = cast(column, &self.kind)?;
        if self.kind == DataType::Float64 {
            return Ok(Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical)));
        }
        Ok(array)
    }

    /// The same as an expression over a column of this name.
    pub fn expr(&self, name: &str) -> Expr {
        if self.kind == DataType::Float64 { functions::float_key(ident(name)) } else { cast_to(ident(name), self.kind.clone()) }
    }
}
