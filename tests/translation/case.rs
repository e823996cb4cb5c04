//! One golden case: a header that says what it shows and how its node and image differ, `---`, a manifest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use podstead::pod::sysctl::Allowed;
use podstead_runtime::CgroupDriver;
use podstead_youki::image::ImageConfig;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::flat::Flat;
use crate::way::{Made, World, host, made, sandbox_request, wanted};
use crate::wire;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Header {
    shows: String,
    node: Node,
    image: Image,
    /// Files of variables, by `volume/path`.
    files: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Node {
    cgroup_driver: CgroupDriver,
    cgroup_v1: bool,
    apparmor: bool,
    selinux: bool,
    seccomp_default: bool,
    recursive_read_only: bool,
    strict_groups: bool,
    min_oom_score_adj: Option<i32>,
    allowed_unsafe_sysctls: Vec<String>,
    cluster_dns: Vec<IpAddr>,
    cluster_domain: String,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            cgroup_driver: CgroupDriver::Cgroupfs,
            cgroup_v1: false,
            apparmor: false,
            selinux: false,
            seccomp_default: false,
            recursive_read_only: true,
            strict_groups: true,
            min_oom_score_adj: None,
            allowed_unsafe_sysctls: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: String::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Image {
    user: Option<String>,
    env: Vec<String>,
    entrypoint: Vec<String>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

/// A case as it stands in its file.
pub struct Case {
    pub shows: String,
    world: World,
    manifest: String,
}

impl Case {
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let (header, manifest) = text.split_once("\n---\n").expect("a header, ---, a manifest");
        let header: Header =
            serde_yaml::from_str(header).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut world = World::default();
        header.node.put_into(&mut world);
        let cmd = header.image.cmd.unwrap_or_else(|| world.image.cmd.clone());
        world.image = ImageConfig {
            user: header.image.user,
            env: header.image.env,
            entrypoint: header.image.entrypoint,
            cmd,
            working_dir: header.image.working_dir,
            stop_signal: header.image.stop_signal,
            ..ImageConfig::default()
        };
        world.env_files = header.files;
        Self { shows: header.shows, world, manifest: manifest.to_owned() }
    }

    /// What becomes of it, in sections.
    pub fn sections(&self) -> Result<Vec<Section>, String> {
        let pod = wanted(&self.manifest)?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let made = made(&self.world, &pod).map_err(|why| why.replace(&uid, "UID"))?;
        sections(&self.world, &made)
    }

    /// The same of a pod like this whose one container has another name.
    fn renamed(&self, name: &str) -> Vec<Section> {
        let manifest = self.manifest.replacen("name: c,", &format!("name: {name},"), 1);
        Self { shows: String::new(), world: self.world.clone(), manifest }.sections().unwrap()
    }
}

impl Node {
    fn put_into(self, world: &mut World) {
        let node = &mut world.node;
        node.cgroup_driver = self.cgroup_driver;
        node.seccomp_default = self.seccomp_default;
        node.recursive_read_only = self.recursive_read_only;
        node.security.apparmor = self.apparmor;
        node.security.strict_groups = self.strict_groups;
        node.security.sysctls =
            Allowed::parse(self.allowed_unsafe_sysctls.iter().map(String::as_str)).unwrap();
        node.dns.servers = self.cluster_dns;
        node.dns.domain = self.cluster_domain;
        let direct = &mut world.direct;
        direct.cgroup_v2 = !self.cgroup_v1;
        direct.apparmor = self.apparmor;
        direct.selinux = self.selinux;
        direct.min_oom_score_adj = self.min_oom_score_adj;
    }
}

/// Sets of capabilities that are the same are told once, and rules for devices as cgroups know them.
fn shorten(oci: &mut Json) {
    if let Some(sets) = oci.pointer_mut("/process/capabilities").and_then(Json::as_object_mut) {
        let mut told: BTreeMap<String, (String, Json)> = BTreeMap::new();
        for (name, set) in std::mem::take(sets) {
            let mut all: Vec<&str> = set.as_array().unwrap().iter().filter_map(Json::as_str).collect();
            all.sort_unstable();
            let (names, _) = told.entry(all.join(" ")).or_insert_with(|| (String::new(), json!(all)));
            *names += if names.is_empty() { "" } else { " " };
            *names += &name;
        }
        sets.extend(told.into_values());
    }
    if let Some(rules) = oci.pointer_mut("/linux/resources/devices").and_then(Json::as_array_mut) {
        for rule in rules {
            let number = |field: &str| rule[field].as_i64().map_or("*".to_owned(), |n| n.to_string());
            let how = if rule["allow"] == true { "allow" } else { "deny" };
            let text = |field: &str| rule[field].as_str().unwrap_or_default();
            let what = format!("{how} {} {}:{}", text("type"), number("major"), number("minor"));
            *rule = format!("{what} {}", text("access")).into();
        }
    }
}

/// One document of what a pod becomes.
pub struct Section {
    /// `host`, `sandbox`, or the container's kind.
    kind: &'static str,
    /// The container's name.
    name: String,
    /// Whose document it is: the agent, the CRI, the direct runtime.
    by: &'static str,
    document: Json,
}

fn sections(world: &World, made: &Made) -> Result<Vec<Section>, String> {
    let section = |kind, name: &str, by, document| Section { kind, name: name.to_owned(), by, document };
    let sandbox = wire::json("PodSandboxConfig", &sandbox_request(world, &made.sandbox)?);
    let mut all = vec![section("host", "", "", host(world, made)), section("sandbox", "", "CRI", sandbox)];
    for c in &made.containers {
        all.push(section(c.kind, &c.spec.name, "CRI", wire::json("ContainerConfig", &c.request)));
        if world.node.cgroup_driver == CgroupDriver::Systemd {
            // The direct runtime has no such driver.
            continue;
        }
        let mut oci = serde_json::to_value(&c.bundle.spec).unwrap();
        shorten(&mut oci);
        // No part of the configuration: the runtime keeps it.
        oci["stopSignal"] = json!(c.stop_signal);
        all.push(section(c.kind, &c.spec.name, "OCI", oci));
    }
    let uid = made.pod.metadata.uid.clone().unwrap_or_default();
    // One that is no hash was given.
    for section in all.iter_mut().filter(|_| !uid.contains('-')) {
        let text = serde_json::to_string(&section.document).unwrap().replace(&uid, "UID");
        section.document = serde_json::from_str(&text).unwrap();
    }
    Ok(all)
}

/// The case as the golden file has it: each section by what it has beyond the same one of `base`.
pub fn print(case: &Case, base: Option<&Case>) -> String {
    let mut out = format!("# {}\n", case.shows);
    let own = match case.sections() {
        Ok(own) => own,
        Err(why) => return out + "\n" + &why + "\n",
    };
    for section in &own {
        let old = base.map(|base| {
            if section.name.is_empty() { base.sections().unwrap() } else { base.renamed(&section.name) }
        });
        let same = old.iter().flatten().find(|o| o.by == section.by && o.name == section.name);
        let old = same.map(|old| Flat::of(&old.document)).unwrap_or_default();
        let lines = Flat::of(&section.document).against(&old);
        if !lines.is_empty() {
            let title = [section.by, section.kind, &section.name];
            let title: Vec<&str> = title.into_iter().filter(|word| !word.is_empty()).collect();
            let lines: Vec<String> = lines.iter().map(|line| format!("  {line}\n")).collect();
            out.extend(["\n", &title.join(" "), ":\n", &lines.concat()]);
        }
    }
    if out.lines().count() == 1 {
        out += "\nthe same as base\n";
    }
    out
}
