//! Containers in kubectl's words. Pure; cells are parted by tabs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerState, ContainerStatus, EnvVar, Probe, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::one_line;

/// A list of containers under its heading.
pub fn text(out: &mut String, heading: &str, containers: &[Container], statuses: &[ContainerStatus]) {
    let _ = writeln!(out, "{heading}:");
    for container in containers {
        let status = statuses.iter().find(|s| s.name == container.name);
        let _ = writeln!(out, "  {}:", container.name);
        basics(out, container, status);
        words(out, "Command", container.command.as_deref());
        words(out, "Args", container.args.as_deref());
        if let Some(status) = status {
            states(out, status);
        }
        resources(out, container);
        for (name, probe) in [
            ("Liveness", &container.liveness_probe),
            ("Readiness", &container.readiness_probe),
            ("Startup", &container.startup_probe),
        ] {
            if let Some(probe) = probe {
                let _ = writeln!(out, "    {name}:\t{}", one_line(&self::probe(probe)));
            }
        }
        environment(out, container);
        mounts(out, container.volume_mounts.as_deref().unwrap_or_default());
    }
}

fn basics(out: &mut String, container: &Container, status: Option<&ContainerStatus>) {
    let id = status.and_then(|s| s.container_id.clone()).unwrap_or_default();
    let image_id = status.map(|s| s.image_id.clone()).unwrap_or_default();
    let _ = writeln!(out, "    Container ID:\t{id}");
    let _ = writeln!(out, "    Image:\t{}", container.image.as_deref().unwrap_or_default());
    let _ = writeln!(out, "    Image ID:\t{image_id}");
    let ports = container.ports.as_deref().unwrap_or_default();
    let many = if ports.len() > 1 { "s" } else { "" };
    let join = |one: &dyn Fn(&ContainerPort) -> String| match ports {
        [] => "<none>".to_owned(),
        all => all.iter().map(one).collect::<Vec<_>>().join(", "),
    };
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let name = |port: &ContainerPort| port.name.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
    let inside = join(&|port| format!("{}/{}{}", port.container_port, protocol(port), name(port)));
    let outside = join(&|port| format!("{}/{}{}", port.host_port.unwrap_or(0), protocol(port), name(port)));
    let _ = writeln!(out, "    Port{many}:\t{inside}\n    Host Port{many}:\t{outside}");
}

fn words(out: &mut String, name: &str, words: Option<&[String]>) {
    let Some(words) = words.filter(|w| !w.is_empty()) else { return };
    let _ = writeln!(out, "    {name}:");
    for line in words.iter().flat_map(|word| word.split('\n')) {
        let _ = writeln!(out, "      {}", one_line(line));
    }
}

fn states(out: &mut String, status: &ContainerStatus) {
    state(out, "State", status.state.as_ref());
    if status.last_state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        state(out, "Last State", status.last_state.as_ref());
    }
    let ready = if status.ready { "True" } else { "False" };
    let _ = writeln!(out, "    Ready:\t{ready}\n    Restart Count:\t{}", status.restart_count);
}

fn state(out: &mut String, name: &str, state: Option<&ContainerState>) {
    let (word, rows) = match state {
        Some(ContainerState { running: Some(running), .. }) => {
            ("Running", vec![("Started", running.started_at.as_ref().map(moment))])
        }
        Some(ContainerState { terminated: Some(end), .. }) => (
            "Terminated",
            vec![
                ("Reason", end.reason.clone()),
                ("Message", end.message.clone()),
                ("Exit Code", Some(end.exit_code.to_string())),
                ("Signal", end.signal.filter(|s| *s > 0).map(|s| s.to_string())),
                ("Started", end.started_at.as_ref().map(moment)),
                ("Finished", end.finished_at.as_ref().map(moment)),
            ],
        ),
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            ("Waiting", vec![("Reason", waiting.reason.clone()), ("Message", waiting.message.clone())])
        }
        _ => ("Waiting", Vec::new()),
    };
    let _ = writeln!(out, "    {name}:\t{word}");
    for (name, value) in rows {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            let _ = writeln!(out, "      {name}:\t{}", one_line(value.trim_end()));
        }
    }
}

fn resources(out: &mut String, container: &Container) {
    let Some(all) = &container.resources else { return };
    for (name, amounts) in [("Limits", &all.limits), ("Requests", &all.requests)] {
        let Some(amounts) = amounts.as_ref().filter(|a| !a.is_empty()) else { continue };
        let _ = writeln!(out, "    {name}:");
        quantities(out, amounts);
    }
}

fn quantities(out: &mut String, amounts: &BTreeMap<String, Quantity>) {
    for (name, Quantity(amount)) in amounts {
        let _ = writeln!(out, "      {name}:\t{amount}");
    }
}

/// `http-get http://:8080/healthz delay=0s timeout=1s period=10s #success=1 #failure=3`.
fn probe(probe: &Probe) -> String {
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let action = if let Some(exec) = &probe.exec {
        format!("exec [{}]", exec.command.as_deref().unwrap_or_default().join(" "))
    } else if let Some(get) = &probe.http_get {
        let scheme = text(&get.scheme).to_lowercase();
        format!("http-get {scheme}://{}:{}{}", text(&get.host), port(&get.port), text(&get.path))
    } else if let Some(socket) = &probe.tcp_socket {
        format!("tcp-socket {}:{}", text(&socket.host), port(&socket.port))
    } else if let Some(grpc) = &probe.grpc {
        format!("grpc <pod>:{} {}", grpc.port, text(&grpc.service)).trim_end().to_owned()
    } else {
        "unknown".to_owned()
    };
    let number = |n: Option<i32>, default: i32| n.unwrap_or(default);
    format!(
        "{action} delay={}s timeout={}s period={}s #success={} #failure={}",
        number(probe.initial_delay_seconds, 0),
        number(probe.timeout_seconds, 1),
        number(probe.period_seconds, 10),
        number(probe.success_threshold, 1),
        number(probe.failure_threshold, 3)
    )
}

fn environment(out: &mut String, container: &Container) {
    let sources = container.env_from.as_deref().unwrap_or_default();
    if !sources.is_empty() {
        let _ = writeln!(out, "    Environment Variables from:");
        for source in sources {
            let of = |name: &str, kind: &str, optional: Option<bool>| {
                format!("{name}\t{kind}  Optional: {}", optional.unwrap_or(false))
            };
            let line = match (&source.config_map_ref, &source.secret_ref) {
                (Some(map), _) => of(&map.name, "ConfigMap", map.optional),
                (_, Some(secret)) => of(&secret.name, "Secret", secret.optional),
                _ => "<unknown>".to_owned(),
            };
            let _ = writeln!(out, "      {line}");
        }
    }
    let variables = container.env.as_deref().unwrap_or_default();
    if variables.is_empty() {
        let _ = writeln!(out, "    Environment:\t<none>");
        return;
    }
    let _ = writeln!(out, "    Environment:");
    for variable in variables {
        let _ = writeln!(out, "      {}:\t{}", variable.name, value(variable));
    }
}

fn value(variable: &EnvVar) -> String {
    let Some(source) = &variable.value_from else {
        return one_line(variable.value.as_deref().unwrap_or_default());
    };
    if let Some(field) = &source.field_ref {
        let version = field.api_version.as_deref().unwrap_or("v1");
        return format!(" ({version}:{})", field.field_path);
    }
    if let Some(resource) = &source.resource_field_ref {
        return format!(" ({})", resource.resource);
    }
    if let Some(file) = &source.file_key_ref {
        return format!("<set to the key '{}' in file '{}'>", file.key, file.path);
    }
    if let Some(key) = &source.secret_key_ref {
        return format!("<set to the key '{}' in secret '{}'>", key.key, key.name);
    }
    if let Some(key) = &source.config_map_key_ref {
        return format!("<set to the key '{}' of config map '{}'>", key.key, key.name);
    }
    String::new()
}

fn mounts(out: &mut String, mounts: &[VolumeMount]) {
    if mounts.is_empty() {
        let _ = writeln!(out, "    Mounts:\t<none>");
        return;
    }
    let _ = writeln!(out, "    Mounts:");
    let mut sorted: Vec<&VolumeMount> = mounts.iter().collect();
    sorted.sort_by(|a, b| a.mount_path.cmp(&b.mount_path));
    for mount in sorted {
        let mut flags = vec![if mount.read_only == Some(true) { "ro" } else { "rw" }.to_owned()];
        for (name, path) in [("path", &mount.sub_path), ("path", &mount.sub_path_expr)] {
            flags.extend(path.as_deref().filter(|p| !p.is_empty()).map(|p| format!("{name}={p:?}")));
        }
        let (path, flags) = (one_line(&mount.mount_path), flags.join(","));
        let _ = writeln!(out, "      {path} from {} ({flags})", mount.name);
    }
}

/// As kubectl writes times (RFC 1123 with the zone as a number), in UTC.
pub fn moment(time: &ApiTime) -> String {
    time.0.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}
