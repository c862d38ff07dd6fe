-- Format 1. The columns are explained in docs/journal-format.md.

CREATE TABLE runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT,
    command TEXT NOT NULL,
    name TEXT NOT NULL,
    pipeline BLOB,
    definition BLOB NOT NULL,
    source TEXT NOT NULL,
    source_ended INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE sessions (
    run INTEGER NOT NULL,
    session INTEGER NOT NULL,
    token TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_start INTEGER NOT NULL,
    boot TEXT NOT NULL,
    version TEXT NOT NULL,
    started_unix_ms INTEGER NOT NULL,
    ended_unix_ms INTEGER,
    ending TEXT,
    exit_status INTEGER,
    PRIMARY KEY (run, session)
) STRICT, WITHOUT ROWID;

CREATE TABLE stages (
    run INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    definition BLOB NOT NULL,
    PRIMARY KEY (run, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE inputs (
    run INTEGER NOT NULL,
    position INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (run, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE folders (
    run INTEGER NOT NULL,
    path BLOB NOT NULL,
    PRIMARY KEY (run, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE items (
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    id BLOB NOT NULL,
    ordinal INTEGER NOT NULL,
    value BLOB NOT NULL,
    detail BLOB,
    taken_unix_ms INTEGER NOT NULL,
    printed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE results (
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    worker INTEGER NOT NULL,
    batch INTEGER,
    ended_unix_ms INTEGER NOT NULL,
    service_us INTEGER NOT NULL,
    cpu_us INTEGER,
    peak_memory_kb INTEGER,
    value BLOB,
    file TEXT,
    PRIMARY KEY (run, seq, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE failures (
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    kind TEXT NOT NULL,
    code INTEGER,
    signal INTEGER,
    message TEXT NOT NULL,
    command TEXT,
    stderr BLOB,
    PRIMARY KEY (run, seq, stage)
) STRICT, WITHOUT ROWID;

CREATE INDEX results_of_batches ON results (run, stage, batch) WHERE batch IS NOT NULL;
