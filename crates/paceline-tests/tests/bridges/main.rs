//! The event loops and the ways between them and threads: one test a
//! requirement (`r63_1_…`) or row of behaviours (`b25_…`, `t79_…`).

mod loops;
mod runner;
mod waiting;
mod watch;
mod writing;
