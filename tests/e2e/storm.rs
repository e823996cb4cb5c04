//! Agents killed at random moments while pods start: each pod runs exactly once, nothing leaks, no count is lost.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use podstead::testing::Node;
use podstead_runtime::{Container, ContainerState, Runtime, labels};

use crate::support::{BINARY, Host, busybox, on_both};

const PODS: usize = 20;
const KILLS: u64 = 10;

on_both!(killed_agents_leave_every_pod_running_once, a_killed_agent_restarts_nothing_and_loses_no_count);

/// An agent; killed with SIGKILL when it is dropped, also by a failing test: it would go on making pods.
pub struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the binary's agent on the node, with these flags besides the node's own.
pub fn agent(node: &Node, flags: &[&str]) -> Agent {
    let mut command = Command::new(BINARY);
    command.arg("run").args(node.run_flags()).args(node.runtime_flags()).args(flags);
    started(node, command)
}

/// An agent that this command is; what it logs goes to the node's `agent.log`.
pub fn started(node: &Node, mut command: Command) -> Agent {
    let log =
        std::fs::File::options().create(true).append(true).open(node.dir().join("agent.log")).expect("a log");
    Agent(command.stdout(Stdio::null()).stderr(log).spawn().expect("start the agent"))
}

fn kill(mut agent: Agent) {
    agent.0.kill().expect("SIGKILL");
    agent.0.wait().expect("wait");
}

/// Random enough, and the same for the same seed.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32
}

async fn killed_agents_leave_every_pod_running_once(host: &Host) {
    let node = host.bare_node().await;
    let marks = node.dir().join("marks");
    std::fs::create_dir(&marks).expect("mkdir");
    let name = |n: usize| format!("storm-{n}");
    for n in 0..PODS {
        // Each instance leaves a mark: two of them would be two starts.
        let script = format!("mktemp /marks/{}.XXXXXX\nexec sleep 100000", name(n));
        let manifest = busybox(&name(n), &script)
            .replace(
                "  containers:",
                &format!(
                    "  volumes: [{{name: marks, hostPath: {{path: {}}}}}]\n  containers:",
                    marks.display()
                ),
            )
            .replace("    command:", "    volumeMounts: [{name: marks, mountPath: /marks}]\n    command:");
        node.apply(&name(n), &manifest).expect("put a manifest in place");
    }
    let mut seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    for _ in 0..KILLS {
        let victim = agent(&node, &[]);
        tokio::time::sleep(Duration::from_millis(20 + next(&mut seed) % 400)).await;
        kill(victim);
    }
    let last = agent(&node, &[]);
    for n in 0..PODS {
        node.pod(&name(n)).running().await.unwrap_or_else(|e| panic!("{e}\n{}", log(&node)));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshot = node.runtime().observe().await.expect("observe");
    assert_eq!(snapshot.sandboxes.len(), PODS, "{:#?}", snapshot.sandboxes);
    let (running, over): (Vec<&Container>, Vec<_>) = snapshot.containers.iter().partition(|c| c.is_running());
    assert_eq!(running.len(), PODS, "{running:#?}");
    // A CRI server kills what an agent was just starting when it was killed. That counts; nothing else may have ended.
    let counted = |c: &&Container| c.state.start_was_broken_off() && !c.state.never_ran();
    assert!(over.iter().all(counted), "{over:#?}\n{}", log(&node));
    for n in 0..PODS {
        let pod = format!("{}-node", name(n));
        let of_pod = |c: &&&Container| c.labels.get(labels::POD_NAME) == Some(&pod);
        let [one] = running.iter().filter(of_pod).collect::<Vec<_>>()[..] else { panic!("{pod} runs once") };
        let counted = usize::try_from(one.attempt).expect("small");
        let broken_off = over.iter().filter(of_pod).count();
        assert!(broken_off <= counted && (counted == 0) == (broken_off == 0), "{one:#?} {over:#?}");
        let marks = std::fs::read_dir(&marks).expect("marks").flatten();
        let own = format!("{}.", name(n));
        let starts = marks.filter(|mark| mark.file_name().to_string_lossy().starts_with(&own)).count();
        assert!(
            (1..=counted + 1).contains(&starts),
            "{pod}: {starts} starts, {counted} counted before this one"
        );
    }
    for n in 0..PODS {
        node.remove(&name(n)).expect("remove a manifest");
    }
    node.empty().await.unwrap_or_else(|e| panic!("{e}\n{}", log(&node)));
    kill(last);
}

/// What the node's agents logged.
pub fn log(node: &Node) -> String {
    std::fs::read_to_string(node.dir().join("agent.log")).unwrap_or_default()
}

async fn a_killed_agent_restarts_nothing_and_loses_no_count(host: &Host) {
    let node = host.bare_node().await;
    let first = agent(&node, &[]);
    let pod = node.apply("steady", &busybox("steady", "exec sleep 100000")).expect("apply");
    pod.running().await.expect("runs");
    pod.kill("c").await.expect("a crash");
    let before = pod.running_again("c", 1).await.expect("runs again");
    kill(first);
    let second = agent(&node, &[]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = pod.container("c").await.expect("seen");
    assert_eq!((after.id, after.attempt, after.pid), (before.id, 1, before.pid));
    kill(second);
    pod.kill("c").await.expect("a crash while no agent runs");
    let third = agent(&node, &[]);
    // The second restart waits for the back-off that the killed agents began.
    let last = pod.running_again("c", 2).await.expect("runs a third time");
    let seen = pod.see().await.expect("see").expect("there").1;
    let ended = seen.iter().find_map(|c| match c.state {
        ContainerState::Exited { finished_at, .. } if c.attempt == 1 => Some(finished_at),
        _ => None,
    });
    let pause = last.created_at.since(ended.expect("attempt 1 is kept to be read"));
    assert!(pause >= Duration::from_millis(9_500), "back-off survives the agent: {pause:?}");
    kill(third);
}
