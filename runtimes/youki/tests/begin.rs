//! What an agent finds when it begins: records that a power failure cut short.

mod direct_world;

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use direct_world::{directory, world};
use podstead_runtime::suite::{Pod, sandbox_spec};
use podstead_runtime::{NamespaceMode, Runtime as _, SandboxState};

/// The first of the two looks.
async fn swept(runtime: &podstead_youki::Direct) {
    let _ = tokio::time::timeout(Duration::from_secs(10), runtime.begin()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_record_any_more_is_taken_away_and_nothing_else() {
    let w = world().await;
    let (kept, lost) = (Pod::run(&w).await, Pod::run(&w).await);
    let (stays, goes) = (kept.start(&w, "c", "sleep 1000").await, lost.start(&w, "c", "sleep 1000").await);
    let own = |pod: &Pod| directory().join("root/sandboxes").join(&pod.id.0);
    let container = directory().join("root/containers").join(&goes.0);
    for (dir, record) in [(own(&lost), "sandbox.json"), (container.clone(), "container.json")] {
        fs::write(dir.join(record), "").expect("cut the record short");
    }
    // Another process, as after the failure: nothing is remembered.
    let after =
        || async { podstead_youki::Direct::open(direct_world::options("podstead")).await.expect("open") };
    swept(&after().await).await;
    assert!(own(&lost).exists() && container.exists(), "what is young may be in the making");

    let old = SystemTime::now() - Duration::from_secs(3600);
    for dir in [own(&lost), own(&kept), container.clone()] {
        File::open(dir).expect("open").set_modified(old).expect("make it old");
    }
    swept(&after().await).await;
    assert!(!own(&lost).exists() && !container.exists());
    assert!(!directory().join("state/sandboxes").join(&lost.id.0).exists());
    let (_, containers) = kept.left(&w).await;
    assert!(containers.iter().any(|c| c.id == stays && c.is_running()), "{containers:?}");
    kept.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_of_pods_that_are_taken_over_is_checked() {
    use std::os::unix::fs::PermissionsExt as _;
    let w = world().await;
    let bin = directory().join("bin");
    fs::create_dir_all(&bin).expect("make a directory");
    fs::create_dir_all(directory().join("net.d")).expect("make a directory");
    let list = r#"{"cniVersion":"1.0.0","name":"checked","plugins":[{"type":"podstead-test"}]}"#;
    fs::write(directory().join("net.d/10.conflist"), list).expect("write");
    let calls = directory().join("calls");
    let script = format!(
        "#!/bin/sh\necho $CNI_COMMAND >>{}\n[ $CNI_COMMAND = CHECK ] && exit 1\n\
         echo '{{\"cniVersion\":\"1.0.0\",\"ips\":[{{\"address\":\"10.0.0.9/24\"}}]}}'\n",
        calls.display()
    );
    fs::write(bin.join("podstead-test"), script).expect("write");
    fs::set_permissions(bin.join("podstead-test"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let open = || async {
        let mut options = direct_world::options("podstead");
        options.cni_bin_dirs = vec![bin.clone()];
        podstead_youki::Direct::open(options).await.expect("open")
    };
    let mut spec = sandbox_spec(&w);
    spec.security.namespaces.network = NamespaceMode::Pod;
    let first = open().await;
    let id = first.run_sandbox(&spec).await.expect("run_sandbox");
    let after = open().await;
    swept(&after).await;
    let called = || fs::read_to_string(&calls).expect("read");
    assert_eq!(called(), "ADD\nCHECK\n");
    let seen = after.observe().await.expect("observe");
    assert!(seen.sandboxes.iter().any(|s| s.id == id && s.state == SandboxState::Ready), "it is only told");
    after.stop_sandbox(&id).await.expect("stop_sandbox");
    after.remove_sandbox(&id).await.expect("remove_sandbox");
    assert_eq!(called(), "ADD\nCHECK\nDEL\n");
}
