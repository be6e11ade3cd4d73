//! A naive model of windows that are emitted more than once, by allowed lateness and by ticks, and of windows by count; the engine held
//! against it. What happens in one millisecond happens in this order: the clock closes, ticks, then the records one by one.

use super::model::{ModelWatermark, Row, line, rows, times, windows_by_definition};
use super::*;
use crate::codec::xxh64;
use crate::window::Window;
use proptest::prelude::*;

/// A window of one key.
#[derive(Debug, Clone)]
struct Held {
    window: Window,
    key: String,
    members: Vec<usize>,
    revision: u32,
    is_shown: bool,
    is_closed: bool,
    is_changed: bool,
}

struct Model<'a> {
    kind: WindowKind,
    lateness: i64,
    rows: &'a [Row],
    held: Vec<Held>,
    out: Vec<String>,
    late: Vec<usize>,
}

impl Model<'_> {
    fn show(&mut self, place: usize, pane: &str, op: Option<&str>) {
        let held = &mut self.held[place];
        let op = op.unwrap_or(if held.is_shown { "update" } else { "insert" });
        let text = line(held.window, &held.key, &held.members, self.rows);
        self.out.push(format!("{text} {} {pane} {op}", held.revision));
        held.revision += 1;
        held.is_shown = true;
        held.is_changed = false;
    }

    /// Shows what `choose` picks, in output order.
    fn show_all(&mut self, pane: &str, choose: impl Fn(&Held) -> bool) {
        let mut places: Vec<usize> = (0..self.held.len()).filter(|place| choose(&self.held[*place])).collect();
        let bytes = |key: &str| if key == "null" { vec![0xFF] } else { key.as_bytes().to_vec() };
        places.sort_by_key(|place| {
            let Held { window, key, .. } = &self.held[*place];
            (window.end, window.start, xxh64(&bytes(key), 0), bytes(key))
        });
        for place in places {
            self.show(place, pane, None);
            self.held[place].is_closed |= pane == "on-time";
        }
    }

    fn close(&mut self, watermark: i64) {
        self.show_all("on-time", |held| !held.is_closed && watermark >= held.window.end - 1);
        let lateness = self.lateness;
        self.held.retain(|held| watermark < held.window.end.saturating_add(lateness) - 1);
    }

    fn tick(&mut self) {
        self.show_all("early", |held| held.is_changed && !held.is_closed);
    }

    fn add(&mut self, index: usize, before: i64) {
        let row = &self.rows[index];
        if let WindowKind::Session { gap_ms } = self.kind {
            return self.join(index, Window { start: row.time, end: row.time + gap_ms }, before);
        }
        let mut open = windows_by_definition(self.kind, row.time);
        if open.is_empty() {
            // Between windows that do not touch.
            return;
        }
        let all = open.len();
        open.retain(|window| before < window.end + self.lateness - 1);
        if open.len() < all {
            self.late.push(index);
        }
        for window in open {
            let found = self.held.iter().position(|held| held.key == row.key && held.window == window);
            let place = found.unwrap_or_else(|| self.start(window, &row.key));
            self.put(place, index, before);
        }
    }

    fn start(&mut self, window: Window, key: &str) -> usize {
        self.held.push(Held {
            window,
            key: key.to_owned(),
            members: vec![],
            revision: 0,
            is_shown: false,
            is_closed: false,
            is_changed: false,
        });
        self.held.len() - 1
    }

    fn put(&mut self, place: usize, index: usize, before: i64) {
        let held = &mut self.held[place];
        held.members.push(index);
        held.members.sort_unstable();
        if before >= held.window.end - 1 {
            held.is_closed = true;
            self.show(place, "late", None);
        } else {
            held.is_changed = true;
        }
    }

    fn join(&mut self, index: usize, record: Window, before: i64) {
        let key = self.rows[index].key.clone();
        let lateness = self.lateness;
        let touches = |held: &Held| {
            held.key == key
                && held.window.start <= record.end
                && record.start <= held.window.end
                && before < held.window.end + lateness - 1
        };
        let mut joined: Vec<usize> = (0..self.held.len()).filter(|place| touches(&self.held[*place])).collect();
        if joined.is_empty() && before >= record.end + lateness - 1 {
            self.late.push(index);
            return;
        }
        let cover = |a: Window, b: Window| Window { start: a.start.min(b.start), end: a.end.max(b.end) };
        let window = joined.iter().fold(record, |window, place| cover(window, self.held[*place].window));
        if let [one] = joined[..]
            && self.held[one].window == window
        {
            return self.put(one, index, before);
        }
        joined.sort_by_key(|place| (self.held[*place].window.end, self.held[*place].window.start));
        for place in &joined {
            if self.held[*place].is_shown {
                self.held[*place].revision -= 1;
                self.show(*place, "late", Some("delete"));
            }
        }
        let new = self.start(window, &key);
        for place in &joined {
            let old = self.held[*place].clone();
            self.held[new].members.extend(old.members);
            self.held[new].revision = self.held[new].revision.max(old.revision);
            self.held[new].is_changed |= old.is_changed;
        }
        self.put(new, index, before);
        let mut place = 0;
        self.held.retain(|_| {
            place += 1;
            !joined.contains(&(place - 1))
        });
    }
}

/// Runs `each` for what happens, in order: a moment's clock, then its records with the watermark before them.
fn played(times: Times, rows: &[Row], end_ms: i64, mut each: impl FnMut(i64, Option<usize>, i64)) {
    let mut watermark = ModelWatermark::new(times);
    let mut next = 0;
    for now_ms in rows.first().map_or(end_ms, |row| row.append_ms)..=end_ms {
        watermark.update(now_ms);
        each(now_ms, None, watermark.value());
        while rows.get(next).is_some_and(|row| row.append_ms == now_ms) {
            let before = watermark.value();
            watermark.record(&rows[next]);
            each(before, Some(next), watermark.value());
            next += 1;
        }
    }
}

fn kinds() -> impl Strategy<Value = WindowKind> {
    prop_oneof![
        super::model::kinds(),
        (1i64..30, 1i64..12, -5i64..5).prop_map(|(size_ms, slide_ms, offset_ms)| WindowKind::Hop {
            size_ms,
            slide_ms,
            offset_ms
        }),
        (1i64..15).prop_map(|gap_ms| WindowKind::Session { gap_ms }),
    ]
}

/// Values without the floating-point sum, each with revision, pane and operation; and late positions.
fn engine_output(collected: &Collected) -> (Vec<String>, Vec<usize>) {
    let main = collected.main.first();
    let texts = super::model::without_floats(&values(&collected.main));
    let with_headers = texts.iter().enumerate().map(|(row, text)| {
        let [revision, pane, op] =
            ["revision", "pane", "op"].map(|name| main.and_then(|main| header(main, row, name)).unwrap_or_default());
        format!("{text} {revision} {pane} {op}")
    });
    let late = collected.late.first();
    let offsets = (0..late.map_or(0, RecordColumns::len)).map(|row| {
        late.and_then(|late| header(late, row, "offset")).and_then(|text| text.parse().ok()).expect("offset")
    });
    (with_headers.collect(), offsets.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn windows_that_are_emitted_again_are_those_of_the_model(
        rows in rows(), times in times(), kind in kinds(), lateness_ms in prop_oneof![Just(0i64), 1i64..40],
        every_ms in prop_oneof![Just(None), (1i64..25).prop_map(Some)], size in 1usize..60, wait in 0i64..60,
    ) {
        let mut plan = job(times, vec![windowed(kind, calls())]);
        plan.pipelines[0].emission = Emission { lateness_ms, early_us: every_ms.map(|ms| ms * 1000) };
        let end_ms = rows.last().map_or(0, |row| row.append_ms) + wait;
        let mut model =
            Model { kind, lateness: lateness_ms, rows: &rows, held: vec![], out: vec![], late: vec![] };
        played(times, &rows, end_ms, |first, index, watermark| match index {
            None => {
                model.close(watermark);
                if every_ms.is_some_and(|every| first % every == 0) {
                    model.tick();
                }
            }
            Some(index) => {
                model.add(index, first);
                model.close(watermark);
            }
        });
        model.close(i64::MAX);
        let events: Vec<Event> = rows.iter().map(Row::event).collect();
        let (collected, _) = run(&plan, &events, size, Some(end_ms * 1000), 1);
        prop_assert_eq!(engine_output(&collected), (model.out, model.late));
    }
}

/// A window of one key by count: members, and when its time is over.
struct Counted {
    key: String,
    members: Vec<usize>,
    due: i64,
}

struct Counting<'a> {
    size: usize,
    timeout_ms: Option<i64>,
    domain: TimeDomain,
    rows: &'a [Row],
    open: Vec<Counted>,
    out: Vec<String>,
}

impl Counting<'_> {
    fn show(&mut self, done: Vec<Counted>, reason: &str) {
        let extent = |members: &[usize]| {
            let times = members.iter().map(|member| self.rows[*member].time);
            Window { start: times.clone().min().expect("members"), end: times.max().expect("members") + 1 }
        };
        let bytes = |key: &str| if key == "null" { vec![0xFF] } else { key.as_bytes().to_vec() };
        let mut done: Vec<(Window, Counted)> = done.into_iter().map(|done| (extent(&done.members), done)).collect();
        done.sort_by_key(|(w, done)| (w.end, w.start, xxh64(&bytes(&done.key), 0), bytes(&done.key)));
        for (window, done) in done {
            self.out.push(format!("{}|{reason}", line(window, &done.key, &done.members, self.rows)));
        }
    }

    /// Closes windows whose time is over, each moment of it for itself.
    fn over(&mut self, now: i64, one_by_one: bool) {
        loop {
            let first = self.open.iter().map(|open| open.due).filter(|due| *due <= now).min();
            let Some(first) = first else { return };
            let until = if one_by_one { first } else { now };
            let (done, open) = std::mem::take(&mut self.open).into_iter().partition(|open: &Counted| open.due <= until);
            self.open = open;
            self.show(done, "timeout");
        }
    }

    fn add(&mut self, index: usize) {
        let row = &self.rows[index];
        let place = self.open.iter().position(|open| open.key == row.key).unwrap_or_else(|| {
            let begin = if self.domain == TimeDomain::Event { row.time } else { row.append_ms };
            let due = self.timeout_ms.map_or(i64::MAX, |timeout| begin + timeout);
            self.open.push(Counted { key: row.key.clone(), members: vec![], due });
            self.open.len() - 1
        });
        self.open[place].members.push(index);
        if self.open[place].members.len() == self.size {
            let done = self.open.remove(place);
            self.show(vec![done], "count");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn windows_by_count_are_those_of_the_model(
        rows in rows(), times in times(), count in 1u64..6, timeout_ms in prop_oneof![Just(None), (1i64..50).prop_map(Some)],
        by_append in any::<bool>(), size in 1usize..60, wait in 0i64..60,
    ) {
        let domain = if by_append { TimeDomain::Append } else { TimeDomain::Event };
        let mut plan = job(times, vec![windowed(WindowKind::Count { size: count, timeout_ms }, calls())]);
        plan.pipelines[0].time = domain;
        let end_ms = rows.last().map_or(0, |row| row.append_ms) + wait;
        let size_of_window = usize::try_from(count).expect("small");
        let mut model =
            Counting { size: size_of_window, timeout_ms, domain, rows: &rows, open: vec![], out: vec![] };
        played(times, &rows, end_ms, |first, index, watermark| {
            match index {
                None if by_append => model.over(first, true),
                None => {}
                Some(index) => model.add(index),
            }
            if !by_append {
                model.over(watermark, false);
            }
        });
        let rest = std::mem::take(&mut model.open);
        model.show(rest, "end");
        let events: Vec<Event> = rows.iter().map(Row::event).collect();
        let (collected, _) = run(&plan, &events, size, Some(end_ms * 1000), 1);
        prop_assert_eq!(super::model::without_floats(&values(&collected.main)), model.out);
    }
}
