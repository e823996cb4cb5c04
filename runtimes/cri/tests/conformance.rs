//! The contract's promises, kept over a real containerd.

mod common;

use std::path::PathBuf;

use podstead_cri::{Cri, Options};
use podstead_runtime::PodUid;
use podstead_runtime::suite::World;

struct Containerd {
    ours: Cri,
    stranger: Cri,
}

impl World for Containerd {
    type Runtime = Cri;

    fn runtime(&self) -> &Cri {
        &self.ours
    }

    fn stranger(&self) -> Option<&Cri> {
        Some(&self.stranger)
    }

    fn image(&self) -> &str {
        common::BUSYBOX
    }

    fn logs(&self) -> PathBuf {
        let logs = common::directory().join("logs");
        std::fs::create_dir_all(&logs).expect("make the logs' directory");
        logs
    }

    fn cgroup_parent(&self, uid: &PodUid) -> String {
        format!("{}/pod{uid}", common::cgroup())
    }

    fn real(&self) -> bool {
        true
    }
}

async fn world() -> Containerd {
    let endpoint = tokio::task::spawn_blocking(common::containerd).await.expect("containerd");
    let client = |owner: &str| {
        let options = Options { owner: owner.into(), ..Options::default() };
        Cri::connect(endpoint, options).expect("an endpoint")
    };
    Containerd { ours: client("podstead"), stranger: client("somebody-else") }
}

podstead_runtime::conformance!(world());
