//! Room for a new index on a full disk: a file that was made before, with all its blocks, becomes the index. So images can
//! be removed when nothing can be written any more. Touches the store's directory, under the lock of the index.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::disk::{Disk, sync_dir};
use super::error::{Error, Result};

/// The least that is kept, in bytes.
const LEAST: usize = 64 << 10;

impl Disk {
    /// Makes the spare file, if there is none as large as an index of this length; it is no failure when there is no room.
    pub(crate) fn keep_spare(&self, length: usize) {
        let path = self.root().join("index.spare");
        let wanted = length.next_multiple_of(LEAST);
        if std::fs::metadata(&path).is_ok_and(|spare| spare.len() >= wanted as u64) {
            return;
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        // Written, not only made longer: blocks that it does not have are no room.
        let made = file.and_then(|mut file| {
            file.write_all(&vec![b' '; wanted])?;
            file.sync_all()
        });
        if let Err(error) = made {
            tracing::debug!(path = %path.display(), %error, "no room is kept for removals on a full disk");
            let _ = std::fs::remove_file(&path);
        }
    }

    /// Puts bytes at a final path as [`Disk::replace`] does, with the spare file and without any new block or inode.
    pub(crate) fn replace_by_spare(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let spare = self.root().join("index.spare");
        let failed = |doing: &'static str| {
            let spare = spare.clone();
            move |e| Error::io(doing, spare, e)
        };
        let mut file = OpenOptions::new().write(true).open(&spare).map_err(failed("opening"))?;
        if file.metadata().map_err(failed("measuring"))?.len() < bytes.len() as u64 {
            return Err(Error::NoSpace { doing: "writing".into(), path: path.to_owned() });
        }
        let written = file.write_all(bytes).and_then(|()| file.set_len(bytes.len() as u64));
        written.and_then(|()| file.sync_all()).map_err(failed("writing"))?;
        std::fs::rename(&spare, path).map_err(|e| Error::io("replacing", path, e))?;
        path.parent().map_or(Ok(()), sync_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spare_becomes_the_file_and_is_made_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::open(dir.path()).expect("open");
        let (path, spare) = (disk.index_path(), disk.root().join("index.spare"));
        assert!(disk.replace_by_spare(&path, b"x").is_err(), "there is none yet");
        disk.keep_spare(10);
        assert_eq!(std::fs::metadata(&spare).expect("made").len(), LEAST as u64);
        assert!(matches!(disk.replace_by_spare(&path, &vec![0; LEAST + 1]), Err(Error::NoSpace { .. })));
        disk.replace_by_spare(&path, b"new").expect("replace");
        assert_eq!(std::fs::read(&path).expect("read"), b"new");
        assert!(!spare.exists());
        disk.keep_spare(LEAST + 1);
        assert_eq!(std::fs::metadata(&spare).expect("made").len(), 2 * LEAST as u64);
    }
}
