//! Images that pods bring with them: pulled with the credentials the node has, refused by their reasons, collected when
//! nobody uses them.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podstead::credentials::provider::{self, Provider};
use podstead::images::limits::Rates;
use podstead::images::memory::Memory;
use podstead::node::image_gc::{Collector, Disk, Policy};
use podstead::testing::{Node, PATIENCE};
use podstead_runtime::{Auth, ImageSpec, PullProgress, Runtime, Time};

use crate::cli::{ok, run};
use crate::support::{Host, Registry, busybox, on_both};

on_both!(
    a_pod_is_pulled_with_the_credentials_that_the_node_has,
    a_pod_is_pulled_with_the_credentials_that_a_program_knows,
    what_keeps_an_image_away_is_told_by_its_reason,
    no_more_images_are_pulled_at_once_than_the_node_allows,
    an_image_that_a_pod_brought_and_nobody_uses_makes_room,
);

async fn node(host: &Host, registry: &Registry) -> Node {
    host.builder().insecure_registry(&registry.host).start().await.expect("start the node")
}

fn from(name: &str, image: &str, policy: &str) -> String {
    busybox(name, "exec sleep 1000")
        .replace("localhost/podstead/busybox:1", &format!("{image}\n    imagePullPolicy: {policy}"))
}

/// What the status of the pod's container says it waits for, once it is one of these reasons.
async fn waits_for(node: &Node, pod: &str, reasons: &[&str]) -> (String, String) {
    let mut view = node.view().expect("an agent");
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            {
                let view = view.borrow_and_update();
                let facts = podstead::report::Node { name: "node".into(), ..Default::default() };
                let pods = podstead::report::pods(&view, &facts);
                let found = pods.iter().find(|p| p.metadata.name.as_deref() == Some(&format!("{pod}-node")));
                let status = found.and_then(|p| p.status.as_ref()?.container_statuses.as_ref()?.first());
                let waiting = status.and_then(|s| s.state.as_ref()?.waiting.as_ref());
                let reason = waiting.and_then(|w| w.reason.clone()).unwrap_or_default();
                if reasons.contains(&reason.as_str()) {
                    return (reason, waiting.and_then(|w| w.message.clone()).unwrap_or_default());
                }
            }
            view.changed().await.expect("the agent lives");
        }
    });
    seen.await.unwrap_or_else(|_| panic!("{pod} never waited for one of {reasons:?}"))
}

async fn a_pod_is_pulled_with_the_credentials_that_the_node_has(host: &Host) {
    let Some(registry) = Registry::start(true) else { return };
    let node = node(host, &registry).await;
    let image = format!("{}/podstead/busybox:1", registry.host);
    let root = node.config().root_dir.clone();
    node.apply("shut", &from("shut", &image, "IfNotPresent")).expect("apply");
    let (_, told) = waits_for(&node, "shut", &["ErrImagePull", "ImagePullBackOff"]).await;
    assert!(told.contains(&image) && told.contains("denied"), "{told}");
    node.remove("shut").expect("remove");

    // The first fits better and is refused; the second is tried after it. "web:secret", "web:hunter2".
    let auths = format!(
        r#"{{"auths": {{"{0}/podstead": {{"auth": "d2ViOmh1bnRlcjI="}}, "http://{0}/v2/": {{"auth": "d2ViOnNlY3JldA=="}}}}}}"#,
        registry.host
    );
    std::fs::write(root.join("config.json"), auths).expect("write");
    let pod = node.apply("open", &from("open", &image, "Always")).expect("apply");
    pod.running().await.expect("runs");
    let known = Memory::open(&root).images();
    assert!(known.values().any(|pulled| pulled.names.contains(&image)), "{known:?}");

    // Another registry's credentials are nobody's here, although they would do.
    let other = r#"{"auths": {"registry.example": {"auth": "d2ViOnNlY3JldA=="}}}"#;
    std::fs::write(root.join("config.json"), other).expect("write");
    // Although the image is there: who says Always has the registry asked.
    node.apply("again", &from("again", &image, "Always")).expect("apply");
    let (_, told) = waits_for(&node, "again", &["ErrImagePull", "ImagePullBackOff"]).await;
    assert!(told.contains("denied") && !told.contains("secret"), "{told}");
    node.remove("open").expect("remove");
    node.remove("again").expect("remove");
    node.empty().await.expect("nothing is left");
    let _ = node.runtime().remove_image(&ImageSpec::from(image.as_str())).await;
}

/// A provider that knows user `web` with this password for one registry, and writes down whom it was asked for.
fn helper(dir: &Path, registry: &str, password: &str) -> Vec<Provider> {
    let answer = format!(
        r#"{{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":"Registry",
        "cacheDuration":"1h","auth":{{"{registry}":{{"username":"web","password":"{password}"}}}}}}"#
    );
    let script =
        format!("#!/bin/sh\ncat >>{0}/asked\necho >>{0}/asked\ncat <<E\n{answer}\nE\n", dir.display());
    std::fs::write(dir.join("helper"), script).expect("write");
    std::fs::set_permissions(dir.join("helper"), Permissions::from_mode(0o755)).expect("make executable");
    let config = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: helper\n  \
         matchImages: ['127.*.0.1:{}']\n  defaultCacheDuration: 0s\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n",
        registry.rsplit(':').next().expect("a port"),
    );
    std::fs::write(dir.join("config.yaml"), config).expect("write");
    provider::load(&dir.join("config.yaml"), dir).expect("a good configuration")
}

async fn a_pod_is_pulled_with_the_credentials_that_a_program_knows(host: &Host) {
    let Some(registry) = Registry::start(true) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let providers = helper(dir.path(), &registry.host, "secret");
    let builder = host.builder().insecure_registry(&registry.host);
    let builder = builder.config(move |config| config.images.credentials.providers.clone_from(&providers));
    let node = builder.start().await.expect("start the node");
    let image = |name: &str| format!("{}/podstead/{name}:1", registry.host);
    let pods = [("one", "busybox"), ("two", "busybox")];
    for (pod, name) in pods {
        let pod = node.apply(pod, &from(pod, &image(name), "Always")).expect("apply");
        pod.running().await.expect("runs");
    }
    let asked = || std::fs::read_to_string(dir.path().join("asked")).expect("it was asked");
    let first = asked();
    assert_eq!(first.lines().count(), 1, "its answer counts for an hour: {first}");
    let want = format!(r#""image":"{}/podstead/busybox""#, registry.host);
    assert!(first.contains(&want) && first.contains("CredentialProviderRequest"), "{first}");

    // A person's pull finds the same.
    let config = dir.path().join("config.yaml").display().to_string();
    let bin_dir = dir.path().display().to_string();
    let flags = [
        "--image-credential-provider-config",
        config.as_str(),
        "--image-credential-provider-bin-dir",
        bin_dir.as_str(),
    ];
    let nginx = image("nginx");
    ok(&node, &[&["images", "pull", nginx.as_str()][..], &flags].concat());
    assert!(asked().contains("podstead/nginx"));
    helper(dir.path(), &registry.host, "hunter2");
    let (code, _, refused) = run(&node, &[&["images", "pull", nginx.as_str()][..], &flags].concat());
    assert!(code == 6 && refused.contains("denied") && !refused.contains("hunter2"), "{refused}");
    for (pod, _) in pods {
        node.remove(pod).expect("remove");
    }
    node.empty().await.expect("nothing is left");
    for name in ["busybox", "nginx"] {
        let _ = node.runtime().remove_image(&ImageSpec::from(image(name).as_str())).await;
    }
}

async fn what_keeps_an_image_away_is_told_by_its_reason(host: &Host) {
    let Some(registry) = Registry::start(false) else { return };
    let node = node(host, &registry).await;
    let nowhere = format!("{}/podstead/none:1", registry.host);
    node.apply("none", &from("none", &nowhere, "IfNotPresent")).expect("apply");
    node.apply("never", &from("never", &nowhere, "Never")).expect("apply");
    node.apply("invalid", &from("invalid", "localhost/UPPER:1", "Always")).expect("apply");
    let (_, told) = waits_for(&node, "none", &["ErrImagePull"]).await;
    assert!(told.contains(&nowhere), "{told}");
    waits_for(&node, "never", &["ErrImageNeverPull"]).await;
    let (_, told) = waits_for(&node, "invalid", &["InvalidImageName"]).await;
    assert!(told.contains("must be lowercase"), "{told}");
    let (_, told) = waits_for(&node, "none", &["ImagePullBackOff"]).await;
    assert!(told.starts_with(&format!("Back-off pulling image \"{nowhere}\": ")), "{told}");
}

/// The only way to a registry: who asks for manifests waits here until it is opened.
struct Gate {
    host: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    asked: Mutex<BTreeSet<String>>,
    open: AtomicBool,
}

impl Gate {
    fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let host = listener.local_addr().expect("an address").to_string();
        let (registry, seen) = (registry.host.clone(), Arc::<Seen>::default());
        let for_all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (registry, seen) = (registry.clone(), Arc::clone(&for_all));
                std::thread::spawn(move || pass(client, &registry, &seen));
            }
        });
        Self { host, seen }
    }

    /// Images whose manifests were asked for.
    fn asked(&self) -> usize {
        self.seen.asked.lock().expect("the names").len()
    }
}

/// Passes requests on, which have no bodies, and answers back.
fn pass(client: TcpStream, registry: &str, seen: &Seen) -> io::Result<()> {
    let mut server = TcpStream::connect(registry)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    for line in BufReader::new(client).split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        let words: Vec<&str> = text.split_whitespace().collect();
        if let [_, path, "HTTP/1.1"] = words[..]
            && let Some((name, _)) = path.split_once("/manifests/")
        {
            seen.asked.lock().expect("the names").insert(name.to_owned());
            while !seen.open.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        server.write_all(&[&line[..], b"\n"].concat())?;
    }
    server.shutdown(Shutdown::Both)
}

async fn no_more_images_are_pulled_at_once_than_the_node_allows(host: &Host) {
    let Some(registry) = Registry::start(false) else { return };
    let gate = Gate::before(&registry);
    let rates = Rates { parallel: Some(2), ..Rates::default() };
    let builder = host.builder().insecure_registry(&gate.host).config(move |c| c.images.rates = rates);
    let node = builder.start().await.expect("start the node");
    let names = ["busybox", "nginx", "pause"];
    let images = names.map(|name| format!("{}/podstead/{name}:1", gate.host));
    for (name, image) in names.iter().zip(&images) {
        node.apply(name, &from(name, image, "IfNotPresent")).expect("apply");
    }
    let two = async {
        while gate.asked() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, two).await.expect("two are pulled beside each other");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gate.asked(), 2, "the third waits for its turn");
    gate.seen.open.store(true, Ordering::Relaxed);
    let all = async {
        for image in &images {
            let spec = ImageSpec::from(image.as_str());
            while node.runtime().image(&spec).await.expect("look").is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all are pulled");
    for name in names {
        node.remove(name).expect("remove");
    }
    node.empty().await.expect("nothing is left");
    for image in &images {
        let _ = node.runtime().remove_image(&ImageSpec::from(image.as_str())).await;
    }
}

async fn an_image_that_a_pod_brought_and_nobody_uses_makes_room(host: &Host) {
    let Some(registry) = Registry::start(false) else { return };
    let node = node(host, &registry).await;
    let (brought, kept) =
        (format!("{}/podstead/busybox:1", registry.host), format!("{}/podstead/nginx:1", registry.host));
    // One that was pulled by hand.
    let by_hand = ImageSpec::from(kept.as_str());
    node.runtime().pull_image(&by_hand, &Auth::Anonymous, PullProgress::none()).await.expect("pull");
    let pod = node.apply("guest", &from("guest", &brought, "IfNotPresent")).expect("apply");
    pod.running().await.expect("runs");
    let runtime = Arc::clone(node.runtime_arc());
    let memory = Arc::new(Memory::open(&node.config().root_dir));
    let full = Policy { high: 1, low: 0, min_age: Duration::ZERO, ..Policy::default() };
    let collector = Collector::new(runtime, memory, full);
    let at = |seconds| Time::now() + Duration::from_secs(seconds);
    let spec = ImageSpec::from(brought.as_str());
    let done = collector.collect(&[], at(0)).await.expect("collect");
    assert!(done.wanted > 0 && done.removed.is_empty(), "a container has it: {done:?}");
    // And nobody had to ask the runtime, which refuses as well.
    let known = Memory::open(&node.config().root_dir).images();
    assert!(!known.is_empty() && known.values().all(|pulled| pulled.unused_since.is_none()), "{known:?}");
    node.remove("guest").expect("remove");
    node.empty().await.expect("nothing is left");
    let id = node.runtime().image(&spec).await.expect("look").expect("still there").id;
    let other_names = node.runtime().image(&spec).await.expect("look").expect("there").repo_tags.len() > 1;
    let done = collector.collect(&[], at(1)).await.expect("collect");
    if other_names {
        // A server that was given the test images by another name keeps them.
        assert_eq!(done.removed, [""; 0]);
    } else {
        assert_eq!(done.removed, [id]);
        assert!(node.runtime().image(&spec).await.expect("look").is_none());
    }
    assert!(node.runtime().image(&by_hand).await.expect("look").is_some(), "not the agent's to remove");
    node.runtime().remove_image(&by_hand).await.expect("remove");
    assert!(Disk::of(&node.config().root_dir).expect("measure").capacity > 0);
}
