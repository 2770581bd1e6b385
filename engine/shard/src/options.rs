//! What an operator can choose of the cores.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reactor::IoMode;

use crate::limits::{
    CHECKPOINT_LOG_BYTES_DEFAULT, CHUNK_FILE_BYTES_DEFAULT, CHUNK_SAMPLES_DEFAULT,
    QUEUE_BYTES_DEFAULT, READS_MAX_DEFAULT,
};
use crate::{Error, ExemplarsMax, Memory, Retentions};

/// Bytes of the worst sample in a chunk: 146 bits.
const CHUNK_SAMPLE_BYTES_MAX: usize = 19;

/// What stands around a chunk in a checkpoint: headers of chunk, record and frame, series and times.
const CHUNK_RECORD_BYTES: usize = 256;

/// Options of [`crate::Cores::start`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the log lives; made when missing.
    pub data_dir: PathBuf,
    /// Directories that the logs and chunk files of the cores are spread over instead, each of which exists.
    pub core_dirs: Vec<PathBuf>,
    /// Such directories that the cores are to leave.
    pub core_dirs_leaving: Vec<PathBuf>,
    /// Such directories that are gone for good, as the manifest calls them: their cores start without what they had there.
    pub core_dirs_lost: Vec<PathBuf>,
    /// The CPU of each core, as [`crate::topology::cores`] chose them.
    pub cores: Vec<usize>,
    /// io_uring, helper threads, or whatever works.
    pub io: IoMode,
    /// See [`QUEUE_BYTES_DEFAULT`].
    pub queue_bytes_per_core: u64,
    /// See [`READS_MAX_DEFAULT`].
    pub reads_max_per_core: u32,
    /// See [`CHUNK_SAMPLES_DEFAULT`].
    pub chunk_samples_max: u16,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// See [`CHECKPOINT_LOG_BYTES_DEFAULT`].
    pub checkpoint_log_bytes: u64,
    /// See [`CHUNK_FILE_BYTES_DEFAULT`].
    pub chunk_file_bytes: u32,
    /// Sample time kept of a tenant that has been replayed but has not pushed yet (a push brings its tenant's own limits).
    pub retention: Duration,
    /// Tenants of which another time is kept; [`crate::Message::Retentions`] replaces them.
    pub retentions: Arc<Retentions>,
    /// How many exemplars of a tenant a start keeps of what it finds in the log; [`crate::Message::ExemplarsMax`] tells of changes, and a push brings its tenant's own.
    pub exemplars_max: Arc<ExemplarsMax>,
    /// The level above which no series are made; no limit by default.
    pub memory: Memory,
    /// Drop the rest of a corrupt log segment and count it, instead of refusing to start.
    pub salvage: bool,
    /// How long a node whose log failed goes on answering reads before it ends itself.
    pub poison_linger: Duration,
}

impl Options {
    /// The defaults, for a directory and a set of CPUs.
    pub fn new(data_dir: impl Into<PathBuf>, cores: Vec<usize>) -> Options {
        Options {
            data_dir: data_dir.into(),
            core_dirs: Vec::new(),
            core_dirs_leaving: Vec::new(),
            core_dirs_lost: Vec::new(),
            cores,
            io: IoMode::Auto,
            queue_bytes_per_core: QUEUE_BYTES_DEFAULT,
            reads_max_per_core: READS_MAX_DEFAULT,
            chunk_samples_max: CHUNK_SAMPLES_DEFAULT,
            segment_bytes: 64 << 20,
            checkpoint_log_bytes: CHECKPOINT_LOG_BYTES_DEFAULT,
            chunk_file_bytes: CHUNK_FILE_BYTES_DEFAULT,
            retention: Duration::from_secs(24 * 3600),
            retentions: Arc::default(),
            exemplars_max: Arc::default(),
            memory: Memory::default(),
            salvage: false,
            poison_linger: Duration::from_secs(60),
        }
    }

    /// Bytes of the first segment of a new log: small, so that a fresh node serves at once.
    pub(crate) fn segment_bytes_first(&self) -> u64 {
        self.segment_bytes.min(wal::SEGMENT_BYTES_FIRST)
    }

    /// Bytes of a commit at most: a fraction of a segment, so that even small segments hold several.
    pub(crate) fn group_bytes(&self) -> usize {
        let quarter = self.segment_bytes / 4 / 4096 * 4096;
        (quarter as usize).clamp(8 << 10, wal::GROUP_BYTES)
    }

    /// All directories of cores that there are.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        self.core_dirs.iter().chain(&self.core_dirs_leaving)
    }

    /// Errors: the first option whose value makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        let bad = |key, reason: String| Err(Error::Option { key, reason });
        if self.cores.is_empty() || self.cores.len() > crate::topology::CORES_MAX {
            return bad("cores", format!("{} cores", self.cores.len()));
        }
        // Those that are lost stay in the manifest for a while.
        let named = || self.directories().chain(&self.core_dirs_lost);
        if named().count() > wal::DIRECTORIES_MAX {
            let reason = format!("more than {} directories", wal::DIRECTORIES_MAX);
            return bad("core-dirs", reason);
        }
        for (at, path) in named().enumerate() {
            let before = named().take(at);
            let others = before.chain([&self.data_dir]);
            let mut overlapping =
                others.filter(|other| path.starts_with(other) || other.starts_with(path));
            if let Some(other) = overlapping.next() {
                let (path, other) = (path.display(), other.display());
                let reason = format!("{path} is, or lies within, or contains {other}");
                return bad("core-dirs", reason);
            }
            let bytes = path.as_os_str().len();
            if bytes == 0 || bytes > wal::DIRECTORY_PATH_BYTES_MAX {
                return bad("core-dirs", format!("a path of {bytes} bytes"));
            }
        }
        if self.queue_bytes_per_core < 1 << 16 {
            return bad("queue-bytes-per-core", "less than 64 KiB".to_owned());
        }
        if self.reads_max_per_core == 0 {
            return bad("reads-max-per-core", "0 lets no query in".to_owned());
        }
        if !(2..=4096).contains(&self.chunk_samples_max) {
            let reason = format!("{} is not between 2 and 4096", self.chunk_samples_max);
            return bad("chunk-samples-max", reason);
        }
        if self.segment_bytes < 1 << 16
            || self.segment_bytes > 1 << 30
            || !self.segment_bytes.is_multiple_of(4096)
        {
            return bad(
                "segment-bytes",
                "not a multiple of 4 KiB from 64 KiB to 1 GiB".to_owned(),
            );
        }
        // A checkpoint holds an open chunk as one record, which has to fit into a frame.
        let chunk_bytes = usize::from(self.chunk_samples_max) * CHUNK_SAMPLE_BYTES_MAX;
        if chunk_bytes + CHUNK_RECORD_BYTES > self.group_bytes() {
            let reason = format!(
                "a chunk of {} samples may have {chunk_bytes} bytes, which do not fit into a commit of {} bytes (a quarter of segment-bytes)",
                self.chunk_samples_max,
                self.group_bytes()
            );
            return bad("chunk-samples-max", reason);
        }
        if self.checkpoint_log_bytes < self.segment_bytes {
            return bad("checkpoint-log-bytes", "less than a segment".to_owned());
        }
        if !(1 << 12..=1 << 30).contains(&self.chunk_file_bytes) {
            return bad("chunk-file-bytes", "not from 4 KiB to 1 GiB".to_owned());
        }
        if self.retention.is_zero() {
            return bad("retention", "0 would keep nothing".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_nonsense_names_its_key() {
        let good = Options::new("data", vec![0]);
        good.validate().unwrap();
        let bad = Options {
            chunk_samples_max: 1,
            ..good.clone()
        };
        assert!(
            bad.validate()
                .unwrap_err()
                .to_string()
                .starts_with("chunk-samples-max: ")
        );
        for (dirs, leaving, lost) in [
            (&["a", "b", "a"][..], &[][..], &[][..]),
            (&["data"], &[], &[]),
            (&["data/cores"], &[], &[]),
            (&["a", "b"], &["b/deeper"], &[]),
            (&[""], &[], &[]),
            // What is there is not lost, and nothing is without the data directory.
            (&["a", "b"], &[], &["b"]),
            (&["a"], &["b"], &["c", "b"]),
            (&["a"], &[], &["c", "c"]),
            (&["a"], &[], &["data"]),
            (&["a"], &[], &[""]),
        ] {
            let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
            let odd = Options {
                core_dirs: paths(dirs),
                core_dirs_leaving: paths(leaving),
                core_dirs_lost: paths(lost),
                ..good.clone()
            };
            let refused = odd.validate().unwrap_err().to_string();
            assert!(refused.starts_with("core-dirs: "), "{refused}");
        }
        let fine = Options {
            core_dirs: vec!["a".into(), "ab".into(), "data2".into()],
            core_dirs_leaving: vec!["b".into()],
            core_dirs_lost: vec!["c".into()],
            ..good.clone()
        };
        fine.validate().unwrap();
        // Every checkpoint would have failed, and the log grown for ever.
        let odd = Options {
            chunk_samples_max: 4096,
            segment_bytes: 64 << 10,
            ..good.clone()
        };
        let refused = odd.validate().unwrap_err().to_string();
        assert!(
            refused.contains("do not fit into a commit of 16384 bytes"),
            "{refused}"
        );
        assert!(
            Options {
                cores: vec![],
                ..good
            }
            .validate()
            .is_err()
        );
    }
}
