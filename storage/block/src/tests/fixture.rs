//! A file of every version of the format, which must open for ever. Never written anew: a change of the format is a new version and a
//! new fixture beside this one.

use ::model::{Labels, TenantId, stale_nan};

use super::{Content, info, options};
use crate::{Block, Coding, Effort, FileKind, Memory, verify};

const V1: &[u8] = include_bytes!("fixture-v1.block");

/// What stands in the fixture: by arithmetic that no platform does differently.
fn content() -> Content {
    let mut content = Content::default();
    let labels = |name: &str, n: u64| {
        Labels::from_pairs([
            ("__name__", name),
            ("instance", &format!("host-{n}:9100")),
            ("job", "node"),
        ])
        .unwrap()
    };
    let mut state = 1u64;
    let mut chance = move || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        state >> 33
    };
    for n in 0..3 {
        let start = 1_700_000_000_000 + n as i64 * 1234;
        let (mut total, mut sum) = (0u64, 0.1f64);
        for i in 0..300i64 {
            // Two targets on time but for one gap, one that wanders.
            if i == 200 {
                continue;
            }
            let late = if n == 2 { (chance() % 4) as i64 } else { 0 };
            let time = start + i * 15_000 + late;
            total += chance() % 500;
            sum += (chance() % 1_000_003) as f64 * 1.7e-9;
            content.put(&labels("constant", n), time, 4.25);
            content.put(&labels("counter_total", n), time, total as f64);
            let gauge = if i == 299 {
                stale_nan()
            } else {
                (chance() % 10_000) as f64 / 100.0
            };
            content.put(&labels("gauge", n), time, gauge);
            content.put(
                &labels("memory_bytes", n),
                time,
                (chance() % 50 * 4096) as f64,
            );
            content.put(&labels("rare", n), time, (i / 70) as f64);
            content.put(&labels("sum_seconds", n), time, sum);
            let word = [f64::NAN, -0.0, f64::INFINITY, 1e-300 / 3.0][(chance() % 4) as usize];
            content.put(&labels("words", n), time, word);
            content.put(
                &labels("noise", n),
                time,
                f64::from_bits(chance() << 33 | chance()),
            );
        }
        // Too short for pco, too near to each other for raw.
        for i in 0..6i64 {
            let value = f64::from_bits(0x54b2_49ad_2594_c37d + ((i as u64 * 3) << 20));
            content.put(&labels("near", n), start + i * 60_000, value);
        }
        let sealed = (start, start + 1000, 2, vec![2, 0, 0, 9, 9, 9, 9, n as u8]);
        content.sealed.insert(labels("histogram", n), vec![sealed]);
    }
    content
}

#[test]
fn the_fixture_of_version_1_opens_for_ever() {
    if std::env::var_os("MYELIN_WRITE_FIXTURE").is_some() {
        write();
    }
    let mut source = Memory::new("fixture-v1.block", V1.to_vec());
    let block = Block::open(&mut source).unwrap();
    assert_eq!(block.meta().info, info(0xf1, FileKind::Cut, 42));
    let verified = verify(&mut source).unwrap();
    let codings: Vec<Coding> = verified.codings.keys().copied().collect();
    let all = [
        Coding::Constant,
        Coding::Decimal,
        Coding::Words,
        Coding::Xor,
        Coding::Pco,
        Coding::Raw,
        Coding::Sealed,
    ];
    assert_eq!(codings, all);
    let content = content();
    for tenant in ["first", "second"] {
        let tenant = TenantId::new(tenant).unwrap();
        assert_eq!(Content::read(&mut source, &tenant).unwrap(), content);
    }
}

/// Makes the fixture of a version that has not been released yet.
#[expect(clippy::disallowed_methods, reason = "a test that writes its fixture")]
fn write() {
    let content = content();
    let (bytes, _) = super::build(
        &[("first", &content), ("second", &content)],
        info(0xf1, FileKind::Cut, 42),
        options(6000, Effort::Best),
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/fixture-v1.block");
    std::fs::write(path, bytes).unwrap();
}
