//! From samples to the file: texts, functions and places once each, samples added up.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use pinfold_sys::profile::{HERTZ, Samples, names};
use prost::Message;

use super::proto::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};

const NANOS_PER_SAMPLE: i64 = 1_000_000_000 / HERTZ as i64;

/// The gzipped file of a profile that began `began` nanoseconds after 1970.
pub(super) fn file(samples: &Samples, began: i64, took: Duration) -> io::Result<Vec<u8>> {
    let profile = profile(samples, began, took, &names);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&profile.encode_to_vec())?;
    packed.finish()
}

fn profile(
    samples: &Samples,
    began: i64,
    took: Duration,
    names: &dyn Fn(usize, bool) -> Vec<String>,
) -> Profile {
    let mut tables = Tables::default();
    let empty = tables.text("");
    let kinds = [("samples", "count"), ("cpu", "nanoseconds")]
        .map(|(kind, unit)| ValueType { kind: tables.text(kind), unit: tables.text(unit) });
    let program = tables.text("pinfold");
    let mapping = mapping(program);
    let thread = tables.text("thread");
    // Equal stacks of equal threads are one sample with a count.
    let mut counted: BTreeMap<(Vec<u64>, i64), i64> = BTreeMap::new();
    let mut threads: HashMap<i32, i64> = HashMap::new();
    for sample in &samples.samples {
        let places = sample.stack.iter().enumerate();
        let stack = places.map(|(depth, &at)| tables.place(at, depth == 0, names)).collect();
        let name = *threads
            .entry(sample.thread)
            .or_insert_with(|| tables.text(&thread_name(sample.thread)));
        *counted.entry((stack, name)).or_insert(0) += 1;
    }
    let sample = counted.into_iter().map(|((location_id, name), count)| Sample {
        location_id,
        value: vec![count, count * NANOS_PER_SAMPLE],
        label: vec![Label { key: thread, text: name }],
    });
    let sample = sample.collect();
    let comment = if samples.lost > 0 {
        vec![tables.text(&format!("{} samples found no room", samples.lost))]
    } else {
        Vec::new()
    };
    Profile {
        sample_type: kinds.to_vec(),
        sample,
        mapping: vec![mapping],
        location: tables.locations,
        function: tables.functions,
        string_table: tables.texts,
        time_nanos: began,
        duration_nanos: i64::try_from(took.as_nanos()).unwrap_or(i64::MAX),
        period_type: Some(kinds[1]),
        period: NANOS_PER_SAMPLE,
        comment,
        default_sample_type: if kinds[1].kind == empty { 0 } else { kinds[1].kind },
    }
}

#[derive(Default)]
struct Tables {
    texts: Vec<String>,
    text_index: HashMap<String, i64>,
    functions: Vec<Function>,
    function_index: HashMap<i64, u64>,
    locations: Vec<Location>,
    location_index: HashMap<(usize, bool), u64>,
}

impl Tables {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(known) = self.text_index.get(text) {
            return *known;
        }
        let index = i64::try_from(self.texts.len()).unwrap_or(i64::MAX);
        self.texts.push(text.to_owned());
        self.text_index.insert(text.to_owned(), index);
        index
    }

    fn function(&mut self, name: &str) -> u64 {
        let name = self.text(name);
        if let Some(known) = self.function_index.get(&name) {
            return *known;
        }
        let id = number(self.functions.len()) + 1;
        self.functions.push(Function { id, name, system_name: name });
        self.function_index.insert(name, id);
        id
    }

    fn place(
        &mut self,
        address: usize,
        exact: bool,
        names: &dyn Fn(usize, bool) -> Vec<String>,
    ) -> u64 {
        if let Some(known) = self.location_index.get(&(address, exact)) {
            return *known;
        }
        let id = number(self.locations.len()) + 1;
        let line = names(address, exact)
            .iter()
            .map(|name| Line { function_id: self.function(name) })
            .collect();
        self.locations.push(Location { id, mapping_id: 1, address: number(address), line });
        self.location_index.insert((address, exact), id);
        id
    }
}

fn number(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// The name of a thread of ours that lives, or its id.
fn thread_name(thread: i32) -> String {
    match std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")) {
        Ok(name) => name.trim_end().to_owned(),
        Err(_) => thread.to_string(),
    }
}

/// Where the program lies in memory, so that a tool with the same file at hand can find the lines
/// of an address; the whole address space where that cannot be read.
fn mapping(filename: i64) -> Mapping {
    let whole = Mapping {
        id: 1,
        memory_start: 0,
        memory_limit: u64::MAX,
        file_offset: 0,
        filename,
        has_functions: true,
        has_inline_frames: true,
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let found = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (range, mode, offset) = (words.next()?, words.next()?, words.next()?);
        let (start, end) = range.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        // The first part that can be executed is the program's own: the binary is static.
        (mode.contains('x')).then_some(())?;
        Some(Mapping {
            memory_start: hex(start)?,
            memory_limit: hex(end)?,
            file_offset: hex(offset)?,
            ..whole
        })
    });
    found.unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use pinfold_sys::profile::Sample as Seen;

    use super::*;

    #[test]
    fn equal_stacks_are_added_up_and_everything_named_is_there() {
        let seen = |stack: &[usize]| Seen { thread: -1, stack: stack.to_vec() };
        let samples = Samples { samples: vec![seen(&[1, 9]), seen(&[1, 9]), seen(&[9])], lost: 3 };
        let names = |at: usize, _: bool| match at {
            1 => vec!["inlined".to_owned(), "leaf".to_owned()],
            _ => vec!["root".to_owned()],
        };
        let found = profile(&samples, 5, Duration::from_secs(1), &names);
        let decoded = Profile::decode(&*found.encode_to_vec()).expect("what was written");
        assert_eq!(decoded, found);
        let text = |index: i64| found.string_table[usize::try_from(index).expect("small")].as_str();
        assert_eq!(text(0), "");
        let units: Vec<_> =
            found.sample_type.iter().map(|of| (text(of.kind), text(of.unit))).collect();
        assert_eq!(units, [("samples", "count"), ("cpu", "nanoseconds")]);
        let mut counts: Vec<_> = found.sample.iter().map(|sample| sample.value[0]).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2]);
        let of = |id: u64| {
            let place = found.location.iter().find(|place| place.id == id).expect("a place");
            let functions = place.line.iter().map(|line| {
                let all = &found.function;
                text(all.iter().find(|of| of.id == line.function_id).expect("a function").name)
            });
            functions.collect::<Vec<_>>()
        };
        let twice = found.sample.iter().find(|sample| sample.value[0] == 2).expect("it");
        let stack: Vec<_> = twice.location_id.iter().map(|id| of(*id)).collect();
        assert_eq!(stack, [vec!["inlined", "leaf"], vec!["root"]]);
        assert_eq!(text(found.comment[0]), "3 samples found no room");
    }
}
