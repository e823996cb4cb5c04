//! Validation of which nodes a pod wants, its system and its priority, in the API server's words. Pure; the rest of the
//! rules stand in `admit`.

use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use super::admit::Report;
use super::names;

const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];

/// All that a pod says about its node.
pub(super) fn node(spec: &PodSpec, report: &mut Report<'_>) {
    for (key, value) in spec.node_selector.iter().flatten() {
        let verdict = names::qualified(key).and_then(|()| names::label_value(value));
        report.verdict(&format!("spec.nodeSelector[{key}]"), verdict);
    }
    if let Some(affinity) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) {
        self::affinity(affinity, "spec.affinity.nodeAffinity", report);
    }
    if let Some(os) = &spec.os {
        report.one_of("spec.os.name", &os.name, &["linux", "windows"]);
    }
    if let Some(class) = spec.priority_class_name.as_deref().filter(|class| !class.is_empty()) {
        report.verdict("spec.priorityClassName", names::subdomain(class));
    }
}

fn affinity(affinity: &NodeAffinity, field: &str, report: &mut Report<'_>) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let field = format!("{field}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            report.add(&field, "must have at least one node selector term");
        }
        for (index, term) in required.node_selector_terms.iter().enumerate() {
            self::term(term, &format!("{field}[{index}]"), report);
        }
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (index, preference) in preferred.enumerate() {
        let field = format!("{field}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        if !(1..=100).contains(&preference.weight) {
            report.add(&format!("{field}.weight"), "must be in the range 1-100");
        }
        term(&preference.preference, &format!("{field}.preference"), report);
    }
}

fn term(term: &NodeSelectorTerm, field: &str, report: &mut Report<'_>) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        expression(requirement, &format!("{field}.matchExpressions[{index}]"), report);
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        match_field(requirement, &format!("{field}.matchFields[{index}]"), report);
    }
}

fn expression(requirement: &NodeSelectorRequirement, field: &str, report: &mut Report<'_>) {
    report.verdict(&format!("{field}.key"), names::qualified(&requirement.key));
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = format!("{field}.values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            report.add(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            report.add(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            report.add(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "Gt" | "Lt" if values[0].parse::<i64>().is_err() => {
            report.add(&format!("{at}[0]"), "for 'Gt', 'Lt' operators, the value must be an integer");
        }
        _ => {}
    }
    report.one_of(&format!("{field}.operator"), &requirement.operator, &OPERATORS);
    for (index, value) in values.iter().enumerate() {
        report.verdict(&format!("{at}[{index}]"), names::label_value(value));
    }
}

/// The name is the only field there is.
fn match_field(requirement: &NodeSelectorRequirement, field: &str, report: &mut Report<'_>) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = format!("{field}.values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            report.add(
                &at,
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        "In" | "NotIn" => {}
        other => {
            report.add(&format!("{field}.operator"), format!("\"{other}\" is not a valid selector operator"));
        }
    }
    if requirement.key != "metadata.name" {
        let message = format!("\"{}\" is not a valid field selector key", requirement.key);
        return report.add(&format!("{field}.key"), message);
    }
    for (index, value) in values.iter().enumerate() {
        report.verdict(&format!("{at}[{index}]"), names::subdomain(value));
    }
}
