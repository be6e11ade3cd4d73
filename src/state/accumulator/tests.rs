//! Result types, NULLs, overflow, and merging: adding rows at once, in two slices, or in two slots makes no difference where
//! the answer does not depend on it.

mod saved;

use super::*;
use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use proptest::prelude::*;
use std::sync::Arc;

fn spec(function: AggregateFunction, distinct: bool, values: &ArrayRef) -> AggregateSpec {
    let argument = values.data_type().clone();
    let result = match (&function, &argument) {
        (AggregateFunction::Count | AggregateFunction::ApproxCountDistinct, _) => DataType::Int64,
        (AggregateFunction::ArrayAgg { .. }, item) => DataType::new_list(item.clone(), true),
        (Percentile { array: true, .. } | ApproxPercentile { array: true, .. }, _) => {
            DataType::new_list(DataType::Float64, true)
        }
        (Percentile { .. } | ApproxPercentile { .. }, _) => DataType::Float64,
        (AggregateFunction::User(user), _) => user.result.clone(),
        (AggregateFunction::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, *scale),
        (AggregateFunction::Avg, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, (*scale).max(6)),
        _ => argument.clone(),
    };
    AggregateSpec { function, distinct, argument: Some(argument), result }
}

/// One slot over all values, in row order.
fn one(function: AggregateFunction, distinct: bool, values: &ArrayRef) -> ArrayRef {
    let mut accumulator = build(&spec(function, distinct, values)).expect("defined");
    accumulator.grow(1);
    add(&mut *accumulator, values, &vec![0; values.len()], 0..values.len());
    accumulator.results(&[0]).expect("a result")
}

fn add(accumulator: &mut dyn Accumulator, values: &ArrayRef, slots: &[u32], rows: std::ops::Range<usize>) {
    let positions: Vec<u64> = (0..values.len() as u64).collect();
    let rows: Vec<u32> = rows.map(|row| u32::try_from(row).expect("small")).collect();
    let slots: Vec<u32> = rows.iter().map(|row| slots[*row as usize]).collect();
    accumulator.update(&Update { slots: &slots, rows: &rows, values: Some(values), positions: &positions });
}

fn show(array: &ArrayRef) -> String {
    arrow::util::display::array_value_to_string(array, 0).expect("printable")
}

fn check(function: AggregateFunction, values: &ArrayRef, expected: &str) {
    let result = one(function.clone(), false, values);
    assert_eq!(result.data_type(), &spec(function.clone(), false, values).result);
    assert_eq!(show(&result), expected, "{function:?} of {values:?}");
}

fn decimal(values: Vec<Option<i128>>, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values).with_precision_and_scale(38, scale).expect("valid"))
}

use AggregateFunction::{
    ApproxCountDistinct, ApproxPercentile, ArrayAgg, Avg, Count, FirstValue, LastValue, ListAgg, Max, Min, Percentile,
    Sum,
};

/// Every aggregate.
fn all() -> Vec<AggregateFunction> {
    let mut all = vec![Count, Sum, Min, Max, Avg, FirstValue, LastValue, ApproxCountDistinct];
    all.extend([true, false].map(|keep_nulls| ArrayAgg { keep_nulls }));
    all.extend(["", ", "].map(|separator| ListAgg { separator: separator.into() }));
    for (parts, array) in [(&[0.5][..], false), (&[0.0, 0.9, 1.0], true)] {
        let fractions = fractions(parts);
        all.push(Percentile { fractions: Arc::clone(&fractions), array });
        all.push(ApproxPercentile { fractions, array });
    }
    all
}

fn fractions(parts: &[f64]) -> Arc<[Fraction]> {
    parts.iter().map(|part| Fraction::new(*part).expect("from 0 to 1")).collect()
}

#[test]
fn integers_wrap_and_divide_toward_zero_as_in_java() {
    let bytes: ArrayRef = Arc::new(Int8Array::from(vec![Some(100), None, Some(100)]));
    check(Sum, &bytes, "-56");
    check(Avg, &bytes, "100");
    check(Count, &bytes, "2");
    let shorts: ArrayRef = Arc::new(Int16Array::from(vec![-1, -2, 0, -2]));
    check(Avg, &shorts, "-1");
    check(Min, &shorts, "-2");
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![i32::MAX, 1]));
    check(Sum, &ints, "-2147483648");
    check(Avg, &ints, "1073741824");
    let longs: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, i64::MAX]));
    check(Sum, &longs, "-2");
    check(Avg, &longs, "-1");
}

#[test]
fn floats() {
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![16_777_216.0, 1.0, 1.0]));
    assert_eq!(one(Sum, false, &floats).as_primitive::<Float32Type>().value(0), 16_777_216.0, "folded as FLOAT");
    assert_eq!(one(Avg, false, &floats).as_primitive::<Float32Type>().value(0), 5_592_406.0, "folded as DOUBLE");
    let doubles: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1), None, Some(0.2), Some(0.3)]));
    assert_eq!(one(Sum, false, &doubles).as_primitive::<Float64Type>().value(0), 0.1 + 0.2 + 0.3);
    let odd: ArrayRef = Arc::new(Float64Array::from(vec![0.0, f64::NAN, -0.0, 1.0]));
    assert!(one(Max, false, &odd).as_primitive::<Float64Type>().value(0).is_nan());
    assert!(one(Min, false, &odd).as_primitive::<Float64Type>().value(0).is_sign_negative());
}

#[test]
fn decimals_round_half_up_and_overflow_to_null() {
    check(Sum, &decimal(vec![Some(150), None, Some(-25)], 2), "1.25");
    check(Avg, &decimal(vec![Some(1), Some(1), Some(2)], 0), "1.333333");
    check(Avg, &decimal(vec![Some(-1), Some(0)], 6), "-0.000001");
    check(Avg, &decimal(vec![Some(1), Some(0)], 7), "0.0000001");
    let most = 10i128.pow(38) - 1;
    check(Sum, &decimal(vec![Some(most)], 0), &most.to_string());
    check(Sum, &decimal(vec![Some(most), Some(1), Some(-1)], 0), "");
    check(Avg, &decimal(vec![Some(most)], 0), "");
    check(Avg, &decimal(vec![Some(most), Some(-most)], 6), "0.000000");
}

#[test]
fn every_type_keeps_its_order() {
    let arrays: Vec<(ArrayRef, [&str; 4])> = vec![
        (Arc::new(StringArray::from(vec!["b", "a", "ä", "b"])), ["a", "ä", "b", "b"]),
        (Arc::new(BinaryArray::from(vec![&b"\x02"[..], b"\xff", b""])), ["", "ff", "02", ""]),
        (Arc::new(BooleanArray::from(vec![true, false])), ["false", "true", "true", "false"]),
        (Arc::new(Date32Array::from(vec![0, -1])), ["1969-12-31", "1970-01-01", "1970-01-01", "1969-12-31"]),
        (decimal(vec![Some(5), Some(-5)], 1), ["-0.5", "0.5", "0.5", "-0.5"]),
    ];
    for (values, expected) in arrays {
        for (function, expected) in [Min, Max, FirstValue, LastValue].into_iter().zip(expected) {
            check(function, &values, expected);
        }
    }
    let zoned: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![3, -3]).with_timezone("UTC"));
    check(Min, &zoned, "1969-12-31T23:59:59.997Z");
}

#[test]
fn nothing_is_null_and_counts_zero() {
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
    let decimals = decimal(vec![None], 2);
    for function in all().into_iter().filter(|function| *function != (ArrayAgg { keep_nulls: true })) {
        for values in [&nulls, &texts, &decimals] {
            if let Ok(mut accumulator) = build(&spec(function.clone(), false, values)) {
                accumulator.grow(1);
                add(&mut *accumulator, values, &[0, 0], 0..values.len());
                let result = accumulator.results(&[0]).expect("a result");
                assert_eq!(result.is_null(0), function.is_nullable(), "{function:?}");
            }
        }
    }
    check(Count, &nulls, "0");
}

#[test]
fn count_star_counts_rows() {
    let spec = AggregateSpec { function: Count, distinct: false, argument: None, result: DataType::Int64 };
    let mut accumulator = build(&spec).expect("defined");
    accumulator.grow(2);
    let update = Update { slots: &[0, 1, 0], rows: &[0, 1, 2], values: None, positions: &[0, 1, 2] };
    accumulator.update(&update);
    assert_eq!(accumulator.results(&[1, 0]).expect("counts").as_primitive::<Int64Type>().values().to_vec(), [1, 2]);
}

#[test]
fn distinct_takes_each_value_once() {
    let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(3), Some(3), None, Some(5), Some(3)]));
    assert_eq!(show(&one(Count, true, &values)), "2");
    assert_eq!(show(&one(Sum, true, &values)), "8");
    assert_eq!(show(&one(Avg, true, &values)), "4");
    assert_eq!(show(&one(Max, true, &values)), "5");
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("a")]));
    assert_eq!(show(&one(Count, true, &texts)), "2");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    for values in [&texts, &flags] {
        assert!(build(&spec(Sum, false, values)).is_err());
        assert!(build(&spec(Avg, false, values)).is_err());
    }
    let list = DataType::new_list(DataType::Int32, true);
    let count = AggregateSpec { function: Count, distinct: true, argument: Some(list), result: DataType::Int64 };
    assert!(build(&count).is_err());
}

#[test]
fn arrays_and_texts_keep_the_order_of_arrival() {
    let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(3), None, Some(1), Some(3), None]));
    check(ArrayAgg { keep_nulls: true }, &values, "[3, , 1, 3, ]");
    check(ArrayAgg { keep_nulls: false }, &values, "[3, 1, 3]");
    assert_eq!(show(&one(ArrayAgg { keep_nulls: true }, true, &values)), "[3, , 1]");
    assert_eq!(show(&one(ArrayAgg { keep_nulls: false }, true, &values)), "[3, 1]");
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some("b"), None, Some("a"), Some("b"), Some("")]));
    check(ListAgg { separator: "-".into() }, &texts, "-b-a-b-");
    assert_eq!(show(&one(ListAgg { separator: "-".into() }, true, &texts)), "-b-a");
    check(ArrayAgg { keep_nulls: true }, &texts, "[, b, , a, b, ]");
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
    check(ArrayAgg { keep_nulls: true }, &nulls, "[, ]");
}

#[test]
fn percentiles() {
    let doubles = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let values = doubles(vec![Some(4.0), Some(1.0), None, Some(3.0), Some(10.0)]);
    let exact = |part: f64| Percentile { fractions: fractions(&[part]), array: false };
    for (part, expected) in [(0.0, "1.0"), (0.5, "3.5"), (0.25, "2.5"), (1.0, "10.0")] {
        check(exact(part), &values, expected);
    }
    check(Percentile { fractions: fractions(&[1.0, 0.5]), array: true }, &values, "[10.0, 3.5]");
    let odd = doubles(vec![Some(f64::NAN), Some(f64::INFINITY), Some(0.0), Some(-0.0)]);
    check(exact(0.0), &odd, "-0.0");
    check(exact(1.0), &odd, "NaN");
    let many = doubles((0..10_000).map(|n| Some(f64::from(n).powi(3) - 1e9)).collect());
    for part in [0.0, 0.01, 0.1, 0.5, 0.9, 0.999, 1.0] {
        let near = ApproxPercentile { fractions: fractions(&[part]), array: false };
        let got = one(near, false, &many).as_primitive::<Float64Type>().value(0);
        let at = ((10_000.0 * part).ceil() - 1.0).max(0.0);
        let right = at.powi(3) - 1e9;
        assert!((got - right).abs() <= right.abs() / 128.0, "{got} for {right}");
    }
}

#[test]
fn approximate_counts_see_values_not_rows() {
    let values: ArrayRef = Arc::new((0..40_000).map(|n| (n % 7 != 0).then_some(n % 4_000)).collect::<Int64Array>());
    let count = one(ApproxCountDistinct, false, &values).as_primitive::<Int64Type>().value(0);
    assert!((3_850..4_150).contains(&count), "{count}");
    assert_eq!(&one(ApproxCountDistinct, true, &values), &one(ApproxCountDistinct, false, &values));
}

fn arrays() -> impl Strategy<Value = ArrayRef> {
    let numbers = prop::collection::vec(prop::option::of(-4i64..5), 1..24);
    (numbers, 0usize..6).prop_map(|(numbers, kind)| -> ArrayRef {
        let small = || numbers.iter().map(|n| n.map(|n| i32::try_from(n).expect("small")));
        match kind {
            0 => Arc::new(Int64Array::from(numbers.clone())),
            1 => Arc::new(small().collect::<Int32Array>()),
            2 => Arc::new(small().map(|n| n.map(f64::from)).collect::<Float64Array>()),
            3 => decimal(numbers.iter().map(|n| n.map(i128::from)).collect(), 2),
            4 => Arc::new(numbers.iter().map(|n| n.map(|n| n.to_string())).collect::<StringArray>()),
            _ => Arc::new(numbers.iter().map(|n| n.map(|n| n > 0)).collect::<BooleanArray>()),
        }
    })
}

proptest! {
    /// Small whole numbers: also floats add up exactly, so every way of adding must give the same.
    #[test]
    fn slices_and_slots_add_up(values in arrays(), function in prop::sample::select(all()),
                               distinct in any::<bool>(), cut in 0usize..24) {
        let spec = spec(function.clone(), distinct, &values);
        prop_assume!(build(&spec).is_ok());
        let expected = one(function, distinct, &values);
        let cut = cut.min(values.len());
        let all = vec![1; values.len()];

        let (mut early, mut late) = (build(&spec).expect("defined"), build(&spec).expect("defined"));
        early.grow(2);
        late.grow(2);
        add(&mut *early, &values, &all, 0..cut);
        add(&mut *late, &values, &all, cut..values.len());
        early.merge(&*late, &[0, 1], &[0, 1]);
        prop_assert_eq!(&early.results(&[1]).expect("a result"), &expected);

        let mut both = build(&spec).expect("defined");
        both.grow(3);
        add(&mut *both, &values, &all, 0..cut);
        add(&mut *both, &values, &vec![2; values.len()], cut..values.len());
        both.fold(2, 1);
        both.reset(2);
        prop_assert_eq!(&both.results(&[1]).expect("a result"), &expected);
        let empty = both.results(&[2]).expect("a result");
        prop_assert!(empty.is_null(0) || show(&empty) == "0");
    }
}
