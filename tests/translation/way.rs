//! The agent's own way from a manifest's bytes to what the runtimes are asked for: parse, admit, default, identify,
//! admit to the node, translate; then the CRI's messages and the direct runtime's configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use podstead::manifest::validate;
use podstead::pod::container::{Instance, container_spec, is_sidecar};
use podstead::pod::{
    self, NodeFacts, admission, dns, env, envfile, files, identity, sandbox, security, volumes,
};
use podstead_cri::convert;
use podstead_cri::proto;
use podstead_runtime::{CgroupDriver, ContainerSpec, DnsConfig, SandboxSpec};
use podstead_youki::bundle::{self, apply_user};
use podstead_youki::direct::{Described, describe};
use podstead_youki::image::{Image, ImageConfig, user};

/// What a pod meets: the node, the runtimes, its image.
#[derive(Clone, Debug)]
pub struct World {
    pub node: NodeFacts,
    pub cri: convert::Node,
    pub direct: bundle::NodeFacts,
    pub image: ImageConfig,
    /// Files of variables, by `volume/path`.
    pub env_files: BTreeMap<String, String>,
    /// The node's own resolver settings.
    pub resolver: DnsConfig,
}

const PASSWD: &str = "root:x:0:0::/root:\nweb:x:101:102::/srv/web:\n";
const GROUP: &str = "root:x:0:\nwww:x:102:\nlog:x:103:web\nseven:x:107:\n";
/// Stands for a file below the seccomp directory.
const SECCOMP: &str =
    r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}"#;

impl Default for World {
    /// A node with cgroup v2, the cgroupfs driver, 8 GiB and everything that runtimes may lack.
    fn default() -> Self {
        let node = NodeFacts {
            root_dir: "/var/lib/podstead".into(),
            pod_logs_dir: "/var/log/pods".into(),
            cgroup_driver: CgroupDriver::Cgroupfs,
            node_name: "node".into(),
            node_ips: ["192.0.2.10", "2001:db8::10"].map(|ip| ip.parse().unwrap()).to_vec(),
            memory_capacity: 8 << 30,
            cpu_capacity: 4000,
            storage_capacity: 100 << 30,
            recursive_read_only: true,
            dns: dns::Settings { resolv_conf: Some("/etc/resolv.conf".into()), ..dns::Settings::default() },
            security: security::Facts { strict_groups: true, ..security::Facts::default() },
            ..NodeFacts::default()
        };
        let cri = convert::Node {
            owner: "podstead".into(),
            cgroup_parent: "/podstead".into(),
            hugepage_sizes: ["2MB".to_owned()].into(),
        };
        let direct = bundle::NodeFacts {
            hostname: "node".into(),
            cgroup_v2: true,
            huge_page_sizes: vec!["2MB".into()],
            kernel: Some((6, 1)),
            ..bundle::NodeFacts::default()
        };
        let image = ImageConfig { cmd: vec!["/bin/app".into()], ..ImageConfig::default() };
        let resolver = DnsConfig { servers: vec!["192.0.2.53".into()], ..DnsConfig::default() };
        Self { node, cri, direct, image, env_files: BTreeMap::new(), resolver }
    }
}

/// A pod as both runtimes are asked for it.
#[derive(Debug)]
pub struct Made {
    pub pod: Pod,
    pub sandbox: SandboxSpec,
    pub containers: Vec<MadeContainer>,
}

#[derive(Debug)]
pub struct MadeContainer {
    /// `container`, `init container`, `sidecar`.
    pub kind: &'static str,
    pub spec: ContainerSpec,
    pub parts: Vec<volumes::SubPath>,
    pub stop_signal: i32,
    pub bundle: bundle::Bundle,
    pub request: proto::ContainerConfig,
}

/// The one pod of a manifest, as it is wanted.
pub fn wanted(text: &str) -> Result<Pod, String> {
    let pods = validate(text.as_bytes(), Path::new("/etc/kubernetes/manifests/web.yaml"), "node");
    match pods {
        Ok(mut pods) if pods.len() == 1 => Ok(pods.remove(0).pod),
        Ok(pods) => Err(format!("{} pods", pods.len())),
        Err(why) => Err(why.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// All of it. An error is what the pod's events or its container's waiting message would say.
pub fn made(world: &World, pod: &Pod) -> Result<Made, String> {
    admission::admit(&world.node, pod).map_err(|e| format!("{}: {e}", e.reason))?;
    let spec = sandbox::sandbox_spec(&world.node, pod, 0);
    let named = sandbox::named(spec, &world.node, pod, &world.resolver);
    let (sandbox, _) = named.map_err(|e| e.to_string())?;
    let own = pod.spec.as_ref().unwrap();
    let init = own.init_containers.iter().flatten();
    let init = init.map(|c| (if is_sidecar(c) { "sidecar" } else { "init container" }, c));
    let all = init.chain(own.containers.iter().map(|c| ("container", c)));
    let containers = all.map(|(kind, c)| one(world, pod, &sandbox, kind, c)).collect::<Result<_, _>>()?;
    Ok(Made { pod: pod.clone(), sandbox, containers })
}

/// The sandbox as the CRI is asked for it.
pub fn sandbox_request(world: &World, sandbox: &SandboxSpec) -> Result<proto::PodSandboxConfig, String> {
    convert::sandbox_config(sandbox, &world.cri).map_err(|e| e.to_string())
}

fn one(
    world: &World,
    pod: &Pod,
    sandbox: &SandboxSpec,
    kind: &'static str,
    container: &Container,
) -> Result<MadeContainer, String> {
    let said = |e: &dyn std::fmt::Display| e.to_string();
    let uid = identity::identity(pod).uid;
    let user = image_user(&world.image);
    security::verify_non_root(pod, container, &user).map_err(|e| said(&e))?;
    let shared = pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
    let ips: Vec<IpAddr> = if shared { Vec::new() } else { vec!["10.88.0.7".parse().unwrap()] };
    let instance = Instance {
        image_id: "sha256:1".into(),
        image_user: user,
        ips,
        env_files: env_files(world, container),
        hosts_file: Some(identity::pod_dir(&world.node, &uid).join("etc-hosts")),
        message_file: Some(files::message_path(&world.node, &uid, &container.name, 0)),
        ..Instance::default()
    };
    let spec = container_spec(&world.node, pod, container, &instance).map_err(|e| said(&e))?;
    let parts = volumes::sub_paths(&world.node, pod, container, &spec.env).map_err(|e| said(&e))?;
    let request = convert::container_config(&spec, sandbox, &world.cri).map_err(|e| said(&e))?;
    let bundle = direct(world, sandbox, &spec)?;
    let stop_signal = bundle::stop_signal(&spec, &world.image).map_err(|e| said(&e))?;
    Ok(MadeContainer { kind, spec, parts, stop_signal, bundle, request })
}

fn image_user(image: &ImageConfig) -> security::ImageUser {
    let user = image.user.as_deref().unwrap_or_default().split(':').next().unwrap_or_default();
    match user.parse() {
        Ok(uid) => security::ImageUser::Id(uid),
        Err(_) if user.is_empty() => security::ImageUser::default(),
        Err(_) => security::ImageUser::Name(user.to_owned()),
    }
}

/// What the variables that come from files find there.
fn env_files(world: &World, container: &Container) -> env::EnvFiles {
    let read = |(volume, path): (String, String)| {
        let text = world.env_files.get(&format!("{volume}/{path}"));
        let parsed = text.map(|text| envfile::parse(text).map_err(|e| e.to_string())).transpose();
        ((volume, path), parsed)
    };
    env::files_needed(container).into_iter().map(read).collect()
}

/// The direct runtime's part, the shim's included: who the container is.
fn direct(world: &World, sandbox: &SandboxSpec, spec: &ContainerSpec) -> Result<bundle::Bundle, String> {
    let image = |config: ImageConfig| Image {
        id: "sha256:1".into(),
        repo_tags: Vec::new(),
        repo_digests: Vec::new(),
        size: 0,
        config,
        layers: Vec::new(),
        pinned: false,
        created: None,
        architecture: String::new(),
        os: String::new(),
    };
    let mounted: Vec<Image> =
        spec.mounts.iter().filter(|m| m.image.is_some()).map(|_| image(ImageConfig::default())).collect();
    let localhost = matches!(spec.security.seccomp, podstead_runtime::Profile::Localhost(_));
    let mut bundle = describe(&Described {
        root: Path::new("/var/lib/podstead/direct"),
        state_dir: Path::new("/run/podstead/direct"),
        sandbox_id: "sandbox",
        sandbox,
        id: "container",
        container: spec,
        image: &image(world.image.clone()),
        mounted: &mounted,
        node: &world.direct,
        localhost_seccomp: localhost.then_some(SECCOMP),
    })
    .map_err(|e| e.to_string())?;
    let user = user::resolve(PASSWD, GROUP, &bundle.user.user).map_err(|e| e.to_string())?;
    let process = bundle.spec.process_mut().as_mut().unwrap();
    apply_user(process, &user, &bundle.user);
    Ok(bundle)
}

/// What the agent does for the pod on the host.
pub fn host(world: &World, made: &Made) -> serde_json::Value {
    let spec = made.pod.spec.as_ref().unwrap();
    let uid = identity::identity(&made.pod).uid;
    let volume = |volume: &Volume| {
        let source = volumes::source(&world.node, &uid, spec, volume);
        (volume.name.clone(), source.map_or_else(|| "nothing".to_owned(), told))
    };
    let volumes: BTreeMap<_, _> = spec.volumes.iter().flatten().map(volume).collect();
    let mut binds = BTreeMap::new();
    for part in made.containers.iter().flat_map(|c| &c.parts) {
        let from = format!("{} of {}", part.path.display(), part.volume.display());
        binds.insert(part.at.display().to_string(), from + if part.shared { ", shared" } else { "" });
    }
    let mut limits = serde_json::to_value(pod::resources::pod(spec)).unwrap();
    let says_nothing =
        |value: &serde_json::Value| ["0", "\"\"", "{}", "null"].contains(&value.to_string().as_str());
    limits.as_object_mut().unwrap().retain(|_, value| !says_nothing(value));
    serde_json::json!({
        "cgroup": identity::cgroup_path(&world.node, &made.pod),
        "limits": limits,
        "volumes": volumes,
        "bind": binds,
    })
}

fn told(source: volumes::Source) -> String {
    use volumes::{Medium, Source};
    match source {
        Source::HostPath { path, kind } => format!("{kind} {}", path.display()).trim_start().to_owned(),
        Source::EmptyDir { path, medium: Medium::Disk } => format!("directory {}", path.display()),
        Source::EmptyDir { path, medium } => format!("{medium:?} at {}", path.display()),
        Source::Files { path } => format!("files in {}", path.display()),
        Source::Image { reference } => format!("image {reference}"),
    }
}
