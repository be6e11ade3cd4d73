//! The events of the Nexmark benchmark: people, their auctions, and bids, from the crate `nexmark`, as rows of its Flink table.

use super::{Made, Maker, push_number, push_time};
use ::nexmark::EventGenerator;
use ::nexmark::config::NexmarkConfig;
use ::nexmark::event::{Auction, Bid, Event, Person};

/// What is asked of Nexmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NexmarkOptions {
    /// Another seed, another stretch of Nexmark's endless sequence; 0 is its begin. At most [`SEED_MAX`].
    pub seed: u64,
    /// Event time of the first event.
    pub start_ms: i64,
    /// Events in a second of event time.
    pub events_per_s: u32,
    /// Partitions of the topic; events go to them in turn.
    pub partitions: u32,
    /// Events are shuffled in groups of so many; 1 leaves their order. No multiple of [`SHUFFLE_PRIME`].
    pub group: u32,
}

impl Default for NexmarkOptions {
    fn default() -> Self {
        NexmarkOptions { seed: 0, start_ms: 1_767_225_600_000, events_per_s: 10_000, partitions: 1, group: 1 }
    }
}

/// Largest seed.
pub const SEED_MAX: u64 = (1 << 24) - 1;

/// Groups are shuffled by this factor, so a multiple of it would give some events twice and others never.
pub const SHUFFLE_PRIME: u32 = 953;

/// Events between the stretches of two seeds: no run is that long, and kinds of events take turns in 50.
const STRETCH: u64 = 50 << 20;

/// Nexmark's events one after the other.
#[derive(Debug, Clone)]
pub struct NexmarkEvents {
    options: NexmarkOptions,
    generator: EventGenerator,
    number: u64,
}

impl NexmarkEvents {
    /// From the first event on. The options are within what they say.
    pub fn new(options: NexmarkOptions) -> NexmarkEvents {
        assert!(
            options.seed <= SEED_MAX
                && options.events_per_s > 0
                && options.partitions > 0
                && options.group > 0
                && !options.group.is_multiple_of(SHUFFLE_PRIME),
            "checked by the caller"
        );
        let config = NexmarkConfig {
            base_time: 0,
            first_rate: options.events_per_s as usize,
            next_rate: options.events_per_s as usize,
            out_of_order_group_size: options.group as usize,
            first_event_id: (options.seed * STRETCH) as usize,
            ..NexmarkConfig::default()
        };
        NexmarkEvents { generator: EventGenerator::new(config), options, number: 0 }
    }

    /// The event's time, by its place before the shuffle. The crate reckons in 32-bit floats, which stand still for long after some
    /// million events.
    fn time_ms(&self) -> i64 {
        let group = u64::from(self.options.group);
        let shuffled = self.number.wrapping_mul(u64::from(SHUFFLE_PRIME)) % group;
        let place = self.number / group * group + shuffled;
        let ms = u128::from(place) * 1000 / u128::from(self.options.events_per_s);
        self.options.start_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))
    }
}

impl Maker for NexmarkEvents {
    fn make(&mut self, value: &mut Vec<u8>) -> Made {
        let time_ms = self.time_ms();
        let partition = (self.number % u64::from(self.options.partitions)) as u32;
        let event = self.generator.next();
        self.number += 1;
        let mut row = Row { out: value, time_ms };
        let key = match event {
            Some(Event::Person(person)) => row.person(&person),
            Some(Event::Auction(auction)) => row.auction(&auction),
            Some(Event::Bid(bid)) => row.bid(&bid),
            None => unreachable!("the sequence has no end"),
        };
        Made { partition, time_ms, key: key.to_string() }
    }
}

/// Writes one event under the names that Nexmark's Flink table has. Nexmark's texts hold nothing that JSON escapes.
struct Row<'a> {
    out: &'a mut Vec<u8>,
    time_ms: i64,
}

impl Row<'_> {
    fn person(&mut self, person: &Person) -> usize {
        self.out.extend_from_slice(b"{\"event_type\":0,\"person\":{\"id\":");
        push_number(self.out, person.id as u64);
        self.text("name", &person.name);
        self.text("emailAddress", &person.email_address);
        self.text("creditCard", &person.credit_card);
        self.text("city", &person.city);
        self.text("state", &person.state);
        self.end(&person.extra);
        person.id
    }

    fn auction(&mut self, auction: &Auction) -> usize {
        self.out.extend_from_slice(b"{\"event_type\":1,\"auction\":{\"id\":");
        push_number(self.out, auction.id as u64);
        self.text("itemName", &auction.item_name);
        self.text("description", &auction.description);
        self.number("initialBid", auction.initial_bid);
        self.number("reserve", auction.reserve);
        let open_ms = i64::try_from(auction.expires.saturating_sub(auction.date_time)).unwrap_or(i64::MAX);
        self.time("expires", self.time_ms.saturating_add(open_ms));
        self.number("seller", auction.seller);
        self.number("category", auction.category);
        self.end(&auction.extra);
        auction.id
    }

    fn bid(&mut self, bid: &Bid) -> usize {
        self.out.extend_from_slice(b"{\"event_type\":2,\"bid\":{\"auction\":");
        push_number(self.out, bid.auction as u64);
        self.number("bidder", bid.bidder);
        self.number("price", bid.price);
        self.text("channel", &bid.channel);
        self.text("url", &bid.url);
        self.end(&bid.extra);
        bid.auction
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn number(&mut self, name: &str, number: usize) {
        self.name(name);
        push_number(self.out, number as u64);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    fn time(&mut self, name: &str, ms: i64) {
        self.name(name);
        self.out.push(b'"');
        push_time(self.out, ms);
        self.out.push(b'"');
    }

    fn end(&mut self, extra: &str) {
        self.time("dateTime", self.time_ms);
        self.text("extra", extra);
        self.out.extend_from_slice(b"}}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::xxh64;
    use serde_json::Value;

    fn lines(options: NexmarkOptions, events: usize) -> Vec<String> {
        let mut maker = NexmarkEvents::new(options);
        (0..events)
            .map(|_| {
                let mut value = Vec::new();
                maker.make(&mut value);
                String::from_utf8(value).expect("UTF-8")
            })
            .collect()
    }

    const GOLDEN: u64 = 1_069_631_734_532_750_977;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let digest = |seed| {
            let options = NexmarkOptions { seed, group: 100, ..NexmarkOptions::default() };
            xxh64(lines(options, 5_000).concat().as_bytes(), 0)
        };
        assert_eq!(digest(3), GOLDEN);
        assert_ne!(digest(4), GOLDEN);
    }

    #[test]
    fn fifty_events_are_a_person_three_auctions_and_46_bids() {
        let mut counts = [0; 3];
        for line in lines(NexmarkOptions { seed: SEED_MAX, ..NexmarkOptions::default() }, 5_000) {
            let json: Value = serde_json::from_str(&line).expect("JSON");
            let kind = json["event_type"].as_u64().expect("a kind") as usize;
            counts[kind] += 1;
            let row = &json[["person", "auction", "bid"][kind]];
            assert_eq!(row.as_object().expect("a row").len(), [8, 10, 7][kind], "{line}");
            if kind == 1 {
                assert!(row["expires"].as_str() > row["dateTime"].as_str(), "{line}");
            }
        }
        assert_eq!(counts, [100, 300, 4_600]);
    }

    #[test]
    fn groups_are_shuffled_and_nothing_else() {
        let in_groups = |group| lines(NexmarkOptions { group, ..NexmarkOptions::default() }, 20_000);
        let ordered = in_groups(1);
        for group in [1_000, 10_000] {
            let mut shuffled = in_groups(group);
            assert_ne!(shuffled, ordered);
            let times = |lines: &[String]| lines.iter().filter(|line| line.contains("\"event_type\":2")).count();
            assert_eq!(times(&shuffled[..group as usize]), times(&ordered[..group as usize]));
            shuffled.sort();
            let mut sorted = ordered.clone();
            sorted.sort();
            assert_eq!(shuffled, sorted);
        }
    }

    #[test]
    fn time_goes_on_evenly() {
        let mut maker =
            NexmarkEvents::new(NexmarkOptions { events_per_s: 3, partitions: 2, ..NexmarkOptions::default() });
        let mut value = Vec::new();
        let made: Vec<Made> = (0..4).map(|_| maker.make(&mut value)).collect();
        let start = NexmarkOptions::default().start_ms;
        assert_eq!(made.iter().map(|m| m.time_ms - start).collect::<Vec<_>>(), [0, 333, 666, 1_000]);
        assert_eq!(made.iter().map(|m| m.partition).collect::<Vec<_>>(), [0, 1, 0, 1]);
    }
}
