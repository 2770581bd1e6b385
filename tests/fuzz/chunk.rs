//! The chunk decoder: bytes from a disk. The checksum keeps most damage away from it, so the targets forge it.

use bolero::check;
use chunk::{Error, HistogramAppender, XorAppender};

use super::INPUTS;

/// The envelope as `docs/formats/chunk.md` has it, written down a second time.
fn envelope(encoding: u8, count: u16, payload: &[u8]) -> Vec<u8> {
    let seed = u64::from(encoding) + 256 * u64::from(count);
    let checksum = xxhash_rust::xxh3::xxh3_64_with_seed(payload, seed) as u32;
    let mut sealed = vec![encoding];
    sealed.extend_from_slice(&count.to_le_bytes());
    sealed.extend_from_slice(&checksum.to_le_bytes());
    sealed.extend_from_slice(payload);
    sealed
}

/// Decodes by every way there is; they must agree, and what is accepted must be a chunk.
fn decode(sealed: &[u8]) -> Result<(Vec<i64>, Vec<f64>), Error> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let result = chunk::decode(sealed, &mut times, &mut values);
    if let Err(error) = result {
        assert!(times.is_empty() && values.is_empty());
        assert!(XorAppender::reopen(sealed).is_err());
        return Err(error);
    }
    assert_eq!(times.len(), values.len());
    assert_eq!(times.len(), usize::from(chunk::count(sealed)?));
    assert_eq!(times.first().copied(), chunk::first_time(sealed)?);
    assert!(times.is_sorted_by(|a, b| a < b));
    let middle = times.get(times.len() / 2).copied().unwrap_or(0);
    let (mut early, mut late) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    chunk::decode_range(sealed, i64::MIN, middle, &mut early.0, &mut early.1)?;
    if let Some(next) = middle.checked_add(1) {
        chunk::decode_range(sealed, next, i64::MAX, &mut late.0, &mut late.1)?;
    }
    early.0.extend(late.0);
    early.1.extend(late.1);
    assert_eq!(early.0, times);
    assert!(
        early
            .1
            .iter()
            .map(|v| v.to_bits())
            .eq(values.iter().map(|v| v.to_bits()))
    );
    assert_eq!(XorAppender::reopen(sealed)?.count(), times.len() as u16);
    Ok((times, values))
}

#[test]
fn chunk_of_any_bytes() {
    check!()
        .with_iterations(INPUTS)
        .with_max_len(600)
        .for_each(|bytes: &[u8]| {
            let _ = decode(bytes);
        });
}

#[test]
fn chunk_with_a_forged_checksum() {
    check!()
        .with_type::<(u16, Vec<u8>)>()
        .with_iterations(INPUTS)
        .with_max_len(600)
        .for_each(|(count, payload)| {
            let _ = decode(&envelope(1, *count, payload));
            // Few samples of many bytes and the other way round are both likely this way.
            let _ = decode(&envelope(1, *count % 64, payload));
        });
}

/// The same for histograms of either kind.
fn decode_histograms(sealed: &[u8]) -> Result<usize, Error> {
    let (mut times, mut histograms) = (Vec::new(), Vec::new());
    let all = (i64::MIN, i64::MAX);
    let result = chunk::decode_histograms(sealed, all.0, all.1, &mut times, &mut histograms);
    let (mut float_times, mut floats) = (Vec::new(), Vec::new());
    let as_floats =
        chunk::decode_float_histograms(sealed, all.0, all.1, &mut float_times, &mut floats);
    assert_eq!(result, as_floats);
    if let Err(error) = result {
        assert!(times.is_empty() && histograms.is_empty() && floats.is_empty());
        assert!(HistogramAppender::reopen(sealed).is_err());
        return Err(error);
    }
    assert_eq!(times.len(), usize::from(chunk::count(sealed)?));
    assert!(times.is_sorted_by(|a, b| a < b) && float_times == times);
    assert!(histograms.iter().all(chunk::is_codable));
    let reopened = HistogramAppender::reopen(sealed)?;
    if let Some(last) = histograms.last() {
        assert!(reopened.last().same_value(last));
    }
    Ok(times.len())
}

#[test]
fn histogram_chunk_with_a_forged_checksum() {
    check!()
        .with_type::<(bool, u16, Vec<u8>)>()
        .with_iterations(INPUTS)
        .with_max_len(600)
        .for_each(|(float, count, payload)| {
            let encoding = if *float { 3 } else { 2 };
            let _ = decode_histograms(&envelope(encoding, *count, payload));
            let _ = decode_histograms(&envelope(encoding, *count % 8, payload));
        });
}

#[test]
fn chunk_of_any_series_then_damaged() {
    check!()
        .with_type::<(i64, Vec<(u32, u8, u64)>, Vec<(u16, u8)>)>()
        .with_iterations(INPUTS)
        .with_max_len(3000)
        .for_each(|(start, steps, damage)| {
            let mut appender = XorAppender::new();
            let mut expected: (Vec<i64>, Vec<u64>) = Default::default();
            let (mut time, mut value) = (*start, 0u64);
            for (step, kind, bits) in steps {
                match kind % 4 {
                    0 => value = *bits,
                    1 => value = f64::from(*step % 1000).to_bits(),
                    _ => {}
                }
                appender.append(time, f64::from_bits(value));
                expected.0.push(time);
                expected.1.push(value);
                let step = if kind & 4 == 0 {
                    15_000
                } else {
                    u64::from(*step) + 1
                };
                match time.checked_add_unsigned(step) {
                    Some(next) => time = next,
                    None => break,
                }
            }
            let mut sealed = appender.seal();
            let (times, values) = decode(&sealed).expect("it was just sealed");
            assert_eq!(times, expected.0);
            assert!(
                values
                    .iter()
                    .map(|v| v.to_bits())
                    .eq(expected.1.iter().copied())
            );

            let original = sealed.clone();
            for (at, flip) in damage {
                let at = usize::from(*at) % sealed.len();
                sealed[at] ^= flip;
            }
            if sealed != original
                && let Ok((times, values)) = decode(&sealed)
            {
                assert_eq!(times, expected.0, "damage that the checksum does not see");
                assert!(
                    values
                        .iter()
                        .map(|v| v.to_bits())
                        .eq(expected.1.iter().copied())
                );
            }
            // The same damage behind a right checksum must be refused or give a chunk.
            let count = u16::from_le_bytes([sealed[1], sealed[2]]);
            let _ = decode(&envelope(sealed[0], count, &sealed[chunk::HEADER_LEN..]));
        });
}
