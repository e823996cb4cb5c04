//! A sealed copy of a binary in memory: what runs as shim can be changed by nobody, not by a container that gets hold of
//! its own `/proc/self/exe` (CVE-2019-5736) and not by an upgrade of the file on disk.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};

const NAME: &CStr = c"podstead-shim";

/// The copy.
#[derive(Debug)]
pub(super) struct Sealed(File);

impl Sealed {
    /// Copies the binary. Blocks.
    pub(super) fn copy(exe: &Path) -> io::Result<Self> {
        let mut source = File::open(exe)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Nodes may forbid executable memfds unless asked for; kernels before 6.3 do not know the word.
        let memfd = memfd_create(NAME, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(NAME, flags))?;
        let mut copy = File::from(memfd);
        io::copy(&mut source, &mut copy)?;
        // A process of a pod's user namespace may execute it and not read it: so the kernel lets nobody of that namespace
        // look into the process, whatever rights it has there.
        fchmod(&copy, Mode::from_raw_mode(0o711))?;
        fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok(Self(copy))
    }

    /// What to execute, as long as this lives.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_runs_and_cannot_be_changed() {
        use std::io::Write as _;
        let sealed = Sealed::copy(Path::new("/bin/sh")).expect("copy");
        let output = std::process::Command::new(sealed.path()).args(["-c", "echo hi"]).output().expect("run");
        assert_eq!(output.stdout, b"hi\n");
        assert!((&sealed.0).write_all(b"x").is_err(), "it is sealed");
    }
}
