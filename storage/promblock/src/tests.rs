//! What is written is read; what is damaged is named. Blocks of a real Prometheus are read and opened in `tests/e2e/import.rs`.

use model::{Histogram, HistogramSample, Labels, stale_nan};

use super::*;

fn labels(n: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", ["up", "http"][n % 2]),
        ("instance", &format!("host-{n:03}")),
    ])
    .unwrap()
}

/// Floats of one and of many chunks, histograms, and both.
fn content() -> Vec<(Labels, Samples)> {
    let mut all: Vec<(Labels, Samples)> = (0..40usize)
        .map(|n| {
            let mut samples = Samples::default();
            let count = [1, 119, 120, 121, 500][n % 5] as i64;
            for at in 0..count {
                let time = 1_700_000_000_000 + at * 15_000 + at % 3;
                if n % 7 == 3 && at > count / 2 {
                    samples.histogram_times.push(time);
                    samples.histograms.push(HistogramSample::Int(Histogram {
                        count: at as u64,
                        sum: at as f64,
                        ..Histogram::default()
                    }));
                } else {
                    samples.times.push(time);
                    let value = if at % 50 == 49 {
                        stale_nan()
                    } else {
                        at as f64 / 7.0
                    };
                    samples.values.push(value);
                }
            }
            (labels(n), samples)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Index, segments, meta.
fn written(content: &[(Labels, Samples)]) -> (Vec<u8>, Vec<Vec<u8>>, Vec<u8>) {
    let mut writer = Writer::default();
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut keep = |writer: &mut Writer| {
        for (number, bytes) in writer.take() {
            segments.resize((number as usize + 1).max(segments.len()), Vec::new());
            segments[number as usize].extend(bytes);
        }
    };
    for (labels, samples) in content {
        writer.series(labels, samples);
        keep(&mut writer);
    }
    let built = writer.finish(7).unwrap();
    keep(&mut writer);
    (built.index, segments, built.meta)
}

fn read(index: Vec<u8>, segments: &[Vec<u8>]) -> Result<Vec<(Labels, Samples)>, Error> {
    let index = Index::parse(index)?;
    let mut all = Vec::new();
    for at in 0..index.series_count() {
        let (_, labels, chunks) = index.series(at)?;
        let mut samples = Samples::default();
        for chunk in chunks {
            let segment = &segments[chunk.segment as usize];
            decode_chunk(&segment[chunk.offset as usize..], chunk, &mut samples)?;
        }
        all.push((labels, samples));
    }
    Ok(all)
}

/// With values as bits, and without what is said of resets.
fn told(all: &[(Labels, Samples)]) -> Vec<String> {
    let one = |(labels, samples): &(Labels, Samples)| {
        let bits: Vec<u64> = samples.values.iter().map(|v| v.to_bits()).collect();
        let histograms: Vec<_> = samples.histograms.iter().map(|h| h.sum()).collect();
        let (times, of_histograms) = (&samples.times, &samples.histogram_times);
        format!("{labels} {times:?} {bits:?} {of_histograms:?} {histograms:?}")
    };
    all.iter().map(one).collect()
}

#[test]
fn what_is_written_is_read() {
    let content = content();
    let (index, segments, meta) = written(&content);
    assert_eq!(segments.len(), 1);
    let found = read(index, &segments).unwrap();
    assert_eq!(told(&found), told(&content));
    let meta = Meta::parse(&meta).unwrap();
    assert_eq!(meta.ulid, ulid_text(7));
    assert_eq!(meta.series, 40);
    let samples = |s: &Samples| s.times.len() + s.histogram_times.len();
    let count: usize = content.iter().map(|(_, s)| samples(s)).sum();
    assert_eq!(meta.samples, count as u64);
    assert_eq!(meta.times.0, 1_700_000_000_000);
}

#[test]
fn every_flipped_bit_is_an_error_or_changes_nothing() {
    let content = content();
    let (index, segments, _) = written(&content);
    let wanted = told(&content);
    for at in (0..index.len()).step_by(3) {
        let mut damaged = index.clone();
        damaged[at] ^= 1 << (at % 8);
        if let Ok(found) = read(damaged, &segments) {
            assert_eq!(told(&found), wanted, "byte {at} of the index");
        }
    }
    for at in (8..segments[0].len()).step_by(7) {
        let mut damaged = segments.clone();
        damaged[0][at] ^= 1 << (at % 8);
        if let Ok(found) = read(index.clone(), &damaged) {
            assert_eq!(told(&found), wanted, "byte {at} of the chunks");
        }
    }
    for len in [0, 3, 5, 56, index.len() - 1] {
        assert!(Index::parse(index[..len].to_vec()).is_err());
    }
}

#[test]
fn names_of_blocks_are_numbers() {
    assert_eq!(ulid_text(0), "00000000000000000000000000");
    assert_eq!(ulid_text(u128::MAX), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    for value in [0, 1, 31, 32, 1 << 77, u128::MAX] {
        assert_eq!(ulid_value(&ulid_text(value)), Some(value));
    }
    for wrong in [
        "",
        "01",
        "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "0000000000000000000000000I",
        "é",
    ] {
        assert_eq!(ulid_value(wrong), None, "{wrong}");
    }
}

/// As Prometheus writes it after `delete_series`.
#[test]
fn deletions_are_read() {
    let mut bytes = vec![0x01, 0x30, 0xba, 0x30, 1];
    let entries = [0x85, 0x01, 0x02, 0x14, 0x07, 0x01, 0x04];
    bytes.extend(entries);
    bytes.extend(crate::crc::crc32c(&entries).to_be_bytes());
    let gone = tombstones(&bytes).unwrap();
    assert_eq!(gone[&133], [(1, 10)]);
    assert_eq!(gone[&7], [(-1, 2)]);
    bytes[7] ^= 1;
    assert!(tombstones(&bytes).is_err());
}
