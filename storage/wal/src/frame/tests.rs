//! Headers survive the round trip, and nothing else passes for one.

use super::*;

fn header() -> FileHeader {
    FileHeader {
        kind: FileKind::Segment,
        core: 3,
        sequence: 7,
        epoch: 11,
        first_commit: 1 << 40,
        first_lsn: 1 << 50,
    }
}

fn frame(records: &[u8]) -> (FrameHeader, Vec<u8>) {
    let header = FrameHeader {
        len: records.len() as u32,
        sequence: 7,
        core: 3,
        epoch: 11,
        number: 100,
        durable: 99,
        lsn: 12345,
        relaxed: true,
        last: false,
    };
    let mut bytes = vec![0; frame_bytes(records.len())];
    bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + records.len()].copy_from_slice(records);
    header.seal(&mut bytes);
    (header, bytes)
}

fn front(bytes: &[u8]) -> &[u8; FRAME_HEADER_BYTES] {
    bytes.first_chunk().unwrap()
}

#[test]
fn a_segment_header_survives_the_round_trip_and_no_bit_flip_does() {
    let mut block = vec![0xaa; BLOCK_BYTES];
    header().encode(&mut block);
    assert_eq!(FileHeader::decode(&block), Ok(header()));
    for bit in 0..BLOCK_BYTES * 8 {
        block[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            FileHeader::decode(&block),
            Err(HeaderFault::Invalid),
            "bit {bit}"
        );
        block[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_header_of_a_later_version_is_named_as_such() {
    let mut block = vec![0; BLOCK_BYTES];
    header().encode(&mut block);
    block[16] = VERSION as u8 + 1;
    let checksum = xxh3_64(&block[8..]);
    block[..8].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(
        FileHeader::decode(&block),
        Err(HeaderFault::Version(VERSION + 1))
    );
}

#[test]
fn no_bit_flip_in_header_or_records_of_a_frame_is_sound_and_each_is_a_remnant() {
    let (header, mut bytes) = frame(b"some records");
    let end = FRAME_HEADER_BYTES + 12;
    assert_eq!(FrameHeader::peek(front(&bytes)), Some(header));
    assert!(is_sound(&bytes[..end]));
    for bit in 0..end * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let sound = FrameHeader::peek(front(&bytes))
            .is_some_and(|h| bytes.get(..64 + h.len as usize).is_some_and(is_sound));
        assert!(!sound, "bit {bit}");
        assert!(is_remnant(front(&bytes), 7, 11, 100), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_frame_of_a_former_life_and_zeros_are_no_remnant() {
    let (_, bytes) = frame(b"old");
    assert!(!is_remnant(front(&bytes), 9, 12, 200));
    assert!(!is_remnant(&[0; FRAME_HEADER_BYTES], 7, 11, 100));
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_anything_is_allocated() {
    let (_, mut bytes) = frame(b"x");
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(FrameHeader::peek(front(&bytes)), None);
}
