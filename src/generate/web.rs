//! Visits of a web site: users come for a while and leave for longer, so their visits are sessions.

use super::{Draws, Made, Maker, push_number, push_time};

/// What visits are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct WebOptions {
    /// Another seed, other events.
    pub seed: u64,
    /// Event time of the first event, before disorder.
    pub start_ms: i64,
    /// Events in a second of event time.
    pub events_per_s: u32,
    /// Users there are.
    pub users: u32,
    /// Partitions of the topic.
    pub partitions: u32,
    /// The last so many of the partitions get records of the first minute only.
    pub silent: u32,
    /// Records lie behind the newest ones by up to this.
    pub disorder_ms: i64,
    /// Share of records that lie further behind than `disorder_ms`.
    pub late_share: f64,
    /// By up to so much more.
    pub late_by_ms: i64,
    /// Share of records with a timestamp a century ahead.
    pub future_share: f64,
}

impl Default for WebOptions {
    fn default() -> Self {
        WebOptions {
            seed: 0,
            start_ms: 1_767_225_600_000,
            events_per_s: 100,
            users: 10_000,
            partitions: 1,
            silent: 0,
            disorder_ms: 0,
            late_share: 0.0,
            late_by_ms: 600_000,
            future_share: 0.0,
        }
    }
}

/// A user comes once in this time ...
const ROUND_MS: i64 = 45 * 60_000;

/// ... and stays so long. The pause in between is longer than the usual gap of sessions, 30 minutes.
const STAY_MS: i64 = 10 * 60_000;

/// How long partitions that fall silent get records.
const BEFORE_SILENCE_MS: i64 = 60_000;

const CENTURY_MS: i64 = 36_525 * 86_400_000;

const HOSTS: [&str; 4] = ["www", "shop", "blog", "api"];

const REFERRERS: [&str; 6] = ["-", "-", "search", "mail", "news", "ads"];

const AGENTS: [&str; 6] = ["Chrome/131", "Chrome/131", "Safari/18", "Firefox/133", "Edge/131", "bot/2.1"];

const STATUSES: [u64; 16] = [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 304, 302, 404, 500];

const PAGES: u64 = 1_000;

/// Visits one after the other.
#[derive(Debug, Clone)]
pub struct WebEvents {
    options: WebOptions,
    number: u64,
}

impl WebEvents {
    /// From the first event on. `partitions`, `users` and `events_per_s` are at least 1, and `silent` leaves a partition.
    pub fn new(options: WebOptions) -> WebEvents {
        assert!(
            options.silent < options.partitions && options.users > 0 && options.events_per_s > 0,
            "checked by the caller"
        );
        WebEvents { options, number: 0 }
    }

    /// When the event would have come without disorder.
    fn due_ms(&self) -> i64 {
        let ms = u128::from(self.number) * 1000 / u128::from(self.options.events_per_s);
        self.options.start_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    fn time_ms(&self, draws: &mut Draws) -> i64 {
        let WebOptions { disorder_ms, late_share, late_by_ms, future_share, .. } = self.options;
        let due = self.due_ms();
        let up_to = |ms: i64, draws: &mut Draws| draws.below(ms.max(0) as u64 + 1) as i64;
        // Drawn whatever comes of it, so that one option does not change what another one makes.
        let (is_late, is_future) = (draws.chance(late_share), draws.chance(future_share));
        let (behind, ahead) = (up_to(disorder_ms, draws), up_to(CENTURY_MS / 100, draws));
        let further = 1 + up_to(late_by_ms - 1, draws);
        match (is_future, is_late) {
            (true, _) => due + CENTURY_MS + ahead,
            (false, true) => due - disorder_ms.max(0) - further,
            (false, false) => due - behind,
        }
    }

    /// A user who is on the site at this time, and the number of the stay. Users come one after the other, evenly over a round.
    fn visitor(&self, time_ms: i64, draws: &mut Draws) -> (u64, i64) {
        let users = i128::from(self.options.users);
        let in_round = i128::from(time_ms.rem_euclid(ROUND_MS));
        let newest = in_round * users / i128::from(ROUND_MS);
        let present = (users * i128::from(STAY_MS) / i128::from(ROUND_MS)).max(1);
        let back = i128::from(draws.below(present as u64));
        let user = (newest - back).rem_euclid(users);
        let round = time_ms.div_euclid(ROUND_MS) - i64::from(newest < back);
        (user as u64, round)
    }
}

impl Maker for WebEvents {
    fn make(&mut self, value: &mut Vec<u8>) -> Made {
        let mut draws = Draws::new(self.options.seed, self.number);
        let time_ms = self.time_ms(&mut draws);
        let (user, stay) = self.visitor(time_ms, &mut draws);
        // What stays the same for a user, and for one stay.
        let mut of_user = Draws::new(self.options.seed ^ 0x7573_6572, user);
        let mut of_stay = Draws::new(of_user.next(), stay as u64);
        let ip = of_user.next();
        let key = format!("u{user:05}");
        value.extend_from_slice(b"{\"ts\":\"");
        push_time(value, time_ms);
        value.extend_from_slice(b"\",\"user\":\"");
        value.extend_from_slice(key.as_bytes());
        value.extend_from_slice(b"\",\"session\":\"");
        push_hex(value, of_stay.next(), 8);
        value.extend_from_slice(b"\",\"ip\":\"10");
        for shift in [0, 8, 16] {
            value.push(b'.');
            push_number(value, (ip >> shift) & 0xFF);
        }
        let page = draws.below(PAGES).min(draws.below(PAGES));
        for (name, text) in [
            ("\",\"host\":\"", *draws.pick(&HOSTS)),
            ("\",\"referrer\":\"", *of_stay.pick(&REFERRERS)),
            ("\",\"agent\":\"", *of_user.pick(&AGENTS)),
        ] {
            value.extend_from_slice(name.as_bytes());
            value.extend_from_slice(text.as_bytes());
        }
        value.extend_from_slice(b"\",\"page\":\"/p/");
        push_number(value, page);
        let (bytes, duration) = (200 + draws.below(300).pow(2) / 3, 1 + draws.below(40).pow(2));
        for (name, number) in
            [("\",\"status\":", *draws.pick(&STATUSES)), (",\"bytes\":", bytes), (",\"duration_ms\":", duration)]
        {
            value.extend_from_slice(name.as_bytes());
            push_number(value, number);
        }
        value.push(b'}');
        let WebOptions { partitions, silent, start_ms, .. } = self.options;
        let speaking = if self.due_ms() - start_ms < BEFORE_SILENCE_MS { partitions } else { partitions - silent };
        self.number += 1;
        Made { partition: of_user.below(u64::from(speaking)) as u32, time_ms, key }
    }
}

fn push_hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    let digit = |place: u32| b"0123456789abcdef"[(number >> (4 * place)) as usize & 0xF];
    out.extend((0..digits).rev().map(digit));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::xxh64;
    use std::collections::BTreeMap;

    fn made(options: WebOptions, events: u64) -> Vec<(Made, Vec<u8>)> {
        let mut maker = WebEvents::new(options);
        (0..events)
            .map(|_| {
                let mut value = Vec::new();
                (maker.make(&mut value), value)
            })
            .collect()
    }

    fn digest(options: WebOptions) -> u64 {
        let lines: Vec<u8> = made(options, 10_000).into_iter().flat_map(|(_, value)| value).collect();
        xxh64(&lines, 0)
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let seeded = |seed| WebOptions { seed, disorder_ms: 5_000, late_share: 0.01, ..WebOptions::default() };
        assert_eq!(digest(seeded(7)), GOLDEN);
        assert_ne!(digest(seeded(8)), GOLDEN);
    }

    const GOLDEN: u64 = 13_360_601_999_332_644_262;

    #[test]
    fn events_are_json_of_about_200_bytes() {
        let events = made(WebOptions::default(), 2_000);
        for (made, value) in &events {
            let json: serde_json::Value = serde_json::from_slice(value).expect("JSON");
            assert_eq!(json["user"], made.key.as_str());
            let fields =
                ["ts", "user", "session", "ip", "host", "referrer", "agent", "page", "status", "bytes", "duration_ms"];
            assert_eq!(json.as_object().expect("an object").keys().collect::<Vec<_>>(), fields);
        }
        let mean = events.iter().map(|(_, value)| value.len()).sum::<usize>() / events.len();
        assert!((170..=210).contains(&mean), "{mean} bytes");
    }

    #[test]
    fn disorder_lateness_and_future_are_as_asked() {
        let options = WebOptions {
            disorder_ms: 5_000,
            late_share: 0.02,
            late_by_ms: 60_000,
            future_share: 0.01,
            ..WebOptions::default()
        };
        let (mut late, mut future, mut disordered) = (0, 0, 0);
        let mut newest = i64::MIN;
        for (number, (made, _)) in made(options.clone(), 50_000).into_iter().enumerate() {
            let behind = options.start_ms + number as i64 * 10 - made.time_ms;
            match behind {
                ..0 => future += 1,
                0..=5_000 => disordered += i32::from(made.time_ms < newest),
                _ => late += 1,
            }
            assert!(behind <= 65_000 && !(-CENTURY_MS..0).contains(&behind), "{behind}");
            if behind >= 0 {
                newest = newest.max(made.time_ms);
            }
        }
        assert!((900..1_100).contains(&late), "{late} of 50,000 are late");
        assert!((430..570).contains(&future), "{future} of 50,000 are from the future");
        assert!(disordered > 40_000, "{disordered} of 50,000 lie behind others");
    }

    #[test]
    fn partitions_fall_silent() {
        let options = WebOptions { partitions: 4, silent: 1, ..WebOptions::default() };
        let events = made(options, 12_000);
        let (before, after) = events.split_at(6_000);
        let count = |events: &[(Made, Vec<u8>)]| {
            (0..4).map(|p| events.iter().filter(|(made, _)| made.partition == p).count()).collect::<Vec<_>>()
        };
        assert!(count(before).iter().all(|n| *n > 1_000), "{:?}", count(before));
        assert!(count(after)[..3].iter().all(|n| *n > 1_500) && count(after)[3] == 0, "{:?}", count(after));
    }

    #[test]
    fn a_users_visits_are_sessions() {
        let options = WebOptions { users: 500, events_per_s: 20, ..WebOptions::default() };
        let mut visits: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
        for (made, value) in made(options, 200_000) {
            let json: serde_json::Value = serde_json::from_slice(&value).expect("JSON");
            visits.entry(made.key).or_default().push((made.time_ms, json["session"].to_string()));
        }
        assert_eq!(visits.len(), 500);
        let pairs = visits.values().flat_map(|times| times.windows(2));
        let (mut within, mut between) = (0, 0);
        for pair in pairs {
            let pause = pair[1].0 - pair[0].0;
            if pair[0].1 == pair[1].1 {
                within += 1;
                assert!(pause <= STAY_MS, "a stay with a pause of {pause} ms");
            } else {
                between += 1;
                assert!(pause >= 30 * 60_000, "stays only {pause} ms apart");
            }
        }
        assert!(between > 1_400 && within > 20 * between, "{within} pairs within {between} sessions");
    }
}
