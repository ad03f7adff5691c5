//! JSON Schemas in the plain form that every client reads: one object, nothing referenced, no
//! `null` beside a type, because a field that may be absent is left out.

use rmcp::model::JsonObject;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// Schema of what a tool takes.
pub(crate) fn input<T: JsonSchema>() -> JsonObject {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let mut schema = of::<T>(settings);
    // A tool without arguments still takes an object.
    schema.entry("properties").or_insert_with(|| Value::Object(JsonObject::new()));
    schema
}

/// Schema of what a tool gives.
pub(crate) fn output<T: JsonSchema>() -> JsonObject {
    of::<T>(SchemaSettings::draft2020_12().for_serialize())
}

fn of<T: JsonSchema>(settings: SchemaSettings) -> JsonObject {
    let settings = settings.with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    plain(&mut schema);
    let Value::Object(mut object) = schema else { return JsonObject::new() };
    object.remove("title");
    // The tool's own description says it.
    object.remove("description");
    object
}

/// Takes away what only confuses: `null` alternatives, defaults of `null`, number formats that no
/// validator knows.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|one| one != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|one| one.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            if object.get("format").is_some_and(|format| {
                format
                    .as_str()
                    .is_some_and(|text| text.starts_with("uint") || text.starts_with("int"))
            }) {
                object.remove("format");
            }
            for (_, value) in object.iter_mut() {
                plain(value);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(plain),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        /// How many.
        count: Option<u64>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        inner: Option<Inner>,
        #[serde(default)]
        env: BTreeMap<String, String>,
    }

    #[test]
    fn schemas_are_one_plain_object() {
        let text = serde_json::to_string(&input::<Outer>()).expect("plain data");
        for strange in ["null", "$ref", "$defs", "$schema", "uint64", "anyOf"] {
            assert!(!text.contains(strange), "{strange} in {text}");
        }
        let schema = input::<Outer>();
        assert_eq!(schema["required"], serde_json::json!(["name"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["inner"]["properties"]["count"]["type"], "integer");
    }
}
