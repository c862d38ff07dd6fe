//! `paceline demo`: the chapter's items at work, measured.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use paceline_chapter::{Item, Show, Unwritten, items};

use crate::{
    args::{Demo, Items},
    message::{Problem, words_of},
    printed, trouble, unprinted,
};

/// Shows one item or all of them; without either, says which there are.
pub(crate) fn demo(args: &Demo) -> ExitCode {
    match args.item {
        None => printed(list()),
        Some(Items::One(number)) => {
            show(items().filter(|item| item.number() == number), args.no_python)
        }
        Some(Items::All) => show(items(), args.no_python),
    }
}

fn list() -> io::Result<()> {
    let mut text = String::from("The items of the chapter; `paceline demo NUMBER` shows one:\n");
    for item in items() {
        text.push_str(&format!("  {}  {}\n", item.number(), item.title()));
    }
    io::stdout().write_all(text.as_bytes())
}

fn show(items: impl Iterator<Item = Item>, no_python: bool) -> ExitCode {
    let out = &mut io::stdout();
    for item in items {
        let mut show = if no_python { Show::without_python(out) } else { Show::new(out) };
        if let Err(error) = item.show(&mut show) {
            return match error.downcast::<Unwritten>() {
                Ok(unwritten) => unprinted(&unwritten.0),
                Err(error) => trouble(&Problem::new(format!(
                    "item {} could not be shown: {}",
                    item.number(),
                    words_of(&*error)
                ))),
            };
        }
    }
    printed(Ok(()))
}
