//! SELinux labels of files that containers are to see. Changes labels only, follows no link and crosses no mount below
//! the path it is given: what lies there may be a live container's. Blocking.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, XattrFlags, getxattr, open, openat2, setxattr};
use rustix::io::Errno;

/// Where the kernel keeps a file's label.
const LABEL: &CStr = c"security.selinux";

/// The label of files that every container of a pod uses, whatever its level.
pub(crate) const SHARED: &str = "system_u:object_r:container_file_t:s0";

/// Gives the label to a file, or to a directory with all below it. Nothing is done where the path bears it already: it
/// is the last to get it, so a walk that was broken off is repeated. File systems without labels stay as they are.
pub(crate) fn relabel(path: &Path, label: &str) -> io::Result<()> {
    relabel_as(LABEL, path, label)
}

fn relabel_as(attribute: &CStr, path: &Path, label: &str) -> io::Result<()> {
    let top = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if bears(attribute, &top, label) {
        return Ok(());
    }
    let mut waiting = vec![PathBuf::from(".")];
    while let Some(dir) = waiting.pop() {
        let Some(open) = below(&top, &dir, OFlags::RDONLY | OFlags::DIRECTORY)? else { continue };
        for entry in Dir::read_from(&open)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = dir.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
            if let Some(found) = below(&top, &path, OFlags::PATH)? {
                set(attribute, &found, label)?;
                waiting.push(path);
            }
        }
    }
    set(attribute, &top, label)
}

/// Opens what lies below; `None` for what is gone, is no directory where one is wanted, or is another mount.
fn below(top: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(top, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), within) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The file itself, also where it is a link: its name is a descriptor's.
fn name(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn bears(attribute: &CStr, file: &OwnedFd, label: &str) -> bool {
    let mut found = [0; 512];
    getxattr(name(file), attribute, &mut found[..]).is_ok_and(|length| {
        found[..length].strip_suffix(b"\0").unwrap_or(&found[..length]) == label.as_bytes()
    })
}

fn set(attribute: &CStr, file: &OwnedFd, label: &str) -> io::Result<()> {
    match setxattr(name(file), attribute, label.as_bytes(), XattrFlags::empty()) {
        Err(Errno::NOTSUP | Errno::NOENT) => Ok(()),
        outcome => Ok(outcome?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Root may set it on any kind of file, as the kernel's own.
    const ATTRIBUTE: &CStr = c"trusted.podstead_test";

    fn label(path: &Path) -> String {
        let mut found = [0; 64];
        let length = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut found[..]).unwrap_or(0);
        String::from_utf8_lossy(&found[..length]).into_owned()
    }

    #[test]
    fn a_tree_gets_the_label_and_nothing_outside_does() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("sub/deep")).expect("mkdir");
        std::fs::create_dir(&outside).expect("mkdir");
        for file in [tree.join("sub/deep/file"), outside.join("file")] {
            std::fs::write(file, "").expect("write");
        }
        symlink(&outside, tree.join("sub/link")).expect("link");
        relabel_as(ATTRIBUTE, &tree, "one").expect("relabel");
        for inside in ["", "sub", "sub/deep", "sub/deep/file", "sub/link"] {
            assert_eq!(label(&tree.join(inside)), "one", "{inside:?}");
        }
        assert_eq!((label(&outside), label(&outside.join("file"))), (String::new(), String::new()));
        std::fs::write(tree.join("new"), "").expect("write");
        relabel_as(ATTRIBUTE, &tree, "one").expect("relabel again");
        assert_eq!(label(&tree.join("new")), "", "a tree that has the label is not walked again");
        relabel_as(ATTRIBUTE, &tree, "two").expect("relabel");
        assert_eq!((label(&tree.join("new")), label(&tree)), ("two".to_owned(), "two".to_owned()));
    }

    #[test]
    fn a_single_file_can_be_labelled_and_a_missing_one_is_an_error() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        assert!(relabel_as(ATTRIBUTE, &file, "one").is_err());
        std::fs::write(&file, "").expect("write");
        relabel_as(ATTRIBUTE, &file, "one").expect("relabel");
        assert_eq!(label(&file), "one");
    }
}
