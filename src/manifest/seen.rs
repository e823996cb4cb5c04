//! When each pod was first seen. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::identity;
use super::parse::ManifestPod;

/// Times of first sight by uid.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashMap<String, Timestamp>);

impl Seen {
    /// Writes the time of first sight into each pod.
    pub(crate) fn date(&mut self, pods: Vec<ManifestPod>, now: Timestamp) -> Vec<Arc<ManifestPod>> {
        pods.into_iter()
            .map(|mut pod| {
                let seen = *self.0.entry(pod.uid.clone()).or_insert(now);
                identity::set_seen(&mut pod.pod, seen);
                Arc::new(pod)
            })
            .collect()
    }

    /// Forgets all pods but these.
    pub(crate) fn keep<'p>(&mut self, pods: impl Iterator<Item = &'p Arc<ManifestPod>>) {
        let wanted: BTreeSet<&str> = pods.map(|pod| &*pod.uid).collect();
        self.0.retain(|uid, _| wanted.contains(uid.as_str()));
    }
}
