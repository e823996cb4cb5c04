//! Directory trees that a container filled: counts them, and has them removed. They may be deeper than any path is long and
//! hold links to anywhere, and a live container changes them meanwhile: nothing here recurses, follows a link, or leaves
//! the tree. Blocking.

use std::io;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Directories that are held open at once; more only where each of many levels has several.
const HELD: usize = 200;

/// Bytes of disk and inodes below a directory. Of a tree that is both very deep and wide some is left out.
pub(super) fn usage(dir: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes, mut held) = (0, 0, 0);
    let Ok(root) = openat(CWD, dir, DIRECTORY, Mode::empty()) else { return (0, 0) };
    let mut waiting = vec![(Rc::new(root), c".".to_owned())];
    while let Some((parent, name)) = waiting.pop() {
        let opened = openat(&*parent, &*name, DIRECTORY, Mode::empty());
        if Rc::strong_count(&parent) == 1 {
            held = usize::saturating_sub(held, 1);
        }
        drop(parent);
        let Ok(fd) = opened.map(Rc::new) else { continue };
        let Ok(entries) = Dir::read_from(&*fd) else { continue };
        for entry in entries.flatten().filter(|e| !is_self(e.file_name().to_bytes())) {
            let Ok(stat) = statat(&*fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            inodes += 1;
            if held < HELD && FileType::from_raw_mode(stat.st_mode).is_dir() {
                waiting.push((Rc::clone(&fd), entry.file_name().to_owned()));
            }
        }
        held += usize::from(Rc::strong_count(&fd) > 1);
    }
    (bytes, inodes)
}

/// Removes a directory with all below it; a file or a link itself, too. Absent is a success; another process may be doing
/// the same.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(dir) {
        Ok(found) if !found.is_dir() => std::fs::remove_file(dir),
        _ => podstead_trees::remove(dir),
    }
}

fn is_self(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with `levels` directories in each other, a file in each.
    fn deep(dir: &Path, levels: usize) {
        let mut at = openat(CWD, dir, DIRECTORY, Mode::empty()).expect("open");
        for _ in 0..levels {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("make a directory");
            at = openat(&at, "d", DIRECTORY, Mode::empty()).expect("open");
            openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("make a file");
        }
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_counted_and_removed() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = temp.path().join("upper");
        std::fs::create_dir(&dir).expect("make a directory");
        // std's own removal holds a descriptor and a stack frame per level.
        deep(&dir, 5000);
        let (_, inodes) = usage(&dir);
        assert_eq!(inodes, 10_000);
        std::thread::scope(|scope| {
            let removals = [0, 1].map(|_| scope.spawn(|| remove(&dir)));
            for removal in removals {
                removal.join().expect("no panic").expect("remove");
            }
        });
        assert!(!dir.exists());
        remove(&dir).expect("and again");
    }

    #[test]
    fn nothing_outside_is_touched() {
        let temp = tempfile::tempdir().expect("a directory");
        let (dir, outside) = (temp.path().join("upper"), temp.path().join("outside"));
        for dir in
            [&dir, &outside, &dir.join(".removed-1"), &dir.join("a"), &dir.join("a/b"), &dir.join("a/b/c")]
        {
            std::fs::create_dir(dir).expect("make a directory");
        }
        std::fs::write(outside.join("file"), [7; 9000]).expect("write");
        std::os::unix::fs::symlink(&outside, dir.join("link")).expect("link");
        std::os::unix::fs::symlink(&outside, dir.join("a/b/link")).expect("link");
        assert_eq!(usage(&dir).1, 6, "links are counted, not followed");
        remove(&dir).expect("remove");
        assert!(!dir.exists() && outside.join("file").exists());
        std::os::unix::fs::symlink(&outside, &dir).expect("link");
        assert_eq!(usage(&dir), (0, 0));
        remove(&dir).expect("remove the link");
        assert!(!dir.exists() && outside.join("file").exists());
    }
}
