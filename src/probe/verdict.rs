//! What probes found of one instance of a container, as plain data. No I/O, no clock.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Probe};
use podstead_runtime::ContainerId;
use serde::{Deserialize, Serialize};

/// Verdicts by instance.
pub type Verdicts = BTreeMap<ContainerId, Verdict>;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Whether the container has come up; holds the others back until it has.
    Startup,
    /// Whether it must be started anew.
    Liveness,
    /// Whether it takes requests.
    Readiness,
}

impl Kind {
    /// All of them, in the order in which they matter.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];
}

/// As the kubelet's messages begin (`Liveness probe failed: ...`).
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        })
    }
}

/// The probes of a container, as its manifest has them, defaulted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probes {
    /// `startupProbe`.
    pub startup: Option<Probe>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
}

impl Probes {
    /// The probes of a container.
    pub fn of(container: &Container) -> Self {
        Self {
            startup: container.startup_probe.clone(),
            liveness: container.liveness_probe.clone(),
            readiness: container.readiness_probe.clone(),
        }
    }

    /// The probe of a kind.
    pub fn get(&self, kind: Kind) -> Option<&Probe> {
        match kind {
            Kind::Startup => self.startup.as_ref(),
            Kind::Liveness => self.liveness.as_ref(),
            Kind::Readiness => self.readiness.as_ref(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.get(*kind).is_none())
    }
}

/// What is known of one instance. A probe that the container does not have counts as passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its startup probe has passed.
    pub started: bool,
    /// Neither its startup nor its liveness probe has failed for good. Once `false` it stays so: this instance is to be
    /// replaced.
    pub alive: bool,
    /// It has started, and its readiness probe passes.
    pub ready: bool,
    /// Why it is not alive or not ready, as the kubelet puts it (`Liveness probe failed: HTTP probe failed with
    /// statuscode: 500`); empty when no probe has failed up to its threshold.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The probe that `message` is of; of an instance that is not alive, the one that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub which: Option<Kind>,
}

impl Verdict {
    /// Before any probe was made: not started, alive, not ready, as far as there are such probes
    /// (`kubelet-static-pods.md 3`, starting results).
    pub fn initial(probes: &Probes) -> Self {
        let started = probes.startup.is_none();
        Self {
            started,
            alive: true,
            ready: started && probes.readiness.is_none(),
            message: String::new(),
            which: None,
        }
    }

    /// A probe of these has reached one of its thresholds; `failure` is its message, `None` when it passed.
    pub fn set(&mut self, probes: &Probes, kind: Kind, failure: Option<String>) {
        match kind {
            Kind::Startup if failure.is_none() => {
                self.started = true;
                self.ready = probes.readiness.is_none();
            }
            Kind::Startup | Kind::Liveness => self.alive &= failure.is_none(),
            Kind::Readiness => self.ready = self.started && failure.is_none(),
        }
        let ended_by_another = |v: &Self| !v.alive && kind == Kind::Readiness;
        match failure {
            Some(message) if !ended_by_another(self) => {
                self.message = message;
                self.which = Some(kind);
            }
            None if self.which == Some(kind) => {
                self.message.clear();
                self.which = None;
            }
            _ => {}
        }
    }

    /// What a probe of this kind last came to; `None` when it did not yet.
    pub(super) fn result(&self, kind: Kind) -> Option<bool> {
        match kind {
            Kind::Startup if self.started => Some(true),
            Kind::Startup => (!self.alive).then_some(false),
            Kind::Liveness => Some(self.alive),
            Kind::Readiness => Some(self.ready),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(which: &str) -> Probes {
        let probe = |letter| which.contains(letter).then(Probe::default);
        Probes { startup: probe('s'), liveness: probe('l'), readiness: probe('r') }
    }

    fn shown(v: &Verdict) -> String {
        let mark = |holds: bool, letter: char| if holds { letter.to_ascii_uppercase() } else { letter };
        let flags: String = [mark(v.started, 's'), mark(v.alive, 'a'), mark(v.ready, 'r')].iter().collect();
        format!("{flags} {}", v.message).trim_end().to_owned()
    }

    #[test]
    fn what_a_container_begins_with() {
        for (kinds, begins) in
            [("", "SAR"), ("s", "sAr"), ("l", "SAR"), ("r", "SAr"), ("slr", "sAr"), ("sl", "sAr")]
        {
            assert_eq!(shown(&Verdict::initial(&probes(kinds))), begins, "{kinds:?}");
        }
    }

    #[test]
    fn what_probes_make_of_it() {
        use Kind::{Liveness, Readiness, Startup};
        type Results = &'static [(Kind, bool)];
        let cases: [(&str, Results, &str); 9] = [
            ("s", &[(Startup, true)], "SAR"),
            ("s", &[(Startup, false)], "sar Startup"),
            ("sr", &[(Startup, true)], "SAr"),
            ("sr", &[(Startup, true), (Readiness, true)], "SAR"),
            ("r", &[(Readiness, false)], "SAr Readiness"),
            ("r", &[(Readiness, false), (Readiness, true)], "SAR"),
            ("lr", &[(Readiness, true), (Liveness, false)], "SaR Liveness"),
            // What ended it stays the reason, and nothing brings it back to life.
            ("lr", &[(Liveness, false), (Readiness, false), (Liveness, true)], "Sar"),
            ("lr", &[(Liveness, false), (Readiness, false)], "Sar Liveness"),
        ];
        for (kinds, results, becomes) in cases {
            let probes = probes(kinds);
            let mut verdict = Verdict::initial(&probes);
            for (kind, passed) in results {
                verdict.set(&probes, *kind, (!passed).then(|| kind.to_string()));
            }
            assert_eq!(shown(&verdict), becomes, "{kinds} {results:?}");
        }
    }
}
