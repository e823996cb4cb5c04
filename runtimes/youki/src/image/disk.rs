//! The store's directory: where things lie, the locks, and writes that survive a kill at any instruction.
//!
//! ```text
//! lock            held shared by every open store; exclusive means "nobody else"
//! index.lock      held for the moment of reading and changing the index
//! index.json      images and their names
//! blobs/sha256/H  manifests, indexes and configurations
//! layers/H/diff   an unpacked layer by diffID; layers/H/layer.json its size
//! tmp/w-*         at most one working directory per open store, locked as long as its owner lives
//! tmp/trash-*     layers that are being deleted
//! ```
//!
//! Nothing is believed before it is renamed to its final name. What a killed process leaves lies in `tmp`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::digest::{Digest, is_hex64};
use super::error::{Error, Result};
use super::layer::LayerInfo;

/// An open store directory.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// Made when it is first needed: on a full disk it cannot be, and what only reads or removes need not.
    work: OnceLock<Work>,
    /// Held for its lock: the store is in use.
    shared: File,
}

/// A working directory.
#[derive(Debug)]
struct Work {
    path: PathBuf,
    /// Held for its lock: the directory has an owner.
    _lock: File,
}

/// Makes a directory 0700, with its parents, unless it exists.
fn make_private(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| Error::io("making the directory", path, e))
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map_err(|e| Error::io("opening the lock", path, e))
}

fn lock(file: &File, path: &Path, operation: FlockOperation) -> Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(|e| Error::io("locking", path, e)),
        }
    }
}

/// Writes a new file and syncs it.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|e| Error::io("writing", path, e))
}

pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("syncing", path, e))
}

impl Disk {
    /// Opens or makes the directory and sweeps what killed processes left. Blocks while another process sweeps.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        make_private(root)?;
        let root = std::fs::canonicalize(root).map_err(|e| Error::io("resolving", root, e))?;
        for sub in ["blobs/sha256", "layers", "tmp"] {
            make_private(&root.join(sub))?;
        }
        let lock_path = root.join("lock");
        let shared = open_lock(&lock_path)?;
        let alone = rustix::fs::flock(&shared, FlockOperation::NonBlockingLockExclusive).is_ok();
        Self::sweep_work(&root)?;
        let disk = Self { root, work: OnceLock::new(), shared };
        if alone {
            disk.sweep_torn()?;
        }
        lock(&disk.shared, &lock_path, FlockOperation::LockShared)?;
        Ok(disk)
    }

    /// Removes working directories whose owners are gone, and trash.
    fn sweep_work(root: &Path) -> Result<()> {
        let tmp = root.join("tmp");
        for entry in std::fs::read_dir(&tmp).map_err(|e| Error::io("listing", &tmp, e))?.flatten() {
            let path = entry.path();
            let Ok(dir) = File::open(&path) else { continue };
            // Held until it is gone: whoever has just made it waits for the lock, and then makes another.
            if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                discard(&path);
            }
        }
        Ok(())
    }

    fn make_work(root: &Path) -> Result<Work> {
        let tmp = root.join("tmp");
        loop {
            let made = tempfile::Builder::new().prefix("w-").tempdir_in(&tmp);
            let path = made.map_err(|e| Error::io("making a directory in", &tmp, e))?.keep();
            // Before it is locked another process may take it for abandoned.
            match File::open(&path) {
                Ok(handle) => {
                    lock(&handle, &path, FlockOperation::LockExclusive)?;
                    if path.exists() {
                        return Ok(Work { path, _lock: handle });
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("opening", &path, error)),
            }
        }
    }

    /// Removes layers that are not whole. Renaming makes that impossible; a repair by hand does not.
    fn sweep_torn(&self) -> Result<()> {
        for diff_id in self.layer_ids()? {
            if !self.has_layer(&diff_id) {
                self.retire_layer(&diff_id);
            }
        }
        Ok(())
    }

    /// The working directory of this store.
    pub(crate) fn work(&self) -> Result<&Path> {
        if let Some(work) = self.work.get() {
            return Ok(&work.path);
        }
        let made = Self::make_work(&self.root)?;
        if let Err(second) = self.work.set(made) {
            discard(&second.path);
        }
        self.work
            .get()
            .map(|work| work.path.as_path())
            .ok_or_else(|| Error::not_here("the working directory"))
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    /// Waits for the lock of the index; it is held until the file is dropped.
    pub(crate) fn lock_index(root: &Path) -> Result<File> {
        let path = root.join("index.lock");
        let file = open_lock(&path)?;
        lock(&file, &path, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Puts bytes at a final path: temporary file, fsync, rename, fsync of the directory.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = self.temporary_file()?;
        let written = file.write_all(bytes).and_then(|()| file.as_file().sync_all());
        written.map_err(|e| Error::io("writing", path, e))?;
        file.persist(path).map_err(|e| Error::io("replacing", path, e.error))?;
        path.parent().map_or(Ok(()), sync_dir)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Keeps a small blob. The digest is computed here, so the name is right by construction.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if std::fs::read(&path).is_ok_and(|old| old == bytes) {
            return Ok(digest);
        }
        self.replace(&path, bytes)?;
        Ok(digest)
    }

    /// A small blob, if it is here and undamaged.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        std::fs::read(self.blob_path(digest)).ok().filter(|bytes| Digest::of(bytes) == *digest)
    }

    /// A file that vanishes with its handle or with this process.
    pub(crate) fn temporary_file(&self) -> Result<tempfile::NamedTempFile> {
        let work = self.work()?;
        let made = tempfile::Builder::new().prefix("f-").tempfile_in(work);
        made.map_err(|e| Error::io("making a file in", work, e))
    }

    pub(crate) fn blob_size(&self, digest: &Digest) -> Option<u64> {
        std::fs::metadata(self.blob_path(digest)).ok().map(|m| m.len())
    }

    pub(crate) fn remove_blob(&self, digest: &Digest) {
        let path = self.blob_path(digest);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a blob could not be removed");
        }
    }

    pub(crate) fn blob_ids(&self) -> Result<Vec<Digest>> {
        ids_in(&self.root.join("blobs/sha256"))
    }

    pub(crate) fn layer_ids(&self) -> Result<Vec<Digest>> {
        ids_in(&self.root.join("layers"))
    }

    fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// The directory overlayfs mounts.
    pub(crate) fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.layer_path(diff_id).join("diff")
    }

    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_info(diff_id).is_some() && self.layer_dir(diff_id).is_dir()
    }

    pub(crate) fn layer_info(&self, diff_id: &Digest) -> Option<LayerInfo> {
        let bytes = std::fs::read(self.layer_path(diff_id).join("layer.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// How long ago the layer was put in its place.
    pub(crate) fn layer_age(&self, diff_id: &Digest) -> Option<Duration> {
        std::fs::metadata(self.layer_path(diff_id)).ok()?.modified().ok()?.elapsed().ok()
    }

    pub(crate) fn blob_age(&self, digest: &Digest) -> Option<Duration> {
        std::fs::metadata(self.blob_path(digest)).ok()?.modified().ok()?.elapsed().ok()
    }

    /// Renames a finished layer to its name. Another process may have been quicker; its layer is as good.
    pub(crate) fn adopt_layer(&self, finished: &Path, diff_id: &Digest) -> Result<()> {
        let path = self.layer_path(diff_id);
        match std::fs::rename(finished, &path) {
            Err(_) if self.has_layer(diff_id) => Ok(()),
            other => other.map_err(|e| Error::io("renaming a layer to", &path, e)),
        }?;
        sync_dir(&self.root.join("layers"))
    }

    /// Takes a layer out of the store at once; its files go when [`Disk::empty_trash`] is called.
    pub(crate) fn retire_layer(&self, diff_id: &Digest) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let (from, to) =
            (self.layer_path(diff_id), self.root.join("tmp").join(Self::trash() + &n.to_string()));
        if let Err(error) = std::fs::rename(&from, &to) {
            tracing::warn!(path = %from.display(), %error, "a layer could not be removed");
        }
    }

    /// Deletes retired layers. Needs no lock.
    pub(crate) fn empty_trash(&self) {
        for entry in std::fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(Self::trash().as_bytes()) {
                discard(&entry.path());
            }
        }
    }

    /// How the names of this process's retired layers begin.
    fn trash() -> String {
        format!("trash-{}-", std::process::id())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(work) = self.work.get() {
            discard(&work.path);
        }
    }
}

fn discard(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a working directory could not be removed");
    }
}

fn ids_in(dir: &Path) -> Result<Vec<Digest>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("listing", dir, e))? {
        let entry = entry.map_err(|e| Error::io("listing", dir, e))?;
        match entry.file_name().to_str() {
            Some(name) if is_hex64(name) => ids.push(Digest::from_hex(name)?),
            _ => {}
        }
    }
    Ok(ids)
}

/// Reads all of a stream, refusing more than `limit` bytes.
pub(crate) fn read_bounded(what: &str, place: &Path, reader: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = reader.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(format!("reading {what} from"), place, e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::corrupt(what, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}
