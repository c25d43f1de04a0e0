//! Numbers as people read them.

use super::profile::Value;

/// A count with a comma between thousands.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share as a percentage that never rounds something to nothing, or nearly all to all. A line does not break before its sign.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let percent = 100.0 * part as f64 / whole as f64;
    let text = match (part, percent) {
        (0, _) => "0".to_owned(),
        (_, p) if p < 0.05 => "< 0.1".to_owned(),
        (n, p) if n < whole && p >= 99.95 => "> 99.9".to_owned(),
        (n, _) if n == whole => "100".to_owned(),
        (_, p) => format!("{p:.1}"),
    };
    text.replace(' ', "\u{a0}") + "\u{a0}%"
}

/// A number in about five figures, without trailing zeros.
pub(super) fn number(v: f64) -> String {
    let size = v.abs();
    if v == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e15).contains(&size) {
        return trimmed_exponent(&format!("{v:.4e}"));
    }
    let decimals = (4 - size.log10().floor() as i32).clamp(0, 8) as usize;
    let text = format!("{v:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn trimmed_exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, power)) => format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.')),
        None => text.to_owned(),
    }
}

/// A value of a column.
pub(super) fn value(v: &Value) -> String {
    match v {
        Value::Float(v) => number(*v),
        other => other.to_string(),
    }
}

/// A size in bytes.
pub(super) fn bytes(n: u64) -> String {
    bytesize::ByteSize::b(n).display().iec().to_string()
}

/// A span of time.
pub(super) fn seconds(s: f64) -> String {
    match s {
        s if s < 0.0005 => "< 1 ms".to_owned(),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

/// `1 row`, `2 rows`.
pub(super) fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        let shares =
            [(0, 9), (1, 9_999), (9_998, 9_999), (3, 3), (1, 8), (0, 0)].map(|(part, whole)| share(part, whole).replace('\u{a0}', " "));
        assert_eq!(shares, ["0 %", "< 0.1 %", "> 99.9 %", "100 %", "12.5 %", "–"]);
        assert_eq!(
            (number(0.1 + 0.2), number(-12_345.678), number(1e-7), number(2e20)),
            ("0.3".into(), "-12346".into(), "1e-7".into(), "2e20".into())
        );
        assert_eq!((number(12.5), number(1_000_000.0), number(f64::MAX)), ("12.5".into(), "1000000".into(), "1.7977e308".into()));
        assert_eq!((seconds(0.25), seconds(90.0), seconds(600.0)), ("250 ms".into(), "90.0 s".into(), "10 min".into()));
    }
}
