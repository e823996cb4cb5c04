//! Names as a pod sees them: its host name, its hosts file, its resolver; and ports of the node that lead to it.

use std::net::IpAddr;

use podstead::testing::{Node, PodHandle};

use crate::storm;
use crate::support::{Host, get, on_both};

on_both!(
    a_pod_knows_its_names_and_those_it_was_given,
    policies_decide_whom_a_pod_asks,
    a_pod_on_the_nodes_network_has_the_nodes_names_and_its_own_aliases,
    a_name_that_the_kernel_cannot_hold_is_said,
    ports_of_the_node_lead_to_the_pod,
    a_pod_has_the_addresses_of_both_families_that_the_network_gives,
);

fn pod(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: web}}\nspec:\n  terminationGracePeriodSeconds: 2\n{spec}  \
         containers:\n  - name: c\n    image: localhost/podstead/busybox:1\n    command: [/bin/sh, -c, exec sleep 1000]\n"
    )
}

async fn file(pod: &PodHandle<'_>, path: &str) -> String {
    let read = pod.exec("c", &["cat", path]).await.expect("cat");
    String::from_utf8(read.stdout).expect("UTF-8")
}

/// The flags as a kubelet's service has them, given to the binary.
async fn a_pod_knows_its_names_and_those_it_was_given(host: &Host) {
    let node = host.bare_node().await;
    let _agent = storm::agent(&node, &["--cluster-dns=10.254.0.10", "--cluster-domain=kube.local"]);
    let spec = "  hostname: db\n  subdomain: sub\n  setHostnameAsFQDN: true\n  hostAliases:\n  \
                - {ip: 192.0.2.1, hostnames: [a.example, a]}\n  - {ip: \"2001:db8::1\", hostnames: [b]}\n";
    let pod = node.apply("named", &pod("named", spec)).expect("apply");
    pod.running().await.expect("runs");
    let ip = pod.ip().await.expect("an address");
    let hosts = format!(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
         {ip}\tdb.sub.web.svc.kube.local\tdb\n\n# Entries added by HostAliases.\n192.0.2.1\ta.example\ta\n\
         2001:db8::1\tb\n"
    );
    assert_eq!(file(&pod, "/etc/hosts").await, hosts);
    let whole = "db.sub.web.svc.kube.local";
    assert_eq!(file(&pod, "/proc/sys/kernel/hostname").await, format!("{whole}\n"));
    assert_eq!(file(&pod, "/etc/hostname").await, format!("{whole}\n"));
    let resolver = file(&pod, "/etc/resolv.conf").await;
    let mut searches = vec!["web.svc.kube.local", "svc.kube.local", "kube.local"];
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let own = podstead::pod::dns::parse(&own);
    searches.extend(own.searches.iter().map(String::as_str));
    let want = format!("search {}\nnameserver 10.254.0.10\noptions ndots:5\n", searches.join(" "));
    assert_eq!(resolver, want);
}

/// A node whose resolver is a file of its own.
async fn with_resolver(host: &Host, cluster: bool) -> Node {
    let start = host.builder().config(move |config| {
        let path = config.root_dir.with_file_name("resolv.conf");
        std::fs::write(&path, "search example.com\nnameserver 192.0.2.53\noptions timeout:1 rotate\n")
            .expect("write");
        config.dns.resolv_conf = Some(path);
        if cluster {
            config.dns.servers = vec!["10.254.0.10".parse().expect("an address")];
        }
    });
    crate::support::with_images(start.start().await.expect("start the node")).await
}

async fn policies_decide_whom_a_pod_asks(host: &Host) {
    let node = with_resolver(host, true).await;
    let nodes_own = "search example.com\nnameserver 192.0.2.53\noptions timeout:1 rotate\n";
    let own = "  dnsConfig: {nameservers: [192.0.2.54], searches: [more.example], options: [{name: timeout, value: \"3\"}]}\n";
    let cases = [
        ("default", "  dnsPolicy: Default\n".to_owned(), nodes_own.to_owned()),
        ("cluster", String::new(), "search example.com\nnameserver 10.254.0.10\noptions ndots:5\n".to_owned()),
        (
            "merged",
            format!("  dnsPolicy: Default\n{own}"),
            "search example.com more.example\nnameserver 192.0.2.53\nnameserver 192.0.2.54\noptions timeout:3 rotate\n".to_owned(),
        ),
        (
            "none",
            format!("  dnsPolicy: None\n{own}"),
            "search more.example\nnameserver 192.0.2.54\noptions timeout:3\n".to_owned(),
        ),
        ("onhost", "  hostNetwork: true\n".to_owned(), nodes_own.to_owned()),
        (
            "both",
            "  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet\n".to_owned(),
            "search example.com\nnameserver 10.254.0.10\noptions ndots:5\n".to_owned(),
        ),
    ];
    for (name, spec, _) in &cases {
        node.apply(name, &pod(name, spec)).expect("apply");
    }
    for (name, _, want) in &cases {
        let pod = node.pod(name);
        pod.running().await.expect("runs");
        assert_eq!(file(&pod, "/etc/resolv.conf").await, *want, "{name}");
    }
}

async fn a_pod_on_the_nodes_network_has_the_nodes_names_and_its_own_aliases(host: &Host) {
    let node = host.node().await;
    let spec = "  hostNetwork: true\n  hostname: ignored\n  subdomain: ignored\n  hostAliases: [{ip: 192.0.2.1, hostnames: [a]}]\n";
    let pod = node.apply("onhost", &pod("onhost", spec)).expect("apply");
    pod.running().await.expect("runs");
    let nodes_own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let want = format!(
        "# Kubernetes-managed hosts file (host network).\n{nodes_own}\n# Entries added by HostAliases.\n192.0.2.1\ta\n"
    );
    assert_eq!(file(&pod, "/etc/hosts").await, want);
    let nodes_name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("read");
    assert_eq!(file(&pod, "/proc/sys/kernel/hostname").await, nodes_name);
}

async fn a_name_that_the_kernel_cannot_hold_is_said(host: &Host) {
    let node = host.node().await;
    let spec = format!("  subdomain: {}\n  setHostnameAsFQDN: true\n", "s".repeat(50));
    node.apply("long", &pod("long", &spec)).expect("apply");
    let mut view = node.view().expect("an agent");
    let told = tokio::time::timeout(podstead::testing::PATIENCE, async {
        loop {
            let failures = view.borrow_and_update().known.failures.clone();
            if let Some(failure) = failures.into_values().next() {
                return failure.message;
            }
            view.changed().await.expect("the agent lives");
        }
    });
    let told = told.await.expect("the agent says so");
    assert!(told.contains(".web.svc has 68 characters and a host name at most 64"), "{told}");
}

async fn ports_of_the_node_lead_to_the_pod(host: &Host) {
    let node = host.node().await;
    let primary: IpAddr = *node.config().node_ips.iter().find(|ip| ip.is_ipv4()).expect("the node's address");
    let (open, bound) = (free_port(), free_port());
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: ports}}\nspec:\n  terminationGracePeriodSeconds: 2\n  containers:\n  \
         - name: c\n    image: localhost/podstead/busybox:1\n    command: [/bin/sh, -c, \"mkdir /www; echo it is me > \
         /www/index.html; exec httpd -f -p 8080 -h /www\"]\n    ports:\n    - {{containerPort: 8080, hostPort: {open}}}\n    \
         - {{containerPort: 8080, hostPort: {bound}, hostIP: {primary}}}\n    - {{containerPort: 8080, name: inside}}\n"
    );
    let pod = node.apply("ports", &manifest).expect("apply");
    pod.running().await.expect("runs");
    let ip = pod.ip().await.expect("an address");
    for (ip, port) in [(ip, 8080), (primary, open), (primary, bound)] {
        let page = page(ip, port).await;
        assert!(page.contains("it is me"), "{ip}:{port}: {page}");
    }
    let elsewhere = IpAddr::from([127, 0, 0, 1]);
    assert!(get(elsewhere, bound).is_err(), "hostIP {primary} is not another address of the node");
    node.remove("ports").expect("remove");
    node.empty().await.expect("nothing is left");
    for port in [open, bound] {
        assert!(get(primary, port).is_err(), "port {port} is given back");
    }
}

async fn page(ip: IpAddr, port: u16) -> String {
    let mut last = String::new();
    for _ in 0..200 {
        match get(ip, port) {
            Ok(text) if !text.is_empty() => return text,
            Ok(text) => last = text,
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    last
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("bind");
    listener.local_addr().expect("an address").port()
}

/// The network plugins give a pod an address of each family; the pod and whoever asks for its addresses see both.
async fn a_pod_has_the_addresses_of_both_families_that_the_network_gives(host: &Host) {
    let dir = tempfile::tempdir().expect("a directory");
    let unique = std::process::id() * 2 + u32::from(host.endpoint().is_some());
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": format!("dual{unique}"),
        "plugins": [{
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "dataDir": dir.path().join("leases"),
                "ranges": [
                    [{ "subnet": format!("10.201.{}.0/24", unique % 256) }],
                    [{ "subnet": format!("fd00:c9:{:x}::/64", unique % 65536) }]
                ]
            }
        }]
    });
    let conf = dir.path().join("net.d");
    std::fs::create_dir(&conf).expect("mkdir");
    std::fs::write(conf.join("10-dual.conflist"), list.to_string()).expect("write");
    host.take_network(&list.to_string());
    let node = host.started(host.builder().cni_conf_dir(&conf)).await;
    let script = "apiVersion: v1\nkind: Pod\nmetadata: {name: told, namespace: web}\nspec:\n  terminationGracePeriodSeconds: 2\n  \
                  containers:\n  - name: c\n    image: localhost/podstead/busybox:1\n    \
                  command: [/bin/sh, -c, 'echo $IPS; exec sleep 1000']\n    \
                  env: [{name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}]\n";
    let pod = node.apply("told", script).expect("apply");
    pod.running().await.expect("runs");
    let ips = pod.until("two addresses", |sandbox, _| sandbox.ips.clone().filter(|ips| ips.len() == 2)).await;
    let ips = ips.expect("two addresses");
    assert!(ips[0].is_ipv4() && ips[1].is_ipv6(), "in the order of the configuration: {ips:?}");
    let lines = format!("{}\ttold-node\n{}\ttold-node\n", ips[0], ips[1]);
    assert!(file(&pod, "/etc/hosts").await.ends_with(&lines));
    pod.logged("c", |log| log == format!("{},{}\n", ips[0], ips[1])).await.expect("its variable");
    let is_told = |s: &serde_json::Value| s["podIPs"].as_array().is_some_and(|all| all.len() == 2);
    let status = crate::life::until_shown(&node, "told-node", "two addresses", is_told).await;
    let text = |ip: &IpAddr| ip.to_string();
    assert_eq!(status["podIP"], text(&ips[0]));
    assert_eq!(status["podIPs"], serde_json::json!([{"ip": text(&ips[0])}, {"ip": text(&ips[1])}]));
    let nodes = &node.config().node_ips;
    let second = nodes.iter().find(|ip| ip.is_ipv4() != nodes[0].is_ipv4());
    let own: Vec<String> = std::iter::once(&nodes[0]).chain(second).map(text).collect();
    assert_eq!(status["hostIP"], own[0]);
    let all: Vec<_> = own.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
    assert_eq!(status["hostIPs"], serde_json::Value::from(all));
    node.remove("told").expect("remove");
    node.empty().await.expect("nothing is left");
}
