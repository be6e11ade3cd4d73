//! Rust closures as expressions of a plan.

use crate::engine::plan::Expr;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// From columns of the row to a column, all of one batch at once.
pub(super) type Work = Arc<dyn Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync>;

/// What a closure makes of some columns of the row.
#[derive(Clone)]
pub(super) struct Closure {
    /// Letters and digits: what stands for it in the digest of a plan.
    pub label: String,
    /// The columns that it reads.
    pub inputs: Vec<Expr>,
    /// Type of the result.
    pub data_type: DataType,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// The closure.
    pub work: Work,
}

/// The work's address: one closure is equal to itself alone.
fn address(work: &Work) -> *const () {
    Arc::as_ptr(work).cast()
}

impl PartialEq for Closure {
    fn eq(&self, other: &Closure) -> bool {
        std::ptr::eq(address(&self.work), address(&other.work)) && self.inputs == other.inputs
    }
}

impl Eq for Closure {}

impl Hash for Closure {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.label.hash(state);
        self.inputs.hash(state);
    }
}

/// Its first word is the label.
impl fmt::Debug for Closure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.label, self.inputs)
    }
}

impl fmt::Display for Closure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl PhysicalExpr for Closure {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(self.nullable)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let inputs = self.inputs.iter().map(|input| input.evaluate(batch)?.into_array(batch.num_rows()));
        Ok(ColumnarValue::Array((self.work)(&inputs.collect::<Result<Vec<_>>>()?)?))
    }

    fn children(&self) -> Vec<&Expr> {
        self.inputs.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Expr>) -> Result<Expr> {
        Ok(Arc::new(Closure { inputs: children, ..Closure::clone(&self) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The column `index` of a column of rows.
pub(super) fn field_of(rows: Expr, index: usize, data_type: DataType, nullable: bool) -> Expr {
    let work: Work = Arc::new(move |inputs: &[ArrayRef]| {
        let rows = inputs.first().and_then(|rows| {
            let rows: &dyn Any = rows.as_any();
            rows.downcast_ref::<arrow::array::StructArray>()
        });
        let column = rows.and_then(|rows| rows.columns().get(index));
        column.cloned().ok_or_else(|| DataFusionError::Internal(format!("there is no column {index}")))
    });
    Arc::new(Closure { label: format!("Field{index}"), inputs: vec![rows], data_type, nullable, work })
}
