//! Whether a directory takes O_DIRECT, found out by trying.
//!
//! `statx` says what alignment the file system wants, where it says anything; but only a trial
//! write shows that O_DIRECT together with O_DSYNC really works there (tmpfs, FUSE and some network
//! file systems refuse it, or refuse it late). The answer decides how the log opens its segments,
//! and is logged and exported.

use std::path::Path;

use crate::blocking;
use crate::limits::DIRECT_ALIGNMENT;
use crate::op::{Op, OpenMode};
use crate::reactor::{Reactor, World};

/// What [`Reactor::probe`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whether files in the directory may be opened `direct`.
    pub direct: bool,
    /// Alignment to keep, in bytes: `DIRECT_ALIGNMENT` if direct, else 1.
    pub alignment: u32,
    /// What the device itself asks for, `(memory, offset)`, where the kernel tells.
    pub device: Option<(u32, u32)>,
    /// Why not, if not direct.
    pub reason: Option<String>,
}

impl Probe {
    fn refused(device: Option<(u32, u32)>, reason: String) -> Probe {
        Probe {
            direct: false,
            alignment: 1,
            device,
            reason: Some(reason),
        }
    }
}

impl Reactor {
    /// Tries O_DIRECT | O_DSYNC with a temporary file in `dir`, which it removes again. For
    /// start-up: it blocks for a few writes. A directory that cannot be written at all is also
    /// "refused", with that reason.
    pub fn probe(&mut self, dir: &Path) -> Probe {
        let path = dir.join(format!(".direct-io-probe-{}", std::process::id()));
        // A file left by a crash during an earlier probe.
        let _ = self.run(Op::Remove { path: path.clone() });
        let probe = self.probe_file(&path);
        let _ = self.run(Op::Remove { path });
        probe
    }

    fn probe_file(&mut self, path: &Path) -> Probe {
        let mode = OpenMode::create_new().dsync(true);
        let file = match self.run(Op::Open {
            path: path.to_owned(),
            mode,
        }) {
            Ok(done) => done.file(),
            Err(failure) => return Probe::refused(None, failure.to_string()),
        };
        if let Err(failure) = self.run(Op::Close { file }) {
            return Probe::refused(None, failure.to_string());
        }
        let device = match self.world() {
            World::Sim => None,
            World::Uring | World::Threads => blocking::direct_alignment(path).ok().flatten(),
        };
        if let Some((memory, offset)) = device {
            if memory == 0 || offset == 0 {
                return Probe::refused(device, "statx says: no direct I/O on this file".to_owned());
            }
            if memory.max(offset) as usize > DIRECT_ALIGNMENT {
                let reason =
                    format!("the device wants an alignment of {memory} and {offset} bytes");
                return Probe::refused(device, reason);
            }
        }
        let mode = OpenMode {
            read: true,
            write: true,
            direct: true,
            dsync: true,
            ..OpenMode::default()
        };
        let file = match self.run(Op::Open {
            path: path.to_owned(),
            mode,
        }) {
            Ok(done) => done.file(),
            Err(failure) => return Probe::refused(device, failure.to_string()),
        };
        let trial = self.trial_write(file);
        let closed = self.run(Op::Close { file });
        match trial.and_then(|()| closed.map(drop).map_err(|failure| failure.to_string())) {
            Ok(()) => Probe {
                direct: true,
                alignment: DIRECT_ALIGNMENT as u32,
                device,
                reason: None,
            },
            Err(reason) => Probe::refused(device, reason),
        }
    }

    fn trial_write(&mut self, file: crate::File) -> Result<(), String> {
        let mut buf = self.buffer(DIRECT_ALIGNMENT);
        let len = DIRECT_ALIGNMENT;
        buf[..len].fill(0xA5);
        let write = Op::Write {
            file,
            offset: 0,
            buf,
            len,
            dsync: false,
        };
        let (mut buf, _) = self
            .run(write)
            .map_err(|failure| failure.to_string())?
            .buffer();
        buf.fill(0);
        let read = Op::Read {
            file,
            offset: 0,
            buf,
            len,
        };
        let (buf, count) = self
            .run(read)
            .map_err(|failure| failure.to_string())?
            .buffer();
        let equal = count == len && buf[..len].iter().all(|&byte| byte == 0xA5);
        self.recycle(buf);
        if equal {
            Ok(())
        } else {
            Err("a direct write could not be read back".to_owned())
        }
    }
}
