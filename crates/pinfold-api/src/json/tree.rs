//! The values of a JSON text, before anybody asks what they mean.

use std::{cell::Cell, fmt};

use pinfold_types::name::excerpt;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most values of a body, names aside: several times what a request with as many arguments and
/// variables as may be has, and a bound on the memory that eight megabytes of `0,` can ask for.
pub(super) const MAX_VALUES: usize = 32_768;
/// Below this a number with a point is as exact as one without (2^53).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads a text of JSON: names of an object are unique (RFC 8259 §4 leaves open what else they
/// mean), and a number without a fraction is an integer, however it is written (JSON Schema, core
/// §6.3), up to what a double holds: a fraction below its precision is none, and from 2^53 on only
/// a number without point and exponent is an integer.
pub(super) fn read(text: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Tree { left: &Cell::new(MAX_VALUES) }.deserialize(&mut reader)?;
    reader.end().map(|()| value)
}

/// One value, and what is in it.
#[derive(Clone, Copy)]
struct Tree<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1);
        let many = || D::Error::custom(format_args!("it has more than {MAX_VALUES} values"));
        self.left.set(left.ok_or_else(many)?);
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        if value.fract() == 0.0 && value.abs() < EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within 2^53")]
            return Ok((value as i64).into());
        }
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if object.contains_key(&name) {
                let name = excerpt(&name);
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            let value = fields.next_value_seed(self)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_they_mean() {
        let read = |text: &str| read(text.as_bytes()).expect(text);
        assert_eq!(read("[1.0, -0.0, 2e3, 1e-1]").to_string(), "[1,0,2000,0.1]");
        assert_eq!(read("18446744073709551615").as_u64(), Some(u64::MAX));
        assert!(read("1e16").is_f64(), "not exact");
        assert!(read("9007199254740993.0").is_f64(), "not exact");
        assert_eq!(read("9007199254740993").as_u64(), Some(9_007_199_254_740_993));
    }

    #[test]
    fn many_values_are_too_many() {
        let list = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        read(list(MAX_VALUES).as_bytes()).expect("as many as may be");
        let refused = read(list(MAX_VALUES + 1).as_bytes()).expect_err("one too many");
        assert!(refused.to_string().contains("more than"), "{refused}");
        read("[".repeat(1000).as_bytes()).expect_err("too deep");
    }
}
