//! The sample codec against a plain model of what was put in.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

type Row = (u32, i64, f64);

/// Encodes rows as the log does: base is the last value of the series, where there is one.
fn encode(rows: &[Row]) -> Vec<u8> {
    let mut out = vec![0; SAMPLES_PREFIX_BYTES + rows.len() * SAMPLE_BYTES_MAX + 64];
    let mut bases = HashMap::new();
    let mut encoder = Encoder::begin(rows[0].0, rows[0].1, &mut out);
    let mut at = SAMPLES_PREFIX_BYTES;
    for &(series, time, value) in rows {
        let base = bases.insert(series, value);
        let len = encoder.put(&mut out[at..], series, time, value, base);
        assert!(len <= SAMPLE_BYTES_MAX);
        at += len;
    }
    out.truncate(at);
    out
}

fn decode(body: &[u8]) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    let mut bases = HashMap::new();
    let mut decoder = Decoder::new(body)?;
    while !decoder.is_done() {
        let coded = decoder.take()?;
        let base = if coded.relative {
            *bases.get(&coded.series)?
        } else {
            0.0
        };
        let value = coded.value(base);
        bases.insert(coded.series, value);
        rows.push((coded.series, coded.time, value));
    }
    Some(rows)
}

fn bits(rows: &[Row]) -> Vec<(u32, i64, u64)> {
    rows.iter().map(|&(s, t, v)| (s, t, v.to_bits())).collect()
}

fn assert_round_trip(rows: &[Row]) -> usize {
    let body = encode(rows);
    assert_eq!(bits(&decode(&body).expect("decodes")), bits(rows));
    body.len() - SAMPLES_PREFIX_BYTES
}

#[test]
fn constants_take_one_byte_and_small_steps_two() {
    let scrape = |t: i64, v: f64| (0..100).map(move |s| (s, t, v));
    let constant: Vec<Row> = scrape(1000, 1.0).chain(scrape(2000, 1.0)).collect();
    let once = assert_round_trip(&constant[..100]);
    assert_eq!(once, 200, "absolute 1.0 is a step from zero");
    assert_eq!(assert_round_trip(&constant) - once, 100 + 2 + 2);
    let counter: Vec<Row> = scrape(1000, 1e9).chain(scrape(2000, 1e9 + 17.0)).collect();
    let first = assert_round_trip(&counter[..100]);
    assert_eq!(assert_round_trip(&counter) - first, 200 + 2 + 2);
}

#[test]
fn three_targets_that_take_turns_cost_their_timestamps_once() {
    let rows: Vec<Row> = (0..300u32)
        .map(|i| (i, 1_700_000_000_000 + i64::from(i % 3) * 7, 0.0))
        .collect();
    assert_eq!(assert_round_trip(&rows), 300 + 2);
}

#[test]
fn odd_values_survive_bit_for_bit() {
    let odd = [
        0.0,
        -0.0,
        f64::NAN,
        f64::from_bits(model::STALE_NAN_BITS),
        f64::from_bits(0xfff8_dead_beef_0001),
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        1.5,
        0.1,
        -127.0,
        128.0,
        -129.0,
        32768.0,
        2147483647.0,
        2147483648.0,
        -2147483649.0,
        9007199254740993.0,
        1e300,
        1.0 / 3.0,
    ];
    let mut rows = Vec::new();
    for &a in &odd {
        for &b in &odd {
            rows.extend([(5, 0, a), (5, 1, b)]);
        }
    }
    assert_round_trip(&rows);
}

#[test]
fn every_shape_of_xor_survives() {
    let base = 1.2345e17f64;
    let rows: Vec<Row> = (0..64)
        .flat_map(|low| (low..64).map(move |high| (u64::MAX << low) & (u64::MAX >> (63 - high))))
        .flat_map(|xor| [(1, 0, base), (1, 0, f64::from_bits(base.to_bits() ^ xor))])
        .collect();
    assert_round_trip(&rows);
}

#[test]
fn extreme_refs_and_times_survive() {
    let rows = [
        (u32::MAX, i64::MAX, 1.0),
        (0, i64::MIN, 2.0),
        (u32::MAX, 0, 3.0),
        (1, -1, 4.0),
        (2, i64::MIN, 5.0),
        (2, i64::MAX, 5.0),
    ];
    assert_round_trip(&rows);
}

#[test]
fn random_rows_survive() {
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = rng.random_range(1..200);
        let rows: Vec<Row> = (0..count)
            .map(|_| {
                let value = match rng.random_range(0..4) {
                    0 => f64::from_bits(rng.random()),
                    1 => f64::from(rng.random_range(-1000i32..1000)),
                    2 => f64::from(rng.random_range(0..1000i32)) / 100.0,
                    _ => rng.random(),
                };
                (rng.random_range(0..20), rng.random_range(-3..3), value)
            })
            .collect();
        assert_round_trip(&rows);
    }
}

#[test]
fn a_body_cut_short_never_decodes_to_all_rows() {
    let rows: Vec<Row> = (0..50)
        .map(|i| (i * 3, i64::from(i) * 1000, 0.1 * f64::from(i)))
        .collect();
    let body = encode(&rows);
    for len in 0..body.len() {
        if let Some(short) = decode(&body[..len]) {
            assert!(short.len() < rows.len());
            assert_eq!(bits(&short), bits(&rows[..short.len()]));
        }
    }
}
