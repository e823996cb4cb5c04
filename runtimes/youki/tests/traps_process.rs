//! What libcontainer 0.7 leaves to its caller, on real containers: streams, terminals, exec, ends, who is who.

mod direct_world;

use std::fs;
use std::time::Duration;

use direct_world::pods::{
    cgroup_file, code, kill, processes, run, run_dir, running, said, sh, shim, spec, start, status, unified,
    until, words,
};
use direct_world::world;
use podstead_runtime::suite::{
    PATIENCE, Pod, sandbox_spec, see, until as until_state, until_exited, until_file,
};
use podstead_runtime::{ContainerState, ExecSpec, ExecStreams, NamespaceMode, Runtime as _, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A zombie of a failed start sits in the container's pid namespace, where the kernel waits for it at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_exec_leaves_no_zombie_and_the_container_can_be_stopped() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let id = start(&w, &pod, &spec(&w, &pod, "echo ready; sleep 1000")).await;
    let pid = see(&w, &id).await.expect("there").pid;
    let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).expect("its pid namespace");
    for command in [&["/no/such/program"][..], &["/etc/passwd"], &["/etc"], &[""]] {
        let failed = w.ours.exec_sync(&id, &words(command), Duration::from_secs(30)).await;
        let error = failed.expect_err("no such command").to_string();
        assert!(
            error.contains(&id.0[..13]) && (command[0].is_empty() || error.contains(command[0])),
            "{error}"
        );
    }
    sh(&w, &id, "true").await;
    let left = || -> Vec<u32> {
        let there = |p: &u32| fs::read_link(format!("/proc/{p}/ns/pid")).is_ok_and(|ns| ns == namespace);
        processes().into_iter().filter(there).collect()
    };
    until(|| left() == [pid]).await;
    let mine = std::process::id().to_string();
    let zombies = || {
        let is_ours = |p: &u32| status(*p, "PPid").as_deref() == Some(&mine);
        processes()
            .into_iter()
            .filter(is_ours)
            .any(|p| status(p, "State").is_some_and(|s| s.starts_with('Z')))
    };
    until(|| !zombies()).await;
    w.ours.stop_container(&id, Duration::ZERO).await.expect("stop");
    assert_eq!(code(&see(&w, &id).await.expect("there")), 137);
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execs_leave_no_files_behind() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let id = start(&w, &pod, &spec(&w, &pod, "echo ready; sleep 1000")).await;
    let files = || -> Vec<String> {
        let mut all = Vec::new();
        for dir in [run_dir(&id), run_dir(&id).join("oci").join(&id.0)] {
            let entries = fs::read_dir(dir).expect("read").flatten();
            all.extend(entries.filter_map(|e| e.file_name().into_string().ok()));
        }
        all.sort();
        all
    };
    let before = files();
    fs::write(run_dir(&id).join("exec-999999999.json"), "left by one that was killed").expect("write");
    for n in 0..5 {
        sh(&w, &id, "true").await;
        let failed = w.ours.exec_sync(&id, &words(&["/no/such"]), Duration::from_secs(30)).await;
        assert!(failed.is_err(), "{n}");
    }
    until(|| files() == before).await;
    pod.end(&w).await;
}

/// One that is not set would be the shim's or the agent's: a pipe that never ends, and a way out of the container.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_three_streams_and_no_other_descriptor() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut plain = spec(&w, &pod, "cat; echo ready; exec sleep 1000");
    let id = start(&w, &pod, &plain).await;
    let pid = see(&w, &id).await.expect("there").pid;
    let open = |pid: u32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
        let mut all: Vec<(String, String)> = entries
            .map(|e| {
                let target = fs::read_link(e.path()).map(|t| t.display().to_string()).unwrap_or_default();
                (e.file_name().into_string().expect("a number"), target)
            })
            .collect();
        all.sort();
        all
    };
    let first = open(pid);
    let numbers: Vec<&str> = first.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{first:?}");
    assert_eq!(first[0].1, "/dev/null");
    assert!(
        first[1].1.starts_with("pipe:") && first[2].1.starts_with("pipe:") && first[1].1 != first[2].1,
        "{first:?}"
    );
    // The shell has the directory itself open beside its three.
    let inside = sh(&w, &id, "ls /proc/self/fd").await;
    assert_eq!(inside, "0\n1\n2\n3\n", "also in exec");
    // When the container closes its output, the shim sees the end: nobody else holds it.
    let shim = shim(&id).expect("its shim");
    let ends = |pid: u32| open(pid).into_iter().filter(|(_, t)| *t == first[1].1).count();
    let holders: Vec<u32> = processes()
        .into_iter()
        .filter(|p| fs::read_dir(format!("/proc/{p}/fd")).is_ok() && ends(*p) > 0)
        .collect();
    let mut expected = vec![pid, shim];
    expected.sort_unstable();
    assert_eq!(holders, expected);
    plain.attempt = 1;
    plain.command[2] = "exec >&- 2>&-; sleep 0.2; exit 6".into();
    assert_eq!(code(&run(&w, &pod, &plain).await.0), 6, "a silent container goes on");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_with_a_terminal_is_logged_and_can_be_joined() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec =
        spec(&w, &pod, "test -t 0 && test -t 1 && test -t 2 && echo terminal $TERM; echo ready; sleep 1000");
    spec.tty = true;
    let id = start(&w, &pod, &spec).await;
    assert!(said(&pod, &spec).starts_with("terminal xterm"), "{}", said(&pod, &spec));
    assert_eq!(sh(&w, &id, "test -t 1 || echo plain").await, "plain\n", "an exec has what it asks for");
    w.ours.stop_container(&id, Duration::ZERO).await.expect("stop");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_with_a_terminal_is_resized_and_typed_at() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let id = start(&w, &pod, &spec(&w, &pod, "echo ready; sleep 1000")).await;
    let (input, mut typed) = tokio::io::duplex(4096);
    let (mut seen, output) = tokio::io::duplex(65536);
    let (sizes, resize) = tokio::sync::mpsc::channel(4);
    let streams = ExecStreams {
        stdin: Some(Box::new(input)),
        stdout: Some(Box::new(output)),
        stderr: None,
        resize: Some(resize),
    };
    let script =
        "test -t 0 && echo terminal; until [ \"$(stty size)\" = '33 121' ]; do sleep 0.05; done; echo sized;
        read word; echo got $word; exit 9";
    let spec = ExecSpec { command: words(&["/bin/sh", "-c", script]), tty: true };
    let talk = async {
        sizes.send(TerminalSize { width: 121, height: 33 }).await.expect("resize");
        let mut text = String::new();
        let mut buffer = [0; 1024];
        let mut spoken = false;
        while let Ok(count @ 1..) = seen.read(&mut buffer).await {
            text += &String::from_utf8_lossy(&buffer[..count]);
            if text.contains("sized") && !spoken {
                typed.write_all(b"word\n").await.expect("type");
                spoken = true;
            }
        }
        text
    };
    let both = async { tokio::join!(w.ours.exec(&id, &spec, streams), talk) };
    let (ended, text) = tokio::time::timeout(PATIENCE, both).await.expect("it ends");
    assert_eq!(ended.expect("exec"), 9);
    assert!(text.contains("terminal") && text.contains("got word"), "{text}");
    pod.end(&w).await;
}

/// Dropping the call is how a caller ends a command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_nobody_waits_for_is_killed() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let id = start(&w, &pod, &spec(&w, &pod, "echo ready; sleep 1000")).await;
    for tty in [false, true] {
        let mark = format!("sleep 4{}1{}", u8::from(tty), std::process::id());
        let mut command = words(&["sleep"]);
        command.push(mark["sleep ".len()..].to_owned());
        let spec = ExecSpec { command, tty };
        let exec = w.ours.exec(&id, &spec, ExecStreams::default());
        let begun = until(|| !running(&mark).is_empty());
        tokio::select! { ended = exec => panic!("it has no end: {ended:?}"), () = begun => {} }
        until(|| running(&mark).is_empty()).await;
    }
    pod.end(&w).await;
}

/// Else the kernel would choose the process that has to end the command, and not the command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_command_keeps_its_own_oom_score_and_session() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec = spec(&w, &pod, "echo ready; sleep 1000");
    spec.resources.oom_score_adj = 900;
    let id = start(&w, &pod, &spec).await;
    let mark = format!("8{}", std::process::id());
    let spec = ExecSpec { command: words(&["sleep", &mark]), tty: false };
    let mut exec = std::pin::pin!(w.ours.exec(&id, &spec, ExecStreams::default()));
    let begun = until(|| !running(&format!("sleep {mark}")).is_empty());
    tokio::select! { ended = &mut exec => panic!("it has no end: {ended:?}"), () = begun => {
        let command = running(&format!("sleep {mark}"))[0];
        let joiner = status(command, "PPid").expect("its parent");
        let score = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("read");
        assert_eq!(score(&command.to_string()).trim(), "900");
        until(|| score(&joiner) == score("self")).await;
        let sid = |pid: i32| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).expect("a session");
        let pid: i32 = joiner.parse().expect("a number");
        assert_eq!(sid(pid).as_raw(), pid);
    } }
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_tell_of_real_time_signals_too() {
    let w = world().await;
    let mut pod = sandbox_spec(&w);
    // The first process of a pid namespace gets no signal that it does not handle.
    pod.security.namespaces.pid = NamespaceMode::Node;
    let id = w.ours.run_sandbox(&pod).await.expect("run_sandbox");
    let pod = Pod { spec: pod, id };
    let mut spec = spec(&w, &pod, "echo ready; kill -40 $$");
    spec.security.namespaces.pid = NamespaceMode::Node;
    let (ended, _) = run(&w, &pod, &spec).await;
    assert_eq!(code(&ended), 168);
    spec.attempt = 1;
    spec.command[2] = "echo ready; sleep 1000".into();
    let id = pod.start_spec(&w, &spec).await;
    let killed = w.ours.exec_sync(&id, &words(&["sh", "-c", "kill -34 $$"]), PATIENCE).await.expect("exec");
    assert_eq!(killed.code, 162);
    pod.end(&w).await;
}

/// The two that the C library keeps for itself as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_signal_can_be_the_one_that_asks_to_stop() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec = spec(&w, &pod, "echo ready; sleep 1000");
    for (attempt, signal) in [(0, "32"), (1, "33"), (2, "64")] {
        (spec.stop_signal, spec.attempt) = (signal.into(), attempt);
        let id = pod.start_spec(&w, &spec).await;
        w.ours.stop_container(&id, Duration::from_millis(200)).await.expect("stop");
        assert_eq!(code(&until_exited(&w, &id).await), 137, "{signal}");
    }
    pod.end(&w).await;
}

/// A pid alone is nobody: the number may be another's by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_with_the_containers_pid_is_left_alone() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let id = start(&w, &pod, &spec(&w, &pod, "echo ready; sleep 1000")).await;
    let pid = see(&w, &id).await.expect("there").pid;
    kill(shim(&id).expect("its shim")).await;
    let state = run_dir(&id).join("state.json");
    let text = fs::read_to_string(&state).expect("its state");
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().expect("another process");
    kill(pid).await;
    fs::write(&state, text.replace(&format!("\"pid\":{pid}"), &format!("\"pid\":{}", other.id())))
        .expect("write");
    assert!(fs::read_to_string(&state).expect("read").contains(&other.id().to_string()));
    let seen = see(&w, &id).await.expect("there").state;
    assert!(matches!(seen, ContainerState::Exited { .. }), "{seen:?}");
    w.ours.stop_container(&id, Duration::ZERO).await.expect("stop");
    w.ours.remove_container(&id).await.expect("remove");
    assert!(other.try_wait().expect("look").is_none(), "it still runs");
    other.kill().expect("end it");
    other.wait().expect("reap it");
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_reads_what_is_left_after_the_end() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let spec =
        spec(&w, &pod, "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; printf end; exit 4");
    let (ended, output) = run(&w, &pod, &spec).await;
    assert_eq!(
        (code(&ended), output.lines().count(), output.ends_with("line 19999\nend\n")),
        (4, 20_001, true)
    );
    pod.end(&w).await;
}

/// Streams apart, long lines in parts, no newline at the end, times that never go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_streams_are_logged_whole_and_in_order_of_time() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let long = "head -c 40000 /dev/zero | tr '\\0'";
    let script = format!(
        "for i in 1 2 3; do {long} o; echo; {long} e >&2; echo >&2; sleep 0.01; done; printf out; printf err >&2"
    );
    let spec = spec(&w, &pod, &script);
    run(&w, &pod, &spec).await;
    let log = fs::read_to_string(pod.spec.log_directory.join(&spec.log_path)).expect("the log");
    let lines: Vec<Vec<&str>> = log.lines().map(|l| l.splitn(4, ' ').collect()).collect();
    for (stream, letter, last) in [("stdout", 'o', "out"), ("stderr", 'e', "err")] {
        let own: Vec<(&str, &str)> = lines.iter().filter(|l| l[1] == stream).map(|l| (l[2], l[3])).collect();
        let shape: String = own.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(shape, "PPFPPFPPFF", "{stream}");
        for (tag, text) in &own[..9] {
            assert!(text.chars().all(|c| c == letter), "{stream}: another stream's text");
            assert_eq!(text.len(), if *tag == "P" { 16 << 10 } else { 40_000 - (32 << 10) });
        }
        assert_eq!(own[9], ("F", last));
        let times: Vec<&str> = lines.iter().filter(|l| l[1] == stream).map(|l| l[0]).collect();
        assert!(
            times.is_sorted() && times.iter().all(|t| t.len() == "1970-01-01T00:00:01.500000000Z".len()),
            "{times:?}"
        );
    }
    pod.end(&w).await;
}

/// Grace, signal of the pod's own, and a code that says which signal it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pods_own_stop_signal_is_sent() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mut spec =
        spec(&w, &pod, "trap 'exit 21' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done");
    spec.stop_signal = "SIGUSR1".into();
    let id = start(&w, &pod, &spec).await;
    w.ours.stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    assert_eq!(code(&until_exited(&w, &id).await), 21);
    pod.end(&w).await;
}

/// Its children are in cgroups that it made itself, where a single removal would fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_in_cgroups_of_their_own_are_killed_and_nothing_is_left() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let script = "case $0 in v1) top=/sys/fs/cgroup/pids ;; *) top=/sys/fs/cgroup ;; esac
        mount -o remount,rw,bind $top 2>/dev/null; mkdir -p $top/own/deeper || exit 1
        (echo 0 > $top/own/deeper/cgroup.procs; setsid sleep 31415 & setsid sleep 31415 &) ; sleep 0.1; echo ready; sleep 1000";
    let mut spec = spec(&w, &pod, script);
    spec.command.push(if unified() { "v2" } else { "v1" }.into());
    spec.security.privileged = true;
    spec.security.namespaces.pid = NamespaceMode::Node;
    if unified() {
        // A privileged container sees the whole hierarchy: its own part is named in /proc.
        spec.command[2] =
            script.replace("top=/sys/fs/cgroup ;;", "top=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) ;;");
    }
    let id = start(&w, &pod, &spec).await;
    let below = format!("{}/{id}/own/deeper", pod.spec.cgroup_parent);
    let deeper =
        if unified() { format!("/sys/fs/cgroup{below}") } else { format!("/sys/fs/cgroup/pids{below}") };
    let members = fs::read_to_string(format!("{deeper}/cgroup.procs")).expect("its own cgroup");
    assert_eq!(members.lines().count(), 2, "{members}");
    w.ours.stop_container(&id, Duration::ZERO).await.expect("stop");
    for pid in members.lines() {
        let pid = pid.parse().expect("a pid");
        assert!(status(pid, "State").is_none_or(|s| s.starts_with('Z')), "{pid} lives");
    }
    assert!(
        !std::path::Path::new(&deeper).parent().expect("it has one").parent().expect("and another").exists()
    );
    pod.end(&w).await;
}

/// In the node's pid namespace nothing ends with the first process by itself, and killing one by one loses the race.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_that_outlive_a_first_process_in_the_nodes_pid_namespace_are_killed() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let mark = format!("2718{}", std::process::id());
    let script = format!("setsid sleep {mark} & setsid sleep {mark} & echo ready; sleep 0.2; exit 2");
    let mut spec = spec(&w, &pod, &script);
    spec.security.namespaces.pid = NamespaceMode::Node;
    let (ended, _) = run(&w, &pod, &spec).await;
    assert_eq!(code(&ended), 2);
    assert_eq!(running(&format!("sleep {mark}")), Vec::<u32>::new());
    spec.attempt = 1;
    spec.log_path = "c/1.log".into();
    spec.resources.pids_limit = Some(60);
    // Each generation makes the next and ends. The first process makes none: a shell that cannot fork gives up.
    spec.command[2] = format!(
        "f() {{ f {mark} & }}; (while :; do (f; f) & sleep 0.001; done) 2>/dev/null & echo ready; exec sleep 1000"
    );
    let id = start(&w, &pod, &spec).await;
    let pids = cgroup_file(&pod, &id, ("pids", "pids.current"), "pids.current");
    assert_ne!(pids, "0");
    w.ours.stop_container(&id, Duration::ZERO).await.expect("stop");
    assert_eq!(running(&mark), Vec::<u32>::new());
    pod.end(&w).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_waits_until_it_is_let_go_and_can_be_stopped_before() {
    let w = world().await;
    let pod = Pod::run(&w).await;
    let spec = spec(&w, &pod, "echo ran");
    let id = w.ours.create_container(&pod.id, &spec, &pod.spec).await.expect("create");
    until_state(&w, &id, |s| *s == ContainerState::Created).await;
    w.ours.stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    let seen = see(&w, &id).await.expect("there").state;
    assert!(seen.never_ran() && seen.exit_code() == Some(137), "{seen:?}");
    assert_eq!(said(&pod, &spec), "");
    until_file(&run_dir(&id).join("state.json"), |text| text.contains("\"started_at\":null")).await;
    pod.end(&w).await;
}
