//! What a report leaves out: values of columns that the dataset does not store in the clear. Counts may stand.

use indexmap::IndexMap;

use super::leakage::Leakage;
use super::profile::{ColumnSummary, TableSummary};
use super::report::LabelReport;

/// What stands in the place of what is withheld.
pub const NOTE: &str = "encrypted: values are not shown";

/// The summary with nothing but counts of the columns that may not be shown.
pub fn summary(mut table: TableSummary, shows: impl Fn(&str) -> bool) -> TableSummary {
    table.columns.iter_mut().filter(|c| !shows(&c.name)).for_each(|column| *column = counts(column));
    table
}

fn counts(column: &ColumnSummary) -> ColumnSummary {
    ColumnSummary {
        name: column.name.clone(),
        data_type: column.data_type.clone(),
        count: column.count,
        nulls: column.nulls,
        distinct: column.distinct,
        note: Some(NOTE.to_owned()),
        ..Default::default()
    }
}

/// A label whose classes have numbers instead of names, the most frequent first.
pub fn label(mut label: LabelReport) -> LabelReport {
    let total = |by_split: &IndexMap<String, u64>| by_split.values().sum::<u64>();
    label.values.sort_by_cached_key(|v| (std::cmp::Reverse(total(&v.by_split)), v.by_split.values().copied().collect::<Vec<_>>()));
    label.values.iter_mut().zip(1..).for_each(|(value, number)| value.value = format!("class {number} (encrypted)"));
    label
}

/// Leakage without examples.
pub fn leakage(leakage: Leakage) -> Leakage {
    Leakage { examples: Vec::new(), ..leakage }
}

#[cfg(test)]
mod tests {
    use super::super::profile::{Numbers, TopValue, Value};
    use super::super::report::LabelValue;
    use super::*;

    #[test]
    fn nothing_but_counts_is_left() {
        let column = |name: &str| ColumnSummary {
            name: name.to_owned(),
            count: 9,
            nulls: 2,
            nan: 1,
            numbers: Some(Numbers { min: Some(Value::Int(123_456)), ..Default::default() }),
            top: vec![TopValue { value: Value::Text("123456".to_owned()), count: 3, at_most: 3 }],
            ..Default::default()
        };
        let table = TableSummary { rows: 9, columns: vec![column("secret"), column("open")] };
        let out = summary(table.clone(), |name| name == "open");
        assert_eq!(out.columns[1], table.columns[1]);
        let json = serde_json::to_string(&out.columns[0]).unwrap();
        assert!(!json.contains("123456") && json.contains("\"count\":9") && json.contains("\"nulls\":2"), "{json}");
    }

    #[test]
    fn classes_have_numbers() {
        let value = |name: &str, n: u64| LabelValue { value: name.to_owned(), by_split: [("train".to_owned(), n)].into_iter().collect() };
        let out = label(LabelReport { column: "y".to_owned(), values: vec![value("ill", 3), value("well", 8)], others: None });
        let shown: Vec<_> = out.values.iter().map(|v| (v.value.as_str(), v.by_split["train"])).collect();
        assert_eq!(shown, [("class 1 (encrypted)", 8), ("class 2 (encrypted)", 3)]);
    }
}
