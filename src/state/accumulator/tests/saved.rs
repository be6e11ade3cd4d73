//! What is saved and loaded again goes on as if nothing had been, bit for bit; what is not state is refused.

use super::*;
use crate::state::user::{Aggregate, UserAggregate};
use arrow::array::{UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::Field;

const SLOTS: u32 = 3;

/// What can happen to an accumulator.
#[derive(Debug, Clone)]
enum Step {
    /// Rows go in, each into the slot of its number modulo the slots.
    Update(std::ops::Range<usize>),
    /// Another accumulator over rows is merged, slot `i` into slot `SLOTS - 1 - i`.
    Merge(std::ops::Range<usize>),
    Fold(u32, u32),
    Reset(u32),
    /// Saved, and loaded into a fresh one.
    Move,
}

const ROWS: usize = 24;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0..ROWS, 0..ROWS).prop_map(|(a, b)| a.min(b)..a.max(b));
    let step = prop_oneof![
        3 => range().prop_map(Step::Update),
        1 => range().prop_map(Step::Merge),
        1 => (0..SLOTS, 0..SLOTS).prop_map(|(a, b)| Step::Fold(a, b)),
        1 => (0..SLOTS).prop_map(Step::Reset),
        3 => Just(Step::Move),
    ];
    prop::collection::vec(step, 1..12)
}

/// Columns of the types that occur, with values that are easily lost: NULL, -0.0, NaN, extremes, empty texts.
fn columns() -> Vec<ArrayRef> {
    let numbers: Vec<Option<i64>> = (0..ROWS as i64).map(|n| (n % 5 != 3).then_some((n * 7 - 40) % 11)).collect();
    let doubles = numbers.iter().enumerate().map(|(row, n)| match row {
        2 => Some(-0.0),
        9 => Some(f64::NAN),
        11 => Some(f64::from_bits(0xFFF8_0000_0000_0001)),
        17 => Some(1e300),
        _ => n.map(|n| n as f64 / 3.0),
    });
    let narrow = |n: &Option<i64>| n.map(|n| i32::try_from(n).expect("small"));
    let texts = numbers.iter().map(|n| n.map(|n| "xyz".repeat(usize::try_from(n.abs()).expect("small") % 3)));
    let texts: Vec<Option<String>> = texts.collect();
    let times: TimestampMillisecondArray = numbers.iter().copied().collect();
    vec![
        Arc::new(Int64Array::from_iter(numbers.iter().map(|n| n.map(|n| n * (i64::MAX / 11))))),
        Arc::new(numbers.iter().map(narrow).collect::<Int32Array>()),
        Arc::new(doubles.clone().collect::<Float64Array>()),
        Arc::new(doubles.map(|d| d.map(|d| d as f32)).collect::<Float32Array>()),
        decimal(numbers.iter().map(|n| n.map(|n| i128::from(n) * 10i128.pow(36))).collect(), 7),
        Arc::new(texts.iter().map(Option::as_deref).collect::<StringArray>()),
        Arc::new(texts.iter().map(|t| t.as_deref().map(str::as_bytes)).collect::<BinaryArray>()),
        Arc::new(numbers.iter().map(|n| n.map(|n| n > 0)).collect::<BooleanArray>()),
        Arc::new(numbers.iter().map(narrow).collect::<Date32Array>()),
        Arc::new(times.with_timezone("UTC")),
    ]
}

/// A user's aggregate whose state grows, and in which the order of values and of merges shows.
struct Chain;

impl Aggregate for Chain {
    type Input = Option<String>;
    type State = (u64, Vec<Option<String>>);
    type Output = Option<String>;

    fn accumulate(&self, (count, texts): &mut Self::State, value: Option<&str>) {
        *count += 1;
        texts.push(value.map(str::to_owned));
    }

    fn merge(&self, (count, texts): &mut Self::State, (more, later): &Self::State) {
        *count = *count * 10 + more;
        texts.extend_from_slice(later);
    }

    fn finish(&self, (count, texts): &Self::State) -> Option<String> {
        (*count > 0).then(|| format!("{count} {texts:?}"))
    }
}

fn chain() -> AggregateFunction {
    AggregateFunction::User(UserAggregate::new("CHAIN", "1", Chain))
}

#[test]
fn states_of_users_that_cannot_be_read_are_refused() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let mut accumulator = fresh(&spec(chain(), false, &texts));
    add(&mut *accumulator, &texts, &[0, 0], 0..2);
    let good = accumulator.save(&[0]).expect("saved")[0].as_binary::<i32>().value(0).to_vec();
    let mut load = |bytes: &[u8]| {
        let column: ArrayRef = Arc::new(BinaryArray::from(vec![bytes]));
        accumulator.load(&[1], &[column]).map_err(|error| error.message().to_owned())
    };
    assert_eq!(load(&good), Ok(()));
    for cut in 0..good.len() {
        assert!(load(&good[..cut]).is_err(), "cut at {cut}");
    }
    assert!(load(&[&good[..], &[0]].concat()).expect_err("refused").contains("goes on behind its end"));
    assert!(load(&[0, 253, 255, 255, 255, 255, 255, 255, 255, 127]).is_err(), "a length that no state has");
}

/// Every aggregate over every column, with and without DISTINCT, where it is defined.
fn cases() -> Vec<(AggregateSpec, ArrayRef)> {
    let mut cases = Vec::new();
    for values in columns() {
        for function in all().into_iter().chain([chain()]) {
            for distinct in [false, true] {
                let spec = spec(function.clone(), distinct, &values);
                if build(&spec).is_ok() {
                    cases.push((spec, values.clone()));
                }
            }
        }
    }
    cases
}

fn fresh(spec: &AggregateSpec) -> Box<dyn Accumulator> {
    let mut accumulator = build(spec).expect("defined");
    accumulator.grow(SLOTS as usize);
    accumulator
}

fn slots_of_rows() -> Vec<u32> {
    (0u32..).map(|row| row % SLOTS).take(ROWS).collect()
}

/// All of it, in an order of slots that is not the one in memory.
fn saved(accumulator: &dyn Accumulator) -> Vec<ArrayRef> {
    accumulator.save(&[2, 0, 1]).expect("saved")
}

fn apply(spec: &AggregateSpec, values: &ArrayRef, accumulator: &mut Box<dyn Accumulator>, step: &Step, moves: bool) {
    match step {
        Step::Update(rows) => add(&mut **accumulator, values, &slots_of_rows(), rows.clone()),
        Step::Merge(rows) => {
            let mut other = fresh(spec);
            add(&mut *other, values, &slots_of_rows(), rows.clone());
            accumulator.merge(&*other, &[0, 1, 2], &[2, 1, 0]);
        }
        Step::Fold(from, into) if from == into => {}
        Step::Fold(from, into) => accumulator.fold(*from, *into),
        Step::Reset(slot) => accumulator.reset(*slot),
        Step::Move if moves => {
            let mut loaded = fresh(spec);
            // Slots that held something before hold nothing of it afterwards.
            add(&mut *loaded, values, &slots_of_rows(), 0..ROWS);
            loaded.load(&[2, 0, 1], &saved(&**accumulator)).expect("loaded");
            *accumulator = loaded;
        }
        Step::Move => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn moving_state_changes_nothing(steps in steps()) {
        for (spec, values) in cases() {
            let (mut stays, mut moves) = (fresh(&spec), fresh(&spec));
            for step in &steps {
                apply(&spec, &values, &mut stays, step, false);
                apply(&spec, &values, &mut moves, step, true);
            }
            // Arrow compares floats by their bits.
            prop_assert_eq!(saved(&*stays), saved(&*moves), "{:?}", spec);
            let results = |a: &dyn Accumulator| a.results(&[0, 1, 2]).expect("results");
            prop_assert_eq!(&results(&*stays), &results(&*moves), "{:?}", spec);
        }
    }
}

#[test]
fn saved_columns_are_those_that_the_fields_say() {
    for (spec, values) in cases() {
        let mut accumulator = fresh(&spec);
        add(&mut *accumulator, &values, &slots_of_rows(), 0..ROWS);
        let (fields, columns) = (accumulator.state_fields(), saved(&*accumulator));
        assert_eq!(fields.len(), columns.len(), "{spec:?}");
        for (field, column) in fields.iter().zip(&columns) {
            assert_eq!(field.data_type(), column.data_type(), "{spec:?} {}", field.name());
            assert!(field.is_nullable() || column.null_count() == 0, "{spec:?} {}", field.name());
            assert!(field.metadata().contains_key(LAYOUT), "{spec:?} {}", field.name());
        }
        assert!(check_layout(&fields, &build(&spec).expect("defined").state_fields()).is_ok());
    }
}

#[test]
fn what_cannot_be_state_is_refused() {
    for (spec, values) in cases() {
        let mut accumulator = fresh(&spec);
        add(&mut *accumulator, &values, &slots_of_rows(), 0..ROWS);
        let good = saved(&*accumulator);
        let mut refuse = |slots: &[u32], columns: &[ArrayRef], what: &str| {
            assert!(accumulator.load(slots, columns).is_err(), "{what}: {spec:?}");
        };
        refuse(&[0, 1], &good, "a row too many");
        refuse(&[0, 1, SLOTS], &good, "a slot that is not there");
        refuse(&[0, 1, 2], &good[1..], "a column is missing");
        for place in 0..good.len() {
            let mut wrong = good.clone();
            wrong[place] = new_null_array(&DataType::Null, 3);
            refuse(&[0, 1, 2], &wrong, "another type");
        }
    }
}

#[test]
fn values_that_no_aggregate_holds_are_refused() {
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let counts = |count: i64| Arc::new(Int64Array::from(vec![count])) as ArrayRef;
    let load = |function: AggregateFunction, distinct: bool, values: &ArrayRef, columns: &[ArrayRef]| {
        fresh(&spec(function, distinct, values)).load(&[0], columns).expect_err("refused").message().to_owned()
    };
    for count in [-1, i64::MAX] {
        assert!(load(Count, false, &ints, &[counts(count)]).contains("has counted"));
        assert!(load(Avg, false, &ints, &[counts(0), counts(count)]).contains("has counted"));
    }
    let position: ArrayRef = Arc::new(arrow::array::UInt64Array::from(vec![Some(3)]));
    let missing: ArrayRef = Arc::new(Int32Array::from(vec![None]));
    assert!(load(FirstValue, false, &ints, &[position, missing]).contains("without"));
    let two = |values: Vec<Option<i32>>| {
        let values: ArrayRef = Arc::new(Int32Array::from(values));
        let item = Field::new_list_field(DataType::Int32, false);
        let nullable = Field::new_list_field(DataType::Int32, true);
        let item = if values.null_count() > 0 { nullable } else { item };
        stored::list(&item, [values.len()].into_iter(), values).expect("a list")
    };
    assert!(load(Count, true, &ints, &[two(vec![Some(1), Some(1)]), counts(2)]).contains("twice"));
    assert!(load(Count, true, &ints, &[two(vec![None]), counts(1)]).contains("is List"));
    let decimals = decimal(vec![Some(1)], 2);
    let sum: ArrayRef =
        Arc::new(Decimal128Array::from(vec![i128::MAX]).with_precision_and_scale(38, 2).expect("a type"));
    let overflow: ArrayRef = Arc::new(BooleanArray::from(vec![false]));
    assert!(load(Sum, false, &decimals, &[sum, counts(1), overflow]).contains("38 digits"));
}

#[test]
fn layouts_of_other_aggregates_and_versions_are_refused() {
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let fields = |function| fresh(&spec(function, false, &ints)).state_fields();
    let error = check_layout(&fields(Sum), &fields(FirstValue)).expect_err("refused");
    assert!(error.message().contains("position UInt64 [by position 1]"), "{error}");
    let newer: Vec<Field> = fields(Sum)
        .into_iter()
        .map(|field| field.with_metadata([(LAYOUT.to_owned(), "sum 2".to_owned())].into()))
        .collect();
    assert!(check_layout(&fields(Sum), &newer).is_err());
}

#[test]
fn a_part_of_what_was_saved_can_be_loaded() {
    for (spec, values) in cases() {
        let mut accumulator = fresh(&spec);
        add(&mut *accumulator, &values, &slots_of_rows(), 0..ROWS);
        let columns = accumulator.save(&[0, 1, 2]).expect("saved");
        let one: Vec<ArrayRef> =
            columns.iter().map(|column| take(column, &UInt32Array::from(vec![1]), None).expect("a row")).collect();
        let sliced: Vec<ArrayRef> = columns.iter().map(|column| column.slice(1, 1)).collect();
        for part in [one, sliced] {
            let mut loaded = fresh(&spec);
            loaded.load(&[2], &part).expect("loaded");
            let (a, b) = (loaded.results(&[2]).expect("a result"), accumulator.results(&[1]).expect("a result"));
            assert_eq!(&a, &b, "{spec:?}");
        }
    }
}
