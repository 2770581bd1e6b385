//! Small files whole, and directories: what start-up needs again and again, durable as named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Failure;
use crate::op::{Op, OpKind, OpenMode};
use crate::reactor::Reactor;

impl Reactor {
    /// Reads a whole file of at most `bytes_max`; a longer one is an `ErrorKind::FileTooLarge`.
    pub fn read_whole(&mut self, path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let mode = OpenMode::read_only();
        let file = self
            .run(Op::Open {
                path: path.to_owned(),
                mode,
            })?
            .file();
        let asked = bytes_max + 1;
        let buf = self.buffer(asked);
        let read = self.run(Op::Read {
            file,
            offset: 0,
            buf,
            len: asked,
        });
        self.run(Op::Close { file })?;
        let (buf, len) = read?.buffer();
        let content = buf[..len].to_vec();
        self.recycle(buf);
        if len > bytes_max {
            let source = std::io::ErrorKind::FileTooLarge.into();
            let path = Arc::from(path);
            return Err(Failure {
                op: OpKind::Read,
                path,
                offset: None,
                source,
                buf: None,
            });
        }
        Ok(content)
    }

    /// Replaces a whole file so that a crash leaves the old or the new one: written beside it as
    /// `<path>.new`, synced, renamed, directory synced. Durable when it returns.
    pub fn replace_whole(&mut self, path: &Path, content: &[u8]) -> Result<(), Failure> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        match self.run(Op::Remove {
            path: beside.clone(),
        }) {
            Ok(_) => (),
            Err(failure) if failure.is_not_found() => (),
            Err(failure) => return Err(failure),
        }
        let mode = OpenMode::create_new();
        let file = self
            .run(Op::Open {
                path: beside.clone(),
                mode,
            })?
            .file();
        let written = self.write_and_sync(file, content);
        let closed = self.run(Op::Close { file });
        written?;
        closed?;
        self.run(Op::Rename {
            from: beside,
            to: path.to_owned(),
        })?;
        self.run(Op::SyncDir { path: parent(path) })?;
        Ok(())
    }

    fn write_and_sync(&mut self, file: crate::File, content: &[u8]) -> Result<(), Failure> {
        if !content.is_empty() {
            let len = content.len();
            let mut buf = self.buffer(len);
            buf[..len].copy_from_slice(content);
            let write = Op::Write {
                file,
                offset: 0,
                buf,
                len,
                dsync: false,
            };
            let (buf, _) = self.run(write)?.buffer();
            self.recycle(buf);
        }
        self.run(Op::Sync {
            file,
            data_only: false,
        })?;
        Ok(())
    }

    /// Creates a directory and the missing ones above it, each made durable in its parent.
    ///
    /// Whoever made some of them before may have ended, or failed, before their names were synced. It went from the top down and synced each before it made the
    /// next, so only the lowest one that exists can be in doubt: its name is synced again.
    pub fn create_dirs(&mut self, path: &Path) -> Result<(), Failure> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        match self
            .run(Op::Stat {
                path: path.to_owned(),
            })
            .map(|done| done.stat())
        {
            Ok(stat) if stat.is_dir => return self.sync_name(path),
            Ok(_) => {
                let source = std::io::ErrorKind::NotADirectory.into();
                let path = Arc::from(path);
                return Err(Failure {
                    op: OpKind::CreateDir,
                    path,
                    offset: None,
                    source,
                    buf: None,
                });
            }
            Err(failure) if failure.is_not_found() => (),
            Err(failure) => return Err(failure),
        }
        let above = parent(path);
        self.create_dirs(&above)?;
        let made = match self.run(Op::CreateDir {
            path: path.to_owned(),
        }) {
            Ok(_) => true,
            // Another core was faster; it may not have synced the parent yet, so that is done here
            // too.
            Err(failure) if failure.source.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(failure) => return Err(failure),
        };
        let synced = self.sync_name(path);
        if made && synced.is_err() {
            // After a sync that failed the next one may say that all is well though the name is lost: whoever comes next makes it anew.
            let path = path.to_owned();
            let _ = self.run(Op::RemoveDir { path });
        }
        synced
    }

    /// Makes the name of a directory durable. Where the directory above is not ours to read, it is not ours to doubt either.
    fn sync_name(&mut self, path: &Path) -> Result<(), Failure> {
        match self.run(Op::SyncDir { path: parent(path) }) {
            Err(failure) if failure.source.kind() != std::io::ErrorKind::PermissionDenied => {
                Err(failure)
            }
            _ => Ok(()),
        }
    }
}

/// The directory of `path`; "." for a bare name.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
