//! Progress on a terminal: a bar for the phase under way, a line for each that is done.
//!
//! Where stderr is no terminal nothing is drawn; the log then has a line for each phase (see [`crate::progress`]).

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{BinaryBytes, HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::progress::{Phase, Progress};

/// All bars of the process, so that the log can step around them.
static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Does something to stderr while no bar is in the way.
pub(super) fn suspend<T>(work: impl FnOnce() -> T) -> T {
    match BARS.get() {
        Some(bars) => bars.suspend(work),
        None => work(),
    }
}

/// Draws a run's progress until it is dropped.
#[derive(Debug)]
pub struct Bars {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);
/// Parts of a full bar.
const STEPS: u64 = 1000;

impl Bars {
    /// Begins to draw on stderr; does nothing where that is no terminal, or where it shall be quiet.
    pub fn draw(progress: Arc<Progress>, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let bar = BARS.get_or_init(MultiProgress::new).add(ProgressBar::new(STEPS));
            let style = ProgressStyle::with_template("{spinner} {prefix:28!} {bar:24} {percent:>3} % {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            let mut shown = 0;
            loop {
                let last = !matches!(stopped.recv_timeout(TICK), Err(RecvTimeoutError::Timeout));
                for phase in progress.done(shown) {
                    bar.println(done_line(&phase));
                    shown += 1;
                }
                if last {
                    break;
                }
                if let Some(phase) = progress.now() {
                    bar.set_prefix(phase.label.clone());
                    bar.set_position((phase.fraction().unwrap_or(0.0) * STEPS as f64) as u64);
                    bar.set_message(now_line(&phase));
                    bar.tick();
                }
            }
            bar.finish_and_clear();
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that only draws has nothing to say if it failed.
            let _ = thread.join();
        }
    }
}

fn now_line(phase: &Phase) -> String {
    let mut parts = vec![format!("{} rows/s", count(phase.rows_per_second()))];
    if phase.bytes > 0 {
        parts.push(format!("{}/s", BinaryBytes(phase.bytes_per_second() as u64)));
    }
    if let Some(left) = phase.left() {
        parts.push(format!("{} left", HumanDuration(left)));
    }
    parts.join(", ")
}

fn done_line(phase: &Phase) -> String {
    let speed = if phase.rows > 0 { format!(" ({} rows/s)", count(phase.rows_per_second())) } else { String::new() };
    format!("✓ {:28} {} rows in {:.1} s{speed}", phase.label, HumanCount(phase.rows), phase.elapsed.as_secs_f64())
}

/// `1234567` as `1.2 M`.
fn count(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.1} G", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_speed_and_time_left() {
        let phase = Phase {
            label: "deliver".to_owned(),
            rows: 3_000_000,
            rows_total: 6_000_000,
            bytes: 3 << 20,
            bytes_total: 0,
            elapsed: Duration::from_secs(3),
        };
        assert_eq!(now_line(&phase), "1.0 M rows/s, 1.00 MiB/s, 3 seconds left");
        assert_eq!(done_line(&phase), format!("✓ {:28} 3,000,000 rows in 3.0 s (1.0 M rows/s)", "deliver"));
    }

    #[test]
    fn nothing_is_drawn_where_stderr_is_no_terminal() {
        let bars = Bars::draw(Arc::new(Progress::default()), true);
        assert!(bars.thread.is_none());
        assert_eq!(suspend(|| 5), 5);
    }
}
