//! Exemplars: `{ 1 labels, 2 double value, 3 int64 timestamp in ms }`, alike in both versions' series (version 2 refers to symbols).

use model::{Exemplar, LabelsBuilder, LabelsError, TimeMs};

use super::v1::read_label;
use crate::proto::{self, BYTES, FIXED64, Malformed, Reader, VARINT};

/// Why bytes are not an exemplar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not protobuf.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its labels are not a label set.
    #[error("exemplar: {0}")]
    Labels(#[from] LabelsError),
}

/// Decodes an exemplar of version 1.
pub fn decode(message: &[u8]) -> Result<Exemplar, Error> {
    let mut reader = Reader::new(message);
    let mut labels = LabelsBuilder::default();
    let (mut value, mut time) = (0.0, 0);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, kind) => {
                proto::expect(1, kind, BYTES)?;
                let (name, content) = read_label(reader.bytes()?)?;
                labels.push(text(name)?, text(content)?);
            }
            (2, kind) => {
                proto::expect(2, kind, FIXED64)?;
                value = f64::from_bits(reader.fixed64()?);
            }
            (3, kind) => {
                proto::expect(3, kind, VARINT)?;
                time = reader.varint()? as i64;
            }
            (field, kind) => reader.skip(field, kind)?,
        }
    }
    Ok(Exemplar {
        labels: labels.finish()?,
        value,
        time: TimeMs(time),
    })
}

fn text(bytes: &[u8]) -> Result<&str, LabelsError> {
    std::str::from_utf8(bytes)
        .map_err(|_| LabelsError::NotUtf8(String::from_utf8_lossy(bytes).into_owned()))
}
