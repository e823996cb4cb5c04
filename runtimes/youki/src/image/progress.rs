//! What a pull or an import tells while it works. Pure.

use std::sync::Arc;

use super::digest::Digest;

/// What is happening to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It comes from the registry, or out of an archive.
    Downloading,
    /// It is being unpacked; bytes are those of its compressed form.
    Extracting,
    /// It is in the store, unpacked now or long before.
    Exists,
}

/// One report about one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The layer's digest as the manifest names it; its diffID in a docker archive.
    pub layer: Digest,
    /// What is happening.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Bytes to do in this phase, 0 if unknown.
    pub total: u64,
}

/// Takes reports, from any thread. It must be quick and must not block.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(Progress) + Send + Sync>);

impl Reporter {
    /// Reports to this function.
    pub fn new(report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    pub(crate) fn meter(&self, layer: &Digest, phase: Phase, total: u64) -> Meter {
        let meter = Meter { reporter: self.clone(), layer: layer.clone(), phase, total, done: 0, told: 0 };
        meter.tell();
        meter
    }
}

impl Default for Reporter {
    /// Reports to nobody.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}

/// A report every so many bytes is enough for any display.
const STEP: u64 = 512 * 1024;

/// Counts the bytes of one phase and reports now and then.
pub(crate) struct Meter {
    reporter: Reporter,
    layer: Digest,
    phase: Phase,
    total: u64,
    done: u64,
    told: u64,
}

impl Meter {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.done - self.told >= STEP || (self.done == self.total && self.told != self.done) {
            self.told = self.done;
            self.tell();
        }
    }

    fn tell(&self) {
        let (layer, phase) = (self.layer.clone(), self.phase);
        (self.reporter.0)(Progress { layer, phase, done: self.done, total: self.total });
    }
}

/// Says that a layer is in the store.
pub(crate) fn exists(reporter: &Reporter, layer: &Digest, size: u64) {
    let mut meter = Meter {
        reporter: reporter.clone(),
        layer: layer.clone(),
        phase: Phase::Exists,
        total: size,
        done: size,
        told: size,
    };
    meter.told = meter.done;
    meter.tell();
}
