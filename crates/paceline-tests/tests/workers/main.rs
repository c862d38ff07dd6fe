//! Long-lived worker processes: whatever they do costs the item in hand, and
//! never the stage, the run, or a wait without end.

mod crashes;
mod life;
mod pace;
mod pool;
mod speed;
mod support;
