//! The watch: followed from one member to the next, from where it broke off.

use std::{convert::Infallible, sync::Arc, sync::atomic::Ordering, time::Duration};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use control::store::Seen;

use super::{
    Waker,
    lines::Lines,
    transport::{Failure, LARGEST_ANSWER, Transport},
    wire::{self, Line, code},
};

/// How often a member is asked whether it still belongs to the cluster: one that does not keeps the stream open and tells
/// nothing. With the timeout of the question, how long that can go unnoticed.
const BEAT: Duration = Duration::from_secs(1);
/// Between rounds in which no member could be followed.
const PAUSE: Duration = Duration::from_millis(500);
/// Before a stream that has worked is taken up again.
const SHORT_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Follower {
    transport: Arc<Transport>,
    prefix: String,
    /// Everything up to this revision was told.
    told: u64,
    /// The cluster it is of; 0 until known.
    cluster: u64,
    /// [`Seen::Away`] was told.
    away: bool,
    tell: mpsc::Sender<Vec<Seen>>,
    waker: Waker,
}

/// Why a stream was left.
enum End {
    /// It never stood.
    Failed(String),
    /// It stood, until the member ended it.
    HungUp(String),
    /// It stands, and the member has lost the cluster.
    Silent(String),
    /// What is missing is gone for good.
    Lost,
    /// Nobody listens any more.
    Unheard,
}

impl Follower {
    pub(super) fn new(transport: Arc<Transport>, prefix: &str, revision: u64, cluster: u64, tell: mpsc::Sender<Vec<Seen>>, waker: Waker) -> Self {
        Self { transport, prefix: prefix.into(), told: revision, cluster, away: false, tell, waker }
    }

    /// Until nobody listens, or something was lost.
    pub(super) async fn run(mut self) {
        let count = self.transport.count();
        let mut member = self.transport.current.load(Ordering::Relaxed);
        // Members in a row that could not be followed, and since when nobody is.
        let (mut failed, mut since) = (0, Instant::now());
        loop {
            let why = match self.follow(member).await {
                End::Unheard => return,
                End::Lost => return self.tell(vec![Seen::Lost]).await.unwrap_or(()),
                End::Failed(why) => {
                    failed += 1;
                    why
                }
                End::HungUp(why) => {
                    (failed, since) = (0, Instant::now());
                    why
                }
                End::Silent(why) => {
                    (failed, since) = (1, Instant::now());
                    why
                }
            };
            tracing::debug!(why, "the store's watch broke off");
            let is_away = failed >= count || failed > 0 && since.elapsed() >= self.transport.timeout;
            if is_away && !std::mem::replace(&mut self.away, true) && self.tell(vec![Seen::Away(why)]).await.is_err() {
                return;
            }
            sleep(if failed > 0 && failed % count == 0 { PAUSE } else { SHORT_PAUSE }).await;
            member = self.transport.after(member);
        }
    }

    async fn follow(&mut self, member: usize) -> End {
        // Only a member that is in touch with the cluster and still has what comes next is as good as the one before. A token
        // that has ended is found out here, too: a watch would only say that it is not allowed.
        match probe(&self.transport, member, &self.prefix, Some(self.told.max(1))).await {
            Ok(()) => {}
            Err(Failure::Answered(code::OUT_OF_RANGE, _)) => return End::Lost,
            Err(failure) => return End::Failed(said(failure)),
        }
        let mut stream = match self.open(member).await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        if std::mem::take(&mut self.away) && self.tell(vec![Seen::Back]).await.is_err() {
            return End::Unheard;
        }
        let transport = self.transport.clone();
        let prefix = self.prefix.clone();
        let beats = async {
            loop {
                sleep(BEAT).await;
                if let Err(failure) = probe(&transport, member, &prefix, None).await {
                    return End::Silent(said(failure));
                }
            }
        };
        tokio::select! {
            end = self.read(&mut stream) => match end { Err(end) => end, Ok(never) => match never {} },
            end = beats => end,
        }
    }

    /// A stream whose watch stands.
    async fn open(&mut self, member: usize) -> Result<Stream, End> {
        let request = wire::watch(&self.prefix, self.told);
        let first = async {
            let response = self.transport.open(member, "/v3/watch", &request).await.map_err(|failure| End::Failed(said(failure)))?;
            let mut stream = Stream { body: response.into_body(), lines: Lines::new(LARGEST_ANSWER) };
            match stream.next().await {
                Ok(line) => Ok((stream, line)),
                Err(End::HungUp(why)) => Err(End::Failed(why)),
                Err(end) => Err(end),
            }
        };
        let late = |_| Err(End::Failed(format!("{}: no watch in time", self.transport.name(member))));
        let (stream, line) = timeout(self.transport.timeout, first).await.unwrap_or_else(late)?;
        match line {
            Line::Created(cluster) if self.cluster == 0 || self.cluster == cluster => {
                self.cluster = cluster;
                Ok(stream)
            }
            Line::Created(_) | Line::Compacted => Err(End::Lost),
            Line::Ended(why) => Err(End::Failed(format!("{}: the watch was refused: {why}", self.transport.name(member)))),
            Line::Events(..) => Err(End::Failed(format!("{}: a watch that did not begin", self.transport.name(member)))),
        }
    }

    async fn read(&mut self, stream: &mut Stream) -> Result<Infallible, End> {
        loop {
            match stream.next().await? {
                Line::Created(_) => {}
                Line::Compacted => return Err(End::Lost),
                Line::Ended(why) => return Err(End::HungUp(why)),
                Line::Events(events, until) => {
                    // In one piece: if the beats end this meanwhile, either all was told or nothing.
                    if !events.is_empty() {
                        self.tell(events).await.map_err(|()| End::Unheard)?;
                    }
                    self.told = self.told.max(until);
                }
            }
        }
    }

    async fn tell(&self, seen: Vec<Seen>) -> Result<(), ()> {
        self.tell.send(seen).await.map_err(drop)?;
        (self.waker)();
        Ok(())
    }
}

struct Stream {
    body: Incoming,
    lines: Lines,
}

impl Stream {
    async fn next(&mut self) -> Result<Line, End> {
        let broken = |why: &str| End::HungUp(why.into());
        loop {
            // A line that is too long is worth reading everything again.
            if let Some(line) = self.lines.next().map_err(|_| End::Lost)? {
                return wire::read_line(&line).ok_or_else(|| broken("a line that is not etcd's"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.lines.push(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => return Err(broken(&error.to_string())),
                None => return Err(broken("the member hung up")),
            }
        }
    }
}

/// Whether a member is in touch with the cluster, and has this revision.
async fn probe(transport: &Transport, member: usize, prefix: &str, revision: Option<u64>) -> Result<(), Failure> {
    let question = wire::probe(prefix, revision);
    let answer = timeout(transport.timeout, transport.ask(member, "/v3/kv/range", &question, wire::read_range)).await;
    answer.unwrap_or_else(|_| Err(Failure::Unanswered(format!("{}: no answer in time", transport.name(member))))).map(drop)
}

fn said(failure: Failure) -> String {
    match failure {
        Failure::Unsent(why) | Failure::Untrusted(why) | Failure::Unanswered(why) | Failure::Answered(_, why) => why,
    }
}
