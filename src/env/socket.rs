//! Unix sockets in a folder: how processes of one machine find each other.
#![expect(clippy::disallowed_methods, reason = "this is the door that the rest of the crate goes through")]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest name that the system takes for a socket, in bytes, without the zero at its end.
const PATH_BYTES_MAX: usize = 107;

const MODE: u32 = 0o600;

/// Calls `with` with a name of the socket that is short enough. Linux lets a long one begin at an open folder.
fn short<T>(dir: &Path, name: &str, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(name);
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return with(&path);
    }
    let folder = File::open(dir)?;
    with(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

/// Listens in a folder that the caller owns, in place of whoever did before. Nobody but the user may connect.
pub fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    match std::fs::remove_file(dir.join(name)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = short(dir, name, |path| UnixListener::bind(path))?;
    std::fs::set_permissions(dir.join(name), Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The next one to connect, if one does within so many milliseconds.
pub fn accept_within(listener: &UnixListener, timeout_ms: u32) -> io::Result<Option<UnixStream>> {
    let timeout = Timespec { tv_sec: i64::from(timeout_ms / 1000), tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000 };
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => return Ok(None),
        Err(e) if e != rustix::io::Errno::INTR => return Err(e.into()),
        _ => {}
    }
    match listener.accept() {
        Ok((stream, _)) => stream.set_nonblocking(false).map(|()| Some(stream)),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Connects to whoever listens there; `None`: nobody does.
pub fn connect(dir: &Path, name: &str) -> io::Result<Option<UnixStream>> {
    match short(dir, name, |path| UnixStream::connect(path)) {
        Ok(stream) => Ok(Some(stream)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_path_of_any_length_can_be_listened_at_also_after_its_owner_died() {
        let root = std::env::temp_dir().join(format!("kappa-socket-{}", std::process::id()));
        let long = root.join("a-folder-with-a-long-name-".repeat(8));
        for dir in [&root, &long] {
            std::fs::create_dir_all(dir).expect("a folder");
            assert!(connect(dir, "SOCKET").expect("no error").is_none(), "nobody has listened yet");
            drop(listen(dir, "SOCKET").expect("listens"));
            assert!(connect(dir, "SOCKET").expect("no error").is_none(), "the file is there, and nobody listens");
            let listener = listen(dir, "SOCKET").expect("listens");
            let mode = std::fs::metadata(dir.join("SOCKET")).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, MODE);
            assert!(accept_within(&listener, 1).expect("no error").is_none());
            let mut client = connect(dir, "SOCKET").expect("no error").expect("somebody listens");
            let mut server = accept_within(&listener, 1000).expect("no error").expect("it connected");
            client.write_all(b"hello").expect("written");
            let mut read = [0; 5];
            server.read_exact(&mut read).expect("read");
            assert_eq!(&read, b"hello");
        }
        std::fs::remove_dir_all(&root).expect("removed");
    }
}
