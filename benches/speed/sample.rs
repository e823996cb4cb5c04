//! Durations and their table.

use std::fmt::Write as _;
use std::time::Duration;

/// What one thing took, once per round.
#[derive(Debug)]
pub struct Sample {
    pub name: &'static str,
    took: Vec<Duration>,
}

impl Sample {
    pub fn new(name: &'static str) -> Self {
        Self { name, took: Vec::new() }
    }

    pub fn add(&mut self, took: Duration) {
        self.took.push(took);
        self.took.sort();
    }

    pub fn forget(&mut self) {
        self.took.clear();
    }

    /// The duration below which so many of a hundred lie, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let at = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0)
    }

    pub fn p50(&self) -> f64 {
        self.percentile(50)
    }
}

/// A markdown table of all of them, milliseconds.
pub fn table(samples: &[&Sample]) -> String {
    let mut text = String::from("| ms | p50 | p90 | min | rounds |\n|---|---|---|---|---|\n");
    for s in samples {
        let (p50, p90, min) = (s.p50(), s.percentile(90), s.percentile(0));
        let _ = writeln!(text, "| {} | {p50:.1} | {p90:.1} | {min:.1} | {} |", s.name, s.took.len());
    }
    text
}
