//! What a function is to the expression evaluator: a kernel over columns and constants.

use super::super::expr::Typed;
use crate::engine::plan::Zone;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, StringBuilder, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, TimestampMillisecondType};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, Result, exec_err};
use datafusion_expr::Volatility;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use datafusion_physical_expr::ScalarFunctionExpr;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

/// Computes a column from arguments.
pub(super) type Kernel = fn(&Args<'_>) -> Result<ArrayRef>;

/// The arguments of one evaluation.
pub(super) struct Args<'a> {
    values: Vec<ArrayRef>,
    constant: Vec<bool>,
    /// Name of the function.
    pub name: &'static str,
    /// Rows of the result.
    pub rows: usize,
    /// Type of the result.
    pub result: &'a DataType,
    /// What was fixed when the statement was planned (a unit, a field's name).
    pub parameter: &'a str,
    /// The session's time zone, where the function depends on it; `None`: UTC.
    pub zone: Option<Zone>,
}

/// One argument of a known type: a column, or a constant that stands for every row.
pub(super) struct Argument<'a, A> {
    array: &'a A,
    constant: bool,
}

impl<A: Array> Argument<'_, A> {
    /// The row of the array that holds row `row`, or `None` where it is NULL.
    fn place(&self, row: usize) -> Option<usize> {
        let row = if self.constant { 0 } else { row };
        self.array.is_valid(row).then_some(row)
    }
}

impl<'a> Argument<'a, StringArray> {
    /// The text of a row.
    pub fn get(&self, row: usize) -> Option<&'a str> {
        self.place(row).map(|row| self.array.value(row))
    }
}

impl Argument<'_, Int64Array> {
    /// The number of a row.
    pub fn get(&self, row: usize) -> Option<i64> {
        self.place(row).map(|row| self.array.value(row))
    }
}

impl Args<'_> {
    /// How many arguments there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// An argument as it is.
    pub fn array(&self, index: usize) -> Result<&ArrayRef> {
        match self.values.get(index) {
            Some(array) => Ok(array),
            None => exec_err!("argument {} is missing", index + 1),
        }
    }

    /// An argument with one row for each row of the result.
    pub fn full(&self, index: usize) -> Result<ArrayRef> {
        let array = self.array(index)?;
        if !self.constant[index] {
            return Ok(Arc::clone(array));
        }
        datafusion_common::ScalarValue::try_from_array(array, 0)?.to_array_of_size(self.rows)
    }

    /// The row of argument `index` that stands for row `row`; `None` where it is NULL.
    pub fn place(&self, index: usize, row: usize) -> Option<usize> {
        let row = if *self.constant.get(index)? { 0 } else { row };
        self.values.get(index)?.is_valid(row).then_some(row)
    }

    /// A text argument.
    pub fn text(&self, index: usize) -> Result<Argument<'_, StringArray>> {
        match self.array(index)?.as_string_opt::<i32>() {
            Some(array) => Ok(Argument { array, constant: self.constant[index] }),
            None => exec_err!("argument {} is no text", index + 1),
        }
    }

    /// A BIGINT argument.
    pub fn long(&self, index: usize) -> Result<Argument<'_, Int64Array>> {
        match self.array(index)?.as_primitive_opt::<Int64Type>() {
            Some(array) => Ok(Argument { array, constant: self.constant[index] }),
            None => exec_err!("argument {} is no BIGINT", index + 1),
        }
    }

    /// A DOUBLE of a row.
    pub fn double(&self, index: usize, row: usize) -> Option<f64> {
        let place = self.place(index, row)?;
        self.values[index].as_primitive_opt::<Float64Type>().map(|array| array.value(place))
    }

    /// A timestamp of a row in ms.
    pub fn moment(&self, index: usize, row: usize) -> Option<i64> {
        let place = self.place(index, row)?;
        self.values[index].as_primitive_opt::<TimestampMillisecondType>().map(|array| array.value(place))
    }

    /// The wall clock's time at a moment, as if it were UTC.
    pub fn local(&self, moment: i64) -> i64 {
        self.zone.map_or(moment, |zone| zone.local(moment))
    }

    /// The last moment at which the wall clock shows a time.
    pub fn last_instant(&self, local: i64) -> i64 {
        let Some(zone) = self.zone else { return local };
        let last = zone.passed(local);
        if zone.local(last) == local { last } else { zone.moment(local) }
    }

    /// A column of timestamps in ms.
    pub fn moments(&self, index: usize) -> Result<&TimestampMillisecondArray> {
        match self.array(index)?.as_primitive_opt() {
            Some(array) => Ok(array),
            None => exec_err!("argument {} is no TIMESTAMP(3)", index + 1),
        }
    }

    /// One text for each row.
    pub fn texts(&self, mut of: impl FnMut(usize) -> Result<Option<String>>) -> Result<ArrayRef> {
        let mut builder = StringBuilder::with_capacity(self.rows, self.rows * 8);
        for row in 0..self.rows {
            builder.append_option(of(row)?);
        }
        Ok(Arc::new(builder.finish()))
    }

    /// One integer for each row, in the type of the result (integers and timestamps).
    pub fn longs(&self, mut of: impl FnMut(usize) -> Result<Option<i64>>) -> Result<ArrayRef> {
        let values: Int64Array = (0..self.rows).map(&mut of).collect::<Result<_>>()?;
        Ok(cast(&values, self.result)?)
    }

    /// One truth value for each row.
    pub fn booleans(&self, mut of: impl FnMut(usize) -> Result<Option<bool>>) -> Result<ArrayRef> {
        let values: arrow::array::BooleanArray = (0..self.rows).map(&mut of).collect::<Result<_>>()?;
        Ok(Arc::new(values))
    }

    /// One DOUBLE for each row.
    pub fn doubles(&self, mut of: impl FnMut(usize) -> Result<Option<f64>>) -> Result<ArrayRef> {
        let values: arrow::array::Float64Array = (0..self.rows).map(&mut of).collect::<Result<_>>()?;
        Ok(Arc::new(values))
    }
}

/// A function with its result type fixed.
struct Function {
    name: &'static str,
    parameter: String,
    result: FieldRef,
    zone: Option<Zone>,
    signature: Signature,
    kernel: Kernel,
}

// Two calls are the same if name, parameter, zone and result type are: a name has one kernel.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.parameter == other.parameter
            && self.zone == other.zone
            && self.result == other.result
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.parameter.hash(state);
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.name, self.parameter)
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.result.data_type().clone())
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::clone(&self.result))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant: Vec<bool> = args.args.iter().map(|value| matches!(value, ColumnarValue::Scalar(_))).collect();
        let all_constant = constant.iter().all(|constant| *constant);
        let values = args.args.into_iter().map(|value| match value {
            ColumnarValue::Array(array) => Ok(array),
            ColumnarValue::Scalar(value) => value.to_array(),
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let rows = if all_constant { 1 } else { args.number_rows };
        let arguments = Args {
            values,
            constant,
            name: self.name,
            rows,
            result: self.result.data_type(),
            parameter: &self.parameter,
            zone: self.zone,
        };
        let array = (self.kernel)(&arguments)?;
        if all_constant {
            return Ok(ColumnarValue::Scalar(datafusion_common::ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

static OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| Arc::new(ConfigOptions::default()));

/// A call of a kernel that no time zone matters to.
pub(super) fn make(
    name: &'static str,
    parameter: impl Into<String>,
    arguments: Vec<Typed>,
    result: DataType,
    nullable: bool,
    kernel: Kernel,
) -> Typed {
    make_in(None, (name, parameter.into()), arguments, (result, nullable), kernel)
}

/// A call of a kernel in a time zone.
pub(super) fn make_in(
    zone: Option<Zone>,
    (name, parameter): (&'static str, String),
    arguments: Vec<Typed>,
    (result, nullable): (DataType, bool),
    kernel: Kernel,
) -> Typed {
    let field: FieldRef = Arc::new(Field::new(name, result.clone(), nullable));
    let signature = Signature::variadic_any(Volatility::Immutable);
    let mut shown = if parameter.is_empty() { name.to_owned() } else { format!("{name}[{parameter}]") };
    if let Some(zone) = zone {
        shown = format!("{shown} in {zone}");
    }
    let function = Function { name, parameter, result: Arc::clone(&field), zone, signature, kernel };
    let expr = ScalarFunctionExpr::new(
        &shown,
        Arc::new(ScalarUDF::new_from_impl(function)),
        arguments.into_iter().map(|argument| argument.expr).collect(),
        field,
        Arc::clone(&OPTIONS),
    );
    Typed { expr: Arc::new(expr), data_type: result, nullable }
}

/// The message of an error without the engine's prefixes.
pub(in super::super) fn reason(error: &DataFusionError) -> String {
    let text = match error {
        DataFusionError::Execution(message) | DataFusionError::Plan(message) => message.clone(),
        DataFusionError::ArrowError(error, _) => error.to_string(),
        other => other.strip_backtrace(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}
