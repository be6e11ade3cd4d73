//! File systems of their own for the tests: an ext4 image whose power can be cut, and a small one that fills up. Both need root.

use crate::util::root;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new(program).args(arguments).output().map_err(|cause| format!("{program}: {cause}"))?;
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    if ran.status.success() { Ok(()) } else { Err(format!("{program} {}: {said}", arguments.join(" "))) }
}

/// A mounted file system; unmounted and removed when dropped.
pub struct Mounted {
    dir: PathBuf,
    /// What is mounted: an image, or nothing for memory.
    image: Option<PathBuf>,
    mounted: bool,
}

impl Mounted {
    /// An empty ext4 of `mib` MiB in an image below `target`.
    pub fn ext4(mib: u32) -> Result<Mounted, String> {
        let dir = folder()?;
        let image = dir.with_extension("img");
        let mut mounted = Mounted { dir, image: Some(image.clone()), mounted: false };
        let (image, size) = (image.display().to_string(), format!("{mib}M"));
        run("truncate", &["-s", &size, &image])?;
        run("mkfs.ext4", &["-q", "-F", &image])?;
        mounted.mount()?;
        Ok(mounted)
    }

    /// An empty file system of `mib` MiB in memory.
    pub fn memory(mib: u32) -> Result<Mounted, String> {
        let mut mounted = Mounted { dir: folder()?, image: None, mounted: false };
        let place = mounted.dir.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", &place])?;
        mounted.mounted = true;
        Ok(mounted)
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn mount(&mut self) -> Result<(), String> {
        if let Some(image) = &self.image {
            run("mount", &["-o", "loop", &image.display().to_string(), &self.dir.display().to_string()])?;
            self.mounted = true;
        }
        Ok(())
    }

    /// Unmounts and mounts: what a machine does that starts again.
    pub fn restart(&mut self) -> Result<(), String> {
        run("umount", &[&self.dir.display().to_string()])?;
        self.mounted = false;
        self.mount()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run("umount", &["-l", &self.dir.display().to_string()]);
        }
        let _ = std::fs::remove_dir(&self.dir);
        self.image.iter().for_each(|image| drop(std::fs::remove_file(image)));
    }
}

fn folder() -> Result<PathBuf, String> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("disk-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|cause| format!("{}: {cause}", dir.display()))?;
    Ok(dir)
}

/// Cuts power. A process of its own, started beforehand, so that a cut comes at once.
pub struct Switch {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Switch {
    pub fn new() -> Result<Switch, String> {
        let mut child = Command::new("python3")
            .arg(root().join("fixtures/power_cut.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|cause| format!("python3: {cause}"))?;
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Ok(Switch { child, stdin, stdout: BufReader::new(stdout) })
    }

    /// Everything that is not synced is gone.
    pub fn cut(&mut self, dir: &Path) -> Result<(), String> {
        let mut said = String::new();
        let asked = writeln!(self.stdin, "{}", dir.display());
        asked.and_then(|()| self.stdout.read_line(&mut said)).map_err(|cause| format!("cutting the power: {cause}"))?;
        if said == "cut\n" { Ok(()) } else { Err("the file system cannot be shut down".to_owned()) }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
