//! `serve` and `python` stages, from the outside.

use std::process::Command;

use crate::support::World;

/// The interpreters there are, the oldest that is supported among them.
fn pythons() -> Vec<&'static str> {
    let runs = |name: &&&str| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let found: Vec<_> = ["python3", "python3.8"].iter().filter(runs).copied().collect();
    if found.is_empty() {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no python3 to test with");
    }
    found
}

/// A world for each interpreter, with `module` as `work.py` and one stage that calls `f`.
fn each_python(module: &str, settings: &str, test: impl Fn(&World)) {
    for python in pythons() {
        let world = World::with(&format!(
            "[source]\nlines = \"-\"\n[[stage]]\nname = \"py\"\nordered = true\n\
             python = {{ function = \"work:f\", interpreter = \"{python}\" }}\n{settings}\n"
        ));
        world.write("work.py", module);
        test(&world);
    }
}

/// One stage of one worker that is a script for `sh`.
fn serving(script: &str, settings: &str) -> World {
    let world = World::with(&format!(
        "[source]\nlines = \"-\"\n[[stage]]\nname = \"ask\"\nworkers = 1\nordered = true\n{settings}\n"
    ));
    world.write("worker.sh", script);
    world
}

#[test]
fn serve_answers_a_line_with_a_line_from_one_process() {
    let script = "echo started >&2; while IFS= read -r line; do echo \"<$line> $$\"; done";
    let world = serving(script, "serve = \"sh worker.sh\"");
    let ended = world.run([] as [&str; 0]).input("a\n\n b  c \n").end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let stdout = ended.text();
    let lines: Vec<_> = stdout.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
    assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), ["<a>", "<>", "< b  c >"]);
    assert!(lines.iter().all(|(_, pid)| *pid == lines[0].1));
    assert_eq!(ended.stderr.matches("started").count(), 1);
}

#[test]
fn serve_speaks_json_with_the_fields_of_the_item() {
    for (source, items) in [
        ("jsonl", "{\"name\":\"a\",\"n\":[1]}\n{\"name\":\"b\",\"n\":null}\n"),
        ("csv", "name,n\na,[1]\nb,null\n"),
    ] {
        let world = World::with(&format!(
            "[source]\n{source} = \"items\"\n[[stage]]\nname = \"ask\"\nordered = true\n\
             serve = {{ command = [\"python3\", \"echo.py\"], framing = \"json\" }}\n"
        ));
        world.write("items", items);
        world.write(
            "echo.py",
            "import json, sys\nfor line in sys.stdin:\n    r = json.loads(line)\n    \
             a = {'id': r['id'], 'value': [r['name'], r['fields']['name'], r['value'] != '']}\n    \
             print(json.dumps(a), flush=True)\n",
        );
        if pythons().is_empty() {
            return;
        }
        let ended = world.run([] as [&str; 0]).end();
        assert_eq!(ended.text(), "[\"a\", \"a\", true]\n[\"b\", \"b\", true]\n");
    }
}

#[test]
fn serve_fails_the_item_that_its_worker_died_of_and_goes_on() {
    let script =
        "while IFS= read -r x; do case $x in b) echo oh >&2; exit 3;; esac; echo \"$x!\"; done";
    let world = serving(script, "serve = [\"sh\", \"worker.sh\"]");
    let ended = world.run(["--json"]).input("a\nb\nc\n").end();
    assert_eq!(ended.code, Some(1));
    let objects = ended.json();
    assert_eq!((&objects[0]["value"], &objects[2]["value"]), (&"a!".into(), &"c!".into()));
    let error = &objects[1]["error"];
    assert_eq!((&error["kind"], &error["code"]), (&"worker".into(), &3.into()));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("exit status 3; it said last: oh"), "{message}");
    assert!(ended.stderr.contains("in 3 = ok 2 + failed 1 + unfinished 0"));
}

#[test]
fn serve_fails_a_value_with_a_newline_and_names_the_other_framing() {
    let world = World::with(
        "[source]\nlines = \"-\"\nnull = true\n[[stage]]\nname = \"ask\"\nserve = \"cat\"\n",
    );
    let ended = world.run([] as [&str; 0]).input("a\nb\0c\0").end();
    assert_eq!((ended.code, ended.text()), (Some(1), "c\n"));
    assert!(ended.stderr.contains("framing = \"json\""), "{}", ended.stderr);
}

#[test]
fn a_worker_that_never_answers_ends_the_run_with_4_and_its_last_words() {
    for command in ["sh -c 'echo no licence >&2; exit 1'", "false"] {
        let world = serving("", &format!("serve = \"{command}\""));
        let ended = world.run([] as [&str; 0]).input("a\nb\nc\nd\ne\n").end();
        assert_eq!(ended.code, Some(4), "{}", ended.stderr);
        let said = ended.stderr;
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains("stage `ask`") && error.contains("3 times in a row"), "{error}");
        assert_eq!(error.contains("no licence"), command.starts_with("sh"));
    }
}

#[test]
fn a_serve_program_that_is_not_there_ends_the_run_with_4_at_once() {
    let world = serving("", "serve = \"no-such-program\"");
    let ended = world.run([] as [&str; 0]).input("a\nb\n").end();
    assert_eq!(ended.code, Some(4));
    assert_eq!(ended.stderr.matches("error: ").count(), 1);
    assert!(ended.stderr.contains("no-such-program"));
}

#[test]
fn serve_writes_to_files_recycles_and_has_timeouts_and_retries() {
    let script = "while read -r x; do case $x in slow) exec sleep 60;; \
                  once) [ -e mark ] || { >mark; exit 1; };; esac; echo \"$$\"; done";
    let world = serving(
        script,
        "serve = { command = \"sh worker.sh\", max_items = 2 }\nto = \"out/{}.txt\"\n\
         timeout = \"500ms\"\nretry = { times = 1 }",
    );
    let ended = world.run([] as [&str; 0]).input("a\nb\nc\nslow\nonce\n").end();
    assert_eq!(ended.text(), "out/a.txt\nout/b.txt\nout/c.txt\nout/once.txt\n");
    assert_eq!(ended.code, Some(1));
    assert_eq!(world.list("out"), ["a.txt", "b.txt", "c.txt", "once.txt"]);
    assert_eq!(world.read("out/a.txt"), world.read("out/b.txt"));
    assert_ne!(world.read("out/b.txt"), world.read("out/c.txt"));
    let said = ended.stderr;
    assert!(said.contains("slow") && said.contains("took longer than 500ms (after 2 attempts)"));
}

#[test]
fn python_gets_text_and_gives_text_bytes_and_json() {
    let module = "def f(x):\n    assert isinstance(x, str)\n    return {'t': x.upper(), 'b': b'\\xff\\n', \
                  'n': 7, 'l': [1, {'a': None}], 'x': None, 'e': '\\u00e4'}.get(x, x)\n";
    each_python(module, "", |world| {
        let items = b"t\nb\nn\nl\nx\ne\nother \xff\n";
        let ended = world.run([] as [&str; 0]).input(items.to_vec()).end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let expected = b"T\n\xff\n\n7\n[1,{\"a\":null}]\nnull\n\xc3\xa4\nother \xff\n";
        assert_eq!(ended.stdout, expected);
    });
}

#[test]
fn python_gets_a_dict_for_json_and_csv_items() {
    for python in pythons() {
        for (source, items) in
            [("jsonl", "{\"n\":\"a\",\"v\":{\"deep\":[1.50]}}\n"), ("csv", "n,v\na,\u{e4}\n")]
        {
            let world = World::with(&format!(
                "[source]\n{source} = \"items\"\n[[stage]]\nname = \"py\"\n\
                 python = {{ function = \"work:f\", interpreter = \"{python}\" }}\n"
            ));
            world.write("items", items);
            world.write("work.py", "def f(x):\n    return type(x).__name__ + repr(x)\n");
            let ended = world.run([] as [&str; 0]).end();
            let expected = match source {
                "jsonl" => "dict{'n': 'a', 'v': {'deep': [1.5]}}\n",
                _ => "dict{'n': 'a', 'v': '\u{e4}'}\n",
            };
            assert_eq!(ended.text(), expected, "{}", ended.stderr);
        }
    }
}

#[test]
fn r64_12_an_exception_fails_the_item_with_type_message_and_traceback() {
    let module = "def deep(x):\n    raise ValueError('bad ' + x)\ndef f(x):\n    \
                  return deep(x) if x == 'b' else x\n";
    each_python(module, "", |world| {
        let ended = world.run(["--json"]).input("a\nb\nc\n").end();
        assert_eq!(ended.code, Some(1));
        let objects = ended.json();
        let error = &objects[1]["error"];
        assert_eq!(error["kind"], "worker");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("ValueError: bad b\n"), "{message}");
        assert!(message.contains("Traceback (most recent call last)"), "{message}");
        assert!(message.contains("work.py\", line 2, in deep"), "{message}");
        assert!(!message.contains("<paceline>"), "{message}");
        let said = ended.stderr;
        assert!(said.contains("ValueError: bad b"), "{said}");
        assert!(said.contains("in deep"), "{said}");
        assert_eq!(objects[2]["value"], "c");
    });
}

#[test]
fn r64_4_whatever_a_function_does_costs_its_item_alone() {
    // One that closes the channel and returns at once may still be heard, by the slate.
    let module = "import os, sys, signal, time\ndef f(x):\n    \
        if x == 'exit': sys.exit(3)\n    \
        if x == '_exit': os._exit(4)\n    \
        if x == 'segv': os.kill(os.getpid(), signal.SIGSEGV)\n    \
        if x == 'set': return {1}\n    \
        if x == 'nan': return float('nan')\n    \
        if x == 'deep': return f(x)\n    \
        if x == 'sur': return '\\ud800'\n    \
        if x == 'close': os.closerange(3, 64); time.sleep(60)\n    \
        if x == 'print': print('stray'); sys.stdout.flush(); os.write(1, b'more stray\\n')\n    \
        return x\n";
    each_python(module, "workers = 1", |world| {
        let items = "a\nexit\nb\n_exit\nc\nsegv\nd\nset\nnan\ndeep\nsur\nclose\ne\nprint\ng\n";
        let ended = world.run(["--json"]).input(items).end();
        let objects = ended.json();
        for object in &objects {
            let item = object["in"].as_str().unwrap();
            let is_ok = item.len() == 1 || item == "print";
            assert_eq!(object["status"], if is_ok { "ok" } else { "failed" }, "{object}");
            if is_ok {
                assert_eq!(object["value"], item);
            } else {
                assert_eq!(object["error"]["kind"], "worker");
                assert_eq!(object["attempts"], 1);
            }
        }
        assert_eq!(objects.len(), 15);
        assert_eq!(objects[3]["error"]["code"], 4);
        assert_eq!(objects[5]["error"]["signal"], 11);
        let said = ended.stderr;
        assert!(said.contains("\nstray\n") && said.contains("\nmore stray\n"), "{said}");
    });
}

#[test]
fn python_awaits_an_async_function_for_several_items_at_once() {
    // Eight wait for each other: one at a time would wait for ever.
    let module = "import asyncio\narrived = 0\nasync def f(x):\n    global arrived\n    arrived += 1\n    \
                  while arrived < 8: await asyncio.sleep(0.001)\n    \
                  if x == '5': raise KeyError(x)\n    return x * 2\n";
    each_python(module, "workers = 1", |world| {
        let ended = world.run([] as [&str; 0]).input("1\n2\n3\n4\n5\n6\n7\n8\n").end();
        assert_eq!(ended.text(), "11\n22\n33\n44\n66\n77\n88\n");
        assert!(ended.stderr.contains("KeyError: '5'"), "{}", ended.stderr);
    });
}

#[test]
fn python_answers_of_every_kind_come_in_order_from_batches() {
    let module = "\
def f(x):
    n = int(x)
    if n % 9 == 1: return {'n': n}
    if n % 9 == 2: return ''
    if n % 9 == 3: return 'z\\0' + x
    if n % 9 == 4: raise ValueError(x)
    if n % 9 == 5: return x.encode() + b'\\0'
    if n % 9 == 6: return '\\udcff' + x
    if n % 9 == 7: return b'\\xe4'
    return 'y' * 300000 if n % 1000 == 0 else x
";
    each_python(module, "workers = 1", |world| {
        let items: String = (0..3000).map(|n| format!("{n}\n")).collect();
        let ended = world.run([] as [&str; 0]).input(items).end();
        let mut expected = Vec::new();
        for n in 0..3000 {
            let text = n.to_string().into_bytes();
            match n % 9 {
                1 => expected.extend_from_slice(format!("{{\"n\":{n}}}").as_bytes()),
                2 => {}
                3 => expected.extend([&b"z\0"[..], &text].concat()),
                4 => continue,
                5 => expected.extend([&text[..], b"\0"].concat()),
                6 => expected.extend([&b"\xff"[..], &text].concat()),
                7 => expected.push(b'\xe4'),
                _ if n % 1000 == 0 => expected.extend(vec![b'y'; 300_000]),
                _ => expected.extend(text),
            }
            expected.push(b'\n');
        }
        assert!(ended.stdout == expected, "{}", ended.stderr);
        ended.exits(1).counts(3000, 2667, 333, 0);
    });
}

#[test]
fn python_stages_hand_on_what_only_python_knows_as_the_bytes_of_a_pickle() {
    for python in pythons() {
        let stage = |name, function| {
            format!(
                "[[stage]]\nname = \"{name}\"\nordered = true\n\
                 python = {{ function = \"work:{function}\", interpreter = \"{python}\" }}\n"
            )
        };
        let stages = [stage("made", "make"), stage("used", "use")].concat();
        let world = World::with(&format!("[source]\nlines = \"-\"\n{stages}"));
        world.write(
            "work.py",
            "import os, pickle\ndef make(x):\n    return pickle.dumps({int(x), 2j, b'\\xff\\n'})\n\
             def use(x):\n    return sorted(map(repr, pickle.loads(os.fsencode(x))))\n",
        );
        let ended = world.run([] as [&str; 0]).input("10\n12\n").end();
        let line = |number| format!("[\"{number}\",\"2j\",\"b'\\\\xff\\\\n'\"]\n");
        assert_eq!(ended.text(), [line(10), line(12)].concat(), "{}", ended.stderr);
    }
}

/// Has so many numbers done by a function that notes each and dies of those that end with 77: they
/// fail, and no other is lost or done twice.
fn each_done_once(module: &str, count: usize) {
    each_python(module, "", |world| {
        let items: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let ended = world.run([] as [&str; 0]).input(items.join("\n")).end();
        let is_whole = |item: &&str| !item.ends_with("77");
        let whole: Vec<_> = items.iter().map(String::as_str).filter(is_whole).collect();
        assert_eq!(ended.lines(), whole);
        let log = world.read("log");
        let mut done: Vec<_> = log.lines().collect();
        done.sort_by_key(|item| item.parse::<u32>().unwrap());
        assert_eq!(done, items);
        let ok = whole.len();
        ended.exits(1).counts(count as u64, ok as u64, (count - ok) as u64, 0);
    });
}

#[test]
fn r64_4_a_death_in_a_batch_costs_one_item_and_no_other_is_done_twice() {
    let module = "\
import os
log = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def f(x):
    os.write(log, x.encode() + b'\\n')
    if x.endswith('77'): os._exit(3)
    return x
";
    each_done_once(module, 2000);
}

#[test]
fn r64_4_answers_that_gather_outlive_python_and_no_item_is_done_twice() {
    let module = "\
import os, signal, time
log = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def f(x):
    os.write(log, x.encode() + b'\\n')
    time.sleep(0.0005)
    if x.endswith('77'): os.kill(os.getpid(), signal.SIGKILL)
    return x
";
    each_done_once(module, 300);
}

#[test]
fn python_gets_each_of_a_batch_of_json_items_by_itself() {
    for python in pythons() {
        let world = World::with(&format!(
            "[source]\njsonl = \"items\"\n[[stage]]\nname = \"py\"\nordered = true\n\
             workers = 1\npython = {{ function = \"work:f\", interpreter = \"{python}\" }}\n"
        ));
        let items = (0..2000).map(|n| format!("{{\"n\": {n}, \"s\": \"}},{{\\u0000]\"}}\n"));
        world.write("items", items.collect::<String>());
        world.write("work.py", "def f(x):\n    return [x['n'], x['s']]\n");
        let ended = world.run([] as [&str; 0]).end();
        let expected: Vec<_> = (0..2000).map(|n| format!("[{n},\"}},{{\\u0000]\"]")).collect();
        assert_eq!(ended.lines(), expected, "{}", ended.stderr);
    }
}

#[test]
fn r64_7_what_keeps_python_from_beginning_is_told_once_and_ends_the_run_with_4() {
    for (module, function, expected) in [
        ("def g(x): pass\n", "work:f", "module `work` has no function `f`"),
        ("f = 3\n", "work:f", "`f` in module `work` cannot be called"),
        ("def f(x): pass\n", "nowhere:f", "there is no module `nowhere`"),
        ("import json\n1/0\n", "work:f", "importing `work` failed: ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "work:f", "importing `work` failed: SystemExit: 3"),
        ("import os\nos._exit(3)\n", "work:f", "3 times in a row"),
        ("def f(x:\n", "work:f", "importing `work` failed: SyntaxError"),
    ] {
        for python in pythons() {
            let world = World::with(&format!(
                "[source]\nlines = \"-\"\n[[stage]]\nname = \"py\"\n\
                 python = {{ function = \"{function}\", interpreter = \"{python}\" }}\n"
            ));
            world.write("work.py", module);
            let ended = world.run([] as [&str; 0]).input("a\nb\nc\n").end();
            assert_eq!(ended.code, Some(4), "{}", ended.stderr);
            let said = ended.stderr;
            let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
            assert_eq!(errors.len(), 1, "{said}");
            assert!(errors[0].contains(expected) && errors[0].contains("stage `py`"), "{said}");
        }
    }
}

#[test]
fn a_missing_interpreter_is_named_and_a_virtual_environment_is_used() {
    let world = World::with(
        "[source]\nlines = \"-\"\n[[stage]]\nname = \"py\"\n\
         python = { function = \"work:f\", interpreter = \"no-python\" }\n",
    );
    world.write("work.py", "def f(x): return x\n");
    let ended = world.run([] as [&str; 0]).input("a\n").end();
    assert_eq!(ended.code, Some(4));
    assert!(ended.stderr.contains("no-python"), "{}", ended.stderr);

    if pythons().is_empty() {
        return;
    }
    let world =
        World::with("[source]\nlines = \"-\"\n[[stage]]\nname = \"py\"\npython = \"work:f\"\n");
    world.write("work.py", "import os\ndef f(x): return os.environ['MARK']\n");
    world.write("venv/bin/python3", "#!/bin/sh\nMARK=ours exec python3 \"$@\"\n");
    world.sh("chmod +x venv/bin/python3").end();
    let ended =
        world.run([] as [&str; 0]).env("VIRTUAL_ENV", world.path("venv")).input("a\n").end();
    assert_eq!(ended.text(), "ours\n", "{}", ended.stderr);
}

/// Those of the book, second edition, and what their greatest common divisors are.
const PAIRS: &str = "1963309 2265973\n2030677 3814172\n1551645 2229620\n2039045 2020802\n\
    1823712 1924928\n2293129 1020491\n1281238 2273782\n3823812 4237281\n3812741 4729139\n\
    1292391 2123811\n";
const DIVISORS: [u64; 10] = [1, 1, 5, 1, 32, 1, 14, 9, 1, 9];

#[test]
fn r64_1_the_pairs_of_the_book_come_in_order_and_r64_2_from_two_processes() {
    // Each waits for the other once, so that both have items.
    let module = "import math, os, time\n\
        open('here-%d' % os.getpid(), 'w').close()\n\
        def f(x):\n    a, b = map(int, x.split())\n    \
        while sum(name.startswith('here-') for name in os.listdir('.')) < 2: time.sleep(0.01)\n    \
        return [math.gcd(a, b), os.getpid()]\n";
    each_python(module, "workers = 2", |world| {
        let ended = world.run([] as [&str; 0]).input(PAIRS).end().exits(0);
        let answers: Vec<(u64, u32)> =
            ended.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let divisors: Vec<_> = answers.iter().map(|(divisor, _)| *divisor).collect();
        assert_eq!(divisors, DIVISORS);
        assert_eq!(world.list(".").iter().filter(|name| name.starts_with("here-")).count(), 2);
    });
}

#[test]
fn r64_6_max_items_is_exact_with_a_backlog() {
    let module = "import os\ndef f(x): return os.getpid()\n";
    for python in pythons() {
        let world = World::with(&format!(
            "[source]\nlines = \"-\"\n[[stage]]\nname = \"py\"\nordered = true\nworkers = 1\n\
             python = {{ function = \"work:f\", interpreter = \"{python}\", max_items = 2 }}\n"
        ));
        world.write("work.py", module);
        let ended = world.run([] as [&str; 0]).input("x\n".repeat(10)).end();
        let stdout = ended.text();
        let pids: Vec<_> = stdout.lines().collect();
        let sizes: Vec<_> = pids.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
        assert_eq!(sizes, [2; 5]);
    }
}

#[test]
fn r64_8_workers_end_within_a_second_when_the_program_is_killed() {
    let module = "import time\ndef f(x):\n    open('begun', 'w').close()\n    time.sleep(600)\n";
    each_python(module, "workers = 1", |world| {
        // Dropping the world fails if anything of it is left.
        let script = "echo a | \"$PACELINE\" run p.toml & pid=$!; \
                      while [ ! -e begun ]; do sleep 0.01; done; kill -9 $pid";
        world.sh(script).end();
    });
}

#[test]
fn a_worker_that_is_ready_when_nobody_needs_it_any_more_ends_in_silence() {
    // The second to begin waits until its channel has been closed.
    let module = "\
import os, select, stat
try:
    os.close(os.open('first', os.O_CREAT | os.O_EXCL))
except FileExistsError:
    gone = select.poll()
    for name in os.listdir('/proc/self/fd'):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                gone.register(int(name), 0)
        except OSError:
            pass
    open('waits', 'w').close()
    gone.poll()
def f(x):
    while not os.path.exists('waits'):
        pass
    return x
";
    each_python(module, "workers = 2", |world| {
        let ended = world.run([] as [&str; 0]).input("a\nb\n").end();
        assert_eq!((ended.code, ended.text()), (Some(0), "a\nb\n"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("Traceback"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("rror"), "{}", ended.stderr);
    });
}

#[test]
fn workers_are_as_many_as_the_limit_of_open_files_has_room_for() {
    let script = "while IFS= read -r line; do echo \"$line\"; done";
    let world = serving(script, "serve = \"sh worker.sh\"");
    let file = world.read("p.toml");
    world.write("p.toml", file.replace("workers = 1", "workers = 200"));
    let ended = world.sh("ulimit -n 96; seq 300 | \"$PACELINE\" run p.toml").end();
    ended.exits(0).counts(300, 300, 0, 0).says("at once and not 200").says("ulimit -n");
}

#[test]
fn ctrl_c_ends_workers_and_their_items_are_unfinished() {
    let module = "import time\ndef f(x):\n    open('begun', 'w').close()\n    time.sleep(600)\n";
    each_python(module, "", |world| {
        let script = "(while [ ! -e begun ]; do sleep 0.01; done; kill -INT $$) & \
                      exec \"$PACELINE\" run p.toml";
        let ended = world.sh(script).input("a\nb\nc\n").end();
        assert_eq!(ended.signal, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("unfinished"), "{}", ended.stderr);
    });
}

#[test]
fn the_example_with_python_functions_does_what_it_says() {
    if pythons().is_empty() {
        return;
    }
    let world = World::new();
    for name in ["pipeline.toml", "numbers_of.py"] {
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python");
        world.write(name, std::fs::read(from.join(name)).unwrap());
    }
    let ended = world.paceline(["run", "pipeline.toml"]).end().exits(0);
    let expected = ["coprime", "coprime", "both divisible by 5", "coprime"];
    assert_eq!(ended.lines(), expected);
}

#[test]
fn python_goes_on_with_a_run_where_it_failed() {
    let module = "import os\n\ndef f(value):\n    with open('calls', 'a') as calls:\n        \
                  calls.write(value + '\\n')\n    if value == 'b' and not os.path.exists('mended'):\n        \
                  raise ValueError('not yet')\n    return {'made of': value}\n";
    each_python(module, "", |world| {
        let ended = world.run(["-q"]).input("a\nb\nc\n").end();
        assert_eq!((ended.code, ended.text().lines().count()), (Some(1), 2), "{}", ended.stderr);
        let failed = world.paceline(["failed"]).end();
        assert!(failed.text().contains("not yet"), "{}", failed.text());
        world.write("mended", "");
        let ended = world.paceline(["resume", "-q"]).end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.text(), "{\"made of\":\"b\"}\n");
        assert_eq!(world.read("calls").lines().filter(|call| *call != "b").count(), 2);
    });
}

#[test]
fn r64_python_workers_that_wait_become_more_by_themselves_and_their_number_is_kept() {
    let Some(python) = pythons().first().copied() else { return };
    let world = World::with(&format!(
        "[source]\nlines = \"-\"\n[[stage]]\nname = \"py\"\nordered = true\n\
         python = {{ function = \"work:f\", interpreter = \"{python}\" }}\n"
    ));
    world.write("work.py", "import time\ndef f(x):\n    time.sleep(0.03)\n    return x\n");
    let cores = std::thread::available_parallelism().unwrap().get();
    let items: String = (0..60 * cores).map(|n| format!("{n}\n")).collect();
    let words = ["--journal", "j.db", "--pace-log", "pace", "--freeze", "plan"];
    let ended = world.run(words).input(items.as_str()).end().exits(0);
    assert_eq!(ended.text(), items, "the order is kept while workers come and go");
    let plan = world.read("plan");
    let kept: usize = plan.split("\"py\" = ").nth(1).unwrap().trim().parse().unwrap();
    assert!(kept > cores, "{plan}");
    let log = world.read("pace");
    let surveys = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let seen: Vec<_> = surveys.map(|survey| survey["stages"][1].clone()).collect();
    assert!(seen.iter().any(|stage| stage["nature"] == "waiting"), "{log}");
    // The same number, said: it stays.
    let ended = world.run(["--workers-from", "plan"]).input("1\n2\n").end().exits(0);
    assert_eq!(ended.text(), "1\n2\n");
    ended.says_not("workers of `py`");
}
