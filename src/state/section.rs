//! State as tables. An operator's state is a list of named sections; each is a table that a person can read: key columns by their names,
//! windows, and the columns of the accumulators. One form for checkpoints, spilled windows and savepoints.
//!
//! A section is made when somebody asks for its rows; those of a state that goes on come [as they are given](super::saving): whoever
//! saves does not keep the owner waiting.

use super::accumulator::{AggregateSpec, build};
use super::keys::{KeyCodec, KeyRows};
use crate::error::{Error, ErrorKind, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::fmt;
use std::sync::Arc;

/// Rows of a section that are made at once.
pub const PIECE_ROWS: usize = 16 * 1024;

/// Gives the rows of a section piece by piece.
type Pieces = dyn Fn(&mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> + Send + Sync;

/// A part of a state.
#[derive(Clone)]
pub struct Section {
    /// Which: words separated by `/`.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Two sections of one name and one owner with the same version have the same rows; `None`: that is not known.
    pub version: Option<u64>,
    pieces: Arc<Pieces>,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Section({}, {:?})", self.name, self.version)
    }
}

impl Section {
    /// A section whose rows are made by `pieces`.
    pub fn lazy(
        name: impl Into<String>,
        schema: SchemaRef,
        version: Option<u64>,
        pieces: impl Fn(&mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> + Send + Sync + 'static,
    ) -> Section {
        Section { name: name.into(), schema, version, pieces: Arc::new(pieces) }
    }

    /// A section with these rows.
    pub fn of(name: impl Into<String>, schema: SchemaRef, rows: Vec<RecordBatch>) -> Section {
        Section::lazy(name, schema, None, move |take| rows.iter().cloned().try_for_each(&mut *take))
    }

    /// One table.
    pub fn table(name: impl Into<String>, columns: Vec<(&str, ArrayRef)>) -> Result<Section> {
        let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = batch(&schema, columns.into_iter().map(|(_, column)| column).collect())?;
        Ok(Section::of(name, schema, vec![batch]))
    }

    /// The same for somebody who has its rows: they are not made.
    #[must_use]
    pub fn without_rows(self) -> Section {
        Section { version: self.version, ..Section::of(self.name, self.schema, Vec::new()) }
    }

    /// The same below another name.
    #[must_use]
    pub fn below(self, prefix: &str) -> Section {
        Section { name: format!("{prefix}/{}", self.name), ..self }
    }

    /// Gives the rows to `take`, piece by piece.
    pub fn each(&self, take: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        (self.pieces)(take)
    }

    /// All rows at once, for those that are few.
    pub fn rows(&self) -> Result<RecordBatch> {
        let mut pieces = Vec::new();
        self.each(&mut |piece| {
            pieces.push(piece);
            Ok(())
        })?;
        arrow::compute::concat_batches(&self.schema, &pieces)
            .map_err(|e| Error::internal(format!("section {}", self.name)).with_source(e))
    }
}

/// Columns of one length, also if there are none.
fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let rows = columns.first().map_or(0, |column| column.len());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|e| Error::internal("columns of state do not fit their schema").with_source(e))
}

/// A column of a section that was read.
///
/// # Errors
/// `Damage` when it is not there or of another type.
pub fn column<'a, A: Array + 'static>(rows: &'a RecordBatch, name: &str) -> Result<&'a A> {
    let column = rows.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    column.ok_or_else(|| Error::damage(format!("saved state has no good column {name}")))
}

/// A table of keys with what is kept for each: the key's columns, columns of the operator, and those of the accumulators.
#[derive(Debug, Clone)]
pub struct Keyed {
    codec: KeyCodec,
    schema: SchemaRef,
    /// Columns of the key, and those of the operator.
    widths: (usize, usize),
    /// Columns of each accumulator.
    states: Vec<usize>,
}

/// What a keyed table holds.
pub struct KeyedRows<'a> {
    /// By row.
    pub keys: KeyRows,
    /// Columns of the operator.
    pub own: &'a [ArrayRef],
    /// Columns of each accumulator.
    pub states: Vec<&'a [ArrayRef]>,
}

impl Keyed {
    /// A table with these columns. `aggregates` are named as their results are.
    pub fn new(
        codec: &KeyCodec,
        keys: &[Field],
        own: &[Field],
        aggregates: &[(String, AggregateSpec)],
    ) -> Result<Keyed> {
        let mut fields: Vec<Field> = keys.iter().map(|field| field.clone().with_nullable(true)).collect();
        fields.extend_from_slice(own);
        let mut states = Vec::new();
        for (name, spec) in aggregates {
            let columns = build(spec)?.state_fields();
            states.push(columns.len());
            fields.extend(columns.into_iter().map(|field| {
                let name = format!("{name}.{}", field.name());
                field.with_name(name)
            }));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(Keyed { codec: codec.clone(), schema, widths: (keys.len(), own.len()), states })
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows from canonical keys, columns of the operator, and those of all accumulators.
    pub fn batch<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]> + Clone,
        own: Vec<ArrayRef>,
        states: Vec<ArrayRef>,
    ) -> Result<RecordBatch> {
        let mut columns = self.codec.decode(keys)?;
        columns.extend(own);
        columns.extend(states);
        batch(&self.schema, columns)
    }

    /// The parts of rows that were saved.
    ///
    /// # Errors
    /// `Conflict` when they are those of another table.
    pub fn read<'a>(&self, rows: &'a RecordBatch) -> Result<KeyedRows<'a>> {
        check_schema(&self.schema, rows.schema_ref())?;
        let (keys, rest) = rows.columns().split_at(self.widths.0);
        let (own, mut rest) = rest.split_at(self.widths.1);
        let mut states = Vec::with_capacity(self.states.len());
        for width in &self.states {
            let (state, behind) = rest.split_at(*width);
            states.push(state);
            rest = behind;
        }
        Ok(KeyedRows { keys: self.codec.encode(keys), own, states })
    }
}

/// Checks that columns that were saved are those that are wanted, laid out by the same version.
///
/// # Errors
/// `Conflict` when they are others.
pub fn check_schema(wanted: &SchemaRef, found: &SchemaRef) -> Result<()> {
    if wanted.fields() == found.fields() {
        return Ok(());
    }
    let list = |schema: &SchemaRef| {
        let fields = schema.fields().iter().map(|field| {
            let layout = field.metadata().get(super::accumulator::LAYOUT);
            let layout = layout.map_or_else(String::new, |layout| format!(" [{layout}]"));
            format!("{} {}{layout}", field.name(), field.data_type())
        });
        fields.collect::<Vec<_>>().join(", ")
    };
    let message = format!("saved state has the columns {}, not {}", list(found), list(wanted));
    Err(Error::new(ErrorKind::Conflict, message)
        .with_hint("it was written by another job or another version of Kappa: compute it again from the log"))
}
