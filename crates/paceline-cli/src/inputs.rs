//! The input sources of `paceline each`: given values, files, standard input.
//!
//! One source is read as its items are asked for. Of several, the first
//! varies slowest and is read so too; the others are read beforehand, since
//! each of their values is needed again and again. Linked sources are read
//! beforehand as well: whether they are of one length is to be known before
//! anything runs.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    commands::drive::Input,
    message::{Problem, harmless},
    source::{Interrupt, Item, Items, Location, Origin, SourceError, open_file},
};

/// How the words after the command say sources.
const MARKS: [(&str, What, bool); 4] = [
    (":::", What::Values, false),
    (":::+", What::Values, true),
    ("::::", What::Files, false),
    ("::::+", What::Files, true),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Values,
    Files,
}

/// A source as the command line says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    from: From,
    /// Whether it goes with the source before it, item by item.
    is_linked: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum From {
    Values(Vec<OsString>),
    /// `-` is standard input.
    File(OsString),
}

/// Divides the words of the command line into the command and its sources,
/// which come after those that `-a` names.
///
/// # Errors
///
/// If a mark lacks what it needs.
pub(crate) fn divide(
    words: Vec<OsString>,
    arg_files: &[OsString],
) -> Result<(Vec<OsString>, Vec<Said>), Problem> {
    let mut command = Vec::new();
    let file = |name: &OsString| Said { from: From::File(name.clone()), is_linked: false };
    let mut said: Vec<Said> = arg_files.iter().map(file).collect();
    let mut mark: Option<(What, bool)> = None;
    // The mark that is still to be followed by a file.
    let mut lacking: Option<&str> = None;
    for word in words {
        if let Some((text, what, is_linked)) = MARKS.iter().find(|(text, ..)| word == **text) {
            refuse_lacking(lacking)?;
            lacking = (*what == What::Files).then_some(*text);
            if *is_linked && said.is_empty() {
                return Err(Problem::new(format!(
                    "`{text}` links to the source before it, and there is none"
                ))
                .hint(format!("begin the first source with `{}`", text.trim_end_matches('+'))));
            }
            mark = Some((*what, *is_linked));
            if *what == What::Values {
                said.push(Said { from: From::Values(Vec::new()), is_linked: *is_linked });
            }
            continue;
        }
        match (mark, said.last_mut()) {
            (None, _) => command.push(word),
            (Some((What::Values, _)), Some(Said { from: From::Values(values), .. })) => {
                values.push(word);
            }
            (Some((_, is_linked)), _) => {
                lacking = None;
                said.push(Said { from: From::File(word), is_linked });
            }
        }
    }
    refuse_lacking(lacking)?;
    Ok((command, said))
}

fn refuse_lacking(mark: Option<&str>) -> Result<(), Problem> {
    let Some(mark) = mark else { return Ok(()) };
    Err(Problem::new(format!("after `{mark}` a file has to be named"))
        .hint(format!("`{mark} -` is standard input")))
}

impl Said {
    fn open(self, null: bool, interrupt: &Interrupt) -> Result<Items, Problem> {
        match self.from {
            From::Values(values) => {
                Ok(Items::given(values.into_iter().map(OsString::into_vec), interrupt))
            }
            From::File(name) if name == "-" => stdin(null, interrupt),
            From::File(name) => {
                let file = open_file(Path::new(&name))?;
                let shown = format!("`{}`", harmless(name.as_bytes()));
                Ok(Items::lines(file.into(), null, shown, interrupt))
            }
        }
    }
}

/// Standard input as a source.
fn stdin(null: bool, interrupt: &Interrupt) -> Result<Items, Problem> {
    let lines = Origin::Lines { from: Location::Stdin, null };
    Items::open(&lines, Path::new("."), interrupt)
}

/// Opens the sources; none said is standard input.
///
/// # Errors
///
/// If a file cannot be read, or linked sources differ in length.
pub(crate) fn open(
    said: Vec<Said>,
    null: bool,
    skip_empty: bool,
    interrupt: &Interrupt,
) -> Result<Box<dyn Iterator<Item = Input> + Send>, Problem> {
    let mut said = said.into_iter();
    let Some(first) = said.next() else {
        return Ok(single(stdin(null, interrupt)?, skip_empty));
    };
    if said.len() == 0 {
        return Ok(single(first.open(null, interrupt)?, skip_empty));
    }
    let mut groups: Vec<Vec<Vec<Item>>> = Vec::new();
    let mut slowest = Some(first.open(null, interrupt)?);
    for source in said {
        let is_linked = source.is_linked;
        let items = read_all(source.open(null, interrupt)?, skip_empty)?;
        if !is_linked {
            groups.push(items.into_iter().map(|item| vec![item]).collect());
            continue;
        }
        if groups.is_empty()
            && let Some(first) = slowest.take()
        {
            let first = read_all(first, skip_empty)?;
            groups.push(first.into_iter().map(|item| vec![item]).collect());
        }
        let group = groups.last_mut().unwrap_or_else(|| unreachable!("a link follows a source"));
        if group.len() != items.len() {
            return Err(Problem::new(format!(
                "linked sources differ in length: {} and {} items",
                group.len(),
                items.len()
            ))
            .hint("`:::` in place of `:::+` combines each with each".to_owned()));
        }
        for (row, item) in group.iter_mut().zip(items) {
            row.push(item);
        }
    }
    let rows: Box<dyn Iterator<Item = Result<Vec<Item>, _>> + Send> = match slowest {
        Some(items) if skip_empty => {
            Box::new(Wanted::of(items).map(|item| item.map(|item| vec![item])))
        }
        Some(items) => Box::new(items.map(|item| item.map(|item| vec![item]))),
        None => Box::new(groups.remove(0).into_iter().map(Ok)),
    };
    let groups: Arc<[_]> = groups.into();
    Ok(Box::new(rows.flat_map(move |row| {
        let (combined, error) = match row {
            Ok(row) => (Some(Product::new(row, groups.clone())), None),
            Err(error) => (None, Some(Err(error))),
        };
        combined.into_iter().flatten().map(Ok).chain(error)
    })))
}

fn single(items: Items, skip_empty: bool) -> Box<dyn Iterator<Item = Input> + Send> {
    fn alone(item: Item) -> (Item, Vec<Bytes>) {
        let parts = vec![item.bytes.clone()];
        (item, parts)
    }
    if skip_empty {
        Box::new(Wanted::of(items).map(|item| item.map(alone)))
    } else {
        Box::new(items.map(|item| item.map(alone)))
    }
}

/// The items that are not empty.
///
/// Once it has been asked for one it knows the next, if that is at hand, so
/// that they can be gathered: none is promised that would have to be waited for.
struct Wanted {
    items: Items,
    next: Option<Result<Item, SourceError>>,
}

impl Wanted {
    fn of(items: Items) -> Self {
        Self { items, next: None }
    }
}

fn is_wanted(item: &Result<Item, SourceError>) -> bool {
    item.as_ref().map_or(true, |item| !item.bytes.is_empty())
}

impl Iterator for Wanted {
    type Item = Result<Item, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.next.take().or_else(|| self.items.find(is_wanted))?;
        while self.items.size_hint().0 > 0 {
            // None, though some are here, once the run is stopped.
            let Some(next) = self.items.next() else { break };
            if is_wanted(&next) {
                self.next = Some(next);
                break;
            }
        }
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let known = usize::from(self.next.is_some());
        (known, self.items.size_hint().1.and_then(|most| most.checked_add(known)))
    }
}

fn read_all(items: Items, skip_empty: bool) -> Result<Vec<Item>, Problem> {
    let items: Box<dyn Iterator<Item = _>> =
        if skip_empty { Box::new(Wanted::of(items)) } else { Box::new(items) };
    items.collect::<Result<_, _>>().map_err(|error| Problem::new(error.to_string()))
}

/// Every combination of a row with one of each group, the last varying fastest.
struct Product {
    first: Vec<Item>,
    groups: Arc<[Vec<Vec<Item>>]>,
    /// The next combination, or `None` after the last.
    at: Option<Vec<usize>>,
}

impl Product {
    fn new(first: Vec<Item>, groups: Arc<[Vec<Vec<Item>>]>) -> Self {
        let is_empty = groups.iter().any(Vec::is_empty);
        let at = (!is_empty).then(|| vec![0; groups.len()]);
        Self { first, groups, at }
    }
}

impl Iterator for Product {
    type Item = (Item, Vec<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.as_mut()?;
        let chosen = self.groups.iter().zip(at.iter()).map(|(group, &index)| &group[index]);
        let items: Vec<&Item> =
            self.first.iter().chain(chosen.flat_map(|row| row.iter())).collect();
        let combined = combine(&items);
        let moved = (0..at.len()).rev().find(|&place| {
            at[place] += 1;
            let is_within = at[place] < self.groups[place].len();
            if !is_within {
                at[place] = 0;
            }
            is_within
        });
        if moved.is_none() {
            self.at = None;
        }
        Some(combined)
    }

    /// At least one while there are more, so that whoever gathers goes on.
    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.at {
            Some(_) => (1, None),
            None => (0, Some(0)),
        }
    }
}

/// One item of several values, joined by blanks where it is shown.
fn combine(items: &[&Item]) -> (Item, Vec<Bytes>) {
    let parts: Vec<Bytes> = items.iter().map(|item| item.bytes.clone()).collect();
    let bytes = Bytes::from(parts.join(&b' '));
    let defect = items.iter().find_map(|item| item.defect.clone());
    let line = items.first().map_or(1, |item| item.line);
    (Item { bytes, fields: None, defect, line }, parts)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn inputs(words: &[&str]) -> Vec<String> {
        let (_, said) = divide(words.iter().map(OsString::from).collect(), &[]).unwrap();
        let interrupt = Interrupt::new().unwrap();
        open(said, false, false, &interrupt)
            .unwrap()
            .map(|input| String::from_utf8(input.unwrap().0.bytes.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_last_source_varies_fastest() {
        let all = inputs(&[":::", "a", "b", ":::", "1", "2", ":::", "x", "y"]);
        assert_eq!(all, ["a 1 x", "a 1 y", "a 2 x", "a 2 y", "b 1 x", "b 1 y", "b 2 x", "b 2 y"]);
    }

    #[test]
    fn a_linked_source_goes_with_the_one_before_it() {
        assert_eq!(inputs(&[":::", "a", "b", ":::+", "1", "2"]), ["a 1", "b 2"]);
        let all = inputs(&[":::", "x", "y", ":::", "a", "b", ":::+", "1", "2"]);
        assert_eq!(all, ["x a 1", "x b 2", "y a 1", "y b 2"]);
    }

    #[test]
    fn linked_sources_of_unequal_length_are_refused() {
        let words = [":::", "a", ":::+", "1", "2"].map(OsString::from).to_vec();
        let (_, said) = divide(words, &[]).unwrap();
        let interrupt = Interrupt::new().unwrap();
        let refused = open(said, false, false, &interrupt).err().unwrap();
        assert_eq!(refused.message(), "linked sources differ in length: 1 and 2 items");
    }

    #[test]
    fn a_source_without_values_gives_no_items() {
        assert!(inputs(&[":::"]).is_empty());
        assert!(inputs(&[":::", "a", ":::"]).is_empty());
    }

    /// R55: what is promised must not have to be waited for.
    #[test]
    fn items_that_are_not_empty_are_promised_as_far_as_they_are_at_hand() {
        let interrupt = Interrupt::new().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let items = Items::lines(reader.into(), false, "a pipe", &interrupt);
        let mut wanted = Wanted::of(items);
        writer.write_all(b"\n\na\n\nb\nc\n\n\n").unwrap();
        assert_eq!(wanted.size_hint(), (0, None));
        for (given, promised) in [(b"a", 1), (b"b", 1), (b"c", 0)] {
            assert_eq!(wanted.next().unwrap().unwrap().bytes, &given[..]);
            assert_eq!(wanted.size_hint(), (promised, None));
        }
        writer.write_all(b"\nd").unwrap();
        drop(writer);
        assert_eq!(wanted.next().unwrap().unwrap().bytes, &b"d"[..]);
        assert_eq!(wanted.size_hint(), (0, Some(0)));
        assert!(wanted.next().is_none());
    }

    #[test]
    fn the_command_ends_where_the_sources_begin() {
        let words = ["echo", "-n", ":::", "a"].map(OsString::from).to_vec();
        let (command, said) = divide(words, &[]).unwrap();
        assert_eq!(command, ["echo", "-n"]);
        assert_eq!(said.len(), 1);
    }
}
