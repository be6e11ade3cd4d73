//! The slots of a user's aggregate.

use super::{Aggregate, Probe, UserAggregate, Value};
use crate::error::{Error, Result};
use crate::state::accumulator::{Accumulator, Update, stored};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::datatypes::{DataType, Field};
use std::any::Any;
use std::sync::Arc;

/// Most bytes of one state that are read.
const STATE_MAX: usize = 1 << 30;

fn encoding() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<STATE_MAX>,
> {
    bincode::config::standard().with_limit::<STATE_MAX>()
}

/// A state for each slot that a value, or a merged state, has come to.
pub(super) struct UserAccumulator<A: Aggregate> {
    aggregate: Arc<A>,
    name: Arc<str>,
    version: Arc<str>,
    probe: Arc<Probe>,
    states: Vec<Option<Box<A::State>>>,
    /// How many of them there are.
    made: usize,
}

fn bytes_of<A: Aggregate>(state: &A::State) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(state, encoding())
        .map_err(|cause| Error::internal("the state of a user's aggregate cannot be written").with_source(cause))
}

impl<A: Aggregate> UserAccumulator<A> {
    pub(super) fn new(aggregate: Arc<A>, called: &UserAggregate) -> Self {
        let (name, version) = (Arc::clone(&called.name), Arc::clone(&called.version));
        UserAccumulator { aggregate, name, version, probe: Arc::clone(&called.probe), states: Vec::new(), made: 0 }
    }

    /// Does `work` to a slot's state; when asked to check, to a copy of it as well.
    fn change(&mut self, slot: usize, what: impl Fn() -> String, work: impl Fn(&A, &mut A::State)) {
        self.made += usize::from(self.states[slot].is_none());
        let state = self.states[slot].get_or_insert_default();
        let copy = self.probe.checks().then(|| state.clone());
        work(&self.aggregate, state);
        if let Some(mut copy) = copy {
            work(&self.aggregate, &mut copy);
            if bytes_of::<A>(state).ok() != bytes_of::<A>(&copy).ok() {
                self.probe.found(|| format!("{} led from one state to two", what()));
            }
        }
    }

    fn absorb(&mut self, slot: usize, later: &A::State) {
        self.change(slot, || "merging".to_owned(), |aggregate, state| aggregate.merge(state, later));
    }

    fn finish(&self, slot: u32) -> A::Output {
        match &self.states[slot as usize] {
            Some(state) => self.aggregate.finish(state),
            None => self.aggregate.finish(&A::State::default()),
        }
    }
}

// Derived, it would ask A to be Clone.
impl<A: Aggregate> Accumulator for UserAccumulator<A> {
    fn grow(&mut self, slots: usize) {
        self.states.resize_with(slots.max(self.states.len()), || None);
    }

    fn reset(&mut self, slot: u32) {
        self.made -= usize::from(self.states[slot as usize].take().is_some());
    }

    fn update(&mut self, update: &Update<'_>) {
        let Some(values) = update.values else { return };
        for (slot, row) in update.slots.iter().zip(update.rows) {
            if let Some(value) = A::Input::get(values, *row as usize) {
                let what = || format!("the value {value:?}");
                self.change(*slot as usize, what, |aggregate, state| aggregate.accumulate(state, value));
            }
        }
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let other: &Self = other.as_any().downcast_ref().expect("merged accumulators are made from one spec");
        for (from, slot) in from.iter().zip(into) {
            if let Some(state) = &other.states[*from as usize] {
                self.absorb(*slot as usize, state);
            }
        }
    }

    // Nobody knows what its merging does.
    fn merges_exactly(&self) -> bool {
        false
    }

    fn fold(&mut self, from: u32, into: u32) {
        if from != into
            && let Some(later) = self.states[from as usize].clone()
        {
            self.absorb(into as usize, &later);
        }
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        let column = || A::Output::column(slots.iter().map(|slot| Some(self.finish(*slot))).collect());
        let results = column();
        if self.probe.checks() {
            let again = column();
            if let Some(at) = (0..slots.len()).find(|at| results.slice(*at, 1) != again.slice(*at, 1)) {
                self.probe
                    .found(|| format!("one state gave {:?}, then {:?}", results.slice(at, 1), again.slice(at, 1)));
            }
        }
        Ok(results)
    }

    fn state_fields(&self) -> Vec<Field> {
        let layout = format!("user {} version {}", self.name, self.version);
        stored::layout(&layout, 1, vec![Field::new("state", DataType::Binary, true)])
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let states = slots.iter().map(|slot| self.states[*slot as usize].as_deref().map(bytes_of::<A>).transpose());
        let states = states.collect::<Result<Vec<_>>>()?;
        stored::check_size(states.iter().flatten().map(Vec::len).sum(), "states of a user's aggregate")?;
        Ok(vec![Arc::new(states.iter().map(Option::as_deref).collect::<BinaryArray>())])
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.states.len(), state)?;
        slots.iter().for_each(|slot| self.reset(*slot));
        for (bytes, slot) in state[0].as_binary::<i32>().iter().zip(slots) {
            let read = |bytes: &[u8]| match bincode::serde::decode_from_slice::<A::State, _>(bytes, encoding()) {
                Ok((state, used)) if used == bytes.len() => Ok(Box::new(state)),
                Ok(_) => Err(Error::damage(format!("the saved state of {} goes on behind its end", self.name))),
                Err(cause) => Err(Error::damage(format!("the saved state of {}: {cause}", self.name))),
            };
            self.states[*slot as usize] = bytes.map(read).transpose()?;
            self.made += usize::from(self.states[*slot as usize].is_some());
        }
        Ok(())
    }

    fn byte_len(&self) -> usize {
        // What a state holds beside itself is not known.
        self.states.capacity() * size_of::<usize>() + self.made * (size_of::<A::State>() + size_of::<usize>())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
