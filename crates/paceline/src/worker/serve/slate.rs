//! The slate: where a worker writes its answers down before it sends them.
//!
//! A file in memory, which a worker of [`Framing::Frames`](super::Framing)
//! has as its standard output and writes to as memory. It begins with numbers
//! of 64 bits: how far the answers go, one more than the id of the item begun
//! last, where a batch of answers begins that is yet to be closed (or 0), and
//! how often answers were sent.
//!
//! An answer is there before the next item is begun. So whatever ends a
//! worker, and whatever holds it up, costs the item in hand alone.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use memchr::memchr_iter;

use super::framing::{HEAD, head, read_head};

/// Where the answers begin.
pub(crate) const SLATE_HEAD: usize = 32;

/// The size of a slate. Longer answers do not go by it.
pub(crate) const SLATE: usize = 256 * 1024;

/// The places of the numbers.
pub(crate) mod place {
    pub(crate) const END: usize = 0;
    pub(crate) const BEGUN: usize = 1;
    pub(crate) const OPEN: usize = 2;
    pub(crate) const SENT: usize = 3;
}

/// A worker's slate, as the runner sees it.
pub(crate) struct Slate(Arc<File>);

/// What a worker had written down.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The id of the item begun last, if any was.
    pub(crate) begun: Option<u32>,
    /// Frames of answers, sent or not.
    pub(crate) answers: Vec<u8>,
}

impl Slate {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self(file)
    }

    /// Reads what is written. While the worker is alive it may write at any
    /// moment; what was then read is of no use, and is read again. `None` if
    /// it writes all the time: then it will be heard of.
    pub(crate) fn read(&self, is_alive: bool) -> Option<Written> {
        const TRIES: usize = 4;
        let mut slate = vec![0; SLATE];
        for _ in 0..TRIES {
            // First the numbers: what they speak of was written before them.
            self.0.read_exact_at(&mut slate[..SLATE_HEAD], 0).ok()?;
            self.0.read_exact_at(&mut slate[SLATE_HEAD..], SLATE_HEAD as u64).ok()?;
            let mut head = [0; SLATE_HEAD];
            self.0.read_exact_at(&mut head, 0).ok()?;
            if !is_alive || slate[..SLATE_HEAD] == head {
                return written(&slate);
            }
        }
        None
    }
}

fn written(slate: &[u8]) -> Option<Written> {
    let number = |index: usize| {
        let bytes = slate[8 * index..].first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let place = |index| {
        let place = usize::try_from(number(index)).ok();
        place.filter(|place| (SLATE_HEAD..=SLATE).contains(place))
    };
    let begun = match number(place::BEGUN) {
        0 => None,
        number => Some(u32::try_from(number - 1).ok()?),
    };
    // It may have died before it had written anything.
    let end = place(place::END).unwrap_or(SLATE_HEAD);
    let mut answers = slate[SLATE_HEAD..end].to_vec();
    if let (Some(begun), Some(open)) = (begun, place(place::OPEN).filter(|open| *open >= end)) {
        answers.extend(closed(&slate[open..], begun).unwrap_or_default());
    }
    Some(Written { begun, answers })
}

/// Closes a batch of answers, each with a zero byte behind it: those to items
/// before the one begun last are whole.
fn closed(batch: &[u8], begun: u32) -> Option<Vec<u8>> {
    let (_, first, kind) = read_head(batch)?;
    let whole = begun.wrapping_sub(first) as usize;
    let body = &batch[HEAD..];
    let end = memchr_iter(0, body).nth(whole.checked_sub(1)?)?;
    let length = u32::try_from(end).ok()?;
    Some([&head(length, first, kind), &body[..end]].concat())
}

#[cfg(test)]
mod tests {
    use super::{super::framing::kind, *};

    fn slate(numbers: [u64; 4], answers: &[u8]) -> Vec<u8> {
        let mut slate: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        slate.extend_from_slice(answers);
        slate.resize(SLATE, b'?');
        slate
    }

    #[test]
    fn answers_before_the_item_in_hand_are_whole() {
        let begin = SLATE_HEAD as u64;
        let sent = [&head(1, 4, kind::BYTES)[..], b"a"].concat();
        let open = [&head(0, 5, kind::BYTES_BATCH)[..], b"bc\0\0half"].concat();
        let both = [&sent[..], &open].concat();
        let end = begin + sent.len() as u64;
        let batch = |body: &[u8]| {
            [&sent[..], &head(body.len() as u32, 5, kind::BYTES_BATCH), body].concat()
        };
        // 5 and 6 are answered, 7 is in hand and its answer half written.
        for (begun, answers) in
            [(4, sent.clone()), (5, sent.clone()), (6, batch(b"bc")), (7, batch(b"bc\0"))]
        {
            let read = written(&slate([end, u64::from(begun) + 1, end, 0], &both));
            assert_eq!(read, Some(Written { begun: Some(begun), answers }));
        }
        // Closed, and not yet said to be closed no more.
        let read = written(&slate([end, 8, begin, 0], &both));
        assert_eq!(read, Some(Written { begun: Some(7), answers: sent }));
    }

    #[test]
    fn a_slate_with_nonsense_on_it_saves_nothing() {
        let none = Some(Written { begun: None, answers: Vec::new() });
        assert_eq!(written(&slate([0; 4], b"")), none);
        assert_eq!(written(&slate([u64::MAX, 0, u64::MAX, 0], b"")), none);
        assert_eq!(written(&slate([0, u64::MAX, 0, 0], b"")), None);
        let read = written(&slate([0, 1000, SLATE as u64, 0], b""));
        assert_eq!(read, Some(Written { begun: Some(999), answers: Vec::new() }));
    }
}
