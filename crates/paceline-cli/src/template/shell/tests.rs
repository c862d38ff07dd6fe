//! Scripts read, and hostile values run through real shells.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::super::TemplateReason;
use super::*;

fn command(script: &str, values: &[&[u8]]) -> Vec<String> {
    let template = ShellTemplate::parse(script.as_bytes(), Dialect::File)
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let command = template.expand(&Values::new(values)).unwrap();
    command.into_iter().map(|word| word.into_string().unwrap()).skip(2).collect()
}

fn script_of(script: &str) -> String {
    command(script, &[b"v"]).swap_remove(0)
}

#[test]
fn a_placeholder_becomes_a_reference_that_fits_its_place() {
    for (script, expected) in [
        ("echo {}", r#"echo "${1}""#),
        ("echo a{}b", r#"echo a"${1}"b"#),
        (r#"echo "a{}b""#, r#"echo "a${1}b""#),
        ("echo 'a{}b'", r#"echo 'a'"${1}"'b'"#),
        ("echo $(cat {})", r#"echo $(cat "${1}")"#),
        (r#"echo "$(cat {} '{}')""#, r#"echo "$(cat "${1}" ''"${1}"'')""#),
        ("echo $(echo \")\" {})", r#"echo $(echo ")" "${1}")"#),
        ("echo ${x:-{}}", r#"echo ${x:-"${1}"}"#),
        (r#"echo "${x:-{}}""#, r#"echo "${x:-${1}}""#),
        ("echo ${x#{}}", r#"echo ${x#"${1}"}"#),
        ("echo ${HOME} ${#x} ${x} {}", r#"echo ${HOME} ${#x} ${x} "${1}""#),
        ("awk '{{print ${x}}}' {}", r#"awk '{print ${x}}' "${1}""#),
        ("echo a # it's {} a comment\necho {}", "echo a # it's {} a comment\necho \"${1}\""),
        ("echo a#{}", r#"echo a#"${1}""#),
        (r"echo \' {}", r#"echo \' "${1}""#),
        (r#"echo "\"{}""#, r#"echo "\"${1}""#),
        ("echo `date` {}", r#"echo `date` "${1}""#),
        ("echo $((1+2)) {}", r#"echo $((1+2)) "${1}""#),
        ("cat <<E\n$x '\nE\necho {}", "cat <<E\n$x '\nE\necho \"${1}\""),
        (
            "cat <<-'E F'; echo {}\nit's\n\tE F\necho {}",
            "cat <<-'E F'; echo \"${1}\"\nit's\n\tE F\necho \"${1}\"",
        ),
        (
            r#"echo "$(case x in x) echo {};; (y) ;; esac)""#,
            r#"echo "$(case x in x) echo "${1}";; (y) ;; esac)""#,
        ),
        ("f() {{ echo {}; }}; f", r#"f() { echo "${1}"; }; f"#),
        ("cat <{} >{}", r#"cat <"${1}" >"${1}""#),
        ("echo $'a' {}", r#"echo $'a' "${1}""#),
        ("(echo {})", r#"(echo "${1}")"#),
    ] {
        assert_eq!(script_of(script), expected, "{script}");
    }
}

#[test]
fn a_placeholder_with_no_safe_quoting_is_refused_with_its_place() {
    for (script, place, at) in [
        ("echo `cat {}`", "backquotes", 10),
        (r#"echo "`cat {}`""#, "backquotes", 11),
        ("echo $(( {} + 1 ))", "$((...))", 9),
        (r#"echo "$(({}))""#, "$((...))", 9),
        ("echo $(( $(echo {}) ))", "$((...))", 16),
        ("cat <<E\n{}\nE\n", "a here-document", 8),
        ("cat <<'E'\n{}\nE\n", "a here-document", 10),
        ("cat <<-E\n\t{}\n\tE\n", "a here-document", 10),
        ("cat <<{}\n", "a here-document", 6),
        ("x=$(cat <<E\n{}\nE\n)", "a here-document", 12),
        ("echo ${x:{}}", "this kind of ${...}", 9),
        (r#"echo "${x#{}}""#, "this kind of ${...}", 10),
        ("echo $[ {} ]", "$[...]", 8),
        ("(( {} ))", "((...))", 3),
        ("echo $'{}'", "$'...'", 7),
    ] {
        let error = ShellTemplate::parse(script.as_bytes(), Dialect::File).unwrap_err();
        assert_eq!(error.reason, TemplateReason::Unsafe(place), "{script}");
        assert_eq!(error.at, at..at + 2, "{script}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_script_that_ends_in_the_middle_is_refused() {
    for (script, what) in [
        ("echo '{}", "single quotes"),
        ("echo \"{}", "double quotes"),
        ("echo $(a", "$(...)"),
        ("echo ${a", "${...}"),
        ("echo `a", "backquotes"),
    ] {
        let error = ShellTemplate::parse(script.as_bytes(), Dialect::File).unwrap_err();
        assert_eq!(error.reason, TemplateReason::OpenShell(what), "{script}");
    }
}

#[test]
fn each_value_has_its_own_parameter() {
    assert_eq!(
        command("f {} x{} '{}' {.}", &[b"a.b", b"c"]),
        [
            r#"f "${1}" "${2}" x"${1} ${2}" ''"${1} ${2}"'' "${3}" "${4}""#,
            "sh",
            "a.b",
            "c",
            "a",
            "c"
        ]
    );
    assert_eq!(command("echo $1", &[b"v"]), ["echo $1", "sh", "v"]);
}

#[test]
fn a_value_that_comes_on_standard_input_is_no_parameter() {
    let mut template = ShellTemplate::parse(b"cat; echo {#}", Dialect::File).unwrap();
    template.never_append();
    let command = template.expand(&Values::new(&[b"v"])).unwrap();
    assert_eq!(command[2..], ["cat; echo \"${1}\"", "sh", "1"]);
}

/// Sixty values that would run a command, if anything looked into them.
fn payloads(canary: &Path) -> Vec<Vec<u8>> {
    let canary = canary.to_str().unwrap();
    let commands = [
        "; touch P",
        "& touch P",
        "| touch P",
        "|| touch P",
        "&& touch P",
        "\ntouch P",
        "\n touch P\n",
        "$(touch P)",
        "`touch P`",
        "${x:-$(touch P)}",
        "$((a[$(touch P)]))",
        "'; touch P; '",
        "\"; touch P; \"",
        "'\"; touch P; \"'",
        "\"'; touch P; '\"",
        "'$(touch P)'",
        "\"$(touch P)\"",
        "\"`touch P`\"",
        "'\"$(touch P)\"'",
        "\\'; touch P; \\'",
        "\\\"; touch P; \\\"",
        "\\; touch P",
        "\\\\'; touch P; '",
        "$'\\n touch P'",
        "$'; touch P'",
        "); touch P; (",
        ")); touch P; ((",
        "}; touch P; {",
        "{ touch P; }",
        "(touch P)",
        "> P",
        ">P",
        ">>P",
        "<>P",
        "2>P",
        "x >P",
        "<<E\n$(touch P)\nE\n",
        "# \ntouch P",
        "<(touch P)",
        ">(touch P)",
        "!touch P",
        "\r; touch P",
        "\t; touch P",
        "\u{a0}; touch P",
        "\x1b]0;$(touch P)\x07",
        "a[$(touch P)]",
        "x[`touch P`]=1",
        "$IFS;touch${IFS}P",
        "%s$(touch P)",
        "-e $(touch P)",
    ];
    let plain: [&[u8]; 14] = [
        b"-rf",
        b"--help",
        b"{}",
        b"{in}{#}{1}",
        b"${1}",
        b"\"${1}\"",
        b"$1",
        b"*",
        b"?[a-z]*",
        b"~",
        b"a  b",
        b" ",
        b"\xff\xfe;\x80",
        b"\\",
    ];
    let commands = commands.map(|command| command.replace('P', canary).into_bytes());
    commands.into_iter().chain(plain.map(<[u8]>::to_vec)).collect()
}

fn shells() -> Vec<&'static str> {
    let works = |shell: &&str| {
        Command::new(shell).args(["-c", ":"]).status().is_ok_and(|status| status.success())
    };
    ["sh", "bash"].into_iter().filter(works).collect()
}

#[test]
fn no_value_runs_and_each_comes_out_as_it_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    let payloads = payloads(&canary);
    assert!(payloads.len() >= 60);
    let contexts = [
        "printf %s {}",
        "printf %s \"{}\"",
        "printf %s '{}'",
        "printf '%s%s' '' ''{}\"\"",
        "x={}; printf %s \"$x\"",
        "printf %s \"$(printf %s {}; printf .)\" | sed '$s/\\.$//'",
        "printf %s \"${unset:-{}}\"",
        "printf %s ${unset:-{}}",
        "printf %s \"$1\"",
        "case {} in {}) printf %s {};; esac",
        "for x in {}; do printf %s \"$x\"; done",
    ];
    for shell in shells() {
        for payload in &payloads {
            for context in contexts {
                let template = ShellTemplate::parse(context.as_bytes(), Dialect::File).unwrap();
                let words = template.expand(&Values::new(&[payload])).unwrap();
                let output = Command::new(shell)
                    .args(&words[1..])
                    .current_dir(folder.path())
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                let value = OsString::from_vec(payload.clone());
                assert_eq!(output.stdout, *payload, "{shell}: {context}: {value:?}");
                assert!(!canary.exists(), "{shell}: {context}: {value:?}");
            }
        }
    }
}

#[test]
fn no_value_runs_as_an_argument_of_a_plain_command() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    let template =
        crate::template::CommandTemplate::parse_string(b"printf %s {}", Dialect::File).unwrap();
    for payload in payloads(&canary) {
        let words = template.expand(&Values::new(&[&payload])).unwrap();
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        assert_eq!(output.stdout, payload);
        assert!(!canary.exists());
    }
}

proptest! {
    #[test]
    fn a_script_without_placeholders_is_left_as_it_is(
        script in "(case |esac|in |[a1'\"$(){}`\\\\# \n<>;|&=:\\[\\]-]){0,30}"
    ) {
        let dialect = Dialect::Each { replace: b"@@" };
        if let Ok(template) = ShellTemplate::parse(script.as_bytes(), dialect) {
            prop_assume!(template.holes().next().is_none());
            let command = template.expand(&Values::new(&[b"v"])).unwrap();
            prop_assert_eq!(command[2].to_str().unwrap(), script);
        }
    }

    #[test]
    fn a_value_comes_out_of_a_shell_as_it_went_in(
        value in proptest::collection::vec(1u8..=255, 0..20),
        before in "(\\\\'|\"a b\"|'c d'|\\$x|\\$\\(:\\)|\\$\\{x:-'}'\\}|[ab]){0,4}",
        quote in prop_oneof![Just(""), Just("'"), Just("\"")],
    ) {
        let script = format!("printf %s {before}.{quote}$@@.{quote}");
        let dialect = Dialect::Each { replace: b"@@" };
        let template = ShellTemplate::parse(script.as_bytes(), dialect).unwrap();
        let command = template.expand(&Values::new(&[&value])).unwrap();
        let output = Command::new("sh").args(&command[1..]).output().unwrap();
        let expected = [b".$", &value[..], b"."].concat();
        prop_assert!(output.stdout.ends_with(&expected), "{script}: {output:?}");
    }
}
