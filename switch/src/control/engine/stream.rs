//! A container's streams.
//!
//! Output goes by way of a FIFO (or a terminal) into the log, and whoever is attached or follows reads
//! the log. The log is bounded: a container that writes more waits for who is attached and has not read it
//! yet; who only follows then misses some. The container holds its FIFOs open both ways, so that it neither
//! ends nor blocks at once when the daemon does; the next one reads on.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE, UPGRADE},
    },
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::stat::Mode,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::{mpsc, watch},
    task::{self, JoinHandle},
};

use super::{
    source::{Source, nonblocking},
    types::reached,
};
use crate::{
    control::http::Stream as ChannelBody,
    output_log::{Entry, Log, LogReader, LogWriter},
};

const BUFFER: usize = 64 * 1024;
/// After the end of a container: for how long nothing is written while who is attached reads nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far a container has come, for those who wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes in its log.
    pub(crate) logged: u64,
    /// How often its process has ended, and all was logged.
    pub(crate) ends: u64,
    /// What the last ended with.
    pub(crate) code: i32,
    pub(crate) removed: bool,
}

/// The streams of one container, or of a detached command.
pub(crate) struct Console {
    log: Arc<Log>,
    state: Mutex<Streams>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Streams {
    writer: Option<LogWriter>,
    input: Option<Input>,
    captures: Vec<JoinHandle<()>>,
    stop: Option<watch::Sender<bool>>,
    /// Where those are who must not miss anything.
    attached: Vec<Weak<Position>>,
}

/// How far a reader has come.
#[derive(Default)]
struct Position {
    /// The file of the log, as its writer counts them.
    file: AtomicU64,
    /// Grows with all that is read.
    moved: AtomicU64,
}

impl Position {
    /// Whether it would miss something if the log turned now, in file `newest`. Otherwise it has its own file open, and finds
    /// the one that is full now.
    fn lags(&self, newest: u64) -> bool {
        self.file.load(Relaxed) + 1 < newest
    }
}

/// What a container reads from. It is there before the container is: clients attach first.
enum Input {
    Pipe { read: OwnedFd, write: Option<OwnedFd> },
    Terminal { ours: OwnedFd, theirs: Option<OwnedFd> },
}

/// Consoles by container id.
#[derive(Default)]
pub(crate) struct Consoles(Mutex<HashMap<String, Arc<Console>>>);

impl Consoles {
    /// The console of a container, made when first asked for.
    pub(crate) fn of(&self, id: &str, log: &Path) -> Arc<Console> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Console { log: Log::at(log), state: Mutex::default(), progress: watch::Sender::default() });
        all.entry(id.to_owned()).or_insert_with(fresh).clone()
    }

    /// The container is gone: whoever waits for it is told.
    pub(crate) fn remove(&self, id: &str) {
        let gone = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(console) = gone {
            console.progress.send_modify(|progress| progress.removed = true);
            console.streams().writer = None;
            for name in ["1", "2"] {
                drop(std::fs::remove_file(console.fifo(name)));
            }
            console.log.remove();
        }
    }
}

impl Console {
    /// Makes the log, so that it can be followed before anything is in it.
    pub(crate) fn make_log(&self) -> io::Result<()> {
        self.log.make()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fifo(&self, name: &str) -> PathBuf {
        self.log.path.with_extension(format!("fifo{name}"))
    }

    /// Standard streams for a process about to start; what it writes is logged from here on.
    pub(crate) fn open(self: &Arc<Self>, tty: bool, open_stdin: bool, bound: u64) -> io::Result<[OwnedFd; 3]> {
        if tty {
            return self.open_terminal(bound);
        }
        let input = if open_stdin {
            match self.streams().input(false)? {
                Input::Pipe { read, .. } => read.try_clone()?,
                Input::Terminal { ours, .. } => ours.try_clone()?,
            }
        } else {
            File::open("/dev/null")?.into()
        };
        let stop = self.begin(bound)?;
        let mut outputs = Vec::new();
        for (stream, name) in [(1, "1"), (2, "2")] {
            let path = self.fifo(name);
            drop(std::fs::remove_file(&path));
            nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600))?;
            outputs.push(OwnedFd::from(OpenOptions::new().read(true).write(true).open(&path)?));
            self.capture(stream, Source::open(&path, &stop)?);
        }
        let [output, errors] = <[OwnedFd; 2]>::try_from(outputs).map_err(|_| io::Error::other("two streams"))?;
        Ok([input, output, errors])
    }

    fn open_terminal(self: &Arc<Self>, bound: u64) -> io::Result<[OwnedFd; 3]> {
        let (ours, theirs) = match self.streams().input(true)? {
            Input::Terminal { ours, theirs } => (ours.try_clone()?, theirs.take().ok_or_else(|| io::Error::other("the terminal is in use"))?),
            Input::Pipe { .. } => return Err(io::Error::other("the container has no terminal")),
        };
        let stop = self.begin(bound)?;
        self.capture(1, Source::new(ours, &stop)?);
        Ok([theirs.try_clone()?, theirs.try_clone()?, theirs])
    }

    /// After a restart of the daemon: reads on where its predecessor stopped.
    pub(crate) fn reopen(self: &Arc<Self>, bound: u64) -> io::Result<()> {
        let stop = self.begin(bound)?;
        for (stream, name) in [(1, "1"), (2, "2")] {
            let path = self.fifo(name);
            if path.exists() {
                self.capture(stream, Source::open(&path, &stop)?);
            }
        }
        Ok(())
    }

    fn begin(&self, bound: u64) -> io::Result<watch::Sender<bool>> {
        let stop = watch::Sender::new(false);
        let mut streams = self.streams();
        // Counted from one, so that there is one before the first.
        let number = streams.writer.as_ref().map_or(1, |writer| writer.number);
        let writer = LogWriter::open(&self.log.path, bound, number)?;
        self.progress.send_modify(|progress| progress.logged = writer.length());
        streams.writer = Some(writer);
        streams.stop = Some(stop.clone());
        streams.captures.clear();
        Ok(stop)
    }

    fn capture(self: &Arc<Self>, stream: u8, mut source: Source) {
        let console = self.clone();
        let handle = task::spawn(async move {
            let mut buffer = vec![0; BUFFER];
            while let Some(length) = source.read(&mut buffer).await {
                let mut rest = &buffer[..length];
                while !rest.is_empty() {
                    let used = console.log(stream, rest);
                    if used == 0 {
                        console.turn(&source).await;
                    }
                    rest = &rest[used..];
                }
                // A flood must not keep others from their turn.
                task::yield_now().await;
            }
        });
        self.streams().captures.push(handle);
    }

    /// Logs some of it, and tells how much; nothing when the log has to turn first.
    fn log(&self, stream: u8, bytes: &[u8]) -> usize {
        let mut streams = self.streams();
        let Some(writer) = &mut streams.writer else { return bytes.len() };
        let used = writer.append(stream, bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, log = %self.log.path.display(), "output is lost");
            bytes.len()
        });
        let logged = writer.length();
        self.progress.send_modify(|progress| progress.logged = logged);
        used
    }

    /// Begins the next file of the log, once nobody who is attached would miss what that takes away.
    async fn turn(&self, source: &Source) {
        let (mut seen, mut since) = (0, Instant::now());
        while let Some(moved) = self.turn_now() {
            if moved != seen {
                (seen, since) = (moved, Instant::now());
            }
            if source.is_stopped() && since.elapsed() > PATIENCE {
                self.give_up();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// None: done. Else how far the slowest has come.
    fn turn_now(&self) -> Option<u64> {
        let mut streams = self.streams();
        streams.attached.retain(|reader| reader.strong_count() > 0);
        let Streams { writer: Some(writer), attached, .. } = &mut *streams else { return None };
        let lags = |reader: &Arc<Position>| reader.lags(writer.number);
        let slowest = attached.iter().filter_map(Weak::upgrade).filter(lags).map(|reader| reader.moved.load(Relaxed)).min();
        if slowest.is_none() && let Err(error) = writer.turn() {
            tracing::warn!(%error, log = %self.log.path.display(), "no more output is kept");
            streams.writer = None;
            return None;
        }
        slowest
    }

    /// Who has not read long enough is not waited for again: once for all that is left, not once a file.
    fn give_up(&self) {
        let mut streams = self.streams();
        let Streams { writer: Some(writer), attached, .. } = &mut *streams else { return };
        attached.retain(|reader| reader.upgrade().is_some_and(|reader| !reader.lags(writer.number)));
    }

    /// The process has ended: reads what is left of its output.
    pub(crate) async fn drain(&self) {
        let (stop, captures) = {
            let mut streams = self.streams();
            streams.input = None;
            (streams.stop.take(), std::mem::take(&mut streams.captures))
        };
        if let Some(stop) = stop {
            stop.send_replace(true);
        }
        for capture in captures {
            drop(capture.await);
        }
    }

    /// All that is to be said of a run has been said.
    pub(crate) fn ended(&self, code: i32) {
        self.streams().input = None;
        self.progress.send_modify(|progress| {
            progress.ends += 1;
            progress.code = code;
        });
    }

    pub(crate) fn resize(&self, height: u16, width: u16) -> netns_setup::Result<()> {
        match &self.streams().input {
            Some(Input::Terminal { ours, .. }) => netns_setup::process::resize(ours, height, width),
            _ => Ok(()),
        }
    }

    /// Writes to the container's input what comes, until the sender is dropped; then, if it is to, its
    /// input ends.
    pub(crate) fn feed(self: &Arc<Self>, tty: bool, once: bool) -> io::Result<mpsc::Sender<Bytes>> {
        let to = match self.streams().input(tty)? {
            Input::Pipe { write, .. } => write.as_ref().ok_or_else(|| io::Error::other("the container's input has ended"))?.try_clone()?,
            Input::Terminal { ours, .. } => ours.try_clone()?,
        };
        let console = self.clone();
        let close = move || {
            if let Some(Input::Pipe { write, .. }) = &mut console.streams().input
                && once
            {
                *write = None;
            }
        };
        feed(to, close)
    }

    /// A reader of the log; it sees all from now on, even if the container is removed meanwhile.
    pub(crate) fn reader(&self, view: View) -> io::Result<Reader> {
        let progress = self.watch();
        let ends = progress.borrow().ends;
        self.make_log()?;
        // The log does not turn meanwhile.
        let mut streams = self.streams();
        let log = if view.from_end { LogReader::open_at_end(&self.log) } else { LogReader::open(&self.log) }?;
        let newest = streams.writer.as_ref().map_or(1, |writer| writer.number);
        let position = Arc::new(Position { file: AtomicU64::new(newest - u64::from(!log.is_in_newest())), ..Position::default() });
        if view.attached {
            streams.attached.push(Arc::downgrade(&position));
        }
        Ok(Reader { skip: view.skip(&self.log), lines: Lines::default(), first: position.file.load(Relaxed), position, view, log, progress, ends })
    }
}

/// Somebody who reads a container's log.
pub(crate) struct Reader {
    view: View,
    log: LogReader,
    /// Lines to leave out.
    skip: u64,
    lines: Lines,
    progress: watch::Receiver<Progress>,
    /// Of the container, when the reading began.
    ends: u64,
    position: Arc<Position>,
    /// The file that it began with.
    first: u64,
}

impl Reader {
    /// Copies to `to` until the run ends, or the time to look at, or whoever listens goes away.
    pub(crate) async fn copy(mut self, to: mpsc::Sender<Bytes>) {
        let mut end = pin!(reached(self.view.until_ns));
        let mut is_over = false;
        loop {
            // Looked at before reading: what was logged before the end is read before it.
            let now = *self.progress.borrow_and_update();
            while let Some(bytes) = self.next() {
                if !bytes.is_empty() && to.send(bytes).await.is_err() {
                    return;
                }
            }
            if is_over || !self.view.follow || now.ends > self.ends || now.removed {
                return;
            }
            tokio::select! {
                changed = self.progress.changed() => if changed.is_err() { return },
                () = &mut end => is_over = true,
                () = to.closed() => return,
            }
        }
    }

    /// The next of what is there; none at the end.
    fn next(&mut self) -> Option<Bytes> {
        let entries = self.log.read().ok().filter(|entries| !entries.is_empty())?;
        self.position.file.store(self.first + self.log.turns, Relaxed);
        self.position.moved.fetch_add(1, Relaxed);
        let mut bytes = Vec::new();
        for entry in entries.iter().filter(|entry| self.view.wants(entry)) {
            let (begins, line) = self.lines.place(entry);
            if line > self.skip {
                self.view.render(entry, begins, &mut bytes);
            }
        }
        Some(bytes.into())
    }
}

impl Streams {
    fn input(&mut self, tty: bool) -> io::Result<&mut Input> {
        if self.input.is_none() {
            self.input = Some(if tty {
                let pty = nix::pty::openpty(None, None)?;
                for end in [&pty.master, &pty.slave] {
                    fcntl(end, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
                }
                Input::Terminal { ours: pty.master, theirs: Some(pty.slave) }
            } else {
                let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
                Input::Pipe { read, write: Some(write) }
            });
        }
        self.input.as_mut().ok_or_else(|| io::Error::other("no input"))
    }
}

/// What of a log is wanted, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) follow: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// As it was written, without frames.
    pub(crate) raw: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail: Option<u64>,
    pub(crate) since_ns: u64,
    pub(crate) until_ns: Option<u64>,
    /// Only what is logged from now on.
    pub(crate) from_end: bool,
    /// Nothing is missed, however slow who listens is.
    pub(crate) attached: bool,
}

impl View {
    fn wants(&self, entry: &Entry) -> bool {
        let stream = if entry.stream == 1 { self.stdout } else { self.stderr };
        stream && entry.time_ns >= self.since_ns && self.until_ns.is_none_or(|until| entry.time_ns <= until)
    }

    /// Lines before the last `tail`.
    fn skip(&self, log: &Arc<Log>) -> u64 {
        let (Some(tail), Ok(mut reader)) = (self.tail, LogReader::open(log)) else { return 0 };
        let mut lines = Lines::default();
        while let Ok(entries) = reader.read() {
            if entries.is_empty() {
                break;
            }
            for entry in entries.iter().filter(|entry| self.wants(entry)) {
                lines.place(entry);
            }
        }
        lines.count.saturating_sub(tail)
    }

    fn render(&self, entry: &Entry, begins: bool, out: &mut Vec<u8>) {
        let time = if self.timestamps && begins { format!("{} ", super::types::rfc3339(entry.time_ns)) } else { String::new() };
        if !self.raw {
            out.extend(header(entry.stream, time.len() + entry.text.len()));
        }
        out.extend(time.as_bytes());
        out.extend(&entry.text);
    }
}

/// Counts lines: one that was written in parts has several entries, with those of the other stream between them.
#[derive(Default)]
struct Lines {
    count: u64,
    /// Of output and of errors: the line that has not ended.
    open: [Option<u64>; 2],
}

impl Lines {
    /// Whether a line begins with the entry that comes next, and which line it is of; the first is 1.
    fn place(&mut self, entry: &Entry) -> (bool, u64) {
        let open = &mut self.open[usize::from(entry.stream != 1)];
        let begun = open.take();
        let line = begun.unwrap_or_else(|| {
            self.count += 1;
            self.count
        });
        if !entry.text.ends_with(b"\n") {
            *open = Some(line);
        }
        (begun.is_none(), line)
    }
}

/// Docker's frame around a piece of a stream.
pub(crate) fn header(stream: u8, length: usize) -> [u8; 8] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

/// Writes to `to` what comes; calls `close` when no more does.
pub(crate) fn feed(to: OwnedFd, close: impl FnOnce() + Send + 'static) -> io::Result<mpsc::Sender<Bytes>> {
    let mut to = pipe::Sender::from_owned_fd_unchecked(nonblocking(to)?)?;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(8);
    task::spawn(async move {
        while let Some(bytes) = receiver.recv().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        drop(to);
        close();
    });
    Ok(sender)
}

/// What Docker calls hijacking: the connection becomes the streams. Without `Upgrade` the answer is the
/// output alone.
pub(crate) fn hijack(request: Request, raw: bool, input: Option<mpsc::Sender<Bytes>>, mut output: mpsc::Receiver<Bytes>) -> Response {
    let kind = if raw { "application/vnd.docker.raw-stream" } else { "application/vnd.docker.multiplexed-stream" };
    let kind = (CONTENT_TYPE, HeaderValue::from_static(kind));
    if !request.headers().contains_key(UPGRADE) {
        return ([kind], Body::new(ChannelBody(output))).into_response();
    }
    let upgrade = hyper::upgrade::on(request);
    task::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let reading = task::spawn(copy_input(read, input));
        while let Some(bytes) = output.recv().await {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        drop(write.shutdown().await);
        reading.abort();
    });
    let headers = [kind, (CONNECTION, HeaderValue::from_static("Upgrade")), (UPGRADE, HeaderValue::from_static("tcp"))];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn copy_input(mut from: impl AsyncRead + Unpin, to: Option<mpsc::Sender<Bytes>>) {
    let Some(to) = to else { return };
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.send(Bytes::copy_from_slice(&buffer[..length])).await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
