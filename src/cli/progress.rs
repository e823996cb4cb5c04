//! How far a pull or import is, on standard error: bars on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use podstead_runtime::PullProgress;
use podstead_runtime::image::{PullEvent, PullPhase};

use super::output;

/// Shows one pull or import.
pub enum Shown {
    /// One bar for each layer.
    Bars(MultiProgress, Arc<Mutex<BTreeMap<String, ProgressBar>>>),
    /// One line for each step of a layer.
    Lines(Arc<Mutex<BTreeMap<String, PullPhase>>>),
}

impl Shown {
    /// As the terminal, or what stands in its place, takes it.
    pub fn on_stderr() -> Self {
        if output::fancy(&std::io::stderr()) {
            Self::Bars(MultiProgress::new(), Arc::default())
        } else {
            Self::Lines(Arc::default())
        }
    }

    /// Where the reports go.
    pub fn progress(&self) -> PullProgress {
        match self {
            Self::Bars(all, each) => {
                let (all, each) = (all.clone(), Arc::clone(each));
                PullProgress::new(move |event| {
                    let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
                    let bar = each.entry(event.item.clone()).or_insert_with(|| all.add(new_bar(&event)));
                    bar.set_length(event.total);
                    bar.set_position(event.done);
                    bar.set_message(word(event.phase));
                    if ended(event.phase) {
                        bar.finish();
                    }
                })
            }
            Self::Lines(phases) => {
                let phases = Arc::clone(phases);
                PullProgress::new(move |event| {
                    let mut phases = phases.lock().unwrap_or_else(PoisonError::into_inner);
                    let before = phases.insert(event.item.clone(), event.phase);
                    // A layer that is done is told once more to be there.
                    if before != Some(event.phase) && before != Some(PullPhase::Done) {
                        // Nobody may read it; that is no reason to end a pull.
                        let _ = std::io::stderr().write_all(text(&event).as_bytes());
                    }
                })
            }
        }
    }

    /// Leaves the bars as they are.
    pub fn end(&self) {
        if let Self::Bars(_, each) = self {
            for bar in each.lock().unwrap_or_else(PoisonError::into_inner).values() {
                bar.finish();
            }
        }
    }
}

fn text(event: &PullEvent) -> String {
    let size = if event.total > 0 { format!(" {}", output::size(event.total)) } else { String::new() };
    format!("{}: {}{size}\n", name(&event.item), word(event.phase))
}

/// A layer's digest is cut short, an image's name is not.
fn name(item: &str) -> String {
    if item.starts_with("sha256:") { output::short(item) } else { item.to_owned() }
}

fn new_bar(event: &PullEvent) -> ProgressBar {
    let template = if event.total > 0 {
        "{prefix} {msg:11} {wide_bar} {bytes}/{total_bytes}"
    } else {
        "{prefix} {msg:11} {spinner}"
    };
    let bar = ProgressBar::new(event.total).with_prefix(name(&event.item));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn ended(phase: PullPhase) -> bool {
    matches!(phase, PullPhase::Done | PullPhase::Exists)
}

fn word(phase: PullPhase) -> &'static str {
    match phase {
        PullPhase::Exists => "exists",
        PullPhase::Downloading => "downloading",
        PullPhase::Extracting => "extracting",
        PullPhase::Done => "done",
    }
}
