//! What manifests would change, told beforehand: the built binary against nodes with running pods, on both backends.

use crate::cli::{command, ok, run, told};
use crate::support::{Host, on_both};

on_both!(
    a_plan_says_what_the_agent_then_does,
    a_plan_says_for_whom_there_is_no_room,
    a_plan_shows_what_cannot_be_read,
);

fn pod(name: &str, seconds: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n  terminationGracePeriodSeconds: 2\n  containers:\n  \
         - {{name: c, image: \"localhost/podstead/busybox:1\", command: [sleep, \"{seconds}\"]}}\n"
    )
}

/// Action and pod of each row.
fn rows(table: &str) -> Vec<(String, String)> {
    let words = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    };
    table.lines().skip(1).take_while(|line| !line.is_empty()).map(words).collect()
}

fn row(action: &str, pod: &str) -> (String, String) {
    (action.to_owned(), format!("default/{pod}-node"))
}

async fn a_plan_says_what_the_agent_then_does(host: &Host) {
    let node = host.node().await;
    let first = node.apply("one", &pod("one", 1000)).expect("apply");
    let before = first.running().await.expect("it runs")[0].pod_uid().0;
    node.apply("two", &pod("two", 1000)).expect("apply").running().await.expect("it runs");
    let dir = node.manifest("one").parent().expect("a directory").display().to_string();
    let plan = |more: &[&str]| ok(&node, &[&["plan", "--hostname-override", "node"], more].concat());
    assert_eq!(rows(&plan(&[&dir])), [row("keep", "one"), row("keep", "two")]);

    // Beside the directory, before anybody copies it there.
    let scratch = tempfile::tempdir().expect("a directory");
    let file = node.manifest("one").file_name().expect("a name").to_owned();
    let edited = scratch.path().join(&file);
    std::fs::write(&edited, pod("one", 2000)).expect("write");
    let new = scratch.path().join("three.yaml");
    std::fs::write(&new, pod("three", 1)).expect("write");
    let (edited, new) = (edited.display().to_string(), new.display().to_string());
    let shown = plan(&["--into", &dir, "--diff", &edited, &new]);
    assert_eq!(rows(&shown), [row("replace", "one"), row("start", "three"), row("keep", "two")]);
    assert!(shown.contains("-    - '1000'\n+    - '2000'\n"), "{shown}");
    let json = plan(&["--into", &dir, "-o", "json", &edited]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let told =
        json.as_array().expect("a list").iter().find(|o| o["verdict"] == "replace").expect("it").clone();
    assert_eq!(told["instead_of"], before.as_str());

    // What was told comes true: the pod that comes has the uid that was named.
    let handle = node.apply("one", &pod("one", 2000)).expect("apply");
    let wanted = told["uid"].as_str().expect("a uid").to_owned();
    handle
        .until("the pod that was told of", |_, all| {
            all.iter().any(|c| c.is_running() && c.pod_uid().0 == wanted).then_some(())
        })
        .await
        .expect("it runs");
    std::fs::remove_file(node.manifest("two")).expect("remove");
    let shown = plan(&[&dir]);
    assert!(rows(&shown).contains(&row("stop", "two")) || !shown.contains("two"), "{shown}");
}

async fn a_plan_says_for_whom_there_is_no_room(host: &Host) {
    let node = host.started(host.builder().config(|config| config.reserved.max_pods = 1)).await;
    node.apply("one", &pod("one", 1000)).expect("apply").running().await.expect("it runs");
    let dir = node.manifest("one").parent().expect("a directory").display().to_string();
    let scratch = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.display().to_string()
    };
    let two = file("two.yaml", &pod("two", 1));
    let elsewhere = pod("far", 1).replace("  hostNetwork", "  nodeSelector: {disk: ssd}\n  hostNetwork");
    let far = file("far.yaml", &elsewhere);
    let shown = ok(&node, &["plan", "--into", &dir, &two, &far]);
    assert_eq!(rows(&shown), [row("wait", "far"), row("keep", "one"), row("wait", "two")]);
    assert!(shown.contains("capacity: 1") && shown.contains("node affinity/selector"), "{shown}");
}

async fn a_plan_shows_what_cannot_be_read(host: &Host) {
    let node = host.node().await;
    node.apply("one", &pod("one", 1000)).expect("apply").running().await.expect("it runs");
    std::fs::write(
        node.manifest("one"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\nspec: {containerz: []}\n",
    )
    .expect("write");
    let dir = node.manifest("one").parent().expect("a directory").display().to_string();
    let (code, out, err) = run(&node, &["plan", "--hostname-override", "node", &dir]);
    assert_eq!(code, 4, "{out}{err}");
    assert!(out.contains("spec.containerz: unknown field"), "{out}");
    assert!(out.contains("keep") && out.contains("not every manifest can be read"), "{out}");
    let (code, _, err) = told(command(&node, &["plan", "/no/such"]).output().expect("run"));
    assert!(code == 1 && err.contains("read /no/such"), "{code} {err}");
}
