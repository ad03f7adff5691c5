//! From a client's request to a person's answer.

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use pinfold_auth::{ObjectRef, ops};
use pinfold_control::{
    Asked, Node, Service, Unfit, Visitor, Wish, in_words, looking, place, source,
};
use pinfold_types::{Error, ErrorCode, Result, config::Origin};

use crate::{
    authenticate::browser,
    login::{
        called, form, home, own_form,
        page::{Page, see},
        shown, visitor, way_in,
    },
};

/// The field in which a request says as whom the client called us, on its way between our names.
const CALLED_AS: &str = "called_as";

/// A request with what it says of itself.
struct Asking {
    asked: Asked,
    /// As whom the client called us.
    issuer: Origin,
    /// The query without that.
    query: String,
}

fn asking(request: &Request) -> Result<Asking> {
    let here = called(request)?.origin;
    let mut fields = form::query(request)?;
    let issuer = match fields.take(CALLED_AS)? {
        None => here,
        Some(name) => {
            let name: Origin = name.parse()?;
            // Our own names alone, and those of this machine all lead to one place.
            if name != here && home(&name) != here {
                let message = "the request was made for another server";
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
            name
        }
    };
    let query = request.uri().query().unwrap_or_default().split('&');
    let own = |pair: &&str| pair.split('=').next() != Some(CALLED_AS);
    let asked = Asked {
        response_type: fields.take("response_type")?,
        client_id: fields.take("client_id")?,
        redirect_uri: fields.take("redirect_uri")?,
        state: fields.take("state")?,
        scope: fields.take("scope")?,
        code_challenge: fields.take("code_challenge")?,
        code_challenge_method: fields.take("code_challenge_method")?,
        resource: fields.take("resource")?,
    };
    Ok(Asking { asked, issuer, query: query.filter(own).collect::<Vec<_>>().join("&") })
}

impl Asking {
    /// The same request at another path of the place where browsers are signed in.
    fn at(&self, path: &str) -> String {
        let (home, query) = (home(&self.issuer), &self.query);
        let called = self.issuer.to_string();
        let called: String = url::form_urlencoded::byte_serialize(called.as_bytes()).collect();
        format!("{home}{path}?{query}&{CALLED_AS}={called}")
    }
}

/// The wish of a request; or where to go instead.
async fn wish<N: Node>(
    service: &Service<N>,
    visitor: &Visitor,
    asking: &Asking,
) -> Result<Result<Wish, Response>> {
    let issuer = asking.issuer.to_string();
    match service.wish(&asking.asked, &issuer, visitor).await {
        Ok(wish) => Ok(Ok(wish)),
        Err(Unfit::Told(error)) => Err(error),
        Err(Unfit::SentBack { to }) => Ok(Err(see(&to)?)),
    }
}

pub(super) async fn authorize<N: Node>(
    State(service): State<Service<N>>,
    request: Request,
) -> Response {
    shown(
        async move {
            let (asking, here) = (asking(&request)?, called(&request)?.origin);
            if home(&here) != here {
                return see(&asking.at("/oauth/authorize"));
            }
            let wish = match wish(&service, &visitor(&request), &asking).await? {
                Ok(wish) => wish,
                Err(back) => return Ok(back),
            };
            let next = asking.at("/oauth/consent");
            Page::new("One moment")
                .text(&format!("{} wants to connect to Pinfold.", wish.client.name))
                .link(&next, "Go on")
                .going_on_to(&next)
                .answer(StatusCode::OK)
        }
        .await,
    )
}

pub(super) async fn ask<N: Node>(State(service): State<Service<N>>, request: Request) -> Response {
    shown(async move {
        let asking = asking(&request)?;
        let Ok(Some(caller)) = browser(service.access(), &request) else {
            return way_in(Page::new("Sign in to go on"))
                .text("Then come back to this page and go on.")
                .link(&asking.at("/oauth/consent"), "Go on")
                .answer(StatusCode::OK);
        };
        let wish = match wish(&service, &visitor(&request), &asking).await? {
            Ok(wish) => wish,
            Err(back) => return Ok(back),
        };
        let (number, can) = service.ask_consent(&caller, &wish).await?;
        let back = place(&wish.redirect);
        let you = caller.principal().id().to_string();
        let known = match &wish.client.host {
            Some(host) => format!("by a document at {host}"),
            None => "it registered itself: anybody can call themselves so".to_owned(),
        };
        let mut page = Page::new("Let this client in?")
            .text("A client asks to use Pinfold's tools for models in your name. Go on only if you started this yourself.")
            .facts(&[
                ("It calls itself", &wish.client.name),
                ("Known", &known),
                ("The answer goes to", &back),
                ("You are", &you),
            ])
            .heading("What it could do");
        for (noun, sentences) in in_words(&can) {
            page = page.details(&format!("{noun} ({})", sentences.len()), sentences);
        }
        page = page.text(
            "It gets an access token for MCP that is renewed as long as it is used. You can end \
             that at any time: pinfold token ls, pinfold token revoke.",
        );
        let mut buttons = vec![("answer", "approve", "Approve")];
        let looks = can.and(&looking());
        if !looks.is_empty() && looks != can {
            buttons.push(("answer", "look", "Let it look only"));
        }
        buttons.push(("answer", "deny", "Deny"));
        page.form("/oauth/consent", &[("page", &number)], &buttons)
            .leading_to(source(&wish.redirect))
            .answer(StatusCode::OK)
    }
    .await)
}

pub(super) async fn answer<N: Node>(
    State(service): State<Service<N>>,
    request: Request,
) -> Response {
    shown(
        async move {
            own_form(&called(&request)?)?;
            service.count_login(&visitor(&request)).await?;
            let caller = browser(service.access(), &request)?;
            let caller = caller.ok_or_else(|| pinfold_auth::unauthenticated("no cookie"))?;
            let mut fields = form::body(request).await?;
            let number = fields.take("page")?.unwrap_or_default();
            let answer = fields.take("answer")?.unwrap_or_default();
            if !["approve", "look", "deny"].contains(&answer.as_str()) {
                return Err(Error::new(ErrorCode::InvalidArgument, "the form has no answer in it"));
            }
            let wish = service.answered(&caller, &number).ok_or_else(|| {
                Error::new(ErrorCode::Conflict, "this page was answered already, or is too old")
                    .hint("begin again in the client")
            })?;
            let to = if answer == "deny" {
                service.deny(&caller, &wish).await?
            } else {
                let grant = service.grant::<ops::TokenCreate>(&caller, ObjectRef::server()).await?;
                service.consent(grant, &wish, answer == "look").await?
            };
            see(&to)
        }
        .await,
    )
}
