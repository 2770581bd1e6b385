//! A bucket in a directory: the embedded store of one node, on its own disk or a mounted one.
//!
//! An object is a file, `<dir>/<key>`. It is written as `<dir>/.unfinished/<number>`, synced, renamed, and the directory synced; so what is under its
//! own name is whole and durable. What a crash left in `.unfinished` is removed at the next start. `<dir>/.lock` keeps a second process out, since
//! conditions are checked under no other lock than that one thread does everything.
//!
//! That thread, `myelin-bucket`, owns the reactor. Reads take an open file from it and read on the caller's thread. An etag is the xxh3-128 of the content.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use reactor::{Failure, File, Op, OpenMode, Reactor, Reader};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::bucket::{
    Body, Bucket, Condition, Etag, Listed, Listing, Object, Piece, Stat, check_key,
};
use crate::error::Error;
use crate::limits::{COPY_BYTES, LIST_MAX, OPEN_MAX, WHOLE_BYTES_MAX};

const UNFINISHED: &str = ".unfinished";
const LOCK: &str = ".lock";

/// See the module.
pub struct Filesystem {
    name: String,
    work: Sender<Work>,
}

type Work = Box<dyn FnOnce(&mut Disk) + Send>;

/// What the thread owns.
struct Disk {
    reactor: Reactor,
    dir: PathBuf,
    /// Files that readers came back to, by key; let go all at once when there are too many.
    open: HashMap<String, Reader>,
    /// Of the next unfinished file.
    number: u64,
}

/// A file being written.
struct Draft {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Filesystem {
    /// Opens a directory, which is made when missing. `open` makes the reactor of its thread.
    ///
    /// Errors: the directory cannot be made, or is another process' bucket.
    pub fn open(
        dir: &Path,
        open: impl FnOnce() -> Result<Reactor, reactor::Error> + Send + 'static,
    ) -> Result<Filesystem, Error> {
        let name = format!("filesystem {}", dir.display());
        let (work, todo) = channel::<Work>();
        let (ready, opened) = channel();
        let dir = dir.to_owned();
        let begin = move || {
            let disk = open()
                .map_err(|e| unavailable("", e.to_string()))
                .and_then(|reactor| Disk::open(reactor, dir));
            match disk {
                Err(error) => drop(ready.send(Err(error))),
                Ok(mut disk) => {
                    if ready.send(Ok(())).is_ok() {
                        todo.iter().for_each(|work| work(&mut disk));
                    }
                }
            }
        };
        let builder = std::thread::Builder::new().name("myelin-bucket".to_owned());
        let spawned = builder.spawn(begin);
        spawned.map_err(|e| unavailable("", format!("no thread for it: {e}")))?;
        opened.recv().expect("it answers or has panicked")?;
        Ok(Filesystem { name, work })
    }

    /// Does something on the thread and waits for it.
    fn on<T: Send + 'static>(&self, work: impl FnOnce(&mut Disk) -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        let work = move |disk: &mut Disk| drop(sender.send(work(disk)));
        let sent = self.work.send(Box::new(work));
        assert!(sent.is_ok(), "the thread serves until this is dropped");
        receiver.recv().expect("it answers or has panicked")
    }
}

impl std::fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filesystem({})", self.name)
    }
}

impl Bucket for Filesystem {
    fn name(&self) -> &str {
        &self.name
    }

    fn head(&self, key: &str) -> Result<Option<Stat>, Error> {
        check_key(key)?;
        let key = key.to_owned();
        self.on(move |disk| disk.head(&key))
    }

    fn get(&self, key: &str) -> Result<Option<Object>, Error> {
        check_key(key)?;
        let key = key.to_owned();
        self.on(move |disk| disk.get(&key))
    }

    fn read(&self, pieces: &[Piece]) -> Result<Vec<Vec<u8>>, Error> {
        let mut read = Vec::with_capacity(pieces.len());
        let mut last: Option<(&str, Reader)> = None;
        for Piece { key, range } in pieces {
            let reader = match last.take() {
                Some((known, reader)) if known == key => reader,
                _ => {
                    check_key(key)?;
                    let key = key.clone();
                    self.on(move |disk| disk.reader(&key))?
                }
            };
            read.push(read_range(&reader, key, range)?);
            last = Some((key, reader));
        }
        Ok(read)
    }

    fn put(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Stat, Error> {
        check_key(key)?;
        if bytes.len() > WHOLE_BYTES_MAX {
            return Err(too_long(key, bytes.len() as u64));
        }
        let (key, bytes, condition) = (key.to_owned(), bytes.to_vec(), condition.clone());
        self.on(move |disk| disk.put(&key, &bytes, &condition))
    }

    fn put_large(&self, key: &str, body: &mut dyn Body) -> Result<Stat, Error> {
        check_key(key)?;
        let owned = key.to_owned();
        let mut draft = self.on(move |disk| disk.begin(&owned))?;
        let mut hash = Xxh3::new();
        let mut filled = Ok(());
        while draft.len < body.len() && filled.is_ok() {
            let range = draft.len..body.len().min(draft.len + COPY_BYTES as u64);
            match body.read(range) {
                Err(reason) => {
                    let key = key.to_owned();
                    filled = Err(Error::Body { key, reason });
                }
                Ok(bytes) => {
                    hash.update(&bytes);
                    let owned = key.to_owned();
                    (draft, filled) = self.on(move |disk| {
                        let filled = disk.append(&mut draft, &bytes);
                        (draft, filled.map_err(|f| told(&owned, f)))
                    });
                }
            }
        }
        let (key, hash) = (key.to_owned(), etag(hash.digest128()));
        self.on(move |disk| match filled {
            Ok(()) => disk.finish(&key, draft, hash, true),
            Err(error) => {
                disk.discard(draft);
                Err(error)
            }
        })
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing, Error> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.on(move |disk| disk.list(&prefix, &after))
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        let key = key.to_owned();
        self.on(move |disk| disk.delete(&key))
    }

    /// Unfinished files go with the call that failed, or at the next start.
    fn sweep(&self, _: &str, _: i64) -> Result<u64, Error> {
        Ok(0)
    }
}

impl Disk {
    fn open(mut reactor: Reactor, dir: PathBuf) -> Result<Disk, Error> {
        let at = dir.display().to_string();
        let failed = |failure: Failure| told(&at, failure);
        let unfinished = dir.join(UNFINISHED);
        reactor.create_dirs(&unfinished).map_err(failed)?;
        let path = dir.join(LOCK);
        reactor.run(Op::Lock { path }).map_err(|failure| {
            match failure.source.kind() == std::io::ErrorKind::WouldBlock {
                true => unavailable(&at, "another process has it".to_owned()),
                false => told(&at, failure),
            }
        })?;
        let path = unfinished.clone();
        let left = reactor.run(Op::List { path }).map_err(failed)?.entries();
        for entry in left {
            let path = unfinished.join(entry.name);
            reactor.run(Op::Remove { path }).map_err(failed)?;
        }
        Ok(Disk {
            reactor,
            dir,
            open: HashMap::new(),
            number: 0,
        })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(key)
    }

    fn head(&mut self, key: &str) -> Result<Option<Stat>, Error> {
        let path = self.path(key);
        match self.reactor.run(Op::Stat { path }).map(|done| done.stat()) {
            Ok(stat) if stat.is_dir => Ok(None),
            Ok(stat) => Ok(Some(Stat {
                len: stat.len,
                etag: None,
            })),
            Err(failure) if is_nothing(&failure) => self.is_there(key).map(|()| None),
            Err(failure) => Err(told(key, failure)),
        }
    }

    /// That this is the bucket still: what is not in a directory that was moved away or unmounted is not nowhere.
    ///
    /// Errors: [`Error::Unavailable`].
    fn is_there(&mut self, key: &str) -> Result<(), Error> {
        let path = self.dir.join(LOCK);
        match self.reactor.run(Op::Stat { path }) {
            Ok(_) => Ok(()),
            Err(_) => {
                let reason = format!("{}: the bucket is not there", self.dir.display());
                Err(unavailable(key, reason))
            }
        }
    }

    fn get(&mut self, key: &str) -> Result<Option<Object>, Error> {
        let Some(stat) = self.head(key)? else {
            return Ok(None);
        };
        if stat.len > WHOLE_BYTES_MAX as u64 {
            return Err(too_long(key, stat.len));
        }
        let path = self.path(key);
        let bytes = self.reactor.read_whole(&path, stat.len as usize);
        let bytes = bytes.map_err(|failure| told(key, failure))?;
        let etag = etag(xxh3_128(&bytes));
        Ok(Some(Object { bytes, etag }))
    }

    fn reader(&mut self, key: &str) -> Result<Reader, Error> {
        if let Some(reader) = self.open.get(key) {
            return Ok(reader.clone());
        }
        let (path, mode) = (self.path(key), OpenMode::read_only());
        let opened = self.reactor.run(Op::Open { path, mode });
        let file = opened.map_err(|failure| told(key, failure))?.file();
        let reader = self.reactor.reader(file);
        let closed = self.reactor.run(Op::Close { file });
        closed.map_err(|failure| told(key, failure))?;
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(key.to_owned(), reader.clone());
        Ok(reader)
    }

    fn put(&mut self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Stat, Error> {
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => self.head(key)?.is_none(),
            Condition::Is(etag) => self.get(key)?.is_some_and(|found| found.etag == *etag),
        };
        if !holds {
            let key = key.to_owned();
            return Err(Error::Condition { key });
        }
        let mut draft = self.begin(key)?;
        for some in bytes.chunks(COPY_BYTES) {
            if let Err(failure) = self.append(&mut draft, some) {
                self.discard(draft);
                return Err(told(key, failure));
            }
        }
        self.finish(key, draft, etag(xxh3_128(bytes)), false)
    }

    fn begin(&mut self, key: &str) -> Result<Draft, Error> {
        self.number += 1;
        let path = self.dir.join(UNFINISHED).join(self.number.to_string());
        let mode = OpenMode::create_new();
        let open = Op::Open {
            path: path.clone(),
            mode,
        };
        let opened = self.reactor.run(open);
        let file = opened.map_err(|failure| told(key, failure))?.file();
        Ok(Draft { path, file, len: 0 })
    }

    fn append(&mut self, draft: &mut Draft, bytes: &[u8]) -> Result<(), Failure> {
        let mut buf = self.reactor.buffer(bytes.len());
        buf[..bytes.len()].copy_from_slice(bytes);
        let write = Op::Write {
            file: draft.file,
            offset: draft.len,
            buf,
            len: bytes.len(),
            dsync: false,
        };
        let (buf, _) = self.reactor.run(write)?.buffer();
        self.reactor.recycle(buf);
        draft.len += bytes.len() as u64;
        Ok(())
    }

    fn discard(&mut self, draft: Draft) {
        // What stays is removed at the next start.
        let Draft { path, file, .. } = draft;
        let _ = self.reactor.run(Op::Close { file });
        let _ = self.reactor.run(Op::Remove { path });
    }

    /// Makes a draft durable, `checked` reads it again, and gives it its name.
    fn finish(
        &mut self,
        key: &str,
        draft: Draft,
        etag: Etag,
        checked: bool,
    ) -> Result<Stat, Error> {
        let sync = Op::Sync {
            file: draft.file,
            data_only: false,
        };
        let mut whole = self.reactor.run(sync).map(drop).map_err(|f| told(key, f));
        if whole.is_ok() && checked {
            let reader = self.reactor.reader(draft.file);
            whole = check(&reader, key, draft.len, &etag);
        }
        if let Err(error) = whole {
            self.discard(draft);
            return Err(error);
        }
        let Draft { path, file, len } = draft;
        let to = self.path(key);
        let parent = to.parent().expect("it is below the directory").to_owned();
        let named = (|| {
            self.reactor.run(Op::Close { file })?;
            self.reactor.create_dirs(&parent)?;
            let from = path.clone();
            self.reactor.run(Op::Rename { from, to })?;
            self.reactor.run(Op::SyncDir { path: parent })
        })();
        self.open.remove(key);
        if let Err(failure) = named {
            let _ = self.reactor.run(Op::Remove { path });
            return Err(told(key, failure));
        }
        let etag = Some(etag);
        Ok(Stat { len, etag })
    }

    fn delete(&mut self, key: &str) -> Result<(), Error> {
        self.open.remove(key);
        let path = self.path(key);
        let mut parent = path.parent().map(Path::to_owned);
        match self.reactor.run(Op::Remove { path }) {
            Ok(_) => {}
            Err(failure) if is_nothing(&failure) => return Ok(()),
            Err(failure) => return Err(told(key, failure)),
        }
        // Directories that this left empty go too.
        while let Some(path) = parent.filter(|path| *path != self.dir) {
            let sync = Op::SyncDir { path: path.clone() };
            self.reactor.run(sync).map_err(|f| told(key, f))?;
            parent = path.parent().map(Path::to_owned);
            if self.reactor.run(Op::RemoveDir { path }).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn list(&mut self, prefix: &str, after: &str) -> Result<Listing, Error> {
        self.is_there(prefix)?;
        let mut found = Vec::new();
        let within = prefix.rsplit_once('/').map_or("", |(dir, _)| dir);
        self.walk(within, prefix, after, &mut found)?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        let more = found.len() > LIST_MAX;
        found.truncate(LIST_MAX);
        Ok(Listing {
            objects: found,
            more,
        })
    }

    fn walk(
        &mut self,
        within: &str,
        prefix: &str,
        after: &str,
        found: &mut Vec<Listed>,
    ) -> Result<(), Error> {
        let path = self.path(within);
        let entries = match self.reactor.run(Op::List { path }) {
            Ok(done) => done.entries(),
            Err(failure) if is_nothing(&failure) => return Ok(()),
            Err(failure) => return Err(told(within, failure)),
        };
        for entry in entries {
            let Some(name) = entry.name.to_str() else {
                continue;
            };
            if within.is_empty() && name.starts_with('.') {
                continue;
            }
            let mut key = match within {
                "" => name.to_owned(),
                within => format!("{within}/{name}"),
            };
            if entry.is_dir {
                let below = format!("{key}/");
                let is_near = below.starts_with(prefix) || prefix.starts_with(&below);
                let is_over = *below < *after && !after.starts_with(&below);
                if is_near && !is_over {
                    key.truncate(below.len() - 1);
                    self.walk(&key, prefix, after, found)?;
                }
            } else if key.starts_with(prefix) && *key > *after {
                let len = entry.len;
                found.push(Listed {
                    key,
                    len,
                    modified_ms: None,
                });
            }
        }
        Ok(())
    }
}

/// Reads a file again and compares.
fn check(reader: &Reader, key: &str, len: u64, expected: &Etag) -> Result<(), Error> {
    let mut hash = Xxh3::new();
    let mut at = 0;
    while at < len {
        let range = at..len.min(at + COPY_BYTES as u64);
        at = range.end;
        hash.update(&read_range(reader, key, &range)?);
    }
    let found = etag(hash.digest128());
    match found == *expected {
        true => Ok(()),
        false => Err(Error::Corrupt {
            key: key.to_owned(),
            what: "the xxh3-128 of what was written",
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

fn read_range(reader: &Reader, key: &str, range: &Range<u64>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let got = reader.read_at(range.start, &mut bytes);
    let got = got.map_err(|e| unavailable(key, format!("at {}: {e}", range.start)))?;
    match got == bytes.len() {
        true => Ok(bytes),
        false => Err(Error::Corrupt {
            key: key.to_owned(),
            what: "the length",
            expected: format!("{} or more", range.end),
            found: (range.start + got as u64).to_string(),
        }),
    }
}

fn etag(hash: u128) -> Etag {
    Etag(format!("{hash:032x}"))
}

/// A key below a file is nothing either.
fn is_nothing(failure: &Failure) -> bool {
    let kind = failure.source.kind();
    failure.is_not_found() || kind == std::io::ErrorKind::NotADirectory
}

fn too_long(key: &str, len: u64) -> Error {
    Error::Input {
        key: key.to_owned(),
        reason: format!("{len} bytes are too many to be moved whole"),
    }
}

fn unavailable(key: &str, reason: String) -> Error {
    let key = key.to_owned();
    Error::Unavailable { key, reason }
}

fn told(key: &str, failure: Failure) -> Error {
    let reason = failure.to_string();
    let key = key.to_owned();
    match failure.source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::NotFound { key },
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            Error::Refused { key, reason }
        }
        _ => Error::Unavailable { key, reason },
    }
}
