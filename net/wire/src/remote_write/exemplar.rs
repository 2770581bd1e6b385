//! Exemplars: `{ 1 labels, 2 double value, 3 int64 timestamp in ms }`, alike in both versions' series (version 2 refers to symbols).

use model::{Exemplar, LabelsBuilder, LabelsError, TimeMs, varint};

use super::v1::read_label;
use super::v2;
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
    read(message, |reader, kind, labels| {
        proto::expect(1, kind, BYTES)?;
        let (name, content) = read_label(reader.bytes()?)?;
        labels.push(text(name)?, text(content)?);
        Ok(())
    })
}

/// Decodes an exemplar of version 2, whose labels are references into the symbols of its request.
pub fn decode_v2(message: &[u8], body: &[u8], symbols: &v2::Symbols) -> Result<Exemplar, Error> {
    let mut references = Vec::new();
    let mut exemplar = read(message, |reader, kind, _| {
        if kind == VARINT {
            varint::put_u64(&mut references, reader.varint()?);
            return Ok(());
        }
        proto::expect(1, kind, BYTES)?;
        references.extend_from_slice(reader.bytes()?);
        Ok(())
    })?;
    let mut labels = LabelsBuilder::default();
    for label in v2::labels(&references, body, symbols) {
        let (name, content) = label?;
        labels.push(text(name)?, text(content)?);
    }
    exemplar.labels = labels.finish()?;
    Ok(exemplar)
}

/// `label` reads field 1, whose tag has been read, into the labels or elsewhere.
fn read<'a>(
    message: &'a [u8],
    mut label: impl FnMut(&mut Reader<'a>, u8, &mut LabelsBuilder) -> Result<(), Error>,
) -> Result<Exemplar, Error> {
    let mut reader = Reader::new(message);
    let mut labels = LabelsBuilder::default();
    let (mut value, mut time) = (0.0, 0);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, kind) => label(&mut reader, kind, &mut labels)?,
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
