//! Runs plans over small batches, the way operators do.

use crate::engine::plan::{JobPlan, MetadataColumn, NamedExpr, PipelinePlan, SourcePlan, Step};
use crate::sql::plan;
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::sync::Arc;

/// The table that expression tests read.
pub(super) const TABLE: &str = "CREATE TABLE t (
  i INT, b BIGINT, d DOUBLE, f FLOAT, s STRING, n DECIMAL(10, 2), ts TIMESTAMP(3), l TIMESTAMP_LTZ(3), day DATE,
  r ROW<a INT, x ROW<y STRING>>, a ARRAY<INT>, k BOOLEAN, si SMALLINT,
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
);\n";

/// One JSON-like literal for each column of [`TABLE`], as two rows: values, and NULLs.
fn table_rows(schema: &SchemaRef) -> RecordBatch {
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, ListArray, StructArray,
    };
    let arrays: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match field.name().as_str() {
                "i" if !field.is_nullable() => Arc::new(Int32Array::from(vec![7, 8])),
                "i" => Arc::new(Int32Array::from(vec![Some(7), None])),
                "b" => Arc::new(Int64Array::from(vec![Some(5_000_000_000), None])),
                "d" => Arc::new(Float64Array::from(vec![Some(2.5), None])),
                "f" => Arc::new(Float32Array::from(vec![Some(0.5), None])),
                "s" => Arc::new(StringArray::from(vec![Some("Hello World"), None])),
                "n" => {
                    Arc::new(Decimal128Array::from(vec![Some(12345), None]).with_precision_and_scale(10, 2).unwrap())
                }
                // 2013-01-05 15:04:09.070
                "ts" => Arc::new(TimestampMillisecondArray::from(vec![Some(1_357_398_249_070), None])),
                "l" => Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None]).with_timezone("UTC")),
                "day" => Arc::new(Date32Array::from(vec![Some(15_710), None])),
                "r" => {
                    let DataType::Struct(fields) = field.data_type() else { panic!("r is a row") };
                    let DataType::Struct(inner) = fields[1].data_type() else { panic!("x is a row") };
                    let y: ArrayRef = Arc::new(StringArray::from(vec![Some("deep"), Some("hidden")]));
                    let x: ArrayRef = Arc::new(StructArray::new(inner.clone(), vec![y], None));
                    let a: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2)]));
                    let nulls = arrow::buffer::NullBuffer::from(vec![true, false]);
                    Arc::new(StructArray::new(fields.clone(), vec![a, x], Some(nulls)))
                }
                "a" => Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(vec![
                    Some(vec![Some(10), None, Some(30)]),
                    None,
                ])),
                "k" => Arc::new(BooleanArray::from(vec![Some(true), None])),
                "si" => Arc::new(Int16Array::from(vec![Some(3), None])),
                other => panic!("no rows for {other}"),
            }
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), arrays).unwrap()
}

/// Evaluates columns; the batch checks names, types and nullability.
pub(super) fn project(columns: &[NamedExpr], schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let mut arrays = Vec::new();
    for column in columns {
        let value = column.expr.evaluate(batch).map_err(|error| error.to_string())?;
        arrays.push(value.into_array(batch.num_rows()).map_err(|error| error.to_string())?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays).expect("the plan's schema is exact"))
}

/// Evaluates steps (without window assignment).
pub(super) fn steps(steps: &[Step], mut batch: RecordBatch) -> Result<RecordBatch, String> {
    for step in steps {
        batch = match step {
            Step::Filter(condition) => {
                let mask = condition.evaluate(&batch).map_err(|error| error.to_string())?;
                let mask = mask.into_array(batch.num_rows()).unwrap();
                filter_record_batch(&batch, arrow::array::AsArray::as_boolean(&mask)).unwrap()
            }
            Step::Project { columns, schema } => project(columns, schema, &batch)?,
            other => panic!("{other:?} is not run here"),
        };
    }
    Ok(batch)
}

/// The source's row for decoded columns: the table's two rows, with metadata behind them.
pub(super) fn source_rows(source: &SourcePlan) -> Result<RecordBatch, String> {
    let decoded = table_rows(&crate::format::used_schema(&source.declared, &source.used));
    let (mut fields, mut arrays) = (decoded.schema().fields().to_vec(), decoded.columns().to_vec());
    for column in &source.metadata {
        let array: ArrayRef = match column {
            MetadataColumn::AppendTime | MetadataColumn::Timestamp => {
                Arc::new(TimestampMillisecondArray::from(vec![1000, 2000]).with_timezone("UTC"))
            }
            MetadataColumn::Partition => Arc::new(Int32Array::from(vec![0, 1])),
            MetadataColumn::Offset => Arc::new(Int64Array::from(vec![10, 11])),
            MetadataColumn::Key => Arc::new(arrow::array::BinaryArray::from_vec(vec![b"k", b"l"])),
        };
        let (data_type, nullable) = crate::sql::table::metadata_type(*column);
        fields.push(Arc::new(arrow::datatypes::Field::new(format!("{column:?}"), data_type, nullable)));
        arrays.push(array);
    }
    let decoded = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), arrays).unwrap();
    project(&source.columns, &source.schema, &decoded)
}

/// Rows of a pipeline without a window over [`TABLE`].
pub(super) fn run(job: &JobPlan, pipeline: &PipelinePlan) -> Result<RecordBatch, String> {
    steps(&pipeline.steps, source_rows(&job.sources[pipeline.source])?)
}

/// A value as text, with its type: `7: INT`.
pub(super) fn shown(batch: &RecordBatch, column: usize, row: usize) -> String {
    let options = FormatOptions::default()
        .with_null("NULL")
        .with_timestamp_format(Some("%F %T%.3f"))
        .with_timestamp_tz_format(Some("%F %T%.3f"));
    let array = batch.column(column);
    ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string()
}

/// Type and values of an expression over the two rows of [`TABLE`].
pub(super) fn evaluate(expression: &str) -> Result<(String, String, String), String> {
    evaluate_after("", expression)
}

/// The same behind some statements.
pub(super) fn evaluate_after(statements: &str, expression: &str) -> Result<(String, String, String), String> {
    let text = format!("{TABLE}{statements}SELECT {expression} AS x FROM t;");
    let job = plan("t.sql", &text).map_err(|error| format!("{error}"))?;
    let batch = run(&job, &job.pipelines[0])?;
    let name = crate::sql::types::name(batch.schema().field(0).data_type());
    Ok((name, shown(&batch, 0, 0), shown(&batch, 0, 1)))
}

/// Names of a schema's columns.
pub(super) fn names(schema: &arrow::datatypes::SchemaRef) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}
