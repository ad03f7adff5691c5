//! An upgraded HTTP connection.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use pinfold_api::ws::{BoxRead, BoxWrite, Receiver, Role, Sender, accept_key, new_key};
use pinfold_types::{Error, ErrorCode, Result, SessionId};
use tokio::net::UnixStream;

use super::{Body, Client, call::problem, lost};

impl Client {
    /// Opens a WebSocket; a refusal comes back as the server's error.
    pub(crate) async fn websocket(&self, path: &str) -> Result<(Sender, Receiver)> {
        self.websocket_in(path, None).await
    }

    /// The same in a session of the caller's.
    pub(crate) async fn websocket_in(
        &self,
        path: &str,
        session: Option<SessionId>,
    ) -> Result<(Sender, Receiver)> {
        let key = new_key();
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static("websocket"))
            .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .header(header::SEC_WEBSOCKET_KEY, key.as_str())
            .body(Body::Whole(None))
            .map_err(Error::internal)?;
        self.sign(request.headers_mut());
        if let Some(id) = session {
            let id = HeaderValue::try_from(id.to_string()).map_err(Error::internal)?;
            request.headers_mut().insert("pinfold-session", id);
        }
        let mut sender = self.http().await?;
        let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(problem(response).await);
        }
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|value| value.as_bytes() != accept_key(key.as_bytes()).as_bytes()) {
            return Err(Error::new(ErrorCode::Internal, "the server's handshake is wrong"));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| lost(&error))?;
        let (read, write, already): (BoxRead, BoxWrite, Bytes) =
            match upgraded.downcast::<TokioIo<UnixStream>>() {
                Ok(parts) => {
                    let (read, write) = parts.io.into_inner().into_split();
                    (Box::pin(read), Box::pin(write), parts.read_buf)
                }
                Err(other) => {
                    let (read, write) = tokio::io::split(TokioIo::new(other));
                    (Box::pin(read), Box::pin(write), Bytes::new())
                }
            };
        Ok((Sender::new(write, Role::Client), Receiver::new(read, Role::Client, &already)))
    }
}
