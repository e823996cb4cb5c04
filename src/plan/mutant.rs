//! Planted bugs, one at a time, to prove that the simulation sees them. Without the feature `mutants` every question
//! is answered `false` at compile time.

/// A bug that the simulation must catch.
macro_rules! mutants {
    ($($name:ident)*) => {
        #[doc(hidden)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each name says what it breaks")]
        pub enum Mutant { $($name),* }

        /// The checked list.
        #[cfg(feature = "mutants")]
        #[doc(hidden)]
        pub const ALL: &[Mutant] = &[$(Mutant::$name),*];
    };
}

mutants! {
    AdmitBusy
    AdmitOutdated
    NameNotHeld
    LeftoversDoNotHoldName
    RemovesWhileIncomplete
    NoCrashBackOff
    BackOffForgotten
    BackOffNeverResets
    AttemptReused
    FloorIgnored
    ExitZeroNotRestarted
    CreatedNotStarted
    SandboxStoppedFirst
    GraceIgnored
    SandboxNotReleased
    SandboxNotRemoved
    DeadNotCollected
    LeftoversNotCleaned
    NoWakeForBackOff
    NoWakeForFailure
    FailureNeverRetried
    FailureNotPaused
    DeadSandboxKept
    SecondSandboxKept
    NoPrepare
    ReplacedWithoutStop
    UnknownIgnored
    CompletedSandboxKept
    LeavingForgotten
    FreshSandboxAttempt
    InitNotRepeated
    InitAlwaysRepeated
    FailedInitPassed
    RunningInitPassed
    SidecarNotAwaited
    SidecarsDoNotOutlive
    HookNotAwaited
    HookForgotten
    UnhealthyKept
    DeadlineIgnored
    RoundNeverEnds
    RoundsOverlap
    RoundNotPaused
    RoundForgotten
}

/// Whether `mutant` is planted now.
#[cfg(not(feature = "mutants"))]
#[inline]
pub(super) const fn planted(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether `mutant` is planted now.
#[cfg(feature = "mutants")]
pub(super) fn planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Plants a bug in this thread, or takes it out again.
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}
