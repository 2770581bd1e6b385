//! Closed chunks of files that cannot stay: those of another generation are copied, those of damaged files are dropped.
//!
//! Both happen at a start, before the core serves. A file is gone through from its begin to its end, so that reads are sequential; the list of
//! its chunks (24 bytes each, some 10 MB for a full file) is all that this needs in memory.

use reactor::Reactor;

use super::{Memtable, NO_TENANT, Sealed};
use crate::Error;
use crate::chunkfile::{Place, bytes};

impl Memtable {
    /// Forgets all chunks in `file`; returns how many there were.
    pub(crate) fn drop_chunks_of(&mut self, file: u32) -> usize {
        let mut dropped = 0;
        for series in 0..self.colds.count() {
            self.drop_chunks(series, |place| place.file == file, &mut dropped);
        }
        dropped
    }

    fn drop_chunks(&mut self, series: u32, which: impl Fn(Place) -> bool, dropped: &mut usize) {
        let (chunks, totals) = (&mut self.chunks, &mut self.totals);
        self.colds[series].sealed.retain(|chunk| {
            let place = chunk.place();
            let goes = which(place);
            if goes {
                chunks.release(place);
                totals.sealed_chunks -= 1;
                totals.sealed_bytes -= u64::from(place.len);
                *dropped += 1;
            }
            !goes
        });
        if self.rows[series].tenant != NO_TENANT {
            *dropped += self.release_late(series, |chunk| which(chunk.place()));
        }
    }

    /// Copies all chunks in `file`, of another generation, into files of this one. Returns how many pieces were dropped by salvage.
    ///
    /// Errors: a chunk that cannot be read or is damaged, unless `salvage`; the disk.
    pub(crate) fn take_over(
        &mut self,
        reactor: &mut Reactor,
        file: u32,
        salvage: bool,
        notes: &mut Vec<String>,
    ) -> Result<u64, Error> {
        let mut found: Vec<(Place, i64, u32)> = Vec::new();
        for series in 0..self.colds.count() {
            let list = self.colds[series].sealed.iter();
            let of_file = list.filter(|chunk| chunk.place().file == file);
            found.extend(of_file.map(|chunk| (chunk.place(), chunk.min_time(), series)));
            self.for_each_late(series, |chunk| {
                if chunk.place().file == file {
                    found.push((chunk.place(), chunk.min_time(), series));
                }
            });
        }
        found.sort_unstable_by_key(|(place, ..)| place.offset);
        let mut dropped = 0;
        for (place, min_time, series) in found {
            let read = self.chunks.read(place);
            let checked = read.read().and_then(|sealed| {
                let sound = bytes::check(&sealed, min_time);
                sound
                    .map(|()| sealed)
                    .map_err(|reason| read.damaged(reason))
            });
            match checked {
                Ok(sealed) => {
                    let new = self.chunks.put(&sealed);
                    self.chunks.release(place);
                    let moved = |chunk: &mut Sealed| {
                        if chunk.place() == place {
                            *chunk = chunk.moved_to(new);
                        }
                    };
                    let list = &mut self.colds[series].sealed;
                    let at = list.partition_point(|chunk| chunk.min_time() < min_time);
                    list.get_mut(at).into_iter().for_each(moved);
                    self.for_each_late(series, moved);
                }
                Err(error) if salvage => {
                    notes.push(format!("salvage dropped a chunk: {error}"));
                    let mut count = 0;
                    self.drop_chunks(series, |other| other == place, &mut count);
                    dropped += 1;
                }
                Err(error) => {
                    return Err(Error::Chunk(error));
                }
            }
            let drained = self.chunks.drain(reactor);
            drained.map_err(|reason| Error::Chunk(crate::ReadError::Chunk(reason)))?;
        }
        self.chunks.forget_foreign(file);
        Ok(dropped)
    }
}
