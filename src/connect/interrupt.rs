//! Ctrl-C as a flag that a run looks at.

use crate::env::thread;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Observer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once the user has asked to stop.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// True once set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sets it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Observer for StopFlag {
    fn should_stop(&self) -> bool {
        self.is_set()
    }
}

/// A flag that Ctrl-C or SIGTERM sets. The first signal asks politely; a second one ends the process at once with exit code 4.
pub fn stop_on_signal() -> Result<StopFlag> {
    let flag = StopFlag::default();
    let set = flag.clone();
    on_signal(move || set.set())?;
    Ok(flag)
}

/// Calls `act` at the first Ctrl-C or SIGTERM; a second one ends the process at once with exit code 4.
pub fn on_signal(act: impl FnOnce() + Send + 'static) -> Result<()> {
    watch(act).map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot watch for signals: {e}")).with_source(e))
}

fn watch(act: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn("kappa-signals", move || {
        runtime.block_on(async {
            let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
                return;
            };
            let mut act = Some(act);
            loop {
                tokio::select! {
                    pressed = tokio::signal::ctrl_c() => if pressed.is_err() { return },
                    _ = terminate.recv() => {}
                }
                match act.take() {
                    Some(act) => act(),
                    None => std::process::exit(4),
                }
            }
        });
    })?;
    Ok(())
}
