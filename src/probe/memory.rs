//! What is remembered of probes across restarts of the agent. Touches `<state-dir>/agent/probes.json`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::verdict::Verdicts;
use crate::pod::files;

/// The file, with a version of its own: one that another podstead wrote in another form is not believed.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    verdicts: Verdicts,
}

const VERSION: u32 = 1;

/// Where it is.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("agent").join("probes.json")
}

/// What an earlier agent knew; nothing when it left nothing that can be read, which makes containers wait for their
/// probes once more.
pub(super) fn load(path: &Path) -> Verdicts {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Verdicts::new(),
        Err(error) => {
            tracing::warn!("cannot read {}, probes begin anew: {error}", path.display());
            return Verdicts::new();
        }
    };
    match serde_json::from_slice::<File>(&bytes) {
        Ok(File { version: VERSION, verdicts }) => verdicts,
        Ok(File { version, .. }) => {
            tracing::warn!("{} has version {version}, probes begin anew", path.display());
            Verdicts::new()
        }
        Err(error) => {
            tracing::warn!("{} is damaged, probes begin anew: {error}", path.display());
            Verdicts::new()
        }
    }
}

/// Writes all of it, readable for its owner only.
pub(super) fn save(path: &Path, verdicts: &Verdicts) -> io::Result<()> {
    let file = File { version: VERSION, verdicts: verdicts.clone() };
    files::write_atomically(path, &serde_json::to_vec(&file)?, 0o600)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::verdict::{Kind, Verdict};
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_damaged_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probes.json");
        assert_eq!(load(&path), Verdicts::new());
        let dead = Verdict {
            started: true,
            alive: false,
            ready: false,
            message: "Liveness probe failed: x".into(),
            which: Some(Kind::Liveness),
        };
        let all = Verdicts::from([("a".into(), dead)]);
        save(&path, &all).unwrap();
        assert_eq!(load(&path), all);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        for bad in [&text[..text.len() / 2], &text.replace("\"version\":1", "\"version\":9"), ""] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(load(&path), Verdicts::new(), "{bad}");
        }
    }
}
