//! The group that a pod's volumes belong to, `fsGroup` (`kubelet-static-pods.md 4.1`). Changes only the paths it is given,
//! never what a link points to.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

/// What the group may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Read, in volumes that are for reading only.
    Read,
    /// Read and write.
    Write,
}

/// The permissions that a file or directory has when a group owns the volume. Its owner and group may do what `access`
/// says; directories can be entered and hand their group down.
fn widened(mode: u32, directory: bool, group: Option<u32>, access: Access) -> u32 {
    if group.is_none() {
        return mode;
    }
    let files = match access {
        Access::Read => 0o440,
        Access::Write => 0o660,
    };
    mode | files | if directory { 0o2110 } else { 0 }
}

/// Gives a file or directory its permissions, and its group if there is one.
pub(super) fn set(path: &Path, mode: u32, group: Option<u32>, access: Access) -> io::Result<()> {
    let directory = fs::symlink_metadata(path)?.is_dir();
    if group.is_some() {
        // First: it takes the setgid bit away.
        lchown(path, None, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(widened(mode, directory, group, access)))
}

/// Whether a file or directory is as [`set`] makes it.
pub(super) fn is(path: &Path, mode: u32, group: Option<u32>, access: Access) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    let wanted = widened(mode, found.is_dir(), group, access);
    Ok(found.mode() & 0o7777 == wanted && group.is_none_or(|group| found.gid() == group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_widens_what_is_there() {
        assert_eq!(widened(0o600, false, None, Access::Write), 0o600);
        assert_eq!(widened(0o600, false, Some(1), Access::Write), 0o660);
        assert_eq!(widened(0o600, false, Some(1), Access::Read), 0o640);
        assert_eq!(widened(0o777, true, Some(1), Access::Write), 0o2777);
        assert_eq!(widened(0o700, true, Some(1), Access::Read), 0o2750);
    }
}
