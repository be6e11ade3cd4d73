//! Claims: who, within this process, works under a name. Nobody shares one. Whoever took it only until another wants it is told so, and
//! does not get it again before the other has had it.

use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks at whether the one who waits still wants to.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Names {
    /// Who has a name, and whether it gives it up for another.
    held: BTreeMap<String, (&'static str, bool)>,
    /// How many wait for a name.
    wanted: BTreeMap<String, u32>,
}

/// All claims on a log.
#[derive(Default)]
pub(super) struct Claims {
    names: Mutex<Names>,
    released: Condvar,
}

impl Claims {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that nobody else works under until this is dropped.
pub struct Claim {
    claims: Arc<Claims>,
    name: String,
}

impl Claim {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True once another waits for it: only a claim of [`Log::claim_until_wanted`] is ever waited for.
    pub fn is_wanted(&self) -> bool {
        self.claims.names().wanted.contains_key(&self.name)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.names().held.remove(&self.name);
        self.claims.released.notify_all();
    }
}

fn refused(name: &str, holder: &str) -> Error {
    let message = format!("'{name}' is in use: {holder} works with it");
    Error::new(ErrorKind::Unavailable, message).with_hint("wait until that is done, or stop it")
}

impl Log {
    /// Claims a name for `who`. Waits for one who has it only until it is wanted.
    ///
    /// # Errors
    /// `Unavailable` with the name of another holder; `Closed` if `should_stop` says so first.
    pub fn claim(&self, name: &str, who: &'static str, should_stop: impl Fn() -> bool) -> Result<Claim> {
        let claims = &self.inner.claims;
        let mut names = claims.names();
        let mut is_waiting = false;
        let claimed = loop {
            match names.held.get(name) {
                None => {
                    names.held.insert(name.to_owned(), (who, false));
                    break Ok(Claim { claims: Arc::clone(claims), name: name.to_owned() });
                }
                Some((holder, false)) => break Err(refused(name, holder)),
                Some(_) if should_stop() => {
                    break Err(Error::new(ErrorKind::Closed, format!("stopped before '{name}' was free")));
                }
                Some(_) => {}
            }
            if !is_waiting {
                *names.wanted.entry(name.to_owned()).or_default() += 1;
                is_waiting = true;
            }
            (names, _) = claims.released.wait_timeout(names, LOOK).unwrap_or_else(PoisonError::into_inner);
        };
        if is_waiting && let Some(wanted) = names.wanted.get_mut(name) {
            *wanted -= 1;
            names.wanted.retain(|_, wanted| *wanted > 0);
        }
        claimed
    }

    /// Claims a name for `who`, to be given up soon after [`Claim::is_wanted`] says so. `None`: another has it, or wants it.
    pub fn claim_until_wanted(&self, name: &str, who: &'static str) -> Option<Claim> {
        let claims = &self.inner.claims;
        let mut names = claims.names();
        let is_free = !names.held.contains_key(name) && !names.wanted.contains_key(name);
        is_free.then(|| {
            names.held.insert(name.to_owned(), (who, true));
            Claim { claims: Arc::clone(claims), name: name.to_owned() }
        })
    }

    /// Held from reading the catalog until what was decided by it is written, so that nobody else decides by the same. Claims are taken
    /// before it.
    pub(crate) fn deciding(&self) -> MutexGuard<'_, ()> {
        self.inner.deciding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Env, thread};
    use crate::log::LogOptions;

    fn log() -> Log {
        Log::open(&Env::sim(1).0, "/data".as_ref(), LogOptions::default()).expect("a log")
    }

    #[test]
    fn a_name_is_claimed_by_one_at_a_time_who_is_named() {
        let log = log();
        let claim = log.claim("a", "`kappa run`", || false).expect("free");
        let _other = log.claim("b", "`kappa run`", || false).expect("another name");
        let refused = log.claim("a", "`kappa promote`", || false).err().expect("in use");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("'a' is in use: `kappa run`"), "{refused}");
        assert!(log.claim_until_wanted("a", "`kappa up`").is_none() && !claim.is_wanted());
        drop(claim);
        assert!(log.claim_until_wanted("a", "`kappa up`").is_some());
        let panicked = {
            let log = log.clone();
            thread::spawn("panics", move || {
                let _claim = log.claim("a", "`kappa run`", || false).expect("free");
                panic!("on purpose");
            })
        };
        assert!(panicked.expect("a thread").join().is_err());
        assert!(log.claim("a", "`kappa run`", || false).is_ok());
    }

    #[test]
    fn who_yields_is_asked_to_and_comes_after_those_who_wait() {
        let log = log();
        for round in 0..50 {
            let yields = log.claim_until_wanted("a", "`kappa up`").expect("free");
            let (taking, go_on) = (log.clone(), std::sync::mpsc::channel::<()>());
            let waits = thread::spawn("waits", move || {
                let claim = taking.claim("a", "`kappa promote`", || false).expect("given up");
                go_on.1.recv().expect("told");
                drop(claim);
            });
            while !yields.is_wanted() {
                std::hint::spin_loop();
            }
            drop(yields);
            assert!(log.claim_until_wanted("a", "`kappa up`").is_none(), "round {round}");
            go_on.0.send(()).expect("it waits");
            waits.expect("a thread").join().expect("no panic");
        }
        let _yields = log.claim_until_wanted("a", "`kappa up`").expect("free");
        let stopped = log.claim("a", "`kappa promote`", || true).err().expect("stopped");
        assert_eq!(stopped.kind(), ErrorKind::Closed);
        assert!(log.inner.claims.names().wanted.is_empty());
    }
}
