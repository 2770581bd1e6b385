//! Whether the node takes writes: a switch for operators (`/ingester/mode`, `/api/v1/admin/mode`, `/ingester/shutdown`).
//!
//! A mode is of the process: it is not kept over a restart, which begins with `ACTIVE`. Reads go on in every mode.

use std::sync::atomic::{AtomicU8, Ordering};

/// What an operator wants of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything.
    Active,
    /// No writes (503, so that senders keep what they have and repeat it); otherwise as ever, and ready.
    ReadOnly,
    /// No writes, and not ready, so that traffic goes elsewhere; what was in flight finishes, and memory goes into blocks.
    Drain,
    /// As `Drain`, for good.
    Shutdown,
}

impl Mode {
    pub(crate) const ALL: [Mode; 4] = [Mode::Active, Mode::ReadOnly, Mode::Drain, Mode::Shutdown];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Active => "ACTIVE",
            Mode::ReadOnly => "READONLY",
            Mode::Drain => "DRAIN",
            Mode::Shutdown => "SHUTDOWN",
        }
    }

    /// Why writes are refused; `None` where they are not.
    pub(crate) fn refusal(self) -> Option<&'static str> {
        match self {
            Mode::Active => None,
            Mode::ReadOnly => Some("told to be read-only: writes are refused"),
            Mode::Drain => Some("told to drain: writes are refused"),
            Mode::Shutdown => Some("told to shut down: writes are refused"),
        }
    }

    /// Whether traffic is to go elsewhere.
    pub(crate) fn is_leaving(self) -> bool {
        matches!(self, Mode::Drain | Mode::Shutdown)
    }

    /// A mode that can be asked for by name, in any case.
    pub(crate) fn named(name: &str) -> Result<Mode, String> {
        let can_be_asked = [Mode::Active, Mode::ReadOnly, Mode::Drain];
        let is_it = |mode: &Mode| mode.name().eq_ignore_ascii_case(name);
        let found = can_be_asked.into_iter().find(is_it);
        found.ok_or_else(|| format!("mode is {name:?}, must be ACTIVE, READONLY or DRAIN"))
    }
}

/// The mode in force.
#[derive(Debug, Default)]
pub(crate) struct Switch(AtomicU8);

impl Switch {
    pub(crate) fn now(&self) -> Mode {
        Mode::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    /// Errors: nothing leads back from [`Mode::Shutdown`].
    pub(crate) fn set(&self, mode: Mode) -> Result<(), String> {
        let at = Mode::ALL.iter().position(|one| *one == mode);
        let at = at.expect("all modes are in the list") as u8;
        let last = (Mode::ALL.len() - 1) as u8;
        let moved = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now != last || at == last).then_some(at)
            });
        let told = |_| "the node was told to shut down, which is for good".to_owned();
        moved.map(drop).map_err(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_can_be_left_but_for_the_last() {
        let switch = Switch::default();
        assert_eq!(switch.now(), Mode::Active);
        for mode in [
            Mode::ReadOnly,
            Mode::Active,
            Mode::Drain,
            Mode::Active,
            Mode::Shutdown,
        ] {
            switch.set(mode).unwrap();
            assert_eq!(switch.now(), mode);
            assert_eq!(mode.refusal().is_none(), mode == Mode::Active);
        }
        assert!(switch.set(Mode::Active).is_err() && switch.now() == Mode::Shutdown);
        assert!(switch.set(Mode::Shutdown).is_ok(), "once more is no error");
        assert_eq!(Mode::named("READONLY"), Ok(Mode::ReadOnly));
        assert_eq!(Mode::named("readonly"), Ok(Mode::ReadOnly));
        assert!(Mode::named("SHUTDOWN").is_err() && Mode::named("read").is_err());
    }
}
