//! The seccomp profile of a container. Pure.
//!
//! `table` is the runtime's own profile, `localhost` reads profile files; both end as [`Rule`]s, and only this
//! module knows what libcontainer makes of them.

mod localhost;
mod table;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use podstead_runtime::Profile;

use super::Input;
use super::capability::Granted;
use super::error::{Blame, Error};

/// A profile with all its conditions decided.
struct Filter {
    default_action: LinuxSeccompAction,
    default_errno: Option<u32>,
    architectures: Vec<Arch>,
    flags: Vec<LinuxSeccompFilterFlag>,
    rules: Vec<Rule>,
}

/// What happens to some system calls.
struct Rule {
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    conditions: Vec<Condition>,
}

/// A comparison of one argument.
#[derive(Clone, Copy)]
struct Condition {
    argument: usize,
    operator: LinuxSeccompOperator,
    /// What is compared with; of a masked comparison the mask.
    value: u64,
    /// Of a masked comparison what must be left under the mask.
    masked: u64,
}

/// The filter to load, if any.
pub(super) fn profile(input: &Input<'_>, granted: &Granted) -> Result<Option<LinuxSeccomp>, Error> {
    let container = input.container;
    if container.security.privileged {
        return Ok(None);
    }
    let architectures = architectures(std::env::consts::ARCH);
    let filter = match &container.security.seccomp {
        Profile::Unconfined => return Ok(None),
        Profile::RuntimeDefault => {
            if architectures.is_empty() {
                return Err(Blame(&container.name).unsupported(format!(
                    "the runtime's default seccomp profile on {}",
                    std::env::consts::ARCH
                )));
            }
            table::filter(architectures, granted)
        }
        Profile::Localhost(path) => {
            let refused = |reason: String| Error::Seccomp {
                container: container.name.clone(),
                path: path.clone(),
                reason,
            };
            let text = input.localhost_seccomp.ok_or_else(|| refused("the file was not read".to_owned()))?;
            let facts = localhost::Facts { granted, kernel: input.node.kernel, architectures };
            localhost::filter(text, &facts).map_err(refused)?
        }
    };
    Ok(Some(to_oci(filter)))
}

/// The native architecture and those its kernel runs besides.
fn architectures(native: &str) -> Vec<Arch> {
    match native {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => Vec::new(),
    }
}

fn to_oci(filter: Filter) -> LinuxSeccomp {
    let mut seccomp = LinuxSeccomp::default();
    seccomp
        .set_default_action(filter.default_action)
        .set_default_errno_ret(filter.default_errno)
        .set_architectures((!filter.architectures.is_empty()).then_some(filter.architectures))
        .set_flags((!filter.flags.is_empty()).then_some(filter.flags))
        .set_listener_path(None)
        .set_syscalls(Some(filter.rules.into_iter().map(rule_to_oci).collect()));
    seccomp
}

fn rule_to_oci(rule: Rule) -> LinuxSyscall {
    let arguments: Vec<LinuxSeccompArg> = rule.conditions.iter().map(condition_to_oci).collect();
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(rule.names)
        .set_action(rule.action)
        .set_errno_ret(rule.errno)
        .set_args((!arguments.is_empty()).then_some(arguments));
    syscall
}

/// libcontainer 0.7 takes `value` for what is compared and `valueTwo` for the mask, the reverse of the
/// runtime-spec. Written as the spec has it, the filter would let no process be made.
fn condition_to_oci(condition: &Condition) -> LinuxSeccompArg {
    let masked = condition.operator == LinuxSeccompOperator::ScmpCmpMaskedEq;
    let (value, two) =
        if masked { (condition.masked, Some(condition.value)) } else { (condition.value, None) };
    let mut argument =
        LinuxSeccompArgBuilder::default().index(condition.argument).op(condition.operator).value(value);
    if let Some(two) = two {
        argument = argument.value_two(two);
    }
    argument.build().expect("every field of the builder has a default")
}

#[cfg(test)]
mod tests;
