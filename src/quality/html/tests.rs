//! The page stands alone, escapes what it is given, and holds odd reports.

use super::super::profile::{ColumnSummary, Histogram, Numbers};
use super::super::report::{ColumnReport, RowCounts, StageReport, tests::small};
use super::*;

#[test]
fn the_page_needs_nothing_else() {
    let page = render(&small());
    for reference in ["http", "src=", "url(", "@import", "<link", "<script", "<iframe"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn names_and_values_are_escaped() {
    let page = render(&small());
    assert!(page.contains("&lt;script&gt;&quot;") && page.contains("&lt;b&gt;&amp;"));
    assert!(page.contains("price &lt; 100 &amp; &lt;ok&gt;"));
    let opened = page.matches("<details").count();
    assert_eq!((opened, page.matches("</details>").count()), (3, 3));
}

#[test]
fn the_page_says_what_matters() {
    let page = render(&small());
    for text in ["5 rows in, 3 delivered: 3 rejected by 1 stage, 1 added.", "condition is null", "no footer", "every value is null"] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn an_empty_report_is_a_page() {
    let page = render(&Report::default());
    assert!(page.contains("No rows came in.") && page.ends_with("</html>"));
    assert!(!page.contains("NaN") && !page.contains("inf"));
}

#[test]
fn numbers_from_elsewhere_do_not_break_the_pictures() {
    let mut report = Report { rows: RowCounts { input: 1, output: u64::MAX, ..RowCounts::default() }, ..Report::default() };
    // A stage whose counts cannot be.
    report.stages =
        vec![StageReport { rows_in: 0, rows_out: 9, rejected: [("x".to_owned(), 7)].into_iter().collect(), ..StageReport::default() }];
    let histogram = Histogram { edges: vec![1.0, 1.0], counts: vec![3, 4, 5], ..Histogram::default() };
    let odd = ColumnSummary { numbers: Some(Numbers { histogram: Some(histogram), ..Numbers::default() }), ..ColumnSummary::default() };
    report.columns = vec![ColumnReport { name: String::new(), before: Some(odd), after: None }];
    let page = render(&report);
    assert!(!page.contains("NaN") && !page.contains("\"inf"));
}

#[test]
fn three_hundred_columns_stay_a_page() {
    let mut report = small();
    let column = report.columns[1].clone();
    report.columns = (0..300).map(|i| ColumnReport { name: format!("feature \"{i}\""), ..column.clone() }).collect();
    let page = render(&report);
    assert_eq!(page.matches("<details").count(), 300);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
}
