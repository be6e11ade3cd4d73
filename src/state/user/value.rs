//! Rust types that stand for SQL types.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use std::fmt::Debug;
use std::sync::Arc;

/// A Rust type that stands for an SQL type: `bool` for BOOLEAN, `i32` for INT, `i64` for BIGINT, `f64` for DOUBLE, `String` for
/// STRING (given to functions as `&str`), and `Option` of these where a function wants to see, or to give, NULL.
///
/// A function that takes a type without `Option` is not called for NULL: its result is NULL then.
pub trait Value: Sized + 'static {
    /// What functions are given.
    type Get<'a>: Copy + Debug;
    /// True for `Option`.
    const NULLABLE: bool;
    /// The column type.
    fn data_type() -> DataType;
    /// The value of a row of a column of that type; `None` where the function cannot be called, since it is NULL.
    fn get(array: &ArrayRef, row: usize) -> Option<Self::Get<'_>>;
    /// A column of results; `None` is NULL.
    fn column(values: Vec<Option<Self>>) -> ArrayRef;
}

macro_rules! primitive {
    ($($native:ty: $arrow:ident),*) => {$(
        impl Value for $native {
            type Get<'a> = $native;
            const NULLABLE: bool = false;

            fn data_type() -> DataType {
                $arrow::DATA_TYPE
            }

            fn get(array: &ArrayRef, row: usize) -> Option<$native> {
                array.is_valid(row).then(|| array.as_primitive::<$arrow>().value(row))
            }

            fn column(values: Vec<Option<$native>>) -> ArrayRef {
                Arc::new(PrimitiveArray::<$arrow>::from(values))
            }
        }
    )*};
}
primitive!(i32: Int32Type, i64: Int64Type, f64: Float64Type);

impl Value for bool {
    type Get<'a> = bool;
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::Boolean
    }

    fn get(array: &ArrayRef, row: usize) -> Option<bool> {
        array.is_valid(row).then(|| array.as_boolean().value(row))
    }

    fn column(values: Vec<Option<bool>>) -> ArrayRef {
        Arc::new(BooleanArray::from(values))
    }
}

impl Value for String {
    type Get<'a> = &'a str;
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn get(array: &ArrayRef, row: usize) -> Option<&str> {
        array.is_valid(row).then(|| array.as_string::<i32>().value(row))
    }

    fn column(values: Vec<Option<String>>) -> ArrayRef {
        Arc::new(StringArray::from(values))
    }
}

impl<T: Value> Value for Option<T> {
    type Get<'a> = Option<T::Get<'a>>;
    const NULLABLE: bool = true;

    fn data_type() -> DataType {
        T::data_type()
    }

    fn get(array: &ArrayRef, row: usize) -> Option<Option<T::Get<'_>>> {
        Some(T::get(array, row))
    }

    fn column(values: Vec<Option<Option<T>>>) -> ArrayRef {
        T::column(values.into_iter().map(Option::flatten).collect())
    }
}
