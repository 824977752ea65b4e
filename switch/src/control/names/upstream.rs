//! Other servers, asked about names that are not ours.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
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

pub(super) struct Upstream {
    /// The daemon's own; the host's when empty.
    dns: Vec<IpAddr>,
    host: Mutex<HostFile>,
    waiting: Semaphore,
    /// Questions refused at a limit.
    pub(super) busy: AtomicU64,
    /// Ids nobody can foresee: a keyed hash of a count.
    key: RandomState,
    count: AtomicU64,
}

/// The host's resolv.conf as it was last read, and what tells that it changed.
struct HostFile {
    path: PathBuf,
    stamp: Option<(u64, i64, i64, u64)>,
    text: String,
}

impl HostFile {
    /// Read again when it changed.
    fn text(&mut self) -> &str {
        let stamp = std::fs::metadata(&self.path).ok().map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()));
        if self.stamp != stamp {
            self.stamp = stamp;
            self.text = std::fs::read_to_string(&self.path).unwrap_or_default();
        }
        &self.text
    }
}

impl Upstream {
    pub(super) fn new(dns: &[IpAddr]) -> Self {
        let host = HostFile { path: "/etc/resolv.conf".into(), stamp: None, text: String::new() };
        Self { dns: dns.to_vec(), host: Mutex::new(host), waiting: Semaphore::new(MOST_WAITING), busy: AtomicU64::new(0), key: RandomState::new(), count: AtomicU64::new(0) }
    }

    /// The host's resolv.conf.
    pub(super) fn host_file(&self) -> String {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).text().to_owned()
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
        let Ok(_place) = self.waiting.try_acquire() else {
            self.busy.fetch_add(1, Ordering::Relaxed);
            return None;
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_the_host_s_as_they_are_now() {
        let path = std::env::temp_dir().join(format!("weft-resolv-{}", std::process::id()));
        let upstream = Upstream::new(&[]);
        upstream.host.lock().unwrap().path.clone_from(&path);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(upstream.servers(&[]).is_empty(), "no file, nobody to ask");
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(upstream.servers(&[]), [ip("192.0.2.1")]);
        std::fs::write(&path, "nameserver 192.0.2.22\nnameserver 2001:db8::1\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n").unwrap();
        assert_eq!(upstream.servers(&[]), [ip("192.0.2.22"), ip("2001:db8::1"), ip("192.0.2.3")], "three are asked");
        assert_eq!(upstream.servers(&[ip("9.9.9.9")]), [ip("9.9.9.9")]);
        assert_eq!(Upstream::new(&[ip("8.8.8.8")]).servers(&[]), [ip("8.8.8.8")]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn ids_do_not_count() {
        let upstream = Upstream::new(&[]);
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| upstream.under_own_id(&[0; 12]).0).collect();
        assert!(ids.len() > 950, "{}", ids.len());
        let id = upstream.under_own_id(&[1; 12]);
        assert_eq!((id.1[..2].to_vec(), &id.1[2..]), (id.0.to_be_bytes().to_vec(), &[1; 10][..]));
    }
}
