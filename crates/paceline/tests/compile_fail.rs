//! What must not compile, with the message that its author sees.

#[test]
fn r54_2_what_cannot_work_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
