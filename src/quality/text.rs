//! A report in a few lines for the terminal.

use std::fmt;

use super::format::{bytes, count, plural, seconds, share};
use super::report::{Report, StageReport};

/// Warnings that are shown; the rest is counted.
const WARNINGS: usize = 5;
/// Rejecting stages that are shown; the rest is counted.
const STAGES: usize = 6;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pipeline)?;
        if let Some(version) = self.version {
            write!(f, " version {version}")?;
        }
        let took: f64 = self.timings.iter().map(|timing| timing.seconds).sum();
        if took > 0.0 {
            write!(f, " in {}", seconds(took))?;
        }
        writeln!(f)?;
        for source in &self.sources {
            let bad = source.bad_shards.len() as u64;
            let left_out = if bad > 0 { format!(", {} left out", plural(bad, "bad shard")) } else { String::new() };
            let (rows, shards) = (plural(source.rows, "row"), plural(source.shards, "shard"));
            writeln!(f, "  read       {rows} of {} in {shards}, {}{left_out}", source.name, bytes(source.bytes))?;
        }
        stages(self, f)?;
        let kept = share(self.rows.output, self.rows.input);
        writeln!(f, "  delivered  {}, {kept} of what came in", plural(self.rows.output, "row"))?;
        if self.splits.len() > 1 {
            let splits: Vec<String> =
                self.splits.iter().map(|s| format!("{} {} ({})", s.name, count(s.rows), share(s.rows, self.rows.output))).collect();
            writeln!(f, "  splits     {}", splits.join(" · "))?;
        }
        for key in &self.leakage {
            let keys = key.keys.join(", ");
            writeln!(f, "  leakage    {} of {} values of {keys} in more than one split", count(key.leaked), count(key.distinct))?;
        }
        for warning in self.warnings.iter().filter(|warning| warning.about != "leakage").take(WARNINGS) {
            writeln!(f, "  look at    {}: {}", warning.about, warning.message)?;
        }
        let more = self.warnings.iter().filter(|warning| warning.about != "leakage").count().saturating_sub(WARNINGS);
        if more > 0 {
            writeln!(f, "             and {more} more in the report")?;
        }
        Ok(())
    }
}

fn stages(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let busy: Vec<&StageReport> = report.stages.iter().filter(|stage| stage.rejected_rows() + stage.added > 0).collect();
    for stage in busy.iter().take(STAGES) {
        let mut parts: Vec<String> =
            stage.rejected.iter().filter(|(_, n)| **n > 0).map(|(why, n)| format!("−{} {why}", count(*n))).collect();
        if stage.added > 0 {
            parts.push(format!("+{} added", count(stage.added)));
        }
        writeln!(f, "  {:<10} {}", stage.label, parts.join(", "))?;
    }
    if busy.len() > STAGES {
        writeln!(f, "             and {} more stages", busy.len() - STAGES)?;
    }
    Ok(())
}
