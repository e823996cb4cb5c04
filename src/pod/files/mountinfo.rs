//! What is mounted below a directory, from the kernel's table (proc(5)). Reads only.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Mount points at a directory or below it, the deepest and youngest first. The directory must exist.
pub(super) fn at_or_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let real = dir.canonicalize()?;
    let table = fs::read("/proc/self/mountinfo")?;
    let points = table.split(|b| *b == b'\n').filter_map(point);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(&real)).collect();
    found.reverse();
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(found)
}

/// Whether something is mounted just there.
pub(super) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let real = path.canonicalize()?;
    Ok(at_or_below(&real)?.contains(&real))
}

fn point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|b| *b == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(octal);
        path.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::ffi::OsStr::from_bytes(digits).to_str()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_kernel_writes_them() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134c\012d rw shared:1 - ext3 /dev/root rw";
        assert_eq!(point(line).unwrap(), Path::new("/a b\\c\nd"));
        assert_eq!(point(br"1 2 3 4 /x\9 rw").unwrap(), Path::new(r"/x\9"));
        assert_eq!(point(b"1 2"), None);
        assert!(
            is_mount_point(Path::new("/proc")).unwrap() && !is_mount_point(Path::new("/proc/self")).unwrap()
        );
        assert!(at_or_below(Path::new("/")).unwrap().len() > 1);
    }
}
