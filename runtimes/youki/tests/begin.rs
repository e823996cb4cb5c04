//! What an agent finds when it begins: records that a power failure cut short.

mod direct_world;

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use direct_world::{directory, world};
use podstead_runtime::suite::Pod;

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
