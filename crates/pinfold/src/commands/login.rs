//! `login` and `logout`: browsers.

use std::process::{Command, Stdio};

use http::Method;
use pinfold_types::{
    Error, ErrorCode, Result,
    access::{EndedLogins, NewLogin},
};

use super::Context;
use crate::{args::access::Login, output::human, private};

const LOGINS: &str = "/api/v1/logins";
/// Programs that open a URL in the browser that a person uses, on the desktops that have one.
const OPENERS: [&str; 3] = ["xdg-open", "wslview", "open"];

pub(super) async fn login(context: &Context, args: &Login) -> Result<()> {
    let made: NewLogin = context.client.act(Method::POST, LOGINS).await?;
    let time = human::coarse(made.expires_in_ms);
    if args.open {
        open(context, &made.url)?;
        context.output.note(format!("the browser signs in with a link that stands for {time}"));
        return Ok(());
    }
    context.output.show(&made, |made| format!("{}\n", made.url))?;
    context.output.note(format!("open it in a browser within {time}; it signs in one, once"));
    Ok(())
}

/// Shows the link to a browser. Arguments of programs can be read by every user of the machine, so
/// the browser is given a file of ours that leads there.
fn open(context: &Context, url: &str) -> Result<()> {
    let path = context.home.path().join("login.html");
    let html = format!(
        "<!doctype html><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" \
         content=\"0;url={url}\"><p><a href=\"{url}\">Sign in to Pinfold</a></p>\n"
    );
    private::write(&path, html.as_bytes()).map_err(|error| {
        Error::new(ErrorCode::Unavailable, format!("{} cannot be written: {error}", path.display()))
    })?;
    let url = path.display().to_string();
    for program in OPENERS {
        let started = Command::new(program)
            .arg(&url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match started {
            Ok(status) if status.success() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::internal(format!("{program}: {error}"))),
        }
    }
    Err(Error::new(ErrorCode::Unavailable, "no browser could be opened here")
        .hint("pinfold login prints the link; open it wherever your browser is"))
}

pub(super) async fn logout(context: &Context) -> Result<()> {
    let ended: EndedLogins = context.client.act(Method::DELETE, LOGINS).await?;
    context.output.show(&ended, |ended| match ended.tokens.len() {
        1 => "1 browser signed out\n".to_owned(),
        count => format!("{count} browsers signed out\n"),
    })
}
