//! From spans of `tracing` to spans of OpenTelemetry.

use std::{fmt, time::SystemTime};

use pinfold_types::spans::{TARGET, TRACEPARENT};
use tokio::sync::mpsc;
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context as Around, Filter},
    registry::LookupSpan,
};

use super::{
    Counts,
    context::{Context, fresh},
    proto::{ERROR, INTERNAL, KeyValue, SERVER, Span, Status, Value},
};

/// Most bytes of a text.
const MAX_TEXT: usize = 128;
/// The field that names a span.
const NAME: &str = "operation";
/// The field that says how it ended; `fault` makes the span one with an error. It is the last one
/// of a request.
const OUTCOME: &str = "outcome";
const FAULT: &str = "fault";
/// The name of spans that answer a request.
const REQUEST: &str = "request";

/// Takes the spans of [`TARGET`], and nothing else.
#[derive(Debug)]
pub struct SpanLayer {
    queue: mpsc::Sender<Span>,
    counts: Counts,
}

impl SpanLayer {
    pub(super) const fn new(queue: mpsc::Sender<Span>, counts: Counts) -> Self {
        Self { queue, counts }
    }

    /// What it is to be filtered by.
    pub fn filter<S>() -> impl Filter<S> {
        tracing_subscriber::filter::filter_fn(ours)
    }
}

fn ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// A span whose context others may still need.
struct Open {
    context: Context,
    /// Nothing once it has ended. A request ends with its answer; streams that came of it and
    /// their operations go on.
    span: Option<Span>,
    answered: bool,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, around: Around<'_, S>) {
        let Some(entry) = around.span(id) else { return };
        let above = entry
            .parent()
            .and_then(|parent| parent.extensions().get::<Open>().map(|open| open.context));
        let trace = above.map_or_else(fresh, |above| above.trace);
        let name = attributes.metadata().name();
        let mut open = Open {
            context: Context { trace, span: fresh() },
            span: Some(Span {
                parent: above.map(|above| above.span.to_vec()).unwrap_or_default(),
                name: name.to_owned(),
                kind: if name == REQUEST { SERVER } else { INTERNAL },
                start_time_unix_nano: now(),
                ..Span::default()
            }),
            answered: false,
        };
        attributes.record(&mut open);
        entry.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, around: Around<'_, S>) {
        let Some(entry) = around.span(id) else { return };
        if let Some(open) = entry.extensions_mut().get_mut::<Open>() {
            values.record(open);
            if open.answered {
                self.ended(open);
            }
        }
    }

    fn on_close(&self, id: Id, around: Around<'_, S>) {
        let open = around.span(&id).and_then(|entry| entry.extensions_mut().remove::<Open>());
        if let Some(mut open) = open {
            self.ended(&mut open);
        }
    }
}

impl SpanLayer {
    fn ended(&self, open: &mut Open) {
        let context = open.context;
        let Some(mut span) = open.span.take() else { return };
        span.trace = context.trace.to_vec();
        span.id = context.span.to_vec();
        span.end_time_unix_nano = now().max(span.start_time_unix_nano);
        if self.queue.try_send(span).is_err() {
            self.counts.count_dropped(1);
        }
    }
}

impl Open {
    fn set(&mut self, field: &Field, value: Value) {
        let Some(span) = &mut self.span else { return };
        match (field.name(), &value) {
            // The caller's trace goes on here, where this is not a part of another span of ours.
            (TRACEPARENT, Value::Text(text)) => {
                if let Some(above) = Context::parse(text)
                    && span.parent.is_empty()
                {
                    self.context.trace = above.trace;
                    span.parent = above.span.to_vec();
                }
                return;
            }
            (NAME, Value::Text(text)) => span.name.clone_from(text),
            (OUTCOME, Value::Text(text)) => {
                if text == FAULT {
                    span.status = Some(Status { code: ERROR });
                }
                self.answered = span.kind == SERVER;
            }
            _ => {}
        }
        let attributes = &mut span.attributes;
        let fresh = KeyValue::new(field.name(), value);
        match attributes.iter_mut().find(|known| known.key == fresh.key) {
            Some(known) => *known = fresh,
            None => attributes.push(fresh),
        }
    }
}

impl Visit for Open {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Number(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Number(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Truth(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::Text(cut(value.to_owned())));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::Text(cut(format!("{value:?}"))));
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn spans_of_ours_have_their_parents_and_others_are_not_taken() {
        let (queue, mut taken) = mpsc::channel(2);
        let counts = Counts::default();
        let layer = SpanLayer::new(queue, counts.clone()).with_filter(SpanLayer::filter());
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let request = tracing::debug_span!(
                target: TARGET, "request", operation = "exec.run", outcome = tracing::field::Empty,
                traceparent = tracing::field::Empty
            );
            request.record(TRACEPARENT, parent);
            let others = tracing::info_span!("secret", command = "cat /etc/shadow");
            request.in_scope(|| {
                others.in_scope(|| {
                    drop(tracing::debug_span!(target: TARGET, "call", operation = "exec.start"));
                });
            });
            request.record(OUTCOME, FAULT);
            drop((request, others));
            drop(tracing::debug_span!(target: TARGET, "one too many"));
        });
        let (call, request) = (taken.try_recv().expect("one"), taken.try_recv().expect("two"));
        assert!(taken.try_recv().is_err());
        assert_eq!(counts.dropped(), 1);
        assert_eq!((call.name.as_str(), request.name.as_str()), ("exec.start", "exec.run"));
        assert_eq!((call.kind, request.kind), (INTERNAL, SERVER));
        assert_eq!(call.trace, request.trace);
        assert_eq!(call.parent, request.id);
        assert_eq!(request.trace[..2], [0x0a, 0xf7]);
        assert_eq!(request.parent[7], 0x31);
        assert_eq!(request.status, Some(Status { code: ERROR }));
        assert!(request.attributes.iter().all(|of| of.key != TRACEPARENT));
    }
}
