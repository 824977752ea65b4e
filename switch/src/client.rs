//! The command line's side of the API: one request, one answer, over the unix socket.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use weft_control::{Code, ControlError};

/// What a command ends with when it fails.
pub(crate) type Failure = ControlError;

/// A daemon to talk to.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

fn failed(message: impl Into<String>) -> Failure {
    ControlError::new(Code::Unavailable, "", message)
}

impl Client {
    pub(crate) fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call("POST", path, Some(body))
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call("PATCH", path, Some(body))
    }

    pub(crate) fn delete(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.call("DELETE", path, body)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.drive(async {
            let response = self.send(method, path, body).await?;
            let bytes = response.into_body().collect().await.map_err(|error| failed(format!("the daemon hung up: {error}")))?.to_bytes();
            serde_json::from_slice(&bytes).map_err(|error| failed(format!("the daemon's answer is no JSON: {error}")))
        })
    }

    /// Copies a streamed answer to `out` until it ends, `out` closes, or `enough` says so.
    pub(crate) fn stream(&self, path: &str, out: &mut dyn Write, mut enough: impl FnMut(&[u8]) -> bool) -> Result<(), Failure> {
        self.drive(async {
            let mut body = self.send("GET", path, None).await?.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| failed(format!("the daemon hung up: {error}")))?;
                let Some(data) = frame.data_ref() else { continue };
                match out.write_all(data).and_then(|()| out.flush()) {
                    // A reader that went away (`| head`) is a normal end.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
                    Err(error) => return Err(failed(format!("cannot write: {error}"))),
                    Ok(()) if enough(data) => break,
                    Ok(()) => {}
                }
            }
            Ok(())
        })
    }

    fn drive<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.to_string()))?;
        runtime.block_on(work)
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<hyper::Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            failed(format!("no daemon answers on {}: {error}", self.socket.display())).hint("start one with `weft daemon &`, or name its socket with -H or WEFT_HOST")
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        tokio::spawn(connection);
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("host", "weft").header("content-type", "application/json").body(Full::new(bytes));
        let request = request.map_err(|error| failed(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| failed(format!("the daemon hung up: {error}")))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let bytes = response.into_body().collect().await.map_err(|error| failed(error.to_string()))?.to_bytes();
        Err(serde_json::from_slice(&bytes).unwrap_or_else(|_| failed(String::from_utf8_lossy(&bytes))))
    }
}

/// Escapes a path segment or query value (RFC 3986 unreserved characters stay).
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
