//! Validation of resources. Pure; the rest of the rules stand in `admit`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::admit::Report;
use crate::quantity::Amount;

/// Quantities are valid, known, not negative, and requests stay within limits.
pub(super) fn resources(resources: Option<&ResourceRequirements>, field: &str, report: &mut Report<'_>) {
    let Some(resources) = resources else { return };
    let limits = amounts(resources.limits.iter().flatten(), &format!("{field}.limits"), report);
    // A request that was defaulted from its limit is not reported a second time.
    let own = resources.requests.iter().flatten().filter(|(name, request)| {
        resources.limits.as_ref().and_then(|limits| limits.get(*name)) != Some(*request)
    });
    let requests = amounts(own, &format!("{field}.requests"), report);
    for (name, (request, text)) in &requests {
        if let Some((limit, limit_text)) = limits.get(name)
            && request > limit
        {
            let message = format!("{text} is more than the limit, {limit_text}");
            report.add(&format!("{field}.requests[{name}]"), message);
        }
    }
}

type Amounts<'q> = BTreeMap<&'q str, (Amount, &'q str)>;

fn amounts<'q>(
    quantities: impl Iterator<Item = (&'q String, &'q Quantity)>,
    field: &str,
    report: &mut Report<'_>,
) -> Amounts<'q> {
    let mut amounts = Amounts::new();
    for (name, Quantity(text)) in quantities {
        let field = format!("{field}[{name}]");
        if !matches!(name.as_str(), "cpu" | "memory") {
            let version = env!("CARGO_PKG_VERSION");
            report.add(
                &field,
                format!("not supported yet by podstead {version}: resources but cpu and memory"),
            );
            continue;
        }
        match text.parse::<Amount>() {
            Err(error) => report.add(&field, error.to_string()),
            Ok(amount) if amount.nano() < 0 => report.add(&field, "must not be negative"),
            Ok(amount) => {
                amounts.insert(name, (amount, text));
            }
        }
    }
    amounts
}
