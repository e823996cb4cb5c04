//! A pod's volumes in kubectl's words. Pure; cells are parted by tabs.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Volume;

/// All of them.
pub fn text(out: &mut String, volumes: &[Volume]) {
    if volumes.is_empty() {
        let _ = writeln!(out, "Volumes:\t<none>");
        return;
    }
    let _ = writeln!(out, "Volumes:");
    for volume in volumes {
        let _ = writeln!(out, "  {}:", volume.name);
        for (name, value) in rows(volume) {
            let _ = writeln!(out, "    {name}:\t{}", super::pod::one_line(&value));
        }
    }
}

fn rows(volume: &Volume) -> Vec<(&'static str, String)> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some(host) = &volume.host_path {
        return vec![
            ("Type", "HostPath (bare host directory volume)".to_owned()),
            ("Path", host.path.clone()),
            ("HostPathType", text(&host.type_)),
        ];
    }
    if let Some(empty) = &volume.empty_dir {
        let limit = empty.size_limit.as_ref().map_or("<unset>".to_owned(), |q| q.0.clone());
        return vec![
            ("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)".to_owned()),
            ("Medium", text(&empty.medium)),
            ("SizeLimit", limit),
        ];
    }
    if let Some(map) = &volume.config_map {
        return vec![
            ("Type", "ConfigMap (a volume populated by a ConfigMap)".to_owned()),
            ("Name", map.name.clone()),
            ("Optional", map.optional.unwrap_or(false).to_string()),
        ];
    }
    if let Some(secret) = &volume.secret {
        return vec![
            ("Type", "Secret (a volume populated by a Secret)".to_owned()),
            ("SecretName", text(&secret.secret_name)),
            ("Optional", secret.optional.unwrap_or(false).to_string()),
        ];
    }
    if let Some(api) = &volume.downward_api {
        let mut rows =
            vec![("Type", "DownwardAPI (a volume populated by information about the pod)".to_owned())];
        for item in api.items.iter().flatten() {
            let field = item.field_ref.as_ref().map(|f| f.field_path.clone());
            let resource = item.resource_field_ref.as_ref().map(|r| r.resource.clone());
            rows.push(("Item", format!("{} -> {}", field.or(resource).unwrap_or_default(), item.path)));
        }
        return rows;
    }
    if let Some(image) = &volume.image {
        return vec![
            ("Type", "Image (a container image or OCI artifact)".to_owned()),
            ("Reference", text(&image.reference)),
            ("PullPolicy", text(&image.pull_policy)),
        ];
    }
    if volume.projected.is_some() {
        let what = "Projected (a volume that contains injected data from multiple sources)";
        return vec![("Type", what.to_owned())];
    }
    vec![("Type", "<unknown>".to_owned())]
}
