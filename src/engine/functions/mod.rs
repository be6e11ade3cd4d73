//! Functions that users register in Rust and call in SQL.

mod scalar;
mod used;

pub use crate::state::user::{Aggregate, UserAggregate, Value};
pub use scalar::ScalarFunction;
pub use used::{UsedFunction, used};

use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Registered {
    /// A function of values.
    Scalar(ScalarFunction),
    /// A function of the values of a window.
    Aggregate(UserAggregate),
}

/// The functions of a job beside SQL's own, each with a name and a version.
///
/// The version is part of a plan's digest: a job whose function was changed and got a new version is another job, so that
/// its recorded output is not mistaken for what the new one computes. A function must give one answer to one input, whenever and
/// however often it is asked; `kappa verify` names those that do not.
///
/// ```
/// use kappa::functions::FunctionRegistry;
///
/// let mut functions = FunctionRegistry::default();
/// functions.scalar1::<String, i64>("words", "1", |text| text.split_whitespace().count() as i64)?;
/// functions.scalar2::<f64, Option<f64>, f64>("rate", "2", |value, rate| value * rate.unwrap_or(1.0))?;
///
/// let plan = kappa::sql::plan_with(
///     "job.sql",
///     "CREATE TABLE posts (text STRING, ts TIMESTAMP(3));
///      SELECT words(text) AS n, ts FROM posts WHERE words(text) > 3;",
///     &functions,
/// )?;
/// assert_eq!(plan.pipelines.len(), 1);
/// # Ok::<(), kappa::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct FunctionRegistry {
    functions: BTreeMap<String, Registered>,
}

static NONE: LazyLock<FunctionRegistry> = LazyLock::new(FunctionRegistry::default);

impl FunctionRegistry {
    /// One without functions.
    pub fn none() -> &'static FunctionRegistry {
        &NONE
    }

    /// What a name stands for; its case does not matter.
    pub fn get(&self, name: &str) -> Option<&Registered> {
        self.functions.get(&name.to_ascii_uppercase())
    }

    /// All names, in capitals.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// Registers a function without arguments.
    ///
    /// # Errors
    /// `Input` when the name is no identifier, and `Conflict` when it is taken. So for all others.
    pub fn scalar0<R: Value>(
        &mut self,
        name: &str,
        version: &str,
        f: impl Fn() -> R + Send + Sync + 'static,
    ) -> Result<()> {
        self.add(name, version, |name| Registered::Scalar(ScalarFunction::new0(name, version, f)))
    }

    /// Registers a function of one argument.
    ///
    /// # Errors
    /// As [`FunctionRegistry::scalar0`].
    pub fn scalar1<A: Value, R: Value>(
        &mut self,
        name: &str,
        version: &str,
        f: impl for<'a> Fn(A::Get<'a>) -> R + Send + Sync + 'static,
    ) -> Result<()> {
        self.add(name, version, |name| Registered::Scalar(ScalarFunction::new1::<A, R>(name, version, f)))
    }

    /// Registers a function of two arguments.
    ///
    /// # Errors
    /// As [`FunctionRegistry::scalar0`].
    pub fn scalar2<A: Value, B: Value, R: Value>(
        &mut self,
        name: &str,
        version: &str,
        f: impl for<'a> Fn(A::Get<'a>, B::Get<'a>) -> R + Send + Sync + 'static,
    ) -> Result<()> {
        self.add(name, version, |name| Registered::Scalar(ScalarFunction::new2::<A, B, R>(name, version, f)))
    }

    /// Registers a function of three arguments.
    ///
    /// # Errors
    /// As [`FunctionRegistry::scalar0`].
    pub fn scalar3<A: Value, B: Value, C: Value, R: Value>(
        &mut self,
        name: &str,
        version: &str,
        f: impl for<'a> Fn(A::Get<'a>, B::Get<'a>, C::Get<'a>) -> R + Send + Sync + 'static,
    ) -> Result<()> {
        self.add(name, version, |name| Registered::Scalar(ScalarFunction::new3::<A, B, C, R>(name, version, f)))
    }

    /// Registers a function of four arguments.
    ///
    /// # Errors
    /// As [`FunctionRegistry::scalar0`].
    pub fn scalar4<A: Value, B: Value, C: Value, D: Value, R: Value>(
        &mut self,
        name: &str,
        version: &str,
        f: impl for<'a> Fn(A::Get<'a>, B::Get<'a>, C::Get<'a>, D::Get<'a>) -> R + Send + Sync + 'static,
    ) -> Result<()> {
        self.add(name, version, |name| Registered::Scalar(ScalarFunction::new4::<A, B, C, D, R>(name, version, f)))
    }

    /// Registers an aggregate; see [`Aggregate`] for an example.
    ///
    /// # Errors
    /// As [`FunctionRegistry::scalar0`].
    pub fn aggregate<A: Aggregate>(&mut self, name: &str, version: &str, aggregate: A) -> Result<()> {
        self.add(name, version, |name| Registered::Aggregate(UserAggregate::new(name, version, aggregate)))
    }

    fn add(&mut self, name: &str, version: &str, make: impl FnOnce(&str) -> Registered) -> Result<()> {
        let mut letters = name.chars();
        let starts = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !starts || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Error::input(format!("'{name}' cannot be called in SQL"))
                .with_hint("a function's name is made of letters, digits and _"));
        }
        let upper = name.to_ascii_uppercase();
        if self.functions.contains_key(&upper) {
            let message = format!("function {name} is registered already, before version {version}");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let made = make(&upper);
        self.functions.insert(upper, made);
        Ok(())
    }
}
