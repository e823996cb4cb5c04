//! What a container's status says of its resources (`kubelet-static-pods.md 4.5`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::plan::Size;
use crate::plan::status::ContainerStatus;

/// The resources that a container with an instance is given; `None` without an instance.
pub(super) fn resources(pod: &Pod, status: &ContainerStatus) -> Option<ResourceRequirements> {
    let spec = pod.spec.as_ref().filter(|_| !status.id.as_str().is_empty())?;
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let container = all.find(|c| c.name == status.name)?;
    let given = container.resources.clone().unwrap_or_default();
    Some(ResourceRequirements { claims: None, ..given })
}

/// The same as it is now, while it is being changed: `size` is what the instance still has.
pub(super) fn actual(mut given: ResourceRequirements, size: Option<Size>) -> ResourceRequirements {
    let Some(size) = size else { return given };
    let mut set = |limits: bool, name: &str, amount: i64, text: String| {
        let table = if limits { &mut given.limits } else { &mut given.requests };
        if amount == 0 {
            table.as_mut().map(|table| table.remove(name));
        } else {
            table.get_or_insert_with(BTreeMap::new).insert(name.to_owned(), Quantity(text));
        }
    };
    set(false, "cpu", size.cpu, cpu(size.cpu));
    set(true, "cpu", size.cpu_limit, cpu(size.cpu_limit));
    set(false, "memory", size.memory, memory(size.memory));
    set(true, "memory", size.memory_limit, memory(size.memory_limit));
    given
}

/// Thousandths in the API's canonical form.
fn cpu(milli: i64) -> String {
    if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
}

/// Bytes likewise.
fn memory(mut bytes: i64) -> String {
    let mut unit = 0;
    const UNITS: [&str; 5] = ["", "Ki", "Mi", "Gi", "Ti"];
    while unit + 1 < UNITS.len() && bytes != 0 && bytes % 1024 == 0 {
        bytes /= 1024;
        unit += 1;
    }
    format!("{bytes}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_a_container_is_resized_its_status_shows_what_it_still_has() {
        let text = "{limits: {cpu: 2, memory: 1Gi, hugepages-2Mi: 2Mi}, requests: {cpu: 1, memory: 1Gi}}";
        let given: ResourceRequirements = serde_yaml::from_str(text).unwrap();
        assert_eq!(actual(given.clone(), None), given);
        let size = Size { cpu: 250, cpu_limit: 0, memory: 64 << 20, memory_limit: 1536 };
        let now = actual(given, Some(size));
        let wanted = "{limits: {hugepages-2Mi: 2Mi, memory: \"1536\"}, requests: {cpu: 250m, memory: 64Mi}}";
        assert_eq!(now, serde_yaml::from_str(wanted).unwrap());
    }
}
