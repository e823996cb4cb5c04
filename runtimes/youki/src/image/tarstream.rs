//! Reads a tar stream entry by entry, with a bound on everything an archive can make it hold in memory.
//! Knows ustar, GNU long names and PAX; touches no file.
//!
//! The `tar` crate decodes the header blocks. The walk from entry to entry is done here because PAX records are
//! binary (a capability may contain a newline) and of the archive's choosing in size.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// An entry with more bytes of PAX headers and GNU long names than this, all together, is refused. Linux limits one
/// xattr to 64 KiB, and most file systems all of a file's to about as much.
const MAX_EXTENSIONS: u64 = 1 << 20;
const BLOCK: usize = 512;

/// One entry, with its extensions applied.
#[derive(Debug)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: EntryType,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    /// From `SCHILY.xattr.*`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A walk over the entries of a tar stream.
pub(crate) struct TarStream<R> {
    inner: R,
    /// Bytes of the current entry not read yet, and its padding.
    left: u64,
    padding: u64,
}

fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarStream<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The stream behind, wherever it stands.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, `None` at the end of the archive. What was not read of the entry before is skipped.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let (mut extensions, mut budget) = (Extensions::default(), MAX_EXTENSIONS);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::XHeader => extensions.pax(&self.extension(size, &mut budget)?)?,
                EntryType::GNULongName => {
                    extensions.path = Some(until_nul(self.extension(size, &mut budget)?));
                }
                EntryType::GNULongLink => {
                    extensions.link = Some(until_nul(self.extension(size, &mut budget)?));
                }
                // Comments of the archive as a whole (git writes one).
                EntryType::XGlobalHeader => drop(self.extension(size, &mut budget)?),
                EntryType::GNUSparse => return Err(bad("sparse entries are not supported")),
                kind => return self.entry(&header, kind, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, kind: EntryType, ext: Extensions) -> io::Result<Entry> {
        let stored = ext.size.map_or_else(|| header.entry_size(), Ok)?;
        // Only these carry data; others may still have a size field that says how large the link's target is.
        let data = matches!(kind, EntryType::Regular | EntryType::Continuous);
        let size = if data { stored } else { 0 };
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        let path = ext.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = ext.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        // The oldest tars mark a directory only by the slash.
        let kind = if data && path.ends_with(b"/") { EntryType::Directory } else { kind };
        let device = |n: io::Result<Option<u32>>| n.ok().flatten().unwrap_or(0);
        Ok(Entry {
            path,
            link: link.unwrap_or_default(),
            kind,
            mode: header.mode()? & 0o7777,
            uid: ext.uid.map_or_else(|| header.uid(), Ok)?,
            gid: ext.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: match ext.mtime {
                Some(time) => time,
                None => (i64::try_from(header.mtime()?).unwrap_or(0), 0),
            },
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: ext.xattrs,
        })
    }

    /// Skips the rest of the current entry.
    fn skip(&mut self) -> io::Result<()> {
        let (data, padding) = (self.left, self.padding);
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.inner).take(data), &mut io::sink())?;
        if skipped < data {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Some writers never close an archive and so leave out the last padding; all data is there.
        io::copy(&mut (&mut self.inner).take(padding), &mut io::sink())?;
        Ok(())
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                // Some writers leave out the two empty blocks at the end.
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum = |range: &[u8]| range.iter().map(|b| u32::from(*b)).sum::<u32>();
        let computed = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
        if header.cksum()? != computed {
            return Err(bad("a header's checksum does not match"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64, budget: &mut u64) -> io::Result<Vec<u8>> {
        *budget = budget.checked_sub(size.saturating_add(BLOCK as u64)).ok_or_else(|| {
            bad(format!("the extended headers of an entry are too large: more than {MAX_EXTENSIONS} bytes"))
        })?;
        (self.left, self.padding) = (size, size.next_multiple_of(BLOCK as u64) - size);
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }
}

impl<R: Read> Read for TarStream<R> {
    /// Reads the data of the current entry.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

impl Extensions {
    /// Applies PAX records: `length key=value\n`, the length counting itself (POSIX pax, extended header).
    fn pax(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let malformed = || bad("a PAX header is malformed");
        while rest.iter().any(|b| *b != 0) {
            let space = rest.iter().position(|b| *b == b' ').ok_or_else(malformed)?;
            let length: usize = number(&rest[..space]).ok_or_else(malformed)?;
            let record = rest.get(space + 1..length).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            rest = &rest[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
            self.record(&record[..equals], &record[equals + 1..]).ok_or_else(malformed)?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {
                if key.starts_with(b"GNU.sparse.") {
                    return None;
                }
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `seconds[.fraction]`, possibly negative.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_values_may_hold_newlines() {
        let mut ext = Extensions::default();
        ext.pax(b"36 SCHILY.xattr.security.capability=\x01\n\n\x02\n").unwrap_err();
        let body = b" SCHILY.xattr.user.x=a\nb=\x00c\n";
        let mut record = (body.len() + 2).to_string().into_bytes();
        record.extend_from_slice(body);
        ext.pax(&record).unwrap();
        assert_eq!(ext.xattrs, [(b"user.x".to_vec(), b"a\nb=\0c".to_vec())]);
    }

    #[test]
    fn times_have_fractions_and_may_be_before_the_epoch() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"x"), None);
    }

    #[test]
    fn an_enormous_extension_is_refused_before_it_is_read() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_cksum();
        let stream = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'x'));
        let error = TarStream::new(stream).next_entry().unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }

    /// Each of them is small; what they say adds up, in memory.
    #[test]
    fn extensions_without_end_are_refused() {
        let record = |n: usize| format!("{:07} SCHILY.xattr.user.{n:07}={}\n", 500, "x".repeat(465));
        assert_eq!(record(1).len(), 500);
        for (kind, count, good) in [
            (EntryType::XHeader, 1000, true),
            (EntryType::XHeader, 1100, false),
            (EntryType::XGlobalHeader, 1100, false),
        ] {
            let mut bytes = Vec::new();
            for n in 0..count {
                let mut header = Header::new_ustar();
                header.set_entry_type(kind);
                header.set_size(500);
                header.set_cksum();
                bytes.extend_from_slice(header.as_bytes());
                bytes.extend_from_slice(record(n).as_bytes());
                bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            }
            let mut last = Header::new_ustar();
            last.set_path("a").unwrap();
            last.set_size(0);
            last.set_mode(0o644);
            last.set_uid(0);
            last.set_gid(0);
            last.set_mtime(0);
            last.set_cksum();
            bytes.extend_from_slice(last.as_bytes());
            let entry = TarStream::new(&bytes[..]).next_entry();
            match entry {
                Ok(entry) => assert!(good && entry.unwrap().xattrs.len() == count, "{count}"),
                Err(error) => assert!(!good && error.to_string().contains("too large"), "{error}"),
            }
        }
    }

    #[test]
    fn the_end_may_miss_its_padding_but_no_data() {
        let mut header = Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(5);
        header.set_cksum();
        let with = |data: &[u8]| [header.as_bytes().as_slice(), data].concat();
        for (data, good) in [("hello", true), ("hello\0\0", true), ("hell", false)] {
            let bytes = with(data.as_bytes());
            let mut tar = TarStream::new(&bytes[..]);
            tar.next_entry().unwrap().unwrap();
            assert_eq!(tar.next_entry().is_ok_and(|e| e.is_none()), good, "{data}");
        }
    }

    #[test]
    fn a_damaged_header_is_refused() {
        let mut header = Header::new_ustar();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes[0] = b'b';
        assert!(TarStream::new(&bytes[..]).next_entry().is_err());
    }
}
