//! Two files that claim the same pod: an error on both, and the one that was there first stays. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::parse::ManifestPod;

/// Claim (`namespace/name`, or `uid <uid>`) to the file whose pod runs under it.
pub(crate) type Owners = HashMap<String, PathBuf>;

/// A claim shared with another file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Duplicate {
    pub(crate) claim: String,
    pub(crate) with: PathBuf,
    pub(crate) kept: bool,
}

/// Who runs.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) pods: Vec<Arc<ManifestPod>>,
    pub(crate) owners: Owners,
    pub(crate) duplicates: BTreeMap<PathBuf, Duplicate>,
}

fn claims(pod: &ManifestPod) -> [String; 2] {
    [pod.key(), format!("uid {}", pod.uid)]
}

/// Owners where nothing is known but the last good versions.
pub(crate) fn first_owners<'f>(files: impl Iterator<Item = (&'f Path, &'f [Arc<ManifestPod>])>) -> Owners {
    let mut owners = Owners::new();
    for (path, pods) in files {
        for claim in pods.iter().flat_map(|pod| claims(pod)) {
            owners.entry(claim).or_insert_with(|| path.to_path_buf());
        }
    }
    owners
}

/// Decides over all good pods. A claim that two files make and neither had before is granted to none:
/// which of them is meant cannot be known, and the pod of a wrong guess would have to be killed again.
pub(crate) fn settle<'f>(
    files: impl Iterator<Item = (&'f Path, &'f [Arc<ManifestPod>])> + Clone,
    before: &Owners,
) -> Verdict {
    let mut claimants: HashMap<String, BTreeSet<&Path>> = HashMap::new();
    for (path, pods) in files.clone() {
        for claim in pods.iter().flat_map(|pod| claims(pod)) {
            claimants.entry(claim).or_default().insert(path);
        }
    }
    let mut verdict = Verdict { pods: Vec::new(), owners: Owners::new(), duplicates: BTreeMap::new() };
    for (path, pods) in files {
        for pod in pods {
            let mut granted = true;
            for claim in claims(pod) {
                let Some(others) = claimants.get(&claim).filter(|c| c.len() > 1) else { continue };
                let kept = before.get(&claim).is_some_and(|owner| owner == path);
                granted &= kept;
                if let Some(with) = others.iter().find(|other| **other != path) {
                    let duplicate = Duplicate { claim, with: with.to_path_buf(), kept };
                    let first = verdict.duplicates.entry(path.to_path_buf()).or_insert(duplicate);
                    first.kept &= kept;
                }
            }
            if granted {
                verdict.owners.extend(claims(pod).map(|claim| (claim, path.to_path_buf())));
                verdict.pods.push(Arc::clone(pod));
            }
        }
    }
    verdict
}
