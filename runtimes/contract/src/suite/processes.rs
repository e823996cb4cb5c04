//! Promises about what runs inside: logs, exec, environment, mounts, resources, confinement.

use super::*;
use crate::{Error, ExecSpec, ExecStreams, Mount};

async fn ready<W: World>(pod: &Pod, w: &W) -> ContainerId {
    let id = pod.start(w, "c", "echo ready; sleep 1000").await;
    until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("ready")).await;
    id
}

/// `<time> <stream> F <text>`, as `kubelet-static-pods.md 2.9` has it; the file outlives the container.
pub async fn output_is_logged_line_by_line<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "echo out; echo err >&2; printf 'no newline'").await;
    until_exited(w, &id).await;
    let path = pod.spec.log_directory.join("c/0.log");
    let log = until_file(&path, |log| log.contains("no newline")).await;
    let lines: Vec<Vec<&str>> = log.lines().map(|l| l.splitn(4, ' ').collect()).collect();
    assert_eq!(lines.len(), 3, "{log}");
    for line in &lines {
        assert!(line[0].contains('T') && line[0].contains('.'), "a time with fractions: {line:?}");
    }
    assert!(lines.iter().any(|l| l[1..] == ["stdout", "F", "out"]), "{log}");
    assert!(lines.iter().any(|l| l[1..] == ["stderr", "F", "err"]), "{log}");
    assert!(lines.iter().any(|l| l[1] == "stdout" && l[3] == "no newline"), "{log}");
    w.runtime().remove_container(&id).await.expect("remove");
    assert!(path.exists(), "the log stays");
    pod.end(w).await;
}

/// Lines longer than 16 KiB come in parts.
pub async fn long_lines_are_split<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end";
    let id = pod.start(w, "c", script).await;
    until_exited(w, &id).await;
    let log = until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("end")).await;
    let parts: Vec<Vec<&str>> = log.lines().map(|l| l.splitn(4, ' ').collect()).collect();
    let flags: Vec<&str> = parts.iter().map(|p| p[2]).collect();
    assert!(flags.len() >= 4 && flags[0] == "P", "{flags:?}");
    let joined: usize = parts.iter().map(|p| p[3]).filter(|t| t.starts_with('x')).map(str::len).sum();
    assert_eq!(joined, 40_000, "nothing lost, nothing added");
    pod.end(w).await;
}

/// Rotation: rename, reopen, and later lines go to the new file.
pub async fn a_log_can_be_reopened<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "while :; do echo tick; sleep 0.1; done").await;
    let path = pod.spec.log_directory.join("c/0.log");
    until_file(&path, |log| log.contains("tick")).await;
    std::fs::rename(&path, path.with_extension("old")).expect("rename the log");
    w.runtime().reopen_log(&id).await.expect("reopen_log");
    until_file(&path, |log| log.contains("tick")).await;
    pod.end(w).await;
}

/// A short command's output and exit code.
pub async fn exec_returns_output_and_code<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = ready(&pod, w).await;
    let command = words(&["/bin/sh", "-c", "echo out; echo err >&2; exit 5"]);
    let output = w.runtime().exec_sync(&id, &command, Duration::from_secs(30)).await.expect("exec_sync");
    assert_eq!((output.code, &output.stdout[..], &output.stderr[..]), (5, &b"out\n"[..], &b"err\n"[..]));
    let bad = w.runtime().exec_sync(&id, &words(&["/no/such"]), Duration::from_secs(30)).await;
    assert!(bad.as_ref().map_or(true, |o| o.code != 0), "{bad:?}");
    pod.end(w).await;
}

/// A command that hangs is ended and reported as late.
pub async fn exec_ends_at_its_timeout<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = ready(&pod, w).await;
    let slow = w.runtime().exec_sync(&id, &words(&["sleep", "777"]), Duration::from_secs(1)).await;
    assert!(matches!(slow, Err(Error::Deadline { .. })), "{slow:?}");
    let ps =
        w.runtime().exec_sync(&id, &words(&["ps", "-o", "args"]), Duration::from_secs(30)).await.expect("ps");
    assert!(!String::from_utf8_lossy(&ps.stdout).contains("sleep 777"), "the late command is gone");
    pod.end(w).await;
}

/// Standard input reaches the command and its end ends it.
pub async fn exec_connects_stdin<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = ready(&pod, w).await;
    let (reader, mut writer) = tokio::io::simplex(4096);
    let (out_reader, out_writer) = tokio::io::simplex(4096);
    let streams = ExecStreams {
        stdin: Some(Box::new(reader)),
        stdout: Some(Box::new(out_writer)),
        stderr: None,
        resize: None,
    };
    let spec =
        ExecSpec { command: words(&["/bin/sh", "-c", "read line; echo got $line; exit 4"]), tty: false };
    let exec = w.runtime().exec(&id, &spec, streams);
    let talk = async {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
        writer.write_all(b"hello\n").await.expect("write");
        let mut line = String::new();
        BufReader::new(out_reader).read_line(&mut line).await.expect("read");
        line
    };
    let both = async { tokio::join!(exec, talk) };
    let (code, line) = tokio::time::timeout(PATIENCE, both).await.expect("exec ends");
    assert_eq!((code.expect("exec"), line.as_str()), (4, "got hello\n"));
    pod.end(w).await;
}

/// Exec needs something running.
pub async fn exec_in_a_stopped_container_is_an_error<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "sleep 1000").await;
    w.runtime().stop_container(&id, Duration::ZERO).await.expect("stop");
    let outcome = w.runtime().exec_sync(&id, &words(&["true"]), Duration::from_secs(5)).await;
    assert!(outcome.is_err(), "{outcome:?}");
    pod.end(w).await;
}

/// The spec reaches the process.
pub async fn command_args_env_and_directory_reach_the_process<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let mut spec = container_spec(w, &pod.spec, "c", "");
    spec.command = words(&["/bin/sh", "-c"]);
    spec.args = words(&["echo \"$GREETING from $(pwd) as $0 $1\"", "zero", "one"]);
    spec.env.push(crate::EnvVar { name: "GREETING".into(), value: "hello = world".into() });
    spec.working_dir = "/tmp".into();
    let id = pod.start_spec(w, &spec).await;
    until_exited(w, &id).await;
    let log = until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("from")).await;
    assert!(log.trim_end().ends_with("hello = world from /tmp as zero one"), "{log}");
    pod.end(w).await;
}

/// Without `stdin` a program reads its end at once, with it the program waits; a terminal is one on all streams.
pub async fn standard_input_and_terminal_are_there_only_when_asked_for<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let script = "for fd in 0 1 2; do test -t $fd && echo terminal $fd; done; cat; echo over";
    let with = |name: &str, stdin, tty| {
        let mut spec = container_spec(w, &pod.spec, name, script);
        (spec.stdin, spec.tty) = (stdin, tty);
        spec
    };
    let log = |name: &str| pod.spec.log_directory.join(name).join("0.log");
    let open = pod.start_spec(w, &with("open", true, false)).await;
    let terminal = pod.start_spec(w, &with("terminal", true, true)).await;
    let closed = pod.start_spec(w, &with("closed", false, false)).await;
    until_exited(w, &closed).await;
    let said = until_file(&log("closed"), |log| log.contains("over")).await;
    assert!(!said.contains("terminal"), "{said}");
    let said = until_file(&log("terminal"), |log| log.contains("terminal 2")).await;
    assert!(said.contains("terminal 0") && said.contains("terminal 1"), "{said}");
    for (id, name) in [(&open, "open"), (&terminal, "terminal")] {
        assert!(see(w, id).await.is_some_and(|c| c.is_running()), "{name} waits for input");
        let said = std::fs::read_to_string(log(name)).expect("a log");
        assert!(!said.contains("over"), "{name}: {said}");
    }
    pod.end(w).await;
}

/// A user who is not root may open the streams once more by their names, as servers do that log to `/dev/stderr`.
pub async fn a_user_may_open_the_streams_by_name<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; echo over";
    for (name, tty) in [("pipes", false), ("terminal", true)] {
        let mut spec = container_spec(w, &pod.spec, name, script);
        spec.tty = tty;
        spec.security.run_as_user = Some(1000);
        let id = pod.start_spec(w, &spec).await;
        until_exited(w, &id).await;
        let log = pod.spec.log_directory.join(name).join("0.log");
        let said = until_file(&log, |log| log.contains("over")).await;
        assert!(said.contains(" out") && said.contains(" err"), "{name}: {said}");
    }
    let mut spec = container_spec(w, &pod.spec, "c", "exec sleep 1000");
    spec.security.run_as_user = Some(1000);
    let id = pod.start_spec(w, &spec).await;
    let command = words(&["/bin/sh", "-c", script]);
    let said = w.runtime().exec_sync(&id, &command, Duration::from_secs(30)).await.expect("exec_sync");
    assert_eq!((&said.stdout[..], &said.stderr[..]), (&b"out\nover\n"[..], &b"err\n"[..]));
    pod.end(w).await;
}

/// Mounts are there, nested ones too whatever their order, and read-only ones refuse writes.
pub async fn mounts_arrive_and_read_only_holds<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let host = pod.spec.log_directory.with_extension("mounts");
    std::fs::create_dir_all(host.join("outer/inner")).expect("mkdir");
    std::fs::create_dir_all(host.join("nested")).expect("mkdir");
    std::fs::write(host.join("nested/file"), "deep").expect("write");
    let mount = |source: &str, destination: &str, read_only| Mount {
        source: host.join(source),
        destination: destination.into(),
        read_only,
        ..Mount::default()
    };
    let script =
        "cat /data/inner/file; echo; (echo x > /data/inner/w) 2>/dev/null || echo refused; echo y > /data/w";
    let mut spec = container_spec(w, &pod.spec, "c", script);
    spec.mounts = vec![mount("nested", "/data/inner", true), mount("outer", "/data", false)];
    spec.mounts.push(mount("made-by-the-runtime", "/made", false));
    let id = pod.start_spec(w, &spec).await;
    assert_eq!(
        until_exited(w, &id).await.state.clone().exit_code(),
        Some(0),
        "{:?}",
        std::fs::read_to_string(pod.spec.log_directory.join("c/0.log"))
    );
    let log = until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("refused")).await;
    assert!(log.contains("deep"), "{log}");
    assert_eq!(std::fs::read_to_string(host.join("outer/w")).expect("written through"), "y\n");
    assert!(host.join("made-by-the-runtime").is_dir());
    pod.end(w).await;
}

/// Resources change without a restart.
pub async fn resources_are_changed_in_place<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = ready(&pod, w).await;
    let resources = LinuxResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        memory_limit: 64 << 20,
        ..LinuxResources::default()
    };
    w.runtime().update_resources(&id, &resources).await.expect("update_resources");
    assert!(see(w, &id).await.is_some_and(|c| c.is_running()));
    pod.end(w).await;
}

/// Use of resources is told.
pub async fn stats_count_what_runs<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = ready(&pod, w).await;
    let stats = w.runtime().container_stats().await.expect("container_stats");
    let own = stats.iter().find(|s| s.id == id).expect("stats of the container");
    assert_eq!(own.name, "c");
    assert!(own.memory_working_set > 0 || own.memory_usage > 0, "{own:?}");
    pod.end(w).await;
}

/// Exec is confined as the container is: same capabilities, same seccomp mode.
pub async fn the_default_confinement_holds_also_in_exec<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let mut spec = container_spec(
        w,
        &pod.spec,
        "c",
        "grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status; sleep 1000",
    );
    spec.security.seccomp = crate::Profile::RuntimeDefault;
    let id = pod.start_spec(w, &spec).await;
    let log = until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("Seccomp")).await;
    let init: Vec<&str> = log.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).collect();
    let command = words(&["grep", "-E", "^(CapEff|CapBnd|Seccomp):", "/proc/self/status"]);
    let output = w.runtime().exec_sync(&id, &command, Duration::from_secs(30)).await.expect("exec_sync");
    let exec = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(exec.lines().collect::<Vec<_>>(), init);
    assert!(exec.contains("Seccomp:\t2"), "{exec}");
    pod.end(w).await;
}
