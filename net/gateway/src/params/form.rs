//! `application/x-www-form-urlencoded`: the names and values of URL and body.

use percent_encoding::percent_decode;

/// Parameters of one request, those of the body first, as Go orders them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    pairs: Vec<(String, String)>,
}

/// Text that is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("error parsing form values: not UTF-8 or not percent-encoded")]
pub struct FormError;

/// More parameters than this are no query.
const PARAMETERS_MAX: usize = 10_000;

impl Form {
    /// Reads the query of a URL and the body of a posted form (either may be empty).
    pub fn parse(query: &str, body: &[u8]) -> Result<Form, FormError> {
        let mut pairs = Vec::new();
        for text in [body, query.as_bytes()] {
            for piece in text.split(|&b| b == b'&').filter(|piece| !piece.is_empty()) {
                let (name, value) = match piece.iter().position(|&b| b == b'=') {
                    Some(at) => (&piece[..at], &piece[at + 1..]),
                    None => (piece, &[][..]),
                };
                if pairs.len() == PARAMETERS_MAX {
                    return Err(FormError);
                }
                pairs.push((decode(name)?, decode(value)?));
            }
        }
        Ok(Form { pairs })
    }

    /// The first value of a parameter.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter, in order.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.clone())
            .collect()
    }
}

/// Plus is a space; a percent sign must be followed by two hexadecimal digits.
fn decode(text: &[u8]) -> Result<String, FormError> {
    let broken = text.iter().enumerate().any(|(at, &b)| {
        b == b'%'
            && !text
                .get(at + 1..at + 3)
                .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if broken {
        return Err(FormError);
    }
    let spaced: Vec<u8> = text
        .iter()
        .map(|&b| if b == b'+' { b' ' } else { b })
        .collect();
    let decoded = percent_decode(&spaced)
        .decode_utf8()
        .map_err(|_| FormError)?;
    Ok(decoded.into_owned())
}
