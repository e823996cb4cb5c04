//! The files that a log was in before its present one. Reads them only.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

use crate::node::log_rotation::{COMPRESSED, rotated};

/// A file that was rotated.
#[derive(Debug)]
pub(super) struct Old {
    file: File,
    compressed: bool,
}

impl Old {
    /// Opens it, or what it was compressed to meanwhile; `None` when it is gone.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut zipped = path.as_os_str().to_owned();
        zipped.push(COMPRESSED);
        for path in [path, Path::new(&zipped)] {
            let compressed = path.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes());
            match File::open(path) {
                Ok(file) => return Ok(Some(Self { file, compressed })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Its text from the beginning.
    pub(super) fn read(&mut self) -> io::Result<Box<dyn Read + '_>> {
        self.file.rewind()?;
        Ok(if self.compressed { Box::new(MultiGzDecoder::new(&self.file)) } else { Box::new(&self.file) })
    }

    /// When it was last written to. One that was compressed since was not after that.
    pub(super) fn modified(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }
}

/// The files that came before this one, the oldest first. What came after it is left to who follows the log.
pub(super) fn before(present: &File, path: &Path) -> io::Result<Vec<Old>> {
    let own = present.metadata()?.ino();
    let mut found = Vec::new();
    for path in rotated(path)?.values() {
        let Some(old) = Old::open(path)? else { continue };
        if old.file.metadata()?.ino() == own {
            break;
        }
        found.push(old);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn what_was_rotated_before_is_read_in_its_order_and_what_came_after_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut zipped = GzEncoder::new(File::create(at("0.log.1.gz")).unwrap(), Compression::default());
        zipped.write_all(b"a").unwrap();
        zipped.finish().unwrap();
        for (name, text) in [("0.log.2", "b"), ("0.log.3", "own"), ("0.log.4", "later"), ("0.log", "now")] {
            std::fs::write(at(name), text).unwrap();
        }
        let texts = |own: &str| {
            let mut text = String::new();
            for mut old in before(&File::open(at(own)).unwrap(), &at("0.log")).unwrap() {
                old.read().unwrap().read_to_string(&mut text).unwrap();
            }
            text
        };
        assert_eq!((texts("0.log.3").as_str(), texts("0.log").as_str()), ("ab", "abownlater"));
        // Compressed between the look at the directory and this.
        let mut old = Old::open(&at("0.log.1")).unwrap().unwrap();
        let mut text = String::new();
        old.read().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "a");
        assert!(Old::open(&at("0.log.9")).unwrap().is_none());
    }
}
