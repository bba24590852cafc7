//! The kinds of trend. Pure.

/// What a series does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// It rises, with no end in sight. What it rises by may lie beneath a warm-up.
    SteadyGrowth,
    /// It rises less and less, to a plateau.
    WarmUp,
    /// It changed at once, and is level otherwise.
    Step,
    /// It saws, and what each cycle leaves rises.
    RisingSawtooth,
    /// It saws, and comes back to where it was.
    Sawtooth,
    /// It does not change by more than would matter.
    Flat,
    /// It falls.
    Shrinking,
    /// The window is too short for the noise in it.
    Unknown,
}

impl Kind {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SteadyGrowth => "steady growth",
            Self::WarmUp => "warm-up",
            Self::Step => "step",
            Self::RisingSawtooth => "sawtooth with rising floor",
            Self::Sawtooth => "sawtooth",
            Self::Flat => "flat",
            Self::Shrinking => "shrinking",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it grows and nothing says that it will stop.
    #[must_use]
    pub const fn grows(self) -> bool {
        matches!(self, Self::SteadyGrowth | Self::RisingSawtooth)
    }
}
