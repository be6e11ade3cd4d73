//! Aggregates that users define.

use super::accumulator::UserAccumulator;
use super::{Probe, Value};
use crate::state::accumulator::Accumulator;
use arrow::datatypes::DataType;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// An aggregate of one argument.
///
/// Values come in position order. The slices of a window are computed one by one and merged in the order of time, and a state may
/// be written to disk and read again in between; so the result must depend on nothing but the values and their order.
///
/// ```
/// use kappa::functions::{Aggregate, FunctionRegistry};
///
/// /// The longest run of equal numbers.
/// struct LongestRun;
///
/// #[derive(Default, Clone, serde::Serialize, serde::Deserialize)]
/// struct Runs {
///     first: Option<(i64, u64)>,
///     last: Option<(i64, u64)>,
///     longest: u64,
/// }
///
/// impl Aggregate for LongestRun {
///     type Input = i64;
///     type State = Runs;
///     type Output = i64;
///
///     fn accumulate(&self, runs: &mut Runs, value: i64) {
///         self.merge(runs, &Runs { first: Some((value, 1)), last: Some((value, 1)), longest: 1 });
///     }
///
///     fn merge(&self, runs: &mut Runs, later: &Runs) {
///         let (Some(mut last), Some(next)) = (runs.last, later.first) else {
///             if runs.last.is_none() {
///                 *runs = later.clone();
///             }
///             return;
///         };
///         let joins = last.0 == next.0;
///         last.1 += if joins { next.1 } else { 0 };
///         if joins && runs.first == runs.last {
///             runs.first = Some(last);
///         }
///         runs.longest = runs.longest.max(later.longest).max(last.1);
///         runs.last = if joins && later.first == later.last { Some(last) } else { later.last };
///     }
///
///     fn finish(&self, runs: &Runs) -> i64 {
///         runs.longest as i64
///     }
/// }
///
/// let mut functions = FunctionRegistry::default();
/// functions.aggregate("longest_run", "1", LongestRun)?;
/// # Ok::<(), kappa::Error>(())
/// ```
pub trait Aggregate: Send + Sync + 'static {
    /// Type of the argument. NULLs are left out unless it is an `Option`.
    type Input: Value;
    /// What is kept for a key and window; its default holds no value. Equal states are written as equal bytes: a map in it is a
    /// `BTreeMap`.
    type State: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Type of the result; `Option` where it can be NULL.
    type Output: Value;
    /// Takes a value.
    fn accumulate(&self, state: &mut Self::State, value: <Self::Input as Value>::Get<'_>);
    /// Takes what comes later in time.
    fn merge(&self, state: &mut Self::State, later: &Self::State);
    /// The result; also of the default state, where no value came.
    fn finish(&self, state: &Self::State) -> Self::Output;
}

type Make = dyn Fn(&UserAggregate) -> Box<dyn Accumulator> + Send + Sync;

/// An aggregate that a user registered, with its types erased. Two are equal if name and version are.
#[derive(Clone)]
pub struct UserAggregate {
    /// Name in capitals.
    pub name: Arc<str>,
    /// Version, as registered: part of the digest of plans.
    pub version: Arc<str>,
    /// Type of the argument.
    pub argument: DataType,
    /// Type of the result.
    pub result: DataType,
    /// Whether the result can be NULL.
    pub nullable: bool,
    /// The check of the call that this stands for.
    pub probe: Arc<Probe>,
    make: Arc<Make>,
}

impl UserAggregate {
    /// Erases the types of an aggregate.
    pub fn new<A: Aggregate>(name: &str, version: &str, aggregate: A) -> UserAggregate {
        let aggregate = Arc::new(aggregate);
        UserAggregate {
            name: name.into(),
            version: version.into(),
            argument: A::Input::data_type(),
            result: A::Output::data_type(),
            nullable: A::Output::NULLABLE,
            probe: Arc::default(),
            make: Arc::new(move |called| Box::new(UserAccumulator::new(Arc::clone(&aggregate), called))),
        }
    }

    /// The same for another call, with a check of its own.
    #[must_use]
    pub fn call(&self) -> UserAggregate {
        UserAggregate { probe: Arc::default(), ..self.clone() }
    }

    /// An empty accumulator.
    pub fn accumulator(&self) -> Box<dyn Accumulator> {
        (self.make)(self)
    }
}

impl fmt::Debug for UserAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}

impl PartialEq for UserAggregate {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.version) == (&other.name, &other.version)
    }
}

impl Eq for UserAggregate {}

impl Hash for UserAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.version).hash(state);
    }
}
