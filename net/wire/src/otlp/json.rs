//! OTLP/JSON, written as the protobuf that it stands for.
//!
//! One table ([`Message`]) says which field has which number and type; a body is read once, front to back, and its fields are written as they
//! come: protobuf has no order of fields either. Messages get their length in four bytes, which are filled in behind them, so nothing is
//! held but the output. As OTLP has it: names in lowerCamelCase (and, as Go's pdata has it, in snake_case), numbers of 64 bits as texts or numbers, enums as numbers (their names are
//! taken too), `traceId` and `spanId` in hexadecimal, other bytes in base64, what is not known passed over, `null` as if it were not there.

use std::fmt;

use model::varint;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Error;
use crate::proto::{BYTES, FIXED64, VARINT};

/// Length of a message before it is known: a varint of four bytes, which may begin with zeros.
const LENGTH_BYTES: usize = 4;

/// What four bytes of varint can say.
const MESSAGE_MAX: usize = 1 << 28;

/// A type of message.
struct Message {
    fields: &'static [Field],
}

struct Field {
    name: &'static str,
    number: u8,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Message(&'static Message),
    Messages(&'static Message),
    Text,
    Base64,
    Hex,
    Bool,
    Int64,
    Uint32,
    Sint32,
    /// A number, or one of these names, the first of which is 0.
    Enum(&'static [&'static str]),
    Fixed64,
    Sfixed64,
    Double,
    Fixed64s,
    Doubles,
    Uint64s,
}

const fn field(name: &'static str, number: u8, kind: Kind) -> Field {
    Field { name, number, kind }
}

static REQUEST: Message = Message {
    fields: &[field(
        "resourceMetrics",
        1,
        Kind::Messages(&RESOURCE_METRICS),
    )],
};
static RESOURCE_METRICS: Message = Message {
    fields: &[
        field("resource", 1, Kind::Message(&RESOURCE)),
        field("scopeMetrics", 2, Kind::Messages(&SCOPE_METRICS)),
        field("schemaUrl", 3, Kind::Text),
    ],
};
static RESOURCE: Message = Message {
    fields: &[field("attributes", 1, Kind::Messages(&KEY_VALUE))],
};
static SCOPE_METRICS: Message = Message {
    fields: &[
        field("scope", 1, Kind::Message(&SCOPE)),
        field("metrics", 2, Kind::Messages(&METRIC)),
        field("schemaUrl", 3, Kind::Text),
    ],
};
static SCOPE: Message = Message {
    fields: &[
        field("name", 1, Kind::Text),
        field("version", 2, Kind::Text),
        field("attributes", 3, Kind::Messages(&KEY_VALUE)),
    ],
};
static METRIC: Message = Message {
    fields: &[
        field("name", 1, Kind::Text),
        field("description", 2, Kind::Text),
        field("unit", 3, Kind::Text),
        field("gauge", 5, Kind::Message(&NUMBERS)),
        field("sum", 7, Kind::Message(&NUMBERS)),
        field("histogram", 9, Kind::Message(&HISTOGRAMS)),
        field("exponentialHistogram", 10, Kind::Message(&EXPONENTIALS)),
        field("summary", 11, Kind::Message(&SUMMARIES)),
    ],
};
const TEMPORALITY: Kind = Kind::Enum(&[
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
]);
static NUMBERS: Message = Message {
    fields: &[
        field("dataPoints", 1, Kind::Messages(&NUMBER)),
        field("aggregationTemporality", 2, TEMPORALITY),
        field("isMonotonic", 3, Kind::Bool),
    ],
};
static HISTOGRAMS: Message = Message {
    fields: &[
        field("dataPoints", 1, Kind::Messages(&HISTOGRAM)),
        field("aggregationTemporality", 2, TEMPORALITY),
    ],
};
static EXPONENTIALS: Message = Message {
    fields: &[
        field("dataPoints", 1, Kind::Messages(&EXPONENTIAL)),
        field("aggregationTemporality", 2, TEMPORALITY),
    ],
};
static SUMMARIES: Message = Message {
    fields: &[field("dataPoints", 1, Kind::Messages(&SUMMARY))],
};
static NUMBER: Message = Message {
    fields: &[
        field("startTimeUnixNano", 2, Kind::Fixed64),
        field("timeUnixNano", 3, Kind::Fixed64),
        field("asDouble", 4, Kind::Double),
        field("exemplars", 5, Kind::Messages(&EXEMPLAR)),
        field("asInt", 6, Kind::Sfixed64),
        field("attributes", 7, Kind::Messages(&KEY_VALUE)),
        field("flags", 8, Kind::Uint32),
    ],
};
static HISTOGRAM: Message = Message {
    fields: &[
        field("startTimeUnixNano", 2, Kind::Fixed64),
        field("timeUnixNano", 3, Kind::Fixed64),
        field("count", 4, Kind::Fixed64),
        field("sum", 5, Kind::Double),
        field("bucketCounts", 6, Kind::Fixed64s),
        field("explicitBounds", 7, Kind::Doubles),
        field("exemplars", 8, Kind::Messages(&EXEMPLAR)),
        field("attributes", 9, Kind::Messages(&KEY_VALUE)),
        field("flags", 10, Kind::Uint32),
    ],
};
static EXPONENTIAL: Message = Message {
    fields: &[
        field("attributes", 1, Kind::Messages(&KEY_VALUE)),
        field("startTimeUnixNano", 2, Kind::Fixed64),
        field("timeUnixNano", 3, Kind::Fixed64),
        field("count", 4, Kind::Fixed64),
        field("sum", 5, Kind::Double),
        field("scale", 6, Kind::Sint32),
        field("zeroCount", 7, Kind::Fixed64),
        field("positive", 8, Kind::Message(&BUCKETS)),
        field("negative", 9, Kind::Message(&BUCKETS)),
        field("flags", 10, Kind::Uint32),
        field("exemplars", 11, Kind::Messages(&EXEMPLAR)),
        field("zeroThreshold", 14, Kind::Double),
    ],
};
static BUCKETS: Message = Message {
    fields: &[
        field("offset", 1, Kind::Sint32),
        field("bucketCounts", 2, Kind::Uint64s),
    ],
};
static SUMMARY: Message = Message {
    fields: &[
        field("startTimeUnixNano", 2, Kind::Fixed64),
        field("timeUnixNano", 3, Kind::Fixed64),
        field("count", 4, Kind::Fixed64),
        field("sum", 5, Kind::Double),
        field("quantileValues", 6, Kind::Messages(&QUANTILE)),
        field("attributes", 7, Kind::Messages(&KEY_VALUE)),
        field("flags", 8, Kind::Uint32),
    ],
};
static QUANTILE: Message = Message {
    fields: &[
        field("quantile", 1, Kind::Double),
        field("value", 2, Kind::Double),
    ],
};
static EXEMPLAR: Message = Message {
    fields: &[
        field("timeUnixNano", 2, Kind::Fixed64),
        field("asDouble", 3, Kind::Double),
        field("spanId", 4, Kind::Hex),
        field("traceId", 5, Kind::Hex),
        field("asInt", 6, Kind::Sfixed64),
        field("filteredAttributes", 7, Kind::Messages(&KEY_VALUE)),
    ],
};
static KEY_VALUE: Message = Message {
    fields: &[
        field("key", 1, Kind::Text),
        field("value", 2, Kind::Message(&ANY)),
    ],
};
static ANY: Message = Message {
    fields: &[
        field("stringValue", 1, Kind::Text),
        field("boolValue", 2, Kind::Bool),
        field("intValue", 3, Kind::Int64),
        field("doubleValue", 4, Kind::Double),
        field("arrayValue", 5, Kind::Message(&ARRAY)),
        field("kvlistValue", 6, Kind::Message(&LIST)),
        field("bytesValue", 7, Kind::Base64),
    ],
};
static ARRAY: Message = Message {
    fields: &[field("values", 1, Kind::Messages(&ANY))],
};
static LIST: Message = Message {
    fields: &[field("values", 1, Kind::Messages(&KEY_VALUE))],
};

/// Writes a JSON request as protobuf into `out`, which is cleared.
///
/// Errors: text that is no such JSON, with the place of what is wrong; more than `bytes_max` bytes. Cost: a pass over the text; what comes
/// out is at most about twice as long.
pub fn to_protobuf(text: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    out.clear();
    let max = bytes_max.min(MESSAGE_MAX - 1);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Fields {
        message: &REQUEST,
        out,
        max,
    }
    .deserialize(&mut reader)
    .and_then(|()| reader.end());
    match read {
        Ok(()) => Ok(()),
        Err(_) if out.len() > max => Err(Error::TooLarge { max }),
        Err(error) => Err(Error::Json(error.to_string())),
    }
}

/// Reads the fields of a message.
struct Fields<'o> {
    message: &'static Message,
    out: &'o mut Vec<u8>,
    max: usize,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(Name(self.message))? {
            match found {
                Some(field) => map.next_value_seed(Content {
                    field,
                    out: self.out,
                    max: self.max,
                    tagged: true,
                })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Reads the name of a field.
struct Name(&'static Message);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let mut fields = self.0.fields.iter();
        Ok(fields.find(|field| field.name == name || is_snake_of(name, field.name)))
    }
}

/// Whether a name is the other one with words parted by `_`.
fn is_snake_of(name: &str, camel: &str) -> bool {
    let mut name = name.bytes();
    let is_same = camel.bytes().all(|byte| match byte.is_ascii_uppercase() {
        true => name.next() == Some(b'_') && name.next() == Some(byte.to_ascii_lowercase()),
        false => name.next() == Some(byte),
    });
    is_same && name.next().is_none()
}

/// Reads the content of a field, and writes it.
struct Content<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
    max: usize,
    /// Whether tag and length are to be written; not within a packed list.
    tagged: bool,
}

impl Content<'_> {
    fn tag(&mut self, wire_type: u8) {
        if self.tagged {
            self.out.push(self.field.number << 3 | wire_type);
        }
    }

    fn check<E: serde::de::Error>(&self) -> Result<(), E> {
        match self.out.len() > self.max {
            true => Err(E::custom("too large")),
            false => Ok(()),
        }
    }

    /// Writes a length-delimited field.
    fn delimited<E: serde::de::Error>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.tag(BYTES);
        let begin = self.out.len() + LENGTH_BYTES;
        self.out.resize(begin, 0);
        write(self.out, self.max)?;
        self.check()?;
        let mut len = self.out.len() - begin;
        for at in 0..LENGTH_BYTES {
            let more = if at + 1 < LENGTH_BYTES { 0x80 } else { 0 };
            self.out[begin - LENGTH_BYTES + at] = (len & 0x7f) as u8 | more;
            len >>= 7;
        }
        Ok(())
    }

    fn unsigned<E: serde::de::Error>(mut self, number: u64) -> Result<(), E> {
        let too_large = || E::custom(format!("{number} is too large for {}", self.field.name));
        match self.field.kind {
            Kind::Fixed64 | Kind::Fixed64s => {
                self.tag(FIXED64);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            Kind::Double | Kind::Doubles => return self.double(number as f64),
            Kind::Uint64s => {
                self.tag(VARINT);
                varint::put_u64(self.out, number);
            }
            Kind::Uint32 | Kind::Enum(_) => {
                let number = u32::try_from(number).map_err(|_| too_large())?;
                self.tag(VARINT);
                varint::put_u64(self.out, number.into());
            }
            _ => {
                let number = i64::try_from(number).map_err(|_| too_large())?;
                return self.signed(number);
            }
        }
        self.check()
    }

    fn signed<E: serde::de::Error>(mut self, number: i64) -> Result<(), E> {
        let name = self.field.name;
        match self.field.kind {
            Kind::Sfixed64 => {
                self.tag(FIXED64);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            Kind::Int64 => {
                self.tag(VARINT);
                varint::put_u64(self.out, number as u64);
            }
            Kind::Sint32 => {
                i32::try_from(number)
                    .map_err(|_| E::custom(format!("{number} is too large for {name}")))?;
                self.tag(VARINT);
                varint::put_i64(self.out, number);
            }
            Kind::Double | Kind::Doubles => return self.double(number as f64),
            Kind::Bool | Kind::Text | Kind::Base64 | Kind::Hex => {
                return Err(E::custom(format!("{name} is no number")));
            }
            Kind::Message(_) | Kind::Messages(_) => {
                return Err(E::custom(format!("{name} is no number")));
            }
            _ => {
                let number = u64::try_from(number)
                    .map_err(|_| E::custom(format!("{name} is never negative")))?;
                return self.unsigned(number);
            }
        }
        self.check()
    }

    fn double<E: serde::de::Error>(mut self, number: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double | Kind::Doubles => {
                self.tag(FIXED64);
                self.out.extend_from_slice(&number.to_le_bytes());
                self.check()
            }
            // 1e3 and 1.0 are whole numbers too.
            _ if number.fract() == 0.0 && number.abs() < 9e15 => self.signed(number as i64),
            _ => Err(E::custom(format!("{} is a whole number", self.field.name))),
        }
    }

    /// The kind of what a list holds.
    fn is_list(&self) -> bool {
        matches!(
            self.field.kind,
            Kind::Messages(_) | Kind::Fixed64s | Kind::Doubles | Kind::Uint64s
        )
    }
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.field.kind {
            _ if self.is_list() => "a list",
            Kind::Message(_) => "an object",
            Kind::Text | Kind::Base64 | Kind::Hex => "a text",
            Kind::Bool => "true or false",
            _ => "a number",
        };
        write!(f, "{what} in {}", self.field.name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> Result<(), E> {
        if !matches!(self.field.kind, Kind::Bool) {
            return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self));
        }
        self.tag(VARINT);
        self.out.push(value.into());
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.unsigned(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.signed(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.double(value)
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<(), E> {
        let name = self.field.name;
        let wrong = |what: &str| {
            let shown: String = text.chars().take(40).collect();
            E::custom(format!("{shown:?} is no {what} ({name})"))
        };
        match self.field.kind {
            Kind::Text => self.delimited(|out, _| {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }),
            Kind::Hex => self.delimited(|out, _| match put_hex(out, text) {
                true => Ok(()),
                false => Err(wrong("hexadecimal text")),
            }),
            Kind::Base64 => self.delimited(|out, _| match put_from_base64(out, text) {
                true => Ok(()),
                false => Err(wrong("base64")),
            }),
            Kind::Enum(names) => match names.iter().position(|name| *name == text) {
                Some(number) => self.unsigned(number as u64),
                None => Err(wrong("value of it")),
            },
            Kind::Double | Kind::Doubles => match text {
                "NaN" => self.double(f64::NAN),
                "Infinity" => self.double(f64::INFINITY),
                "-Infinity" => self.double(f64::NEG_INFINITY),
                _ => match text.parse() {
                    Ok(number) => self.double(number),
                    Err(_) => Err(wrong("number")),
                },
            },
            Kind::Message(_) | Kind::Messages(_) | Kind::Bool => {
                let got = serde::de::Unexpected::Other("a text");
                Err(E::invalid_type(got, &self))
            }
            _ => {
                if let Ok(number) = text.parse::<u64>() {
                    return self.unsigned(number);
                }
                match text.parse::<i64>() {
                    Ok(number) => self.signed(number),
                    Err(_) => Err(wrong("whole number")),
                }
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let field = self.field;
        match field.kind {
            Kind::Messages(message) => {
                while items
                    .next_element_seed(Item {
                        field,
                        message,
                        out: self.out,
                        max: self.max,
                    })?
                    .is_some()
                {}
                Ok(())
            }
            Kind::Fixed64s | Kind::Doubles | Kind::Uint64s => self.delimited(|out, max| {
                while items
                    .next_element_seed(Content {
                        field,
                        out,
                        max,
                        tagged: false,
                    })?
                    .is_some()
                {}
                Ok(())
            }),
            _ => Err(serde::de::Error::invalid_type(
                serde::de::Unexpected::Seq,
                &self,
            )),
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        match self.field.kind {
            Kind::Message(message) => {
                self.delimited(|out, max| Fields { message, out, max }.visit_map(map))
            }
            _ => Err(serde::de::Error::invalid_type(
                serde::de::Unexpected::Map,
                &self,
            )),
        }
    }
}

/// Reads one message of a list.
struct Item<'o> {
    field: &'static Field,
    message: &'static Message,
    out: &'o mut Vec<u8>,
    max: usize,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Item {
            field,
            message,
            out,
            max,
        } = self;
        Content {
            field,
            out,
            max,
            tagged: true,
        }
        .delimited(|out, max| Fields { message, out, max }.deserialize(deserializer))
    }
}

fn put_hex(out: &mut Vec<u8>, text: &str) -> bool {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    rest.is_empty()
        && pairs
            .iter()
            .all(|pair| match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    true
                }
                _ => false,
            })
}

/// Either alphabet, padded or not.
fn put_from_base64(out: &mut Vec<u8>, text: &str) -> bool {
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return false,
        };
        word = word << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    bits < 6
}
