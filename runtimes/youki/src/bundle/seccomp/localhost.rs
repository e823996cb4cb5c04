//! Profile files of the node's administrator, in the JSON format of the container runtimes. Pure: text in, rules out.

use oci_spec::runtime::{Arch, LinuxSeccompAction as Action, LinuxSeccompFilterFlag, LinuxSeccompOperator};
use serde::Deserialize;

use super::{Condition, Filter, Rule};
use crate::bundle::capability::Granted;

/// The oldest kernel this runtime works on (openat2).
const OLDEST_KERNEL: (u32, u32) = (5, 6);

/// What conditions in a profile are decided by.
pub(super) struct Facts<'a> {
    pub granted: &'a Granted,
    pub kernel: Option<(u32, u32)>,
    /// The native architecture and those that come with it.
    pub architectures: Vec<Arch>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: Action,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    flags: Vec<LinuxSeccompFilterFlag>,
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: Action,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Wanted>,
    #[serde(default)]
    excludes: Option<Wanted>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: usize,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: LinuxSeccompOperator,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The rules of a profile file, or why it is refused.
pub(super) fn filter(text: &str, facts: &Facts<'_>) -> Result<Filter, String> {
    let document: Document = serde_json::from_str(text).map_err(|e| format!("it is not a profile: {e}"))?;
    if document.listener_path.as_ref().is_some_and(|path| !path.is_empty()) {
        return Err("it wants a listener for notifications, which is not supported".to_owned());
    }
    if !document.architectures.is_empty() && !document.arch_map.is_empty() {
        return Err("it has both architectures and archMap; one of them says all".to_owned());
    }
    let mut rules = Vec::new();
    for group in document.syscalls {
        if applies(&group, facts)? {
            rules.push(rule(group)?);
        }
    }
    let notify = |action: Action| action == Action::ScmpActNotify;
    if notify(document.default_action) || rules.iter().any(|rule| notify(rule.action)) {
        return Err("it uses SCMP_ACT_NOTIFY, which is not supported".to_owned());
    }
    let native = facts.architectures.first();
    let mapped = document
        .arch_map
        .into_iter()
        .find(|map| Some(&map.architecture) == native)
        .map(|map| [vec![map.architecture], map.sub_architectures.unwrap_or_default()].concat());
    Ok(Filter {
        default_action: document.default_action,
        default_errno: document.default_errno_ret,
        architectures: mapped.unwrap_or(document.architectures),
        flags: document.flags,
        rules,
    })
}

fn rule(group: Group) -> Result<Rule, String> {
    let mut names = group.names;
    names.extend(group.name);
    if names.is_empty() {
        return Err("an entry of syscalls has no names".to_owned());
    }
    let conditions = group.args.unwrap_or_default().into_iter().map(|argument| {
        if argument.index > 5 {
            return Err(format!("{} has no argument {}; they are 0 to 5", names.join(" "), argument.index));
        }
        let Argument { index, value, value_two, op } = argument;
        Ok(Condition { argument: index, operator: op, value, masked: value_two })
    });
    let conditions = conditions.collect::<Result<_, _>>()?;
    Ok(Rule { names, action: group.action, errno: group.errno_ret, conditions })
}

/// Includes must all hold, of excludes not one.
fn applies(group: &Group, facts: &Facts<'_>) -> Result<bool, String> {
    let default = Wanted::default();
    let wanted = group.includes.as_ref().unwrap_or(&default);
    let unwanted = group.excludes.as_ref().unwrap_or(&default);
    let has = |name: &String| {
        let upper = name.to_ascii_uppercase();
        facts.granted.has(upper.strip_prefix("CAP_").unwrap_or(&upper))
    };
    let runs = |arches: &[String]| arches.iter().any(|arch| is_native(arch, facts));
    let included = wanted.caps.iter().flatten().all(has)
        && wanted.arches.as_ref().is_none_or(|arches| arches.is_empty() || runs(arches))
        && wanted.min_kernel.as_deref().map_or(Ok(true), |text| kernel_is(text, facts))?;
    let excluded = unwanted.caps.iter().flatten().any(has)
        || runs(unwanted.arches.as_deref().unwrap_or_default())
        || unwanted.min_kernel.as_deref().map_or(Ok(false), |text| kernel_is(text, facts))?;
    Ok(included && !excluded)
}

/// Architectures of conditions go by the names of Go.
fn is_native(name: &str, facts: &Facts<'_>) -> bool {
    let arch = match name {
        "amd64" => Arch::ScmpArchX86_64,
        "x32" => Arch::ScmpArchX32,
        "x86" | "386" => Arch::ScmpArchX86,
        "arm64" => Arch::ScmpArchAarch64,
        "arm" => Arch::ScmpArchArm,
        _ => return false,
    };
    facts.architectures.contains(&arch)
}

fn kernel_is(minimum: &str, facts: &Facts<'_>) -> Result<bool, String> {
    let mut parts = minimum.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok(facts.kernel.unwrap_or(OLDEST_KERNEL) >= (major, minor)),
        _ => Err(format!("minKernel \"{minimum}\" is not of the form 4.8")),
    }
}
