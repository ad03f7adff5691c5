//! Browsers: signing in with a link, signing out, and what a signed-in one is shown.

mod cookie;
pub(crate) mod form;
pub(crate) mod page;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use pinfold_auth::{Caller, ObjectRef, ops};
use pinfold_control::{Node, Service, Visitor};
use pinfold_types::{
    Error, ErrorCode, RequestId, Result,
    access::TokenInfo,
    api::{MAX_PAGE, PageQuery},
    config::Origin,
};

pub(crate) use self::cookie::{find as find_cookie, home};
use self::page::{Page, failure, see};
use crate::{
    authenticate::browser,
    listen::Peer,
    reply,
    site::{Called, Page as From},
};

const STYLE: &str = include_str!("login/page.css");
/// Changes with the style.
const STYLE_TAG: &str = concat!("\"login-", env!("CARGO_PKG_VERSION"), "-1\"");

pub(crate) fn routes<N: Node>(router: Router<Service<N>>) -> Router<Service<N>> {
    router
        .route("/", get(account))
        .route("/login", get(show).post(sign_in))
        .route("/login/page.css", get(style))
        .route("/logout", post(sign_out))
}

async fn style(headers: HeaderMap) -> Response {
    let text = Bytes::from_static(STYLE.as_bytes());
    reply::cached(&headers, "text/css; charset=utf-8", text, STYLE_TAG)
}

/// How a request over TCP calls us.
pub(crate) fn called(request: &Request) -> Result<Called> {
    let called = request.extensions().get::<Called>().cloned();
    called.ok_or_else(|| Error::internal("a request that has not passed the gate"))
}

/// Where a request is from.
pub(crate) fn visitor(request: &Request) -> Visitor {
    let address = match request.extensions().get::<Peer>() {
        Some(Peer::Tcp { address, .. }) => Some(address.ip()),
        _ => None,
    };
    let id = request.extensions().get::<RequestId>().copied();
    Visitor::new(address, id.unwrap_or_else(RequestId::generate))
}

/// The answer, or a page that says what went wrong.
pub(crate) fn shown(answer: Result<Response>) -> Response {
    answer.unwrap_or_else(|error| {
        if error.code == ErrorCode::Internal {
            tracing::error!(%error, cause = error.internal, "a page failed");
        }
        failure(&error)
    })
}

/// Refuses a form that is not of one of our pages (F-06).
pub(crate) fn own_form(called: &Called) -> Result<()> {
    if called.page == From::Own {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Forbidden, "this form is not from a page of this server")
        .hint("open the page again, in a browser that says where its forms are from"))
}

/// The way in, for a browser that is not signed in.
pub(crate) fn way_in(page: Page) -> Page {
    page.text(
        "This browser is not signed in. On the machine that runs Pinfold, or wherever you have a \
         token for it, make a link and open it in this browser:",
    )
    .command("pinfold login")
}

async fn show(request: Request) -> Response {
    shown(
        async move {
            let called = called(&request)?;
            let at = home(&called.origin);
            if at != called.origin {
                let query =
                    request.uri().query().map_or(String::new(), |query| format!("?{query}"));
                return see(&format!("{at}/login{query}"));
            }
            let code = form::query(&request)?.take("code")?;
            let page = match code.as_deref() {
                Some(code) => Page::new("Sign in to Pinfold")
                    .text("This link signs this browser in, once. Go on only if you asked for it.")
                    .form("/login", &[("code", code)], &[("go", "on", "Sign in")]),
                None => way_in(Page::new("Sign in to Pinfold")).link("/", "I am signed in already"),
            };
            page.answer(StatusCode::OK)
        }
        .await,
    )
}

async fn sign_in<N: Node>(State(service): State<Service<N>>, request: Request) -> Response {
    shown(
        async move {
            let (called, visitor) = (called(&request)?, visitor(&request));
            own_form(&called)?;
            if home(&called.origin) != called.origin {
                return Err(Error::new(
                    ErrorCode::Forbidden,
                    "browsers are not signed in at this name",
                ));
            }
            let code = form::body(request).await?.take("code")?.unwrap_or_default();
            let made =
                service.sign_in(&code, &visitor).await.map_err(|error| match error.code {
                    ErrorCode::Unauthenticated => Error::new(
                        ErrorCode::Unauthenticated,
                        "this link does not stand: it was used, it is too old, or it is not whole",
                    )
                    .hint("make another one: pinfold login"),
                    _ => error,
                })?;
            let mut response = see("/")?;
            let cookie = cookie::set(&called.origin, &made)?;
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            Ok(response)
        }
        .await,
    )
}

async fn sign_out<N: Node>(State(service): State<Service<N>>, request: Request) -> Response {
    shown(
        async move {
            let called = called(&request)?;
            own_form(&called)?;
            let signed_in = browser(service.access(), &request);
            let everywhere = form::body(request).await?.take("everywhere")?.is_some();
            // A cookie that stands for nobody any more is forgotten all the same.
            if let Ok(Some(caller)) = signed_in {
                service.sign_out(&caller, everywhere).await?;
            }
            let page = Page::new("Signed out")
                .text(if everywhere {
                    "All your browsers are signed out."
                } else {
                    "This browser is signed out."
                })
                .link("/login", "Sign in again");
            let mut response = page.answer(StatusCode::OK)?;
            let headers = response.headers_mut();
            if home(&called.origin) == called.origin {
                headers.insert(header::SET_COOKIE, cookie::clear(&called.origin)?);
            }
            let gone = HeaderValue::from_static("\"cache\", \"storage\"");
            headers.insert("clear-site-data", gone);
            Ok(response)
        }
        .await,
    )
}

/// What a signed-in browser is shown: who it is, where else they are signed in, which clients they
/// let in.
async fn account<N: Node>(State(service): State<Service<N>>, request: Request) -> Response {
    shown(
        async move {
            let at = home(&called(&request)?.origin);
            let Ok(Some(caller)) = browser(service.access(), &request) else {
                return see(&format!("{at}/login"));
            };
            let principal = caller.principal();
            let (id, scopes) =
                (principal.id().to_string(), principal.authority().scopes.to_string());
            let mut page = Page::new("Pinfold")
                .text("This browser is signed in.")
                .facts(&[("You are", &id), ("You may", &scopes)])
                .link("/api/docs", "Read the API");
            let tokens = tokens(&service, &caller).await.unwrap_or_default();
            let of = |class: &str| {
                let own = tokens.iter().filter(|info| {
                    info.class == class
                        && info.principal == principal.id()
                        && info.revoked_at.is_none()
                        && info.expires_at.is_none_or(|end| end > jiff::Timestamp::now())
                });
                own.map(line).collect::<Vec<_>>()
            };
            for (title, lines) in
                [("Your browsers", of("web")), ("Clients you let in", of("refresh"))]
            {
                if !lines.is_empty() {
                    let count = format!("{title}: {}", lines.len());
                    page = page.details(&count, lines.iter().map(String::as_str));
                }
            }
            page.form("/logout", &[], &[("go", "out", "Sign out")])
                .form("/logout", &[], &[("everywhere", "yes", "Sign out everywhere")])
                .answer(StatusCode::OK)
        }
        .await,
    )
}

async fn tokens<N: Node>(service: &Service<N>, caller: &Caller) -> Result<Vec<TokenInfo>> {
    let grant = service.grant::<ops::TokenList>(caller, ObjectRef::server()).await?;
    let query = PageQuery { limit: Some(MAX_PAGE), ..PageQuery::default() };
    Ok(service.list_tokens(grant, &query).await?.items)
}

fn line(info: &TokenInfo) -> String {
    let name = info.client.as_deref().unwrap_or(&info.name);
    let used = info.last_used_at.unwrap_or(info.created_at);
    let end = info.expires_at.map_or(String::new(), |end| format!(", until {end:.0}"));
    format!("{name}: {}, last used {used:.0}{end}", info.id)
}

/// The place where browsers are signed in, for whoever calls us so.
pub(crate) fn login_page(called: &Origin) -> String {
    home(called).to_string()
}
