//! One question to one member, over HTTP.

use std::{
    error::Error,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use control::store::{StoreConfig, StoreError};

use super::{tls, wire};

/// The largest answer, and the longest line of a watch, bytes.
pub(super) const LARGEST_ANSWER: usize = 64 << 20;
/// A connection on which nothing is acknowledged is given up after this, also one that only listens: the sum of the next two.
const DEAD: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(2);
const PROBES: u32 = 2;
/// How etcd's JSON gateway refuses whom it could take for the certificate's user.
const NAMED_CERTIFICATE: &[u8] = b"CommonName of client";

/// The members, the connections to them, and what lets us in.
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// `http://host:port` of each.
    members: Vec<String>,
    /// The member that answered last.
    pub(super) current: AtomicUsize,
    /// The cluster that the last reading came from; 0 before.
    pub(super) cluster: AtomicU64,
    /// For one call, whoever answers it.
    pub(super) timeout: Duration,
    credentials: Option<(String, String)>,
    token: Mutex<Option<String>>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("members", &self.members).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Why one member gave no answer that helps.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not asked: there is no connection.
    Unsent(String),
    /// It is not who it should be, or says so of us.
    Untrusted(String),
    /// Asked; what became of it is unknown.
    Unanswered(String),
    /// It answered, with a code of gRPC.
    Answered(u64, String),
}

impl Transport {
    pub(super) fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let members: Vec<_> = config.url.members.iter().map(|member| format!("{}://{member}", if config.url.tls { "https" } else { "http" })).collect();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        // So that each member is tried within one call.
        http.set_connect_timeout(Some(config.timeout / u32::try_from(members.len().max(1)).unwrap_or(u32::MAX)));
        http.set_keepalive(Some(IDLE));
        http.set_keepalive_interval(Some((DEAD - IDLE) / PROBES));
        http.set_keepalive_retries(Some(PROBES));
        http.set_tcp_user_timeout(Some(DEAD));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls::config(&config.options)?).https_or_http().enable_http1().wrap_connector(http);
        let credentials = match (&config.options.user, &config.options.password_file) {
            (Some(user), Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|error| StoreError::Refused(format!("password file {}: {error}", file.display())))?;
                Some((user.clone(), text.strip_suffix('\n').unwrap_or(&text).to_owned()))
            }
            _ => None,
        };
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            members,
            current: AtomicUsize::new(0),
            cluster: AtomicU64::new(0),
            timeout: config.timeout,
            credentials,
            token: Mutex::new(None),
        })
    }

    pub(super) const fn count(&self) -> usize {
        self.members.len()
    }

    /// Which member to ask after this one.
    pub(super) const fn after(&self, member: usize) -> usize {
        (member + 1) % self.members.len()
    }

    /// Asks the next one from now on, unless another call has chosen one meanwhile.
    pub(super) fn leave(&self, member: usize) {
        let _chosen = self.current.compare_exchange(member, self.after(member), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks, and takes the whole answer. Does not watch the time.
    pub(super) async fn ask<T>(&self, member: usize, path: &str, body: &Value, read: fn(&[u8]) -> Option<T>) -> Result<T, Failure> {
        let response = self.open(member, path, body).await?;
        self.whole(member, response, read).await
    }

    /// Asks, with a token if there are credentials; again with a new one if the old is not taken. Does not watch the time.
    pub(super) async fn open(&self, member: usize, path: &str, body: &Value) -> Result<Response<Incoming>, Failure> {
        if self.credentials.is_some() && self.token().is_none() {
            self.authenticate(member).await?;
        }
        match self.send(member, path, body).await {
            Err(Failure::Answered(code, message)) if self.credentials.is_some() && is_about_token(code, &message) => {
                self.authenticate(member).await?;
                self.send(member, path, body).await
            }
            response => response,
        }
    }

    async fn authenticate(&self, member: usize) -> Result<(), Failure> {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some((user, password)) = &self.credentials else { return Ok(()) };
        let response = self.send(member, "/v3/auth/authenticate", &wire::authenticate(user, password)).await?;
        let token = self.whole(member, response, wire::read_authenticate).await?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it is called in errors.
    pub(super) fn name(&self, member: usize) -> &str {
        self.members.get(member).map_or("", |member| member)
    }

    async fn send(&self, member: usize, path: &str, body: &Value) -> Result<Response<Incoming>, Failure> {
        let name = self.name(member);
        let mut request = Request::post(format!("{name}{path}")).header(CONTENT_TYPE, "application/json");
        if let Some(token) = self.token() {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).map_err(|error| Failure::Unsent(format!("{name}: {error}")))?;
        let response = self.client.request(request).await.map_err(|error| {
            let why = format!("{name}: {}", told(&error));
            match () {
                () if is_about_trust(&error) => Failure::Untrusted(why),
                () if error.is_connect() => Failure::Unsent(why),
                () => Failure::Unanswered(why),
            }
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let answer = self.body(member, response).await?;
        Err(match wire::read_error(&answer) {
            Some((code, message)) => Failure::Answered(code, message),
            None if answer.starts_with(NAMED_CERTIFICATE) => Failure::Untrusted(format!("{name}: an etcd that has users takes no client certificate with a common name (CN) here: use one without")),
            None => Failure::Unanswered(format!("{name}: {status}, not in etcd's words (it must be etcd 3.4 or later)")),
        })
    }

    async fn body(&self, member: usize, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        Ok(body.map_err(|error| Failure::Unanswered(format!("{}: the answer broke off: {}", self.name(member), told(&*error))))?.to_bytes())
    }

    async fn whole<T>(&self, member: usize, response: Response<Incoming>, read: fn(&[u8]) -> Option<T>) -> Result<T, Failure> {
        let answer = self.body(member, response).await?;
        match (read(&answer), wire::read_error(&answer)) {
            (Some(read), _) => Ok(read),
            (None, Some((code, message))) => Err(Failure::Answered(code, message)),
            (None, None) => Err(Failure::Unanswered(format!("{}: an answer that is not etcd's", self.name(member)))),
        }
    }
}

/// Tokens end, with a member's restart or a change of users: gRPC's "unauthenticated" and a few texts of etcd's.
fn is_about_token(code: u64, message: &str) -> bool {
    code == wire::code::UNAUTHENTICATED || ["invalid auth token", "revision of auth store is old", "user name is empty"].iter().any(|text| message.contains(text))
}

/// Whether TLS failed, and not the connection below it.
fn is_about_trust(error: &(dyn Error + 'static)) -> bool {
    // An I/O error does not name what it wraps as its source.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|error| error as &(dyn Error + 'static));
    error.is::<rustls::Error>() || wrapped.or_else(|| error.source()).is_some_and(is_about_trust)
}

/// An error with what caused it.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
