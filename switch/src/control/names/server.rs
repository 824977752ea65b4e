//! A resolver's sockets: UDP and TCP on one port of the host's loopback.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Handle,
    sync::Semaphore,
    task::AbortHandle,
    time::{sleep, timeout},
};
use weft_control::{
    Model,
    names::{Asked, Handled, Transport, Zone, handle, reply_refused, reply_servfail},
};

use super::{View, upstream::Upstream};

/// Questions of one view that wait for others' answers.
const MOST_WAITING: usize = 256;
/// TCP connections of one view, and how long one may be idle (RFC 7766 6.2.3).
const MOST_CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(10);
/// Longest question taken by UDP, bytes; real ones have a tenth.
const LONGEST: usize = 4096;
/// Ports tried until one is free for both protocols.
const TRIES: usize = 32;
/// After an error of a socket, so that a lasting one takes no processor.
const PAUSE: Duration = Duration::from_millis(20);

/// A running resolver; it ends when dropped.
pub(super) struct Server {
    pub(super) at: SocketAddr,
    resolver: Arc<Resolver>,
    tasks: [AbortHandle; 2],
}

/// What its tasks share.
struct Resolver {
    model: Arc<RwLock<Model>>,
    /// What is known of the view; made when somebody asks after a change, since most changes are
    /// followed by others before that.
    zone: RwLock<Arc<Zone>>,
    is_stale: AtomicBool,
    view: View,
    upstream: Arc<Upstream>,
    turn: AtomicUsize,
    waiting: Arc<Semaphore>,
}

impl Server {
    pub(super) fn start(runtime: &Handle, upstream: &Arc<Upstream>, view: &View, model: &Arc<RwLock<Model>>) -> io::Result<Self> {
        let _inside = runtime.enter();
        let (udp, tcp) = bind()?;
        let resolver = Arc::new(Resolver {
            model: Arc::clone(model),
            zone: RwLock::default(),
            is_stale: AtomicBool::new(true),
            view: view.clone(),
            upstream: Arc::clone(upstream),
            turn: AtomicUsize::new(0),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
        });
        let at = udp.local_addr()?;
        let tasks = [runtime.spawn(serve_udp(Arc::new(udp), Arc::clone(&resolver))).abort_handle(), runtime.spawn(serve_tcp(tcp, Arc::clone(&resolver))).abort_handle()];
        Ok(Self { at, resolver, tasks })
    }

    /// The model says something else of the view than before.
    pub(super) fn set_stale(&self) {
        self.resolver.is_stale.store(true, Ordering::Release);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn bind() -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..TRIES {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        match std::net::UdpSocket::bind(tcp.local_addr()?) {
            Ok(udp) => {
                tcp.set_nonblocking(true)?;
                udp.set_nonblocking(true)?;
                return Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Resolver {
    /// What is known here, or refused, is answered at once; the rest is for [`Self::ask`].
    fn handle(&self, message: &[u8], transport: Transport) -> Handled {
        match handle(&self.zone(), message, transport, self.turn.fetch_add(1, Ordering::Relaxed)) {
            Handled::Forward(_) if !self.view.forwards => Handled::Answer(reply_refused(message)),
            handled => handled,
        }
    }

    fn zone(&self) -> Arc<Zone> {
        if self.is_stale.swap(false, Ordering::Acquire) {
            let model = self.model.read().unwrap_or_else(PoisonError::into_inner).clone();
            let zone = Arc::new(Zone::of(&model, &self.view.networks));
            *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&zone);
            return zone;
        }
        Arc::clone(&self.zone.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask(&self, asked: &Asked, message: &[u8], transport: Transport) -> Vec<u8> {
        let answer = self.upstream.ask(asked, message, &self.view.dns, transport).await;
        answer.unwrap_or_else(|| reply_servfail(message))
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            sleep(PAUSE).await;
            continue;
        };
        let message = &buffer[..length];
        let answer = match resolver.handle(message, Transport::Udp) {
            Handled::Ignore => continue,
            Handled::Answer(answer) => answer,
            Handled::Forward(asked) => match Arc::clone(&resolver.waiting).try_acquire_owned() {
                Ok(place) => {
                    let (socket, resolver, message) = (Arc::clone(&socket), Arc::clone(&resolver), message.to_vec());
                    tokio::spawn(async move {
                        let answer = resolver.ask(&asked, &message, Transport::Udp).await;
                        socket.send_to(&answer, from).await.ok();
                        drop(place);
                    });
                    continue;
                }
                Err(_) => {
                    resolver.upstream.busy.fetch_add(1, Ordering::Relaxed);
                    reply_servfail(message)
                }
            },
        };
        // A full socket buffer is a lost datagram: the asker asks again.
        socket.try_send_to(&answer, from).ok();
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        // Beyond the limit connections are closed: the asker tries again.
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move {
                serve_connection(stream, &resolver).await.ok();
                drop(place);
            });
        }
    }
}

/// Question by question (RFC 7766), until the asker ends it or is idle.
async fn serve_connection(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    loop {
        let message = timeout(IDLE, read_message(&mut stream)).await??;
        let answer = match resolver.handle(&message, Transport::Tcp) {
            Handled::Ignore => continue,
            Handled::Answer(answer) => answer,
            Handled::Forward(asked) => resolver.ask(&asked, &message, Transport::Tcp).await,
        };
        timeout(IDLE, write_message(&mut stream, &answer)).await??;
    }
}

/// RFC 1035 4.2.2: two bytes of length before each message.
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}
