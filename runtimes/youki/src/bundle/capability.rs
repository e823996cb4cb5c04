//! Capabilities of a container. Pure.

use std::collections::BTreeSet;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use podstead_runtime::ContainerSecurity;
use podstead_runtime::security::CAPABILITIES as ALL;

use super::error::{Blame, Error};

/// What a container has when its pod says nothing: the set the CRI runtimes give.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The capabilities of one container, by name without `CAP_`.
pub(super) struct Granted {
    set: BTreeSet<&'static str>,
    ambient: BTreeSet<&'static str>,
}

impl Granted {
    /// Default set, `ALL` of either list, then the additions, then the removals. What the runtime itself does not
    /// hold (`mask`, as in `CapBnd` of proc(5)) is left out, since giving it away fails the whole container.
    pub(super) fn of(
        blame: Blame<'_>,
        security: &ContainerSecurity,
        mask: Option<u64>,
        devices_are_ruled: bool,
    ) -> Result<Self, Error> {
        let add = names(blame, &security.add_capabilities)?;
        let drop = names(blame, &security.drop_capabilities)?;
        let ambient = names(blame, &security.ambient_capabilities)?;
        let mut set: BTreeSet<&'static str> = if security.privileged || add.all {
            ALL.into()
        } else if drop.all {
            BTreeSet::new()
        } else {
            // Where no rule says which devices may be used, a container must not make those it was not given.
            DEFAULT.into_iter().filter(|name| devices_are_ruled || *name != "MKNOD").collect()
        };
        if !security.privileged {
            set.extend(&add.named);
            set.retain(|name| !drop.named.contains(name));
        }
        set.extend(&ambient.named);
        let held = |name: &str| {
            mask.is_none_or(|mask| {
                ALL.iter().position(|known| *known == name).is_some_and(|bit| mask & (1 << bit) != 0)
            })
        };
        set.retain(|name| held(name));
        let ambient = ambient.named.into_iter().filter(|name| set.contains(name)).collect();
        Ok(Self { set, ambient })
    }

    /// Whether it is among them; the name without `CAP_`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    /// As the process wants them. Inheritable holds no more than the ambient ones: a full set there lets every
    /// file with inheritable capabilities raise its own.
    pub(super) fn to_oci(&self) -> LinuxCapabilities {
        let all = to_set(&self.set);
        let ambient = to_set(&self.ambient);
        let mut capabilities = LinuxCapabilities::default();
        capabilities
            .set_bounding(Some(all.clone()))
            .set_effective(Some(all.clone()))
            .set_permitted(Some(all))
            .set_inheritable(Some(ambient.clone()))
            .set_ambient(Some(ambient));
        capabilities
    }
}

fn to_set(names: &BTreeSet<&'static str>) -> Capabilities {
    names.iter().filter_map(|name| name.parse::<Capability>().ok()).collect()
}

struct Names {
    all: bool,
    named: BTreeSet<&'static str>,
}

/// Names with or without `CAP_`, in any case.
fn names(blame: Blame<'_>, list: &[String]) -> Result<Names, Error> {
    let mut names = Names { all: false, named: BTreeSet::new() };
    for given in list {
        let upper = given.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            names.all = true;
        } else if let Some(known) = ALL.iter().find(|known| **known == name) {
            names.named.insert(known);
        } else {
            return Err(blame.invalid(format!("capability \"{given}\""), "there is no such capability"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        let security = ContainerSecurity {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            ..ContainerSecurity::default()
        };
        Granted::of(Blame("c"), &security, None, true).unwrap().set.into_iter().collect()
    }

    #[test]
    fn every_name_is_one_of_the_libraries() {
        assert_eq!(to_set(&ALL.into()).len(), 41);
        assert!(DEFAULT.iter().all(|name| ALL.contains(name)));
    }

    #[test]
    fn lists_are_added_to_and_taken_from_the_default() {
        assert_eq!(granted(&[], &[]).len(), 14);
        assert!(granted(&["CAP_NET_ADMIN"], &[]).contains(&"NET_ADMIN"));
        assert!(!granted(&[], &["net_raw"]).contains(&"NET_RAW"));
        assert_eq!(granted(&["NET_BIND_SERVICE"], &["ALL"]), ["NET_BIND_SERVICE"]);
        assert_eq!(granted(&["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert_eq!(granted(&["ALL"], &["ALL"]).len(), 41, "as the CRI runtimes have it");
    }

    #[test]
    fn an_unknown_name_is_an_error_and_one_the_node_lacks_is_left_out() {
        let security =
            ContainerSecurity { add_capabilities: vec!["SYS_ADMINN".into()], ..ContainerSecurity::default() };
        assert!(Granted::of(Blame("c"), &security, None, true).is_err());
        let security = ContainerSecurity { privileged: true, ..ContainerSecurity::default() };
        let granted = Granted::of(Blame("c"), &security, Some(0x1ff_feff_ffff), true).unwrap();
        assert_eq!((granted.set.len(), granted.has("SYS_RESOURCE")), (40, false));
    }

    #[test]
    fn ambient_ones_are_inheritable_and_no_others_are() {
        let security = ContainerSecurity {
            ambient_capabilities: vec!["NET_ADMIN".into()],
            ..ContainerSecurity::default()
        };
        let oci = Granted::of(Blame("c"), &security, None, true).unwrap().to_oci();
        let net_admin = Capabilities::from([Capability::NetAdmin]);
        assert_eq!((oci.ambient(), oci.inheritable()), (&Some(net_admin.clone()), &Some(net_admin)));
        assert_eq!(oci.permitted().as_ref().unwrap().len(), 15);
    }
}
