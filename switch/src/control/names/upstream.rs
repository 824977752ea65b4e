//! Other servers, asked about names that are not ours.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};
use weft_control::names::{Asked, Transport, is_failure, is_truncated, nameservers};

use super::server::{read_message, write_message};

const PORT: u16 = 53;
/// Patience with one server; stub resolvers give up after five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that wait for an answer, of all views.
const MOST_WAITING: usize = 1024;
const RESOLV_CONF: &str = "/etc/resolv.conf";

pub(super) struct Upstream {
    /// The daemon's own; the host's when empty.
    dns: Vec<IpAddr>,
    host: Mutex<HostFile>,
    waiting: Semaphore,
    /// Ids nobody can foresee: a keyed hash of a count.
    key: RandomState,
    count: AtomicU64,
}

/// The host's resolv.conf as it was last read, and what tells that it changed.
#[derive(Default)]
struct HostFile {
    stamp: Option<(u64, i64, i64, u64)>,
    text: String,
}

impl Upstream {
    pub(super) fn new(dns: &[IpAddr]) -> Self {
        Self { dns: dns.to_vec(), host: Mutex::default(), waiting: Semaphore::new(MOST_WAITING), key: RandomState::new(), count: AtomicU64::new(0) }
    }

    /// The host's resolv.conf.
    pub(super) fn host_file(&self) -> String {
        let stamp = std::fs::metadata(RESOLV_CONF).ok().map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()));
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if host.stamp != stamp {
            *host = HostFile { stamp, text: std::fs::read_to_string(RESOLV_CONF).unwrap_or_default() };
        }
        host.text.clone()
    }

    fn servers(&self, own: &[IpAddr]) -> Vec<IpAddr> {
        match (own, &self.dns[..]) {
            ([], []) => nameservers(&self.host_file()),
            ([], dns) => dns.to_vec(),
            (own, _) => own.to_vec(),
        }
    }

    /// The first good answer of the servers in their order, else the last bad one; under the asker's id.
    pub(super) async fn ask(&self, asked: &Asked, message: &[u8], own: &[IpAddr], transport: Transport) -> Option<Vec<u8>> {
        let _place = self.waiting.try_acquire().ok()?;
        let mut last = None;
        for server in self.servers(own) {
            let Ok(answer) = self.ask_one(asked, message, SocketAddr::new(server, PORT), transport).await else { continue };
            let is_failure = is_failure(&answer);
            last = Some(answer);
            if !is_failure {
                break;
            }
        }
        let mut answer = last?;
        answer.get_mut(..2)?.copy_from_slice(message.get(..2)?);
        Some(answer)
    }

    /// By UDP, and by TCP what was too long, if the asker can take it.
    async fn ask_one(&self, asked: &Asked, message: &[u8], server: SocketAddr, transport: Transport) -> io::Result<Vec<u8>> {
        let answer = timeout(PATIENCE, self.ask_udp(asked, message, server)).await??;
        if !is_truncated(&answer) || transport == Transport::Udp {
            return Ok(answer);
        }
        // Where TCP is shut, what came by UDP is better than nothing.
        Ok(timeout(PATIENCE, self.ask_tcp(asked, message, server)).await.unwrap_or_else(|late| Err(late.into())).unwrap_or(answer))
    }

    /// A socket for each question: the kernel chooses its port at random, and takes only what comes from
    /// that server (RFC 5452 9.2).
    async fn ask_udp(&self, asked: &Asked, message: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        let (id, question) = self.under_own_id(message);
        socket.send(&question).await?;
        loop {
            // Who waits holds no buffer.
            socket.readable().await?;
            let mut answer = vec![0; usize::from(u16::MAX)];
            match socket.try_recv(&mut answer) {
                Ok(length) => answer.truncate(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            // Anything else is somebody's guess: the true answer may still come.
            if asked.is_answered_by(id, &answer) {
                return Ok(answer);
            }
        }
    }

    async fn ask_tcp(&self, asked: &Asked, message: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(server).await?;
        let (id, question) = self.under_own_id(message);
        write_message(&mut stream, &question).await?;
        let answer = read_message(&mut stream).await?;
        if asked.is_answered_by(id, &answer) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn under_own_id(&self, message: &[u8]) -> (u16, Vec<u8>) {
        let [low, high, ..] = self.key.hash_one(self.count.fetch_add(1, Ordering::Relaxed)).to_ne_bytes();
        let mut question = message.to_vec();
        for (to, from) in question.iter_mut().zip([high, low]) {
            *to = from;
        }
        (u16::from_be_bytes([high, low]), question)
    }
}
