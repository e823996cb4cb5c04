//! Shims that are killed, runtimes that change, disks that are full, and that nothing is left: real containers.

mod direct_world;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use direct_world::pods::{
    code, kill, processes, run, run_dir, running, said, sh, shim, spec, start, status, unified, until,
};
use direct_world::{DIRECTORY, cgroup, directory, world};
use podstead_runtime::suite::{Pod, sandbox_spec, see, until as until_state, until_exited, until_file};
use podstead_runtime::{
    ContainerId, ContainerState, Error, NamespaceMode, Runtime as _, SandboxId, SandboxState,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

fn is_unknown_end(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Exited { reason, code: 255, .. } if reason == "ContainerStatusUnknown")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_shim_was_killed_is_unknown_and_can_be_stopped_and_removed() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mark = format!("5772{}", std::process::id());
    let script = format!(
        "trap 'echo asked > /asked; exit 0' TERM; setsid sleep {mark} & echo ready; while :; do sleep 0.05; done"
    );
    let spec = spec(&w, &pod, &script);
    let id = start(&w, &pod, &spec).await;
    let pid = see(&w, &id).await.expect("there").pid;
    kill(shim(&id).expect("its shim")).await;
    until_state(&w, &id, |s| *s == ContainerState::Unknown).await;
    assert!(!running(&format!("sleep {mark}")).is_empty(), "it runs on");
    w.ours.stop_container(&id, Duration::from_secs(20)).await.expect("stop");
    let ended = see(&w, &id).await.expect("there").state;
    assert!(is_unknown_end(&ended) && !ended.never_ran(), "{ended:?}");
    assert!(status(pid, "State").is_none_or(|s| s.starts_with('Z')));
    until(|| running(&format!("sleep {mark}")).is_empty()).await;
    let upper = directory().join("root/containers").join(&id.0).join("upper");
    assert!(upper.join("asked").exists(), "the signal came before the kill");
    assert_eq!(cgroups(&id.0), Vec::<String>::new());
    w.ours.remove_container(&id).await.expect("remove");
    assert!(!upper.exists() && !run_dir(&id).exists());
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_dies_without_its_shim_has_an_unknown_end() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let id = start(&w, &pod, &spec(&w, &pod, "echo ready; sleep 1000")).await;
    let pid = see(&w, &id).await.expect("there").pid;
    kill(shim(&id).expect("its shim")).await;
    kill(pid).await;
    until_state(&w, &id, is_unknown_end).await;
    w.ours.remove_container(&id).await.expect("remove");
    assert_eq!(cgroups(&id.0), Vec::<String>::new());
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_waits_for_its_start_goes_with_its_shim() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let id = w.ours.create_container(&pod.id, &spec(&w, &pod, "true"), &pod.spec).await.expect("create");
    let pid = see(&w, &id).await.expect("there").pid;
    kill(shim(&id).expect("its shim")).await;
    assert!(w.ours.start_container(&id).await.is_err());
    w.ours.remove_container(&id).await.expect("remove");
    until(|| status(pid, "State").is_none_or(|s| s.starts_with('Z'))).await;
    assert_eq!(cgroups(&id.0), Vec::<String>::new());
    pod.end(&w).await;
}

/// A shim that is killed at any moment of making its container leaves nothing once its sandbox is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_killed_while_it_makes_its_container_leaves_nothing() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec = spec(&w, &pod, "sleep 1000");
    let dirs = || ids(&directory().join("state/containers"));
    for n in 0..12_u32 {
        spec.attempt = n;
        let before = dirs();
        let create = w.ours.create_container(&pod.id, &spec, &pod.spec);
        let killer = async {
            // From its first instruction to about its last.
            let mut shim = None;
            while shim.is_none() {
                tokio::time::sleep(Duration::from_micros(500)).await;
                let new = dirs().difference(&before).find(|id| owns(id, &pod)).cloned();
                shim = new.and_then(|id| {
                    running(&format!("container-shim {}", run_dir(&ContainerId(id)).display()))
                        .first()
                        .copied()
                });
            }
            tokio::time::sleep(Duration::from_millis(u64::from(n) * 3)).await;
            let pid = nix::unistd::Pid::from_raw(shim.expect("found").cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        };
        let (made, ()) = tokio::join!(create, killer);
        if let Ok(id) = made {
            w.ours.remove_container(&id).await.expect("remove");
        }
        assert_eq!(dirs().difference(&before).filter(|id| owns(id, &pod)).count(), 0, "{n}");
    }
    let of_pod = format!("{}/", pod.spec.cgroup_parent);
    assert_eq!(cgroups(&of_pod), Vec::<String>::new());
    pod.end(&w).await;
}

fn ids(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).expect("read").flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn owns(id: &str, pod: &Pod) -> bool {
    let spec = fs::read_to_string(directory().join("state/containers").join(id).join("shim.json"));
    spec.is_ok_and(|text| text.contains(&pod.spec.cgroup_parent))
}

/// Cgroups of any hierarchy whose path has this text.
fn cgroups(text: &str) -> Vec<String> {
    let ours = format!("/sys/fs/cgroup{}{}", if unified() { "" } else { "/*" }, cgroup());
    let output =
        Command::new("sh").args(["-c", &format!("find {ours} -type d 2>/dev/null")]).output().expect("find");
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_sees_execs_stops_and_removes() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let spec = spec(&w, &pod, "trap 'exit 17' TERM; echo ready; while :; do sleep 0.05; done");
    let id = start(&w, &pod, &spec).await;
    let output = Command::new(std::env::current_exe().expect("ourselves"))
        .args(["--exact", "the_other_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory())
        .env("PODSTEAD_TEST_CONTAINER", &id.0)
        .env("PODSTEAD_TEST_SANDBOX", &pod.id.0)
        .env("PODSTEAD_TEST_LOGS", &pod.spec.log_directory)
        .output()
        .expect("start the other process");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(see(&w, &id).await, None, "it is removed for us as well");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of another test, run by it as a process of its own"]
async fn the_other_process() {
    let Ok(id) = std::env::var("PODSTEAD_TEST_CONTAINER").map(ContainerId) else { return };
    let sandbox = SandboxId(std::env::var("PODSTEAD_TEST_SANDBOX").expect("the sandbox"));
    // Stricter than containers are: theirs must not follow it.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let w = direct_world::Libcontainer::existing().await;
    let seen = see(&w, &id).await.expect("the first one's container");
    assert!(seen.is_running() && seen.pid > 0);
    assert_eq!(sh(&w, &id, "echo $((6*7))").await, "42\n");
    let snapshot = w.ours.observe().await.expect("observe");
    let found = snapshot.sandboxes.iter().find(|s| s.id == sandbox).expect("its sandbox");
    let mut spec = podstead_runtime::SandboxSpec { pod: found.pod.clone(), ..Default::default() };
    spec.log_directory = std::env::var_os("PODSTEAD_TEST_LOGS").expect("its logs").into();
    spec.security.namespaces.pid = NamespaceMode::Container;
    let pod = Pod { spec, id: sandbox };
    let mut mine =
        direct_world::pods::spec(&w, &pod, "umask; stat -c %a / /new; ls / > /dev/null && echo readable");
    mine.name = "mine".into();
    mine.log_path = "mine/0.log".into();
    mine.security.run_as_user = Some(1000);
    mine.working_dir = "/new".into();
    let (_, output) = run(&w, &pod, &mine).await;
    assert_eq!(output, "0022\n755\n755\nreadable\n");
    w.ours.stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    assert_eq!(code(&see(&w, &id).await.expect("there")), 17);
    w.ours.remove_container(&id).await.expect("remove");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_is_a_clear_error_and_a_full_disk_stops_no_container() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let small = pod.spec.log_directory.join("small");
    fs::create_dir_all(&small).expect("make a directory");
    let mut spec = spec(&w, &pod, "true");
    spec.log_path = "small/pipe".into();
    nix::unistd::mkfifo(&small.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let error = w.ours.create_container(&pod.id, &spec, &pod.spec).await.expect_err("no log, no container");
    assert!(error.to_string().contains("small/pipe"), "{error}");
    mount("tmpfs", &small, "tmpfs", MountFlags::empty(), Some(c"size=64k")).expect("mount");
    spec.log_path = "small/0.log".into();
    spec.attempt = 1;
    spec.command[2] =
        "i=0; while [ $i -lt 3000 ]; do echo line number $i is here; i=$((i+1)); done; exit 8".into();
    let (ended, output) = run(&w, &pod, &spec).await;
    assert!(output.starts_with("line number 0 is here\n"), "{output}");
    assert!(output.lines().count() < 3000);
    assert_eq!(code(&ended), 8);
    let words = fs::read_to_string(run_dir(&ended.id).join("shim.log")).expect("what the shim says");
    assert_eq!(words.matches("entries are lost").count(), 1, "{words}");
    unmount(&small, UnmountFlags::DETACH).expect("unmount");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_holds_nothing_but_its_own() {
    let w = world().await;
    let (one, other) = (Pod::run(&w).await, Pod::run(&w).await);
    let held = fs::File::open(directory()).expect("something of ours");
    rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::CLOEXEC).expect("as all of ours are");
    let theirs = start(&w, &other, &spec(&w, &other, "echo ready; sleep 1000")).await;
    let id = start(&w, &one, &spec(&w, &one, "echo ready; sleep 1000")).await;
    let shim = shim(&id).expect("its shim");
    let mounts = fs::read_to_string(format!("/proc/{shim}/mountinfo")).expect("its mounts");
    assert!(!mounts.contains(" overlay ") || !mounts.contains(&id.0), "the root is the container's alone");
    for kind in ["mnt", "net", "ipc", "uts", "pid"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        assert_eq!(of(&shim.to_string()), of("self"), "{kind}");
    }
    let open: Vec<String> = fs::read_dir(format!("/proc/{shim}/fd"))
        .expect("its descriptors")
        .flatten()
        .map(|e| fs::read_link(e.path()).map(|t| t.display().to_string()).unwrap_or_default())
        .collect();
    let own = run_dir(&id).display().to_string();
    let known = |target: &str| {
        target.starts_with(&own)
            || target.starts_with(&one.spec.log_directory.display().to_string())
            || ["/dev/null", "pipe:", "socket:", "anon_inode:[pidfd]", "pidfd:"]
                .iter()
                .any(|k| target.starts_with(k))
    };
    assert!(open.iter().all(|target| known(target)), "{open:?}");
    assert!(open.len() <= 12, "{open:?}");
    // What the container sees of the node's mounts is its own alone.
    let inside = sh(&w, &id, "cat /proc/self/mountinfo").await;
    assert!(!inside.contains(&theirs.0) && !inside.contains(&other.id.0), "{inside}");
    one.end(&w).await;
    other.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_deeper_than_any_path_does_not_keep_a_container_from_its_removal() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let script = "i=0; while [ $i -lt 1500 ]; do mkdir dddddd && cd -P dddddd || break; i=$((i+1)); done; echo ready; sleep 1000";
    let mut spec = spec(&w, &pod, script);
    spec.working_dir = "/tmp".into();
    let id = start(&w, &pod, &spec).await;
    let stats = w.ours.container_stats().await.expect("stats");
    assert!(stats.iter().any(|s| s.id == id && s.writable_inodes > 100), "{stats:?}");
    w.ours.remove_container(&id).await.expect("remove");
    assert!(!directory().join("root/containers").join(&id.0).exists());
    pod.end(&w).await;
}

/// Whichever comes first: in the end there is no container without a sandbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_made_while_its_sandbox_is_removed_is_gone_too() {
    let w = world().await;
    for n in 0..12_u64 {
        let pod = Pod::run(&w).await;
        let spec = spec(&w, &pod, "sleep 1000");
        let create = w.ours.create_container(&pod.id, &spec, &pod.spec);
        let remove = async {
            tokio::time::sleep(Duration::from_millis(n)).await;
            w.ours.remove_sandbox(&pod.id).await.expect("remove_sandbox");
        };
        let (made, ()) = tokio::join!(create, remove);
        let (sandboxes, containers) = pod.left(&w).await;
        assert!(sandboxes.is_empty() && containers.is_empty(), "{n}: {made:?} {containers:?}");
        assert_eq!(cgroups(&format!("{}/", pod.spec.cgroup_parent)), Vec::<String>::new(), "{n}");
        let of_pod = |id: &String| {
            let dir = directory().join("root/containers").join(id);
            ["making.json", "container.json"]
                .iter()
                .any(|f| fs::read_to_string(dir.join(f)).is_ok_and(|t| t.contains(&pod.id.0)))
        };
        assert!(!ids(&directory().join("root/containers")).iter().any(of_pod), "{n}");
    }
}

/// Whichever comes first: nothing is made in a sandbox that was stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_made_while_its_sandbox_is_stopped_is_made_before_or_not_at_all() {
    let w = world().await;
    for n in 0..40_u64 {
        let mut pod = sandbox_spec(&w);
        // With nothing of its own that a container could miss once it is stopped.
        (pod.security.namespaces.network, pod.security.namespaces.ipc) =
            (NamespaceMode::Node, NamespaceMode::Node);
        let id = w.ours.run_sandbox(&pod).await.expect("run_sandbox");
        let pod = Pod { spec: pod, id };
        let mut spec = spec(&w, &pod, "sleep 1000");
        spec.security.namespaces = pod.spec.security.namespaces.clone();
        let create = w.ours.create_container(&pod.id, &spec, &pod.spec);
        let stop = async {
            tokio::time::sleep(Duration::from_micros(n * 150)).await;
            w.ours.stop_sandbox(&pod.id).await.expect("stop_sandbox");
        };
        let (made, ()) = tokio::join!(create, stop);
        let (_, containers) = pod.left(&w).await;
        let waiting = containers.iter().any(|c| matches!(c.state, ContainerState::Created) || c.is_running());
        assert!(!waiting, "{n}: {made:?} {containers:?}");
        pod.end(&w).await;
    }
}

/// What a kill in the middle of a removal leaves looks half-made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_was_cut_short_keeps_the_log_of_what_ran() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec = spec(&w, &pod, "true");
    let ran = pod.start_spec(&w, &spec).await;
    until_exited(&w, &ran).await;
    let log = pod.spec.log_directory.join(&spec.log_path);
    spec.name = "waits".into();
    spec.log_path = "waits/0.log".into();
    let never = w.ours.create_container(&pod.id, &spec, &pod.spec).await.expect("create");
    w.ours.stop_container(&never, Duration::ZERO).await.expect("stop");
    for id in [&ran, &never] {
        let dir = directory().join("root/containers").join(&id.0);
        fs::rename(dir.join("container.json"), dir.join("making.json")).expect("cut short");
    }
    let unused = pod.spec.log_directory.join(&spec.log_path);
    assert!(log.exists() && unused.exists());
    pod.end(&w).await;
    assert!(log.exists() && !unused.exists(), "one was used, the other was not");
}

/// No inode is left where records, images and what containers write are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_an_agent_begins_sees_stops_and_removes() {
    let w = world().await;
    let small = directory().join("small");
    fs::create_dir_all(&small).expect("make a directory");
    mount("tmpfs", &small, "tmpfs", MountFlags::empty(), Some(c"nr_inodes=2000")).expect("mount");
    let open = || async {
        let mut options = direct_world::options("podstead");
        options.root = small.join("root");
        options.state_dir = directory().join("small-state");
        podstead_youki::Direct::open(options).await
    };
    let w = direct_world::Libcontainer { ours: open().await.expect("open"), ..w };
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/images/out/busybox.tar");
    let imported = w.ours.import_image(&archive, None, podstead_runtime::PullProgress::none()).await;
    imported.expect("import");
    let pod = Pod::run(&w).await;
    let id = start(&w, &pod, &spec(&w, &pod, "echo ready; sleep 1000")).await;
    let full = |n: u32| fs::File::create(small.join(n.to_string())).is_err();
    assert!((0..3000).any(full), "the disk becomes full");
    let w = direct_world::Libcontainer { ours: open().await.expect("open again"), ..w };
    assert!(see(&w, &id).await.expect("seen").is_running());
    w.ours.stop_container(&id, Duration::ZERO).await.expect("stop");
    assert!(matches!(see(&w, &id).await.expect("seen").state, ContainerState::Exited { .. }));
    w.ours.stop_sandbox(&pod.id).await.expect("stop_sandbox");
    let (sandboxes, _) = pod.left(&w).await;
    assert_eq!(sandboxes[0].state, SandboxState::NotReady);
    w.ours.remove_container(&id).await.expect("remove");
    w.ours.remove_sandbox(&pod.id).await.expect("remove_sandbox");
    let (sandboxes, containers) = pod.left(&w).await;
    assert!(sandboxes.is_empty() && containers.is_empty());
    // What the records took is free again, and is used up.
    assert!((3000..6000).any(full), "the disk becomes full");
    let image = podstead_runtime::ImageSpec { image: direct_world::BUSYBOX.into(), ..Default::default() };
    w.ours.remove_image(&image).await.expect("remove_image");
    assert!(w.ours.images().await.expect("list").is_empty());
    assert!(!full(6000), "its layers made room");
    drop(w);
    unmount(&small, UnmountFlags::DETACH).expect("unmount");
}

/// Whichever comes first: what a container is made of stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_not_removed_under_a_container_in_the_making() {
    let w = world().await;
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/images/out/busybox.tar");
    let image = podstead_runtime::ImageSpec { image: direct_world::BUSYBOX.into(), ..Default::default() };
    let pod = Pod::run(&w).await;
    let mut spec = spec(&w, &pod, "sleep 1000");
    for n in 0..30 {
        w.ours.import_image(&archive, None, podstead_runtime::PullProgress::none()).await.expect("import");
        spec.attempt = n;
        let create = w.ours.create_container(&pod.id, &spec, &pod.spec);
        let remove = async {
            tokio::time::sleep(Duration::from_micros(u64::from(n) * 100)).await;
            w.ours.remove_image(&image).await
        };
        let (made, removed) = tokio::join!(create, remove);
        match made {
            Ok(id) => {
                assert!(removed.is_err(), "{n}");
                assert!(w.ours.image(&image).await.expect("look").is_some(), "{n}");
                w.ours.remove_container(&id).await.expect("remove");
            }
            // Not one about a directory that went while it was being mounted.
            Err(error) => assert!(matches!(error, Error::NotFound { .. }), "{n}: {error}"),
        }
    }
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_and_removing_at_once_are_both_successes() {
    let w = world().await;
    for _ in 0..5 {
        let pod = Pod::run(&w).await;
        let id = pod.start_spec(&w, &spec(&w, &pod, "sleep 1000")).await;
        let all = tokio::join!(
            w.ours.stop_container(&id, Duration::ZERO),
            w.ours.remove_sandbox(&pod.id),
            w.ours.stop_sandbox(&pod.id),
            w.ours.remove_container(&id),
            w.ours.remove_sandbox(&pod.id),
        );
        all.0.and(all.1).and(all.2).and(all.3).and(all.4).expect("all of them");
        let (sandboxes, containers) = pod.left(&w).await;
        assert!(sandboxes.is_empty() && containers.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_pod_is_left_after_its_removal() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec = spec(
        &w,
        &pod,
        "setsid sleep 1000 & mkdir -p /a/b; echo x > /a/b/c; ln -s / /root-link; echo ready; sleep 1000",
    );
    let running_one = start(&w, &pod, &spec).await;
    spec.name = "ended".into();
    spec.log_path = "ended/0.log".into();
    spec.command[2] = "exit 1".into();
    let ended = pod.start_spec(&w, &spec).await;
    until_exited(&w, &ended).await;
    spec.name = "waiting".into();
    spec.log_path = "waiting/0.log".into();
    let waiting = w.ours.create_container(&pod.id, &spec, &pod.spec).await.expect("create");
    let sandbox = pod.id.clone();
    let (log, parent) = (pod.spec.log_directory.clone(), pod.spec.cgroup_parent.clone());
    pod.end(&w).await;
    let marks = [&sandbox.0, &running_one.0, &ended.0, &waiting.0];
    let find = Command::new("find").arg(directory()).output().expect("find");
    let files = String::from_utf8_lossy(&find.stdout).into_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    for mark in marks {
        assert!(!files.contains(mark.as_str()), "{mark}: {files}");
        assert!(!mounts.contains(mark.as_str()), "{mark}: {mounts}");
        assert_eq!(running(mark), Vec::<u32>::new());
        assert_eq!(cgroups(mark), Vec::<String>::new());
        for pid in processes() {
            let theirs = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            assert!(!theirs.contains(mark.as_str()), "process {pid} holds a mount of {mark}");
        }
    }
    assert_eq!(cgroups(&format!("{parent}/")), Vec::<String>::new());
    assert!(log.join("c/0.log").exists(), "the logs stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_sandboxes_are_not_ready_and_everything_can_be_removed() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let spec = spec(&w, &pod, "echo ready; sleep 1000");
    let id = start(&w, &pod, &spec).await;
    let pid = see(&w, &id).await.expect("there").pid;
    kill(shim(&id).expect("its shim")).await;
    kill(pid).await;
    forget(&pod, &[&id]);
    let seen = see(&w, &id).await.expect("its record survives");
    assert!(is_unknown_end(&seen.state), "{:?}", seen.state);
    let (sandboxes, _) = pod.left(&w).await;
    assert_eq!(sandboxes[0].state, SandboxState::NotReady);
    let more = w.ours.create_container(&pod.id, &direct_world::pods::spec(&w, &pod, "true"), &pod.spec).await;
    assert!(more.is_ok_and(|found| found == id), "the same key is the same container");
    let mut new = spec.clone();
    new.attempt = 1;
    assert!(
        w.ours.create_container(&pod.id, &new, &pod.spec).await.is_err(),
        "nothing is made in it any more"
    );
    assert!(said(&pod, &spec).contains("ready"));
    pod.end(&w).await;
}

/// What a reboot does to a pod's part of the state directory.
fn forget(pod: &Pod, containers: &[&ContainerId]) {
    let state = directory().join("state/sandboxes").join(&pod.id.0);
    let table = fs::read_to_string("/proc/self/mounts").expect("mounts");
    for point in
        table.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| Path::new(p).starts_with(&state))
    {
        unmount(point, UnmountFlags::DETACH).expect("unmount");
    }
    fs::remove_dir_all(&state).expect("forget the sandbox");
    for id in containers {
        fs::remove_dir_all(run_dir(id)).expect("forget the container");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_log_goes_on_in_a_new_file_without_loss() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let spec = spec(
        &w,
        &pod,
        "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); [ $((i % 40)) = 0 ] && sleep 0.05; done; echo over; sleep 1000",
    );
    let id = pod.start_spec(&w, &spec).await;
    let path = pod.spec.log_directory.join(&spec.log_path);
    let mut parts = Vec::new();
    for n in 0..4 {
        until_file(&path, |log| !log.is_empty()).await;
        let old = path.with_extension(n.to_string());
        fs::rename(&path, &old).expect("rotate");
        w.ours.reopen_log(&id).await.expect("reopen_log");
        parts.push(old);
    }
    until_file(&path, |log| log.contains("over")).await;
    parts.push(path);
    let all: Vec<String> = parts
        .iter()
        .flat_map(|p| {
            fs::read_to_string(p)
                .expect("a part")
                .lines()
                .map(|l| l.rsplit(' ').next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    let expected: Vec<String> = (0..400).map(|n| n.to_string()).chain(["over".to_owned()]).collect();
    assert_eq!(all, expected);
    pod.end(&w).await;
}
