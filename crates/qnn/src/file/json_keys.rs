//! Finds keys that occur twice in one JSON object. Maps and structs would silently keep the last
//! value of such a key, or ignore both, but nobody knows which one the file means.

use core::fmt;
use std::collections::HashSet;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Finds the first key of `json`, at any depth, that its object has twice. It is given as a path
/// such as `fc1.weight: dtype`.
///
/// # Errors
/// If `json` is not JSON.
pub(crate) fn duplicate_key(json: &[u8]) -> Result<Option<String>, serde_json::Error> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    match (Keys { found: &mut found }).deserialize(&mut deserializer) {
        // The walk ends at the first such key with an error that says nothing else.
        Err(_) if found.is_some() => Ok(found),
        walked => walked.and_then(|()| deserializer.end()).map(|()| None),
    }
}

/// Walks over a value of any type and looks at the keys of its objects.
struct Keys<'f> {
    found: &'f mut Option<String>,
}

impl Keys<'_> {
    fn within(&mut self) -> Keys<'_> {
        Keys { found: &mut *self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<(), A::Error> {
        while values.next_element_seed(self.within())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if keys.contains(&key) {
                *self.found = Some(key);
                return Err(A::Error::custom("a key twice"));
            }
            if let Err(error) = entries.next_value_seed(self.within()) {
                if let Some(inner) = self.found.take() {
                    *self.found = Some(format!("{key}: {inner}"));
                }
                return Err(error);
            }
            keys.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_twice_is_found_at_any_depth() {
        let find = |json: &str| duplicate_key(json.as_bytes()).unwrap();
        for json in
            ["{}", "[1, -1, 1.5, \"a\", null, true]", r#"{"a": {"b": 1}, "b": {"b": 2}, "c": [{"a": 1}]}"#]
        {
            assert_eq!(find(json), None, "{json}");
        }
        assert_eq!(find(r#"{"a": 1, "b": 2, "a": 3}"#).as_deref(), Some("a"));
        assert_eq!(find(r#"{"a": 1, "\u0061": 1}"#).as_deref(), Some("a"), "the same key, written otherwise");
        assert_eq!(find(r#"{"x": {"a": 1}, "y": {"a": 1, "a": 1}}"#).as_deref(), Some("y: a"));
        assert_eq!(find(r#"{"x": [{"y": {"b": 0, "b": 0}}]}"#).as_deref(), Some("x: y: b"));
        for json in ["", "{", "{} {}", r#"{"a" 1}"#, &"[".repeat(100_000)] {
            assert!(duplicate_key(json.as_bytes()).is_err(), "{}", &json[..json.len().min(9)]);
        }
    }
}
