//! Child processes that die with their handle, free ports, and what the kernel says about a process.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A running program; its output goes to a file. Killed when dropped.
pub struct Child {
    inner: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts `command` with standard output and error appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Child {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log can be written");
        let err = out.try_clone().expect("a file can be shared");
        let inner = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Child {
            inner,
            log: log.to_owned(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// What it has printed so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The lines of the log that tell where something panicked and why: what is to be read first, and may be all that is left of a long log.
    pub fn panics(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let told = lines
            .windows(2)
            .filter(|two| two[0].contains(" panicked at "));
        told.map(|two| format!("{}\n{}\n", two[0], two[1]))
            .collect()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.inner.try_wait().expect("a child can be asked")
    }

    /// Stops it where it stands (SIGSTOP), and waits until none of its threads runs: what it has not said by then it will not say.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.pid());
        crate::wait_until(
            "every thread to stand still",
            Duration::from_secs(20),
            || {
                let tasks = std::fs::read_dir(&tasks).expect("a child that was not reaped");
                tasks.flatten().all(|task| {
                    let stat =
                        std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                    // "pid (name) state ..": workers of io_uring in the kernel are tasks too and do not stop; they say nothing.
                    let (name, rest) = stat.rsplit_once(") ").unwrap_or_default();
                    name.contains("(iou-") || rest.is_empty() || rest.starts_with('T')
                })
            },
        );
    }

    /// Sends a signal, by number.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes plain numbers; the pid is that of our own child, which has not been reaped yet.
        unsafe { libc::kill(self.inner.id() as i32, signal) };
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.inner.kill();
        let _ = self.inner.wait();
    }

    /// Waits for the end by itself. Panics with its output after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "still running after {limit:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// CPU seconds (user and system, all threads) of a process so far.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |i: usize| {
        fields
            .get(i)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident bytes of a process.
pub fn rss_bytes(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    statm
        .split_whitespace()
        .nth(1)
        .and_then(|p| p.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096
}
