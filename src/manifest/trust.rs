//! Which files are believed: whoever may write a manifest is root on the node. Pure but for one link below `/proc/self/fd`.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

/// Rules that are waived (`--allow-manifests`); none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Waivers {
    /// Links in a directory may lead out of the configured directories.
    pub outside_links: bool,
    /// The file's group may write it.
    pub group_writable: bool,
    /// Everybody may write it.
    pub other_writable: bool,
    /// Somebody else than root and the agent's user may own it.
    pub foreign_owner: bool,
}

impl Waivers {
    /// Everything is believed: for a reading that is about the content only.
    pub(crate) const ALL: Self =
        Self { outside_links: true, group_writable: true, other_writable: true, foreign_owner: true };
}

/// The rules for the files of one reading.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// The real paths of the configured directories; `None` where links are followed wherever they lead.
    pub(crate) roots: Option<Vec<PathBuf>>,
    pub(crate) waived: Waivers,
}

impl Trust {
    /// Links are followed; who may write is judged as `waived` says.
    pub(crate) fn anywhere(waived: Waivers) -> Self {
        Self { roots: None, waived }
    }

    /// Why a file is not believed. `stat` is of the open file; `link` of the link through which it was opened.
    pub(crate) fn judge(&self, file: impl AsFd, stat: &Stat, link: Option<&Stat>) -> Result<(), String> {
        self.writers(stat)?;
        let Some(link) = link else { return Ok(()) };
        self.owner(link, "is a link that ")?;
        let Some(roots) = self.roots.as_ref().filter(|_| !self.waived.outside_links) else { return Ok(()) };
        // Of what is open, not of the name: a link can be changed in between.
        let shown = Path::new("/proc/self/fd").join(file.as_fd().as_raw_fd().to_string());
        match std::fs::read_link(shown) {
            Ok(real) if roots.iter().any(|root| real.starts_with(root)) => Ok(()),
            Ok(real) => Err(format!(
                "is a link that leads out of the manifest directories, to {}; put the file there, or run with \
                 --allow-manifests=outside-links",
                real.display()
            )),
            Err(error) => Err(format!("is a link, and where it leads cannot be told: {error}")),
        }
    }

    fn writers(&self, stat: &Stat) -> Result<(), String> {
        self.owner(stat, "")?;
        let mode = stat.st_mode & 0o7777;
        for (bit, waived, who, flag) in [
            (0o002, self.waived.other_writable, "everybody", "other-writable"),
            (0o020, self.waived.group_writable, "its group", "group-writable"),
        ] {
            if mode & bit != 0 && !waived {
                return Err(format!(
                    "may be written by {who} (mode {mode:04o}); use chmod go-w, or run with --allow-manifests={flag}"
                ));
            }
        }
        Ok(())
    }

    fn owner(&self, stat: &Stat, what: &str) -> Result<(), String> {
        let own = [0, rustix::process::geteuid().as_raw()];
        if self.waived.foreign_owner || own.contains(&stat.st_uid) {
            return Ok(());
        }
        let uid = stat.st_uid;
        Err(format!(
            "{what}belongs to user {uid}; use chown root, or run with --allow-manifests=foreign-owner"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    use super::*;

    fn judged(path: &Path, waived: Waivers, root: Option<&Path>) -> Result<(), String> {
        let file = File::open(path).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let link = rustix::fs::lstat(path).unwrap();
        let link = path.is_symlink().then_some(link);
        let roots = root.map(|root| vec![root.canonicalize().unwrap()]);
        Trust { roots, waived }.judge(&file, &stat, link.as_ref())
    }

    #[test]
    fn each_kind_of_doubt_has_its_own_waiver() {
        let base = tempfile::tempdir().unwrap();
        let (dir, path) = (base.path().join("m"), base.path().join("m/a"));
        fs::create_dir(&dir).unwrap();
        fs::write(&path, "x").unwrap();
        let none = Waivers::default();
        let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        judged(&path, none, Some(&dir)).unwrap();

        mode(0o664);
        assert!(judged(&path, none, None).unwrap_err().contains("its group (mode 0664)"));
        judged(&path, Waivers { group_writable: true, ..none }, None).unwrap();
        mode(0o646);
        assert!(judged(&path, none, None).unwrap_err().contains("everybody (mode 0646)"));
        judged(&path, Waivers { other_writable: true, ..none }, None).unwrap();
        mode(0o600);

        // Links within the directory are as good as files.
        symlink("a", dir.join("inner")).unwrap();
        judged(&dir.join("inner"), none, Some(&dir)).unwrap();
        fs::write(base.path().join("out"), "x").unwrap();
        symlink("../out", dir.join("outer")).unwrap();
        let error = judged(&dir.join("outer"), none, Some(&dir)).unwrap_err();
        assert!(error.contains("leads out of the manifest directories, to /"), "{error}");
        judged(&dir.join("outer"), none, None).unwrap();
        judged(&dir.join("outer"), Waivers { outside_links: true, ..none }, Some(&dir)).unwrap();

        if rustix::process::geteuid().is_root() {
            chown(&path, Some(4711), None).unwrap();
            assert!(judged(&path, none, None).unwrap_err().contains("belongs to user 4711"));
            judged(&path, Waivers { foreign_owner: true, ..none }, None).unwrap();
            chown(&path, Some(0), None).unwrap();
            lchown(dir.join("inner"), Some(4711), None).unwrap();
            let error = judged(&dir.join("inner"), none, Some(&dir)).unwrap_err();
            assert!(error.starts_with("is a link that belongs to user 4711"), "{error}");
        }
        judged(&dir.join("outer"), Waivers::ALL, Some(&dir)).unwrap();
    }
}
