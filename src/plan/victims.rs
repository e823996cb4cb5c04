//! Which pods give their place to a critical one: as few as will do, the least of them first
//! (`kubelet-static-pods.md 5.5`).

use podstead_runtime::PodUid;

use super::fit::{Holder, Lack};
use super::mutant::{Mutant, planted};
use super::room::Qos;

/// What is still missing, by resource.
type Needs = Vec<(String, i64)>;

/// The pods whose end gives what is lacking; `None` if no pods' end does.
pub(super) fn choose<'p>(lacks: &[Lack], holders: &[Holder<'p>]) -> Option<Vec<PodUid>> {
    let needs: Needs = lacks.iter().map(|lack| (lack.resource.clone(), lack.missing())).collect();
    let of = |qos: Qos| -> Vec<&Holder<'p>> {
        holders.iter().filter(|h| h.rank.qos == qos && h.may_go()).collect()
    };
    let (best_effort, burstable, guaranteed) = (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    // The better class gives only what all of the lesser ones cannot.
    let mut chosen = Vec::new();
    if planted(Mutant::BestPreemptedFirst) {
        chosen = closest(guaranteed.clone(), &needs).unwrap_or_default();
    }
    let lesser = [best_effort.as_slice(), burstable.as_slice()].concat();
    chosen.extend(closest(guaranteed, &left(&needs, &lesser))?);
    let others = [best_effort.as_slice(), chosen.as_slice()].concat();
    chosen.extend(closest(burstable, &left(&needs, &others))?);
    chosen.extend(closest(best_effort, &left(&needs, &chosen))?);
    if planted(Mutant::MoreThanNeededPreempted) {
        return Some(holders.iter().filter(|h| h.may_go()).map(|h| h.uid.clone()).collect());
    }
    Some(chosen.into_iter().map(|h| h.uid.clone()).collect())
}

/// Takes one after the other, each time the one that leaves least missing, until nothing is.
fn closest<'h, 'p>(mut pods: Vec<&'h Holder<'p>>, all: &Needs) -> Option<Vec<&'h Holder<'p>>> {
    let mut chosen = Vec::new();
    let mut needs = all.clone();
    while !needs.is_empty() {
        let order = |a: &Holder<'_>, b: &Holder<'_>| {
            let size = |h: &Holder<'_>| (h.claim.of("memory"), h.claim.of("cpu"));
            // Of two alike the one that came last goes.
            let age = |h: &Holder<'_>| (std::cmp::Reverse(h.rank.arrived), h.uid.clone());
            let by_size = size(a).cmp(&size(b)).then_with(|| age(a).cmp(&age(b)));
            distance(a, &needs).total_cmp(&distance(b, &needs)).then(by_size)
        };
        let best = (0..pods.len()).min_by(|a, b| order(pods[*a], pods[*b]))?;
        let pod = pods.swap_remove(best);
        needs = left(&needs, &[pod]);
        chosen.push(pod);
    }
    spare(&mut chosen, all);
    Some(chosen)
}

/// Lets go whom the others make unnecessary, the largest first.
fn spare(chosen: &mut Vec<&Holder<'_>>, needs: &Needs) {
    chosen.sort_by_key(|h| (std::cmp::Reverse((h.claim.of("memory"), h.claim.of("cpu"))), h.uid));
    let mut at = 0;
    while at < chosen.len() {
        let pod = chosen.remove(at);
        if !left(needs, chosen).is_empty() {
            chosen.insert(at, pod);
            at += 1;
        }
    }
}

/// How far the pod's end is from enough: the missing parts, squared and added, each resource counting alike.
#[allow(clippy::cast_precision_loss, reason = "it orders, and ties are broken by exact numbers")]
fn distance(pod: &Holder<'_>, needs: &Needs) -> f64 {
    let part = |(resource, missing): &(String, i64)| {
        let rest = missing.saturating_sub(pod.claim.of(resource)).max(0);
        (rest as f64 / *missing as f64).powi(2)
    };
    needs.iter().map(part).sum()
}

/// What is missing still when these are gone.
fn left(needs: &Needs, gone: &[&Holder<'_>]) -> Needs {
    let rest = |(resource, missing): &(String, i64)| {
        let given = gone.iter().map(|h| h.claim.of(resource)).fold(0_i64, i64::saturating_add);
        (resource.clone(), missing.saturating_sub(given))
    };
    needs.iter().map(rest).filter(|(_, missing)| *missing > 0).collect()
}
