//! The decoders of a push: snappy, then remote write 1.0. Bytes from anybody.

use bolero::check;
use wire::remote_write::v1::{self, Part, Record, Walk};
use wire::{remote_write, snappy};

use super::INPUTS;

/// Unpacked size that the targets allow.
const UNPACKED_MAX: usize = 64 * 1024;

/// What a walk has met.
#[derive(Debug, Default, PartialEq)]
struct Met {
    labels: Vec<(Vec<u8>, Vec<u8>)>,
    samples: Vec<(i64, u64)>,
    metadata: usize,
}

/// Visits everything in a body, down to the decoders of rare records.
fn walk(body: &[u8]) -> Result<Met, v1::Error> {
    let mut met = Met::default();
    let mut walk = Walk::new(body);
    let mut gathered = Vec::new();
    loop {
        let before = walk.offset();
        let record = match walk.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(met),
            Err(error) => {
                assert!(error.at <= body.len());
                return Err(error);
            }
        };
        assert!(walk.offset() > before, "a record takes bytes");
        match record {
            Record::Series(series) => {
                for (name, value) in v1::labels(series.label_bytes()).flatten() {
                    met.labels.push((name.to_vec(), value.to_vec()));
                }
                let mut parts = series.parts();
                while let Ok(Some(part)) = parts.next_part() {
                    match part {
                        Part::Sample { time, value } => met.samples.push((time, value.to_bits())),
                        Part::Histogram(message) => {
                            if let Ok((_, histogram)) = remote_write::histogram::decode(message) {
                                assert!(
                                    chunk::is_codable(&histogram),
                                    "what is taken can be stored"
                                );
                            }
                        }
                        Part::Exemplar(message) => {
                            let _ = remote_write::exemplar::decode(message);
                        }
                        Part::Label(_) => {
                            if series.gather_labels(&mut gathered).is_ok() {
                                assert!(v1::labels(&gathered).count() > 0);
                            }
                        }
                    }
                }
            }
            Record::Metadata(_) => met.metadata += 1,
        }
    }
}

#[test]
fn wire_snappy_of_any_bytes() {
    let check = check!().with_iterations(INPUTS).with_max_len(2000);
    check.for_each(|bytes: &[u8]| {
        let mut buffer = snappy::Buffer::default();
        if snappy::unpack(bytes, UNPACKED_MAX, &mut buffer).is_ok() {
            assert!(buffer.as_slice().len() <= UNPACKED_MAX);
            let _ = walk(buffer.as_slice());
        }
        // Whatever a length claims, it is checked against the bound before it is allocated.
        assert!(
            buffer.capacity() <= UNPACKED_MAX + 64 * 1024,
            "{} bytes",
            buffer.capacity()
        );
        snappy::unpack(&snappy::pack(bytes), UNPACKED_MAX, &mut buffer).expect("just packed");
        assert_eq!(buffer.as_slice(), bytes);
    });
}

#[test]
fn wire_remote_write_of_any_bytes() {
    check!()
        .with_iterations(INPUTS)
        .with_max_len(2000)
        .for_each(|bytes: &[u8]| {
            let _ = walk(bytes);
            let _ = remote_write::histogram::decode(bytes);
            let _ = remote_write::exemplar::decode(bytes);
            let mut symbols = remote_write::v2::Symbols::default();
            let _ = symbols.read(bytes);
            let _ = remote_write::exemplar::decode_v2(bytes, bytes, &symbols);
        });
}

#[test]
fn wire_remote_write_then_damaged() {
    type Series = (Vec<(u8, u8)>, Vec<(i64, u64)>);
    check!()
        .with_type::<(Vec<Series>, Vec<(u16, u8)>)>()
        .with_iterations(INPUTS)
        .with_max_len(2000)
        .for_each(|(series, damage)| {
            let mut expected = Met::default();
            let mut body = Vec::new();
            for (labels, samples) in series {
                let labels: Vec<(String, String)> = labels
                    .iter()
                    .map(|(name, value)| (format!("n{name}"), "v".repeat(usize::from(*value))))
                    .collect();
                let samples: Vec<(i64, f64)> = samples
                    .iter()
                    .map(|(time, bits)| (*time, f64::from_bits(*bits)))
                    .collect();
                let pairs = labels
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()));
                remote_write::encode::put_series(&mut body, pairs, &samples);
                for (name, value) in labels {
                    expected
                        .labels
                        .push((name.into_bytes(), value.into_bytes()));
                }
                expected
                    .samples
                    .extend(samples.iter().map(|(time, value)| (*time, value.to_bits())));
            }
            assert_eq!(walk(&body).expect("it was just encoded"), expected);
            if body.is_empty() {
                return;
            }
            for (at, flip) in damage {
                let at = usize::from(*at) % body.len();
                body[at] ^= flip;
            }
            let _ = walk(&body);
            let cut = body.len() / 2;
            let _ = walk(&body[..cut]);
        });
}
