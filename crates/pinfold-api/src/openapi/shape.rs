//! What goes in and comes out of an operation, as types.

use http::StatusCode;
use pinfold_types::api::{Page, PageQuery};
use schemars::{JsonSchema, SchemaGenerator, generate::Contract};

/// Writes a type's schema, or a reference to it.
pub(super) type Typed = fn(&mut SchemaGenerator) -> schemars::Schema;

/// What one operation takes and gives. Built by [`shape`] and the methods below.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(super) operation: &'static str,
    pub(super) query: Option<Typed>,
    pub(super) body: Option<Typed>,
    pub(super) upload: Option<&'static str>,
    pub(super) reply: Given,
    pub(super) ranges: bool,
    pub(super) cached: bool,
    pub(super) also: &'static [u16],
}

/// What comes back when all went well.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// JSON of this type with this status.
    Json(StatusCode, Typed),
    /// 204.
    Nothing,
    /// Raw bytes of this media type.
    Bytes(&'static str),
    /// One JSON document a line.
    Lines(Typed),
    /// Server-sent events: what their data is, by kind.
    Events(&'static [(&'static str, Typed)]),
    /// A WebSocket.
    Frames(Frames),
}

/// What travels over a WebSocket, each direction in words and as types where it is JSON.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames {
    pub(super) first: Option<Typed>,
    pub(super) client_text: Option<Typed>,
    pub(super) client_binary: Option<&'static str>,
    pub(super) server_text: Option<Typed>,
    pub(super) server_binary: Option<&'static str>,
}

/// The schema of `T`.
pub(super) fn typed<T: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<T>()
}

/// The schema of a query's fields, not behind a reference: each becomes a parameter.
fn fields<T: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    debug_assert_eq!(*generator.contract(), Contract::Deserialize);
    T::json_schema(generator)
}

/// The fields of a list's query, with its own kind of cursor.
fn page_fields<I: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    let mut schema = fields::<PageQuery>(generator);
    let cursor = I::json_schema(generator);
    if let Some(pattern) = cursor.get("pattern") {
        schema.ensure_object()["properties"]["cursor"]["pattern"] = pattern.clone();
    }
    schema
}

/// An operation that takes nothing and gives nothing, to be said more about.
pub(super) const fn shape(operation: &'static str) -> Shape {
    Shape {
        operation,
        query: None,
        body: None,
        upload: None,
        reply: Given::Nothing,
        ranges: false,
        cached: false,
        also: &[],
    }
}

impl Shape {
    /// Takes the fields of `T` in the query.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(fields::<T>);
        self
    }

    /// Gives pages of `T`, whose cursors are ids `I`.
    pub(super) fn pages<I: JsonSchema, T: JsonSchema>(mut self) -> Self {
        self.query = Some(page_fields::<I>);
        self.gives::<Page<T>>()
    }

    /// Takes `T` as a JSON body.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(typed::<T>);
        self
    }

    /// Takes raw bytes as the body.
    pub(super) const fn uploads(mut self, media: &'static str) -> Self {
        self.upload = Some(media);
        self
    }

    /// Gives 200 and `T`.
    pub(super) fn gives<T: JsonSchema>(mut self) -> Self {
        self.reply = Given::Json(StatusCode::OK, typed::<T>);
        self
    }

    /// Gives 201 and `T`.
    pub(super) fn makes<T: JsonSchema>(mut self) -> Self {
        self.reply = Given::Json(StatusCode::CREATED, typed::<T>);
        self
    }

    /// Gives raw bytes.
    pub(super) fn bytes(mut self, media: &'static str) -> Self {
        self.reply = Given::Bytes(media);
        self
    }

    /// Understands `Range` (RFC 9110 §14).
    pub(super) const fn ranges(mut self) -> Self {
        self.ranges = true;
        self
    }

    /// Gives an `ETag` and understands `If-None-Match` (RFC 9110 §13.1.2).
    pub(super) const fn cached(mut self) -> Self {
        self.cached = true;
        self
    }

    /// Gives one `T` a line while the work goes on.
    pub(super) fn lines<T: JsonSchema>(mut self) -> Self {
        self.reply = Given::Lines(typed::<T>);
        self
    }

    /// Gives server-sent events.
    pub(super) fn events(mut self, kinds: &'static [(&'static str, Typed)]) -> Self {
        self.reply = Given::Events(kinds);
        self
    }

    /// Becomes a WebSocket.
    pub(super) fn frames(mut self, frames: Frames) -> Self {
        self.reply = Given::Frames(frames);
        self
    }

    /// Fails with these statuses too, beside those that follow from its line in the table.
    pub(super) const fn also(mut self, statuses: &'static [u16]) -> Self {
        self.also = statuses;
        self
    }
}

impl Frames {
    /// The client's first message is `T`, as text.
    pub(super) fn first<T: JsonSchema>(mut self) -> Self {
        self.first = Some(typed::<T>);
        self
    }

    /// The client's text messages are `T`.
    pub(super) fn client_text<T: JsonSchema>(mut self) -> Self {
        self.client_text = Some(typed::<T>);
        self
    }

    /// What the client's binary messages are.
    pub(super) const fn client_binary(mut self, what: &'static str) -> Self {
        self.client_binary = Some(what);
        self
    }

    /// The server's text messages are `T`.
    pub(super) fn server_text<T: JsonSchema>(mut self) -> Self {
        self.server_text = Some(typed::<T>);
        self
    }

    /// What the server's binary messages are.
    pub(super) const fn server_binary(mut self, what: &'static str) -> Self {
        self.server_binary = Some(what);
        self
    }
}
