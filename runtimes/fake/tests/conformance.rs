//! The contract's promises, kept by the world in memory.

use std::path::PathBuf;

use podstead_fake::Fake;
use podstead_runtime::PodUid;
use podstead_runtime::suite::World;

struct InMemory {
    ours: Fake,
    stranger: Fake,
    logs: tempfile::TempDir,
}

const IMAGE: &str = "localhost/busybox:1";

fn world() -> InMemory {
    let ours = Fake::new();
    ours.world(|w| w.add_image(IMAGE));
    InMemory { stranger: ours.stranger("somebody-else"), ours, logs: tempfile::tempdir().expect("tempdir") }
}

impl World for InMemory {
    type Runtime = Fake;
    fn runtime(&self) -> &Fake {
        &self.ours
    }
    fn stranger(&self) -> Option<&Fake> {
        Some(&self.stranger)
    }
    fn image(&self) -> &'static str {
        IMAGE
    }
    fn logs(&self) -> PathBuf {
        self.logs.path().to_owned()
    }
    fn cgroup_parent(&self, _: &PodUid) -> String {
        String::new()
    }
    fn real(&self) -> bool {
        false
    }
}

podstead_runtime::conformance!(std::future::ready(world()));
