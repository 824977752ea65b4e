//! A resolver's sockets: UDP and TCP on one port of the host's loopback.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
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

use super::{
    View,
    spare::{Question, Spare},
    upstream::Upstream,
};

/// Questions of one view that wait for others' answers.
const MOST_WAITING: usize = 256;
/// TCP connections of one view, and how long one may be idle (RFC 7766 6.2.3).
const MOST_CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(10);
/// Longest question taken by UDP, bytes; real ones have a tenth.
const LONGEST: usize = 4096;
/// Ports tried until one is free for both protocols.
const TRIES: usize = 32;
/// Questions of one view by one protocol that are answered at once in a window. A sandbox that asks more has what
/// processor time is left (UDP), or waits (TCP): asking may not slow the switch down.
const AT_ONCE: u32 = 100;
const WINDOW: Duration = Duration::from_millis(10);
/// After an error of a socket, so that a lasting one takes no processor.
const PAUSE: Duration = Duration::from_millis(20);

/// A running resolver; it ends when dropped.
pub(super) struct Server {
    pub(super) at: SocketAddr,
    resolver: Arc<Resolver>,
    tasks: [AbortHandle; 2],
}

/// What its tasks share, and the thread for what exceeds the pace.
pub(super) struct Resolver {
    runtime: Handle,
    model: Arc<RwLock<Model>>,
    /// What is known of the view; made when somebody asks after a change, since most changes are
    /// followed by others before that.
    zone: RwLock<Arc<Zone>>,
    is_stale: AtomicBool,
    view: View,
    upstream: Arc<Upstream>,
    turn: AtomicUsize,
    waiting: Arc<Semaphore>,
    by_tcp: Mutex<Pace>,
}

/// How much of a window is used.
struct Pace {
    began: Instant,
    count: u32,
}

impl Server {
    pub(super) fn start(runtime: &Handle, spare: &Spare, upstream: &Arc<Upstream>, view: &View, model: &Arc<RwLock<Model>>) -> io::Result<Self> {
        let _inside = runtime.enter();
        let (udp, tcp) = bind()?;
        let resolver = Arc::new(Resolver {
            runtime: runtime.clone(),
            model: Arc::clone(model),
            zone: RwLock::default(),
            is_stale: AtomicBool::new(true),
            view: view.clone(),
            upstream: Arc::clone(upstream),
            turn: AtomicUsize::new(0),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            by_tcp: Mutex::new(Pace::new()),
        });
        let at = udp.local_addr()?;
        let by_udp = serve_udp(Arc::new(udp), Arc::clone(&resolver), spare.clone());
        let tasks = [runtime.spawn(by_udp).abort_handle(), runtime.spawn(serve_tcp(tcp, Arc::clone(&resolver))).abort_handle()];
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

impl Pace {
    fn new() -> Self {
        Self { began: Instant::now(), count: 0 }
    }

    /// Whether one more may be answered at once.
    fn take(&mut self) -> bool {
        if self.began.elapsed() >= WINDOW {
            *self = Self::new();
        }
        self.count += 1;
        self.count <= AT_ONCE
    }
}

impl Resolver {
    /// What is known here, or refused, is answered at once; the rest is for [`Self::ask`].
    fn handle(&self, zone: &Zone, message: &[u8], transport: Transport) -> Handled {
        match handle(zone, message, transport, self.turn.fetch_add(1, Ordering::Relaxed)) {
            Handled::Forward(_) if !self.view.forwards => Handled::Answer(reply_refused(message)),
            handled => handled,
        }
    }

    /// What is known now.
    fn zone(&self) -> Arc<Zone> {
        if self.is_stale.swap(false, Ordering::Acquire) {
            let model = self.model.read().unwrap_or_else(PoisonError::into_inner).clone();
            let zone = Arc::new(Zone::of(&model, &self.view.networks));
            *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&zone);
            return zone;
        }
        self.last_zone()
    }

    /// What was known when somebody last asked for [`Self::zone`].
    pub(super) fn last_zone(&self) -> Arc<Zone> {
        Arc::clone(&self.zone.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers a datagram; when others have to be asked, later.
    pub(super) fn answer(self: &Arc<Self>, zone: &Zone, socket: &Arc<UdpSocket>, message: &[u8], from: SocketAddr) {
        let answer = match self.handle(zone, message, Transport::Udp) {
            Handled::Ignore => return,
            Handled::Answer(answer) => answer,
            Handled::Forward(asked) => match Arc::clone(&self.waiting).try_acquire_owned() {
                Ok(place) => {
                    let (socket, resolver, message) = (Arc::clone(socket), Arc::clone(self), message.to_vec());
                    self.runtime.spawn(async move {
                        let answer = resolver.ask(&asked, &message, Transport::Udp).await;
                        socket.send_to(&answer, from).await.ok();
                        drop(place);
                    });
                    return;
                }
                Err(_) => {
                    self.refuse();
                    reply_servfail(message)
                }
            },
        };
        // A full socket buffer is a lost datagram: the asker asks again.
        socket.try_send_to(&answer, from).ok();
    }

    fn refuse(&self) {
        self.upstream.busy.fetch_add(1, Ordering::Relaxed);
    }

    async fn ask(&self, asked: &Asked, message: &[u8], transport: Transport) -> Vec<u8> {
        let answer = self.upstream.ask(asked, message, &self.view.dns, transport).await;
        answer.unwrap_or_else(|| reply_servfail(message))
    }

    /// Waits until a question by TCP may be answered.
    async fn keep_pace(&self) {
        while !self.by_tcp.lock().unwrap_or_else(PoisonError::into_inner).take() {
            sleep(WINDOW).await;
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>, spare: Spare) {
    let mut buffer = vec![0; LONGEST];
    let mut pace = Pace::new();
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            sleep(PAUSE).await;
            continue;
        };
        let message = &buffer[..length];
        if pace.take() {
            resolver.answer(&resolver.zone(), &socket, message, from);
            continue;
        }
        let question = Question { resolver: Arc::clone(&resolver), socket: Arc::clone(&socket), message: message.to_vec(), from };
        if !spare.give(question) {
            resolver.refuse();
        }
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
        resolver.keep_pace().await;
        let answer = match resolver.handle(&resolver.zone(), &message, Transport::Tcp) {
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
