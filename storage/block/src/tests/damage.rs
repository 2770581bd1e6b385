//! Damage of any single bit, and the end cut off anywhere: named, never believed.

use ::model::TenantId;

use super::{Content, build, info, options, sample_content};
use crate::{Effort, Error, FileKind, Memory, verify};

#[test]
fn every_bit_flip_is_an_error_that_names_file_and_offset_or_changes_nothing() {
    let content = sample_content();
    let tenants = [("a", &content), ("b", &content)];
    let (bytes, _) = build(
        &tenants,
        info(0x1234 << 64 | 0x55, FileKind::Cut, 1),
        options(200, Effort::Best),
    );
    let tenant = TenantId::new("b").unwrap();
    let mut errors = 0;
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut source = Memory::new("damaged-file", damaged);
        let error = verify(&mut source).expect_err("verify sees every bit");
        match &error {
            Error::Corrupt { file, offset, .. } => {
                assert_eq!(file, "damaged-file");
                // The offset is that of the page in which the bit lies.
                let distance = (bit as u64 / 8).checked_sub(*offset);
                assert!(distance.is_some_and(|d| d < 8192), "bit {bit}: {error}");
            }
            Error::NotABlock { file, .. } | Error::Version { file, .. } => {
                assert_eq!(file, "damaged-file");
            }
            other => panic!("{other}"),
        }
        // One tenant's damage does not take down another's reads.
        match Content::read(&mut source, &tenant) {
            Ok(read) => assert_eq!(read, content, "bit {bit}"),
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                errors += 1;
            }
        }
    }
    assert!(
        errors * 3 > bytes.len() * 8,
        "{errors} of {}",
        bytes.len() * 8
    );
    assert!(
        errors * 3 < bytes.len() * 8 * 2,
        "the other tenant is still readable"
    );
}

#[test]
fn a_file_that_is_cut_short_anywhere_or_goes_on_is_refused() {
    let content = sample_content();
    let (bytes, _) = build(
        &[("a", &content)],
        info(3, FileKind::Block, 1),
        options(300, Effort::Best),
    );
    for len in 0..bytes.len() {
        let error = verify(&mut Memory::new("short", bytes[..len].to_vec())).unwrap_err();
        assert!(error.is_corruption(), "{error}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(verify(&mut Memory::new("long", longer)).is_err());
}
