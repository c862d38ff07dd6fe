//! One face for all the channels: how each is made, pushed into and popped.

use std::future::Future;

use paceline_queue::{Producer, Queue};

/// A bounded channel of numbers.
pub(super) trait Peer: 'static {
    const NAME: &'static str;
    type Tx: Send + Sync + 'static;
    type Rx: Send + 'static;

    /// Makes as many handles as are asked for; each side's last one to go closes the channel.
    fn open(capacity: usize, producers: usize, consumers: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>);
}

/// A channel that threads wait for.
pub(super) trait Waits: Peer {
    fn push(tx: &Self::Tx, item: u64);
    fn pop(rx: &mut Self::Rx) -> Option<u64>;
}

/// A channel that tasks wait for.
pub(super) trait Awaits: Peer {
    fn push_async(tx: &Self::Tx, item: u64) -> impl Future<Output = ()> + Send;
    fn pop_async(rx: &mut Self::Rx) -> impl Future<Output = Option<u64>> + Send;
}

fn copies<T: Clone>(one: T, count: usize) -> Vec<T> {
    vec![one; count]
}

pub(super) struct Paceline;

impl Peer for Paceline {
    const NAME: &'static str = "paceline";
    type Tx = Producer<u64>;
    type Rx = Queue<u64>;

    fn open(capacity: usize, producers: usize, consumers: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let queue = Queue::bounded(capacity);
        (copies(queue.producer(), producers), copies(queue, consumers))
    }
}

impl Waits for Paceline {
    fn push(tx: &Self::Tx, item: u64) {
        tx.push(item).expect("open");
    }

    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.pop().ok()
    }
}

impl Awaits for Paceline {
    async fn push_async(tx: &Self::Tx, item: u64) {
        tx.push_async(item).await.expect("open");
    }

    async fn pop_async(rx: &mut Self::Rx) -> Option<u64> {
        rx.pop_async().await.ok()
    }
}

pub(super) struct Crossbeam;

impl Peer for Crossbeam {
    const NAME: &'static str = "crossbeam";
    type Tx = crossbeam_channel::Sender<u64>;
    type Rx = crossbeam_channel::Receiver<u64>;

    fn open(capacity: usize, producers: usize, consumers: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (tx, rx) = crossbeam_channel::bounded(capacity);
        (copies(tx, producers), copies(rx, consumers))
    }
}

impl Waits for Crossbeam {
    fn push(tx: &Self::Tx, item: u64) {
        tx.send(item).expect("open");
    }

    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().ok()
    }
}

pub(super) struct Flume;

impl Peer for Flume {
    const NAME: &'static str = "flume";
    type Tx = flume::Sender<u64>;
    type Rx = flume::Receiver<u64>;

    fn open(capacity: usize, producers: usize, consumers: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (tx, rx) = flume::bounded(capacity);
        (copies(tx, producers), copies(rx, consumers))
    }
}

impl Waits for Flume {
    fn push(tx: &Self::Tx, item: u64) {
        tx.send(item).expect("open");
    }

    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().ok()
    }
}

impl Awaits for Flume {
    async fn push_async(tx: &Self::Tx, item: u64) {
        tx.send_async(item).await.expect("open");
    }

    async fn pop_async(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv_async().await.ok()
    }
}

pub(super) struct AsyncChannel;

impl Peer for AsyncChannel {
    const NAME: &'static str = "async-channel";
    type Tx = async_channel::Sender<u64>;
    type Rx = async_channel::Receiver<u64>;

    fn open(capacity: usize, producers: usize, consumers: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (tx, rx) = async_channel::bounded(capacity);
        (copies(tx, producers), copies(rx, consumers))
    }
}

impl Waits for AsyncChannel {
    fn push(tx: &Self::Tx, item: u64) {
        tx.send_blocking(item).expect("open");
    }

    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv_blocking().ok()
    }
}

impl Awaits for AsyncChannel {
    async fn push_async(tx: &Self::Tx, item: u64) {
        tx.send(item).await.expect("open");
    }

    async fn pop_async(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().await.ok()
    }
}

pub(super) struct Kanal;

impl Peer for Kanal {
    const NAME: &'static str = "kanal";
    type Tx = kanal::Sender<u64>;
    type Rx = kanal::Receiver<u64>;

    fn open(capacity: usize, producers: usize, consumers: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (tx, rx) = kanal::bounded(capacity);
        (copies(tx, producers), copies(rx, consumers))
    }
}

impl Waits for Kanal {
    fn push(tx: &Self::Tx, item: u64) {
        tx.send(item).expect("open");
    }

    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().ok()
    }
}

impl Awaits for Kanal {
    async fn push_async(tx: &Self::Tx, item: u64) {
        tx.as_async().send(item).await.expect("open");
    }

    async fn pop_async(rx: &mut Self::Rx) -> Option<u64> {
        rx.as_async().recv().await.ok()
    }
}

/// Has one consumer only.
pub(super) struct TokioMpsc;

impl Peer for TokioMpsc {
    const NAME: &'static str = "tokio mpsc";
    type Tx = tokio::sync::mpsc::Sender<u64>;
    type Rx = tokio::sync::mpsc::Receiver<u64>;

    fn open(capacity: usize, producers: usize, consumers: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        assert_eq!(consumers, 1);
        let (tx, rx) = tokio::sync::mpsc::channel(capacity);
        (copies(tx, producers), vec![rx])
    }
}

impl Waits for TokioMpsc {
    fn push(tx: &Self::Tx, item: u64) {
        tx.blocking_send(item).expect("open");
    }

    fn pop(rx: &mut Self::Rx) -> Option<u64> {
        rx.blocking_recv()
    }
}

impl Awaits for TokioMpsc {
    async fn push_async(tx: &Self::Tx, item: u64) {
        tx.send(item).await.expect("open");
    }

    async fn pop_async(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().await
    }
}
