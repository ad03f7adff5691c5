//! What a tool is.

use std::{future::Future, sync::Arc};

use futures_util::future::BoxFuture;
use pinfold_control::Node;
use pinfold_types::{Error, ErrorCode, Result};
use rmcp::model::{JsonObject, Tool as Described, ToolAnnotations};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{call::Call, schema};

/// What a call does to the world, as annotations say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing is changed.
    Reads,
    /// Something is added; what there was stays.
    Adds,
    /// What there was may be changed or lost.
    Changes,
}

/// What is said about a tool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    /// `noun_verb`, for ever.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// For models: what it does, when to use it, what to call next.
    pub(crate) about: &'static str,
    /// The operations it may ask grants for. A grant for any other is refused.
    pub(crate) operations: &'static [&'static str],
    pub(crate) effect: Effect,
    /// A second call with the same arguments changes nothing more.
    pub(crate) idempotent: bool,
    /// It reaches beyond this server.
    pub(crate) open_world: bool,
}

/// What a tool gives: the typed result, and the same for whoever reads only text.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) text: String,
    pub(crate) value: T,
}

impl<T> Reply<T> {
    pub(crate) fn new(text: impl Into<String>, value: T) -> Self {
        Self { text: text.into(), value }
    }
}

/// A tool: a unit type.
pub(crate) trait Tool<N: Node>: 'static {
    const INFO: Info;
    type Input: DeserializeOwned + JsonSchema + Send + 'static;
    type Output: Serialize + JsonSchema + Send + 'static;

    /// The operations that a call with these arguments needs the right to; whatever else it
    /// declares, it does only where it may.
    fn needs(_arguments: &JsonObject) -> Vec<&'static str> {
        Self::INFO.operations.to_vec()
    }

    /// Does it. Dropping the future must leave nothing behind that the client could not find.
    fn run(
        call: Call<N>,
        input: Self::Input,
    ) -> impl Future<Output = Result<Reply<Self::Output>>> + Send;
}

/// What a call came to, before it is rendered.
pub(crate) type Answer = Result<Reply<Value>>;

/// A tool in the list.
pub(crate) struct Entry<N: Node> {
    pub(crate) info: Info,
    pub(crate) described: Described,
    pub(crate) needs: fn(&JsonObject) -> Vec<&'static str>,
    pub(crate) run: fn(Call<N>, JsonObject) -> BoxFuture<'static, Answer>,
}

impl<N: Node> std::fmt::Debug for Entry<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The entry of a tool.
pub(crate) fn entry<N: Node, T: Tool<N>>() -> Entry<N> {
    let info = T::INFO;
    let mut annotations = ToolAnnotations::with_title(info.title)
        .read_only(info.effect == Effect::Reads)
        .idempotent(info.idempotent)
        .open_world(info.open_world);
    annotations = annotations.destructive(info.effect == Effect::Changes);
    let described = Described::new(info.name, info.about, schema::input::<T::Input>())
        .with_title(info.title)
        .with_raw_output_schema(Arc::new(schema::output::<T::Output>()))
        .with_annotations(annotations);
    Entry {
        info,
        described,
        needs: T::needs,
        run: |call, arguments| Box::pin(run::<N, T>(call, arguments)),
    }
}

async fn run<N: Node, T: Tool<N>>(call: Call<N>, arguments: JsonObject) -> Answer {
    let input = serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        Error::new(ErrorCode::InvalidArgument, format!("the arguments are not usable: {error}"))
            .hint(format!("read the input schema of {} again and correct them", T::INFO.name))
    })?;
    let Reply { text, value } = T::run(call, input).await?;
    let value = serde_json::to_value(value).map_err(Error::internal)?;
    Ok(Reply { text, value })
}
