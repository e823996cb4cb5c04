//! Which pods have a place on the node, which wait for one, and which must give theirs to a critical one
//! (`kubelet-static-pods.md 5.5`). All pods are judged together, so that no two get the same room.

use std::collections::{BTreeMap, BTreeSet};

use podstead_runtime::{PodUid, Time};

use super::draft::{Draft, View};
use super::known::Known;
use super::mutant::{Mutant, planted};
use super::room::{CLAIM, Claim, PODS, Rank, Refusal, Room};
use super::sandbox;
use super::types::{Desired, Observed, Pod};
use super::victims;

/// Who has a place, and who has not.
#[derive(Default)]
pub(super) struct Places {
    /// Pods with a place, what each takes: those that wait for their first sandbox and those on their way out as well.
    pub placed: BTreeMap<PodUid, Claim>,
    /// Why pods may not begin.
    pub refused: BTreeMap<PodUid, Refusal>,
    /// Pods that are taken away for a critical one's sake.
    pub preempted: BTreeSet<PodUid>,
}

/// A pod that has a place or is given one.
#[derive(Clone)]
pub(super) struct Holder<'a> {
    pub uid: &'a PodUid,
    full_name: String,
    pub claim: Claim,
    pub rank: Rank,
    /// Whether it is to stay.
    pub stays: bool,
    /// Whether a manifest asks for it.
    wanted: bool,
    /// Whether anything of it is there.
    there: bool,
    /// It has no place yet, but nobody else gets the room.
    reserved: bool,
}

impl Holder<'_> {
    /// Whether a critical pod may have its place.
    pub fn may_go(&self) -> bool {
        let lesser = !self.rank.critical || (planted(Mutant::CriticalPreempted) && self.there);
        self.stays && self.wanted && !self.reserved && lesser
    }
}

/// A resource of which there is not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Lack {
    /// How much is missing.
    pub fn missing(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }

    fn refusal(&self) -> Refusal {
        let Self { resource, requested, used, capacity } = self;
        Refusal {
            reason: format!("OutOf{resource}"),
            message: format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        }
    }
}

/// What the judgement is made from.
pub(super) struct Court<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub known: &'a Known,
    pub now: Time,
    pub views: &'a BTreeMap<PodUid, View<'a>>,
    /// The pod that may have each name.
    pub names: &'a BTreeMap<String, &'a PodUid>,
}

impl<'a> Court<'a> {
    /// Judges all pods.
    pub fn decide(&self) -> Places {
        let mut places = Places::default();
        let (mut holders, mut waiting) = (Vec::new(), Vec::new());
        for (uid, view) in self.views {
            let pod = self.desired.pods.get(uid);
            if pod.is_some() && self.known.preempted.contains(uid) && view.there() {
                places.preempted.insert(uid.clone());
            }
            let stays = pod.is_some_and(|pod| self.stays(uid, pod, view));
            let holder = self.holder(uid, view, stays);
            match pod {
                _ if self.has_place(uid, view, pod, stays) => holders.push(holder),
                Some(pod) if stays && self.wants(uid, pod, view) => match &pod.refused {
                    Some(refusal) => drop(places.refused.insert(uid.clone(), refusal.clone())),
                    None => waiting.push(holder),
                },
                _ => {}
            }
        }
        waiting.sort_by(|a, b| {
            let first = |h: &Holder<'_>| !h.rank.critical && !planted(Mutant::CriticalLast);
            let then = |h: &Holder<'a>| (h.rank.arrived, h.full_name.clone(), h.uid);
            first(a).cmp(&first(b)).then_with(|| then(a).cmp(&then(b)))
        });
        let mut next = 0;
        while let Some(pod) = waiting.get(next).cloned() {
            next += 1;
            match self.admit(&pod, &mut holders, &mut places, &mut waiting) {
                Ok(()) => holders.push(pod),
                Err(refusal) => drop(places.refused.insert(pod.uid.clone(), refusal)),
            }
        }
        let placed = holders.into_iter().filter(|h| !h.reserved);
        places.placed = placed.map(|h| (h.uid.clone(), h.claim)).collect();
        places
    }

    /// Whether the pod is not on its way out. One that was, and is gone, is a pod like others.
    fn stays(&self, uid: &PodUid, pod: &Pod, view: &View<'_>) -> bool {
        let leaving = self.known.leaving.contains(uid) || self.known.preempted.contains(uid);
        !(leaving && view.there()) && self.names.get(&pod.identity.full_name()) == Some(&uid)
    }

    fn holder(&self, uid: &'a PodUid, view: &'a View<'a>, stays: bool) -> Holder<'a> {
        let pod = self.desired.pods.get(uid);
        let written = || view.sandboxes.first().and_then(|s| s.annotations.get(CLAIM)?.parse().ok());
        let claim = match pod {
            Some(pod) if stays => Some(pod.claim.clone()),
            _ => self.known.placed.get(uid).cloned().or_else(written),
        };
        Holder {
            uid,
            full_name: pod.map_or_else(|| view.full_name.clone(), |pod| pod.identity.full_name()),
            claim: claim.or_else(|| pod.map(|pod| pod.claim.clone())).unwrap_or_default(),
            rank: pod.map(|pod| pod.rank).unwrap_or_default(),
            // What nobody asks for is not on its way out before all sources were read.
            stays: stays || (pod.is_none() && !self.desired.complete),
            wanted: pod.is_some(),
            there: view.there(),
            reserved: false,
        }
    }

    fn draft(&self, uid: &'a PodUid) -> Draft<'a> {
        Draft::new(uid, "", self.observed, self.known, self.now)
    }

    /// Whether the pod needs a place: it is not over for good.
    fn wants(&self, uid: &'a PodUid, pod: &Pod, view: &View<'_>) -> bool {
        sandbox::wanted(&mut self.draft(uid), pod, view)
    }

    /// What is there uses its place; what was given one keeps it until it is over or gone.
    fn has_place(&self, uid: &'a PodUid, view: &View<'_>, pod: Option<&Pod>, stays: bool) -> bool {
        let draft = self.draft(uid);
        let uses = view.sandboxes.iter().any(|s| draft.holds_network(s))
            || view.containers.iter().any(|c| draft.may_run(c));
        let given = self.known.placed.contains_key(uid) && !planted(Mutant::PlaceForgotten);
        match pod {
            _ if uses && !planted(Mutant::RunningNotCounted) => true,
            // What was taken down and comes back asks anew.
            Some(pod) if stays => {
                let again = self.known.leaving.contains(uid) && !planted(Mutant::PlaceSurvivesItsPod);
                given && !again && pod.refused.is_none() && self.wants(uid, pod, view)
            }
            _ => given && view.there() && !planted(Mutant::LeavingNotCounted),
        }
    }

    /// Gives the pod a place, or says why not. A critical one may take the place of others: it waits for their end.
    fn admit(
        &self,
        pod: &Holder<'a>,
        holders: &mut Vec<Holder<'a>>,
        places: &mut Places,
        waiting: &mut Vec<Holder<'a>>,
    ) -> Result<(), Refusal> {
        // It has the place of its predecessor, for whose end it waits in any case.
        let beside = |h: &&Holder<'_>| h.stays || h.full_name != pod.full_name;
        if holders.iter().filter(beside).any(|h| h.claim.conflicts(&pod.claim))
            && !planted(Mutant::PortsIgnored)
        {
            let message =
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
            return Err(Refusal { reason: "NodePorts".to_owned(), message: message.to_owned() });
        }
        let Some(room) = &self.desired.room else { return Ok(()) };
        let lacks = lacking(room, holders.iter().filter(beside), &pod.claim);
        let Some(first) = lacks.first().filter(|_| !planted(Mutant::RoomIgnored)) else { return Ok(()) };
        if !pod.rank.critical || !self.desired.complete {
            return Err(first.refusal());
        }
        let ends_free = |h: &&Holder<'_>| h.stays || planted(Mutant::EndingNotAwaited);
        let lacks = lacking(room, holders.iter().filter(ends_free), &pod.claim);
        if !lacks.is_empty() {
            let Some(chosen) = victims::choose(&lacks, holders) else { return Err(first.refusal()) };
            for uid in chosen {
                let Some(at) = holders.iter().position(|h| *h.uid == uid) else { continue };
                if holders[at].there {
                    holders[at].stays = false;
                    places.preempted.insert(uid);
                } else {
                    waiting.push(holders.remove(at));
                }
            }
            if lacking(room, holders.iter().filter(beside), &pod.claim).is_empty() {
                return Ok(());
            }
        }
        if planted(Mutant::PreemptorDoesNotWait) {
            return Ok(());
        }
        if !planted(Mutant::RoomNotReserved) {
            holders.push(Holder { reserved: true, ..pod.clone() });
        }
        Err(first.refusal())
    }
}

/// Of which resources the pod asks for more than the others leave; in the kubelet's order.
fn lacking<'h, 'p: 'h>(
    room: &Room,
    others: impl Iterator<Item = &'h Holder<'p>>,
    claim: &Claim,
) -> Vec<Lack> {
    const FIRST: [&str; 4] = [PODS, "cpu", "memory", "ephemeral-storage"];
    let others: Vec<&Holder<'_>> = others.collect();
    let rest = claim.requests.keys().map(String::as_str).filter(|name| !FIRST.contains(name));
    let lack = |resource: &str| {
        let used = others.iter().map(|h| h.claim.of(resource)).fold(0_i64, i64::saturating_add);
        let (requested, capacity) = (claim.of(resource), room.of(resource));
        let fits = requested <= 0 || requested <= capacity.saturating_sub(used);
        (!fits).then(|| Lack { resource: resource.to_owned(), requested, used, capacity })
    };
    FIRST.into_iter().chain(rest).filter_map(lack).collect()
}
