//! Turns at one sandbox's network, among all processes that use the same records: a lock on one byte of one file, let go
//! of by the kernel when its holder ends, however it ends. Plugins do not inherit it. Touches that file only.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};
use tokio::time::{Instant, sleep};

use super::{Error, Network};

/// The file in the records' directory.
const FILE: &str = "turns.lock";
/// Deadlines of a plugin's run that may pass before one's turn must have come.
const PATIENCE: u32 = 8;

/// Held as long as the operation takes.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code)] File);

impl Network {
    /// Waits until nobody else is at this sandbox's network.
    pub(super) async fn turn(&self, sandbox: &str) -> Result<Turn, Error> {
        let file = self.blocking(|settings| open(&settings.record_dir)).await?;
        let until = Instant::now() + self.0.deadline * PATIENCE;
        while !take(&file, sandbox).map_err(|source| self.turn_error(source))? {
            if Instant::now() > until {
                return Err(Error::Busy(sandbox.to_owned()));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(Turn(file))
    }

    fn turn_error(&self, source: io::Error) -> Error {
        Error::File { doing: "locking", path: self.0.record_dir.join(FILE), source }
    }
}

fn open(dir: &Path) -> Result<File, Error> {
    let path = dir.join(FILE);
    let opened =
        DirBuilder::new().recursive(true).mode(0o700).create(dir).and_then(|()| {
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)
        });
    opened.map_err(|source| Error::File { doing: "opening", path, source })
}

/// Two sandboxes may share a byte; then they wait for each other, too.
fn take(file: &File, sandbox: &str) -> io::Result<bool> {
    // FNV-1a: the same in every version of this program.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let byte = sandbox.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let lock = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: 0,
        l_start: i64::try_from(byte >> 2).unwrap_or_default(),
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file.as_raw_fd(), FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
