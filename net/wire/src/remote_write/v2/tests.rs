//! What the encoder writes, unusual order, broken references, hostile bytes.

use model::{Metadata, MetricType, varint};
use proptest::prelude::*;

use super::super::encode::RequestV2;
use super::*;

type Owned = (Vec<(String, String)>, Vec<(i64, f64)>);

fn read(body: &[u8]) -> Result<Vec<Owned>, Malformed> {
    let mut symbols = Symbols::default();
    symbols.read(body).map_err(|error| error.what)?;
    let mut walk = Walk::new(body);
    let mut all = Vec::new();
    while let Some(series) = walk.next_series().map_err(|error| error.what)? {
        let mut samples = Vec::new();
        let mut scattered = false;
        let mut parts = series.parts();
        while let Some(part) = parts.next_part()? {
            match part {
                Part::Sample { time, value, .. } => samples.push((time, value)),
                Part::References(_) => scattered = true,
                _ => {}
            }
        }
        let mut bytes = series.reference_bytes().to_vec();
        if scattered {
            series.gather_references(&mut bytes)?;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs: Result<Vec<_>, _> = labels(&bytes, body, &symbols)
            .map(|label| label.map(|(name, value)| (text(name), text(value))))
            .collect();
        all.push((pairs?, samples));
    }
    Ok(all)
}

fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number << 3 | 2);
    varint::put_u64(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn up() -> Owned {
    let pairs = [("__name__", "up"), ("job", "node")];
    (
        pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
        vec![(7, 1.5)],
    )
}

#[test]
fn what_the_encoder_writes_is_what_the_walk_reads() {
    let mut request = RequestV2::default();
    let help = Metadata {
        kind: MetricType::Gauge,
        help: "is it".into(),
        unit: String::new(),
    };
    let (pairs, samples) = up();
    let iter = || pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    request.put_series(iter(), &samples, Some(&help));
    request.put_series(iter(), &samples, None);
    let body = request.finish();
    assert_eq!(read(&body), Ok(vec![up(), up()]));
    let mut symbols = Symbols::default();
    symbols.read(&body).unwrap();
    assert_eq!(symbols.count(), 6, "each text once, and the empty one");
    let series = Walk::new(&body).next_series().unwrap().unwrap();
    let mut parts = series.parts();
    let metadata = std::iter::from_fn(|| parts.next_part().unwrap()).find_map(|part| match part {
        Part::Metadata(metadata) => Some(metadata),
        _ => None,
    });
    let metadata = metadata.unwrap();
    assert_eq!(symbols.get(&body, metadata.help), Ok(&b"is it"[..]));
    assert_eq!((metadata.kind, metadata.unit), (2, 0));
}

#[test]
fn symbols_may_follow_series_and_references_may_be_scattered_or_unpacked() {
    let mut series = Vec::new();
    field(&mut series, 1, &[1, 2]);
    field(
        &mut series,
        2,
        &[0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0x10, 7, 0x18, 3],
    );
    series.extend([0x08, 3, 0x08, 4]);
    let mut body = Vec::new();
    field(&mut body, 5, &series);
    for symbol in ["", "__name__", "up", "job", "node"] {
        field(&mut body, 4, symbol.as_bytes());
    }
    assert_eq!(read(&body), Ok(vec![up()]));
}

#[test]
fn rules_of_the_whole_request_are_refused_by_name() {
    let with = |references: &[u8], symbols: &[&str]| {
        let mut body = Vec::new();
        symbols
            .iter()
            .for_each(|symbol| field(&mut body, 4, symbol.as_bytes()));
        let mut series = Vec::new();
        field(&mut series, 1, references);
        field(&mut body, 5, &series);
        read(&body).unwrap_err()
    };
    assert_eq!(with(&[1, 2], &["x", "y", "z"]), Malformed::FirstSymbol);
    assert_eq!(with(&[1, 0, 1], &["", "x"]), Malformed::OddReferences);
    let range = Malformed::SymbolRange {
        reference: 9,
        count: 2,
    };
    assert_eq!(with(&[1, 9], &["", "x"]), range);
}

#[test]
fn every_cut_of_a_body_is_refused_or_ends_between_records() {
    let mut request = RequestV2::default();
    let (pairs, samples) = up();
    request.put_series(
        pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())),
        &samples,
        None,
    );
    let body = request.finish();
    let refused = (0..body.len())
        .filter(|&cut| read(&body[..cut]).is_err())
        .count();
    // Six records of which any number may be missing at the end: the empty prefix is one, too.
    assert_eq!(refused, body.len() - 6);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let mut body = Vec::new();
        field(&mut body, 4, b"");
        field(&mut body, 5, &bytes);
        let _ = read(&body);
        let _: Vec<_> = references(&bytes).collect();
    }

    #[test]
    fn any_labels_survive_the_round_trip(
        pairs in prop::collection::vec((".{0,9}", ".{0,40}"), 0..12),
    ) {
        let mut request = RequestV2::default();
        request.put_series(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())), &[(1, 2.0)], None);
        prop_assert_eq!(read(&request.finish()), Ok(vec![(pairs, vec![(1, 2.0)])]));
    }
}

/// Parts of a series with these fields behind its (no) labels.
fn starts_of(fields: &[u8]) -> Result<Vec<(i64, i64)>, Malformed> {
    let mut body = Vec::new();
    field(&mut body, 4, b"");
    field(&mut body, 5, fields);
    let mut walk = Walk::new(&body);
    let series = walk.next_series().unwrap().unwrap();
    let (mut parts, mut all) = (series.parts(), Vec::new());
    while let Some(part) = parts.next_part()? {
        match part {
            Part::Sample { time, start, .. } => all.push((time, start)),
            Part::Created(start) => all.push((0, start)),
            _ => {}
        }
    }
    Ok(all)
}

#[test]
fn starts_are_read_in_any_order_and_length() {
    let sample = |time: i64, start: Option<i64>, start_first: bool| {
        let mut message = Vec::new();
        let put_start = |message: &mut Vec<u8>| {
            if let Some(start) = start {
                message.push(3 << 3);
                varint::put_u64(message, start as u64);
            }
        };
        if start_first {
            put_start(&mut message);
        }
        message.push(1 << 3 | 1);
        message.extend(1.5f64.to_le_bytes());
        message.push(2 << 3);
        varint::put_u64(&mut message, time as u64);
        if !start_first {
            put_start(&mut message);
        }
        message
    };
    let now = 1_700_000_000_000;
    for (time, start) in [
        (now, None),
        (now, Some(now - 7)),
        (now, Some(5)),
        (9, Some(now)),
        (9, Some(-1)),
    ] {
        for start_first in [false, true] {
            let mut fields = Vec::new();
            field(&mut fields, 2, &sample(time, start, start_first));
            let want = vec![(time, start.unwrap_or(0))];
            assert_eq!(starts_of(&fields), Ok(want), "{time} {start:?}");
        }
    }
    let mut fields = vec![6 << 3];
    varint::put_u64(&mut fields, now as u64);
    field(&mut fields, 2, &sample(now, None, false));
    assert_eq!(starts_of(&fields), Ok(vec![(0, now), (now, 0)]));
    let mut broken = sample(now, Some(now), false);
    broken.pop();
    let mut fields = Vec::new();
    field(&mut fields, 2, &broken);
    assert_eq!(starts_of(&fields), Err(Malformed::Truncated));
}
