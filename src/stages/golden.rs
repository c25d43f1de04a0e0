//! Reads the golden values of `tests/golden`, for the unit tests of stages.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use serde_json::Value;

use crate::stages::step::{FitKind, FitResult, Moments};

/// One case of a file: an input and what other software makes of it.
pub struct Case(Value);

/// The cases of `tests/golden/<name>.json`.
pub fn cases(name: &str) -> Vec<Case> {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = file["cases"].as_array_mut().unwrap().drain(..).map(Case).collect::<Vec<_>>();
    assert!(!cases.is_empty());
    cases
}

impl Case {
    pub fn name(&self) -> &str {
        self.0["name"].as_str().unwrap()
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    pub fn list(&self, key: &str) -> &[Value] {
        self.0[key].as_array().unwrap_or_else(|| panic!("{} has no list `{key}`", self.name()))
    }

    pub fn floats(&self, key: &str) -> ArrayRef {
        Arc::new(Float64Array::from_iter(self.list(key).iter().map(float)))
    }

    pub fn texts(&self, key: &str) -> ArrayRef {
        Arc::new(StringArray::from_iter(self.list(key).iter().map(Value::as_str)))
    }

    /// The rows (from 0) for which a list of booleans says true.
    pub fn marked(&self, key: &str) -> Vec<u64> {
        (0u64..).zip(self.list(key)).filter(|(_, m)| m.as_bool().unwrap()).map(|(row, _)| row).collect()
    }

    /// What a fit over the input learns.
    pub fn learned(&self, kind: &FitKind) -> FitResult {
        let stats = &self.0["moments"];
        let count = stats["count"].as_u64().unwrap();
        match kind {
            FitKind::Moments => FitResult::Moments(Moments {
                count,
                nulls: stats["nulls"].as_u64().unwrap(),
                nans: stats["nans"].as_u64().unwrap(),
                mean: float(&stats["mean"]).unwrap(),
                variance: float(&stats["variance"]).unwrap(),
                min: float(&stats["min"]).unwrap(),
                max: float(&stats["max"]).unwrap(),
            }),
            FitKind::Quantiles(at) => {
                let known: Vec<f64> = self.0["quantiles"]["at"].as_array().unwrap().iter().map(|q| q.as_f64().unwrap()).collect();
                let value = |q: &f64| float(&self.0["quantiles"]["values"][known.iter().position(|k| k == q).unwrap()]).unwrap();
                FitResult::Quantiles { count, values: at.iter().map(value).collect() }
            }
            FitKind::Frequencies { .. } => panic!("no golden frequencies"),
        }
    }

    /// Fails unless all values agree to an absolute and relative tolerance, nulls and NaNs at the same rows.
    pub fn assert_close(&self, made: &ArrayRef, expected: &str, tolerance: f64) {
        let made = arrow::compute::cast(made, &DataType::Float64).unwrap();
        let wanted = self.list(expected);
        assert_eq!(made.len(), wanted.len());
        for (row, (made, wanted)) in made.as_primitive::<Float64Type>().iter().zip(wanted.iter().map(float)).enumerate() {
            let close = match (made, wanted) {
                (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * b.abs().max(1.0),
                (a, b) => a.is_none() && b.is_none(),
            };
            assert!(close, "{} of {}, row {row}: made {made:?}, expected {wanted:?}", expected, self.name());
        }
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.parse().unwrap()),
        number => Some(number.as_f64().unwrap()),
    }
}
