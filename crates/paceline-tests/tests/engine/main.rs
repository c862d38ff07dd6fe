//! The engine as its users see it: one test a requirement (`r53_1_…`), the
//! endings of a run at random moments, and random chains against an oracle.

mod chains;
mod endings;
mod io;
mod journal;
mod life;
mod order;
mod pace;
mod phases;
mod retries;
mod shared_state;
mod shortage;
mod staged;
mod stops;
mod waiting;
