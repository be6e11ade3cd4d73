//! The owner's side: takes commands and runs each on a thread of its own.

use super::SOCKET;
use super::protocol::{CHUNK_BYTES_MAX, Kind, Request, read_frame, write_frame};
use crate::connect::interrupt::StopFlag;
use crate::env::{Env, socket, thread};
use crate::error::{Error, ErrorKind, Result};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Commands at once, at most.
const SESSIONS_MAX: usize = 64;

/// Between two looks at whether to stop, in milliseconds.
const LOOK_MS: u32 = 100;

/// How long a client may take to say what it wants.
const HELLO: Duration = Duration::from_secs(5);

/// How long a command may take to end well once its host ends, in microseconds.
const GRACE_US: u64 = 5_000_000;

/// The exit code of a command that could not run: that of [`ErrorKind::Unavailable`].
const COULD_NOT: u8 = 4;

/// Runs a command and gives its exit code.
pub type Handler = dyn Fn(Request, &Arc<Peer>) -> u8 + Send + Sync;

/// The process at the other end: the command's terminal.
pub struct Peer {
    to: Mutex<UnixStream>,
    input: Mutex<Input>,
    stop: StopFlag,
}

struct Input {
    chunks: Receiver<Vec<u8>>,
    /// What is left of the last chunk.
    chunk: Vec<u8>,
    at: usize,
    is_over: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    fn send(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        write_frame(&mut *locked(&self.to), kind, bytes)
    }

    /// Writes to its stdout.
    pub fn show(&self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(CHUNK_BYTES_MAX).try_for_each(|chunk| self.send(Kind::Out, chunk))
    }

    /// Writes to its stderr; an end of it is no error.
    pub fn talk(&self, bytes: &[u8]) {
        let _ = bytes.chunks(CHUNK_BYTES_MAX).try_for_each(|chunk| self.send(Kind::Talk, chunk));
    }

    /// Reads its stdin; waits until there is some, or it is over.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut input = locked(&self.input);
        if input.at == input.chunk.len() && !input.is_over {
            self.send(Kind::Want, &[])?;
            input.chunk = loop {
                match input.chunks.recv_timeout(Duration::from_millis(LOOK_MS.into())) {
                    Ok(chunk) => break chunk,
                    Err(RecvTimeoutError::Timeout) if !self.stop.is_set() => {}
                    Err(_) => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "stopped")),
                }
            };
            (input.at, input.is_over) = (0, input.chunk.is_empty());
        }
        let length = buf.len().min(input.chunk.len() - input.at);
        buf[..length].copy_from_slice(&input.chunk[input.at..input.at + length]);
        input.at += length;
        Ok(length)
    }

    /// Set once the command should stop: the user said so, the client or the host is going.
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }

    fn refuse(&self, why: &str) {
        self.talk(format!("error: the process that has the data folder refused: {why}\n").as_bytes());
        let _ = self.send(Kind::Exit, &[COULD_NOT]);
    }
}

/// A command and its thread.
struct Session {
    thread: JoinHandle<()>,
    peer: Arc<Peer>,
    /// The same socket, not behind the lock of whoever writes.
    stream: UnixStream,
}

/// Takes commands until it is dropped; then it asks those that run to stop, and waits for them.
pub struct Host {
    env: Env,
    accepting: Option<JoinHandle<Vec<Session>>>,
    stop: StopFlag,
    socket: PathBuf,
}

impl Host {
    /// Listens in the data folder, whose lock the caller holds.
    ///
    /// # Errors
    /// `Unavailable` where the file system or the system has no sockets.
    pub fn start(env: &Env, data: &Path, handler: Arc<Handler>) -> Result<Host> {
        let socket = data.join(SOCKET);
        let listener = socket::listen(data, SOCKET).map_err(|cause| Error::io("cannot listen at", &socket, cause))?;
        let stop = StopFlag::default();
        let stopped = stop.clone();
        let accepting = thread::spawn("kappa-host", move || accept(&listener, &handler, &stopped))
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a thread: {e}")))?;
        Ok(Host { env: env.clone(), accepting: Some(accepting), stop, socket })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.set();
        let _ = self.env.disk.remove_file(&self.socket);
        let sessions = self.accepting.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        sessions.iter().for_each(|session| session.peer.stop.set());
        let clock = &self.env.clock;
        let start_us = clock.monotonic_us();
        for session in sessions {
            while !session.thread.is_finished() && clock.monotonic_us() - start_us < GRACE_US {
                clock.sleep_us(1_000);
            }
            // Whoever still writes to a client that does not read is woken up.
            let _ = session.stream.shutdown(Shutdown::Both);
            let _ = session.thread.join();
        }
    }
}

fn accept(listener: &UnixListener, handler: &Arc<Handler>, stop: &StopFlag) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    while !stop.is_set() {
        let Ok(accepted) = socket::accept_within(listener, LOOK_MS) else { break };
        sessions.retain(|session| !session.thread.is_finished());
        if let Some(stream) = accepted {
            // Without threads or descriptors there is nothing to answer with: the client sees the end.
            sessions.extend(begin(stream, handler, sessions.len() >= SESSIONS_MAX).ok());
        }
    }
    sessions
}

fn begin(stream: UnixStream, handler: &Arc<Handler>, is_full: bool) -> io::Result<Session> {
    let (input, chunks) = sync_channel(1);
    let peer = Arc::new(Peer {
        to: Mutex::new(stream.try_clone()?),
        input: Mutex::new(Input { chunks, chunk: Vec::new(), at: 0, is_over: false }),
        stop: StopFlag::default(),
    });
    let (from, running, handler) = (stream.try_clone()?, Arc::clone(&peer), Arc::clone(handler));
    let thread = thread::spawn("kappa-command", move || {
        if is_full {
            running.refuse(&format!("it runs {SESSIONS_MAX} commands already"));
        } else {
            serve(from, input, &running, &*handler);
        }
        let _ = locked(&running.to).shutdown(Shutdown::Both);
    })?;
    Ok(Session { thread, peer, stream })
}

/// Reads what is wanted, runs it, and says how it ended.
fn serve(mut from: UnixStream, input: SyncSender<Vec<u8>>, peer: &Arc<Peer>, handler: &Handler) {
    let hello = from.set_read_timeout(Some(HELLO)).and_then(|()| read_frame(&mut from));
    let request = match hello {
        Ok((Kind::Request, bytes)) => Request::decode(&bytes),
        Ok((kind, _)) => Err(format!("a request was expected, not {kind:?}")),
        Err(e) => Err(e.to_string()),
    };
    let request = match request {
        Ok(request) => request,
        Err(why) => return peer.refuse(&why),
    };
    let stop = peer.stop_flag();
    let listening = from.set_read_timeout(None).and_then(|()| {
        thread::spawn("kappa-command-input", move || {
            listen(&mut from, &input);
            stop.set();
        })
    });
    let Ok(listening) = listening else { return peer.refuse("it has no threads left") };
    let code = catch_unwind(AssertUnwindSafe(|| handler(request, peer))).unwrap_or_else(|_| {
        peer.talk(b"error: the command panicked: this is a bug in Kappa, please report it\n");
        COULD_NOT
    });
    let _ = peer.send(Kind::Exit, &[code]);
    let _ = locked(&peer.to).shutdown(Shutdown::Both);
    let _ = listening.join();
}

/// Passes input on until the client cancels, goes, or sends what it was not asked for.
fn listen(from: &mut UnixStream, input: &SyncSender<Vec<u8>>) {
    while let Ok((Kind::Input, bytes)) = read_frame(from) {
        if input.try_send(bytes).is_err() {
            return;
        }
    }
}
