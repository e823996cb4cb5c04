//! Attaching pods with the real bridge, host-local and portmap plugins. Needs root and the plugins. The "node" is a
//! network namespace of its own, so that neither bridges nor rules of the machine are touched.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use podstead_youki::{
    namespace::{self, Spec},
    network::{Attachment, Check, Network, PortMapping, Protocol, Settings, Status},
};
use serde_json::json;
use tempfile::TempDir;

const V4: &str = "10.77.3.0/24";
const V6: &str = "fd77:3::/64";

struct Node {
    temp: TempDir,
    network: Network,
}

impl Node {
    fn pod(&self, name: &str) -> Attachment {
        let dir = self.temp.path().join(name);
        let pinned = namespace::pin(&dir, &Spec { net: true, ..Spec::default() }).unwrap();
        Attachment {
            sandbox: format!("{name}-sandbox"),
            netns: pinned.net.unwrap(),
            pod_namespace: "default".into(),
            pod_name: name.into(),
            pod_uid: format!("{name}-uid"),
            ..Attachment::default()
        }
    }

    fn conflist(&self) -> PathBuf {
        self.temp.path().join("net.d/10-pods.conflist")
    }

    /// The addresses host-local has given out.
    fn reserved(&self) -> Vec<String> {
        let Ok(entries) = self.temp.path().join("ipam/pods").read_dir() else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<IpAddr>().is_ok()).collect()
    }

    fn records(&self) -> usize {
        let entries = self.temp.path().join("records").read_dir().into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "json")).count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for entry in self.temp.path().read_dir().unwrap() {
            let _ = namespace::unpin(&entry.unwrap().path());
        }
    }
}

/// Runs `test` inside a new node.
fn on_node(cni_version: &str, subnets: &[&str], test: impl AsyncFnOnce(&Node) + Send) {
    let temp = tempfile::tempdir().unwrap();
    let conflist = json!({"cniVersion": cni_version, "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "podnet0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
            "type": "host-local",
            "ranges": subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect::<Vec<_>>(),
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": temp.path().join("ipam"),
        }},
        {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
    ]});
    fs::create_dir(temp.path().join("net.d")).unwrap();
    fs::write(temp.path().join("net.d/10-pods.conflist"), conflist.to_string()).unwrap();
    let mut settings = Settings::new(temp.path().join("records"));
    settings.conf_dir = temp.path().join("net.d");
    let node = Node { network: Network::new(settings), temp };
    let spec = Spec { net: true, ..Spec::default() };
    let pinned = namespace::pin(&node.temp.path().join("node"), &spec).unwrap();
    // All threads and processes of this runtime are started from a thread inside the node.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    namespace::enter_net(&pinned.net.unwrap(), || runtime().block_on(test(&node))).unwrap();
}

fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

/// Answers `greeting` once on port 8080 inside the namespace.
fn serve(netns: &Path, greeting: &'static str) {
    let listener = namespace::enter_net(netns, || TcpListener::bind("[::]:8080").unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(greeting.as_bytes());
        }
    });
}

fn ask(ip: impl Into<IpAddr>, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip.into(), port), Duration::from_secs(2))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

#[test]
fn a_pod_is_attached_reached_checked_and_detached() {
    on_node("1.0.0", &[V4], async |node| {
        assert!(matches!(node.network.status().await, Status::Ready { network, .. } if network == "pods"));
        let mut pod = node.pod("web");
        pod.ports = vec![PortMapping {
            host_port: 9080,
            container_port: 8080,
            protocol: Protocol::Tcp,
            host_ip: None,
        }];
        let start = Instant::now();
        let outcome = node.network.add(&pod).await.unwrap();
        println!("add: {:?}", start.elapsed());
        let ips = outcome.pod_ips();
        assert_eq!((ips.len(), outcome.routes.len()), (1, 1), "{outcome:?}");
        assert_eq!(node.network.outcome(&pod.sandbox).await.unwrap().as_ref(), Some(&outcome));
        let inside = namespace::addresses(&pod.netns).unwrap();
        let global: Vec<IpAddr> =
            inside.iter().filter(|a| a.interface == "eth0" && a.is_global()).map(|a| a.ip).collect();
        assert_eq!(global, ips);

        serve(&pod.netns, "hello from web");
        assert_eq!(ask(ips[0], 8080).unwrap(), "hello from web");
        let gateway: IpAddr = "10.77.3.1".parse().unwrap();
        assert_eq!(ask(gateway, 9080).unwrap(), "hello from web", "host port by the node's address");
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(ask(loopback, 9080).unwrap(), "hello from web", "host port by the node's loopback");

        let other = node.pod("client");
        let start = Instant::now();
        let other_ips = node.network.add(&other).await.unwrap().pod_ips();
        println!("add without host ports: {:?}", start.elapsed());
        assert_ne!(other_ips[0], ips[0]);
        let from_pod = namespace::enter_net(&other.netns, || ask(ips[0], 8080)).unwrap();
        assert_eq!(from_pod.unwrap(), "hello from web", "pod to pod");
        assert_eq!(node.network.attached().await.unwrap(), ["client-sandbox", "web-sandbox"]);
        let start = Instant::now();
        assert_eq!(node.network.check(&other.sandbox).await.unwrap(), Check::Passed);
        println!("check: {:?}", start.elapsed());
        let start = Instant::now();
        node.network.del(&other.sandbox).await.unwrap();
        println!("del without host ports: {:?}", start.elapsed());

        assert_eq!(node.reserved().len(), 1);
        let start = Instant::now();
        node.network.del(&pod.sandbox).await.unwrap();
        println!("del: {:?}", start.elapsed());
        assert!(node.reserved().is_empty(), "{:?}", node.reserved());
        assert_eq!(node.records(), 0);
        let links = output("ip -o link");
        assert!(links.contains("podnet0") && !links.contains("veth"), "{links}");
        assert!(!output("iptables-save").contains("9080"));
        assert!(ask(gateway, 9080).is_err());
        assert!(node.network.outcome(&pod.sandbox).await.unwrap().is_none());
        node.network.del(&pod.sandbox).await.unwrap();
        assert!(node.network.check(&pod.sandbox).await.is_err());
    });
}

#[test]
fn a_pod_has_an_address_of_each_family() {
    on_node("1.0.0", &[V6, V4], async |node| {
        let pod = node.pod("dual");
        let start = Instant::now();
        let outcome = node.network.add(&pod).await.unwrap();
        println!("add with both families: {:?}", start.elapsed());
        let ips = outcome.pod_ips();
        assert!(ips.len() == 2 && ips[0].is_ipv6() && ips[1].is_ipv4(), "{ips:?}");
        assert!(outcome.ips.iter().all(|ip| ip.gateway.is_some()));
        serve(&pod.netns, "hello from dual");
        assert_eq!(ask(ips[1], 8080).unwrap(), "hello from dual");
        // The node's own IPv6 address needs a moment for duplicate address detection.
        let start = Instant::now();
        while ask(ips[0], 8080).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "not reached by IPv6");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(node.network.check(&pod.sandbox).await.unwrap(), Check::Passed);
        node.network.del(&pod.sandbox).await.unwrap();
        assert!(node.reserved().is_empty());
    });
}

#[test]
fn detaching_needs_neither_the_configuration_nor_the_namespace() {
    on_node("0.4.0", &[V4], async |node| {
        let (first, second) = (node.pod("first"), node.pod("second"));
        node.network.add(&first).await.unwrap();
        node.network.add(&second).await.unwrap();
        assert_eq!(node.reserved().len(), 2);
        fs::remove_file(node.conflist()).unwrap();
        node.network.del(&first.sandbox).await.unwrap();
        assert_eq!(node.reserved().len(), 1);
        namespace::unpin(second.netns.parent().unwrap()).unwrap();
        // As after a reboot: the file is there, the namespace is not.
        fs::write(&second.netns, "").unwrap();
        node.network.del(&second.sandbox).await.unwrap();
        assert!(node.reserved().is_empty());
        let status = node.network.status().await;
        let Status::NotReady(reason) = status else { panic!("{status:?}") };
        assert!(reason.starts_with("no CNI network configuration in "), "{reason}");
        assert!(reason.ends_with("; add a conflist or use hostNetwork"), "{reason}");
        let error = node.network.add(&first).await.unwrap_err();
        assert_eq!((error.to_string(), error.retryable()), (reason, true));
    });
}

#[test]
fn attaching_again_leaks_nothing() {
    on_node("0.3.1", &[V4], async |node| {
        let pod = node.pod("again");
        let first = node.network.add(&pod).await.unwrap();
        assert_eq!(node.network.check(&pod.sandbox).await.unwrap(), Check::NotSupported);
        let second = node.network.add(&pod).await.unwrap();
        assert_ne!(first.pod_ips(), second.pod_ips());
        assert_eq!(node.reserved().len(), 1);
        // As after a reboot: the record is there, the node's rules are not, the namespace is a new one.
        namespace::unpin(pod.netns.parent().unwrap()).unwrap();
        output("iptables -t nat -F; iptables -t nat -X");
        let pod = node.pod("again");
        let third = node.network.add(&pod).await.unwrap();
        assert!(namespace::addresses(&pod.netns).unwrap().iter().any(|a| a.ip == third.pod_ips()[0]));
        assert_eq!(node.reserved().len(), 1);
        node.network.del(&pod.sandbox).await.unwrap();
        assert!(node.reserved().is_empty());
    });
}

#[test]
fn a_failed_attachment_is_undone() {
    on_node("1.0.0", &[V4], async |node| {
        let pod = node.pod("undone");
        // The bridge attaches well, then the second plugin refuses its configuration.
        let text = fs::read_to_string(node.conflist()).unwrap();
        fs::write(node.conflist(), text.replace(r#""snat":true"#, r#""snat":"sometimes""#)).unwrap();
        let error = node.network.add(&pod).await.unwrap_err();
        println!("{error}");
        assert!(error.to_string().contains("portmap, ADD of sandbox undone-sandbox"), "{error}");
        // Not everything could be undone, because the plugin refuses the same at DEL; the bridge's part is gone.
        assert!(node.reserved().is_empty(), "{:?}", node.reserved());
        assert!(!output("ip -o link").contains("veth"));

        // With no namespace the first plugin fails, and undoing works: nothing is left.
        fs::write(node.conflist(), text).unwrap();
        let mut lost = node.pod("lost");
        lost.netns = node.temp.path().join("nowhere");
        let error = node.network.add(&lost).await.unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        assert!(node.reserved().is_empty());
        assert!(!node.network.attached().await.unwrap().contains(&lost.sandbox));
    });
}

#[test]
fn check_notices_a_lost_interface() {
    on_node("1.0.0", &[V4], async |node| {
        let pod = node.pod("check");
        node.network.add(&pod).await.unwrap();
        namespace::enter_net(&pod.netns, || output("ip link del eth0")).unwrap();
        let error = node.network.check(&pod.sandbox).await.unwrap_err();
        assert!(error.to_string().contains("bridge, CHECK of sandbox check-sandbox"), "{error}");
        node.network.del(&pod.sandbox).await.unwrap();
        assert!(node.reserved().is_empty());
    });
}

/// Many portmap versions look for the rules of both IP families in any case (containernetworking/plugins#819).
#[test]
fn check_of_host_ports_fails_only_when_their_rules_are_gone() {
    on_node("1.0.0", &[V4], async |node| {
        let mut pod = node.pod("ports");
        pod.ports = vec![PortMapping {
            host_port: 9081,
            container_port: 8080,
            protocol: Protocol::Tcp,
            host_ip: None,
        }];
        node.network.add(&pod).await.unwrap();
        assert_eq!(node.network.check(&pod.sandbox).await.unwrap(), Check::Passed);
        let rules = output("iptables-save");
        let chain = rules
            .lines()
            .find_map(|line| line.strip_prefix(":")?.split(' ').next().filter(|c| c.starts_with("CNI-DN-")));
        let chain = chain.expect("a chain of the pod's own").to_owned();
        for args in ["-F CNI-HOSTPORT-DNAT", &format!("-F {chain}"), &format!("-X {chain}")] {
            output(&format!("iptables -t nat {args}"));
        }
        let error = node.network.check(&pod.sandbox).await.unwrap_err();
        assert!(error.to_string().contains(&chain), "{error}");
        node.network.del(&pod.sandbox).await.unwrap();
        assert!(node.reserved().is_empty());
    });
}
