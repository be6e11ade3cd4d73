//! Functions of values, and their calls in expressions.

use super::Value;
use crate::engine::plan::Expr;
use crate::state::user::Probe;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_physical_expr::ScalarFunctionExpr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Computes a column of so many rows.
type Kernel = dyn Fn(&[ArrayRef], usize) -> ArrayRef + Send + Sync;
/// A row's arguments as text.
type Show = dyn Fn(&[ArrayRef], usize) -> String + Send + Sync;

/// A function of values that a user registered, with its types erased.
#[derive(Clone)]
pub struct ScalarFunction {
    /// Name in capitals.
    pub name: Arc<str>,
    /// Version, as registered: part of the digest of plans.
    pub version: Arc<str>,
    /// Types of the arguments, and whether the function is called for NULL.
    pub arguments: Vec<(DataType, bool)>,
    /// Type of the result.
    pub result: DataType,
    /// Whether the result can be NULL though no argument is.
    pub nullable: bool,
    kernel: Arc<Kernel>,
    show: Arc<Show>,
}

macro_rules! constructor {
    ($(#[$doc:meta])* $new:ident, $($type:ident $at:tt),*) => {
        $(#[$doc])*
        pub fn $new<$($type: Value,)* R: Value>(
            name: &str,
            version: &str,
            f: impl for<'a> Fn($($type::Get<'a>),*) -> R + Send + Sync + 'static,
        ) -> ScalarFunction {
            #[allow(unused_variables, reason = "a function without arguments reads none")]
            let kernel = move |columns: &[ArrayRef], rows: usize| {
                let row = |row: usize| Some(f($($type::get(&columns[$at], row)?),*));
                R::column((0..rows).map(row).collect())
            };
            #[allow(unused_variables, reason = "a function without arguments reads none")]
            let show = |columns: &[ArrayRef], row: usize| {
                let values: Vec<String> = vec![$(match $type::get(&columns[$at], row) {
                    Some(value) => format!("{value:?}"),
                    None => "NULL".to_owned(),
                }),*];
                values.join(", ")
            };
            ScalarFunction {
                name: name.into(),
                version: version.into(),
                arguments: vec![$(($type::data_type(), $type::NULLABLE)),*],
                result: R::data_type(),
                nullable: R::NULLABLE,
                kernel: Arc::new(kernel),
                show: Arc::new(show),
            }
        }
    };
}

impl ScalarFunction {
    constructor!(
        /// A function without arguments.
        new0,
    );
    constructor!(
        /// A function of one argument.
        new1, A 0
    );
    constructor!(
        /// A function of two arguments.
        new2, A 0, B 1
    );
    constructor!(
        /// A function of three arguments.
        new3, A 0, B 1, C 2
    );
    constructor!(
        /// A function of four arguments.
        new4, A 0, B 1, C 2, D 3
    );

    /// A call on arguments of its types, with a check of its own. `nullable` says whether the result can be NULL.
    pub fn call(&self, arguments: Vec<Expr>, nullable: bool) -> Expr {
        let field: FieldRef = Arc::new(Field::new(&*self.name, self.result.clone(), nullable));
        let called = Called {
            function: self.clone(),
            result: Arc::clone(&field),
            signature: Signature::variadic_any(Volatility::Immutable),
            probe: Arc::default(),
        };
        let shown = format!("{} version {}", self.name, self.version);
        let udf = Arc::new(ScalarUDF::new_from_impl(called));
        Arc::new(ScalarFunctionExpr::new(&shown, udf, arguments, field, Arc::new(ConfigOptions::default())))
    }
}

impl fmt::Debug for ScalarFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}

/// One call of a function in a plan.
pub(super) struct Called {
    pub(super) function: ScalarFunction,
    pub(super) probe: Arc<Probe>,
    result: FieldRef,
    signature: Signature,
}

/// Calls are equal if they are of one function: what they are called on is compared beside.
impl PartialEq for Called {
    fn eq(&self, other: &Self) -> bool {
        (&self.function.name, &self.function.version) == (&other.function.name, &other.function.version)
    }
}

impl Eq for Called {}

impl Hash for Called {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.function.name, &self.function.version).hash(state);
    }
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.function.fmt(f)
    }
}

impl ScalarUDFImpl for Called {
    fn name(&self) -> &str {
        &self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.function.result.clone())
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::clone(&self.result))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.into_iter().map(|value| value.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let types = columns.iter().zip(&self.function.arguments);
        if columns.len() != self.function.arguments.len() || types.into_iter().any(|(a, (b, _))| a.data_type() != b) {
            return exec_err!("{} was called with other types than it takes", self.function.name);
        }
        let results = (self.function.kernel)(&columns, rows);
        if self.probe.checks() {
            let again = (self.function.kernel)(&columns, rows);
            if let Some(row) = (0..rows).find(|row| results.slice(*row, 1) != again.slice(*row, 1)) {
                let shown = |array: &ArrayRef| {
                    arrow::util::display::array_value_to_string(array, row).unwrap_or_else(|_| "?".to_owned())
                };
                self.probe.found(|| {
                    let arguments = (self.function.show)(&columns, row);
                    format!("{}({arguments}) gave {}, then {}", self.function.name, shown(&results), shown(&again))
                });
            }
        }
        Ok(ColumnarValue::Array(results))
    }
}
