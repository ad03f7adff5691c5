//! The protocol's methods.

use std::{borrow::Cow, sync::Arc};

use pinfold_auth::Caller;
use pinfold_control::{Node, Service};
use pinfold_types::{Error, ErrorCode, RequestId};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, Implementation,
        ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
        Tool as Described,
    },
    service::RequestContext,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{Instrument as _, Span};

use crate::{
    answer, call::Call, catalogue, limits::MAX_CALLS, progress::Progress, resources, tool::Entry,
};

const INSTRUCTIONS: &str = "\
Pinfold gives you walled Linux workspaces. Nothing in one can reach this machine or the network, \
so run anything in it.
Usual way: workspace_create, then exec and the file_* tools, which all take the workspace's name or \
id. Paths are absolute paths inside the workspace.
Take a snapshot_create before something risky, and snapshot_restore to go back. workspace_fork \
makes copies to try several things at once. Start long or never-ending commands with exec_start \
and follow them with exec_output.
Output is cut to a limit; results say how much was left out and how to get it. Destroy workspaces \
that are no longer needed.";

/// Answers one client.
#[derive(Debug)]
pub struct Handler<N: Node> {
    service: Service<N>,
    /// Of everything in this session; without, each request carries its own.
    caller: Option<Caller>,
    calls: Arc<Semaphore>,
    tools: Arc<Vec<Entry<N>>>,
}

impl<N: Node> Handler<N> {
    /// For one client whose caller is known.
    pub(crate) fn new(service: Service<N>, caller: Caller) -> Self {
        Self {
            service,
            caller: Some(caller),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            tools: Arc::new(catalogue::tools()),
        }
    }

    /// For requests that each carry their caller, and share these calls.
    pub(crate) fn shared(
        service: Service<N>,
        tools: Arc<Vec<Entry<N>>>,
        calls: Arc<Semaphore>,
    ) -> Self {
        Self { service, caller: None, calls, tools }
    }

    /// Who is asking, for one call.
    fn caller(&self, context: &RequestContext<RoleServer>) -> Result<Caller, ErrorData> {
        if let Some(caller) = &self.caller {
            return Ok(caller.clone().with_request(RequestId::generate()));
        }
        let parts = context.extensions.get::<http::request::Parts>();
        let caller = parts.and_then(|parts| parts.extensions.get::<Caller>());
        caller.cloned().ok_or_else(|| ErrorData::invalid_request("no credential was given", None))
    }

    fn permit(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.calls.try_acquire().map_err(|_| {
            Error::new(
                ErrorCode::RateLimited,
                format!("{MAX_CALLS} calls of this session run already, the most it may have"),
            )
            .hint("wait for one to end; long commands belong into exec_start")
        })
    }

    fn call(
        &self,
        context: &RequestContext<RoleServer>,
        operations: &'static [&'static str],
    ) -> Result<Call<N>, ErrorData> {
        Ok(Call {
            service: self.service.clone(),
            caller: self.caller(context)?,
            operations,
            progress: Progress::of(context),
            cancelled: context.ct.child_token(),
        })
    }
}

/// The span of the HTTP request that a call came in; without one, the current one.
fn span(context: &RequestContext<RoleServer>) -> Span {
    let parts = context.extensions.get::<http::request::Parts>();
    let span = parts.and_then(|parts| parts.extensions.get::<Span>());
    span.cloned().unwrap_or_else(Span::current)
}

impl<N: Node> ServerHandler for Handler<N> {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        ServerConfig::new(capabilities)
            .with_server_info(
                Implementation::new("pinfold", env!("CARGO_PKG_VERSION"))
                    .with_title("Pinfold workspaces"),
            )
            .with_instructions(INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Described> {
        self.tools.iter().find(|entry| entry.info.name == name).map(|entry| entry.described.clone())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.caller(&context)?;
        if let Some(cursor) = request.and_then(|request| request.cursor) {
            return Err(no_cursor(&cursor));
        }
        let tools = self.tools.iter().map(|entry| entry.described.clone()).collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let found = self.tools.iter().find(|entry| entry.info.name == request.name);
        let entry = found.ok_or_else(|| {
            let name: Cow<'_, str> = pinfold_types::name::excerpt(&request.name).into();
            ErrorData::invalid_params(format!("there is no tool {name:?}; see tools/list"), None)
        })?;
        let _permit = match self.permit() {
            Ok(permit) => permit,
            Err(error) => return Ok(answer::render(Err(error)).into()),
        };
        let call = self.call(&context, entry.info.operations)?;
        let (ended, cancelled) =
            (self.service.access().ended(call.caller.principal()), call.cancelled.clone());
        let running = (entry.run)(call, request.arguments.unwrap_or_default());
        let running = running.instrument(span(&context));
        tokio::pin!(running);
        let answer = tokio::select! {
            answer = &mut running => answer,
            // What runs for a credential ends with it.
            () = ended.cancelled() => {
                cancelled.cancel();
                running.await
            }
        };
        Ok(answer::render(answer).into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let call = self.call(&context, resources::OPERATIONS)?;
        let cursor = request.and_then(|request| request.cursor);
        let listed = resources::list(&call, cursor).instrument(span(&context));
        listed.await.map_err(|error| resources::refused(&error))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        self.caller(&context)?;
        if let Some(cursor) = request.and_then(|request| request.cursor) {
            return Err(no_cursor(&cursor));
        }
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let _permit = self.permit().map_err(|error| resources::refused(&error))?;
        let mut call = self.call(&context, resources::OPERATIONS)?;
        let cancelled = call.cancelled.clone();
        tokio::select! {
            read = resources::read(&mut call, &request.uri).instrument(span(&context)) => {
                read.map(Into::into).map_err(|error| resources::refused(&error))
            }
            () = cancelled.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
        }
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        // A method that exists comes here when its parameters have the wrong shape.
        const KNOWN: &[&str] = &[
            "initialize",
            "ping",
            "tools/call",
            "tools/list",
            "resources/list",
            "resources/templates/list",
            "resources/read",
        ];
        let method = pinfold_types::name::excerpt(&request.method);
        if KNOWN.contains(&request.method.as_str()) {
            return Err(ErrorData::invalid_params(
                format!("the parameters of {method} have the wrong shape"),
                None,
            ));
        }
        Err(ErrorData::new(
            rmcp::model::ErrorCode::METHOD_NOT_FOUND,
            format!("there is no method {method:?}"),
            None,
        ))
    }
}

fn no_cursor(cursor: &str) -> ErrorData {
    let cursor = pinfold_types::name::excerpt(cursor);
    ErrorData::invalid_params(format!("{cursor:?} is not a cursor of this list"), None)
}
