//! The side of a command that runs in another process: a terminal for it.

use super::SOCKET;
use super::protocol::{CHUNK_BYTES_MAX, Kind, REQUEST_BYTES_MAX, Request, read_frame, write_frame};
use crate::connect::interrupt;
use crate::env::{socket, thread};
use crate::error::{Error, ErrorKind, Result};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// The process that has the data folder and takes commands; `None` if there is none.
///
/// # Errors
/// `Unavailable` if its socket is there and cannot be used.
pub fn connect(data: &Path) -> Result<Option<UnixStream>> {
    socket::connect(data, SOCKET)
        .map_err(|cause| Error::io("cannot reach the process that has the data folder at", &data.join(SOCKET), cause))
}

fn lost(cause: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the process that has the data folder has ended, and the command with it")
        .with_hint("what it acknowledged is in the log; the same command opens the log by itself now")
        .with_source(cause)
}

/// Lets the command run there and gives its exit code.
///
/// # Errors
/// `Unavailable` if that process ends before; `Closed` if this one's stdout does.
pub fn forward(mut from: UnixStream, request: &Request) -> Result<u8> {
    let hello = request.encode().filter(|bytes| bytes.len() <= REQUEST_BYTES_MAX);
    let hello = hello.ok_or_else(|| {
        Error::input("another process has the data folder, and this command cannot be handed to it")
            .with_hint(format!("arguments must be UTF-8 and below {REQUEST_BYTES_MAX} bytes"))
    })?;
    let to = Arc::new(Mutex::new(from.try_clone().map_err(lost)?));
    let say =
        move |kind, bytes: &[u8]| write_frame(&mut *to.lock().unwrap_or_else(PoisonError::into_inner), kind, bytes);
    // Why it was refused, if it was, is still there to be read.
    let _ = say(Kind::Request, &hello);
    let cancel = say.clone();
    interrupt::on_signal(move || _ = cancel(Kind::Cancel, &[]))?;
    let (want, wanted) = channel();
    thread::spawn("kappa-stdin", move || pump(&wanted, say))
        .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a thread: {e}")))?;
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    loop {
        let (kind, bytes) = read_frame(&mut from).map_err(lost)?;
        match kind {
            Kind::Out => out
                .write_all(&bytes)
                .and_then(|()| out.flush())
                .map_err(|e| Error::new(ErrorKind::Closed, format!("cannot write to stdout: {e}")).with_source(e))?,
            Kind::Talk => _ = err.write_all(&bytes),
            Kind::Want => _ = want.send(()),
            Kind::Exit => return Ok(bytes.first().copied().unwrap_or(ErrorKind::Internal.exit_code())),
            kind => return Err(Error::internal(format!("the process that has the data folder said {kind:?}"))),
        }
    }
}

/// Sends a piece of stdin each time that it is wanted. Ends with the process at the latest.
fn pump(wanted: &Receiver<()>, say: impl Fn(Kind, &[u8]) -> io::Result<()>) {
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    while wanted.recv().is_ok() {
        let read = loop {
            match io::stdin().read(&mut chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // What cannot be read is the end of it.
                read => break read.unwrap_or(0),
            }
        };
        if say(Kind::Input, &chunk[..read]).is_err() {
            return;
        }
    }
}
