//! Where the API listens: unix sockets for the owner, TCP for whoever it reaches, TLS for whom a certificate lets in.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, TcpListener as StdTcpListener, ToSocketAddrs},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use socket2::TcpKeepalive;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use weft_control::{Code, ControlError, config::DaemonSection};

/// An address of the API, in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `unix:///path`; the default socket without a path.
    Unix(Option<PathBuf>),
    /// `tcp://HOST:PORT`; localhost without a host, 2375 (with TLS 2376) without a port.
    Tcp(String, Option<u16>),
}

impl FromStr for Address {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let bad = |why: &str| ControlError::new(Code::Invalid, text, format!("-H {text}: {why}")).hint("want unix:///path/to/api.sock or tcp://ADDRESS:PORT");
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix(None)),
            "unix" | "" if rest.starts_with('/') => Ok(Self::Unix(Some(rest.into()))),
            "unix" => Err(bad("the path of a socket begins with a slash")),
            "tcp" => {
                let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
                    Some((host, port)) => (host, Some(port.parse().map_err(|_| bad("no such port"))?)),
                    None => (rest, None),
                };
                let host = if host.is_empty() { "localhost" } else { host };
                let is_sound = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok() || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
                if is_sound { Ok(Self::Tcp(host.into(), port)) } else { Err(bad("no such host")) }
            }
            "fd" => Err(bad("weft does not take sockets of systemd")),
            "npipe" => Err(bad("there are no named pipes here")),
            _ => Err(bad("not an address to listen on")),
        }
    }
}

/// Certificates of the API.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    /// Who signs clients' certificates; without it any client is served.
    ca: Option<PathBuf>,
    cert: PathBuf,
    key: PathBuf,
}

impl TlsFiles {
    /// What the daemon was told; nothing if it is to speak no TLS.
    pub(crate) fn of(daemon: &DaemonSection) -> Result<Option<Self>, ControlError> {
        let invalid = |message: &str| ControlError::new(Code::Invalid, "tls", message);
        if !(daemon.tls || daemon.tlsverify) {
            let given = [("tlscacert", &daemon.tlscacert), ("tlscert", &daemon.tlscert), ("tlskey", &daemon.tlskey)];
            return match given.iter().find(|(_, file)| file.is_some()) {
                Some((key, _)) => Err(invalid(&format!("{key} without tls or tlsverify would protect nothing")).hint("add tlsverify, or leave it out")),
                None => Ok(None),
            };
        }
        let (Some(cert), Some(key)) = (daemon.tlscert.clone(), daemon.tlskey.clone()) else { return Err(invalid("TLS needs both tlscert and tlskey")) };
        if daemon.tlsverify && daemon.tlscacert.is_none() {
            return Err(invalid("tlsverify needs tlscacert: who signs the clients' certificates?"));
        }
        if !daemon.tlsverify && daemon.tlscacert.is_some() {
            return Err(invalid("tlscacert without tlsverify would let everybody in").hint("add tlsverify, or leave tlscacert out"));
        }
        Ok(Some(Self { ca: daemon.tlscacert.clone(), cert, key }))
    }

    fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let provider = Arc::new(ring::default_provider());
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, String> {
            let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            match all {
                Ok(all) if all.is_empty() => Err(format!("{}: no certificate in it", path.display())),
                Ok(all) => Ok(all),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| format!("{}: {error}", self.key.display()))?;
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = match &self.ca {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(ca)? {
                    roots.add(certificate).map_err(|error| format!("{}: {error}", ca.display()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| format!("{}: {error}", ca.display()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(certificates(&self.cert)?, key).map_err(|error| format!("{} with {}: {error}", self.cert.display(), self.key.display()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A caller whose host went away without a word is missed within two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// Open sockets. Those in the file system go with it.
pub(crate) struct Doors {
    bound: Vec<Bound>,
    files: Files,
}

enum Bound {
    Unix(UnixListener),
    Tcp(TcpListener, Option<TlsAcceptor>),
}

/// Sockets in the file system, removed when dropped.
#[derive(Default)]
pub(crate) struct Files(Vec<PathBuf>);

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            drop(std::fs::remove_file(path));
        }
    }
}

impl Doors {
    /// Binds all, or none.
    pub(crate) fn open(addresses: &[Address], default: &Path, tls: Option<&TlsFiles>) -> Result<Self, String> {
        let acceptor = tls.map(TlsFiles::acceptor).transpose()?;
        let mut doors = Self { bound: Vec::new(), files: Files(Vec::new()) };
        for address in addresses {
            match address {
                Address::Unix(path) => {
                    let path = path.as_deref().unwrap_or(default);
                    doors.bound.push(Bound::Unix(bind_unix(path)?));
                    doors.files.0.push(path.to_owned());
                }
                Address::Tcp(host, port) => {
                    let port = port.unwrap_or(if tls.is_some() { 2376 } else { 2375 });
                    let shown = format!("tcp://{host}:{port}");
                    let listener = bind_tcp(host, port).map_err(|error| format!("cannot listen on {shown}: {error}"))?;
                    warn(&shown, tls);
                    doors.bound.push(Bound::Tcp(listener, acceptor.clone()));
                }
            }
        }
        if tls.is_some() && !doors.bound.iter().any(|bound| matches!(bound, Bound::Tcp(..))) {
            return Err("tls is for tcp://, and nothing listens there\n  hint: add -H tcp://ADDRESS:2376, or leave tls out".into());
        }
        Ok(doors)
    }

    /// Lets callers in from now on; keep the files as long as they shall be let in.
    pub(crate) fn answer(self) -> (Callers, Files) {
        let (sender, receiver) = mpsc::channel(64);
        for bound in self.bound {
            let sender = sender.clone();
            match bound {
                Bound::Unix(listener) => drop(task::spawn(async move {
                    while let Some(stream) = patiently(listener.accept().await.map(|(stream, _)| stream), &sender).await {
                        let Some(stream) = stream else { continue };
                        drop(sender.send(Box::new(stream) as Caller).await);
                    }
                })),
                Bound::Tcp(listener, tls) => drop(task::spawn(async move {
                    while let Some(stream) = patiently(listener.accept().await.map(|(stream, _)| stream), &sender).await {
                        let Some(stream) = stream else { continue };
                        stream.set_nodelay(true).ok();
                        socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE).ok();
                        match &tls {
                            None => drop(sender.send(Box::new(stream) as Caller).await),
                            // A caller who is slow to say who he is holds up nobody.
                            Some(tls) => drop(task::spawn(greet(tls.clone(), stream, sender.clone()))),
                        }
                    }
                })),
            }
        }
        (Callers(receiver), self.files)
    }
}

async fn greet(tls: TlsAcceptor, stream: tokio::net::TcpStream, sender: mpsc::Sender<Caller>) {
    const LIMIT: Duration = Duration::from_secs(10);
    let from = stream.peer_addr().map_or_else(|_| "?".into(), |from| from.to_string());
    match tokio::time::timeout(LIMIT, tls.accept(stream)).await {
        Ok(Ok(stream)) => drop(sender.send(Box::new(stream) as Caller).await),
        Ok(Err(error)) => tracing::warn!(from, %error, "a caller of the API is turned away"),
        Err(_) => tracing::debug!(from, "a caller of the API says nothing"),
    }
}

/// What was accepted; nothing once after an error (such as no descriptors left), never again when nobody serves.
async fn patiently<S>(accepted: io::Result<S>, sender: &mpsc::Sender<Caller>) -> Option<Option<S>> {
    match accepted {
        _ if sender.is_closed() => None,
        Ok(stream) => Some(Some(stream)),
        Err(error) => {
            tracing::error!(%error, "cannot accept callers of the API");
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some(None)
        }
    }
}

fn warn(at: &str, tls: Option<&TlsFiles>) {
    let whoever = format!("WHOEVER REACHES {at} MAY DO WHAT WEFT MAY: run any command on this host");
    match tls {
        None => tracing::warn!("{whoever}. It has neither encryption nor passwords: use tlsverify, or a unix socket"),
        Some(files) if files.ca.is_none() => tracing::warn!("{whoever}. TLS alone encrypts, but asks nobody who he is: use tlsverify"),
        Some(_) => {}
    }
}

fn bind_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    // What localhost is does not depend on a name server.
    let addresses: Vec<_> = if name == "localhost" { vec![(IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()] } else { (name, port).to_socket_addrs()?.collect() };
    let listener = StdTcpListener::bind(&addresses[..])?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Binds the socket, for the owner only. A socket that nobody answers on is left over and replaced.
fn bind_unix(path: &Path) -> Result<UnixListener, String> {
    let name = path.display();
    if UnixStream::connect(path).is_ok() {
        return Err(format!("a daemon is already running on {name}\n  hint: stop it, or give this one another --state-dir"));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => return Err(format!("{name} exists and is no socket")),
        Ok(_) => std::fs::remove_file(path).map_err(|error| format!("cannot replace {name}: {error}"))?,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(format!("cannot replace {name}: {error}")),
        Err(_) => {}
    }
    // Nobody may connect in the moment before the mode is set.
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(mask);
    let listener = listener.map_err(|error| format!("cannot listen on {name}: {error}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|error| format!("cannot protect {name}: {error}"))?;
    Ok(listener)
}

/// A connection, however it came.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(super) type Caller = Box<dyn Stream>;

/// Connections of all doors.
pub(crate) struct Callers(mpsc::Receiver<Caller>);

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}

impl Callers {
    /// The next; none when nobody listens any more.
    pub(super) async fn next(&mut self) -> Option<Caller> {
        self.0.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_docker_s_words() {
        // J3, V6.
        let tcp = |host: &str, port| Address::Tcp(host.into(), port);
        for (text, wanted) in [
            ("unix:///var/run/docker.sock", Address::Unix(Some("/var/run/docker.sock".into()))),
            ("unix://", Address::Unix(None)),
            ("/a/b", Address::Unix(Some("/a/b".into()))),
            ("tcp://0.0.0.0:2375", tcp("0.0.0.0", Some(2375))),
            ("tcp://[::1]:2375", tcp("[::1]", Some(2375))),
            ("tcp://[::1]", tcp("[::1]", None)),
            ("tcp://:2375", tcp("localhost", Some(2375))),
            ("tcp://", tcp("localhost", None)),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), wanted, "{text}");
        }
        for (text, part) in [("fd://", "systemd"), ("npipe:////./pipe/x", "pipes"), ("unix://a", "slash"), ("tcp://a:b", "port"), ("tcp://a/b:1", "host"), ("http://a", "not an address"), ("", "not an address")] {
            let error = text.parse::<Address>().unwrap_err().message;
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn tls_is_whole_or_not_at_all() {
        let of = |text: &str| TlsFiles::of(&weft_control::config::DaemonFile::parse(text).unwrap().daemon);
        assert!(of("{}").unwrap().is_none());
        assert!(of(r#"{"tls":true,"tlscert":"/c","tlskey":"/k"}"#).unwrap().is_some_and(|files| files.ca.is_none()));
        assert!(of(r#"{"tlsverify":true,"tlscacert":"/a","tlscert":"/c","tlskey":"/k"}"#).unwrap().is_some_and(|files| files.ca.is_some()));
        for (text, part) in [(r#"{"tls":true,"tlscert":"/c"}"#, "tlskey"), (r#"{"tlsverify":true,"tlscert":"/c","tlskey":"/k"}"#, "tlscacert"), (r#"{"tlscert":"/c"}"#, "tlscert"), (r#"{"tls":true,"tlscacert":"/a","tlscert":"/c","tlskey":"/k"}"#, "everybody")] {
            assert!(of(text).unwrap_err().message.contains(part), "{text}");
        }
    }
}
