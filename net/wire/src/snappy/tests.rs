//! Bounds before allocation, both formats, and arbitrary bytes.

use std::io::Write;

use proptest::prelude::*;

use super::*;

const MAX: usize = 1 << 20;

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.into_inner().unwrap()
}

/// 3-byte copies of 64 bytes: as dense as snappy gets.
fn bomb(len: usize) -> Vec<u8> {
    let mut body = Vec::new();
    model::varint::put_u64(&mut body, len as u64);
    body.extend([0, 0]);
    let mut left = len - 1;
    while left > 0 {
        let n = left.min(64);
        body.extend([((n - 1) << 2 | 2) as u8, 1, 0]);
        left -= n;
    }
    body
}

#[test]
fn the_densest_block_is_within_the_expansion_that_is_believed() {
    let body = bomb(MAX);
    let mut buffer = Buffer::default();
    unpack(&body, MAX, &mut buffer).unwrap();
    assert_eq!(buffer.as_slice(), vec![0u8; MAX]);
}

#[test]
fn a_bomb_is_refused_by_its_header_and_allocates_nothing() {
    let mut buffer = Buffer::default();
    let error = unpack(&bomb(MAX + 1), MAX, &mut buffer).unwrap_err();
    assert_eq!(
        error.to_string(),
        "received message larger than max (1048577 vs 1048576)"
    );
    assert_eq!(buffer.capacity(), 0);
}

#[test]
fn a_header_that_the_body_cannot_fill_allocates_nothing() {
    let mut body = Vec::new();
    model::varint::put_u64(&mut body, MAX as u64);
    body.extend([0; 100]);
    let mut buffer = Buffer::default();
    assert!(matches!(
        unpack(&body, MAX, &mut buffer),
        Err(Error::Corrupt(_))
    ));
    assert_eq!(buffer.capacity(), 0);
}

#[test]
fn a_framed_bomb_stops_at_the_limit() {
    let mut buffer = Buffer::default();
    let error = unpack(&framed(&vec![0; 3 * MAX]), MAX, &mut buffer).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert!(buffer.capacity() <= 4 * MAX);
    assert!(buffer.as_slice().is_empty());
}

#[test]
fn the_empty_body_is_not_snappy_but_an_empty_message_is() {
    let mut buffer = Buffer::default();
    assert!(unpack(&[], MAX, &mut buffer).is_err());
    unpack(&pack(&[]), MAX, &mut buffer).unwrap();
    assert!(buffer.as_slice().is_empty());
}

#[test]
fn nothing_of_an_earlier_body_is_left_after_a_shorter_or_a_bad_one() {
    let mut buffer = Buffer::default();
    unpack(&pack(&[7; 1000]), MAX, &mut buffer).unwrap();
    unpack(&pack(&[8; 10]), MAX, &mut buffer).unwrap();
    assert_eq!(buffer.as_slice(), [8; 10]);
    unpack(b"\x64garbage", MAX, &mut buffer).unwrap_err();
    assert!(buffer.as_slice().is_empty());
}

proptest! {
    #[test]
    fn both_formats_survive_the_round_trip(bytes in prop::collection::vec(0u8..8, 0..5000)) {
        let mut buffer = Buffer::default();
        unpack(&pack(&bytes), MAX, &mut buffer).unwrap();
        prop_assert_eq!(buffer.as_slice(), &bytes[..]);
        if !bytes.is_empty() {
            unpack(&framed(&bytes), MAX, &mut buffer).unwrap();
            prop_assert_eq!(buffer.as_slice(), &bytes[..]);
        }
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_outgrow_the_bound(
        framed in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut body = if framed { STREAM_IDENTIFIER.to_vec() } else { Vec::new() };
        body.extend(bytes);
        let mut buffer = Buffer::default();
        let result = unpack(&body, 1000, &mut buffer);
        prop_assert!(buffer.as_slice().len() <= 1000);
        prop_assert!(result.is_ok() || buffer.as_slice().is_empty());
    }
}
