//! Progress on stderr: a line that renews itself on a terminal, a new line every few seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// One long piece of work.
pub(crate) struct Progress {
    terminal: bool,
    quiet: bool,
    shown: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Progress {
        Progress {
            terminal: std::io::stderr().is_terminal(),
            quiet,
            shown: None,
        }
    }

    /// Shows what `line` says, if it is time to.
    pub(crate) fn tick(&mut self, line: impl FnOnce() -> String) {
        let every = if self.terminal {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(5)
        };
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= every);
        if due && !self.quiet {
            self.show(&line());
        }
    }

    /// The last line, shown in any case, and the end of it.
    pub(crate) fn finish(&mut self, line: &str) {
        if !self.quiet {
            self.show(line);
            if self.terminal {
                eprintln!();
            }
        }
        self.shown = None;
    }

    fn show(&mut self, line: &str) {
        self.shown = Some(Instant::now());
        let mut stderr = std::io::stderr().lock();
        // A closed stderr is no reason to stop.
        let _ = if self.terminal {
            write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        };
    }
}
