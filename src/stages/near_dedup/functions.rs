//! The kernels as DataFusion functions over whole Arrow arrays. Both are pure functions of their arguments (a text column and a recipe as
//! JSON), so that any engine that has them registered can run a plan that holds them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, PrimitiveBuilder};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, UInt32Type, UInt64Type};
use datafusion::common::{DataFusionError, ScalarValue, exec_err};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::lit;

use super::minhash::{MinHasher, whole};
use super::recipe::Recipe;
use super::shingles::Shingler;
use crate::error::Result;

/// What a function makes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Makes {
    /// `List<UInt64>`: the whole text's fingerprint, then one a band; null where there is no word.
    Fingerprints,
    /// `List<UInt32>`: the distinct shingles, ascending; null where there is no word.
    Shingles,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextFunction {
    makes: Makes,
    signature: Signature,
}

/// The functions that a session of another process needs in order to run a near_dedup plan.
pub fn functions() -> Vec<ScalarUDF> {
    [Makes::Fingerprints, Makes::Shingles]
        .map(|makes| ScalarUDF::from(TextFunction { makes, signature: Signature::any(2, Volatility::Immutable) }))
        .into()
}

/// `near_dedup_fingerprints(text, recipe)`: the fingerprint of the whole text and one for each band.
pub fn fingerprints(text: Expr, recipe: &Recipe) -> Result<Expr> {
    call(Makes::Fingerprints, text, recipe)
}

/// `near_dedup_shingles(text, recipe)`: the distinct shingles, ascending.
pub fn shingles(text: Expr, recipe: &Recipe) -> Result<Expr> {
    call(Makes::Shingles, text, recipe)
}

fn call(makes: Makes, text: Expr, recipe: &Recipe) -> Result<Expr> {
    let function = ScalarUDF::from(TextFunction { makes, signature: Signature::any(2, Volatility::Immutable) });
    Ok(function.call(vec![text, lit(serde_json::to_string(recipe)?)]))
}

impl ScalarUDFImpl for TextFunction {
    fn name(&self) -> &str {
        match self.makes {
            Makes::Fingerprints => "near_dedup_fingerprints",
            Makes::Shingles => "near_dedup_shingles",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        let item = match self.makes {
            Makes::Fingerprints => DataType::UInt64,
            Makes::Shingles => DataType::UInt32,
        };
        Ok(DataType::List(Arc::new(Field::new_list_field(item, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let [text, recipe] = args.args.as_slice() else { return exec_err!("{} takes a text and a recipe", self.name()) };
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(recipe)) | ScalarValue::Utf8View(Some(recipe))) = recipe else {
            return exec_err!("{}: the recipe must be a literal", self.name());
        };
        let recipe: Recipe = serde_json::from_str(recipe).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let texts = text.to_array(args.number_rows)?;
        let array = match self.makes {
            Makes::Fingerprints => fingerprint_array(&texts, &recipe),
            Makes::Shingles => shingle_array(&texts, &recipe),
        };
        Ok(ColumnarValue::Array(array?))
    }
}

fn fingerprint_array(texts: &ArrayRef, recipe: &Recipe) -> Result<ArrayRef, DataFusionError> {
    let (mut shingler, mut hasher, mut shingles) = (Shingler::new(recipe), MinHasher::new(recipe), Vec::new());
    lists::<UInt64Type>(texts, recipe.bands + 1, |text, out| {
        let hash = shingler.shingles(text, &mut shingles)?;
        out.push(whole(hash));
        hasher.fingerprints(&shingles, out);
        Some(())
    })
}

fn shingle_array(texts: &ArrayRef, recipe: &Recipe) -> Result<ArrayRef, DataFusionError> {
    let mut shingler = Shingler::new(recipe);
    lists::<UInt32Type>(texts, 256, |text, out| {
        shingler.shingles(text, out)?;
        out.sort_unstable();
        out.dedup();
        Some(())
    })
}

/// One list a text; `make` fills an empty buffer, or says `None` for a null.
fn lists<T: ArrowPrimitiveType>(
    texts: &ArrayRef,
    about: usize,
    mut make: impl FnMut(&str, &mut Vec<T::Native>) -> Option<()>,
) -> Result<ArrayRef, DataFusionError> {
    let values = PrimitiveBuilder::<T>::with_capacity(texts.len() * about);
    let mut lists = ListBuilder::with_capacity(values, texts.len());
    let mut one = Vec::with_capacity(about);
    let mut add = |text: Option<&str>| {
        one.clear();
        let there = text.and_then(|text| make(text, &mut one));
        if there.is_some() {
            lists.values().append_slice(&one);
        }
        lists.append(there.is_some());
    };
    match texts.data_type() {
        DataType::Utf8 => texts.as_string::<i32>().iter().for_each(&mut add),
        DataType::LargeUtf8 => texts.as_string::<i64>().iter().for_each(&mut add),
        DataType::Utf8View => texts.as_string_view().iter().for_each(&mut add),
        DataType::Null => (0..texts.len()).for_each(|_| add(None)),
        other => return exec_err!("near_dedup reads text, not {other}"),
    }
    Ok(Arc::new(lists.finish()))
}

#[cfg(test)]
mod tests {
    use super::super::recipe::Shingle;
    use super::*;
    use arrow::array::{LargeStringArray, NullArray, StringArray, StringViewArray};

    const RECIPE: Recipe = Recipe { shingle: Shingle::Words(2), fold_digits: true, bands: 3, rows: 2, seed: 1 };

    #[test]
    fn all_kinds_of_text_arrays_give_the_same() {
        let texts = [Some("a b c"), None, Some("?"), Some("a b c a b c")];
        let arrays: [ArrayRef; 3] = [
            Arc::new(StringArray::from_iter(texts)),
            Arc::new(LargeStringArray::from_iter(texts)),
            Arc::new(StringViewArray::from_iter(texts)),
        ];
        let made: Vec<_> = arrays.iter().map(|a| (fingerprint_array(a, &RECIPE).unwrap(), shingle_array(a, &RECIPE).unwrap())).collect();
        assert!(
            made.iter().all(|m| m.0.as_list::<i32>() == made[0].0.as_list::<i32>() && m.1.as_list::<i32>() == made[0].1.as_list::<i32>())
        );
        let (prints, shingles) = (made[0].0.as_list::<i32>(), made[0].1.as_list::<i32>());
        assert_eq!((prints.value_length(0), prints.is_null(1), prints.is_null(2)), (4, true, true));
        assert_eq!((shingles.value_length(0), shingles.value_length(3)), (2, 3));
        let nulls: ArrayRef = Arc::new(NullArray::new(2));
        assert_eq!(fingerprint_array(&nulls, &RECIPE).unwrap().null_count(), 2);
    }
}
