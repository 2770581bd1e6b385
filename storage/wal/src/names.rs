//! Names of the files of a log: what a directory entry is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What a file name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u32),
    Checkpoint(u32),
    /// A file being made when the process ended.
    Unfinished,
    /// Not ours.
    Other,
}

impl Name {
    pub(crate) fn parse(name: &OsStr) -> Name {
        let Some(name) = name.to_str() else {
            return Name::Other;
        };
        let number = |digits: &str| {
            let plain = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        if let Some(number) = name.strip_prefix("segment-").and_then(number) {
            return Name::Segment(number);
        }
        let checkpoint = name.strip_prefix("checkpoint-");
        if let Some(number) = checkpoint.and_then(number) {
            return Name::Checkpoint(number);
        }
        let unfinished = checkpoint
            .or(name.strip_prefix("new-"))
            .and_then(|n| n.strip_suffix(".tmp"));
        match unfinished.and_then(number) {
            Some(_) => Name::Unfinished,
            None => Name::Other,
        }
    }
}

pub(crate) fn segment(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("segment-{sequence:010}"))
}

pub(crate) fn segment_unfinished(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("new-{sequence:010}.tmp"))
}

pub(crate) fn checkpoint(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("checkpoint-{sequence:010}"))
}

pub(crate) fn checkpoint_unfinished(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("checkpoint-{sequence:010}.tmp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_left_alone() {
        let parse = |path: PathBuf| Name::parse(path.file_name().unwrap());
        let dir = Path::new("/d");
        assert_eq!(parse(segment(dir, 7)), Name::Segment(7));
        assert_eq!(parse(segment(dir, u32::MAX)), Name::Segment(u32::MAX));
        assert_eq!(parse(checkpoint(dir, 7)), Name::Checkpoint(7));
        assert_eq!(parse(checkpoint_unfinished(dir, 7)), Name::Unfinished);
        assert_eq!(parse(segment_unfinished(dir, 7)), Name::Unfinished);
        for other in [
            "segment-7",
            "segment-+000000007",
            "lost+found",
            "segment-9999999999",
        ] {
            assert_eq!(Name::parse(OsStr::new(other)), Name::Other, "{other}");
        }
    }
}
