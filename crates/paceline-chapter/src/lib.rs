//! The chapter "Concurrency and Parallelism" (items 52 to 64) of a well-known
//! Python book, at work on paceline.
//!
//! Each item is a module with the chapter's own cases as functions, and a
//! `show` that runs them and prints what it measured on this machine, next to
//! the Python of the same item where there is a `python3`. `paceline demo`
//! runs them; the guide in `docs/chapter.md` tells what they mean.
//!
//! ```
//! let mut shown = Vec::new();
//! let item = paceline_chapter::item(54).expect("52 to 64 are there");
//! item.show(&mut paceline_chapter::Show::without_python(&mut shown))?;
//! assert!(String::from_utf8(shown)?.contains("500000"));
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```

/// The code of the guide runs as doc tests of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/chapter.md")]
pub struct Guide;

mod show;
#[cfg(test)]
mod watchdog;

pub mod item52;
pub mod item53;
pub mod item54;
pub mod item55;
pub mod item56;
pub mod item57;
pub mod item58;
pub mod item59;
pub mod item60;
pub mod item61;
pub mod item62;
pub mod item63;
pub mod item64;
pub mod life;

use paceline::BoxError;

pub use show::{Show, Unwritten};

/// One of the chapter's items.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    number: u8,
    title: &'static str,
    show: fn(&mut Show<'_>) -> Result<(), BoxError>,
}

/// All items, in their order.
const ITEMS: &[Item] = &[
    item52::ITEM,
    item53::ITEM,
    item54::ITEM,
    item55::ITEM,
    item56::ITEM,
    item57::ITEM,
    item58::ITEM,
    item59::ITEM,
    item60::ITEM,
    item61::ITEM,
    item62::ITEM,
    item63::ITEM,
    item64::ITEM,
];

impl Item {
    /// Returns its number in the book, 52 to 64.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Returns what it is about, in a few words.
    pub fn title(&self) -> &'static str {
        self.title
    }

    /// Runs it and prints what it measured. Waits until all of it is done, a
    /// few seconds.
    ///
    /// # Errors
    ///
    /// [`Unwritten`] if something cannot be printed. Others if what was run did
    /// not do what the item is about: a defect, or a machine that lacks a program.
    pub fn show(&self, show: &mut Show<'_>) -> Result<(), BoxError> {
        show.title(&format!("{}. {}", self.number, self.title))?;
        (self.show)(show)
    }
}

/// Returns all items, in the order of the book.
pub fn items() -> impl ExactSizeIterator<Item = Item> {
    ITEMS.iter().copied()
}

/// Returns the item with this number, 52 to 64.
pub fn item(number: u8) -> Option<Item> {
    items().find(|item| item.number == number)
}
