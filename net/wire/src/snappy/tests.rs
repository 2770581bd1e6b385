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

/// What `snap` makes of a block, and what we make of it.
fn both(body: &[u8]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let mut buffer = Buffer::default();
    let ours = unpack(body, MAX, &mut buffer).is_ok();
    // Longer claims are refused before anybody unpacks.
    let claimed = snap::raw::decompress_len(body).unwrap_or(0);
    let theirs = (claimed <= MAX && claimed <= body.len() * SNAPPY_EXPANSION_MAX)
        .then(|| snap::raw::Decoder::new().decompress_vec(body).ok());
    (theirs.flatten(), ours.then(|| buffer.as_slice().to_vec()))
}

/// One element of a block: bytes, or a copy of `len` from `offset` before.
#[derive(Debug, Clone)]
enum Element {
    Literal(Vec<u8>),
    Copy { len: u8, offset: u32, kind: u8 },
}

fn any_element() -> impl Strategy<Value = Element> {
    let literal = prop_oneof![9 => 1usize..61, 1 => 61usize..400]
        .prop_flat_map(|len| prop::collection::vec(any::<u8>(), len));
    let offset = prop_oneof![2 => 1u32..70, 6 => 1u32..3000, 1 => 1u32..70_000];
    prop_oneof![
        2 => literal.prop_map(Element::Literal),
        5 => (1u8..=64, offset, 1u8..=3).prop_map(|(len, offset, kind)| Element::Copy { len, offset, kind }),
    ]
}

/// A good block: a literal of one byte, then these elements, with offsets no larger than what is there. And the length it unpacks to.
fn write_block(elements: &[Element]) -> (Vec<u8>, usize) {
    let (mut out, mut total) = (vec![0, 7], 1);
    for element in elements {
        match element {
            Element::Literal(bytes) => {
                let last = bytes.len() - 1;
                match last {
                    0..60 => out.push((last as u8) << 2),
                    60..256 => out.extend([60 << 2, last as u8]),
                    _ => out.extend([61 << 2, last as u8, (last >> 8) as u8]),
                }
                out.extend(bytes);
                total += bytes.len();
            }
            Element::Copy { len, offset, kind } => {
                let offset = *offset.min(&(total as u32));
                let small = (4..12).contains(len) && offset < 1 << 11;
                match kind {
                    1 if small => {
                        out.extend([(offset >> 8 << 5) as u8 | (len - 4) << 2 | 1, offset as u8])
                    }
                    0..=2 if offset < 1 << 16 => {
                        out.push((len - 1) << 2 | 2);
                        out.extend((offset as u16).to_le_bytes());
                    }
                    _ => {
                        out.push((len - 1) << 2 | 3);
                        out.extend(offset.to_le_bytes());
                    }
                }
                total += usize::from(*len);
            }
        }
    }
    let mut block = Vec::new();
    model::varint::put_u64(&mut block, total as u64);
    block.extend(out);
    (block, total)
}

#[test]
fn errors_say_what_is_wrong_where() {
    let mut buffer = Buffer::default();
    let mut text = |body: &[u8]| unpack(body, MAX, &mut buffer).unwrap_err().to_string();
    let mut long = vec![200, 1, 0, 7];
    long.extend([2, 2, 0].repeat(30)); // Short, and far from the end: the fast way.
    for (body, want) in [
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 1][..],
            "the length header is broken",
        ),
        (&[9, 32, 1, 2], "the element at byte 1 ends behind the body"),
        (&[9, 0, 1, 5], "the element at byte 3 ends behind the body"),
        (
            &[2, 8, 1, 2, 3],
            "the element at byte 1 needs 3 bytes, 2 are left of the length in the header",
        ),
        (
            &[9, 0, 1, 5, 2],
            "the copy at byte 3 begins 2 bytes before byte 1 of what is unpacked",
        ),
        (
            &[9, 0, 1, 5, 0],
            "the copy at byte 3 begins 0 bytes before byte 1 of what is unpacked",
        ),
        (&[9, 0, 1], "it unpacks to 1 bytes, its header says 9"),
        (
            &long,
            "the copy at byte 4 begins 2 bytes before byte 1 of what is unpacked",
        ),
    ] {
        assert_eq!(text(body), format!("cannot decompress snappy: {want}"));
    }
}

/// The distances of 2,048 bytes are computed together: here such a piece ends before, within and behind elements of every kind, short ones
/// mostly, and so does the block.
#[test]
fn a_piece_may_end_anywhere_in_an_element() {
    let elements: Vec<Element> = (0..1200)
        .map(|i| match i % 8 {
            0 => Element::Literal(vec![i as u8; 1 + i / 8 % 60]),
            1 if i % 40 == 1 => Element::Literal((0..300).map(|n| (n * i) as u8).collect()),
            1 => Element::Literal(vec![9; 1 + i % 5]),
            kind => Element::Copy {
                len: [4, 11, 64, 1, 33, 17][kind - 2],
                offset: [40, 70, 64, 3, 900, 16][kind - 2],
                kind: [1, 2, 3][i % 3],
            },
        })
        .collect();
    for shift in 1..=90 {
        let mut shifted = vec![Element::Literal(vec![3; shift])];
        shifted.extend_from_slice(&elements[..elements.len() - shift * 9]);
        let (body, total) = write_block(&shifted);
        assert!(body.len() > 2 * 2048, "{} bytes", body.len());
        let (theirs, ours) = both(&body);
        assert_eq!(theirs.as_ref().map(Vec::len), Some(total), "shift {shift}");
        assert!(ours == theirs, "shift {shift}");
    }
}

proptest! {
    #[test]
    fn blocks_of_any_elements_are_what_snap_says(elements in prop::collection::vec(any_element(), 0..600)) {
        let (body, total) = write_block(&elements);
        let (theirs, ours) = both(&body);
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(ours.map(|bytes| bytes.len()), Some(total));
    }

    #[test]
    fn damaged_blocks_are_what_snap_says(
        elements in prop::collection::vec(any_element(), 1..600),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (mut body, _) = write_block(&elements);
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(cut.map_or(body.len(), |cut| cut.index(body.len()).max(1)));
        let (theirs, ours) = both(&body);
        prop_assert_eq!(ours, theirs);
    }

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
