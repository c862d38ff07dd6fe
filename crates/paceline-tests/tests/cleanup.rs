//! Nothing is left running, whatever the jobs did: hostile children, every
//! kind of end, and a look at who is still there.
//!
//! The runner is a program of its own, `keeper`, since what is tested must be
//! said at the start of a program, and since it is killed here.

mod cleanup {
    mod isolation;
    mod keeper;
    mod leftovers;
    mod matrix;
    #[expect(dead_code, reason = "shared with the tests of single children")]
    #[path = "../process/support.rs"]
    mod support;
    mod surroundings;
}
