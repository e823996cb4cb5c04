//! The classic walk: static-web appears with its file, is restarted when stopped, goes with its file, comes back.

use std::time::Duration;

use podstead::testing::Node;
use podstead_runtime::Time;

use crate::support::{Host, get, on_both, podstead};

const WEB: &str = include_str!("../../fixtures/manifests/static-web.yaml");

on_both!(the_classic_walk);

async fn the_classic_walk(host: &Host) {
    let node = host.node().await;
    let begun = Time::now();
    let pod = node.apply("static-web", WEB).expect("put the manifest in place");
    let [web] = &pod.running().await.expect("static-web runs")[..] else { panic!("one container") };
    let took = Time::now().since(begun);
    // Well below the rescan's 20 s: it was the notification that did it.
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    let ip = pod.ip().await.expect("an address");
    let page = eventually(|| get(ip, 80)).await;
    assert!(page.contains("Welcome to nginx"), "{page}");
    let sandbox = web.sandbox.clone();

    shown_by_ps(&node, web.id.as_str(), "0", sandbox.as_str());
    podstead(&node, &["stop", web.id.as_str()]);
    let again = pod.running_again("web", 1).await.expect("static-web runs again");
    assert_eq!(again.sandbox, sandbox, "in the same sandbox");
    shown_by_ps(&node, again.id.as_str(), "1", sandbox.as_str());
    let page = eventually(|| get(ip, 80)).await;
    assert!(page.contains("Welcome to nginx"), "{page}");

    let aside = node.dir().join("static-web.yaml");
    std::fs::rename(node.manifest("static-web"), &aside).expect("move the manifest away");
    pod.gone().await.expect("static-web is gone");
    node.empty().await.expect("nothing is left");

    let begun = Time::now();
    std::fs::rename(&aside, node.manifest("static-web")).expect("move the manifest back");
    pod.running().await.expect("static-web runs once more");
    let took = Time::now().since(begun);
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    let ip = pod.ip().await.expect("an address");
    assert!(eventually(|| get(ip, 80)).await.contains("Welcome to nginx"));
}

fn shown_by_ps(node: &Node, id: &str, attempt: &str, sandbox: &str) {
    let table = podstead(node, &["ps"]);
    let head = table.lines().next().unwrap_or_default().split("  ").map(str::trim).filter(|h| !h.is_empty());
    let head: Vec<&str> = head.collect();
    assert_eq!(head, ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"]);
    let row = table.lines().find(|l| l.starts_with(&id[..13])).unwrap_or_else(|| panic!("{id} in\n{table}"));
    for wanted in
        ["localhost/podstead/nginx:1", "Running", " web ", attempt, &sandbox[..13], "static-web-node"]
    {
        assert!(row.contains(wanted), "{wanted} in {row}");
    }
}

async fn eventually(mut page: impl FnMut() -> std::io::Result<String>) -> String {
    let mut last = String::new();
    for _ in 0..200 {
        match page() {
            Ok(text) if !text.is_empty() => return text,
            Ok(text) => last = text,
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no page: {last}")
}
