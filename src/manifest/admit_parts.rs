//! Validation of resources, of containers and of the pod as a whole. Pure; the rest of the rules stand in `admit`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::admit::Report;
use crate::pod::requests::{self, HUGE_PAGES};
use crate::quantity::Amount;

/// What resources belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Container,
    Pod,
}

/// A container's resources and what follows from a change of them.
pub(super) fn container(spec: &PodSpec, container: &Container, field: &str, report: &mut Report<'_>) {
    resources(container.resources.as_ref(), Of::Container, &format!("{field}.resources"), report);
    let never = spec.restart_policy.as_deref() == Some("Never");
    let mut seen = BTreeSet::new();
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        let field = format!("{field}.resizePolicy[{index}]");
        let (name, restart) = (policy.resource_name.as_str(), policy.restart_policy.as_str());
        report.one_of(&format!("{field}.resourceName"), name, &["cpu", "memory"]);
        report.one_of(&format!("{field}.restartPolicy"), restart, &["NotRequired", "RestartContainer"]);
        if !seen.insert(name) {
            report.add(&field, format!("\"{name}\" has two policies"));
        }
        if never && restart != "NotRequired" {
            report.add(&field, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

/// The pod's own resources, and that its containers' fit into them.
pub(super) fn pod(spec: &PodSpec, report: &mut Report<'_>) {
    resources(spec.resources.as_ref(), Of::Pod, "spec.resources", report);
    let Some(own) = requests::pod_level(spec) else { return };
    let without = PodSpec { resources: None, ..spec.clone() };
    within(own.requests.as_ref(), &requests::requests(&without), "requests", |_| true, report);
    within(own.limits.as_ref(), &requests::limits(&without), "limits", |n| n.starts_with(HUGE_PAGES), report);
    for (field, container) in containers(spec) {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        for (name, limit) in limits.into_iter().flatten() {
            let Some(pods) = own.limits.as_ref().and_then(|limits| limits.get(name)) else { continue };
            if parsed(limit).zip(parsed(pods)).is_some_and(|(own, pods)| own > pods) {
                let message =
                    format!("\"{}\" must be less than or equal to pod limits of {}", limit.0, pods.0);
                report.add(&format!("{field}.resources.limits[{name}]"), message);
            }
        }
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let regular = spec.containers.iter().enumerate();
    let init = spec.init_containers.iter().flatten().enumerate();
    let regular = regular.map(|(index, c)| (format!("spec.containers[{index}]"), c));
    regular.chain(init.map(|(index, c)| (format!("spec.initContainers[{index}]"), c)))
}

/// What the pod has of a resource is no less than its containers have together.
fn within(
    own: Option<&BTreeMap<String, Quantity>>,
    together: &BTreeMap<String, i64>,
    kind: &str,
    about: fn(&str) -> bool,
    report: &mut Report<'_>,
) {
    for (name, sum) in together.iter().filter(|(name, _)| about(name) && requests::is_pod_level(name)) {
        let Some(amount) = own.and_then(|own| requests::amount(own, name)) else { continue };
        if amount < *sum {
            let text = own.and_then(|own| own.get(name)).map(|q| q.0.clone()).unwrap_or_default();
            let sum = if name == "cpu" { format!("{sum}m") } else { sum.to_string() };
            let message =
                format!("\"{text}\" must be greater than or equal to aggregate container {kind} of {sum}");
            report.add(&format!("spec.resources.{kind}[{name}]"), message);
        }
    }
}

fn parsed(quantity: &Quantity) -> Option<Amount> {
    quantity.0.parse().ok()
}

/// Quantities are valid, known, not negative, and requests stay within limits.
fn resources(resources: Option<&ResourceRequirements>, of: Of, field: &str, report: &mut Report<'_>) {
    let Some(resources) = resources else { return };
    let limits = amounts(resources.limits.iter().flatten(), of, &format!("{field}.limits"), report);
    // A request that was defaulted from its limit is not reported a second time.
    let own = resources.requests.iter().flatten().filter(|(name, request)| {
        resources.limits.as_ref().and_then(|limits| limits.get(*name)) != Some(*request)
    });
    let requests = amounts(own, of, &format!("{field}.requests"), report);
    for (name, (request, text)) in &requests {
        let huge = name.starts_with(HUGE_PAGES);
        let at = format!("{field}.requests[{name}]");
        match limits.get(name) {
            Some((limit, limit_text)) if huge && request != limit => {
                report.add(&at, format!("\"{text}\" must be equal to {name} limit of {limit_text}"));
            }
            Some((limit, limit_text)) if request > limit => {
                report.add(&at, format!("{text} is more than the limit, {limit_text}"));
            }
            None if huge => {
                report.add(&format!("{field}.limits"), "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let mut names = limits.keys().chain(requests.keys());
    if names.clone().any(|name| name.starts_with(HUGE_PAGES))
        && !names.any(|n| matches!(*n, "cpu" | "memory"))
    {
        report.add(field, "HugePages require cpu or memory");
    }
}

type Amounts<'q> = BTreeMap<&'q str, (Amount, &'q str)>;

fn amounts<'q>(
    quantities: impl Iterator<Item = (&'q String, &'q Quantity)>,
    of: Of,
    field: &str,
    report: &mut Report<'_>,
) -> Amounts<'q> {
    let mut amounts = Amounts::new();
    for (name, Quantity(text)) in quantities {
        let field = format!("{field}[{name}]");
        let page = name.strip_prefix(HUGE_PAGES);
        match (of, name.as_str()) {
            (_, "cpu" | "memory") | (Of::Container, "ephemeral-storage") => {}
            _ if page.is_some() => {}
            (Of::Pod, _) => {
                report.add(&field, format!("\"{name}\" is not one of cpu, memory, hugepages-<size>"));
                continue;
            }
            (Of::Container, _) => {
                let version = env!("CARGO_PKG_VERSION");
                let known = "cpu, memory, ephemeral-storage and hugepages-<size>";
                report.add(&field, format!("not supported yet by podstead {version}: resources but {known}"));
                continue;
            }
        }
        match text.parse::<Amount>() {
            Err(error) => report.add(&field, error.to_string()),
            Ok(amount) if amount.nano() < 0 => report.add(&field, "must not be negative"),
            Ok(amount) => {
                if let Some(page) = page {
                    report.verdict(&field, pages(amount, text, name, page));
                }
                amounts.insert(name, (amount, text));
            }
        }
    }
    amounts
}

/// An amount of huge pages is a number of them.
fn pages(amount: Amount, text: &str, name: &str, page: &str) -> Result<(), String> {
    match page.parse::<Amount>() {
        Ok(page) if page.nano() > 0 && amount.nano() % page.nano() == 0 => Ok(()),
        Ok(page) if page.nano() > 0 => Err(format!("{text} is not positive integer multiple of {name}")),
        _ => Err(format!("\"{page}\" is no size of a huge page; the node has such as 2Mi or 1Gi")),
    }
}
