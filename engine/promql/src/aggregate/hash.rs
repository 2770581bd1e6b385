//! The hash by which `limit_ratio` draws series: that of Prometheus, so that both draw the same ones.

use model::Labels;
use xxhash_rust::xxh64::xxh64;

/// xxh64 over names and values, each with its length before it: a byte, or 255 and three bytes from 255 on. Source: Prometheus
/// `model/labels/labels_stringlabels.go`.
pub(crate) fn label_hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::with_capacity(labels.packed().len() + 16);
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        match u8::try_from(text.len()) {
            Ok(length) if length < u8::MAX => bytes.push(length),
            _ => {
                bytes.push(u8::MAX);
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes()[..3]);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_go_before_names_and_values() {
        let labels = Labels::from_pairs([("a", "bc"), ("d", &"e".repeat(300))]).unwrap();
        let mut expected = b"\x01a\x02bc\x01d\xff\x2c\x01\x00".to_vec();
        expected.extend([b'e'; 300]);
        assert_eq!(label_hash(&labels), xxh64(&expected, 0));
        assert_eq!(label_hash(&Labels::empty()), 0xef46_db37_51d8_e999);
    }
}
