//! Schemas of all types in one place. A request and a reply of the same type may differ (a field
//! that is always in the reply can be left out of the request); then the request's is `…Input`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{
    Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
    transform::{Transform, transform_subschemas},
};
use serde_json::{Map, Value, json};

const HOME: &str = "#/components/schemas/";

/// Both generators, and what they gave.
pub(super) struct Schemas {
    requests: SchemaGenerator,
    replies: SchemaGenerator,
}

fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = HOME.trim_start_matches('#').into();
        settings.meta_schema = None;
        settings.contract = contract;
    });
    settings.into_generator()
}

impl Schemas {
    pub(super) fn new() -> Self {
        Self { requests: generator(Contract::Deserialize), replies: generator(Contract::Serialize) }
    }

    /// What a caller may send.
    pub(super) fn request(&mut self, of: super::shape::Typed) -> Value {
        finish(of(&mut self.requests))
    }

    /// Whether a request of this type has a field that cannot be left out.
    pub(super) fn requires_something(&mut self, of: super::shape::Typed) -> bool {
        let schema = self.request(of);
        let name = schema["$ref"].as_str().and_then(|text| text.strip_prefix(HOME));
        let definition = match name {
            Some(name) => self.requests.definitions().get(name).unwrap_or(&Value::Null),
            None => &schema,
        };
        definition["required"].as_array().is_some_and(|required| !required.is_empty())
    }

    /// What the server gives.
    pub(super) fn reply(&mut self, of: super::shape::Typed) -> Value {
        finish(of(&mut self.replies))
    }

    /// The schemas by name, and what has to be renamed in everything that [`Self::request`] gave.
    pub(super) fn into_components(self) -> (Map<String, Value>, BTreeSet<String>) {
        let all = |mut generator: SchemaGenerator| -> BTreeMap<String, Value> {
            let definitions = generator.take_definitions(true);
            definitions.into_iter().map(|(name, schema)| (name, bounded(schema))).collect()
        };
        let (requests, replies) = (all(self.requests), all(self.replies));
        let mut differ = BTreeSet::new();
        // A type that holds one that differs, differs.
        loop {
            let renamed = |name: &str| {
                let mut schema = requests[name].clone();
                rename(&mut schema, &differ);
                schema
            };
            let more: Vec<String> = requests
                .keys()
                .filter(|name| !differ.contains(*name))
                .filter(|name| replies.get(*name).is_some_and(|reply| *reply != renamed(name)))
                .cloned()
                .collect();
            if more.is_empty() {
                break;
            }
            differ.extend(more);
        }
        let mut components: Map<String, Value> = replies.into_iter().collect();
        for (name, mut schema) in requests {
            rename(&mut schema, &differ);
            let name = if differ.contains(&name) { format!("{name}Input") } else { name };
            components.insert(name, schema);
        }
        (components, differ)
    }
}

/// Makes references to the types of `differ` lead to the request's form.
pub(super) fn rename(value: &mut Value, differ: &BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "$ref" => {
                        if text.strip_prefix(HOME).is_some_and(|name| differ.contains(name)) {
                            text.push_str("Input");
                        }
                    }
                    other => rename(other, differ),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, differ)),
        _ => {}
    }
}

fn finish(schema: Schema) -> Value {
    bounded(schema.to_value())
}

fn bounded(value: Value) -> Value {
    let Ok(mut schema) = Schema::try_from(value) else { return json!(true) };
    Bounds.transform(&mut schema);
    schema.to_value()
}

/// Says the least and the greatest value of every integer, which its format only hints at.
struct Bounds;

impl Transform for Bounds {
    fn transform(&mut self, schema: &mut Schema) {
        let bounds = match schema.get("format").and_then(Value::as_str) {
            Some("uint" | "uint64") => Some((json!(0), json!(u64::MAX))),
            Some("uint32") => Some((json!(0), json!(u32::MAX))),
            Some("uint16") => Some((json!(0), json!(u16::MAX))),
            Some("uint8") => Some((json!(0), json!(u8::MAX))),
            Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
            Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
            _ => None,
        };
        if let Some((least, greatest)) = bounds {
            let object = schema.ensure_object();
            object.entry("minimum").or_insert(least);
            object.entry("maximum").or_insert(greatest);
        }
        transform_subschemas(self, schema);
    }
}

/// The parameters that the fields of a query are.
pub(super) fn parameters(query: &Value) -> Vec<Value> {
    let required = query["required"].as_array();
    let Some(fields) = query["properties"].as_object() else { return Vec::new() };
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        without_null(&mut schema);
        let description = schema.as_object_mut().and_then(|map| map.remove("description"));
        let mut parameter = json!({
            "name": name,
            "in": "query",
            "required": required.is_some_and(|required| required.contains(&json!(name))),
            "schema": schema,
        });
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    };
    fields.iter().map(parameter).collect()
}

/// A query cannot say null: an absent field is left out.
fn without_null(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_slice() {
            let only = only.clone();
            map.remove("anyOf");
            if let Value::Object(only) = only {
                map.extend(only);
            }
        }
    }
}
