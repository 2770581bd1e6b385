//! The two halves of `myelin-bench verify`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::{Child, Server, binary};

/// A writer under way, and the file in which it remembers.
pub(crate) struct Verify {
    program: PathBuf,
    state: PathBuf,
}

impl Verify {
    pub(crate) fn new(folder: &Path) -> Option<Verify> {
        Some(Verify {
            program: binary("myelin-bench")?,
            state: folder.join("verify.state"),
        })
    }

    /// Starts writing; goes on until the server is gone or the seconds are over.
    pub(crate) fn write(&self, server: &Server, seconds: u32) -> Child {
        let log = self.state.with_extension("write.log");
        Child::start(
            Command::new(&self.program)
                .args(["verify", "write"])
                .arg(format!("--url={}", server.push_url()))
                .arg(format!("--state={}", self.state.display()))
                .arg(format!("--seconds={seconds}")),
            &log,
        )
    }

    /// Asks for everything that was acknowledged.
    pub(crate) fn check(&self, server: &Server) -> Output {
        Command::new(&self.program)
            .args(["verify", "check"])
            .arg(format!("--query-url={}/prometheus", server.url()))
            .arg(format!("--state={}", self.state.display()))
            .output()
            .expect("myelin-bench runs")
    }

    /// As [`Verify::check`]; panics with what is missing.
    pub(crate) fn assert_nothing_lost(&self, server: &mut Server, what: &str) {
        let output = self.check(server);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.status.success(),
            "{what}:\n{text}\n{}\nstatus {:?}\n{}",
            server.child().panics(),
            server.child().ended(),
            server.child().log()
        );
        println!("{what}: {}", text.lines().last().unwrap_or(""));
    }
}
