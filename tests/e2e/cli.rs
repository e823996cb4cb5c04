//! The command line for real: the built binary against a node's runtime, on both backends.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use podstead::testing::{Node, PodHandle};
use serde_json::Value;

use crate::support::{BINARY, Host, busybox, on_both};

on_both!(
    lists_show_what_there_is,
    logs_are_found_cut_and_followed,
    a_command_has_its_streams_and_its_exit_code,
    a_command_has_a_terminal_that_follows_ours,
    a_terminal_without_input_keeps_its_interrupt_key,
    a_stopped_container_comes_back_with_the_next_attempt,
    what_is_not_there_or_not_clear_is_said,
);

/// A command of the binary on this node, without input.
pub fn command(node: &Node, args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    // After the subcommand, before what belongs to the command of an exec.
    command.args(node.runtime_flags()).args(args).stdin(Stdio::null());
    command
}

/// Runs it and answers its exit code, standard output and standard error.
pub fn run(node: &Node, args: &[&str]) -> (i32, String, String) {
    told(command(node, args).output().expect("run podstead"))
}

pub fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// What it printed; it must succeed.
pub fn ok(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = run(node, args);
    assert_eq!(code, 0, "podstead {args:?}: {out}{err}");
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "escapes in a pipe: {out:?} {err:?}");
    out
}

/// What it complained of; it must end with this code, and begin with its name.
pub fn fails(node: &Node, code: i32, args: &[&str]) -> String {
    let (got, out, err) = run(node, args);
    assert_eq!(got, code, "podstead {args:?}: {out}{err}");
    assert!(err.starts_with("podstead: ") && !err.contains('\x1b'), "podstead {args:?}: {err}");
    err
}

fn both(node: &Node, args: &[&str]) -> Value {
    let json: Value = serde_json::from_str(&ok(node, &[args, &["-o", "json"]].concat())).expect("JSON");
    let yaml: Value = serde_yaml::from_str(&ok(node, &[args, &["-o", "yaml"]].concat())).expect("YAML");
    assert_eq!(json, yaml, "{args:?}");
    json
}

/// One container that runs on and one that is over.
const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  hostNetwork: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  containers:
  - {name: up, image: "localhost/podstead/busybox:1", command: [sleep, "100000"]}
  - {name: over, image: "localhost/podstead/busybox:1", command: [sh, -c, "echo bye; exit 3"]}
"#;

fn rows(table: &str) -> Vec<Vec<String>> {
    let cells =
        |line: &str| line.split("  ").map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect();
    table.lines().map(cells).collect()
}

async fn lists_show_what_there_is(host: &Host) {
    let node = host.node().await;
    let pod = node.apply("two", TWO).expect("apply");
    pod.exited("over").await.expect("one is over");
    let up =
        pod.until("the other runs", |_, all| all.iter().find(|c| c.name == "up" && c.is_running()).cloned());
    let up = up.await.expect("runs");
    let head = ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"];

    let running = rows(&ok(&node, &["ps"]));
    assert_eq!((running.len(), &running[0][..]), (2, &head.map(str::to_owned)[..]));
    let row = &running[1];
    let sandbox = &up.sandbox.as_str()[..13];
    assert_eq!(
        (&*row[0], &*row[3], &*row[4], &*row[5], &*row[6], &*row[7]),
        (&up.id.as_str()[..13], "Running", "up", "0", sandbox, "two-node")
    );
    assert!(row[1].starts_with("localhost/podstead/busybox") && row[2].ends_with("ago"), "{row:?}");

    let all = rows(&ok(&node, &["ps", "-a"]));
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all.iter().any(|r| r[3] == "Exited" && r[4] == "over"), "{all:?}");
    let listed = both(&node, &["ps", "-a"]);
    assert_eq!(listed["containers"].as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!(both(&node, &["ps"])["containers"][0]["id"], up.id.as_str());

    let pods = loop {
        // The agent publishes a few times a second.
        let pods = rows(&ok(&node, &["pods"]));
        if pods.get(1).is_some_and(|p| p[2] == "1/2" && p[3] != "ContainerCreating") {
            break pods;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(pods[0], ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]);
    assert_eq!(
        (&*pods[1][0], &*pods[1][1], &*pods[1][3], &*pods[1][4]),
        ("default", "two-node", "Error", "0")
    );
    let listed = both(&node, &["pods"]);
    assert_eq!(
        (&listed["kind"], &listed["items"][0]["metadata"]["name"]),
        (&"PodList".into(), &"two-node".into())
    );

    let id = &up.id.as_str()[..13];
    let seen = both(&node, &["inspect", id]);
    assert_eq!(
        (&seen["container"]["id"], &seen["sandbox"]["id"]),
        (&up.id.as_str().into(), &up.sandbox.as_str().into())
    );
    for what in ["two-node", "default/two-node", sandbox] {
        let seen = both(&node, &["inspect", what]);
        assert_eq!(seen["sandbox"]["id"], up.sandbox.as_str());
        assert_eq!(seen["containers"].as_array().map(Vec::len), Some(2), "{what}: {seen}");
    }
    assert_eq!(both(&node, &["inspect", "-c", "over", "two-node"])["container"]["name"], "over");

    let version = ok(&node, &["version"]);
    assert!(version.starts_with("podstead 0.") && version.lines().count() == 2, "{version}");
    assert!(both(&node, &["version"])["runtime"]["name"].is_string());
}

async fn logs_are_found_cut_and_followed(host: &Host) {
    let node = host.node().await;
    // Two pipes have no order between them but time.
    let script = "echo wrong >&2; sleep 1; seq 1 100; head -c 40000 /dev/zero | tr '\\0' x; echo; echo last\n\
                  until [ -e /tmp/go ]; do sleep 0.05; done; seq 101 103; exit 3";
    let pod = node.apply("talk", &busybox("talk", script)).expect("apply");
    pod.logged("c", |log| log.contains("last")).await.expect("it talks");
    let id = pod.container("c").await.expect("seen").id;
    let prefix = &id.as_str()[..12];

    let (code, out, err) = run(&node, &["logs", prefix]);
    assert_eq!((code, &*err), (0, "wrong\n"), "standard error apart");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        (lines.len(), lines[0], lines[99], lines[100].len(), lines[101]),
        (102, "1", "100", 40_000, "last")
    );
    for what in ["talk-node", "default/talk-node", "c", id.as_str()] {
        assert_eq!(ok(&node, &["logs", "--tail", "1", what]), "last\n", "{what}");
    }
    assert_eq!(ok(&node, &["logs", "--tail", "2", "talk-node"]).lines().next().map(str::len), Some(40_000));
    assert_eq!(ok(&node, &["logs", "--tail", "0", "talk-node"]), "");
    let stamped = ok(&node, &["logs", "-t", "--tail", "1", "talk-node"]);
    let (time, text) = stamped.trim_end().split_once(' ').expect("a time");
    assert!(time.parse::<jiff::Timestamp>().is_ok() && text == "last", "{stamped}");
    assert!(fails(&node, 3, &["logs", "-p", "talk-node"]).contains("no earlier instance"));

    let mut follower = command(&node, &["logs", "-f", "--tail", "1", "talk-node"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("follow");
    // It has read the log to its end once it has printed the last line.
    let mut first = [0; 5];
    follower.stdout.as_mut().expect("piped").read_exact(&mut first).expect("it follows");
    assert_eq!(&first, b"last\n");
    pod.exec("c", &["touch", "/tmp/go"]).await.expect("let it end");
    let (code, out, _) = told(in_time(follower).await);
    assert_eq!((code, &*out), (0, "101\n102\n103\n"), "it ends with its container");

    let second = pod.running_again("c", 1).await.expect("runs again");
    pod.logged("c", |log| log.contains("last")).await.expect("it talks");
    assert!(ok(&node, &["logs", "-p", "talk-node"]).ends_with("103\n"), "the instance before");
    assert!(ok(&node, &["logs", "-p", second.id.as_str()]).ends_with("103\n"), "the one before this id's");
    assert!(ok(&node, &["logs", "talk-node"]).ends_with("last\n"), "the newest instance");
    // A reader that goes away is no error.
    let sh = format!("{BINARY} {} logs -f talk-node | head -n 1", node.runtime_flags().join(" "));
    let piped =
        Command::new("bash").args(["-c", &format!("set -o pipefail; {sh}")]).stdout(Stdio::piped()).spawn();
    let piped = piped.expect("a shell");
    pod.exec("c", &["touch", "/tmp/go"]).await.expect("let it say more");
    assert_eq!(told(in_time(piped).await), (0, "1\n".to_owned(), String::new()));
}

/// Waits for a child on a thread of its own; a minute at most.
pub async fn in_time(child: Child) -> Output {
    let pid = child.id();
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().expect("wait"));
    let Ok(output) = tokio::time::timeout(Duration::from_secs(60), waiting).await else {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        panic!("podstead hangs");
    };
    output.expect("joined")
}

async fn sleeper<'n>(node: &'n Node, name: &str) -> PodHandle<'n> {
    let pod = node.apply(name, &busybox(name, "exec sleep 100000")).expect("apply");
    pod.running().await.expect("runs");
    pod
}

async fn a_command_has_its_streams_and_its_exit_code(host: &Host) {
    let node = host.node().await;
    let pod = sleeper(&node, "work").await;
    let script = "echo to stdout; echo to stderr >&2; exit 42";
    let ran = run(&node, &["exec", "work-node", "sh", "-c", script]);
    assert_eq!(ran, (42, "to stdout\n".to_owned(), "to stderr\n".to_owned()));
    let id = pod.container("c").await.expect("seen").id;
    // Flags after the container are the command's.
    assert_eq!(ok(&node, &["exec", "-c", "c", "work-node", "echo", "-n", "-c", "x"]), "-c x");
    assert_eq!(ok(&node, &["exec", &id.as_str()[..12], "--", "echo", "dashes"]), "dashes\n");
    // Everything arrives, however much it is.
    let (code, out, _) = run(&node, &["exec", "c", "seq", "200000"]);
    assert_eq!((code, out.lines().count(), out.lines().last()), (0, 200_000, Some("200000")));

    let mut piped = command(&node, &["exec", "-i", "work-node", "sh", "-c", "wc -c; exit 7"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start");
    piped.stdin.take().expect("piped").write_all(&vec![b'x'; 3_000_000]).expect("write");
    let (code, out, _) = told(in_time(piped).await);
    assert_eq!((code, out.trim()), (7, "3000000"), "standard input has its end, too");
    // Without -i a command has no input, whatever we have.
    let mut without = command(&node, &["exec", "work-node", "cat"]);
    let without = without.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start");
    assert_eq!(told(in_time(without).await).0, 0);

    let missing = run(&node, &["exec", "work-node", "/no/such/program"]);
    assert!(missing.0 != 0 && missing.2.contains("/no/such/program"), "{missing:?}");
    node.apply("two", TWO).expect("apply").exited("over").await.expect("over");
    let over = fails(&node, 1, &["exec", "-c", "over", "two-node", "true"]);
    assert!(over.contains("not run"), "{over}");
}

async fn a_command_has_a_terminal_that_follows_ours(host: &Host) {
    use std::os::fd::OwnedFd;
    let node = host.node().await;
    sleeper(&node, "term").await;
    let size = |ws_row, ws_col| nix::pty::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size(33, 101)), None).expect("a pty");
    let end = || Stdio::from(pty.slave.try_clone().expect("dup"));
    // A session of its own with our pty as its terminal, so that it is told of changes.
    let mut child = Command::new("setsid");
    child.args(["--ctty", "--wait", BINARY]).args(node.runtime_flags()).args([
        "exec",
        "-it",
        "term-node",
        "sh",
    ]);
    let mut child = child.stdin(end()).stdout(end()).stderr(end()).spawn().expect("start");
    drop(pty.slave);
    let mut terminal = Terminal { master: pty.master, seen: String::new() };
    // The shell's own echo would show the words asked for, so that they are put together by the shell.
    terminal.say("echo si''ze: $(stty size) $TERM; tty\n");
    terminal.until("size: 33 101 xterm").await;
    terminal.until("/dev/pts/").await;
    rustix::termios::tcsetwinsize(
        &terminal.master,
        rustix::termios::Winsize { ws_row: 50, ws_col: 140, ws_xpixel: 0, ws_ypixel: 0 },
    )
    .expect("resize");
    terminal.say("while [ \"$(stty size)\" != '50 140' ]; do sleep 0.05; done; echo now''larger\n");
    terminal.until("nowlarger").await;
    // The interrupt key is the command's, not ours.
    terminal.say("sleep 1000\n");
    tokio::time::sleep(Duration::from_millis(300)).await;
    terminal.say("\x03");
    terminal.say("echo al''ive; exit 9\n");
    terminal.until("alive").await;
    let status = tokio::task::spawn_blocking(move || child.wait().expect("wait")).await.expect("joined");
    assert_eq!(status.code(), Some(9), "{}", terminal.seen);

    struct Terminal {
        master: OwnedFd,
        seen: String,
    }
    impl Terminal {
        fn say(&self, text: &str) {
            rustix::io::write(&self.master, text.as_bytes()).expect("type");
        }

        async fn until(&mut self, wanted: &str) {
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            rustix::io::ioctl_fionbio(&self.master, true).expect("non-blocking");
            while !self.seen.contains(wanted) {
                assert!(std::time::Instant::now() < deadline, "{wanted:?} in {:?}", self.seen);
                let mut bytes = [0; 4096];
                match rustix::io::read(&self.master, &mut bytes) {
                    Ok(n @ 1..) => self.seen.push_str(&String::from_utf8_lossy(&bytes[..n])),
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        }
    }
}

/// Who only looks makes nothing, also where nothing was ever kept; who may not look is told where.
#[test]
fn commands_that_only_look_leave_no_directories_behind() {
    use std::os::unix::process::CommandExt as _;
    let dir = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a directory");
    let (root, state) = (dir.path().join("root"), dir.path().join("state"));
    let none = dir.path().join("manifests");
    std::fs::create_dir(&none).expect("make a directory");
    let none = none.display().to_string();
    let flags = |command: &mut Command| {
        command.args(["--runtime", "direct"]).stdin(Stdio::null());
        command.arg("--root-dir").arg(&root).arg("--state-dir").arg(&state);
    };
    for (args, code) in [
        (&["ps", "-a"][..], 0),
        (&["pods"], 0),
        (&["images", "ls"], 0),
        (&["version"], 0),
        (&["plan", none.as_str()], 0),
        (&["logs", "nothing"], 3),
        (&["describe", "nothing"], 3),
        (&["inspect", "nothing"], 3),
        (&["stop", "nothing"], 3),
        (&["exec", "nothing", "true"], 3),
        (&["images", "rm", "nothing"], 3),
    ] {
        let mut command = Command::new(BINARY);
        flags(&mut command);
        let (got, out, err) = told(command.args(args).output().expect("run podstead"));
        assert_eq!(got, code, "{args:?}: {out}{err}");
        assert!(!root.exists() && !state.exists(), "{args:?}");
    }
    let mut command = Command::new("/proc/self/fd/0");
    flags(&mut command);
    // As somebody else, who need not be able to reach the binary by its path.
    let command = command
        .args(["images", "import", "x.tar"])
        .uid(65_534)
        .stdin(std::fs::File::open(BINARY).expect("open"));
    let (got, _, err) = told(command.output().expect("run podstead"));
    let named = root.join("direct/images").display().to_string();
    assert!(got == 1 && err.contains(&named) && err.contains("ermission denied"), "{err}");
}

/// A CRI server is told the size when the command runs already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_command_begins_with_the_size_of_its_terminal() {
    let node = Host::direct().node().await;
    sleeper(&node, "sized").await;
    let size = nix::pty::Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    for _ in 0..5 {
        let pty = nix::pty::openpty(Some(&size), None).expect("a pty");
        let mut run = command(&node, &["exec", "-t", "sized-node", "stty", "size"]);
        let mut child = run.stdout(pty.slave).stderr(Stdio::null()).spawn().expect("start");
        drop(run);
        let mut said = String::new();
        // Ends with an error once nobody has the other end.
        let _ = std::fs::File::from(pty.master).read_to_string(&mut said);
        assert_eq!(said.trim(), "33 101");
        assert!(child.wait().expect("wait").success());
    }
}

async fn a_terminal_without_input_keeps_its_interrupt_key(host: &Host) {
    use rustix::termios::{LocalModes, tcgetattr};
    let node = host.node().await;
    sleeper(&node, "look").await;
    let pty = nix::pty::openpty(None, None).expect("a pty");
    let end = || Stdio::from(pty.slave.try_clone().expect("dup"));
    // What the command prints proves nothing here: some CRI servers lose the output of a terminal without input.
    let mark = format!("8{}{}", u8::from(host.endpoint().is_some()), std::process::id());
    let mut run = command(&node, &["exec", "-t", "look-node", "sleep", &mark]);
    let mut child = run.stdin(end()).stdout(end()).stderr(end()).spawn().expect("start");
    until_running(&mark, true).await;
    let modes = tcgetattr(&pty.slave).expect("the terminal's modes").local_modes;
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert!(modes.contains(LocalModes::ISIG | LocalModes::ICANON), "{modes:?}");
}

/// What Ctrl-C at a terminal does: the whole foreground process group gets the signal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_exec_ends_its_command() {
    use std::os::unix::process::CommandExt as _;
    let node = Host::direct().node().await;
    sleeper(&node, "cut").await;
    let mark = format!("6{}", std::process::id());
    let mut child =
        command(&node, &["exec", "cut-node", "sleep", &mark]).process_group(0).spawn().expect("start");
    until_running(&mark, true).await;
    let group = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a pid");
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).expect("interrupt");
    child.wait().expect("wait");
    until_running(&mark, false).await;
}

/// Waits until a `sleep` of so many seconds runs on the node, or does not any more.
async fn until_running(seconds: &str, wanted: bool) {
    let line = format!("sleep\0{seconds}\0");
    let runs = || {
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        entries
            .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
            .any(|found| found == line.as_bytes())
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while runs() != wanted {
        assert!(
            std::time::Instant::now() < deadline,
            "the command {}",
            if wanted { "never runs" } else { "runs on" }
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// As `podstead exec ... | head -n1`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_output_nobody_reads_any_more_ends() {
    use std::io::{BufRead as _, BufReader};
    let node = Host::direct().node().await;
    sleeper(&node, "head").await;
    for flags in [&["exec", "head-node", "yes"][..], &["exec", "-t", "head-node", "yes"]] {
        let mut child = command(&node, flags).stdout(Stdio::piped()).spawn().expect("start");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "y");
        in_time(child).await;
    }
}

async fn a_stopped_container_comes_back_with_the_next_attempt(host: &Host) {
    let node = host.node().await;
    let pod = sleeper(&node, "stop").await;
    let first = pod.container("c").await.expect("seen");
    assert_eq!(ok(&node, &["stop", "-t", "1", "stop-node"]).trim(), first.id.as_str());
    let again = pod.running_again("c", 1).await.expect("runs again");
    let row = rows(&ok(&node, &["ps"])).remove(1);
    assert_eq!(
        (&*row[0], &*row[5], &*row[6]),
        (&again.id.as_str()[..13], "1", &first.sandbox.as_str()[..13])
    );
    // Of what is over already there is nothing to stop; that is no error.
    ok(&node, &["stop", first.id.as_str()]);
}

async fn what_is_not_there_or_not_clear_is_said(host: &Host) {
    let node = host.node().await;
    let pod = sleeper(&node, "one").await;
    for args in [
        &["logs", "nothing"][..],
        &["exec", "nothing", "true"],
        &["inspect", "nothing"],
        &["stop", "nothing"],
    ] {
        let said = fails(&node, 3, args);
        assert!(said.contains("\"nothing\"") && said.contains("podstead ps -a"), "{args:?}: {said}");
    }
    assert!(fails(&node, 3, &["logs", "-c", "x", "one-node"]).contains("has no container \"x\"; it has c"));
    assert!(fails(&node, 3, &["images", "rm", "localhost/none:1"]).contains("no image \"localhost/none:1\""));
    let two = node.apply("two", TWO).expect("apply");
    two.exited("over").await.expect("over");
    two.running_again("up", 0).await.expect("up");
    assert!(fails(&node, 3, &["logs", "two-node"]).contains("over, up"));
    // One of sixteen digits begins two of enough ids.
    for n in 0..15 {
        let name = format!("more{n}");
        let pod = node.apply(
            &name,
            &busybox(&name, "exit 0").replace("  hostNetwork", "  restartPolicy: Never\n  hostNetwork"),
        );
        pod.expect("apply").exited("c").await.expect("over");
    }
    assert!(fails(&node, 3, &["logs", "c"]).contains("pods have a container \"c\""));
    let ids: Vec<String> = both(&node, &["ps", "-a"])["containers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| c["id"].to_string())
        .collect();
    let digit =
        "0123456789abdef".chars().find(|d| ids.iter().filter(|id| id[1..].starts_with(*d)).count() > 1);
    let digit = digit.expect("two ids with one beginning").to_string();
    assert!(fails(&node, 3, &["stop", &digit]).contains("give more of it"));
    assert_eq!(pod.container("c").await.expect("seen").attempt, 0, "nothing was stopped");
}
