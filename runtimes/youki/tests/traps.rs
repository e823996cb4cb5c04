//! What libcontainer 0.7 gets wrong or leaves to its caller, on real containers: confinement, mounts, devices, limits.
//! Streams, exec and ends are in `traps_process.rs`.

mod direct_world;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use direct_world::pods::{cgroup_file, code, run, said, sh, spec, start, unified};
use direct_world::{directory, world};
use podstead_runtime::suite::{Pod, sandbox_spec};
use podstead_runtime::{
    ContainerSpec, Device, LinuxResources, Mount, NamespaceMode, Profile, Propagation, Runtime as _,
};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

/// What must be the same in a container's first process and in one that is exec'd beside it.
const CONFINEMENT: &str =
    "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigIgn|SigBlk)' /proc/self/status; umask; pwd";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_is_confined_as_the_first_process_is() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    for (n, (user, no_new_privs, add, drop)) in [
        (None, false, "", ""),
        (None, true, "", ""),
        (Some(1000), false, "", ""),
        (Some(1000), true, "", ""),
        (None, false, "", "ALL"),
        (Some(1000), false, "", "ALL"),
        (None, false, "SYS_ADMIN", ""),
        (Some(1000), false, "NET_ADMIN", "ALL"),
    ]
    .into_iter()
    .enumerate()
    {
        let case = format!("user {user:?}, no_new_privs {no_new_privs}, +{add}, -{drop}");
        let mut spec = spec(&w, &pod, &format!("{CONFINEMENT}; echo ready; sleep 1000"));
        spec.attempt = u32::try_from(n).expect("few");
        spec.log_path = format!("c/{n}.log").into();
        let list = |name: &str| if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
        spec.security.run_as_user = user;
        spec.security.no_new_privs = no_new_privs;
        spec.security.add_capabilities = list(add);
        spec.security.drop_capabilities = list(drop);
        spec.security.seccomp = Profile::RuntimeDefault;
        let id = start(&w, &pod, &spec).await;
        let first = said(&pod, &spec).replace("ready\n", "");
        assert_eq!(sh(&w, &id, CONFINEMENT).await, first, "{case}");
        let line = |key: &str| {
            let line =
                first.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_else(|| panic!("{key} in {first}"));
            line.split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_eq!(line("Seccomp:"), "2", "{case}: {first}");
        assert_eq!(line("NoNewPrivs:"), u8::from(no_new_privs).to_string(), "{case}: {first}");
        let sys_admin = u64::from_str_radix(&line("CapBnd:"), 16).expect("hex") & (1 << 21) != 0;
        assert_eq!(sys_admin, add == "SYS_ADMIN", "{case}: {first}");
        if user.is_some() {
            assert_eq!(line("CapEff:"), "0000000000000000", "{case}: {first}");
        }
        assert_eq!((line("SigIgn:"), line("SigBlk:")), ("0".repeat(16), "0".repeat(16)), "{case}");
        assert!(first.contains("0022\n/\n"), "{case}: {first}");
    }
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seccomp_profile_of_the_pods_own_holds_in_exec_too() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let profile = directory().join("no-mkdir.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    fs::write(&profile, text).expect("write the profile");
    let script = "mkdir /tmp/x 2>&1 || true";
    for (attempt, user) in [None, Some(1000)].into_iter().enumerate() {
        let mut spec = spec(&w, &pod, &format!("{script}; echo ready; sleep 1000"));
        spec.attempt = u32::try_from(attempt).expect("few");
        spec.log_path = format!("c/{attempt}.log").into();
        spec.security.run_as_user = user;
        spec.security.seccomp = Profile::Localhost(profile.display().to_string());
        let id = start(&w, &pod, &spec).await;
        for output in [said(&pod, &spec), sh(&w, &id, script).await] {
            assert!(output.contains("not supported"), "{user:?}: {output}");
        }
    }
    let mut spec = spec(&w, &pod, "true");
    spec.attempt = 9;
    spec.security.seccomp = Profile::Localhost("/no/such/profile.json".into());
    let error =
        w.ours.create_container(&pod.id, &spec, &pod.spec).await.expect_err("never without its profile");
    assert!(error.to_string().contains("/no/such/profile.json"), "{error}");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_the_node_cannot_load_are_refused_by_name() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        let mut spec = spec(&w, &pod, "true");
        spec.security.apparmor = Some(Profile::Localhost("web-profile".into()));
        let error = w.ours.create_container(&pod.id, &spec, &pod.spec).await.expect_err("no AppArmor here");
        assert!(error.to_string().contains("web-profile"), "{error}");
    }
    pod.end(&w).await;
}

/// A directory of the test's own that is a mount, unmounted with all below it at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(name: &str, propagation: MountPropagationFlags) -> Self {
        let dir = directory().join(name);
        fs::create_dir_all(&dir).expect("make a directory");
        mount_bind(&dir, &dir).expect("bind");
        mount_change(&dir, propagation).expect("set the propagation");
        Self(dir)
    }

    fn tmpfs(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        fs::create_dir_all(&dir).expect("make a directory");
        mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None).expect("mount");
        dir
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below =
            table.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| Path::new(p).starts_with(&self.0));
        for point in below.collect::<Vec<_>>().into_iter().rev() {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

fn with_mount(mut spec: ContainerSpec, source: &Path, change: impl FnOnce(&mut Mount)) -> ContainerSpec {
    let mut mount = Mount { source: source.into(), destination: "/data".into(), ..Mount::default() };
    change(&mut mount);
    spec.mounts.push(mount);
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_mounts_of_the_node_are_seen_only_where_asked_for() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let shared = Mounted::new("rslave", MountPropagationFlags::SHARED);
    let script = "echo ready; sleep 1000";
    let slave =
        with_mount(spec(&w, &pod, script), &shared.0, |m| m.propagation = Propagation::HostToContainer);
    let mut private = with_mount(spec(&w, &pod, script), &shared.0, |_| {});
    private.name = "p".into();
    private.log_path = "p/0.log".into();
    let (slave, private) = (start(&w, &pod, &slave).await, start(&w, &pod, &private).await);
    fs::write(shared.tmpfs("sub").join("file"), "x").expect("write");
    assert_eq!(sh(&w, &slave, "ls /data/sub").await, "file\n");
    assert_eq!(sh(&w, &private, "ls /data/sub").await, "");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_containers_mounts_reach_the_node_only_where_asked_for() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let shared = Mounted::new("rshared", MountPropagationFlags::SHARED);
    let script =
        "mkdir -p /data/$0; mount -t tmpfs tmpfs /data/$0 && touch /data/$0/file && echo ready; sleep 1000";
    for (name, propagation) in [("both", Propagation::Bidirectional), ("one", Propagation::HostToContainer)] {
        let mut spec = with_mount(spec(&w, &pod, script), &shared.0, |m| m.propagation = propagation);
        spec.name = name.into();
        spec.log_path = format!("{name}/0.log").into();
        spec.command.push(name.into());
        spec.security.privileged = true;
        start(&w, &pod, &spec).await;
    }
    assert!(shared.0.join("both/file").exists(), "bidirectional");
    assert!(!shared.0.join("one/file").exists(), "from the node only");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recursive_read_only_covers_what_is_mounted_below() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let dir = Mounted::new("rro", MountPropagationFlags::PRIVATE);
    dir.tmpfs("sub");
    let script = "touch /data/x 2>/dev/null && echo top; touch /data/sub/x 2>/dev/null && echo below; true";
    let said_with = async |n: u32, change: fn(&mut Mount)| {
        let mut spec = with_mount(spec(&w, &pod, script), &dir.0, change);
        spec.attempt = n;
        spec.log_path = format!("c/{n}.log").into();
        run(&w, &pod, &spec).await.1
    };
    assert_eq!(said_with(0, |_| {}).await, "top\nbelow\n");
    assert_eq!(said_with(1, |m| m.read_only = true).await, "below\n");
    assert_eq!(said_with(2, |m| m.recursive_read_only = true).await, "");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_made_and_no_other_can_be_used() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    // One that no container has anyway; opening it does no harm.
    let given = ["/dev/cpu_dma_latency", "/dev/fuse", "/dev/rtc0", "/dev/hpet", "/dev/hwrng"];
    let Some(given) = given.into_iter().find(|path| fs::File::open(path).is_ok()) else {
        panic!("no device to give")
    };
    let script = "ls /dev/given; (: < /dev/given) && echo read; (: > /dev/given) 2>/dev/null && echo write
        (: > /dev/null) && echo null; true";
    let mut spec = spec(&w, &pod, script);
    let device =
        Device { host_path: given.into(), container_path: "/dev/given".into(), permissions: "r".into() };
    spec.devices = vec![device];
    let (_, output) = run(&w, &pod, &spec).await;
    // On cgroup v2 the rules need a BPF program, which libcontainer does not load without libbpf.
    let expected = if unified() { "/dev/given\nread\nwrite\nnull\n" } else { "/dev/given\nread\nnull\n" };
    assert_eq!(output, expected);
    let mut none = spec.clone();
    none.attempt = 1;
    none.devices.clear();
    none.log_path = "c/1.log".into();
    let number = fs::metadata(given).expect("look").rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    none.command[2] = format!(
        "mknod /tmp/other c {major} {minor} 2>/dev/null; (: < /tmp/other) 2>/dev/null && echo other; ls /dev; true"
    );
    let (_, output) = run(&w, &pod, &none).await;
    assert!(!output.contains("other"), "by rule on v1; on v2 because it cannot be made, nor used: {output}");
    assert!(!output.contains("kmsg") && !output.contains("given") && output.contains("urandom"), "{output}");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sysctls_of_the_pod_hold_in_its_containers_and_cannot_be_changed() {
    let w = world().await;
    let mut sandbox = sandbox_spec(&w);
    sandbox.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    sandbox.sysctls.insert("fs.mqueue.msg_max".into(), "17".into());
    let id = w.ours.run_sandbox(&sandbox).await.expect("run_sandbox");
    let pod = Pod { spec: sandbox, id };
    let script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max
        echo 0 2>/dev/null > /proc/sys/kernel/shm_rmid_forced || echo denied";
    let (_, output) = run(&w, &pod, &spec(&w, &pod, script)).await;
    assert_eq!(output, "1\n17\ndenied\n");
    assert_ne!(fs::read_to_string("/proc/sys/fs/mqueue/msg_max").expect("the node's").trim(), "17");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_in_the_cgroups_files_and_change_there() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec = spec(&w, &pod, "echo ready; sleep 1000");
    spec.resources = LinuxResources {
        cpu_shares: 512,
        cpu_quota: 20_000,
        memory_limit: 64 << 20,
        pids_limit: Some(40),
        ..LinuxResources::default()
    };
    let id = start(&w, &pod, &spec).await;
    let memory = || cgroup_file(&pod, &id, ("memory", "memory.limit_in_bytes"), "memory.max");
    let pids = || cgroup_file(&pod, &id, ("pids", "pids.max"), "pids.max");
    let quota = || {
        if unified() {
            return cgroup_file(&pod, &id, ("", ""), "cpu.max");
        }
        let file = |name| cgroup_file(&pod, &id, ("cpu", name), "");
        format!("{} {}", file("cpu.cfs_quota_us"), file("cpu.cfs_period_us"))
    };
    // A quota without a period gets the kernel's own: v2 refuses it otherwise.
    assert_eq!((memory(), pids(), quota()), ("67108864".into(), "40".into(), "20000 100000".into()));
    let weight = cgroup_file(&pod, &id, ("cpu", "cpu.shares"), "cpu.weight");
    assert!(weight == if unified() { "20" } else { "512" } || unified() && weight != "100", "{weight}");
    let more = LinuxResources {
        cpu_quota: 50_000,
        memory_limit: 96 << 20,
        pids_limit: Some(50),
        ..LinuxResources::default()
    };
    w.ours.update_resources(&id, &more).await.expect("update_resources");
    assert_eq!((memory(), pids(), quota()), ("100663296".into(), "50".into(), "50000 100000".into()));
    assert_eq!(
        cgroup_file(&pod, &id, ("cpu", "cpu.shares"), "cpu.weight"),
        weight,
        "what was not asked for stays"
    );
    let unlimited =
        LinuxResources { cpu_quota: -1, memory_limit: -1, pids_limit: Some(-1), ..LinuxResources::default() };
    w.ours.update_resources(&id, &unlimited).await.expect("update_resources");
    let lifted = if unified() { "max 100000" } else { "-1 100000" };
    assert_eq!((quota(), pids()), (lifted.into(), "max".into()));
    assert!(memory() == "max" || memory().parse().is_ok_and(|bytes: u64| bytes > 1 << 60), "{}", memory());
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_sees_its_cgroup_and_cannot_write_it() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let file = if unified() { "/sys/fs/cgroup/pids.max" } else { "/sys/fs/cgroup/pids/pids.max" };
    let script = format!(
        "cat {file}; echo max 2>/dev/null > {file} || echo denied; mkdir {file}x 2>/dev/null || echo no"
    );
    let mut spec = spec(&w, &pod, &script);
    spec.resources.pids_limit = Some(33);
    let (_, output) = run(&w, &pod, &spec).await;
    assert_eq!(output, "33\ndenied\nno\n");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oom_score_is_the_containers_and_not_its_shims() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec = spec(&w, &pod, "cat /proc/self/oom_score_adj; echo ready; sleep 1000");
    spec.resources.oom_score_adj = 777;
    let id = start(&w, &pod, &spec).await;
    assert!(said(&pod, &spec).starts_with("777\n"));
    assert_eq!(sh(&w, &id, "cat /proc/self/oom_score_adj").await, "777\n");
    let score = |pid: &str| -> i32 {
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))
            .expect("read")
            .trim()
            .parse()
            .expect("a number")
    };
    let shim = direct_world::pods::shim(&id).expect("its shim").to_string();
    assert!(score(&shim) <= score("self"), "the shim has {}", score(&shim));
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_killed_for_memory_does_not_make_a_clean_end_an_oom() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec = spec(&w, &pod, "sh -c 'tail /dev/zero'; echo child $?; exit 3");
    spec.resources.memory_limit = 32 << 20;
    let (ended, output) = run(&w, &pod, &spec).await;
    assert_eq!((output.contains("child 137"), code(&ended)), (true, 3), "{output}");
    let reason = format!("{:?}", ended.state);
    assert!(reason.contains("\"Error\""), "{reason}");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_are_found_without_any_path_in_the_pod() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut absolute = spec(&w, &pod, "");
    absolute.command = vec!["/bin/env".into()];
    let (_, output) = run(&w, &pod, &absolute).await;
    assert!(output.lines().any(|l| l.starts_with("PATH=/")), "{output}");
    let mut named = absolute.clone();
    named.attempt = 1;
    named.command = vec!["env".into()];
    assert_eq!(code(&run(&w, &pod, &named).await.0), 0);
    pod.end(&w).await;
}

/// The reason is told by the process inside, whose words are lost with libcontainer's own errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_cannot_be_made_says_why_and_leaves_nothing() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let file = directory().join("a-file");
    fs::write(&file, "x").expect("write");
    let mut over = with_mount(spec(&w, &pod, "true"), &file, |m| m.destination = "/etc".into());
    over.name = "over".into();
    let mut user = spec(&w, &pod, "true");
    user.name = "user".into();
    user.security.run_as_username = "no-such-user".into();
    let mut cwd = spec(&w, &pod, "true");
    cwd.name = "cwd".into();
    cwd.working_dir = "/bin/busybox".into();
    for (spec, wanted) in [(over, "/etc"), (user, "no-such-user"), (cwd, "/bin/busybox")] {
        let made = w.ours.create_container(&pod.id, &spec, &pod.spec).await;
        let error = match made {
            Ok(id) => w.ours.start_container(&id).await.expect_err("it cannot run").to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(wanted), "{}: {error}", spec.name);
    }
    assert!(pod.left(&w).await.1.is_empty(), "{:?}", pod.left(&w).await.1);
    assert_eq!(
        fs::read_dir(directory().join("state/containers"))
            .expect("read")
            .flatten()
            .filter(|e| {
                fs::read_to_string(e.path().join("shim.json")).is_ok_and(|t| t.contains(&pod.spec.pod.name))
            })
            .count(),
        0
    );
    pod.end(&w).await;
}

/// A directory of the node that is open in whoever makes the container must not become its working directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_of_the_runtime_cannot_become_the_working_directory() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    for n in 3..16 {
        let mut spec = spec(&w, &pod, "ls -a; ls ../../../../..; pwd; sleep 1000");
        spec.attempt = n;
        spec.log_path = format!("c/{n}.log").into();
        spec.working_dir = format!("/proc/self/fd/{n}");
        let Ok(id) = w.ours.create_container(&pod.id, &spec, &pod.spec).await else { continue };
        if w.ours.start_container(&id).await.is_err() {
            continue;
        }
        let seen = sh(&w, &id, "readlink /proc/1/cwd; pwd; ls; ls ../../../../../..").await;
        assert!(!seen.contains("shim.json") && !seen.contains("containers"), "descriptor {n}: {seen}");
        w.ours.stop_container(&id, std::time::Duration::ZERO).await.expect("stop");
    }
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_the_pods_and_not_the_nodes() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let id = start(&w, &pod, &spec(&w, &pod, "echo ready; sleep 1000")).await;
    let seen = sh(&w, &id, "for n in mnt pid ipc net; do readlink /proc/self/ns/$n; done").await;
    let of = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).expect("read").display().to_string();
    let seen: Vec<&str> = seen.lines().collect();
    assert!(seen[0] != of("mnt") && seen[1] != of("pid") && seen[2] != of("ipc"), "{seen:?}");
    assert_eq!(seen[3], of("net"), "{:?}", NamespaceMode::Node);
    assert_eq!(sh(&w, &id, "cat /proc/1/comm").await, "sleep\n");
    pod.end(&w).await;
}
