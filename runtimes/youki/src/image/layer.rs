//! One layer: decompress, check both digests and the limits while unpacking, and only then put it in its place.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, Hashing};
use super::disk::{Disk, write_durably};
use super::error::{Error, Result};
use super::limits::Limits;
use super::progress::Meter;
use super::tarstream::TarStream;
use super::unpack::{Unpacker, stream_error};

/// What the store notes beside an unpacked layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerInfo {
    /// Bytes of disk it takes.
    pub bytes: u64,
    /// Inodes it takes.
    pub inodes: u64,
}

/// A layer to unpack and what it must turn out to be.
pub(crate) struct LayerSource<R> {
    pub reader: R,
    /// Digest and size of the bytes as they are, if they are not yet known to be right.
    pub blob: Option<(Digest, u64)>,
    /// Compressed size, for the limit.
    pub compressed: u64,
    pub diff_id: Digest,
}

/// Set when nobody waits for the result any more.
pub(crate) type Cancel = Arc<AtomicBool>;

/// Unpacks the layer into the store unless it is there already. Blocks.
pub(crate) fn place<R: Read>(
    disk: &Disk,
    limits: &Limits,
    source: LayerSource<R>,
    meter: Meter,
    cancel: &Cancel,
) -> Result<()> {
    let diff_id = source.diff_id.clone();
    let what = format!("layer {diff_id}");
    let place = disk.work()?;
    let work = tempfile::Builder::new()
        .prefix("layer-")
        .tempdir_in(place)
        .map_err(|e| Error::io("making a directory in", place, e))?;
    let diff = work.path().join("diff");
    std::fs::create_dir(&diff).map_err(|e| Error::io("making", &diff, e))?;
    unpack(&what, &diff, limits, source, meter, cancel)?;
    let info = measure(&diff)?;
    let note = serde_json::to_vec(&info).map_err(|e| Error::io("encoding the note of", &diff, e))?;
    write_durably(&work.path().join("layer.json"), &note)?;
    // Everything of the layer reaches the disk before its final name does.
    std::fs::File::open(&diff)
        .and_then(|dir| Ok(rustix::fs::syncfs(dir)?))
        .map_err(|e| Error::io("syncing", &diff, e))?;
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled { what });
    }
    disk.adopt_layer(work.path(), &diff_id)
}

/// Unpacks into `diff` and checks the digests. After an error `diff` holds rubbish.
pub(crate) fn unpack<R: Read>(
    what: &str,
    diff: &Path,
    limits: &Limits,
    source: LayerSource<R>,
    meter: Meter,
    cancel: &Cancel,
) -> Result<()> {
    let LayerSource { reader, blob, compressed, diff_id } = source;
    let metered = Metered { inner: reader, meter, cancel: cancel.clone() };
    let input = BufReader::with_capacity(64 * 1024, Hashing::new(metered));
    let outcome = (|| {
        let broken = |e: io::Error| stream_error(what, diff, &e);
        let limited =
            Limited { inner: Decoder::new(input).map_err(broken)?, left: limits.unpacked(compressed) };
        let mut tar = TarStream::new(Hashing::new(limited));
        Unpacker::new(what, diff, limits)?.run(&mut tar)?;
        // What follows the end of the archive belongs to the digests too.
        let mut rest = tar.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(broken)?;
        let (limited, actual, _) = rest.finish();
        if actual != diff_id {
            return Err(Error::corrupt(what, format!("its content has the diffID {actual}")));
        }
        let mut input = limited.inner.into_inner();
        io::copy(&mut input, &mut io::sink()).map_err(broken)?;
        let (_, actual, size) = input.into_inner().finish();
        match blob {
            Some((digest, _)) if digest != actual => {
                Err(Error::corrupt(what, format!("its bytes should have digest {digest} and have {actual}")))
            }
            Some((_, expected)) if expected != size => {
                Err(Error::corrupt(what, format!("it should have {expected} bytes and has {size}")))
            }
            _ => Ok(()),
        }
    })();
    if outcome.is_err() && cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled { what: what.to_owned() });
    }
    outcome
}

/// Bytes and inodes a tree takes on disk. A file with several names counts once.
fn measure(top: &Path) -> Result<LayerInfo> {
    use std::os::unix::fs::MetadataExt;
    let mut info = LayerInfo { bytes: 0, inodes: 0 };
    let mut linked = std::collections::HashSet::new();
    let mut todo = vec![top.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|e| Error::io("listing", &dir, e))? {
            let entry = entry.map_err(|e| Error::io("listing", &dir, e))?;
            let meta = entry.metadata().map_err(|e| Error::io("examining", entry.path(), e))?;
            if meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino()) {
                continue;
            }
            info.bytes += meta.blocks() * 512;
            info.inodes += 1;
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(info)
}

/// Counts what is read for the progress, and stops when nobody waits any more.
struct Metered<R> {
    inner: R,
    meter: Meter,
    cancel: Cancel,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let n = self.inner.read(buf)?;
        self.meter.add(n);
        Ok(n)
    }
}

/// Ends a layer that unpacks to more than its limit.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more bytes than the configured limit")
        })?;
        Ok(n)
    }
}

/// The compression of a stream, told by its first bytes: media types are often wrong.
pub(crate) enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(zstd::Decoder<'static, R>),
}

impl<R: BufRead> Decoder<R> {
    pub(crate) fn new(mut inner: R) -> io::Result<Self> {
        let start = inner.fill_buf()?;
        if start.starts_with(&[0x1f, 0x8b]) {
            Ok(Self::Gzip(Box::new(MultiGzDecoder::new(inner))))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Ok(Self::Zstd(zstd::Decoder::with_buffer(inner)?))
        } else {
            Ok(Self::Plain(inner))
        }
    }

    fn into_inner(self) -> R {
        match self {
            Self::Plain(inner) => inner,
            Self::Gzip(gzip) => gzip.into_inner(),
            Self::Zstd(zstd) => zstd.finish(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.read(buf),
            Self::Gzip(gzip) => gzip.read(buf),
            Self::Zstd(zstd) => zstd.read(buf),
        }
    }
}
