//! Where everything of the direct runtime lies. Names, and the making of the top directories.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The runtime's directories.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
    state: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path, state: &Path) -> Self {
        Self { root: root.to_owned(), state: state.to_owned() }
    }

    /// Makes what is missing, 0700.
    pub(crate) fn make(&self) -> io::Result<()> {
        let all = [
            self.images(),
            self.networks(),
            self.sandboxes(),
            self.containers(),
            self.state.join("sandboxes"),
            self.state.join("containers"),
            self.hints(),
        ];
        let named = |dir: &PathBuf, error: io::Error| {
            io::Error::new(error.kind(), format!("cannot make {}: {error}", dir.display()))
        };
        all.iter().try_for_each(|dir| make_dir(dir).map_err(|error| named(dir, error)))
    }

    /// Whether nobody has ever kept anything here. A directory that cannot be looked at is not that.
    pub(crate) fn is_absent(&self) -> bool {
        let gone =
            |path: &Path| std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        gone(&self.root)
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Records of CNI attachments.
    pub(crate) fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// What of a sandbox does not survive a reboot.
    pub(crate) fn sandbox_state(&self, id: &str) -> PathBuf {
        self.state.join("sandboxes").join(id)
    }

    pub(crate) fn namespaces(&self, id: &str) -> PathBuf {
        self.sandbox_state(id).join("ns")
    }

    /// `/dev/shm` of the pod.
    pub(crate) fn shm(&self, id: &str) -> PathBuf {
        self.sandbox_state(id).join("shm")
    }

    /// Where the first process of the pod's shared pid namespace has its lock and state.
    pub(crate) fn pause(&self, id: &str) -> PathBuf {
        self.sandbox_state(id).join("pause")
    }

    /// A container's run directory.
    pub(crate) fn run(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }

    /// Ended containers leave a file here.
    pub(crate) fn hints(&self) -> PathBuf {
        self.state.join("hints")
    }
}

/// Makes a directory with its parents, 0700. One that is there stays as it is.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
