//! JSON that callers send: exactly what the document says.

mod tree;

use pinfold_types::{Error, ErrorCode, Result, name::excerpt};
use serde::{
    Deserialize,
    de::{
        Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor,
        value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer, StringDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::Value;

/// Reads a request. Unknown fields are named by serde's own message, the place of a wrong value by
/// its path.
///
/// # Errors
/// `invalid_body` for what is not one JSON object with unique names and at most [`tree::MAX_VALUES`]
/// values, and for what `T` does not take.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::new(ErrorCode::InvalidBody, "the body is not a JSON object"));
    }
    let wrong = |why: String| {
        Error::new(ErrorCode::InvalidBody, format!("the body is not what is taken: {why}"))
    };
    let value = tree::read(text).map_err(|error| wrong(short(error.to_string())))?;
    serde_path_to_error::deserialize(Strict(value)).map_err(|error| {
        let path = error.path().to_string();
        let why = short(error.into_inner().to_string());
        wrong(if matches!(path.as_str(), "." | "") {
            why
        } else {
            format!("{}: {why}", excerpt(&path))
        })
    })
}

/// What serde says of a value holds the value.
fn short(mut message: String) -> String {
    const MOST: usize = 1000;
    if message.len() > MOST {
        message.truncate(message.floor_char_boundary(MOST));
        message.push('…');
    }
    message
}

/// JSON in which only an object is an object: serde would take an array for one, and fill its
/// fields in order.
struct Strict(Value);

impl IntoDeserializer<'_, serde_json::Error> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Strict {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Strict));
                let read = visitor.visit_seq(&mut items)?;
                items.end().map(|()| read)
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (name, Strict(value)));
                let mut fields = MapDeserializer::new(fields);
                let read = visitor.visit_map(&mut fields)?;
                fields.end().map(|()| read)
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(_) => Err(Self::Error::invalid_type(Unexpected::Seq, &"an object")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::String(variant) => {
                StringDeserializer::new(variant).deserialize_enum(name, variants, visitor)
            }
            // Its one name is the variant's; serde would leave the others unread.
            Value::Object(fields) if fields.len() != 1 => {
                Err(Self::Error::invalid_length(fields.len(), &"an object with one name"))
            }
            Value::Object(fields) => MapAccessDeserializer::new(MapDeserializer::new(
                fields.into_iter().map(|(name, value)| (name, Strict(value))),
            ))
            .deserialize_enum(name, variants, visitor),
            other => other.deserialize_enum(name, variants, visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use pinfold_types::{
        api::ExecInput,
        exec::ExecSpec,
        image::ImportImage,
        workspace::{CreateWorkspace, UpdateWorkspace},
    };

    use super::*;

    #[test]
    fn an_array_is_not_an_object_wherever_it_stands() {
        for text in ["[]", r#"{"limits":[null,null]}"#, r#"{"limits":[]}"#] {
            let refused = parse::<CreateWorkspace>(text.as_bytes()).expect_err(text);
            assert_eq!(refused.code, ErrorCode::InvalidBody, "{text}");
            let refused = parse::<UpdateWorkspace>(text.as_bytes()).expect_err(text);
            assert!(refused.message.contains("object"), "{}", refused.message);
        }
    }

    #[test]
    fn an_array_is_not_an_object_in_a_tagged_one_either() {
        let right = r#"{"type":"resize","size":{"cols":80,"rows":24}}"#;
        parse::<ExecInput>(right.as_bytes()).expect(right);
        let wrong = r#"{"type":"resize","size":[80,24]}"#;
        parse::<ExecInput>(wrong.as_bytes()).expect_err(wrong);
        let right = r#"{"name":"a","source":{"from":"upload"}}"#;
        parse::<ImportImage>(right.as_bytes()).expect(right);
        let wrong = r#"{"name":"a","source":["upload"]}"#;
        parse::<ImportImage>(wrong.as_bytes()).expect_err(wrong);
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_point_and_errors_name_their_place() {
        let text = r#"{"ttl_ms":6e4,"limits":{"cpu_weight":410.0}}"#;
        let read: CreateWorkspace = parse(text.as_bytes()).expect(text);
        let plain = r#"{"ttl_ms":60000,"limits":{"cpu_weight":410}}"#;
        assert_eq!(read, serde_json::from_str(plain).expect(plain));
        for (text, said) in [
            (r#"{"limits":{"cpu_weight":410.5}}"#, "limits.cpu_weight: invalid type: floating"),
            (r#"{"limits":{"cpu_weight":-0.5}}"#, "limits.cpu_weight: "),
            (r#"{"ttl_ms":1e300}"#, "ttl_ms: "),
            (r#"{"nmae":"a"}"#, "unknown field `nmae`"),
            (r#"{"name":"a","name":"b"}"#, "duplicate field `name`"),
            (r#"{"env":{"A":"1","A":"2"}}"#, "duplicate field `A`"),
            (r#"{"name":"a"} {}"#, "trailing"),
            (r#"{"command":{"command":{"argv":["a"],"shell":"b"}}}"#, "one name"),
            (r#"{"command":{"command":{}}}"#, "one name"),
        ] {
            let refused = parse::<CreateWorkspace>(text.as_bytes()).expect_err(text);
            assert_eq!(refused.code, ErrorCode::InvalidBody, "{text}");
            assert!(refused.message.contains(said), "{}", refused.message);
        }
        let long = format!(r#"{{"ttl_ms":"{}"}}"#, "x".repeat(1 << 20));
        let refused = parse::<CreateWorkspace>(long.as_bytes()).expect_err("text");
        assert!(refused.message.len() < 1200, "{}", refused.message.len());
    }

    #[test]
    fn what_is_right_is_read_as_ever() {
        for text in [
            r#"{"name":"a","limits":{"memory_bytes":33554432},"env":{"A":"["},"labels":{}}"#,
            r#"{"command":{"command":{"argv":["a","[","b"]},"background":true},"ttl_ms":null}"#,
        ] {
            let read: CreateWorkspace = parse(text.as_bytes()).expect(text);
            assert_eq!(read, serde_json::from_str(text).expect(text));
        }
        let text = r#"{"command":{"argv":["sh"]},"env":{"A":"b"},"tty":{"rows":24,"cols":80}}"#;
        let read: ExecSpec = parse(text.as_bytes()).expect(text);
        assert_eq!(read, serde_json::from_str(text).expect(text));
    }
}
