//! Small JSON objects, written field by field.

use std::time::Duration;

use wire::json::{put_float, put_string, put_u64};

/// An object in the making; closed when dropped out of use by [`Object::close`].
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn open(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, first: true }
    }

    pub(crate) fn close(self) {
        self.out.push(b'}');
    }

    /// A field whose value `put` writes.
    pub(crate) fn field(&mut self, name: &str, put: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        put_string(self.out, name);
        self.out.push(b':');
        put(self.out);
        self
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.field(name, |out| put_string(out, value))
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.field(name, |out| put_u64(out, value))
    }

    pub(crate) fn signed(&mut self, name: &str, value: i64) -> &mut Self {
        self.field(name, |out| {
            out.extend_from_slice(value.to_string().as_bytes());
        })
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.field(name, |out| out.extend_from_slice(text))
    }

    /// Seconds with decimals.
    pub(crate) fn seconds(&mut self, name: &str, value: Duration) -> &mut Self {
        self.field(name, |out| put_float(out, value.as_secs_f64()))
    }

    /// A list of objects.
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        put: impl FnMut(&mut Vec<u8>, T),
    ) -> &mut Self {
        self.field(name, |out| put_list(out, items, put))
    }
}

/// `[..]`
pub(crate) fn put_list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_separated_and_values_are_json() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.text("a\"", "b").number("n", 7).signed("s", -1);
        object
            .flag("f", true)
            .seconds("t", Duration::from_millis(1500));
        object.list("l", [1u64, 2], put_u64);
        object.close();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            r#"{"a\"":"b","n":7,"s":-1,"f":true,"t":1.5,"l":[1,2]}"#
        );
        let mut out = Vec::new();
        Object::open(&mut out).close();
        assert_eq!(out, b"{}");
    }
}
