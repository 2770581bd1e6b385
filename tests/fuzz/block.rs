//! The reader of blocks: files that a disk or a bucket may have changed in any way.
//!
//! Frames are written here a second time after `docs/formats/block.md`, so that damage also comes behind right checksums. Damage without them must
//! be an error of `verify`, and of a reader an error or the same data; behind them, an error or any data: never a panic, never more memory than the
//! file's own bounds.

use block::{
    Block, Builder, Effort, Error, FileKind, Info, Memory, Options, Run, SealedRun, verify,
};
use bolero::check;
use model::{Labels, MatchOp, Matcher, TenantId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::INPUTS;

const ID: u128 = 0xfeed << 64 | 0xbeef;
const HEADER: usize = 40;
const FRAME: usize = 20;
const TRAILER: usize = 48;

/// A small file with every coding, and long enough columns for entropy coding.
fn sound_file() -> Vec<u8> {
    let info = Info {
        id: ID,
        kind: FileKind::Cut,
        level: 0,
        order: 3,
        created_ms: 0,
        origin: "fuzz".to_owned(),
        core: 0,
        sources: vec![1],
    };
    let options = Options {
        page_bytes: 1500,
        effort: Effort::Best,
    };
    let mut builder = Builder::new(info, options).expect("within bounds");
    for tenant in ["a", "b"] {
        builder
            .tenant(&TenantId::new(tenant).expect("a name"))
            .expect("ascending");
        for n in 0..8u64 {
            let labels = Labels::from_pairs([("__name__", "fuzzed"), ("n", &n.to_string())]);
            builder
                .series(&labels.expect("distinct"))
                .expect("ascending");
            let count = if n % 2 == 0 { 12 } else { 150 };
            let (mut times, mut values, mut state) = (Vec::new(), Vec::new(), n + 1);
            for i in 0..count {
                state = state
                    .wrapping_mul(0x5851_f42d_4c95_7f2d)
                    .wrapping_add(0x1405);
                times.push(i * 15_000 + (n / 4 * (state >> 60)) as i64);
                values.push(match n {
                    0 => 7.0,
                    1 => (state >> 55) as f64 / 100.0,
                    2 => f64::from_bits(state),
                    3 => [f64::NAN, -0.0, 1e-300 / 3.0][(state >> 33) as usize % 3],
                    4 => (state >> 58 << 12) as f64,
                    5 => (i / 40) as f64,
                    6 => f64::from_bits(0x54b2_49ad_2594_c37d + ((i as u64 * 3) << 20)),
                    _ => (i as f64).sqrt() * 1e77,
                });
            }
            builder.samples(&times, &values).expect("ascending");
            if n == 3 {
                let sealed = SealedRun {
                    min_time: 5,
                    max_time: 9,
                    count: 2,
                    bytes: &[2, 2, 0, 9, 9, 9, 9, 1],
                };
                builder.sealed(&sealed).expect("ascending");
            }
        }
    }
    builder.finish();
    builder.take()
}

/// Where the pages begin.
fn pages(file: &[u8]) -> Vec<usize> {
    let (mut pages, mut at) = (Vec::new(), HEADER);
    while at < file.len() - TRAILER {
        pages.push(at);
        let stored = u32::from_le_bytes(*file[at + 8..].first_chunk().expect("a frame"));
        at += FRAME + stored as usize;
    }
    assert_eq!(at, file.len() - TRAILER);
    pages
}

/// Everything a reader does; gives what it read as text.
fn read(bytes: &[u8]) -> Result<Vec<String>, Error> {
    let mut source = Memory::new("fuzzed", bytes.to_vec());
    let block = Block::open(&mut source)?;
    let mut told = Vec::new();
    for part in &block.meta().parts {
        let mut index = block
            .index(&mut source, &part.tenant)?
            .expect("the footer names it");
        let matchers = [
            Matcher::equal("__name__", "fuzzed"),
            Matcher::new(MatchOp::Regex, "n", "[0-7]").expect("a pattern"),
            Matcher::new(MatchOp::NotEqual, "n", "9").expect("a matcher"),
        ];
        let selected = index.select(&mut source, &matchers)?;
        let labels = index.labels(&mut source, &selected)?;
        told.extend(labels.iter().map(ToString::to_string));
        told.extend(index.label_names(&mut source)?);
        told.extend(index.label_values(&mut source, "n")?);
        let all = (i64::MIN, i64::MAX);
        index.read(&mut source, &selected, all, &mut |series, run| match run {
            Run::Floats { times, values } => {
                let bits: Vec<u64> = values.iter().map(|v| v.to_bits()).collect();
                told.push(format!("{series} {times:?} {bits:x?}"));
            }
            Run::Sealed(sealed) => told.push(format!("{series} {sealed:?}")),
        })?;
    }
    Ok(told)
}

#[test]
fn block_bytes_that_are_nothing_are_refused() {
    check!()
        .with_type::<Vec<u8>>()
        .with_iterations(INPUTS)
        .for_each(|bytes| {
            assert!(read(bytes).is_err());
            assert!(verify(&mut Memory::new("fuzzed", bytes.clone())).is_err());
        });
}

#[test]
fn block_damage_is_an_error_or_the_same_data() {
    let file = sound_file();
    let expected = read(&file).expect("it is sound");
    check!()
        .with_type::<Vec<(u16, u8)>>()
        .with_iterations(INPUTS / 10)
        .for_each(|changes| {
            let mut damaged = file.clone();
            for (at, mask) in changes {
                let at = usize::from(*at) % damaged.len();
                damaged[at] ^= mask;
            }
            if damaged == file {
                return;
            }
            assert!(verify(&mut Memory::new("fuzzed", damaged.clone())).is_err());
            if let Ok(found) = read(&damaged) {
                assert_eq!(found, expected);
            }
        });
}

#[test]
fn block_damage_behind_right_checksums_is_an_error_or_any_data() {
    let file = sound_file();
    let pages = pages(&file);
    assert!(pages.len() > 10);
    check!()
        .with_type::<(u8, Vec<(u16, u8)>, bool)>()
        .with_iterations(INPUTS / 2)
        .for_each(|(page, changes, in_trailer)| {
            let mut damaged = file.clone();
            let page = usize::from(*page) % pages.len();
            let (at, end) = match pages.get(page + 1) {
                Some(&end) => (pages[page], end),
                None => (pages[page], file.len() - TRAILER),
            };
            for (offset, mask) in changes {
                // Everything but the checksum and the stored length.
                let within = 12 + usize::from(*offset) % (end - at - 12);
                damaged[at + within] ^= mask;
            }
            let seed = (ID as u64) ^ ((ID >> 64) as u64) ^ at as u64;
            let sum = xxh3_64_with_seed(&damaged[at + 8..end], seed);
            damaged[at..at + 8].copy_from_slice(&sum.to_le_bytes());
            if *in_trailer && let Some((offset, mask)) = changes.first() {
                let trailer = damaged.len() - TRAILER;
                damaged[trailer + usize::from(*offset) % 32] ^= mask;
                let sum = xxh3_64(&damaged[trailer..trailer + 32]);
                damaged[trailer + 32..trailer + 40].copy_from_slice(&sum.to_le_bytes());
            }
            let _ = read(&damaged);
            let _ = verify(&mut Memory::new("fuzzed", damaged));
        });
}
