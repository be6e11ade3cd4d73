//! A folder of its own for each test, and the `kappa` binary run in it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A new folder, removed when dropped; `kappa` runs in it with its data in `data`.
pub struct Place {
    pub dir: PathBuf,
}

/// What a command left.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

impl Place {
    pub fn new() -> Place {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("kappa-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder for the test");
        Place { dir }
    }

    /// A place that sees the project's fixtures under their usual name.
    pub fn with_fixtures() -> Place {
        let place = Place::new();
        std::os::unix::fs::symlink(root().join("fixtures"), place.dir.join("fixtures"))
            .expect("a link to the fixtures");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file of the test");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file that Kappa wrote")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kappa"));
        command.current_dir(&self.dir).args(args).env_remove("KAPPA_DATA").stdin(Stdio::null());
        command.args(["--data", "data"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end.
    pub fn kappa(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().expect("kappa starts"))
    }

    /// Runs to the end with this stdin.
    pub fn kappa_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("kappa starts");
        child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("stdin takes it");
        ran(child.wait_with_output().expect("kappa ends"))
    }

    /// Runs and must end well; gives stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.kappa(args);
        assert_eq!(ran.code, 0, "kappa {args:?}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Runs and must fail with this exit code and all of these words on stderr, and nothing on stdout.
    pub fn fails(&self, args: &[&str], code: i32, words: &[&str]) {
        let ran = self.kappa(args);
        assert_eq!(ran.code, code, "kappa {args:?}\nstderr: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "kappa {args:?}: stdout is for data");
        for word in words {
            assert!(ran.stderr.contains(word), "kappa {args:?}: {word:?} is missing in: {}", ran.stderr);
        }
    }

    /// Starts in the background.
    pub fn start(&self, args: &[&str]) -> Running {
        Running(Some(self.command(args).stdin(Stdio::piped()).spawn().expect("kappa starts")))
    }

    /// The same; what it says goes into a file, to be read meanwhile.
    pub fn start_saying(&self, args: &[&str], file: &str) -> Running {
        let said = fs::File::create(self.path(file)).expect("a file of the test");
        Running(Some(self.command(args).stderr(said).spawn().expect("kappa starts")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
    }
}

/// A process in the background; killed when dropped.
pub struct Running(Option<Child>);

impl Running {
    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("running")
    }

    /// Ctrl-C, then the end.
    pub fn interrupt(mut self) -> Ran {
        let child = self.0.take().expect("running");
        signal(child.id(), "INT");
        ran(child.wait_with_output().expect("kappa ends"))
    }

    /// What it said until its end.
    pub fn ended(mut self) -> Ran {
        ran(self.0.take().expect("running").wait_with_output().expect("kappa ends"))
    }

    /// No chance to clean up.
    pub fn kill(mut self) {
        let mut child = self.0.take().expect("running");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status().expect("kill runs");
    assert!(status.success(), "kill -{name} {process}");
}

/// Says something on the terminal also when the test passes: what a loop has shown, or what could not be tested here.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Waits until `is_so`, at most 30 seconds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Lines of all part files of a folder, sorted.
pub fn sorted_lines(folder: &Path) -> Vec<String> {
    let mut lines: Vec<String> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part-")))
        .flat_map(|path| fs::read_to_string(path).expect("a part").lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines.sort();
    lines
}
